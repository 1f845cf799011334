"""Workers that die at bad moments, on real scenes."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from doubles import Watcher, open_folder
from pixel_runs import PixelPolicy, short_pool

from envs.pool import Pool
from envs.scene import SuiteOptions
from wamsim import gallery
from wamsim.contracts import EpisodeKey, Outcome
from wamsim.episode import Episode, Record, arrays_equal, read_episode
from wamsim.errors import WorkerLost
from wamsim.messages import Began, Lost, Ran, View
from wamsim.rollout import Rollout, RolloutOptions

pytestmark = pytest.mark.sim

SUITE, TASK = "tabletop_object", "put_can_in_basket"
SHARED = Path("/dev/shm")  # where Linux keeps it
VIEW = View(cameras=("agentview", "eye_in_hand"), size=(48, 64), capacity=1)


def _key(index: int) -> EpisodeKey:
    return EpisodeKey(SUITE, TASK, index)


def _chunk(slots: int, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (slots, n, 7)).astype(np.float32)


def _kill(pool: Pool, worker: int = 0) -> None:
    process = pool._remotes[worker].process
    os.kill(pool.pids()[worker], signal.SIGKILL)
    process.join(10)
    assert not process.is_alive()


def test_a_reset_after_a_lost_worker_starts_afresh(scene_cache_dir: Path) -> None:
    options = SuiteOptions(cache_dir=scene_cache_dir)
    with Pool((SUITE,), options, views=(VIEW,), workers=2, slots=2) as pool:
        before, _ = pool.reset(seed=3)
        _kill(pool)
        with pytest.raises(WorkerLost, match=r"slot [01]: .*signal 9.*reset\(\) starts afresh"):
            pool.step(np.zeros((4, 7), np.float32))
        after, _ = pool.reset(seed=3)
        assert all(np.array_equal(before[name], after[name]) for name in before)
        _kill(pool, 1)  # nobody has noticed when the reset comes
        after, _ = pool.reset(seed=3)
        assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_dead_workers_last_answer_comes_before_its_loss(scene_cache_dir: Path) -> None:
    options = SuiteOptions(cache_dir=scene_cache_dir)
    view = dataclasses.replace(VIEW, capacity=2)
    with Pool((SUITE,), options, views=(view,), slots=2) as pool:
        for slot in (0, 1):
            pool.begin(slot, _key(slot), 0)
        began = 0
        while began < 2:
            began += len(pool.receive())
        pool.send(0, _chunk(1, 4)[0], ((2, 4),))
        assert pool._remotes[0].pipe.poll(30)
        _kill(pool)
        (ran,) = pool.receive()
        assert isinstance(ran, Ran)
        assert (ran.slot, ran.done) == (0, 4)
        colour, _ = pool.pictures(0, 0)
        assert colour.std() > 5  # its pictures are still there
        pool.begin(0, _key(7), 0)  # that episode was over; the next one goes to a new worker
        replies = []
        while len(replies) < 2:
            replies += pool.receive()
        assert sorted((r.slot, type(r)) for r in replies) == [(0, Began), (1, Lost)]
        pool.send(0, _chunk(1, 4)[0], ((2, 4),))
        assert [type(r) for r in pool.receive()] == [Ran]


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared memory is not in /dev/shm")
def test_nothing_is_left_in_shared_memory(scene_cache_dir: Path) -> None:
    def names(pool: Pool) -> set[str]:
        return {remote.shared.name for remote in pool._remotes if remote.shared}

    pool = Pool((SUITE,), SuiteOptions(cache_dir=scene_cache_dir), views=(VIEW,), workers=2)
    first = names(pool)
    pids = pool.pids()
    _kill(pool)
    pool.begin(0, _key(0), 0)  # in a new worker
    second = names(pool)
    assert len(first | second) == 3
    assert {name for name in first | second if (SHARED / name).exists()} == second
    pids += pool.pids()
    pool.close()
    assert not [name for name in first | second if (SHARED / name).exists()]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_that_dies_while_starting_is_told_at_once(scene_cache_dir: Path) -> None:
    with Pool((SUITE,), SuiteOptions(cache_dir=scene_cache_dir), workers=2) as pool:
        _kill(pool, 1)
        with pytest.raises(WorkerLost, match=r"while starting \(exit code -9\); `wamsim doctor`"):
            pool.wait_until_up()


# -------------------------------------------------------------------- lost in a rollout


class Killer(Watcher):
    """Kills a worker at given counts of env steps."""

    def __init__(self, pool: Pool, *at: int) -> None:
        super().__init__()
        self._pool, self._at = pool, list(at)

    def stepped(self, steps: int) -> None:
        super().stepped(steps)
        if self._at and self.steps >= self._at[0]:
            self._at.pop(0)
            _kill(self._pool)


def _roll(
    out: Path, cache: Path, *, kill_at: tuple[int, ...] = (), slots: int = 1
) -> tuple[dict[EpisodeKey, Episode], list[str]]:
    policy = PixelPolicy()
    views = gallery.plan(policy.card, imagine=True).views
    keys = [_key(i) for i in range(3)]
    with (
        short_pool(14)((SUITE,), SuiteOptions(cache_dir=cache), views=views, slots=slots) as pool,
        open_folder(out) as folder,
    ):
        watcher = Killer(pool, *kill_at)
        rollout = Rollout(policy, pool, folder, RolloutOptions(run_seed=5), [watcher])
        left = [k for k in keys if k not in folder.finished().episodes]
        rollout.run(left, {SUITE: 1})
        paths = folder.finished(rerun_errors=False).episodes
        return {k: read_episode(path) for k, path in paths.items()}, watcher.sentences


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, scene_cache_dir: Path
) -> dict[EpisodeKey, Episode]:
    return _roll(tmp_path_factory.mktemp("undisturbed") / "run", scene_cache_dir)[0]


def _same(a: Episode, b: Episode) -> None:
    assert arrays_equal(a, b) == []

    def timeless(record: Record) -> Record:
        return dataclasses.replace(record, timings={}, attempt=1)

    assert timeless(a.record) == timeless(b.record)


@pytest.mark.parametrize("slots", [1, 2])
def test_an_episode_whose_worker_was_killed_runs_again_to_the_same_bytes(
    undisturbed: dict[EpisodeKey, Episode], tmp_path: Path, scene_cache_dir: Path, slots: int
) -> None:
    # one slot: within trial 1, at step 20 = 14 + 6
    found, sentences = _roll(tmp_path / "run", scene_cache_dir, kill_at=(20,), slots=slots)
    assert found.keys() == undisturbed.keys()
    for key, episode in found.items():
        _same(episode, undisturbed[key])
    if slots == 1:
        assert [e.record.attempt for e in found.values()] == [1, 2, 1]
        assert sentences == [
            f"{_key(1)}: worker process ended with exit code -9 (signal 9); running it again"
        ]
    else:
        # one or both slots were within an episode
        assert sorted(e.record.attempt for e in found.values()) in ([1, 1, 2], [1, 2, 2])


def test_an_episode_whose_worker_was_killed_twice_is_an_error_until_resumed(
    undisturbed: dict[EpisodeKey, Episode], tmp_path: Path, scene_cache_dir: Path
) -> None:
    found, sentences = _roll(tmp_path / "run", scene_cache_dir, kill_at=(6, 18))
    first, *others = found.values()
    assert first.record.outcome is Outcome.ERROR
    reason = "worker process ended with exit code -9 (signal 9)"
    assert first.record.reason == f"{reason}, in 2 attempts"
    assert (first.record.attempt, first.record.steps) == (2, 12)
    assert len(sentences) == 2
    for episode in others:
        _same(episode, undisturbed[episode.record.key])
    repaired, _ = _roll(tmp_path / "run", scene_cache_dir)
    for key, episode in repaired.items():
        _same(episode, undisturbed[key])
