"""The closed loop on slots that count: lost workers, order, and what is drawn and kept."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from doubles import (
    CountingPolicy,
    Mishap,
    Watcher,
    card,
    key,
    open_folder,
    pool_for,
    roll,
    sees,
    task,
    untimed,
)

from wamsim.contracts import Observation, Outcome, Prediction
from wamsim.episode import Episode, arrays_equal
from wamsim.in_progress import Job, JobQueue

FAILURE = Outcome.FAILURE
ERROR = Outcome.ERROR


def _end(episode: Episode) -> tuple[Outcome, str | None, int, int | None]:
    r = episode.record
    return r.outcome, r.reason, r.steps, r.success_step


# ---------------------------------------------------------------------- lost workers


def _keys(count: int) -> list:
    return [key(i) for i in range(count)]


@pytest.mark.parametrize("at", [0, 1, 5])
def test_an_episode_whose_worker_died_runs_once_more(tmp_path: Path, at: int) -> None:
    made = card(cameras=("front",), frame_offsets=(-1, 0), imagines=sees((2,)))
    undisturbed = roll(
        tmp_path / "calm", CountingPolicy(made), pool_for(made, imagine=True), _keys(3)
    )
    watcher = Watcher()
    pool = pool_for(made, imagine=True, mishaps={(1, 1): Mishap(at)})
    found = roll(tmp_path / "run", CountingPolicy(made), pool, _keys(3), watcher=watcher)
    assert [(e.record.attempt, e.record.outcome) for e in found.values()] == [
        (1, FAILURE), (2, FAILURE), (1, FAILURE),
    ]  # fmt: skip
    for k, episode in found.items():
        assert arrays_equal(episode, undisturbed[k]) == []
    assert [k.index for _, k, _ in pool.began] == [0, 1, 1, 2]
    assert watcher.sentences == [f"{key(1)}: worker died; running it again"]


def test_an_episode_whose_worker_died_twice_is_an_error(tmp_path: Path) -> None:
    watcher = Watcher()
    policy = CountingPolicy(card())
    pool = pool_for(policy.card, mishaps={(0, 1): Mishap(3), (0, 2): Mishap(5)})
    found = roll(tmp_path / "run", policy, pool, _keys(2), watcher=watcher)
    assert _end(found[key(0)]) == (ERROR, "worker died, in 2 attempts", 4, None)
    assert found[key(0)].record.attempt == 2
    assert found[key(1)].record.outcome is FAILURE
    assert [k.index for _, k, _ in pool.began] == [0, 0, 1]
    assert watcher.sentences[1] == f"{key(0)}: worker died, twice; recorded as an error"


def test_a_lost_worker_takes_its_other_slots_along_and_no_more(tmp_path: Path) -> None:
    policy = CountingPolicy(card())
    pool = pool_for(policy.card, workers=2, slots=2, mishaps={(0, 1): Mishap(5)})
    found = roll(tmp_path / "run", policy, pool, _keys(4))
    attempts = {k.index: e.record.attempt for k, e in found.items()}
    assert attempts == {0: 2, 1: 2, 2: 1, 3: 1}  # slots 0 and 1 are worker 0's
    assert all(e.record.steps == 10 for e in found.values())


def test_slots_that_wait_for_the_policy_are_lost_as_well(tmp_path: Path) -> None:
    waiting = 0
    for seed in range(25):
        policy = CountingPolicy(card(cameras=("front",)))
        pool = pool_for(policy.card, slots=5, shuffle=seed, mishaps={(1, 1): Mishap(5)})
        found = roll(tmp_path / str(seed), policy, pool, _keys(12))
        assert found[key(1)].record.attempt == 2
        assert all(_end(e)[1:3] == ("step limit 10", 10) for e in found.values())
        assert all(len(e.arrays["states"]) == 11 for e in found.values())
        waiting += pool.lost_while_waiting
    assert waiting >= 5


def test_a_resumed_run_repairs_errors(tmp_path: Path) -> None:
    policy = CountingPolicy(card())
    mishaps = {(0, 1): Mishap(3), (0, 2): Mishap(5)}
    roll(tmp_path / "run", policy, pool_for(policy.card, mishaps=mishaps), _keys(2))
    with open_folder(tmp_path / "run") as folder:
        assert list(folder.finished().episodes) == [key(1)]
    found = roll(tmp_path / "run", policy, pool_for(policy.card), [key(0)])
    assert [(e.record.outcome, e.record.attempt) for e in found.values()] == [(FAILURE, 1)] * 2


# ------------------------------------------------------------------------------ order


def test_jobs_keep_a_worker_on_its_scene() -> None:
    def job(scene: str, index: int) -> Job:
        return Job(key(index, scene), task(scene, scene_id=scene))

    queue = JobQueue(
        [job("a", 0), job("a", 1), job("a", 2), job("b", 0), job("c", 0), job("c", 1), job("a", 3)]
    )
    order = []
    for worker in (0, 1, 0, 1, 2, 2, 2, 0):
        got = queue.next(worker)
        order.append((worker, f"{got.key.task}{got.key.index}" if got else None))
    assert order == [
        (0, "a0"),  # the first scene in planned order
        (1, "b0"),  # the next one that nobody works on
        (0, "a1"),
        (1, "c0"),  # b is empty
        (2, "a2"),  # no scene is free: where most is left (a 2, c 1)
        (2, "a3"),
        (2, "c1"),  # a is empty; c is left
        (0, None),
    ]


def test_a_worker_that_helps_stays_where_it_helps() -> None:
    jobs = [Job(key(i, s), task(s, scene_id=s)) for s in ("a", "b") for i in range(4)]
    queue = JobQueue(jobs)
    taken = [queue.next(worker).key for worker in (0, 1, 2, 2, 2)]
    # worker 2 finds no free scene and helps with a, though b soon has more left
    assert [f"{k.task}{k.index}" for k in taken] == ["a0", "b0", "a1", "a2", "a3"]


def test_slots_of_a_worker_share_its_scene(tmp_path: Path) -> None:
    tasks = [task(name, scene_id=name) for name in ("a", "b")]
    policy = CountingPolicy(card())
    pool = pool_for(policy.card, tasks=tasks, workers=2, slots=2)
    keys = [key(i, name) for name in ("a", "b") for i in range(4)]
    roll(tmp_path / "run", policy, pool, keys)
    by_worker = {w: {k.task for s, k, _ in pool.began if s // 2 == w} for w in (0, 1)}
    assert by_worker == {0: {"a"}, 1: {"b"}}


def test_every_episode_starts_with_the_runs_seed(tmp_path: Path) -> None:
    policy = CountingPolicy(card())
    pool = pool_for(policy.card, slots=3)
    roll(tmp_path / "run", policy, pool, _keys(5), run_seed=11)
    assert {seed for _, _, seed in pool.began} == {11}


@pytest.mark.parametrize("seed", range(20))
def test_every_episode_runs_once_whatever_the_slots_order_and_mishaps(
    tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    made = card(cameras=("front",), frame_offsets=(-3, 0), execute=3, imagines=sees((1, 3)))
    tasks = [task(name, scene_id=name) for name in ("a", "b", "c")]
    keys = [key(i, t.name) for n, t in enumerate(tasks) for i in range(5 * n, 5 * n + 5)]
    success = {2: 5, 8: 1, 13: 4}
    calm = roll(
        tmp_path / "calm", CountingPolicy(made),
        pool_for(made, imagine=True, tasks=tasks, success=success), keys, batch=4,
    )  # fmt: skip
    workers, slots = int(rng.integers(1, 4)), int(rng.integers(1, 6))
    pool = pool_for(
        made, imagine=True, tasks=tasks, success=success, workers=workers, slots=slots,
        shuffle=seed, mishaps={(4, 1): Mishap(int(rng.integers(0, 9)))},
    )  # fmt: skip
    watcher = Watcher()
    found = roll(tmp_path / "run", CountingPolicy(made), pool, keys, batch=4, watcher=watcher)
    assert Counter(r.key for r in watcher.records) == Counter(keys)
    assert found.keys() == calm.keys()
    for k, episode in found.items():
        assert arrays_equal(episode, calm[k]) == []
        record, arrays = untimed(episode)
        expected, expected_arrays = untimed(calm[k])
        assert dataclasses.replace(record, attempt=1) == expected
        assert arrays == expected_arrays


def test_the_policy_is_asked_when_half_of_the_slots_wait(tmp_path: Path) -> None:
    stepping: list[tuple[int, int]] = []

    def alter(obs: Observation, answer: Prediction) -> Prediction:
        stepping.append((int(obs.valid.sum()), len(pool._replies)))
        return answer

    policy = CountingPolicy(card(row_batch=False), alter)
    pool = pool_for(policy.card, slots=6, shuffle=4)
    roll(tmp_path / "run", policy, pool, _keys(12))
    assert all(waiting >= under_way for waiting, under_way in stepping)
    assert any(under_way for _, under_way in stepping)  # the others step meanwhile


# ------------------------------------------------------------- frames, against a naive plan


@pytest.mark.parametrize("seed", range(40))
def test_what_is_shown_is_what_a_gallery_that_keeps_everything_shows(
    tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    execute = int(rng.integers(1, 7))
    history = sorted({0, *(-rng.integers(1, 15, rng.integers(0, 4))).tolist()})
    offsets = sorted({0, *rng.integers(-7, 9, rng.integers(1, 5)).tolist()})
    horizons = tuple(o for o in offsets if o > 0) or (1,)
    spec = sees(
        horizons,
        frame_offsets=tuple(offsets),
        cameras=("front",) if rng.random() < 0.5 else ("wrist",),
        latent_shape=(len(offsets),),
    )
    made = card(
        cameras=("front",), frame_offsets=tuple(history), execute=execute, horizon=8, imagines=spec
    )
    limit = int(rng.integers(1, 25))
    goal = int(rng.integers(1, 30))
    last = min(goal, limit)

    class Diarist(CountingPolicy):
        def _imagined(self, obs: Observation):
            imagined = super()._imagined(obs)
            latents = np.repeat(imagined.latents, len(offsets), axis=-1)
            return dataclasses.replace(imagined, latents=latents)

        def encode(self, frames: np.ndarray) -> np.ndarray:  # all frames' steps, per horizon
            return np.repeat(frames[:, None, :, 0, 0, 0, 0], len(horizons), axis=1)

    policy = Diarist(made)
    pool = pool_for(made, imagine=True, tasks=[task(max_steps=limit)], success={0: goal})
    (episode,) = roll(tmp_path / "run", policy, pool, batch=2).values()

    queries = range(0, last, execute)
    assert episode.arrays["query_steps"].tolist() == list(queries)
    for query, obs in zip(queries, policy.seen, strict=True):
        shown = obs.frames["front"][0, :, 0, 0, 0].tolist()
        assert shown == [max(query + o, 0) for o in history]

    real = episode.arrays["real_latents"][:, 0]  # [Q, T]
    still = episode.arrays["still_latents"][:, 0]
    executed = episode.arrays["imagined_executed"]
    for q, query in enumerate(queries):
        now = min(query + execute, last)
        assert executed[q].tolist() == [query + h <= now for h in horizons]
        assert still[q].tolist() == [max(query + min(o, 0), 0) for o in offsets]
        for t, offset in enumerate(offsets):
            if query + offset <= now and offset <= execute:
                assert real[q, t] == max(query + offset, 0)
            else:  # cut short: the latest frame that was drawn stands in, never a later one
                assert query <= real[q, t] <= now
