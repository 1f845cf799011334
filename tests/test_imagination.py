"""Imagined against real, by hand: a perfect, a frozen and a shuffled imaginer."""

from __future__ import annotations

import numpy as np
import pytest
from imagination_doubles import (
    HORIZONS,
    frozen,
    of_run,
    perfect,
    shuffled,
    walk,
    write_run,
)

from wamsim.contracts import Outcome
from wamsim.errors import RecordCorrupt
from wamsim.imagination.episodes import query_scores, read_imagination
from wamsim.imagination.latents import NotFinite, score_latents
from wamsim.imagination.resampling import percentiles, resampling_weights
from wamsim.imagination.summary import summarise, summarise_run
from wamsim.intervals import Interval
from wamsim.run_folder import episode_files


def score(imagined, real, still, compared=None, steps=None, **more):
    """Score latents of one horizon given as [Q, D] lists."""
    arrays = {
        f"{name}_latents": np.array(rows, np.float16)[:, None]
        for name, rows in {"imagined": imagined, "real": real, "still": still, **more}.items()
    }
    n = len(imagined)
    compared = np.ones((n, 1), bool) if compared is None else np.array(compared)[:, None]
    steps = np.arange(n) * 4 if steps is None else np.array(steps)
    return {k: v[:, 0].tolist() for k, v in score_latents(arrays, compared, steps).items()}


# ---------------------------------------------------------------------------- by hand


def test_errors_and_cosines_by_hand() -> None:
    got = score([[3, 4], [1, 0]], [[0, 4], [0, 2]], [[0, 0], [0, 3]])
    assert got["error"] == [9, 5]  # (3, 0) and (1, -2)
    assert got["still_error"] == [16, 1]
    assert got["power"] == [16, 4]
    assert got["cosine"] == [pytest.approx(0.8), 0.0]  # 16 / (5 * 4)
    assert np.isnan(got["still_cosine"][0])  # a zero latent has no direction
    assert got["still_cosine"][1] == 1.0


def test_retrieval_by_hand() -> None:
    # real 0, 10, 20, 30 at steps 0, 4, 8, 12. Imagined 1: nearest its own. 19: the own (10) is
    # 9 away, 20 is nearer. 25: 20 and 30 are tied. 0: the own (30) is last.
    got = score([[1], [19], [25], [0]], [[0], [10], [20], [30]], [[0]] * 4)
    assert got["recall"] == [1, 0, 0.5, 0]
    assert got["rank"] == [1, 2, 1.5, 4]
    assert got["time_error"] == [0, 4, 2, 12]  # the third: 0 and 4 with equal chance
    assert got["chance"] == [0.25] * 4
    assert got["chance_time_error"] == [6, 4, 4, 6]  # (0 + 4 + 8 + 12) / 4, ...


def test_identical_candidates_give_exactly_chance() -> None:
    got = score([[1, 2]] * 5, [[3, 4]] * 5, [[3, 4]] * 5)
    assert got["recall"] == got["chance"] == [0.2] * 5
    assert got["rank"] == [3] * 5  # (5 + 1) / 2


def test_a_single_candidate_says_nothing() -> None:
    got = score([[1], [2]], [[1], [2]], [[0], [0]], compared=[True, False])
    assert np.isnan(got["recall"]).all()
    assert got["error"][0] == 0
    assert np.isnan(got["error"][1])


def test_what_is_not_compared_is_no_candidate() -> None:
    # the third real latent would be nearest to the first imagined one
    got = score(
        [[5], [9], [0]], [[0], [9], [5]], [[0]] * 3, compared=[True, True, False]
    )  # fmt: skip
    assert got["recall"][:2] == [0, 1]  # 5 is nearer to 9 than to 0
    assert got["chance"][:2] == [0.5, 0.5]


def test_imagination_under_other_actions_by_hand() -> None:
    got = score(
        [[4], [4], [4]], [[5], [5], [5]], [[0]] * 3, other=[[1], [6], [4.5]]
    )  # fmt: skip
    assert got["response"] == [9, 4, 0.25]
    assert got["better"] == [1, 0.5, 0]  # errors 1 against 16, 1 and 0.25


def test_nothing_compared_gives_nothing() -> None:
    assert score([[1]], [[np.inf]], [[1]], compared=[False]) == {}


@pytest.mark.parametrize("name", ["imagined", "real", "still"])
def test_a_latent_that_overflowed_is_refused(name: str) -> None:
    rows = {"imagined": [[1]], "real": [[1]], "still": [[1]], name: [[70000.0]]}
    with np.errstate(over="ignore"), pytest.raises(NotFinite, match=f"{name}_latents.*65504"):
        score(**rows)


# --------------------------------------------------------------------- known imaginers


def test_a_perfect_imaginer(tmp_path) -> None:
    for one in of_run(write_run(tmp_path, perfect)):
        assert one.metrics["skill"].value == 1
        assert one.metrics["cosine"].value == pytest.approx(1)
        assert one.metrics["error"].value == 0
        assert (one.metrics["recall"].value, one.metrics["rank"].value) == (1, 1)
        assert one.metrics["time_error"].value == 0


def test_a_frozen_imaginer_has_exactly_no_skill(tmp_path) -> None:
    for one in of_run(write_run(tmp_path, frozen)):
        assert one.metrics["skill"].value == 0
        assert one.metrics["skill"].interval is None  # every resample says 0
        assert one.metrics["cosine"] == one.metrics["still_cosine"]
        assert one.metrics["recall"] == one.metrics["still_recall"]


def test_a_frozen_imaginer_recalls_the_query_before(tmp_path) -> None:
    # At the chunk's end, "nothing moves" is what really came at the end of the chunk before; only
    # the first query has none before it, and may be right by luck.
    near, far, _ = of_run(write_run(tmp_path, frozen))
    assert far.metrics["recall"].value <= 1 / 10
    assert near.metrics["recall"].value > 0.3  # half way, its own time is as near as the one before


def test_a_frozen_imaginer_of_a_still_world_wins_nothing(tmp_path) -> None:
    still = write_run(tmp_path, frozen, latents=lambda rng: np.ones((40, 8)))
    one = of_run(still)[0]
    assert one.metrics["recall"].value == pytest.approx(one.metrics["chance"].value)
    assert one.metrics["skill"].value is None  # 0 / 0: neither 0 nor infinite
    assert one.metrics["error"].value == 0


def test_a_shuffled_imaginer_sits_at_chance(tmp_path) -> None:
    one = of_run(write_run(tmp_path, shuffled, episodes=24))[0]
    recall, chance = one.metrics["recall"], one.metrics["chance"].value
    assert recall.interval.low < chance < recall.interval.high
    assert one.metrics["skill"].value < 0
    assert one.metrics["skill"].interval.high < 0
    off, blind = one.metrics["time_error"], one.metrics["chance_time_error"].value
    assert off.interval.low < blind < off.interval.high


def test_skill_is_a_ratio_of_sums(tmp_path) -> None:
    # A step where little moves (1) and a step where much does (100). Imagined is 3 off each time:
    # errors 9 and 9 over 1 and 10000; the mean of 1 - 9 and 1 - 0.0009 would be -3.5.
    def imaginer(real, still, rng):
        return real + 3

    def latents(rng):
        return np.array([[0.0], [1.0], [101.0]])

    path = write_run(tmp_path, imaginer, latents=latents, horizons=(1,), execute=1, episodes=2)
    (one,) = of_run(path)
    assert one.metrics["skill"].value == pytest.approx(1 - 18 / 10001)
    assert one.metrics["error"].value == pytest.approx(18 / (1 + 101**2))  # over |real|^2


# ----------------------------------------------------------------------- what is left out


def test_what_was_not_executed_is_counted_by_reason(tmp_path) -> None:
    # 10 steps, 4 executed a query: horizons 2 and 4 of steps 0, 4, 8; the last ends at 10
    path = write_run(tmp_path, perfect, latents=lambda rng: walk(rng)[:11], horizons=(2, 4, 8))
    run = read_imagination(path)
    by_horizon = {h.horizon: h for h in summarise(run.imaginers[0])[0].horizons}
    n = len(run.imaginers[0].episodes)
    assert [by_horizon[h].compared for h in (2, 4, 8, None)] == [3 * n, 2 * n, 0, 5 * n]
    past, ended = "past the 4 executed actions", "after the episode's end"
    assert by_horizon[4].left_out == {past: 0, ended: n}
    assert by_horizon[8].left_out == {past: 3 * n, ended: 0}
    assert by_horizon[8].metrics["skill"].value is None
    assert by_horizon[8].auroc.value is None
    assert by_horizon[None].left_out == {past: 3 * n, ended: n}


def test_errors_are_left_out_and_counted(tmp_path) -> None:
    path = write_run(tmp_path, perfect, episodes=4, outcomes="+e-e")
    run = read_imagination(path)
    assert run.errors == 2
    assert [e.key.index for e in run.imaginers[0].episodes] == [0, 2]


def test_horizons_that_nobody_described_are_counted(tmp_path) -> None:
    run = read_imagination(write_run(tmp_path, perfect, episodes=3, described=False))
    assert (run.imaginers, run.undescribed) == ((), 3)


def test_a_run_of_two_imaginations_is_refused(tmp_path) -> None:
    write_run(tmp_path, perfect, episodes=1)
    write_run(tmp_path, perfect, episodes=1, first=1, horizons=(1, 2))
    with pytest.raises(RecordCorrupt, match=r"\(2, 4\) and .* \(1, 2\)"):
        read_imagination(tmp_path)


def test_the_sentence_about_infinite_latents_names_the_file(tmp_path) -> None:
    with np.errstate(over="ignore"):
        path = write_run(tmp_path, lambda real, still, rng: real * 1e6, episodes=1)
    with pytest.raises(NotFinite, match=r"imagined_latents.*65504.*File: .*00000"):
        read_imagination(path)


def test_an_empty_run_has_no_imagination(tmp_path) -> None:
    run = read_imagination(write_run(tmp_path, perfect, episodes=0))
    assert (run.policy, run.imaginers, run.values) == (None, (), ())


def test_one_episode_query_by_query(tmp_path) -> None:
    path = write_run(tmp_path, frozen, episodes=1)
    (scores,) = query_scores(path, episode_files(path)[0]).values()
    assert scores.horizons == HORIZONS
    assert scores.cells["error"].shape == scores.compared.shape
    assert (np.isnan(scores.cells["error"]) == ~scores.compared).all()


# --------------------------------------------------------------------------- resampling


def test_groups_and_labels(tmp_path) -> None:
    write_run(tmp_path, frozen, episodes=3, task="push")
    write_run(tmp_path, perfect, episodes=2, task="pull")
    imaginer = read_imagination(tmp_path).imaginers[0]
    by_task = {g.label: g for g in summarise(imaginer, "task")}
    assert {k: g.episodes for k, g in by_task.items()} == {("s", "pull"): 2, ("s", "push"): 3}
    assert by_task["s", "pull"].horizons[-1].metrics["skill"].value == 1
    assert by_task["s", "push"].horizons[-1].metrics["skill"].value == 0
    assert [g.label for g in summarise(imaginer, "suite")] == [("s",)]
    episodes = summarise(imaginer, "episode")
    assert episodes[0].label == ("s", "pull", "0")
    assert episodes[-1].horizons[0].metrics["error"].interval is None
    skill = summarise_run(read_imagination(tmp_path)).imaginers[0].skill
    assert skill == summarise(imaginer)[0].horizons[-1].metrics["skill"]
    assert skill.interval is not None
    assert skill.interval.low < skill.value < skill.interval.high


def test_each_task_is_resampled_to_its_own_size() -> None:
    weights = resampling_weights(["a", "a", "a", "b", "c", "b"], n=50, seed=1)
    assert weights.shape == (50, 6)
    assert set(weights[:, :3].sum(1)) == {3}
    assert set(weights[:, [3, 5]].sum(1)) == {2}
    assert set(weights[:, 4]) == {1}
    again = resampling_weights(["a", "a", "a", "b", "c", "b"], n=50, seed=1)
    assert (weights == again).all()
    assert (weights != resampling_weights(["a"] * 6, n=50, seed=2)).any()


def test_single_episodes_of_tasks_are_resampled_together() -> None:
    weights = resampling_weights(["a", "b", "c"], n=200)
    assert set(weights.sum(1)) == {3}
    assert weights.min() == 0


def test_percentiles_by_hand() -> None:
    assert percentiles(np.arange(101.0)) == pytest.approx(Interval(2.5, 97.5))
    some = np.r_[np.arange(101.0), np.full(5, np.nan)]
    assert percentiles(some) == pytest.approx(Interval(2.5, 97.5))  # 5 of 106 are not defined
    assert percentiles(np.r_[some, np.nan]) is None
    assert percentiles(np.full(9, 3.0)) is None
    assert percentiles(np.zeros(0)) is None


def test_intervals_cover_what_is_true(tmp_path) -> None:
    # Imagined = real + noise of half the steps' deviation: skill 1 - 1/4 in expectation.
    def noisy(real, still, rng):
        return real + rng.normal(0, 0.5, real.shape)

    def steps(rng):
        return rng.normal(0, 1, (40, 8)).cumsum(0)

    hits = 0
    for seed in range(12):
        path = tmp_path / str(seed)
        write_run(path, noisy, latents=steps, horizons=(1,), execute=1, seed=seed, episodes=12)
        skill = of_run(path)[0].metrics["skill"]
        hits += skill.interval.low < 0.75 < skill.interval.high
    assert hits >= 9  # of 12; percentile limits of 12 episodes are a little narrow


def test_outcomes_reach_the_sums(tmp_path) -> None:
    run = read_imagination(write_run(tmp_path, perfect, episodes=4, outcomes="+-+-"))
    assert [e.failed for e in run.imaginers[0].episodes] == [False, True, False, True]
    assert Outcome.FAILURE is not Outcome.ERROR
