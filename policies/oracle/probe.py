"""What if: would the arm reach a pose, what would it hit there, where would a thing rest.

Nothing is stepped. A second state is posed at will, and MuJoCo is asked for contacts
between the robot (with what it holds) and everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.scene import Scene, Thing
from policies.oracle.body import Body
from policies.oracle.geometry import Array, Pose, from_quaternion, rotation_vector, to_quaternion

# Inverse kinematics: damping keeps it calm at the edge of reach, 2 mm and 0.02 rad are
# well inside what a grasp forgives, the null space is pulled home as the controller does it.
DAMPING = 0.01
CLOSE_ENOUGH = (0.002, 0.02)
STILL = 0.05  # radians: the largest step of a joint when it has converged
NEAR_ENOUGH = (0.006, 0.06)  # what is taken when the iterations have run out
HOMING = 0.5
ITERATIONS = 16
HOPELESS = (8, 0.03, 0.25)  # after so many iterations this far (metres, radians) away
LONGEST = (0.15, 0.6, 0.8)  # metres, radians of the error, radians of the joints, per iteration


class Probe:
    """A scene with two states of its own: the present, and one to try things on.

    The model is the scene's own (LIBERO's take 100 to 180 MB). Whatever is written into it
    is put back before the call ends that wrote it.
    """

    def __init__(self, scene: Scene) -> None:
        # Another Scene object: a stage must not keep alive what its owner has dropped.
        self.scene = Scene(model=scene.model, info=scene.info)
        self.model = self.scene.model
        self.data = mujoco.MjData(self.model)
        self._probe = mujoco.MjData(self.model)
        self.body = Body(self.scene)
        self._bits = self.model.geom_contype.copy(), self.model.geom_conaffinity.copy()
        self._margin = self.model.geom_margin.copy(), self.model.geom_gap.copy()
        self._jac = np.zeros((6, self.model.nv))

    @property
    def eef(self) -> Pose:
        """Where the grip site is now."""
        return self._hand(self.data)

    @property
    def arm(self) -> Array:
        """Arm joints [7] now."""
        return self.data.qpos[self.body.arm_qpos].copy()

    def _hand(self, data: mujoco.MjData) -> Pose:
        site = self.body.site
        return Pose(data.site_xpos[site].copy(), data.site_xmat[site].reshape(3, 3).copy())

    def _jacobian(self, data: mujoco.MjData) -> Array:
        """Of the grip site with respect to the arm joints, [6, 7]."""
        mujoco.mj_comPos(self.model, data)
        mujoco.mj_jacSite(self.model, data, self._jac[:3], self._jac[3:], self.body.site)
        return self._jac[:, self.body.arm_dofs]

    # ------------------------------------------------------------------- reach

    def hand_at(self, arm: Array) -> Pose:
        """Grip site, had the arm these joints."""
        self._probe.qpos[:] = self.data.qpos
        self._probe.qpos[self.body.arm_qpos] = arm
        mujoco.mj_kinematics(self.model, self._probe)
        return self._hand(self._probe)

    def reach(self, target: Pose, near: Array | None = None) -> Array | None:
        """Arm joints [7] at which the grip site has a pose; None when out of reach.

        The arm stays as near home as the pose allows, which is where the controller's
        null-space torque settles.

        Args:
            target: Of the grip site.
            near: Where to start looking; the home posture turned towards the target
                when None.
        """
        model, data, body = self.model, self._probe, self.body
        data.qpos[:] = self.data.qpos
        q = near
        if q is None:
            bearing = np.arctan2(target.pos[1] - body.base[1], target.pos[0] - body.base[0])
            q = body.home.copy()
            q[0] = np.clip(bearing, -2.0, 2.0)
        for iteration in range(ITERATIONS):
            data.qpos[body.arm_qpos] = q
            mujoco.mj_kinematics(model, data)
            at = self._hand(data)
            away, turned = target.pos - at.pos, rotation_vector(target.rot @ at.rot.T)
            if iteration >= HOPELESS[0] and not _within(away, turned, HOPELESS[1:]):
                return None
            jac = self._jacobian(data)
            error = np.concatenate([_shorter(away, LONGEST[0]), _shorter(turned, LONGEST[1])])
            home = HOMING * (body.home - q)
            square = jac @ jac.T
            square.flat[::7] += DAMPING**2
            step = home + jac.T @ np.linalg.solve(square, error - jac @ home)
            last = iteration == ITERATIONS - 1
            done = _within(away, turned, CLOSE_ENOUGH) and np.abs(step).max() < STILL
            if done or (last and _within(away, turned, NEAR_ENOUGH)):
                inside = np.all((q >= body.joint_low - 1e-9) & (q <= body.joint_high + 1e-9))
                return q if inside else None
            q = np.clip(q + _shorter(step, LONGEST[2]), body.joint_low, body.joint_high)
        return None

    # -------------------------------------------------------------------- hits

    def hits(
        self,
        where: Array | Pose | None,
        *,
        gap: float | None = None,
        carried: Thing | None = None,
        carried_pose: Pose | None = None,
        ignore: Collection[int] = (),
        joints: Mapping[str, float] | None = None,
        margin: float = 0.0,
    ) -> float:
        """Depth in metres of the worst overlap, were the robot elsewhere; 0 when clear.

        Args:
            where: Arm joints [7]; or a pose of the grip site, which asks about the hand
                alone and needs no inverse kinematics; or None, which leaves the robot out
                and asks about the carried thing.
            gap: Metres between the pads; None for wide open.
            carried: Thing in the hand.
            carried_pose: Its pose; the present one when None.
            ignore: Geoms whose contact with the arm, the hand and what is carried does
                not count.
            joints: Positions of articulated joints; the others are as they are now.
            margin: Distance that still counts as overlap.
        """
        data, body = self._probe, self.body
        data.qpos[:] = self.data.qpos
        active = np.zeros(self.model.ngeom, bool)
        if where is not None:
            share = 1.0 if gap is None else gap / body.opening
            data.qpos[body.finger_qpos] = body.fingers_open * share
        if isinstance(where, Pose):
            active[body.hand_geoms] = True
        elif where is not None:
            data.qpos[body.arm_qpos] = where
            active[body.robot_geoms] = True
        passive = np.zeros(self.model.ngeom, bool)
        passive[body.other_geoms] = True
        if carried is not None:
            if carried_pose is not None:
                self._put(carried, carried_pose)
            active[list(carried.geoms)] = True
            passive[list(carried.geoms)] = False
        passive[list(ignore)] = False
        for joint, q in (joints or {}).items():
            data.qpos[self.scene.qpos_address(joint)] = q
        if isinstance(where, Pose):
            with self._carried_to(where):
                distances = self._distances(active, passive, margin)
        else:
            distances = self._distances(active, passive, margin)
        return max(0.0, -float(distances.min())) if len(distances) else 0.0

    def _put(self, thing: Thing, pose: Pose) -> None:
        """Put a free thing somewhere in the probe."""
        assert thing.free_joint is not None
        at = self.scene.qpos_address(thing.free_joint)
        self._probe.qpos[at : at + 3] = pose.pos
        self._probe.qpos[at + 3 : at + 7] = to_quaternion(pose.rot)

    @contextmanager
    def _carried_to(self, hand: Pose) -> Iterator[None]:
        """Stand the whole robot so that its grip site has a pose, arm as it is."""
        model, root = self.model, self.body.root
        pos, quat = model.body_pos[root].copy(), model.body_quat[root].copy()
        moved = hand @ self.eef.inverse() @ Pose(pos, from_quaternion(quat))
        model.body_pos[root] = moved.pos
        model.body_quat[root] = to_quaternion(moved.rot)
        try:
            yield
        finally:
            model.body_pos[root], model.body_quat[root] = pos, quat

    def _distances(
        self, active: NDArray[np.bool_], passive: NDArray[np.bool_], margin: float
    ) -> Array:
        """Distances of contacts between two sets of geoms of the probe, less the margin."""
        model, data = self.model, self._probe
        mujoco.mj_kinematics(model, data)
        model.geom_contype[:] = active
        model.geom_conaffinity[:] = passive
        model.geom_margin[:] = np.where(active, margin, 0.0)
        model.geom_gap[:] = 0.0
        try:
            mujoco.mj_collision(model, data)
            return data.contact.dist - margin if data.ncon else np.empty(0)
        finally:
            model.geom_contype[:], model.geom_conaffinity[:] = self._bits
            model.geom_margin[:], model.geom_gap[:] = self._margin

    # ------------------------------------------------------------------- parts

    def joint_range(self, joint: str) -> tuple[float, float]:
        """Lowest and highest position of a joint."""
        low, high = self.model.jnt_range[self.model.joint(joint).id]
        return float(low), float(high)

    def part_at(self, joint: str, q: float) -> Pose:
        """Pose of the body that a joint moves, had the joint this position."""
        data = self._probe
        data.qpos[:] = self.data.qpos
        data.qpos[self.scene.qpos_address(joint)] = q
        mujoco.mj_kinematics(self.model, data)
        i = int(self.model.jnt_bodyid[self.model.joint(joint).id])
        return Pose(data.xpos[i].copy(), data.xmat[i].reshape(3, 3).copy())


def _within(away: Array, turned: Array, limits: tuple[float, ...]) -> bool:
    return bool(away @ away < limits[0] ** 2 and turned @ turned < limits[1] ** 2)


def _shorter(vector: Array, limit: float) -> Array:
    length = float(np.sqrt(vector @ vector))
    return vector if length <= limit else vector * (limit / length)
