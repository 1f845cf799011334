"""Ways through the air: high enough for what is in the hand, no higher than needed."""

from __future__ import annotations

import mujoco
import numpy as np

from envs.scene import Thing
from policies.oracle.geometry import Array, Pose
from policies.oracle.grasps import TIP
from policies.oracle.motion import Waypoint
from policies.oracle.view import View

HAND = 0.055  # horizontal reach of hand and fingers beside a route, metres
CLEARANCE = 0.025  # above what is passed over
NEAR_END = 0.03  # shorter hops need no route


def hanging(view: View, eef: Pose, carried: Thing | None, pose: Pose | None) -> tuple[float, float]:
    """How far the lowest point hangs below the grip site, and how far the load reaches aside."""
    if carried is None or pose is None:
        return TIP, HAND
    now = view.pose(carried)
    there = view.solids(carried.geoms).seen_from(now)
    moved = there.seen_from(pose.inverse())
    low, high = moved.bounds()
    below = max(TIP, float(eef.pos[2] - low[:, 2].min()))
    aside = np.maximum(np.abs(low[:, :2] - eef.pos[:2]), np.abs(high[:, :2] - eef.pos[:2])).max()
    return below, max(HAND, float(aside))


def height_over(
    view: View, start: Array, end: Array, width: float, skip: Thing | None = None
) -> float:
    """Highest point of what lies under a straight route, metres in the world."""
    geoms = view.other_geoms[
        view.model.geom_type[view.other_geoms] != mujoco.mjtGeom.mjGEOM_PLANE
    ]
    if skip is not None:
        geoms = np.setdiff1d(geoms, skip.geoms)
    low, high = view.solids(geoms).bounds()
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
    view: View,
    start: Pose,
    end: Pose,
    *,
    gap: float,
    carried: Thing | None = None,
    carried_pose: Pose | None = None,
    label: str,
    rise: float = 0.0,
) -> tuple[Waypoint, ...]:
    """Waypoints from one pose to another through free air, the last one being `end`.

    Args:
        view: The scene.
        start: Where the hand is.
        end: Where it should get; the last few centimetres down are the caller's.
        gap: Metres between the pads on the way.
        carried: What is in the hand.
        carried_pose: Its pose now.
        label: For the waypoints.
        rise: Least height to gain first, metres.
    """
    below, aside = hanging(view, start, carried, carried_pose)
    floor = height_over(view, start.pos, end.pos, aside, carried)
    needed = max(floor + below + CLEARANCE, start.pos[2] + rise)
    points: list[Waypoint] = []
    flat = float(np.hypot(*(end.pos[:2] - start.pos[:2])))
    if flat > NEAR_END and start.pos[2] < needed - 0.01:
        up = np.array([start.pos[0], start.pos[1], needed])
        points.append(
            Waypoint(pose=Pose(up, start.rot), gap=gap, blend=0.025, label=f"{label}: up")
        )
    height = max(needed, min(float(start.pos[2]), needed + 0.05), float(end.pos[2]))
    if flat > NEAR_END and end.pos[2] < needed - 0.01:
        across = np.array([end.pos[0], end.pos[1], height])
        points.append(
            Waypoint(pose=Pose(across, end.rot), gap=gap, blend=0.03, label=f"{label}: across")
        )
    points.append(Waypoint(pose=end, gap=gap, blend=0.015, label=label))
    return tuple(points)
