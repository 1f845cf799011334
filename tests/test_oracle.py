"""The oracle piece by piece: order of subgoals, grasps, motion, noise, and what it refuses."""

from __future__ import annotations

import copy
import gc
import weakref
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from counting_pool import task as toy_task
from small_scenes import Table

from envs.goals import parse
from envs.scene import Articulation, Region, Scene, SceneInfo, SuiteOptions, Thing, Threshold
from policies.oracle import OracleConfig, motion
from policies.oracle.geometry import DOWN, Pose, Solids, cross, turn_z
from policies.oracle.grasps import TIP, Grasp, grasps
from policies.oracle.motion import CLOSED, OPEN, STROKE, Hand, Reference, Waypoint
from policies.oracle.planner import plan
from policies.oracle.policy import Oracle
from policies.oracle.room import at_stop, is_cramped
from policies.oracle.view import View
from wamsim import registry
from wamsim.contracts import EpisodeKey, Observation, Prediction, PrivilegedState
from wamsim.errors import PolicyFault

# ----------------------------------------------------------------------------- order


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Boxes, a stove, a cabinet with a drawer, and an oven whose one joint opens it all."""
    table = Table().scene
    info: SceneInfo = table.info
    oven = Thing(
        name="oven", category="oven", body="stove", geoms=(), joints=("drawer_2",),
        articulation=Articulation(open=Threshold(below=-2.0), close=Threshold(above=-0.005)),
    )  # fmt: skip
    inside = Region(name="oven_inside", site="burner", size=(0.1, 0.1, 0.1), parent="oven")
    drawer = replace(table.region("top_drawer"), name="drawer")
    info = replace(info, things=(*info.things, oven), regions=(*info.regions, inside, drawer))
    return Scene(model=table.model, info=info)


@pytest.mark.parametrize(
    ("goal", "order"),  # in brackets what is not asked for
    [
        # two in a row, as written
        ("On(block, plate) & In(ball, crate)", "On(block, plate); In(ball, crate)"),
        ("In(ball, crate) & On(block, plate)", "In(ball, crate); On(block, plate)"),
        # what is underneath first
        ("On(block, plate) & On(plate, burner)", "On(plate, burner); On(block, plate)"),
        # open, put in, close, whether or not opening is asked for
        ("In(ball, drawer)", "[Open(drawer)]; In(ball, drawer)"),
        ("In(ball, drawer) & Open(drawer)", "Open(drawer); In(ball, drawer)"),
        ("Close(drawer) & In(ball, drawer)", "[Open(drawer)]; In(ball, drawer); Close(drawer)"),
        ("Close(oven) & In(ball, oven_inside)", "[Open(oven)]; In(ball, oven_inside); Close(oven)"),
        # opened once for two things; nothing is done twice
        (
            "In(ball, drawer) & In(block, drawer)",
            "[Open(drawer)]; In(ball, drawer); In(block, drawer)",
        ),
        ("TurnOn(stove) & TurnOn(stove)", "TurnOn(stove)"),
        # the opposite of a negation; the first alternative that can be done
        ("!TurnOn(stove) & On(block, burner)", "TurnOff(stove); On(block, burner)"),
        ("(Up(block) | On(block, plate))", "On(block, plate)"),
    ],
)
def test_order_of_subgoals(scene: Scene, goal: str, order: str) -> None:
    found = [str(s.predicate) if s.asked else f"[{s.predicate}]" for s in plan(parse(goal), scene)]
    assert "; ".join(found) == order


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("goal", "why"),
    [
        ("Up(block)", "no plan for Up(block): it has no skill for Up. It serves On, In, Inside,"),
        ("On(block, plate) & Up(ball)", "it has no skill for Up"),
        ("!On(block, plate)", "no plan for !On(block, plate): it can undo Open, Close, TurnOn"),
        ("(Up(block) | Up(ball))", "no plan for Up(block)"),
    ],
)
def test_a_goal_without_a_skill_is_refused_by_its_task(goal: str, why: str) -> None:
    with pytest.raises(PolicyFault) as fault:
        Oracle(OracleConfig()).check_task(toy_task("lift_it", goal=goal))
    assert str(fault.value).startswith("task 'lift_it' of suite 'toy': the oracle has")
    assert why in str(fault.value)


@pytest.mark.parametrize(
    ("goal", "why"),
    [
        ("On(stove, plate)", "'stove' is fixed and cannot be carried"),
        ("On(burner, plate)", "'burner' is not a thing"),
        ("On(block, moon)", "the scene has no 'moon'"),
        ("Open(moon)", "the scene has no 'moon'"),
        ("Open(plate)", "'plate' (plate) has no joint to move"),
    ],
)
def test_a_goal_that_the_scene_makes_impossible(scene: Scene, goal: str, why: str) -> None:
    Oracle(OracleConfig()).check_task(toy_task(goal=goal))  # nothing is wrong with its words
    with pytest.raises(PolicyFault, match="no plan for") as fault:
        plan(parse(goal), scene)
    assert why in str(fault.value)


@pytest.mark.parametrize("suite", registry.SUITE_GROUPS["tabletop"])
def test_no_tabletop_task_is_refused(suite: str, tmp_path: Path) -> None:
    for task in registry.suite(suite, SuiteOptions(cache_dir=tmp_path)).suite.tasks:
        Oracle(OracleConfig()).check_task(task)


# ----------------------------------------------------------------------------- grasps


def boxes(*halves: tuple[float, float, float], round: bool = False) -> Solids:
    n = len(halves)
    return Solids(
        np.zeros((n, 3)), np.tile(np.eye(3), (n, 1, 1)), np.array(halves), np.full(n, round)
    )


def from_above(solids: Solids) -> tuple[Grasp, ...]:
    return grasps(solids, np.eye(3), np.zeros(3))


def test_a_cross_product_is_numpys_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    for first, second in rng.normal(size=(200, 2, 3)) * 10.0 ** rng.integers(-9, 9, (200, 2, 1)):
        assert np.array_equal(cross(first, second), np.cross(first, second))


def test_a_box_is_taken_across_its_narrow_side_in_the_middle() -> None:
    found = from_above(boxes((0.02, 0.05, 0.03)))  # 4 by 10 by 6 cm
    best = found[0]
    assert abs(best.closing) == pytest.approx([1, 0, 0], abs=1e-9)
    assert best.width == pytest.approx(0.04)
    assert best.pos[:2] == pytest.approx([0, 0], abs=1e-9)
    assert best.pos[2] in (pytest.approx(0.003), pytest.approx(0.010))  # 27 or 20 mm deep
    assert best.cost == pytest.approx(0)
    # Along y the box has 10 cm. Across a corner it can be held, but badly: sides are aslant.
    assert all(abs(g.closing[1]) < 0.99 for g in found)
    assert all(g.cost > 0.1 for g in found if abs(g.closing[0]) < 0.99)
    # Off the middle 12 a metre; each third of the rays that misses 1: at the very edge
    # (y = 4.6 cm), and where the pads stand out at the top; a grip less than 2 cm deep 60 a metre.
    for g in (g for g in found if abs(g.closing[0]) > 0.999):
        met = (2 / 3 if abs(g.pos[1]) > 0.0452 else 1) * (2 / 3 if g.pos[2] > 0.0207 else 1)
        shallow = max(0.0, g.pos[2] - 0.01)
        assert g.cost == pytest.approx(12 * abs(g.pos[1]) + 3 * (1 - met) + 60 * shallow)


def test_what_is_wider_than_the_hand_is_held_badly_and_what_is_flat_not_at_all() -> None:
    assert from_above(boxes((0.045, 0.045, 0.03)))[0].cost > 1  # at a corner
    # 1 cm high: the grip site would be 12.5 mm above the table, over its top
    assert from_above(boxes((0.1, 0.1, 0.005), round=True)) == ()


def test_a_can_is_taken_across_its_axis() -> None:
    best = from_above(boxes((0.03, 0.03, 0.05), round=True))[0]
    assert best.width == pytest.approx(0.06)
    assert best.pos[:2] == pytest.approx([0, 0], abs=1e-9)


def test_fingertips_stay_above_what_a_flat_thing_stands_on() -> None:
    found = from_above(boxes((0.02, 0.05, 0.01)))  # 2 cm high: its bottom is at -1 cm
    # 9.5 mm of fingertip and 3 mm of play
    assert min(g.pos[2] for g in found) == pytest.approx(-0.01 + TIP + 0.003)


def test_a_bowl_is_taken_at_its_rim() -> None:
    angles = np.arange(24) * 2 * np.pi / 24
    wall, radius = (0.002, 0.009, 0.025), 0.06  # 4 mm thick, 5 cm high
    rim = Solids(
        np.stack([radius * np.cos(angles), radius * np.sin(angles), 0 * angles], axis=1),
        np.stack([turn_z(a) for a in angles]),
        np.tile(wall, (24, 1)),
        np.zeros(24, bool),
    )
    found = from_above(rim)
    for g in found[:8]:
        outwards = g.pos[:2] / np.hypot(*g.pos[:2])
        assert np.hypot(*g.pos[:2]) == pytest.approx(radius, abs=0.002)
        assert g.width == pytest.approx(0.004, abs=0.001)
        assert abs(g.closing[:2] @ outwards) > 0.98
    assert {(g.pos[0] > 0.03, g.pos[1] > 0.03, g.pos[1] < -0.03) for g in found} >= {
        (True, False, False),
        (False, True, False),
        (False, False, True),
    }  # all around


def test_a_grasp_turns_with_its_thing() -> None:
    grasp = Grasp(pos=np.array([0, 0, 0.01]), closing=np.array([1.0, 0, 0]), width=0.04, cost=0)
    hand = grasp.in_world(Pose(np.array([1.0, 2, 3]), turn_z(np.pi / 2)), DOWN)
    assert hand.pos == pytest.approx([1, 2, 3.01])
    assert hand.rot == pytest.approx(np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]]), abs=1e-12)


# ----------------------------------------------------------------------------- motion

STILL = Hand(lag=np.zeros(3), turn_lag=np.zeros(3), velocity=np.zeros(3), spin=np.zeros(3))


def test_the_reference_gains_speed_as_far_as_its_acceleration_allows() -> None:
    reference = Reference.at_rest(Pose(np.zeros(3), np.eye(3)))
    goal = Waypoint(pose=Pose(np.array([1.0, 0, 0]), np.eye(3)), gap=OPEN)
    speeds, places = [], []
    for _ in range(6):
        reference = motion.advance(reference, STILL, goal, None, None)
        speeds.append(reference.velocity[0])
        places.append(reference.pose.pos[0])
    # 1 m/s^2 for 0.05 s a step, up to 0.23 m/s
    assert speeds == pytest.approx([0.05, 0.10, 0.15, 0.20, 0.23, 0.23])
    assert places == pytest.approx([0.0025, 0.0075, 0.015, 0.025, 0.0365, 0.048])


def test_the_action_that_follows() -> None:
    reference = Reference.at_rest(Pose(np.zeros(3), np.eye(3)))
    still, _ = motion.follow(reference, STILL)
    assert (still == 0).all()
    # 0.1 m/s from rest: of a delta d the spring makes 150 * 0.05 * exp(-sqrt(150) * 0.05) d
    # = 4.0653 d of speed, so d = 0.024598 m, and 0.05 m is an action of 1.
    moving = replace(reference, velocity=np.array([0, 0.1, 0]))
    action, _ = motion.follow(moving, STILL)
    assert action == pytest.approx([0, 0.49197, 0, 0, 0, 0], abs=1e-4)
    far_behind, _ = motion.follow(moving, replace(STILL, lag=np.array([0, 1.0, 0])))
    assert far_behind[1] == 1.0


@pytest.mark.parametrize(
    ("command", "gap", "signal", "after"),
    [
        (0.0, OPEN, -1.0, STROKE),
        (OPEN, CLOSED, 1.0, OPEN - STROKE),
        (0.05, 0.05, 0.0, 0.05),
        (0.054, 0.05, 0.0, 0.054),  # nearer than half a stroke
        (0.08, 0.05, 1.0, 0.07),
    ],
)
def test_the_signal_that_brings_the_fingers_there(
    command: float, gap: float, signal: float, after: float
) -> None:
    assert motion.grip(command, gap) == pytest.approx((signal, after))


def test_the_perturbation_is_smooth_bounded_and_the_seeds_own() -> None:
    wave = np.array([motion.perturbation(7, step, 0.3) for step in range(400)])
    assert np.array_equal(wave, [motion.perturbation(7, step, 0.3) for step in range(400)])
    assert np.abs(wave[:, :3]).max() <= 0.3
    assert np.abs(wave[:, 3:]).max() <= 0.1
    assert np.abs(wave).max(0).min() > 0.03  # on every channel
    # The quickest of the sines turns in a second: 2 pi / 20 of its height a step.
    assert np.abs(np.diff(wave[:, :3], axis=0)).max() <= 0.3 * 2 * np.pi / 20
    assert np.abs(wave - [motion.perturbation(8, step, 0.3) for step in range(400)]).mean() > 0.03
    assert not motion.perturbation(7, 5, 0.0).any()


# ---------------------------------------------------------------------- in a real scene


@pytest.fixture(scope="module")
def start(scene_cache_dir: Path) -> PrivilegedState:
    """Open the drawer and put the bowl in: the first moment of trial 0."""
    return first_state(scene_cache_dir)


def first_state(cache: Path, index: int = 0) -> PrivilegedState:
    backend = registry.suite("tabletop_long", SuiteOptions(cache_dir=cache))
    task = next(t for t in backend.suite.tasks if t.name == "open_drawer_and_put_bowl_inside")
    scene, key = backend.scene(task), EpisodeKey(task.suite, task.name, index)
    began = backend.start(scene, task, key, 0)
    assert began.state is not None
    return PrivilegedState(
        key=key, task=task, scene=scene, qpos=began.state[1 : 1 + scene.model.nq],
        qvel=began.state[1 + scene.model.nq :], fixtures=began.fixtures,
        gripper_command=np.array([-1.0, -1.0]),
    )  # fmt: skip


def ask(
    oracle: Oracle, *states: PrivilegedState, seed: int = 3, slot: int = 0,
    memory: list[Any] | None = None, step: int = 0,
) -> Prediction:  # fmt: skip
    n = len(states)
    observation = Observation(
        frames={}, instruction=["x"] * n, seed=np.full(n, seed, np.uint64),
        step=np.full(n, step), slot=np.arange(slot, slot + n), first=np.full(n, step == 0),
        valid=np.ones(n, bool), memory=memory or [None] * n, state=states,
    )  # fmt: skip
    return oracle.act(observation)


def model_bytes(model: mujoco.MjModel) -> bytes:
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer.tobytes()


@pytest.mark.sim
def test_the_same_row_gives_the_same_answer_whatever_is_beside_it(start: PrivilegedState) -> None:
    moved = replace(start, qpos=start.qpos.copy())
    moved.qpos[start.scene.qpos_address("cabinet_top_joint")] -= 0.02
    oracle = Oracle(OracleConfig(execute=4))
    before = model_bytes(start.scene.model)
    alone = ask(oracle, start)
    assert alone.memory
    beside = ask(oracle, moved, start, slot=5)
    twin = replace(start, scene=copy.deepcopy(start.scene))  # as another worker would send it
    for again, row in ((ask(oracle, start), 0), (beside, 1), (ask(oracle, twin, slot=9), 0)):
        assert np.array_equal(again.actions[row], alone.actions[0])
        assert again.memory
        np.testing.assert_equal(asdict(again.memory[row]), asdict(alone.memory[0]))
    assert not np.array_equal(beside.actions[0], alone.actions[0])
    assert model_bytes(start.scene.model) == before  # it is shared and read-only


@pytest.mark.sim
def test_memory_is_a_value(start: PrivilegedState) -> None:
    first = ask(Oracle(OracleConfig()), start)
    assert first.memory
    kept = copy.deepcopy(first.memory)
    oracle = Oracle(OracleConfig())  # another one: nothing is hidden in the first
    answers = [ask(oracle, start, memory=list(first.memory), step=1) for _ in range(2)]
    np.testing.assert_equal(asdict(first.memory[0]), asdict(kept[0]))
    assert np.array_equal(answers[0].actions, answers[1].actions)
    assert not np.array_equal(answers[0].actions, first.actions)  # the reference has moved on


@pytest.mark.sim
def test_noise_is_added_by_seed_and_none_is_exactly_none(start: PrivilegedState) -> None:
    oracles = {n: Oracle(OracleConfig(noise=n)) for n in (0.0, 0.2)}

    def chunk(noise: float, seed: int) -> np.ndarray:
        return ask(oracles[noise], start, seed=seed).actions[0]

    calm = chunk(0.0, 3)
    assert np.array_equal(calm, chunk(0.0, 4))
    noisy = chunk(0.2, 3)
    added = motion.perturbation(3, 0, 0.2)[None]  # reaching: all of it
    assert noisy[:, :6] == pytest.approx(np.clip(calm[:, :6] + added, -1, 1), abs=1e-6)
    assert np.array_equal(noisy[:, 6], calm[:, 6])  # fingers are left alone
    meant = ask(oracles[0.2], start, seed=3).intended
    assert meant is not None
    assert meant.shape == (1, 8, 7)  # imitation learns from this: the calm oracle's chunk
    unseen = ask(Oracle(OracleConfig(execute=8)), start, seed=3)
    assert meant[0] == pytest.approx(unseen.actions[0], abs=2e-3)
    assert unseen.intended is None
    assert np.array_equal(noisy, chunk(0.2, 3))
    assert np.abs(noisy - chunk(0.2, 4)).max() > 0.02


@pytest.mark.sim
def test_what_is_meant_does_not_depend_on_where_the_hand_was_pushed_from(
    start: PrivilegedState,
) -> None:
    oracle = Oracle(OracleConfig(noise=0.2))
    first = ask(oracle, start, seed=3)
    assert first.memory
    memory = first.memory[0]
    pose = memory.reference.pose
    aside = replace(pose, pos=pose.pos + np.array([0.0, 0.01, 0.0]))
    pushed = replace(memory, reference=replace(memory.reference, pose=aside))
    one, other = (ask(oracle, start, memory=[m], seed=3, step=1) for m in (memory, pushed))
    assert one.intended is not None
    assert other.intended is not None
    assert np.array_equal(one.intended, other.intended)
    # the reference is 1 cm to the side: 0.09 m/s more are asked for, a third of an action
    assert other.actions[0, 0, 1] - one.actions[0, 0, 1] > 0.1


def test_pushes_drive_the_hand_aside_now_and_then() -> None:
    pushes = [motion.push(5, step, 0.5) for step in range(4000)]
    lengths, run = [], 0
    for push in [*pushes, None]:
        if push is None and run:
            lengths.append(run)
        run = 0 if push is None else run + 1
    assert 60 < len(lengths) <= 100  # of 100 windows about 80 have one
    assert all(5 <= n <= 28 for n in lengths)  # two may follow one another
    strong = [float(np.hypot(*p[:2])) for p in pushes if p is not None]
    assert min(strong) >= 0.15
    assert max(strong) <= 0.5
    assert motion.push(5, 3, 0.0) is None


@pytest.mark.sim
def test_after_a_push_the_way_is_planned_anew_from_where_the_hand_is(
    start: PrivilegedState,
) -> None:
    oracle = Oracle(OracleConfig(push=0.5))
    first = ask(oracle, start, seed=3)
    assert first.memory
    step = next(s for s in range(1, 400) if motion.push(3, s - 1, 0.5) is not None)
    later = ask(oracle, start, memory=list(first.memory), seed=3, step=step)
    assert later.memory
    was, now = first.memory[0], later.memory[0]
    assert was.waypoints[0].pose.pos == pytest.approx(now.waypoints[0].pose.pos)
    assert now.index == 0
    assert now.before == was.before


@pytest.mark.sim
def test_a_row_without_a_plan_is_given_up_alone(start: PrivilegedState) -> None:
    oracle, goals = Oracle(OracleConfig()), ("On(stove, plate)", "Open(plate)")
    first, last = (replace(start, task=replace(start.task, goal=goal)) for goal in goals)
    answer = ask(oracle, first, start, last)
    assert {row: why.split(": ")[1].split(".")[0] for row, why in answer.faults.items()} == {
        0: "'stove' is fixed and cannot be carried",
        2: "'plate' (plate) has no joint to move",
    }
    assert np.array_equal(answer.actions[1], ask(oracle, start).actions[0])
    assert answer.actions[0, 0].tolist() == [0, 0, 0, 0, 0, 0, -1]  # holds still


def test_without_privileged_state_it_says_what_is_missing() -> None:
    observation = Observation(
        frames={}, instruction=["x"], seed=np.zeros(1, np.uint64), step=np.zeros(1, int),
        slot=np.zeros(1, int), first=np.ones(1, bool), valid=np.ones(1, bool), memory=[None],
    )  # fmt: skip
    with pytest.raises(PolicyFault, match="needs privileged state"):
        Oracle(OracleConfig()).act(observation)


@pytest.mark.sim
def test_a_scene_that_nobody_else_holds_is_let_go(scene_cache_dir: Path) -> None:
    oracle, state = Oracle(OracleConfig()), first_state(scene_cache_dir)
    ask(oracle, state)
    model = weakref.ref(state.scene.model)
    gc.disable()  # at once: to Python a model of 100 MB is a small object, seldom worth a look
    try:
        del state
        assert model() is None
    finally:
        gc.enable()


@pytest.mark.sim
@pytest.mark.parametrize(
    ("opened", "cramped", "stop"),
    # The bowl is 11.6 cm wide, and handle and boards take their share of an opening: at
    # 12 cm it would hang on the rims, at 14.1 cm it lies on the drawer's floor.
    [(-0.12, True, False), (-0.141, False, False), (-0.158, False, True)],
)
def test_a_drawer_must_be_open_wide_enough_for_what_goes_in(
    start: PrivilegedState, opened: float, cramped: bool, stop: bool
) -> None:
    view = View(start.scene)
    opening, _ = plan(parse(start.task.goal), start.scene)
    state = replace(start, qpos=start.qpos.copy())
    state.qpos[start.scene.qpos_address("cabinet_top_joint")] = opened
    with view.showing(state):
        assert (is_cramped(view, opening), at_stop(view, opening)) == (cramped, stop)
        assert view.world.joint("cabinet_top_joint") == opened  # as it was
