"""What the page shows of runs: the list of all, and one with its episodes.

Documents are plain data; fractions are at full precision and ``null`` is no data. ``live``
says that a later look may show more: the run is being written, or still being measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from wamsim.contracts import EpisodeKey
from wamsim.episode import Record
from wamsim.imagination.summary import ImaginationSummary
from wamsim.provenance import wamsim_version
from wamsim.reality import IMAGINATION_NOTE
from wamsim.run_summary import RunSummary, SuiteSummary
from wamsim.stats import SuccessSummary, pool
from wamsim.viewer.measures import Numbers, numbers
from wamsim.viewer.shelf import HOW_TO_MAKE_A_RUN, IT_APPEARS, EpisodeFile, Run, Shelf

Document = dict[str, Any]


def runs_document(shelf: Shelf, runs: Sequence[Run]) -> Document:
    """List all runs, newest first."""
    rows = [run_row(shelf, run) for run in runs]
    places = ", ".join(str(root) for root in shelf.roots)
    return {
        "name": "runs",
        "live": any(is_live(row) for row in rows),
        "wamsim": wamsim_version(),
        "empty": None
        if rows
        else f"There is no run in {places} yet. {HOW_TO_MAKE_A_RUN} {IT_APPEARS}",
        "runs": rows,
    }


def is_live(row: Document) -> bool:
    """Whether a run's row may change by itself."""
    return row["state"] == "running" or bool(row["measuring"])


def run_row(shelf: Shelf, run: Run) -> Document:
    """Describe a run in one row; a run that cannot be read says why."""
    summary, info = run.summary, run.info
    row: Document = {
        "id": run.id,
        "name": run.name,
        "folder": str(run.folder),
        "state": run.state,
        "message": run.why_not,
        "policy": summary.policy if summary else None,
        "label": run.label,
        "privileged": bool(summary and summary.privileged),
        "seed": summary.run_seed if summary else None,
        "created": info.created if info else None,
        "updated": run.updated or None,
        "wamsim": info.wamsim if info else None,
        "provenance": provenance_line(list(info.provenances.values())) if info else None,
        "suites": [_suite(s) for s in summary.suites.values()] if summary else [],
        "total": {**_total(summary), "damaged": len(run.damaged)},
        "latency_s": summary.latency_s if summary else None,
        "episodes_per_hour": summary.episodes_per_hour if summary else None,
    }
    return {**row, **_foresight(shelf, run)}


def _suite(suite: SuiteSummary) -> Document:
    missing = None if suite.missing is None else sum(suite.missing.values())
    return {
        "name": suite.name,
        "id": suite.id,
        "version": suite.version,
        "tasks": len(suite.tasks),
        "stand_in": suite.stand_in_visuals,
        **counts(suite.total, missing),
    }


def counts(found: SuccessSummary, missing: int | None) -> Document:
    """Counts with what follows from them: the rate and Wilson's interval.

    Args:
        found: The counts.
        missing: Planned episodes that are not there; None when no plan is known.
    """
    low, high = found.wilson or (None, None)
    planned = None if missing is None else found.scored + found.errors + missing
    return {
        "successes": found.successes,
        "scored": found.scored,
        "errors": found.errors,
        "planned": planned,
        "missing": missing,
        "rate": found.rate,
        "low": low,
        "high": high,
    }


def _total(summary: RunSummary | None) -> Document:
    if summary is None:
        return counts(pool([]), None)
    everything = pool(suite.total for suite in summary.suites.values())
    return counts(everything, summary.missing if summary.info.planned else None)


def _foresight(shelf: Shelf, run: Run) -> Document:
    """What is known of a run's imagination by now; what is not yet is asked for."""
    imagines = any(IMAGINATION_NOTE in r.notes for r in run.records.values())
    out: Document = {
        "imagines": imagines,
        "predicts_value": False,
        "imagination": "none",
        "imagination_fault": None,
        "measuring": False,
        "skill": None,
        "skills": [],
    }
    if run.summary is None:
        return out
    found = foresight(shelf, run)
    if found is None:
        out["measuring"] = True
        out["imagination"] = "measuring" if imagines else "none"
    elif isinstance(found, str):
        out["imagination"], out["imagination_fault"] = "fault", found
    else:
        out["predicts_value"] = found.value is not None
        skills = _skills(found)
        if imagines:
            out["imagination"] = "measured"
        out["skills"], out["skill"] = skills, skills[0] if skills else None
    return out


def foresight(shelf: Shelf, run: Run) -> ImaginationSummary | str | None:
    """Give a run's imagination, the sentence why it cannot be measured, or None: not yet."""
    files = [(f.path, f.stamp, f.record) for f in run.files if f.record is not None]
    return shelf.measures.run(run.folder, run.tag, files)


def _skills(found: ImaginationSummary) -> list[Document]:
    out: list[Document] = []
    for imaginer in found.imaginers:
        value, limits = imaginer.skill
        low, high = limits or (None, None)
        out.append(
            {
                "imaginer": imaginer.imaginer,
                "world_model": imaginer.world,
                "value": value,
                "low": low,
                "high": high,
            }
        )
    return out


def provenance_line(provenances: Sequence[Mapping[str, Any]]) -> str:
    """Say in one line what code and machine made a run."""
    if not provenances:
        return "unknown"
    last = provenances[-1]
    git = cast(Mapping[str, Any], last.get("git") or {})
    parts = [f"wamsim {last.get('wamsim', '?')}"]
    if git.get("commit"):
        parts.append(str(git["commit"])[:10] + (" with changes" if git.get("dirty") else ""))
    gpu = cast(Mapping[str, Any], last.get("gpu") or {})
    cpu = cast(Mapping[str, Any], last.get("cpu") or {})
    if gpu.get("names"):
        parts.append(", ".join(map(str, gpu["names"])))
    elif cpu.get("model"):
        parts.append(f"{cpu['model']}, {cpu.get('usable_cores', '?')} cores")
    packages = cast(Mapping[str, Any], last.get("packages") or {})
    parts += [f"{name} {packages[name]}" for name in ("mujoco", "torch") if packages.get(name)]
    if len(provenances) > 1:
        parts.append(f"and {len(provenances) - 1} more")
    return ", ".join(parts)


# ------------------------------------------------------------------------- one run


def run_document(shelf: Shelf, run: Run) -> Document:
    """Show one run: its tasks and every episode."""
    row, summary = run_row(shelf, run), run.summary
    provenances: Mapping[str, Mapping[str, Any]] = run.info.provenances if run.info else {}
    tasks: list[Document] = []
    told = {(k.suite, k.task): r.instruction for k, r in run.records.items()}
    for suite in summary.suites.values() if summary else ():
        for task, found in suite.tasks.items():
            missing = None if suite.missing is None else suite.missing[task]
            tasks.append(
                {
                    "suite": suite.name,
                    "task": task,
                    "instruction": told.get((suite.name, task)),
                    **counts(found, missing),
                }
            )
    return {
        "name": f"run/{run.id}",
        "live": is_live(row),
        "run": row,
        "config": dict(run.info.config) if run.info else {},
        "provenances": [
            {"hash": name, "provenance": dict(found)} for name, found in provenances.items()
        ],
        "tasks": tasks,
        "episodes": [
            _episode(shelf, run, key, file, run.records[key]) for key, file in run.paths.items()
        ]
        if summary
        else [],
        "damaged": [
            {
                "suite": file.suite,
                "task": file.task,
                "file": file.path.name,
                "state": "newer" if file.newer else "damaged",
                "message": file.fault,
            }
            for file in run.damaged
        ],
    }


def _episode(
    shelf: Shelf, run: Run, key: EpisodeKey, file: EpisodeFile, record: Record
) -> Document:
    found = shelf.measures.of(file.path, file.stamp)
    known = Numbers() if found is None or isinstance(found, str) else numbers(found)
    return {
        "suite": key.suite,
        "task": key.task,
        "trial": key.index,
        "outcome": record.outcome.value,
        "reason": record.reason,
        "steps": record.steps,
        "success_step": record.success_step,
        **known._asdict(),
        "latency_s": record.timings.get("latency_s"),
        "wall_s": record.timings.get("wall_s"),
        "started": clock(record.timings.get("started_unix_s")),
        "stand_in": record.stand_in_visuals,
        "attempt": record.attempt,
        "doc": episode_name(run.id, key),
        "preview": preview_url(run.id, key) if record.steps else None,
    }


def clock(unix_s: float | None) -> str | None:
    """Write a clock time as ISO 8601, UTC."""
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC).isoformat("T", "seconds")


def episode_name(run: str, key: EpisodeKey) -> str:
    """Name the document of an episode."""
    return f"episode/{_place(run, key)}"


def preview_url(run: str, key: EpisodeKey) -> str:
    """Give the address of an episode's small looping preview."""
    return f"media/preview/{_place(run, key)}.mp4"


def video_url(run: str, key: EpisodeKey, camera: str) -> str:
    """Give the address of an episode's video from one camera."""
    return f"media/video/{_place(run, key)}/{camera}.mp4"


def sheet_url(run: str, key: EpisodeKey, imaginer: int, query: int) -> str:
    """Give the address of one query's imagined pictures."""
    return f"media/imagined/{_place(run, key)}/{imaginer}/{query}.webp"


def strip_url(run: str, key: EpisodeKey, imaginer: int) -> str:
    """Give the address of an episode's strip of imagined pictures."""
    return f"media/strip/{_place(run, key)}/{imaginer}.webp"


def _place(run: str, key: EpisodeKey) -> str:
    return f"{run}/{key.suite}/{key.task}/{key.index}"
