"""Position servos, planar bases and pose goals, substep by substep, without the interpreter.

`Servos`, `Poses` and `Gather` are what `envs.control` and `envs.robot_state` declare, as
arrays for the compiled loop (`envs.stepping`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from envs.control import Control
from envs.native import mj_jacSite
from envs.osc import KP, cholesky, orientation_error, solve

# no fastmath: the order of operations is part of what an episode is
_jit = njit(cache=True, nogil=True, fastmath=False)

POSITION, FRACTION, VELOCITY, DRIVEN = range(4)
_KINDS = {"position": POSITION, "fraction": FRACTION, "velocity": VELOCITY, "driven": DRIVEN}

# Pose goals: share of the error that a substep asks for (a time constant of 16 substeps, or
# 32 ms), damping that keeps joints calm at the edge of reach, and how far targets may run
# ahead of joints that are held up (radians).
POSE_GAIN = 1.0 / 16.0
POSE_DAMPING = 0.02
POSE_LEASH = 0.15

# The arm's joints while the base moves: as stiff as its hand under OSC, critically damped.
HOLD_KP = KP
HOLD_KD = 2.0 * math.sqrt(HOLD_KP)


class Servos(NamedTuple):
    """S servos as arrays; see `envs.control.Servo`. `target` is the controller's state."""

    ctrl: Any
    channel: Any
    kind: Any
    low: Any
    high: Any
    speed: Any
    gated: Any
    across: Any  # -1: none
    across_sign: Any
    heading: Any  # address in qpos, -1: none
    joint: Any  # address in qpos
    target: Any


class Poses(NamedTuple):
    """P hands of n joints that follow pose goals; see `envs.control.PoseGoal`."""

    channel: Any
    site: Any
    dofs: Any  # [P, n]
    qpos_at: Any  # [P, n]
    servo: Any  # [P, n] index of the servo that moves each joint


class Gather(NamedTuple):
    """Where each number of the robot state comes from; see `envs.robot_state`."""

    kind: Any
    index: Any
    offset: Any
    scale: Any


def servos(control: Control, scene: Any) -> Servos:
    """The servos of a control as arrays, for a scene's model."""
    s = control.servos

    def column(values: Iterable[Any], kind: Any) -> np.ndarray:
        return np.array(list(values), kind)

    return Servos(
        ctrl=column((scene.actuator_id(x.actuator) for x in s), np.int64),
        channel=column((x.channel for x in s), np.int64),
        kind=column((_KINDS[x.kind] for x in s), np.int64),
        low=column((x.low for x in s), np.float64),
        high=column((x.high for x in s), np.float64),
        speed=column((x.speed for x in s), np.float64),
        gated=column((x.gated for x in s), np.uint8),
        across=column((-1 if x.across is None else x.across for x in s), np.int64),
        across_sign=column((x.across_sign for x in s), np.float64),
        heading=column(
            (-1 if x.heading is None else scene.qpos_address(x.heading) for x in s), np.int64
        ),
        joint=column((scene.qpos_address(x.joint) for x in s), np.int64),
        target=np.zeros(len(s)),
    )


def poses(control: Control, scene: Any) -> Poses:
    """The pose goals of a control as arrays; arms must have equally many joints."""
    by_joint = {x.joint: i for i, x in enumerate(control.servos)}
    robots = [scene.info.robots[goal.robot] for goal in control.poses]
    n = len(robots[0].joints) if robots else 0
    shape = (len(robots), n)

    def table(values: Sequence[Sequence[int]]) -> np.ndarray:
        return np.array(values, np.int64).reshape(shape)

    return Poses(
        channel=np.array([goal.channel for goal in control.poses], np.int64),
        site=np.array([scene.site_id(r.eef_site) for r in robots], np.int64),
        dofs=table([[scene.dof_address(j) for j in r.joints] for r in robots]),
        qpos_at=table([[scene.qpos_address(j) for j in r.joints] for r in robots]),
        servo=table([[by_joint[j] for j in r.joints] for r in robots]),
    )


@_jit
def move_targets(action, moving, substeps_left, timestep, qpos, s):
    """Move the targets of all servos but driven ones by one substep, in place.

    Args:
        action: [A] float64.
        moving: False while gated servos stand.
        substeps_left: Of the env step, this one included.
        timestep: Seconds.
        qpos: For headings.
        s: `Servos`.
    """
    for i in range(len(s.ctrl)):
        if s.kind[i] == DRIVEN or (s.gated[i] and not moving):
            continue
        a = action[s.channel[i]]
        low, high = min(s.low[i], s.high[i]), max(s.low[i], s.high[i])
        if s.kind[i] == VELOCITY:
            a = min(max(a, -1.0), 1.0)
            if s.across[i] >= 0:
                b = min(max(action[s.across[i]], -1.0), 1.0)
                h = qpos[s.heading[i]]
                a = math.cos(h) * a + s.across_sign[i] * math.sin(h) * b
            s.target[i] = min(max(s.target[i] + a * s.speed[i] * timestep, low), high)
            continue
        if s.kind[i] == FRACTION:
            a = s.low[i] + (s.high[i] - s.low[i]) * min(max(a, 0.0), 1.0)
        step = (min(max(a, low), high) - s.target[i]) / substeps_left
        most = s.speed[i] * timestep
        s.target[i] += min(max(step, -most), most)


@_jit
def _matrix(q, out):
    """Rotation matrix of a quaternion wxyz of any length but 0."""
    n = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]
    if n < 1e-12:
        return False
    s = 2.0 / n
    w, x, y, z = q[0], q[1], q[2], q[3]
    out[0, 0] = 1.0 - s * (y * y + z * z)
    out[0, 1] = s * (x * y - w * z)
    out[0, 2] = s * (x * z + w * y)
    out[1, 0] = s * (x * y + w * z)
    out[1, 1] = 1.0 - s * (x * x + z * z)
    out[1, 2] = s * (y * z - w * x)
    out[2, 0] = s * (x * z - w * y)
    out[2, 1] = s * (y * z + w * x)
    out[2, 2] = 1.0 - s * (x * x + y * y)
    return True


@_jit
def move_hands(model, data, action, timestep, qpos, site_xpos, site_xmat, scratch, s, p):
    """Move the targets of driven servos towards pose goals by one substep, in place.

    Damped least squares on the error between where the hand is and where it shall be; a
    quaternion of length 0 asks for no turn.
    """
    goal, current = np.empty((3, 3)), np.empty((3, 3))
    error, gram, low = np.empty(6), np.empty((6, 6)), np.zeros((6, 6))
    n = p.dofs.shape[1]
    for k in range(len(p.site)):
        site, at = p.site[k], p.channel[k]
        mj_jacSite(model, data, scratch[0].ctypes.data, scratch[3].ctypes.data, site)
        for i in range(3):
            for j in range(3):
                current[i, j] = site_xmat[site, 3 * i + j]
            error[i] = action[at + i] - site_xpos[site, i]
        if not _matrix(action[at + 3 : at + 7], goal):
            goal[:, :] = current
        error[3:] = orientation_error(goal, current)
        for i in range(6):
            error[i] *= POSE_GAIN
            for j in range(6):
                total = POSE_DAMPING * POSE_DAMPING if i == j else 0.0
                for m in range(n):
                    total += scratch[i, p.dofs[k, m]] * scratch[j, p.dofs[k, m]]
                gram[i, j] = total
        low[:, :] = 0.0
        cholesky(gram, 6, low)
        solve(low, 6, error)
        for m in range(n):
            step = 0.0
            for i in range(6):
                step += scratch[i, p.dofs[k, m]] * error[i]
            i = p.servo[k, m]
            most = s.speed[i] * timestep
            target = s.target[i] + min(max(step, -most), most)
            here = qpos[p.qpos_at[k, m]]
            target = min(max(target, here - POSE_LEASH), here + POSE_LEASH)
            s.target[i] = min(max(target, s.low[i]), s.high[i])


@_jit
def hold_torques(c_q, c_qd, c_mass, hold_q, bias):
    """Torques [7] that keep an arm's joints where they are."""
    n = len(c_q)
    out = np.empty(n)
    for i in range(n):
        total = bias[i]
        for k in range(n):
            total += c_mass[i, k] * (HOLD_KP * (hold_q[k] - c_q[k]) - HOLD_KD * c_qd[k])
        out[i] = total
    return out


GATHER_QPOS, GATHER_QVEL, GATHER_SITE, GATHER_POS, GATHER_QUAT, GATHER_FRACTION = range(6)


@_jit
def gather(qpos, qvel, site_xpos, xpos, xquat, g, out):
    """Read the robot state, in place."""
    for i in range(len(g.kind)):
        kind, j = g.kind[i], g.index[i]
        if kind == GATHER_QPOS:
            out[i] = qpos[j]
        elif kind == GATHER_QVEL:
            out[i] = qvel[j]
        elif kind == GATHER_SITE:
            out[i] = site_xpos[j // 3, j % 3]
        elif kind == GATHER_POS:
            out[i] = xpos[j // 3, j % 3]
        elif kind == GATHER_QUAT:
            out[i] = xquat[j // 4, j % 4]
        else:
            out[i] = (qpos[j] - g.offset[i]) * g.scale[i]
