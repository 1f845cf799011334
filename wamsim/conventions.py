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
from wamsim.robot_states import ALOHA_STATE as ALOHA_STATE
from wamsim.robot_states import PANDA_BASE_STATE as PANDA_BASE_STATE
from wamsim.robot_states import PANDA_STATE as PANDA_STATE
from wamsim.robot_states import (
    RobotStateLayout,
    quat_to_axis_angle,
    rotated_back,
    turned_back,
)

Array = NDArray[np.float64]


class Rotation(enum.Enum):
    """How a rotation is written."""

    AXIS_ANGLE = "axis_angle"  # 3, radians; angle in [0, 2 pi], never flipped to the antipode
    QUATERNION_XYZW = "quaternion_xyzw"
    QUATERNION_WXYZ = "quaternion_wxyz"
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
        switches: Labels of channels that a model may binarise, each to the bound on its side
            of the middle; what lies between means little or nothing there.
    """

    name: str
    labels: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    delta: bool
    rotation: Rotation
    gripper: Gripper
    hold: tuple[float, ...]
    switches: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.labels)
        if not len(self.low) == len(self.high) == len(self.hold) == n:
            raise ValueError(f"{self.name}: labels, low, high and hold must have equal length")
        if not set(self.switches) <= set(self.labels):
            raise ValueError(f"{self.name}: switches must be among the labels")

    @property
    def dim(self) -> int:
        """Number of channels."""
        return len(self.labels)

    @property
    def grippers(self) -> list[int]:
        """Which channels move a gripper."""
        if self.gripper is Gripper.NONE:
            return []
        return [i for i, label in enumerate(self.labels) if "gripper" in label]

    @property
    def switched(self) -> list[int]:
        """Which channels are `switches`."""
        return [self.labels.index(label) for label in self.switches]

    @property
    def changes(self) -> list[int]:
        """Which channels ask for a change, so that 0 in them asks for nothing."""
        still = {*self.grippers, *self.switched}
        return [i for i in range(self.dim) if self.delta and i not in still]


DELTA_EEF_GRIPPER_CLOSE_POSITIVE = ActionConvention(
    # robosuite 1.4 OSC_POSE: +-1 is +-0.05 m and +-0.5 rad per control step, in the axes of
    # the robot's base, which in LIBERO and tabletop are the world's.
    name="DELTA_EEF_GRIPPER_CLOSE_POSITIVE",
    labels=("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
    low=(-1.0,) * 7,
    high=(1.0,) * 7,
    delta=True,
    rotation=Rotation.AXIS_ANGLE,
    gripper=Gripper.CLOSE_POSITIVE,
    hold=(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    switches=("gripper",),
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
    switches=("gripper",),
)

DELTA_EEF_BASE_TORSO_MODE = ActionConvention(
    # RoboCasa's PandaOmron (HYBRID_MOBILE_BASE): arm and gripper as above; velocities of base
    # and torso; mode > 0 moves base and torso and holds the arm, else the arm moves.
    name="DELTA_EEF_BASE_TORSO_MODE",
    labels=(
        *DELTA_EEF_GRIPPER_CLOSE_POSITIVE.labels,
        *("base_forward", "base_side", "base_turn", "torso", "mode"),
    ),
    low=(-1.0,) * 12,
    high=(1.0,) * 12,
    delta=True,
    rotation=Rotation.AXIS_ANGLE,
    gripper=Gripper.CLOSE_POSITIVE,
    hold=(*DELTA_EEF_GRIPPER_CLOSE_POSITIVE.hold, 0.0, 0.0, 0.0, 0.0, -1.0),
    switches=("gripper", "mode"),
)

_VX300S_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
# Joint limits of the ViperX 300 s, radians (gym-aloha 0.1.5, vx300s_left.xml).
VX300S_LOW = (-3.14158, -1.85005, -1.76278, -3.14158, -1.8675, -3.14158)
VX300S_HIGH = (3.14158, 1.25664, 1.6057, 3.14158, 2.23402, 3.14158)
# Where our episodes begin: elbow up, the hand 25 cm above the table and pointing half down.
VX300S_HOME = (0.0, -1.0, 0.8, 0.0, 1.0, 0.0)


def _both(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{side}_{label}" for side in ("left", "right") for label in labels)


ALOHA_JOINTS_GRIPPER_OPEN_FRACTION = ActionConvention(
    # RoboTwin's "qpos" layout (left arm 6, gripper, right arm 6, gripper) for the joints of
    # gym-aloha's ViperX pair: radians, absolute; another robot's joints are another convention.
    # The grippers are targets like the joints, and half open is a place to be: no switches.
    name="ALOHA_JOINTS_GRIPPER_OPEN_FRACTION",
    labels=_both((*_VX300S_JOINTS, "gripper")),
    low=(*VX300S_LOW, 0.0) * 2,
    high=(*VX300S_HIGH, 1.0) * 2,
    delta=False,
    rotation=Rotation.NONE,
    gripper=Gripper.OPEN_FRACTION,
    hold=(*VX300S_HOME, 1.0) * 2,
)

# The hands at VX300S_HOME in envs/bimanual, metres and quaternion wxyz (its tests check it).
_HOME_HANDS = (
    -0.2526, 0.0, 0.991977, 0.921061, 0.0, 0.389418, 0.0, 1.0,
    0.2526, 0.0, 0.991977, 0.0, -0.389418, 0.0, 0.921061, 1.0,
)  # fmt: skip

DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION = ActionConvention(
    # RoboTwin's "ee" layout: where each hand shall be, metres and quaternion wxyz in the
    # world, and its gripper. A quaternion of length 0 asks for no turn.
    name="DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION",
    labels=_both(("x", "y", "z", "qw", "qx", "qy", "qz", "gripper")),
    low=(-1.0, -1.0, 0.0, -1.0, -1.0, -1.0, -1.0, 0.0) * 2,
    high=(1.0, 1.0, 1.5, 1.0, 1.0, 1.0, 1.0, 1.0) * 2,
    delta=False,
    rotation=Rotation.QUATERNION_WXYZ,
    gripper=Gripper.OPEN_FRACTION,
    hold=_HOME_HANDS,
)

ACTIONS: dict[str, ActionConvention] = {
    c.name: c
    for c in (
        DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
        DELTA_EEF_GRIPPER_OPEN_POSITIVE,
        DELTA_EEF_BASE_TORSO_MODE,
        ALOHA_JOINTS_GRIPPER_OPEN_FRACTION,
        DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION,
    )
}


def _flip_gripper(actions: NDArray[np.float32]) -> NDArray[np.float32]:
    flipped = actions.copy()
    flipped[..., -1] = -flipped[..., -1]
    return flipped


def _stand(actions: NDArray[np.float32]) -> NDArray[np.float32]:
    """The arm's seven channels with a base that stands still."""
    still = np.asarray(DELTA_EEF_BASE_TORSO_MODE.hold[7:], np.float32)
    return np.concatenate([actions, np.broadcast_to(still, (*actions.shape[:-1], 5))], axis=-1)


ActionConverter = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# (from, to) -> function over [..., A]. A pair that is not here is a refusal, never a guess.
ACTION_CONVERTERS: dict[tuple[str, str], ActionConverter] = {
    ("DELTA_EEF_GRIPPER_OPEN_POSITIVE", "DELTA_EEF_GRIPPER_CLOSE_POSITIVE"): _flip_gripper,
    ("DELTA_EEF_GRIPPER_CLOSE_POSITIVE", "DELTA_EEF_GRIPPER_OPEN_POSITIVE"): _flip_gripper,
    ("DELTA_EEF_GRIPPER_CLOSE_POSITIVE", "DELTA_EEF_BASE_TORSO_MODE"): _stand,
    ("DELTA_EEF_GRIPPER_OPEN_POSITIVE", "DELTA_EEF_BASE_TORSO_MODE"): lambda actions: _stand(
        _flip_gripper(actions)
    ),
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
        fields: Names of robot-state fields, concatenated in this order. Computed are
            ``eef_axis_angle`` from ``eef_quat`` (xyzw), and ``eef_pos_in_base``,
            ``eef_quat_in_base`` from the poses of hand and base.
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

EEF_IN_BASE_GRIPPER_BASE = ProprioConvention(
    # RoboCasa365's state.* keys in their order.
    name="EEF_IN_BASE_GRIPPER_BASE",
    fields=("eef_pos_in_base", "eef_quat_in_base", "gripper_qpos", "base_pos", "base_quat"),
    dim=16,
)
ALOHA_JOINTS_GRIPPER = ProprioConvention(
    # As the action: RoboTwin's joint_action.vector, but measured.
    name="ALOHA_JOINTS_GRIPPER",
    fields=("left_joint_pos", "left_gripper_open", "right_joint_pos", "right_gripper_open"),
    dim=14,
)
DUAL_EEF_GRIPPER = ProprioConvention(
    name="DUAL_EEF_GRIPPER",
    fields=(
        *("left_eef_pos", "left_eef_quat", "left_gripper_open"),
        *("right_eef_pos", "right_eef_quat", "right_gripper_open"),
    ),
    dim=16,
)

PROPRIOS: dict[str, ProprioConvention] = {
    c.name: c
    for c in (
        EEF_AXIS_ANGLE_GRIPPER,
        GRIPPER_EEF_POS_QUAT,
        JOINTS_GRIPPER,
        EEF_IN_BASE_GRIPPER_BASE,
        ALOHA_JOINTS_GRIPPER,
        DUAL_EEF_GRIPPER,
    )
}

# What a policy is usually told that speaks an action convention; a suggestion, never a default.
PROPRIO_BESIDE: dict[str, ProprioConvention] = {
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name: EEF_AXIS_ANGLE_GRIPPER,
    DELTA_EEF_GRIPPER_OPEN_POSITIVE.name: EEF_AXIS_ANGLE_GRIPPER,
    DELTA_EEF_BASE_TORSO_MODE.name: EEF_IN_BASE_GRIPPER_BASE,
    ALOHA_JOINTS_GRIPPER_OPEN_FRACTION.name: ALOHA_JOINTS_GRIPPER,
    DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION.name: DUAL_EEF_GRIPPER,
}


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
        elif name == "eef_pos_in_base" and "base_pos" in parts:
            away = parts["eef_pos"] - parts["base_pos"]
            columns.append(rotated_back(away, parts["base_quat"]))
        elif name == "eef_quat_in_base" and "base_quat" in parts:
            columns.append(turned_back(parts["eef_quat"], parts["base_quat"]))
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


def orient_points(points: NDArray[np.float32], orientation: Orientation) -> NDArray[np.float32]:
    """Turn points as `orient` turns the picture that they are in.

    Args:
        points: float32 [..., 2], (column, row) in the upright picture as shares of its width and
            height.
        orientation: Of the picture that is wanted.

    Returns:
        [..., 2], where they are in that picture.
    """
    if orientation is Orientation.UPRIGHT:
        return points
    out, axis = points.copy(), 0 if orientation is Orientation.MIRRORED else 1
    out[..., axis] = 1 - out[..., axis]
    return out
