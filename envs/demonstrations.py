"""Whatever demonstrations come as -> files of demonstrations to train on.

A run folder holds states, not pictures. Training wants the pictures that a policy would
have seen, at its size: they are drawn here, in several processes, into a cache on disk
(see `wamsim.demonstrations`). What is there already is not drawn again. Files of others
are read by `envs.demonstration_sources`.
"""

from __future__ import annotations

import hashlib
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
from wamsim.episode import Episode, Record, array_names, read_episode
from wamsim.errors import ConventionMismatch, RecordCorrupt
from wamsim.provenance import canonical_json
from wamsim.run_folder import RUN_FILE, read_run
from wamsim.whole_file import check_room

if TYPE_CHECKING:
    from envs.demonstration_sources.lerobot_meta import LeRobotLayout
    from envs.evaluation import Resources
    from envs.scene import SuiteOptions

__all__ = ["Viewpoint", "digest_of", "draw_run", "prepare"]

# Arrays of an episode that a demonstration, or a look at its scene, is made of
MADE_OF = {"actions", "intended", "robot_state", "seen_qpos", "states"}


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
) -> list[Path]:
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
        The files of its demonstrations, in order. Others may lie beside them.

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
    if earlier := _made_earlier(source, viewpoint):
        return earlier
    raise UnusableDemonstrations(
        f"{'this holds no demonstrations' if source.exists() else 'there is nothing here'}. "
        f"Name a wamsim run folder (with {RUN_FILE}), LIBERO's HDF5 (a .hdf5 file or a folder of "
        f"them), or a LeRobotDataset v3 folder (with meta/info.json). Source: {source}"
    )


def _made_earlier(folder: Path, viewpoint: Viewpoint) -> list[Path]:
    """The demonstrations that a folder holds.

    Raises:
        RecordCorrupt: One of them cannot be read.
        UnusableDemonstrations: They show something else than what is asked for.
    """
    files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    readable: list[Path] = []
    damage: RecordCorrupt | None = None
    for path in files:
        try:
            file = DemonstrationFile(path)
        except RecordCorrupt as error:
            damage = damage or error
            continue
        readable.append(path)
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
    return readable


def draw_run(
    run_dir: Path,
    viewpoint: Viewpoint,
    *,
    cache: Path,
    resources: Resources | None = None,
    progress: Progress | None = None,
    said: Callable[[str], None] | None = None,
) -> list[Path]:
    """Draw a run's successful and failed episodes; errors are left out.

    Args:
        run_dir: The run folder; only read.
        viewpoint: What to draw.
        cache: Where pictures go, as ``<configuration hash>/<viewpoint>/<suite>/<task>/``, for all
            runs of one configuration; a file's name holds the episode's digest, for a run that
            was recorded anew may differ (a learner's weights, another machine). Where another
            viewpoint that shows all of this one is complete, it is taken.
        resources: Processes and folders.
        progress: Called with (drawn, all).
        said: Called with a sentence for every episode that was left out.

    Returns:
        The files of this run's demonstrations, in order.

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
    drawings: list[Drawing] = []
    for job in usable:
        key = job.record.key
        try:
            name = f"{key.index:05d}-{digest_of(job.episode)}.safetensors"
        except RecordCorrupt as error:
            said(f"left out {job.episode.name} of {key.task}: {error}")
            continue
        target = folder / key.suite / key.task / name
        drawings.append(
            Drawing(episode=job.episode, record=job.record, task=job.task, target=target)
        )
    targets = sorted(d.target for d in drawings)
    left = [d for d in drawings if not d.target.exists()]
    if left and (wider := made_wider(folder, viewpoint, targets)):
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
    return [path for path in targets if path.exists()]


def digest_of(path: Path) -> str:
    """Tell an episode from the same one recorded otherwise; how long it took does not matter.

    Args:
        path: An episode file.

    Returns:
        12 hexadecimal digits over what demonstrations are made of.

    Raises:
        RecordCorrupt: It cannot be read.
    """
    # no imagined pictures, which are most of a run that has them
    episode = read_episode(path, only=MADE_OF & array_names(path))
    record = episode.record
    digest = hashlib.blake2b(digest_size=6)
    told = (record.outcome.value, record.instruction, record.fixtures, record.perturbation)
    digest.update(canonical_json(told).encode())
    for name, array in sorted(episode.arrays.items()):
        digest.update(name.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


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
