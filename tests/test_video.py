"""Captioned videos: what is in the file, where, and what happens when writing goes wrong."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from wamsim.captions import Caption, Sheet
from wamsim.contracts import Outcome
from wamsim.errors import OutOfSpace
from wamsim.video import read_frames, write_video

GREEN, RED = (52, 199, 104), (226, 62, 62)
LONG = "pick up the black bowl between the plate and the ramekin and place it on the plate"


def caption(**changes) -> Caption:
    fields = {"instruction": "push the plate", "limit": 40, "outcome": Outcome.SUCCESS}
    return Caption(**{**fields, **changes})


def shades(n: int, cameras: int = 2, size: tuple[int, int] = (64, 80)) -> Iterator[np.ndarray]:
    """Grey pictures, one shade per step and camera: 4 * step + 40 * camera."""
    for step in range(n):
        pictures = np.zeros((cameras, *size, 3), np.uint8)
        for camera in range(cameras):
            pictures[camera] = 4 * step + 40 * camera
        yield pictures


@pytest.fixture(scope="module")
def success(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "task" / "00007-success.mp4"
    return write_video(path, shades(11), caption())


def test_every_step_has_a_frame_and_the_last_one_stays_a_second(success: Path) -> None:
    with av.open(str(success)) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 20
        assert (stream.width % 2, stream.height % 2) == (0, 0)
        assert file.metadata["title"] == "push the plate"
    assert len(list(read_frames(success))) == 11 + 20


def test_a_browser_can_start_before_all_of_it_is_there(success: Path) -> None:
    data = success.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_pictures_lie_side_by_side_in_order_of_cameras(success: Path) -> None:
    frames = list(read_frames(success))
    sheet = Sheet(caption(), 2, (64, 80))
    # Pictures 80 wide with gaps of 5 (6 * 0.8), centred in a sheet of 256 (320 * 0.8).
    assert (frames[0].shape[1], sheet.width) == (256, 256)
    left = (256 - (80 + 5 + 80)) // 2
    for step in (0, 5, 10, 30):
        shown = min(step, 10)
        first = frames[step][5 : 5 + 64, left : left + 80]
        second = frames[step][5 : 5 + 64, left + 85 : left + 165]
        # 3: rounding of 8-bit YUV in limited range, twice
        np.testing.assert_allclose(first[8:-8, 8:-8], 4 * shown, atol=3)
        np.testing.assert_allclose(second[8:-8, 8:-8], 4 * shown + 40, atol=3)


def test_pictures_stay_untouched_before_encoding() -> None:
    sheet = Sheet(caption(), 1, (64, 80))
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 80, 3), np.uint8)
    frame = sheet.frame(picture, 3)
    left = (sheet.width - 80) // 2
    np.testing.assert_array_equal(frame[5 : 5 + 64, left : left + 80], picture[0])


@pytest.mark.parametrize(("outcome", "colour"), [(Outcome.SUCCESS, GREEN), (Outcome.FAILURE, RED)])
def test_the_outcome_is_marked_where_it_fires(
    outcome: Outcome, colour: tuple[int, int, int], tmp_path: Path
) -> None:
    words = caption(outcome=outcome, reason="step limit 40")
    frames = list(read_frames(write_video(tmp_path / "x.mp4", shades(5), words)))
    between = (2 + 32, frames[0].shape[1] // 2)  # in the gap between the two pictures
    for step, frame in enumerate(frames):
        if step < 4:
            assert frame[between].max() < 60
        else:
            # chroma is subsampled, so an edge five pixels wide bleeds a little
            np.testing.assert_allclose(frame[between], colour, atol=25)


def test_colours_survive_the_file(tmp_path: Path) -> None:
    colours = [(200, 30, 30), (30, 160, 60), (40, 60, 200), (230, 200, 40)]
    pictures = np.zeros((4, 64, 64, 3), np.uint8)
    for picture, colour in zip(pictures, colours, strict=True):
        picture[:] = colour
    path = write_video(tmp_path / "x.mp4", iter([pictures] * 3), caption(), hold_s=0)
    with av.open(str(path)) as file:
        stream = file.streams.video[0].codec_context
        assert (stream.colorspace, stream.color_range) == (1, 1)  # BT.709, limited
    shown = next(read_frames(path))
    for i, colour in enumerate(colours):
        left = 5 + i * 69
        np.testing.assert_allclose(shown[25:50, left + 16 : left + 48].mean((0, 1)), colour, atol=4)


@pytest.mark.parametrize(
    ("cameras", "size"), [(1, (64, 64)), (2, (65, 67)), (2, (256, 256)), (3, (84, 84))]
)
@pytest.mark.parametrize("words", ["go", LONG, LONG * 5, "x" * 400, ""])
def test_words_stay_inside_the_bar(cameras: int, size: tuple[int, int], words: str) -> None:
    reason = "the policy returned a non-finite action at step 37 of what was a long episode"
    sheet = Sheet(caption(instruction=words, outcome=Outcome.FAILURE, reason=reason), cameras, size)
    frame = sheet.frame(np.full((cameras, *size, 3), 255, np.uint8), 39, last=True)
    assert frame.shape == (sheet.height, sheet.width, 3)
    bar = frame[size[0] + 2 * 6 + 6 :]
    edge = np.concatenate([bar[:, :6].reshape(-1, 3), bar[:, -6:].reshape(-1, 3), bar[-2:, 0]])
    assert (edge == edge[0]).all()  # nothing is written over the margin
    # slim: at most three lines of instruction, a row, and two lines of reason
    assert sheet.height - size[0] < 6.5 * 24 * max(size[0] / 256, 0.8)


def test_letters_that_the_font_lacks_do_not_become_boxes() -> None:
    plain = Sheet(caption(instruction="Kuche offnen"), 1, (64, 64))
    accents = Sheet(caption(instruction="Küche öffnen"), 1, (64, 64))
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(plain.frame(picture, 0), accents.frame(picture, 0))


def test_frames_are_taken_one_at_a_time(tmp_path: Path) -> None:
    """The generator reuses one buffer once its frame has been encoded, two steps later."""
    alive = 0
    most = 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def frames() -> Iterator[np.ndarray]:
        nonlocal alive, most
        for _ in range(50):
            alive += 1
            most = max(most, alive)
            yield np.zeros((2, 64, 64, 3), np.uint8).view(Counted)

    write_video(tmp_path / "x.mp4", frames(), caption())
    assert most <= 8  # views of the newest two; not 50 frames


def test_nothing_is_left_of_a_video_that_was_interrupted(tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield from shades(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "x.mp4", frames(), caption())
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "x.mp4", iter([]), caption())
    with pytest.raises(ValueError, match=r"expected uint8 \(2, 64, 80, 3\)"):
        write_video(tmp_path / "x.mp4", [*shades(1), *shades(1, cameras=1)], caption())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 2, 64, 64, 3), np.uint8)
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        with pytest.raises(OutOfSpace, match="finished videos are kept"):
            write_video(tmp_path / "x.mp4", noise, caption())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_equal_frames_give_equal_bytes(tmp_path: Path, success: Path) -> None:
    again = write_video(tmp_path / "again.mp4", shades(11), caption())
    assert again.read_bytes() == success.read_bytes()
