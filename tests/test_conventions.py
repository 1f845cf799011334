"""Conventions by hand: rotations that are never flipped, gripper signs, which way is up."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation as Scipy

from wamsim.conventions import (
    ACTION_CONVERTERS,
    ACTIONS,
    ALOHA_JOINTS_GRIPPER_OPEN_FRACTION,
    ALOHA_STATE,
    DELTA_EEF_BASE_TORSO_MODE,
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    DELTA_EEF_GRIPPER_OPEN_POSITIVE,
    EEF_AXIS_ANGLE_GRIPPER,
    EEF_IN_BASE_GRIPPER_BASE,
    GRIPPER_EEF_POS_QUAT,
    JOINTS_GRIPPER,
    PANDA_BASE_STATE,
    PANDA_STATE,
    PROPRIO_BESIDE,
    PROPRIOS,
    Gripper,
    Orientation,
    RobotStateLayout,
    action_converter,
    orient,
    proprio_from_robot_state,
    quat_to_axis_angle,
)
from wamsim.errors import ConventionMismatch

CLOSE, OPEN = DELTA_EEF_GRIPPER_CLOSE_POSITIVE, DELTA_EEF_GRIPPER_OPEN_POSITIVE
HALF = np.sqrt(0.5)


# --------------------------------------------------------------------------- rotations


@pytest.mark.parametrize(
    ("xyzw", "expected"),
    [
        ((0, 0, 0, 1), (0, 0, 0)),
        ((HALF, 0, 0, HALF), (np.pi / 2, 0, 0)),
        ((0, 1, 0, 0), (0, np.pi, 0)),
        # the antipode of a quarter turn stays itself: three quarters of a turn the other way
        ((-HALF, 0, 0, -HALF), (-3 * np.pi / 2, 0, 0)),
        ((0, 0, -0.6, -0.8), (0, 0, -2 * np.arccos(-0.8))),
        ((0, 0, 0, -1), (0, 0, 0)),  # a full turn about no axis: robosuite gives zeros
        ((0, 0, 0, 1.0000001), (0, 0, 0)),  # rounding past 1
        ((0, 0, 0, -1.0000001), (0, 0, 0)),
    ],
)
def test_quaternions_become_axis_angles_without_a_flip(xyzw: tuple, expected: tuple) -> None:
    assert quat_to_axis_angle(np.array(xyzw, np.float64)) == pytest.approx(expected, abs=1e-12)


def test_axis_angles_are_the_rotation_of_their_quaternion() -> None:
    quats = Scipy.random(200, random_state=0).as_quat()
    vectors = quat_to_axis_angle(quats.reshape(20, 10, 4)).reshape(200, 3)
    turned = Scipy.from_rotvec(vectors) * Scipy.from_quat(quats).inv()
    assert turned.magnitude().max() < 1e-7
    angles = np.linalg.norm(vectors, axis=1)
    assert angles == pytest.approx(2 * np.arccos(quats[:, 3]))  # past pi where w < 0
    assert (angles > np.pi).any()
    assert angles.max() <= 2 * np.pi


# ---------------------------------------------------------------------- proprioception

RAW = np.arange(25.0)
RAW[17:21] = 0, 0, HALF, HALF  # a quarter turn about z, at the place of eef_quat


def test_the_pandas_state_in_order() -> None:
    parts = PANDA_STATE.split(RAW)
    assert PANDA_STATE.dim == 25
    assert {name: part[0] for name, part in parts.items() if name != "eef_quat"} == {
        "joint_pos": 0, "joint_vel": 7, "eef_pos": 14, "gripper_qpos": 21, "gripper_qvel": 23,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        (EEF_AXIS_ANGLE_GRIPPER, [14, 15, 16, 0, 0, np.pi / 2, 21, 22]),
        (GRIPPER_EEF_POS_QUAT, [21, 22, 14, 15, 16, 0, 0, HALF, HALF]),
        (JOINTS_GRIPPER, [0, 1, 2, 3, 4, 5, 6, 21, 22]),
    ],
    ids=lambda c: getattr(c, "name", ""),
)
def test_proprioception_by_hand(convention, expected: list[float]) -> None:
    raw = np.stack([RAW, RAW])
    out = proprio_from_robot_state(raw, PANDA_STATE, convention, suite="toy")
    assert (out.shape, out.dtype) == ((2, convention.dim), np.float32)
    assert out[0] == pytest.approx(expected)


def test_a_field_that_the_robot_does_not_report_is_refused() -> None:
    legs = RobotStateLayout(fields=(("leg_pos", 4), ("gripper_qpos", 2)))
    with pytest.raises(ConventionMismatch, match=r"needs 'joint_pos', but suite 'toy' reports leg"):
        proprio_from_robot_state(np.zeros(6), legs, JOINTS_GRIPPER, suite="toy")


def test_an_axis_angle_needs_a_quaternion() -> None:
    lame = RobotStateLayout(fields=(("eef_pos", 3), ("gripper_qpos", 2)))
    with pytest.raises(ConventionMismatch, match="needs 'eef_axis_angle'"):
        proprio_from_robot_state(np.zeros(5), lame, EEF_AXIS_ANGLE_GRIPPER, suite="toy")


@pytest.mark.parametrize("convention", PROPRIOS.values(), ids=lambda c: c.name)
def test_every_convention_fits_a_robot(convention) -> None:
    assert PROPRIOS[convention.name] is convention
    layout = next(
        layout
        for prefix, layout in (
            ("base_", PANDA_BASE_STATE),
            ("left_", ALOHA_STATE),
            ("", PANDA_STATE),
        )
        if any(field.startswith(prefix) for field in convention.fields)
    )
    raw = np.linspace(-1.0, 1.0, layout.dim)
    out = proprio_from_robot_state(raw, layout, convention, suite="toy")
    assert out.shape == (convention.dim,)


def test_the_hand_in_the_axes_of_its_base() -> None:
    # The base stands at (1, 2, 0), turned by 90 degrees about the vertical: its x is the
    # world's y. A hand at (1, 2.5, 0.7) is 0.5 m ahead of it; turned as the base, it is not turned.
    half = np.sqrt(0.5)
    raw = np.zeros(PANDA_BASE_STATE.dim)
    parts = PANDA_BASE_STATE.split(raw)
    parts["eef_pos"][:] = 1.0, 2.5, 0.7
    parts["eef_quat"][:] = 0, 0, half, half
    parts["base_pos"][:] = 1.0, 2.0, 0.0
    parts["base_quat"][:] = 0, 0, half, half
    out = proprio_from_robot_state(raw, PANDA_BASE_STATE, EEF_IN_BASE_GRIPPER_BASE, suite="toy")
    assert out[:7] == pytest.approx([0.5, 0, 0.7, 0, 0, 0, 1], abs=1e-7)
    assert out[9:12] == pytest.approx([1, 2, 0])


def test_seven_channels_drive_a_kitchen_robot_that_stands_still() -> None:
    convert = action_converter(OPEN, DELTA_EEF_BASE_TORSO_MODE, policy="p", suite="s")
    chunk = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]], np.float32)
    out = convert(chunk)
    assert (
        out.tolist() == np.float32([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -0.7, 0, 0, 0, 0, -1]]).tolist()
    )
    with pytest.raises(ConventionMismatch, match=r"\(DELTA_EEF_BASE_TORSO_MODE, "):
        action_converter(DELTA_EEF_BASE_TORSO_MODE, CLOSE, policy="p", suite="s")


# ----------------------------------------------------------------------------- actions


def test_the_gripper_changes_sign_and_the_arm_does_not() -> None:
    convert = action_converter(OPEN, CLOSE, policy="p", suite="s")
    chunk = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]], np.float32)
    kept = chunk.copy()
    out = convert(chunk)
    assert out.tolist() == [[*chunk[0, :6].tolist(), -chunk[0, 6].item()]]
    assert out.dtype == np.float32
    assert np.array_equal(chunk, kept)  # the policy's own array is left alone
    assert np.array_equal(action_converter(CLOSE, OPEN, policy="p", suite="s")(out), chunk)


def test_equal_conventions_change_nothing() -> None:
    chunk = np.ones((2, 7), np.float32)
    assert action_converter(CLOSE, CLOSE, policy="p", suite="s")(chunk) is chunk


def test_converters_turn_hold_into_hold() -> None:
    for (emits, expects), convert in ACTION_CONVERTERS.items():
        hold = np.float32([ACTIONS[emits].hold])
        assert convert(hold)[0].tolist() == list(ACTIONS[expects].hold)


@pytest.mark.parametrize("convention", ACTIONS.values(), ids=lambda c: c.name)
def test_every_action_convention_is_whole(convention) -> None:
    assert ACTIONS[convention.name] is convention
    assert convention.dim == len(convention.low) == len(convention.high) == len(convention.hold)
    assert all(a <= h <= b for a, h, b in zip(
        convention.low, convention.hold, convention.high, strict=True
    ))  # fmt: skip


def test_which_channels_grip_switch_and_change() -> None:
    base, joints = DELTA_EEF_BASE_TORSO_MODE, ALOHA_JOINTS_GRIPPER_OPEN_FRACTION
    assert (CLOSE.grippers, CLOSE.switched, CLOSE.changes) == ([6], [6], list(range(6)))
    assert (base.grippers, base.switched) == ([6], [6, 11])
    assert base.changes == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]
    # absolute targets: the grippers', too, of which half open is one
    assert (joints.grippers, joints.switched, joints.changes) == ([6, 13], [], [])
    assert dataclasses.replace(CLOSE, gripper=Gripper.NONE).grippers == []
    with pytest.raises(ValueError, match="switches must be among the labels"):
        dataclasses.replace(CLOSE, switches=("mode",))


def test_beside_every_action_stands_a_proprioception() -> None:
    assert set(PROPRIO_BESIDE) == set(ACTIONS)
    assert all(PROPRIOS[c.name] is c for c in PROPRIO_BESIDE.values())


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="labels, low, high and hold must have equal length"):
        dataclasses.replace(CLOSE, hold=(0.0,))


# ---------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (Orientation.UPRIGHT, [[0, 1, 2], [3, 4, 5]]),
        (Orientation.MIRRORED, [[2, 1, 0], [5, 4, 3]]),
        (Orientation.OPENGL, [[3, 4, 5], [0, 1, 2]]),
    ],
)
def test_which_way_is_up(orientation: Orientation, expected: list) -> None:
    frame = np.arange(6, dtype=np.uint8).reshape(2, 3, 1) * np.ones(3, np.uint8)
    out = orient(np.stack([frame, frame])[None], orientation)
    assert out.shape == (1, 2, 2, 3, 3)
    assert out[0, 1, :, :, 0].tolist() == expected


def test_mirrored_is_half_a_turn_of_the_raw_opengl_rows() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    raw = orient(frame, Orientation.OPENGL)
    assert np.array_equal(orient(frame, Orientation.MIRRORED), np.rot90(raw, 2))
