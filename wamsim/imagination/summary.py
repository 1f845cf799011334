"""From sums per episode to numbers with intervals: per policy, suite, task or episode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wamsim.contracts import EpisodeKey
from wamsim.imagination.episodes import EpisodeSums, ImaginerRecord, RunImagination
from wamsim.imagination.knowing import ValueSummary, auroc, summarise_values
from wamsim.imagination.pictures import PEAK
from wamsim.imagination.resampling import (
    RESAMPLES,
    Array,
    Estimate,
    percentiles,
    ratio,
    resampling_weights,
)
from wamsim.imagination.scores import METRICS

# What a group of episodes is; its label is (suite, task, index) as far as they are common.
BY: Mapping[str, Callable[[EpisodeKey], tuple[str, ...]]] = {
    "policy": lambda key: (),
    "suite": lambda key: (key.suite,),
    "task": lambda key: (key.suite, key.task),
    "episode": lambda key: (key.suite, key.task, str(key.index)),
}

_NAMES = tuple(METRICS)


@dataclass(frozen=True, kw_only=True)
class HorizonSummary:
    """One horizon of one group of episodes.

    Attributes:
        horizon: Env steps ahead; None for all horizons together.
        episodes: Episodes with a compared query.
        failures: Of them.
        compared: Queries (times horizons) compared.
        left_out: Reason -> queries that were not.
        metrics: Name (`METRICS`, and psnr, ceiling_psnr in decibels) -> ratio of sums over
            all compared queries of the group, with its interval over episodes.
        auroc: Whether the episode's normalised error tells failed episodes.
        auroc_within: The same by pairs of one task only.
    """

    horizon: int | None
    episodes: int
    failures: int
    compared: int
    left_out: Mapping[str, int]
    metrics: Mapping[str, Estimate]
    auroc: Estimate
    auroc_within: Estimate


@dataclass(frozen=True, kw_only=True)
class GroupSummary:
    """A group of episodes.

    Attributes:
        label: See `BY`.
        episodes: Scored episodes of the group in which there was imagination.
        horizons: One a horizon, then all together where there are several.
    """

    label: tuple[str, ...]
    episodes: int
    horizons: tuple[HorizonSummary, ...]


@dataclass(frozen=True, kw_only=True)
class ImaginerSummary:
    """One imaginer over a run, summarised.

    Attributes:
        imaginer, world, horizons, execute, unpictured: See `ImaginerRecord`.
        by: Of `BY`, those that were asked for -> groups.
    """

    imaginer: str
    world: bool
    horizons: tuple[int, ...]
    execute: int
    unpictured: int
    by: Mapping[str, tuple[GroupSummary, ...]]

    @property
    def skill(self) -> Estimate:
        """Over all horizons and episodes: one number for a leaderboard."""
        groups = self.by["policy"]
        return groups[0].horizons[-1].metrics["skill"] if groups else Estimate(None)


@dataclass(frozen=True, kw_only=True)
class ImaginationSummary:
    """What a run foresaw, summarised: all that tables say.

    Attributes:
        run: Name of the run folder.
        policy, errors, undescribed: See `RunImagination`.
        imaginers: The policy's own first, then a world model's.
        value: Of predicted values; None where none are predicted.
    """

    run: str
    policy: str | None
    imaginers: tuple[ImaginerSummary, ...]
    value: ValueSummary | None
    errors: int
    undescribed: int


def summarise_run(run: RunImagination, by: Iterable[str] = ()) -> ImaginationSummary:
    """Summarise all that a run foresaw.

    Args:
        run: From `read_imagination`.
        by: Of `BY`, beside "policy", which is always there.
    """
    names = dict.fromkeys(("policy", *by))
    return ImaginationSummary(
        run=run.path.name,
        policy=run.policy,
        imaginers=tuple(
            ImaginerSummary(
                imaginer=one.imaginer,
                world=one.world,
                horizons=one.horizons,
                execute=one.execute,
                unpictured=one.unpictured,
                by={name: summarise(one, name) for name in names},
            )
            for one in run.imaginers
        ),
        value=value_summary(run),
        errors=run.errors,
        undescribed=run.undescribed,
    )


def summarise(imaginer: ImaginerRecord, by: str = "policy") -> tuple[GroupSummary, ...]:
    """Summarise an imaginer over groups of episodes.

    Intervals come from resampling episodes within their tasks; a group's are those of the
    tasks that it holds.

    Args:
        imaginer: From `read_imagination`.
        by: One of `BY`.
    """
    keys = [e.key for e in imaginer.episodes]
    members: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(keys):
        members.setdefault(BY[by](key), []).append(i)
    out: list[GroupSummary] = []
    for label, rows in members.items():
        episodes = [imaginer.episodes[i] for i in rows]
        draws = RESAMPLES if len(rows) > 1 else 1  # a single episode has no interval
        weights = resampling_weights([_task(e.key) for e in episodes], n=draws)
        spans: list[tuple[int | None, list[int]]] = [
            (h, [k]) for k, h in enumerate(imaginer.horizons)
        ]
        if len(imaginer.horizons) > 1:
            spans.append((None, list(range(len(imaginer.horizons)))))
        out.append(
            GroupSummary(
                label=label,
                episodes=len(rows),
                horizons=tuple(_summarise(episodes, weights, h, ks) for h, ks in spans),
            )
        )
    return tuple(out)


def _task(key: EpisodeKey) -> tuple[str, str]:
    return key.suite, key.task


def _summarise(
    episodes: Sequence[EpisodeSums], weights: Array, horizon: int | None, ks: Sequence[int]
) -> HorizonSummary:
    sums = np.stack([e.sums[:, :, ks].sum(-1) for e in episodes])  # [E, M, 2]
    compared = np.array([e.compared[ks].sum() for e in episodes])
    failed = np.array([e.failed for e in episodes], bool)
    reasons = list(dict.fromkeys(reason for e in episodes for reason in e.left_out))
    normalised = ratio(sums[:, _NAMES.index("error"), 0], sums[:, _NAMES.index("error"), 1])
    tasks = [_task(e.key) for e in episodes]
    return HorizonSummary(
        horizon=horizon,
        episodes=int((compared > 0).sum()),
        failures=int(failed[compared > 0].sum()),
        compared=int(compared.sum()),
        left_out={
            reason: int(sum(int(e.left_out[reason][ks].sum()) for e in episodes))
            for reason in reasons
        },
        metrics=_metrics(sums, weights),
        auroc=auroc(normalised, failed, weights),
        auroc_within=auroc(normalised, failed, weights, tasks),
    )


def _metrics(sums: Array, weights: Array) -> dict[str, Estimate]:
    whole = sums.sum(0)  # [M, 2]
    again = np.einsum("ne,emt->mtn", weights, sums, optimize=True)  # [M, 2, n]
    out: dict[str, Estimate] = {}
    for m, name in enumerate(_NAMES):
        value, draws = ratio(whole[m, 0], whole[m, 1]), ratio(again[m, 0], again[m, 1])
        out[name] = _estimate(1 - value, 1 - draws) if name == "skill" else _estimate(value, draws)
        if name in ("mse", "ceiling_mse"):
            title = "psnr" if name == "mse" else "ceiling_psnr"
            out[title] = _estimate(_decibels(value), _decibels(draws))
    return out


def _decibels(mse: Array) -> Array:
    with np.errstate(divide="ignore"):  # identical pictures: infinite
        return 20 * np.log10(PEAK) - 10 * np.log10(mse)


def _estimate(value: Array, draws: Array) -> Estimate:
    if np.isnan(value):
        return Estimate(None)
    return Estimate(float(value), percentiles(draws))


def value_summary(run: RunImagination) -> ValueSummary | None:
    """Summarise predicted values over all scored episodes; None where none are predicted."""
    if not run.values:
        return None
    failed: NDArray[np.bool_] = np.array([e.failed for e in run.values], bool)
    tasks = [_task(e.key) for e in run.values]
    return summarise_values(
        [e.values for e in run.values], failed, resampling_weights(tasks), tasks
    )
