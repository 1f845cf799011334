"""The one compiled loop: an env step of any scene, substep by substep.

A scene's robot is an arm under operational-space control (`envs.osc`), or servos and pose
goals (`envs.servos`), or an arm with servos beside it. What an action means for them is
declared in `envs.control`.

The exact mode makes the solver passes of the genuine robosuite 1.4 loop; see `envs.osc`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from envs import osc, servos
from envs.native import (
    mj_checkAcc,
    mj_checkPos,
    mj_checkVel,
    mj_Euler,
    mj_forwardSkip,
    mj_step1,
    mj_step2,
)

STAGE_NONE = 0  # mjtStage: run everything
STAGE_VEL = 2  # position and velocity are known, repeat acceleration only

N = osc.N

_read_controller, _set_goal, _set_goal_in = osc.read_controller, osc.set_goal, osc.set_goal_in
_torques_exact, _torques_fast = osc._torques_exact, osc._torques_fast
_hold_torques, _move_targets = servos.hold_torques, servos.move_targets
_move_hands, _gather = servos.move_hands, servos.gather
GRIPPER_SPEED = osc.GRIPPER_SPEED


class Loop(NamedTuple):
    """What stays the same from step to step.

    Attributes:
        exact: For the genuine loop's solver passes and LAPACK calls.
        substeps: Physics steps.
        timestep: Seconds.
        arm: Whether there is an arm under operational-space control.
        frame: Body in whose axes its deltas are given; -1 for the world's.
        mode: Channel above 0 in which the base moves and the arm is held; -1: none.
    """

    exact: bool
    substeps: int
    timestep: float
    arm: bool
    frame: int
    mode: int


class Arm(NamedTuple):
    """Where the arm under operational-space control is in the model, and its constants."""

    site: int
    dofs: Any  # [7]
    qpos_at: Any  # [7]
    arm_ctrl: Any  # [7]
    finger_ctrl: Any  # [2]
    torque_low: Any
    torque_high: Any
    finger_bias: Any
    finger_weight: Any
    madr: Any
    parent: Any
    rest: Any  # [7]


class Fields(NamedTuple):
    """Arrays of mjData that are read and written."""

    qpos: Any
    qvel: Any
    ctrl: Any
    qfrc_bias: Any
    qM: Any
    site_xpos: Any
    site_xmat: Any
    xpos: Any
    xquat: Any
    xmat: Any


class Memory(NamedTuple):
    """What the arm's controller remembers between substeps.

    Attributes:
        fresh: [1] uint8; 1 when the controller's arrays still hold the nominal reset.
        fingers: [2] integrated finger commands in [-1, 1].
        goal_pos, goal_mat: The pose goal, world.
        held: [1] uint8; 1 while the arm's joints are held at `hold_q` [7].
        c_pos .. c_mass: See `osc.read_controller`.
    """

    fresh: Any
    fingers: Any
    goal_pos: Any
    goal_mat: Any
    held: Any
    hold_q: Any
    c_pos: Any
    c_mat: Any
    c_vel: Any
    c_q: Any
    c_qd: Any
    c_jac: Any
    c_mass: Any


# no fastmath: the order of operations is the contract; cached on disk for the next worker
@njit(cache=True, nogil=True, fastmath=False)
def run_env_step(
    model, data, loop, observe_at, action, a, d, m, s, p, g, scratch, seen_qpos, robot_state
):
    """Run one env step: `loop.substeps` physics steps under one action.

    Args:
        model, data: Addresses of mjModel and mjData.
        loop: `Loop`.
        observe_at: Substep (1-based) at which observations are sampled.
        action: [A] float64, in the convention of the scene's control.
        a, d, m: `Arm`, `Fields`, `Memory`.
        s, p, g: `Servos`, `Poses`, `Gather` of `envs.servos`.
        scratch: [6, nv] work space for Jacobians.
        seen_qpos: [nq] written: joint positions behind the observed kinematics.
        robot_state: Written at the same moment: see `envs.robot_state`.
    """
    bias = np.empty(N)
    moving = loop.mode < 0 or action[loop.mode] > 0.0
    driving = loop.mode >= 0 and moving
    for k in range(loop.substeps):
        if loop.exact:
            mj_checkPos(model, data)
            mj_checkVel(model, data)
            mj_forwardSkip(model, data, STAGE_NONE, 1)
        else:
            mj_step1(model, data)
        if loop.arm:
            if m.fresh[0] == 0:
                if loop.exact:
                    mj_forwardSkip(model, data, STAGE_VEL, 1)
                _read_controller(
                    model, data, a.site, a.dofs, a.qpos_at, d.qpos, d.qvel, d.qM, a.madr, a.parent,
                    d.site_xpos, d.site_xmat, scratch,
                    m.c_pos, m.c_mat, m.c_vel, m.c_q, m.c_qd, m.c_jac, m.c_mass,
                )  # fmt: skip
            if k == 0:
                if loop.mode >= 0:
                    if driving and m.held[0] == 0:
                        m.hold_q[:] = m.c_q
                    if m.held[0] == 1 and not driving:
                        m.goal_mat[:, :] = m.c_mat  # the hand was carried around meanwhile
                    m.held[0] = driving
                if loop.frame >= 0:
                    axes = d.xmat[loop.frame].copy().reshape(3, 3)
                    _set_goal_in(axes, action, m.c_pos, m.c_mat, m.goal_pos, m.goal_mat)
                else:
                    _set_goal(action, m.c_pos, m.c_mat, m.goal_pos, m.goal_mat)
            for i in range(N):
                bias[i] = d.qfrc_bias[a.dofs[i]]
            if driving:
                tau = _hold_torques(m.c_q, m.c_qd, m.c_mass, m.hold_q, bias)
            elif loop.exact:
                tau = _torques_exact(
                    m.c_pos, m.c_mat, m.c_vel, m.c_q, m.c_qd, m.c_jac, m.c_mass,
                    m.goal_pos, m.goal_mat, a.rest, bias,
                )  # fmt: skip
            else:
                tau = _torques_fast(
                    m.c_pos, m.c_mat, m.c_vel, m.c_q, m.c_qd, m.c_jac, m.c_mass,
                    m.goal_pos, m.goal_mat, a.rest, bias,
                )  # fmt: skip
            m.fresh[0] = 0
            sign = np.sign(action[6])
            for i in range(2):
                step = (-1.0 if i == 0 else 1.0) * GRIPPER_SPEED * sign
                m.fingers[i] = min(max(m.fingers[i] + step, -1.0), 1.0)
                d.ctrl[a.finger_ctrl[i]] = a.finger_bias[i] + a.finger_weight[i] * m.fingers[i]
            for i in range(N):
                d.ctrl[a.arm_ctrl[i]] = min(max(tau[i], a.torque_low[i]), a.torque_high[i])
        _move_targets(action, moving, loop.substeps - k, loop.timestep, d.qpos, s)
        if len(p.site):
            _move_hands(
                model, data, action, loop.timestep, d.qpos, d.site_xpos, d.site_xmat, scratch, s, p
            )
        for i in range(len(s.ctrl)):
            d.ctrl[s.ctrl[i]] = s.target[i]
        if k + 1 == observe_at:
            seen_qpos[:] = d.qpos
        if loop.exact:
            mj_forwardSkip(model, data, STAGE_VEL, 1)
            mj_checkAcc(model, data)
            mj_Euler(model, data)
        else:
            mj_step2(model, data)
        if k + 1 == observe_at:
            _gather(d.qpos, d.qvel, d.site_xpos, d.xpos, d.xquat, g, robot_state)
