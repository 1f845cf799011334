"""A training on a terminal: what is drawn, what is computed beforehand, the loss, time left."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from wamsim.demonstrations import DemonstrationSet
from wamsim.progress import Bars


class TrainingProgress(Bars):
    """Shows a training; use it as a context manager.

    Args:
        console: Where.
        title: What is trained.
        steps: Optimizer steps in all.
    """

    def __init__(self, console: Console, title: str, steps: int) -> None:
        self._title = title
        self._steps = steps
        progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        super().__init__(console, progress)
        self._tasks: dict[str, TaskID] = {}

    def drawn(self, done: int, total: int) -> None:
        """Episodes whose pictures are there."""
        self._show("drawing episodes", done, total)

    def looks(self, done: int, total: int) -> None:
        """Files of looks that are there."""
        self._show("drawing looks", done, total)

    def features(self, done: int, total: int) -> None:
        """Samples whose frozen features are there."""
        self._show("frozen features", done, total)

    def step(self, step: int, losses: Mapping[str, float], lr: float) -> None:
        """One optimizer step was made."""
        text = ", ".join(f"{name} {value:.3g}" for name, value in losses.items() if name != "total")
        self._show(escape(self._title), step, self._steps, f"{text}, lr {lr:.1e}")

    def about(self, demonstrations: DemonstrationSet) -> None:
        """Say what is learnt from."""
        tasks = {(f.info.suite, f.info.task) for f in demonstrations.files}
        left_out = f"; {demonstrations.left_out} left out" if demonstrations.left_out else ""
        self._console.print(
            f"{len(demonstrations.files)} episodes of {len(tasks)} task(s), "
            f"{len(demonstrations)} samples{left_out}.",
            highlight=False,
        )

    def _show(self, what: str, done: int, total: int, text: str = "") -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, text="")
        self._progress.update(self._tasks[what], completed=done, total=total, text=text)
