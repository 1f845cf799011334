"""The page as a folder: documents as scripts, media drawn beforehand, nothing to serve.

Pages that are opened from disk can neither fetch nor import, so a document is a script that
hands itself over. What was drawn stays in the cache, so an interrupted report goes on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, Protocol

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.errors import WamsimError
from wamsim.viewer import sheets
from wamsim.viewer.artists import Movie
from wamsim.viewer.board_documents import EXPORTS
from wamsim.viewer.film import VIDEO_SIZE
from wamsim.viewer.illustrator import Illustrator
from wamsim.viewer.library import Library, write
from wamsim.viewer.page_files import page_files, plotly_script
from wamsim.viewer.printing import Plate, Printer
from wamsim.viewer.run_documents import Document, episode_name, run_document
from wamsim.viewer.serve import check_runs
from wamsim.viewer.server import config_script
from wamsim.viewer.shelf import Run, Seen, Shelf
from wamsim.viewer.studio import media_name

MARKER = "wamsim-report.json"
_OURS = ("data", "media", "exports")

Wanted = Literal["failures", "all"] | int


@dataclass(frozen=True)
class Job:
    """Something to draw.

    Attributes:
        what: A video or a sheet.
        scene: What it needs that is slow to load.
        target: Where the page wants it; a video is made in the cache first.
    """

    what: Movie | Plate
    scene: str
    target: Path


class Spread(Protocol):
    """Does jobs side by side (`envs.processes.spread`)."""

    def __call__(
        self,
        jobs: Sequence[Job],
        build: Callable[[], Printer],
        *,
        group: Callable[[Job], str],
    ) -> Iterator[tuple[Job, str | None]]:
        """Give every job and None, or the sentence that says why it is undone."""
        ...


@dataclass
class _Plan:
    """What a report holds beside its tables."""

    shown: dict[str, set[EpisodeKey]] = field(default_factory=dict[str, set[EpisodeKey]])
    documents: list[Document] = field(default_factory=list[Document])
    jobs: list[Job] = field(default_factory=list[Job])


def write_report(
    roots: Sequence[Path],
    out: Path,
    illustrator: Illustrator,
    *,
    cache: Path,
    spread: Spread,
    episodes: Wanted = "failures",
    progress: Callable[[int, int], None] | None = None,
    said: Callable[[str], None] | None = None,
) -> Path:
    """Write runs as a static page.

    Args:
        roots: Run folders, or folders that hold them.
        out: New or empty folder, or an earlier report, which is replaced.
        illustrator: Knows and draws tasks.
        cache: Folder of what was drawn.
        spread: Does the drawing.
        episodes: Which are shown with videos: "failures", "all", or the first N of every task.
            What one run shows the others show, too, so that they can be laid side by side.
        progress: Called with (done, all) drawings.
        said: Called with a sentence for everything that had to be left out.

    Returns:
        The page, ``index.html``.

    Raises:
        RecordCorrupt: A root holds no run.
        WamsimError: `out` holds something else.
    """
    said = said or (lambda sentence: None)
    check_runs(roots)
    prepare_folder(out)
    library = Library(Shelf(roots), illustrator)
    runs = library.shelf.runs()
    for run in runs:
        run_document(library.shelf, run)  # asks for its imagination
    library.shelf.measures.wait()
    plan = _Plan(shown=_chosen(runs, episodes))
    if not any(plan.shown.values()):
        said(
            f"No episode is shown with videos (--episodes {episodes}). `--episodes all`, or a "
            f"number per task, shows some."
        )
    for run in runs:
        for key in sorted(plan.shown[run.id]):
            _plan_episode(library, plan, library.shelf.episode(run.id, key), out, cache, said)
    undone = _draw(plan.jobs, illustrator, spread, progress, said)
    for document in plan.documents:
        _leave_out(document, {str(path.relative_to(out)): why for path, why in undone.items()})
    _tables(library, plan, runs)
    for document in plan.documents:
        _write_document(out, document, runs)
    for file, _, _ in EXPORTS.values():
        (out / "exports").mkdir(exist_ok=True)
        (out / "exports" / file).write_text(library.export(file)[0], encoding="utf-8")
    return out / "index.html"


def prepare_folder(out: Path) -> None:
    """Make the report's folder with the page's own files; an earlier report is replaced.

    Raises:
        WamsimError: It holds something else, or is a file.
    """
    if out.exists() and not out.is_dir():
        raise WamsimError(f"--out names a file, expected a folder. File: {out}")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).exists():
        raise WamsimError(
            f"the folder is not empty and holds no earlier report; nothing was written. Choose "
            f"another --out. Folder: {out}"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text('{"version": 1}\n')
    for name in _OURS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name, path in page_files().items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / name)
    shutil.copyfile(plotly_script(), out / "plotly.min.js")
    (out / "config.js").write_text(config_script("report"), encoding="utf-8")


def _chosen(runs: Sequence[Run], episodes: Wanted) -> dict[str, set[EpisodeKey]]:
    if isinstance(episodes, int) and episodes < 1:
        raise WamsimError(
            f"episodes={episodes!r}, expected failures, all, or a number of at least 1"
        )
    keys: set[EpisodeKey] = set()
    for run in runs:
        taken: dict[tuple[str, str], int] = {}
        for key, record in run.records.items() if run.why_not is None else ():
            task = (key.suite, key.task)
            taken[task] = taken.get(task, 0) + 1
            if (
                episodes == "all"
                or (isinstance(episodes, int) and taken[task] <= episodes)
                or (episodes == "failures" and record.outcome is Outcome.FAILURE)
            ):
                keys.add(key)
    return {run.id: keys & run.records.keys() if run.why_not is None else set() for run in runs}


# ----------------------------------------------------------------------- episodes


def _plan_episode(
    library: Library,
    plan: _Plan,
    seen: Seen,
    out: Path,
    cache: Path,
    said: Callable[[str], None],
) -> None:
    """Write an episode down, and note what must be drawn for it."""
    key = seen.record.key
    document = library.document(episode_name(seen.run.id, key), [seen.run])
    document["cameras"] = [c for c in document["cameras"] if c["standard"]]
    plan.documents.append(document)
    if document["video_message"]:
        said(f"no video of {key.task}, trial {key.index}: {document['video_message']}")
    else:
        scene = library.illustrator.task(seen.config, seen.record).scene_id
        about: Mapping[str, Any] = {
            "path": seen.file.path,
            "config": seen.config,
            "frames": seen.record.steps + 1,
        }
        for camera in document["cameras"]:
            name = media_name("report", seen.file.path, seen.file.stamp, camera["name"])
            movie = Movie(
                **about,
                camera=camera["name"],
                every=1,
                size=(VIDEO_SIZE, VIDEO_SIZE),
                fps=document["fps"],
                target=cache / name,
            )
            plan.jobs.append(Job(movie, scene, out / camera["url"]))
        if document["cameras"]:
            first = document["cameras"][0]["name"]
            name = media_name("preview", seen.file.path, seen.file.stamp, first)
            movie = Movie(**about, camera=first, target=cache / name)
            plan.jobs.append(Job(movie, scene, out / document["preview"]["url"]))
    drawable = not document["video_message"]
    for imaginer in document["imagination"]:
        if imaginer["pictures"] is not None:
            _plan_pictures(library, plan, seen, imaginer, out, drawable)


def _plan_pictures(
    library: Library, plan: _Plan, seen: Seen, imaginer: Document, out: Path, drawable: bool
) -> None:
    pictures = imaginer["pictures"]
    one = library.imaginer(seen.run.id, seen.record.key, str(imaginer["index"]))
    if one.about.kind == sheets.DECODED:
        for query, url in enumerate(pictures["sheets"]):
            _put(out / url, sheets.decoded_sheet(one.about, query))
        _put(out / pictures["strip"]["url"], sheets.decoded_strip(one.about))
        return
    if not drawable:
        imaginer["pictures"] = None
        return
    plan.documents.append(library.document(pictures["retrieval"], [seen.run]))
    scene = library.illustrator.task(seen.config, seen.record).scene_id
    for query, url in enumerate(pictures["sheets"]):
        wanted, shown = library.wanted(one, query), library.shown(one, query)
        plan.jobs.append(Job(Plate(wanted, one.about, shown, out / url), scene, out / url))


def _leave_out(document: Document, undone: Mapping[str, str]) -> None:
    """Take what could not be drawn out of an episode's document.

    Args:
        document: Any document; those of episodes name media.
        undone: Address -> why it is not there.
    """
    for camera in document.get("cameras", []):
        document["video_message"] = undone.get(camera["url"]) or document["video_message"]
    if document.get("video_message"):
        document["cameras"], document["preview"] = [], None
    for imaginer in document.get("imagination", []):
        if imaginer["pictures"] and undone.keys() & set(imaginer["pictures"]["sheets"]):
            imaginer["pictures"] = None


# ------------------------------------------------------------------------- tables


def _tables(library: Library, plan: _Plan, runs: Sequence[Run]) -> None:
    """Write the tables, with links to the episodes that are shown only."""
    shipped = {
        episode_name(run, key): key for run, keys in plan.shown.items() for key in keys
    }  # fmt: skip
    undrawn = {d["name"] for d in plan.documents if d.get("video_message")}
    names = ["runs", "leaderboard", *(f"run/{run.id}" for run in runs)]
    names += [f"compare/{a.id}/{b.id}" for a, b in permutations(runs, 2)]
    names += [f"peers/{k.suite}/{k.task}/{k.index}" for k in sorted(set(shipped.values()))]
    for name in names:
        document = library.document(name, _of(name, runs))
        if name.startswith(("run/", "peers/")):
            for episode in document["episodes"]:
                if episode["doc"] in undrawn or episode["doc"] not in shipped:
                    episode["preview"] = None
                if episode["doc"] not in shipped:
                    episode["doc"] = None
        plan.documents.append(document)


def _of(name: str, runs: Sequence[Run]) -> list[Run]:
    kind, _, rest = name.partition("/")
    if kind in ("run", "compare"):
        by_id = {run.id: run for run in runs}
        return [by_id[one] for one in rest.split("/")]
    return list(runs)


def _write_document(out: Path, document: Document, runs: Sequence[Run]) -> None:
    name = document["name"]
    text = write({**document, "live": False}).body
    # Where runs lie on this machine is nobody's business on a web host.
    places = {str(place): run.name for run in runs for place in (run.folder.resolve(), run.folder)}
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(json.dumps(place)[1:-1], json.dumps(places[place])[1:-1])
    _put(out / "data" / f"{name}.js", f"wamsimData({json.dumps(name)},{text});\n".encode())


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# ------------------------------------------------------------------------ drawing


def _draw(
    jobs: Sequence[Job],
    illustrator: Illustrator,
    spread: Spread,
    progress: Callable[[int, int], None] | None,
    said: Callable[[str], None],
) -> dict[Path, str]:
    """Draw what is not in the cache; gives the targets that could not be drawn, and why."""
    undone: dict[Path, str] = {}
    left: list[Job] = []
    for job in jobs:
        if isinstance(job.what, Movie) and job.what.target.exists():
            _link(job)
        else:
            left.append(job)
    done = len(jobs) - len(left)
    if progress:
        progress(done, len(jobs))
    for job, sentence in spread(left, partial(Printer, illustrator), group=lambda job: job.scene):
        if sentence is None:
            _link(job)
        else:
            if sentence not in undone.values():
                said(f"left out {job.target.name}: {sentence}")
            undone[job.target] = sentence
        done += 1
        if progress:
            progress(done, len(jobs))
    return undone


def _link(job: Job) -> None:
    """Bring a video from the cache to its place."""
    if not isinstance(job.what, Movie):
        return
    job.target.parent.mkdir(parents=True, exist_ok=True)
    job.target.unlink(missing_ok=True)
    try:
        os.link(job.what.target, job.target)
    except OSError:  # another disk
        shutil.copyfile(job.what.target, job.target)
