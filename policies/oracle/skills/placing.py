"""Putting a thing down: where its body must be, and how the hand gets it there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from envs.goals import Predicate
from envs.scene import Region, Thing
from policies.oracle.geometry import Array, Pose, rotation_vector, turn_z
from policies.oracle.motion import CLOSED, OPEN, Waypoint
from policies.oracle.routes import over
from policies.oracle.skills.base import Held
from policies.oracle.skills.picking import twist
from policies.oracle.view import View

ABOVE = 0.06  # metres above its place where a thing stops being in a hurry
LET_GO = 0.003  # metres above its rest at which a thing is let go
OPENING = 5  # steps until the fingers have left the thing
RETREAT = 0.08
TURNS = np.deg2rad([0, 15, -15, 30, -30, 45, -45, 60, -60, 75, -75, 90, -90])
RAISES = (0.0, 0.015, 0.03, 0.05, 0.07, 0.09)  # metres, where walls keep the hand out
FALLS = (0.0, 0.03, 0.06, 0.10, 0.15)  # the same where nothing better is found
ON_THING = np.array([0.012, 0.012])  # metres; On allows 0.03 between the origins
EDGE = 0.012  # metres higher than the lowest place: there a thing would stand on an edge
# (metres of room around hand and load, whether a fall is put up with): tried in turn
CRAMPED = 0.015  # metres above the floor of a region that a thing should come to rest in
WAYS = ((0.008, False), (0.002, False), (0.002, True))
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Place:
    """Where a thing goes.

    Attributes:
        hand: Grip site at the moment of letting go.
        thing: The thing's pose then.
        gap: How wide the fingers may open there.
        cost: Lower is better.
    """

    hand: Pose
    thing: Pose
    gap: float
    cost: float


def find_place(
    view: View, goal: Predicate, held: Held, *, shared: bool = False, thorough: bool = True
) -> Place | None:
    """Find where to let go of a thing so that a predicate holds.

    Args:
        view: The scene now.
        goal: On or In.
        held: The thing in the hand.
        shared: True when other things have to go to the same place.
        thorough: True to compare all turns, and to put up with a fall where nothing
            better is found; False to stop at the first that fits.
    """
    best: Place | None = None
    spots = list(_spots(view, goal, shared))
    ways = WAYS if thorough and goal.name == "In" else WAYS[:2]
    for room, drop in ways:
        level = spots if drop else _level(view, held, spots, _extent(view, goal))
        for number, spot in enumerate(level):
            for hand_rot, cost in _turns(view, spot, held):
                if best is not None and cost >= best.cost:
                    continue
                found = _lower(view, goal, spot, hand_rot, held, room, drop)
                if found is None:
                    continue
                # The first spots are the better ones, a little.
                place = replace(found, cost=found.cost + cost + 0.02 * number)
                if best is None or place.cost < best.cost:
                    best = place
                if not thorough:
                    return best
            if best is not None and not drop:
                return best
    return best


def _level(view: View, held: Held, spots: list[Array], half: Array) -> Iterator[Array]:
    """The spots in order, without those where a thing would come to rest on an edge.

    Where all but the first stand high, places between them are looked at as well.
    """
    yield spots[0]
    thing = view.scene.thing(held.thing)

    def rest(spot: Array) -> float:
        rot, _ = next(_turns(view, spot, held))
        return _rest(view, thing, spot, rot @ held.offset.rot)

    found = [(rest(spot), k, spot) for k, spot in enumerate(spots)]
    lowest = min(found)
    for share in (0.2, 0.1):  # halve the distance between spots twice
        for angle in np.arange(8) * np.pi / 4:
            step = np.array([*(share * half * [np.cos(angle), np.sin(angle)]), 0.0])
            spot = lowest[2] + step
            found.append((rest(spot), len(found), spot))
        lowest = min(found)
    for height, k, spot in sorted(found, key=lambda f: f[1]):
        if k and height < lowest[0] + EDGE:
            yield spot


def is_cramped(view: View, goal: Predicate, thing: Thing) -> bool:
    """Whether a thing, let down into a region as it now lies, stays above its floor."""
    if goal.name != "In" or not view.scene.has_region(goal.args[1]):
        return False
    pose = view.pose(thing)
    centre, rotation = view.world.site(view.scene.region(goal.args[1]))
    half = _half(view.scene.region(goal.args[1]), rotation)
    low, _ = view.solids(thing.geoms).bounds()
    below = float(pose.pos[2] - low[:, 2].min())
    floor = float(centre[2] - half[2])
    spots = _spots(view, goal, shared=False)
    return min(_rest(view, thing, spot, pose.rot) for spot in spots) - below > floor + CRAMPED


def _rest(view: View, thing: Thing, spot: Array, rot: Array) -> float:
    """Height of a thing's body origin when it is let down over a spot."""
    start = Pose(np.array([spot[0], spot[1], float(spot[2]) + 0.30]), rot)
    return view.rest_height(thing, start, float(spot[2]) - 0.10)


def _turns(view: View, spot: Array, held: Held) -> Iterator[tuple[Array, float]]:
    """Orientations of the hand over a spot, the least turned first.

    The thing keeps the side up that was up before it was taken, whatever it did in the hand.
    """
    now = view.eef.rot
    upright = held.resting @ held.offset.rot.T
    yaw = rotation_vector(now @ upright.T)[2]
    options: list[tuple[float, int, Array]] = []
    for k, turn in enumerate(TURNS):
        rot = turn_z(float(turn + yaw)) @ upright
        wrist = abs(twist(view, Pose(spot, rot)))
        options.append((0.3 * abs(float(turn)) + 0.5 * max(0.0, wrist - 1.2), k, rot))
    options.sort(key=lambda o: o[:2])
    for cost, _, rot in options:
        yield rot, cost


def _spots(view: View, goal: Predicate, shared: bool) -> Iterator[Array]:
    """Horizontal places of the thing's body origin [3], best first; z is the target's."""
    scene, half = view.scene, _extent(view, goal)
    if scene.has_thing(goal.args[1]):
        centre = view.pose(scene.thing(goal.args[1])).pos
    else:
        centre, _ = view.world.site(scene.region(goal.args[1]))
    # Rings around the centre, by their share of the way to the edge; where others will
    # come as well, the middle is the last choice.
    for share in (0.8, 0.65, 0.5, 0.3, 0.0) if shared else (0.0, 0.35, 0.65):
        for angle in np.arange(8 if share else 1) * np.pi / 4:
            yield centre + np.array([*(share * half * [np.cos(angle), np.sin(angle)]), 0.0])


def _extent(view: View, goal: Predicate) -> Array:
    """Half sizes [2] of where the body origin may be, horizontally."""
    if view.scene.has_thing(goal.args[1]):
        return ON_THING
    region = view.scene.region(goal.args[1])
    return _half(region, view.world.site(region)[1])[:2]


def _half(region: Region, rotation: Array) -> Array:
    return np.abs(rotation @ np.asarray(region.size))


def _lower(
    view: View, goal: Predicate, spot: Array, hand_rot: Array, held: Held, room: float,
    drop: bool,
) -> Place | None:
    """Let the thing down over a spot; None when it cannot be."""
    thing, offset = view.scene.thing(held.thing), held.offset
    rot = hand_rot @ offset.rot
    rest = _rest(view, thing, spot, rot)
    raises = FALLS if drop else RAISES if goal.name == "In" else RAISES[:2]
    for raised in raises:
        body = Pose(np.array([spot[0], spot[1], rest + LET_GO + raised]), rot)
        hand = Pose(body.pos - hand_rot @ offset.pos, hand_rot)
        if not drop and not _inside(view, goal, body.pos - LET_GO * UP):
            break
        now = view.finger_gap
        # A little higher, where the ground is no neighbour, there must be room around.
        up = room * UP
        if view.hits(
            hand.shifted(up), gap=now, carried=thing, carried_pose=body.shifted(up), margin=room
        ):
            continue
        arm = view.reach(hand)
        if arm is None or view.hits(arm, gap=now, carried=thing, carried_pose=body):
            continue
        # Fingers that hit something as they open push it, or the thing, away.
        for gap in (OPEN, min(now + 0.03, OPEN), min(now + 0.015, OPEN)):
            if view.hits(arm, gap=gap, ignore=thing.geoms) < 0.001:
                break
        cost = 20 * raised + 5 * (OPEN - gap)
        # What falls should fall to the lowest place.
        return Place(hand, body, gap, cost + (30 * (rest - float(spot[2])) if drop else 0.0))
    return None


def _inside(view: View, goal: Predicate, pos: Array) -> bool:
    """Whether a body origin there is where the predicate wants it (contact aside)."""
    if view.scene.has_thing(goal.args[1]):
        return True
    region = view.scene.region(goal.args[1])
    centre, rotation = view.world.site(region)
    if goal.name == "In":
        half = _half(region, rotation)
        within = np.abs(pos[:2] - centre[:2]) < half[:2]
        return bool(np.all(within) and pos[2] < centre[2] + half[2])
    # 0.10 m above the site and R, not R transposed: as envs.goals has it
    d = rotation @ (pos - centre)
    return bool(np.all(np.abs(d[:2]) < region.size[:2]) and d[2] < region.size[2] + 0.10)


def put_down(view: View, held: Held, place: Place) -> tuple[Waypoint, ...]:
    """Waypoints that carry a thing to its place, let go and leave upwards."""
    above = place.hand.shifted(np.array([0.0, 0.0, ABOVE]))
    away = place.hand.shifted(np.array([0.0, 0.0, RETREAT]))
    route = over(view, view.eef, above, gap=CLOSED, held=held, label=f"carry {held.thing}")
    return (
        *route,
        Waypoint(pose=place.hand, gap=CLOSED, speed=0.6, straight=True, calm=0.2, label="lower"),
        Waypoint(pose=place.hand, gap=place.gap, dwell=OPENING, calm=0.1, label="let go"),
        Waypoint(pose=away, gap=place.gap, speed=0.8, blend=0.03, calm=0.5, label="leave"),
    )

