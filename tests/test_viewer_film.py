"""Films: any frame at once, in any order, at a place known beforehand."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from wamsim.video import read_frames
from wamsim.viewer.film import (
    FilmSpec,
    Layout,
    StillEncoder,
    begin_film,
    fill_film,
    read_layout,
)
from wamsim.viewer.film_response import parse_range
from wamsim.viewer.mp4 import padded, split_units

SIZE = (64, 96)
FRAMES = 12


def pictures(seed: int = 0) -> list[np.ndarray]:
    """Smooth pictures that differ from step to step, with some texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    out = []
    for t in range(FRAMES):
        plane = 90 + 60 * np.sin(x / 9 + t) + 40 * np.cos(y / 7 - t) + rng.normal(0, 2, SIZE)
        out.append(np.repeat(plane.clip(0, 255).astype(np.uint8)[..., None], 3, 2))
    return out


def spec(folder: Path, name: str = "film", fps: float = 20.0) -> FilmSpec:
    return FilmSpec(
        path=Path("episode"),
        config={},
        camera="front",
        frames=FRAMES,
        fps=fps,
        target=folder / f"{name}.mp4",
        partial=folder / f"{name}.part",
    )


def make(folder: Path, order: list[int], name: str = "film", fps: float = 20.0) -> Path:
    drawn, film, encoder = pictures(), spec(folder, name, fps), StillEncoder(SIZE, fps)
    layout = begin_film(film, encoder, drawn[0])
    fill_film(film, layout, encoder, [(t, drawn[t]) for t in order])
    return film.partial.rename(film.target)


def test_every_frame_is_the_picture_of_its_step(tmp_path: Path) -> None:
    film = make(tmp_path, list(range(1, FRAMES)))
    found = list(read_frames(film))
    assert len(found) == FRAMES
    for got, drawn in zip(found, pictures(), strict=True):
        mse = np.mean((got.astype(float) - drawn) ** 2)
        assert 10 * np.log10(255**2 / mse) > 36  # a neighbouring step is below 20 dB
    wrong = np.mean((found[3].astype(float) - pictures()[4]) ** 2)
    assert 10 * np.log10(255**2 / wrong) < 20


def test_frames_may_come_in_any_order_and_give_the_same_bytes(tmp_path: Path) -> None:
    one = make(tmp_path, list(range(1, FRAMES)), "one")
    other = make(tmp_path, [7, 8, 3, 2, 1, 11, 10, 9, 4, 5, 6], "other")
    assert one.read_bytes() == other.read_bytes()


def test_the_container_says_what_browsers_need(tmp_path: Path) -> None:
    film = make(tmp_path, list(range(1, FRAMES)))
    data = film.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playable before all of it is there
    with av.open(str(film)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.frames) == (96, 64, FRAMES)
        assert stream.average_rate == 20
        assert float(stream.duration * stream.time_base) == FRAMES / 20
        packets = [p for p in file.demux(stream) if p.pts is not None]
    assert all(packet.is_keyframe for packet in packets)
    assert [float(p.pts * p.time_base) for p in packets] == [t / 20 for t in range(FRAMES)]


def test_uneven_rates_are_kept(tmp_path: Path) -> None:
    film = make(tmp_path, list(range(1, FRAMES)), fps=12.5)
    with av.open(str(film)) as file:
        assert float(file.streams.video[0].average_rate) == 12.5


def test_the_layout_is_known_from_the_start_and_read_back(tmp_path: Path) -> None:
    film, encoder = spec(tmp_path), StillEncoder(SIZE, 20.0)
    layout = begin_film(film, encoder, pictures()[0])
    assert film.partial.stat().st_size == layout.size  # before any other frame is drawn
    film.partial.rename(film.target)
    assert read_layout(film.target) == layout
    (tmp_path / "other.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no film"):
        read_layout(tmp_path / "other.mp4")


def test_places_of_bytes() -> None:
    layout = Layout(header=100, slot=10, frames=3)
    assert [layout.frame_at(b) for b in (0, 99, 100, 109, 110, 129)] == [-1, -1, 0, 0, 1, 2]
    assert [layout.end_of(f) for f in (-1, 0, 2)] == [100, 110, 130]
    assert layout.size == 130


def test_a_frame_that_is_too_large_gets_coarser_and_fits() -> None:
    encoder = StillEncoder(SIZE, 20.0)
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    best = len(encoder.encode(noise, 0))
    assert len(encoder.encode(noise, 1, best // 3)) == best // 3


def test_padding_by_hand() -> None:
    # 4 bytes of length and 3 of data; then a filler unit: length 3, type 12, 0xff, stop bit.
    assert padded([b"abc"], 14) == b"\0\0\0\3abc" + b"\0\0\0\3\x0c\xff\x80"
    assert padded([b"abc"], 7) == b"\0\0\0\3abc"
    assert padded([b"abc"], 9) is None  # 2 bytes hold no unit
    assert padded([b"abc"], 6) is None
    assert split_units(b"\0\0\0\3abc\0\0\0\1d") == [b"abc", b"d"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, (0, 100)),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-30", (70, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=0-9,20-29", (0, 100)),  # several: the whole, as RFC 9110 allows
        ("lines=1-2", (0, 100)),
        ("bytes=-", (0, 100)),
        ("bytes=100-", None),
        ("bytes=20-10", None),
        ("bytes=-0", None),
    ],
)
def test_ranges(asked: str | None, expected: tuple[int, int] | None) -> None:
    assert parse_range(asked, 100) == expected
