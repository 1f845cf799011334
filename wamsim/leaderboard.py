"""Runs become tables.

Which numbers may stand side by side is decided here: a run with errors or missing episodes
is listed below the ranking until those episodes are run, a scripted expert that sees the
simulator's state is never ranked, and stand-in visuals are named beside every number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wamsim.contracts import EpisodeKey
from wamsim.errors import ConfigurationMismatch
from wamsim.imagination.resampling import Estimate
from wamsim.run_summary import PRIVILEGED, RunSummary, SuiteSummary, load_run, load_runs
from wamsim.stats import MacroAverage, PairedComparison, SuccessSummary, grand_average, paired
from wamsim.tables import (
    Column,
    Kind,
    Row,
    Score,
    Share,
    Table,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
)

__all__ = [
    "RunSummary", "SuiteSummary", "compare", "comparison_table", "leaderboard_table",
    "load_run", "load_runs", "paired_table", "success_table", "to_csv", "to_json",
    "to_latex", "to_markdown",
]  # fmt: skip

STAND_IN = "stand-in visuals"

SKILL = Column("skill", "skill", Kind.SCORE, percent=False)


def success_table(run: RunSummary) -> Table:
    """Lay out one run: a row a task, and for each suite both averages."""
    planned = bool(run.info.planned)
    rows: list[Row] = []
    for suite in run.suites.values():
        common = {"suite": suite.id, "notes": STAND_IN if suite.stand_in_visuals else None}
        for task, counts in suite.tasks.items():
            missing = suite.missing[task] if suite.missing is not None else None
            cells = {**common, "task": task, **_counts(counts), "missing": missing}
            rows.append(Row("task", cells, rule=task == next(iter(suite.tasks))))
        missing = sum(suite.missing.values()) if suite.missing is not None else None
        total = {**common, "task": "all episodes", **_counts(suite.total), "missing": missing}
        rows.append(Row("micro", total, strong=True))
        macro = suite.macro
        mean = {"task": "mean of tasks", "rate": macro.rate, "interval": macro.interval}
        rows.append(Row("macro", {**common, **mean, "why": macro.reason}, strong=True))
    columns = [
        Column("suite", "suite"),
        Column("task", "task"),
        Column("successes", "successes", Kind.SHARE),
        Column("rate", "success %", Kind.RATE),
        Column("interval", "95% interval", Kind.INTERVAL),
        Column("errors", "errors", Kind.COUNT),
        *([Column("missing", "missing", Kind.COUNT, quiet=True)] if planned else []),
        Column("notes", "notes"),
        Column("why", "why not"),
    ]
    return Table(
        heading=("suite", "notes"),
        title=f"{run.label}, run {run.path.name}"
        + (f", seed {run.run_seed}" if run.run_seed is not None else ""),
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(_success_notes(run)),
        common={
            "policy": run.policy,
            "privileged": run.privileged,
            "run": run.path.name,
            "seed": run.run_seed,
        },
    )


def _counts(counts: SuccessSummary) -> dict[str, Any]:
    return {
        "successes": Share(counts.successes, counts.scored) if counts.scored else None,
        "rate": counts.rate,
        "interval": counts.wilson,
        "errors": counts.errors if counts.scored + counts.errors else None,
    }


def _success_notes(run: RunSummary) -> Iterable[str]:
    yield "Rates are over scored episodes, with Wilson intervals; errors are in no rate."
    if unfinished := _unfinished(run):
        yield "; ".join(unfinished) + ": resume the run to complete it."
    if run.episodes_per_hour is not None:
        yield f"{run.episodes_per_hour:.0f} episodes an hour."
    if run.latency_s is not None:
        yield f"Policy latency {run.latency_s:.3f} s a query (median over episodes)."


def _unfinished(run: RunSummary) -> list[str]:
    parts: list[str] = []
    if run.errors:
        parts.append(f"{run.errors} {'error' if run.errors == 1 else 'errors'}, must be re-run")
    if run.missing:
        parts.append(f"{run.missing} {'episode' if run.missing == 1 else 'episodes'} missing")
    return parts


def leaderboard_table(runs: Sequence[RunSummary]) -> Table:
    """Lay out policies by suites, best first, by the mean over suites of the mean over tasks.

    Ranked are runs that have every suite of the table, without errors or missing episodes,
    over as many episodes as any of them, of policies that see what a policy may see. The others
    follow, with the reason.
    """
    # A suite that an unfinished run only planned is no column: nobody has a number there.
    suites = [suite for run in runs for suite in run.suites.values()]
    ids = sorted({suite.id for suite in suites if suite.version is not None})
    whole = [run for run in runs if not run.missing]
    most = {name: max((_episodes(run, name) for run in whole), default=0) for name in ids}
    lines = [(run, _overall(run, ids), _obstacles(run, most)) for run in runs]
    ranked = [line for line in lines if not line[2]]
    ranked.sort(key=lambda line: (-(line[1].rate or 0.0), line[0].label, line[0].path.name))
    others = [line for line in lines if line[2]]
    rates = [overall.rate for _, overall, _ in ranked]
    rows = [
        Row("ranked", {"rank": rates.index(overall.rate) + 1, **_run_cells(run, overall, [])})
        for run, overall, _ in ranked
    ]
    rows += [
        Row("unranked", _run_cells(run, overall, why), rule=i == 0)
        for i, (run, overall, why) in enumerate(others)
    ]
    imagined = any(run.skills for run in runs)
    columns = [
        Column("rank", "rank", Kind.COUNT),
        Column("policy", "policy"),
        Column("run", "run"),
        *(Column(suite, suite, Kind.SCORE) for suite in ids),
        *([Column("mean", "mean of suites", Kind.SCORE)] if len(ids) > 1 else []),
        *([SKILL] if imagined else []),
        Column("episodes", "scored", Kind.COUNT),
        Column("errors", "errors", Kind.COUNT),
        Column("episodes_per_hour", "episodes/h", Kind.NUMBER),
        Column("latency_s", "latency s", Kind.SECONDS),
        Column("notes", "notes"),
    ]
    notes = ["Percent success, mean of tasks, with 95% intervals; errors are in no rate."]
    if any(run.errors for run in runs):
        notes.append(
            "Runs with errors are not ranked: those episodes must be re-run (resume the run)."
        )
    if imagined:
        notes.append(
            "Skill of imagination: 1 - squared error / squared error of 'nothing moves', over all "
            "horizons; in each model's own latent space, so it ranks no two models."
        )
    return Table(title="Leaderboard", columns=tuple(columns), rows=tuple(rows), notes=tuple(notes))


def _overall(run: RunSummary, ids: Sequence[str]) -> MacroAverage:
    by_id = {suite.id: suite.tasks for suite in run.suites.values()}
    return grand_average([by_id.get(name, {}) for name in ids])


def _episodes(run: RunSummary, name: str) -> int:
    """How many episodes a run has of a suite, errors among them."""
    totals = [suite.total for suite in run.suites.values() if suite.id == name]
    return sum(total.scored + total.errors for total in totals)


def _obstacles(run: RunSummary, most: Mapping[str, int]) -> list[str]:
    """Say why a run cannot be ranked; empty when it can.

    Args:
        run: The run.
        most: Suite's id -> the most episodes that a finished run of the table has of it.
    """
    absent = sorted(set(most) - {suite.id for suite in run.suites.values()})
    reasons = [*(f"no {name}" for name in absent), *_unfinished(run)]
    for name in sorted(most.keys() - absent):
        if not run.missing and (own := _episodes(run, name)) < most[name]:
            reasons.append(f"{own} episodes of {name}, where others have {most[name]}")
    if run.privileged:
        reasons.append(f"{PRIVILEGED}: sees the simulator's state")
    if not run.scores and not reasons:
        reasons.append("no episodes")
    return reasons


def _run_cells(run: RunSummary, overall: MacroAverage, why: Sequence[str]) -> dict[str, Any]:
    stand_in = [suite.id for suite in run.suites.values() if suite.stand_in_visuals]
    notes = [*why, *([f"{STAND_IN}: {', '.join(stand_in)}"] if stand_in else [])]
    for imaginer, skill in run.skills.items():
        if imaginer != run.policy and (found := _skill(skill)) is not None:
            notes.append(f"{imaginer} beside it: skill {SKILL.show(found)}")
    if run.imagination_fault:
        notes.append(f"imagination not measured: {run.imagination_fault}")
    return {
        "folder": run.path,  # no columns: tell the viewer which run a row is, and why unranked
        "why": tuple(why),
        "policy": run.label,
        "run": run.path.name,
        **{suite.id: _macro_score(suite.macro) for suite in run.suites.values()},
        "mean": _macro_score(overall),
        "skill": _skill(run.skills.get(run.policy or "")),
        "episodes": len(run.scores) - run.errors if run.scores else None,
        "errors": run.errors if run.scores else None,
        "episodes_per_hour": run.episodes_per_hour,
        "latency_s": run.latency_s,
        "notes": "; ".join(notes) or None,
    }


def _skill(skill: Estimate | None) -> Score | None:
    return None if skill is None or skill.value is None else Score(skill.value, skill.interval)


def _macro_score(macro: MacroAverage) -> Score | None:
    return None if macro.rate is None else Score(macro.rate, macro.interval)


def compare(a: RunSummary, b: RunSummary) -> dict[str, PairedComparison]:
    """Compare two runs on the episodes that both scored, per suite and over all suites.

    Returns:
        Suite id -> comparison; with more than one shared suite also "all".

    Raises:
        ConfigurationMismatch: The runs' seeds, a suite's versions or what was chosen of its
            options differ, so that equal keys are not the same episodes; or they share no suite.
    """
    shared = [name for name in a.suites if name in b.suites]
    if not shared:
        raise ConfigurationMismatch(
            f"the runs share no suite: {a.path.name} has {sorted(a.suites)}, {b.path.name} has "
            f"{sorted(b.suites)}. Compare runs of one suite."
        )
    facts = [("seed", a.run_seed, b.run_seed)]
    facts += [(f"version of {n}", a.suites[n].version, b.suites[n].version) for n in shared]
    chosen = [tuple(run.suites[n].chosen or "nothing" for run in (a, b)) for n in shared]
    facts += [(f"--suite-set of {n}", *both) for n, both in zip(shared, chosen, strict=True)]
    for what, in_a, in_b in facts:
        if None not in (in_a, in_b) and in_a != in_b:
            raise ConfigurationMismatch(
                f"the runs' episodes are not the same: {what} is {in_a} in {a.path.name}, "
                f"{in_b} in {b.path.name}. Run both with the same; only then are they pairs."
            )

    def of(run: RunSummary, names: Sequence[str]) -> dict[EpisodeKey, bool | None]:
        return {key: score for key, score in run.scores.items() if key.suite in names}

    out = {a.suites[n].id: paired(of(a, [n]), of(b, [n])) for n in shared}
    if len(shared) > 1:
        out["all"] = paired(of(a, shared), of(b, shared))
    return out


def comparison_table(a: RunSummary, b: RunSummary) -> Table:
    """Lay out two runs side by side on the episodes that both scored.

    Raises:
        ConfigurationMismatch: See `compare`.
    """
    names = [f"{run.label}, run {run.path.name}" for run in (a, b)]
    return paired_table(compare(a, b), a=names[0], b=names[1])


def paired_table(
    comparisons: Mapping[str, PairedComparison], *, a: str = "A", b: str = "B"
) -> Table:
    """Lay out paired comparisons, one a row.

    Args:
        comparisons: Heading -> comparison, as `compare` gives.
        a: Name of the first run.
        b: Name of the second.
    """
    rows = [
        Row(
            "total" if heading == "all" else "suite",
            {
                "suite": heading,
                "pairs": c.n,
                "rate_a": c.rate_a,
                "rate_b": c.rate_b,
                "difference": c.difference,
                "interval": c.interval,
                "p": c.p,
                "both": c.both if c.n else None,
                "only_a": c.only_a if c.n else None,
                "only_b": c.only_b if c.n else None,
                "neither": c.neither if c.n else None,
                "left_out": ", ".join(f"{n} {why}" for why, n in c.left_out.items() if n) or None,
            },
            strong=heading == "all",
        )
        for heading, c in comparisons.items()
    ]
    return Table(
        title=f"A = {a}, B = {b}",
        columns=(
            Column("suite", "suite"),
            Column("pairs", "pairs", Kind.COUNT),
            Column("rate_a", "A %", Kind.RATE),
            Column("rate_b", "B %", Kind.RATE),
            Column("difference", "A - B", Kind.POINTS),
            Column("interval", "95% interval", Kind.INTERVAL),
            Column("p", "p", Kind.P),
            Column("both", "both", Kind.COUNT),
            Column("only_a", "only A", Kind.COUNT),
            Column("only_b", "only B", Kind.COUNT),
            Column("neither", "neither", Kind.COUNT),
            Column("left_out", "left out"),
        ),
        rows=tuple(rows),
        notes=("Episodes scored in both runs; McNemar's exact p, paired bootstrap interval.",),
        common={"a": a, "b": b},
    )
