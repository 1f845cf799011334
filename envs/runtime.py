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

from envs import osc, robot_state, servos, stepping
from envs.control import Control
from envs.goals import Goal, World, holds
from envs.rendering import Painter
from envs.scene import Pose, Scene, Start, Thing
from envs.timing import libero_observation_substeps

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
    """Ids and constants of a scene's robot under one control, looked up once."""

    def __init__(self, scene: Scene, control: Control) -> None:
        model = scene.model
        robot = scene.info.robot
        self.control = control
        self.qpos_at = np.array([scene.qpos_address(j) for j in robot.joints], np.int64)
        self.dofs = np.array([scene.dof_address(j) for j in robot.joints], np.int64)
        self.finger_qpos_at = np.array([scene.qpos_address(j) for j in robot.gripper_joints])
        self.madr = model.dof_Madr.copy()
        self.parent = model.dof_parentid.copy()
        self.rest = np.array(robot.init_qpos, np.float64)
        self.rest_fingers = np.array(robot.init_gripper_qpos, np.float64)
        self.site = scene.site_id(robot.eef_site)
        limits = model.actuator_ctrlrange
        arm_ctrl = np.array([scene.actuator_id(a) for a in robot.actuators], np.int64)
        finger_ctrl = np.array([scene.actuator_id(a) for a in robot.gripper_actuators], np.int64)
        span = limits[finger_ctrl]
        self.arm = stepping.Arm(
            site=self.site,
            dofs=self.dofs,
            qpos_at=self.qpos_at,
            arm_ctrl=arm_ctrl,
            finger_ctrl=finger_ctrl,
            torque_low=limits[arm_ctrl, 0].copy(),
            torque_high=limits[arm_ctrl, 1].copy(),
            finger_bias=0.5 * (span[:, 1] + span[:, 0]),
            finger_weight=0.5 * (span[:, 1] - span[:, 0]),
            madr=self.madr,
            parent=self.parent,
            rest=self.rest,
        )
        self.frame = -1 if control.frame is None else scene.body_id(control.frame)
        self.mode = -1 if control.mode is None else control.mode
        self.poses = servos.poses(control, scene)
        self.sources = robot_state.sources(scene)
        # Sensors read forces that nothing here uses; leaving them out changes no state.
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_SENSOR)
        self.lit = [t for t in scene.info.things for _ in t.lit_sites]


def _indices(scene: Scene, action: str | None = None) -> _Indices:
    known: dict[str, _Indices] | None = getattr(scene, "_runtime_indices", None)
    if known is None:
        known = {}
        scene._runtime_indices = known  # type: ignore[attr-defined]
    control = scene.info.controls[0] if action is None else scene.info.control(action)
    if control.action not in known:
        known[control.action] = _Indices(scene, control)
    return known[control.action]


class Simulation:
    """One episode in progress.

    Args:
        scene: Compiled scene; its model may be shared with other simulations in the
            same thread.
        goal: When it holds after a step, the episode has succeeded.
        exact: Make the genuine robosuite loop's solver passes and LAPACK calls.
        action: Name of the convention that `step` takes; the scene's first when None.

    Raises:
        ConventionMismatch: The scene does not understand that convention.
    """

    def __init__(
        self, scene: Scene, goal: Goal, *, exact: bool = False, action: str | None = None
    ) -> None:
        self.scene = scene
        self.goal = goal
        self.exact = exact
        self.data = data = mujoco.MjData(scene.model)
        self.world = World(scene, self.data)
        self._at = at = _indices(scene, action)
        model, info = scene.model, scene.info
        self._loop = stepping.Loop(
            exact=exact,
            substeps=info.substeps,
            timestep=float(model.opt.timestep),
            arm=at.control.osc,
            frame=at.frame,
            mode=at.mode,
        )
        self._memory = stepping.Memory(
            fresh=np.ones(1, np.uint8),
            fingers=np.zeros(2),
            goal_pos=np.zeros(3),
            goal_mat=np.eye(3),
            held=np.zeros(1, np.uint8),
            hold_q=np.zeros(osc.N),
            c_pos=np.zeros(3),
            c_mat=np.eye(3),
            c_vel=np.zeros(6),
            c_q=np.zeros(osc.N),
            c_qd=np.zeros(osc.N),
            c_jac=np.zeros((6, osc.N), order="F"),
            c_mass=np.zeros((osc.N, osc.N), order="F"),
        )
        self._servos = servos.servos(at.control, scene)
        self._fields = stepping.Fields(
            qpos=data.qpos, qvel=data.qvel, ctrl=data.ctrl, qfrc_bias=data.qfrc_bias, qM=data.qM,
            site_xpos=data.site_xpos, site_xmat=data.site_xmat,
            xpos=data.xpos, xquat=data.xquat, xmat=data.xmat,
        )  # fmt: skip
        self._scratch = np.zeros((6, model.nv))
        self._seen = np.zeros(model.nq)
        self._robot_state = np.zeros(len(at.sources.kind))
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
        if at.control.osc:
            self._start_arm()
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
        self._start_servos()
        if start.state is not None or not self.exact:
            mujoco.mj_forward(model, data)
        if at.frame >= 0:
            # LIBERO's first goal is the nominal reset's; where the base may face anywhere,
            # that would turn the hand back.
            self._start_arm()
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
        return (*self._memory, self._servos.target)

    @property
    def gripper_command(self) -> Array:
        """What fingers are told.

        Under OSC the integrated commands [2] in [-1, 1], else the targets of all servos in
        the order of `Control.servos`.
        """
        return (self._memory.fingers if self._at.control.osc else self._servos.target).copy()

    def _start_arm(self) -> None:
        """Let the arm's controller read what it sees now, as at a reset."""
        data, at, m = self.data, self._at, self._memory
        osc.read_controller(
            self.scene.model._address, data._address, at.site, at.dofs, at.qpos_at, data.qpos,
            data.qvel, data.qM, at.madr, at.parent, data.site_xpos, data.site_xmat, self._scratch,
            m.c_pos, m.c_mat, m.c_vel, m.c_q, m.c_qd, m.c_jac, m.c_mass,
        )  # fmt: skip
        m.fresh[0], m.held[0] = 1, 0
        m.goal_pos[:], m.goal_mat[:] = m.c_pos, m.c_mat
        m.fingers[:] = 0.0

    def _start_servos(self) -> None:
        """Let every servo hold what the initial state has."""
        s = self._servos
        low, high = np.minimum(s.low, s.high), np.maximum(s.low, s.high)
        s.target[:] = np.clip(self.data.qpos[s.joint], low, high)
        self.data.ctrl[s.ctrl] = s.target

    def _read_robot_state(self) -> None:
        d = self._fields
        servos.gather(
            d.qpos, d.qvel, d.site_xpos, d.xpos, d.xquat, self._at.sources, self._robot_state
        )

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
            action: float64, in the convention that this simulation takes; finite.

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
        stepping.run_env_step(
            self.scene.model._address, data._address, self._loop, observe, action, at.arm,
            self._fields, self._memory, self._servos, at.poses, at.sources, self._scratch,
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
