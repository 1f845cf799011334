"""The two arms: gym-aloha's ViperX 300 s, in fewer triangles, with servos that hold.

Links, inertias, joints and their limits are those of gym-aloha 0.1.5 (vx300s_left.xml),
whose meshes are read from its installed files; nothing of it is imported. What differs:
dry friction of 30 to 60 Nm in every joint became damping and compensated gravity (a hand
then stops where it was told to, where gym-aloha's stops up to 3 cm short), collision
meshes became capsules and boxes, and the wrist cameras look from further back.

Both arms stand opposite each other, as ALOHA's do, the left one at negative x.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from envs.control import Control, PoseGoal, Servo
from envs.scene import Robot
from envs.tabletop.meshes import concatenate, read_stl, shade, simplify
from envs.tabletop.stage import BOX, CAPSULE, COLLISION_GROUP, VISUAL_GROUP, Stage
from wamsim.conventions import (
    ALOHA_JOINTS_GRIPPER_OPEN_FRACTION,
    DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION,
    VX300S_HIGH,
    VX300S_HOME,
    VX300S_LOW,
)

SIDES = ("left", "right")
BASE_X = 0.469  # gym-aloha: metres from the middle of the table
BASE_Z = 0.74  # RoboTwin's table top, to which the feet are bolted

JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
# Position gains: gym-aloha's for waist, shoulder and elbow; stiffer wrists, which have to
# hold things level. Armature (reflected rotor inertia) and damping for a time constant of
# about 50 ms at the inertia of an outstretched arm.
KP = (800.0, 1600.0, 800.0, 120.0, 160.0, 60.0)
ARMATURE = (0.10, 0.20, 0.10, 0.02, 0.02, 0.01)
DAMPING = (44.0, 75.0, 32.0, 3.2, 5.0, 1.6)
TORQUE = (150.0, 300.0, 100.0, 40.0, 40.0, 20.0)  # Nm; the first three gym-aloha's
JOINT_SPEED = np.pi  # rad/s, the data sheet's limit for all joints (Trossen Robotics)

# Finger slides: 0.057 is open (7 cm between the pads). gym-aloha closes to 0.021, where its
# fingers overlap by 1.4 mm; ours meet.
FINGER_CLOSED, FINGER_OPEN = 0.0224, 0.057
FINGER_KP = 600.0  # 12 N on a block of 4 cm
FINGER_DAMPING = 12.0
FINGER_ARMATURE = 0.05
FINGER_FORCE = 20.0
FINGER_SPEED = 0.1  # m/s: a stroke takes 0.35 s
PAD_FACE = -0.0224  # the inner face of a finger from its slide's position, metres
GRIP_X = 0.135  # the grip site: in front of the gripper link, 19 mm behind the finger tips
PAD_FRICTION = (1.5, 0.02, 0.0005)  # rubber tape on the fingers
CELL = {"fine": 0.003, "coarse": 0.005}  # metres; see envs.tabletop.panda

LEFT, RIGHT = (
    Robot(
        name=side,
        joints=tuple(f"{side}_{j}" for j in JOINTS),
        actuators=tuple(f"{side}_{j}" for j in JOINTS),
        gripper_joints=(f"{side}_left_finger", f"{side}_right_finger"),
        gripper_actuators=(f"{side}_left_finger", f"{side}_right_finger"),
        eef_site=f"{side}_grip",
        eef_body=f"{side}_gripper_link",
        init_qpos=VX300S_HOME,
        init_gripper_qpos=(FINGER_OPEN, -FINGER_OPEN),
        pad_geoms=((f"{side}_left_finger_pad",), (f"{side}_right_finger_pad",)),
        gripper_span=(FINGER_CLOSED, FINGER_OPEN),
    )
    for side in SIDES
)


def _servos(first_channel: int, robot: Robot, *, driven: bool, gripper: int) -> tuple[Servo, ...]:
    arm = tuple(
        Servo(
            actuator=joint, joint=joint, channel=0 if driven else first_channel + i,
            kind="driven" if driven else "position",
            low=VX300S_LOW[i], high=VX300S_HIGH[i], speed=JOINT_SPEED,
        )
        for i, joint in enumerate(robot.joints)
    )  # fmt: skip
    fingers = tuple(
        Servo(
            actuator=joint, joint=joint, channel=gripper, kind="fraction",
            low=sign * FINGER_CLOSED, high=sign * FINGER_OPEN, speed=FINGER_SPEED,
        )
        for joint, sign in zip(robot.gripper_joints, (1.0, -1.0), strict=True)
    )  # fmt: skip
    return arm + fingers


CONTROLS = (
    Control(
        action=ALOHA_JOINTS_GRIPPER_OPEN_FRACTION.name,
        osc=False,
        servos=_servos(0, LEFT, driven=False, gripper=6)
        + _servos(7, RIGHT, driven=False, gripper=13),
    ),
    Control(
        action=DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION.name,
        osc=False,
        servos=_servos(0, LEFT, driven=True, gripper=7)
        + _servos(8, RIGHT, driven=True, gripper=15),
        poses=(PoseGoal(robot=0, channel=0), PoseGoal(robot=1, channel=8)),
    ),
)


@dataclass(frozen=True)
class _Link:
    """A body of the chain, as in vx300s_left.xml; `joint` None for one that is fixed."""

    name: str
    pos: tuple[float, float, float]
    mass: float
    ipos: tuple[float, float, float]
    iquat: tuple[float, float, float, float]
    inertia: tuple[float, float, float]
    axis: tuple[float, float, float]
    meshes: tuple[tuple[str, tuple[float, float, float], tuple[float, float, float, float]], ...]


_Q = (0.707107, 0.0, 0.0, 0.707107)
_CHAIN = (
    _Link("shoulder_link", (0, 0, 0.079), 0.798614, (0.000259233, -3.3552e-06, 0.0116129),
          (-0.476119, 0.476083, 0.52279, 0.522826), (0.00120156, 0.00113744, 0.0009388), (0, 0, 1),
          (("2_shoulder", (0, 0, -0.003), _Q),)),
    _Link("upper_arm_link", (0, 0, 0.04805), 0.792592, (0.0206949, 4e-10, 0.226459),
          (0, 0.0728458, 0, 0.997343), (0.00911338, 0.008925, 0.000759317), (0, 1, 0),
          (("3_upper_arm", (0, 0, 0), _Q),)),
    _Link("upper_forearm_link", (0.05955, 0, 0.3), 0.322228, (0.105723, 0, 0),
          (-0.000621631, 0.704724, 0.0105292, 0.709403), (0.00144107, 0.00134228, 0.000152047),
          (0, 1, 0), (("4_upper_forearm", (0, 0, 0), (1, 0, 0, 0)),)),
    _Link("lower_forearm_link", (0.2, 0, 0), 0.414823, (0.0513477, 0.00680462, 0),
          (-0.702604, -0.0796724, -0.702604, 0.0796724), (0.0005911, 0.000546493, 0.000155707),
          (1, 0, 0), (("5_lower_forearm", (0, 0, 0), (0, 1, 0, 0)),)),
    _Link("wrist_link", (0.1, 0, 0), 0.115395, (0.046743, -7.6652e-06, 0.010565),
          (-0.00100191, 0.544586, 0.0026583, 0.8387), (5.45707e-05, 4.63101e-05, 4.32692e-05),
          (0, 1, 0), (("6_wrist", (0, 0, 0), _Q),)),
    _Link("gripper_link", (0.069744, 0, 0), 0.259661, (0.0395662, -2.56311e-07, 0.00400649),
          (0.62033, 0.619916, -0.339682, 0.339869), (0.000689546, 0.000650316, 0.000468142),
          (1, 0, 0), (("7_gripper", (-0.02, 0, 0), _Q), ("9_gripper_bar", (-0.020175, 0, 0), _Q),
                      ("8_gripper_prop", (-0.02, 0, 0), _Q))),
)  # fmt: skip

# Capsules (radius, from, to) in each link's frame, around its mesh; metres.
_CAPSULES = {
    "upper_arm_link": ((0.045, (0, 0, 0.03), (0, 0, 0.27)),),
    "upper_forearm_link": ((0.032, (0.02, 0, 0), (0.19, 0, 0)),),
    "lower_forearm_link": ((0.030, (0, 0, 0), (0.08, 0, 0)),),
    "wrist_link": ((0.026, (0, 0, 0), (0.05, 0, 0)),),
}


def assets_root() -> Path:
    """Folder of gym-aloha's meshes; gym-aloha itself is not imported."""
    found = importlib.util.find_spec("gym_aloha")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "gym-aloha is not installed, and the bimanual suites take their arms from its files. "
            "Install requirements/simulators.txt."
        )
    return Path(found.origin).parent / "assets"


def provenance() -> dict[str, str]:
    """Version of the package that the arms' meshes come from."""
    return {"gym-aloha": importlib.metadata.version("gym-aloha")}


def add_arms(stage: Stage) -> None:
    """Add both arms to the world of a stage."""
    stage.material("arm_black", (0.115, 0.117, 0.125), specular=0.45, shininess=0.45)
    stage.material("arm_grey", (0.30, 0.31, 0.33), specular=0.4, shininess=0.4)
    stage.material("finger_pale", (0.86, 0.87, 0.88), specular=0.3, shininess=0.3)
    for side in SIDES:
        _add_arm(stage, side)


def _bits(side: str) -> dict[str, int]:
    """Contact bits: an arm touches things and the other arm, not itself."""
    mine, other = (2, 4) if side == "left" else (4, 2)
    return {"contype": mine, "conaffinity": 1 | other}


def _add_arm(stage: Stage, side: str) -> None:
    sign = -1.0 if side == "left" else 1.0
    quat = (1, 0, 0, 0) if side == "left" else (0, 0, 0, 1)
    body = stage.spec.worldbody.add_body(
        name=f"{side}_base", pos=(sign * BASE_X, 0, BASE_Z), quat=quat
    )
    _draw(stage, body, f"{side}_base", (("1_base", (0, 0, 0), _Q),), "arm_black", "coarse")
    body.add_geom(
        name=f"{side}_base_collision", type=BOX, size=(0.10, 0.075, 0.04), pos=(-0.03, 0, 0.04),
        group=COLLISION_GROUP, **_bits(side),
    )  # fmt: skip
    for number, link in enumerate(_CHAIN):
        body = body.add_body(name=f"{side}_{link.name}", pos=link.pos)
        body.gravcomp = 1.0
        body.explicitinertial = True
        body.mass, body.ipos, body.iquat, body.inertia = (
            link.mass, link.ipos, link.iquat, link.inertia
        )  # fmt: skip
        name = f"{side}_{JOINTS[number]}"
        body.add_joint(
            name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=link.axis, limited=True,
            range=(VX300S_LOW[number], VX300S_HIGH[number]),
            armature=ARMATURE[number], damping=DAMPING[number],
        )  # fmt: skip
        _servo(stage, name, KP[number], TORQUE[number], VX300S_LOW[number], VX300S_HIGH[number])
        cell = "fine" if link.name in ("gripper_link", "wrist_link") else "coarse"
        _draw(stage, body, f"{side}_{link.name}", link.meshes, "arm_black", cell)
        for i, (radius, start, end) in enumerate(_CAPSULES.get(link.name, ())):
            body.add_geom(
                name=f"{side}_{link.name}_collision{i}", type=CAPSULE, size=(radius, 0, 0),
                fromto=(*start, *end), group=COLLISION_GROUP, **_bits(side),
            )  # fmt: skip
    _hand(stage, body, side)


def _hand(stage: Stage, gripper: mujoco.MjsBody, side: str) -> None:
    # Around motor and bar: 15 cm along the bar, on which the fingers slide.
    gripper.add_geom(
        name=f"{side}_palm", type=BOX, size=(0.030, 0.075, 0.033), pos=(0.032, 0, 0),
        group=COLLISION_GROUP, **_bits(side),
    )  # fmt: skip
    gripper.add_site(name=f"{side}_grip", pos=(GRIP_X, 0, 0), size=(0.005, 0, 0), rgba=(0, 0, 0, 0))
    _wrist_camera(gripper, side)
    for finger, sign in (("left_finger", 1.0), ("right_finger", -1.0)):
        body = gripper.add_body(name=f"{side}_{finger}_link", pos=(0.0687, 0, 0))
        body.gravcomp = 1.0
        body.explicitinertial = True
        body.mass = 0.034796
        body.ipos = (0.017344, -sign * 0.0060692, 0)
        body.inertia = (2.48e-05, 1.417e-05, 1.208e-05)
        limits = sorted((sign * 0.021, sign * FINGER_OPEN))
        body.add_joint(
            name=f"{side}_{finger}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 1, 0), limited=True,
            range=limits, armature=FINGER_ARMATURE, damping=FINGER_DAMPING,
        )  # fmt: skip
        _servo(stage, f"{side}_{finger}", FINGER_KP, FINGER_FORCE, *limits)
        # Geoms' euler in the original, (3.14, 1.57, 0), as a quaternion.
        mesh = f"10_custom_finger_{finger.split('_')[0]}"
        turn = (0.0005629, 0.7073882, 0.0005633, 0.7068250)
        _draw(
            stage, body, f"{side}_{finger}", ((mesh, (0.005, -sign * 0.052, 0), turn),),
            "finger_pale", "fine",
        )  # fmt: skip
        # The tip, whose inner face grips, and the wedge behind it. Frames: the slide's zero.
        face = sign * PAD_FACE
        for part, (x0, x1), thick, wide in (
            ("pad", (0.030, 0.0848), 0.006, 0.011),
            ("wedge", (0.0, 0.030), 0.018, 0.020),
        ):
            body.add_geom(
                name=f"{side}_{finger}_{part}", type=BOX,
                size=((x1 - x0) / 2, thick / 2, wide),
                pos=((x0 + x1) / 2, face + sign * thick / 2, 0),
                group=COLLISION_GROUP, friction=PAD_FRICTION, condim=4,
                solref=(0.006, 1.0), solimp=(0.95, 0.99, 0.001, 0.5, 2.0), **_bits(side),
            )  # fmt: skip


def _wrist_camera(gripper: mujoco.MjsBody, side: str) -> None:
    # Above the hand (its own z), looking along the fingers and a little down onto them.
    pitch = np.deg2rad(24.0)
    forward = np.array([np.cos(pitch), 0.0, -np.sin(pitch)])
    back, right = -forward, np.array([0.0, -1.0, 0.0])
    rotation = np.stack([right, np.cross(back, right), back], axis=1)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, rotation.ravel())
    gripper.add_camera(name=f"{side}_wrist", pos=(-0.03, 0, 0.105), quat=quat, fovy=70.0)


def _servo(stage: Stage, joint: str, kp: float, force: float, low: float, high: float) -> None:
    actuator = stage.spec.add_actuator(
        name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT,
        ctrllimited=True, ctrlrange=(low, high), forcelimited=True, forcerange=(-force, force),
        gaintype=mujoco.mjtGain.mjGAIN_FIXED, biastype=mujoco.mjtBias.mjBIAS_AFFINE,
    )  # fmt: skip
    gain, bias = np.zeros(10), np.zeros(10)
    gain[0], bias[1] = kp, -kp
    actuator.gainprm, actuator.biasprm = gain, bias


def _draw(
    stage: Stage,
    body: mujoco.MjsBody,
    name: str,
    meshes: tuple[tuple[str, tuple[float, ...], tuple[float, ...]], ...],
    material: str,
    cell: str,
) -> None:
    """Draw a link's meshes as one, simplified; both arms share it."""
    shared = f"vx300s_{meshes[0][0]}"
    if stage.once(f"arm mesh {shared}"):
        parts = []
        for file, pos, quat in meshes:
            vertices, faces = read_stl(assets_root() / f"vx300s_{file}.stl")
            rotation = np.zeros(9)
            mujoco.mju_quat2Mat(rotation, np.asarray(quat, np.float64))
            parts.append((vertices * 0.001 @ rotation.reshape(3, 3).T + pos, faces))
        mesh = shade(*simplify(*concatenate(parts), CELL[cell]))
        stage.spec.add_mesh(
            name=shared,
            uservert=mesh.vertices.ravel().tolist(),
            userface=mesh.faces.ravel().tolist(),
            usernormal=mesh.normals.ravel().tolist(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
    body.add_geom(
        name=f"{name}_visual", type=mujoco.mjtGeom.mjGEOM_MESH, meshname=shared, material=material,
        contype=0, conaffinity=0, group=VISUAL_GROUP, mass=0,
    )  # fmt: skip
