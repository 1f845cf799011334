"""What takes both arms: lifting a thing by its two ends, holding up two, handing over."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from policies.oracle.geometry import Array, Pose
from policies.oracle.two_arms.desk import CARRY, LINE_STEP, SLOW, UP, Desk, Plan, back
from policies.oracle.two_arms.grips import Grip, grips
from policies.oracle.two_arms.taking import BEFORE, Take, takes, wrist_turn


def hold_up(desk: Desk, targets: Mapping[int, tuple[str, Pose]]) -> Plan | None:
    """Bring what the hands hold to poses, at the same time, and stay there."""
    paths: dict[int, list[Array]] = {}
    for arm, (thing, target) in targets.items():
        hand = target @ desk.offset(arm, thing).inverse()
        q = desk.arms.reach(arm, hand, desk.joints[arm])
        if q is None:
            return None
        paths[arm] = [q]
    script = desk.script()
    script.move(paths, CARRY)
    script.wait(4)
    return Plan(script.actions, "hold up")


def lift_together(desk: Desk, thing: str, height: float) -> Plan | None:
    """Take a thing with both hands, one at each end, and lift it level."""
    desk.arms.reset()
    pose = desk.arms.thing(thing)
    chosen: list[Take] = []
    for arm, side in ((0, -1.0), (1, 1.0)):

        def on_side(grip: Grip, side: float = side) -> float | None:
            return 0.0 if (pose.rot @ grip.hand.pos)[0] * side > 0.03 else None

        found = takes(desk, arm, thing, on_side, lift=0.02)
        if found is None:
            return None
        chosen.append(found)
    script = desk.script()
    for t in chosen:
        script.opening[t.arm] = t.grip.opening
    script.move(
        {t.arm: desk.clear_path(t.arm, desk.joints[t.arm], t.before, {}, {}) for t in chosen}
    )
    script.move({t.arm: t.path for t in chosen}, SLOW)
    script.grip({t.arm: 0.0 for t in chosen}, 10)
    # Both hands rise in the same small steps, so the thing stays level.
    count = max(2, int(np.ceil(height / LINE_STEP)))
    rise: dict[int, list[Array]] = {}
    for t in chosen:
        q, hand = t.path[-1], pose @ t.grip.hand
        for k in range(1, count + 1):
            found_q = desk.arms.reach(t.arm, hand.shifted(height * k / count * UP), q)
            if found_q is None:
                return None
            q = found_q
            rise.setdefault(t.arm, []).append(q)
    for k in range(count):
        script.move({arm: [path[k]] for arm, path in rise.items()}, SLOW)
        del script.rows[-2:]  # no need to settle between the small steps
    script.wait(6)
    return Plan(script.actions, "lift together")


def hand_over(desk: Desk, giver: int, thing: str, where: Pose) -> Plan | None:
    """Give what one hand holds to the other, in the air.

    Args:
        desk: The present; `giver` holds the thing.
        giver: Number of the arm.
        thing: What is given.
        where: Pose of the thing in the air.
    """
    taker = 1 - giver
    offset = desk.offset(giver, thing)
    hand = where @ offset.inverse()
    q = desk.arms.reach(giver, hand, desk.joints[giver])
    if q is None:
        return None
    script = desk.script()
    script.move(
        {
            giver: desk.clear_path(
                giver, desk.joints[giver], q, {thing: offset}, {}, desk.geoms(thing)
            )
        },
        CARRY,
    )
    options = sorted(grips(desk.arms.scene, thing), key=lambda g: g.cost)
    for grip in options:
        if np.linalg.norm(grip.hand.pos - offset.inverse().pos) < 0.09:
            continue  # the hands would meet
        there = where @ grip.hand
        if there.rot[2, 0] > -0.3 or abs(wrist_turn(desk, taker, there)) > np.pi / 2:
            continue
        close = desk.arms.reach(taker, there)
        if close is None:
            continue
        ahead = desk.line(taker, close, back(there, BEFORE))
        leave = desk.line(giver, q, back(hand, 0.12))
        if ahead is None or leave is None:
            continue
        if desk.arms.touches({giver: q, taker: close}, opening={taker: grip.slide},
                             ignore=desk.geoms(thing)):  # fmt: skip
            continue
        script.opening[taker] = grip.opening
        others = {giver: q}
        script.move({taker: desk.clear_path(taker, desk.joints[taker], ahead[-1], {}, others)})
        script.move({taker: [*reversed(ahead[:-1]), close]}, SLOW)
        script.grip({taker: 0.0}, 10)
        script.grip({giver: 1.0}, 9)
        script.move({giver: leave}, SLOW)
        script.move({giver: [desk.arms.arms[giver].home]})
        return Plan(script.actions, "hand over")
    return None
