"""Whatever demonstrations come as -> a folder of demonstrations to train on.

A run folder holds states, not pictures. Training wants the pictures that a policy would
have seen, at its size: they are drawn here, in several processes, into a cache on disk
(see `wamsim.demonstrations`). What is there already is not drawn again. Files of others
are read by `envs.demonstration_sources`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from envs import replay
from envs.demonstration_sources.shared import (
    Progress,
    Viewpoint,
    made_wider,
    make_all,
    proprio,
    seen,
)
from wamsim.contracts import Outcome, Task
from wamsim.demonstrations import (
    Demonstration,
    DemonstrationFile,
    DemonstrationInfo,
    UnusableDemonstrations,
    write_demonstration,
)
from wamsim.episode import Episode, Record, read_episode
from wamsim.errors import ConventionMismatch, RecordCorrupt
from wamsim.run_folder import RUN_FILE, read_run
from wamsim.whole_file import check_room

if TYPE_CHECKING:
    from envs.demonstration_sources.lerobot_meta import LeRobotLayout
    from envs.evaluation import Resources
    from envs.scene import SuiteOptions

__all__ = ["Viewpoint", "draw_run", "prepare"]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One episode to draw."""

    episode: Path
    record: Record
    task: Task
    target: Path


def prepare(
    source: Path,
    viewpoint: Viewpoint,
    *,
    cache: Path,
    resources: Resources | None = None,
    progress: Progress | None = None,
    said: Callable[[str], None] | None = None,
    own_pictures: bool = False,
    layout: LeRobotLayout | None = None,
) -> Path:
    """Give the demonstrations of a source, as a policy would have seen them.

    Args:
        source: A wamsim run folder; LIBERO's HDF5, one file or a folder of them; a
            LeRobotDataset v3.0 folder; or a folder of demonstrations made earlier.
        viewpoint: What to see.
        cache: Where what is made goes, and is found again.
        resources: Processes and folders.
        progress: Called with (made, all).
        said: Called with a sentence for every episode that was left out.
        own_pictures: Of HDF5, take the pictures in the file; by default its states are drawn
            anew. A LeRobotDataset has nothing but its own pictures.
        layout: What the features of a LeRobotDataset mean; LIBERO's when None.

    Returns:
        The folder of demonstrations.

    Raises:
        UnusableDemonstrations: It is none of these, or it cannot give what is asked for.
        RecordCorrupt: Damaged, or nothing is in it.
        WamsimError: See `draw_run`, `draw_hdf5` and `read_lerobot`.
    """
    from envs.evaluation import Resources

    resources = resources or Resources()
    said = said or (lambda sentence: None)
    if (source / RUN_FILE).is_file():
        if own_pictures:
            raise UnusableDemonstrations(
                f"a run folder holds states and no pictures of its own; leave out --own-pictures. "
                f"Run: {source}"
            )
        return draw_run(
            source, viewpoint, cache=cache, resources=resources, progress=progress, said=said
        )
    if (source / "meta" / "info.json").is_file():
        from envs.demonstration_sources.lerobot import read_lerobot
        from envs.demonstration_sources.lerobot_meta import LeRobotLayout

        layout = layout or LeRobotLayout()
        return read_lerobot(
            source, viewpoint, cache=cache, layout=layout, progress=progress, said=said
        )
    if source.suffix == ".hdf5" or (source.is_dir() and any(source.rglob("*.hdf5"))):
        from envs.demonstration_sources.hdf5 import draw_hdf5

        return draw_hdf5(
            source, viewpoint, cache=cache, resources=resources, progress=progress, said=said,
            own_pictures=own_pictures,
        )  # fmt: skip
    if _made_earlier(source, viewpoint):
        return source
    raise UnusableDemonstrations(
        f"{'this holds no demonstrations' if source.exists() else 'there is nothing here'}. "
        f"Name a wamsim run folder (with {RUN_FILE}), LIBERO's HDF5 (a .hdf5 file or a folder of "
        f"them), or a LeRobotDataset v3 folder (with meta/info.json). Source: {source}"
    )


def _made_earlier(folder: Path, viewpoint: Viewpoint) -> bool:
    """Whether a folder holds demonstrations.

    Raises:
        RecordCorrupt: One of them cannot be read.
        UnusableDemonstrations: They show something else than what is asked for.
    """
    files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    readable = 0
    damage: RecordCorrupt | None = None
    for path in files:
        try:
            file = DemonstrationFile(path)
        except RecordCorrupt as error:
            damage = damage or error
            continue
        readable += 1
        for camera in viewpoint.cameras:
            wanted = [f"frames/{camera}", *([f"depth/{camera}"] if viewpoint.depth else [])]
            for name in wanted:
                shape = file.rows(name, 0, 1).shape[1:3] if name in file.names else None
                if shape != tuple(viewpoint.size):
                    has = f"it has {shape[0]}x{shape[1]}" if shape else "it has none"
                    raise UnusableDemonstrations(
                        f"demonstrations made earlier must show what the policy sees: {name} of "
                        f"{viewpoint.size[0]}x{viewpoint.size[1]} is needed, and {has}. Name the "
                        f"source that they were made from. File: {path}"
                    )
    if readable and damage is not None:
        raise damage
    return readable > 0


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
        cache: Where pictures go, as ``<configuration hash>/<viewpoint>/<suite>/<task>/``. Where
            another viewpoint that shows all of this one is complete, it is taken.
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
    if left and (wider := made_wider(folder, viewpoint, [d.target for d in drawings])):
        return wider
    # all tasks in turn: what is drawn when somebody stops it is a balanced set
    left.sort(key=lambda d: d.record.key.index)
    check_room(folder, viewpoint.bytes(sum(d.record.steps + 1 for d in left)))
    done, _ = make_all(
        left,
        partial(Draughtsman, options, viewpoint, info.config_hash),
        total=len(drawings),
        processes=resources.workers,
        group=lambda d: d.task.scene_id,
        name=lambda d: f"{d.episode.name} of {d.record.key.task}",
        progress=progress,
        said=said,
    )
    if not done:
        raise UnusableDemonstrations(f"no episode could be drawn. Run: {run_dir}")
    return folder


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
        said = [("intended", steps)] if "intended" in arrays else []
        for name, rows in (("actions", steps), ("robot_state", steps + 1), *said):
            if name not in arrays or len(arrays[name]) != rows:
                raise RecordCorrupt(f"{record.key} has not {rows} rows of {name}")
        shots = replay.draw_episode(painter, episode, view.cameras, view.size, depth=view.depth)
        pictures = seen(shots, painter, view)
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
            intended=arrays["intended"].astype(np.float32) if "intended" in arrays else None,
            proprio=proprio(arrays["robot_state"], task.robot_state, suite=task.suite),
            **pictures,
        )
