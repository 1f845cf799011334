"""One run, counted: per task, per suite, with what the tables need; headers only."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.episode import Record
from wamsim.errors import RecordCorrupt, nearest
from wamsim.imagination.episodes import read_imagination
from wamsim.imagination.latents import NotFinite
from wamsim.imagination.resampling import Estimate
from wamsim.imagination.summary import ImaginationSummary, summarise_run
from wamsim.run_folder import RUN_FILE, RunInfo, read_run, records
from wamsim.stats import MacroAverage, SuccessSummary, macro_average, pool, success

PRIVILEGED = "privileged"


@dataclass(frozen=True, kw_only=True)
class SuiteSummary:
    """One suite of one run.

    Attributes:
        name: Suite name.
        version: `Suite.version`; None when no episode was run.
        tasks: Task -> counts, planned tasks without an episode included.
        missing: Task -> planned episodes that are not there; None when no plan is known.
        stand_in_visuals: True when any record says so.
        chosen: What the user chose of the suite's own options (``--suite-set``), e.g.
            "layout=galley,style=modern"; "" for the suite's own protocol.
    """

    name: str
    version: int | None
    tasks: Mapping[str, SuccessSummary]
    missing: Mapping[str, int] | None
    stand_in_visuals: bool
    chosen: str = ""

    @property
    def id(self) -> str:
        """Name with version and choices; numbers of different ones are not comparable."""
        version = "" if self.version is None else f"-v{self.version}"
        return f"{self.name}{version}" + (f"[{self.chosen}]" if self.chosen else "")

    @property
    def total(self) -> SuccessSummary:
        """All episodes, each with the same weight (micro average)."""
        return pool(self.tasks.values())

    @property
    def macro(self) -> MacroAverage:
        """The mean of task rates."""
        return macro_average(self.tasks)


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run folder, counted.

    Attributes:
        path: The folder.
        info: Its ``run.json``: configuration, provenances, plan.
        policy: Name; None when no episode was run.
        run_seed: Likewise.
        privileged: True when the policy saw the simulator's state.
        suites: Suite name -> counts.
        scores: Episode -> success, None for an error; for `wamsim.stats.paired`.
        episodes_per_hour: Throughput over the time in which any episode ran (pauses between
            resumes are left out); None without timings.
        latency_s: Median over episodes of a query's mean latency; None without timings.
        imagination: What it foresaw; None unless it was asked for.
        imagination_fault: Why imagination could not be measured, else None.
    """

    path: Path
    info: RunInfo
    policy: str | None
    run_seed: int | None
    privileged: bool
    suites: Mapping[str, SuiteSummary]
    scores: Mapping[EpisodeKey, bool | None]
    episodes_per_hour: float | None
    latency_s: float | None
    imagination: ImaginationSummary | None = None
    imagination_fault: str | None = None

    @property
    def errors(self) -> int:
        """Episodes that ended in an error."""
        return sum(score is None for score in self.scores.values())

    @property
    def missing(self) -> int:
        """Planned episodes that are not there; 0 when no plan is known."""
        return len(self.info.planned - self.scores.keys())

    @property
    def stand_in_visuals(self) -> bool:
        """True when any record says so."""
        return any(suite.stand_in_visuals for suite in self.suites.values())

    @property
    def skills(self) -> dict[str, Estimate]:
        """Imaginer (the policy, a world model) -> skill of its imagination over all horizons."""
        found = self.imagination
        return {} if found is None else {one.imaginer: one.skill for one in found.imaginers}

    @property
    def label(self) -> str:
        """The policy's name, and whether it saw more than a policy may."""
        return (self.policy or "no episodes") + (f" ({PRIVILEGED})" if self.privileged else "")


def of_suites(runs: Iterable[RunSummary], names: Sequence[str]) -> list[RunSummary]:
    """Keep some suites of runs; a run that has none of them is left out.

    Imagination is of all suites of a run, so a run that loses some loses that, too.

    Raises:
        UnknownName: No run has such a suite.
    """
    runs = list(runs)
    known = {name for run in runs for name in run.suites}
    for name in names:
        if name not in known:
            raise nearest(name, known, kind="suite", hint="None of the runs has it.")
    kept = [(run, {n: suite for n, suite in run.suites.items() if n in names}) for run in runs]
    return [
        replace(
            run,
            suites=suites,
            scores={key: score for key, score in run.scores.items() if key.suite in suites},
            info=replace(
                run.info, planned=frozenset(k for k in run.info.planned if k.suite in suites)
            ),
            imagination=run.imagination if len(suites) == len(run.suites) else None,
        )
        for run, suites in kept
        if suites
    ]


def load_runs(
    paths: Iterable[Path], *, imagination: bool = False, by: Iterable[str] = ()
) -> list[RunSummary]:
    """Count run folders; a folder of run folders stands for those in it.

    Args:
        paths: Run folders.
        imagination: Also measure imagination; then more than headers is read.
        by: See `summarise_run`.

    Raises:
        RecordCorrupt: No run folder, or a file in it cannot be read.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        inside = [] if (path / RUN_FILE).exists() else sorted(path.glob(f"*/{RUN_FILE}"))
        for folder in [file.parent for file in inside] or [path]:
            folders.setdefault(folder.resolve(), folder)
    runs = [load_run(folder) for folder in folders.values()]
    return [with_imagination(run, by) for run in runs] if imagination else runs


def with_imagination(run: RunSummary, by: Iterable[str] = ()) -> RunSummary:
    """Add what a run foresaw; reads the episodes' latents.

    Raises:
        RecordCorrupt: As `read_imagination`.
    """
    try:
        found = read_imagination(run.path)
    except NotFinite as error:  # the run's success rates stand all the same
        return replace(run, imagination_fault=str(error))
    return replace(run, imagination=summarise_run(found, by))


def load_run(folder: Path) -> RunSummary:
    """Count one run folder.

    Raises:
        RecordCorrupt: No run folder, a file in it cannot be read, or its records are of
            different policies, seeds or suite versions.
    """
    return count_run(folder, read_run(folder), list(records(folder)))


def count_run(folder: Path, info: RunInfo, found: Sequence[Record]) -> RunSummary:
    """Count a run whose files are read already.

    Args:
        folder: The run folder.
        info: Its ``run.json``.
        found: Its records, sorted by key.

    Raises:
        RecordCorrupt: The records are of different policies, seeds or suite versions.
    """
    names = sorted({r.key.suite for r in found} | {key.suite for key in info.planned})
    policy, run_seed, privileged = (
        _only(folder, what, [getattr(r, what) for r in found])
        for what in ("policy", "run_seed", "privileged")
    )
    return RunSummary(
        path=folder,
        info=info,
        policy=policy,
        run_seed=run_seed,
        privileged=bool(privileged),
        suites={name: _suite(folder, name, found, info) for name in names},
        scores={r.key: _score(r) for r in found},
        episodes_per_hour=_throughput(found),
        latency_s=_latency(found),
    )


def _score(record: Record) -> bool | None:
    return None if record.outcome is Outcome.ERROR else record.outcome is Outcome.SUCCESS


def _only(folder: Path, what: str, values: Sequence[Any]) -> Any:
    """Give the value that all records share; None when there are none."""
    distinct = sorted(set(values))
    if len(distinct) > 1:
        raise RecordCorrupt(
            f"the run's records have {len(distinct)} different values of {what}: {distinct}. "
            f"Expected one; keep each in a run folder of its own. Folder: {folder}"
        )
    return distinct[0] if distinct else None


def _suite(folder: Path, name: str, found: Sequence[Record], info: RunInfo) -> SuiteSummary:
    planned = info.planned
    mine = [r for r in found if r.key.suite == name]
    plan = {key for key in planned if key.suite == name}
    missing = plan - {r.key for r in mine}
    tasks = sorted({r.key.task for r in mine} | {key.task for key in plan})
    return SuiteSummary(
        name=name,
        version=_only(folder, f"suite_version of {name}", [r.suite_version for r in mine]),
        tasks={t: success(r.outcome for r in mine if r.key.task == t) for t in tasks},
        missing={t: sum(key.task == t for key in missing) for t in tasks} if planned else None,
        stand_in_visuals=any(r.stand_in_visuals for r in mine),
        chosen=",".join(f"{k}={v}" for k, v in sorted(info.config.get("suite_set", {}).items())),
    )


def _throughput(found: Sequence[Record]) -> float | None:
    spans = sorted(
        (r.timings["started_unix_s"], r.timings["started_unix_s"] + r.timings["wall_s"])
        for r in found
        if {"started_unix_s", "wall_s"} <= r.timings.keys()
    )
    busy_s, until = 0.0, float("-inf")
    for start, end in spans:  # length of the union
        busy_s += max(0.0, end - max(start, until))
        until = max(until, end)
    return 3600 * len(spans) / busy_s if busy_s > 0 else None


def _latency(found: Sequence[Record]) -> float | None:
    known = [r.timings["latency_s"] for r in found if "latency_s" in r.timings]
    return statistics.median(known) if known else None
