"""Which joints and geoms of a scene are the robot's, its hand's and everybody else's."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.scene import Scene
from policies.oracle.geometry import Array

Ids = NDArray[np.int64]

JOINT_MARGIN = 0.04  # radians from a joint limit


class Body:
    """A scene's arm and hand by their numbers, looked up once.

    Attributes:
        site: The grip site.
        arm_qpos, arm_dofs, finger_qpos: Addresses of arm and finger joints.
        joint_low, joint_high: Limits of the arm joints, less a margin.
        home: Arm joints of the nominal reset.
        fingers_open: Finger joints of the open hand; `opening` metres between the pads.
        fingers: Their bodies.
        base: Where the arm stands [3].
        root: The body that carries the whole robot.
        hand_geoms, robot_geoms: Collision geoms of the hand, and of all that the arm moves.
        other_geoms: Collision geoms of everything that is not the robot or its pedestal.
    """

    def __init__(self, scene: Scene) -> None:
        model, robot = scene.model, scene.info.robot
        self.site = scene.site_id(robot.eef_site)
        self.arm_qpos: Ids = np.array([scene.qpos_address(j) for j in robot.joints])
        self.arm_dofs: Ids = np.array([scene.dof_address(j) for j in robot.joints])
        self.finger_qpos: Ids = np.array([scene.qpos_address(j) for j in robot.gripper_joints])
        joints = [model.joint(j).id for j in robot.joints]
        self.joint_low: Array = model.jnt_range[joints, 0] + JOINT_MARGIN
        self.joint_high: Array = model.jnt_range[joints, 1] - JOINT_MARGIN
        self.home: Array = np.array(robot.init_qpos, np.float64)
        gripper = [model.joint(j).id for j in robot.gripper_joints]
        self.fingers: Ids = model.jnt_bodyid[gripper].astype(np.int64)
        limits = model.jnt_range[gripper]
        self.fingers_open: Array = limits[np.arange(2), np.abs(limits).argmax(1)]
        self.opening = float(np.abs(self.fingers_open).sum())

        first = int(model.jnt_bodyid[joints[0]])
        pedestal = int(model.body_parentid[first])
        base = pedestal
        while pedestal and model.body_parentid[pedestal]:
            pedestal = int(model.body_parentid[pedestal])
        self.root = pedestal or first
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        self.base: Array = data.xpos[base].copy()
        collides = (model.geom_contype | model.geom_conaffinity) != 0
        self.hand_geoms = _geoms(model, scene.body_id(robot.eef_body), collides)
        self.robot_geoms = _geoms(model, first, collides)
        mine = _geoms(model, self.root, collides)
        self.other_geoms = np.setdiff1d(np.flatnonzero(collides), mine)


def _geoms(model: mujoco.MjModel, root: int, collides: NDArray[np.bool_]) -> Ids:
    """Collision geoms of a body and of all below it."""
    return np.flatnonzero(subtree(model, root)[model.geom_bodyid] & collides)


def subtree(model: mujoco.MjModel, root: int) -> NDArray[np.bool_]:
    """Which bodies hang on a body, itself included, [nbody]."""
    inside = np.zeros(model.nbody, bool)
    for body in range(root, model.nbody):
        inside[body] = body == root or inside[model.body_parentid[body]]
    return inside
