"""Bowl, plate and ramekin: turned shapes with walls of boxes around.

Grasp hints are described in `envs.tabletop.objects`.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from envs.tabletop import shapes, textures
from envs.tabletop.stage import BOX, CYLINDER, Piece, Stage, yaw_quat

SIDES = 12  # boxes around a wall: one every 30 degrees, 0.3 mm from round at the rim


@dataclass(frozen=True, kw_only=True)
class _Wall:
    """A slanted ring of boxes between two (radius, height above the foot) on its outside."""

    low: tuple[float, float]
    high: tuple[float, float]
    thickness: float


def _ring(stage: Stage, body: mujoco.MjsBody, name: str, wall: _Wall, base: float) -> list[str]:
    (r0, z0), (r1, z1) = wall.low, wall.high
    length = float(np.hypot(r1 - r0, z1 - z0))
    tilt = float(np.arctan2(r1 - r0, z1 - z0))
    half = (wall.thickness / 2, max(r0, r1) * np.tan(np.pi / SIDES), length / 2)
    # From the middle of the outside to the middle of the wall, along the inward normal.
    radius = (r0 + r1) / 2 - np.cos(tilt) * half[0]
    height = (z0 + z1) / 2 + np.sin(tilt) * half[0] + base
    names = []
    for k in range(SIDES):
        angle = 2 * np.pi * k / SIDES
        quat = np.zeros(4)
        lean = np.array([np.cos(tilt / 2), 0, np.sin(tilt / 2), 0])
        mujoco.mju_mulQuat(quat, np.array(yaw_quat(angle)), lean)
        pos = (radius * np.cos(angle), radius * np.sin(angle), height)
        names.append(stage.collide(body, f"{name}_{k}", BOX, half, pos=pos, quat=quat))
    return names


def bowl(stage: Stage, name: str) -> Piece:
    """A bowl, 11.6 cm across and 4.6 cm high, whose rim is pinched."""
    # robosuite's finger servo pulls with 1 N for every millimetre that stays between the
    # pads: a thick wall and a light bowl do not tip out of a pinch at the rim.
    foot, belly, lip, height, wall = 0.030, (0.0555, 0.022), 0.058, 0.046, 0.008
    base, floor = -height / 2, 0.006
    body = stage.free_body(name, 0.08, (lip * 0.75, lip * 0.75, height / 2))
    glaze = stage.material("bowl_glaze", (0.13, 0.22, 0.36), specular=0.8, shininess=0.8)
    inside = stage.material("bowl_inside", (0.93, 0.90, 0.83), specular=0.4, shininess=0.6)
    # Points of the collision walls with the corner between them rounded off.
    outer = [
        (0.0, 0.0), (foot - 0.004, 0.0), (foot - 0.003, 0.0025), (foot + 0.004, 0.0035),
        (0.046, 0.0125), (0.0525, 0.0195), (0.0560, 0.0275), (0.0575, 0.038), (lip, height - 0.001),
    ]  # fmt: skip
    stage.draw(
        body, f"{name}_outside", shapes.turned(_lift(outer, base)), glaze, shared="bowl_outside"
    )
    inner = [
        (lip, height - 0.001), (lip - 0.0012, height), (lip - wall + 0.0015, height),
        (lip - wall, height - 0.0015), (0.0492, 0.0360), (0.0475, 0.0280), (0.0440, 0.0210),
        (0.0370, 0.0145), (0.0270, 0.0088), (0.0140, floor + 0.0006), (0.0, floor),
    ]  # fmt: skip
    stage.draw(
        body, f"{name}_inside", shapes.turned(_lift(inner, base)), inside, shared="bowl_inside"
    )
    geoms = [
        stage.collide(
            body, f"{name}_base", BOX, (0.022, 0.022, floor / 2), pos=(0, 0, base + floor / 2)
        ),
        *_ring(
            stage,
            body,
            f"{name}_belly",
            _Wall(low=(0.026, 0.001), high=belly, thickness=wall),
            base,
        ),
        *_ring(
            stage, body, f"{name}_rim", _Wall(low=belly, high=(lip, height), thickness=wall), base
        ),
    ]
    return Piece(
        name=name, category="bowl", body=name, geoms=tuple(geoms), free=True, radius=lip,
        bottom=base, top=-base, half_extents=(0.045, 0.045, 0.030),
        grasps={
            "kind": "rim", "radius": lip - wall / 2 - 0.0005, "height": -base - 0.008,
            "width": wall, "turns": SIDES,
        },
    )  # fmt: skip


def plate(stage: Stage, name: str) -> Piece:
    """A plate, 17 cm across and 1.8 cm high: pushed, or a place to put things on."""
    flat, lip, height, floor = 0.056, 0.085, 0.018, 0.006
    base = -height / 2
    body = stage.free_body(name, 0.25, (lip * 0.75, lip * 0.75, height / 2))
    white = stage.material("porcelain", (0.88, 0.88, 0.87), specular=0.6, shininess=0.7)
    line = stage.material("plate_line", (0.74, 0.24, 0.20), specular=0.5, shininess=0.6)
    under = [
        (0.0, 0.0),
        (flat, 0.0),
        (flat + 0.004, 0.002),
        (lip, height - 0.002),
        (lip, height - 0.0005),
    ]
    top = [
        (lip, height - 0.0005), (lip - 0.001, height), (lip - 0.004, height - 0.0008),
        (lip - 0.008, height - 0.0032), (flat + 0.006, floor + 0.0025), (flat, floor), (0.0, floor),
    ]  # fmt: skip
    stage.draw(body, f"{name}_under", shapes.turned(_lift(under, base), segments=48), white)
    stage.draw(body, f"{name}_top", shapes.turned(_lift(top, base), segments=48), white)
    band = [(lip - 0.0042, height - 0.0002), (lip - 0.0078, height - 0.0025)]
    stage.draw(body, f"{name}_line", shapes.turned(_lift(band, base), segments=48), line)
    middle = base + floor / 2
    # A middle strip and two shorter ones side by side cover the flat round without overlap.
    strips = (
        ("m", (flat, 0.024), 0.0),
        ("n", (0.040, 0.010), 0.034),
        ("s", (0.040, 0.010), -0.034),
    )
    geoms = [
        stage.collide(body, f"{name}_flat_{key}", BOX, (*half, floor / 2), pos=(0, y, middle))
        for key, half, y in strips
    ]
    geoms += _ring(
        stage, body, f"{name}_rim",
        _Wall(low=(flat - 0.006, 0.001), high=(lip, height), thickness=0.006), base,
    )  # fmt: skip
    return Piece(
        name=name, category="plate", body=name, geoms=tuple(geoms), free=True, radius=lip,
        bottom=base, top=-base, half_extents=(0.05, 0.05, 0.05),
        grasps={"kind": "push", "radius": lip, "height": 0.006},
    )  # fmt: skip


def ramekin(stage: Stage, name: str) -> Piece:
    """A fluted white ramekin, 7.6 cm across: a landmark."""
    radius, half = 0.038, 0.022
    body = stage.free_body(name, 0.20, (radius, radius, half))
    outside = stage.material(
        "ramekin_fluted", picture=textures.flutes((236, 232, 222)), specular=0.5
    )
    cream = stage.material("custard", (0.90, 0.70, 0.36), specular=0.5, shininess=0.8)
    glaze = stage.material("porcelain", (0.88, 0.88, 0.87), specular=0.6, shininess=0.7)
    wall = [(0, -half), (radius - 0.002, -half), (radius, -half + 0.003), (radius, half - 0.006)]
    stage.draw(body, f"{name}_wall", shapes.turned(wall, uv_height=(-half, half)), outside)
    rim = [
        (radius, half - 0.006), (radius + 0.001, half - 0.005), (radius + 0.001, half - 0.001),
        (radius, half), (radius - 0.003, half), (radius - 0.004, half - 0.001),
        (radius - 0.004, half - 0.012),
    ]  # fmt: skip
    stage.draw(body, f"{name}_rim", shapes.turned(rim), glaze)
    stage.draw(
        body,
        f"{name}_cream",
        shapes.turned([(radius - 0.004, half - 0.010), (0, half - 0.009)]),
        cream,
    )
    foot = (radius - 0.0003) / np.sqrt(2)
    geoms = (
        stage.collide(body, f"{name}_side", CYLINDER, (radius, half - 0.0005)),
        stage.collide(body, f"{name}_core", BOX, (foot, foot, half)),
    )
    return Piece(
        name=name, category="ramekin", body=name, geoms=geoms, free=True, radius=radius,
        bottom=-half, top=half, grasps={"kind": "push", "radius": radius, "height": 0.0},
    )  # fmt: skip


def _lift(profile: list[tuple[float, float]], base: float) -> list[tuple[float, float]]:
    return [(r, z + base) for r, z in profile]
