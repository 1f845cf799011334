"""What every skill is given and gives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from envs.goals import Predicate
from policies.oracle.driving import Stop
from policies.oracle.geometry import Array, Pose
from policies.oracle.motion import OPEN, Waypoint
from policies.oracle.view import View

START = "start"  # nothing done yet, or all to be done again
MOVING = "moving"  # what moves without being held; ends as soon as the predicate holds
RISE = 0.05  # metres
DONE = "done"  # the skill has nothing more to do; the predicate decides


@dataclass(frozen=True)
class Held:
    """A thing in the hand.

    Attributes:
        thing: Its name.
        offset: Its pose in the grip site's frame.
        resting: Its orientation in the world when it was taken.
        width: Metres between the pads with it between them.
    """

    thing: str
    offset: Pose
    resting: Array
    width: float


@dataclass(frozen=True)
class Failure:
    """A way that was tried.

    Attributes:
        thing: Thing or joint that it was about.
        pos, rot: Grip site; in the thing's own frame for things that are carried, in the
            world for parts of fixtures.
    """

    thing: str
    pos: Array
    rot: Array


@dataclass(frozen=True)
class Progress:
    """How far a skill is, between two of its scripts.

    Attributes:
        stage: What to decide next; skills name their own stages.
        held: What is in the hand.
        failures: What was tried in vain for this subgoal.
        attempt: How often it was begun.
        shared: Whether other things of the goal go to the same place.
        wide: Whether a part must go as far as it goes: a drawer that is to be filled.
    """

    stage: str = START
    held: Held | None = None
    failures: tuple[Failure, ...] = ()
    attempt: int = 0
    shared: bool = False
    wide: bool = False

    def again(self) -> Progress:
        """Back to the start, with an empty hand, knowing what failed."""
        return replace(self, stage=START, held=None, attempt=self.attempt + 1)


@dataclass(frozen=True)
class Script:
    """What to go through, and where the skill is when it is behind.

    Attributes:
        waypoints: Of the hand.
        progress: Afterwards.
        stops: Of the base; a script has these or waypoints, not both.
    """

    waypoints: tuple[Waypoint, ...]
    progress: Progress = field(default_factory=Progress)
    stops: tuple[Stop, ...] = ()


class Skill(Protocol):
    """Serves one kind of predicate."""

    def proceed(self, view: View, goal: Predicate, progress: Progress) -> Script:
        """Plan what comes next; called at the start and whenever a script has run out."""
        ...

    def failed(self, view: View, progress: Progress) -> bool:
        """Whether the script under way has become pointless (the thing slipped)."""
        ...


def look_again(view: View, progress: Progress) -> Script:
    """Go up with open fingers, and begin again from there."""
    up = view.eef.shifted(np.array([0.0, 0.0, RISE]))
    waypoint = Waypoint(pose=up, gap=OPEN, dwell=4, label="look again")
    return Script((waypoint,), replace(progress.again(), stage=DONE))
