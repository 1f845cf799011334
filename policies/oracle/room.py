"""Whether a drawer is open wide enough for what goes in.

A drawer counts as open before it is open to its stop. What is let down into a narrow
opening rests on the rims, tilted, and then keeps the drawer from being closed.
"""

from __future__ import annotations

from envs.goals import Predicate
from policies.oracle.holds import is_high
from policies.oracle.parts import STOP, part_of, slides, stop_of
from policies.oracle.planner import Subgoal, jointed
from policies.oracle.skills.targets import EDGE, Target
from policies.oracle.view import View


def drawer(view: View, subgoal: Subgoal) -> tuple[str, float] | None:
    """Joint of a drawer that a subgoal opens to be filled, and its stop; None for others."""
    if not subgoal.room_for or subgoal.predicate.name != "Open":
        return None
    thing, joints = jointed(subgoal.predicate.args[0], view.scene)
    threshold = thing.articulation.open if thing.articulation else None
    if threshold is None or len(joints) != 1 or not slides(view, joints[0]):
        return None
    return joints[0], stop_of(view, joints[0], threshold)


def at_stop(view: View, subgoal: Subgoal) -> bool:
    """Whether what a subgoal opens goes no further; True for all but drawers to be filled."""
    found = drawer(view, subgoal)
    return found is None or abs(view.world.joint(found[0]) - found[1]) <= 2 * STOP


def swings(view: View, subgoal: Subgoal) -> bool:
    """Whether a subgoal swings a door high up, which a hand that lets go at once takes back."""
    if subgoal.predicate.name not in ("Open", "Close"):
        return False
    thing, joints = jointed(subgoal.predicate.args[0], view.scene)
    limits = thing.articulation
    if limits is None or limits.open is None or len(joints) != 1 or slides(view, joints[0]):
        return False
    return is_high(view, part_of(view, joints[0], limits.open))


def is_cramped(view: View, subgoal: Subgoal) -> bool:
    """Whether what goes into a drawer would lie lower, were it open to its stop."""
    found = drawer(view, subgoal)
    if found is None or at_stop(view, subgoal):
        return False
    joint, stop = found
    for placing in subgoal.room_for:
        if view.holds(placing):
            continue
        now = _lowest(view, placing)
        with view.supposing(joint, stop):
            if now > _lowest(view, placing) + EDGE:
                return True
    return False


def _lowest(view: View, placing: Predicate) -> float:
    target = Target(view, placing)
    rot = view.pose(target.thing).rot
    return min(target.rest(spot, rot) for spot in target.spots(shared=False))
