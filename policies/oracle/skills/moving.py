"""Open, Close, TurnOn, TurnOff: bring a joint to where the predicate wants it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from envs.goals import Predicate
from envs.scene import Threshold
from policies.oracle.geometry import Pose
from policies.oracle.holds import Hold, Holding, is_high
from policies.oracle.motion import CLOSED, OPEN, Waypoint
from policies.oracle.parts import Part, carried_along, part_of
from policies.oracle.planner import jointed
from policies.oracle.routes import homewards, over
from policies.oracle.skills.base import DONE, MOVING, Failure, Progress, Script
from policies.oracle.view import View
from wamsim.errors import PolicyFault

WAYS = {"Open": "open", "Close": "close", "TurnOn": "turn_on", "TurnOff": "turn_off"}
BEFORE = 0.06  # metres before its hold where the hand stops being in a hurry
LEAVE = 0.07
CLOSING = 7
PASSING = 0.012  # metres from a waypoint of the arc when the hand goes on to the next
LEAN = 0.015  # metres that the hand is told to go beyond where the part should be
STEP = 0.03  # metres of arc between waypoints


class Moving:
    """Serves Open, Close, TurnOn and TurnOff."""

    def __init__(self, view: View) -> None:
        self._holding = Holding(view)

    def proceed(self, view: View, goal: Predicate, progress: Progress) -> Script:
        """Plan what comes next."""
        part = self._part(view, goal, progress.wide)
        if progress.stage == MOVING:
            return self._leave(view, part, progress)
        tried = tuple(Pose(f.pos, f.rot) for f in progress.failures)
        widening = view.holds(goal)
        hold = self._holding.best(part, tried, inside=widening)
        if hold is None and tried:
            hold = self._holding.best(part, inside=widening)
        if hold is None and widening:  # wider would be better, but it will do
            return Script((), replace(progress, stage=DONE, attempt=progress.attempt + 1))
        if hold is None:
            raise PolicyFault(
                f"the oracle has no plan for {goal}: it finds no way to hold or push what joint "
                f"{part.joint!r} moves, within reach and clear of the rest. Run this task with "
                f"another policy."
            )
        return self._move(view, part, hold, progress)

    def failed(self, view: View, progress: Progress) -> bool:
        """A part cannot slip for good: the predicate is asked again at the end."""
        return False

    def _part(self, view: View, goal: Predicate, wide: bool) -> Part:
        thing, joints = jointed(goal.args[0], view.scene)
        threshold = getattr(thing.articulation, WAYS[goal.name]) if thing.articulation else None
        if threshold is None:
            raise PolicyFault(
                f"the oracle has no plan for {goal}: {thing.name!r} ({thing.category}) cannot be "
                f"asked for it. Check the goal of the task."
            )
        return part_of(view, _joint(view, joints, threshold), threshold, wide=wide)

    def _move(self, view: View, part: Part, hold: Hold, progress: Progress) -> Script:
        part = replace(part, goal=part.now + hold.share * (part.goal - part.now))
        before = hold.hand.shifted(hold.back * BEFORE)
        take = Waypoint(
            pose=hold.hand, gap=hold.gap, speed=0.6, straight=True, calm=0.15, label="take hold"
        )
        close = Waypoint(pose=hold.hand, gap=CLOSED, dwell=CLOSING, calm=0.1, label="close")
        waypoints = (
            *over(view, view.eef, before, gap=hold.gap, label="reach for the part"),
            *((take,) if hold.pushes else (take, close)),
            *_path(view, part, hold),
        )
        failure = Failure(part.joint, hold.hand.pos, hold.hand.rot)
        return Script(
            waypoints, replace(progress, stage=MOVING, failures=(*progress.failures, failure))
        )

    def _leave(self, view: View, part: Part, progress: Progress) -> Script:
        """Let go where the part is, and go back the way the hand came."""
        here = view.eef
        back = here.shifted(-here.rot[:, 2] * LEAVE)
        up = back.shifted(np.array([0.0, 0.0, 0.03]))
        upright = Pose(up.pos, here.rot)
        waypoints = (
            Waypoint(pose=here, gap=OPEN, dwell=4, calm=0.1, label="let go"),
            Waypoint(pose=back, gap=OPEN, speed=0.8, blend=0.02, calm=0.3, label="leave"),
            Waypoint(pose=upright, gap=OPEN, blend=0.03, label="leave"),
        )
        if is_high(view, part):  # a stretched arm begins anew from where all of it can move
            waypoints = (*waypoints[:2], *homewards(view, back, OPEN))
        return Script(waypoints, replace(progress, stage=DONE))


def _path(view: View, part: Part, hold: Hold) -> list[Waypoint]:
    """Waypoints of a hand that takes a part to its goal."""
    arc = float(np.linalg.norm((hold.hand.pos - part.anchor)[:2]))
    count = 1 if part.slides else max(1, math.ceil(abs(part.goal - part.now) * arc / STEP))
    path = [
        carried_along(view, part, hold.hand, part.now + (part.goal - part.now) * k / count)
        for k in range(1, count + 1)
    ]
    # The part lags behind what the hand is told: lean into the last centimetre.
    path[-1] = path[-1].shifted(part.direction(path[-1].pos) * LEAN)
    blends = [PASSING] * (count - 1) + [0.0]
    return [
        Waypoint(pose=p, gap=CLOSED, speed=0.7, blend=b, calm=0.3, label="move the part")
        for p, b in zip(path, blends, strict=True)
    ]


def _joint(view: View, joints: tuple[str, ...], threshold: Threshold) -> str:
    """The joint to move: the first that is not yet where the threshold wants it."""
    for joint in joints:
        if not threshold.holds(view.world.joint(joint)):
            return joint
    return joints[0]
