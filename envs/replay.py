"""Recorded states -> frames -> videos, from run folders alone.

An episode file holds the joint positions behind every picture, the lit burners and the
fixture poses; drawn again they give the very pixels that the policy saw. So videos cost
nothing during an evaluation, and show cameras and sizes that no policy looked through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from envs.processes import spread
from wamsim import registry
from wamsim.captions import Caption
from wamsim.contracts import Outcome, Task
from wamsim.episode import Episode, NewerFormat, Record, read_episode
from wamsim.errors import ConfigurationMismatch, RecordCorrupt, WamsimError, nearest
from wamsim.foresight import read_foresight
from wamsim.gallery import Shot
from wamsim.run_folder import episode_files, read_placed, read_run
from wamsim.video import write_video

if TYPE_CHECKING:
    from envs.evaluation import Resources
    from envs.rendering import Painter
    from envs.scene import SuiteBackend, SuiteOptions

CAMERAS = ("agentview", "eye_in_hand")  # what LIBERO's policies look through
FOLDER = "videos"

Wanted = Literal["failures", "all"] | int
Progress = Callable[[int, int, Path], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One video to make.

    Attributes:
        episode: The episode file.
        record: What it says.
        task: Its task, as the run's options made it.
        video: Where the video goes.
    """

    episode: Path
    record: Record
    task: Task
    video: Path


def draw_episode(
    painter: Painter,
    episode: Episode,
    cameras: Sequence[str],
    size: tuple[int, int],
    steps: Sequence[int] | None = None,
    *,
    depth: bool = False,
) -> Iterator[Shot]:
    """Draw an episode from its recorded arrays.

    Args:
        painter: Of the episode's scene.
        episode: With its arrays "seen_qpos" [S + 1, nq] and, where the scene has burners,
            "lit" [S + 1, L].
        cameras: Public camera names.
        size: (height, width).
        steps: Env steps to draw, 0 being the first query's picture; None draws all.
        depth: Also depth and camera poses.

    Yields:
        One look per step, upright.

    Raises:
        RecordCorrupt: There is nothing to draw, or it is of another scene.
    """
    from envs.runtime import Glimpse, Look, shoot

    record, qpos = episode.record, episode.arrays.get("seen_qpos")
    if qpos is None:
        raise RecordCorrupt(f"{record.key} has no recorded states ({record.reason})")
    nq = painter.scene.model.nq
    if qpos.ndim != 2 or qpos.shape[1] != nq:
        raise RecordCorrupt(f"{record.key} has seen_qpos {qpos.shape}, expected (steps + 1, {nq})")
    lit = episode.arrays.get("lit", np.zeros((len(qpos), 0), bool))
    fixtures = {
        body: (np.array(position), np.array(quaternion))
        for body, (position, quaternion) in record.fixtures.items()
    }
    look = Look(cameras=tuple(cameras), size=size, depth=depth)
    for step in range(len(qpos)) if steps is None else steps:
        glimpse = Glimpse(
            seen_qpos=qpos[step], lit=tuple(map(bool, lit[step])), robot_state=np.zeros(0)
        )
        colour, metres = shoot(painter, fixtures, glimpse, look)
        poses = np.stack([painter.camera_pose(c) for c in cameras]) if depth else None
        yield Shot(colour=colour, depth=metres, extrinsics=poses)


def make_videos(
    run_dir: Path,
    *,
    episodes: Wanted = "failures",
    cameras: Sequence[str] | None = None,
    size: tuple[int, int] = (256, 256),
    out: Path | None = None,
    resources: Resources | None = None,
    progress: Progress | None = None,
    said: Callable[[str], None] | None = None,
) -> list[Path]:
    """Make videos of a run's episodes; those that are there already stay as they are.

    Args:
        run_dir: A run folder; only read, unless `out` lies in it.
        episodes: "failures" (not errors), "all", or the first N of every task.
        cameras: What to show, side by side; None takes `standard_cameras`.
        size: (height, width) of each picture; 256 or more looks best.
        out: Where videos go, as ``<suite>/<task>/00007-success.mp4``; by default
            ``run_dir/videos``. Other cameras or sizes want another place.
        resources: Processes (``workers``) and folders.
        progress: Called with (finished, all, video) for every finished video.
        said: Called with a sentence for every episode that had to be left out.

    Returns:
        All the videos asked for that exist now, in order of their episodes.

    Raises:
        RecordCorrupt: No run folder, or it has no episodes.
        WamsimError: `episodes` is none of these.
        ConfigurationMismatch: Recorded with another version of a suite.
        UnknownName: A suite or task that is not installed, or a camera that it lacks.
        AssetsMissing, RenderingUnavailable, OutOfSpace: See there.
    """
    from envs.evaluation import Resources

    resources = resources or Resources()
    said = said or (lambda sentence: None)
    options = suite_options(read_run(run_dir).config, resources)
    jobs = plan(run_dir, episodes, options, out or run_dir / FOLDER, said)
    for task in {(job.task.suite, job.task.name): job.task for job in jobs}.values():
        check_cameras(cameras or (), task)
    left = [job for job in jobs if not job.video.exists()]
    done = len(jobs) - len(left)
    finished = spread(
        left,
        partial(Projector, options, cameras, size),
        processes=resources.workers,
        group=lambda job: job.task.scene_id,
    )
    for job, sentence in finished:
        if sentence is not None:
            said(f"left out {job.episode.name} of {job.record.key.task}: {sentence}")
            continue
        done += 1
        if progress:
            progress(done, len(jobs), job.video)
    return [job.video for job in jobs if job.video.exists()]


def suite_options(config: Any, resources: Resources) -> SuiteOptions:
    """Give what the suites of a recorded run were built with (see `EvalConfig.mapping`)."""
    from envs.scene import SuiteOptions, pairs

    names = ("reset_mode", "protocol", "wording")
    return SuiteOptions(
        cache_dir=resources.cache_dir,
        libero_assets=resources.libero_assets,
        chosen=pairs(config.get("suite_set", {})),
        **{name: config[name] for name in names if name in config},
    )


def plan(
    run_dir: Path,
    wanted: Wanted,
    options: SuiteOptions,
    out: Path,
    said: Callable[[str], None],
) -> list[Job]:
    """List the videos to make, in order of episodes, so that scenes are loaded once each."""
    from envs.scene import variant

    if wanted not in ("failures", "all") and not (isinstance(wanted, int) and wanted > 0):
        raise WamsimError(f"episodes={wanted!r}, expected failures, all, or a number from 1")
    files = episode_files(run_dir)
    if not files:
        raise RecordCorrupt(
            f"the run folder has no episodes yet. `wamsim eval --out` fills it. Folder: {run_dir}"
        )
    jobs: list[Job] = []
    tasks: dict[tuple[str, str], Task] = {}
    backends: dict[str, SuiteBackend] = {}
    taken: dict[tuple[str, str], int] = {}
    for path in files:
        try:
            record = read_placed(run_dir, path)
        except NewerFormat:
            raise
        except RecordCorrupt as error:
            said(f"left out {path.name} of {path.parent.name}: {error}")
            continue
        key = record.key
        if key.suite not in backends:
            backends[key.suite] = registry.suite(key.suite, options)
            known = backends[key.suite].suite.tasks
            tasks.update({(key.suite, task.name): task for task in known})
        version = backends[key.suite].suite.version
        if record.suite_version != version:
            raise ConfigurationMismatch(
                f"the run has episodes of {key.suite} version {record.suite_version}, but this "
                f"wamsim has version {version}, whose pictures would not be those "
                f"that the policy saw. Draw them with the wamsim that recorded them. "
                f"Episode: {path}"
            )
        place = (key.suite, key.task)
        if place not in tasks:
            raise nearest(key.task, [t for s, t in tasks if s == key.suite], kind="task")
        if isinstance(wanted, int):
            if taken.setdefault(place, 0) >= wanted:
                continue
            taken[place] += 1
        elif wanted == "failures" and record.outcome is not Outcome.FAILURE:
            continue
        video = out / key.suite / key.task / f"{key.index:05d}-{record.outcome.value}.mp4"
        task = variant(backends[key.suite], tasks[place], key)
        jobs.append(Job(episode=path, record=record, task=task, video=video))
    return jobs


class Projector:
    """Makes videos in this process; keeps the scene of the last one.

    Args:
        options: What suites are built with.
        cameras, size: See `make_videos`.
    """

    def __init__(
        self, options: SuiteOptions, cameras: Sequence[str] | None, size: tuple[int, int]
    ) -> None:
        self._painters = Painters(options)
        self._cameras, self._size = cameras, size

    def do(self, job: Job) -> str | None:
        """Make one video.

        Returns:
            None, or a sentence that says why the episode was left out.
        """
        task = job.task
        try:
            episode = read_drawable(job.episode)
            painter = self._painters.of(task)
            cameras = self._cameras or standard_cameras(task)
            shots = draw_episode(painter, episode, cameras, self._size)
            frames = (shot.colour for shot in shots)
            foresight = read_foresight(job.episode)
            if foresight is not None:
                frames = (
                    np.concatenate([real, foresight.panels(step, self._size, cameras)])
                    for step, real in enumerate(frames)
                )
            write_video(
                job.video,
                frames,
                caption(job.record, task, imagined=foresight is not None),
                fps=task.control_hz,
            )
        except RecordCorrupt as error:
            return str(error)
        return None

    def close(self) -> None:
        """Free OpenGL memory."""
        self._painters.close()


class Painters:
    """Gives the painter of a task's scene; keeps the last one.

    Args:
        options: What suites are built with.
    """

    def __init__(self, options: SuiteOptions) -> None:
        self._options = options
        self._backends: dict[str, SuiteBackend] = {}
        self._loaded: tuple[str, Painter] | None = None

    def of(self, task: Task) -> Painter:
        """Give the painter of a task's scene."""
        if self._loaded and self._loaded[0] == task.scene_id:
            return self._loaded[1]
        from envs.rendering import Painter

        self.close()
        painter = Painter(self.backend(task).scene(task))
        self._loaded = (task.scene_id, painter)
        return painter

    def backend(self, task: Task) -> SuiteBackend:
        """Give the task's suite, whose scenes these painters draw."""
        if task.suite not in self._backends:
            self._backends[task.suite] = registry.suite(task.suite, self._options)
        return self._backends[task.suite]

    def close(self) -> None:
        """Free OpenGL memory."""
        if self._loaded:
            self._loaded[1].close()
            self._loaded = None


def check_cameras(cameras: Sequence[str], task: Task) -> None:
    """Refuse a camera that a task does not have.

    Raises:
        UnknownName: With the nearest known name.
    """
    for camera in cameras:
        if camera not in task.cameras:
            raise nearest(camera, task.cameras, kind=f"camera of {task.suite}")


def standard_cameras(task: Task) -> tuple[str, ...]:
    """Give the cameras that policies look through, and so what videos of a task show."""
    # Other suites put what their policies look through first: two views or two wrists beside.
    return CAMERAS if set(CAMERAS) <= set(task.cameras) else task.cameras[:3]


def caption(record: Record, task: Task, *, imagined: bool = False) -> Caption:
    """Give what is written under an episode.

    Args:
        record, task: The episode's.
        imagined: What was imagined stands to the right of the cameras.
    """
    notes = ("stand-in visuals" if record.stand_in_visuals else "", "right: imagined" * imagined)
    return Caption(
        instruction=record.instruction,
        limit=task.max_steps,
        outcome=record.outcome,
        reason=record.reason,
        note=", ".join(filter(None, notes)),
    )


def read_drawable(path: Path) -> Episode:
    """Read of an episode file what drawing needs: the record, "seen_qpos" and "lit"."""
    for names in (("seen_qpos", "lit"), ("seen_qpos",)):  # "lit" where the scene has burners
        with contextlib.suppress(KeyError):
            return read_episode(path, only=names)
    return read_episode(path, only=())  # an error before the first step
