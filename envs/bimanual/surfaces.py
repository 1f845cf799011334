"""Pictures for table tops and walls: two pools, one for evaluation and one for training.

RoboTwin draws backgrounds for evaluation from textures that no demonstration shows; the
pools here play these parts. Entry 0 is what `bimanual_clean` has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from envs.tabletop import textures
from envs.tabletop.textures import Colour, Picture

SIZE = 256  # pixels; a table top of 1.3 m shows 5 mm a pixel, walls twice that


def _noise(seed: int, cells: int) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(seed))
    return textures._noise(rng, (SIZE, SIZE), (cells, cells))


def _mix(a: Colour, b: Colour, share: np.ndarray) -> Picture:
    share = np.clip(share, 0, 1)[..., None]
    return (np.asarray(a) * (1 - share) + np.asarray(b) * share).astype(np.uint8)


def marble(ground: Colour, vein: Colour, seed: int) -> Picture:
    """Stone with thin, wandering veins."""
    rows = np.mgrid[0:SIZE, 0:SIZE][0] / SIZE
    bend = 1.3 * _noise(seed, 4) + 0.7 * _noise(seed + 1, 9) + 0.25 * _noise(seed + 2, 28)
    line = np.abs(np.sin(np.pi * (2 * rows + bend)))
    return _mix(ground, vein, 0.75 * np.exp(-line * 9) + 0.12 * (_noise(seed + 3, 6) + 1) / 2)


def terrazzo(ground: Colour, chips: tuple[Colour, ...], seed: int) -> Picture:
    """Cement with chips of stone."""
    rng = np.random.Generator(np.random.PCG64(seed))
    out = textures.speckle(ground, amount=0.03, size=SIZE, seed=seed).astype(int)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    for k in range(260):
        y, x, r = *rng.uniform(0, SIZE, 2), rng.uniform(1.5, 4.5)
        turn, flat = rng.uniform(0, np.pi), rng.uniform(0.45, 1.0)
        # the shortest way around the border, so that tiles fit together
        dy, dx = ((d + SIZE / 2) % SIZE - SIZE / 2 for d in (rows - y, columns - x))
        u, v = np.cos(turn) * dx + np.sin(turn) * dy, -np.sin(turn) * dx + np.cos(turn) * dy
        out[u * u + (v / flat) ** 2 < r * r] = chips[k % len(chips)]
    return out.astype(np.uint8)


def tiles(colour: Colour, grout: Colour, *, across: int, seed: int) -> Picture:
    """Square tiles, each a little different."""
    rng = np.random.Generator(np.random.PCG64(seed))
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    side = SIZE // across
    tone = 1 + rng.uniform(-0.06, 0.06, (across, across))
    light = tone[rows // side % across, columns // side % across] * (1 + 0.02 * _noise(seed, 32))
    out = np.clip(np.asarray(colour)[None, None] * light[..., None], 0, 255)
    out[(rows % side < 2) | (columns % side < 2)] = grout
    return out.astype(np.uint8)


def stripes(a: Colour, b: Colour, *, count: int, seed: int) -> Picture:
    """Woven stripes, as of a table cloth."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    wide = (columns * count // SIZE) % 2
    thread = 0.93 + 0.05 * np.sin(rows * np.pi / 2) * np.sin(columns * np.pi / 2)
    light = thread * (1 + 0.02 * _noise(seed, 24))
    return np.clip(_mix(a, b, wide.astype(float)) * light[..., None], 0, 255).astype(np.uint8)


def checks(a: Colour, b: Colour, *, count: int) -> Picture:
    """Gingham: stripes both ways, crossings darkest."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE]
    share = ((rows * count // SIZE) % 2 + (columns * count // SIZE) % 2) / 2
    return _mix(a, b, share)


def felt(colour: Colour, seed: int) -> Picture:
    """Matt cloth or paint: fine speckles."""
    return textures.speckle(colour, amount=0.05, size=SIZE, seed=seed)


def _wood(colour: Colour, planks: int, contrast: float, seed: int) -> Picture:
    return textures.wood(colour, planks=planks, size=SIZE, contrast=contrast, seed=seed)


Surface = tuple[str, Callable[[], Picture]]

TABLES_EVALUATED: tuple[Surface, ...] = (
    ("beech", lambda: _wood((209, 183, 150), 5, 0.7, 11)),
    ("carrara", lambda: marble((196, 195, 192), (112, 116, 122), 3)),
    ("blue_cloth", lambda: stripes((200, 203, 206), (84, 114, 148), count=24, seed=4)),
    ("slate", lambda: felt((84, 90, 96), 6)),
    ("terracotta", lambda: tiles((190, 122, 88), (214, 204, 190), across=8, seed=7)),
    ("sage", lambda: felt((150, 168, 142), 8)),
)
_CHIPS: tuple[Colour, ...] = ((120, 84, 70), (70, 80, 84), (236, 228, 210))
TABLES_TRAINED: tuple[Surface, ...] = (
    ("walnut", lambda: _wood((124, 84, 56), 4, 1.3, 21)),
    ("terrazzo", lambda: terrazzo((190, 186, 178), _CHIPS, 22)),
    ("gingham", lambda: checks((206, 202, 196), (176, 68, 64), count=24)),
    ("sand", lambda: felt((206, 186, 152), 23)),
    ("oak", lambda: _wood((176, 138, 92), 7, 1.0, 24)),
    ("white", lambda: felt((204, 204, 201), 25)),
)
WALLS_EVALUATED: tuple[Surface, ...] = (
    ("fog", lambda: felt((176, 186, 192), 31)),
    ("brick", lambda: tiles((170, 104, 84), (206, 196, 186), across=8, seed=32)),
    ("mustard", lambda: felt((206, 170, 96), 33)),
    ("pine", lambda: felt((92, 118, 104), 34)),
)
WALLS_TRAINED: tuple[Surface, ...] = (
    ("cream", lambda: felt((222, 212, 192), 41)),
    ("navy", lambda: felt((78, 92, 120), 42)),
    ("panels", lambda: _wood((164, 132, 100), 8, 0.9, 43)),
    ("rose", lambda: felt((198, 158, 152), 44)),
)
