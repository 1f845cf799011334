"""Raw robot states: what each suite's robot reports at an observation, and rotations in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def quat_to_axis_angle(quat_xyzw: Array) -> Array:
    """Convert quaternions to axis-angle without choosing the antipode.

    A quaternion with w < 0 gives an angle above pi, as robosuite 1.4's
    ``quat2axisangle`` does; policies were trained on exactly that.

    Args:
        quat_xyzw: [..., 4].

    Returns:
        [..., 3], radians, angle in [0, 2 pi].

    Source: robosuite 1.4.0 utils/transform_utils.py.
    """
    w = np.clip(quat_xyzw[..., 3], -1.0, 1.0)
    den = np.sqrt(1.0 - w * w)
    small = np.isclose(den, 0.0)
    scale = np.where(small, 0.0, 2.0 * np.arccos(w) / np.where(small, 1.0, den))
    return quat_xyzw[..., :3] * scale[..., None]


@dataclass(frozen=True, kw_only=True)
class RobotStateLayout:
    """Names and widths of the raw robot state that a suite reports at each observation.

    Example: ``(("joint_pos", 7), ("eef_pos", 3), ...)``; ``dim`` is the sum of widths.
    """

    fields: tuple[tuple[str, int], ...]

    @property
    def dim(self) -> int:
        """Length of the whole vector."""
        return sum(width for _, width in self.fields)

    def split(self, raw: Array) -> dict[str, Array]:
        """Cut [..., dim] into named views."""
        out: dict[str, Array] = {}
        at = 0
        for name, width in self.fields:
            out[name] = raw[..., at : at + width]
            at += width
        return out


PANDA_STATE = RobotStateLayout(
    fields=(
        ("joint_pos", 7),
        ("joint_vel", 7),
        ("eef_pos", 3),
        ("eef_quat", 4),  # xyzw
        ("gripper_qpos", 2),
        ("gripper_qvel", 2),
    )
)

PANDA_BASE_STATE = RobotStateLayout(
    # base_quat xyzw; torso: metres of the lift
    fields=(*PANDA_STATE.fields, ("base_pos", 3), ("base_quat", 4), ("torso", 1))
)

ALOHA_STATE = RobotStateLayout(
    fields=tuple(
        (f"{side}_{name}", width)
        for side in ("left", "right")
        for name, width in (
            ("joint_pos", 6),
            ("joint_vel", 6),
            ("eef_pos", 3),
            ("eef_quat", 4),  # xyzw
            ("gripper_qpos", 2),
            ("gripper_qvel", 2),
            ("gripper_open", 1),  # 0 closed .. 1 open
        )
    )
)


def rotated_back(vectors: Array, quat_xyzw: Array) -> Array:
    """Vectors [..., 3] in the axes of a frame whose orientation is given."""
    axis, w = -quat_xyzw[..., :3], quat_xyzw[..., 3:]
    t = 2.0 * np.cross(axis, vectors)
    return vectors + w * t + np.cross(axis, t)


def turned_back(quat_xyzw: Array, base_xyzw: Array) -> Array:
    """Orientations [..., 4] relative to a base's, not flipped to the antipode."""
    v, w = -base_xyzw[..., :3], base_xyzw[..., 3:]
    u, s = quat_xyzw[..., :3], quat_xyzw[..., 3:]
    scalar = w * s - np.sum(v * u, axis=-1, keepdims=True)
    return np.concatenate([w * u + s * v + np.cross(v, u), scalar], axis=-1)
