"""The pool on real scenes: the VectorEnv contract, and the half that the rollout uses."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from pixel_runs import short_pool

from envs.evaluation import EvalConfig, Resources, evaluate
from envs.pool import Pool
from envs.rendering import Painter
from envs.runtime import Glimpse, Look, shoot
from envs.scene import SuiteOptions
from wamsim.contracts import EpisodeKey
from wamsim.episode import read_episode
from wamsim.errors import AssetsMissing, UnknownName
from wamsim.messages import Began, Ran, View
from wamsim.registry import choose_policy
from wamsim.run_folder import episode_files

pytestmark = pytest.mark.sim

SUITE, TASK = "tabletop_object", "put_can_in_basket"
VIEW = View(cameras=("agentview", "eye_in_hand"), size=(48, 64), capacity=1)


def _key(index: int, task: str = TASK) -> EpisodeKey:
    return EpisodeKey(SUITE, task, index)


def _chunk(slots: int, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (slots, n, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def pool(scene_cache_dir: Path) -> Iterator[Pool]:
    """Two slots of one worker, looked at; tests share it and reset it."""
    options = SuiteOptions(cache_dir=scene_cache_dir)
    with Pool((SUITE,), options, views=(VIEW,), workers=1, slots=2) as made:
        made.wait_until_up()
        yield made


# --------------------------------------------------------------------------- VectorEnv


def test_spaces(pool: Pool) -> None:
    assert isinstance(pool, gymnasium.vector.VectorEnv)
    assert pool.num_envs == 2
    assert pool.single_action_space.shape == (7,)
    assert pool.action_space.shape == (2, 7)
    assert set(pool.single_observation_space) == {"robot_state", "agentview", "eye_in_hand"}
    assert pool.observation_space["agentview"].shape == (2, 48, 64, 3)
    assert pool.metadata["autoreset_mode"] == gymnasium.vector.AutoresetMode.DISABLED


def test_reset_and_step_keep_the_contract(pool: Pool) -> None:
    first, info = pool.reset(seed=3)
    assert pool.observation_space.contains(first)
    assert info == {}
    pool.action_space.seed(0)
    observation, reward, terminated, truncated, info = pool.step(pool.action_space.sample())
    assert pool.observation_space.contains(observation)
    for array, dtype in ((reward, float), (terminated, bool), (truncated, bool)):
        assert (array.shape, array.dtype) == ((2,), np.dtype(dtype))
        assert not array.any()
    assert info["steps"].tolist() == [1, 1]
    for name, before in first.items():
        assert not np.array_equal(observation[name][0], before[0]), name


def test_a_chunk_is_its_steps(pool: Pool) -> None:
    chunk = _chunk(2, 5)
    pool.reset(seed=3)
    for i in range(5):
        expected, *_ = pool.step(chunk[:, i])
    pool.reset(seed=3)
    found, _, _, _, info = pool.run(chunk)
    assert info["steps"].tolist() == [5, 5]
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


def test_the_seed_decides_and_the_slot_does_not(pool: Pool) -> None:
    def start(seed: int, *indices: int) -> dict[str, np.ndarray]:
        keys = [_key(i) for i in indices]
        return pool.reset(seed=seed, options={"episodes": keys})[0]

    a, again, swapped, other = start(3, 0, 1), start(3, 0, 1), start(3, 1, 0), start(4, 0, 1)
    for camera in VIEW.cameras:
        assert np.array_equal(a[camera], again[camera])
        assert np.array_equal(a[camera], swapped[camera][::-1])
        assert not np.array_equal(a[camera][0], a[camera][1])  # trials differ
    assert not np.array_equal(a["agentview"][0], other["agentview"][0])  # fixtures differ


def test_the_first_trials_are_the_default(pool: Pool) -> None:
    default, _ = pool.reset(seed=1)
    named, _ = pool.reset(seed=[1, 1], options={"episodes": [_key(0), _key(1)]})
    assert all(np.array_equal(default[name], named[name]) for name in default)


def test_a_chunk_ends_when_the_goal_holds(scene_cache_dir: Path, tmp_path: Path) -> None:
    # A scripted expert closes the drawer; its recorded actions do it again.
    resources = Resources(workers=1, slots=1, cache_dir=scene_cache_dir)
    config = EvalConfig(policy=choose_policy("oracle"), suites=("tabletop_goal",))
    evaluate(config, out=tmp_path, episodes=1, tasks=["close_top_drawer"], resources=resources)
    (path,) = episode_files(tmp_path)
    recorded = read_episode(path)
    steps = recorded.record.success_step
    assert steps is not None
    actions = np.concatenate([recorded.arrays["actions"], np.zeros((8, 7), np.float32)])
    options = SuiteOptions(cache_dir=scene_cache_dir)
    with Pool(("tabletop_goal",), options, views=(VIEW,), slots=2) as pool:
        keys = [recorded.record.key, dataclasses.replace(recorded.record.key, index=1)]
        pool.reset(seed=0, options={"episodes": keys})
        still = np.zeros_like(actions)
        observation, reward, terminated, truncated, info = pool.run(np.stack([actions, still]))
        assert info["steps"].tolist() == [steps, steps + 8]
        assert reward.tolist() == [1.0, 0.0]
        assert (terminated.tolist(), truncated.tolist()) == ([True, False], [False, False])
        state = observation["robot_state"][0]
        assert np.array_equal(state, recorded.arrays["robot_state"][-1])
        # the picture is that of the last step, drawn from the recorded state
        glimpse = Glimpse(
            seen_qpos=recorded.arrays["seen_qpos"][-1],
            lit=tuple(recorded.arrays["lit"][-1]),
            robot_state=state,
        )
        painter = Painter(pool.scene(pool.task("tabletop_goal", "close_top_drawer")))
        fixtures = {k: (np.array(p), np.array(q)) for k, (p, q) in recorded.record.fixtures.items()}
        look = Look(cameras=VIEW.cameras, size=VIEW.size)
        frames, _ = shoot(painter, fixtures, glimpse, look)
        painter.close()
        for place, camera in enumerate(VIEW.cameras):
            assert np.array_equal(observation[camera][0], frames[place])


def test_the_step_limit_truncates(scene_cache_dir: Path) -> None:
    options = SuiteOptions(cache_dir=scene_cache_dir)
    with short_pool(6)((SUITE,), options, views=(VIEW,), slots=2) as pool:
        pool.reset()
        still = np.zeros((2, 4, 7), np.float32)
        assert pool.run(still)[3].tolist() == [False, False]
        _, _, terminated, truncated, _ = pool.run(still[:, :2])
        assert (terminated.tolist(), truncated.tolist()) == ([False, False], [True, True])
        # a slot never starts afresh by itself
        observation, _, _, truncated, _ = pool.step(still[:, 0])
        assert truncated.tolist() == [True, True]
        assert pool.observation_space.contains(observation)
        pool.reset()
        assert pool.run(still)[3].tolist() == [False, False]


@pytest.mark.parametrize("count", [1, 3])
def test_episodes_must_fill_the_slots(pool: Pool, count: int) -> None:
    with pytest.raises(UnknownName, match=f"must hold 2 keys, got {count}"):
        pool.reset(options={"episodes": [_key(i) for i in range(count)]})


def test_unknown_tasks_are_named_before_a_worker_hears_of_them(pool: Pool) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'put_can_in_basket'"):
        pool.reset(options={"episodes": [_key(0, "put_cn_in_basket")] * 2})
    pool.reset()


@pytest.mark.parametrize("sizes", [{"workers": 0}, {"slots": 0}])
def test_there_must_be_a_slot(sizes: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must both be at least 1"):
        Pool((SUITE,), SuiteOptions(cache_dir=tmp_path), **sizes)


# ---------------------------------------------------------------------- asynchronous half


def test_looks_are_drawn_at_the_steps_asked_for(pool: Pool, scene_cache_dir: Path) -> None:
    options = SuiteOptions(cache_dir=scene_cache_dir)
    views = (
        View(cameras=("agentview",), size=(32, 32), capacity=3, depth=True),
        View(cameras=("eye_in_hand", "agentview"), size=(48, 64), capacity=2),
    )
    chunk = _chunk(1, 6)[0]
    reference: list[dict[str, np.ndarray]] = []
    start, _ = pool.reset(seed=0, options={"episodes": [_key(0), _key(0)]})
    reference.append(start)
    for action in chunk:
        reference.append(pool.step(np.stack([action, action]))[0])
    with Pool((SUITE,), options, views=views) as other:
        other.begin(0, _key(0), 0)
        (began,) = other.receive()
        assert isinstance(began, Began)
        assert began.slot == 0
        assert began.intrinsics[0] is not None
        assert began.intrinsics[0].shape == (1, 3, 3)
        assert (began.intrinsics[1], began.extrinsics[1]) == (None, None)
        colour, _ = other.pictures(0, 1)
        assert np.array_equal(colour[0, 0], reference[0]["eye_in_hand"][0])
        other.send(0, chunk, ((1, 4, 6), (2, 5)))
        (ran,) = other.receive()
        assert isinstance(ran, Ran)
        assert (ran.done, ran.success, list(ran.looked)) == (6, False, [(1, 4, 6), (2, 5)])
        assert ran.states.shape[0] == ran.seen_qpos.shape[0] == ran.robot_states.shape[0] == 6
        assert ran.extrinsics[0] is not None
        assert ran.extrinsics[0].shape == (3, 1, 4, 4)
        colour, _ = other.pictures(0, 1)
        for place, step in enumerate((2, 5)):
            for camera, name in enumerate(views[1].cameras):
                assert np.array_equal(colour[place, camera], reference[step][name][0])
        _, depth = other.pictures(0, 0)
        assert depth.shape == (3, 1, 32, 32)
        assert (depth > 0.1).all()
        robot = np.stack([r["robot_state"][0] for r in reference])
        assert np.array_equal(ran.robot_states, robot[1:])


def test_receive_gives_up_after_its_timeout(pool: Pool) -> None:
    assert pool.receive(timeout=0.01) == []


def test_workers_own_consecutive_slots(pool: Pool) -> None:
    assert [pool.worker_of(slot) for slot in range(pool.num_envs)] == [0, 0]
    assert len(pool.pids()) == 1


def test_missing_assets_reach_the_caller_as_they_are(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    options = SuiteOptions(cache_dir=tmp_path, libero_assets=nowhere)
    with (
        Pool(("libero_object",), options) as pool,
        pytest.raises(AssetsMissing, match=str(nowhere)),
    ):
        pool.reset()
