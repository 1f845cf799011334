"""From a goal expression to an order of things to do.

A goal says what must hold at the end, not how. Here its terms become subgoals, each
served by one skill, in an order that works: open before something goes in, put in before
close, the lower thing of a stack before the upper one; otherwise as written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from envs.goals import All, AnyOf, Goal, Not, Predicate
from envs.scene import Region, Scene, Thing
from wamsim.errors import PolicyFault

# A predicate whose negation is another one.
OPPOSITE = {"Open": "Close", "Close": "Open", "TurnOn": "TurnOff", "TurnOff": "TurnOn"}
PLACING = ("On", "In", "Inside", "CentreIn", "InReceptacle", "AtSpot", "Touching")
LEAVING = ("Far", "Clear")
DRIVING = ("Parked",)
MOVING_A_JOINT = ("Open", "Close", "TurnOn", "TurnOff")


@dataclass(frozen=True)
class Subgoal:
    """One predicate to make true.

    Attributes:
        predicate: What must hold.
        asked: False for what the goal does not ask for but needs on the way
            (a drawer opened to be filled); it need not hold at the end.
        room_for: What will be put in through that which is opened here.
    """

    predicate: Predicate
    asked: bool = True
    room_for: tuple[Predicate, ...] = ()


def check(goal: Goal) -> None:
    """Refuse what can be seen from the goal alone to be beyond the oracle.

    Raises:
        PolicyFault: No skill serves a part of the goal; says which.
    """
    _together(_conjuncts(goal, _served))


def plan(goal: Goal, scene: Scene) -> tuple[Subgoal, ...]:
    """Order the subgoals of a goal.

    Raises:
        PolicyFault: The oracle has no skill for a part of the goal; says which.
    """
    wanted = list(dict.fromkeys(_conjuncts(goal, lambda p: _supported(p, scene))))
    _together(wanted)
    openings: dict[Predicate, list[Predicate]] = {}
    for predicate in wanted:
        door = enclosure(predicate, scene)
        if door is not None:
            openings.setdefault(Predicate("Open", (door,)), []).append(predicate)
    subgoals = [
        Subgoal(opening, asked=False, room_for=tuple(filled))
        for opening, filled in openings.items()
        if opening not in wanted
    ]
    subgoals += [Subgoal(p, room_for=tuple(openings.get(p, ()))) for p in wanted]
    return tuple(_ordered(subgoals, scene))


def enclosure(predicate: Predicate, scene: Scene) -> str | None:
    """Name of what must be open for a thing to go where a predicate wants it."""
    if predicate.name not in PLACING or not scene.has_region(predicate.args[1]):
        return None
    region = scene.region(predicate.args[1])
    if region.joints and _opens(_parent(region, scene)):
        return region.name
    parent = _parent(region, scene)
    # A microwave's door is a joint of the whole, not of the region behind it.
    if predicate.name == "In" and _opens(parent) and parent is not None and len(parent.joints) == 1:
        return parent.name
    return None


def _parent(region: Region, scene: Scene) -> Thing | None:
    return scene.thing(region.parent) if region.parent is not None else None


def _opens(thing: Thing | None) -> bool:
    return (
        thing is not None and thing.articulation is not None and thing.articulation.open is not None
    )


def _conjuncts(goal: Goal, accept: Callable[[Predicate], Predicate]) -> list[Predicate]:
    """What must be made true; of alternatives the first whose parts are all accepted."""
    if isinstance(goal, Predicate):
        return [accept(goal)]
    if isinstance(goal, Not):
        inner = goal.term
        if isinstance(inner, Predicate) and inner.name in OPPOSITE:
            return [accept(Predicate(OPPOSITE[inner.name], inner.args))]
        raise PolicyFault(
            f"the oracle has no plan for {goal}: it can undo {', '.join(OPPOSITE)} alone. "
            f"Choose tasks whose goal has no other negation."
        )
    if isinstance(goal, All):
        return [p for term in goal.terms for p in _conjuncts(term, accept)]
    assert isinstance(goal, AnyOf)
    fault: PolicyFault | None = None
    for term in goal.terms:
        try:
            return _conjuncts(term, accept)
        except PolicyFault as error:
            fault = fault or error
    assert fault is not None
    raise fault


def _together(wanted: list[Predicate]) -> None:
    """Refuse a goal that asks for a drive and for something beside it."""
    drives = [p for p in wanted if p.name in DRIVING]
    if drives and len(wanted) > 1:
        raise _fault(drives[0], "it drives or works with its hand, not both in one task")


def _served(predicate: Predicate) -> Predicate:
    """The predicate itself; raises where there is no skill of that name."""
    if predicate.name in (*PLACING, *MOVING_A_JOINT, *LEAVING, *DRIVING):
        return predicate
    raise _fault(predicate, f"it has no skill for {predicate.name}")


def _supported(predicate: Predicate, scene: Scene) -> Predicate:
    """The predicate itself; raises where no skill serves it in this scene."""
    name, args = _served(predicate).name, predicate.args
    if name in PLACING:
        if not scene.has_thing(args[0]):
            raise _fault(predicate, f"{args[0]!r} is not a thing")
        if scene.thing(args[0]).free_joint is None:
            raise _fault(predicate, f"{args[0]!r} is fixed and cannot be carried")
    if not (scene.has_thing(args[-1]) or scene.has_region(args[-1])):
        raise _fault(predicate, f"the scene has no {args[-1]!r}")
    if name in MOVING_A_JOINT:
        thing, joints = jointed(args[0], scene)
        if not joints:
            raise _fault(predicate, f"{thing.name!r} ({thing.category}) has no joint to move")
    if name in DRIVING and scene.info.platform is None:
        raise _fault(predicate, "the scene's robot stands on no base that drives")
    return predicate


def _fault(predicate: Predicate, why: str) -> PolicyFault:
    served = ", ".join((*PLACING, *MOVING_A_JOINT, *LEAVING, *DRIVING))
    return PolicyFault(
        f"the oracle has no plan for {predicate}: {why}. It serves {served}; run this task with "
        f"another policy."
    )


def jointed(name: str, scene: Scene) -> tuple[Thing, tuple[str, ...]]:
    """The thing that a name moves, and the joints of it that count."""
    if scene.has_thing(name):
        thing = scene.thing(name)
        return thing, thing.joints
    region = scene.region(name)
    if region.parent is None:
        raise PolicyFault(f"the oracle has no plan for {name!r}: it belongs to nothing that moves.")
    return scene.thing(region.parent), region.joints


def _ordered(subgoals: list[Subgoal], scene: Scene) -> list[Subgoal]:
    """Stable topological order of `_before`."""
    out: list[Subgoal] = []
    left = list(subgoals)
    while left:
        for candidate in left:
            if not any(_before(o, candidate, scene) for o in left if o is not candidate):
                break
        else:  # a cycle: as written
            candidate = left[0]
        left.remove(candidate)
        out.append(candidate)
    return out


def _before(first: Subgoal, second: Subgoal, scene: Scene) -> bool:
    """Whether the first must be done before the second."""
    a, b = first.predicate, second.predicate
    if a.name in LEAVING or b.name in LEAVING:  # the hand goes when all else is done
        return a.name not in LEAVING
    if b.name in PLACING:
        if a.name == "Open" and a.args[0] == enclosure(b, scene):
            return True
        # What is underneath goes first; it is moved before something stands on it.
        if a.name in PLACING and a.args[0] == b.args[1]:
            return True
        # A closed drawer above is out of the way of the one below; a door that must be
        # closed is not closed before what goes behind it is inside.
        if a.name == "Close" and a.args[0] != enclosure(b, scene):
            return _same_cabinet(a, b, scene)
        return False
    if b.name == "Close" and a.name in PLACING:
        return enclosure(a, scene) == b.args[0]
    if b.name == "Open" and a.name == "Close":
        return a.args[0] != b.args[0]
    return False


def _same_cabinet(a: Predicate, b: Predicate, scene: Scene) -> bool:
    owner = jointed(a.args[0], scene)[0].name
    name = b.args[1]
    return scene.has_region(name) and scene.region(name).parent == owner
