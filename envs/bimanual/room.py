"""The cell: table, floor, walls, lamps, cameras.

Everything that an episode may vary is a body without a joint, so that its pose is all
there is to it: table tops and walls stand in their place or far away, the table may be
lower, lamps hang where they were put. A recorded pose therefore brings all of it back.
"""

from __future__ import annotations

import mujoco
import numpy as np

from envs.bimanual import surfaces
from envs.bimanual.surfaces import Surface
from envs.tabletop import textures
from envs.tabletop.meshes import Mesh
from envs.tabletop.room import look_at
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

# RoboTwin's table: top at z = 0.74, 1.2 x 0.7 m; ours is a little larger, to carry the arms.
TABLE_TOP_Z = 0.74
TABLE_HALF = (0.65, 0.38, 0.02)
TABLE_LOWEST = -0.03  # metres; RoboTwin's random_table_height
AWAY = (1000.0, 0.0, 0.0)  # where bodies are that an episode does without

HEAD_EYE = (0.0, -0.56, 1.62)
HEAD_TARGET = (0.0, 0.02, 0.78)
HEAD_FOVY_DEG = 47.0
FRONT_EYE = (0.34, -1.38, 1.56)  # for videos
FRONT_TARGET = (0.0, 0.0, 0.86)
FRONT_FOVY_DEG = 37.0

LAMP_TARGET = (0.0, 0.0, 0.78)
LAMP_EYE = (-0.55, -0.85, 3.0)
LAMP_CUTOFF_DEG = 80.0
SHADOW_CONE_DEG = 14.0  # half angle that the shadow map covers: where the arms work

TABLES = (*surfaces.TABLES_EVALUATED, *surfaces.TABLES_TRAINED)
WALLS = (*surfaces.WALLS_EVALUATED, *surfaces.WALLS_TRAINED)
# Coloured lamps, dark unless they are brought near: name -> colour.
TINTS = {"warm": (1.0, 0.62, 0.30), "cool": (0.35, 0.60, 1.0)}
# Their light falls with the square of the distance: 0.32 at 1 m, nothing from far away.
TINT_ATTENUATION = (0.0, 0.0, 1.0)


def new_stage(model_name: str) -> Stage:
    """A spec with physics options, room, table, lamps and cameras."""
    spec = mujoco.MjSpec()
    spec.modelname = model_name
    spec.compiler.degree = False
    option = spec.option  # as in envs.tabletop.room
    option.timestep = 0.002
    option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 20
    visual = spec.visual
    visual.global_.offwidth = visual.global_.offheight = 1024
    # Software OpenGL pays for every texel: 768 took 16.6 ms a picture of 128 pixels, 384 take
    # 13.6. 1.2 m over 384 of them is 3 mm each, a third of such a pixel.
    visual.quality.shadowsize = 384
    visual.quality.numquads = 2
    visual.quality.offsamples = 4
    visual.map.znear = 0.008
    visual.map.zfar = 10.0
    visual.map.shadowscale = SHADOW_CONE_DEG / LAMP_CUTOFF_DEG
    visual.headlight.ambient = (0.30, 0.30, 0.31)
    visual.headlight.diffuse = (0.16, 0.16, 0.16)
    visual.headlight.specular = (0.04, 0.04, 0.04)
    spec.stat.center = (0.0, 0.0, TABLE_TOP_Z)
    spec.stat.extent = 1.0
    stage = Stage(spec)
    _room(stage)
    _table(stage)
    _lamps(spec)
    for name, eye, target, fovy in (
        ("head", HEAD_EYE, HEAD_TARGET, HEAD_FOVY_DEG),
        ("front", FRONT_EYE, FRONT_TARGET, FRONT_FOVY_DEG),
    ):
        spec.worldbody.add_camera(name=name, pos=eye, quat=look_at(eye, target), fovy=fovy)
    return stage


def _sheet(width: float, depth: float, cells: tuple[int, int], repeat: float) -> Mesh:
    """A rectangle in x and y that faces z; lighting is computed at vertices, so it has many."""
    nx, ny = cells
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, nx + 1), np.linspace(-0.5, 0.5, ny + 1))
    vertices = np.stack([x * width, y * depth, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    uv = np.stack([(x + 0.5) * width / repeat, (y + 0.5) * depth / repeat], -1).reshape(-1, 2)
    i, j = np.meshgrid(np.arange(ny), np.arange(nx), indexing="ij")
    a = (i * (nx + 1) + j).ravel()
    b, c, d = a + 1, a + nx + 2, a + nx + 1
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    normals = np.broadcast_to([0.0, 0.0, 1.0], vertices.shape).copy()
    return Mesh(vertices=vertices, faces=faces, normals=normals, uv=uv)


def _flat(stage: Stage, body: mujoco.MjsBody, name: str, mesh: Mesh, shared: str, mat: str) -> None:
    """Draw a sheet. MuJoCo wants meshes with a volume, or a shell's inertia."""
    stage.draw(body, name, mesh, mat, shared=shared)


def _variants(stage: Stage, kind: str, pool: tuple[Surface, ...], mesh: Mesh) -> None:
    for number, (name, picture) in enumerate(pool):
        material = stage.material(f"{kind}_{name}", picture=picture(), specular=0.12)
        body = stage.spec.worldbody.add_body(name=f"{kind}_{name}", pos=AWAY)
        if number == 0:
            body.pos = home(f"{kind}_{name}")[0]
        body.quat = home(f"{kind}_{name}")[1]
        _flat(stage, body, f"{kind}_{name}_sheet", mesh, f"{kind}_sheet", material)


def home(variant: str) -> tuple[tuple[float, float, float], tuple[float, float, float, float]]:
    """Pose of a table top or wall that is in its place."""
    if variant.startswith("top_"):
        return (0.0, 0.0, TABLE_TOP_Z + 0.0004), (1.0, 0.0, 0.0, 0.0)
    half = float(np.sqrt(0.5))  # upright, facing the head camera
    return (0.0, 1.35, 1.2), (half, half, 0.0, 0.0)


def _room(stage: Stage) -> None:
    world = stage.spec.worldbody
    stage.spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.84, 0.86, 0.88), rgb2=(0.66, 0.69, 0.72), width=64, height=384,
    )  # fmt: skip
    floor = stage.material(
        "floor", picture=textures.speckle((158, 154, 148), amount=0.05, seed=9), repeat=(6, 6),
        specular=0.1,
    )  # fmt: skip
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3, 3, 0.5], material=floor,
        group=VISUAL_GROUP,
    )  # fmt: skip
    _variants(stage, "wall", WALLS, _sheet(5.0, 2.6, (10, 6), 1.6))


def _table(stage: Stage) -> None:
    body = stage.spec.worldbody.add_body(name="table", pos=(0, 0, TABLE_TOP_Z))
    body.add_geom(
        name="table_collision", type=BOX, size=TABLE_HALF, pos=(0, 0, -TABLE_HALF[2]),
        group=COLLISION_GROUP, friction=FRICTION, condim=CONDIM, solref=SOLREF, solimp=SOLIMP,
    )  # fmt: skip
    edge = stage.material("table_edge", (0.50, 0.46, 0.41), specular=0.2)
    steel = stage.material("steel", (0.33, 0.34, 0.36), specular=0.4)
    stage.draw_box(body, "table_slab", TABLE_HALF, edge, pos=(0, 0, -TABLE_HALF[2]))
    for x in (-0.58, 0.58):
        for y in (-0.32, 0.32):
            half = (TABLE_TOP_Z - 2 * TABLE_HALF[2]) / 2
            stage.draw_box(
                body, f"table_leg_{x}_{y}", (0.025, 0.025, half), steel,
                pos=(x, y, -2 * TABLE_HALF[2] - half),
            )  # fmt: skip
    _variants(stage, "top", TABLES, _sheet(2 * TABLE_HALF[0], 2 * TABLE_HALF[1], (20, 12), 0.65))
    # Plates under the arms, which stay when the table is lowered.
    plate = stage.material("plate", (0.42, 0.43, 0.45), specular=0.5, shininess=0.5)
    for side, x in (("left", -0.469), ("right", 0.469)):
        stage.draw_box(
            stage.spec.worldbody, f"{side}_plate", (0.115, 0.085, 0.0225), plate,
            pos=(x + (-0.04 if x < 0 else 0.04), 0, TABLE_TOP_Z - 0.0215),
        )  # fmt: skip


def lamp_pose(eye: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Pose of a lamp that hangs at `eye` and shines at the table: its light points along -z."""
    return np.array(eye), np.array(look_at(eye, LAMP_TARGET))


def _lamps(spec: mujoco.MjSpec) -> None:
    world = spec.worldbody
    pos, quat = lamp_pose(LAMP_EYE)
    lamp = world.add_body(name="lamp", pos=pos, quat=quat)
    lamp.add_light(
        name="lamp", pos=(0, 0, 0), dir=(0, 0, -1), cutoff=LAMP_CUTOFF_DEG, exponent=0.0,
        castshadow=True, diffuse=(0.56, 0.54, 0.51), specular=(0.35, 0.35, 0.35), ambient=(0, 0, 0),
    )  # fmt: skip
    world.add_light(
        name="fill", directional=True, pos=(0.5, -1.0, 2.5), dir=(-0.5, 0.5, -0.8),
        castshadow=False, diffuse=(0.17, 0.18, 0.20), specular=(0, 0, 0), ambient=(0, 0, 0),
    )  # fmt: skip
    for name, colour in TINTS.items():
        body = world.add_body(name=f"tint_{name}", pos=AWAY)
        body.add_light(
            name=f"tint_{name}", pos=(0, 0, 0), dir=(0, 0, -1), cutoff=LAMP_CUTOFF_DEG,
            exponent=0.0, attenuation=TINT_ATTENUATION, castshadow=False,
            diffuse=np.multiply(colour, 0.32), specular=(0, 0, 0), ambient=(0, 0, 0),
        )  # fmt: skip
