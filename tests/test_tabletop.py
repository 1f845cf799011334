from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from envs.goals import World, check, holds, parse, predicates
from envs.scene import Scene, Start, SuiteOptions
from envs.tabletop import suite
from envs.tabletop.panda import ROBOT
from envs.tabletop.placement import (
    FIXTURE_SHIFT,
    FIXTURE_YAW,
    Layout,
    Slot,
    layout,
    sample_qpos,
    state_generator,
)
from envs.tabletop.room import TABLE_HALF, TABLE_TOP_Z
from envs.tabletop.suite import TabletopBackend
from envs.tabletop.tasks import TASKS
from wamsim.contracts import EpisodeKey, Task
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, PANDA_STATE
from wamsim.errors import UnknownName

NAMES = ("tabletop_object", "tabletop_spatial", "tabletop_goal", "tabletop_long")
EACH_TASK = [
    pytest.param(suite_name, entry.name, id=f"{suite_name}-{entry.name}")
    for suite_name in NAMES
    for entry in TASKS[suite_name]
]


@pytest.fixture(scope="module")
def backends(scene_cache_dir: Path) -> dict[str, TabletopBackend]:
    return {name: suite(name, SuiteOptions(cache_dir=scene_cache_dir)) for name in NAMES}


def _task(backend: TabletopBackend, name: str) -> Task:
    return next(task for task in backend.suite.tasks if task.name == name)


def _begin(
    backend: TabletopBackend, name: str, *, index: int = 0, seed: int = 0
) -> tuple[Scene, World, Start]:
    task = _task(backend, name)
    scene = backend.scene(task)
    start = backend.start(scene, task, EpisodeKey(task.suite, task.name, index), seed)
    data = mujoco.MjData(scene.model)
    _write(scene, data, start)
    return scene, World(scene, data), start


def _write(scene: Scene, data: mujoco.MjData, start: Start) -> None:
    assert start.state is not None
    scene.set_fixtures(start.fixtures)
    mujoco.mj_resetData(scene.model, data)
    data.qpos[:] = start.state[1 : 1 + scene.model.nq]
    data.qvel[:] = start.state[1 + scene.model.nq :]
    mujoco.mj_forward(scene.model, data)


def _settle(scene: Scene, data: mujoco.MjData, seconds: float) -> None:
    """Step with arm and fingers held where they are."""
    joints = (*ROBOT.joints, *ROBOT.gripper_joints)
    at = [scene.qpos_address(j) for j in joints]
    dofs = [scene.dof_address(j) for j in joints]
    held = data.qpos[at].copy()
    for _ in range(round(seconds / scene.info.timestep)):
        mujoco.mj_step(scene.model, data)
        data.qpos[at] = held
        data.qvel[dofs] = 0
    mujoco.mj_forward(scene.model, data)


def _move(
    world: World, thing: str, place: np.ndarray, dx: float, dy: float, dz: float
) -> np.ndarray:
    """Put a thing's origin beside a place, upright and at rest; gives where."""
    at = world.scene.qpos_address(f"{thing}_joint")
    pos = np.add(place, (dx, dy, dz))
    world.data.qpos[at : at + 7] = (*pos, 1, 0, 0, 0)
    dof = world.scene.dof_address(f"{thing}_joint")
    world.data.qvel[dof : dof + 6] = 0
    mujoco.mj_forward(world.scene.model, world.data)
    return pos


# ------------------------------------------------------------------------ listing


def test_listing_compiles_nothing_and_imports_no_simulation_package() -> None:
    code = (
        "import sys; from pathlib import Path; from envs.scene import SuiteOptions;"
        "from envs.tabletop import suite;"
        "print(len(suite('tabletop_goal', SuiteOptions(cache_dir=Path('nowhere'))).suite.tasks),"
        "[m for m in ('robosuite', 'torch') if m in sys.modules], Path('nowhere').exists())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "8 [] False"


@pytest.mark.parametrize("name", NAMES)
def test_contract_of_every_task(name: str) -> None:
    backend = suite(name, SuiteOptions(cache_dir=Path("nowhere")))
    tasks = backend.suite.tasks
    assert len(tasks) >= 5
    assert [t.index for t in tasks] == list(range(len(tasks)))
    assert len({t.name for t in tasks}) == len(tasks)
    assert len({t.instruction for t in tasks}) == len(tasks)
    for task in tasks:
        assert (task.suite, task.control_hz, task.settle_steps) == (name, 20.0, 10)
        assert task.action is DELTA_EEF_GRIPPER_CLOSE_POSITIVE
        assert task.robot_state is PANDA_STATE
        assert {"agentview", "eye_in_hand"} <= set(task.cameras)
        assert task.n_initial_states >= 50
        assert len({task.instruction, *task.paraphrases}) == 4
        assert not task.stand_in_visuals


def test_wording_chooses_a_paraphrase() -> None:
    plain = suite("tabletop_goal", SuiteOptions(cache_dir=Path("nowhere"))).suite.tasks[0]
    other = suite("tabletop_goal", SuiteOptions(cache_dir=Path("nowhere"), wording=2)).suite.tasks[
        0
    ]
    assert other.instruction == plain.paraphrases[1]
    assert other.goal == plain.goal


def test_unknown_group_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="tabletop_goal"):
        suite("tabletop_goals", SuiteOptions(cache_dir=Path("nowhere")))


def test_every_kind_of_goal_is_there() -> None:
    used = {
        p.name for entries in TASKS.values() for e in entries for p in predicates(parse(e.goal))
    }
    assert used == {"In", "On", "Open", "Close", "TurnOn"}
    assert all(" & " in entry.goal for entry in TASKS["tabletop_long"])


# ------------------------------------------------------------------ initial states


@pytest.mark.sim
@pytest.mark.parametrize(("suite_name", "task_name"), EACH_TASK)
def test_every_start_is_at_rest_on_its_support_and_not_yet_done(
    backends: dict[str, TabletopBackend], suite_name: str, task_name: str
) -> None:
    backend = backends[suite_name]
    task = _task(backend, task_name)
    scene = backend.scene(task)
    goal = parse(task.goal)
    check(goal, scene)
    data = mujoco.MjData(scene.model)
    free = [t for t in scene.info.things if t.free_joint]
    dofs = [scene.dof_address(str(t.free_joint)) for t in free]
    for index in range(60):  # more than an evaluation's 50
        start = backend.start(scene, task, EpisodeKey(suite_name, task_name, index), 0)
        _write(scene, data, start)
        assert not holds(goal, World(scene, data)), index
        before = np.array([data.xpos[scene.body_id(t.body)] for t in free])
        _settle(scene, data, 0.5)  # the 10 settle steps of every episode
        assert not holds(goal, World(scene, data)), index
        after = np.array([data.xpos[scene.body_id(t.body)] for t in free])
        assert np.abs(after - before).max() < 0.004, (index, after - before)  # 2 mm of fall
        speed = np.array([np.abs(data.qvel[d : d + 6]).max() for d in dofs])
        assert speed.max() < 0.01, (index, speed)
        lowest = after[:, 2] + [t.bottom for t in free]
        assert lowest.min() > TABLE_TOP_Z - 0.001
        assert np.all(np.abs(after[:, :2]) < TABLE_HALF[:2])


@pytest.mark.sim
@pytest.mark.parametrize("name", NAMES)
def test_initial_states_are_distinct_and_the_same_every_time(
    backends: dict[str, TabletopBackend], scene_cache_dir: Path, name: str
) -> None:
    again = suite(name, SuiteOptions(cache_dir=scene_cache_dir))
    for task in backends[name].suite.tasks[::4]:
        states = backends[name].initial_states(task)
        model = backends[name].scene(task).model
        assert states.shape == (task.n_initial_states, 1 + model.nq + model.nv)
        assert states.dtype == np.float64
        assert task.n_initial_states == 1000
        assert len(np.unique(states.round(4), axis=0)) == len(states)
        np.testing.assert_array_equal(states, again.initial_states(task))
        states[:] = 0  # what is given out is the caller's own
        assert backends[name].initial_states(task).any()


@pytest.mark.sim
def test_start_is_a_function_of_key_and_seed(backends: dict[str, TabletopBackend]) -> None:
    name = "put_bowl_on_stove_on_plate"
    scene, _, first = _begin(backends["tabletop_spatial"], name, index=3, seed=7)
    _, _, same = _begin(backends["tabletop_spatial"], name, index=3, seed=7)
    _, _, other_seed = _begin(backends["tabletop_spatial"], name, index=3, seed=8)
    _, _, other_index = _begin(backends["tabletop_spatial"], name, index=4, seed=7)
    assert first.state is not None
    assert same.state is not None
    assert other_seed.state is not None
    np.testing.assert_array_equal(first.state, same.state)
    np.testing.assert_array_equal(first.nominal_qpos, same.nominal_qpos)
    for body, (pos, quat) in first.fixtures.items():
        np.testing.assert_array_equal(pos, same.fixtures[body][0])
        np.testing.assert_array_equal(quat, same.fixtures[body][1])
        assert not np.allclose(pos, other_seed.fixtures[body][0])
        assert not np.allclose(pos, other_index.fixtures[body][0])
        nominal = scene.info.placement["fixtures"][body]["pose"]
        assert np.abs(pos - nominal[:3]).max() <= FIXTURE_SHIFT
        assert abs(2 * np.arctan2(quat[3], quat[0]) - nominal[3]) <= FIXTURE_YAW
    # The bowl on the stove moved with it; things on the table did not move with the seed.
    qpos_a, qpos_b = first.state[1:], other_seed.state[1:]
    bowl = scene.qpos_address("bowl_1_joint")
    moved = qpos_b[bowl : bowl + 2] - qpos_a[bowl : bowl + 2]
    stove = other_seed.fixtures["stove"][0] - first.fixtures["stove"][0]
    assert np.linalg.norm(moved - stove[:2]) < 0.05 * 2 * FIXTURE_YAW  # 5 cm from its origin
    plate = scene.qpos_address("plate_joint")
    np.testing.assert_array_equal(qpos_a[plate : plate + 7], qpos_b[plate : plate + 7])


@pytest.mark.sim
def test_index_wraps_around(backends: dict[str, TabletopBackend]) -> None:
    backend = backends["tabletop_object"]
    task = backend.suite.tasks[0]
    scene = backend.scene(task)
    key = EpisodeKey(task.suite, task.name, task.n_initial_states + 2)
    wrapped = backend.start(scene, task, key, 0)
    assert wrapped.state is not None
    np.testing.assert_array_equal(wrapped.state, backend.initial_states(task)[2])


@pytest.mark.sim
def test_a_layout_without_room_is_refused(backends: dict[str, TabletopBackend]) -> None:
    backend = backends["tabletop_goal"]
    scene = backend.scene(backend.suite.tasks[0])
    point = (-0.1, -0.1 + 1e-6)
    plan: Layout = layout(*(Slot(thing=t, x=point, y=point) for t in ("bowl", "plate")))
    with pytest.raises(RuntimeError, match="bowl, plate is free of overlap"):
        sample_qpos(scene, plan, state_generator(1, "suite", "task", 0))


# -------------------------------------------------------------------------- goals


@pytest.mark.sim
@pytest.mark.parametrize("thing", ["can", "milk", "cereal", "bread", "ketchup"])
def test_dropped_into_the_basket_is_in(backends: dict[str, TabletopBackend], thing: str) -> None:
    scene, world, start = _begin(backends["tabletop_object"], f"put_{thing}_in_basket")
    goal = parse(f"In({thing}, basket_region)")
    basket = start.fixtures["basket"][0]
    _move(world, thing, basket, 0, 0, 0.12 - scene.thing(thing).bottom)
    assert not holds(goal, world)  # above the rim
    _settle(scene, world.data, 0.8)
    assert holds(goal, world)


@pytest.mark.sim
def test_bowl_stands_on_plate_box_stove_and_cabinet(backends: dict[str, TabletopBackend]) -> None:
    scene, world, start = _begin(backends["tabletop_goal"], "put_bowl_on_plate")
    half = -scene.thing("bowl").bottom
    plate = world.position(scene.thing("plate")).copy()
    for goal, place, offset in (
        ("On(bowl, plate)", plate, (0.02, 0.01, -0.003)),  # its flat part, 3 mm below its middle
        (
            "On(bowl, stove_cook_region)",
            world.site(scene.region("stove_cook_region"))[0],
            (0, 0, 0),
        ),
        ("On(bowl, cabinet_top_side)", start.fixtures["cabinet"][0], (0.03, 0.02, 0.172)),
    ):
        dx, dy, dz = offset
        put = _move(world, "bowl", place, dx, dy, dz + half + 0.003)
        _settle(scene, world.data, 0.3)
        assert holds(parse(goal), world), goal
        assert np.linalg.norm(world.position(scene.thing("bowl")) - put) < 0.005  # 3 mm of fall
        _move(world, "bowl", place, dx, dy, dz + half + 0.05)
        assert not holds(parse(goal), world), goal  # nothing touches


@pytest.mark.sim
def test_plate_pushed_onto_the_mat_and_cheese_dropped_into_the_bowl(
    backends: dict[str, TabletopBackend],
) -> None:
    scene, world, _ = _begin(backends["tabletop_goal"], "push_plate_to_stove")
    on_mat = parse("On(plate, stove_front_region)")
    mat, _ = world.site(scene.region("stove_front_region"))
    plate = scene.thing("plate")
    _move(world, "plate", mat, 0.0, -0.07, -plate.bottom)
    assert not holds(on_mat, world)  # 7 cm aside; the region ends at 5
    _move(world, "plate", mat, 0.03, -0.04, -plate.bottom)
    assert holds(on_mat, world)
    in_bowl = parse("In(cream_cheese, bowl)")
    _move(world, "cream_cheese", world.position(scene.thing("bowl")), 0.005, 0, 0.04)
    assert not holds(in_bowl, world)
    _settle(scene, world.data, 0.5)
    assert holds(in_bowl, world)


@pytest.mark.sim
def test_drawer_and_knob_thresholds(backends: dict[str, TabletopBackend]) -> None:
    scene, world, _ = _begin(backends["tabletop_goal"], "open_top_drawer")
    drawer = scene.qpos_address("cabinet_top_joint")
    # LIBERO's: open below -0.14 m; ours: closed within 5 mm of the stop.
    for q, is_open, is_closed in (
        (0.0, False, True),
        (-0.004, False, True),
        (-0.01, False, False),
        (-0.139, False, False),
        (-0.141, True, False),
    ):
        world.data.qpos[drawer] = q
        assert holds(parse("Open(cabinet_top_region)"), world) == is_open, q
        assert holds(parse("Close(cabinet_top_region)"), world) == is_closed, q
    assert not holds(parse("Open(cabinet_bottom_region)"), world)
    knob = scene.qpos_address("stove_knob_joint")
    for q, is_on in ((0.0, False), (0.49, False), (0.5, True), (2.1, True)):
        world.data.qpos[knob] = q
        assert holds(parse("TurnOn(stove)"), world) == is_on, q
        assert holds(parse("TurnOff(stove)"), world) == (q == 0.0), q
    assert scene.thing("stove").lit_sites == ("stove_burner",)


@pytest.mark.sim
def test_bowl_rides_in_the_drawer(backends: dict[str, TabletopBackend]) -> None:
    scene, world, _ = _begin(backends["tabletop_long"], "put_bowl_in_drawer_and_close_it")
    goal = parse(_task(backends["tabletop_long"], "put_bowl_in_drawer_and_close_it").goal)
    assert holds(parse("Open(cabinet_top_region)"), world)
    inside, rotation = world.site(scene.region("cabinet_top_region"))
    _move(world, "bowl", inside, *(rotation @ [0, 0.02, 0.0]))
    _settle(scene, world.data, 0.3)
    assert holds(parse("In(bowl, cabinet_top_region)"), world)
    assert not holds(goal, world)
    # A push of 6 N closes it in about a second, bowl and all.
    dof = scene.dof_address("cabinet_top_joint")
    world.data.qfrc_applied[dof] = 6.0
    _settle(scene, world.data, 1.0)
    assert holds(goal, world)


@pytest.mark.sim
def test_drawer_and_knob_stay_where_they_are_left(backends: dict[str, TabletopBackend]) -> None:
    scene, world, _ = _begin(backends["tabletop_goal"], "open_top_drawer")
    left = {"cabinet_top_joint": -0.07, "cabinet_bottom_joint": -0.03, "stove_knob_joint": 0.8}
    for joint, q in left.items():
        world.data.qpos[scene.qpos_address(joint)] = q
    _settle(scene, world.data, 1.0)
    for joint, q in left.items():
        assert world.joint(joint) == pytest.approx(q, abs=2e-4)


@pytest.mark.sim
def test_hints_name_what_is_there(backends: dict[str, TabletopBackend]) -> None:
    kinds = set()
    for backend in backends.values():
        for task in backend.suite.tasks:
            scene = backend.scene(task)
            for thing, hint in scene.info.placement["grasps"].items():
                scene.thing(thing)
                kinds.add(hint["kind"])
                assert hint.get("width", 0.0) <= 0.06  # the fingers open 8 cm
                if "site" in hint:
                    scene.site_id(hint["site"])
                    scene.qpos_address(hint["joint"])
                if "region" in hint:
                    assert scene.region(hint["region"]).joints == (hint["joint"],)
    assert kinds == {"top", "rim", "push", "handle", "knob"}


# ------------------------------------------------------------------------- pictures


@pytest.mark.sim
def test_pictures_show_the_things_and_the_lit_burner(
    backends: dict[str, TabletopBackend],
) -> None:
    from envs.rendering import Painter

    scene, world, _ = _begin(backends["tabletop_goal"], "turn_on_stove")
    painter = Painter(scene)
    try:
        off, _ = painter.draw(world.data.qpos, (False,), "agentview", (128, 128))
        on, _ = painter.draw(world.data.qpos, (True,), "agentview", (128, 128))
        hand, _ = painter.draw(world.data.qpos, (False,), "eye_in_hand", (128, 128))
        _move(world, "bowl", np.zeros(3), 0, 0, -1)
        without, _ = painter.draw(world.data.qpos, (False,), "agentview", (128, 128))
    finally:
        painter.close()
    assert off.shape == hand.shape == (128, 128, 3)
    assert off.std() > 20
    assert hand.std() > 20
    glow = np.any(np.abs(on.astype(int) - off.astype(int)) > 40, axis=-1)
    assert 100 < glow.sum() < 1500  # the burner is some 25 pixels across
    gone = np.any(np.abs(without.astype(int) - off.astype(int)) > 20, axis=-1)
    assert 60 < gone.sum() < 1500  # the bowl
