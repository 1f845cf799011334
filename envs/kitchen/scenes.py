"""The scenes of the kitchen suite, assembled from units and compiled.

The robot always stands at the origin and faces +x; the kitchen, one body with all its
units, is placed around it. So the axes of the world are those of the robot's base, and one
pose per episode says where the robot stands.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np

from envs.kitchen import layouts, robot, styles, units
from envs.kitchen.build import COUNTER_Z, DEPTH, OVERHANG, SLAB, Kit
from envs.kitchen.layouts import (
    PARKED,
    Layout,
    inverse,
    kitchen_from_robot,
    place,
    station,
    unit_poses,
)
from envs.kitchen.objects import build_object
from envs.kitchen.predicates import PARKED_WITHIN
from envs.scene import Scene, SceneInfo
from envs.tabletop import panda
from envs.tabletop.room import look_at
from envs.tabletop.stage import VISUAL_GROUP, Stage, yaw_quat

ROOT = "kitchen"
CAMERAS: Mapping[str, str] = {
    "agentview_left": "agentview_left",
    "agentview_right": "agentview_right",
    "eye_in_hand": panda.EYE_IN_HAND,
    "overview": "overview",
}
ROOM_HEIGHT = 2.55
# Half angle that the shadow map covers, degrees: 27 cm of the counter around its middle.
SHADOW_CONE_DEG = 6.28
LAMP_CUTOFF_DEG = 80.0
NEAR = 1.5  # metres from the robot to the middle of a unit: beyond, details are under a pixel


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a scene is compiled from.

    Attributes:
        layout, style: Names of them.
        station: Where the robot stands; only what stands there can be touched. ``at_<kind>``
            for a robot that will drive: every unit is one block, and the floor before each has
            a region ``place_<kind>``.
        objects: (name, "category/instance") of the free things.
    """

    layout: str
    style: str
    station: str
    objects: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        layouts.layout(self.layout)
        styles.style(self.style)

    @property
    def drives(self) -> bool:
        """Whether the robot is there to drive."""
        return self.station.startswith("at_")

    @property
    def id(self) -> str:
        """Identity, e.g. ``kitchen:galley:coastal:sink:obj=apple/red``."""
        things = "".join(f":{name}={kind}" for name, kind in self.objects)
        return f"kitchen:{self.layout}:{self.style}:{self.station}{things}"


def parse_id(text: str) -> Spec:
    """Read what `Spec.id` wrote."""
    _, layout, style, station, *things = text.split(":")
    objects = tuple((name, kind) for name, _, kind in (t.partition("=") for t in things))
    return Spec(layout=layout, style=style, station=station, objects=objects)


def nominal_pose(spec: Spec) -> layouts.Pose2:
    """Pose of the kitchen around a robot at the origin."""
    plan = layouts.layout(spec.layout)
    return inverse(kitchen_from_robot(plan, station(spec.station)))


def build(spec: Spec) -> Scene:
    """Compile a scene (about a second)."""
    plan, here = layouts.layout(spec.layout), station(spec.station)
    kit = Kit(_new_stage(spec.id), styles.style(spec.style))
    made = robot.add_robot(kit, here.lift)
    # Free things come before fixtures, so that qpos is robot, things, fixture joints.
    pieces = [build_object(kit.stage, name, kind) for name, kind in spec.objects]
    x, y, yaw = nominal_pose(spec)
    root = kit.stage.spec.worldbody.add_body(name=ROOT, pos=(x, y, 0), quat=yaw_quat(yaw))
    for kind, (ux, uy, uyaw), _ in unit_poses(plan):
        live = here.live if kind == here.unit else ()
        wx, wy, _ = place((x, y, yaw), ux, uy)
        kit.near = spec.drives or bool(live) or float(np.hypot(wx, wy)) < NEAR
        units.build(kit, root, kind, (ux, uy, 0), yaw_quat(uyaw), live)
    _corners(kit, root, plan)
    _room(kit, root, plan)
    if spec.drives:
        _places(kit, root, plan)
        _from_above(root, plan)
    else:
        _overview(kit.stage.spec, plan, (x, y, yaw))
    for body in kit.stage.spec.bodies:  # what is only drawn has no mass to compute
        if not body.explicitinertial and body.name not in ("world", ""):
            body.explicitinertial, body.mass = True, 1.0
            body.ipos, body.inertia = (0, 0, 0), (0.01, 0.01, 0.01)
    model = kit.stage.spec.compile()
    robot.carry_weight(model)
    ux, uy, uyaw = place((x, y, yaw), *_unit_pose(plan, here.unit))
    info = SceneInfo(
        id=spec.id,
        robot=made,
        things=tuple(piece.thing(model) for piece in (*pieces, *kit.pieces)),
        regions=tuple(kit.regions),
        cameras=dict(CAMERAS),
        controls=robot.CONTROLS,
        platform=robot.PLATFORM,
        placement={
            "kitchen": [x, y, yaw],
            "unit": [ux, uy, uyaw],
            "grasps": {p.name: p.grasps for p in pieces if p.grasps},
        },
        provenance=cache_key(spec),
    )
    return Scene(model=model, info=info)


def _unit_pose(plan: Layout, kind: str) -> layouts.Pose2:
    return next(pose for found, pose, _ in unit_poses(plan) if found == kind)


def cache_key(spec: Spec) -> dict[str, str]:
    """Everything that a compiled scene depends on: our source, and what it is built with."""
    source = hashlib.sha256()
    for folder in ("kitchen", "tabletop"):
        for path in sorted((Path(__file__).parent.parent / folder).glob("*.py")):
            source.update(path.name.encode() + b"\0" + path.read_bytes())
    return {
        "scene": spec.id,
        "source": source.hexdigest(),
        "mujoco": mujoco.__version__,
        "pillow": importlib.metadata.version("pillow"),
        **panda.provenance(),
    }


# --------------------------------------------------------------------------- room


def _new_stage(name: str) -> Stage:
    spec = mujoco.MjSpec()
    spec.modelname = name[:60]
    spec.compiler.degree = False
    option = spec.option
    # As tabletop and LIBERO: what the arm's controller was tuned with.
    option.timestep = 0.002
    option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    option.impratio = 20
    option.density = 1.2
    option.viscosity = 0.00002
    visual = spec.visual
    visual.global_.offwidth = visual.global_.offheight = 1024
    # Software OpenGL pays for every texel: 512 took 20.0 ms a picture of 128 pixels, 256 take
    # 16.8. Half a metre over 256 is 2 mm each, a fifth of such a pixel; fewer show specks.
    visual.quality.shadowsize = 256
    visual.quality.numquads = 2
    visual.quality.offsamples = 4
    visual.map.znear = 0.006
    visual.map.zfar = 14.0
    visual.map.shadowscale = SHADOW_CONE_DEG / LAMP_CUTOFF_DEG  # it multiplies the cutoff
    visual.headlight.ambient = (0.34, 0.34, 0.35)
    visual.headlight.diffuse = (0.20, 0.20, 0.20)
    visual.headlight.specular = (0.04, 0.04, 0.04)
    spec.stat.center = (0.4, 0.0, 1.0)
    spec.stat.extent = 1.0
    return Stage(spec)


def _corners(kit: Kit, root: mujoco.MjsBody, plan: Layout) -> None:
    """Worktops over the squares between two runs that meet."""
    main = plan.runs[0]
    kit.live = False
    for run in plan.runs[1:]:
        yaw = run.pose[2]
        if abs(abs(yaw) - np.pi / 2) > 1e-6:
            continue
        left = yaw > 0
        y = main.pose[1] + DEPTH / 2 if left else main.pose[1] - main.width - DEPTH / 2
        name = f"corner_{'left' if left else 'right'}"
        body = root.add_body(name=name, pos=(main.pose[0] + DEPTH / 2, y, 0))
        half = (DEPTH / 2 + OVERHANG / 2, DEPTH / 2 + OVERHANG / 2, SLAB / 2)
        sign = 1.0 if left else -1.0
        # a millimetre lower than the worktops that it meets, so that one of them is on top
        shift = (-OVERHANG / 2, -sign * OVERHANG / 2, COUNTER_Z - SLAB / 2 - 0.001)
        kit.board(body, f"{name}_top", half, shift, kit.worktop, radius=0.003, tile=0.6)
        for key, size, pos in (
            ("far", (0.006, DEPTH / 2, 0.265), (DEPTH / 2 - 0.006, 0, COUNTER_Z + 0.265)),
            ("side", (DEPTH / 2, 0.006, 0.265), (0, sign * (DEPTH / 2 - 0.006), COUNTER_Z + 0.265)),
        ):
            kit.board(
                body, f"{name}_splash_{key}", size, pos, kit.splash, radius=0.001,
                tile=kit.style.tile_m,
            )  # fmt: skip


def _room(kit: Kit, root: mujoco.MjsBody, plan: Layout) -> None:
    stage, spec = kit.stage, kit.stage.spec
    spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=(0.88, 0.89, 0.90), rgb2=(0.76, 0.78, 0.80), width=64, height=384,
    )  # fmt: skip
    repeat = kit.style.floor_repeat
    floor = stage.material(
        "floor", picture=kit.style.floor(), repeat=(repeat, repeat), specular=0.15
    )
    r, g, b = (c / 255 for c in kit.style.wall)
    wall = stage.material("wall", (r, g, b), specular=0.02)
    root.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[4, 4, 0.5], pos=(-1.0, -2.0, 0),
        material=floor, group=VISUAL_GROUP, conaffinity=0,
    )  # fmt: skip
    for k, run in enumerate(plan.runs):
        width, extra = run.width, 0.75
        x, y, yaw = place(run.pose, DEPTH + 0.06, -width / 2)
        stage.draw_box(
            root, f"wall_{k}", (0.05, width / 2 + extra, ROOM_HEIGHT / 2), wall,
            pos=(x, y, ROOM_HEIGHT / 2), quat=yaw_quat(yaw),
        )  # fmt: skip
    _lights(spec)


def _places(kit: Kit, root: mujoco.MjsBody, plan: Layout) -> None:
    """A region on the floor for every place that the robot can be sent to."""
    kit.live = True
    for kind, parked in PARKED.items():
        x, y, yaw = kitchen_from_robot(plan, parked)
        site = root.add_body(name=f"place_{kind}_spot", pos=(x, y, 0), quat=yaw_quat(yaw))
        kit.region(site, f"place_{kind}", (0, 0, 0.005), (PARKED_WITHIN, PARKED_WITHIN, 0.005))


def _from_above(root: mujoco.MjsBody, plan: Layout) -> None:
    """The camera for people where the robot drives: the whole kitchen from above its open side."""
    corners = np.array(
        [
            place(pose, x, sign * layouts.WIDTHS[kind] / 2)[:2]
            for kind, pose, _ in unit_poses(plan)
            for x in (-PARKED["sink"].away, DEPTH)
            for sign in (-1, 1)
        ]
    )
    middle = (corners.min(0) + corners.max(0)) / 2
    reach = float((corners.max(0) - corners.min(0)).max()) / 2
    # At 55 degrees what is `reach` beside the middle is seen from twice as far, walls included.
    eye = (middle[0] - 0.9 * reach, middle[1], 0.9 + 2.0 * reach)
    target = (middle[0], middle[1], 0.5)
    root.add_camera(name="overview", pos=eye, quat=look_at(eye, target), fovy=55.0)


def _overview(spec: mujoco.MjSpec, plan: Layout, kitchen: layouts.Pose2) -> None:
    """A camera for people: behind the robot's shoulder, on the side where there is room."""
    x, y, _ = max(OVERVIEWS, key=lambda eye: min(0.9, _room_around(plan, kitchen, eye[0], eye[1])))
    eye, target = (x, y, 1.95), (0.45, 0.0, 0.98)
    spec.worldbody.add_camera(name="overview", pos=eye, quat=look_at(eye, target), fovy=50.0)


# From the right shoulder, else the left one, else close behind.
OVERVIEWS = ((-1.35, -1.05, 0), (-1.35, 1.05, 0), (-1.05, -0.85, 0), (-1.05, 0.85, 0))


def _room_around(plan: Layout, kitchen: layouts.Pose2, x: float, y: float) -> float:
    """Metres from a place (in the world) to the nearest unit."""
    px, py, _ = place(inverse(kitchen), x, y)
    nearest = np.inf
    for kind, pose, _ in unit_poses(plan):
        ux, uy, _ = place(inverse(pose), px, py)
        half = layouts.WIDTHS[kind] / 2
        dx, dy = max(-ux, ux - DEPTH, 0.0), max(abs(uy) - half, 0.0)
        nearest = min(nearest, float(np.hypot(dx, dy)))
    return nearest


def _lights(spec: mujoco.MjSpec) -> None:
    """Ceiling lights around the robot, and a fill from behind it."""
    world = spec.worldbody
    eye, target = (-0.55, -0.55, 3.1), (0.55, 0.0, 1.0)
    world.add_light(
        name="key", pos=eye, dir=np.subtract(target, eye), cutoff=LAMP_CUTOFF_DEG, exponent=0.0,
        castshadow=True, diffuse=(0.46, 0.45, 0.42), specular=(0.30, 0.30, 0.30),
        ambient=(0, 0, 0),
    )  # fmt: skip
    world.add_light(
        name="fill", directional=True, pos=(-1.0, 1.5, 2.5), dir=(0.7, -0.6, -0.5),
        castshadow=False, diffuse=(0.17, 0.17, 0.19), specular=(0, 0, 0), ambient=(0, 0, 0),
    )  # fmt: skip


def names(things: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The names of a spec's objects."""
    return tuple(name for name, _ in things)
