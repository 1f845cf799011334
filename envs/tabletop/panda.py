"""robosuite 1.4's Panda with its gripper, in fewer triangles.

Bodies, inertias, joints, motors and the gripper come from robosuite's installed files
at build time. What robosuite adds in code when it merges them (joint damping, armature
and friction; names) is added here; tests/test_tabletop.py compares the result with
``robosuite.make``. The arm's collision meshes are replaced by capsules on the links that
can reach the table, and links do not collide with each other: robosuite's delta actions
cannot fold the arm into itself before the joint limits, and it costs half the step.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import mujoco
import numpy as np

from envs.scene import Robot
from envs.tabletop.meshes import Array, Ints, concatenate, read_obj, read_stl, shade, simplify
from envs.tabletop.stage import COLLISION_GROUP, VISUAL_GROUP

# LIBERO's MountedPanda before a table 1.0 m deep (libero/envs/robots/mounted_panda.py and
# robosuite's RethinkMount: top of the pedestal 0.912 m above the floor).
BASE_POS = (-0.66, 0.0, 0.912)
# LIBERO's MountedPanda.init_qpos; robosuite's PandaGripper.init_qpos.
INIT_QPOS = (0.0, -0.161037389, 0.0, -2.44459747, 0.0, 2.2267522, np.pi / 4)
INIT_GRIPPER_QPOS = (0.020833, -0.020833)

# robosuite models/robots/manipulators/panda_robot.py
DAMPING = (0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01)
# robosuite models/robots/robot_model.py: every joint; armature 5 / (joint number).
FRICTIONLOSS = 0.1
ARMATURE = 5.0

# Side of the cubes in which visual vertices merge, metres: chosen by eye at 512 pixels.
CELL = {"link": 0.012, "hand": 0.006, "finger": 0.004}
# Screws and buttons below this diagonal, metres, are left out: 3 pixels at 256.
LEAST_PART = 0.035

# Capsules (radius, from, to) in each link's frame, metres: inside 2.5 cm of its collision mesh.
CAPSULES = {
    "link5": (
        (0.058, (0.0, 0.0, -0.22), (0.0, 0.0, -0.20)),
        (0.052, (0.0, 0.06, -0.18), (0.0, 0.072, -0.005)),
    ),
    "link6": (
        (0.052, (0.0, 0.0, -0.005), (0.0, 0.03, 0.01)),
        (0.047, (0.086, -0.004, 0.0), (0.086, 0.034, 0.0)),
    ),
    "link7": (
        (0.044, (0.0, 0.0, 0.075), (0.0, 0.0, 0.08)),
        (0.030, (0.01, 0.01, 0.082), (0.048, 0.048, 0.082)),  # where a camera is mounted
    ),
}

ROBOT = Robot(
    joints=tuple(f"robot0_joint{i}" for i in range(1, 8)),
    actuators=tuple(f"robot0_torq_j{i}" for i in range(1, 8)),
    gripper_joints=("gripper0_finger_joint1", "gripper0_finger_joint2"),
    gripper_actuators=("gripper0_gripper_finger_joint1", "gripper0_gripper_finger_joint2"),
    eef_site="gripper0_grip_site",
    eef_body="robot0_right_hand",
    init_qpos=INIT_QPOS,
    init_gripper_qpos=INIT_GRIPPER_QPOS,
    pad_geoms=(("gripper0_finger1_pad_collision",), ("gripper0_finger2_pad_collision",)),
)
EYE_IN_HAND = "robot0_eye_in_hand"


def assets_root() -> Path:
    """Folder of robosuite's model files; robosuite itself is not imported."""
    found = importlib.util.find_spec("robosuite")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "robosuite is not installed, and the tabletop suites take the Panda from its files. "
            "Install requirements/simulators.txt."
        )
    return Path(found.origin).parent / "models" / "assets"


def provenance() -> dict[str, str]:
    """Version of the package that the robot's files come from."""
    return {"robosuite": importlib.metadata.version("robosuite")}


def add_panda(scene: mujoco.MjSpec, base: mujoco.MjsFrame | None = None) -> Robot:
    """Attach arm and gripper under robosuite's names: to `base`, or where a table wants them."""
    arm = mujoco.MjSpec.from_file(str(assets_root() / "robots/panda/robot.xml"))
    arm.compiler.degree = False
    for number, joint in enumerate(arm.joints, start=1):
        joint.damping = DAMPING[number - 1]
        joint.armature = ARMATURE / number
        joint.frictionloss = FRICTIONLOSS
    _replace_link_geoms(arm)
    for camera in list(arm.cameras):
        if camera.name != "eye_in_hand":
            camera.delete()
    gripper = mujoco.MjSpec.from_file(str(assets_root() / "grippers/panda_gripper.xml"))
    gripper.compiler.degree = False
    _replace_gripper_visuals(gripper)
    base = base or scene.worldbody.add_frame(pos=BASE_POS)
    scene.attach(arm, prefix="robot0_", frame=base)
    hand = scene.body("robot0_right_hand")
    scene.attach(gripper, prefix="gripper0_", frame=hand.add_frame())
    return ROBOT


def _replace_link_geoms(arm: mujoco.MjSpec) -> None:
    """Merge each link's visual meshes by colour and simplify them; capsules for collision."""
    folder = assets_root() / "robots/panda"
    files = {mesh.name: folder / mesh.file for mesh in arm.meshes}
    colours = {material.name: material.rgba.copy() for material in arm.materials}
    for body in arm.bodies:
        shells: dict[str, list[tuple[Array, Ints]]] = {}
        for geom in list(body.geoms):
            if geom.group == VISUAL_GROUP:
                part = read_obj(files[geom.meshname])
                if np.linalg.norm(np.ptp(part[0], axis=0)) > LEAST_PART:
                    bright = colours[geom.material][:3].mean() > 0.5
                    shells.setdefault("white" if bright else "dark", []).append(part)
            geom.delete()
        for shade_name, parts in shells.items():
            _add_visual(
                arm, body, f"{body.name}_{shade_name}", concatenate(parts), "link", shade_name
            )
        for i, (radius, start, end) in enumerate(CAPSULES.get(body.name, ())):
            body.add_geom(
                name=f"{body.name}_collision{i}",
                type=mujoco.mjtGeom.mjGEOM_CAPSULE,
                size=[radius, 0, 0],
                fromto=[*start, *end],
                contype=0,
                conaffinity=1,
                group=COLLISION_GROUP,
            )
    for element in [*arm.materials, *(m for m in arm.meshes if m.file)]:
        element.delete()
    for name, rgba in (("white", (0.93, 0.94, 0.95, 1)), ("dark", (0.19, 0.19, 0.21, 1))):
        arm.add_material(name=name, rgba=rgba, specular=0.45, shininess=0.5)


def _replace_gripper_visuals(gripper: mujoco.MjSpec) -> None:
    folder = assets_root() / "grippers"
    files = {mesh.name: folder / mesh.file for mesh in gripper.meshes}
    for name, rgba in (
        ("hand_white", (0.93, 0.94, 0.95, 1)),
        ("finger_dark", (0.24, 0.24, 0.26, 1)),
    ):
        gripper.add_material(name=name, rgba=rgba, specular=0.4, shininess=0.4)
    for body in gripper.bodies:
        for geom in list(body.geoms):
            if geom.group != VISUAL_GROUP:
                geom.group = COLLISION_GROUP
                continue
            kind = "hand" if "hand" in geom.name else "finger"
            name, quat = geom.name, geom.quat.copy()
            source = read_stl(files[geom.meshname])
            geom.delete()
            material = "hand_white" if kind == "hand" else "finger_dark"
            added = _add_visual(gripper, body, name, source, kind, material)
            added.quat = quat
    for mesh in list(gripper.meshes):
        if mesh.file and "vis" in mesh.name:
            mesh.delete()
        elif mesh.file:
            mesh.file = str(files[mesh.name])
    for site in gripper.sites:
        site.rgba = [0, 0, 0, 0]  # robosuite's markers would show in the pictures


def _add_visual(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    source: tuple[Array, Ints],
    kind: str,
    material: str,
) -> mujoco.MjsGeom:
    mesh = shade(*simplify(*source, CELL[kind]))
    added = spec.add_mesh(
        name=f"{name}_mesh",
        uservert=mesh.vertices.ravel().tolist(),
        userface=mesh.faces.ravel().tolist(),
        usernormal=mesh.normals.ravel().tolist(),
        inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
    )
    return body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_MESH,
        meshname=added.name,
        material=material,
        contype=0,
        conaffinity=0,
        group=VISUAL_GROUP,
        mass=0,
    )
