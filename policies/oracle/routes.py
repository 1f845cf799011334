"""Ways through the air: high enough for what is in the hand, no higher than needed."""

from __future__ import annotations

from collections.abc import Sequence

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
OTHER_WAY = 1.0  # radians between two halfway orientations that are different ways round
LOOK = 0.05  # metres between the places where a route is looked at
TOLERATED = 0.001  # metres of overlap on the way
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
    if skip is not None:
        others = ~np.isin(view.body.other_geoms, skip.geoms)
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
    return straight


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


def is_free(view: View, start: Pose, waypoints: Sequence[Waypoint], held: Held | None) -> bool:
    """Whether hand, arm and load hit nothing on the way, looked at every few centimetres."""
    thing = view.scene.thing(held.thing) if held else None
    arm: Array | None = None
    before = start
    for waypoint in waypoints:
        away = waypoint.pose.pos - before.pos
        turn = rotation_vector(waypoint.pose.rot @ before.rot.T)
        count = max(1, int(np.ceil(np.linalg.norm(away) / LOOK)))
        for k in range(1, count + 1):
            share = k / count
            at = Pose(before.pos + share * away, from_rotation_vector(share * turn) @ before.rot)
            arm = view.reach(at, arm)
            if arm is None:
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
