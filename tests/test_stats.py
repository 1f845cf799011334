"""Rates, intervals and paired tests against values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.stats import (
    Interval,
    PairedComparison,
    SuccessSummary,
    bootstrap_mean,
    clopper_pearson,
    grand_average,
    macro_average,
    mcnemar_exact,
    paired,
    pool,
    success,
    wilson,
)

SUCCESS, FAILURE, ERROR = Outcome.SUCCESS, Outcome.FAILURE, Outcome.ERROR


def close(interval: Interval | None, low: float, high: float, abs_: float = 5e-5) -> bool:
    return interval is not None and interval == pytest.approx((low, high), abs=abs_)


def counts(successes: int, scored: int, errors: int = 0) -> SuccessSummary:
    return SuccessSummary(successes=successes, scored=scored, errors=errors)


COUNTS = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
CONFIDENCE = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])


# ---------------------------------------------------------------------------- intervals


def test_wilson_by_hand() -> None:
    assert close(wilson(8, 10), 0.4902, 0.9433)
    # z = 1.95996, z^2 = 3.84146: high of 0/10 is z^2 / (n + z^2) = 3.84146 / 13.84146.
    assert close(wilson(0, 10), 0.0, 0.27753)
    assert close(wilson(10, 10), 0.72247, 1.0)
    # 5/10: half width is z sqrt(1/40 + z^2/400) / (1 + z^2/10) = 0.26340.
    assert close(wilson(5, 10), 0.2366, 0.7634)


def test_clopper_pearson_by_hand() -> None:
    assert close(clopper_pearson(8, 10), 0.4439, 0.9748)
    for n in (1, 3, 10, 500):
        upper = 1 - 0.025 ** (1 / n)
        assert clopper_pearson(0, n) == pytest.approx((0.0, upper), abs=1e-12)
        assert clopper_pearson(n, n) == pytest.approx((1 - upper, 1.0), abs=1e-12)
    assert clopper_pearson(0, 1, 0.5) == pytest.approx((0.0, 0.75))


def test_no_episodes_no_interval() -> None:
    assert wilson(0, 0) is None
    assert clopper_pearson(0, 0) is None


@pytest.mark.parametrize("function", [wilson, clopper_pearson])
def test_impossible_counts_are_refused(function) -> None:
    for successes, n in ((-1, 3), (4, 3), (0, -1)):
        with pytest.raises(ValueError, match=r"must lie in 0\.\.n"):
            function(successes, n)
    for confidence in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match=r"between 0 and 1, e\.g\. 0\.95"):
            function(1, 2, confidence)


@settings(deadline=None)  # a loaded machine is no failure
@given(COUNTS, CONFIDENCE)
def test_intervals_hold_the_rate_and_stay_in_range(count, confidence) -> None:
    k, n = count
    for function in (wilson, clopper_pearson):
        low, high = function(k, n, confidence)
        assert 0.0 <= low <= k / n <= high <= 1.0
        assert low < high
        assert (low == 0.0) == (k == 0)
        assert (high == 1.0) == (k == n)


@settings(deadline=None)  # a loaded machine is no failure
@given(COUNTS, CONFIDENCE)
def test_intervals_mirror_rise_and_narrow(count, confidence) -> None:
    k, n = count
    for function in (wilson, clopper_pearson):
        low, high = function(k, n, confidence)
        assert function(n - k, n, confidence) == pytest.approx((1 - high, 1 - low), abs=1e-9)
        if k < n:
            more = function(k + 1, n, confidence)
            assert more.low > low
            assert more.high >= high
        wide = function(k, n, 0.995)
        assert wide.low <= low
        assert wide.high >= high
        finer = function(10 * k, 10 * n, confidence)
        assert finer.high - finer.low < high - low


def test_clopper_pearson_covers_exactly_at_least_95_percent() -> None:
    n = 12
    intervals = [clopper_pearson(k, n) for k in range(n + 1)]
    for p in np.linspace(0.01, 0.99, 99):
        mass = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        covered = sum(m for m, i in zip(mass, intervals, strict=True) if i.low <= p <= i.high)
        assert covered >= 0.95


# ------------------------------------------------------------------------------ success


def test_an_error_is_not_a_failure() -> None:
    summary = success([SUCCESS, SUCCESS, FAILURE, ERROR])
    assert (summary.rate, summary.scored, summary.errors) == (2 / 3, 3, 1)
    assert summary.failures == 1
    assert summary.wilson == wilson(2, 3)
    assert summary.clopper_pearson == clopper_pearson(2, 3)


@pytest.mark.parametrize("outcomes", [[], [ERROR, ERROR]])
def test_no_data_is_none_never_zero(outcomes: list[Outcome]) -> None:
    summary = success(outcomes)
    assert summary.rate is None
    assert summary.wilson is None
    assert summary.clopper_pearson is None
    assert summary.errors == len(outcomes)


def test_pool_weighs_episodes() -> None:
    both = pool([counts(1, 1), counts(1, 3, errors=2)])
    assert (both.successes, both.scored, both.errors, both.rate) == (2, 4, 2, 0.5)
    assert pool([]).rate is None


# ---------------------------------------------------------------------------- averages


def test_macro_average_weighs_tasks() -> None:
    macro = macro_average({"a": counts(1, 1), "b": counts(1, 3)})
    assert macro.rate == pytest.approx(2 / 3)
    assert (macro.tasks, macro.reason) == (2, None)
    # Effective episodes: 2^2 / (1/1 + 1/3) = 3; Wilson of 2/3 at n = 3.
    assert macro.interval == pytest.approx(wilson(2, 3))


def test_with_equal_numbers_micro_and_macro_agree() -> None:
    macro = macro_average({"a": counts(7, 10), "b": counts(9, 10), "c": counts(10, 10)})
    assert macro.rate == 26 / 30
    assert macro.interval == pytest.approx(wilson(26, 30))


def test_ten_perfect_tasks_are_one_with_an_honest_interval() -> None:
    macro = macro_average({str(i): counts(3, 3) for i in range(10)})
    assert macro.rate == 1.0
    # z^2 / (30 + z^2) = 0.11352 below 1.
    assert close(macro.interval, 0.88648, 1.0)


def test_a_task_without_scored_episodes_leaves_no_average() -> None:
    macro = macro_average({"push": counts(3, 4), "pull": counts(0, 0, errors=2)})
    assert (macro.rate, macro.interval) == (None, None)
    assert macro.reason == "no scored episode of pull"
    assert macro_average({}).reason == "no tasks"


def test_grand_average_weighs_suites() -> None:
    grand = grand_average([{"a": counts(1, 2)}, {"b": counts(2, 2), "c": counts(2, 2)}])
    assert grand.rate == 0.75
    # sum of w^2: 2 (1/4)^2 + 4 (1/8)^2 = 3/16, so 16/3 episodes.
    n, z2 = 16 / 3, 3.841459
    centre = (0.75 + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (0.75 * 0.25 / n + z2 / (4 * n * n))) / (1 + z2 / n)
    assert close(grand.interval, centre - half, centre + half)
    assert grand_average([{"a": counts(1, 2)}, {}]).rate is None


@pytest.mark.parametrize(
    ("episodes", "rates"),
    [([10] * 10, [0.9] * 10), ([5] * 4, [0.5, 0.9, 0.2, 0.99]), ([50, 50, 10, 5], [0.9] * 4)],
)
def test_the_macro_interval_covers(episodes: list[int], rates: list[float]) -> None:
    rng = np.random.default_rng(0)
    truth = float(np.mean(rates))
    trials = 400
    covered = 0
    for _ in range(trials):
        drawn = rng.binomial(episodes, rates)
        tasks = {
            str(i): counts(int(k), n) for i, (k, n) in enumerate(zip(drawn, episodes, strict=True))
        }
        low, high = macro_average(tasks).interval
        covered += low <= truth <= high
    # Three standard errors below the 92 % that the docstring promises.
    assert covered / trials > 0.92 - 3 * math.sqrt(0.92 * 0.08 / trials)


# --------------------------------------------------------------------------- bootstrap


def test_bootstrap_agrees_with_the_normal_limits() -> None:
    values = np.r_[np.zeros(200), np.ones(200)]
    # 0.5 -+ 1.96 * 0.5 / sqrt(400) = 0.451, 0.549.
    assert close(bootstrap_mean(values), 0.451, 0.549, abs_=0.004)
    spread = np.random.default_rng(1).normal(10.0, 2.0, 400)
    half = 1.96 * spread.std() / 20
    assert close(bootstrap_mean(spread), spread.mean() - half, spread.mean() + half, abs_=0.02)


def test_bootstrap_is_a_function_of_its_seed() -> None:
    values = np.random.default_rng(2).normal(size=40)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values)


def test_strata_take_out_the_spread_between_them() -> None:
    # Task a: 0 or 1, task b: 100 or 101. Within tasks the mean's deviation is 0.5 / sqrt(40).
    values = np.r_[np.tile([0.0, 1.0], 10), np.tile([100.0, 101.0], 10)]
    tasks = ["a"] * 20 + ["b"] * 20
    half = 1.96 * 0.5 / math.sqrt(40)
    assert close(bootstrap_mean(values, tasks), 50.5 - half, 50.5 + half, abs_=0.02)
    free = bootstrap_mean(values)
    assert free.high - free.low > 20


def test_lone_members_of_strata_are_resampled_together() -> None:
    # Ten tasks with one episode each: resampling each alone would show no spread at all.
    values = [0.0, 1.0] * 5
    each_alone = bootstrap_mean(values, list(range(10)))
    assert each_alone == bootstrap_mean(values)


@pytest.mark.parametrize("values", [[], [3.0], [2.0] * 9, [0.1] * 7])
def test_bootstrap_without_spread_is_none(values: list[float]) -> None:
    assert bootstrap_mean(values) is None


def test_bootstrap_within_constant_strata_is_none() -> None:
    assert bootstrap_mean([0.1] * 3 + [0.7] * 3, ["a"] * 3 + ["b"] * 3) is None


def test_bootstrap_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        bootstrap_mean([1.0, float("nan")])
    with pytest.raises(ValueError, match="1 groups for 2 values"):
        bootstrap_mean([1.0, 2.0], ["a"])


# ------------------------------------------------------------------------------ paired


def keys(n: int, task: str = "t") -> list[EpisodeKey]:
    return [EpisodeKey("suite", task, i) for i in range(n)]


def run(results: str, task: str = "t") -> dict[EpisodeKey, bool | None]:
    """One letter an episode: + success, - failure, e error."""
    values = {"+": True, "-": False, "e": None}
    return {key: values[r] for key, r in zip(keys(len(results), task), results, strict=True)}


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(1, 6) == 0.125  # 2 (1 + 7) / 2^7
    assert mcnemar_exact(6, 1) == 0.125
    assert mcnemar_exact(0, 5) == 2 / 32
    assert mcnemar_exact(3, 3) == 1.0  # 2 (1 + 6 + 15 + 20) / 64 is over 1
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(900, 1100) == pytest.approx(8.5e-6, rel=0.05)  # normal: z = 199/44.7
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 2)


def test_paired_counts_by_hand() -> None:
    a = run("+++-----++")
    b = run("++-++++++-")
    result = paired(a, b)
    # both: 0, 1, 8; only A: 2, 9; only B: 3..7; neither: none.
    assert (result.n, result.both, result.only_a, result.only_b, result.neither) == (10, 3, 2, 5, 0)
    assert result.difference == pytest.approx(-0.3)
    assert (result.rate_a, result.rate_b) == (0.5, 0.8)
    assert result.p == pytest.approx(2 * (1 + 7 + 21) / 128)
    assert result.interval.low < -0.3 < result.interval.high
    assert sum(result.left_out.values()) == 0


def test_paired_uses_shared_scored_episodes_only() -> None:
    a = {**run("+-e+e"), EpisodeKey("suite", "other", 0): True}
    b = run("++-ee-+")
    result = paired(a, b)
    assert (result.n, result.both, result.only_b) == (2, 1, 1)
    assert result.left_out == {
        "only in A": 1,
        "only in B": 2,
        "error in A": 1,
        "error in B": 1,
        "error in both": 1,
    }
    assert result.n + sum(result.left_out.values()) == len(a.keys() | b.keys())


def test_nothing_shared_is_none() -> None:
    result = paired(run("+-"), run("+-", task="u"))
    assert (result.n, result.difference, result.interval, result.p) == (0, None, None, None)
    assert (result.rate_a, result.rate_b) == (None, None)


def test_runs_that_agree_everywhere_have_no_bootstrap_interval() -> None:
    result = paired(run("++-+"), run("++-+"))
    assert (result.difference, result.p, result.interval) == (0.0, 1.0, None)


def test_the_paired_interval_by_hand() -> None:
    # 100 pairs, 30 only A, 10 only B: sd of one difference is sqrt(0.4 - 0.04) = 0.6.
    result = paired(run("+" * 60 + "-" * 40), run("+" * 30 + "-" * 30 + "+" * 10 + "-" * 30))
    assert (result.only_a, result.only_b) == (30, 10)
    assert close(result.interval, 0.2 - 1.96 * 0.06, 0.2 + 1.96 * 0.06, abs_=0.011)


def test_the_paired_interval_is_stratified_by_task() -> None:
    # A is better on every episode of t, B on every episode of u: the tasks explain it all.
    a = {**run("+" * 8, "t"), **run("-" * 7 + "+", "u")}
    b = {**run("-" * 8, "t"), **run("+" * 8, "u")}
    result = paired(a, b)
    assert result.difference == pytest.approx(1 / 16)
    assert result.interval.low >= 1 / 16 - 0.2
    assert result.interval.high <= 1 / 16 + 0.2


RESULT = st.sampled_from([True, False, None])
RUN = st.dictionaries(
    st.builds(EpisodeKey, st.just("s"), st.sampled_from("tu"), st.integers(0, 12)),
    RESULT,
    max_size=20,
)


@settings(deadline=None)  # a loaded machine is no failure
@given(RUN, RUN)
def test_swapping_the_runs_negates_and_keeps_p(a, b) -> None:
    ab = paired(a, b, n_resamples=200)
    ba = paired(b, a, n_resamples=200)
    swapped = {"A": "B", "B": "A"}
    mirrored = PairedComparison(
        n=ba.n,
        both=ba.both,
        only_a=ba.only_b,
        only_b=ba.only_a,
        neither=ba.neither,
        difference=None if ba.difference is None else -ba.difference,
        interval=None if ba.interval is None else Interval(-ba.interval.high, -ba.interval.low),
        p=ba.p,
        left_out={
            (why[:-1] + swapped[why[-1]] if why[-1] in swapped else why): n
            for why, n in ba.left_out.items()
        },
    )
    assert ab == mirrored
    assert ab.n == ab.both + ab.only_a + ab.only_b + ab.neither
    assert ab.p is None or 0 < ab.p <= 1


def test_swapping_negates_the_interval_to_the_last_resample() -> None:
    # Few resamples and many pairs, so that another draw would show.
    a, b = run("+" * 50 + "-" * 51), run("-" * 33 + "+" * 28 + "-" * 40)
    ab, ba = paired(a, b, n_resamples=7), paired(b, a, n_resamples=7)
    assert (ab.interval.low, ab.interval.high) == (-ba.interval.high, -ba.interval.low)


def test_the_order_of_episodes_does_not_matter() -> None:
    a, b = run("+++--+-+-+"), run("-++-+----+")
    backwards = dict(reversed(a.items()))
    assert paired(a, b) == paired(backwards, b)
