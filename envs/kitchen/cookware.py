"""Mugs, pans and pots: turned shapes with walls of boxes around."""

from __future__ import annotations

import mujoco
import numpy as np

from envs.tabletop import shapes
from envs.tabletop.stage import BOX, Piece, Stage, yaw_quat

MUG_COLOURS = (
    (0.22, 0.38, 0.62), (0.92, 0.91, 0.88), (0.30, 0.52, 0.38),
    (0.74, 0.20, 0.17), (0.90, 0.72, 0.26), (0.14, 0.14, 0.15),
)  # fmt: skip
PAN_COLOURS = ((0.11, 0.11, 0.12), (0.72, 0.42, 0.26), (0.66, 0.67, 0.70))
POT_COLOURS = ((0.68, 0.69, 0.71), (0.70, 0.16, 0.13), (0.20, 0.36, 0.56))
SIDES = 10  # boxes around a wall


def _wall(
    stage: Stage,
    body: mujoco.MjsBody,
    name: str,
    radius: float,
    low: float,
    high: float,
    thickness: float,
) -> tuple[str, ...]:
    """An upright ring of boxes, its outside at `radius`."""
    names: list[str] = []
    half = (thickness / 2, radius * np.tan(np.pi / SIDES), (high - low) / 2)
    for k in range(SIDES):
        angle = 2 * np.pi * k / SIDES
        r = radius - thickness / 2
        pos = (r * np.cos(angle), r * np.sin(angle), (high + low) / 2)
        names.append(stage.collide(body, f"{name}_{k}", BOX, half, pos=pos, quat=yaw_quat(angle)))
    return tuple(names)


def mug(stage: Stage, name: str, colour: int) -> Piece:
    """A mug with a handle, 6.8 cm across and 8.6 cm high."""
    radius, half, wall = 0.034, 0.043, 0.004
    body = stage.free_body(name, 0.16, (radius, radius, half))
    glaze = stage.material(f"{name}_glaze", MUG_COLOURS[colour], specular=0.7, shininess=0.8)
    line = [
        (0.0, -half), (radius - 0.006, -half), (radius - 0.002, -half + 0.003),
        (radius, -half + 0.010), (radius, half - 0.002), (radius - 0.0015, half),
        (radius - wall, half - 0.002), (radius - wall, -half + 0.008), (0.0, -half + 0.006),
    ]  # fmt: skip
    stage.draw(body, f"{name}_cup", shapes.turned(line), glaze)
    stage.draw(body, f"{name}_ear", _ear(radius - 0.003, 0.022, 0.028, 0.0055), glaze)
    foot = radius * 0.68
    geoms = (
        stage.collide(body, f"{name}_foot", BOX, (foot, foot, 0.004), pos=(0, 0, -half + 0.004)),
        *_wall(stage, body, f"{name}_wall", radius, -half + 0.001, half, wall + 0.002),
        stage.collide(
            body, f"{name}_ear_box", BOX, (0.011, 0.005, 0.026), pos=(radius + 0.011, 0, 0)
        ),
    )
    return Piece(
        name=name, category="mug", body=name, geoms=geoms, free=True, radius=radius + 0.022,
        bottom=-half, top=half, half_extents=(0.02, 0.02, 0.04), grasps={"kind": "any"},
    )  # fmt: skip


def _ear(start: float, reach: float, tall: float, thick: float) -> shapes.Mesh:
    """A handle: half a ring that stands in the x-z plane."""
    from envs.tabletop.meshes import shade

    bend, ring = np.linspace(-np.pi / 2, np.pi / 2, 11), 8
    centre = np.stack([start + reach * np.cos(bend), 0 * bend, tall * np.sin(bend)], 1)
    tangent = np.gradient(centre, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.array([0.0, 1.0, 0.0])
    normal = np.cross(side, tangent)
    angle = np.linspace(0, 2 * np.pi, ring, endpoint=False)
    points = centre[:, None] + thick * (
        np.cos(angle)[None, :, None] * side + np.sin(angle)[None, :, None] * normal[:, None]
    )
    n = len(bend)
    i, j = np.meshgrid(np.arange(n - 1), np.arange(ring), indexing="ij")
    a, b = (i * ring + j).ravel(), (i * ring + (j + 1) % ring).ravel()
    faces = np.concatenate([np.stack([a, b, b + ring], 1), np.stack([a, b + ring, a + ring], 1)])
    return shade(points.reshape(-1, 3), faces, crease=0.9)


def pan(stage: Stage, name: str, colour: int) -> Piece:
    """A frying pan, 19 cm across, with a handle along +x."""
    return _cooker(stage, name, "pan", PAN_COLOURS[colour], radius=0.095, half=0.019, handle=0.15)


def pot(stage: Stage, name: str, colour: int) -> Piece:
    """A wide low pot, 18 cm across, with two ears."""
    return _cooker(stage, name, "pot", POT_COLOURS[colour], radius=0.090, half=0.030, handle=0.0)


def _cooker(
    stage: Stage,
    name: str,
    category: str,
    colour: tuple[float, float, float],
    *,
    radius: float,
    half: float,
    handle: float,
) -> Piece:
    wall, floor = 0.005, 0.006
    body = stage.free_body(name, 0.9, (radius * 0.7, radius * 0.7, half))
    metal = stage.material(f"{name}_metal", colour, specular=0.6, shininess=0.6)
    inside = stage.material("nonstick", (0.13, 0.13, 0.14), specular=0.35, shininess=0.5)
    black = stage.material("pan_handle", (0.09, 0.09, 0.10), specular=0.4, shininess=0.5)
    outer = [
        (0.0, -half), (radius - 0.014, -half), (radius - 0.004, -half + 0.006),
        (radius, half - 0.001), (radius - 0.002, half),
    ]  # fmt: skip
    inner = [
        (radius - 0.002, half), (radius - wall, half - 0.002),
        (radius - 0.012, -half + floor + 0.004), (radius - 0.02, -half + floor),
        (0.0, -half + floor),
    ]  # fmt: skip
    stage.draw(body, f"{name}_out", shapes.turned(outer, segments=40), metal)
    stage.draw(body, f"{name}_in", shapes.turned(inner, segments=40), inside)
    foot = (radius - 0.012) / np.sqrt(2)
    geoms = [
        stage.collide(
            body, f"{name}_floor", BOX, (foot, foot, floor / 2), pos=(0, 0, -half + floor / 2)
        ),
        *_wall(stage, body, f"{name}_wall", radius, -half + 0.002, half, wall + 0.003),
    ]
    if handle:
        bar = (handle / 2, 0.010, 0.006)
        pos = (radius + handle / 2 - 0.004, 0, half - 0.010)
        stage.draw(body, f"{name}_bar", shapes.rounded_box(bar, 0.005, steps=2), black, pos=pos)
        geoms.append(stage.collide(body, f"{name}_bar_box", BOX, bar, pos=pos))
    else:
        for k, sign in enumerate((-1, 1)):
            bar, pos = (0.028, 0.011, 0.005), (0.0, sign * (radius + 0.009), half - 0.010)
            stage.draw(
                body, f"{name}_ear{k}", shapes.rounded_box(bar, 0.004, steps=2), black,
                shared=f"{name}_ear", pos=pos,
            )  # fmt: skip
            geoms.append(stage.collide(body, f"{name}_ear{k}_box", BOX, bar, pos=pos))
    return Piece(
        name=name, category=category, body=name, geoms=tuple(geoms), free=True, radius=radius,
        bottom=-half, top=half, half_extents=(radius - 0.01, radius - 0.01, 0.06),
        grasps={"kind": "push", "radius": radius, "height": 0.0},
    )  # fmt: skip
