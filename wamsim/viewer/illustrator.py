"""What the viewer needs of somebody who can draw recorded episodes.

`wamsim` knows no simulator, so the command line hands one over (`envs.illustrating`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from wamsim.contracts import Frames, Task
from wamsim.episode import Record


class Artist(Protocol):
    """Draws episodes in one process, and keeps the scenes of the last ones."""

    def draw(
        self,
        path: Path,
        config: Mapping[str, Any],
        cameras: Sequence[str],
        size: tuple[int, int],
        steps: Sequence[int],
    ) -> Iterator[Frames]:
        """Draw recorded states.

        Args:
            path: The episode file.
            config: The run's configuration.
            cameras: Names.
            size: (height, width).
            steps: Env steps, 0 being the first query's picture.

        Yields:
            uint8 [cameras, H, W, 3] for every step, upright.

        Raises:
            WamsimError: The episode cannot be drawn; its sentence says why.
        """
        ...

    def close(self) -> None:
        """Free OpenGL memory."""
        ...


class Illustrator(Protocol):
    """Knows suites, and makes artists; picklable, so that another process can make its own."""

    def task(self, config: Mapping[str, Any], record: Record) -> Task:
        """Give the task of a recorded episode.

        Raises:
            WamsimError: Its suite or task is not installed, or of another version.
        """
        ...

    def standard_cameras(self, task: Task) -> tuple[str, ...]:
        """Give the cameras that are shown first."""
        ...

    def artist(self) -> Artist:
        """Make an artist in the present process."""
        ...
