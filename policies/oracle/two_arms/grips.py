"""How a hand takes a thing, and where it then has to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from envs.scene import Scene
from policies.oracle.geometry import Array, Pose, from_rotation_vector
from policies.oracle.two_arms.arms import hand_pose_rotation

# Turns of the approach about the closing axis, radians: fingers stay flat on what they take.
TILTS = (0.0, 0.3, -0.3, 0.6, -0.6, 0.9, -0.9)
FACE = 0.0224  # metres from a finger's slide position to half the gap, closed
PLAY = 0.011  # metres on either side of what is taken, where there is room
WIDEST = 0.057  # slide position of an open finger


@dataclass(frozen=True, eq=False)
class Grip:
    """A way to take a thing, in the thing's own frame.

    Attributes:
        hand: Pose of the grip site relative to the thing.
        width: Metres between the pads when closed on it.
        cost: Preference, lower first.
    """

    hand: Pose
    width: float
    cost: float

    @property
    def opening(self) -> float:
        """How far to open before, 0 to 1: with some play, or all the way."""
        slide = FACE + self.width / 2 + PLAY
        return float(np.clip((slide - FACE) / (WIDEST - FACE), 0.0, 1.0))

    @property
    def slide(self) -> float:
        """Position of the finger slides at that opening."""
        return FACE + self.opening * (WIDEST - FACE)


def grips(scene: Scene, name: str) -> Iterator[Grip]:
    """All ways to take a thing: its hints, either way round, tilted."""
    for rank, hint in enumerate(hints(scene, name)):
        pos, closing, approach, width = hint
        for tilt in TILTS:
            turned = from_rotation_vector(closing * tilt) @ approach
            for sign in (1.0, -1.0):
                yield Grip(
                    hand=Pose(pos, hand_pose_rotation(sign * closing, turned)),
                    width=width,
                    cost=0.15 * rank + 0.8 * abs(tilt),
                )


def hints(scene: Scene, name: str) -> Iterator[tuple[Array, Array, Array, float]]:
    """Position, closing direction, approach and width of each hint of a scene."""
    data = scene.info.placement.get("grips", {}).get(name, ())
    if isinstance(data, dict):
        if data.get("kind") != "rim":
            return
        for k in range(int(data["turns"])):
            angle = 2 * np.pi * k / data["turns"]
            out = np.array([np.cos(angle), np.sin(angle), 0.0])
            pos = data["radius"] * out + np.array([0.0, 0.0, data["height"]])
            yield pos, out, np.array([0.0, 0.0, -1.0]), float(data["width"])
        return
    for hint in data:
        yield (
            np.array(hint["pos"]),
            np.array(hint["closing"]),
            np.array(hint["approach"]),
            float(hint["width"]),
        )
