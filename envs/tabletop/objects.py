"""Things that can be grasped: groceries, bowl, plate, ramekin, boxes.

Every body's origin is the centre of its bounding box. Collision shapes are boxes and
cylinders that end in a box below, because MuJoCo gives a box on a box four contacts
(it stands still) and a cylinder on a box one (it rocks).

Grasp hints, for scripted experts, in the body's frame (`SceneInfo.placement["grasps"]`):

    {"kind": "top", "offset": [x, y, z], "yaw": a, "width": w, "turns": n}
        Come from above, put the grip site at `offset`, fingers opening along the
        direction `a` (radians from body x); w metres between the pads. The grasp
        repeats every 2 pi / n; n = 0 means any yaw.
    {"kind": "rim", "radius": r, "height": h, "width": w, "turns": n}
        Pinch the wall: grip site on a circle of radius r at height h, fingers opening
        along the radius, at any angle; best at multiples of 2 pi / n, where it is flat.
    {"kind": "push", "radius": r, "height": h}
        Too wide to grasp: closed fingers beside it at height h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from envs.tabletop import shapes, textures
from envs.tabletop.stage import BOX, CYLINDER, Piece, Stage, yaw_quat

# Measured on robosuite's panda_gripper.xml: pads reach 4 mm below and 12 mm above the grip
# site, finger tips 9.2 mm below it; the palm is 31 mm above it.
TIP_BELOW_GRIP = 0.0092


def _top(z: float, width: float, *, yaw: float = 0.0, turns: int = 2) -> dict[str, Any]:
    return {"kind": "top", "offset": [0.0, 0.0, z], "yaw": yaw, "width": width, "turns": turns}


def _standing_cylinder(
    stage: Stage, body: mujoco.MjsBody, name: str, radius: float, low: float, high: float
) -> tuple[str, ...]:
    """A cylinder to grasp around a square prism to stand on, both from `low` to `high`."""
    middle, half = (low + high) / 2, (high - low) / 2
    lift = 0.0005  # the prism alone touches the ground
    side = stage.collide(body, f"{name}_side", CYLINDER, (radius, half - lift), pos=(0, 0, middle))
    # Its corners stay 0.3 mm inside the cylinder, out of the fingers' way.
    foot = (radius - 0.0003) / np.sqrt(2)
    core = stage.collide(body, f"{name}_core", BOX, (foot, foot, half), pos=(0, 0, middle))
    return side, core


def can(stage: Stage, name: str) -> Piece:
    """A soup can, 5.8 x 9.5 cm."""
    radius, half = 0.029, 0.0475
    body = stage.free_body(name, 0.15, (radius, radius, half))
    label = stage.material(
        "can_label",
        picture=textures.band_label((178, 34, 34), (250, 240, 215), "SOUP", (150, 20, 24)),
        specular=0.4,
    )
    metal = stage.material("tin", (0.78, 0.78, 0.80), specular=0.8, shininess=0.7)
    wall = [(radius, -half + 0.004), (radius, half - 0.004)]
    stage.draw(
        body, f"{name}_label", shapes.turned(wall, uv_height=(wall[0][1], wall[1][1])), label
    )
    rim = [
        (radius, half - 0.004), (radius + 0.0006, half - 0.003), (radius + 0.0006, half - 0.001),
        (radius - 0.0005, half), (radius - 0.002, half), (radius - 0.0025, half - 0.002),
        (0, half - 0.002),
    ]  # fmt: skip
    stage.draw(body, f"{name}_lid", shapes.turned(rim), metal)
    foot = [
        (0, -half),
        (radius - 0.001, -half),
        (radius + 0.0006, -half + 0.001),
        (radius, -half + 0.004),
    ]
    stage.draw(body, f"{name}_foot", shapes.turned(foot), metal)
    geoms = _standing_cylinder(stage, body, name, radius, -half, half)
    return Piece(
        name=name, category="can", body=name, geoms=geoms, free=True, radius=radius,
        bottom=-half, top=half, grasps=_top(half - 0.02, 2 * radius, turns=0),
    )  # fmt: skip


def bottle(stage: Stage, name: str) -> Piece:
    """A ketchup bottle; its cap is what the fingers take."""
    half, radius, cap = 0.06, 0.026, 0.0155
    body = stage.free_body(name, 0.14, (radius, radius, half))
    red = stage.material("ketchup", (0.72, 0.09, 0.07), specular=0.6, shininess=0.7)
    label = stage.material(
        "ketchup_label",
        picture=textures.band_label((245, 240, 230), (200, 30, 25), "TOMATO", (250, 245, 235)),
    )
    white = stage.material("cap_white", (0.93, 0.93, 0.91), specular=0.4)
    shoulder = [
        (0, -half), (radius - 0.003, -half), (radius, -half + 0.004), (radius, -half + 0.014),
        (radius, 0.008), (radius - 0.001, 0.014), (radius - 0.005, 0.022), (cap, 0.030),
    ]  # fmt: skip
    stage.draw(body, f"{name}_glass", shapes.turned(shoulder), red)
    band = [(radius + 0.0004, -half + 0.012), (radius + 0.0004, 0.002)]
    stage.draw(
        body, f"{name}_label", shapes.turned(band, uv_height=(band[0][1], band[1][1])), label
    )
    top = [(cap, 0.029), (cap, half - 0.003), (cap - 0.003, half), (0, half)]
    stage.draw(body, f"{name}_cap", shapes.turned(top), white)
    geoms = _standing_cylinder(stage, body, name, radius, -half, 0.014)
    neck = stage.collide(body, f"{name}_neck", CYLINDER, (cap, 0.023), pos=(0, 0, 0.037))
    return Piece(
        name=name, category="bottle", body=name, geoms=(*geoms, neck), free=True, radius=radius,
        bottom=-half, top=half, grasps=_top(half - 0.012, 2 * cap, turns=0),
    )  # fmt: skip


def milk(stage: Stage, name: str) -> Piece:
    """A milk carton with a gable."""
    side, half, eaves = 0.026, 0.056, 0.036
    body = stage.free_body(name, 0.16, (side, side, half))
    paper = stage.material(
        "milk_paper",
        picture=textures.carton(
            (240, 244, 250), (44, 110, 190), ("MILK", "fresh"), (30, 80, 160), sun=(250, 205, 70)
        ),
    )
    roof = stage.material("milk_roof", (0.20, 0.45, 0.76))
    middle = (eaves - half) / 2
    box = shapes.rounded_box((side, side, (eaves + half) / 2), 0.002, steps=1, atlas=True)
    stage.draw(body, f"{name}_paper", box, paper, pos=(0, 0, middle))
    gable = [
        (-side, eaves - 0.001),
        (side, eaves - 0.001),
        (0.0025, half - 0.007),
        (-0.0025, half - 0.007),
    ]
    stage.draw(
        body,
        f"{name}_gable",
        shapes.prism(gable, 2 * side, crease=0.3),
        roof,
        quat=yaw_quat(np.pi / 2),
    )
    stage.draw_box(body, f"{name}_ridge", (0.0025, side, 0.0055), roof, pos=(0, 0, half - 0.0055))
    geoms = (
        stage.collide(
            body, f"{name}_box", BOX, (side, side, (eaves + half) / 2), pos=(0, 0, middle)
        ),
        stage.collide(
            body, f"{name}_ridge_box", BOX, (0.008, side, 0.010), pos=(0, 0, half - 0.010)
        ),
    )
    return Piece(
        name=name, category="carton", body=name, geoms=geoms, free=True, radius=side * 1.42,
        bottom=-half, top=half, grasps=_top(eaves - 0.008, 2 * side, turns=4),
    )  # fmt: skip


def cereal(stage: Stage, name: str) -> Piece:
    """A small cereal box, 8.4 x 4 x 11 cm."""
    return _box(
        stage, name, "box", (0.042, 0.020, 0.055), 0.12, "cereal_card",
        textures.carton(
            (242, 190, 52), (214, 84, 38), ("CORN", "flakes"), (120, 45, 20), sun=(250, 235, 190)
        ),
    )  # fmt: skip


def bread(stage: Stage, name: str) -> Piece:
    """A loaf, 10 x 5.2 x 5 cm."""
    half = (0.050, 0.026, 0.025)
    body = stage.free_body(name, 0.10, half)
    crust = stage.material(
        "crust", picture=textures.speckle((196, 136, 74), amount=0.12, seed=5), specular=0.1
    )
    slash = stage.material("slash", (0.93, 0.80, 0.58), specular=0.05)
    stage.draw(body, f"{name}_loaf", shapes.rounded_box(half, 0.0165, steps=4, tile=0.08), crust)
    for k, x in enumerate((-0.024, 0.0, 0.024)):
        stage.draw(
            body, f"{name}_slash{k}", shapes.rounded_box((0.004, 0.017, 0.002), 0.0019, steps=2),
            slash, shared="slash", pos=(x, 0, half[2] - 0.0008), quat=yaw_quat(0.5),
        )  # fmt: skip
    # The foot is what a rounded loaf stands on; the block is what the fingers take.
    geoms = (
        stage.collide(body, f"{name}_block", BOX, (half[0] - 0.003, half[1], 0.017)),
        stage.collide(body, f"{name}_foot", BOX, (half[0] - 0.012, half[1] - 0.009, half[2])),
    )
    return Piece(
        name=name, category="loaf", body=name, geoms=geoms, free=True, radius=0.056,
        bottom=-half[2], top=half[2], grasps=_top(0.0, 2 * half[1], yaw=np.pi / 2),
    )  # fmt: skip


def cream_cheese(stage: Stage, name: str) -> Piece:
    """A block of cream cheese, 6 x 3.6 x 2.6 cm: fits into the bowl."""
    return _box(
        stage, name, "box", (0.030, 0.018, 0.013), 0.08, "cheese_foil",
        textures.carton((236, 240, 246), (60, 130, 200), ("CREAM", "cheese"), (30, 70, 150)),
    )  # fmt: skip


def cookie_box(stage: Stage, name: str) -> Piece:
    """A flat tin of cookies, 14 x 11 x 4 cm; wide enough to stand a bowl on."""
    return _box(
        stage, name, "cookie_box", (0.070, 0.055, 0.020), 0.30, "cookie_tin",
        textures.carton((46, 74, 128), (208, 168, 92), ("COOKIES",), (236, 214, 160)),
    )  # fmt: skip


def _box(
    stage: Stage,
    name: str,
    category: str,
    half: Sequence[float],
    mass: float,
    material: str,
    picture: textures.Picture,
) -> Piece:
    body = stage.free_body(name, mass, half)
    paper = stage.material(material, picture=picture)
    stage.draw(body, f"{name}_visual", shapes.rounded_box(half, 0.002, steps=1, atlas=True), paper)
    geom = stage.collide(body, f"{name}_box", BOX, half)
    # As deep as the palm allows, but with the finger tips 2 mm above the table.
    grip = max(half[2] - 0.020, -half[2] + TIP_BELOW_GRIP + 0.002)
    graspable = 2 * half[1] <= 0.06
    return Piece(
        name=name, category=category, body=name, geoms=(geom,), free=True,
        radius=float(np.hypot(half[0], half[1])), bottom=-half[2], top=half[2],
        grasps=_top(grip, 2 * half[1], yaw=np.pi / 2)
        if graspable
        else {"kind": "push", "radius": half[1], "height": 0.0},
    )  # fmt: skip
