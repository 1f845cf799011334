"""A rich progress bar over a rollout: episodes done, rate so far, speed, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from wamsim.contracts import Outcome
from wamsim.episode import Record, read_record
from wamsim.rollout import Observer

_SPEED_WINDOW_S = 5.0  # steps per second over the last few seconds, so that it settles soon


class Bars:
    """Progress bars on a terminal with sentences above them; use it as a context manager.

    Args:
        console: Where.
        progress: The bars.
    """

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def said(self, sentence: str) -> None:
        """Print a sentence."""
        self._console.print(escape(sentence), style="yellow", highlight=False)


class RichProgress(Bars, Observer):
    """Shows a rollout on a terminal; use it as a context manager."""

    def __init__(self, console: Console, title: str) -> None:
        progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=False,
        )
        super().__init__(console, progress)
        self._task = self._progress.add_task(escape(title), total=None, rate="", speed="")
        self._counts = dict.fromkeys(Outcome, 0)
        self._marks: list[tuple[float, int]] = []
        self._steps = 0

    def planned(self, total: int, finished: Sequence[Path]) -> None:
        """See `Observer.planned`."""
        for path in finished:
            self._counts[read_record(path).outcome] += 1
        self._progress.update(self._task, total=total, completed=len(finished), rate=self._rate())
        if finished:
            self.said(f"resuming: {len(finished)} of {total} episodes are on disk already")

    def episode(self, record: Record) -> None:
        """See `Observer.episode`."""
        self._counts[record.outcome] += 1
        self._progress.update(self._task, advance=1, rate=self._rate())

    def stepped(self, steps: int) -> None:
        """See `Observer.stepped`."""
        now = time.monotonic()
        self._steps += steps
        self._marks.append((now, self._steps))
        while self._marks[0][0] < now - _SPEED_WINDOW_S:
            self._marks.pop(0)
        seconds = now - self._marks[0][0]
        if seconds > 0.5:
            speed = (self._steps - self._marks[0][1]) / seconds
            self._progress.update(self._task, speed=f"{speed:.0f} steps/s")

    def _rate(self) -> str:
        won, lost = self._counts[Outcome.SUCCESS], self._counts[Outcome.FAILURE]
        scored = won + lost
        text = f"success {won}/{scored}" + (f" ({won / scored:.0%})" if scored else "")
        errors = self._counts[Outcome.ERROR]
        return text + (f", {errors} error{'s' if errors != 1 else ''}" if errors else "")
