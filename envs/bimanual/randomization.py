"""What `bimanual_randomized` varies: background, clutter, light, table height.

All of it ends as poses of bodies without a joint, which every record holds; the record's
`perturbation` says the same in words and numbers, for people.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from envs.bimanual import clutter, surfaces
from envs.bimanual.room import (
    AWAY,
    LAMP_EYE,
    TABLE_LOWEST,
    TABLE_TOP_Z,
    TABLES,
    TINTS,
    WALLS,
    home,
    lamp_pose,
)
from envs.scene import Pose
from envs.tabletop.stage import yaw_quat
from wamsim.errors import UnknownName, nearest

# RoboTwin's switches of domain_randomization: random_background, cluttered_table, random_light,
# random_table_height.
PARTS = ("background", "clutter", "light", "table_height")

# RoboTwin's demo_randomized
CLEAN_BACKGROUND_RATE = 0.02
CLUTTER_COUNT = 10
CLUTTER_TRIES = 60  # places tried for each thing before it is left out
# Edges of the table that no task uses: (x range, y range), metres.
BACK = ((-0.58, 0.58), (0.225, 0.335))
FRONT = ((-0.40, 0.40), (-0.335, -0.265))
BETWEEN = 0.008  # metres between the circles around two things
# The lamp: on a sphere around the table, on the head camera's side of the vertical.
LAMP_DISTANCE = (2.6, 3.6)
LAMP_AZIMUTH_DEG = (-160.0, -20.0)
LAMP_ELEVATION_DEG = (52.0, 80.0)
TINT_RATE = 0.6  # of each coloured lamp to be on
TINT_DISTANCE = (1.0, 1.9)  # metres: light falls with the square


def _still(x: float, y: float, z: float) -> Pose:
    return np.array([x, y, z]), np.array([1.0, 0.0, 0.0, 0.0])


def clean() -> tuple[dict[str, Pose], float, dict[str, Any]]:
    """Poses of everything that could vary, table height and record, when nothing does."""
    return _poses(TABLES[0][0], WALLS[0][0], 0.0, {}, LAMP_EYE, {}), 0.0, {}


def parts(text: str | None) -> frozenset[str]:
    """Read which parts vary, e.g. "background,light"; None is all of them.

    Raises:
        UnknownName: There is no such part; with the nearest.
    """
    if text is None:
        return frozenset(PARTS)
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise UnknownName(
            f"randomization {text!r} names no part. Parts: {', '.join(PARTS)}; where nothing "
            f"shall vary, choose bimanual_clean."
        )
    for part in found:
        if part not in PARTS:
            hint = f"Parts: {', '.join(PARTS)}."
            raise nearest(part, PARTS, kind="randomization of bimanual", hint=hint)
    return frozenset(found)


def draw(
    rng: np.random.Generator,
    *,
    evaluated: bool,
    varied: frozenset[str] = frozenset(PARTS),
) -> tuple[dict[str, Pose], float, dict[str, Any]]:
    """Draw an episode's surroundings.

    Args:
        rng: Where everything comes from.
        evaluated: True for the pool of surfaces that no demonstration shows.
        varied: Which of `PARTS`; the rest is as in `clean`. What varies is drawn as it would
            be if all did.

    Returns:
        Poses by body, how much the table is lower or higher (metres), and the record.
    """
    tops = surfaces.TABLES_EVALUATED if evaluated else surfaces.TABLES_TRAINED
    walls = surfaces.WALLS_EVALUATED if evaluated else surfaces.WALLS_TRAINED
    top, wall = tops[rng.integers(len(tops))][0], walls[rng.integers(len(walls))][0]
    if rng.random() < CLEAN_BACKGROUND_RATE:
        top, wall = TABLES[0][0], WALLS[0][0]
    height = float(rng.uniform(TABLE_LOWEST, 0.0))
    placed = _clutter(rng)
    eye = _around(rng, LAMP_DISTANCE)
    tints = {name: _around(rng, TINT_DISTANCE) for name in TINTS if rng.random() < TINT_RATE}
    if "background" not in varied:
        top, wall = TABLES[0][0], WALLS[0][0]
    if "table_height" not in varied:
        height = 0.0
    if "clutter" not in varied:
        placed = {}
    if "light" not in varied:
        eye, tints = LAMP_EYE, {}
    record = {
        "table": top,
        "wall": wall,
        "table_height": height,
        "lamp": [round(v, 4) for v in eye],
        "tints": {name: [round(v, 4) for v in at] for name, at in tints.items()},
        "clutter": {name: [round(v, 4) for v in at] for name, at in placed.items()},
    }
    return _poses(top, wall, height, placed, eye, tints), height, record


def _around(rng: np.random.Generator, distances: tuple[float, float]) -> tuple[float, float, float]:
    distance = rng.uniform(*distances)
    azimuth = np.deg2rad(rng.uniform(*LAMP_AZIMUTH_DEG))
    elevation = np.deg2rad(rng.uniform(*LAMP_ELEVATION_DEG))
    flat = distance * np.cos(elevation)
    return (
        float(flat * np.cos(azimuth)),
        float(flat * np.sin(azimuth)),
        float(TABLE_TOP_Z + distance * np.sin(elevation)),
    )


def _clutter(rng: np.random.Generator) -> dict[str, tuple[float, float, float]]:
    """Places (x, y, yaw) of up to ten things along the edges of the table."""
    names = list(clutter.ALL)
    order = [names[int(i)] for i in rng.permutation(len(names))][:CLUTTER_COUNT]
    out: dict[str, tuple[float, float, float]] = {}
    for name in order:
        radius = clutter.ALL[name][1]
        for _ in range(CLUTTER_TRIES):
            front = name in clutter.LOW and rng.random() < 0.5
            (x0, x1), (y0, y1) = FRONT if front else BACK
            x, y = float(rng.uniform(x0, x1)), float(rng.uniform(y0, y1))
            free = all(
                np.hypot(x - a, y - b) > radius + clutter.ALL[other][1] + BETWEEN
                for other, (a, b, _) in out.items()
            )
            inside = abs(y) + min(radius, 0.05) < 0.375 and abs(y) - radius > 0.19
            if free and inside:
                out[name] = (x, y, float(rng.uniform(-np.pi, np.pi)))
                break
    return out


def _poses(
    top: str,
    wall: str,
    height: float,
    placed: dict[str, tuple[float, float, float]],
    eye: tuple[float, float, float],
    tints: dict[str, tuple[float, float, float]],
) -> dict[str, Pose]:
    out: dict[str, Pose] = {"table": _still(0, 0, TABLE_TOP_Z + height), "lamp": lamp_pose(eye)}
    for kind, pool, chosen in (("top", TABLES, top), ("wall", WALLS, wall)):
        for name, _ in pool:
            pos, quat = home(f"{kind}_{name}")
            at = np.array(pos if name == chosen else AWAY)
            if name == chosen and kind == "top":
                at[2] += height
            out[f"{kind}_{name}"] = at, np.array(quat)
    for name in TINTS:
        out[f"tint_{name}"] = lamp_pose(tints[name]) if name in tints else _still(*AWAY)
    for name, (_, _, middle) in clutter.ALL.items():
        if name in placed:
            x, y, yaw = placed[name]
            pos = np.array([x, y, TABLE_TOP_Z + height + middle])
            out[name] = pos, np.asarray(yaw_quat(yaw))
        else:
            out[name] = _still(*AWAY)
    return out
