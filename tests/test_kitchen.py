"""The kitchen suite: what its tasks say, what its trials draw, how its rooms are laid out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from episode_doubles import record

from envs.evaluation import Resources
from envs.goals import check, holds, parse
from envs.illustrating import SceneIllustrator
from envs.kitchen.layouts import (
    DEPTH,
    LAYOUTS,
    STATIONS,
    WIDTHS,
    kitchen_from_robot,
    layout,
    place,
    unit_poses,
)
from envs.kitchen.objects import CATEGORIES, FOOD, instances
from envs.kitchen.scenes import Spec, parse_id
from envs.kitchen.styles import STYLES, style
from envs.kitchen.suite import KitchenBackend
from envs.kitchen.tasks import TASKS, VERSION, variant
from envs.runtime import Simulation
from envs.scene import SuiteOptions
from wamsim.contracts import EpisodeKey
from wamsim.conventions import DELTA_EEF_BASE_TORSO_MODE
from wamsim.errors import UnknownName

# RoboCasa v0.2's 24 atomic tasks and their step limits, by our names.
HORIZONS = {
    "pnp_counter_to_cab": 500, "pnp_cab_to_counter": 500, "pnp_counter_to_sink": 700,
    "pnp_sink_to_counter": 500, "pnp_counter_to_microwave": 600, "pnp_microwave_to_counter": 500,
    "pnp_counter_to_stove": 500, "pnp_stove_to_counter": 500, "open_single_door": 500,
    "open_double_door": 1000, "close_single_door": 500, "close_double_door": 700,
    "open_drawer": 500, "close_drawer": 500, "turn_on_sink_faucet": 500,
    "turn_off_sink_faucet": 500, "turn_sink_spout": 500, "turn_on_stove": 500,
    "turn_off_stove": 500, "coffee_setup_mug": 600, "coffee_serve_mug": 600,
    "coffee_press_button": 300, "turn_on_microwave": 500, "turn_off_microwave": 500,
}  # fmt: skip


@pytest.fixture(scope="module")
def backend(scene_cache_dir: Path) -> KitchenBackend:
    return KitchenBackend("kitchen", SuiteOptions(cache_dir=scene_cache_dir))


def test_the_tasks_and_their_limits(backend: KitchenBackend) -> None:
    assert {t.name: t.max_steps for t in backend.suite.tasks} == HORIZONS
    assert backend.suite.reference == "ours, in the style of RoboCasa"
    for task in backend.suite.tasks:
        assert task.control_hz == 20.0
        assert task.cameras[:3] == ("agentview_left", "agentview_right", "eye_in_hand")
        assert task.action is DELTA_EEF_BASE_TORSO_MODE
        assert "{" not in task.instruction + task.goal + "".join(task.paraphrases)


def test_a_trials_words_name_what_it_shows(backend: KitchenBackend) -> None:
    tasks = {t.name: t for t in backend.suite.tasks}
    for name, index in (("pnp_counter_to_cab", 3), ("turn_on_stove", 8), ("open_single_door", 12)):
        task = backend.variant(tasks[name], EpisodeKey("kitchen", name, index))
        drawn = variant(TASKS[name], index)
        for key in ("obj", "location", "fixture"):
            if key in drawn.words:
                assert drawn.words[key] in task.instruction
        assert task.scene_id == drawn.spec.id
    odd = backend.variant(tasks["open_single_door"], EpisodeKey("kitchen", "open_single_door", 12))
    assert odd.instruction == "open the microwave door"
    assert odd.goal == "Open(microwave_door)"


@pytest.mark.parametrize("name", TASKS)
def test_evaluation_takes_ten_trials_in_each_of_five_scenes(name: str) -> None:
    trials = [variant(TASKS[name], i) for i in range(50)]
    rooms = Counter((t.layout, t.style) for t in trials)
    assert list(rooms.values()) == [10] * 5
    assert len({t.layout for t in trials}) == len({t.style for t in trials}) == 5
    training = [variant(TASKS[name], i) for i in range(50, 1000)]
    assert not {(t.layout, t.style) for t in training} & set(rooms)
    assert all(t.held_out for t in trials)
    assert not any(t.held_out for t in training)


def test_no_training_trial_shows_what_is_held_out() -> None:
    for entry in TASKS.values():
        if not entry.food:
            continue
        shown = {dict(variant(entry, i).objects)["obj"] for i in range(50)}
        learnt = {dict(variant(entry, i).objects)["obj"] for i in range(50, 1000)}
        assert not shown & learnt
    for category in (*FOOD, "mug"):
        assert not set(instances(category, held_out=True)) & set(
            instances(category, held_out=False)
        )
        assert len(CATEGORIES[category].looks) >= 4


def test_there_are_at_least_five_layouts_and_six_styles() -> None:
    assert len(LAYOUTS) >= 5
    assert len(STYLES) >= 6


@pytest.mark.parametrize("name", LAYOUTS)
def test_units_do_not_overlap_and_the_robot_has_room(name: str) -> None:
    plan = layout(name)
    boxes: list[tuple[float, float, float, float]] = []
    for kind, pose, _ in unit_poses(plan):
        half = WIDTHS[kind] / 2
        corners = np.array([place(pose, x, y)[:2] for x in (0.0, DEPTH) for y in (-half, half)])
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        for a0, b0, a1, b1 in boxes:
            across = min(x1, a1) - max(x0, a0)
            along = min(y1, b1) - max(y0, b0)
            assert min(across, along) < 1e-6, f"{kind} overlaps a unit of {name}"
        boxes.append((x0, y0, x1, y1))
    for station in STATIONS.values():
        x, y, _ = kitchen_from_robot(plan, station)
        for x0, y0, x1, y1 in boxes:
            away = np.hypot(max(x0 - x, x - x1, 0), max(y0 - y, y - y1, 0))
            assert away > 0.2, f"the robot stands in a unit of {name}"  # half its base


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown layout of kitchen 'gally'\. .*'galley'"):
        Spec(layout="gally", style="coastal", station="sink")
    with pytest.raises(UnknownName, match=r"unknown style of kitchen 'costal'\. .*'coastal'"):
        Spec(layout="galley", style="costal", station="sink")
    assert style("modern").name == "modern"


def test_a_scenes_id_says_what_it_is_built_from() -> None:
    for index in (0, 17, 400):
        spec = variant(TASKS["pnp_counter_to_stove"], index).spec
        assert parse_id(spec.id) == spec


@pytest.mark.sim
def test_a_trial_is_a_function_of_its_number_and_parking_of_the_run(
    backend: KitchenBackend,
) -> None:
    task = next(t for t in backend.suite.tasks if t.name == "pnp_counter_to_sink")
    key = EpisodeKey("kitchen", task.name, 2)
    shown = backend.variant(task, key)
    scene = backend.scene(shown)
    first, again = (backend.start(scene, shown, key, 5) for _ in range(2))
    other = backend.start(scene, shown, key, 6)
    assert first.state is not None
    assert again.state is not None
    np.testing.assert_array_equal(first.state, again.state)
    moved = other.fixtures["kitchen"][0] - first.fixtures["kitchen"][0]
    assert 1e-4 < np.linalg.norm(moved) < 0.1
    next_key = EpisodeKey("kitchen", task.name, 3)
    after = backend.start(scene, shown, next_key, 5)
    assert after.state is not None
    assert not np.array_equal(after.state, first.state)


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_no_task_is_done_at_its_start(backend: KitchenBackend, name: str) -> None:
    task = next(t for t in backend.suite.tasks if t.name == name)
    for index in range(0, 50, 5):
        key = EpisodeKey("kitchen", name, index)
        shown = backend.variant(task, key)
        scene = backend.scene(shown)
        goal = parse(shown.goal)
        check(goal, scene)
        sim = Simulation(scene, goal, action=shown.action.name)
        sim.start(backend.start(scene, shown, key, 0))
        assert not sim.success()
        for _ in range(10):
            sim.step(np.array(shown.action.hold))
        assert not sim.success()
        for thing in scene.info.things:  # all that was put somewhere has stayed there
            if thing.free_joint is not None:
                speed = sim.data.qvel[scene.dof_address(thing.free_joint) :][:3]
                assert np.linalg.norm(speed) < 0.05
                assert sim.world.position(thing)[2] > 0.7
        assert holds(goal, sim.world) is sim.success()


def test_the_viewer_draws_the_scene_of_the_trial(
    backend: KitchenBackend, resources: Resources
) -> None:
    illustrator = SceneIllustrator(resources)
    task = backend.suite.tasks[0]
    config = {"suites": {"kitchen": 1}, "policy": {"family": "hold", "options": {}}}
    found = {}
    for index in (0, 10):  # evaluation takes ten trials a scene
        key = EpisodeKey("kitchen", task.name, index)
        shown = illustrator.task(config, record(key=key, suite_version=VERSION))
        assert shown == backend.variant(task, key)
        found[index] = shown.scene_id
    assert found[0] != found[10]
