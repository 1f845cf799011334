"""A counted run as one small JSON file, and back: what a page of results was made from.

Run folders are large and stay where they were made; their summaries are kept beside the page.
Whoever adds a run to the page, or ranks one among published ones, names their summaries in
place of their folders.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.errors import RecordCorrupt
from wamsim.imagination import document as imagination
from wamsim.run_folder import RUN_FILE, RunInfo
from wamsim.run_summary import RunSummary, SuiteSummary, load_run, load_runs
from wamsim.stats import SuccessSummary, success

SUMMARY_VERSION = 2


def to_dict(run: RunSummary) -> dict[str, Any]:
    """Write a run as plain data."""
    scores = sorted(run.scores.items(), key=lambda item: str(item[0]))
    missing = sorted(run.info.planned - run.scores.keys(), key=str)
    imagined = run.imagination if run.skills else None
    return {
        "version": SUMMARY_VERSION,
        "run": run.path.name,
        "policy": run.policy,
        "seed": run.run_seed,
        "privileged": run.privileged,
        "suites": {
            suite.id: {
                "name": suite.name,
                "version": suite.version,
                "chosen": suite.chosen,
                "stand_in_visuals": suite.stand_in_visuals,
                "tasks": {task: _counts(counts) for task, counts in suite.tasks.items()},
            }
            for suite in run.suites.values()
        },
        "episodes": [{**_key(key), "success": score} for key, score in scores],
        "missing": [_key(key) for key in missing] if run.info.planned else None,
        "imagination": None if imagined is None else imagination.to_dict(imagined),
        "imagination_fault": run.imagination_fault,
        "latency_s": run.latency_s,
        "episodes_per_hour": run.episodes_per_hour,
        "config": run.info.config,
        "provenances": list(run.info.provenances.values()),
        "created": run.info.created,
        "wamsim": run.info.wamsim,
    }


def read_summary(path: Path) -> RunSummary:
    """Read a file that `to_dict` was written to.

    Returns:
        The run as it was counted; its ``path`` has the run's name and is no folder.

    Raises:
        RecordCorrupt: It is none, of another version, or its counts are not those of its
            episodes.
    """
    try:
        document = json.loads(path.read_text())
        version = document["version"]
        if version != SUMMARY_VERSION:
            raise ValueError(f"version {version!r}, expected {SUMMARY_VERSION}")
        return _run(path, document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordCorrupt(
            f"this is no summary of a run that `wamsim results` wrote ({error!r}). Name the run "
            f"folder itself, or a file of a results page's summaries. File: {path}"
        ) from error


def _run(path: Path, document: Mapping[str, Any]) -> RunSummary:
    scores = {_read_key(e): e["success"] for e in document["episodes"]}
    absent = document["missing"]
    missing = frozenset(map(_read_key, absent or ()))
    suites = [_suite(d, scores, missing, planned=absent is not None)
              for d in document["suites"].values()]  # fmt: skip
    foreseen = document["imagination"]
    return RunSummary(
        path=path.parent / document["run"],
        info=RunInfo(
            config=document["config"],
            provenances={str(i): p for i, p in enumerate(document["provenances"])},
            planned=missing | scores.keys() if absent is not None else frozenset(),
            created=document["created"],
            wamsim=document["wamsim"],
        ),
        policy=document["policy"],
        run_seed=document["seed"],
        privileged=document["privileged"],
        suites={suite.name: suite for suite in suites},
        scores=scores,
        episodes_per_hour=document["episodes_per_hour"],
        latency_s=document["latency_s"],
        imagination=None if foreseen is None else imagination.from_dict(foreseen),
        imagination_fault=document["imagination_fault"],
    )


def _suite(
    document: Mapping[str, Any],
    scores: Mapping[EpisodeKey, bool | None],
    missing: frozenset[EpisodeKey],
    *,
    planned: bool,
) -> SuiteSummary:
    name: str = document["name"]
    tasks: dict[str, SuccessSummary] = {}
    for task, said in document["tasks"].items():
        ends = [score for k, score in scores.items() if (k.suite, k.task) == (name, task)]
        tasks[task] = success(map(_outcome, ends))
        if _counts(tasks[task]) != said:
            raise ValueError(f"{task} says {said}, and its episodes {_counts(tasks[task])}")
    left = {task: sum((k.suite, k.task) == (name, task) for k in missing) for task in tasks}
    return SuiteSummary(
        name=name,
        version=document["version"],
        tasks=tasks,
        missing=left if planned else None,
        stand_in_visuals=document["stand_in_visuals"],
        chosen=document["chosen"],
    )


def _outcome(score: bool | None) -> Outcome:
    if score is None:
        return Outcome.ERROR
    return Outcome.SUCCESS if score else Outcome.FAILURE


def _counts(counts: SuccessSummary) -> dict[str, int]:
    return {"successes": counts.successes, "scored": counts.scored, "errors": counts.errors}


def _key(key: EpisodeKey) -> dict[str, Any]:
    return {"suite": key.suite, "task": key.task, "index": key.index}


def _read_key(document: Mapping[str, Any]) -> EpisodeKey:
    return EpisodeKey(document["suite"], document["task"], document["index"])


def parted(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Part run folders, or folders of them, from summaries.

    Args:
        paths: Any of them; also folders of summaries.

    Returns:
        What is no summary; and the files of summaries.
    """
    runs: list[Path] = []
    files: list[Path] = []
    for path in paths:
        inside = [path] if path.suffix == ".json" else sorted(path.glob("*.json"))
        if not inside or (path / RUN_FILE).exists() or any(path.glob(f"*/{RUN_FILE}")):
            runs.append(path)
        else:
            files += inside
    return runs, files


def load_all(paths: Iterable[Path], *, imagination: bool = False) -> list[RunSummary]:
    """Count runs and read summaries; see `parted` and `load_runs`."""
    runs, files = parted(paths)
    return [*load_runs(runs, imagination=imagination), *map(read_summary, files)]


def load_either(path: Path) -> RunSummary:
    """Count a run, or read a summary."""
    return read_summary(path) if path.suffix == ".json" else load_run(path)
