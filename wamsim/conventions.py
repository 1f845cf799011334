"""Named conventions for actions, proprioception and pictures.

A convention is a type, not a dimension: two 7-vectors with opposite gripper signs
are different conventions, and a policy and a suite that disagree refuse before the
first step. Pitfalls that this room guards (vla-eval, docs/reproductions/
common-pitfalls.md): a quaternion flipped to its antipode moves OpenVLA-OFT on
LIBERO-Goal from 97 to 83 percent; gripper polarity; 180 degree or vertical flips.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wamsim.errors import ConventionMismatch

Array = NDArray[np.float64]


class Rotation(enum.Enum):
    """How a rotation is written."""

    AXIS_ANGLE = "axis_angle"  # 3, radians; angle in [0, 2 pi], never flipped to the antipode
    QUATERNION_XYZW = "quaternion_xyzw"
    NONE = "none"


class Gripper(enum.Enum):
    """What the gripper channel means."""

    CLOSE_POSITIVE = "close_positive"  # +1 closes, -1 opens, 0 holds (robosuite 1.4)
    OPEN_POSITIVE = "open_positive"  # +1 opens, -1 closes
    OPEN_FRACTION = "open_fraction"  # 0 closed .. 1 open (RoboTwin)
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class ActionConvention:
    """What an action vector means.

    Attributes:
        name: Upper-case constant name; the identity used in records.
        labels: One word per dimension, in order.
        low, high: Bounds per dimension; values outside are clipped by the suite.
        delta: True when arm channels are changes, False when absolute targets.
        rotation: How orientation channels are written.
        gripper: Meaning of the gripper channel(s).
        hold: The action that asks for no motion with an open gripper.
    """

    name: str
    labels: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    delta: bool
    rotation: Rotation
    gripper: Gripper
    hold: tuple[float, ...]

    def __post_init__(self) -> None:
        n = len(self.labels)
        if not len(self.low) == len(self.high) == len(self.hold) == n:
            raise ValueError(f"{self.name}: labels, low, high and hold must have equal length")

    @property
    def dim(self) -> int:
        """Number of channels."""
        return len(self.labels)


DELTA_EEF_GRIPPER_CLOSE_POSITIVE = ActionConvention(
    # robosuite 1.4 OSC_POSE: +-1 is +-0.05 m and +-0.5 rad, world frame, per control step.
    name="DELTA_EEF_GRIPPER_CLOSE_POSITIVE",
    labels=("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
    low=(-1.0,) * 7,
    high=(1.0,) * 7,
    delta=True,
    rotation=Rotation.AXIS_ANGLE,
    gripper=Gripper.CLOSE_POSITIVE,
    hold=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0),
)

DELTA_EEF_GRIPPER_OPEN_POSITIVE = ActionConvention(
    # The same arm channels with the opposite gripper sign (openpi, OpenVLA outputs after remap).
    name="DELTA_EEF_GRIPPER_OPEN_POSITIVE",
    labels=("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
    low=(-1.0,) * 7,
    high=(1.0,) * 7,
    delta=True,
    rotation=Rotation.AXIS_ANGLE,
    gripper=Gripper.OPEN_POSITIVE,
    hold=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
)

ACTIONS: dict[str, ActionConvention] = {
    c.name: c for c in (DELTA_EEF_GRIPPER_CLOSE_POSITIVE, DELTA_EEF_GRIPPER_OPEN_POSITIVE)
}


def _flip_gripper(actions: NDArray[np.float32]) -> NDArray[np.float32]:
    flipped = actions.copy()
    flipped[..., -1] = -flipped[..., -1]
    return flipped


ActionConverter = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# (from, to) -> function over [..., A]. A pair that is not here is a refusal, never a guess.
ACTION_CONVERTERS: dict[tuple[str, str], ActionConverter] = {
    ("DELTA_EEF_GRIPPER_OPEN_POSITIVE", "DELTA_EEF_GRIPPER_CLOSE_POSITIVE"): _flip_gripper,
    ("DELTA_EEF_GRIPPER_CLOSE_POSITIVE", "DELTA_EEF_GRIPPER_OPEN_POSITIVE"): _flip_gripper,
}


def action_converter(
    emits: ActionConvention, expects: ActionConvention, *, policy: str, suite: str
) -> ActionConverter:
    """Find the function from what a policy emits to what a suite expects.

    Raises:
        ConventionMismatch: No converter is known; the message names the pair to add.
    """
    if emits == expects:
        return lambda actions: actions
    try:
        return ACTION_CONVERTERS[(emits.name, expects.name)]
    except KeyError:
        raise ConventionMismatch(
            f"policy {policy!r} emits {emits.name}, but suite {suite!r} expects {expects.name}. "
            f"Add a converter for ({emits.name}, {expects.name}) to ACTION_CONVERTERS in "
            f"wamsim/conventions.py, or choose a suite with `wamsim list suites`."
        ) from None


@dataclass(frozen=True, kw_only=True)
class ProprioConvention:
    """What a proprioception vector means.

    Attributes:
        name: Upper-case constant name.
        fields: Names of robot-state fields, concatenated in this order. A field
            ``eef_axis_angle`` is computed from ``eef_quat`` (xyzw).
        dim: Total length.
    """

    name: str
    fields: tuple[str, ...]
    dim: int


EEF_AXIS_ANGLE_GRIPPER = ProprioConvention(
    # The "8-D LIBERO state" of OpenVLA, openpi and Fast-WAM.
    name="EEF_AXIS_ANGLE_GRIPPER",
    fields=("eef_pos", "eef_axis_angle", "gripper_qpos"),
    dim=8,
)
GRIPPER_EEF_POS_QUAT = ProprioConvention(
    # Cosmos Policy on LIBERO and RoboCasa: gripper 2, position 3, quaternion xyzw 4.
    name="GRIPPER_EEF_POS_QUAT",
    fields=("gripper_qpos", "eef_pos", "eef_quat"),
    dim=9,
)
JOINTS_GRIPPER = ProprioConvention(
    name="JOINTS_GRIPPER", fields=("joint_pos", "gripper_qpos"), dim=9
)

PROPRIOS: dict[str, ProprioConvention] = {
    c.name: c for c in (EEF_AXIS_ANGLE_GRIPPER, GRIPPER_EEF_POS_QUAT, JOINTS_GRIPPER)
}


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


def proprio_from_robot_state(
    raw: Array, layout: RobotStateLayout, convention: ProprioConvention, *, suite: str
) -> NDArray[np.float32]:
    """Write a raw robot state in a policy's proprioception convention.

    Args:
        raw: [..., layout.dim] float64.
        layout: What ``raw`` holds.
        convention: What the policy wants.
        suite: For the error text.

    Returns:
        [..., convention.dim] float32.

    Raises:
        ConventionMismatch: The suite's robot does not report a field that is needed.
    """
    parts: Mapping[str, Array] = layout.split(raw)
    columns: list[Array] = []
    for name in convention.fields:
        if name == "eef_axis_angle" and "eef_quat" in parts:
            columns.append(quat_to_axis_angle(parts["eef_quat"]))
        elif name in parts:
            columns.append(parts[name])
        else:
            raise ConventionMismatch(
                f"proprioception {convention.name} needs {name!r}, but suite {suite!r} reports "
                f"{', '.join(n for n, _ in layout.fields)}. Choose another convention in the "
                f"policy's card (wamsim/conventions.py lists them)."
            )
    return np.concatenate(columns, axis=-1).astype(np.float32)


class Orientation(enum.Enum):
    """Which way up a policy wants its pictures; ours are upright."""

    UPRIGHT = "upright"  # as a person sees it: Cosmos Policy's flip of the raw OpenGL rows
    MIRRORED = "mirrored"  # left and right swapped: OpenVLA's 180 degree turn of the raw rows
    OPENGL = "opengl"  # raw rows, bottom first, as robosuite returns them


def orient(frames: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Turn upright pictures [..., H, W, 3] into another orientation (a view, no copy)."""
    if orientation is Orientation.UPRIGHT:
        return frames
    if orientation is Orientation.MIRRORED:
        return frames[..., :, ::-1, :]
    return frames[..., ::-1, :, :]
