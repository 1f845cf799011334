"""Six styles: what the surfaces of a kitchen look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from envs.kitchen import textures
from envs.tabletop.textures import Colour, Picture
from wamsim.errors import nearest

RGB = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Style:
    """Materials of a kitchen. Pictures are drawn when they are asked for.

    Attributes:
        name: As in a scene's id.
        fronts: Doors and drawer fronts.
        carcass: Sides, and the inside of cabinets.
        counter: The worktop; `counter_shine` its specular reflection.
        splash: Between worktop and wall cabinets.
        wall: Paint of the walls.
        floor: With the number of times that it repeats over 6 m.
        metal: Handles, faucet and knobs.
        steel: Front of stove and hood.
        appliance: Case of microwave and coffee machine.
        wooden: Whether the fronts' picture has a grain that runs upwards.
        tile_m: Side in metres of one repetition of the splash.
    """

    name: str
    fronts: Callable[[], Picture]
    carcass: Callable[[], Picture]
    counter: Callable[[], Picture]
    splash: Callable[[], Picture]
    wall: Colour
    floor: Callable[[], Picture]
    floor_repeat: int
    metal: RGB
    steel: Colour
    appliance: RGB
    counter_shine: float = 0.35
    tile_m: float = 0.40


def _paint(colour: Colour) -> Callable[[], Picture]:
    return lambda: textures.paint(colour)


def _wood(
    colour: Colour, planks: int = 3, contrast: float = 1.0, seed: int = 1
) -> Callable[[], Picture]:
    return lambda: textures.wood(colour, planks=planks, size=256, contrast=contrast, seed=seed)


STYLES: Mapping[str, Style] = {
    style.name: style
    for style in (
        Style(
            name="scandinavian",
            fronts=_paint((236, 234, 228)),
            carcass=_wood((214, 186, 146), seed=2),
            counter=_wood((206, 170, 122), planks=6, contrast=1.1, seed=3),
            splash=lambda: textures.tiles(
                (240, 241, 239), (205, 206, 204), columns=4, rows=4, variation=0.02
            ),
            wall=(222, 221, 214),
            floor=_wood((198, 174, 142), planks=8, seed=4),
            floor_repeat=4,
            metal=(0.16, 0.16, 0.17),
            steel=(196, 198, 200),
            appliance=(0.90, 0.90, 0.89),
            counter_shine=0.2,
        ),
        Style(
            name="industrial",
            fronts=_paint((62, 66, 70)),
            carcass=_wood((120, 96, 74), seed=5),
            counter=lambda: textures.speckle((146, 145, 141), amount=0.05, seed=7),
            splash=lambda: textures.bricks((156, 92, 72), (186, 176, 164)),
            wall=(176, 170, 162),
            floor=lambda: textures.speckle((128, 126, 122), amount=0.05, seed=8),
            floor_repeat=3,
            metal=(0.72, 0.56, 0.36),
            steel=(150, 152, 156),
            appliance=(0.14, 0.14, 0.15),
            tile_m=0.52,
        ),
        Style(
            name="coastal",
            fronts=_paint((146, 176, 190)),
            carcass=_paint((240, 240, 236)),
            counter=lambda: textures.marble((236, 236, 234), (150, 156, 164)),
            splash=lambda: textures.tiles(
                (232, 238, 240), (196, 204, 208), columns=3, rows=6, staggered=True
            ),
            wall=(228, 232, 230),
            floor=_wood((206, 192, 170), planks=7, contrast=0.8, seed=6),
            floor_repeat=4,
            metal=(0.74, 0.76, 0.78),
            steel=(204, 207, 210),
            appliance=(0.84, 0.85, 0.86),
        ),
        Style(
            name="farmhouse",
            fronts=_paint((120, 142, 112)),
            carcass=_wood((188, 150, 104), seed=9),
            counter=_wood((164, 112, 68), planks=7, contrast=1.3, seed=10),
            splash=lambda: textures.tiles(
                (244, 240, 228), (206, 198, 182), columns=3, rows=6, staggered=True, seed=12
            ),
            wall=(238, 230, 210),
            floor=lambda: textures.tiles(
                (178, 120, 88), (150, 132, 116), columns=4, rows=4, variation=0.08, seed=13
            ),
            floor_repeat=4,
            metal=(0.22, 0.18, 0.15),
            steel=(188, 188, 186),
            appliance=(0.86, 0.82, 0.72),
            counter_shine=0.15,
        ),
        Style(
            name="modern",
            fronts=_wood((126, 84, 56), planks=1, contrast=1.5, seed=14),
            carcass=_wood((188, 156, 120), seed=21),
            counter=lambda: textures.terrazzo(
                (46, 47, 50), ((66, 67, 70), (84, 84, 86), (34, 34, 36))
            ),
            splash=lambda: textures.marble((214, 212, 208), (140, 136, 130), seed=15),
            wall=(206, 205, 202),
            floor=lambda: textures.tiles(
                (168, 167, 164), (146, 145, 143), columns=2, rows=2, variation=0.02, seed=16
            ),
            floor_repeat=4,
            metal=(0.80, 0.81, 0.82),
            steel=(170, 172, 175),
            appliance=(0.18, 0.18, 0.19),
            counter_shine=0.6,
            tile_m=0.8,
        ),
        Style(
            name="mediterranean",
            fronts=_paint((232, 214, 178)),
            carcass=_wood((176, 128, 82), seed=17),
            counter=lambda: textures.terrazzo(
                (222, 210, 190), ((190, 132, 96), (160, 150, 138), (236, 228, 214)), seed=18
            ),
            splash=lambda: textures.tiles(
                (62, 112, 150), (222, 216, 204), columns=5, rows=5, variation=0.14, seed=19
            ),
            wall=(240, 222, 192),
            floor=lambda: textures.tiles(
                (186, 104, 70), (164, 140, 120), columns=5, rows=5, variation=0.10, seed=20
            ),
            floor_repeat=4,
            metal=(0.62, 0.42, 0.26),
            steel=(192, 190, 186),
            appliance=(0.74, 0.22, 0.16),
        ),
    )
}


def style(name: str) -> Style:
    """The style of that name.

    Raises:
        UnknownName: With the nearest known name.
    """
    if name not in STYLES:
        raise nearest(name, STYLES, kind="style of kitchen")
    return STYLES[name]
