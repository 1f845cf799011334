"""The present of an episode with two arms, as the oracle sees it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mujoco
import numpy as np

from envs.goals import Predicate, World, holds
from envs.scene import Scene
from policies.oracle.geometry import Array, Pose
from policies.oracle.two_arms.arms import Arms
from wamsim.contracts import PrivilegedState

STILL = 0.05  # m/s: what is slower is at rest


class View:
    """One scene; holds no episode: `showing` overwrites everything."""

    def __init__(self, scene: Scene) -> None:
        # Another Scene object: a stage must not keep alive what its owner has dropped.
        self.scene = Scene(model=scene.model, info=scene.info)
        self.arms = Arms(self.scene)
        self.data = mujoco.MjData(scene.model)
        self.world = World(self.scene, self.data)

    @contextmanager
    def showing(self, state: PrivilegedState) -> Iterator[View]:
        """Show the present of an episode; afterwards the scene's model is as it was."""
        model = self.scene.model
        before = model.body_pos.copy(), model.body_quat.copy()
        try:
            self.arms.show(state)
            self.data.qpos[:] = state.qpos
            self.data.qvel[:] = state.qvel
            self._command(state.gripper_command)
            mujoco.mj_fwdPosition(model, self.data)
            mujoco.mj_fwdVelocity(model, self.data)
            yield self
        finally:
            model.body_pos[:], model.body_quat[:] = before

    def _command(self, targets: Array) -> None:
        """Show what the servos are told: arm and fingers of the left, then of the right."""
        at = 0
        for robot in self.scene.info.robots:
            for actuator in (*robot.actuators, *robot.gripper_actuators):
                self.data.ctrl[self.scene.actuator_id(actuator)] = targets[at]
                at += 1

    # ------------------------------------------------------------------- present

    def holds(self, goal: Predicate) -> bool:
        """Whether a predicate holds now."""
        return holds(goal, self.world)

    def thing(self, name: str) -> Pose:
        """Pose of a thing's body."""
        return self.body(self.scene.thing(name).body)

    def body(self, name: str) -> Pose:
        """Pose of a body."""
        i = self.scene.body_id(name)
        return Pose(self.data.xpos[i].copy(), self.data.xmat[i].reshape(3, 3).copy())

    def region(self, name: str) -> Pose:
        """Pose of a region."""
        i = self.scene.site_id(self.scene.region(name).site)
        return Pose(self.data.site_xpos[i].copy(), self.data.site_xmat[i].reshape(3, 3).copy())

    def geoms(self, name: str) -> list[int]:
        """Collision geoms of a thing."""
        return list(self.scene.thing(name).geoms)

    @property
    def table(self) -> float:
        """Height of the table's top."""
        return float(self.body("table").pos[2])

    def at_rest(self, name: str) -> bool:
        """Whether a free thing has stopped."""
        joint = self.scene.thing(name).free_joint
        assert joint is not None
        at = self.scene.dof_address(joint)
        return bool(np.linalg.norm(self.data.qvel[at : at + 3]) < STILL)

    def holding(self, arm: int) -> str | None:
        """The free thing that both fingers of a hand touch, if they are told to close."""
        robot = self.scene.info.robots[arm]
        if self.holds(Predicate("HandClosed", (f"{robot.name}_hand",))) is False:
            return None
        pads = [
            [self.scene.geom_id(name) for name in group + _wedges(group)]
            for group in robot.pad_geoms
        ]
        if not self.data.ncon:
            return None
        pairs = self.data.contact.geom
        for thing in self.scene.info.things:
            if thing.free_joint is None:
                continue
            hit = np.isin(pairs, thing.geoms)
            if all(
                np.any(
                    (np.isin(pairs[:, 0], pad) & hit[:, 1])
                    | (np.isin(pairs[:, 1], pad) & hit[:, 0])
                )
                for pad in pads
            ):
                return thing.name
        return None

    def all_open(self) -> bool:
        """Whether both hands are open."""
        return all(
            self.holds(Predicate("HandOpen", (f"{robot.name}_hand",)))
            for robot in self.scene.info.robots
        )

    def is_free(self, thing: str, at: Array, gap: float) -> bool:
        """Whether there is room for a thing, as far as other named things go."""
        own = self.scene.thing(thing)
        for other in self.scene.info.things:
            if other.name == thing or other.radius == 0.0:
                continue
            away = np.hypot(*(self.thing(other.name).pos - at)[:2])
            if away < own.radius + other.radius + gap:
                return False
        return True


def _wedges(pads: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.replace("_pad", "_wedge") for name in pads)
