"""LIBERO's published demonstrations: ``*_demo.hdf5``, 50 per task.

    data                  attributes bddl_file_name, problem_info, macros_image_convention
    data/demo_N           attribute model_file: the scene's XML, with the fixtures' poses
      actions [T, 7]      DELTA_EEF_GRIPPER_CLOSE_POSITIVE
      states [T, 1+nq+nv] time, qpos, qvel
      obs/...             agentview_rgb and eye_in_hand_rgb [T, 128, 128, 3], raw OpenGL rows
                          (bottom first); ee_pos, ee_ori, gripper_states, joint_states

``states[t]`` was recorded before ``actions[t]``. LIBERO then ran the actions again and
kept what it observed *after* each, so ``obs[t]`` belongs to ``states[t + 1]`` (LIBERO's
scripts/collect_demonstration.py at 4f0dd188, scripts/create_dataset.py at 19520007).
Tools that draw the pictures again often keep the observation before the action; which it
is, is measured.

Either way T rows are known and T - 1 of the actions lie between them: an episode has
S = T - 1 steps. From states the last action is left out; from a file's own pictures after
actions, the first is. The state after the last action is nowhere, so success is that of
the last state; demonstrators held the goal for ten steps, so it holds there.
``rewards`` and ``dones`` say 1 at the end whatever happened, and are not read.

A state is that of a step's end, and an evaluation's picture is 4 ms older (envs/timing.py):
drawn rows are ahead by a fraction of a millimetre to a few millimetres of a fast hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from envs.demonstration_sources import shared
from envs.demonstration_sources.hdf5_states import (
    array,
    fixtures_of,
    look_back,
    observed_after,
    shots,
)
from envs.demonstration_sources.shared import Progress, Viewpoint
from envs.replay import Painters, check_cameras
from envs.scene import Scene, SuiteOptions
from wamsim import registry
from wamsim.contracts import Task
from wamsim.conventions import Orientation, orient
from wamsim.demonstrations import (
    Demonstration,
    DemonstrationInfo,
    UnusableDemonstrations,
    write_demonstration,
)
from wamsim.errors import RecordCorrupt, nearest
from wamsim.whole_file import check_room

if TYPE_CHECKING:
    from envs.evaluation import Resources

PICTURES = {"agentview": "agentview_rgb", "eye_in_hand": "eye_in_hand_rgb"}  # camera -> dataset
ROWS = {"opengl": Orientation.OPENGL, "opencv": Orientation.UPRIGHT}  # robosuite's IMAGE_CONVENTION


@dataclass(frozen=True, kw_only=True)
class Job:
    """One demonstration to make: group ``data/<demo>`` of a file."""

    file: Path
    demo: str
    task: Task
    target: Path

    @property
    def index(self) -> int:
        """N of ``demo_N``."""
        return _number(self.demo)


def draw_hdf5(
    source: Path,
    viewpoint: Viewpoint,
    *,
    cache: Path,
    resources: Resources,
    progress: Progress | None = None,
    said: Callable[[str], None],
    own_pictures: bool = False,
) -> list[Path]:
    """Make demonstrations from LIBERO's HDF5.

    The instruction is the task's own, made from its file name, since policies are evaluated
    with that; ``problem_info`` has the BDDL's, which is worded differently.

    Args:
        source: A file, or a folder of them.
        viewpoint: What to draw, or to resize the file's own pictures to.
        cache: Where demonstrations go, as ``hdf5-<hash>/<viewpoint>/<suite>/<task>/``. Where
            another viewpoint that shows all of this one is complete, it is taken.
        resources: Processes and folders.
        progress: Called with (made, all).
        said: Called with a sentence for every demonstration that was left out.
        own_pictures: Take the pictures in the file; by default its states are drawn.

    Returns:
        The files of demonstrations, in order.

    Raises:
        RecordCorrupt: A file cannot be read, or lacks what LIBERO's have.
        UnknownName: A file is of a task, or a camera is asked for, that LIBERO does not have.
        UnusableDemonstrations: Every demonstration had to be left out, two files hold the same
            ones, or depth or a camera is wanted of a file's own pictures.
        AssetsMissing, OutOfSpace, RenderingUnavailable: See there.
    """
    if own_pictures:
        shared.refuse_depth(
            viewpoint.depth, "an HDF5's own pictures", "Leave out --own-pictures to draw them."
        )
        for camera in viewpoint.cameras:
            if camera not in PICTURES:
                raise UnusableDemonstrations(
                    f"LIBERO's HDF5 has pictures of {' and '.join(PICTURES)}, not of {camera!r}. "
                    f"Leave out --own-pictures to draw it. Source: {source}"
                )
    options = SuiteOptions(cache_dir=resources.cache_dir, libero_assets=resources.libero_assets)
    files = [source] if source.is_file() else sorted(source.rglob("*.hdf5"))
    kind = "own" if own_pictures else "drawn"
    folder = cache / f"hdf5-{shared.fingerprint(files, kind)}" / viewpoint.name
    jobs: list[Job] = []
    steps: dict[Path, int] = {}
    holders: dict[str, Path] = {}
    for path in files:
        with _opened(path) as file:
            task = task_of(file, path, options, said)
            other = holders.setdefault(task.name, path)
            if other != path:
                raise UnusableDemonstrations(
                    f"two files hold demonstrations of {task.name}; name one. Files: {other}, "
                    f"{path}"
                )
            for demo in sorted(file["data"], key=_number):
                target = folder / task.suite / task.name / f"{_number(demo):05d}.safetensors"
                jobs.append(Job(file=path, demo=demo, task=task, target=target))
                steps[target] = len(array(file["data"][demo], "actions", 7))
    for task in {job.task.name: job.task for job in jobs}.values():
        check_cameras(viewpoint.cameras, task)
    targets = sorted(j.target for j in jobs)
    left = sorted((j for j in jobs if not j.target.exists()), key=lambda j: j.index)
    if left and (wider := shared.made_wider(folder, viewpoint, targets)):
        return wider
    check_room(folder, viewpoint.bytes(sum(steps[j.target] for j in left)))
    done, reason = shared.make_all(
        left,
        partial(Maker, options, viewpoint, own_pictures=own_pictures),
        total=len(jobs),
        processes=resources.workers,
        group=lambda job: job.task.scene_id,
        name=lambda job: f"{job.demo} of {job.task.name}",
        progress=progress,
        said=said,
    )
    if not done:
        reason = reason or "there are no demo_N in it"
        raise UnusableDemonstrations(f"no demonstration could be used: {reason}. Source: {source}")
    return [path for path in targets if path.exists()]


def task_of(
    file: Any, path: Path, options: SuiteOptions, said: Callable[[str], None] = lambda _: None
) -> Task:
    """Find the task that a file's demonstrations are of, by the name of its BDDL file.

    Raises:
        RecordCorrupt: Attributes are missing.
        UnknownName: LIBERO has no such task.
    """
    from envs.libero import upstream
    from envs.libero.protocols import SUITES

    try:
        attributes = file["data"].attrs
        bddl = Path(str(attributes["bddl_file_name"]))
        told = str(json.loads(attributes["problem_info"])["language_instruction"])
    except (KeyError, ValueError, TypeError) as error:
        raise RecordCorrupt(
            f"no demonstrations of LIBERO's: {error!r}. LIBERO's HDF5 has a group data with "
            f"attributes bddl_file_name and problem_info. File: {path}"
        ) from error
    suites = {name: upstream.task_map()[name] for name in SUITES}
    holding = [name for name, tasks in suites.items() if bddl.stem in tasks]
    if not holding:
        known = [task for tasks in suites.values() for task in tasks]
        raise nearest(bddl.stem, known, kind="LIBERO task", hint=f"File: {path}")
    suite = bddl.parent.name if bddl.parent.name in holding else holding[0]
    task = next(t for t in registry.suite(suite, options).suite.tasks if t.name == bddl.stem)
    words = told.strip('" ').lower()
    if words not in (w.lower() for w in (task.instruction, *task.paraphrases)):
        said(f"{path.name} says {words!r}; it is used as {task.instruction!r}, LIBERO's own")
    return task


class Maker:
    """Makes demonstrations in this process; keeps the scene of the last one.

    Args:
        options: What suites are built with.
        viewpoint: What to show.
        own_pictures: See `draw_hdf5`.
    """

    def __init__(self, options: SuiteOptions, viewpoint: Viewpoint, *, own_pictures: bool) -> None:
        self._options, self._viewpoint, self._own = options, viewpoint, own_pictures
        self._painters = Painters(options)
        self._loaded: tuple[str, Scene] | None = None

    def do(self, job: Job) -> str | None:
        """Make one demonstration.

        Returns:
            None, or a sentence that says why it was left out.
        """
        try:
            with _opened(job.file) as file:
                made = self._made(file["data"][job.demo], job, _orientation(file))
            write_demonstration(job.target, made)
        except (RecordCorrupt, UnusableDemonstrations) as error:
            return str(error)
        return None

    def close(self) -> None:
        """Free OpenGL memory."""
        self._painters.close()

    def _made(self, group: Any, job: Job, rows: Orientation) -> Demonstration:
        painter = None if self._own else self._painters.of(job.task)
        scene = self._scene(job.task) if painter is None else painter.scene
        actions = array(group, "actions", 7).astype(np.float32)
        states = array(group, "states", None)
        if len(states) != len(actions) or len(actions) < 2 or not np.isfinite(actions).all():
            raise RecordCorrupt(
                f"{job.demo} has {len(states)} states and {len(actions)} actions; as many of "
                f"both, at least 2, all finite, were expected. File: {job.file}"
            )
        fixtures = fixtures_of(group.attrs.get("model_file"), scene)
        glimpses, success = look_back(scene, job.task, states, fixtures)
        robot_states = np.stack([g.robot_state for g in glimpses])
        hand = job.task.robot_state.split(robot_states)["eef_pos"]
        after = observed_after(group, hand, job.file)
        if painter is not None:
            drawn = shots(painter, fixtures, glimpses, self._viewpoint)
            parts = shared.seen(drawn, painter, self._viewpoint)
            parts["proprio"] = shared.proprio(
                robot_states, job.task.robot_state, suite=job.task.suite
            )
        else:
            parts = self._own_parts(group, job, rows)
        first = 1 if painter is None and after else 0
        return Demonstration(
            info=DemonstrationInfo(
                suite=job.task.suite,
                task=job.task.name,
                index=job.index,
                instruction=job.task.instruction,
                success=success,
                steps=len(actions) - 1,
                action=job.task.action.name,
                control_hz=job.task.control_hz,
                stand_in_visuals=job.task.stand_in_visuals and painter is not None,
                source=f"{job.file.name}:{job.demo}",
            ),
            actions=actions[first : first + len(actions) - 1],
            **parts,
        )

    def _scene(self, task: Task) -> Scene:
        if self._loaded is None or self._loaded[0] != task.scene_id:
            scene = registry.suite(task.suite, self._options).scene(task)
            self._loaded = (task.scene_id, scene)
        return self._loaded[1]

    def _own_parts(self, group: Any, job: Job, rows: Orientation) -> dict[str, Any]:
        length = len(group["actions"])
        widths = {"ee_pos": 3, "ee_ori": 3, "gripper_states": 2, "joint_states": 7}
        states = [array(group, f"obs/{name}", width, length) for name, width in widths.items()]
        frames: dict[str, NDArray[np.uint8]] = {}
        for camera in self._viewpoint.cameras:
            name = f"obs/{PICTURES[camera]}"
            pictures: Any = np.asarray(group[name]) if name in group else np.zeros(0)
            if pictures.dtype != np.uint8 or pictures.shape[:1] != (length,) or pictures.ndim != 4:
                raise RecordCorrupt(
                    f"{job.demo} has no {length} pictures {name}. Leave out --own-pictures to "
                    f"draw its states. File: {job.file}"
                )
            height, width = pictures.shape[1:3]
            shared.check_aspect((height, width), self._viewpoint.size, job.file)
            frames[camera] = shared.resized(orient(pictures, rows), self._viewpoint.size)
        return {"frames": frames, "proprio": shared.proprio_from_pose(*states)}


def _opened(path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise RecordCorrupt(
            f"no HDF5 file can be read ({error}). Download it again. File: {path}"
        ) from error


def _orientation(file: Any) -> Orientation:
    name = str(file["data"].attrs.get("macros_image_convention", "opengl"))
    if name not in ROWS:
        raise RecordCorrupt(f"its pictures are {name!r}, expected {' or '.join(ROWS)}")
    return ROWS[name]


def _number(demo: str) -> int:
    digits = re.search(r"\d+", demo)
    return int(digits.group()) if digits else 0
