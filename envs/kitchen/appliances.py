"""Microwave, coffee machine, fridge."""

from __future__ import annotations

import mujoco

from envs.kitchen.build import BUTTON_TRAVEL, COUNTER_Z, DEPTH, Kit
from envs.tabletop import shapes
from envs.tabletop.stage import Piece

# The microwave: case 50 x 34 x 38 cm on the worktop; its cavity left of the buttons.
MICROWAVE_FRONT = 0.20
CAVITY = (0.145, 0.165, 0.135)  # half sizes
COFFEE_FRONT = 0.20
BAY_HEIGHT, TRAY = 0.265, 0.022


def microwave(kit: Kit, body: mujoco.MjsBody, name: str, y: float) -> None:
    """Add a microwave with its middle at y.

    Live, its pieces are `name`, `<name>_door`, and two buttons that push each other out,
    `<name>_start` and `<name>_stop`; its region is `<name>_inside`.
    """
    x0, wide, high = MICROWAVE_FRONT, 0.255, 0.172
    deep, wall = 0.175, 0.012
    middle_y = y + wide - 2 * wall / 2 - CAVITY[1] - 0.006  # of the cavity, left
    z0 = COUNTER_Z + 0.012  # on feet
    case = kit.appliance
    geoms: list[str] = []
    right = y + wide - 2 * CAVITY[1] - 0.03  # left edge of the button panel
    for key, half, pos in (
        ("floor", (deep, wide, wall / 2), (x0 + deep, y, z0 + wall / 2)),
        ("roof", (deep, wide, wall / 2), (x0 + deep, y, z0 + 2 * high - wall / 2)),
        ("back", (wall / 2, wide, high), (x0 + 2 * deep - wall / 2, y, z0 + high)),
        ("left", (deep, wall / 2, high), (x0 + deep, y + wide - wall / 2, z0 + high)),
        (
            "panel",
            (deep, (right - y + wide) / 2, high),
            (x0 + deep, (right + y - wide) / 2, z0 + high),
        ),
    ):
        geoms += kit.board(body, f"{name}_{key}", half, pos, case, radius=0.004)
    inner = kit.stage.material("microwave_inside", (0.82, 0.82, 0.80), specular=0.2)
    lining = (deep - wall, CAVITY[1], 0.001)
    kit.stage.draw_box(
        body, f"{name}_lining", lining, inner, pos=(x0 + deep - 0.004, middle_y, z0 + wall + 0.001)
    )
    kit.stage.draw_box(
        body, f"{name}_lining_back", (0.001, CAVITY[1], high - wall), inner,
        pos=(x0 + 2 * deep - wall - 0.001, middle_y, z0 + high),
    )  # fmt: skip
    turntable = [(0.115, 0.0), (0.115, 0.003), (0.0, 0.003)]
    glass = kit.stage.material("pane", (0.72, 0.80, 0.82), specular=0.8)
    kit.draw(
        body, f"{name}_turntable", shapes.turned(turntable, segments=28), glass,
        (x0 + 0.15, middle_y, z0 + wall + 0.002),
    )  # fmt: skip
    door = wide + y - right
    kit.door(
        body, f"{name}_door", width=door, low=z0 + 0.004, high=z0 + 2 * high - 0.004, front=x0,
        hinge_left=True, y=right + door / 2, handle_z=z0 + high, material=case, window=True,
    )  # fmt: skip
    face_y = (right + y - wide) / 2
    kit.stage.draw_box(
        body, f"{name}_display", (0.001, 0.045, 0.018), kit.black,
        pos=(x0 - 0.001, face_y, z0 + 2 * high - 0.05),
    )  # fmt: skip
    green = kit.stage.material("button_green", (0.18, 0.56, 0.30), specular=0.4)
    red = kit.stage.material("button_red", (0.76, 0.18, 0.15), specular=0.4)
    for key, material, dz in (("start", green, 0.185), ("stop", red, 0.095)):
        kit.button(
            body, f"{name}_{key}", (x0 + 0.001, face_y, z0 + dz), material=material, half=0.017
        )
    if not kit.live:
        return
    # Two buttons on one rocker: what pushes one in pushes the other out.
    equality = kit.stage.spec.add_equality(
        name=f"{name}_rocker", type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT,
        name1=f"{name}_start_joint", name2=f"{name}_stop_joint",
        solref=(0.006, 1.0),
    )  # fmt: skip
    equality.data[:5] = (BUTTON_TRAVEL, -1.0, 0.0, 0.0, 0.0)
    size = (0.150, CAVITY[1] - 0.004, high - wall - 0.004)
    kit.region(
        body, f"{name}_inside", (x0 + 0.165, middle_y, z0 + wall + size[2]), size, parent=name
    )
    kit.pieces.append(
        Piece(
            name=name, category="microwave", body=body.name, geoms=tuple(geoms), free=False,
            radius=wide, bottom=z0, top=z0 + 2 * high,
        )
    )  # fmt: skip


def coffee_machine(kit: Kit, body: mujoco.MjsBody, name: str, y: float) -> None:
    """Add a coffee machine with its middle at y.

    Live, its pieces are `name` and `<name>_button`; its region is `<name>_spot`, where a mug
    stands under the dispenser.
    """
    x0, wide, high, deep = COFFEE_FRONT, 0.105, 0.42, 0.145
    case, z0 = kit.appliance, COUNTER_Z
    bay = 0.075  # half depth of the bay
    head = z0 + TRAY + BAY_HEIGHT
    geoms: list[str] = []
    for key, half, pos in (
        ("tray", (bay, wide - 0.006, TRAY / 2), (x0 + bay, y, z0 + TRAY / 2)),
        ("tower", (deep - bay, wide, high / 2), (x0 + deep + bay, y, z0 + high / 2)),
        (
            "head",
            (bay, wide, (z0 + high - head) / 2),
            (x0 + bay, y, (z0 + high + head) / 2),
        ),
    ):
        geoms += kit.board(body, f"{name}_{key}", half, pos, case, radius=0.010)
    kit.stage.draw_box(
        body, f"{name}_grid", (bay - 0.012, wide - 0.02, 0.0008), kit.black,
        pos=(x0 + bay, y, z0 + TRAY + 0.0006),
    )  # fmt: skip
    spout = [(0.013, -0.028), (0.013, 0.0), (0.020, 0.008), (0.0, 0.008)]
    kit.draw(
        body, f"{name}_spout", shapes.turned(spout, segments=20), kit.metal,
        (x0 + bay - 0.005, y, head - 0.002),
    )  # fmt: skip
    kit.stage.draw_box(
        body, f"{name}_trim", (0.001, wide - 0.01, 0.004), kit.metal, pos=(x0, y, head + 0.012)
    )
    lamp = kit.stage.material("button_blue", (0.16, 0.42, 0.76), specular=0.4)
    kit.button(
        body, f"{name}_button", (x0 + 0.001, y, (z0 + high + head) / 2 + 0.012), material=lamp,
        half=0.020,
    )  # fmt: skip
    if not kit.live:
        return
    # RoboCasa: a mug counts as set within 4 cm and 10 cm of height of the spot (SUITES 2.2).
    kit.region(
        body, f"{name}_spot", (x0 + bay - 0.005, y, z0 + TRAY + 0.05), (0.04, 0.04, 0.10),
        parent=name,
    )  # fmt: skip
    kit.pieces.append(
        Piece(
            name=name, category="coffee_machine", body=body.name, geoms=tuple(geoms), free=False,
            radius=wide, bottom=z0, top=z0 + high,
        )
    )  # fmt: skip


def fridge(kit: Kit, body: mujoco.MjsBody, name: str, width: float) -> None:
    """Add a fridge: scenery."""
    high = 1.95
    kit.board(
        body, f"{name}_case", (DEPTH / 2, width / 2 - 0.01, high / 2), (DEPTH / 2, 0, high / 2),
        kit.appliance, radius=0.01,
    )  # fmt: skip
    for key, low, top in (("freezer", 0.04, 0.72), ("upper", 0.73, high)):
        half = (0.025, width / 2 - 0.012, (top - low) / 2)
        kit.board(
            body, f"{name}_{key}", half, (-0.026, 0, (top + low) / 2), kit.appliance, radius=0.012,
            solid=False,
        )  # fmt: skip
        bar = (0.010, 0.010, 0.16)
        kit.draw(
            body, f"{name}_{key}_bar", shapes.rounded_box(bar, 0.009, steps=1), kit.metal,
            (-0.085, width / 2 - 0.07, low + 0.5 * (top - low)),
        )  # fmt: skip
