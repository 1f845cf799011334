"""One page of results, written from run folders by one command, and what it was made from.

The page says nothing that its runs do not say. Beside it lie the runs' summaries
(`wamsim.run_document`), so that a reader without the runs can check the page, and a writer
without them can add to it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wamsim.errors import ConfigurationMismatch
from wamsim.imagination.report import imagination_tables
from wamsim.leaderboard import compare, leaderboard_table, paired_table, success_table
from wamsim.run_document import parted, read_summary, to_dict
from wamsim.run_summary import RunSummary, load_runs
from wamsim.tables import Table, to_markdown
from wamsim.whole_file import write_whole

PAGE, SUMMARIES = "README.md", "summaries"
_BY = ("suite", "task")


def write_results(
    runs: Sequence[Path],
    out: Path,
    *,
    latency: Sequence[Table] = (),
    training: Mapping[str, Mapping[str, Any]] | None = None,
    reproduce: Sequence[str] = (),
) -> Path:
    """Write the page and its summaries.

    Args:
        runs: Run folders, folders of run folders, summaries, or folders of summaries. A run
            is taken where a summary of its name is given, too.
        out: Folder of the page.
        latency: Tables of `wamsim bench --policies`.
        training: Policy -> how it was trained (its checkpoint's training.json).
        reproduce: Commands.

    Returns:
        The page.

    Raises:
        RecordCorrupt: No run folder, or a file in it cannot be read.
        ConfigurationMismatch: Two runs have one name.
    """
    found = _gathered(runs)
    parts = [
        "# Results\n",
        "Written by `wamsim results`; do not edit. Intervals are 95 %.\n",
        _section("Success", list(_leaderboards(found))),
        _section("Task by task", [success_table(run) for run in found]),
        _section("Paired differences within families", list(_paired(found))),
        _section("Imagination", list(_imagination(found))),
        _section("Latency", latency),
        _training(training or {}),
        _protocol(found),
        _commands(reproduce),
    ]
    for run in found:
        document = json.dumps(to_dict(run), indent=1) + "\n"
        (out / SUMMARIES).mkdir(parents=True, exist_ok=True)
        write_whole(out / SUMMARIES / f"{run.path.name}.json", document.encode())
    page = out / PAGE
    write_whole(page, "\n".join(part for part in parts if part).encode())
    return page


def _gathered(paths: Sequence[Path]) -> list[RunSummary]:
    """Count runs and read summaries, sorted by the runs' names."""
    folders, files = parted(paths)
    found: dict[str, RunSummary] = {}
    for run in load_runs(folders, imagination=True, by=_BY):
        name = run.path.name
        if (other := found.setdefault(name, run)) is not run:
            raise ConfigurationMismatch(
                f"two runs are named {name!r}, and a page tells runs by their names. Rename a "
                f"folder. Folders: {other.path}, {run.path}"
            )
    for summary in map(read_summary, files):
        found.setdefault(summary.path.name, summary)
    return [found[name] for name in sorted(found)]


def _section(title: str, tables: Sequence[Table]) -> str:
    if not tables:
        return ""
    return f"## {title}\n\n" + "\n".join(to_markdown(table) for table in tables)


def _leaderboards(runs: Sequence[RunSummary]) -> Iterator[Table]:
    """Rank runs among those of the same suites; where most runs are comes first."""
    groups: dict[tuple[str, ...], list[RunSummary]] = {}
    for run in runs:
        groups.setdefault(tuple(sorted(suite.id for suite in run.suites.values())), []).append(run)
    for _, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        yield leaderboard_table(group)


def _paired(runs: Sequence[RunSummary]) -> Iterator[Table]:
    """Compare every two runs of one family on the episodes that both scored."""
    for a, b in itertools.combinations(runs, 2):
        family = (a.policy or "").partition(":")[0]
        if not family or family != (b.policy or "").partition(":")[0]:
            continue
        try:
            yield paired_table(compare(a, b), a=a.label, b=b.label)
        except ConfigurationMismatch:  # another seed, or no suite in common: no pairs
            continue


def _imagination(runs: Sequence[RunSummary]) -> Iterator[Table]:
    for run in runs:
        if run.imagination is not None and run.skills:
            yield from imagination_tables(run.imagination)


def _training(training: Mapping[str, Mapping[str, Any]]) -> str:
    if not training:
        return ""
    lines = [
        "## Training\n",
        "| policy | part | steps | batch | peak lr | seed | episodes | env steps | quality |",
        "|:--|:--|--:|--:|--:|--:|--:|--:|:--|",
    ]
    for name, document in training.items():
        decides = document["decides"]
        config = decides["config"]
        quality = ", ".join(f"{k} {v:.3g}" for k, v in document.get("quality", {}).items()) or "-"
        lines.append(
            f"| {name} | {decides['part']} | {config['steps']} | {config['batch']} "
            f"| {config['lr']:g} | {config['seed']} | {document['episodes']} "
            f"| {document['samples']} | {quality} |"
        )
    return "\n".join(lines) + "\n"


def _protocol(runs: Sequence[RunSummary]) -> str:
    lines = ["## Protocol and hardware\n"]
    for run in runs:
        config = run.info.config
        episodes = len(run.scores)
        suites = ", ".join(suite.id for suite in run.suites.values())
        lines.append(
            f"- `{run.path.name}`: {run.label} on {suites}; seed {run.run_seed}, "
            f"{episodes} episodes, trials {_trials(run)} of every task; "
            f"batch {config.get('batch', 1)}"
            + ("; exact stepping" if config.get("exact") else "")
            + (f"; protocol {config['protocol']}" if config.get("protocol") else "")
            + f"; wamsim {run.info.wamsim}, commit {_commits(run)}."
        )
    lines.append("")
    lines += sorted({f"- {machine}" for run in runs for machine in _machines(run)})
    return "\n".join(lines) + "\n"


def _trials(run: RunSummary) -> str:
    indices = sorted({key.index for key in run.scores})
    if not indices:
        return "none"
    whole = indices == list(range(indices[0], indices[-1] + 1))
    return f"{indices[0]}-{indices[-1]}" if whole else ", ".join(map(str, indices))


def _commits(run: RunSummary) -> str:
    found: list[str] = []
    for origin in run.info.provenances.values():
        git = _below(origin, "git")
        commit = str(git.get("commit") or "unknown")[:10]
        found.append(commit + (" with changes" if git.get("dirty") else ""))
    return ", ".join(dict.fromkeys(found)) or "unknown"


def _machines(run: RunSummary) -> Iterator[str]:
    for origin in run.info.provenances.values():
        cpu, packages = _below(origin, "cpu"), _below(origin, "packages")
        gpus: list[str] = _below(origin, "gpu").get("names") or ["no GPU"]
        told = ", ".join(str(cpu[x]) for x in ("kind", "vectors") if cpu.get(x))
        yield (
            f"{cpu.get('usable_cores')} cores of {cpu.get('model')}"
            + (f" ({told})" if told else "")
            + f", {', '.join(gpus)}; "
            f"torch {packages.get('torch')}, mujoco {packages.get('mujoco')}, "
            f"OpenGL {_below(origin, 'extra').get('gl_renderer', 'unknown')}"
        )


def _below(origin: Mapping[str, Any], name: str) -> dict[str, Any]:
    return origin.get(name) or {}


def _commands(reproduce: Sequence[str]) -> str:
    if not reproduce:
        return ""
    return "## Reproduce\n\n```bash\n" + "\n".join(reproduce) + "\n```\n"
