"""A cooktop with four burners and knobs over an oven, and a hood above it."""

from __future__ import annotations

import mujoco
import numpy as np

from envs.kitchen.build import COUNTER_Z, DEPTH, FRONT, TOE, WALL_HIGH, WALL_LOW, Kit, Vec, weigh
from envs.scene import Articulation, Threshold
from envs.tabletop import shapes
from envs.tabletop.stage import BOX, CYLINDER, Piece

# RoboCasa: on while 0.35 <= |q| <= 2 pi - 0.35 (SUITES 2.2); our knobs stop at 2.1 rad.
KNOB_RANGE = 2.1
KNOB = Articulation(turn_on=Threshold(above=0.35, inclusive=True), turn_off=Threshold(below=0.35))
WIDTH = 0.64
BURNER_RADIUS = 0.085
# location -> (x, y) of the burner, y of its knob
BURNERS = {
    "front_left": ((0.215, 0.155), 0.225),
    "rear_left": ((0.445, 0.155), 0.075),
    "rear_right": ((0.445, -0.155), -0.075),
    "front_right": ((0.215, -0.155), -0.225),
}
KNOB_X = 0.055


def stove(kit: Kit, body: mujoco.MjsBody, name: str, y: float) -> None:
    """Add a stove with its middle at y.

    Live, its pieces are `name` (the cooktop) and `<name>_<location>`, one knob each.
    """
    half = (DEPTH / 2, WIDTH / 2, (COUNTER_Z - TOE) / 2)
    x, z = DEPTH / 2, (COUNTER_Z + TOE) / 2
    kit.board(body, f"{name}_case", half, (x, y, z), kit.steel, radius=0.004)
    kit.stage.draw_box(
        body, f"{name}_toe", (0.01, WIDTH / 2, TOE / 2), kit.dark, pos=(0.06, y, TOE / 2)
    )
    _oven_front(kit, body, name, y)
    glass = (0.235, WIDTH / 2 - 0.02, 0.004)
    cook = (0.335, y, COUNTER_Z + glass[2])
    kit.draw(body, f"{name}_glass", shapes.rounded_box(glass, 0.003, steps=1), kit.black, cook)
    geoms = kit.solid(body, f"{name}_glass", glass, cook)
    for location, ((bx, by), knob_y) in BURNERS.items():
        _burner(kit, body, f"{name}_{location}", (bx, y + by, COUNTER_Z + 2 * glass[2]))
        _knob(kit, body, f"{name}_{location}", (KNOB_X, y + knob_y, COUNTER_Z))
        kit.region(
            body, f"{name}_{location}_spot", (bx, y + by, COUNTER_Z + 2 * glass[2]),
            (0.05, 0.05, 0.002), parent=name,
        )  # fmt: skip
    if kit.live:
        kit.pieces.append(
            Piece(
                name=name, category="stove", body=body.name, geoms=tuple(geoms), free=False,
                radius=WIDTH / 2, bottom=0.0, top=COUNTER_Z + 2 * glass[2],
            )
        )  # fmt: skip
    splash = (0.006, WIDTH / 2, (WALL_LOW - COUNTER_Z) / 2)
    kit.board(
        body, f"{name}_splash", splash, (DEPTH - 0.006, y, (WALL_LOW + COUNTER_Z) / 2),
        kit.splash, radius=0.001, tile=kit.style.tile_m,
    )  # fmt: skip


def _oven_front(kit: Kit, body: mujoco.MjsBody, name: str, y: float) -> None:
    low, high = TOE + 0.16, COUNTER_Z - 0.10
    door = (FRONT / 2, WIDTH / 2 - 0.006, (high - low) / 2)
    kit.board(
        body, f"{name}_oven", door, (-FRONT / 2, y, (high + low) / 2), kit.steel, radius=0.004
    )
    kit.stage.draw_box(
        body, f"{name}_pane", (0.001, WIDTH / 2 - 0.08, 0.13), kit.black,
        pos=(-FRONT, y, (high + low) / 2 - 0.03),
    )  # fmt: skip
    kit.board(
        body, f"{name}_tray", (FRONT / 2, WIDTH / 2 - 0.006, 0.072),
        (-FRONT / 2, y, TOE + 0.08), kit.steel, radius=0.004,
    )  # fmt: skip
    bar = (0.008, WIDTH / 2 - 0.05, 0.008)
    kit.draw(
        body, f"{name}_bar", shapes.rounded_box(bar, 0.007, steps=1), kit.metal,
        (-0.055, y, high - 0.035),
    )  # fmt: skip
    for k, sign in enumerate((-1, 1)):
        kit.stage.draw_box(
            body, f"{name}_bar_post{k}", (0.02, 0.006, 0.006), kit.metal,
            pos=(-0.036, y + sign * (WIDTH / 2 - 0.07), high - 0.035),
        )  # fmt: skip


def _burner(kit: Kit, body: mujoco.MjsBody, name: str, pos: Vec) -> None:
    ring = kit.stage.material("burner_ring", (0.30, 0.30, 0.32), specular=0.4)
    for k, radius in enumerate((BURNER_RADIUS, 0.055, 0.028)):
        circle = [(radius, 0.0), (radius - 0.003, 0.0)]
        kit.stage.draw(
            body, f"{name}_ring{k}", shapes.turned(circle, segments=28), ring,
            shared=f"burner_ring{k}", pos=(pos[0], pos[1], pos[2] + 0.0006),
        )  # fmt: skip
    if kit.live:
        kit.stage.material("burner_glow", (0.95, 0.22, 0.05), emission=0.8)
        body.add_site(
            name=f"{name}_glow", type=CYLINDER, pos=(pos[0], pos[1], pos[2] + 0.0004),
            size=(BURNER_RADIUS - 0.002, 0.0002, 0), rgba=(0.95, 0.22, 0.05, 0),
            material="burner_glow",
        )  # fmt: skip


def _knob(kit: Kit, parent: mujoco.MjsBody, name: str, pos: Vec) -> None:
    body = parent.add_body(name=name, pos=pos)
    if kit.live:
        weigh(body, 0.06, (0.03, 0.01, 0.015), (0, 0, 0.015))
        # 0.02 N m stays where it was turned (as tabletop's knob).
        body.add_joint(
            name=f"{name}_joint", type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0, 0, -1),
            range=(0.0, KNOB_RANGE), limited=True, damping=0.02, frictionloss=0.02,
            armature=0.0005,
        )  # fmt: skip
    disc = [(0.026, 0.0), (0.026, 0.006), (0.024, 0.008), (0.0, 0.008)]
    kit.stage.draw(
        body, f"{name}_disc", shapes.turned(disc, segments=24), kit.metal, shared="knob_disc"
    )
    lever, middle = (0.030, 0.006, 0.011), (0.0, 0, 0.019)
    kit.stage.draw(
        body, f"{name}_lever", shapes.rounded_box(lever, 0.004, steps=1), kit.black,
        shared="knob_lever", pos=middle,
    )  # fmt: skip
    red = kit.stage.material("knob_mark", (0.86, 0.16, 0.12), specular=0.3)
    kit.stage.draw_box(body, f"{name}_mark", (0.009, 0.0025, 0.0004), red, pos=(-0.018, 0, 0.0302))
    if not kit.live:
        return
    geoms = [
        kit.stage.collide(
            body, f"{name}_disc_side", CYLINDER, (0.026, 0.004), pos=(0, 0, 0.004), conaffinity=0
        ),
        kit.stage.collide(body, f"{name}_lever_box", BOX, lever, pos=middle, conaffinity=0),
    ]
    kit.pieces.append(
        Piece(
            name=name, category="knob", body=name, geoms=tuple(geoms), free=False,
            joints=(f"{name}_joint",), articulation=KNOB, lit_sites=(f"{name}_glow",),
            radius=0.03, bottom=0.0, top=0.03,
        )
    )  # fmt: skip


def hood(kit: Kit, body: mujoco.MjsBody, name: str, y: float) -> None:
    """Add an extractor over a stove."""
    outline = [(-0.22, 0.0), (0.22, 0.0), (0.22, 0.05), (0.11, 0.22), (-0.02, 0.22), (-0.22, 0.05)]
    canopy = shapes.prism(outline, WIDTH, crease=0.3)
    kit.draw(body, f"{name}_canopy", canopy, kit.steel_plain, (DEPTH - 0.22, y, WALL_LOW + 0.12))
    flue = (0.12, 0.13, (WALL_HIGH - WALL_LOW) / 2 - 0.15)
    kit.board(
        body, f"{name}_flue", flue, (DEPTH - 0.125, y, WALL_HIGH - flue[2]), kit.steel,
        radius=0.003, solid=False,
    )  # fmt: skip
    kit.solid(body, f"{name}_canopy", (0.20, WIDTH / 2, 0.06), (DEPTH - 0.2, y, WALL_LOW + 0.18))


def knob_angle(rng: np.random.Generator, on: bool) -> float:
    """Draw a knob's position at the start: well on, or off."""
    return float(rng.uniform(0.8, 1.6)) if on else 0.0
