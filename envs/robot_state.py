"""What a scene's robot reports at each observation, and where it is read.

Fields of an arm (width): joint_pos, joint_vel (its joints), eef_pos (3, grip site), eef_quat
(4, xyzw, eef body), gripper_qpos, gripper_qvel (2), and where it has a `gripper_span`
gripper_open (1, 0 closed to 1 open). Among several arms, each field begins with the arm's
name. A platform adds base_pos (3), base_quat (4, xyzw) and torso (1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs import servos
from wamsim.conventions import RobotStateLayout


def layout(info: Any) -> RobotStateLayout:
    """Names and widths of the robot state of a scene (`SceneInfo`)."""
    fields: list[tuple[str, int]] = []
    for robot in info.robots:
        n, before = len(robot.joints), f"{robot.name}_" if robot.name else ""
        fields += [
            (f"{before}joint_pos", n),
            (f"{before}joint_vel", n),
            (f"{before}eef_pos", 3),
            (f"{before}eef_quat", 4),
            (f"{before}gripper_qpos", len(robot.gripper_joints)),
            (f"{before}gripper_qvel", len(robot.gripper_joints)),
        ]
        if robot.gripper_span is not None:
            fields.append((f"{before}gripper_open", 1))
    if info.platform is not None:
        fields += [("base_pos", 3), ("base_quat", 4), ("torso", 1)]
    return RobotStateLayout(fields=tuple(fields))


def sources(scene: Any) -> servos.Gather:
    """Where each number of a scene's robot state is read."""
    rows: list[tuple[int, int, float, float]] = []

    def read(kind: int, indices: Any) -> None:
        rows.extend((kind, int(i), 0.0, 1.0) for i in indices)

    def quaternion(body: str) -> None:  # xyzw of MuJoCo's wxyz
        at = 4 * scene.body_id(body)
        read(servos.GATHER_QUAT, (at + 1, at + 2, at + 3, at))

    def three(row: int) -> range:
        return range(3 * row, 3 * row + 3)

    for robot in scene.info.robots:
        read(servos.GATHER_QPOS, map(scene.qpos_address, robot.joints))
        read(servos.GATHER_QVEL, map(scene.dof_address, robot.joints))
        read(servos.GATHER_SITE, three(scene.site_id(robot.eef_site)))
        quaternion(robot.eef_body)
        read(servos.GATHER_QPOS, map(scene.qpos_address, robot.gripper_joints))
        read(servos.GATHER_QVEL, map(scene.dof_address, robot.gripper_joints))
        if robot.gripper_span is not None:
            closed, opened = robot.gripper_span
            finger = scene.qpos_address(robot.gripper_joints[0])
            rows.append((servos.GATHER_FRACTION, finger, closed, 1.0 / (opened - closed)))
    platform = scene.info.platform
    if platform is not None:
        read(servos.GATHER_POS, three(scene.body_id(platform.body)))
        quaternion(platform.body)
        read(servos.GATHER_QPOS, [scene.qpos_address(platform.torso_joint)])
    kind, index, offset, scale = zip(*rows, strict=True)
    return servos.Gather(
        kind=np.array(kind, np.int64),
        index=np.array(index, np.int64),
        offset=np.array(offset, np.float64),
        scale=np.array(scale, np.float64),
    )
