"""What the page shows of several runs: leaderboard, paired comparisons, exports, peers.

Every number comes from `wamsim.leaderboard` and `wamsim.stats`, as `wamsim leaderboard` and
`wamsim compare` print them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wamsim import tables
from wamsim.contracts import EpisodeKey
from wamsim.errors import ConfigurationMismatch
from wamsim.imagination.summary import ImaginationSummary
from wamsim.leaderboard import compare, leaderboard_table
from wamsim.run_summary import RunSummary
from wamsim.tables import Row, Score, Table
from wamsim.viewer.run_documents import (
    Document,
    counts,
    episode_name,
    foresight,
    is_live,
    preview_url,
    run_row,
)
from wamsim.viewer.shelf import Run, Shelf

# Name of the format -> file name, content type, renderer.
EXPORTS: Mapping[str, tuple[str, str, Callable[[Table], str]]] = {
    "csv": ("leaderboard.csv", "text/csv", tables.to_csv),
    "markdown": ("leaderboard.md", "text/markdown", tables.to_markdown),
    "json": ("leaderboard.json", "application/json", tables.to_json),
    "latex": ("leaderboard.tex", "application/x-tex", tables.to_latex),
}


def board(shelf: Shelf, runs: Sequence[Run]) -> Table:
    """Lay out the leaderboard of all runs that can be read, as `wamsim leaderboard` does."""
    return leaderboard_table(list(_summaries(shelf, runs).values()))


def _summaries(shelf: Shelf, runs: Sequence[Run]) -> dict[Path, RunSummary]:
    out: dict[Path, RunSummary] = {}
    for run in runs:
        if run.summary is None:
            continue
        found = foresight(shelf, run)
        if isinstance(found, ImaginationSummary):
            out[run.folder] = replace(run.summary, imagination=found)
        else:  # not measured yet, or why it cannot be; success rates stand all the same
            out[run.folder] = replace(run.summary, imagination_fault=found)
    return out


def leaderboard_document(shelf: Shelf, runs: Sequence[Run]) -> Document:
    """Show policies by suites."""
    summaries = _summaries(shelf, runs)
    table = leaderboard_table(list(summaries.values()))
    by_folder = {run.folder: run for run in runs}
    ids = [column.key for column in table.columns if column.key in _suite_ids(summaries)]
    return {
        "name": "leaderboard",
        "live": any(is_live(run_row(shelf, run)) for run in runs),
        "title": table.title,
        "suites": ids,
        "notes": list(table.notes),
        "rows": [_row(by_folder, summaries, row, ids) for row in table.rows],
        "left_out": [
            {"run": run.id, "name": run.name, "message": run.why_not}
            for run in runs
            if run.summary is None
        ],
        "exports": {
            name: {"file": file, "url": f"exports/{file}", "text": write(table)}
            for name, (file, _, write) in EXPORTS.items()
        },
    }


def _suite_ids(summaries: Mapping[Path, RunSummary]) -> set[str]:
    return {suite.id for summary in summaries.values() for suite in summary.suites.values()}


def _row(
    runs: Mapping[Path, Run], summaries: Mapping[Path, RunSummary], row: Row, ids: Sequence[str]
) -> Document:
    cells = row.cells
    run, summary = runs[cells["folder"]], summaries[cells["folder"]]
    of_suite = {suite.id: suite for suite in summary.suites.values()}
    found: dict[str, Document] = {}
    for name in ids:
        if name in of_suite:
            suite = of_suite[name]
            missing = None if suite.missing is None else sum(suite.missing.values())
            found[name] = {
                **counts(suite.total, missing),
                **_score(cells[name]),
                "tasks": len(suite.tasks),
                "stand_in": suite.stand_in_visuals,
            }
    own = _score(cells["mean"])
    skill = cells["skill"]
    return {
        "run": run.id,
        "name": run.name,
        "rank": cells.get("rank"),
        "policy": summary.label,
        "privileged": summary.privileged,
        "state": run.state,
        "why": "; ".join(cells["why"]) or None,
        "cells": found,
        "mean": own if own["rate"] is not None else None,
        "skill": None
        if skill is None
        else {
            "value": skill.rate,
            "low": skill.interval and skill.interval.low,
            "high": skill.interval and skill.interval.high,
            "imaginer": summary.policy,
        },
        "scored": cells["episodes"],
        "errors": cells["errors"],
        "missing": summary.missing if summary.info.planned else None,
        "episodes_per_hour": cells["episodes_per_hour"],
        "latency_s": cells["latency_s"],
        "stand_in": [suite.id for suite in summary.suites.values() if suite.stand_in_visuals],
        "note": cells["notes"],
    }


def _score(score: Score | None) -> Document:
    rate, interval = score or (None, None)
    low, high = interval or (None, None)
    return {"rate": rate, "low": low, "high": high}


# ------------------------------------------------------------------- pairs and peers


def compare_document(a: Run, b: Run) -> Document:
    """Compare two runs on the episodes that both scored."""
    out: Document = {
        "name": f"compare/{a.id}/{b.id}",
        "live": "running" in (a.state, b.state),
        "a": a.id,
        "b": b.id,
        "message": a.why_not or b.why_not,
        "suites": [],
        "episodes": [],
    }
    if a.summary is None or b.summary is None:
        return out
    try:
        found = compare(a.summary, b.summary)
    except ConfigurationMismatch as error:
        out["message"] = str(error)
        return out
    for suite, pairs in found.items():
        low, high = pairs.interval or (None, None)
        out["suites"].append(
            {
                "suite": suite,
                "n": pairs.n,
                "both": pairs.both,
                "only_a": pairs.only_a,
                "only_b": pairs.only_b,
                "neither": pairs.neither,
                "rate_a": pairs.rate_a,
                "rate_b": pairs.rate_b,
                "difference": pairs.difference,
                "low": low,
                "high": high,
                "p": pairs.p,
                "left_out": {why: n for why, n in pairs.left_out.items() if n},
            }
        )
    out["episodes"] = [
        {**_key(key), "a": record.outcome.value, "b": b.records[key].outcome.value}
        for key, record in a.records.items()
        if key in b.records
    ]
    return out


def peers_document(runs: Sequence[Run], key: EpisodeKey) -> Document:
    """List every run's episode of one key, to be shown side by side."""
    found: list[Document] = []
    instruction: str | None = None
    for run in runs:
        record = run.records.get(key)
        if record is None or run.summary is None:
            continue
        instruction = instruction or record.instruction
        found.append(
            {
                "run": run.id,
                "name": run.name,
                "policy": run.summary.label,
                "seed": record.run_seed,
                "suite_version": record.suite_version,
                "outcome": record.outcome.value,
                "reason": record.reason,
                "steps": record.steps,
                "success_step": record.success_step,
                "doc": episode_name(run.id, key),
                "preview": preview_url(run.id, key) if record.steps else None,
            }
        )
    return {
        "name": f"peers/{key.suite}/{key.task}/{key.index}",
        "live": any(run.writing for run in runs),
        **_key(key),
        "instruction": instruction,
        "episodes": found,
    }


def _key(key: EpisodeKey) -> dict[str, Any]:
    return {"suite": key.suite, "task": key.task, "trial": key.index}
