"""Ways through the air: high enough for what is in the hand, no higher than needed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from envs.scene import Thing
from policies.oracle.geometry import Array, Pose, from_rotation_vector, rotation_vector
from policies.oracle.grasps import TIP
from policies.oracle.motion import Waypoint
from policies.oracle.skills.base import Held
from policies.oracle.view import View

HAND = 0.055  # horizontal reach of hand and fingers beside a route, metres
CLEARANCE = 0.025  # above what is passed over
NEAR_END = 0.03  # shorter hops need no route
OVERHEAD = 0.30  # metres above both ends of a route: what hangs there is not passed over
# Above the arm's base by this there is no room to go up, over and down: the elbow is straight.
HIGH = 0.5
OTHER_WAY = 1.0  # radians between two halfway orientations that are different ways round
LOOK = 0.05  # metres between the places where a route is looked at
TOLERATED = 0.001  # metres of overlap on the way
UPWARDS = np.array([0.0, 0.0, 1.0])
LEAP = 0.8  # radians between two places that are `LOOK` apart: another posture, not the next
JOINT_STEP = 0.25  # radians between the postures that a stretched arm goes through
WITHDRAWN = (0.0, 0.10, 0.18)  # metres back along the hand before going around
AROUND = (0.45, 0.36, 0.28)  # metres from the robot's axis
AROUND_TURNS = np.deg2rad([0, 25, -25, 50, -50])
DETOURS = (0.08, 0.15)  # metres aside
DETOUR_TURNS = np.deg2rad([0, 45, -45, 90, -90, 135, -135, 180])


def hanging(view: View, hand: Pose, held: Held | None) -> tuple[float, float]:
    """How far the lowest point hangs below the grip site, and how far a load reaches aside."""
    if held is None:
        return TIP, HAND
    thing = view.scene.thing(held.thing)
    there = view.solids(thing.geoms).seen_from(view.pose(thing))
    low, high = there.seen_from((hand @ held.offset).inverse()).bounds()
    below = max(TIP, float(hand.pos[2] - low[:, 2].min()))
    aside = np.maximum(np.abs(low[:, :2] - hand.pos[:2]), np.abs(high[:, :2] - hand.pos[:2]))
    return below, max(HAND, float(aside.max()))


def height_over(
    view: View, start: Array, end: Array, width: float, skip: Thing | None = None
) -> float:
    """Highest point of what lies under a straight route, metres in the world."""
    low, high = view.other_bounds
    others = low[:, 2] < max(start[2], end[2]) + OVERHEAD
    if skip is not None:
        others &= ~np.isin(view.body.other_geoms, skip.geoms)
    low, high = low[others], high[others]
    # Slabs test of the route (grown by its width) against each footprint.
    a, d = start[:2], end[:2] - start[:2]
    with np.errstate(divide="ignore", invalid="ignore"):
        t0 = (low[:, :2] - width - a) / d
        t1 = (high[:, :2] + width - a) / d
    inside = (a >= low[:, :2] - width) & (a <= high[:, :2] + width)
    still = np.abs(d) < 1e-9
    enter = np.where(still, np.where(inside, -np.inf, np.inf), np.minimum(t0, t1)).max(1)
    leave = np.where(still, np.where(inside, np.inf, -np.inf), np.maximum(t0, t1)).min(1)
    under = (enter <= leave) & (leave >= 0) & (enter <= 1)
    return float(high[under, 2].max()) if under.any() else -np.inf


def over(
    view: View, start: Pose, end: Pose, *, gap: float, held: Held | None = None, label: str
) -> tuple[Waypoint, ...]:
    """Waypoints from one pose to another through free air, the last one being `end`.

    Up, across and down; where something is in the way of going up, first aside.

    Args:
        view: The scene.
        start: Where the hand is.
        end: Where it should get; the last few centimetres down are the caller's.
        gap: Metres between the pads on the way.
        held: What is in the hand.
        label: For the waypoints.
    """
    high = max(float(start.pos[2]), float(end.pos[2])) > view.body.base[2] + HIGH
    if high:
        found = _stretched(view, start, end, gap, held, label)
        if found is not None:
            return found
    straight = (*_turning(view, start, end, gap, label), *_arch(view, start, end, gap, held, label))
    if is_free(view, start, straight, held):
        return straight
    # Aside is towards the robot first, where nothing hangs over the table.
    back = np.arctan2(view.body.base[1] - start.pos[1], view.body.base[0] - start.pos[0])
    for distance in DETOURS:
        for turn in DETOUR_TURNS:
            way = np.array([np.cos(back + turn), np.sin(back + turn), 0.15])
            aside = start.shifted(distance * way)
            first = Waypoint(pose=aside, gap=gap, blend=0.03, label=f"{label}: aside")
            detour = (first, *_arch(view, aside, end, gap, held, label))
            if is_free(view, start, detour, held):
                return detour
    return _below(view, start, end, gap, held, label) or straight


def _below(
    view: View, start: Pose, end: Pose, gap: float, held: Held | None, label: str
) -> tuple[Waypoint, ...] | None:
    """A way where nothing can be passed over: straight, or around through free air."""
    last = Waypoint(pose=end, gap=gap, blend=0.015, label=label)
    if is_free(view, start, (last,), held, follows=True):
        return (last,)
    for distance in WITHDRAWN:
        back = start.shifted(-start.rot[:, 2] * distance)
        first = Waypoint(pose=back, gap=gap, blend=0.02, label=f"{label}: back")
        for x, y, z in _air(view, start, end):
            over_there = np.array([x, y, z])
            for rot in (end.rot, start.rot):
                via = Waypoint(
                    pose=Pose(over_there, rot), gap=gap, blend=0.03, label=f"{label}: around"
                )
                way = (via, last) if distance == 0 else (first, via, last)
                if is_free(view, start, way, held, follows=True):
                    return way
    return None


def _stretched(
    view: View, start: Pose, end: Pose, gap: float, held: Held | None, label: str
) -> tuple[Waypoint, ...] | None:
    """A way up high, along postures of the arm rather than places of the hand.

    Up there a hand on a straight line soon asks for what a stretched arm cannot do; between
    two postures it can do everything.
    """
    near = float(np.linalg.norm(start.pos - view.eef.pos)) < NEAR_END
    first = view.arm if near else view.reach(start, view.arm)
    lasts = [q for q in (view.reach(end), view.reach(end, first)) if q is not None]
    if first is None or not lasts:
        return _below(view, start, end, gap, held, label)
    home = view.body.home
    for last in lasts:
        for postures in ((first, last), (first, home, last)):
            way = _swept(view, postures, gap, held, label)
            if way is not None:
                return (*way[:-1], Waypoint(pose=end, gap=gap, blend=0.015, label=label))
    found = _below(view, start, end, gap, held, label)
    if found is not None:
        return found
    way = _swept(view, (first, home, lasts[0]), gap, held, label, anyway=True)
    return None if way is None else (*way, Waypoint(pose=end, gap=gap, blend=0.015, label=label))


def _swept(
    view: View,
    postures: Sequence[Array],
    gap: float,
    held: Held | None,
    label: str,
    *,
    anyway: bool = False,
) -> tuple[Waypoint, ...] | None:
    """Waypoints of a hand whose arm goes through postures; None when it hits something."""
    thing = view.scene.thing(held.thing) if held else None
    out: list[Waypoint] = []
    for a, b in pairwise(postures):
        count = max(1, int(np.ceil(float(np.abs(b - a).max()) / JOINT_STEP)))
        for k in range(1, count + 1):
            arm = a + (b - a) * (k / count)
            pose = view.hand_at(arm)
            depth = 0.0 if anyway else view.hits(
                arm, gap=view.finger_gap if held else gap, carried=thing,
                carried_pose=pose @ held.offset if held else None,
            )  # fmt: skip
            if depth > TOLERATED:
                return None
            out.append(Waypoint(pose=pose, gap=gap, blend=0.03, label=f"{label}: sweep"))
    return tuple(out)


def _ways_out(view: View, start: Pose) -> list[Array]:
    """Offsets by which a hand may get clear of a door before it turns home."""
    inwards = (view.body.base - start.pos) * np.array([1.0, 1.0, 0.0])
    inwards = inwards / max(float(np.linalg.norm(inwards)), 1e-6)
    robot = np.array([-1.0, 0.0, 0.0])  # the robot faces +x (envs.kitchen.scenes)
    outwards = np.array([0.0, np.sign(start.pos[1] - view.body.base[1]) or 1.0, 0.0])
    found = [np.zeros(3)]
    for distance in (0.10, 0.18, 0.26):
        for way in (robot, robot + 0.6 * outwards, robot - 0.4 * UPWARDS, inwards, UPWARDS):
            found.append(distance * way)
    return found


def homewards(view: View, start: Pose, gap: float) -> tuple[Waypoint, ...]:
    """From a pose back to the arm's home, along postures."""
    near = view.reach(start, view.arm)
    for offset in _ways_out(view, start):
        via = start.shifted(offset)
        arm = view.reach(via, near)
        first = Waypoint(pose=via, gap=gap, blend=0.02, label="home: out")
        if arm is None or (offset.any() and not is_free(view, start, (first,), None)):
            continue
        way = _swept(view, (arm, view.body.home), gap, None, "home")
        if way is not None:
            return (first, *way) if offset.any() else way
    home = view.hand_at(view.body.home)
    return (Waypoint(pose=home, gap=gap, blend=0.08, label="home"),)


def _air(view: View, start: Pose, end: Pose) -> list[tuple[float, float, float]]:
    """Places between robot and fixtures through which a route may go, nearest first."""
    base = view.body.base
    out = np.array([end.pos, start.pos]).mean(0)[:2] - base[:2]
    bearing = np.arctan2(out[1], out[0])
    found: list[tuple[float, float, float]] = []
    for z in (0.5 * (start.pos[2] + end.pos[2]), end.pos[2], start.pos[2], end.pos[2] + 0.12):
        for turn in AROUND_TURNS:
            for reach in AROUND:
                angle = bearing + turn
                found.append(
                    (base[0] + reach * np.cos(angle), base[1] + reach * np.sin(angle), float(z))
                )
    return sorted(
        found, key=lambda p: float(np.linalg.norm(end.pos - p) + np.linalg.norm(start.pos - p))
    )


def _turning(view: View, start: Pose, end: Pose, gap: float, label: str) -> tuple[Waypoint, ...]:
    """A waypoint on the way, where the shortest turn is one that the wrist cannot make."""
    arm = view.reach(end)
    if arm is None:
        return ()
    turn = rotation_vector(end.rot @ start.rot.T)
    shortest = from_rotation_vector(0.5 * turn) @ start.rot
    # Half way between two postures of the arm, the hand is turned as joints allow.
    possible = view.hand_at(0.5 * (view.arm + arm)).rot
    if np.linalg.norm(rotation_vector(possible @ shortest.T)) < OTHER_WAY:
        return ()
    flat = float(np.hypot(*(end.pos[:2] - start.pos[:2])))
    middle = Pose(start.pos + 0.4 * (end.pos - start.pos), possible)
    if flat < 3 * NEAR_END:
        middle = start.shifted(np.array([0.0, 0.0, NEAR_END]))
        middle = Pose(middle.pos, possible)
    else:
        middle = Pose(np.array([*middle.pos[:2], max(start.pos[2], end.pos[2])]), possible)
    return (Waypoint(pose=middle, gap=gap, label=f"{label}: turn"),)


def is_free(
    view: View,
    start: Pose,
    waypoints: Sequence[Waypoint],
    held: Held | None,
    *,
    follows: bool = False,
) -> bool:
    """Whether hand, arm and load hit nothing on the way, looked at every few centimetres.

    Args:
        view: The scene now.
        start: Where the hand sets out.
        waypoints: The way.
        held: What is in the hand.
        follows: Whether the arm must get from each place to the next without a jump.
    """
    thing = view.scene.thing(held.thing) if held else None
    near = float(np.linalg.norm(start.pos - view.eef.pos)) < NEAR_END
    arm: Array | None = view.arm if follows and near else None
    before = start
    for waypoint in waypoints:
        away = waypoint.pose.pos - before.pos
        turn = rotation_vector(waypoint.pose.rot @ before.rot.T)
        count = max(1, int(np.ceil(np.linalg.norm(away) / LOOK)))
        for k in range(1, count + 1):
            share = k / count
            at = Pose(before.pos + share * away, from_rotation_vector(share * turn) @ before.rot)
            last, arm = arm, view.reach(at, arm)
            if arm is None:
                return False
            if follows and last is not None and float(np.abs(arm - last).max()) > LEAP:
                return False
            depth = view.hits(
                arm,
                gap=view.finger_gap if held else waypoint.gap,
                carried=thing,
                carried_pose=at @ held.offset if held else None,
            )
            if depth > TOLERATED:
                return False
        before = waypoint.pose
    return True


def _arch(
    view: View, start: Pose, end: Pose, gap: float, held: Held | None, label: str
) -> tuple[Waypoint, ...]:
    """Up to where nothing is in the way, across, and down."""
    below, aside = hanging(view, start, held)
    thing = view.scene.thing(held.thing) if held else None
    floor = height_over(view, start.pos, end.pos, aside, thing)
    needed = floor + below + CLEARANCE
    points: list[Waypoint] = []
    flat = float(np.hypot(*(end.pos[:2] - start.pos[:2])))
    if flat > NEAR_END and start.pos[2] < needed - 0.01:
        up = np.array([start.pos[0], start.pos[1], needed])
        points.append(
            Waypoint(pose=Pose(up, start.rot), gap=gap, blend=0.012, label=f"{label}: up")
        )
    height = max(needed, min(float(start.pos[2]), needed + 0.05), float(end.pos[2]))
    if flat > NEAR_END and end.pos[2] < needed - 0.01:
        across = np.array([end.pos[0], end.pos[1], height])
        points.append(
            Waypoint(pose=Pose(across, end.rot), gap=gap, blend=0.02, label=f"{label}: across")
        )
    points.append(Waypoint(pose=end, gap=gap, blend=0.015, label=label))
    return tuple(points)
