"""Taking a thing and putting it somewhere, with one hand or one with each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from policies.oracle.geometry import Array, Pose
from policies.oracle.two_arms.desk import CARRY, SLOW, UP, Desk, Plan, back
from policies.oracle.two_arms.grips import Grip, grips

BEFORE = 0.075  # metres before a grip, along the approach, where fingers open
LIFT = 0.10  # metres that a thing is lifted after it was taken
ABOVE = 0.08  # metres above a place from which a thing is let down
RELEASE = 0.002  # metres above its rest at which a thing is let go


@dataclass(frozen=True)
class Take:
    """A grip with the joints that it needs."""

    grip: Grip
    arm: int
    before: Array
    path: list[Array]
    lifted: list[Array]
    cost: float


def takes(
    desk: Desk,
    arm: int,
    thing: str,
    useful: Callable[[Grip], float | None] = lambda grip: 0.0,
    tries: int = 40,
    lift: float = LIFT,
) -> Take | None:
    """The best way for an arm to take a thing from where it is; None when there is none.

    Args:
        desk: The present.
        arm: Who.
        thing: What.
        useful: Extra cost of a grip for what comes next; None when it is of no use.
        tries: Grips looked at, best first.
        lift: Metres that it is lifted.
    """
    desk.arms.reset()
    pose = desk.arms.thing(thing)
    options: list[tuple[float, Grip]] = []
    for grip in grips(desk.arms.scene, thing):
        hand = pose @ grip.hand
        if hand.rot[2, 0] > -0.35:  # fingers must point down, at least a little
            continue
        extra = 0.25 * abs(wrist_turn(desk, arm, hand)) + 0.6 * (1 + hand.rot[2, 0])
        options.append((grip.cost + extra, grip))
    options.sort(key=lambda option: option[0])
    for cost, grip in options[:tries]:
        hand = pose @ grip.hand
        q = desk.arms.reach(arm, hand)
        if q is None:
            continue
        ahead = desk.line(arm, q, back(hand, BEFORE))
        up = desk.line(arm, q, hand.shifted(lift * UP))
        if ahead is None or up is None:
            continue
        more = useful(grip)
        if more is None:
            continue
        if desk.arms.touches({arm: q}, opening={arm: grip.slide}, ignore=desk.geoms(thing)):
            continue
        if desk.arms.touches({arm: ahead[-1]}, opening={arm: grip.slide}):
            continue
        path = [*reversed(ahead[:-1]), q]
        return Take(grip, arm, ahead[-1], path, up, cost + more)
    return None


def wrist_turn(desk: Desk, arm: int, hand: Pose) -> float:
    """About how far the wrist has to be turned for a hand pose, radians."""
    base = desk.arms.arms[arm].base
    bearing = np.arctan2(hand.pos[1] - base[1], hand.pos[0] - base[0])
    left = np.array([-np.sin(bearing), np.cos(bearing), 0.0])  # closing of an unturned wrist
    return float(np.arccos(np.clip(hand.rot[:, 1] @ left, -1.0, 1.0)))


def take(desk: Desk, chosen: Sequence[Take]) -> Plan:
    """Take things, one with each arm, at the same time."""
    script = desk.script()
    home = {t.arm: desk.joints[t.arm] for t in chosen}
    for t in chosen:
        script.opening[t.arm] = t.grip.opening
    others = {i: desk.joints[i] for i in range(2) if i not in home}
    script.move({t.arm: desk.clear_path(t.arm, home[t.arm], t.before, {}, others) for t in chosen})
    script.move({t.arm: t.path for t in chosen}, SLOW)
    script.grip({t.arm: 0.0 for t in chosen})
    script.move({t.arm: t.lifted for t in chosen}, SLOW)
    return Plan(script.actions, "take")


# ------------------------------------------------------------------------ putting


def put(
    desk: Desk, arm: int, thing: str, targets: Iterable[Pose], *, support: Sequence[int] = ()
) -> Plan | None:
    """Put what a hand holds at the first of some poses that it reaches, let go, go home.

    Args:
        desk: The present.
        arm: Whose hand.
        thing: What it holds.
        targets: Poses of the thing, best first.
        support: Geoms that it may touch on the way down.
    """
    offset = desk.offset(arm, thing)
    undo = offset.inverse()
    carried = {thing: offset}
    others = {1 - arm: desk.joints[1 - arm]}
    for target in targets:
        hand = target.shifted(RELEASE * UP) @ undo
        start = desk.arms.reach(arm, hand.shifted(ABOVE * UP), desk.joints[arm])
        if start is None:
            continue
        down = desk.line(arm, start, hand)
        if down is None or desk.blocked(arm, start, carried, others, desk.geoms(thing)):
            continue
        if desk.blocked(arm, down[-1], carried, others, support):
            continue
        retreat = desk.line(arm, down[-1], back(hand, BEFORE))
        if retreat is None:
            retreat = desk.line(arm, down[-1], hand.shifted(BEFORE * UP))
        if retreat is None:
            continue
        script = desk.script()
        script.move(
            {
                arm: desk.clear_path(
                    arm, desk.joints[arm], start, carried, others, desk.geoms(thing)
                )
            },
            CARRY,
        )
        script.move({arm: down}, SLOW)
        script.grip({arm: 1.0}, 9)
        script.move({arm: retreat}, SLOW)
        home = desk.arms.arms[arm].home
        script.move({arm: desk.clear_path(arm, retreat[-1], home, {}, others)})
        return Plan(script.actions, "put")
    return None


def reachable(desk: Desk, arm: int, grip: Grip, targets: Iterable[Pose]) -> float | None:
    """Cost of the first pose at which an arm could put a thing that it held so; None if none."""
    for rank, target in enumerate(targets):
        hand = target @ grip.hand
        if hand.rot[2, 0] > -0.3:
            continue
        q = desk.arms.reach(arm, hand)
        if q is None:
            continue
        if desk.arms.reach(arm, hand.shifted(ABOVE * UP), q) is not None:
            return 0.1 * rank + 0.2 * abs(wrist_turn(desk, arm, hand))
    return None
