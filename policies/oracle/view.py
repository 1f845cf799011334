"""A scene in the oracle's eyes: where everything is, and where things come to rest."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import mujoco
import numpy as np

from envs.goals import Goal, World, holds
from envs.scene import Scene, Thing
from policies.oracle.geometry import Array, Pose, Solids, from_quaternion, solids_of
from policies.oracle.probe import Probe
from wamsim.contracts import PrivilegedState

LOWERING = 0.008  # metres per step in which a thing is let down
# What hangs higher than this above the place, metres, leaves room for hand and wrist.
HEADROOM = 0.5
UPS = 20  # parts of 1 to which the vertical is rounded in a body's frame


class View(Probe):
    """One scene as the oracle sees it. Holds no episode: `showing` overwrites everything."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.world = World(self.scene, self.data)
        things = self.scene.info.things
        self._loose = tuple(g for t in things if t.free_joint is not None for g in t.geoms)
        self._shapes: dict[tuple[int, tuple[int, ...]], Solids] = {}
        self._touched = False
        self._bounds: tuple[Array, Array] | None = None

    @contextmanager
    def showing(self, state: PrivilegedState) -> Iterator[View]:
        """Show the present of an episode; afterwards the scene's model is as it was."""
        model = self.model
        before = model.body_pos.copy(), model.body_quat.copy()
        try:
            self.scene.set_fixtures(state.fixtures)
            self.data.qpos[:] = state.qpos
            self._moved()
            yield self
        finally:
            model.body_pos[:], model.body_quat[:] = before

    @contextmanager
    def supposing(self, joint: str, q: float) -> Iterator[None]:
        """Show the present as if a joint had another position."""
        at = self.scene.qpos_address(joint)
        now = float(self.data.qpos[at])
        try:
            self.data.qpos[at] = q
            self._moved()
            yield
        finally:
            self.data.qpos[at] = now
            self._moved()

    def _moved(self) -> None:
        mujoco.mj_kinematics(self.model, self.data)
        self._touched, self._bounds = False, None

    # ----------------------------------------------------------------- present

    def holds(self, goal: Goal) -> bool:
        """Whether a goal holds now."""
        self._touch()
        return holds(goal, self.world)

    def _touch(self) -> None:
        """Find out what touches what."""
        if not self._touched:
            mujoco.mj_collision(self.model, self.data)
            self._touched = True

    def motion(self, qvel: Array) -> tuple[Array, Array]:
        """Velocity (m/s) and spin (rad/s) of the grip site."""
        both = self._jacobian(self.data) @ qvel[self.body.arm_dofs]
        return both[:3], both[3:]

    @property
    def finger_gap(self) -> float:
        """Metres between the fingertip pads."""
        return float(np.abs(self.data.qpos[self.body.finger_qpos]).sum())

    def pinches(self, thing: Thing) -> bool:
        """Whether a thing is between the fingers and touches both."""
        self._touch()
        bodies = self.model.geom_bodyid
        touched: set[int] = set()
        for pair in self.data.contact.geom:
            for own, other in (pair, pair[::-1]):
                if int(other) in thing.geoms and bodies[own] in self.body.fingers:
                    touched.add(int(bodies[own]))
        return len(touched) == len(self.body.fingers)

    def pose(self, thing: Thing) -> Pose:
        """Where a thing's body is."""
        i = self.scene.body_id(thing.body)
        return Pose(self.data.xpos[i].copy(), self.data.xmat[i].reshape(3, 3).copy())

    def solids(self, geoms: Collection[int]) -> Solids:
        """Collision shapes in the world, as they are now."""
        return solids_of(self.model, self.data, list(geoms))

    @property
    def other_bounds(self) -> tuple[Array, Array]:
        """Corners of the boxes around everything but the robot, as it is now."""
        if self._bounds is None:
            others = self.body.other_geoms
            low, high = solids_of(self.model, self.data, others.tolist()).bounds()
            flat = self.model.geom_type[others] == mujoco.mjtGeom.mjGEOM_PLANE
            low[flat, :2], high[flat, :2] = -np.inf, np.inf
            high[flat, 2] = self.data.geom_xpos[others[flat], 2]
            self._bounds = low, high
        return self._bounds

    def up_of(self, body: int) -> Array:
        """The vertical in a body's frame, rounded so that equal views give equal values."""
        up = self.data.xmat[body].reshape(3, 3).T @ np.array([0.0, 0.0, 1.0])
        up = np.round(up * UPS) / UPS
        return up / np.linalg.norm(up)

    def shape(self, body: int, geoms: Collection[int]) -> Solids:
        """Collision shapes in the frame of a body that they are fixed to.

        Composed of the model's own constants, so equal to the last bit whatever is seen now.
        """
        key = (body, tuple(geoms))
        if key in self._shapes:
            return self._shapes[key]
        model, data = self.model, self._probe
        for geom in geoms:
            pose = Pose(model.geom_pos[geom].copy(), from_quaternion(model.geom_quat[geom]))
            at = int(model.geom_bodyid[geom])
            while at != body:
                pose = Pose(model.body_pos[at], from_quaternion(model.body_quat[at])) @ pose
                at = int(model.body_parentid[at])
            data.geom_xpos[geom] = pose.pos
            data.geom_xmat[geom] = pose.rot.ravel()
        self._shapes[key] = solids_of(model, data, list(geoms))
        return self._shapes[key]

    # -------------------------------------------------------------------- rest

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
        bottom, top = self._extent(thing, pose)
        low_corners, high_corners = self.other_bounds
        below = np.all((low_corners[:, :2] < top[:2]) & (high_corners[:, :2] > bottom[:2]), axis=1)
        below &= low_corners[:, 2] < low + HEADROOM
        passed = self._loose if fixtures_only else thing.geoms
        below &= ~np.isin(self.body.other_geoms, passed)
        if not below.any():
            return low
        z = float(high_corners[below, 2].max() + pose.pos[2] - bottom[2])
        # MuJoCo finds no contact of thin boxes that are deep in each other: small steps.
        while z > low and self._is_free(thing, pose, z - LOWERING, passed):
            z -= LOWERING
        return self._settled(thing, pose, z, passed)

    def lowest_free(self, thing: Thing, pose: Pose, floor: float, roof: float) -> float | None:
        """Height of a thing's body origin when it stands between a floor and a roof.

        Returns:
            The lowest at which it touches nothing; None when it does not fit.
        """
        bottom, top = self._extent(thing, pose)
        z = floor + float(pose.pos[2] - bottom[2])
        highest = roof + float(pose.pos[2] - top[2])
        while not self._is_free(thing, pose, z, ()):
            z += LOWERING
            if z > highest + LOWERING:
                return None
        return self._settled(thing, pose, z, ())

    def _extent(self, thing: Thing, pose: Pose) -> tuple[Array, Array]:
        """Lowest and highest corner of a box around a thing, were it there."""
        shape = self.shape(self.scene.body_id(thing.body), thing.geoms)
        low, high = shape.seen_from(Pose(np.zeros(3), pose.rot.T)).bounds()
        return low.min(0) + pose.pos, high.max(0) + pose.pos

    def _settled(self, thing: Thing, pose: Pose, z: float, ignore: Collection[int]) -> float:
        """Lower a thing that is free at z, and not a step below, to within 1 mm."""
        step = LOWERING
        while step > 1e-3:
            step /= 2
            if self._is_free(thing, pose, z - step, ignore):
                z -= step
        return z

    def _is_free(self, thing: Thing, pose: Pose, z: float, ignore: Collection[int]) -> bool:
        at = Pose(np.array([pose.pos[0], pose.pos[1], z]), pose.rot)
        return self.hits(None, carried=thing, carried_pose=at, ignore=ignore) == 0
