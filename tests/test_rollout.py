"""The closed loop on slots that count: outcomes, refusals, what is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from doubles import CountingPolicy, Mishap, Watcher, card, key, open_folder, pool_for, roll, task

from wamsim import seeding
from wamsim.contracts import Observation, Outcome, Prediction, Task
from wamsim.conventions import DELTA_EEF_GRIPPER_OPEN_POSITIVE
from wamsim.episode import Episode
from wamsim.errors import AssetsMissing, PolicyFault, UnknownName

ERROR, FAILURE, SUCCESS = Outcome.ERROR, Outcome.FAILURE, Outcome.SUCCESS


def _one(tmp_path: Path, policy: CountingPolicy, **pool) -> Episode:
    (episode,) = roll(tmp_path / "run", policy, pool_for(policy.card, **pool)).values()
    return episode


def _end(episode: Episode) -> tuple[Outcome, str | None, int, int | None]:
    r = episode.record
    return r.outcome, r.reason, r.steps, r.success_step


# -------------------------------------------------------------------------- outcomes


def test_success_in_the_middle_of_a_chunk_cuts_everything_there(tmp_path: Path) -> None:
    policy = CountingPolicy(card(execute=4, predicts_value=True))
    episode = _one(tmp_path, policy, success={0: 7})
    assert _end(episode) == (SUCCESS, None, 7, 7)
    a = episode.arrays
    assert a["query_steps"].tolist() == [0, 4]
    assert a["value"].tolist() == [0.0, np.float32(0.04)]
    assert a["actions"].dtype == np.float32
    assert a["actions"].shape == (7, 7)
    assert a["actions"][:, 0] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07])
    assert a["states"].tolist() == [[s * 0.05, s, 0] for s in range(8)]  # time, qpos, qvel
    assert a["seen_qpos"][:, 0].tolist() == [s + 0.5 for s in range(8)]
    assert a["robot_state"].tolist() == [[s, 0] for s in range(8)]
    assert a["lit"][:, 0].tolist() == [False, True] * 4
    assert sorted(a) == [
        "actions", "lit", "query_steps", "robot_state", "seen_qpos", "states", "timing_act_s",
        "value",
    ]  # fmt: skip
    assert a["timing_act_s"].shape == (2,)


def test_the_step_limit_is_a_failure_and_shortens_the_last_chunk(tmp_path: Path) -> None:
    policy = CountingPolicy(card(execute=4))
    pool = pool_for(policy.card, tasks=[task(max_steps=10)])
    (episode,) = roll(tmp_path / "run", policy, pool).values()
    assert _end(episode) == (FAILURE, "step limit 10", 10, None)
    assert [len(sent.actions) for sent in pool.sent] == [4, 4, 2]
    assert len(episode.arrays["actions"]) == 10


@pytest.mark.parametrize(
    ("goal", "outcome"), [(9, SUCCESS), (10, SUCCESS), (11, FAILURE), (1, SUCCESS)]
)
def test_a_goal_at_the_last_step_counts(tmp_path: Path, goal: int, outcome: Outcome) -> None:
    episode = _one(tmp_path, CountingPolicy(card()), tasks=[task(max_steps=10)], success={0: goal})
    assert episode.record.outcome is outcome
    assert episode.record.steps == min(goal, 10)


def _poison(value: float, at_step: int, place: int) -> Callable[[Observation, Prediction], object]:
    def alter(obs: Observation, answer: Prediction) -> Prediction:
        rows = obs.valid & (obs.step == at_step)
        answer.actions[rows, place, 6] = value
        return answer

    return alter


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_action_is_the_policys_failure(tmp_path: Path, value: float) -> None:
    policy = CountingPolicy(card(execute=2), _poison(value, 4, 1))
    episode = _one(tmp_path, policy)
    reason = "the policy returned a non-finite action at step 4"
    assert _end(episode) == (FAILURE, reason, 4, None)
    assert episode.arrays["query_steps"].tolist() == [0, 2, 4]  # asked three times
    assert len(episode.arrays["actions"]) == 4
    assert np.isfinite(episode.arrays["actions"]).all()
    assert len(episode.arrays["states"]) == 5


def test_a_non_finite_action_that_is_not_run_harms_nobody(tmp_path: Path) -> None:
    policy = CountingPolicy(card(execute=2, horizon=4), _poison(np.nan, 4, 2))
    assert _end(_one(tmp_path, policy)) == (FAILURE, "step limit 10", 10, None)


def test_a_non_finite_row_leaves_the_others_alone(tmp_path: Path) -> None:
    def alter(obs: Observation, answer: Prediction) -> Prediction:
        answer.actions[obs.slot == 1] = np.nan
        return answer

    policy = CountingPolicy(card(cameras=("front",)), alter)
    found = roll(
        tmp_path / "run", policy, pool_for(policy.card, slots=2), [key(i) for i in range(3)]
    )
    ends = {k.index: _end(e)[1:3] for k, e in found.items()}
    # Slot 0 is kept by trial 0; trial 1 fails at once, and so does trial 2 after it.
    reason = "the policy returned a non-finite action at step 0"
    assert ends == {0: ("step limit 10", 10), 1: (reason, 0), 2: (reason, 0)}
    assert found[key(1)].arrays["actions"].shape == (0, 7)


def _gives_up(at_step: int, slot: int, why: str) -> Callable[[Observation, Prediction], Prediction]:
    def alter(obs: Observation, answer: Prediction) -> Prediction:
        rows = np.flatnonzero(obs.valid & (obs.step == at_step) & (obs.slot == slot))
        return dataclasses.replace(answer, faults={int(row): why for row in rows})

    return alter


def test_a_row_that_the_policy_gives_up_fails_with_its_reason_and_alone(tmp_path: Path) -> None:
    policy = CountingPolicy(card(), _gives_up(4, 1, "the drawer is out of reach"))
    found = roll(
        tmp_path / "run", policy, pool_for(policy.card, slots=2), [key(i) for i in range(3)],
        batch=2,
    )  # fmt: skip
    # Slot 0 is kept by trial 0; trial 1 is given up after four steps, and so is trial 2.
    assert {k.index: _end(e) for k, e in found.items()} == {
        0: (FAILURE, "step limit 10", 10, None),
        1: (FAILURE, "the drawer is out of reach", 4, None),
        2: (FAILURE, "the drawer is out of reach", 4, None),
    }
    given_up = found[key(1)].arrays
    assert given_up["query_steps"].tolist() == [0, 2, 4]  # the query that gave up is kept
    assert (len(given_up["actions"]), len(given_up["states"])) == (4, 5)


def test_giving_up_a_padding_row_harms_nobody(tmp_path: Path) -> None:
    def alter(obs: Observation, answer: Prediction) -> Prediction:
        padding = {int(row): "nothing to do" for row in np.flatnonzero(~obs.valid)}
        return dataclasses.replace(answer, faults=padding)

    policy = CountingPolicy(card(), alter)
    pool = pool_for(policy.card)
    (episode,) = roll(tmp_path / "run", policy, pool, batch=3).values()
    assert _end(episode) == (FAILURE, "step limit 10", 10, None)


def test_a_crash_in_the_simulator_is_an_error_and_the_slot_goes_on(tmp_path: Path) -> None:
    policy, watcher = CountingPolicy(card()), Watcher()
    mishaps = {(0, 1): Mishap(0, "failed"), (1, 1): Mishap(5, "failed")}
    pool = pool_for(policy.card, mishaps=mishaps)
    found = roll(
        tmp_path / "run", policy, pool, [key(i) for i in range(3)], watcher=watcher
    )  # fmt: skip
    assert _end(found[key(0)]) == (ERROR, "it tripped", 0, None)
    assert found[key(0)].arrays == {}  # it never began
    assert _end(found[key(1)]) == (ERROR, "it tripped", 4, None)  # the chunk 5..6 is gone
    assert len(found[key(1)].arrays["states"]) == 5
    assert len(found[key(1)].arrays["actions"]) == 4
    assert _end(found[key(2)]) == (FAILURE, "step limit 10", 10, None)
    assert [k.index for _, k, _ in pool.began] == [0, 1, 2]  # a crash is not tried again
    assert len(watcher.sentences) == 2
    assert "it tripped" in watcher.sentences[0]


def test_what_the_user_must_mend_stops_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    policy = CountingPolicy(card())
    missing = AssetsMissing("the bowl is not in /nowhere; download it")
    mishaps = {(1, 1): Mishap(0, "failed", missing)}
    pool = pool_for(policy.card, mishaps=mishaps)
    with pytest.raises(AssetsMissing, match="download it"):
        roll(tmp_path / "run", policy, pool, [key(0), key(1), key(2)])
    with open_folder(tmp_path / "run") as folder:
        assert list(folder.finished().episodes) == [key(0)]


def _keys(count: int) -> list:
    return [key(i) for i in range(count)]


# --------------------------------------------------------------------- what is refused


def _faulty(alter: Callable[[Prediction], Prediction]) -> CountingPolicy:
    return CountingPolicy(
        card(), lambda obs, answer: alter(answer) if (obs.step == 4).any() else answer
    )


@pytest.mark.parametrize(
    "alter",
    [
        lambda p: dataclasses.replace(p, actions=p.actions[:, :3]),
        lambda p: dataclasses.replace(p, actions=p.actions.astype(np.int32)),
        lambda p: dataclasses.replace(p, memory=[None]),
        lambda p: dataclasses.replace(p, faults={len(p.actions): "who?"}),
    ],
    ids=["short chunk", "integers", "memory of one row", "fault of no row"],
)
def test_a_broken_promise_stops_the_run_and_keeps_what_is_done(tmp_path: Path, alter) -> None:
    policy = _faulty(alter)
    pool = pool_for(policy.card, success={0: 2})
    with pytest.raises(PolicyFault, match="finished episodes are safe"):
        roll(tmp_path / "run", policy, pool, _keys(2))
    with open_folder(tmp_path / "run") as folder:
        assert list(folder.finished().episodes) == [key(0)]


def test_nothing_starts_when_policy_and_task_do_not_fit(tmp_path: Path) -> None:
    policy = CountingPolicy(card(cameras=("frnt",)))
    pool = pool_for(policy.card)
    with pytest.raises(UnknownName, match=r"Did you mean 'front'"):
        roll(tmp_path / "run", policy, pool)
    assert pool.began == []


class _Choosy(CountingPolicy):
    def check_task(self, task: Task) -> None:
        if task.goal == "Up(bowl)":
            raise PolicyFault(f"task {task.name!r}: cannot lift")


def test_nothing_starts_when_the_policy_refuses_one_of_the_tasks(tmp_path: Path) -> None:
    policy = _Choosy(card())
    pool = pool_for(policy.card, tasks=[task(), task("lift", goal="Up(bowl)")])
    with pytest.raises(PolicyFault, match="task 'lift': cannot lift"):
        roll(tmp_path / "run", policy, pool, [key(0), key(0, "lift")])
    assert pool.began == []
    pool = pool_for(policy.card, tasks=[task(), task("lift", goal="Up(bowl)")])
    assert list(roll(tmp_path / "other", policy, pool, [key(0)])) == [key(0)]  # not asked for


def test_actions_are_sent_and_kept_in_the_suites_convention(tmp_path: Path) -> None:
    def alter(_: Observation, answer: Prediction) -> Prediction:
        answer.actions[..., 6] = 0.5  # opens, says the policy
        return answer

    policy = CountingPolicy(card(action=DELTA_EEF_GRIPPER_OPEN_POSITIVE), alter)
    pool = pool_for(policy.card)
    (episode,) = roll(tmp_path / "run", policy, pool).values()
    sent = np.concatenate([s.actions for s in pool.sent])
    assert (sent[:, 6] == -0.5).all()  # the suite closes with +1
    assert np.array_equal(episode.arrays["actions"], sent)
    assert sent.dtype == np.float32
    assert sent[:, 0] == pytest.approx(np.arange(1, 11) / 100)  # the arm is left alone


def test_double_precision_actions_are_taken(tmp_path: Path) -> None:
    policy = CountingPolicy(
        card(), lambda _, a: dataclasses.replace(a, actions=a.actions.astype(np.float64))
    )
    assert _one(tmp_path, policy).arrays["actions"].dtype == np.float32


# ------------------------------------------------------------------------ what is kept


def test_the_record_says_what_happened(tmp_path: Path) -> None:
    policy = CountingPolicy(card(privileged=True))
    tasks = [task(stand_in_visuals=True, settle_steps=4, instruction="do it")]
    pool = pool_for(policy.card, tasks=tasks, success={7: 3})
    (episode,) = roll(tmp_path / "run", policy, pool, [key(7)], run_seed=5).values()
    r = episode.record
    assert (r.key, r.run_seed, r.instruction, r.policy) == (key(7), 5, "do it", "counting")
    assert r.initial_state == 2  # trial 7 of 5 initial states
    assert (r.suite_version, r.attempt) == (3, 1)
    assert (r.stand_in_visuals, r.privileged) == (True, True)
    assert r.seeds == {
        "fixtures": seeding.derive(5, key(7), "fixtures"),
        "policy@0": seeding.policy_seed(5, key(7), 0),
    }
    assert r.fixtures == {"shelf": ((7.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))}
    assert r.notes == {"settle_steps": 4}
    assert r.timings["wall_s"] >= r.timings["latency_s"] >= 0
    assert r.timings["latency_s"] == pytest.approx(episode.arrays["timing_act_s"].mean())


def test_named_parts_of_the_latency_are_kept_per_query(tmp_path: Path) -> None:
    policy = CountingPolicy(
        card(execute=4),
        lambda obs, a: dataclasses.replace(a, timings={"vision": 0.1 + int(obs.step[0])}),
    )
    arrays = _one(tmp_path, policy).arrays
    assert arrays["timing_vision_s"].tolist() == [0.1, 4.1, 8.1]


def test_watchers_hear_of_every_step_and_episode(tmp_path: Path) -> None:
    watcher = Watcher()
    policy = CountingPolicy(card())
    pool = pool_for(policy.card, slots=2, success={0: 3})
    roll(tmp_path / "run", policy, pool, _keys(3), watcher=watcher)
    assert sorted(r.key.index for r in watcher.records) == [0, 1, 2]
    assert watcher.steps == 3 + 10 + 10


def test_a_policy_without_memory_gets_none(tmp_path: Path) -> None:
    policy = CountingPolicy(card(), lambda _, a: dataclasses.replace(a, memory=None))
    _one(tmp_path, policy)
    assert [o.memory[0] for o in policy.seen] == [None] * 5
