"""Putting a thing down: where the hand lets it go, from above or through a side."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from envs.goals import Predicate
from policies.oracle.geometry import Array, Pose, turn_z
from policies.oracle.motion import CLOSED, OPEN, Waypoint
from policies.oracle.routes import is_free, over
from policies.oracle.skills.base import Held
from policies.oracle.skills.picking import twist
from policies.oracle.skills.targets import Target
from policies.oracle.view import View

ABOVE = 0.06  # metres above its place where a thing stops being in a hurry
LET_GO = 0.003  # metres above its rest at which a thing is let go
OPENING = 5  # steps until the fingers have left the thing
RETREAT = 0.08
TURNS = np.deg2rad([0, 15, -15, 30, -30, 45, -45, 60, -60, 75, -75, 90, -90])
RAISES = (0.0, 0.015, 0.03, 0.05, 0.07, 0.09)  # metres, where walls keep the hand out
FALLS = (0.0, 0.03, 0.06, 0.10, 0.15)  # the same where nothing better is found
# (metres of room around hand and load, whether a fall is put up with): tried in turn
WAYS = ((0.008, False), (0.002, False), (0.002, True))
UP = np.array([0.0, 0.0, 1.0])
# Through a side: metres outside where the way in begins, directions looked at, and how far
# out from the middle, and aside (by shares of the region's half size).
OUTSIDE = 0.22
SIDES = [np.array([np.cos(a), np.sin(a), 0.0]) for a in np.arange(8) * np.pi / 4]
DEPTHS, ASIDE = (0.95, 0.8, 0.5, 0.2), (0.0, 0.25, -0.25)
SIDE_TURNS = 7
QUICK = (9, 5)  # spots and turns that are looked at when it is only asked whether any fits


@dataclass(frozen=True)
class Place:
    """Where a thing goes.

    Attributes:
        hand: Grip site at the moment of letting go.
        gap: How wide the fingers may open there.
        cost: Lower is better.
        way: Unit direction in which the hand comes; down, or through a side.
        rim: Metres by which it comes in higher than it lets go.
    """

    hand: Pose
    gap: float
    cost: float
    way: Array
    rim: float = 0.0


class Places:
    """Where a thing can be let go so that a predicate holds.

    Args:
        view: The scene now; good for as long as it shows the same.
        goal: On or In.
        resting: Orientation in which the thing goes there.
        shared: True when other things have to go to the same place.
    """

    def __init__(self, view: View, goal: Predicate, resting: Array, *, shared: bool) -> None:
        self._view, self._target = view, Target(view, goal)
        self._resting, self._shared = resting, shared
        self._enters = self._target.enters

    def best(self, held: Held) -> Place | None:
        """The best place; a fall is put up with where there is no better one."""
        found = self._any(held, thorough=True)
        if found is None and self._enters and not self.roofed:
            found = self._from_above(held, *WAYS[-1], thorough=True)
        return found

    def fits(self, held: Held) -> bool:
        """Whether there is any place without a fall; looked at less closely."""
        return self._any(held, thorough=False) is not None

    def _any(self, held: Held, thorough: bool) -> Place | None:
        for room, drop in () if self.roofed else WAYS[:2]:
            found = self._from_above(held, room, drop, thorough)
            if found is not None:
                return found
        return self._through_side(held, thorough)

    @cached_property
    def roofed(self) -> bool:
        """Whether a fixture holds up above a region what is let down over it, however turned."""
        target = self._target
        if not self._enters:
            return False
        top = target.centre[2] + target.half[2]
        return all(
            target.rest(spot, turn_z(float(turn)) @ self._resting, fixtures_only=True) > top
            for turn in TURNS
            for spot in target.spots(shared=False)
        )

    @cached_property
    def _sides(self) -> list[Array]:
        """Level directions in which the thing alone can come in."""
        return [way for way in SIDES if self._is_open(way)] if self.roofed else []

    def _is_open(self, way: Array) -> bool:
        target = self._target
        spot = target.towards(way, 0.5)
        rest = target.rest_inside(spot, self._resting)
        if rest is None:
            return False
        inside = np.array([spot[0], spot[1], rest + LET_GO + target.rim])
        poses = (Pose(inside - way * d, self._resting) for d in np.linspace(0.0, OUTSIDE, 6))
        return all(
            self._view.hits(None, carried=target.thing, carried_pose=pose) == 0 for pose in poses
        )

    def _from_above(self, held: Held, room: float, drop: bool, thorough: bool) -> Place | None:
        best: Place | None = None
        spots, turns = self._target.spots(self._shared), len(TURNS)
        if not thorough:
            spots, turns = spots[: QUICK[0]], QUICK[1]
        level = spots if drop or not thorough else self._target.level(spots, self._resting)
        for number, spot in enumerate(level):
            for hand_rot, cost in _turns(self._view, spot, held)[:turns]:
                # The first spots are the better ones, a little.
                cost = cost + 0.02 * number
                if best is not None and cost >= best.cost:
                    continue
                found = _lower(self._view, self._target, spot, hand_rot, held, room, drop)
                if found is None:
                    continue
                place = replace(found, cost=found.cost + cost)
                if best is None or place.cost < best.cost:
                    best = place
                if not thorough:
                    return best
            if best is not None and not drop:
                return best
        return best

    def _through_side(self, held: Held, thorough: bool) -> Place | None:
        """A place behind a door or on a shelf, which the hand enters level."""
        depths, turns = (DEPTHS, SIDE_TURNS) if thorough else (DEPTHS[:2], QUICK[1])
        for way in self._sides:
            # Just inside is enough, and leaves most of the hand outside.
            for depth, aside in itertools.product(depths, ASIDE):
                spot = self._target.towards(way, depth, aside)
                for hand_rot, cost in _turns(self._view, spot, held)[:turns]:
                    place = _enter(self._view, self._target, spot, hand_rot, held, way)
                    if place is not None:
                        return replace(place, cost=cost)
        return None


def _turns(view: View, spot: Array, held: Held) -> list[tuple[Array, float]]:
    """Orientations of the hand over a spot, the least turned first.

    The thing keeps the side up that was up before it was taken, whatever it did in the hand.
    """
    upright = held.resting @ held.offset.rot.T
    options: list[tuple[float, int, Array]] = []
    for k, turn in enumerate(TURNS):
        rot = turn_z(float(turn)) @ upright
        wrist = abs(twist(view, Pose(spot, rot)))
        options.append((0.3 * abs(float(turn)) + 0.5 * max(0.0, wrist - 1.2), k, rot))
    options.sort(key=lambda o: o[:2])
    return [(rot, cost) for cost, _, rot in options]


def _lower(
    view: View,
    target: Target,
    spot: Array,
    hand_rot: Array,
    held: Held,
    room: float,
    drop: bool,
) -> Place | None:
    """Let the thing down over a spot; None when it cannot be."""
    rot = hand_rot @ held.offset.rot
    rest = target.rest(spot, rot)
    raises = FALLS if drop else RAISES if target.inside else RAISES[:2]
    for raised in raises:
        body = Pose(np.array([spot[0], spot[1], rest + LET_GO + raised]), rot)
        hand = Pose(body.pos - hand_rot @ held.offset.pos, hand_rot)
        if not drop and not target.holds_at(body.pos - LET_GO * UP):
            return None
        # A little higher, where the ground is no neighbour, there must be room around.
        up = room * UP
        if view.hits(
            hand.shifted(up), gap=held.width, carried=target.thing,
            carried_pose=body.shifted(up), margin=room,
        ):  # fmt: skip
            continue
        arm = view.reach(hand)
        if arm is None or view.hits(arm, gap=held.width, carried=target.thing, carried_pose=body):
            continue
        gap = _opening(view, target, arm, held)
        cost = 20 * raised + 5 * (OPEN - gap)
        # What falls should fall to the lowest place.
        cost += 30 * (rest - float(spot[2])) if drop else 0.0
        return Place(hand, gap, cost, -UP)
    return None


def _opening(view: View, target: Target, arm: Array, held: Held) -> float:
    """How wide the fingers may open: hitting something they push it, or the thing, away."""
    for gap in (OPEN, held.width + 0.03, held.width + 0.015):
        if view.hits(arm, gap=min(gap, OPEN), ignore=target.thing.geoms) < 0.001:
            break
    return min(gap, OPEN)


def _enter(
    view: View, target: Target, spot: Array, hand_rot: Array, held: Held, way: Array
) -> Place | None:
    rot = hand_rot @ held.offset.rot
    rest = target.rest_inside(spot, rot)
    if rest is None:
        return None
    body = np.array([spot[0], spot[1], rest + LET_GO])
    if not target.holds_at(body):
        return None
    hand = Pose(body - hand_rot @ held.offset.pos, hand_rot)
    before = hand.shifted(target.rim * UP)
    start = before.shifted(-OUTSIDE * way)
    if view.hits(hand, gap=held.width, carried=target.thing, carried_pose=hand @ held.offset):
        return None
    path = [Waypoint(pose=pose, gap=held.width, label="enter") for pose in (start, before)]
    if not is_free(view, start, path, held):
        return None
    arm = view.reach(hand)
    if arm is None:
        return None
    return Place(hand, _opening(view, target, arm, held), 0.0, way, rim=target.rim)


def put_down(view: View, held: Held, place: Place) -> tuple[Waypoint, ...]:
    """Waypoints that carry a thing to its place, let go and leave as they came."""
    aside = place.way[2] > -0.5
    before = place.hand.shifted(-(OUTSIDE if aside else ABOVE) * place.way + place.rim * UP)
    away = place.hand.shifted(-(OUTSIDE if aside else RETREAT) * place.way)
    route = over(view, view.eef, before, gap=CLOSED, held=held, label=f"carry {held.thing}")
    over_rim = Waypoint(
        pose=place.hand.shifted(place.rim * UP), gap=CLOSED, speed=0.6, straight=True, calm=0.2,
        label="enter",
    )  # fmt: skip
    return (
        *route,
        *((over_rim,) if place.rim else ()),
        Waypoint(pose=place.hand, gap=CLOSED, speed=0.6, straight=True, calm=0.2, label="lower"),
        Waypoint(pose=place.hand, gap=place.gap, dwell=OPENING, calm=0.1, label="let go"),
        Waypoint(pose=away, gap=place.gap, speed=0.8, blend=0.03, calm=0.5, label="leave"),
    )
