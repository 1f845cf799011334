"""The oracle's own copy of a scene: where everything is, and what would happen elsewhere.

The scene's model is shared and changes under other hands, so each scene is copied once.
Two states live on the copy: the episode's present, and a probe that is posed at will to
ask whether the arm reaches a pose and what it would hit there.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.goals import Goal, World, holds
from envs.scene import Scene, Thing
from policies.oracle.geometry import (
    Array,
    Pose,
    Solids,
    from_quaternion,
    rotation_vector,
    solids_of,
    to_quaternion,
)
from wamsim.contracts import PrivilegedState

# Inverse kinematics: damping keeps it calm at the edge of reach, 2 mm and 0.02 rad are
# well inside what a grasp forgives, the null space is pulled home as the controller does it.
DAMPING = 0.01
CLOSE_ENOUGH = (0.002, 0.02)
HOMING = 0.5
ITERATIONS = 16
HOPELESS = (8, 0.03, 0.25)  # after so many iterations this far (metres, radians) away
LOWERING = 0.008  # metres per step in which a thing is let down
JOINT_MARGIN = 0.04  # radians from a joint limit


class View:
    """One scene as the oracle sees it. Holds no episode: `refresh` overwrites everything."""

    def __init__(self, scene: Scene) -> None:
        self.scene = Scene(model=copy.deepcopy(scene.model), info=scene.info)
        self.model = self.scene.model
        self.data = mujoco.MjData(self.model)
        self.probe = mujoco.MjData(self.model)
        self.world = World(self.scene, self.data)
        robot = scene.info.robot
        self.site = self.scene.site_id(robot.eef_site)
        self.arm_qpos = np.array([self.scene.qpos_address(j) for j in robot.joints])
        self.arm_dofs = np.array([self.scene.dof_address(j) for j in robot.joints])
        self.finger_qpos = np.array([self.scene.qpos_address(j) for j in robot.gripper_joints])
        joints = [self.model.joint(j).id for j in robot.joints]
        self.joint_low = self.model.jnt_range[joints, 0] + JOINT_MARGIN
        self.joint_high = self.model.jnt_range[joints, 1] - JOINT_MARGIN
        fingers = [self.model.joint(j).id for j in robot.gripper_joints]
        limits = self.model.jnt_range[fingers]
        self.fingers_open = limits[np.arange(2), np.abs(limits).argmax(1)]
        self.opening = float(np.abs(self.fingers_open).sum())
        self.home = np.array(robot.init_qpos)
        self._find_geoms()
        mujoco.mj_kinematics(self.model, self.data)
        base = self.model.body_parentid[self.model.jnt_bodyid[joints[0]]]
        self.base = self.data.xpos[base].copy()
        self._jac = np.zeros((6, self.model.nv))
        self._shapes: dict[tuple[int, tuple[int, ...]], Solids] = {}

    def _find_geoms(self) -> None:
        model = self.model
        collides = (model.geom_contype | model.geom_conaffinity) != 0
        first = model.joint(self.scene.info.robot.joints[0]).id
        root = int(model.jnt_bodyid[first])
        pedestal = int(model.body_parentid[root])
        while pedestal and model.body_parentid[pedestal]:
            pedestal = int(model.body_parentid[pedestal])
        moving, robot = np.zeros(model.nbody, bool), np.zeros(model.nbody, bool)
        for body in range(1, model.nbody):
            moving[body] = body == root or moving[model.body_parentid[body]]
            robot[body] = body in (root, pedestal) or robot[model.body_parentid[body]]
        self._root = pedestal or root
        hand = np.zeros(model.nbody, bool)
        wrist = self.scene.body_id(self.scene.info.robot.eef_body)
        for body in range(wrist, model.nbody):
            hand[body] = body == wrist or hand[model.body_parentid[body]]
        self.hand_geoms = np.flatnonzero(hand[model.geom_bodyid] & collides)
        self.robot_geoms = np.flatnonzero(moving[model.geom_bodyid] & collides)
        self.other_geoms = np.flatnonzero(~robot[model.geom_bodyid] & collides)
        self._loose = tuple(
            g for t in self.scene.info.things if t.free_joint is not None for g in t.geoms
        )
        self._bits = model.geom_contype.copy(), model.geom_conaffinity.copy()
        self._margin = model.geom_margin.copy(), model.geom_gap.copy()
        self.free_qpos = {
            t.name: self.scene.qpos_address(t.free_joint)
            for t in self.scene.info.things
            if t.free_joint is not None
        }

    # ----------------------------------------------------------------- present

    def refresh(self, state: PrivilegedState) -> None:
        """Take over the present of an episode."""
        self.scene.set_fixtures(state.fixtures)
        self.data.qpos[:] = state.qpos
        mujoco.mj_kinematics(self.model, self.data)
        self._touched, self._bounds = False, None

    _touched = False
    _bounds: tuple[Array, Array] | None = None

    @property
    def other_bounds(self) -> tuple[Array, Array]:
        """Corners of the boxes around everything but the robot, as it is now."""
        if self._bounds is None:
            low, high = self.solids(self.other_geoms).bounds()
            flat = self.model.geom_type[self.other_geoms] == mujoco.mjtGeom.mjGEOM_PLANE
            low[flat, :2], high[flat, :2] = -np.inf, np.inf
            high[flat, 2] = self.data.geom_xpos[self.other_geoms[flat], 2]
            self._bounds = low, high
        return self._bounds

    def holds(self, goal: Goal) -> bool:
        """Whether a goal holds now."""
        if not self._touched:
            mujoco.mj_collision(self.model, self.data)
            self._touched = True
        return holds(goal, self.world)

    def touches(self, first: Thing, second: Thing) -> bool:
        """Whether two things touch now."""
        if not self._touched:
            mujoco.mj_collision(self.model, self.data)
            self._touched = True
        return self.scene.touches(self.data, first, second)

    @property
    def eef(self) -> Pose:
        """Where the grip site is."""
        return self._pose_of(self.data)

    def motion(self, qvel: Array) -> tuple[Array, Array]:
        """Velocity (m/s) and spin (rad/s) of the grip site."""
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_jacSite(self.model, self.data, self._jac[:3], self._jac[3:], self.site)
        both = self._jac[:, self.arm_dofs] @ qvel[self.arm_dofs]
        return both[:3], both[3:]

    @property
    def finger_gap(self) -> float:
        """Metres between the fingertip pads."""
        return float(np.abs(self.data.qpos[self.finger_qpos]).sum())

    def pose(self, thing: Thing) -> Pose:
        """Where a thing's body is."""
        i = self.scene.body_id(thing.body)
        return Pose(self.data.xpos[i].copy(), self.data.xmat[i].reshape(3, 3).copy())

    def solids(self, geoms: Collection[int]) -> Solids:
        """Collision shapes in the world, as they are now."""
        return solids_of(self.model, self.data, np.fromiter(geoms, int))

    def shape(self, body: int, geoms: Collection[int]) -> Solids:
        """Collision shapes in the frame of a body that they are fixed to.

        Composed of the model's own constants, so equal to the last bit whatever is seen now.
        """
        key = (body, tuple(geoms))
        if key in self._shapes:
            return self._shapes[key]
        model, data = self.model, self.probe
        for geom in geoms:
            pose = Pose(model.geom_pos[geom].copy(), from_quaternion(model.geom_quat[geom]))
            at = int(model.geom_bodyid[geom])
            while at != body:
                pose = Pose(model.body_pos[at], from_quaternion(model.body_quat[at])) @ pose
                at = int(model.body_parentid[at])
            data.geom_xpos[geom] = pose.pos
            data.geom_xmat[geom] = pose.rot.ravel()
        found = solids_of(model, data, np.fromiter(geoms, int))
        self._shapes[key] = found
        return found

    def up_of(self, body: int) -> Array:
        """The vertical in a body's frame, rounded so that equal views give equal values."""
        up = self.data.xmat[body].reshape(3, 3).T @ np.array([0.0, 0.0, 1.0])
        up = np.round(up * 20) / 20
        return up / np.linalg.norm(up)

    def _pose_of(self, data: mujoco.MjData) -> Pose:
        return Pose(
            data.site_xpos[self.site].copy(), data.site_xmat[self.site].reshape(3, 3).copy()
        )

    # ------------------------------------------------------------------- probe

    def _bearing(self, pos: Array) -> float:
        return float(np.arctan2(pos[1] - self.base[1], pos[0] - self.base[0]))

    def reach(self, target: Pose, near: Array | None = None) -> Array | None:
        """Arm joints [7] at which the grip site has a pose; None when out of reach.

        The arm stays as near home as the pose allows, which is where the controller's
        null-space torque settles.

        Args:
            target: Of the grip site.
            near: Where to start looking; the home posture turned towards the target
                when None.
        """
        model, data = self.model, self.probe
        data.qpos[:] = self.data.qpos
        if near is None:
            q = self.home.copy()
            q[0] = np.clip(self._bearing(target.pos), -2.0, 2.0)
        else:
            q = near
        for iteration in range(ITERATIONS):
            data.qpos[self.arm_qpos] = q
            mujoco.mj_kinematics(model, data)
            at = self._pose_of(data)
            away, turned = target.pos - at.pos, rotation_vector(target.rot @ at.rot.T)
            mujoco.mj_comPos(model, data)
            mujoco.mj_jacSite(model, data, self._jac[:3], self._jac[3:], self.site)
            jac = self._jac[:, self.arm_dofs]
            error = np.concatenate([_shorter(away, 0.15), _shorter(turned, 0.6)])
            home = HOMING * (self.home - q)
            square = jac @ jac.T
            square.flat[::7] += DAMPING**2
            step = home + jac.T @ np.linalg.solve(square, error - jac @ home)
            if (
                away @ away < CLOSE_ENOUGH[0] ** 2
                and turned @ turned < CLOSE_ENOUGH[1] ** 2
                and np.abs(step).max() < 0.05
            ):
                return q if self._within(q) else None
            if iteration >= HOPELESS[0] and (
                away @ away > HOPELESS[1] ** 2 or turned @ turned > HOPELESS[2] ** 2
            ):
                return None
            q = np.clip(q + _shorter(step, 0.8), self.joint_low, self.joint_high)
        near = away @ away < (3 * CLOSE_ENOUGH[0]) ** 2 and turned @ turned < 0.06**2
        return q if near and self._within(q) else None

    @property
    def arm(self) -> Array:
        """Arm joints [7] now."""
        return self.data.qpos[self.arm_qpos].copy()

    def hand_at(self, arm: Array) -> Pose:
        """Grip site, had the arm these joints."""
        self.probe.qpos[:] = self.data.qpos
        self.probe.qpos[self.arm_qpos] = arm
        mujoco.mj_kinematics(self.model, self.probe)
        return self._pose_of(self.probe)

    def _within(self, q: Array) -> bool:
        return bool(np.all(q >= self.joint_low - 1e-9) and np.all(q <= self.joint_high + 1e-9))

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
        model, data = self.model, self.probe
        data.qpos[:] = self.data.qpos
        active = np.zeros(model.ngeom, bool)
        if where is not None:
            share = 1.0 if gap is None else gap / self.opening
            data.qpos[self.finger_qpos] = self.fingers_open * share
        if isinstance(where, Pose):
            active[self.hand_geoms] = True
        elif where is not None:
            data.qpos[self.arm_qpos] = where
            active[self.robot_geoms] = True
        passive = np.zeros(model.ngeom, bool)
        passive[self.other_geoms] = True
        if carried is not None:
            if carried_pose is not None:
                self.put(carried, carried_pose)
            active[list(carried.geoms)] = True
            passive[list(carried.geoms)] = False
        if ignore:
            passive[list(ignore)] = False
        for joint, q in (joints or {}).items():
            data.qpos[self.scene.qpos_address(joint)] = q
        if isinstance(where, Pose):
            with self._carried_to(where):
                contacts = self._collide(active, passive, margin)
        else:
            contacts = self._collide(active, passive, margin)
        return max(0.0, -float(contacts.min())) if len(contacts) else 0.0

    @contextmanager
    def _carried_to(self, hand: Pose) -> Iterator[None]:
        """Stand the whole robot so that its grip site has a pose, arm as it is."""
        model = self.model
        pos, quat = model.body_pos[self._root].copy(), model.body_quat[self._root].copy()
        moved = hand @ self.eef.inverse() @ Pose(pos, from_quaternion(quat))
        model.body_pos[self._root] = moved.pos
        model.body_quat[self._root] = to_quaternion(moved.rot)
        try:
            yield
        finally:
            model.body_pos[self._root], model.body_quat[self._root] = pos, quat

    def joint_range(self, joint: str) -> tuple[float, float]:
        """Lowest and highest position of a joint."""
        low, high = self.model.jnt_range[self.model.joint(joint).id]
        return float(low), float(high)

    def part_at(self, joint: str, q: float) -> Pose:
        """Pose of the body that a joint moves, had the joint this position."""
        self.probe.qpos[:] = self.data.qpos
        self.probe.qpos[self.scene.qpos_address(joint)] = q
        mujoco.mj_kinematics(self.model, self.probe)
        i = int(self.model.jnt_bodyid[self.model.joint(joint).id])
        return Pose(self.probe.xpos[i].copy(), self.probe.xmat[i].reshape(3, 3).copy())

    def put(self, thing: Thing, pose: Pose) -> None:
        """Put a free thing somewhere in the probe."""
        at = self.free_qpos[thing.name]
        self.probe.qpos[at : at + 3] = pose.pos
        self.probe.qpos[at + 3 : at + 7] = to_quaternion(pose.rot)

    def _collide(
        self, active: NDArray[np.bool_], passive: NDArray[np.bool_], margin: float
    ) -> Array:
        """Distances of contacts between two sets of geoms of the probe, less the margin."""
        model, data = self.model, self.probe
        mujoco.mj_kinematics(model, data)
        model.geom_contype[:] = active
        model.geom_conaffinity[:] = passive
        model.geom_margin[:] = np.where(active, margin, 0.0)
        model.geom_gap[:] = 0.0
        try:
            mujoco.mj_collision(model, data)
            if not data.ncon:
                return np.empty(0)
            pairs = data.contact.geom
            return data.contact.dist - model.geom_margin[pairs].max(1)
        finally:
            model.geom_contype[:], model.geom_conaffinity[:] = self._bits
            model.geom_margin[:], model.geom_gap[:] = self._margin

    def rest_height(
        self, thing: Thing, pose: Pose, low: float, *, fixtures_only: bool = False
    ) -> float:
        """Height of a thing's body origin when it is let down upon what is there now.

        Args:
            thing: A free thing.
            pose: Its orientation and its horizontal place; the height does not matter.
            low: Height at which to stop looking.
            fixtures_only: True to pass through other free things.
        """
        shape = self.shape(self.scene.body_id(thing.body), thing.geoms)
        bottom, top = shape.seen_from(Pose(np.zeros(3), pose.rot.T)).bounds()
        bottom, top = bottom.min(0) + pose.pos, top.max(0) + pose.pos
        low_corners, high_corners = self.other_bounds
        below = np.all((low_corners < top)[:, :2] & (high_corners > bottom)[:, :2], axis=1)
        below &= ~np.isin(self.other_geoms, thing.geoms)
        loose = self._loose if fixtures_only else ()
        below &= ~np.isin(self.other_geoms, loose)
        if not below.any():
            return low

        z = float(high_corners[below, 2].max() + pose.pos[2] - bottom[2])
        # MuJoCo finds no contact of thin boxes that are deep in each other: small steps,
        # then halve to 1 mm.
        step = LOWERING
        while z > low and self._free(thing, pose, z - step, loose):
            z -= step
        return self._settled(thing, pose, z, step, loose)

    def lowest_free(self, thing: Thing, pose: Pose, floor: float, roof: float) -> float | None:
        """Height of a thing's body origin when it stands between a floor and a roof.

        Returns:
            The lowest at which it touches nothing; None when it does not fit.
        """
        shape = self.shape(self.scene.body_id(thing.body), thing.geoms)
        bottom, top = shape.seen_from(Pose(np.zeros(3), pose.rot.T)).bounds()
        z, end = floor - float(bottom[:, 2].min()), roof - float(top[:, 2].max())
        while not self._free(thing, pose, z, ()):
            z += LOWERING
            if z > end + LOWERING:
                return None
        return self._settled(thing, pose, z, LOWERING, ())

    def _settled(
        self, thing: Thing, pose: Pose, z: float, step: float, ignore: Collection[int]
    ) -> float:
        """Lower a thing that is free at z, and not a step below, to within 1 mm."""
        while step > 1e-3:
            step /= 2
            if self._free(thing, pose, z - step, ignore):
                z -= step
        return z

    def _free(self, thing: Thing, pose: Pose, z: float, ignore: Collection[int]) -> bool:
        at = Pose(np.array([pose.pos[0], pose.pos[1], z]), pose.rot)
        return self.hits(None, carried=thing, carried_pose=at, ignore=ignore) == 0


def _shorter(vector: Array, limit: float) -> Array:
    length = float(np.sqrt(vector @ vector))
    return vector if length <= limit else vector * (limit / length)
