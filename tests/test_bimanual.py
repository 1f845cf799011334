"""The bimanual suites: what they promise of tasks, starts, words, surroundings and records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from envs.bimanual import clutter, randomization, seeds, surfaces
from envs.bimanual.room import AWAY, TABLE_HALF, TABLE_TOP_Z
from envs.bimanual.suite import DRAWS, SUITES, BimanualBackend, suite
from envs.bimanual.tasks import BY_NAME, ENTRIES
from envs.evaluation import EvalConfig, Resources, evaluate
from envs.goals import World, check, holds, parse
from envs.replay import draw_episode
from envs.scene import Scene, Start, SuiteOptions, variant
from policies.simple import HOLD
from wamsim.contracts import EpisodeKey, Outcome, Task
from wamsim.conventions import ALOHA_STATE
from wamsim.episode import arrays_equal, read_episode
from wamsim.errors import ConventionMismatch, UnknownName
from wamsim.fitting import check_fit, fitted
from wamsim.registry import choose_policy, make_policy
from wamsim.run_folder import episode_files

NAMES = tuple(SUITES)
TASKS = [entry.name for entry in ENTRIES]
NOWHERE = SuiteOptions(cache_dir=Path("nowhere"))


@pytest.fixture(scope="module")
def backends(scene_cache_dir: Path) -> dict[str, BimanualBackend]:
    return {n: BimanualBackend(n, SuiteOptions(cache_dir=scene_cache_dir)) for n in NAMES}


def task_of(backend: BimanualBackend, name: str) -> Task:
    return next(task for task in backend.suite.tasks if task.name == name)


def begin(
    backend: BimanualBackend, name: str, index: int = 0, seed: int = 0
) -> tuple[Scene, Start]:
    task = task_of(backend, name)
    scene = backend.scene(task)
    return scene, backend.start(scene, task, EpisodeKey(task.suite, name, index), seed)


# ------------------------------------------------------------------------ listing


def test_listing_compiles_nothing_and_imports_no_simulation_package() -> None:
    code = (
        "import sys; from pathlib import Path; from envs.scene import SuiteOptions;"
        "from envs.bimanual.suite import suite;"
        "print(len(suite('bimanual_clean', SuiteOptions(cache_dir=Path('nowhere'))).suite.tasks),"
        "[m for m in ('gym_aloha', 'dm_control', 'torch') if m in sys.modules],"
        "Path('nowhere').exists())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "12 [] False"


@pytest.mark.parametrize("name", NAMES)
def test_contract_of_every_task(name: str) -> None:
    tasks = suite(name, NOWHERE).suite.tasks
    # SUITES 3.6, in our order
    limits = (400, 800, 400, 400, 800, 1200, 1200, 600, 700, 900, 400, 400)
    assert tuple(t.max_steps for t in tasks) == limits
    assert len({t.instruction for t in tasks}) == len(tasks) == 12
    for task in tasks:
        assert (task.control_hz, task.settle_steps) == (20.0, 10)
        assert task.action is SUITES[name][1]
        assert task.robot_state is ALOHA_STATE
        assert task.cameras[:3] == ("head", "left_wrist", "right_wrist")
        assert len({task.instruction, *task.paraphrases}) == 8


def test_an_unknown_suite_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match="bimanual_randomized"):
        suite("bimanual_randomised", NOWHERE)


def test_an_unknown_wording_is_refused() -> None:
    with pytest.raises(UnknownName, match="wording"):
        suite("bimanual_clean", SuiteOptions(cache_dir=Path("nowhere"), wording=8))


# -------------------------------------------------------------------------- words


def told(name: str, index: int, wording: int = 0) -> str:
    backend = suite(name, SuiteOptions(cache_dir=Path("nowhere"), wording=wording))
    task = backend.suite.tasks[0]
    return variant(backend, task, EpisodeKey(name, task.name, index)).instruction


def test_clean_scenes_are_told_seen_words_and_randomised_ones_unseen() -> None:
    entry = ENTRIES[0]
    assert {told("bimanual_clean", i) for i in range(100)} == set(entry.seen)
    assert {told("bimanual_randomized", i) for i in range(100)} == set(entry.unseen)
    assert not set(entry.seen) & set(entry.unseen)


def test_demonstrations_are_never_told_unseen_words() -> None:
    assert {told("bimanual_randomized", i) for i in range(100, 200)} <= set(ENTRIES[0].seen)


def test_words_are_the_trials_own() -> None:
    assert told("bimanual_clean", 7) == told("bimanual_clean_eef", 7) == told("bimanual_clean", 7)
    entry = ENTRIES[0]
    assert told("bimanual_clean", 3, wording=6) == (*entry.seen, *entry.unseen)[6]


# ------------------------------------------------------------------------- starts


@pytest.mark.sim
@pytest.mark.parametrize("name", ["lift_pot", "stack_blocks_three", "click_bell"])
def test_goals_name_what_is_there_and_do_not_hold(
    backends: dict[str, BimanualBackend], name: str
) -> None:
    scene, start = begin(backends["bimanual_randomized"], name)
    goal = parse(BY_NAME[name].goal)
    check(goal, scene)
    scene.set_fixtures(start.fixtures)
    data = mujoco.MjData(scene.model)
    data.qpos[:] = start.nominal_qpos
    mujoco.mj_forward(scene.model, data)
    assert not holds(goal, World(scene, data))


@pytest.mark.sim
@pytest.mark.parametrize("name", ["bimanual_clean", "bimanual_randomized"])
def test_a_start_depends_on_the_trial_alone(
    backends: dict[str, BimanualBackend], name: str
) -> None:
    backend = backends[name]
    _, first = begin(backend, "stack_blocks_two", 3, seed=0)
    _, again = begin(backend, "stack_blocks_two", 3, seed=99)
    assert first.state is not None
    assert again.state is not None
    assert first.state.tobytes() == again.state.tobytes()
    assert first.perturbation == again.perturbation
    for body, (pos, quat) in first.fixtures.items():
        assert again.fixtures[body][0].tobytes() == pos.tobytes()
        assert again.fixtures[body][1].tobytes() == quat.tobytes()
    _, other = begin(backend, "stack_blocks_two", 4)
    assert other.state is not None
    assert np.abs(other.state - first.state).max() > 1e-3


@pytest.mark.sim
def test_joints_and_poses_start_alike(backends: dict[str, BimanualBackend]) -> None:
    for kind in ("clean", "randomized"):
        _, joints = begin(backends[f"bimanual_{kind}"], "lift_pot", 5)
        _, poses = begin(backends[f"bimanual_{kind}_eef"], "lift_pot", 5)
        assert joints.state is not None
        assert poses.state is not None
        assert joints.state.tobytes() == poses.state.tobytes()


@pytest.mark.sim
def test_things_start_on_the_table_without_overlap(backends: dict[str, BimanualBackend]) -> None:
    scene, _ = begin(backends["bimanual_randomized"], "blocks_ranking_rgb")
    data = mujoco.MjData(scene.model)
    for index in range(20):
        _, start = begin(backends["bimanual_randomized"], "blocks_ranking_rgb", index)
        scene.set_fixtures(start.fixtures)
        data.qpos[:] = start.nominal_qpos
        mujoco.mj_forward(scene.model, data)
        assert data.ncon == 0  # 2 mm above the table, apart from each other and from clutter
        top = data.xpos[scene.body_id("table")][2]
        for colour in ("red", "green", "blue"):
            x, y, z = data.xpos[scene.body_id(f"{colour}_block")]
            assert abs(x) < TABLE_HALF[0]
            assert abs(y) < TABLE_HALF[1]
            assert z - 0.025 - top == pytest.approx(0.002)


# ---------------------------------------------------------------------- seeds


def test_rejected_seeds_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "rejected", lambda task, randomized: frozenset({0, 2, 3}))
    assert [seeds.seed("any", False, i) for i in range(4)] == [1, 4, 5, 6]
    assert seeds.seed("any", False, 100) == 100_100  # demonstrations have seeds of their own
    assert seeds.seed("any", False, 999) == 100_999


def test_every_task_was_asked_about() -> None:
    path = Path(seeds.__file__).with_name("seeds.json")
    table = json.loads(path.read_text())
    assert table["draws"] == DRAWS
    for kind in ("clean", "randomized"):
        assert set(table["rejected"][kind]) == set(TASKS)
        for name, left_out in table["rejected"][kind].items():
            assert left_out == sorted(set(left_out)), name
            # RoboTwin's rule is fair only where the expert solves nearly everything
            assert len(left_out) <= 34, name  # 75 percent


# ---------------------------------------------------------------- surroundings


def test_clean_scenes_have_nothing_but_their_task() -> None:
    poses, height, record = randomization.clean()
    assert (height, record) == (0.0, {})
    for name in clutter.ALL:
        assert poses[name][0] == pytest.approx(AWAY)
    for name in ("tint_warm", "tint_cool"):
        assert poses[name][0] == pytest.approx(AWAY)
    near = [n for n, (p, _) in poses.items() if n.startswith(("top_", "wall_")) and p[0] < 100]
    assert near == ["top_beech", "wall_fog"]


def test_surroundings_vary_within_their_bounds() -> None:
    tables, walls, heights, counts = set(), set(), [], []
    for seed in range(300):
        poses, height, record = randomization.draw(np.random.default_rng(seed), evaluated=True)
        heights.append(height)
        tables.add(record["table"])
        walls.add(record["wall"])
        counts.append(len(record["clutter"]))
        assert poses["table"][0][2] == pytest.approx(TABLE_TOP_Z + height)
        assert poses[f"top_{record['table']}"][0][2] == pytest.approx(
            TABLE_TOP_Z + height, abs=1e-3
        )
        out = [n for n in clutter.ALL if poses[n][0][0] < 100]
        assert set(out) == set(record["clutter"])
        for i, a in enumerate(out):
            assert abs(poses[a][0][1]) > 0.19  # along the edges, clear of the work
            for b in out[:i]:
                apart = np.linalg.norm(poses[a][0][:2] - poses[b][0][:2])
                assert apart > clutter.ALL[a][1] + clutter.ALL[b][1]
    assert tables == {name for name, _ in surfaces.TABLES_EVALUATED}
    assert walls == {name for name, _ in surfaces.WALLS_EVALUATED}
    assert min(heights) >= -0.03
    assert max(heights) <= 0.0
    assert np.mean(heights) == pytest.approx(-0.015, abs=0.002)
    assert min(counts) >= 7
    assert max(counts) == 10


def test_demonstrations_have_other_surfaces_than_evaluations() -> None:
    trained = {name for name, _ in (*surfaces.TABLES_TRAINED, *surfaces.WALLS_TRAINED)}
    evaluated = {name for name, _ in (*surfaces.TABLES_EVALUATED, *surfaces.WALLS_EVALUATED)}
    assert not trained & evaluated
    seen = set()
    for seed in range(200):
        _, _, record = randomization.draw(np.random.default_rng(seed), evaluated=False)
        seen |= {record["table"], record["wall"]}
    # RoboTwin's clean_background_rate of 0.02 shows the plain surfaces now and then
    assert seen == trained | {surfaces.TABLES_EVALUATED[0][0], surfaces.WALLS_EVALUATED[0][0]}


@pytest.mark.sim
def test_surroundings_are_recorded_and_drawn_again_from_the_record(
    backends: dict[str, BimanualBackend], scene_cache_dir: Path, tmp_path: Path, painter
) -> None:
    config = EvalConfig(policy=choose_policy("hold"), suites=("bimanual_randomized",))
    result = evaluate(
        config, out=tmp_path / "run", episodes=2, tasks=["click_bell"],
        resources=Resources(workers=1, slots=2, cache_dir=scene_cache_dir),
    )  # fmt: skip
    first, second = (read_episode(path) for path in sorted(episode_files(result.folder)))
    assert first.record.outcome is second.record.outcome is Outcome.FAILURE
    assert first.record.steps == 400
    assert first.record.instruction in BY_NAME["click_bell"].unseen
    scene, start = begin(backends["bimanual_randomized"], "click_bell", first.record.key.index)
    assert first.record.perturbation == json.loads(json.dumps(start.perturbation))
    assert len(first.record.perturbation["clutter"]) >= 7

    # What the policy would have seen, from the live simulation's own start ...
    from envs.runtime import Look, Simulation, shoot

    task = task_of(backends["bimanual_randomized"], "click_bell")
    artist = painter(scene)
    look = Look(cameras=("head", "left_wrist"), size=(64, 64))
    simulation = Simulation(scene, parse(task.goal), action=task.action.name)
    simulation.start(start)
    for _ in range(task.settle_steps):
        simulation.step(np.array(task.action.hold))
    live, _ = shoot(artist, simulation.fixtures, simulation.glimpse(), look)
    # ... and from the file, after the scene has shown another episode.
    (other,) = draw_episode(artist, second, look.cameras, look.size, [0])
    (again,) = draw_episode(artist, first, look.cameras, look.size, [0])
    assert np.array_equal(again.colour, live)
    assert np.abs(other.colour.astype(int) - live).mean() > 5  # another table, other clutter


@pytest.mark.slow
@pytest.mark.sim
def test_episodes_are_the_same_over_workers_and_slots(
    scene_cache_dir: Path, tmp_path: Path
) -> None:
    found = []
    for name, workers, slots in (("alone", 1, 1), ("slots", 1, 3), ("workers", 2, 2)):
        result = evaluate(
            EvalConfig(policy=choose_policy("oracle"), suites=("bimanual_randomized",)),
            out=tmp_path / name, episodes=3, tasks=["lift_pot", "click_bell"],
            resources=Resources(workers=workers, slots=slots, cache_dir=scene_cache_dir),
        )  # fmt: skip
        found.append([read_episode(path) for path in sorted(episode_files(result.folder))])
    for alone, *others in zip(*found, strict=True):
        assert alone.record.outcome is Outcome.SUCCESS
        for other in others:
            assert arrays_equal(alone, other) == []
            assert other.record.fixtures == alone.record.fixtures
            assert other.record.perturbation == alone.record.perturbation


# ------------------------------------------------------------------ who may act


@pytest.mark.parametrize("policy", ["hold", "random", "oracle"])
@pytest.mark.parametrize("name", ["bimanual_clean", "bimanual_clean_eef"])
def test_scripted_policies_speak_what_the_suite_expects(policy: str, name: str) -> None:
    tasks = suite(name, NOWHERE).suite.tasks
    spoken = fitted(make_policy(choose_policy(policy)), tasks)
    assert spoken.card.action is SUITES[name][1]
    for task in tasks:
        check_fit(spoken, task)


@pytest.mark.sim
def test_a_recorded_run_is_replayed_in_its_own_convention(
    scene_cache_dir: Path, tmp_path: Path
) -> None:
    states = []
    policy = choose_policy("oracle")
    for name in ("oracle", "replay"):
        result = evaluate(
            EvalConfig(policy=policy, suites=("bimanual_clean",)),
            out=tmp_path / name, episodes=1, tasks=["lift_pot"],
            resources=Resources(workers=1, slots=1, cache_dir=scene_cache_dir),
        )  # fmt: skip
        (episode,) = (read_episode(path) for path in episode_files(result.folder))
        assert episode.record.outcome is Outcome.SUCCESS
        states.append(episode.arrays["states"])
        policy = choose_policy("replay", {"run": str(result.folder)})
    assert states[0].tobytes() == states[1].tobytes()


def test_a_policy_that_fits_is_left_alone() -> None:
    from envs.tabletop import suite as tabletop

    policy = HOLD.make("", HOLD.config())
    assert fitted(policy, tabletop("tabletop_goal", NOWHERE).suite.tasks) is policy


def test_seven_channels_cannot_move_two_arms() -> None:
    task = suite("bimanual_clean", NOWHERE).suite.tasks[0]
    with pytest.raises(ConventionMismatch, match="expects ALOHA_JOINTS_GRIPPER_OPEN_FRACTION"):
        check_fit(make_policy(choose_policy("hold")), task)
