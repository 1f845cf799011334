"""Draw recorded runs once, as pictures to train on.

A run folder holds states, not pictures. Training wants the pictures that a policy would
have seen, at its size: they are drawn here, in several processes, into a cache on disk
(see `wamsim.demonstrations`). What is there already is not drawn again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from envs import replay
from envs.processes import spread
from wamsim.contracts import Frames, Outcome, Task
from wamsim.conventions import PROPRIOS, proprio_from_robot_state
from wamsim.demonstrations import (
    Demonstration,
    DemonstrationInfo,
    UnusableDemonstrations,
    write_demonstration,
)
from wamsim.episode import Episode, Record, read_episode
from wamsim.errors import ConventionMismatch, OutOfSpace, RecordCorrupt
from wamsim.run_folder import read_run

if TYPE_CHECKING:
    from envs.evaluation import Resources
    from envs.scene import SuiteOptions

Progress = Callable[[int, int], None]
RESERVE_BYTES = 1 << 30  # room on the disk that drawing leaves alone


@dataclass(frozen=True, kw_only=True)
class Viewpoint:
    """What is drawn.

    Attributes:
        cameras: In order.
        size: (height, width).
        depth: Also depth and camera matrices.
    """

    cameras: tuple[str, ...]
    size: tuple[int, int]
    depth: bool = False

    @property
    def name(self) -> str:
        """A folder name: equal viewpoints share their pictures."""
        size = f"{self.size[0]}x{self.size[1]}"
        return "-".join((size, *self.cameras, *(("depth",) if self.depth else ())))

    def bytes(self, rows: int) -> int:
        """How much `rows` pictures of every camera take."""
        pixels = self.size[0] * self.size[1] * len(self.cameras)
        return rows * pixels * (3 + (4 if self.depth else 0))


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One episode to draw."""

    episode: Path
    record: Record
    task: Task
    target: Path


def draw_run(
    run_dir: Path,
    viewpoint: Viewpoint,
    *,
    cache: Path,
    resources: Resources | None = None,
    progress: Progress | None = None,
    said: Callable[[str], None] | None = None,
) -> Path:
    """Draw a run's successful and failed episodes; errors are left out.

    Args:
        run_dir: The run folder; only read.
        viewpoint: What to draw.
        cache: Where pictures go, as ``<configuration hash>/<viewpoint>/<suite>/<task>/``.
        resources: Processes and folders.
        progress: Called with (drawn, all).
        said: Called with a sentence for every episode that was left out.

    Returns:
        The folder of demonstrations.

    Raises:
        RecordCorrupt: No run folder, or it has no episodes.
        UnusableDemonstrations: No episode succeeded, or every one had to be left out.
        OutOfSpace: The pictures would not fit on the disk; nothing was drawn.
        UnknownName: A suite, task or camera that is not there.
    """
    from envs.evaluation import Resources

    resources = resources or Resources()
    said = said or (lambda sentence: None)
    info = read_run(run_dir)
    options = replay.suite_options(info.config, resources)
    folder = cache / info.config_hash[:16] / viewpoint.name
    jobs = replay.plan(run_dir, "all", options, folder, said)
    usable = [j for j in jobs if j.record.outcome is not Outcome.ERROR]
    if not any(j.record.outcome is Outcome.SUCCESS for j in usable):
        raise UnusableDemonstrations(
            f"no episode of the run succeeded, so there is nothing to imitate. Run: {run_dir}"
        )
    for task in {(j.task.suite, j.task.name): j.task for j in usable}.values():
        replay.check_cameras(viewpoint.cameras, task)
    drawings = [
        Drawing(
            episode=job.episode,
            record=job.record,
            task=job.task,
            target=folder / job.record.key.suite / job.record.key.task
            / f"{job.record.key.index:05d}.safetensors",
        )
        for job in usable
    ]  # fmt: skip
    left = [d for d in drawings if not d.target.exists()]
    # all tasks in turn: what is drawn when somebody stops it is a balanced set
    left.sort(key=lambda d: d.record.key.index)
    _check_room(folder, viewpoint.bytes(sum(d.record.steps + 1 for d in left)))
    done = len(drawings) - len(left)
    source = info.config_hash
    for drawing, sentence in spread(
        left,
        partial(Draughtsman, options, viewpoint, source),
        processes=resources.workers,
        group=lambda d: d.task.scene_id,
    ):
        if sentence is not None:
            said(f"left out {drawing.episode.name} of {drawing.record.key.task}: {sentence}")
            continue
        done += 1
        if progress:
            progress(done, len(drawings))
    if not done:
        raise UnusableDemonstrations(f"no episode could be drawn. Run: {run_dir}")
    return folder


def _check_room(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed + RESERVE_BYTES > free:
        raise OutOfSpace(
            f"the pictures take {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free. "
            f"Choose another --cache, or train on fewer episodes. Folder: {folder}"
        )


class Draughtsman:
    """Draws demonstrations in this process; keeps the scene of the last one.

    Args:
        options: What suites are built with.
        viewpoint: What to draw.
        source: Configuration hash of the run, for provenance.
    """

    def __init__(self, options: SuiteOptions, viewpoint: Viewpoint, source: str) -> None:
        self._painters = replay.Painters(options)
        self._viewpoint, self._source = viewpoint, source

    def do(self, job: Drawing) -> str | None:
        """Draw one episode.

        Returns:
            None, or a sentence that says why the episode was left out.
        """
        try:
            episode = read_episode(job.episode)
            write_demonstration(job.target, self._drawn(episode, job.task))
        except (RecordCorrupt, ConventionMismatch) as error:
            return str(error)
        return None

    def close(self) -> None:
        """Free OpenGL memory."""
        self._painters.close()

    def _drawn(self, episode: Episode, task: Task) -> Demonstration:
        view, record, arrays = self._viewpoint, episode.record, episode.arrays
        painter = self._painters.of(task)
        steps = record.steps
        for name, rows in (("actions", steps), ("robot_state", steps + 1)):
            if name not in arrays or len(arrays[name]) != rows:
                raise RecordCorrupt(f"{record.key} has not {rows} rows of {name}")
        colour: list[Frames] = []
        depths: list[NDArray[np.float32]] = []
        poses: list[NDArray[Any]] = []
        for shot in replay.draw_episode(
            painter, episode, view.cameras, view.size, depth=view.depth
        ):
            colour.append(shot.colour)
            if shot.depth is not None and shot.extrinsics is not None:
                depths.append(shot.depth)
                poses.append(shot.extrinsics)
        pictures = np.stack(colour, axis=1)
        cameras = list(enumerate(view.cameras))
        geometry: dict[str, Any] = {}
        if view.depth:
            from envs.rendering import intrinsics

            scene = painter.scene
            geometry = {
                "depth": {c: np.stack([d[i] for d in depths]) for i, c in cameras},
                "extrinsics": {
                    c: np.stack([p[i] for p in poses]).astype(np.float32) for i, c in cameras
                },
                "intrinsics": {
                    c: intrinsics(scene, c, view.size).astype(np.float32) for _, c in cameras
                },
            }
        return Demonstration(
            info=DemonstrationInfo(
                suite=record.key.suite,
                task=record.key.task,
                index=record.key.index,
                instruction=record.instruction,
                success=record.outcome is Outcome.SUCCESS,
                steps=steps,
                action=task.action.name,
                control_hz=task.control_hz,
                stand_in_visuals=record.stand_in_visuals,
                source=self._source,
            ),
            actions=arrays["actions"].astype(np.float32),
            frames={c: pictures[i] for i, c in cameras},
            proprio=_proprio(arrays["robot_state"], task),
            **geometry,
        )


def _proprio(states: NDArray[Any], task: Task) -> dict[str, NDArray[np.float32]]:
    out: dict[str, NDArray[np.float32]] = {}
    for name, convention in PROPRIOS.items():
        try:
            out[name] = proprio_from_robot_state(
                states, task.robot_state, convention, suite=task.suite
            )
        except ConventionMismatch:  # another robot; refused later if a policy needs it
            continue
    return out
