"""Small scenes built in tests, without a robot."""

from __future__ import annotations

import math

import mujoco

from envs.goals import World, check, holds, parse
from envs.rendering import Painter
from envs.scene import Articulation, Region, Robot, Scene, SceneInfo, Thing, Threshold

NO_ROBOT = Robot(
    joints=(), actuators=(), gripper_joints=(), gripper_actuators=(), eef_site="", eef_body="",
    init_qpos=(), init_gripper_qpos=(), pad_geoms=((), ()),
)  # fmt: skip
BOX, PLANE, SPHERE = (
    mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_SPHERE,
)  # fmt: skip


def empty_spec() -> mujoco.MjSpec:
    """An empty world whose light casts no shadow, as in our scenes."""
    spec = mujoco.MjSpec()
    spec.worldbody.add_light(pos=(0, 0, 3), dir=(0, 0, -1), castshadow=False)
    spec.stat.extent = 2.0
    return spec


def add_geom(body: mujoco.MjsBody, kind: mujoco.mjtGeom, size: tuple, **more) -> mujoco.MjsGeom:
    return body.add_geom(type=kind, size=size, group=1, **more)  # group 0 is hidden


def make_scene(
    spec: mujoco.MjSpec, cameras: tuple[str, ...], things: tuple[Thing, ...] = ()
) -> Scene:
    info = SceneInfo(
        id="test", robot=NO_ROBOT, things=things, regions=(), cameras={c: c for c in cameras}
    )
    return Scene(model=spec.compile(), info=info)


DRAWERS = Articulation(
    open=Threshold(below=-0.14), close=Threshold(above=-0.005),
)  # fmt: skip
KNOBS = Articulation(
    turn_on=Threshold(above=0.5, inclusive=True), turn_off=Threshold(below=0.0, inclusive=True),
)  # fmt: skip


class Table:
    """Boxes in space without gravity, put where a test says."""

    def __init__(self) -> None:
        spec = mujoco.MjSpec()
        spec.option.gravity = (0, 0, 0)
        world = spec.worldbody

        def add(name: str, size: tuple[float, float, float], kind=mujoco.mjtGeom.mjGEOM_BOX):
            body = world.add_body(name=name)
            body.add_freejoint(name=f"{name}_joint")
            body.add_geom(name=f"{name}_geom", type=kind, size=size)

        add("block", (0.05, 0.05, 0.05))
        add("plate", (0.2, 0.2, 0.01))
        add("crate", (0.3, 0.3, 0.05))
        add("ball", (0.1, 0, 0), mujoco.mjtGeom.mjGEOM_SPHERE)
        add("bead", (0.1, 0, 0), mujoco.mjtGeom.mjGEOM_SPHERE)
        halo = spec.body("plate").add_geom(  # touches all around, but is no contact geom
            name="halo", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.25, 0.25, 0.2)
        )
        halo.pos = (0, 0, 0)
        stove = world.add_body(name="stove", pos=(2, 0, 0))
        stove.add_geom(name="stove_geom", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.2, 0.2, 0.01))
        for joint in ("knob_1", "knob_2", "drawer_1", "drawer_2"):
            part = stove.add_body(name=joint)
            part.add_joint(name=joint, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(1, 0, 0))
            part.add_geom(
                type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.01, 0, 0), contype=0, conaffinity=0
            )

        def site(name: str, at: tuple, degrees: float, parent: mujoco.MjsBody = world) -> None:
            half_angle = math.radians(degrees) / 2
            quat = (math.cos(half_angle), 0, 0, math.sin(half_angle))
            parent.add_site(name=name, pos=at, quat=quat)

        site("zone", (0, 0, 0), 0)
        site("turned", (0, 0, 0), 30)
        site("diagonal", (0, 0, 0), 45)
        site("burner", (0, 0, 0.01), 0, stove)
        model = spec.compile()
        loose = ("block", "plate", "crate", "ball", "bead")
        contact = {b: (model.geom(f"{b}_geom").id,) for b in (*loose, "stove")}

        def thing(name: str, **more) -> Thing:
            return Thing(name=name, category=name, body=name, geoms=contact[name], **more)

        self.scene = Scene(
            model=model,
            info=SceneInfo(
                id="boxes",
                robot=NO_ROBOT,
                cameras={},
                things=(
                    thing("block", free_joint="block_joint"),
                    thing("plate", free_joint="plate_joint"),
                    thing("crate", free_joint="crate_joint", half_extents=(0.25, 0.2, 0.1)),
                    thing("ball", free_joint="ball_joint"),
                    thing("bead", free_joint="bead_joint"),
                    thing("stove", joints=("knob_1", "knob_2"), articulation=KNOBS),
                    Thing(
                        name="cabinet", category="cabinet", body="stove", geoms=(),
                        joints=("drawer_1", "drawer_2"), articulation=DRAWERS,
                    ),
                ),
                regions=(
                    Region(name="zone", site="zone", size=(0.2, 0.05, 0.01)),
                    Region(name="turned", site="turned", size=(0.2, 0.05, 0.01)),
                    Region(name="diagonal", site="diagonal", size=(0.2, 0.1, 0.05)),
                    Region(name="burner", site="burner", size=(0.2, 0.2, 0.01), parent="stove"),
                    Region(
                        name="top_drawer", site="burner", size=(0.1, 0.1, 0.1), parent="cabinet",
                        joints=("drawer_1",),
                    ),
                ),
            ),
        )  # fmt: skip
        self.data = mujoco.MjData(model)
        self.world = World(self.scene, self.data)
        far = 10.0
        for name in loose:
            self.put(name, far, far, far)
            far += 10.0

    def put(self, name: str, x: float, y: float, z: float) -> None:
        at = self.scene.qpos_address(f"{name}_joint")
        self.data.qpos[at : at + 7] = x, y, z, 1, 0, 0, 0
        mujoco.mj_forward(self.scene.model, self.data)

    def turn(self, joint: str, value: float) -> None:
        self.data.qpos[self.scene.qpos_address(joint)] = value

    def holds(self, text: str) -> bool:
        goal = parse(text)
        check(goal, self.scene)
        return holds(goal, self.world)


def draw(p: Painter, camera: str, size=(48, 64), *, qpos=None, lit=(), depth=False):
    """Draw a painter's scene, as it is built unless `qpos` says otherwise."""
    return p.draw(p.scene.model.qpos0 if qpos is None else qpos, lit, camera, size, depth)
