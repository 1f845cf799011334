"""Where things start: rectangles on the table, drawn with rejection.

A start is a function of `DRAWS` (of the suites), the task, whether it is randomised, and a
seed alone; the run's seed has no part in it, because starts are kept only if the oracle
solves them (`envs.bimanual.seeds`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.bimanual.room import TABLE_TOP_Z
from envs.scene import Scene

Array = NDArray[np.float64]
Range = tuple[float, float]
Place = tuple[float, float, float]  # x, y, yaw

DROP = 0.002  # metres above rest at which things are let go, as in envs.tabletop
GAP = 0.03  # metres between the circles around two things: an open finger fits between
TRIES = 4000


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one thing (free or fixed) may start.

    Attributes:
        thing: Its name.
        x, y: Metres from the middle of the table.
        yaw: Radians.
        either_side: True to mirror x with probability 1/2.
        swaps: Name of a group; the things of a group change slots at random.
    """

    thing: str
    x: Range
    y: Range
    yaw: Range = (0.0, 0.0)
    either_side: bool = False
    swaps: str | None = None


def generator(*words: object) -> np.random.Generator:
    """A generator that depends on words alone."""
    text = "\x1f".join(map(str, words))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def draw(scene: Scene, slots: Sequence[Slot], rng: np.random.Generator) -> dict[str, Place]:
    """Draw a place for every thing of a task, none overlapping.

    Raises:
        RuntimeError: None of many arrangements is free of overlap.
    """
    for _ in range(TRIES):
        places: dict[str, Place] = {}
        things = _assigned(slots, rng)
        for slot, thing in zip(slots, things, strict=True):
            x = float(rng.uniform(*slot.x))
            if slot.either_side and rng.random() < 0.5:
                x = -x
            places[thing] = (x, float(rng.uniform(*slot.y)), float(rng.uniform(*slot.yaw)))
        if _apart(scene, places):
            return places
    raise RuntimeError(
        f"scene {scene.info.id}: none of {TRIES} arrangements of "
        f"{', '.join(s.thing for s in slots)} is free of overlap. Widen the slots of the task in "
        f"envs/bimanual/tasks.py."
    )


def _assigned(slots: Sequence[Slot], rng: np.random.Generator) -> list[str]:
    """The thing that takes each slot, swapping groups shuffled."""
    out = [slot.thing for slot in slots]
    for group in sorted({slot.swaps for slot in slots if slot.swaps}):
        members = [i for i, slot in enumerate(slots) if slot.swaps == group]
        for i, j in zip(members, rng.permutation(members), strict=True):
            out[i] = slots[int(j)].thing
    return out


def _apart(scene: Scene, places: Mapping[str, Place]) -> bool:
    names = list(places)
    for i, a in enumerate(names):
        for b in names[:i]:
            away = np.hypot(places[a][0] - places[b][0], places[a][1] - places[b][1])
            if away < scene.thing(a).radius + scene.thing(b).radius + GAP:
                return False
    return True


def qpos(scene: Scene, places: Mapping[str, Place], table: float) -> Array:
    """Arms at home, free things at their places on a table whose top is `table` lower or higher."""
    out = np.zeros(scene.model.nq)
    for robot in scene.info.robots:
        for joint, q in zip(
            (*robot.joints, *robot.gripper_joints),
            (*robot.init_qpos, *robot.init_gripper_qpos),
            strict=True,
        ):
            out[scene.qpos_address(joint)] = q
    for name, (x, y, yaw) in places.items():
        thing = scene.thing(name)
        if thing.free_joint is None:
            continue
        at = scene.qpos_address(thing.free_joint)
        z = TABLE_TOP_Z + table - thing.bottom + DROP
        out[at : at + 7] = (x, y, z, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
    return out
