"""Base and wall cabinets, drawers, worktop: what runs along the walls."""

from __future__ import annotations

import mujoco

from envs.kitchen.build import (
    COUNTER_Z,
    DEPTH,
    FRONT,
    OVERHANG,
    SLAB,
    TOE,
    WALL_FRONT,
    WALL_HIGH,
    WALL_LOW,
    Kit,
    drawer_articulation,
    weigh,
)
from envs.tabletop.stage import Piece

BOARD = 0.009  # half thickness of a carcass board
TRAVEL = 0.275  # RoboCasa: 0.55 of a drawer's depth, ours 0.50 m
TOP = COUNTER_Z - SLAB


def worktop(
    kit: Kit,
    body: mujoco.MjsBody,
    name: str,
    width: float,
    *,
    hole: tuple[float, float, float, float] | None = None,
) -> list[str]:
    """Add the worktop of a unit, in four parts where it has a hole (x0, x1, y0, y1)."""
    x0, x1, z = -OVERHANG, DEPTH, COUNTER_Z - SLAB / 2
    y0, y1 = -width / 2, width / 2
    parts = [("slab", x0, x1, y0, y1)]
    if hole is not None:
        hx0, hx1, hy0, hy1 = hole
        parts = [
            ("front", x0, hx0, y0, y1),
            ("rear", hx1, x1, y0, y1),
            ("right", hx0, hx1, y0, hy0),
            ("left", hx0, hx1, hy1, y1),
        ]
    geoms: list[str] = []
    for key, a, b, c, d in parts:
        half = ((b - a) / 2, (d - c) / 2, SLAB / 2)
        geoms += kit.board(
            body, f"{name}_top_{key}", half, ((a + b) / 2, (c + d) / 2, z), kit.worktop,
            radius=0.0015 if hole else 0.003, tile=0.6,
        )  # fmt: skip
    # The wall between worktop and wall cabinets.
    half = (0.006, width / 2, (WALL_LOW - COUNTER_Z) / 2)
    kit.board(
        body, f"{name}_splash", half, (DEPTH - 0.006, 0, (WALL_LOW + COUNTER_Z) / 2), kit.splash,
        radius=0.001, tile=kit.style.tile_m,
    )  # fmt: skip
    return geoms


def plinth(kit: Kit, body: mujoco.MjsBody, name: str, width: float, *, top: float = TOP) -> None:
    """Add the closed body of a base unit, behind its fronts; one box to touch."""
    half = (DEPTH / 2, width / 2, (top - TOE) / 2)
    kit.board(
        body, f"{name}_case", half, (DEPTH / 2, 0, (top + TOE) / 2), kit.carcass, radius=0.001
    )
    kit.stage.draw_box(
        body, f"{name}_toe", (0.01, width / 2, TOE / 2), kit.dark, pos=(0.06, 0, TOE / 2)
    )


def closed_doors(
    kit: Kit, body: mujoco.MjsBody, name: str, *, low: float, high: float, width: float, doors: int
) -> None:
    """Add doors of a base unit that nobody opens."""
    each = width / doors
    live, kit.live = kit.live, False
    for k in range(doors):
        y = width / 2 - each * (k + 0.5)
        left = k == 0 if doors > 1 else True
        kit.door(
            body, f"{name}_front{k}", width=each, low=low, high=high, front=0.0,
            hinge_left=left, y=y, handle_z=high - 0.13,
        )  # fmt: skip
    kit.live = live
    kit.solid(
        body, f"{name}_fronts", (FRONT / 2, width / 2, (high - low) / 2),
        (-FRONT / 2, 0, (low + high) / 2),
    )  # fmt: skip


def wall_cabinet(
    kit: Kit, body: mujoco.MjsBody, name: str, width: float, *, doors: int, y: float = 0.0
) -> None:
    """Add a wall cabinet with one door or two.

    Live, its pieces are the cabinet `name`, its doors `<name>_door` or `<name>_left_door` and
    `<name>_right_door`, and the region `<name>_inside`.
    """
    depth, height = DEPTH - WALL_FRONT, WALL_HIGH - WALL_LOW
    x, z = WALL_FRONT + depth / 2, (WALL_LOW + WALL_HIGH) / 2
    geoms: list[str] = []
    if not kit.live:  # nobody looks inside
        kit.board(body, f"{name}_case", (depth / 2, width / 2, height / 2), (x, y, z), kit.carcass)
    for key, half, pos in (
        ()
        if not kit.live
        else (
            ("bottom", (depth / 2, width / 2, BOARD), (x, y, WALL_LOW + BOARD)),
            ("roof", (depth / 2, width / 2, BOARD), (x, y, WALL_HIGH - BOARD)),
            ("left", (depth / 2, BOARD, height / 2), (x, y + width / 2 - BOARD, z)),
            ("right", (depth / 2, BOARD, height / 2), (x, y - width / 2 + BOARD, z)),
            ("back", (0.004, width / 2, height / 2), (DEPTH - 0.004, y, z)),
            # The shelf leaves half a metre below it: room for a hand and a wrist.
            ("shelf", (depth / 2 - 0.03, width / 2, 0.008), (x + 0.03, y, WALL_LOW + 0.52)),
        )
    ):
        geoms += kit.board(body, f"{name}_{key}", half, pos, kit.carcass, radius=0.001)
    names = ("door",) if doors == 1 else ("left_door", "right_door")
    for k, key in enumerate(names):
        each = width / doors
        kit.door(
            body, f"{name}_{key}", width=each, low=WALL_LOW, high=WALL_HIGH, front=WALL_FRONT,
            hinge_left=k == 0, y=y + width / 2 - each * (k + 0.5), handle_z=WALL_LOW + 0.11,
        )  # fmt: skip
    if kit.live:
        floor = WALL_LOW + 2 * BOARD
        half = (depth / 2, width / 2 - 2 * BOARD, 0.185)
        kit.region(body, f"{name}_inside", (x, y, floor + half[2]), half, parent=name)
        kit.pieces.append(
            Piece(
                name=name, category="wall_cabinet", body=body.name, geoms=tuple(geoms),
                free=False, radius=width / 2, bottom=WALL_LOW, top=WALL_HIGH,
            )
        )  # fmt: skip


def drawers(kit: Kit, body: mujoco.MjsBody, name: str, width: float) -> None:
    """Add a base unit with two drawers side by side over two wide ones.

    Live, the upper ones are the pieces `<name>_left` and `<name>_right`.
    """
    low = TOP - 0.17
    half = (DEPTH / 2, width / 2, (low - TOE) / 2)
    kit.board(
        body, f"{name}_case", half, (DEPTH / 2, 0, (low + TOE) / 2), kit.carcass, radius=0.001
    )
    kit.stage.draw_box(
        body, f"{name}_toe", (0.01, width / 2, TOE / 2), kit.dark, pos=(0.06, 0, TOE / 2)
    )
    for key, sign in (("left", 1), ("middle", 0), ("right", -1)):
        side = (DEPTH / 2, BOARD, (TOP - low) / 2)
        kit.board(
            body, f"{name}_{key}_side", side,
            (DEPTH / 2, sign * (width / 2 - BOARD), (TOP + low) / 2), kit.carcass, radius=0.001,
        )  # fmt: skip
    for key, sign in (("left", 1.0), ("right", -1.0)):
        _drawer(kit, body, f"{name}_{key}", sign * width / 4, width / 2, low, TOP)
    edge = (low + TOE) / 2
    live, kit.live = kit.live, False
    for k, (a, b) in enumerate(((TOE, edge), (edge, low))):
        _drawer(kit, body, f"{name}_deep{k}", 0.0, width, a, b)
    kit.live = live
    kit.solid(
        body, f"{name}_deep_fronts", (FRONT / 2, width / 2, half[2]),
        (-FRONT / 2, 0, (low + TOE) / 2),
    )  # fmt: skip


def _drawer(
    kit: Kit, parent: mujoco.MjsBody, name: str, y: float, width: float, low: float, high: float
) -> None:
    body = parent.add_body(name=name, pos=(0, y, (low + high) / 2))
    half = (FRONT / 2, width / 2 - 0.0015, (high - low) / 2 - 0.0015)
    if kit.live:
        weigh(body, 2.0, (0.25, half[1], half[2]), (0.2, 0, 0))
        # 1.5 N keeps it where it is left; 12 N s/m: 2 N at a hand's speed (as tabletop's).
        body.add_joint(
            name=f"{name}_joint", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(-1, 0, 0),
            range=(0.0, TRAVEL), limited=True, damping=12.0, frictionloss=1.5,
        )  # fmt: skip
    geoms = kit.board(body, f"{name}_front", half, (-FRONT / 2, 0, 0), kit.fronts, radius=0.004)
    length, inner, tray = 0.25, half[1] - 0.02, half[2] - 0.02
    if kit.live:
        for key, size, pos in (
            ("floor", (length, inner, 0.005), (length, 0, -half[2] + 0.015)),
            ("back", (0.006, inner, tray), (2 * length, 0, -0.01)),
            ("wall0", (length, 0.006, tray), (length, inner, -0.01)),
            ("wall1", (length, 0.006, tray), (length, -inner, -0.01)),
        ):
            geoms += kit.board(body, f"{name}_{key}", size, pos, kit.carcass, radius=0.001)
    geoms += kit.handle(body, f"{name}_handle", (-FRONT, 0, half[2] * 0.25), along=1)
    if kit.live:
        kit.pieces.append(
            Piece(
                name=name, category="drawer", body=name, geoms=tuple(geoms), free=False,
                joints=(f"{name}_joint",), articulation=drawer_articulation(TRAVEL),
                radius=width / 2, bottom=-half[2], top=half[2],
            )
        )  # fmt: skip
