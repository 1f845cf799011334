"""Every task as a Gymnasium environment: ids, contract, and episodes equal to the harness's."""

from __future__ import annotations

import multiprocessing as mp
import subprocess
import sys
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import envs.registration
from envs.registration import SUITES, environment_id, environment_ids
from envs.scene import SuiteOptions
from wamsim import registry
from wamsim.errors import AssetsMissing, RenderingUnavailable, UnknownName

LIBERO = sorted(name for name in SUITES if name.startswith("libero"))
TABLETOP = sorted(name for name in SUITES if name.startswith("tabletop"))
EACH = [
    *(pytest.param(name, marks=pytest.mark.sim) for name in (*TABLETOP, "bimanual_randomized")),
    *(pytest.param(name, marks=[pytest.mark.sim, pytest.mark.libero]) for name in LIBERO),
]


@pytest.fixture
def make(request: pytest.FixtureRequest, scene_cache_dir: Path):
    """Make a suite's environment, without pixels unless asked; closed at the end."""
    made = []

    def one(suite: str, task: int = 0, **kwargs: Any) -> gymnasium.Env:
        if suite.startswith("libero"):
            kwargs["assets"] = request.getfixturevalue("libero_assets")
        kwargs = {"cameras": (), "cache": scene_cache_dir, **kwargs}
        made.append(gymnasium.make(environment_id(suite, task), **kwargs))
        return made[-1]

    yield one
    for env in made:
        env.close()


# ---------------------------------------------------------------------- registration


def test_there_are_130_libero_tasks() -> None:
    assert sum(SUITES[name].tasks for name in LIBERO) == 130
    assert environment_id("libero_spatial", 0) == "wamsim/libero_spatial-0-v1"


def test_the_table_of_suites_says_what_the_suites_say(tmp_path: Path) -> None:
    assert sorted(SUITES) == sorted(registry.suite_names())
    for name, listed in SUITES.items():
        suite = registry.suite(name, SuiteOptions(cache_dir=tmp_path)).suite
        assert (listed.tasks, listed.version) == (len(suite.tasks), suite.version), name
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", environment_ids())
def test_every_id_is_registered(name: str) -> None:
    spec = gymnasium.spec(name)
    assert spec.namespace == "wamsim"
    assert spec.entry_point == "envs.gym_env:WamsimEnv"
    assert environment_id(**spec.kwargs) == name


def test_registering_again_changes_nothing() -> None:
    before = dict(gymnasium.registry)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs.registration.register()
    assert gymnasium.registry == before


def test_importing_wamsim_registers_and_imports_no_simulator() -> None:
    code = (
        "import sys, gymnasium, wamsim\n"
        "assert 'wamsim/tabletop_goal-0-v2' in gymnasium.registry\n"
        "heavy = ('mujoco', 'robosuite', 'libero', 'numba', 'torch')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -------------------------------------------------------------------------- contract


@pytest.mark.parametrize("suite", EACH)
def test_the_contract_of_an_environment(suite: str, make) -> None:
    env = make(suite, SUITES[suite].tasks - 1)
    first, info = env.reset(seed=5)
    assert first in env.observation_space
    assert set(info) == {"success", "index", "instruction", "steps"}
    assert (info["success"], info["steps"]) == (False, 0)
    rng = np.random.default_rng(0)
    seen = [first]
    for i in range(3):
        action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation in env.observation_space
        assert all(np.isfinite(value).all() for value in observation.values())
        assert (reward, terminated, truncated, info["steps"]) == (0.0, False, False, i + 1)
        seen.append(observation)
    for a in seen:
        for b in seen:
            assert a is b or not np.shares_memory(a["robot_state"], b["robot_state"])
    again, _ = env.reset(seed=5)
    np.testing.assert_array_equal(again["robot_state"], first["robot_state"])


@pytest.mark.parametrize("suite", EACH)
def test_seeds_and_resets_change_the_start(suite: str, make) -> None:
    env = make(suite).unwrapped
    env.reset(seed=0)
    qpos = [env.data.qpos.copy()]
    env.reset()  # goes on to another initial state
    qpos.append(env.data.qpos.copy())
    env.reset(seed=1)
    qpos.append(env.data.qpos.copy())
    env.reset(seed=0)
    np.testing.assert_array_equal(env.data.qpos, qpos[0])
    assert not np.array_equal(qpos[0], qpos[1])
    assert not np.array_equal(qpos[0], qpos[2])
    env.reset()
    np.testing.assert_array_equal(env.data.qpos, qpos[1])


def complaints(env: gymnasium.Env) -> list[str]:
    """What check_env says, but for the bounds of the robot's state, which has none."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env.unwrapped)
    return [str(w.message) for w in caught if "infinity" not in str(w.message)]


@pytest.mark.sim
def test_check_env_passes_on_tabletop(make) -> None:
    assert complaints(make("tabletop_goal", image_size=(64, 64), cameras=("agentview",))) == []


@pytest.mark.sim
@pytest.mark.libero
def test_check_env_passes_on_libero(make) -> None:
    assert complaints(make("libero_goal", image_size=(64, 64), cameras=("agentview",))) == []


@pytest.mark.sim
def test_pictures_are_upright_unshared_and_as_large_as_asked(make) -> None:
    env = make("tabletop_object", cameras=("agentview", "eye_in_hand"), image_size=(48, 64),
               render_mode="rgb_array", render_size=(96, 128))  # fmt: skip
    assert env.metadata["render_fps"] == 20
    a, _ = env.reset(seed=0)
    b, *_ = env.step(np.zeros(7, np.float32))
    assert set(a) == {"agentview", "eye_in_hand", "robot_state"}
    for camera in ("agentview", "eye_in_hand"):
        assert (a[camera].shape, a[camera].dtype) == ((48, 64, 3), np.uint8)
        assert a[camera].std() > 10
        assert not np.shares_memory(a[camera], b[camera])
    assert not np.shares_memory(b["agentview"], b["eye_in_hand"])
    picture = env.render()
    assert (picture.shape, picture.dtype) == ((96, 128, 3), np.uint8)
    # the same view: shrunk, the rendered picture is the observed one
    shrunk = picture.reshape(48, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(shrunk - b["agentview"]).mean() < 6
    assert np.abs(shrunk[::-1] - b["agentview"]).mean() > 20
    env.close()
    np.testing.assert_array_equal(env.reset(seed=0)[0]["agentview"], a["agentview"])


@pytest.mark.sim
def test_an_episode_is_the_harness_s(make, scene_cache_dir: Path) -> None:
    from envs.worker import Begin, Run, Worker, WorkerSpec
    from wamsim.contracts import EpisodeKey

    env = make("tabletop_goal", 1).unwrapped
    options = SuiteOptions(cache_dir=scene_cache_dir)
    spec = WorkerSpec(suites=("tabletop_goal",), options=options, views=(), slots=1, exact=False,
                      memory_bound=1 << 30, shared=None)  # fmt: skip
    worker = Worker(spec)
    key = EpisodeKey("tabletop_goal", env.task.name, 73)
    began = worker.handle(Begin(slot=0, key=key, run_seed=9))
    actions = np.random.default_rng(1).uniform(-1, 1, (12, 7)).astype(np.float32)
    ran = worker.handle(Run(slot=0, actions=actions, looks=()))
    worker.close()

    env.reset(seed=4)  # another episode before it
    first, info = env.reset(seed=9, options={"index": 73})
    assert (info["index"], env.run_seed) == (73, 9)
    np.testing.assert_array_equal(first["robot_state"], began.robot_state)
    for i, action in enumerate(actions):
        observation, *_ = env.step(action)
        np.testing.assert_array_equal(observation["robot_state"], ran.robot_states[i])
    np.testing.assert_array_equal(env.data.qpos, ran.states[-1, 1 : 1 + env.model.nq])


@pytest.mark.sim
def test_success_terminates_and_the_step_limit_truncates(make) -> None:
    env = make("tabletop_goal", 0)  # open the top drawer
    inner = env.unwrapped
    assert inner.task.goal == "Open(cabinet_top_region)"
    env.reset(seed=0)
    thing = inner.scene.thing("cabinet")
    address = inner.scene.qpos_address(thing.joints[0])
    low, high = inner.model.joint(thing.joints[0]).range
    farther = low if abs(low) > abs(high) else high
    inner.data.qpos[address] = farther
    assert inner.success()
    _, reward, terminated, truncated, info = env.step(np.zeros(7, np.float32))
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)

    env.reset(seed=0)
    inner._steps = inner.task.max_steps - 2  # as if it had gone on for long
    assert env.step(np.zeros(7, np.float32))[2:4] == (False, False)
    assert env.step(np.zeros(7, np.float32))[2:4] == (False, True)


@pytest.mark.sim
def test_actions_are_checked(make) -> None:
    env = make("tabletop_object").unwrapped
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(7, np.float32))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"shape \(6,\), expected \(7,\): dx, dy, dz, drx"):
        env.step(np.zeros(6, np.float32))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            env.step(np.array([0, 0, bad, 0, 0, 0, 0], np.float32))
    env.step(np.full(7, 9.0))  # beyond the bounds: clipped
    beyond = env.data.qpos.copy()
    env.reset(seed=0)
    env.step(np.ones(7))
    np.testing.assert_array_equal(env.data.qpos, beyond)


@pytest.mark.sim
def test_options_are_checked(make) -> None:
    env = make("tabletop_object").unwrapped
    for bad in (-1, 0.5, "0", True):
        with pytest.raises(ValueError, match="whole number"):
            env.reset(options={"index": bad})
    with pytest.raises(UnknownName, match=r"'idx'.*'index'"):
        env.reset(options={"idx": 1})
    assert env.reset(options={"index": np.int64(2)})[1]["index"] == 2
    with pytest.raises(UnknownName, match="no task 99"):
        type(env)("tabletop_object", 99)
    with pytest.raises(UnknownName, match="camera of tabletop_object"):
        make("tabletop_object", cameras=("agent_view",))
    by_name = type(env)("tabletop_object", "put_milk_in_basket", cameras=())
    assert by_name.task.index == 1


def test_missing_assets_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAMSIM_LIBERO_ASSETS", str(tmp_path / "nowhere"))
    monkeypatch.setenv("WAMSIM_CACHE", str(tmp_path / "cache"))
    with pytest.raises(AssetsMissing, match="nowhere"):
        gymnasium.make("wamsim/libero_object-3-v1")


@pytest.mark.sim
def test_a_fork_after_drawing_says_so_and_does_not_hang(make) -> None:
    def child(pipe: Connection) -> None:
        try:
            env.reset(seed=1)
        except RenderingUnavailable as error:
            pipe.send(str(error))

    env = make("tabletop_object", cameras=("agentview",), image_size=(32, 32))
    env.reset(seed=0)
    ours, theirs = mp.Pipe()
    process = mp.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    try:
        assert ours.poll(20)
        assert "context='spawn'" in ours.recv()
    finally:
        process.kill()
        process.join()


@pytest.mark.sim
def test_environments_share_no_model(make) -> None:
    a, b = make("tabletop_goal").unwrapped, make("tabletop_goal").unwrapped
    a.reset(seed=0)
    before = a.model.body_pos.copy()
    b.reset(seed=1)
    assert not np.array_equal(b.model.body_pos, before)
    np.testing.assert_array_equal(a.model.body_pos, before)
