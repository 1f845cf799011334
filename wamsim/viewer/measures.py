"""Imagination of runs, measured in the background one episode after the other.

Headers say who won; how well a policy foresaw lies in its latents, which take milliseconds
an episode to read. So the page shows a run at once and its skill when it is known. What was
measured is kept by the file's time and size.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wamsim.episode import Record
from wamsim.errors import RecordCorrupt
from wamsim.imagination.episodes import (
    EpisodeSums,
    Measured,
    gather,
    measure_episode,
)
from wamsim.imagination.latents import NotFinite
from wamsim.imagination.scores import METRICS
from wamsim.imagination.summary import ImaginationSummary, summarise_run

Stamp = tuple[int, int]  # a file's time of change in ns, and size
Wanted = tuple[Path, Stamp, Record]
_ROW = list(METRICS).index


class Numbers(NamedTuple):
    """What an episode's row in a table says.

    Attributes:
        error: Squared error over all queries and horizons, by the squared norm of what came.
        skill: 1 - squared error / squared error of "nothing moves".
        value: Mean predicted value.
        value_last: The last one.
    """

    error: float | None = None
    skill: float | None = None
    value: float | None = None
    value_last: float | None = None


class Measures:
    """Measures what is asked for, in one thread of its own that ends with the last task."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: dict[Path, tuple[Stamp, Measured | str]] = {}
        self._runs: dict[Path, tuple[str, ImaginationSummary | str]] = {}
        self._queue: deque[Callable[[], None]] = deque()
        self._queued: set[object] = set()
        self._thread: threading.Thread | None = None
        self.version = 0  # rises with everything that is measured

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until everything that was asked for is measured."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)

    def of(self, path: Path, stamp: Stamp) -> Measured | str | None:
        """Give what an episode measured, the sentence why it cannot be, or None: not yet."""
        with self._lock:
            known = self._done.get(path)
        return known[1] if known is not None and known[0] == stamp else None

    def run(
        self, folder: Path, tag: str, files: Sequence[Wanted]
    ) -> ImaginationSummary | str | None:
        """Give a run's imagination, the sentence why it cannot be measured, or None: not yet.

        What is not measured yet is begun; of a growing run the new episodes only.

        Args:
            folder: The run's.
            tag: Of its files as they are.
            files: Its readable episodes, in order of their keys.
        """
        with self._lock:
            kept = self._runs.get(folder)
        if kept is not None and kept[0] == tag:
            return kept[1]
        files = list(files)
        for path, stamp, record in files:
            if self.of(path, stamp) is None:
                self._ask((path, stamp), partial(self._measure, path, stamp, record))
        # Behind its episodes in the queue, so it finds them measured.
        self._ask((folder, tag), partial(self._gather, folder, tag, files))
        return None

    def _ask(self, what: object, work: Callable[[], None]) -> None:
        with self._lock:
            if what in self._queued:
                return
            self._queued.add(what)
            self._queue.append(work)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._thread = None
                    return
                work = self._queue.popleft()
            work()

    def _measure(self, path: Path, stamp: Stamp, record: Record) -> None:
        try:
            result: Measured | str = measure_episode(path, record)
        except (RecordCorrupt, NotFinite, OSError, ValueError, KeyError, TypeError) as error:
            result = str(error)
        with self._lock:
            self._done[path] = (stamp, result)
            self.version += 1
            self._queued.discard((path, stamp))

    def _gather(self, folder: Path, tag: str, files: Sequence[Wanted]) -> None:
        found: list[Measured] = []
        result: ImaginationSummary | str | None = None
        for path, stamp, _ in files:
            one = self.of(path, stamp)
            if isinstance(one, Measured):
                found.append(one)
            else:
                result = result or one or "its files changed while they were measured"
        try:
            result = result or summarise_run(gather(folder, found))
        except RecordCorrupt as error:
            result = str(error)
        with self._lock:
            self._runs[folder] = (tag, result)
            self.version += 1
            self._queued.discard((folder, tag))


def numbers(measured: Measured) -> Numbers:
    """Give an episode's numbers; of imaginers the policy's own, else the world model's."""
    values = None if measured.values is None else measured.values.values
    value = None if values is None else float(np.mean(values))
    last = None if values is None else float(values[-1])
    if not measured.blocks:
        return Numbers(value=value, value_last=last)
    _, sums = measured.blocks[min(measured.blocks)]
    return Numbers(_ratio(sums, "error"), _skill(sums), value, last)


def _skill(sums: EpisodeSums) -> float | None:
    ratio = _ratio(sums, "skill")
    return None if ratio is None else 1 - ratio


def _ratio(sums: EpisodeSums, name: str) -> float | None:
    above, below = sums.sums[_ROW(name)].sum(-1)
    return float(above / below) if below else None
