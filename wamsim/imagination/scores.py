"""Numbers per query and horizon, and the ratios of sums that averages are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wamsim.contracts import EpisodeKey
from wamsim.imagination.resampling import Array


class Metric(NamedTuple):
    """A ratio of two sums over queries and episodes.

    Attributes:
        above: Summed cell.
        below: Likewise; None counts the queries, which makes the ratio a mean.
    """

    above: str
    below: str | None = None


# Cells are those of `score_latents` and of `wamsim.reality` (pictures).
METRICS: Mapping[str, Metric] = {
    "cosine": Metric("cosine"),
    "still_cosine": Metric("still_cosine"),
    "error": Metric("error", "power"),
    "still_error": Metric("still_error", "power"),
    "skill": Metric("error", "still_error"),  # 1 - the ratio, see `summary`
    "recall": Metric("recall"),
    "still_recall": Metric("still_recall"),
    "chance": Metric("chance"),
    "rank": Metric("rank"),
    "time_error": Metric("time_error"),
    "chance_time_error": Metric("chance_time_error"),
    "mse": Metric("imagined_mse"),
    "ssim": Metric("imagined_ssim"),
    "ceiling_mse": Metric("ceiling_mse"),
    "ceiling_ssim": Metric("ceiling_ssim"),
    "response": Metric("response", "still_error"),
    "better": Metric("better"),
}


@dataclass(frozen=True, kw_only=True)
class QueryScores:
    """One episode, one imaginer: numbers per query and horizon, for viewers too.

    Attributes:
        key: The episode.
        failed: Whether it failed.
        imaginer: Name of the policy or world model.
        horizons: K env steps ahead.
        execute: Actions run per query.
        steps: [Q], env step of each query.
        compared: bool [Q, K], where actions were executed as imagined.
        cells: Name -> [Q, K], NaN where not compared or not defined.
        unpictured: True when it drew pictures that could not be compared.
    """

    key: EpisodeKey
    failed: bool
    imaginer: str
    horizons: tuple[int, ...]
    execute: int
    steps: NDArray[Any]
    compared: NDArray[np.bool_]
    cells: Mapping[str, Array]
    unpictured: bool = False

    def left_out(self) -> dict[str, NDArray[np.int64]]:
        """Count why horizons are not compared: reason -> [K]."""
        past = np.array([h > self.execute for h in self.horizons])
        missing = (~self.compared).sum(0)
        return {
            f"past the {self.execute} executed actions": np.where(past, missing, 0),
            "after the episode's end": np.where(past, 0, missing),
        }

    def sums(self) -> Array:
        """Add up over queries: [metrics, 2 (above, below), K], in the order of `METRICS`."""
        out = np.zeros((len(METRICS), 2, len(self.horizons)))
        for m, metric in enumerate(METRICS.values()):
            above = self.cells.get(metric.above)
            below = self.cells.get(metric.below) if metric.below else None
            if above is None or (metric.below and below is None):
                continue
            under = np.ones_like(above) if below is None else below
            known = ~(np.isnan(above) | np.isnan(under))
            out[m, 0] = np.where(known, above, 0).sum(0)
            out[m, 1] = np.where(known, under, 0).sum(0)
        return out
