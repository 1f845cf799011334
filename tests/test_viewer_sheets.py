"""Imagined beside real as pictures: recorded ones laid out, retrieved ones found and drawn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from imagination_doubles import perfect, write_run
from PIL import Image
from starlette.testclient import TestClient
from test_viewer_documents import library, read
from viewer_doubles import GreyIllustrator, grey, say_cameras

from wamsim.viewer import sheets
from wamsim.viewer.server import application
from wamsim.viewer.studio import Studio

CELL = (16, 24)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def shades(i: int, block: dict) -> dict:
    """Flat pictures: real 100 + query, imagined 10 brighter, ceiling 5 darker."""
    shape = block["imagined_executed"].shape
    base = np.full((*shape, *CELL, 3), 100, np.uint8)
    base += np.arange(shape[0], dtype=np.uint8)[:, None, None, None, None]
    return {
        "real_frames": base,
        "imagined_frames": base + 10,
        "ceiling_frames": base - 5,
        "seen_qpos": np.zeros((41, 3)),
    }


def undrawn(i: int, block: dict) -> dict:
    return {"seen_qpos": np.zeros((41, 3))}


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A run of a model that draws; horizons 2 and 6, of which 4 actions are executed."""
    write_run(tmp_path / "run", perfect, episodes=1, extra=shades, horizons=(2, 6))
    say_cameras(tmp_path / "run")
    return tmp_path / "run"


def test_a_sheet_has_rows_by_horizons(drawn: Path) -> None:
    lib = library(drawn)
    (about,) = read(lib, "episode/run/s/t/0")["imagination"]
    pictures = about["pictures"]
    assert pictures["kind"] == "decoded"
    assert pictures["rows"] == ["real", "imagined", "difference", "ceiling"]
    assert (pictures["columns"], pictures["cell"]) == ([2, 6], {"width": 24, "height": 16})
    one = lib.imaginer("run", next(iter(lib.shelf.run("run").records)), "0")
    sheet = pixels(sheets.decoded_sheet(one.about, 3))
    assert sheet.shape == (4 * 16, 2 * 24, 3)
    rows = sheet.reshape(4, 16, 2, 24, 3)
    assert [int(rows[r, :, 0].min()) for r in range(4)] == [103, 113, 10, 98]
    assert [int(rows[r, :, 0].max()) for r in range(4)] == [103, 113, 10, 98]  # without loss
    # Six steps ahead was never acted out as imagined: nothing real belongs beside it.
    assert about["executed"][3] == [True, False]
    assert [int(rows[r, :, 1].max()) for r in range(4)] == [40, 113, 40, 40]


def test_the_strip_shows_every_query_at_the_last_executed_horizon(drawn: Path) -> None:
    lib = library(drawn)
    strip = read(lib, "episode/run/s/t/0")["imagination"][0]["pictures"]["strip"]
    one = lib.imaginer("run", next(iter(lib.shelf.run("run").records)), "0")
    shown = pixels(sheets.decoded_strip(one.about))
    cell = strip["cell"]
    assert (strip["horizon"], strip["columns"]) == (2, 10)
    assert shown.shape[:2] == (4 * cell["height"], 10 * cell["width"])
    real = shown[: cell["height"]].reshape(cell["height"], 10, cell["width"], 3)
    means = real[4:-4, :, 4:-4].mean((0, 2, 3))
    np.testing.assert_allclose(means, 100 + np.arange(10), atol=3)  # a lossy picture


def test_a_long_episodes_strip_fits_a_picture() -> None:
    about = sheets.Sheets(
        path=Path("x"), prefix="", kind=sheets.DECODED, cameras=("a",), horizons=(1,),
        queries=1000, rows=("real",), cell=(64, 128), strip_horizon=0,
    )  # fmt: skip
    height, width = about.strip_cell
    assert 1000 * width <= 16383  # the largest WebP
    assert (height, width) == (8, 16)


def test_difference_by_hand() -> None:
    a = np.array([[[10, 200, 0]]], np.uint8)
    b = np.array([[[30, 190, 255]]], np.uint8)
    assert sheets.difference(a, b).tolist() == [[[20, 10, 255]]]
    assert sheets.difference(b, a).tolist() == [[[20, 10, 255]]]


@pytest.mark.parametrize("kind", ["decoded", "retrieval"])
def test_the_server_sends_sheets(tmp_path: Path, kind: str) -> None:
    extra = shades if kind == "decoded" else undrawn
    write_run(tmp_path / "run", perfect, episodes=2, extra=extra)
    say_cameras(tmp_path / "run")
    studio = Studio(GreyIllustrator(), tmp_path / "cache", processes=1)
    try:
        visit = TestClient(application(library(tmp_path), studio), base_url="http://127.0.0.1")
        (one,) = visit.get("/data/episode/run/s/t/1.json").json()["imagination"]
        pictures = one["pictures"]
        assert pictures["kind"] == kind
        sent = visit.get(f"/{pictures['sheets'][2]}")
        assert (sent.status_code, sent.headers["content-type"]) == (200, "image/webp")
        cell, rows = pictures["cell"], len(pictures["rows"])
        sheet = pixels(sent.content)
        assert sheet.shape[:2] == (rows * cell["height"], 2 * cell["width"])
        if kind == "retrieval":
            # The real frames 2 and 4 steps after query 2, which began at step 8; perfect
            # imagination finds the very same.
            for r in (0, 1):
                for k, ahead in enumerate((2, 4)):
                    middle = sheet[64 + 128 * r, 64 + 128 * k]
                    assert abs(int(middle[0]) - grey(8 + ahead)) <= 3
        else:
            assert visit.get(f"/{pictures['strip']['url']}").status_code == 200
        for missing in ("0/99", "1/0", "0/-1", "x/0"):
            address = f"/media/imagined/run/s/t/1/{missing}.webp"
            assert visit.get(address).status_code == 404
        again = {"If-None-Match": sent.headers["etag"]}
        assert visit.get(f"/{pictures['sheets'][2]}", headers=again).status_code == 304
    finally:
        studio.close()


def test_a_perfect_latent_finds_its_own_frame(tmp_path: Path) -> None:
    def named(i: int, block: dict) -> dict:
        return {"seen_qpos": np.zeros((41, 3))}

    write_run(tmp_path / "run", perfect, episodes=3, extra=named)
    run = tmp_path / "run"
    say_cameras(run)
    lib = library(run)
    document = read(lib, "retrieval/run/s/t/1/0")
    steps = read(lib, "episode/run/s/t/1")["imagination"][0]["steps"]
    for q, row in enumerate(document["found"]):
        for h, cell in zip((2, 4), row, strict=True):
            assert (cell["trial"], cell["step"]) == (1, steps[q] + h)
            assert cell["distance"] == pytest.approx(0, abs=1e-3)
    assert document["episodes"] == 3


def test_a_shuffled_latent_finds_the_frame_that_it_was_taken_from(tmp_path: Path) -> None:
    def late(real: np.ndarray, still: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.roll(real, -1, axis=0)  # imagines what comes one query later

    write_run(
        tmp_path / "run", late, episodes=2, extra=lambda i, b: {"seen_qpos": np.zeros((41, 3))}
    )
    say_cameras(tmp_path / "run")
    lib = library(tmp_path / "run")
    found = read(lib, "retrieval/run/s/t/0/0")["found"]
    steps = read(lib, "episode/run/s/t/0")["imagination"][0]["steps"]
    assert [row[0]["step"] for row in found[:-1]] == [s + 2 for s in steps[1:]]
