"""What a row remembers between two queries."""

from __future__ import annotations

from dataclasses import dataclass

from policies.oracle.driving import Stop
from policies.oracle.motion import Reference, Waypoint
from policies.oracle.planner import Subgoal
from policies.oracle.skills.base import Progress


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The state machine of one episode; a value, never changed in place.

    Attributes:
        seed: Of the perturbation: the seed of the episode's first query.
        subgoals: What to do, in order.
        at: Which of them is being done; their number when all are.
        progress: How far its skill is.
        before: How far it was when the script under way was made.
        waypoints, stops, index: The script under way, which has either, and the next of it.
        reached: Steps since that waypoint was reached.
        patience: Steps until it counts as blocked and is given up.
        reference: Where the hand should be.
    """

    seed: int
    subgoals: tuple[Subgoal, ...]
    at: int
    progress: Progress
    before: Progress
    waypoints: tuple[Waypoint, ...]
    index: int
    reached: int
    patience: int
    reference: Reference
    stops: tuple[Stop, ...] = ()
