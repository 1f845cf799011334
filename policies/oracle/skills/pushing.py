"""On(thing, zone) for what is too flat to be taken: push it over the table.

Two open fingers stand behind the thing like a fork, so that it does not roll off, and
the hand leans over it where something stands behind. It is pushed in short legs, each
aimed anew from where the thing then is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from envs.goals import Predicate
from envs.scene import Scene, Thing
from policies.oracle.geometry import (
    DOWN,
    Array,
    Pose,
    cross,
    from_rotation_vector,
    hand_rotation,
    rotation_vector,
)
from policies.oracle.grasps import TIP
from policies.oracle.motion import OPEN, Waypoint
from policies.oracle.routes import over
from policies.oracle.skills.base import DONE, MOVING, Progress, Script
from policies.oracle.skills.picking import Grasping
from policies.oracle.view import View

FLAT = 3.0  # cost of the best grasp from which on a thing is pushed; boxes and bowls have < 2
ABOVE_TABLE = 0.004  # metres between fingertips and what the thing stands on
LEANS = (0.0, 0.35, 0.6, 0.8)  # radians, over the thing
GAPS = (OPEN, 0.05)  # metres between the fingers of the fork
BEHIND = (0.03, 0.015)  # metres behind the thing where the fingers come down
DOWN_FROM = 0.06
LEG = 0.06  # metres per leg
ROOM = 0.003  # overlap with neighbours that is put up with, metres


class Pushing:
    """Serves On for flat things and zones of the table."""

    def __init__(self, view: View) -> None:
        self._grasping = Grasping(view)

    def suits(self, view: View, goal: Predicate) -> bool:
        """Whether a goal is better pushed than carried."""
        scene: Scene = view.scene
        if goal.name != "On" or not scene.has_region(goal.args[1]):
            return False
        if scene.region(goal.args[1]).parent is not None:
            return False
        hints = scene.info.placement.get("grasps", {})
        if hints.get(goal.args[0], {}).get("kind") == "push":
            return True
        found = self._grasping.of(scene.thing(goal.args[0]))
        return not found or found[0].cost > FLAT

    def proceed(self, view: View, goal: Predicate, progress: Progress) -> Script:
        """Plan what comes next: come down behind the thing, or push on."""
        thing = view.scene.thing(goal.args[0])
        centre, _ = view.world.site(view.scene.region(goal.args[1]))
        if progress.stage == MOVING and not view.holds(goal) and self._behind(view, thing, centre):
            return self._push(view, thing, centre, view.eef.rot, progress)
        if progress.stage == MOVING:
            return self._leave(view, progress)
        return self._approach(view, thing, centre, progress)

    def failed(self, view: View, progress: Progress) -> bool:
        """A thing on the table is not lost."""
        return False

    def _behind(self, view: View, thing: Thing, centre: Array) -> bool:
        """Whether the hand still stands where it can push the thing towards the middle."""
        pos = view.pose(thing).pos
        way = _way(pos, centre)
        side = np.array([-way[1], way[0], 0.0])
        from_hand = pos - view.eef.pos
        return bool(abs(from_hand @ side) < 0.035 and from_hand @ way > 0.02)

    def _approach(self, view: View, thing: Thing, centre: Array, progress: Progress) -> Script:
        pos = view.pose(thing).pos
        way = _way(pos, centre)
        options = list(_forks(view, thing, way))
        if not options:  # nothing is free: the leaning fork, come what may
            options = [(_fork(view, way, LEANS[-2]), OPEN, BEHIND[-1])]
        rot, gap, behind = options[progress.attempt % len(options)]
        touch = _touching(view, thing, way, rot)
        start = Pose(touch.pos - behind * way, rot)
        above = start.shifted(-rot[:, 2] * DOWN_FROM)
        route = over(view, view.eef, above, gap=gap, label=f"reach behind {thing.name}")
        waypoints = (
            *route,
            Waypoint(pose=start, gap=gap, speed=0.7, straight=True, calm=0.3, label="descend"),
            *self._legs(view, thing, centre, rot, gap),
        )
        return Script(waypoints, replace(progress, stage=MOVING))

    def _push(
        self, view: View, thing: Thing, centre: Array, rot: Array, progress: Progress
    ) -> Script:
        return Script(
            self._legs(view, thing, centre, rot, _fork_gap(view)), replace(progress, stage=MOVING)
        )

    def _legs(
        self, view: View, thing: Thing, centre: Array, rot: Array, gap: float
    ) -> tuple[Waypoint, ...]:
        """One leg of pushing, from touching the thing on."""
        pos = view.pose(thing).pos
        way = _way(pos, centre)
        lean = float(np.arccos(np.clip(-rot[2, 2], -1.0, 1.0)))
        aimed = _nearest(rot, _fork(view, way, lean))
        touch = _touching(view, thing, way, aimed)
        left = float(np.linalg.norm((centre - pos)[:2]))
        end = touch.shifted(way * min(LEG, left + 0.004))
        return (Waypoint(pose=end, gap=gap, speed=0.55, blend=0.008, calm=0.3, label="push"),)

    def _leave(self, view: View, progress: Progress) -> Script:
        here = view.eef
        up = here.shifted(-here.rot[:, 2] * 0.02 + np.array([0.0, 0.0, 0.08]))
        waypoint = Waypoint(pose=up, gap=OPEN, speed=0.8, blend=0.02, label="leave")
        return Script((waypoint,), replace(progress, stage=DONE))


def _fork_gap(view: View) -> float:
    return OPEN if view.finger_gap > 0.065 else GAPS[1]


def _way(pos: Array, centre: Array) -> Array:
    way = (centre - pos) * np.array([1.0, 1.0, 0.0])
    return way / max(float(np.linalg.norm(way)), 1e-6)


def _fork(view: View, way: Array, lean: float) -> Array:
    """Orientation with both fingers across the way, leaning forwards over the thing."""
    side = cross(DOWN, way)
    approach = from_rotation_vector(side * -lean) @ DOWN
    return _nearest(view.eef.rot, hand_rotation(side, approach))


def _nearest(now: Array, rot: Array) -> Array:
    """The same orientation with the fingers swapped where that is less to turn."""
    swapped = rot * np.array([-1.0, -1.0, 1.0])
    here = np.linalg.norm(rotation_vector(rot @ now.T))
    return rot if here <= np.linalg.norm(rotation_vector(swapped @ now.T)) else swapped


def _forks(view: View, thing: Thing, way: Array) -> Iterator[tuple[Array, float, float]]:
    """Orientations, gaps and distances that fit behind a thing, upright and wide first."""
    for behind, gap, lean in itertools.product(BEHIND, GAPS, LEANS):
        rot = _fork(view, way, lean)
        touch = _touching(view, thing, way, rot)
        start = Pose(touch.pos - behind * way, rot)
        arm = view.reach(start)
        before = view.reach(start.shifted(-rot[:, 2] * DOWN_FROM))
        if arm is None or before is None:
            continue
        if max(view.hits(arm, gap=gap), view.hits(before, gap=gap)) <= ROOM:
            yield rot, gap, behind


def _touching(view: View, thing: Thing, way: Array, rot: Array) -> Pose:
    """The fork just behind a thing, fingertips above what it stands on."""
    low, high = view.solids(thing.geoms).bounds()
    pos = view.pose(thing).pos
    tip = TIP * abs(float(rot[2, 2])) + 0.009 * float(np.hypot(rot[0, 2], rot[1, 2]))
    z = float(low[:, 2].min()) + ABOVE_TABLE + tip
    corners = np.concatenate([low, high])
    radius = float(-((corners - pos) @ way).min())
    return Pose(np.array([*(pos - way * radius)[:2], z]), rot)
