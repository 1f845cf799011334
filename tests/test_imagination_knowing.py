"""Does it know? AUROC, Brier score and calibration by hand."""

from __future__ import annotations

import numpy as np
import pytest
from imagination_doubles import of_run, write_run

from wamsim.errors import WamsimError
from wamsim.imagination.episodes import read_imagination
from wamsim.imagination.knowing import auroc, summarise_values
from wamsim.imagination.resampling import resampling_weights
from wamsim.imagination.summary import value_summary


def area(scores, failed, tasks=None):
    weights = resampling_weights(tasks or ["t"] * len(scores))
    return auroc(np.array(scores, float), np.array(failed, bool), weights, tasks)


def test_auroc_by_hand() -> None:
    # failures 3, 1 against successes 2, 0: 3 > 2, 3 > 0, 1 < 2, 1 > 0
    assert area([3, 1, 2, 0], [1, 1, 0, 0]).value == 0.75
    assert area([3, 4, 1, 2], [1, 1, 0, 0]).value == 1
    assert area([1, 2, 3, 4], [1, 1, 0, 0]).value == 0


def test_equal_scores_count_half() -> None:
    assert area([1, 1], [1, 0]).value == 0.5
    # failures 1, 2 against successes 1, 0: 1/2, 1, 1, 1
    assert area([1, 2, 1, 0], [1, 1, 0, 0]).value == 3.5 / 4
    assert area([5] * 6, [1, 0, 1, 0, 0, 0]).value == 0.5


@pytest.mark.parametrize("failed", [[1, 1], [0, 0], []])
def test_only_one_kind_of_episode_has_no_auroc(failed) -> None:
    assert area([1, 2][: len(failed)], failed) == (None, None)


def test_an_episode_without_a_score_is_left_out() -> None:
    assert area([3, np.nan, 2, np.nan], [1, 1, 0, 0]).value == 1
    assert area([np.nan, 1, 2], [1, 0, 0]).value is None


def test_within_tasks_a_hard_task_is_no_knowledge() -> None:
    # Task b always fails with large errors: over all pairs that looks like knowledge.
    scores, failed = [1, 2, 8, 9], [0, 1, 1, 1]
    assert area(scores, failed).value == 1
    scores, failed, tasks = [2, 1, 1, 8, 9, 9], [0, 1, 0, 1, 1, 1], list("aaabbb")
    assert area(scores, failed, tasks).value == 0.25  # of task a alone: 1 < 2, 1 = 1
    assert area(scores, failed).value > 0.8


def test_auroc_agrees_with_counting_pairs() -> None:
    rng = np.random.default_rng(0)
    scores, failed = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    a, b = scores[failed][:, None], scores[~failed]
    assert area(scores, failed).value == pytest.approx(((a > b) + (a == b) / 2).mean())


def test_the_interval_of_an_auroc_holds_it() -> None:
    rng = np.random.default_rng(1)
    failed = rng.random(80) < 0.5
    found = area(rng.normal(failed, 1.0), failed)
    assert found.interval.low < 0.7602 < found.interval.high  # Phi(1 / sqrt 2), the true one
    assert 0.1 < found.interval.high - found.interval.low < 0.3


# ---------------------------------------------------------------------------- values


def of_values(values, failed, tasks=None):
    tasks = tasks or ["t"] * len(values)
    return summarise_values(
        [np.array(v, np.float32) for v in values],
        np.array(failed, bool),
        resampling_weights(tasks),
        tasks,
    )


def test_brier_score_by_hand() -> None:
    # success said 0.75 and 0.25: (0.0625 + 0.5625) / 2; failure said 0.5: 0.25
    found = of_values([[0.75, 0.25], [0.5]], [False, True])
    assert found.brier.value == pytest.approx((0.3125 + 0.25) / 2)
    assert found.brier_base == 0.25
    assert (found.episodes, found.failures, found.queries, found.outside) == (2, 1, 3, 0)


def test_calibration_by_hand() -> None:
    # Weights: 1/4 for each query of the first episode, 1/2 for the second's only one.
    found = of_values([[0.95, 0.55], [0.55]], [False, True])
    bins = {b.low: b for b in found.bins if b.queries}
    assert sorted(bins) == [0.5, 0.9]
    assert (bins[0.9].weight, bins[0.9].succeeded) == (0.25, 1)
    assert (bins[0.5].weight, bins[0.5].queries) == (0.75, 2)
    assert bins[0.5].predicted == pytest.approx(0.55)
    assert bins[0.5].succeeded == pytest.approx(0.25 / 0.75)
    assert found.calibration_error == pytest.approx(0.25 * 0.05 + 0.75 * (0.55 - 1 / 3))
    empty = found.bins[0]
    assert (empty.predicted, empty.succeeded, empty.weight) == (None, None, 0)


def test_values_outside_0_to_1_are_counted_and_kept() -> None:
    found = of_values([[1.5], [-0.5], [1.0]], [False, True, False])
    assert found.outside == 2
    assert [b.queries for b in found.bins] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found.brier.value == pytest.approx((0.25 + 0.25 + 0) / 3)


def test_a_low_value_means_failure() -> None:
    found = of_values([[0.9, 0.1], [0.2, 0.4]], [False, True])
    assert found.auroc.value == 1  # means 0.5 and 0.3
    assert found.first_auroc.value == 1
    assert of_values([[0.1, 0.9], [0.2, 0.4]], [False, True]).first_auroc.value == 0


# ------------------------------------------------------------------------------- in runs


def worse_when_failing(real, still, rng):
    return real + rng.normal(0, 1, real.shape)


def test_error_tells_failures_in_a_run(tmp_path) -> None:
    write_run(tmp_path, worse_when_failing, episodes=6, outcomes="-" * 6)
    write_run(tmp_path, lambda real, still, rng: real, episodes=6, first=6)
    for horizon in of_run(tmp_path):
        assert horizon.auroc.value == 1
        assert (horizon.episodes, horizon.failures) == (12, 6)


def test_values_of_a_run_leave_errors_out(tmp_path) -> None:
    said = {0: 0.9, 1: 0.2, 2: 0.5}

    def extra(i: int, block: dict) -> dict:
        return {"value": np.float32([said[i]])}

    path = write_run(tmp_path, episodes=3, outcomes="+-e", extra=extra)
    found = value_summary(read_imagination(path))
    assert (found.episodes, found.auroc.value) == (2, 1)
    assert value_summary(read_imagination(write_run(tmp_path / "none"))) is None


def test_a_value_that_is_no_number_is_refused(tmp_path) -> None:
    path = write_run(tmp_path, episodes=1, extra=lambda i, block: {"value": np.float32([np.nan])})
    with pytest.raises(WamsimError, match=r"values are not finite.*File: .*00000"):
        read_imagination(path)
