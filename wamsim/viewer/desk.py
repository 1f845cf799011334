"""A drawing process and the pipe to it."""

from __future__ import annotations

import multiprocessing as mp
import signal
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from wamsim.errors import WamsimError
from wamsim.viewer.artists import Task, work
from wamsim.viewer.illustrator import Illustrator

_PATIENCE_S = 5.0  # for a process to end by itself


class CannotDraw(WamsimError):
    """An episode's pictures cannot be drawn; the sentence says why."""


@dataclass
class Desk:
    """One drawing process and the pipe to it; started when it is first needed.

    Attributes:
        illustrator: Makes its artist.
        threads: For software OpenGL.
        process, pipe: None until then.
        closed: True to start none any more.
        idle: True while it waits for a task.
    """

    illustrator: Illustrator
    threads: int
    process: SpawnProcess | None = None
    pipe: Connection | None = None
    closed: bool = False
    idle: bool = False

    @property
    def started(self) -> bool:
        """Whether its process runs."""
        return self.process is not None

    def ask(self, task: Task) -> Any:
        """Have a task done.

        Raises:
            CannotDraw: It cannot be done, or the process died.
        """
        if self.process is None or not self.process.is_alive():
            self._start()
        assert self.pipe is not None
        try:
            self.pipe.send(task)
            answer, fault = self.pipe.recv()
        except (EOFError, OSError) as error:
            code = self.process.exitcode if self.process else None
            self.process = None
            raise CannotDraw(
                f"the drawing process ended (exit code {code}); `wamsim doctor` checks OpenGL"
            ) from error
        if fault is not None:
            raise CannotDraw(fault)
        return answer

    def _start(self) -> None:
        if self.closed:
            raise CannotDraw("the viewer is closing")
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        process = context.Process(
            target=work, args=(theirs, self.illustrator, self.threads), daemon=True
        )
        # Ctrl-C reaches every process of a terminal, and a child that is still importing would
        # show a traceback; what is blocked here stays blocked there.
        resource_tracker.ensure_running()  # starting it unblocks the signal again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.process = process
        theirs.close()

    def close(self) -> None:
        """End the process."""
        self.closed = True
        process = self.process
        if process is not None:
            process.terminate()
            process.join(_PATIENCE_S)
            if process.is_alive():
                process.kill()
                process.join()
