"""Confidence intervals of a success rate."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import scipy.special  # pyright: ignore[reportMissingTypeStubs]  # scipy ships no types

_betaincinv: Any = scipy.special.betaincinv


class Interval(NamedTuple):
    """A confidence interval.

    Attributes:
        low: Lower limit.
        high: Upper limit.
    """

    low: float
    high: float


def check_counts(successes: int, n: int, confidence: float) -> None:
    """Refuse counts that cannot be.

    Raises:
        ValueError: More successes than episodes, a negative number, no confidence in (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes={successes} must lie in 0..n={n}")
    check_confidence(confidence)


def check_confidence(confidence: float) -> None:
    """Refuse 95 where 0.95 is meant.

    Raises:
        ValueError: Not in (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence} must lie between 0 and 1, e.g. 0.95")


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval | None:
    """Give Wilson's score interval of a rate; the interval that tables show.

    Args:
        successes: Number of successes.
        n: Number of scored episodes.
        confidence: Two-sided.

    Returns:
        Limits in [0, 1]; None when ``n`` is 0.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical
    Inference", JASA 22:209-212.
    """
    check_counts(successes, n, confidence)
    if n == 0:
        return None
    return score_interval(successes / n, n, confidence)


def score_interval(p: float, n: float, confidence: float) -> Interval:
    """Give Wilson's interval for a rate ``p`` of ``n`` episodes; ``n`` may be effective.

    Args:
        p: Rate in [0, 1].
        n: Number of episodes, above 0; need not be whole.
        confidence: Two-sided.

    Source: as `wilson`.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends one limit is the rate itself; rounding would leave 1e-17.
    low = 0.0 if p == 0.0 else max(0.0, centre - half)
    high = 1.0 if p == 1.0 else min(1.0, centre + half)
    return Interval(low, high)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval | None:
    """Give the exact interval of a rate: its coverage is never below ``confidence``.

    Args:
        successes: Number of successes.
        n: Number of scored episodes.
        confidence: Two-sided.

    Returns:
        Limits in [0, 1]; None when ``n`` is 0.

    Source: Clopper & Pearson 1934, "The Use of Confidence or Fiducial Limits Illustrated
    in the Case of the Binomial", Biometrika 26:404-413, through quantiles of the beta
    distribution.
    """
    check_counts(successes, n, confidence)
    if n == 0:
        return None
    tail = (1 - confidence) / 2
    k = successes
    low = 0.0 if k == 0 else float(_betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(_betaincinv(k + 1, n - k, 1 - tail))
    return Interval(low, high)
