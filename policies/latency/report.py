"""The printed tables: latency, caches, ratios, published figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from policies.latency.published import FASTWAM_FLOOR_MS, FIGURES, RATIOS, Figure
from policies.latency.rows import Ratio, Report, Row
from wamsim.tables import Column, Kind, Table
from wamsim.tables import Row as TableRow

SMALL_PART = 0.01  # parts below this share of the whole are not worth a place in the table


def ms(value: float | None) -> str:
    """Write milliseconds with about three digits; empty where there are none."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def weights(count: int | None) -> str:
    """Write a number of parameters: 748 K, 0.86 M, 6.72 B."""
    if count is None:
        return ""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def where(row: Row) -> str:
    """Write where a query's time goes, milliseconds."""
    whole = row.latency.median_ms
    parts = row.parts_ms.items()
    return ", ".join(f"{name} {ms(t)}" for name, t in parts if t >= SMALL_PART * whole)


def ratios(report: Report) -> list[Ratio]:
    """Give the ratios that the project asks for; an aim holds for published sizes alone."""
    found = [r for slow, fast, aim in RATIOS for r in report.ratio(slow, fast, aim=aim)]
    return [r if r.preset == "published" else dataclasses.replace(r, aim=None) for r in found]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beside:
    """A published figure and ours.

    Attributes:
        figure: Theirs.
        ours_ms: Our fastest median at published size and batch 1; None when not measured.
        how, device: Of ours.
    """

    figure: Figure
    ours_ms: float | None
    how: str = ""
    device: str = ""


def beside(report: Report) -> list[Beside]:
    """Put published figures of the measured models beside ours."""
    names = {row.name for row in report.rows}
    out: list[Beside] = []
    for figure in FIGURES:
        if figure.name not in names:
            continue
        ours = [
            r
            for r in report.rows
            if r.name == figure.name and r.preset == "published" and r.batch == 1
            and r.cached and not r.imagine
        ]  # fmt: skip
        if not ours:
            out.append(Beside(figure=figure, ours_ms=None))
            continue
        best = min(ours, key=lambda r: r.latency.median_ms)
        out.append(
            Beside(
                figure=figure, ours_ms=best.latency.median_ms, how=best.how, device=best.device
            )
        )  # fmt: skip
    return out


def to_json(report: Report) -> str:
    """Write a report with its ratios and published figures."""
    return report.to_json(ratios=ratios(report), published=beside(report))


def tables(report: Report) -> list[Table]:
    """Draw a report up to now; empty tables are left out."""
    settings = list(dict.fromkeys((r.preset, r.device, r.dtype) for r in report.rows))
    out = [
        _latency([r for r in report.rows if (r.preset, r.device, r.dtype) == s], report)
        for s in settings
    ]
    out += [_caches(report), _ratios(report), _published(report)]
    return [table for table in out if table.rows]


def _parted(name: str) -> dict[str, str]:
    family, _, variant = name.partition(":")
    return {"family": family, "variant": variant or family}


def _latency(rows: Sequence[Row], report: Report) -> Table:
    first = rows[0]
    eager = all(r.how == "eager" for r in rows)
    cells = [
        {
            **_parted(r.name),
            "weights": weights(r.parameters),
            "batch": r.batch,
            "how": "" if eager else r.how,
            "asked": "imagine" if r.imagine else "",
            "median": ms(r.latency.median_ms),
            "range": f"{ms(r.latency.p10_ms)}-{ms(r.latency.p90_ms)}",
            "where": where(r),
            "peak": "" if r.peak_gib is None else f"{r.peak_gib:.1f}",
        }
        for r in rows
        if r.cached
    ]
    counts = sorted({r.latency.repeats for r in rows})
    times = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    facts = report.machine
    on_cpu = f"{facts['cpu']}, {facts.get('cpu_threads', '?')} used"
    place = facts.get("gpu", first.device) if first.device.startswith("cuda") else on_cpu
    notes = [
        f"{place}; torch {facts['torch']}. Random weights; whole call, median and 10th to 90th "
        f"percentile of {times} calls after warm-up. World models: one imagine()."
    ]
    left_out = sorted({f"{r.name.partition(':')[0]}: {r.note}." for r in rows if r.note})
    return Table(
        title=f"Latency of one query, ms: {first.preset} sizes, {first.device}, {first.dtype}",
        columns=(
            Column("family", "family"),
            Column("variant", "variant"),
            Column("weights", "weights"),
            Column("batch", "rows", Kind.COUNT),
            Column("how", "how"),
            Column("asked", "asked to"),
            Column("median", "median"),
            Column("range", "p10-p90"),
            Column("peak", "GPU GiB"),
            Column("where", "where it goes"),
        ),
        rows=tuple(TableRow(kind="latency", cells=c) for c in cells),
        notes=(*notes, *left_out),
        heading=("family",),
    )


def _caches(report: Report) -> Table:
    rows = [
        {
            **_parted(g.name),
            "preset": g.preset,
            "batch": g.batch,
            "how": g.how,
            "cached": ms(g.cached_ms),
            "uncached": ms(g.uncached_ms),
            "speedup": f"{g.speedup:.2f} x",
            "difference": "not finite" if g.difference is None else f"{g.difference:.1e}",
        }
        for g in report.cache_gains()
    ]
    return Table(
        title="Caches: the same query with and without them, ms",
        columns=(
            Column("family", "family"),
            Column("variant", "variant"),
            Column("preset", "size"),
            Column("batch", "rows", Kind.COUNT),
            Column("how", "how"),
            Column("cached", "cached"),
            Column("uncached", "uncached"),
            Column("speedup", "gain"),
            Column("difference", "largest difference"),
        ),
        rows=tuple(TableRow(kind="cache", cells=c) for c in rows),
        notes=("The difference is between answers: actions, or imagined latents.",),
        heading=("family",),
    )


def _ratios(report: Report) -> Table:
    rows = [
        {
            "pair": f"{r.slow} / {r.fast}",
            "preset": r.preset,
            "batch": r.batch,
            "how": r.how,
            "ratio": f"{r.ratio:.2f}",
            "aim": "" if r.aim is None else f"at least {r.aim:.0f}",
        }
        for r in ratios(report)
    ]
    return Table(
        title="Time of one model over another's, same run",
        columns=(
            Column("pair", "models"),
            Column("preset", "size"),
            Column("batch", "rows", Kind.COUNT),
            Column("how", "how"),
            Column("ratio", "ratio"),
            Column("aim", "aim"),
        ),
        rows=tuple(TableRow(kind="ratio", cells=c) for c in rows),
    )


def _published(report: Report) -> Table:
    found = beside(report)
    rows = [
        {
            **_parted(b.figure.name),
            "published": ms(b.figure.published_ms),
            "hardware": b.figure.hardware,
            "source": b.figure.source,
            "ours": "not measured" if b.ours_ms is None else f"{ms(b.ours_ms)} ({b.how})",
            "aim": "" if b.figure.aim_ms is None else f"< {ms(b.figure.aim_ms)}",
        }
        for b in found
    ]
    notes = ["Ours: published size, 1 row, the fastest way; aims are for one H200."]
    if any(b.figure.name == "fastwam:fastwam" for b in found):
        notes.append(f"Reading Fast-WAM's weights alone takes about {FASTWAM_FLOOR_MS:.0f} ms.")
    notes += [f"{b.figure.name}: {b.figure.note}." for b in found if b.figure.note]
    notes.append("F.5: the project's FAMILIES notes; [report]: from a report of the paper.")
    return Table(
        title="Published latencies, ms",
        columns=(
            Column("family", "family"),
            Column("variant", "variant"),
            Column("published", "published"),
            Column("hardware", "hardware"),
            Column("source", "source"),
            Column("ours", "ours"),
            Column("aim", "aim"),
        ),
        rows=tuple(TableRow(kind="published", cells=c) for c in rows),
        notes=tuple(notes),
        heading=("family",),
    )
