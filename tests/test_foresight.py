"""Which imagined picture stands beside which real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from doubles import CountingPolicy, card, sees
from test_imagination_pictures import Painter, run

from wamsim.conventions import Orientation
from wamsim.episode import read_record
from wamsim.foresight import Foresight, read_foresight


def drawn(orientation: Orientation = Orientation.UPRIGHT) -> Foresight:
    """Queries at 0, 4 and 8, horizons 2 and 4, two cameras of 1 x 2 pixels; each its own grey.

    A picture's left pixel is 100 q + 10 k + c, its right one that plus 5.
    """
    frames = np.zeros((3, 2, 1, 4, 3), np.uint8)
    for q in range(3):
        for k in range(2):
            for c in range(2):
                grey = 100 * q + 10 * k + c
                frames[q, k, 0, 2 * c : 2 * c + 2] = [[grey], [grey + 5]]
    return Foresight(frames, np.array([0, 4, 8]), (2, 4), ("wrist", "front"), orientation)


def left(found: np.ndarray | None) -> list[int] | None:
    return None if found is None else found[:, 0, 0, 0].tolist()


def test_the_newest_expectation_that_is_not_past_yet() -> None:
    foresight = drawn()
    assert foresight.at(0) is None  # nothing was expected before the first look
    assert [left(foresight.at(t)) for t in (1, 2)] == [[0, 1]] * 2
    assert [left(foresight.at(t)) for t in (3, 4)] == [[10, 11]] * 2
    assert left(foresight.at(5)) == [100, 101]
    assert left(foresight.at(12)) == [210, 211]
    assert foresight.at(13) is None  # beyond all that was imagined


def test_pictures_are_turned_upright_camera_by_camera() -> None:
    assert left(drawn(Orientation.MIRRORED).at(1)) == [5, 6]
    assert left(drawn(Orientation.OPENGL).at(1)) == [0, 1]  # a single row stays where it is


def test_panels_have_the_size_of_the_cameras() -> None:
    panels = drawn().panels(1, (6, 8), ("wrist", "front"))
    assert (panels.shape, panels.dtype) == ((2, 6, 8, 3), np.uint8)
    assert panels[0, 0, 0, 0] == 0
    assert abs(int(panels[0, 0, -1, 0]) - 5) <= 1  # bicubic overshoots
    assert not drawn().panels(0, (6, 8), ("wrist",)).any()


def test_panels_stand_in_the_order_of_what_came() -> None:
    def shown(*beside: str) -> list[int]:
        return drawn().panels(1, (1, 2), beside)[:, 0, 0, 0].tolist()

    assert shown("wrist", "front") == [0, 1]
    assert shown("front", "wrist") == [1, 0]
    assert shown("side", "front") == [1, 0]  # what was not asked for stands last


def test_what_an_episode_recorded(tmp_path: Path) -> None:
    run(tmp_path, Painter())
    (path,) = (tmp_path / "run").glob("episodes/*/*/*.safetensors")
    assert read_record(path).notes["imagination"][""]["orientation"] == "upright"
    foresight = read_foresight(path)
    assert foresight is not None
    assert foresight.cameras == ("front",)
    for t in (1, 2, 3, 5):
        step, ahead = 4 * ((t - 1) // 4), 2 if (t - 1) % 4 < 2 else 4
        assert left(foresight.at(t)) == [step + ahead + Painter.off]


def test_nothing_was_drawn(tmp_path: Path) -> None:
    run(tmp_path, CountingPolicy(card(cameras=("front",), imagines=sees((2, 4)))))
    (path,) = (tmp_path / "run").glob("episodes/*/*/*.safetensors")
    assert read_foresight(path) is None
