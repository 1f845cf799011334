"""The kitchen's success rules as predicates of the goal language.

They are RoboCasa's rules (v0.2; SUITES 2.2 lists them) for our scenes:

    Far(a)              the gripper is more than 0.25 m from a thing
    Clear(a)            more than 0.15 m: from a button that was pressed
    Inside(a, region)   all eight corners of the thing's box lie in the region, give or take 5 cm
    CentreIn(a, region) the thing's centre lies in the region
    InReceptacle(a, b)  they touch, and a is above the middle of b: within 0.7 of its radius,
                        or 0.07 m for pans and pots
    AtSpot(a, region)   the thing is within the region's x half size of its axis, and within its
                        z half size in height
    Parked(region)      the robot's base is within 0.20 m of a place on the floor and faces as one
                        does who stands there: cos(angle) >= 0.98 (NavigateKitchen)

Doors, drawers, knobs, buttons and faucets use Open, Close, TurnOn and TurnOff with
thresholds of their own (envs/kitchen/build.py and its neighbours). Buttons latch in the
physical scene, so that every rule is a function of the simulator's state alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray

from wamsim.errors import UnknownName

if TYPE_CHECKING:
    from envs.goals import World
    from envs.scene import Scene, Thing

Array = NDArray[np.float64]

FAR, CLEAR = 0.25, 0.15  # metres (RoboCasa: gripper_obj_far, gripper_button_far)
SLACK = 0.05  # metres around a fixture's inside (RoboCasa: obj_inside_of, th)
RECEPTACLE_SHARE = 0.7
COOKWARE, COOKWARE_RADIUS = ("pan", "pot"), 0.07
PARKED_WITHIN, PARKED_COS = 0.20, 0.98  # metres; cosine of the angle between headings


def _gripper_distance(world: World, a: str) -> float:
    site = world.scene.site_id(world.scene.info.robot.eef_site)
    away = world.data.site_xpos[site] - world.position(world.scene.thing(a))
    return float(np.linalg.norm(away))


def far(world: World, a: str) -> bool:
    """Far(a)."""
    return _gripper_distance(world, a) > FAR


def clear(world: World, a: str) -> bool:
    """Clear(a)."""
    return _gripper_distance(world, a) > CLEAR


def box_of(scene: Scene, thing: Thing) -> tuple[Array, Array]:
    """Lowest and highest corner of a thing's contact shapes, in its body's frame, [3] each."""
    kept: dict[str, tuple[Array, Array]] | None = getattr(scene, "_kitchen_boxes", None)
    if kept is None:
        kept = {}
        scene._kitchen_boxes = kept  # type: ignore[attr-defined]
    if thing.name not in kept:
        model = scene.model
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        for geom in thing.geoms:
            rotation = np.empty(9)
            mujoco.mju_quat2Mat(rotation, model.geom_quat[geom])
            middle, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
            turned = rotation.reshape(3, 3)
            centre = model.geom_pos[geom] + turned @ middle
            reach = np.abs(turned) @ half
            low, high = np.minimum(low, centre - reach), np.maximum(high, centre + reach)
        kept[thing.name] = low, high
    return kept[thing.name]


def corners(low: Array, high: Array) -> Array:
    """The eight corners of a box, [8, 3]."""
    grid = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij"))
    return grid.reshape(3, 8).T


def _in_region(world: World, points: Array, name: str, slack: float) -> bool:
    region = world.scene.region(name)
    centre, rotation = world.site(region)
    local = (points - centre) @ rotation
    return bool(np.all(np.abs(local) < np.asarray(region.size) + slack))


def inside(world: World, a: str, b: str) -> bool:
    """Inside(a, region)."""
    thing = world.scene.thing(a)
    body = world.scene.body_id(thing.body)
    rotation = world.data.xmat[body].reshape(3, 3)
    points = corners(*box_of(world.scene, thing)) @ rotation.T + world.data.xpos[body]
    return _in_region(world, points, b, SLACK)


def centre_in(world: World, a: str, b: str) -> bool:
    """CentreIn(a, region)."""
    return _in_region(world, world.position(world.scene.thing(a))[None], b, 0.0)


def receptacle_radius(thing: Thing) -> float:
    """How far from a receptacle's middle a thing in it may be, metres."""
    return COOKWARE_RADIUS if thing.category in COOKWARE else RECEPTACLE_SHARE * thing.radius


def in_receptacle(world: World, a: str, b: str) -> bool:
    """InReceptacle(a, b)."""
    thing, dish = world.scene.thing(a), world.scene.thing(b)
    away = (world.position(thing) - world.position(dish))[:2]
    return bool(np.hypot(*away) < receptacle_radius(dish) and world.touch(thing, dish))


def at_spot(world: World, a: str, b: str) -> bool:
    """AtSpot(a, region)."""
    region = world.scene.region(b)
    centre, _ = world.site(region)
    away = world.position(world.scene.thing(a)) - centre
    return bool(np.hypot(*away[:2]) < region.size[0] and abs(away[2]) < region.size[2])


def parked(world: World, a: str) -> bool:
    """Parked(region)."""
    platform = world.scene.info.platform
    if platform is None:
        raise UnknownName(f"Parked({a}) asks for a robot that drives, and the scene's stands")
    body = world.scene.body_id(platform.body)
    centre, rotation = world.site(world.scene.region(a))
    away = world.data.xpos[body][:2] - centre[:2]
    facing = world.data.xmat[body].reshape(3, 3)[:2, 0]
    turned = float(facing @ rotation[:2, 0])  # both are level: unit vectors in the plane
    return bool(np.hypot(*away) <= PARKED_WITHIN and turned >= PARKED_COS)


# name -> (number of arguments, definition), as envs.goals has it
DEFINITIONS: dict[str, tuple[int, Callable[..., bool]]] = {
    "Far": (1, far),
    "Clear": (1, clear),
    "Inside": (2, inside),
    "CentreIn": (2, centre_in),
    "InReceptacle": (2, in_receptacle),
    "AtSpot": (2, at_spot),
    "Parked": (1, parked),
}
