"""Taking a thing: reaching, closing, lifting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from envs.scene import Thing
from policies.oracle.motion import CLOSED, Waypoint
from policies.oracle.routes import over
from policies.oracle.skills.base import Held, Progress, Script
from policies.oracle.skills.choosing import AXIS, PREGRASP, Fits, Grasping, choose
from policies.oracle.view import View

LIFT = 0.09  # metres; what is held is checked on the way up
CLOSING = 7  # steps until the fingers have closed on what is between them
LOST = 0.035  # metres that a thing may move in the hand
LEANING = -0.99  # vertical part of a hand's axis from which on it counts as tilted


def pick(
    view: View,
    grasping: Grasping,
    thing: Thing,
    progress: Progress,
    fits: Fits,
    then: str,
) -> Script | None:
    """Plan reaching for a thing, closing on it and lifting it.

    Args:
        view: The scene now.
        grasping: Its grasps.
        thing: What to take.
        progress: What failed before is avoided.
        fits: Whether a grasp serves the target as well.
        then: Stage after the lift.

    Returns:
        The script, or None when no grasp is within reach.
    """
    chosen = choose(view, grasping, thing, progress.failures, fits)
    if chosen is None:
        return None
    hand, gap = chosen.hand, chosen.gap
    axis = hand.rot[:, 2]
    leans = axis[2] > LEANING
    above = hand.shifted(-(AXIS[1] if leans else PREGRASP) * axis)
    aside = hand.shifted(chosen.slide)
    up = aside.shifted(-(AXIS[1] if leans else LIFT) * axis)
    slide = Waypoint(pose=aside, gap=CLOSED, speed=0.6, calm=0.2, label="draw out")
    waypoints = (
        *over(view, view.eef, above, gap=gap, label=f"reach for {thing.name}"),
        Waypoint(pose=hand, gap=gap, speed=0.7, straight=True, calm=0.15, label="descend"),
        Waypoint(pose=hand, gap=CLOSED, dwell=CLOSING, calm=0.1, label="close"),
        *((slide,) if chosen.slide.any() else ()),
        Waypoint(pose=up, gap=CLOSED, speed=0.8, blend=0.03, calm=0.5, label="lift"),
    )
    return Script(waypoints, replace(progress, stage=then, held=chosen.held))


def is_held(view: View, held: Held) -> bool:
    """Whether a thing is still where it was in the hand."""
    offset = view.eef.inverse() @ view.pose(view.scene.thing(held.thing))
    return bool(np.linalg.norm(offset.pos - held.offset.pos) < LOST)
