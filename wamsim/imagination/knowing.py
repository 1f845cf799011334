"""Does it know? Whether imagination's error and the predicted value tell failure beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wamsim.imagination.resampling import Array, Estimate, percentiles, ratio

BINS = 10  # Guo et al. 2017 use 15 for thousands of samples; runs have hundreds


def auroc(
    scores: Array, failed: NDArray[np.bool_], weights: Array, tasks: Sequence[object] | None = None
) -> Estimate:
    """Give the chance that a failed episode scores higher than a successful one.

    The area under the ROC curve by ranks: over all pairs of a failure and a success, the
    part in which the failure's score is higher, equal scores counting half (midranks).

    Args:
        scores: [E], larger should mean failure; NaN episodes are left out.
        failed: bool [E].
        weights: [n, E], from `resampling_weights`.
        tasks: When given, only pairs of one task count, so that a hard task with large
            errors cannot pass for knowledge.

    Returns:
        None without a pair (only successes, or only failures).

    Source: Hanley & McNeil 1982, "The Meaning and Use of the Area under a Receiver Operating
    Characteristic (ROC) Curve", Radiology 143:29-36 (the Mann-Whitney statistic).
    """
    known = np.isfinite(scores)
    labels = [tasks[i] if tasks is not None else None for i in range(len(scores))]
    once, again = np.ones((1, len(scores))), weights
    wins = [np.zeros(len(w)) for w in (once, again)]
    pairs = [np.zeros(len(w)) for w in (once, again)]
    for label in dict.fromkeys(labels):
        rows = np.flatnonzero(known & np.array([other == label for other in labels], bool))
        for i, w in enumerate((once, again)):
            won, of = _pairs(scores[rows], failed[rows], w[:, rows])
            wins[i] += won
            pairs[i] += of
    value = ratio(wins[0], pairs[0])[0]
    if np.isnan(value):
        return Estimate(None)
    return Estimate(float(value), percentiles(ratio(wins[1], pairs[1])))


def _pairs(scores: Array, failed: NDArray[np.bool_], weights: Array) -> tuple[Array, Array]:
    """Weighted pairs that the failure wins (ties half), and all pairs; each [n]."""
    if not len(scores):
        return np.zeros(len(weights)), np.zeros(len(weights))
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # of equal scores
    bad = np.add.reduceat((weights * failed)[:, order], starts, axis=1)
    good = np.add.reduceat((weights * ~failed)[:, order], starts, axis=1)
    below = np.cumsum(good, axis=1) - good
    return (bad * (below + good / 2)).sum(1), bad.sum(1) * good.sum(1)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Queries whose predicted value lies in one tenth of [0, 1].

    Attributes:
        low, high: Limits; the last bin includes 1, and the end bins what lies outside.
        queries: Number of queries.
        weight: Their part of all episodes (every episode weighs the same).
        predicted: Mean predicted value; None for an empty bin.
        succeeded: Part of them, by weight, whose episode succeeded; None likewise.
    """

    low: float
    high: float
    queries: int
    weight: float
    predicted: float | None
    succeeded: float | None


@dataclass(frozen=True, kw_only=True)
class ValueSummary:
    """What predicted values know of the episode's end.

    Attributes:
        episodes, failures, queries: How many.
        outside: Queries whose value lies outside [0, 1].
        auroc: Of the episode's mean value, a low one meaning failure.
        first_auroc: Of the first query's value alone: what was known before acting.
        auroc_within: As ``auroc``, pairs of one task only.
        brier: Mean over episodes of the mean over its queries of (value - success)^2.
        brier_base: The same for a constant forecast of the success rate: p (1 - p).
        calibration_error: Sum over bins of weight |predicted - succeeded|.
        bins: Reliability diagram.
    """

    episodes: int
    failures: int
    queries: int
    outside: int
    auroc: Estimate
    first_auroc: Estimate
    auroc_within: Estimate
    brier: Estimate
    brier_base: float | None
    calibration_error: float | None
    bins: tuple[Bin, ...]


def summarise_values(
    values: Sequence[NDArray[Any]],
    failed: NDArray[np.bool_],
    weights: Array,
    tasks: Sequence[object],
) -> ValueSummary:
    """Compare predicted values with how their episodes ended.

    Args:
        values: For each of E episodes its [Q >= 1] finite values.
        failed: bool [E].
        weights: [n, E].
        tasks: E labels.

    Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", MWR
    78:1-3; reliability bins as Guo et al. 2017, arXiv:1706.04599, but with each episode of
    the same weight, since failures run longer and have more queries.
    """
    means = np.array([float(np.mean(v)) for v in values])
    first = np.array([float(v[0]) for v in values])
    good = (~failed).astype(np.float64)
    # every query's value, success, and weight (an episode's weights sum to 1 / E)
    v = np.concatenate([np.zeros(0), *(np.asarray(one, np.float64) for one in values)])
    y = np.repeat(good, [len(one) for one in values])
    w = np.repeat([1 / (len(values) * len(one)) for one in values], [len(one) for one in values])
    squared = np.zeros(len(values))
    for i, one in enumerate(values):
        squared[i] = np.mean((np.asarray(one, np.float64) - good[i]) ** 2)
    rate = float(good.mean()) if len(good) else None
    bins = _bins(v, y, w)
    return ValueSummary(
        episodes=len(values),
        failures=int(failed.sum()),
        queries=len(v),
        outside=int(((v < 0) | (v > 1)).sum()),
        auroc=auroc(-means, failed, weights),
        first_auroc=auroc(-first, failed, weights),
        auroc_within=auroc(-means, failed, weights, tasks),
        brier=Estimate(float(squared.mean()), percentiles(ratio(weights @ squared, weights.sum(1))))
        if len(squared)
        else Estimate(None),
        brier_base=None if rate is None else rate * (1 - rate),
        calibration_error=sum(
            b.weight * abs(b.predicted - b.succeeded)
            for b in bins
            if b.predicted is not None and b.succeeded is not None
        )
        if len(v)
        else None,
        bins=bins,
    )


def _bins(v: Array, y: Array, w: Array) -> tuple[Bin, ...]:
    place = np.clip((v * BINS).astype(int), 0, BINS - 1)
    out: list[Bin] = []
    for b in range(BINS):
        inside = place == b
        weight = float(w[inside].sum())
        out.append(
            Bin(
                low=b / BINS,
                high=(b + 1) / BINS,
                queries=int(inside.sum()),
                weight=weight,
                predicted=float((w * v)[inside].sum() / weight) if weight else None,
                succeeded=float((w * y)[inside].sum() / weight) if weight else None,
            )
        )
    return tuple(out)
