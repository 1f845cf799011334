"""The one runtime: steps any scene under any policy's actions.

robosuite and LIBERO build scenes; from there on every suite is stepped here. A
`Simulation` is one episode in progress; several can share a scene's model, since the
little that differs between them (fixture poses) is written before each of them runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs import osc
from envs.goals import Goal, World, holds
from envs.rendering import Painter
from envs.scene import Pose, Scene, Start, Thing
from envs.timing import libero_observation_substeps
from wamsim.conventions import PANDA_STATE

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Look:
    """A request for pictures: which cameras, how large.

    Attributes:
        cameras: Public camera names, in order.
        size: (height, width).
        depth: Also metric depth.
    """

    cameras: tuple[str, ...]
    size: tuple[int, int]
    depth: bool = False


@dataclass(kw_only=True)
class Glimpse:
    """What was seen at one env step: all that a picture is made of."""

    seen_qpos: Array
    lit: tuple[bool, ...]
    robot_state: Array


# qpos, qvel, time, warm start, controls: all that mj_step reads
_FULL_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that the next step of a simulation depends on; opaque, for `Simulation.restore`."""

    physics: Array
    fixtures: Mapping[str, Pose]
    controller: tuple[NDArray[Any], ...]
    glimpse: Glimpse
    lit: tuple[bool, ...]
    steps: int


class _Indices:
    """Ids and constants of a scene's robot, looked up once."""

    def __init__(self, scene: Scene) -> None:
        model, robot = scene.model, scene.info.robot
        self.site = scene.site_id(robot.eef_site)
        self.hand = scene.body_id(robot.eef_body)
        self.dofs = np.array([scene.dof_address(j) for j in robot.joints])
        self.qpos_at = np.array([scene.qpos_address(j) for j in robot.joints])
        self.finger_dofs = np.array([scene.dof_address(j) for j in robot.gripper_joints])
        self.finger_qpos_at = np.array([scene.qpos_address(j) for j in robot.gripper_joints])
        self.arm_ctrl = np.array([scene.actuator_id(a) for a in robot.actuators])
        self.finger_ctrl = np.array([scene.actuator_id(a) for a in robot.gripper_actuators])
        limits = model.actuator_ctrlrange
        self.torque_low = limits[self.arm_ctrl, 0].copy()
        self.torque_high = limits[self.arm_ctrl, 1].copy()
        span = limits[self.finger_ctrl]
        self.finger_bias = 0.5 * (span[:, 1] + span[:, 0])
        self.finger_weight = 0.5 * (span[:, 1] - span[:, 0])
        self.madr = model.dof_Madr.copy()
        self.parent = model.dof_parentid.copy()
        self.rest = np.array(robot.init_qpos, np.float64)
        self.rest_fingers = np.array(robot.init_gripper_qpos, np.float64)
        # Sensors read forces that nothing here uses; leaving them out changes no state.
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_SENSOR)
        self.lit = [t for t in scene.info.things for _ in t.lit_sites]


def _indices(scene: Scene) -> _Indices:
    found = getattr(scene, "_runtime_indices", None)
    if found is None:
        found = _Indices(scene)
        scene._runtime_indices = found  # type: ignore[attr-defined]
    return found


class Simulation:
    """One episode in progress.

    Args:
        scene: Compiled scene; its model may be shared with other simulations in the
            same thread.
        goal: When it holds after a step, the episode has succeeded.
        exact: Make the genuine robosuite loop's solver passes and LAPACK calls.
    """

    def __init__(self, scene: Scene, goal: Goal, *, exact: bool = False) -> None:
        self.scene = scene
        self.goal = goal
        self.exact = exact
        self.data = mujoco.MjData(scene.model)
        self.world = World(scene, self.data)
        self._at = _indices(scene)
        nq, nv = scene.model.nq, scene.model.nv
        self._fresh = np.ones(1, np.uint8)
        self.fingers = np.zeros(2)
        self._goal_pos, self._goal_mat = np.zeros(3), np.eye(3)
        self._scratch = np.zeros((6, nv))
        self._seen = np.zeros(nq)
        self._robot_state = np.zeros(PANDA_STATE.dim)
        self._controller = (
            np.zeros(3),
            np.eye(3),
            np.zeros(6),
            np.zeros(osc.N),
            np.zeros(osc.N),
            np.zeros((6, osc.N), order="F"),
            np.zeros((osc.N, osc.N), order="F"),
        )
        self.fixtures: Mapping[str, Pose] = {}
        self.steps = 0  # env steps since the start, settling included
        self.lit: tuple[bool, ...] = ()
        self.stepping_s = 0.0

    # ------------------------------------------------------------------ start

    def start(self, start: Start) -> Glimpse:
        """Begin an episode the way robosuite's reset and LIBERO's set_init_state do.

        The controller reads the nominal reset; its first substep will still see that.
        `exact` makes every pass that the genuine reset makes, in its order, because each
        moves the solver's warm start; the default computes what it needs once.
        """
        model, data, at = self.scene.model, self.data, self._at
        mujoco.mj_resetData(model, data)
        if self.exact:
            mujoco.mj_forward(model, data)  # MjSim created
            mujoco.mj_forward(model, data)  # render context created
        data.qpos[at.qpos_at] = at.rest
        if self.exact:
            mujoco.mj_forward(model, data)  # controller created
            mujoco.mj_forward(model, data)  # controller's first update
        else:
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            mujoco.mj_crb(model, data)
        self._read_controller()
        self._fresh[0] = 1
        self._goal_pos[:] = self._controller[0]
        self._goal_mat[:] = self._controller[1]
        self.fingers[:] = 0.0
        if self.exact:
            data.qpos[at.finger_qpos_at] = at.rest_fingers
            for joint in joint_names(self.scene.info.things):  # LIBERO's property samplers
                address = self.scene.qpos_address(joint)
                data.qpos[address] = start.nominal_qpos[address]
            mujoco.mj_step1(model, data)
        self.fixtures = start.fixtures
        self.scene.set_fixtures(start.fixtures)
        data.qpos[:] = start.nominal_qpos
        if self.exact:
            mujoco.mj_forward(model, data)
        if start.state is not None:
            nq = model.nq
            data.time = start.state[0]
            data.qpos[:] = start.state[1 : 1 + nq]
            data.qvel[:] = start.state[1 + nq :]
        if start.state is not None or not self.exact:
            mujoco.mj_forward(model, data)
        self.steps = 0
        self._seen[:] = data.qpos
        self._update_lit()
        self._read_robot_state()
        return self.glimpse()

    # --------------------------------------------------------------- snapshots

    def snapshot(self) -> Snapshot:
        """Everything that the next step depends on; see `restore`."""
        model, data = self.scene.model, self.data
        physics = np.empty(mujoco.mj_stateSize(model, _FULL_STATE))
        mujoco.mj_getState(model, data, physics, _FULL_STATE)
        return Snapshot(
            physics=physics,
            fixtures=dict(self.fixtures),
            controller=tuple(part.copy(order="K") for part in self._controller_parts()),
            glimpse=self.glimpse(),
            lit=self.lit,
            steps=self.steps,
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot of this scene; steps from there repeat bit for bit.

        Until the next step, `success` sees the scene freshly computed from the restored
        positions, where a step leaves it as of its last substep.
        """
        model, data = self.scene.model, self.data
        self.fixtures = snapshot.fixtures
        self.scene.set_fixtures(self.fixtures)
        mujoco.mj_setState(model, data, snapshot.physics, _FULL_STATE)
        mujoco.mj_forward(model, data)
        # the pass above moved the solver's warm start
        mujoco.mj_setState(model, data, snapshot.physics, _FULL_STATE)
        for part, kept in zip(self._controller_parts(), snapshot.controller, strict=True):
            part[...] = kept
        self._seen[:] = snapshot.glimpse.seen_qpos
        self._robot_state[:] = snapshot.glimpse.robot_state
        self._seen_lit, self.lit = snapshot.glimpse.lit, snapshot.lit
        self.steps = snapshot.steps

    def _controller_parts(self) -> tuple[NDArray[Any], ...]:
        return (self._fresh, self.fingers, self._goal_pos, self._goal_mat, *self._controller)

    def _read_controller(self) -> None:
        data, at = self.data, self._at
        osc.read_controller(
            self.scene.model._address,
            data._address,
            at.site,
            at.dofs,
            at.qpos_at,
            data.qpos,
            data.qvel,
            data.qM,
            at.madr,
            at.parent,
            data.site_xpos,
            data.site_xmat,
            self._scratch,
            *self._controller,
        )

    def _read_robot_state(self) -> None:
        data, at, out = self.data, self._at, self._robot_state
        quat = data.xquat[at.hand]
        out[:7] = data.qpos[at.qpos_at]
        out[7:14] = data.qvel[at.dofs]
        out[14:17] = data.site_xpos[at.site]
        out[17:20], out[20] = quat[1:], quat[0]
        out[21:23] = data.qpos[at.finger_qpos_at]
        out[23:25] = data.qvel[at.finger_dofs]

    def _update_lit(self) -> None:
        self.lit = tuple(self._is_on(thing) for thing in self._at.lit)

    def _is_on(self, thing: Thing) -> bool:
        limit = thing.articulation.turn_on if thing.articulation else None
        return limit is not None and any(limit.holds(self.world.joint(j)) for j in thing.joints)

    # ------------------------------------------------------------------- step

    def activate(self) -> None:
        """Write this episode's fixture poses into the shared model."""
        self.scene.set_fixtures(self.fixtures)

    def step(self, action: Array) -> bool:
        """Run one env step and check the goal.

        Args:
            action: [7] float64, DELTA_EEF_GRIPPER_CLOSE_POSITIVE; finite.

        Returns:
            Whether the goal holds after the step.
        """
        began = time.perf_counter()
        info, data, at = self.scene.info, self.data, self._at
        observe = info.substeps
        if info.observe_like_libero:
            observe = libero_observation_substeps(
                1024 * (self.steps // 1024 + 1), info.substeps, info.timestep
            )[self.steps]
        osc.run_env_step(
            self.scene.model._address, data._address, self.exact, info.substeps, observe,
            action,
            at.site, at.hand, at.dofs, at.qpos_at, at.finger_dofs, at.finger_qpos_at,
            at.arm_ctrl, at.finger_ctrl, at.torque_low, at.torque_high, at.finger_bias,
            at.finger_weight, at.madr, at.parent, at.rest,
            data.qpos, data.qvel, data.ctrl, data.qfrc_bias, data.qM, data.site_xpos,
            data.site_xmat, data.xquat,
            self._fresh, self.fingers, self._goal_pos, self._goal_mat, self._scratch,
            *self._controller,
            self._seen, self._robot_state,
        )  # fmt: skip
        self.steps += 1
        # The picture of this step was taken within it, so with the burners as they were.
        self._seen_lit = self.lit
        self._update_lit()
        self.stepping_s += time.perf_counter() - began
        return holds(self.goal, self.world)

    def success(self) -> bool:
        """Whether the goal holds now."""
        return holds(self.goal, self.world)

    def state(self) -> Array:
        """Time, qpos and qvel at the end of the last step, [1 + nq + nv]."""
        return np.concatenate([[self.data.time], self.data.qpos, self.data.qvel])

    def write(
        self, state: Array, seen_qpos: Array, robot_state: Array, lit: NDArray[np.bool_]
    ) -> None:
        """Write what is recorded of the last step into rows of arrays."""
        nq = self.scene.model.nq
        state[0] = self.data.time
        state[1 : 1 + nq] = self.data.qpos
        state[1 + nq :] = self.data.qvel
        seen_qpos[:] = self._seen
        robot_state[:] = self._robot_state
        lit[:] = self._seen_lit if self.steps else self.lit

    def glimpse(self) -> Glimpse:
        """What the last step showed."""
        lit = self._seen_lit if self.steps else self.lit
        return Glimpse(seen_qpos=self._seen.copy(), lit=lit, robot_state=self._robot_state.copy())

    _seen_lit: tuple[bool, ...] = ()


def shoot(
    painter: Painter, fixtures: Mapping[str, Pose], glimpse: Glimpse, look: Look
) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
    """Draw all cameras of a look at one glimpse.

    Returns:
        uint8 [cams, H, W, 3] upright, and float32 [cams, H, W] metres or None.
    """
    painter.scene.set_fixtures(fixtures)
    painter.pose(glimpse.seen_qpos, glimpse.lit)
    frames = np.empty((len(look.cameras), *look.size, 3), np.uint8)
    depths = np.empty((len(look.cameras), *look.size), np.float32) if look.depth else None
    for i, camera in enumerate(look.cameras):
        rgb, z = painter.shoot(camera, look.size, look.depth)
        frames[i] = rgb
        if depths is not None and z is not None:
            depths[i] = z
    return frames, depths


def joint_names(things: Sequence[Thing]) -> list[str]:
    """All articulated joints of things, in order."""
    return [j for t in things for j in t.joints]
