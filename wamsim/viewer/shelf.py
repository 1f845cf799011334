"""The runs that the viewer shows: found, read once, and read again where files changed.

A run may still be written, so every look lists its folder anew; a file is opened again only
when its time or size changed. Files that cannot be read are listed with their sentence.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from wamsim.contracts import EpisodeKey
from wamsim.episode import FILE_SUFFIX, NewerFormat, Record
from wamsim.errors import RecordCorrupt
from wamsim.marker import MARKER_NAME, read_writer
from wamsim.run_folder import RUN_FILE, RunInfo, read_placed, read_run
from wamsim.run_summary import RunSummary, count_run
from wamsim.viewer.measures import Measures, Stamp

HOW_TO_MAKE_A_RUN = (
    "Make one with `wamsim eval --policy oracle --suite tabletop_object --episodes 2`."
)
IT_APPEARS = "It appears here as soon as it has begun."


_REST = 10  # a tree is walked for at most a tenth of the time


class NotThere(RecordCorrupt):
    """The page asked for a run or an episode that is not on the shelf."""


@dataclass(frozen=True, kw_only=True)
class EpisodeFile:
    """One episode file, read or not.

    Attributes:
        path: Where it is.
        suite, task: As its folders say.
        stamp: Of the reading.
        record: What it says; None when it cannot be read.
        fault: Why not.
        newer: True when a newer wamsim wrote it.
    """

    path: Path
    suite: str
    task: str
    stamp: Stamp
    record: Record | None = None
    fault: str | None = None
    newer: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run folder as it was when somebody looked.

    Attributes:
        id: Its name in addresses.
        folder: Where it is.
        files: Its episode files, in order of their keys.
        info: ``run.json``; None when it cannot be read.
        fault: Why the run cannot be shown, else None.
        newer: True when a newer wamsim wrote it.
        writing: True while a process writes to it.
        tag: Changes whenever any of this does.
    """

    id: str
    folder: Path
    files: tuple[EpisodeFile, ...]
    info: RunInfo | None
    fault: str | None
    newer: bool
    writing: bool
    tag: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name or str(self.folder)

    @property
    def label(self) -> str:
        """Its policy, as tables name it; the folder's name where that is not known."""
        return self.summary.label if self.summary else self.name

    @cached_property
    def records(self) -> Mapping[EpisodeKey, Record]:
        """What could be read, by key, in order."""
        return {f.record.key: f.record for f in self.files if f.record is not None}

    @cached_property
    def paths(self) -> Mapping[EpisodeKey, EpisodeFile]:
        """Files of episodes that could be read."""
        return {f.record.key: f for f in self.files if f.record is not None}

    @cached_property
    def damaged(self) -> tuple[EpisodeFile, ...]:
        """Files that could not be read."""
        return tuple(f for f in self.files if f.record is None)

    @cached_property
    def summary(self) -> RunSummary | None:
        """The run, counted; None when it cannot be shown."""
        return self._counted[0]

    @cached_property
    def why_not(self) -> str | None:
        """Why the run cannot be shown, else None."""
        return self.fault or self._counted[1]

    @cached_property
    def _counted(self) -> tuple[RunSummary | None, str | None]:
        if self.info is None:
            return None, self.fault
        try:
            return count_run(self.folder, self.info, list(self.records.values())), None
        except RecordCorrupt as error:  # records of two policies in one folder
            return None, str(error)

    @property
    def state(self) -> str:
        """finished, running, incomplete, newer or damaged."""
        if self.newer:
            return "newer"
        if self.summary is None:
            return "damaged"
        if self.writing:
            return "running"
        return "incomplete" if self.summary.missing else "finished"

    @property
    def updated(self) -> str:
        """UTC time of the newest episode file, else of the run's creation."""
        if not self.files:
            return self.info.created if self.info else ""
        newest = max(f.stamp[0] for f in self.files) / 1e9
        return datetime.fromtimestamp(newest, UTC).isoformat("T", "seconds")


@dataclass(frozen=True)
class Seen:
    """An episode that can be read, with its run.

    Attributes:
        run: The run.
        file: The episode's file.
        record: What it says.
        config: The run's configuration.
    """

    run: Run
    file: EpisodeFile
    record: Record
    config: Mapping[str, Any]


@dataclass
class _Place:
    """What is remembered of one run folder between looks."""

    id: str
    folder: Path
    lock: threading.Lock = field(default_factory=threading.Lock)
    known: dict[Path, EpisodeFile] = field(default_factory=dict[Path, EpisodeFile])
    info_stamp: Stamp | None = None
    info: RunInfo | None = None
    fault: str | None = None
    newer: bool = False
    run: Run | None = None


class Shelf:
    """Run folders by the ids that addresses name them by; safe to use from several threads.

    Args:
        roots: Run folders, and folders that hold run folders at any depth.
        measures: Where imagination is measured.
    """

    def __init__(self, roots: Sequence[Path], measures: Measures | None = None) -> None:
        self.roots = tuple(roots)
        self.measures = measures or Measures()
        self._places: dict[str, _Place] = {}
        self._ids: dict[Path, str] = {}
        self._lock = threading.Lock()
        self._walk_again = 0.0

    def runs(self) -> list[Run]:
        """Look at every run now; newest first. Runs that vanished are left out."""
        with self._lock:
            self._discover()
            places = list(self._places.values())
        runs = [self._look(place) for place in places if (place.folder / RUN_FILE).exists()]
        return sorted(runs, key=lambda run: (run.updated, run.id), reverse=True)

    def run(self, name: str) -> Run:
        """Look at one run now.

        Raises:
            NotThere: No run has this id; ids are looked up and never become paths.
        """
        with self._lock:
            if name not in self._places:
                self._discover()
            place = self._places.get(name)
        if place is None or not (place.folder / RUN_FILE).exists():
            raise NotThere(
                f"there is no run {name!r} here; its folder was moved, or it is not among those "
                f"that the viewer was started with"
            )
        return self._look(place)

    def episode(self, name: str, key: EpisodeKey) -> Seen:
        """Give one readable episode of a run.

        Raises:
            NotThere: There is no such run or episode, or it cannot be read.
        """
        run = self.run(name)
        file = run.paths.get(key)
        if run.info is None or run.why_not is not None:
            raise NotThere(run.why_not or f"run {run.name!r} cannot be read")
        if file is None or file.record is None:
            raise NotThere(f"run {run.name!r} has no episode {key.suite}, {key.task}, {key.index}")
        return Seen(run, file, file.record, run.info.config)

    def _discover(self) -> None:
        """Look for new runs; in a large tree not at every look, so that looking stays cheap."""
        begun = time.monotonic()
        if begun < self._walk_again:
            return
        self._assign(find_runs(self.roots))
        ended = time.monotonic()
        self._walk_again = ended + _REST * (ended - begun)

    def _assign(self, folders: Iterable[Path]) -> None:
        """Give new folders their ids; an id once given stays."""
        fresh = [f for f in folders if f.resolve() not in self._ids]
        plain = [_slug(f.name) for f in fresh]
        for folder, slug in zip(fresh, plain, strict=True):
            taken = plain.count(slug) > 1 or slug in self._places
            name = f"{slug}-{_digest(str(folder.resolve()), 3)}" if taken else slug
            self._ids[folder.resolve()] = name
            self._places[name] = _Place(name, folder)

    def _look(self, place: _Place) -> Run:
        with place.lock:
            files = [_read(place, *found) for found in _list(place.folder)]
            self._read_info(place)
            place.known = {file.path: file for file in files}
            writer = read_writer(place.folder / MARKER_NAME)
            # On another host nobody can tell; what was written last says enough.
            writing = writer is not None and writer.lives() is not False
            tag = _digest(repr([place.info_stamp, writing, [(f.path, f.stamp) for f in files]]), 8)
            if place.run is None or place.run.tag != tag:
                place.run = Run(
                    id=place.id,
                    folder=place.folder,
                    files=tuple(files),
                    info=place.info,
                    fault=place.fault,
                    newer=place.newer,
                    writing=writing,
                    tag=tag,
                )
            return place.run

    def _read_info(self, place: _Place) -> None:
        try:
            stat = (place.folder / RUN_FILE).stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp == place.info_stamp:
                return
            place.info, place.fault, place.newer = None, None, False
            place.info_stamp = stamp
            place.info = read_run(place.folder)
        except NewerFormat as error:
            place.fault, place.newer = str(error), True
        except (RecordCorrupt, OSError) as error:
            place.fault = str(error)


def find_runs(roots: Iterable[Path]) -> list[Path]:
    """List run folders at or below the roots, sorted; what lies inside a run is not looked at."""
    found: dict[Path, Path] = {}
    for root in roots:
        for folder in _walk(root):
            found.setdefault(folder.resolve(), folder)
    return sorted(found.values())


def _walk(root: Path) -> Iterator[Path]:
    for folder, inside, files in os.walk(root):
        if RUN_FILE in files:
            inside.clear()
            yield Path(folder)
        inside[:] = sorted(name for name in inside if not name.startswith("."))


def _list(folder: Path) -> list[tuple[Path, str, str, Stamp]]:
    """Episode files with suite, task and stamp, in the order of `episode_files`."""
    out: list[tuple[Path, str, str, Stamp]] = []
    for suite in _folders(folder / "episodes"):
        for task in _folders(folder / "episodes" / suite):
            place = folder / "episodes" / suite / task
            for entry in _entries(place):
                if not entry.name.endswith(FILE_SUFFIX) or entry.name.startswith("."):
                    continue
                try:
                    stat = entry.stat()
                except FileNotFoundError:  # replaced or set aside just now
                    continue
                out.append((place / entry.name, suite, task, (stat.st_mtime_ns, stat.st_size)))
    return sorted(out, key=lambda f: (f[1], f[2], len(f[0].name), f[0].name))


def _folders(folder: Path) -> list[str]:
    return sorted(e.name for e in _entries(folder) if e.is_dir())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(place: _Place, path: Path, suite: str, task: str, stamp: Stamp) -> EpisodeFile:
    before = place.known.get(path)
    if before is not None and before.stamp == stamp:
        return before
    fault, newer = None, False
    try:
        record = read_placed(place.folder, path)
        return EpisodeFile(path=path, suite=suite, task=task, stamp=stamp, record=record)
    except NewerFormat as error:
        fault, newer = str(error), True
    except (RecordCorrupt, OSError, ValueError) as error:  # a key that no run folder can hold
        fault = str(error)
    return EpisodeFile(path=path, suite=suite, task=task, stamp=stamp, fault=fault, newer=newer)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "run"


def _digest(text: str, size: int) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=size).hexdigest()
