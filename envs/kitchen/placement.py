"""How an episode starts: joints of fixtures, and where things stand, by task.

Places are given in the frame of the unit before which the robot stands (x to the wall, y
left, see `envs.kitchen.build`) and carried into the world by the pose of the kitchen, so
they follow wherever the robot was put.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from envs.kitchen import appliances, sink, stove, units
from envs.kitchen.build import (
    BUTTON_TRAVEL,
    COUNTER_Z,
    DOOR_RANGE,
    WALL_FRONT,
    WALL_LOW,
    WINDOW_RANGE,
)
from envs.kitchen.cabinets import BOARD, TRAVEL
from envs.kitchen.layouts import Pose2, place
from envs.kitchen.tasks import Variant
from envs.scene import Scene

Array = NDArray[np.float64]
Range = tuple[float, float]

DROP = 0.002  # metres above the rest where things are let go
GAP = 0.02  # metres between things
TRIES = 400
# The robot does not park exactly: metres and radians, uniform.
SHIFT, TURN = 0.015, 0.03


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A rectangle that a thing's middle starts in.

    Attributes:
        x, y: In the unit's frame, metres.
        z: Height of what it stands on.
        yaw: Turn against the unit, radians.
    """

    x: Range
    y: Range
    z: float = COUNTER_Z
    yaw: Range = (-np.pi, np.pi)


@dataclass(frozen=True, kw_only=True)
class Start:
    """The start of a trial: joints that are not at 0, and where the things are.

    Attributes:
        joints: Joint -> position.
        spots: Thing -> where it starts.
        on: Thing -> thing that it stands on.
    """

    joints: Mapping[str, float] = field(default_factory=dict)
    spots: Mapping[str, Spot] = field(default_factory=dict)
    on: Mapping[str, str] = field(default_factory=dict)


Rule = Callable[[Variant, np.random.Generator], Start]

# ------------------------------------------------------------------------- places

# A mug's ear points to the wall, so that fingers find its sides.
_EAR_AWAY: Range = (-0.6, 0.6)
_MICROWAVE_MIDDLE = units.MICROWAVE_Y + 0.255 - 0.012 - appliances.CAVITY[1] - 0.006
_SPOTS: Mapping[str, Spot] = {
    # before the open doors' edges, where an arm that reaches up has room
    "cabinet_counter": Spot(x=(0.05, 0.17), y=(-0.20, 0.20)),
    "cabinet": Spot(
        x=(WALL_FRONT + 0.09, WALL_FRONT + 0.12), y=(-0.16, 0.16), z=WALL_LOW + 2 * BOARD
    ),
    "sink_counter": Spot(x=(0.08, 0.30), y=(-0.38, -0.20)),
    "sink_dish": Spot(x=(0.12, 0.26), y=(-0.36, -0.28)),
    "basin": Spot(x=(0.17, 0.26), y=(0.06, 0.26), z=COUNTER_Z - sink.DEEP + 0.004),
    "microwave_counter": Spot(x=(0.07, 0.24), y=(-0.34, -0.16)),
    "microwave_dish": Spot(x=(0.12, 0.24), y=(-0.34, -0.24)),
    "microwave": Spot(
        x=(appliances.MICROWAVE_FRONT + 0.115, appliances.MICROWAVE_FRONT + 0.13),
        y=(_MICROWAVE_MIDDLE - 0.02, _MICROWAVE_MIDDLE + 0.02), z=COUNTER_Z + 0.024,
    ),
    "microwave_plate": Spot(
        x=(appliances.MICROWAVE_FRONT + 0.115, appliances.MICROWAVE_FRONT + 0.12),
        y=(_MICROWAVE_MIDDLE - 0.01, _MICROWAVE_MIDDLE + 0.01), z=COUNTER_Z + 0.024,
    ),
    "stove_counter": Spot(x=(0.12, 0.26), y=(-0.32, -0.20)),
    "coffee_counter": Spot(x=(0.08, 0.20), y=(-0.24, -0.06), yaw=_EAR_AWAY),
    "coffee": Spot(
        x=(appliances.COFFEE_FRONT + 0.062, appliances.COFFEE_FRONT + 0.074),
        y=(units.COFFEE_Y - 0.008, units.COFFEE_Y + 0.008), z=COUNTER_Z + appliances.TRAY,
        yaw=_EAR_AWAY,
    ),
}  # fmt: skip


def _around(x: float, y: float, z: float, by: float = 0.008, yaw: Range = (-0.4, 0.4)) -> Spot:
    return Spot(x=(x - by, x + by), y=(y - by, y + by), z=z, yaw=yaw)


def _burner_spot(name: str) -> Spot:
    (x, y), _ = stove.BURNERS[name]
    # a pan's handle points towards the middle of the kitchen, clear of the knobs
    return _around(x, units.STOVE_Y + y, COUNTER_Z + 0.008, yaw=(1.9, 2.3))


def _reach(door: str) -> float:
    """How far a door opens, radians."""
    return WINDOW_RANGE if door == "microwave_door" else DOOR_RANGE


def _opened(*doors: str) -> dict[str, float]:
    return {f"{door}_joint": 0.97 * _reach(door) for door in doors}


# -------------------------------------------------------------------------- rules


def _counter_to_cab(variant: Variant, rng: np.random.Generator) -> Start:
    return Start(
        joints=_opened("cabinet_left_door", "cabinet_right_door"),
        spots={"obj": _SPOTS["cabinet_counter"]},
    )


def _cab_to_counter(variant: Variant, rng: np.random.Generator) -> Start:
    return Start(
        joints=_opened("cabinet_left_door", "cabinet_right_door"),
        spots={"obj": _SPOTS["cabinet"]},
    )


def _counter_to_microwave(variant: Variant, rng: np.random.Generator) -> Start:
    return Start(
        joints={**_opened("microwave_door"), "microwave_stop_joint": BUTTON_TRAVEL},
        spots={"obj": _SPOTS["microwave_counter"], "dish": _SPOTS["microwave_plate"]},
    )


def _microwave_to_counter(variant: Variant, rng: np.random.Generator) -> Start:
    return Start(
        joints={**_opened("microwave_door"), "microwave_stop_joint": BUTTON_TRAVEL},
        spots={"obj": _SPOTS["microwave"], "dish": _SPOTS["microwave_dish"]},
    )


def _counter_to_stove(variant: Variant, rng: np.random.Generator) -> Start:
    return Start(
        spots={
            "pan": _burner_spot("front_right"), "dish": _SPOTS["stove_counter"],
            "obj": _around(0, 0, 0),
        },
        on={"obj": "dish"},
    )  # fmt: skip


def _stove_to_counter(variant: Variant, rng: np.random.Generator) -> Start:
    return Start(
        spots={
            "pan": _burner_spot("front_right"), "dish": _SPOTS["stove_counter"],
            "obj": _around(0, 0, 0),
        },
        on={"obj": "pan"},
    )  # fmt: skip


def _door(variant: Variant, rng: np.random.Generator, share: Range) -> Start:
    door = variant.words["door"]
    joints = {f"{door}_joint": float(rng.uniform(*share)) * _reach(door)}
    if door == "microwave_door":
        joints["microwave_stop_joint"] = BUTTON_TRAVEL
    return Start(joints=joints)


def _open_double(variant: Variant, rng: np.random.Generator) -> Start:
    return Start()


def _close_double(variant: Variant, rng: np.random.Generator) -> Start:
    return Start(
        joints={
            f"cabinet_{side}_door_joint": float(rng.uniform(0.90, 1.0)) * DOOR_RANGE
            for side in ("left", "right")
        }
    )


def _close_drawer(variant: Variant, rng: np.random.Generator) -> Start:
    joint = f"drawer_{variant.words['side']}_joint"
    return Start(joints={joint: float(rng.uniform(0.90, 1.0)) * TRAVEL})


def _spout(variant: Variant, rng: np.random.Generator) -> Start:
    return Start(joints={"sink_spout_joint": float(rng.uniform(-0.2, 0.2))})


def _faucet_on(variant: Variant, rng: np.random.Generator) -> Start:
    return Start(joints={"sink_handle_joint": float(rng.uniform(0.7, 1.2))})


def _stove_off(variant: Variant, rng: np.random.Generator) -> Start:
    return Start(joints={f"stove_{variant.words['burner']}_joint": stove.knob_angle(rng, True)})


def _still(variant: Variant, rng: np.random.Generator) -> Start:
    return Start()


RULES: Mapping[str, Rule] = {
    "pnp_counter_to_cab": _counter_to_cab,
    "pnp_cab_to_counter": _cab_to_counter,
    "pnp_counter_to_sink": lambda v, rng: Start(spots={"obj": _SPOTS["sink_counter"]}),
    "pnp_sink_to_counter": lambda v, rng: Start(
        spots={"obj": _SPOTS["basin"], "dish": _SPOTS["sink_dish"]}
    ),
    "pnp_counter_to_microwave": _counter_to_microwave,
    "pnp_microwave_to_counter": _microwave_to_counter,
    "pnp_counter_to_stove": _counter_to_stove,
    "pnp_stove_to_counter": _stove_to_counter,
    "open_single_door": lambda v, rng: _door(v, rng, (0.0, 0.0)),
    "close_single_door": lambda v, rng: _door(v, rng, (0.90, 1.0)),
    "open_double_door": _open_double,
    "close_double_door": _close_double,
    "open_drawer": _still,
    "close_drawer": _close_drawer,
    "turn_on_sink_faucet": _still,
    "turn_off_sink_faucet": _faucet_on,
    "turn_sink_spout": _spout,
    "turn_on_stove": _still,
    "turn_off_stove": _stove_off,
    "coffee_setup_mug": lambda v, rng: Start(spots={"mug": _SPOTS["coffee_counter"]}),
    "coffee_serve_mug": lambda v, rng: Start(spots={"mug": _SPOTS["coffee"]}),
    "coffee_press_button": lambda v, rng: Start(spots={"mug": _SPOTS["coffee"]}),
    "turn_on_microwave": lambda v, rng: Start(joints={"microwave_stop_joint": BUTTON_TRAVEL}),
    "turn_off_microwave": lambda v, rng: Start(joints={"microwave_start_joint": BUTTON_TRAVEL}),
    "navigate_kitchen": _still,
}


def sample_qpos(scene: Scene, start: Start, kitchen: Pose2, rng: np.random.Generator) -> Array:
    """Draw one qpos: robot at rest, joints of fixtures as the start says, things placed.

    Args:
        scene: The compiled scene.
        start: The trial's rule, drawn.
        kitchen: Pose of the kitchen in the world.
        rng: Of the trial.

    Raises:
        RuntimeError: No places without overlap were found.
    """
    qpos = scene.model.qpos0.copy()
    robot = scene.info.robot
    for joint, q in zip(
        (*robot.joints, *robot.gripper_joints),
        (*robot.init_qpos, *robot.init_gripper_qpos),
        strict=True,
    ):
        qpos[scene.qpos_address(joint)] = q
    for joint, q in start.joints.items():
        qpos[scene.qpos_address(joint)] = q
    unit = in_world(scene, kitchen)
    for name, (x, y, z, yaw) in _arrange(scene, start, rng).items():
        wx, wy, turned = place(unit, x, y, yaw)
        at = scene.qpos_address(f"{name}_joint")
        qpos[at : at + 7] = (wx, wy, z + DROP, np.cos(turned / 2), 0, 0, np.sin(turned / 2))
    return qpos


def in_world(scene: Scene, kitchen: Pose2) -> Pose2:
    """Pose of the unit before the robot, for a pose of the kitchen."""
    x0, y0, yaw0 = scene.info.placement["kitchen"]
    ux, uy, uyaw = scene.info.placement["unit"]
    c, s = np.cos(-yaw0), np.sin(-yaw0)
    dx, dy = ux - x0, uy - y0
    return place(kitchen, float(c * dx - s * dy), float(s * dx + c * dy), uyaw - yaw0)


def _arrange(
    scene: Scene, start: Start, rng: np.random.Generator
) -> dict[str, tuple[float, float, float, float]]:
    """Draw (x, y, z, yaw) of the things in the unit's frame, apart from each other."""
    for _ in range(TRIES):
        found: dict[str, tuple[float, float, float, float]] = {}
        for name, spot in sorted(start.spots.items(), key=lambda item: item[0] in start.on):
            thing = scene.thing(name)
            x, y = rng.uniform(*spot.x), rng.uniform(*spot.y)
            z = spot.z - thing.bottom
            if name in start.on:
                below = start.on[name]
                ox, oy, oz, _ = found[below]
                x, y = x + ox, y + oy
                # the floor of a dish is 6 mm thick (envs.tabletop.dishes, cookware)
                z = oz + scene.thing(below).bottom + 0.006 - thing.bottom
            found[name] = (float(x), float(y), float(z), float(rng.uniform(*spot.yaw)))
        if _apart(scene, start, found):
            return found
    raise RuntimeError(
        f"scene {scene.info.id}: {TRIES} draws of {', '.join(start.spots)} all overlap. Widen "
        f"the spots in envs/kitchen/placement.py."
    )


def _apart(
    scene: Scene, start: Start, found: Mapping[str, tuple[float, float, float, float]]
) -> bool:
    names = list(found)
    for i, a in enumerate(names):
        for b in names[:i]:
            if start.on.get(a) == b or start.on.get(b) == a:
                continue
            if abs(found[a][2] - found[b][2]) > 0.25:
                continue
            away = np.hypot(found[a][0] - found[b][0], found[a][1] - found[b][1])
            if away < scene.thing(a).radius + scene.thing(b).radius + GAP:
                return False
    return True


def park(nominal: Pose2, rng: np.random.Generator) -> Pose2:
    """Draw how the robot has parked, as a pose of the kitchen around it."""
    dx, dy = rng.uniform(-SHIFT, SHIFT, 2)
    turn = float(rng.uniform(-TURN, TURN))
    return place((0.0, 0.0, turn), nominal[0] + float(dx), nominal[1] + float(dy), nominal[2])
