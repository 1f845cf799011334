"""Two runs' imagination on the episodes that both foresaw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wamsim.imagination.episodes import EpisodeSums, ImaginerRecord, RunImagination
from wamsim.imagination.resampling import Array, Estimate, percentiles, ratio, resampling_weights
from wamsim.imagination.scores import METRICS
from wamsim.tables import Column, Kind, Row, Score, Table

_SKILL = tuple(METRICS).index("skill")


@dataclass(frozen=True, kw_only=True)
class PairedSkill:
    """Skill of two imaginers over the same episodes.

    Attributes:
        horizon: Env steps ahead; None for all horizons of each together.
        n: Episodes in which both were compared with reality.
        a, b: Skill of each.
        difference: a - b, with its interval over episodes, resampled within tasks in pairs.
    """

    horizon: int | None
    n: int
    a: float | None
    b: float | None
    difference: Estimate


def paired_skill(a: ImaginerRecord, b: ImaginerRecord) -> tuple[PairedSkill, ...]:
    """Compare two imaginers, at every horizon that both have and over all of each.

    Skill is relative to "nothing moves" in each one's own latent space, so models with
    different spaces can be compared by it; the spaces themselves differ, and what moves much
    in one may move little in the other.

    Returns:
        One a shared horizon, then all horizons together.
    """
    in_a, in_b = ({e.key: e for e in x.episodes} for x in (a, b))
    keys = [key for key in in_a if key in in_b]
    shared = [h for h in a.horizons if h in b.horizons]
    spans = [(h, [a.horizons.index(h)], [b.horizons.index(h)]) for h in shared]
    out: list[PairedSkill] = []
    for horizon, ka, kb in [*spans, (None, [*range(len(a.horizons))], [*range(len(b.horizons))])]:
        used = [k for k in keys if in_a[k].compared[ka].any() and in_b[k].compared[kb].any()]
        sums = [_sums([x[k] for k in used], ks) for x, ks in ((in_a, ka), (in_b, kb))]
        skills = [1 - ratio(*s.sum(0).reshape(2, 1))[0] if used else np.nan for s in sums]
        difference = Estimate(None)
        if not np.isnan(skills).any():
            weights = resampling_weights([(k.suite, k.task) for k in used])
            drawn = [1 - ratio(*(weights @ s).T) for s in sums]
            difference = Estimate(float(skills[0] - skills[1]), percentiles(drawn[0] - drawn[1]))
        first, second = (None if np.isnan(x) else float(x) for x in skills)
        out.append(
            PairedSkill(horizon=horizon, n=len(used), a=first, b=second, difference=difference)
        )
    return tuple(out)


def _sums(episodes: list[EpisodeSums], ks: list[int]) -> Array:
    """Error and the error of "nothing moves", [E, 2]."""
    return np.array([e.sums[_SKILL][:, ks].sum(-1) for e in episodes]).reshape(-1, 2)


def skill_table(a: RunImagination, b: RunImagination) -> Table | None:
    """Lay out the paired skills of two runs' first imaginers; None unless both imagined."""
    if not (a.imaginers and b.imaginers):
        return None
    one, other = a.imaginers[0], b.imaginers[0]
    rows = [
        Row(
            "all horizons" if p.horizon is None else "horizon",
            {
                "horizon": "all" if p.horizon is None else str(p.horizon),
                "pairs": p.n,
                "skill_a": p.a,
                "skill_b": p.b,
                "difference": None
                if p.difference.value is None
                else Score(p.difference.value, p.difference.interval),
            },
            strong=p.horizon is None,
        )
        for p in paired_skill(one, other)
    ]
    return Table(
        title=f"Imagination, A = {one.imaginer}, B = {other.imaginer}",
        columns=(
            Column("horizon", "steps"),
            Column("pairs", "pairs", Kind.COUNT),
            Column("skill_a", "A skill", Kind.RATE, percent=False),
            Column("skill_b", "B skill", Kind.RATE, percent=False),
            Column("difference", "A - B", Kind.SCORE, percent=False),
        ),
        rows=tuple(rows),
        notes=(
            "Skill over 'nothing moves' in each one's own latent space, on the episodes that both "
            "foresaw; paired bootstrap interval over episodes.",
        ),
    )
