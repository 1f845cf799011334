"""Two arms: where their hands are, how they reach a pose, and what they would touch there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from envs.scene import Robot, Scene, Thing
from policies.oracle.body import Ids, subtree
from policies.oracle.geometry import Array, Pose, cross, rotation_vector, to_quaternion, unit
from wamsim.contracts import PrivilegedState

# Inverse kinematics: damped least squares; see policies/oracle/probe.py for the tolerances.
DAMPING = 0.02
ITERATIONS = 40
CLOSE_ENOUGH = (0.0015, 0.01)  # metres, radians
LONGEST = (0.10, 0.5)  # of the error that one iteration takes on
JOINT_STEP = 0.5  # radians an iteration
MARGIN = 0.03  # radians from a joint's limit
TOUCH = 0.0015  # metres of overlap that count as touching


@dataclass(frozen=True)
class ArmIds:
    """Where one arm is in the model."""

    robot: Robot
    side: str
    site: int
    qpos: Ids
    dofs: Ids
    fingers: Ids
    low: Array
    high: Array
    home: Array
    base: Array
    geoms: Ids

    @property
    def hand(self) -> str:
        """Name of its hand as a thing."""
        return f"{self.side}_hand"


def hand_pose_rotation(closing: Array, approach: Array) -> Array:
    """Orientation of a grip site: x where fingers point, y along which they close."""
    x = unit(approach)
    y = unit(closing - x * float(x @ closing))
    return np.column_stack([x, y, cross(x, y)])


class Arms:
    """A scene's two arms, with a state of its own to try things on."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.model = model = scene.model
        self.data = mujoco.MjData(model)
        self.arms = tuple(self._ids(robot) for robot in scene.info.robots)
        self._jac = np.zeros((6, model.nv))
        self._arm_geom = np.full(model.ngeom, -1)
        for i, arm in enumerate(self.arms):
            self._arm_geom[arm.geoms] = i

    def _ids(self, robot: Robot) -> ArmIds:
        scene, model = self.scene, self.model
        joints = [model.joint(j).id for j in robot.joints]
        base = int(model.body_parentid[model.jnt_bodyid[joints[0]]])
        collides = (model.geom_contype | model.geom_conaffinity) != 0
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        return ArmIds(
            robot=robot,
            side=robot.name,
            site=scene.site_id(robot.eef_site),
            qpos=np.array([scene.qpos_address(j) for j in robot.joints]),
            dofs=np.array([scene.dof_address(j) for j in robot.joints]),
            fingers=np.array([scene.qpos_address(j) for j in robot.gripper_joints]),
            low=model.jnt_range[joints, 0] + MARGIN,
            high=model.jnt_range[joints, 1] - MARGIN,
            home=np.array(robot.init_qpos),
            base=data.xpos[base].copy(),
            geoms=np.flatnonzero(subtree(model, base)[model.geom_bodyid] & collides),
        )

    def show(self, state: PrivilegedState) -> None:
        """Take over the present of an episode."""
        self.scene.set_fixtures(state.fixtures)
        self.data.qpos[:] = state.qpos
        self.data.qvel[:] = 0.0
        self.qpos = state.qpos.copy()
        mujoco.mj_kinematics(self.model, self.data)

    # ------------------------------------------------------------------- present

    def joints(self, arm: int) -> Array:
        """Joints [6] now."""
        return self.qpos[self.arms[arm].qpos].copy()

    def thing(self, name: str) -> Pose:
        """Pose of a thing's body now (call before trying anything, or after `reset`)."""
        return self.body(self.scene.thing(name).body)

    def body(self, name: str) -> Pose:
        """Pose of a body, as the model is shown."""
        i = self.scene.body_id(name)
        return Pose(self.data.xpos[i].copy(), self.data.xmat[i].reshape(3, 3).copy())

    def region(self, name: str) -> Pose:
        """Pose of a region, as the model is shown."""
        i = self.scene.site_id(self.scene.region(name).site)
        return Pose(self.data.site_xpos[i].copy(), self.data.site_xmat[i].reshape(3, 3).copy())

    def reset(self) -> None:
        """Show the present again."""
        self.data.qpos[:] = self.qpos
        mujoco.mj_kinematics(self.model, self.data)

    def hand(self, arm: int, q: Array | None = None) -> Pose:
        """Grip site now, or had the arm the joints q."""
        ids = self.arms[arm]
        self.data.qpos[:] = self.qpos
        if q is not None:
            self.data.qpos[ids.qpos] = q
        mujoco.mj_kinematics(self.model, self.data)
        return self._site(arm)

    def _site(self, arm: int) -> Pose:
        i = self.arms[arm].site
        return Pose(self.data.site_xpos[i].copy(), self.data.site_xmat[i].reshape(3, 3).copy())

    # -------------------------------------------------------------------- reach

    def reach(self, arm: int, target: Pose, near: Array | None = None) -> Array | None:
        """Joints [6] at which the grip site has a pose; None when it cannot be found.

        Args:
            arm: Number of the arm.
            target: Of the grip site.
            near: Where to start; when None, home turned towards the target with the wrist
                turned as the target asks.
        """
        q = self._solve(arm, target, near) if near is not None else None
        if q is None:
            q = self._solve(arm, target, self._guess(arm, target))
        self.reset()
        return q

    def _guess(self, arm: int, target: Pose) -> Array:
        ids = self.arms[arm]
        away = target.pos[:2] - ids.base[:2]
        facing = np.pi if ids.base[0] > 0 else 0.0
        q = ids.home.copy()
        bearing = np.arctan2(away[1], away[0]) - facing
        q[0] = (bearing + np.pi) % (2 * np.pi) - np.pi
        # Pitch of the fingers below the horizontal, brought about by the wrist alone.
        q[4] = np.clip(np.arcsin(-np.clip(target.rot[2, 0], -1, 1)) - q[1] - q[2], -1.7, 2.1)
        at = self._forward(arm, q)
        x = target.rot[:, 0]
        y = at.rot[:, 1] - x * float(x @ at.rot[:, 1])
        turned = np.arctan2(float(cross(y, target.rot[:, 1]) @ x), float(y @ target.rot[:, 1]))
        q[5] = turned
        return q

    def _forward(self, arm: int, q: Array) -> Pose:
        self.data.qpos[self.arms[arm].qpos] = q
        mujoco.mj_kinematics(self.model, self.data)
        return self._site(arm)

    def _solve(self, arm: int, target: Pose, near: Array) -> Array | None:
        ids, model, data = self.arms[arm], self.model, self.data
        q = np.clip(near, ids.low, ids.high)
        for _ in range(ITERATIONS):
            at = self._forward(arm, q)
            away, turned = target.pos - at.pos, rotation_vector(target.rot @ at.rot.T)
            far, off = np.linalg.norm(away), np.linalg.norm(turned)
            if far < CLOSE_ENOUGH[0] and off < CLOSE_ENOUGH[1]:
                return q
            mujoco.mj_comPos(model, data)
            mujoco.mj_jacSite(model, data, self._jac[:3], self._jac[3:], ids.site)
            jac = self._jac[:, ids.dofs]
            error = np.concatenate(
                [away * min(1.0, LONGEST[0] / max(far, 1e-9)),
                 turned * min(1.0, LONGEST[1] / max(off, 1e-9))]
            )  # fmt: skip
            square = jac @ jac.T
            square.flat[::7] += DAMPING**2
            step = jac.T @ np.linalg.solve(square, error)
            q = np.clip(q + np.clip(step, -JOINT_STEP, JOINT_STEP), ids.low, ids.high)
        return None

    # ------------------------------------------------------------------ touching

    def touches(
        self,
        joints: Mapping[int, Array],
        *,
        opening: Mapping[int, float] | None = None,
        ignore: Collection[int] = (),
        carried: Mapping[str, Pose] | None = None,
    ) -> bool:
        """Whether arms, or what they carry, would overlap something else, or each other.

        Args:
            joints: arm -> joints; other arms are as they are now.
            opening: arm -> metres from the middle to each finger's slide; as now when left out.
            ignore: Geoms whose contacts do not count.
            carried: Free things that are elsewhere, in a hand: name -> pose.
        """
        data = self.data
        data.qpos[:] = self.qpos
        for arm, q in joints.items():
            data.qpos[self.arms[arm].qpos] = q
        for arm, width in (opening or {}).items():
            data.qpos[self.arms[arm].fingers] = (width, -width)
        mine = self._arm_geom >= 0
        for name, pose in (carried or {}).items():
            self._put(self.scene.thing(name), pose)
            mine = mine.copy()
            mine[list(self.scene.thing(name).geoms)] = True
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_collision(self.model, data)
        found = False
        if data.ncon:
            pairs, dist = data.contact.geom, data.contact.dist
            a, b = pairs[:, 0], pairs[:, 1]
            other = self._arm_geom[a] != self._arm_geom[b]
            counts = (mine[a] ^ mine[b]) | (
                (self._arm_geom[a] >= 0) & (self._arm_geom[b] >= 0) & other
            )
            out = np.isin(a, list(ignore)) | np.isin(b, list(ignore))
            moving = np.isin(self._arm_geom[a], list(joints)) | np.isin(
                self._arm_geom[b], list(joints)
            )
            for name in carried or {}:
                geoms = self.scene.thing(name).geoms
                moving |= np.isin(a, geoms) | np.isin(b, geoms)
            found = bool(np.any(counts & moving & ~out & (dist < -TOUCH)))
        self.reset()
        return found

    def _put(self, thing: Thing, pose: Pose) -> None:
        assert thing.free_joint is not None
        at = self.scene.qpos_address(thing.free_joint)
        self.data.qpos[at : at + 3] = pose.pos
        self.data.qpos[at + 3 : at + 7] = to_quaternion(pose.rot)

    def nearest(self, pos: Array) -> Sequence[int]:
        """Numbers of the arms, the one whose base is nearer first."""
        away = [float(np.hypot(*(pos[:2] - arm.base[:2]))) for arm in self.arms]
        return sorted(range(len(away)), key=lambda i: away[i])
