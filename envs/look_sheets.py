"""Looks, sheet by sheet: the arm is put where it shall stand, and what is seen is drawn.

Which looks there are is decided in `envs.looks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs import replay
from envs.demonstration_sources.shared import Viewpoint, proprio
from envs.goals import parse
from envs.scene import Scene
from wamsim.contracts import EpisodeKey, Task
from wamsim.looks import Looks, LooksInfo, write_looks

if TYPE_CHECKING:
    from envs.rendering import Painter
    from envs.scene import SuiteOptions

HAND = "eef_pos"  # the field of the robot state that `Looks.place` shares its frame with

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The looks of one file to draw.

    Attributes:
        task: Whose initial states.
        asked: (instruction, thing's name), K of them.
        first_trial: The lowest trial of the task's looks.
        trials: N trials, rising.
        target: The file.
        source: See `LooksInfo.source`.
        arms: [N, M, J] joint positions of arm and fingers (see `arm_joints`); none until
            chosen. In every second look it is the one of M whose hand is nearest to something
            that can be asked for, in the others the first.
        states: [N, M, R] the robot state of the same moment.
    """

    task: Task
    asked: tuple[tuple[str, str], ...]
    first_trial: int
    trials: tuple[int, ...]
    target: Path
    source: str
    arms: Array
    states: Array


def arm_joints(scene: Scene) -> list[int]:
    """Where in qpos arm and fingers stand."""
    robot = scene.info.robot
    return [scene.qpos_address(j) for j in (*robot.joints, *robot.gripper_joints)]


class Sketcher:
    """Draws looks in this process; keeps the scene of the last ones.

    Args:
        options: What suites are built with.
        viewpoint: What to draw.
        run_seed: Of the run, for fixture poses.
    """

    def __init__(self, options: SuiteOptions, viewpoint: Viewpoint, run_seed: int) -> None:
        self._painters = replay.Painters(options)
        self._viewpoint, self._seed = viewpoint, run_seed

    def do(self, job: Sheet) -> str | None:
        """Draw one file's looks; they are never left out."""
        write_looks(job.target, self._drawn(job))
        return None

    def close(self) -> None:
        """Free OpenGL memory."""
        self._painters.close()

    def _drawn(self, sheet: Sheet) -> Looks:
        from envs.rendering import intrinsics
        from envs.runtime import Glimpse, Look, Simulation, shoot

        task, view = sheet.task, self._viewpoint
        backend, painter = self._painters.backend(task), self._painters.of(task)
        scene = painter.scene
        simulation = Simulation(scene, parse(task.goal))
        things = [scene.thing(name) for _, name in sheet.asked]
        free = [scene.qpos_address(t.free_joint) for t in things if t.free_joint is not None]
        joints = arm_joints(scene)
        look = Look(cameras=view.cameras, size=view.size, depth=view.depth)
        count, cameras = len(sheet.trials), range(len(view.cameras))
        frames = np.empty((len(view.cameras), count, *view.size, 3), np.uint8)
        pixel = np.empty((len(view.cameras), count, len(things), 2), np.float32)
        ahead = np.empty((len(view.cameras), count, len(things)), bool)
        place = np.empty((count, len(things), 3), np.float32)
        depth = np.empty((len(view.cameras), count, *view.size), np.float32)
        poses = np.empty((len(view.cameras), count, 4, 4), np.float32)
        hands = task.robot_state.split(sheet.states)[HAND]
        taken = np.zeros(count, np.int64)
        began: tuple[int, Glimpse] | None = None
        for row, trial in enumerate(sheet.trials):
            if began is None or began[0] != trial:
                key = EpisodeKey(task.suite, task.name, trial)
                start = backend.start(scene, task, key, self._seed)
                began = trial, simulation.start(start)
            qpos = began[1].seen_qpos.copy()
            middles = np.stack([qpos[at : at + 3] for at in free])
            if row % 2:
                away = hands[row][:, None] - middles
                taken[row] = np.linalg.norm(away, axis=2).min(1).argmin()
            qpos[joints] = sheet.arms[row, taken[row]]
            glimpse = Glimpse(seen_qpos=qpos, lit=began[1].lit, robot_state=np.zeros(0))
            place[row] = middles
            frames[:, row], metres = shoot(painter, simulation.fixtures, glimpse, look)
            if metres is not None:
                depth[:, row] = metres
            for c in cameras:
                poses[c, row] = painter.camera_pose(view.cameras[c])
                pixel[c, row], ahead[c, row] = project(painter, view.cameras[c], view.size, middles)
        states = sheet.states[np.arange(count), taken]
        by_camera = dict(zip(view.cameras, cameras, strict=True))
        measured = by_camera if view.depth else {}
        return Looks(
            info=LooksInfo(
                suite=task.suite,
                task=task.name,
                instructions=tuple(words for words, _ in sheet.asked),
                things=tuple(name for _, name in sheet.asked),
                first_trial=sheet.first_trial,
                stand_in_visuals=task.stand_in_visuals,
                source=sheet.source,
            ),
            trial=np.array(sheet.trials, np.int64),
            hand=task.robot_state.split(states)[HAND].astype(np.float32),
            place=place,
            frames={camera: frames[c] for camera, c in by_camera.items()},
            pixel={camera: pixel[c] for camera, c in by_camera.items()},
            ahead={camera: ahead[c] for camera, c in by_camera.items()},
            proprio=proprio(states, task.robot_state, suite=task.suite),
            depth={camera: depth[c] for camera, c in measured.items()},
            extrinsics={camera: poses[c] for camera, c in measured.items()},
            intrinsics={
                camera: intrinsics(scene, camera, view.size).astype(np.float32)
                for camera in measured
            },
        )


def project(
    painter: Painter, camera: str, size: tuple[int, int], points: Array
) -> tuple[Array, NDArray[np.bool_]]:
    """Say where points of the posed scene are in its picture.

    Args:
        painter: Whose scene is posed.
        camera: Public camera name.
        size: (height, width) of the picture.
        points: [K, 3] world metres.

    Returns:
        [K, 2] (column, row) in pixels of the upright picture, and bool [K], whether the point
        lies before the camera.
    """
    from envs.rendering import intrinsics

    pose = painter.camera_pose(camera)
    seen = (points - pose[:3, 3]) @ pose[:3, :3]  # x right, y down, z ahead
    ahead = seen[:, 2] > 0
    flat = seen @ intrinsics(painter.scene, camera, size).T
    return flat[:, :2] / np.where(ahead, flat[:, 2], 1.0)[:, None], ahead
