"""Units: a base cabinet with what stands on it and hangs above it, as one body."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mujoco

from envs.kitchen import appliances, cabinets
from envs.kitchen import sink as sinks
from envs.kitchen import stove as stoves
from envs.kitchen.build import COUNTER_Z, DEPTH, TOE, WALL_HIGH, WALL_LOW, Kit
from envs.kitchen.cabinets import TOP
from envs.kitchen.layouts import WIDTHS
from envs.tabletop.stage import BOX, Piece

# Where things stand within their units, metres from the middle; to the left is positive.
SINK_Y = 0.16
STOVE_Y, STOVE_SIDE_Y, STOVE_SIDE = 0.28, -0.32, 0.56
MICROWAVE_Y = 0.22
COFFEE_Y = 0.18

# The free part of each worktop (x0, x1, y0, y1), where things are set down.
FREE: Mapping[str, tuple[float, float, float, float]] = {
    "drawers": (0.06, 0.22, -0.24, 0.24),
    "sink": (0.10, 0.30, -0.38, -0.16),
    "stove": (0.10, 0.30, -0.46, -0.14),
    "microwave": (0.08, 0.26, -0.38, -0.12),
    "coffee": (0.08, 0.26, -0.28, -0.02),
}

Show = Callable[[str], bool]


def build(
    kit: Kit, root: mujoco.MjsBody, kind: str, pos: tuple, quat: tuple, live: tuple[str, ...]
) -> None:
    """Add a unit.

    Args:
        kit: The kitchen.
        root: Its body.
        kind: Of the unit.
        pos, quat: Of its frame in the kitchen.
        live: Which of its fixtures can be touched; () for scenery, which is one block.
    """
    name = f"unit_{kind}" + (f"_{_count(kit, kind)}" if kind in ("cupboard", "corner") else "")
    body = root.add_body(name=name, pos=pos, quat=quat)
    kit.live = bool(live)
    if not live:
        high = 1.95 if kind == "fridge" else COUNTER_Z
        kit.stage.collide(
            body, f"{name}_block", BOX, (DEPTH / 2, WIDTHS[kind] / 2, high / 2),
            pos=(DEPTH / 2, 0, high / 2), conaffinity=0,
        )  # fmt: skip

    def show(fixture: str) -> bool:
        kit.live = fixture in live
        return True

    top = _BUILDERS[kind](kit, body, name, bool(live), show)
    kit.live = bool(live)
    if live and top:
        kit.pieces.append(
            Piece(
                name="counter", category="counter", body=body.name, geoms=tuple(top), free=False,
                radius=WIDTHS[kind] / 2, bottom=0.0, top=COUNTER_Z,
            )
        )  # fmt: skip
        x0, x1, y0, y1 = FREE[kind]
        size = ((x1 - x0) / 2, (y1 - y0) / 2, 0.007)
        kit.region(
            body, "counter_space", ((x0 + x1) / 2, (y0 + y1) / 2, COUNTER_Z), size,
            parent="counter",
        )  # fmt: skip


def _count(kit: Kit, kind: str) -> int:
    k = 0
    while not kit.stage.once(f"{kind} {k}"):
        k += 1
    return k


def _drawers(kit: Kit, body: mujoco.MjsBody, name: str, live: bool, show: Show) -> list[str]:
    width = WIDTHS["drawers"]
    top = cabinets.worktop(kit, body, name, width)
    show("drawers")
    if live and not kit.live:
        cabinets.drawers(kit, body, "drawer", width)
        kit.live = True
        half = (DEPTH / 2 + 0.01, width / 2, (TOP - TOE) / 2)
        kit.solid(body, "drawers_closed", half, (DEPTH / 2 - 0.01, 0, (TOP + TOE) / 2))
    else:
        cabinets.drawers(kit, body, "drawer", width)
    show("cabinet")
    cabinets.wall_cabinet(kit, body, "cabinet", 0.80, doors=2)
    _close(kit, body, "cabinet", 0.80, live and not kit.live)
    return top


def _close(
    kit: Kit, body: mujoco.MjsBody, name: str, width: float, needed: bool, y: float = 0.0
) -> None:
    """One box for a wall cabinet that stays closed above a live unit."""
    if needed:
        kit.live = True
        half = ((DEPTH - 0.24) / 2, width / 2, (WALL_HIGH - WALL_LOW) / 2)
        pos = ((DEPTH + 0.24) / 2, y, (WALL_HIGH + WALL_LOW) / 2)
        kit.solid(body, f"{name}_closed", half, pos)


def _sink(kit: Kit, body: mujoco.MjsBody, name: str, live: bool, show: Show) -> list[str]:
    width = WIDTHS["sink"]
    floor = COUNTER_Z - sinks.DEEP - 0.03
    cabinets.plinth(kit, body, name, width, top=floor)
    cabinets.closed_doors(kit, body, name, low=TOE, high=TOP, width=width, doors=2)
    show("sink")
    top = sinks.sink(kit, body, "sink", width, SINK_Y)
    _window(kit, body, name)
    return top


def _window(kit: Kit, body: mujoco.MjsBody, name: str) -> None:
    """A window above the sink."""
    frame = kit.stage.material("window_frame", (0.93, 0.93, 0.91), specular=0.2)
    glow = kit.stage.material("window_light", (0.86, 0.92, 0.97), emission=0.55, specular=0.1)
    z, half_z, half_y = 1.62, 0.36, 0.42
    kit.stage.draw_box(
        body, f"{name}_pane", (0.004, half_y, half_z), glow, pos=(DEPTH + 0.012, 0, z)
    )
    for key, size, dy, dz in (
        ("sill", (0.030, half_y + 0.05, 0.014), 0.0, -half_z),
        ("head", (0.016, half_y + 0.04, 0.022), 0.0, half_z),
        ("left", (0.016, 0.022, half_z), half_y, 0.0),
        ("right", (0.016, 0.022, half_z), -half_y, 0.0),
        ("mullion", (0.012, 0.012, half_z), 0.0, 0.0),
    ):
        kit.stage.draw_box(body, f"{name}_window_{key}", size, frame, pos=(DEPTH, dy, z + dz))


def _stove(kit: Kit, body: mujoco.MjsBody, name: str, live: bool, show: Show) -> list[str]:
    show("stove")
    stoves.stove(kit, body, "stove", STOVE_Y)
    stoves.hood(kit, body, "hood", STOVE_Y)
    kit.live = live
    return _side(kit, body, name, STOVE_SIDE_Y, STOVE_SIDE)


def _side(kit: Kit, body: mujoco.MjsBody, name: str, y: float, width: float) -> list[str]:
    """A plain base cabinet beside the stove, with a shelf above it."""
    part = body.add_body(name=f"{name}_side", pos=(0, y, 0))
    top = cabinets.worktop(kit, part, f"{name}_side", width)
    cabinets.plinth(kit, part, f"{name}_side", width)
    cabinets.closed_doors(kit, part, f"{name}_side", low=TOE, high=TOP, width=width, doors=1)
    kit.board(
        part, f"{name}_shelf", (0.10, width / 2 - 0.03, 0.014), (DEPTH - 0.10, 0, WALL_LOW + 0.10),
        kit.carcass, solid=False,
    )  # fmt: skip
    return top


def _plain(kit: Kit, body: mujoco.MjsBody, name: str, width: float, doors: int) -> list[str]:
    top = cabinets.worktop(kit, body, name, width)
    cabinets.plinth(kit, body, name, width)
    cabinets.closed_doors(kit, body, name, low=TOE, high=TOP, width=width, doors=doors)
    return top


def _microwave(kit: Kit, body: mujoco.MjsBody, name: str, live: bool, show: Show) -> list[str]:
    top = _plain(kit, body, name, WIDTHS["microwave"], 2)
    show("microwave")
    appliances.microwave(kit, body, "microwave", MICROWAVE_Y)
    kit.live = False
    cabinets.wall_cabinet(kit, body, f"{name}_wall", 0.90, doors=2)
    _close(kit, body, f"{name}_wall", 0.90, live)
    return top


def _coffee(kit: Kit, body: mujoco.MjsBody, name: str, live: bool, show: Show) -> list[str]:
    top = _plain(kit, body, name, WIDTHS["coffee"], 2)
    show("coffee")
    appliances.coffee_machine(kit, body, "coffee", COFFEE_Y)
    if live and not kit.live:  # the machine as one block
        kit.live = True
        half = (0.145, 0.105, 0.21)
        kit.solid(
            body, "coffee_closed", half,
            (appliances.COFFEE_FRONT + half[0], COFFEE_Y, COUNTER_Z + half[2]),
        )  # fmt: skip
    show("single")
    cabinets.wall_cabinet(kit, body, "single", 0.45, doors=1)
    _close(kit, body, "single", 0.45, live and not kit.live)
    return top


def _fridge(kit: Kit, body: mujoco.MjsBody, name: str, live: bool, show: Show) -> list[str]:
    appliances.fridge(kit, body, name, WIDTHS["fridge"])
    return []


def _cupboard(kit: Kit, body: mujoco.MjsBody, name: str, live: bool, show: Show) -> list[str]:
    top = _plain(kit, body, name, WIDTHS["cupboard"], 1)
    cabinets.wall_cabinet(kit, body, f"{name}_wall", 0.60, doors=1)
    return top


def _corner(kit: Kit, body: mujoco.MjsBody, name: str, live: bool, show: Show) -> list[str]:
    """The dead square between two runs: worktop and a closed case."""
    cabinets.worktop(kit, body, name, WIDTHS["corner"] + 0.0)
    return []


_BUILDERS: Mapping[str, Callable[..., list[str]]] = {
    "drawers": _drawers,
    "sink": _sink,
    "stove": _stove,
    "microwave": _microwave,
    "coffee": _coffee,
    "fridge": _fridge,
    "cupboard": _cupboard,
    "corner": _corner,
}
