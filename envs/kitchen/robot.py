"""A Panda on a mobile base with a lift, built in code.

The arm and its hand are the tabletop suites' (robosuite 1.4's Panda). Base and lift are
ours: a chain of slide x, slide y, hinge yaw and slide torso, each with a position servo
that holds it where it is told. In the style of robosuite's PandaOmron, not a copy of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mujoco
import numpy as np

from envs.control import Control, Platform, Servo
from envs.kitchen.build import Kit
from envs.scene import Robot
from envs.tabletop import panda, shapes
from envs.tabletop.room import Point, look_at
from envs.tabletop.stage import BOX, COLLISION_GROUP
from wamsim.conventions import DELTA_EEF_BASE_TORSO_MODE, DELTA_EEF_GRIPPER_CLOSE_POSITIVE

# Height of the arm's base with the lift at 0, and the lift's range, metres: counters (0.92)
# and wall cabinets (1.45) are both within the Panda's 0.85 m around a shoulder 0.33 m higher.
ARM_Z = 0.80
TORSO_RANGE = (-0.15, 0.35)
BASE_RANGE = 3.0  # metres of drive in each direction: the room
# PandaOmron's nominal arm (SUITES 2.3).
INIT_QPOS = (
    -0.01612974, -1.03446714, -0.02397936, -2.27550888, 0.03932365, 1.51639493, 0.69615947,
)  # fmt: skip
BASE_JOINTS = ("robot0_base_x", "robot0_base_y", "robot0_base_yaw")
TORSO_JOINT = "robot0_torso"
ARM_BASE = "robot0_base"  # body in whose axes the arm's deltas are given
ROOT = "robot0_mobile_base"

MASS_KG = {"base": 120.0, "torso": 25.0}  # heavy and low: the arm does not tip it
# Position servos: 2 to 3 Hz would sway visibly; at these stiffnesses the base gives way by
# 0.2 mm under the 60 N that the arm can push with, and 2 ms steps stay stable.
STIFFNESS = {"slide": 3.0e5, "hinge": 6.0e4, "torso": 2.0e5}
DAMPING = {"slide": 1.2e4, "hinge": 1.5e3, "torso": 4.5e3}

# A walking pace for the base, a careful one for turning and lifting: m/s, rad/s, m/s.
SPEED = {"drive": 0.5, "turn": 0.8, "lift": 0.15}
_CHANNEL = {label: k for k, label in enumerate(DELTA_EEF_BASE_TORSO_MODE.labels)}


def _servo(joint: str, label: str, low: float, high: float, speed: float, **mixed: Any) -> Servo:
    return Servo(
        actuator=joint, joint=joint, channel=_CHANNEL[label], kind="velocity", low=low, high=high,
        speed=speed, gated=True, **mixed,
    )  # fmt: skip


CONTROLS = (
    Control(
        action=DELTA_EEF_BASE_TORSO_MODE.name,
        frame=ARM_BASE,
        mode=_CHANNEL["mode"],
        servos=(
            _servo(
                BASE_JOINTS[0], "base_forward", -BASE_RANGE, BASE_RANGE, SPEED["drive"],
                across=_CHANNEL["base_side"], across_sign=-1.0, heading=BASE_JOINTS[2],
            ),
            _servo(
                BASE_JOINTS[1], "base_side", -BASE_RANGE, BASE_RANGE, SPEED["drive"],
                across=_CHANNEL["base_forward"], across_sign=1.0, heading=BASE_JOINTS[2],
            ),
            _servo(BASE_JOINTS[2], "base_turn", -2 * np.pi, 2 * np.pi, SPEED["turn"]),
            _servo(TORSO_JOINT, "torso", *TORSO_RANGE, SPEED["lift"]),
        ),
    ),
    # Arm and gripper alone; base and lift hold still.
    Control(action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name, frame=ARM_BASE),
)  # fmt: skip
PLATFORM = Platform(body="robot0_base_turn", torso_joint=TORSO_JOINT)

# RoboCasa's agentviews hang at (-0.5, +-0.35, 1.05) above the base's own origin, which is
# about 0.7 m high, fovy 60 (SUITES 2.3). Ours look at the middle of the work area.
EYE: Point = (-0.42, 0.50, 1.72)
TARGET: Point = (0.60, 0.0, 1.02)
FOVY_DEG = 60.0
CAMERAS = ("agentview_left", "agentview_right")


def add_robot(kit: Kit, lift: float) -> Robot:
    """Add base, lift, arm, hand and the cameras that ride on the base; it faces +x.

    Args:
        kit: The kitchen.
        lift: Metres by which the lift has been raised before the episode; its joint counts
            from there.
    """
    spec = kit.stage.spec
    white = kit.stage.material("base_white", (0.86, 0.87, 0.88), specular=0.4, shininess=0.5)
    dark = kit.stage.material("base_dark", (0.15, 0.16, 0.17), specular=0.4, shininess=0.5)
    blue = kit.stage.material("base_stripe", (0.16, 0.36, 0.56), specular=0.4, shininess=0.5)
    root = spec.worldbody.add_body(name=ROOT)
    _joint(spec, root, BASE_JOINTS[0], (1, 0, 0), BASE_RANGE, "slide")
    _weigh(root, 20.0, (0.25, 0.22, 0.1), 0.12)
    side = root.add_body(name="robot0_base_side")
    _joint(spec, side, BASE_JOINTS[1], (0, 1, 0), BASE_RANGE, "slide")
    _weigh(side, 20.0, (0.25, 0.22, 0.1), 0.12)
    base = side.add_body(name="robot0_base_turn")
    _joint(spec, base, BASE_JOINTS[2], (0, 0, 1), 2 * np.pi, "hinge")
    _weigh(base, MASS_KG["base"], (0.25, 0.22, 0.12), 0.14)
    lower, upper = (0.27, 0.235, 0.105), (0.20, 0.18, 0.17)
    x = -0.10  # the arm stands before the middle of its base
    kit.draw(base, "robot0_skirt", shapes.rounded_box(lower, 0.04, steps=2), dark, (x, 0, 0.145))
    kit.draw(base, "robot0_case", shapes.rounded_box(upper, 0.05, steps=2), white, (x, 0, 0.36))
    kit.draw(
        base, "robot0_stripe", shapes.rounded_box((0.202, 0.182, 0.012), 0.01, steps=1), blue,
        (x, 0, 0.30),
    )  # fmt: skip
    for k, (sx, sy) in enumerate(((1, 1), (1, -1), (-1, 1), (-1, -1))):
        base.add_geom(
            name=f"robot0_wheel{k}", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.06, 0.02, 0],
            pos=(x + 0.19 * sx, 0.19 * sy, 0.06), quat=(np.sqrt(0.5), np.sqrt(0.5), 0, 0),
            material=dark, contype=0, conaffinity=0, group=1, mass=0,
        )  # fmt: skip
    base.add_geom(
        name="robot0_base_collision", type=BOX, size=lower, pos=(x, 0, 0.16), contype=0,
        conaffinity=1, group=COLLISION_GROUP, mass=0,
    )  # fmt: skip
    torso = base.add_body(name="robot0_torso_link", pos=(0, 0, 0))
    _joint(spec, torso, TORSO_JOINT, (0, 0, 1), 0.0, "torso")
    _weigh(torso, MASS_KG["torso"], (0.12, 0.12, 0.15), 0.65)
    top = ARM_Z + lift
    column = (top - 0.40) / 2
    for key, wide, half in (("column", 0.085, column), ("sleeve", 0.11, 0.06)):
        where = top - 0.02 - column if key == "column" else 0.56
        kit.draw(
            torso if key == "column" else base, f"robot0_{key}",
            shapes.rounded_box((wide, wide, half), 0.02, steps=1), dark, (-0.03, 0, where),
        )  # fmt: skip
    kit.draw(
        torso, "robot0_plate", shapes.rounded_box((0.13, 0.11, 0.012), 0.008, steps=1), white,
        (-0.02, 0, top - 0.012),
    )  # fmt: skip
    robot = panda.add_panda(spec, torso.add_frame(pos=(0, 0, top)))
    for name, sign in zip(CAMERAS, (1.0, -1.0), strict=True):
        # The mast rises with the lift, a little less: the counter stays in view.
        eye = (EYE[0], sign * EYE[1], EYE[2] + 0.6 * lift)
        target = (TARGET[0], TARGET[1], TARGET[2] + 0.8 * lift)
        base.add_camera(name=name, pos=eye, quat=look_at(eye, target), fovy=FOVY_DEG)
    return replace(robot, init_qpos=INIT_QPOS)


def carry_weight(model: mujoco.MjModel) -> None:
    """Let a spring of constant force carry what stands on the lift, as a real lift's does."""
    joint = model.joint(TORSO_JOINT).id
    weight = float(model.body_subtreemass[model.jnt_bodyid[joint]] * -model.opt.gravity[2])
    stiffness = 1.0  # N/m: over the lift's half metre the force changes by 0.5 N
    model.jnt_stiffness[joint] = stiffness
    model.qpos_spring[model.jnt_qposadr[joint]] = weight / stiffness


def _joint(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    axis: tuple[int, int, int],
    reach: float,
    kind: str,
) -> None:
    hinge = kind == "hinge"
    limits = TORSO_RANGE if kind == "torso" else (-reach, reach)
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE if hinge else mujoco.mjtJoint.mjJNT_SLIDE,
        axis=axis, limited=True, range=limits, damping=DAMPING[kind],
    )  # fmt: skip
    stiffness = STIFFNESS[kind]
    servo = spec.add_actuator(
        name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT,
        ctrllimited=True, ctrlrange=limits,
    )  # fmt: skip
    servo.gainprm[0] = stiffness
    servo.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    servo.biasprm[1] = -stiffness


def _weigh(body: mujoco.MjsBody, mass: float, half: Point, z: float) -> None:
    x, y, h = half
    body.explicitinertial = True
    body.mass, body.ipos = mass, (-0.05, 0, z)
    body.inertia = (
        mass / 3 * (y * y + h * h),
        mass / 3 * (x * x + h * h),
        mass / 3 * (x * x + y * y),
    )
