"""Bootstrap over episodes of ratios of sums.

Every average here is a ratio of two sums over episodes, so one matrix of resampling weights
serves all of them: resampled ratios are (W @ numerators) / (W @ denominators).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wamsim.intervals import Interval
from wamsim.seeding import generator
from wamsim.stats import BOOTSTRAP_SEED

Array = NDArray[np.float64]

# Efron & Tibshirani 1993, 14.2, ask for at least 1,000 for 95 % limits.
RESAMPLES = 2000

# An interval is given when at least this part of the resamples defines the quantity.
_DEFINED = 0.95


class Estimate(NamedTuple):
    """A number with its interval.

    Attributes:
        value: None when there is no data, or it is not defined.
        interval: 95 % percentile bootstrap over episodes; None when the resamples show no
            spread, or too many of them do not define the quantity.
    """

    value: float | None
    interval: Interval | None = None


def resampling_weights(
    groups: Sequence[object], *, n: int = RESAMPLES, seed: int = BOOTSTRAP_SEED
) -> Array:
    """Draw how often each episode comes in each resample.

    Args:
        groups: A stratum for each of E episodes (its suite and task). Each is resampled to
            its own size; strata of one episode are resampled together, as in
            `wamsim.stats.bootstrap_mean`.
        n: Number of resamples.
        seed: Of the draws.

    Returns:
        float64 [n, E]; every row sums to E.
    """
    members: dict[object, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    strata = [rows for rows in members.values() if len(rows) > 1]
    single = [rows[0] for rows in members.values() if len(rows) == 1]
    rng = generator(seed)
    weights = np.zeros((n, len(groups)))
    for rows in [*strata, *([single] if single else [])]:
        weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=n)
    return weights


def ratio(numerator: Array, denominator: Array) -> Array:
    """Divide; NaN where the denominator is 0."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def percentiles(values: Array, confidence: float = 0.95) -> Interval | None:
    """Give the percentile interval of resampled values.

    Args:
        values: [n]; NaN where a resample does not define the quantity, left out.
        confidence: Two-sided.

    Returns:
        None when more than 5 % are not defined, when any is infinite (PSNR of identical
        pictures), or when there is no spread: then the data say nothing about the
        uncertainty.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    known = values[~np.isnan(values)]
    if len(known) < max(2.0, _DEFINED * len(values)) or np.isinf(known).any():
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    if not np.ptp(known) > 1e-12 * max(1.0, float(np.abs(known).max())):
        return None
    return Interval(float(low), float(high))
