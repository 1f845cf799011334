"""Pictures for materials, drawn in code: wood, plaster, labels of groceries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]


def _noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise in [-1, 1] that repeats at the borders; `cells` bumps along each side."""
    coarse = rng.uniform(-1, 1, cells)
    out = coarse
    for axis in (0, 1):
        n, k = shape[axis], cells[axis]
        at = np.arange(n) * k / n
        i = at.astype(int)
        t = at - i
        t = t * t * (3 - 2 * t)
        low, high = np.take(out, i % k, axis), np.take(out, (i + 1) % k, axis)
        weight = t[:, None] if axis == 0 else t[None, :]
        out = low * (1 - weight) + high * weight
    return out


def wood(
    colour: Colour, *, planks: int = 5, size: int = 512, contrast: float = 1.0, seed: int = 0
) -> Picture:
    """Boards along the picture's width, with grain."""
    rng = np.random.Generator(np.random.PCG64(seed))
    rows, columns = np.mgrid[0:size, 0:size]
    board = rows * planks // size
    tone = rng.uniform(-0.05, 0.05, planks)[board]
    shift = (board * 131) % size
    warp = _noise(rng, (size, size), (planks * 3, 4))
    bands = np.zeros((size, size))
    for cells, weight in (((size // 8, 3), 0.5), ((size // 3, 6), 0.35), ((size // 2, 16), 0.25)):
        layer = _noise(rng, (size, size), cells)
        bands += weight * layer[rows, (columns + shift) % size]
    rings = np.sin((rows / size * planks * 7 + 2.2 * warp) * np.pi)
    light = 1 + contrast * (tone + 0.05 * bands + 0.018 * rings)
    seam = np.minimum(rows % (size // planks), (-rows - 1) % (size // planks))
    light *= np.where(seam < 1, 0.8, 1.0)
    return np.clip(np.asarray(colour)[None, None] * light[..., None], 0, 255).astype(np.uint8)


def speckle(colour: Colour, *, amount: float = 0.03, size: int = 256, seed: int = 1) -> Picture:
    """Plaster, bread or stone: a colour with soft blotches."""
    rng = np.random.Generator(np.random.PCG64(seed))
    light = 1 + amount * (
        _noise(rng, (size, size), (8, 8))
        + 0.7 * _noise(rng, (size, size), (32, 32))
        + 0.5 * _noise(rng, (size, size), (128, 128))
    )
    return np.clip(np.asarray(colour)[None, None] * light[..., None], 0, 255).astype(np.uint8)


def weave(colour: Colour, *, size: int = 256, strands: int = 8) -> Picture:
    """Wicker: strands over and under."""
    rows, columns = np.mgrid[0:size, 0:size]
    period = size / strands
    row, column = (rows // period).astype(int), (columns // (2 * period)).astype(int)
    over = (row + column) % 2 == 0
    across = np.sin(np.pi * (rows % period) / period)
    along = np.sin(np.pi * (columns % (2 * period)) / (2 * period))
    light = np.where(over, 0.55 + 0.5 * across * (0.7 + 0.3 * along), 0.45 + 0.3 * across)
    return np.clip(np.asarray(colour)[None, None] * light[..., None], 0, 255).astype(np.uint8)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, fill: Colour
) -> None:
    draw.text(
        at,
        text,
        fill=fill,
        font=_font(size),
        anchor="mm",
        stroke_width=max(1, size // 22),
        stroke_fill=fill,
    )


def band_label(
    background: Colour, band: Colour, text: str, ink: Colour, *, repeats: int = 3
) -> Picture:
    """A label that goes around a can or bottle."""
    image = Image.new("RGB", (512, 192), background)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 512, 14), band)
    draw.rectangle((0, 178, 512, 192), band)
    for k in range(repeats):
        x = 512 * (k + 0.5) / repeats
        draw.ellipse((x - 66, 34, x + 66, 158), fill=band)
        draw.ellipse((x - 60, 40, x + 60, 152), outline=background, width=3)
        _text(draw, (x, 96), text, 40, ink)
    return np.asarray(image)


def carton(
    background: Colour,
    accent: Colour,
    lines: Sequence[str],
    ink: Colour,
    *,
    sun: Colour | None = None,
) -> Picture:
    """The four sides of a box, left to right: front, right, back, left; below them its top."""
    image = Image.new("RGB", (1024, 512), background)
    draw = ImageDraw.Draw(image)
    for face in range(4):
        left = face * 256
        draw.rectangle((left, 300, left + 256, 384), accent)
        draw.polygon([(left, 300), (left + 256, 250), (left + 256, 302)], accent)
        if face % 2 == 0:
            for k, line in enumerate(lines):
                _text(draw, (left + 128, 60 + 62 * k), line, 60 if k == 0 else 40, ink)
            if sun is not None:
                draw.ellipse((left + 70, 190, left + 186, 306), sun)
        else:
            _text(draw, (left + 128, 60), lines[0], 44, ink)
            for k in range(5):
                draw.line((left + 60, 120 + 24 * k, left + 196, 120 + 24 * k), accent, 6)
    _lid(draw, background, accent, lines[0], ink)
    return np.asarray(image)


def _lid(
    draw: ImageDraw.ImageDraw, background: Colour, accent: Colour, text: str, ink: Colour
) -> None:
    """The top of a box, in the lower left 256 x 128 of its picture."""
    draw.rectangle((0, 384, 256, 512), accent)
    draw.rectangle((10, 394, 246, 502), outline=background, width=4)
    draw.rounded_rectangle((24, 416, 232, 480), 14, fill=background)
    _text(draw, (128, 448), text, 38, ink)


def flutes(colour: Colour, *, ribs: int = 24) -> Picture:
    """Upright ribs of a ramekin."""
    columns = np.arange(512)
    light = 0.90 + 0.10 * np.sin(2 * np.pi * ribs * columns / 512)
    light = np.broadcast_to(light, (64, 512))
    return np.clip(np.asarray(colour)[None, None] * light[..., None], 0, 255).astype(np.uint8)


def cloth(colour: Colour, *, size: int = 256) -> Picture:
    """A woven mat with a border."""
    rows, columns = np.mgrid[0:size, 0:size]
    light = 1 + 0.06 * np.sin(rows * np.pi / 3) * np.sin(columns * np.pi / 3)
    edge = np.minimum(np.minimum(rows, columns), size - 1 - np.maximum(rows, columns))
    light = np.where((edge > 12) & (edge < 22), light * 1.35, light)
    return np.clip(np.asarray(colour)[None, None] * light[..., None], 0, 255).astype(np.uint8)
