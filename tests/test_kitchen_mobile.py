"""Driving in the kitchen: what the task says, who may do it, how the oracle finds its way."""

from __future__ import annotations

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
from doubles import CountingPolicy, card

from envs.evaluation import EvalConfig, Resources, evaluate
from envs.goals import check, parse
from envs.kitchen.layouts import LAYOUTS, PARKED, PLACES, kitchen_from_robot, layout
from envs.kitchen.mobile import MOBILE, NAME, ways
from envs.kitchen.suite import KitchenBackend
from envs.kitchen.tasks import variant
from envs.replay import draw_episode
from envs.runtime import Look, Simulation, shoot
from envs.scene import Scene, SuiteOptions, pairs
from policies.oracle.config import OracleConfig
from policies.oracle.driving import Stop, clearance
from policies.oracle.geometry import Solids, turn_z
from policies.oracle.planner import check as check_plan
from policies.oracle.policy import Oracle
from policies.oracle.skills.driving import _Floor as Floor
from wamsim.contracts import EpisodeKey, Observation, Outcome, PrivilegedState, Task
from wamsim.conventions import DELTA_EEF_BASE_TORSO_MODE, DELTA_EEF_GRIPPER_CLOSE_POSITIVE
from wamsim.episode import arrays_equal, read_episode
from wamsim.errors import ConventionMismatch, PolicyFault
from wamsim.fitting import check_fit, fitted
from wamsim.registry import choose_policy, make_policy
from wamsim.run_folder import episode_files

NOWHERE = SuiteOptions(cache_dir=Path("nowhere"))
ENTRY = MOBILE[NAME]


def the_task(options: SuiteOptions = NOWHERE) -> Task:
    (task,) = KitchenBackend("kitchen_mobile", options).suite.tasks
    return task


# --------------------------------------------------------------------------- the task


def test_it_is_a_suite_of_its_own_and_needs_the_base() -> None:
    task = the_task()
    assert (task.name, task.max_steps) == ("navigate_kitchen", 500)
    assert task.requires == ("base_forward", "base_side", "base_turn", "mode")
    assert not any(t.requires for t in KitchenBackend("kitchen", NOWHERE).suite.tasks)


@pytest.mark.parametrize("name", LAYOUTS)
def test_robots_are_sent_where_a_drive_is_needed_and_possible(name: str) -> None:
    for start, ends in ways(name).items():
        assert ends, f"nowhere to go from {start}"
        x0, y0, yaw = kitchen_from_robot(layout(name), PARKED[start])
        for end in ends:
            x, y, _ = kitchen_from_robot(layout(name), PARKED[end])
            away = np.array([[math.cos(yaw), math.sin(yaw)], [-math.sin(yaw), math.cos(yaw)]]) @ [
                x - x0, y - y0,
            ]  # fmt: skip
            assert np.hypot(*away) >= 1.0
            assert np.abs(away).max() <= 2.6  # the slides end at 3 m


def test_a_scenes_trials_begin_in_one_place_and_go_to_several() -> None:
    for block in range(0, 100, 10):
        trials = [variant(ENTRY, block + i) for i in range(10)]
        assert len({t.spec for t in trials}) == 1
        assert len({t.words["kind"] for t in trials}) > 1
        for trial in trials:
            start = trial.station.removeprefix("at_")
            assert trial.words["kind"] in ways(trial.layout)[start]
            assert PLACES[trial.words["kind"]] == trial.words["fixture"]


# ------------------------------------------------------------------------- who may act


def test_seven_channels_are_refused_before_the_first_step(tmp_path: Path) -> None:
    arm_only = CountingPolicy(card(action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE))
    config = EvalConfig(policy=choose_policy("hold"), suites=("kitchen_mobile",))
    sentence = (
        r"task 'navigate_kitchen' of suite 'kitchen_mobile' cannot be done without base_forward, "
        r"base_side, base_turn, mode, which policy 'counting' has no channel for: it emits DELTA_"
    )
    with pytest.raises(ConventionMismatch, match=sentence):
        evaluate(config, out=tmp_path / "run", episodes=1, policy=arm_only)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("policy", ["oracle", "hold", "random"])
def test_scripted_policies_take_twelve_channels_where_they_must(policy: str) -> None:
    spoken = fitted(make_policy(choose_policy(policy)), [the_task()])
    assert spoken.card.action is DELTA_EEF_BASE_TORSO_MODE
    check_fit(spoken, the_task())
    standing = KitchenBackend("kitchen", NOWHERE).suite.tasks
    assert fitted(make_policy(choose_policy(policy)), standing).card.action.dim == 7


@pytest.mark.parametrize("goal", ["Parked(sink) & Open(door)", "Far(obj) & Parked(sink)"])
def test_a_drive_and_work_in_one_task_are_beyond_the_oracle(goal: str) -> None:
    with pytest.raises(PolicyFault, match=r"no plan for Parked\(sink\): it drives or works"):
        check_plan(parse(goal))


# -------------------------------------------------------------------------- the floor


def block(x: float, y: float, half: tuple[float, float], yaw: float = 0.0) -> Solids:
    return Solids(
        np.array([[x, y, 0.46]]), turn_z(yaw)[None], np.array([[*half, 0.46]]), np.zeros(1, bool)
    )


def test_clearance_is_the_distance_to_a_turned_box() -> None:
    points = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    # half sizes 0.5 and 0.1; turned by 90 degrees it reaches 0.1 in x and 0.5 in y
    found = clearance(points, block(0, 0, (0.5, 0.1), math.pi / 2))
    assert found == pytest.approx([0.9, 0.0, math.hypot(0.9, 0.5)])


def floor(obstacles: Solids, room: float = 0.4) -> Floor:
    made = object.__new__(Floor)
    made._low, made._high = np.full(2, -3.0), np.full(2, 3.0)
    made._obstacles, made._room = obstacles, room
    made._outline = np.array([[0.2, 0.2], [0.2, -0.2], [-0.4, 0.2], [-0.4, -0.2]])
    return made


def test_a_way_is_straight_where_it_can_be_and_bends_around_what_stands_there() -> None:
    start, end = np.array([-1.5, 0.0]), np.array([1.5, 0.0])
    assert floor(block(0, 2.0, (0.3, 0.3))).way(start, end) == [start, end]
    around = floor(block(0, 0, (0.3, 0.3))).way(start, end)
    assert around is not None
    assert len(around) == 3
    assert abs(around[1][1]) > 0.7  # 0.3 and the room of 0.4
    assert floor(block(0, 0, (0.3, 9.0))).way(start, end) is None


def test_room_to_turn_is_found_behind() -> None:
    # A front 0.62 m ahead; the robot wants 0.9 m to turn, and backs out by 0.28 m or more: 0.3
    # in steps of 5 cm, in one of 24 directions.
    found = floor(block(0.92, 0, (0.3, 3.0)), room=0.9).room_near(Stop(x=0, y=0, yaw=0))
    assert found is not None
    assert np.hypot(*found) == pytest.approx(0.3)
    assert found[0] < -0.28


# ------------------------------------------------------------------------ in the scene


@pytest.fixture(scope="module")
def galley(scene_cache_dir: Path) -> tuple[KitchenBackend, Scene, Task, EpisodeKey]:
    options = SuiteOptions(cache_dir=scene_cache_dir, chosen=pairs({"layout": "galley"}))
    backend = KitchenBackend("kitchen_mobile", options)
    key = EpisodeKey("kitchen_mobile", NAME, 0)
    task = backend.variant(backend.suite.tasks[0], key)
    return backend, backend.scene(task), task, key


@pytest.mark.sim
def test_parked_is_within_20_cm_and_12_degrees(
    galley: tuple[KitchenBackend, Scene, Task, EpisodeKey],
) -> None:
    backend, scene, task, key = galley
    goal = parse(task.goal)
    check(goal, scene)
    sim = Simulation(scene, goal, action=task.action.name)
    sim.start(backend.start(scene, task, key, 0))
    assert not sim.success()
    (name,) = goal.args  # type: ignore[union-attr]
    centre, rotation = sim.world.site(scene.region(name))
    facing = math.atan2(rotation[1, 0], rotation[0, 0])
    # cos(11.4 degrees) = 0.9803, cos(11.6 degrees) = 0.9796
    for away, turned, holds in (
        (0.0, 0.0, True), (0.19, 0.0, True), (0.21, 0.0, False), (0.0, 11.4, True),
        (0.0, -11.4, True), (0.0, 11.6, False), (0.0, 180.0, False), (0.19, 11.4, True),
    ):  # fmt: skip
        for joint, q in (
            ("robot0_base_x", centre[0] + away * math.cos(1.0)),
            ("robot0_base_y", centre[1] + away * math.sin(1.0)),
            ("robot0_base_yaw", facing + math.radians(turned)),
        ):
            sim.data.qpos[scene.qpos_address(joint)] = q
        mujoco.mj_kinematics(scene.model, sim.data)
        assert sim.success() is holds, (away, turned)


@pytest.mark.sim
def test_the_oracle_parks_and_the_drive_is_drawn_from_the_record(
    galley: tuple[KitchenBackend, Scene, Task, EpisodeKey],
    scene_cache_dir: Path, tmp_path: Path, painter,
) -> None:  # fmt: skip
    backend, scene, task, key = galley
    config = EvalConfig(
        policy=choose_policy("oracle", {"execute": "4"}), suites=("kitchen_mobile",),
        suite_set={"layout": "galley"},
    )  # fmt: skip
    result = evaluate(
        config, out=tmp_path / "run", episodes=1,
        resources=Resources(workers=1, slots=1, cache_dir=scene_cache_dir),
    )  # fmt: skip
    (episode,) = (read_episode(path) for path in episode_files(result.folder))
    assert episode.record.outcome is Outcome.SUCCESS
    assert episode.record.instruction == task.instruction
    assert episode.record.perturbation == {"layout": "galley"}
    actions = episode.arrays["actions"]
    assert actions.shape == (episode.record.steps, 12)
    assert (actions[:, -1] == 1).all()
    assert not actions[:, :7].any()  # the hand goes along as it is

    look = Look(cameras=("agentview_left", "overview"), size=(64, 64))
    artist = painter(scene)
    (last,) = draw_episode(artist, episode, look.cameras, look.size, [episode.record.steps])
    (first,) = draw_episode(artist, episode, look.cameras, look.size, [0])
    sim = Simulation(scene, parse(task.goal), action=task.action.name)
    sim.start(backend.start(scene, task, key, 0))
    for _ in range(task.settle_steps):
        sim.step(np.array(task.action.hold))
    live, _ = shoot(artist, sim.fixtures, sim.glimpse(), look)
    assert np.array_equal(first.colour, live)
    for action in actions:
        sim.step(action.astype(np.float64))
    live, _ = shoot(artist, sim.fixtures, sim.glimpse(), look)
    assert np.array_equal(last.colour, live)
    assert np.abs(first.colour.astype(int) - last.colour).mean() > 5  # it has driven


@pytest.mark.sim
@pytest.mark.slow
def test_the_oracle_parks_everywhere_and_touches_nothing(scene_cache_dir: Path) -> None:
    for name in LAYOUTS:
        options = SuiteOptions(cache_dir=scene_cache_dir, chosen=pairs({"layout": name}))
        backend = KitchenBackend("kitchen_mobile", options)
        for index in (0, 13, 27):
            key = EpisodeKey("kitchen_mobile", NAME, index)
            task = backend.variant(backend.suite.tasks[0], key)
            scene = backend.scene(task)
            assert arrives(backend, scene, task, key), (name, index)


def arrives(backend: KitchenBackend, scene: Scene, task: Task, key: EpisodeKey) -> bool:
    """Whether the oracle gets there without a contact of robot and kitchen."""
    oracle = Oracle(OracleConfig(), task.action)
    sim = Simulation(scene, parse(task.goal), action=task.action.name)
    began = backend.start(scene, task, key, 0)
    sim.start(began)
    memory = None
    for step in range(task.max_steps):
        state = PrivilegedState(
            key=key, task=task, scene=scene, qpos=sim.data.qpos.copy(), qvel=sim.data.qvel.copy(),
            fixtures=began.fixtures, gripper_command=sim.gripper_command,
        )  # fmt: skip
        answer = oracle.act(
            Observation(
                frames={}, instruction=["x"], seed=np.zeros(1, np.uint64), step=np.array([step]),
                slot=np.zeros(1, int), first=np.array([step == 0]), valid=np.ones(1, bool),
                memory=[memory], state=(state,),
            )
        )  # fmt: skip
        assert not answer.faults
        assert answer.memory
        memory = answer.memory[0]
        done = sim.step(answer.actions[0, 0].astype(np.float64))
        assert sim.data.ncon == 0
        if done:
            return True
    return False


@pytest.mark.slow
@pytest.mark.sim
@pytest.mark.parametrize(
    ("suite", "tasks"),
    [("kitchen", ["open_drawer", "turn_on_stove", "pnp_counter_to_sink"]), ("kitchen_mobile", [])],
)
def test_episodes_are_the_same_over_workers_and_slots(
    suite: str, tasks: list[str], scene_cache_dir: Path, tmp_path: Path, painter
) -> None:
    found = []
    for name, workers, slots in (("alone", 1, 1), ("slots", 1, 3), ("workers", 2, 2)):
        result = evaluate(
            EvalConfig(policy=choose_policy("oracle"), suites=(suite,)),
            out=tmp_path / name, episodes=12, first=5, tasks=tasks,  # scenes change at 10
            resources=Resources(workers=workers, slots=slots, cache_dir=scene_cache_dir),
        )  # fmt: skip
        found.append([read_episode(path) for path in sorted(episode_files(result.folder))])
    wins = [episode.record.outcome is Outcome.SUCCESS for episode in found[0]]
    assert np.mean(wins) >= 0.8
    for alone, *others in zip(*found, strict=True):
        for other in others:
            assert arrays_equal(alone, other) == []
            assert other.record.fixtures == alone.record.fixtures
            assert other.record.perturbation == alone.record.perturbation
            assert other.record.instruction == alone.record.instruction
    # One of the runs is drawn from its records alone, as the live simulation shows it.
    backend = KitchenBackend(suite, SuiteOptions(cache_dir=scene_cache_dir))
    known = {task.name: task for task in backend.suite.tasks}
    for episode in found[2][::9]:
        key = episode.record.key
        task = backend.variant(known[key.task], key)
        scene = backend.scene(task)
        artist, look = painter(scene), Look(cameras=("agentview_right",), size=(64, 64))
        sim = Simulation(scene, parse(task.goal), action=task.action.name)
        sim.start(backend.start(scene, task, key, episode.record.run_seed))
        for _ in range(task.settle_steps):
            sim.step(np.array(task.action.hold))
        live, _ = shoot(artist, sim.fixtures, sim.glimpse(), look)
        (again,) = draw_episode(artist, episode, look.cameras, look.size, [0])
        assert np.array_equal(again.colour, live)
