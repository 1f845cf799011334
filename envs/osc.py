"""Operational-space control of a Panda, substep by substep, without the interpreter.

This is robosuite 1.4.0's OSC_POSE controller with LIBERO's settings (controllers/osc.py,
utils/control_utils.py, robots/single_arm.py, models/grippers/panda_gripper.py; Khatib
1987), written for numba over libmujoco. Its quirks are part of the benchmark:

- the first substep after a reset uses the controller's state of the *nominal* reset;
- the orientation goal is kept while the rotation delta is exactly zero;
- rotation deltas pass through float32 (robosuite's ``quat2mat``);
- only the sign of the gripper channel counts; fingers move 0.01 of their range a substep.

Two modes. ``exact`` makes the solver passes that the genuine loop makes (two extra
``mj_forward`` each substep, which move the solver's warm start) and the same BLAS and
LAPACK calls. Position- and velocity-dependent stages do not change between those passes,
so only the acceleration stage is repeated (``mj_forwardSkip``), with equal results. The
default takes one pass and closed-form inverses.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from envs.native import mj_jacSite

N = 7  # arm joints

# robosuite 1.4.0 controllers/config/osc_pose.json, as LIBERO loads it
KP = 150.0
KD = 2.0 * math.sqrt(150.0) * 1.0  # damping ratio 1
POSITION_SCALE = abs(0.05 - -0.05) / abs(1 - -1)  # metres per unit action
ROTATION_SCALE = abs(0.5 - -0.5) / abs(1 - -1)  # radians per unit action
NULLSPACE_KP = 10.0  # control_utils.nullspace_torques
GRIPPER_SPEED = 0.01  # PandaGripper.speed, share of the range a substep
EPS = np.finfo(float).eps * 4.0  # transform_utils.EPS

# numba caches the compiled loop beside this file (or in NUMBA_CACHE_DIR), so a spawned
# worker starts stepping at once. No fastmath: the order of operations is the contract.
_jit = njit(cache=True, nogil=True, fastmath=False)


@_jit
def _quat_to_matrix(q_xyzw):
    # float32 on purpose: transform_utils.quat2mat
    q = np.empty(4, np.float32)
    q[0], q[1], q[2], q[3] = q_xyzw[3], q_xyzw[0], q_xyzw[1], q_xyzw[2]
    n = np.dot(q, q)
    if n < EPS:
        return np.identity(3)
    q *= math.sqrt(2.0 / n)
    p = np.outer(q, q)
    return np.array(
        [
            [1.0 - p[2, 2] - p[3, 3], p[1, 2] - p[3, 0], p[1, 3] + p[2, 0]],
            [p[1, 2] + p[3, 0], 1.0 - p[1, 1] - p[3, 3], p[2, 3] - p[1, 0]],
            [p[1, 3] - p[2, 0], p[2, 3] + p[1, 0], 1.0 - p[1, 1] - p[2, 2]],
        ]
    )


@_jit
def _axis_angle_to_quat(v):
    angle = math.sqrt(np.dot(v, v))
    q = np.zeros(4)
    if angle == 0.0:  # math.isclose(angle, 0.0) holds for nothing else
        q[3] = 1.0
        return q
    q[3] = math.cos(angle / 2.0)
    s = math.sin(angle / 2.0)
    for i in range(3):
        q[i] = v[i] / angle * s
    return q


@_jit
def set_goal(action, c_eef_pos, c_eef_mat, goal_pos, goal_mat):
    """Turn one action [7] into a pose goal, in place.

    Args:
        action: Arm channels in [-1, 1]; clipped.
        c_eef_pos, c_eef_mat: The controller's end-effector position [3] and rotation [3, 3].
        goal_pos, goal_mat: Written; ``goal_mat`` stays while the rotation delta is zero.
    """
    delta = np.empty(6)
    for i in range(6):
        a = min(max(action[i], -1.0), 1.0)
        delta[i] = a * (POSITION_SCALE if i < 3 else ROTATION_SCALE)
    _move_goal(delta, c_eef_pos, c_eef_mat, goal_pos, goal_mat)


@_jit
def set_goal_in(frame, action, c_eef_pos, c_eef_mat, goal_pos, goal_mat):
    """As `set_goal`, with the deltas along the axes (columns) of a rotation [3, 3]."""
    delta = np.empty(6)
    for i in range(3):
        move, turn = 0.0, 0.0
        for j in range(3):
            move += frame[i, j] * min(max(action[j], -1.0), 1.0)
            turn += frame[i, j] * min(max(action[3 + j], -1.0), 1.0)
        delta[i], delta[3 + i] = move * POSITION_SCALE, turn * ROTATION_SCALE
    _move_goal(delta, c_eef_pos, c_eef_mat, goal_pos, goal_mat)


@_jit
def _move_goal(delta, c_eef_pos, c_eef_mat, goal_pos, goal_mat):
    if delta[3] != 0.0 or delta[4] != 0.0 or delta[5] != 0.0:
        turn = _quat_to_matrix(_axis_angle_to_quat(delta[3:]))
        goal_mat[:, :] = np.dot(turn, c_eef_mat)
    for i in range(3):
        goal_pos[i] = c_eef_pos[i] + delta[i]


@_jit
def orientation_error(desired, current):
    """Half the sum of cross products of the axes, [3]: control_utils.orientation_error."""
    out = np.zeros(3)
    for k in range(3):
        a = current[:, k]
        b = desired[:, k]
        x = a[1] * b[2] - a[2] * b[1]
        y = a[2] * b[0] - a[0] * b[2]
        z = a[0] * b[1] - a[1] * b[0]
        out[0] += x
        out[1] += y
        out[2] += z
    return 0.5 * out


@_jit
def read_controller(
    model,
    data,
    site,
    dofs,
    qpos_at,
    qpos,
    qvel,
    qM,
    madr,
    parent,
    site_xpos,
    site_xmat,
    scratch,
    c_pos,
    c_mat,
    c_vel,
    c_q,
    c_qd,
    c_jac,
    c_mass,
):
    """Read what the controller sees of the simulation into its arrays, in place.

    Args:
        model, data: Addresses of mjModel and mjData.
        site: Id of the controlled site.
        dofs, qpos_at: [7] indices of the arm in qvel and qpos.
        qM, madr, parent: Sparse inertia and its layout (mjData.qM, dof_Madr, dof_parentid).
        scratch: [6, nv] work space for the Jacobian.
        c_*: Written: eef position [3], rotation [3, 3], velocity [6] (linear, angular),
            arm joints [7] and their velocity [7], Jacobian [6, 7], inertia [7, 7]. The
            last two in Fortran order, as robosuite's indexing leaves them: BLAS sums
            the two layouts in different orders.
    """
    mj_jacSite(model, data, scratch[0].ctypes.data, scratch[3].ctypes.data, site)
    c_pos[:] = site_xpos[site]
    for i in range(3):
        for j in range(3):
            c_mat[i, j] = site_xmat[site, 3 * i + j]
    # all of nv, as MjData.get_site_xvelp multiplies; BLAS sums in its own order
    c_vel[:3] = np.dot(scratch[:3], qvel)
    c_vel[3:] = np.dot(scratch[3:], qvel)
    for j in range(N):
        c_q[j] = qpos[qpos_at[j]]
        c_qd[j] = qvel[dofs[j]]
        for i in range(6):
            c_jac[i, j] = scratch[i, dofs[j]]
    # dense arm block of the inertia: along a dof's ancestors qM is stored consecutively
    for i in range(N):
        for j in range(N):
            c_mass[i, j] = 0.0
    for i in range(N):
        at = madr[dofs[i]]
        j = dofs[i]
        while j >= 0:
            for k in range(N):
                if dofs[k] == j:
                    c_mass[i, k] = qM[at]
                    c_mass[k, i] = qM[at]
            at += 1
            j = parent[j]


@_jit
def _torques_exact(c_pos, c_mat, c_vel, c_q, c_qd, c_jac, c_mass, goal_pos, goal_mat, rest, bias):
    jac_pos = np.asfortranarray(c_jac[:3])
    jac_ori = np.asfortranarray(c_jac[3:])
    force = (goal_pos - c_pos) * KP + (-c_vel[:3]) * KD
    torque = orientation_error(goal_mat, c_mat) * KP + (-c_vel[3:]) * KD
    mass_inv = np.linalg.inv(c_mass)
    lambda_full = np.linalg.pinv(np.dot(np.dot(c_jac, mass_inv), c_jac.transpose()))
    lambda_pos = np.linalg.pinv(np.dot(np.dot(jac_pos, mass_inv), jac_pos.transpose()))
    lambda_ori = np.linalg.pinv(np.dot(np.dot(jac_ori, mass_inv), jac_ori.transpose()))
    jbar = np.dot(mass_inv, c_jac.transpose()).dot(lambda_full)
    nullspace = np.eye(N, N) - np.dot(jbar, c_jac)
    wrench = np.empty(6)
    wrench[:3] = np.dot(lambda_pos, force)
    wrench[3:] = np.dot(lambda_ori, torque)
    out = np.dot(c_jac.T, wrench) + bias
    pose = np.dot(c_mass, NULLSPACE_KP * (rest - c_q) - (math.sqrt(NULLSPACE_KP) * 2) * c_qd)
    return out + np.dot(nullspace.transpose(), pose)


@_jit
def cholesky(a, n, low):
    """Write the lower factor of a [n, n] into `low`, whose upper part must be zero."""
    for i in range(n):
        for j in range(i + 1):
            s = a[i, j]
            for k in range(j):
                s -= low[i, k] * low[j, k]
            if i == j:
                low[i, i] = math.sqrt(max(s, 1e-300))
            else:
                low[i, j] = s / low[j, j]


@_jit
def solve(low, n, b):
    """Solve low low^T x = b, in place of b [n]."""
    for i in range(n):
        s = b[i]
        for k in range(i):
            s -= low[i, k] * b[k]
        b[i] = s / low[i, i]
    for i in range(n - 1, -1, -1):
        s = b[i]
        for k in range(i + 1, n):
            s -= low[k, i] * b[k]
        b[i] = s / low[i, i]


@_jit
def _torques_fast(c_pos, c_mat, c_vel, c_q, c_qd, c_jac, c_mass, goal_pos, goal_mat, rest, bias):
    # The same torques with Cholesky factors in place of LAPACK's inv and pinv. With
    # G = J M^-1 J^T: wrench = blockdiag(G)^-1 f, and N^T p = p - J^T G^-1 J M^-1 p.
    low = np.zeros((N, N))
    cholesky(c_mass, N, low)
    minv_jt = np.empty((6, N))  # row i: M^-1 times row i of J
    for i in range(6):
        for j in range(N):
            minv_jt[i, j] = c_jac[i, j]
        solve(low, N, minv_jt[i])
    gram = np.empty((6, 6))
    for i in range(6):
        for j in range(i + 1):
            s = 0.0
            for k in range(N):
                s += c_jac[i, k] * minv_jt[j, k]
            gram[i, j] = s
            gram[j, i] = s
    error = orientation_error(goal_mat, c_mat)
    wrench = np.empty(6)
    for i in range(3):
        wrench[i] = (goal_pos[i] - c_pos[i]) * KP - c_vel[i] * KD
        wrench[3 + i] = error[i] * KP - c_vel[3 + i] * KD
    low6 = np.zeros((6, 6))
    cholesky(gram[:3, :3], 3, low6)
    solve(low6, 3, wrench[:3])
    low6[:, :] = 0.0
    cholesky(gram[3:, 3:], 3, low6)
    solve(low6, 3, wrench[3:])
    pull = np.empty(N)
    for i in range(N):
        pull[i] = NULLSPACE_KP * (rest[i] - c_q[i]) - math.sqrt(NULLSPACE_KP) * 2 * c_qd[i]
    pose = np.empty(N)
    for i in range(N):
        s = 0.0
        for k in range(N):
            s += c_mass[i, k] * pull[k]
        pose[i] = s
    # J M^-1 pose = J pull, since pose = M pull
    w = np.empty(6)
    for i in range(6):
        s = 0.0
        for k in range(N):
            s += c_jac[i, k] * pull[k]
        w[i] = s
    low6[:, :] = 0.0
    cholesky(gram, 6, low6)
    solve(low6, 6, w)
    out = np.empty(N)
    for i in range(N):
        s = bias[i] + pose[i]
        for k in range(6):
            s += c_jac[k, i] * (wrench[k] - w[k])
        out[i] = s
    return out
