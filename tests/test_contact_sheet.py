"""A suite at a glance: the pictures are those that an episode begins with."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image

import wamsim
from envs.contact_sheet import SIZE_PX, draw_sheet, familiar_camera
from envs.registration import environment_id
from envs.scene import SuiteOptions
from wamsim import registry
from wamsim.errors import UnknownName

assert wamsim  # registers the environments

pytestmark = pytest.mark.sim

SUITE, TASK = "tabletop_object", "put_can_in_basket"


def test_a_cell_shows_how_the_trial_begins(tmp_path: Path, scene_cache_dir: Path) -> None:
    options = SuiteOptions(cache_dir=scene_cache_dir)
    path = draw_sheet(SUITE, options, tmp_path, tasks=[TASK], camera="agentview", trial=3)
    assert path == tmp_path / f"{SUITE}.jpg"
    sheet = np.asarray(Image.open(path)).astype(int)
    tasks = registry.suite(SUITE, options).suite.tasks
    number = next(t.index for t in tasks if t.name == TASK)
    env = gymnasium.make(
        environment_id(SUITE, number), cache=scene_cache_dir, cameras=("agentview",),
        image_size=(SIZE_PX, SIZE_PX),
    )  # fmt: skip
    try:
        seen, _ = env.reset(seed=0, options={"index": 3})
    finally:
        env.close()
    expected = next(v for k, v in seen.items() if "agentview" in k).astype(int)
    top = sheet.shape[0] - SIZE_PX - round(2 * 13 * 1.35) - 8 - 8
    cell = sheet[top : top + SIZE_PX, 8 : 8 + SIZE_PX]
    assert np.abs(cell - expected).mean() < 4  # JPEG
    assert np.abs(cell - expected[:, ::-1]).mean() > 15  # and it would show a wrong one


def test_what_is_not_there_is_named(tmp_path: Path, scene_cache_dir: Path) -> None:
    options = SuiteOptions(cache_dir=scene_cache_dir)
    with pytest.raises(UnknownName, match=TASK):
        draw_sheet(SUITE, options, tmp_path, tasks=["put_cn_in_basket"])
    with pytest.raises(UnknownName, match="frontview"):
        draw_sheet(SUITE, options, tmp_path, tasks=[TASK], camera="frontvew")
    assert not list(tmp_path.iterdir())


def test_a_suite_is_seen_as_people_know_it() -> None:
    ours = ("agentview", "eye_in_hand", "frontview")
    liberos = (*ours, "birdview", "sideview", "galleryview", "robot0_robotview")
    found = [familiar_camera(c) for c in (ours, liberos, ours[:2])]
    assert found == ["frontview", "agentview", "agentview"]
