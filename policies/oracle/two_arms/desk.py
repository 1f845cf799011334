"""The present with both arms, and paths from it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.oracle.geometry import Array, Pose, from_rotation_vector, rotation_vector
from policies.oracle.two_arms.arms import Arms
from policies.oracle.two_arms.script import Script

UP = np.array([0.0, 0.0, 1.0])
LINE_STEP = 0.02  # metres between solutions along a straight line
SLOW = 0.45  # share of the speed near things
CARRY = 0.75  # and with a thing in the hand


@dataclass(frozen=True)
class Plan:
    """A script with what it means.

    Attributes:
        actions: [T, 14].
        label: For people who debug.
    """

    actions: Array
    label: str


@dataclass
class Desk:
    """What skills work with: the present, and what the servos are told."""

    arms: Arms
    joints: Array  # [2, 6]
    opening: Array  # [2]

    def script(self) -> Script:
        """A script that begins now."""
        return Script(self.joints, self.opening)

    # -------------------------------------------------------------------- paths

    def line(self, arm: int, start: Array, end: Pose) -> list[Array] | None:
        """Joint waypoints of a straight line of the hand; None when it leaves its reach."""
        at = self.arms.hand(arm, start)
        away, turn = end.pos - at.pos, rotation_vector(end.rot @ at.rot.T)
        count = max(
            1, int(np.ceil(max(np.linalg.norm(away) / LINE_STEP, np.abs(turn).max() / 0.2)))
        )
        out: list[Array] = []
        q = start
        for k in range(1, count + 1):
            share = k / count
            pose = Pose(at.pos + share * away, from_rotation_vector(share * turn) @ at.rot)
            found = self.arms.reach(arm, pose, q)
            if found is None or np.abs(found - q).max() > 0.7:
                return None
            q = found
            out.append(q)
        return out

    def clear_path(
        self,
        arm: int,
        start: Array,
        end: Array,
        carried: Mapping[str, Pose],
        others: Mapping[int, Array],
        ignore: Sequence[int] = (),
    ) -> list[Array]:
        """Joint waypoints through free air, `end` being the last; straight where nothing is.

        Args:
            arm: Who moves.
            start, end: Joints.
            carried: What is in the hand: thing -> pose relative to the grip site.
            others: Joints of the other arm.
            ignore: Geoms whose contacts do not count.
        """
        if self._free(arm, [start, end], carried, others, ignore):
            return [end]
        for height in (0.93, 1.0, 1.08):
            middle: list[Array] = []
            for q in (start, end):
                pose = self.arms.hand(arm, q)
                if pose.pos[2] < height:
                    lifted = self.arms.reach(arm, Pose(_at_height(pose.pos, height), pose.rot), q)
                    if lifted is not None:
                        middle.append(lifted)
            if middle and self._free(arm, [start, *middle, end], carried, others, ignore):
                return [*middle, end]
        return [end]

    def _free(
        self,
        arm: int,
        points: Sequence[Array],
        carried: Mapping[str, Pose],
        others: Mapping[int, Array],
        ignore: Sequence[int],
    ) -> bool:
        for a, b in itertools.pairwise(points):
            count = max(2, int(np.ceil(np.abs(b - a).max() / 0.22)))
            for k in range(1, count):
                q = a + (b - a) * k / count
                if self.blocked(arm, q, carried, others, ignore):
                    return False
        return True

    def blocked(
        self,
        arm: int,
        q: Array,
        carried: Mapping[str, Pose],
        others: Mapping[int, Array],
        ignore: Sequence[int] = (),
        opening: float | None = None,
    ) -> bool:
        """Whether an arm with something in its hand would overlap something."""
        hand = self.arms.hand(arm, q)
        return self.arms.touches(
            {arm: q, **others},
            opening=None if opening is None else {arm: opening},
            ignore=ignore,
            carried={name: hand @ offset for name, offset in carried.items()},
        )

    def offset(self, arm: int, thing: str) -> Pose:
        """Pose of a thing relative to the grip site, now."""
        self.arms.reset()
        return self.arms.hand(arm).inverse() @ self.arms.thing(thing)

    def geoms(self, thing: str) -> tuple[int, ...]:
        """Collision geoms of a thing."""
        return self.arms.scene.thing(thing).geoms


def _at_height(pos: Array, z: float) -> Array:
    return np.array([pos[0], pos[1], z])


def back(pose: Pose, distance: float) -> Pose:
    """A pose moved back along the approach, and a little up where that is nearly level."""
    return Pose(pose.pos - distance * pose.rot[:, 0], pose.rot)
