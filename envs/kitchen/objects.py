"""Food, mugs and dishes: categories with instances, some held out for evaluation.

An object's kind is "category/instance". Instances differ in size, colour and label;
`INSTANCES` lists them, those of training first, those of evaluation last. Collision shapes
follow `envs.tabletop.objects`: cylinders around a box that stands still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from envs.kitchen.cookware import mug, pan, pot
from envs.tabletop import dishes, shapes, textures
from envs.tabletop.stage import BOX, CYLINDER, Piece, Stage
from envs.tabletop.textures import Colour
from wamsim.errors import nearest

Builder = Callable[[Stage, str, Any], Piece]
HELD_OUT = 2  # how many of a category's instances, its last ones, are kept for evaluation


@dataclass(frozen=True, kw_only=True)
class Look:
    """What an instance looks like.

    Attributes:
        size: Half sizes, or (radius, half height).
        colour, accent: Of the body and of what is printed on it.
        text: On labels.
    """

    size: tuple[float, ...]
    colour: Colour
    accent: Colour = (245, 240, 230)
    text: tuple[str, ...] = ("",)


def _rgb(colour: Colour) -> tuple[float, float, float]:
    return (colour[0] / 255, colour[1] / 255, colour[2] / 255)


def _standing(
    stage: Stage, body: mujoco.MjsBody, name: str, radius: float, low: float, high: float
) -> tuple[str, ...]:
    """A cylinder to grasp around a square prism to stand on."""
    middle, half = (low + high) / 2, (high - low) / 2
    side = stage.collide(
        body, f"{name}_side", CYLINDER, (radius, half - 0.0005), pos=(0, 0, middle)
    )
    foot = (radius - 0.0003) / np.sqrt(2)
    core = stage.collide(body, f"{name}_core", BOX, (foot, foot, half), pos=(0, 0, middle))
    return side, core


def _can(stage: Stage, name: str, look: Look) -> Piece:
    radius, half = look.size
    body = stage.free_body(name, 0.15, (radius, radius, half))
    picture = textures.band_label(look.colour, look.accent, look.text[0], look.colour)
    label = stage.material(f"{name}_label", picture=picture, specular=0.4)
    metal = stage.material("tin", (0.78, 0.78, 0.80), specular=0.8, shininess=0.7)
    wall = [(radius, -half + 0.004), (radius, half - 0.004)]
    stage.draw(
        body, f"{name}_label", shapes.turned(wall, uv_height=(wall[0][1], wall[1][1])), label
    )
    for key, z, sign in (("lid", half, 1.0), ("foot", -half, -1.0)):
        rim = [
            (radius, z - sign * 0.004), (radius + 0.0006, z - sign * 0.002), (radius - 0.001, z),
            (radius - 0.003, z - sign * 0.002), (0.0, z - sign * 0.002),
        ]  # fmt: skip
        rim = rim if sign > 0 else rim[::-1]
        stage.draw(body, f"{name}_{key}", shapes.turned(rim), metal)
    geoms = _standing(stage, body, name, radius, -half, half)
    return _piece(name, "can", geoms, radius, half)


def _bottle(stage: Stage, name: str, look: Look) -> Piece:
    radius, half = look.size
    cap = 0.0150
    body = stage.free_body(name, 0.16, (radius, radius, half))
    glass = stage.material(f"{name}_glass", _rgb(look.colour), specular=0.6, shininess=0.7)
    picture = textures.band_label(look.accent, look.colour, look.text[0], look.accent)
    label = stage.material(f"{name}_label", picture=picture)
    white = stage.material("cap_white", (0.93, 0.93, 0.91), specular=0.4)
    waist = 0.15 * half
    body_line = [
        (0, -half), (radius - 0.003, -half), (radius, -half + 0.004), (radius, waist),
        (radius - 0.002, waist + 0.008), (cap + 0.003, waist + 0.024), (cap, waist + 0.030),
    ]  # fmt: skip
    stage.draw(body, f"{name}_body", shapes.turned(body_line), glass)
    band = [(radius + 0.0004, -half + 0.012), (radius + 0.0004, waist - 0.006)]
    stage.draw(body, f"{name}_band", shapes.turned(band, uv_height=(band[0][1], band[1][1])), label)
    top = [(cap, waist + 0.029), (cap, half - 0.003), (cap - 0.003, half), (0, half)]
    stage.draw(body, f"{name}_cap", shapes.turned(top), white)
    geoms = _standing(stage, body, name, radius, -half, waist + 0.01)
    neck = (half - waist) / 2
    geoms += (stage.collide(body, f"{name}_neck", CYLINDER, (cap, neck), pos=(0, 0, half - neck)),)
    return _piece(name, "bottle", geoms, radius, half)


def _box(stage: Stage, name: str, look: Look) -> Piece:
    x, y, z = look.size
    body = stage.free_body(name, 0.12, (x, y, z))
    picture = textures.carton(look.colour, look.accent, look.text, look.accent)
    paper = stage.material(f"{name}_paper", picture=picture)
    mesh = shapes.rounded_box((x, y, z), 0.002, steps=1, atlas=True)
    stage.draw(body, f"{name}_visual", mesh, paper)
    geoms = (stage.collide(body, f"{name}_box", BOX, (x, y, z)),)
    return _piece(name, "box", geoms, float(np.hypot(x, y)), z)


def _fruit(stage: Stage, name: str, look: Look) -> Piece:
    radius, half = look.size
    body = stage.free_body(name, 0.12, (radius * 0.8, radius * 0.8, half * 0.8))
    picture = textures.speckle(look.colour, amount=0.10, seed=21)
    skin = stage.material(f"{name}_skin", picture=picture, specular=0.35, shininess=0.5)
    stem = stage.material("stem", (0.36, 0.27, 0.15), specular=0.05)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 11)
    # Flat below, where it stands, and dented above, where the stem is.
    line = [(0.0, -half)]
    for a in angle[1:-1]:
        r = radius * np.cos(a) ** 0.8
        line.append((float(r), float(half * np.sin(a))))
    line += [(0.010, half * 0.97), (0.0, half * 0.90)]
    stage.draw(
        body, f"{name}_flesh", shapes.turned(line, segments=24, uv_height=(-half, half)), skin
    )
    stalk = [(0.0018, half * 0.85), (0.0018, half * 1.12), (0.0, half * 1.12)]
    stage.draw(body, f"{name}_stem", shapes.turned(stalk, segments=6), stem)
    # Fruit would roll: the middle is what fingers take, a foot is what it stands on.
    side = stage.collide(body, f"{name}_side", CYLINDER, (radius, half * 0.45))
    foot = radius * 0.55
    core = stage.collide(body, f"{name}_core", BOX, (foot, foot, half))
    return _piece(name, "fruit", (side, core), radius, half)


def _loaf(stage: Stage, name: str, look: Look) -> Piece:
    half = look.size
    body = stage.free_body(name, 0.10, half)
    crust = stage.material(
        f"{name}_crust", picture=textures.speckle(look.colour, amount=0.12, seed=5), specular=0.1
    )
    slash = stage.material("slash", _rgb(look.accent), specular=0.05)
    round_ = min(half) * 0.65
    stage.draw(body, f"{name}_loaf", shapes.rounded_box(half, round_, steps=4, tile=0.08), crust)
    for k, share in enumerate((-0.5, 0.0, 0.5)):
        stage.draw(
            body, f"{name}_slash{k}",
            shapes.rounded_box((0.004, half[1] * 0.62, 0.002), 0.0019, steps=2), slash,
            shared=f"{name}_slash", pos=(share * half[0], 0, half[2] - 0.0008),
        )  # fmt: skip
    geoms = (
        stage.collide(body, f"{name}_block", BOX, (half[0] - 0.003, half[1], half[2] * 0.68)),
        stage.collide(body, f"{name}_foot", BOX, (half[0] - 0.012, half[1] - 0.008, half[2])),
    )
    return _piece(name, "loaf", geoms, float(np.hypot(half[0], half[1])), half[2])


def _piece(name: str, category: str, geoms: tuple[str, ...], radius: float, half: float) -> Piece:
    return Piece(
        name=name, category=category, body=name, geoms=geoms, free=True, radius=radius,
        bottom=-half, top=half, half_extents=None, grasps={"kind": "any"},
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Category:
    """A kind of thing: how it is built and what its instances look like."""

    build: Builder
    looks: Mapping[str, Any]


def _dish(make: Callable[[Stage, str], Piece]) -> Builder:
    return lambda stage, name, look: make(stage, name)


_RED, _GREEN, _BLUE, _CREAM = (184, 40, 36), (62, 128, 66), (44, 92, 160), (246, 240, 226)
CATEGORIES: Mapping[str, Category] = {
    "can": Category(
        build=_can,
        looks={
            "soup": Look(size=(0.029, 0.0475), colour=_RED, text=("SOUP",)),
            "beans": Look(size=(0.030, 0.042), colour=(52, 110, 96), text=("BEANS",)),
            "corn": Look(size=(0.029, 0.045), colour=(226, 178, 52), accent=_GREEN, text=("CORN",)),
            "tomato": Look(size=(0.031, 0.048), colour=(206, 70, 44), text=("TOMATO",)),
        },
    ),
    "bottle": Category(
        build=_bottle,
        looks={
            "ketchup": Look(size=(0.026, 0.060), colour=(184, 24, 20), text=("KETCHUP",)),
            "mustard": Look(size=(0.026, 0.056), colour=(226, 172, 30), text=("MUSTARD",)),
            "syrup": Look(size=(0.027, 0.062), colour=(96, 52, 24), text=("SYRUP",)),
            "dressing": Look(size=(0.026, 0.058), colour=(96, 146, 62), text=("HERBS",)),
        },
    ),
    "cereal box": Category(
        build=_box,
        looks={
            "corn": Look(
                size=(0.042, 0.020, 0.055),
                colour=(242, 190, 52),
                accent=(196, 70, 34),
                text=("CORN", "flakes"),
            ),
            "oats": Look(
                size=(0.040, 0.022, 0.052),
                colour=(120, 170, 204),
                accent=(40, 66, 120),
                text=("OATS", "crunch"),
            ),
            "choco": Look(
                size=(0.041, 0.021, 0.056),
                colour=(110, 66, 44),
                accent=(250, 214, 120),
                text=("CHOCO", "pops"),
            ),
            "berry": Look(
                size=(0.042, 0.021, 0.054),
                colour=(214, 96, 140),
                accent=(96, 20, 60),
                text=("BERRY", "rings"),
            ),
        },
    ),
    "milk carton": Category(
        build=_box,
        looks={
            "fresh": Look(
                size=(0.027, 0.027, 0.055),
                colour=(240, 244, 250),
                accent=_BLUE,
                text=("MILK", "fresh"),
            ),
            "oat": Look(
                size=(0.027, 0.027, 0.052),
                colour=(236, 226, 204),
                accent=(120, 88, 50),
                text=("OAT", "milk"),
            ),
            "soy": Look(
                size=(0.028, 0.028, 0.055),
                colour=(232, 242, 228),
                accent=_GREEN,
                text=("SOY", "milk"),
            ),
            "cocoa": Look(
                size=(0.027, 0.027, 0.057),
                colour=(244, 232, 214),
                accent=(118, 66, 36),
                text=("COCOA", "milk"),
            ),
        },
    ),
    "apple": Category(
        build=_fruit,
        looks={
            "red": Look(size=(0.033, 0.030), colour=(178, 36, 34)),
            "green": Look(size=(0.034, 0.031), colour=(126, 172, 62)),
            "yellow": Look(size=(0.033, 0.031), colour=(222, 186, 70)),
            "pink": Look(size=(0.034, 0.030), colour=(206, 84, 84)),
        },
    ),
    "orange": Category(
        build=_fruit,
        looks={
            "navel": Look(size=(0.033, 0.032), colour=(232, 132, 32)),
            "small": Look(size=(0.030, 0.027), colour=(238, 148, 48)),
            "blood": Look(size=(0.032, 0.031), colour=(218, 92, 38)),
            "mandarin": Look(size=(0.031, 0.026), colour=(242, 140, 22)),
        },
    ),
    "bread": Category(
        build=_loaf,
        looks={
            "white": Look(
                size=(0.048, 0.026, 0.025), colour=(206, 150, 88), accent=(240, 210, 154)
            ),
            "rye": Look(size=(0.046, 0.027, 0.024), colour=(124, 84, 50), accent=(186, 142, 96)),
            "brown": Look(
                size=(0.050, 0.027, 0.026), colour=(158, 104, 60), accent=(214, 172, 116)
            ),
            "sweet": Look(
                size=(0.045, 0.028, 0.026), colour=(214, 160, 84), accent=(248, 226, 170)
            ),
        },
    ),
    "cheese": Category(
        build=_box,
        looks={
            "cream": Look(
                size=(0.032, 0.020, 0.018),
                colour=(236, 240, 246),
                accent=(60, 130, 200),
                text=("CREAM",),
            ),
            "gouda": Look(
                size=(0.034, 0.022, 0.018),
                colour=(240, 196, 74),
                accent=(180, 60, 40),
                text=("GOUDA",),
            ),
            "feta": Look(
                size=(0.032, 0.022, 0.019),
                colour=(244, 246, 244),
                accent=(40, 108, 160),
                text=("FETA",),
            ),
            "cheddar": Look(
                size=(0.034, 0.021, 0.019),
                colour=(236, 150, 52),
                accent=(120, 44, 20),
                text=("CHEDDAR",),
            ),
        },
    ),
    "mug": Category(
        build=mug,
        looks={"blue": 0, "white": 1, "green": 2, "black": 5, "red": 3, "yellow": 4},
    ),
    "plate": Category(build=_dish(dishes.plate), looks={"porcelain": None}),
    "bowl": Category(build=_dish(dishes.bowl), looks={"glazed": None}),
    "pan": Category(build=pan, looks={"iron": 0, "copper": 1, "steel": 2}),
    "pot": Category(build=pot, looks={"steel": 0, "red": 1, "blue": 2}),
}
FOOD = ("can", "bottle", "cereal box", "milk carton", "apple", "orange", "bread", "cheese")


def instances(category: str, *, held_out: bool) -> tuple[str, ...]:
    """Instances of a category for evaluation (held out), or for training."""
    found = tuple(CATEGORIES[category].looks)
    if len(found) <= HELD_OUT:
        return found
    return found[-HELD_OUT:] if held_out else found[:-HELD_OUT]


def build_object(stage: Stage, name: str, kind: str) -> Piece:
    """Add a free thing.

    Args:
        stage: Where to.
        name: In goals.
        kind: "category/instance".

    Raises:
        UnknownName: No such category or instance.
    """
    category, _, instance = kind.partition("/")
    if category not in CATEGORIES:
        raise nearest(category, CATEGORIES, kind="kitchen object")
    looks = CATEGORIES[category].looks
    if instance not in looks:
        raise nearest(instance, looks, kind=f"instance of {category}")
    return CATEGORIES[category].build(stage, name, looks[instance])
