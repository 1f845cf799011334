"""Show what a run foresaw: tables for people, and one flat table for CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wamsim.imagination.resampling import Estimate
from wamsim.imagination.summary import HorizonSummary, ImaginationSummary
from wamsim.tables import Column, Kind, Row, Score, Share, Table


def _number(key: str, title: str) -> Column:
    return Column(key, title, Kind.RATE, percent=False)


def _estimate(key: str, title: str) -> Column:
    return Column(key, title, Kind.SCORE, percent=False)


_GROUP = (
    Column("imaginer", "imaginer"),
    Column("group", "episodes"),
    Column("horizon", "steps"),
)
_LATENTS = (
    Column("compared", "compared", Kind.SHARE),
    _number("cosine", "cosine"),
    _estimate("skill", "skill"),
    _number("recall", "recall@1"),
    _number("chance", "chance"),
    _number("still_recall", "still"),
    _number("time_error", "off by"),
)
_PICTURES = (
    _estimate("psnr", "PSNR dB"),
    _number("ceiling_psnr", "ceiling"),
    _estimate("ssim", "SSIM"),
    _number("ceiling_ssim", "ceiling"),
)
_ACTIONS = (
    _estimate("response", "change by actions"),
    _estimate("better", "true actions better"),
)
_MORE = (  # in exports only
    _number("still_cosine", "cosine, still"),
    _estimate("recall_interval", "95% interval"),
    _estimate("error", "error"),
    _estimate("still_error", "error, still"),
    _number("rank", "rank"),
    _number("chance_time_error", "off by, chance"),
    _estimate("auroc", "AUROC"),
    _estimate("auroc_within", "AUROC within tasks"),
    Column("not_compared", "not compared"),
)


def imagination_tables(run: ImaginationSummary, by: str = "policy") -> list[Table]:
    """Lay out what a run foresaw, for people.

    Args:
        run: From `summarise_run`.
        by: One of those that it was summarised by.

    Returns:
        Latents; then pictures, actions and knowledge of failure (always over the whole
        run) where there are any. Empty without imagination and values.
    """
    rows = list(_rows(run, by))
    out: list[Table] = []
    for what, columns, key, notes in (
        ("Imagined latents", _LATENTS, None, _latent_notes(run)),
        ("Imagined pictures", _PICTURES, "psnr", _PICTURE_NOTES),
        ("Imagination under other actions", _ACTIONS, "response", _ACTION_NOTES),
    ):
        shown = [row for row in rows if key is None or row.cells.get(key) is not None]
        if shown:
            out.append(
                Table(
                    title=f"{what}, run {run.run}",
                    columns=(*_GROUP, *columns),
                    rows=tuple(shown),
                    notes=tuple(notes),
                    heading=("imaginer", "group"),
                )
            )
    known = list(_knowing(run))
    if known:
        out.append(
            Table(
                title=f"Does it know? run {run.run}",
                columns=_KNOWING,
                rows=tuple(known),
                notes=_KNOWING_NOTES,
                heading=("imaginer",),
            )
        )
    return out


def flat_table(run: ImaginationSummary, by: str = "policy") -> Table:
    """Give everything in one table, for CSV."""
    return Table(
        title=f"Imagination of run {run.run}",
        columns=(*_GROUP, *_LATENTS, *_PICTURES, *_ACTIONS, *_MORE),
        rows=tuple(_rows(run, by)),
        notes=tuple(_latent_notes(run)),
        common={"run": run.run},
    )


def _rows(run: ImaginationSummary, by: str) -> Iterator[Row]:
    for imaginer in run.imaginers:
        for group in imaginer.by[by]:
            for i, one in enumerate(group.horizons):
                head = {"imaginer": imaginer.imaginer, "group": "/".join(group.label) or None}
                together = one.horizon is None
                yield Row(
                    "all horizons" if together else "horizon",
                    {**head, "horizon": "all" if together else str(one.horizon), **_cells(one)},
                    strong=together,
                    rule=by != "policy" and i == 0,
                )


def _cells(one: HorizonSummary) -> dict[str, Any]:
    m = one.metrics
    others = {reason: n for reason, n in one.left_out.items() if n}
    cells: dict[str, Any] = {
        "compared": Share(one.compared, one.compared + sum(others.values())),
        "recall_interval": _score(m["recall"]),
        "auroc": _score(one.auroc),
        "auroc_within": _score(one.auroc_within),
        "not_compared": "; ".join(f"{n} {reason}" for reason, n in others.items()) or None,
    }
    whole = ("skill", "error", "still_error", "psnr", "ssim", "response", "better")
    cells |= {k: _score(m[k]) for k in whole}
    plain = ["cosine", "still_cosine", "recall", "chance", "still_recall", "rank"]
    plain += ["time_error", "chance_time_error", "ceiling_psnr", "ceiling_ssim"]
    return cells | {k: m[k].value for k in plain}


def _score(x: Estimate) -> Score | None:
    return None if x.value is None else Score(x.value, x.interval)


def _latent_notes(run: ImaginationSummary) -> Iterator[str]:
    yield (
        "Skill: 1 - squared error / squared error of 'nothing moves' (1 perfect, 0 no better), "
        "in the model's own latent space; 95% bootstrap intervals over episodes."
    )
    yield (
        "recall@1: nearest to the real latent of its own time; still: the same of "
        "'nothing moves'; off by: env steps."
    )
    for imaginer in run.imaginers:
        total: dict[str, int] = {}
        for one in (h for group in imaginer.by["policy"] for h in group.horizons):
            for reason, count in one.left_out.items() if one.horizon is not None else ():
                total[reason] = total.get(reason, 0) + count
        if any(total.values()):
            said = ", ".join(f"{n} {reason}" for reason, n in total.items() if n)
            yield f"Not compared, because not executed as imagined ({imaginer.imaginer}): {said}."
        if imaginer.unpictured:
            yield (
                f"Pictures that {imaginer.imaginer} drew (episodes: {imaginer.unpictured}) are of "
                f"another size than real frames, so not compared: it has no pictures(frames)."
            )
    if run.errors:
        yield f"Left out: {run.errors} episode{'s' * (run.errors > 1)} with an error."
    if run.undescribed:
        yield f"Left out: {run.undescribed} of an older wamsim, without the horizons' meaning."


_KNOWING = (
    Column("imaginer", "imaginer"),
    Column("source", "from"),
    Column("failed", "failed", Kind.SHARE),
    _estimate("auroc", "AUROC"),
    _estimate("auroc_within", "within tasks"),
    _number("brier", "Brier"),
    _number("brier_base", "base"),
    _number("calibration_error", "calib."),
    Column("outside", "outside 0-1", Kind.COUNT, quiet=True),
)
_KNOWING_NOTES = (
    "AUROC: chance that a failed episode has the larger error, or the lower value, than a "
    "successful one (0.5: it does not know); within tasks: by pairs of one task.",
    "Base: Brier score of always saying the success rate. calib.: mean distance of value and "
    "success over ten bins.",
)
_PICTURE_NOTES = (
    "Against the real frame at the horizon; ceiling: decode(encode(real)), what the tokenizer "
    "allows.",
)
_ACTION_NOTES = (
    "Change by actions: squared distance to what it imagines when nothing is done, over real "
    "change (0: deaf). True actions better: part in which they land nearer to reality (0.5: "
    "chance).",
)


def _knowing(run: ImaginationSummary) -> Iterator[Row]:
    for imaginer in run.imaginers:
        for one in (h for group in imaginer.by["policy"] for h in group.horizons):
            if one.auroc.value is not None:
                ahead = "all horizons" if one.horizon is None else f"{one.horizon} steps ahead"
                yield Row(
                    "error",
                    {
                        "imaginer": imaginer.imaginer,
                        "source": f"error, {ahead}",
                        "failed": Share(one.failures, one.episodes),
                        "auroc": _score(one.auroc),
                        "auroc_within": _score(one.auroc_within),
                    },
                )
    value = run.value
    if value is None:
        return
    common = {"imaginer": run.policy, "failed": Share(value.failures, value.episodes)}
    yield Row(
        "value",
        {
            **common,
            "source": "value, mean of queries",
            "auroc": _score(value.auroc),
            "auroc_within": _score(value.auroc_within),
            "brier": value.brier.value,
            "brier_base": value.brier_base,
            "calibration_error": value.calibration_error,
            "outside": value.outside,
        },
    )
    first = {**common, "source": "value, first query", "auroc": _score(value.first_auroc)}
    yield Row("first value", first)
