"""Measured rows, what follows from them, and their JSON. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Latency of repeated calls, milliseconds.

    Attributes:
        median_ms, p10_ms, p90_ms: Percentiles, linear between neighbours.
        repeats: Calls, warm-up not counted.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int


def spread(seconds: Sequence[float]) -> Spread:
    """Summarise call times in seconds.

    Raises:
        ValueError: There are none.
    """
    if not seconds:
        raise ValueError("no call was timed")
    low, middle, high = np.percentile(np.asarray(seconds) * 1e3, [10, 50, 90])
    return Spread(
        median_ms=float(middle), p10_ms=float(low), p90_ms=float(high), repeats=len(seconds)
    )


def median_parts(timings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Give the median of each named part, seconds to milliseconds.

    A part that some calls do not report counts as zero in them; order is of appearance.
    """
    names = list(dict.fromkeys(name for one in timings for name in one))
    return {name: float(np.median([one.get(name, 0.0) for one in timings]) * 1e3) for name in names}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model, asked one way.

    Attributes:
        name: "family:variant".
        kind: "policy" (one `act`) or "world model" (one `imagine`).
        preset: "tiny" or "published".
        parameters: Of what is loaded here; None when the policy has no torch module.
        device, dtype: Where and in what precision.
        batch: Rows of the observation.
        how: "eager", "graphs" (CUDA graphs) or "compile" (torch.compile inside CUDA graphs).
        imagine: Whether the run asks for imagination.
        cached: Whether what does not change while denoising is kept.
        latency: Wall time of the whole call, device synchronised before and after.
        device_ms: Median between CUDA events around the call; None on a CPU.
        parts_ms: Where the time goes, as the policy reports it (`Prediction.timings`).
        peak_gib: Highest memory allocated on the GPU during the calls; None on a CPU.
        difference: Largest absolute difference of the answer (actions, or imagined latents)
            from the first row of the same model and batch: eager, with caches; None for it.
        note: What is left out or could not be done.
    """

    name: str
    kind: str
    preset: str
    parameters: int | None
    device: str
    dtype: str
    batch: int
    how: str
    imagine: bool
    cached: bool
    latency: Spread
    device_ms: float | None = None
    parts_ms: Mapping[str, float] = field(default_factory=dict[str, float])
    peak_gib: float | None = None
    difference: float | None = None
    note: str = ""

    @property
    def setting(self) -> tuple[str, str, int, str]:
        """What two rows share that may be compared: preset, device, batch, how."""
        return (self.preset, self.device, self.batch, self.how)


@dataclass(frozen=True, kw_only=True)
class CacheGain:
    """The same query with and without caches.

    Attributes:
        name: Of the model; batch, how, preset: as in `Row`.
        cached_ms, uncached_ms: Medians.
        difference: Largest absolute difference between the answers.
    """

    name: str
    preset: str
    batch: int
    how: str
    cached_ms: float
    uncached_ms: float
    difference: float | None

    @property
    def speedup(self) -> float:
        """Uncached over cached."""
        return self.uncached_ms / self.cached_ms


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times faster one model is than another, of one run.

    Attributes:
        slow, fast: Names; preset, batch, how: as in `Row`.
        ratio: Median of `slow` over median of `fast`.
        aim: What it should be at least at published size, or None.
    """

    slow: str
    fast: str
    preset: str
    batch: int
    how: str
    ratio: float
    aim: float | None


@dataclass
class Report:
    """Everything that one run measured; rows are added as they come.

    Attributes:
        machine: Facts about it, name -> text.
        rows: In order of measurement.
        notes: Sentences: what was skipped and why.
        failures: name -> traceback of what broke; the other models are measured all the same.
    """

    machine: dict[str, str]
    rows: list[Row] = field(default_factory=list[Row])
    notes: list[str] = field(default_factory=list[str])
    failures: dict[str, str] = field(default_factory=dict[str, str])

    def cache_gains(self) -> list[CacheGain]:
        """Pair every row without caches with its own with them."""
        found: list[CacheGain] = []
        for slow in self.rows:
            if slow.cached or slow.imagine:
                continue
            for fast in self.rows:
                same = fast.name == slow.name and fast.setting == slow.setting
                if same and fast.cached and not fast.imagine:
                    found.append(
                        CacheGain(
                            name=slow.name, preset=slow.preset, batch=slow.batch, how=slow.how,
                            cached_ms=fast.latency.median_ms, uncached_ms=slow.latency.median_ms,
                            difference=slow.difference,
                        )
                    )  # fmt: skip
        return found

    def ratio(self, slow: str, fast: str, *, aim: float | None = None) -> list[Ratio]:
        """Compare two models wherever both were measured alike, caches on, nothing imagined."""
        rows = [r for r in self.rows if r.cached and not r.imagine]
        return [
            Ratio(
                slow=slow, fast=fast, preset=a.preset, batch=a.batch, how=a.how,
                ratio=a.latency.median_ms / b.latency.median_ms, aim=aim,
            )
            for a in rows
            for b in rows
            if a.name == slow and b.name == fast and a.setting == b.setting
        ]  # fmt: skip

    def to_json(self, **derived: Any) -> str:
        """Write as JSON: machine, rows, notes, failures, cache gains and what is given.

        Args:
            derived: Further named lists of dataclasses; `from_json` does not read them.
        """
        gains = [{**dataclasses.asdict(g), "speedup": g.speedup} for g in self.cache_gains()]
        extra = {name: [dataclasses.asdict(x) for x in values] for name, values in derived.items()}
        document = {**dataclasses.asdict(self), "cache_gains": gains, **extra}
        return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; derived parts are computed again when asked for."""
        document = json.loads(text)
        rows = [Row(**{**row, "latency": Spread(**row["latency"])}) for row in document["rows"]]
        return cls(
            machine=document["machine"],
            rows=rows,
            notes=document["notes"],
            failures=document["failures"],
        )
