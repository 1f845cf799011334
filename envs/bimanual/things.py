"""Free things of the bimanual tasks. Origins are the centres of their bounding boxes.

How a thing is taken is data for scripted experts (`SceneInfo.placement["grips"]`), in the
thing's own frame, a list of:

    {"pos": [x, y, z], "closing": [x, y, z], "approach": [x, y, z], "width": w}
        Grip site at `pos`, fingers closing along `closing` (either way round), pointing
        along `approach`; w metres between the pads when closed on it.

The pads of a hand open to 69 mm, so nothing that is taken is wider than 52 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np

from envs.bimanual.shapes import prism
from envs.scene import Region
from envs.tabletop import shapes, textures
from envs.tabletop.stage import BOX, CYLINDER, Piece, Stage, yaw_quat

DOWN = [0.0, 0.0, -1.0]
Grips = list[dict[str, Any]]


def grip(
    pos: Sequence[float], closing: Sequence[float], width: float, approach: Sequence[float] = DOWN
) -> dict[str, Any]:
    """One way to take a thing; see the module's docstring."""
    return {
        "pos": [float(v) for v in pos], "closing": [float(v) for v in closing],
        "approach": [float(v) for v in approach], "width": width,
    }  # fmt: skip


def region(
    body: mujoco.MjsBody,
    name: str,
    parent: str | None,
    pos: Sequence[float],
    size: Sequence[float],
) -> Region:
    """A place on a body that goals can name: a box of half sizes `size` around `pos`."""
    body.add_site(name=name, pos=pos, size=(0.005, 0.005, 0.005), rgba=(0, 0, 0, 0))
    x, y, z = size
    return Region(name=name, site=name, size=(x, y, z), parent=parent)


COLOURS = {
    "red": (0.80, 0.16, 0.14),
    "green": (0.18, 0.58, 0.28),
    "blue": (0.15, 0.34, 0.74),
    "orange": (0.90, 0.50, 0.14),
}
BLOCK_HALF = 0.025  # RoboTwin's blocks of 5 cm


def block(stage: Stage, name: str) -> Piece:
    """A cube of 5 cm; the first word of its name is its colour."""
    h = BLOCK_HALF
    body = stage.free_body(name, 0.08, (h, h, h))
    colour = name.split("_")[0]
    paint = stage.material(f"paint_{colour}", COLOURS[colour], specular=0.35, shininess=0.5)
    stage.draw(body, f"{name}_visual", shapes.rounded_box((h, h, h), 0.003, steps=2), paint,
               shared="block")  # fmt: skip
    geom = stage.collide(body, f"{name}_box", BOX, (h, h, h))
    grips = [grip((0, 0, 0.0), axis, 2 * h) for axis in ([1, 0, 0], [0, 1, 0])]
    return Piece(
        name=name, category="block", body=name, geoms=(geom,), free=True, radius=h * 1.42,
        bottom=-h, top=h, grasps={"grips": grips},
    )  # fmt: skip


def long_block(stage: Stage, name: str) -> Piece:
    """A bar of 4 x 4 x 18 cm, long enough for two hands."""
    half = (0.09, 0.02, 0.02)
    body = stage.free_body(name, 0.15, half)
    paint = stage.material("paint_orange", COLOURS["orange"], specular=0.35, shininess=0.5)
    stage.draw(body, f"{name}_visual", shapes.rounded_box(half, 0.003, steps=2), paint)
    geom = stage.collide(body, f"{name}_box", BOX, half)
    grips = [grip((x, 0, 0.002), (0, 1, 0), 0.04) for x in (-0.062, 0.062)]
    return Piece(
        name=name, category="bar", body=name, geoms=(geom,), free=True, radius=0.092,
        bottom=-0.02, top=0.02, grasps={"grips": grips},
    )  # fmt: skip


def pot(stage: Stage, name: str) -> Piece:
    """An enamelled pot with a lid and two loop handles, left (-x) and right."""
    radius, half = 0.085, 0.045
    body = stage.free_body(name, 0.45, (radius * 0.8, radius * 0.8, half))
    enamel = stage.material("enamel", (0.74, 0.18, 0.15), specular=0.7, shininess=0.75)
    lid = stage.material("enamel_dark", (0.62, 0.13, 0.11), specular=0.7, shininess=0.75)
    knob = stage.material("knob_black", (0.10, 0.10, 0.11), specular=0.5, shininess=0.6)
    wall = [
        (0, -half), (radius - 0.012, -half), (radius - 0.004, -half + 0.004),
        (radius, -half + 0.014), (radius, half - 0.022), (radius + 0.003, half - 0.020),
        (radius + 0.003, half - 0.016),
    ]  # fmt: skip
    stage.draw(body, f"{name}_wall", shapes.turned(wall, segments=40), enamel)
    cover = [
        (radius + 0.003, half - 0.016), (radius + 0.001, half - 0.012), (0.06, half - 0.003),
        (0.025, half), (0, half),
    ]  # fmt: skip
    stage.draw(body, f"{name}_lid", shapes.turned(cover, segments=40), lid)
    button = [(0.010, half - 0.001), (0.010, half + 0.008), (0.019, half + 0.012),
              (0.019, half + 0.018), (0.012, half + 0.022), (0, half + 0.022)]  # fmt: skip
    stage.draw(body, f"{name}_knob", shapes.turned(button, segments=20), knob)
    geoms = [stage.collide(body, f"{name}_body", CYLINDER, (radius, half - 0.0005))]
    foot = (radius - 0.012) / np.sqrt(2)
    geoms.append(
        stage.collide(body, f"{name}_foot", BOX, (foot, foot, 0.01), pos=(0, 0, -half + 0.01))
    )
    height = half - 0.030
    regions, grips = [], []
    for side, sign in (("left", -1.0), ("right", 1.0)):
        stubs = (0.017, 0.005, 0.006)
        for y in (-0.015, 0.015):
            stage.draw(
                body, f"{name}_{side}_stub{y}", shapes.rounded_box(stubs, 0.0045, steps=2), enamel,
                shared="pot_stub", pos=(sign * (radius + 0.015), y, height),
            )  # fmt: skip
        stage.draw(
            body, f"{name}_{side}_bar", shapes.rounded_box((0.006, 0.020, 0.006), 0.005, steps=2),
            enamel, shared="pot_bar", pos=(sign * (radius + 0.034), 0, height),
        )  # fmt: skip
        centre = (sign * (radius + 0.022), 0.0, height)
        geoms.append(
            stage.collide(body, f"{name}_{side}_handle", BOX, (0.019, 0.020, 0.006), pos=centre)
        )
        regions.append(region(body, f"{name}_{side}_handle", name, centre, (0.03, 0.03, 0.03)))
        grips.append(grip((sign * (radius + 0.026), 0, height + 0.002), (0, 1, 0), 0.040))
    return Piece(
        name=name, category="pot", body=name, geoms=tuple(geoms), free=True, radius=0.125,
        bottom=-half, top=half, regions=tuple(regions), grasps={"grips": grips},
    )  # fmt: skip


def roller(stage: Stage, name: str) -> Piece:
    """A rolling pin along x, 36 cm with its handles; two flats keep it from rolling away."""
    radius, half, total = 0.026, 0.115, 0.180
    body = stage.free_body(name, 0.35, (half, radius, radius))
    wood = stage.material(
        "pin_wood", picture=textures.wood((206, 164, 112), planks=2, size=128, seed=17),
        specular=0.25,
    )  # fmt: skip
    dark = stage.material("pin_handle", (0.52, 0.32, 0.18), specular=0.35, shininess=0.5)
    along = (float(np.sqrt(0.5)), 0, float(np.sqrt(0.5)), 0)
    barrel = [(0, -half), (radius - 0.004, -half), (radius, -half + 0.004),
              (radius, half - 0.004), (radius - 0.004, half), (0, half)]  # fmt: skip
    stage.draw(
        body, f"{name}_barrel", shapes.turned(barrel, segments=28, uv_height=(-half, half)), wood,
        quat=along,
    )  # fmt: skip
    stem = [(0.008, half), (0.009, half + 0.008), (0.0145, half + 0.018), (0.0155, half + 0.035),
            (0.0135, half + 0.055), (0.008, total), (0, total)]  # fmt: skip
    flip = (float(np.sqrt(0.5)), 0.0, -float(np.sqrt(0.5)), 0.0)
    for side, quat in (("right", along), ("left", flip)):
        stage.draw(body, f"{name}_{side}", shapes.turned(stem, segments=20), dark,
                   shared="pin_stem", quat=quat)  # fmt: skip
    flat = radius * 0.40
    geoms = [
        stage.collide(body, f"{name}_barrel_round", CYLINDER, (radius - 0.0005, half), quat=along),
        stage.collide(body, f"{name}_flat", BOX, (half, flat, radius)),
    ]
    regions, grips = [], []
    for side, sign in (("left", -1.0), ("right", 1.0)):
        centre = (sign * (half + 0.035), 0.0, 0.0)
        geoms.append(stage.collide(body, f"{name}_{side}_stem", BOX, (0.030, 0.013, 0.013),
                                   pos=centre))  # fmt: skip
        regions.append(region(body, f"{name}_{side}_handle", name, centre, (0.03, 0.03, 0.03)))
        grips.append(grip((sign * (half + 0.038), 0, 0.0), (0, 1, 0), 0.026))
    return Piece(
        name=name, category="roller", body=name, geoms=tuple(geoms), free=True, radius=0.182,
        bottom=-radius, top=radius, regions=tuple(regions), grasps={"grips": grips},
    )  # fmt: skip


def bottle(stage: Stage, name: str) -> Piece:
    """A bottle of 5 x 17 cm; the first word of its name is its colour."""
    half, radius, cap = 0.085, 0.025, 0.014
    colour = name.split("_")[0]
    body = stage.free_body(name, 0.15, (radius, radius, half))
    glass = stage.material(f"glass_{colour}", COLOURS[colour], specular=0.8, shininess=0.8)
    red, green, blue = (int(220 * c) for c in COLOURS[colour])
    ink = (red, green, blue)
    label = stage.material(
        f"label_{colour}",
        picture=textures.band_label((244, 240, 230), ink, {"red": "COLA"}.get(colour, "LIME"),
                                    (250, 248, 240)),
    )  # fmt: skip
    white = stage.material("cap_white", (0.93, 0.93, 0.91), specular=0.4)
    profile = [
        (0, -half), (radius - 0.003, -half), (radius, -half + 0.004), (radius, 0.028),
        (radius - 0.002, 0.040), (radius - 0.007, 0.052), (cap - 0.001, 0.064), (cap - 0.001, 0.07),
    ]  # fmt: skip
    stage.draw(body, f"{name}_glass", shapes.turned(profile, segments=28), glass)
    band = [(radius + 0.0004, -0.045), (radius + 0.0004, 0.018)]
    stage.draw(body, f"{name}_label", shapes.turned(band, segments=28, uv_height=(-0.045, 0.018)),
               label)  # fmt: skip
    top = [(cap, 0.068), (cap, half - 0.002), (cap - 0.002, half), (0, half)]
    stage.draw(body, f"{name}_cap", shapes.turned(top, segments=20), white)
    middle, tall = (-half + 0.045) / 2, (half + 0.045) / 2
    foot = (radius - 0.0003) / np.sqrt(2)
    geoms = (
        stage.collide(body, f"{name}_side", CYLINDER, (radius, tall - 0.0005), pos=(0, 0, middle)),
        stage.collide(body, f"{name}_core", BOX, (foot, foot, tall), pos=(0, 0, middle)),
        stage.collide(body, f"{name}_neck", CYLINDER, (cap, 0.020), pos=(0, 0, 0.065)),
    )
    grips = [
        grip((0, 0, 0.030), (np.cos(a), np.sin(a), 0), 2 * radius) for a in np.arange(8) * np.pi / 8
    ]
    return Piece(
        name=name, category="bottle", body=name, geoms=geoms, free=True, radius=radius,
        bottom=-half, top=half, grasps={"grips": grips},
    )  # fmt: skip


def shoe(stage: Stage, name: str) -> Piece:
    """A sneaker, 15 cm long, toe along x; taken across its heel."""
    half = (0.075, 0.026, 0.029)
    body = stage.free_body(name, 0.18, half)
    white = stage.material("shoe_sole", (0.92, 0.92, 0.90), specular=0.2)
    cloth = stage.material("shoe_cloth", (0.16, 0.30, 0.52), specular=0.12)
    lace = stage.material("shoe_lace", (0.95, 0.95, 0.93), specular=0.1)
    lining = stage.material("shoe_lining", (0.08, 0.09, 0.11), specular=0.05)
    stage.draw(body, f"{name}_sole", shapes.rounded_box((0.075, 0.026, 0.008), 0.0078, steps=3),
               white, shared="shoe_sole", pos=(0, 0, -half[2] + 0.008))  # fmt: skip
    heel = [(-0.073, -0.016), (0.012, -0.016), (0.014, 0.014), (-0.005, 0.026), (-0.064, 0.029),
            (-0.074, 0.012)]  # fmt: skip
    stage.draw(body, f"{name}_heel", prism(heel, 0.046), cloth, shared="shoe_heel")
    toe = [(0.008, -0.016), (0.068, -0.016), (0.073, -0.010), (0.066, 0.002), (0.040, 0.006),
           (0.012, 0.016)]  # fmt: skip
    stage.draw(body, f"{name}_toe", prism(toe, 0.044), cloth, shared="shoe_toe")
    cap = [(0.050, -0.0165), (0.070, -0.0165), (0.0745, -0.010), (0.068, 0.001), (0.052, 0.0035)]
    stage.draw(body, f"{name}_cap", prism(cap, 0.045), white, shared="shoe_cap")
    stage.draw(body, f"{name}_hole", shapes.rounded_box((0.022, 0.016, 0.002), 0.0018, steps=1),
               lining, shared="shoe_hole", pos=(-0.034, 0, 0.0268))  # fmt: skip
    for k in range(3):
        stage.draw(
            body, f"{name}_lace{k}", shapes.rounded_box((0.003, 0.015, 0.0015), 0.0012, steps=1),
            lace, shared="shoe_lace", pos=(0.008 + 0.012 * k, 0, 0.0165 - 0.0042 * k),
            quat=(0.985, 0, 0.17, 0),
        )  # fmt: skip
    geoms = (
        stage.collide(body, f"{name}_bottom", BOX, (0.073, 0.024, 0.014),
                      pos=(0, 0, -half[2] + 0.014)),
        stage.collide(body, f"{name}_upper", BOX, (0.040, 0.023, 0.020), pos=(-0.032, 0, 0.006)),
    )  # fmt: skip
    grips = [grip((x, 0, 0.004), (0, 1, 0), 0.046) for x in (-0.030, -0.015)]
    return Piece(
        name=name, category="shoe", body=name, geoms=geoms, free=True, radius=0.08,
        bottom=-half[2], top=half[2], grasps={"grips": grips},
    )  # fmt: skip


def bread(stage: Stage, name: str) -> Piece:
    """A roll, 8.4 x 4.6 x 4.4 cm."""
    half = (0.042, 0.023, 0.022)
    body = stage.free_body(name, 0.07, half)
    crust = stage.material(
        "crust", picture=textures.speckle((200, 138, 72), amount=0.12, seed=5), specular=0.12
    )
    slash = stage.material("slash", (0.94, 0.82, 0.60), specular=0.05)
    stage.draw(body, f"{name}_loaf", shapes.rounded_box(half, 0.0185, steps=4, tile=0.08), crust,
               shared="roll")  # fmt: skip
    for k, x in enumerate((-0.016, 0.0, 0.016)):
        stage.draw(
            body, f"{name}_slash{k}", shapes.rounded_box((0.003, 0.012, 0.002), 0.0018, steps=1),
            slash, shared="roll_slash", pos=(x, 0, half[2] - 0.0009), quat=yaw_quat(0.5),
        )  # fmt: skip
    geoms = (
        stage.collide(body, f"{name}_block", BOX, (0.037, half[1], 0.015)),
        stage.collide(body, f"{name}_foot", BOX, (0.032, 0.015, half[2])),
    )
    grips = [grip((x, 0, 0.002), (0, 1, 0), 2 * half[1]) for x in (0.0, -0.015, 0.015)]
    return Piece(
        name=name, category="bread", body=name, geoms=geoms, free=True, radius=0.046,
        bottom=-half[2], top=half[2], grasps={"grips": grips},
    )  # fmt: skip


def hammer(stage: Stage, name: str) -> Piece:
    """A hammer that lies along x with its head at +x, 20 cm long."""
    half = (0.105, 0.036, 0.016)
    body = stage.free_body(name, 0.22, half)
    handle = stage.material(
        "hammer_wood", picture=textures.wood((190, 140, 84), planks=2, size=128, seed=19),
        specular=0.3,
    )  # fmt: skip
    rubber = stage.material("hammer_grip", (0.86, 0.46, 0.10), specular=0.2)
    steel = stage.material("hammer_steel", (0.46, 0.48, 0.51), specular=0.9, shininess=0.8)
    stage.draw(body, f"{name}_shaft", shapes.rounded_box((0.090, 0.010, 0.010), 0.007, steps=3,
               tile=0.1), handle, pos=(-0.005, 0, 0))  # fmt: skip
    stage.draw(body, f"{name}_sleeve", shapes.rounded_box((0.048, 0.0125, 0.0125), 0.009, steps=3),
               rubber, pos=(-0.058, 0, 0))  # fmt: skip
    lying = (float(np.sqrt(0.5)), float(np.sqrt(0.5)), 0, 0)
    head = [(0, -0.036), (0.013, -0.036), (0.015, -0.033), (0.015, -0.022), (0.011, -0.016),
            (0.011, 0.014), (0.009, 0.022), (0.005, 0.036), (0, 0.036)]  # fmt: skip
    stage.draw(body, f"{name}_head", shapes.turned(head, segments=24), steel,
               pos=(0.088, 0, 0), quat=lying)  # fmt: skip
    geoms = (
        stage.collide(body, f"{name}_shaft_box", BOX, (0.095, 0.0115, 0.0125), pos=(-0.010, 0, 0)),
        stage.collide(body, f"{name}_head_box", BOX, (0.0145, 0.035, 0.0145), pos=(0.088, 0, 0)),
    )
    # RoboTwin's functional point: the head's lower side as it is held.
    face = region(body, f"{name}_face", name, (0.088, 0, -0.0145), (0.02, 0.02, 0.02))
    grips = [grip((x, 0, 0.010), (0, 1, 0), 0.023) for x in (-0.050, -0.035, -0.065)]
    return Piece(
        name=name, category="hammer", body=name, geoms=geoms, free=True, radius=0.11,
        bottom=-0.0145, top=0.0145, regions=(face,), grasps={"grips": grips},
    )  # fmt: skip
