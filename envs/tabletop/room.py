"""Table, floor, walls, light and cameras: the same for every tabletop scene."""

from __future__ import annotations

import mujoco
import numpy as np

from envs.tabletop import textures
from envs.tabletop.stage import (
    BOX,
    COLLISION_GROUP,
    CONDIM,
    FRICTION,
    SOLIMP,
    SOLREF,
    VISUAL_GROUP,
    Stage,
)

Point = tuple[float, float, float]

# LIBERO's Tabletop problems: table top at z = 0.90, 1.0 x 1.2 x 0.05 m
# (libero/envs/problems/libero_tabletop_manipulation.py).
TABLE_TOP_Z = 0.90
TABLE_HALF = (0.5, 0.6, 0.025)

# LIBERO's agentview hangs at (0.659, 0, 1.610) and leaves the near third of the table
# empty; ours looks from about there at the middle of the workspace. Its eye_in_hand is
# robosuite's (robots/panda/robot.xml, fovy 75).
AGENTVIEW_EYE = (0.60, 0.0, 1.62)
AGENTVIEW_TARGET = (-0.13, 0.0, 0.955)
FRONTVIEW_EYE = (0.98, -0.72, 1.50)
FRONTVIEW_TARGET = (-0.15, 0.01, 1.03)
FOVY_DEG = 45.0
# From behind the camera's left shoulder. It casts no shadows: in software OpenGL they are three
# quarters of a picture's time, and drawing is most of an evaluation's (DECISIONS 42).
KEY_LIGHT_POS = (0.36, -0.55, 3.30)
KEY_LIGHT_TARGET = (-0.15, 0.0, 0.95)
KEY_LIGHT_CUTOFF_DEG = 80.0  # lights the whole room; a corner outside would go dark at once


def new_stage(model_name: str) -> Stage:
    """A spec with physics options, room, table, lights and cameras."""
    spec = mujoco.MjSpec()
    spec.modelname = model_name
    spec.compiler.degree = False
    option = spec.option
    # LIBERO's mjOption (robosuite's base.xml and MujocoEnv): what its controllers were tuned with.
    option.timestep = 0.002
    option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 20
    option.density = 1.2
    option.viscosity = 0.00002
    visual = spec.visual
    visual.global_.offwidth = visual.global_.offheight = 1024  # the largest picture to be asked for
    visual.quality.numquads = 2  # quads along the side of a drawn box: the room, 2 ms less than 4
    visual.quality.offsamples = 4
    visual.map.znear = 0.006  # metres: the fingers are 3 cm before eye_in_hand
    visual.map.zfar = 8.0
    visual.headlight.ambient = (0.30, 0.30, 0.32)
    visual.headlight.diffuse = (0.18, 0.18, 0.18)
    visual.headlight.specular = (0.05, 0.05, 0.05)
    spec.stat.center = (0.0, 0.0, TABLE_TOP_Z)
    spec.stat.extent = 1.0  # the workspace: from the robot's base to the near edge of the table
    stage = Stage(spec)
    _room(stage)
    _table(stage)
    _lights(spec)
    _cameras(spec)
    return stage


def _room(stage: Stage) -> None:
    world = stage.spec.worldbody
    stage.spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.86, 0.88, 0.90), rgb2=(0.70, 0.74, 0.78), width=64, height=384,
    )  # fmt: skip
    floor = stage.material(
        "floor",
        picture=textures.wood((150, 132, 114), planks=8, seed=3),
        repeat=(3, 3),
        specular=0.1,
    )
    wall = stage.material(
        "wall", picture=textures.speckle((150, 164, 170), amount=0.012), specular=0.02
    )
    board = stage.material("baseboard", (0.93, 0.92, 0.89), specular=0.1)
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3, 3, 0.5], material=floor,
        group=VISUAL_GROUP,  # seen and touched: dropped things land on it
    )  # fmt: skip
    stage.draw_box(world, "wall_back", (0.02, 3.0, 1.5), wall, pos=(-1.7, 0, 1.5))
    stage.draw_box(world, "wall_right", (3.0, 0.02, 1.5), wall, pos=(1.28, 2.2, 1.5))
    stage.draw_box(world, "baseboard_back", (0.03, 3.0, 0.06), board, pos=(-1.68, 0, 0.06))
    stage.draw_box(world, "baseboard_right", (3.0, 0.03, 0.06), board, pos=(1.28, 2.18, 0.06))


def _table(stage: Stage) -> None:
    body = stage.spec.worldbody.add_body(name="table", pos=(0, 0, TABLE_TOP_Z - TABLE_HALF[2]))
    top = stage.material(
        "table_wood", picture=textures.wood((201, 168, 128), planks=6, contrast=0.8), specular=0.2
    )
    leg = stage.material("table_leg", (0.30, 0.26, 0.22))
    body.add_geom(
        name="table_collision", type=BOX, size=TABLE_HALF, group=COLLISION_GROUP, friction=FRICTION,
        condim=CONDIM, solref=SOLREF, solimp=SOLIMP,
    )  # fmt: skip
    # A plane for the top, because planes can be divided finely (light is computed at
    # vertices only), and four edges below it.
    body.add_geom(
        name="table_top", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[*TABLE_HALF[:2], 0.1],
        pos=(0, 0, TABLE_HALF[2]), material=top, contype=0, conaffinity=0, group=VISUAL_GROUP,
        mass=0,
    )  # fmt: skip
    edge = 0.01
    for axis in (0, 1):
        half = [*TABLE_HALF]
        half[axis], half[2] = edge, TABLE_HALF[2] - 0.0005
        for sign in (-1, 1):
            pos = [0.0, 0.0, -0.0005]
            pos[axis] = sign * (TABLE_HALF[axis] - edge)
            stage.draw_box(body, f"table_edge_{axis}_{sign}", half, top, pos=pos)
    for x in (-0.46, 0.46):
        for y in (-0.56, 0.56):
            height = (TABLE_TOP_Z - 2 * TABLE_HALF[2]) / 2
            stage.draw_box(
                body, f"table_leg_{x}_{y}", (0.025, 0.025, height), leg,
                pos=(x, y, -TABLE_HALF[2] - height),
            )  # fmt: skip
    base = stage.material("pedestal", (0.22, 0.23, 0.25), specular=0.3)
    stage.draw_box(
        stage.spec.worldbody, "pedestal", (0.11, 0.12, 0.45), base, pos=(-0.67, 0, 0.457)
    )


def _lights(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    world.add_light(
        name="key", pos=KEY_LIGHT_POS, dir=np.subtract(KEY_LIGHT_TARGET, KEY_LIGHT_POS),
        cutoff=KEY_LIGHT_CUTOFF_DEG, exponent=0.0, castshadow=False,
        diffuse=(0.52, 0.50, 0.47), specular=(0.35, 0.35, 0.35), ambient=(0, 0, 0),
    )  # fmt: skip
    world.add_light(
        name="fill", directional=True, pos=(0.5, 1.5, 2.5), dir=(-0.3, -0.8, -0.8),
        castshadow=False, diffuse=(0.16, 0.17, 0.19), specular=(0, 0, 0), ambient=(0, 0, 0),
    )  # fmt: skip


def _cameras(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    # frontview is for videos: from the front left, the whole arm in view.
    for name, eye, target in (
        ("agentview", AGENTVIEW_EYE, AGENTVIEW_TARGET),
        ("frontview", FRONTVIEW_EYE, FRONTVIEW_TARGET),
    ):
        world.add_camera(name=name, pos=eye, quat=look_at(eye, target), fovy=FOVY_DEG)


def look_at(eye: Point, target: Point) -> tuple[float, float, float, float]:
    """Quaternion wxyz of a camera at `eye` that looks at `target` with z upwards."""
    back = np.subtract(eye, target)
    back = back / np.linalg.norm(back)
    right = np.cross((0, 0, 1), back)
    right = right / np.linalg.norm(right)
    rotation = np.stack([right, np.cross(back, right), back], axis=1)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, rotation.ravel())
    return (float(quat[0]), float(quat[1]), float(quat[2]), float(quat[3]))
