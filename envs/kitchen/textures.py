"""Pictures for kitchens, drawn in code: tiles, bricks, marble, brushed metal, glass."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.textures import Colour, Picture, speckle, wood

__all__ = [
    "Picture",
    "bricks",
    "brushed",
    "marble",
    "paint",
    "speckle",
    "terrazzo",
    "tiles",
    "wood",
]

Array = NDArray[np.float64]


@cache
def _blotches(size: int, cells: int, seed: int) -> Array:
    """Smooth noise in [-1, 1], [size, size], that repeats at the borders."""
    rng = np.random.Generator(np.random.PCG64(seed))
    coarse = rng.uniform(-1, 1, (cells, cells))
    at = np.arange(size) * cells / size
    i, t = at.astype(int), at - at.astype(int)
    t = t * t * (3 - 2 * t)
    rows = coarse[i] * (1 - t[:, None]) + coarse[(i + 1) % cells] * t[:, None]
    return rows[:, i] * (1 - t) + rows[:, (i + 1) % cells] * t


def _shaded(colour: Colour, light: Array) -> Picture:
    return np.clip(np.asarray(colour) * light[..., None], 0, 255).astype(np.uint8)


def paint(colour: Colour, *, size: int = 64) -> Picture:
    """Satin paint: almost one colour."""
    return _shaded(colour, 1 + 0.006 * _blotches(size, 8, 3))


def tiles(
    colour: Colour,
    grout: Colour,
    *,
    columns: int,
    rows: int,
    staggered: bool = False,
    size: int = 256,
    variation: float = 0.03,
    seed: int = 4,
) -> Picture:
    """Glazed tiles with grout lines; `staggered` shifts every other row by half a tile."""
    rng = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:size, 0:size]
    row = y * rows // size
    shift = np.where(row % 2, size / columns / 2, 0.0) if staggered else 0.0
    across = (x + shift) * columns / size
    column = across.astype(int) % columns
    tone = rng.uniform(-variation, variation, (rows, columns))[row, column]
    edge = np.minimum(_to_edge(across) * size / columns, _to_edge(y * rows / size) * size / rows)
    light = 1 + tone + 0.04 * np.clip(1 - edge / 6, 0, 1)
    picture = _shaded(colour, light)
    picture[edge < 1.6] = grout
    return picture


def _to_edge(position: Array) -> Array:
    part = position - np.floor(position)
    return np.minimum(part, 1 - part)


def bricks(colour: Colour, mortar: Colour, *, size: int = 256, seed: int = 6) -> Picture:
    """Rough bricks, eight rows of four."""
    flat = tiles(
        colour, mortar, columns=4, rows=8, staggered=True, size=size, variation=0.16, seed=seed
    )
    light = 1 + 0.10 * _blotches(size, 32, seed) + 0.06 * _blotches(size, 96, seed + 1)
    return np.clip(flat * light[..., None], 0, 255).astype(np.uint8)


def marble(colour: Colour, vein: Colour, *, size: int = 256, seed: int = 9) -> Picture:
    """Polished stone with thin veins."""
    warp = _blotches(size, 4, seed) + 0.5 * _blotches(size, 12, seed + 1)
    y, x = np.mgrid[0:size, 0:size] / size
    wave = np.abs(np.sin(2 * np.pi * (x + y) + 2.4 * warp))
    strength = np.clip(1 - wave / 0.10, 0, 1) * (0.5 + 0.5 * _blotches(size, 6, seed + 2))
    strength = 0.55 * np.clip(strength, 0, 1)[..., None]
    base = np.asarray(colour) * (1 + 0.02 * _blotches(size, 8, seed + 3))[..., None]
    return np.clip(base * (1 - strength) + np.asarray(vein) * strength, 0, 255).astype(np.uint8)


def terrazzo(
    colour: Colour, chips: tuple[Colour, ...], *, size: int = 256, seed: int = 2
) -> Picture:
    """Stone chips in cement."""
    picture = _shaded(colour, 1 + 0.015 * _blotches(size, 24, seed))
    for k, chip in enumerate(chips):
        mask = _blotches(size, 40, seed + 11 * (k + 1)) > 0.62
        picture[mask] = chip
    return picture


def brushed(colour: Colour, *, size: int = 128, seed: int = 5) -> Picture:
    """Steel with fine lines along the picture's width."""
    rng = np.random.Generator(np.random.PCG64(seed))
    lines = rng.normal(0, 0.018, (size, 1)) + rng.normal(0, 0.006, (size, size))
    return _shaded(colour, 1 + lines)
