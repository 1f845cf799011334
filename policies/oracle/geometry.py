"""Rotations and simple solids, in NumPy.

Collision shapes of our scenes and of LIBERO's are boxes, cylinders and capsules; a mesh
is taken as its bounding box. Frames are metres, world axes unless a name says otherwise;
rotations are matrices [3, 3] whose columns are the frame's axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DOWN = np.array([0.0, 0.0, -1.0])


def rotation_vector(rotation: Array) -> Array:
    """Axis times angle [3] of a rotation matrix, angle in [0, pi]."""
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(rotation).ravel())
    out = np.empty(3)
    mujoco.mju_quat2Vel(out, quat, 1.0)
    return out


def from_rotation_vector(vector: Array) -> Array:
    """Rotation matrix of axis times angle."""
    angle = float(np.sqrt(vector @ vector))
    if angle < 1e-12:
        return np.eye(3)
    quat, out = np.empty(4), np.empty(9)
    mujoco.mju_axisAngle2Quat(quat, vector / angle, angle)
    mujoco.mju_quat2Mat(out, quat)
    return out.reshape(3, 3)


def from_quaternion(quat: Array) -> Array:
    """Rotation matrix of a quaternion wxyz."""
    out = np.empty(9)
    mujoco.mju_quat2Mat(out, np.ascontiguousarray(quat))
    return out.reshape(3, 3)


def to_quaternion(rotation: Array) -> Array:
    """Quaternion wxyz of a rotation matrix."""
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(rotation).ravel())
    return quat


def turn_z(angle: float) -> Array:
    """Rotation about the vertical."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def hand_rotation(closing: Array, approach: Array = DOWN) -> Array:
    """Orientation of the grip site: x along which fingers close, z where they point."""
    approach = unit(approach)
    x = perpendicular(approach, closing)
    return np.stack([x, cross(approach, x), approach], axis=1)


def cross(first: Array, second: Array) -> Array:
    """Cross product of two vectors [3]: `np.cross` to the bit, at a tenth of its time."""
    (a, b, c), (d, e, f) = first.tolist(), second.tolist()
    return np.array([b * f - c * e, c * d - a * f, a * e - b * d])


def unit(vector: Array) -> Array:
    """The vector at length 1; zero stays zero."""
    length = float(np.sqrt(vector @ vector))
    return vector / length if length > 1e-12 else vector


def perpendicular(vector: Array, start: Array) -> Array:
    """Unit part of `start` across a unit vector."""
    return unit(start - vector * float(vector @ start))


def across(vector: Array) -> Array:
    """Any unit direction across a unit vector."""
    return perpendicular(vector, np.eye(3)[int(np.argmin(np.abs(vector)))])


def wrapped(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


@dataclass(frozen=True)
class Pose:
    """A position and an orientation."""

    pos: Array
    rot: Array

    def __matmul__(self, other: Pose) -> Pose:
        return Pose(self.pos + self.rot @ other.pos, self.rot @ other.rot)

    def inverse(self) -> Pose:
        """The pose that undoes this one."""
        return Pose(-self.rot.T @ self.pos, self.rot.T)

    def shifted(self, by: Array) -> Pose:
        """Moved in world axes."""
        return Pose(self.pos + by, self.rot)


@dataclass(frozen=True)
class Solids:
    """M convex solids in one frame.

    Attributes:
        centre: [M, 3].
        axes: [M, 3, 3], columns are a solid's own axes.
        half: [M, 3] half sizes along its axes (a cylinder's are radius, radius, half length).
        round: [M] True for cylinders about their third axis, False for boxes.
    """

    centre: Array
    axes: Array
    half: Array
    round: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.centre)

    def of(self, chosen: NDArray[np.bool_]) -> Solids:
        """Some of them."""
        return Solids(self.centre[chosen], self.axes[chosen], self.half[chosen], self.round[chosen])

    def seen_from(self, frame: Pose) -> Solids:
        """The same solids in the coordinates of a frame."""
        return Solids(
            (self.centre - frame.pos) @ frame.rot, frame.rot.T @ self.axes, self.half, self.round
        )

    def bounds(self) -> tuple[Array, Array]:
        """Lowest and highest corner of every solid's axis-aligned box, [M, 3] each."""
        reach = self.reach(np.eye(3))
        return self.centre - reach, self.centre + reach

    def reach(self, directions: Array) -> Array:
        """How far each solid extends from its centre along unit directions [D, 3]; [M, D]."""
        along = np.abs(np.einsum("mij,di->mdj", self.axes, directions)) * self.half[:, None, :]
        flat = along.sum(-1)
        if not self.round.any():
            return flat
        disc = np.hypot(along[..., 0], along[..., 1]) + along[..., 2]
        return np.where(self.round[:, None], disc, flat)

    def intervals(self, origins: Array, direction: Array) -> tuple[Array, Array]:
        """Where rays run inside each solid.

        Args:
            origins: [N, 3].
            direction: [3], unit.

        Returns:
            Entry and exit along the ray, [N, M] each; entry > exit where it misses.
        """
        o = np.einsum("nmi,mij->nmj", origins[:, None, :] - self.centre, self.axes)
        d = np.einsum("i,mij->mj", direction, self.axes)
        with np.errstate(divide="ignore", invalid="ignore"):
            a = (-self.half - o) / d
            b = (self.half - o) / d
        parallel = np.abs(d) < 1e-9
        outside = np.abs(o) > self.half
        low = np.where(parallel, np.where(outside, np.inf, -np.inf), np.minimum(a, b))
        high = np.where(parallel, np.where(outside, -np.inf, np.inf), np.maximum(a, b))
        if self.round.any():
            low, high = self._discs(o, d, low, high)
        return low.max(-1), high.min(-1)

    def _discs(self, o: Array, d: Array, low: Array, high: Array) -> tuple[Array, Array]:
        # A cylinder is its third slab cut with a disc: |o + t d|^2 = r^2 in its first two axes.
        r = self.half[:, 0]
        qa = (d[:, :2] ** 2).sum(-1)
        qb = (o[..., :2] * d[:, :2]).sum(-1)
        qc = (o[..., :2] ** 2).sum(-1) - r**2
        root = qb**2 - qa * qc
        with np.errstate(divide="ignore", invalid="ignore"):
            s = np.sqrt(np.maximum(root, 0.0))
            t0, t1 = (-qb - s) / qa, (-qb + s) / qa
        miss = root < 0
        axial = np.broadcast_to(qa < 1e-12, qb.shape)
        t0 = np.where(axial, np.where(qc > 0, np.inf, -np.inf), np.where(miss, np.inf, t0))
        t1 = np.where(axial, np.where(qc > 0, -np.inf, np.inf), np.where(miss, -np.inf, t1))
        low, high = low.copy(), high.copy()
        for k in range(2):
            low[..., k] = np.where(self.round, t0, low[..., k])
            high[..., k] = np.where(self.round, t1, high[..., k])
        return low, high


def solids_of(model: mujoco.MjModel, data: mujoco.MjData, geoms: Sequence[int]) -> Solids:
    """Take geoms of a posed model as solids in the world frame."""
    index = np.asarray(geoms, int)
    kinds = model.geom_type[index]
    axes = data.geom_xmat[index].reshape(-1, 3, 3)
    half = model.geom_size[index].astype(np.float64).copy()
    centre = data.geom_xpos[index].copy()
    cylinder = kinds == mujoco.mjtGeom.mjGEOM_CYLINDER
    capsule = kinds == mujoco.mjtGeom.mjGEOM_CAPSULE
    half[cylinder | capsule, 2] = half[cylinder | capsule, 1] + np.where(
        capsule[cylinder | capsule], half[cylinder | capsule, 0], 0.0
    )
    half[cylinder | capsule, 1] = half[cylinder | capsule, 0]
    other = ~(cylinder | capsule | (kinds == mujoco.mjtGeom.mjGEOM_BOX))
    if other.any():
        box = model.geom_aabb[index[other]]
        centre[other] += np.einsum("mij,mj->mi", axes[other], box[:, :3])
        half[other] = box[:, 3:]
    return Solids(centre, axes.copy(), half, cylinder | capsule)
