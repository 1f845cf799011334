"""From a goal of the bimanual suites to what both arms do next.

A goal's predicates name what must hold at the end. They are read as one of a few kinds of
work, and each time that the arms have come to the end of a script, the first part of it that
is not yet done is planned from the present. Nothing is remembered but where a row is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from envs.goals import All, AnyOf, Goal, Predicate
from envs.scene import Scene
from policies.oracle.geometry import Array, Pose, turn_z
from policies.oracle.two_arms import taking, together, tools
from policies.oracle.two_arms.desk import Desk, Plan
from policies.oracle.two_arms.grips import Grip, hints
from policies.oracle.two_arms.view import View
from wamsim.errors import PolicyFault

SERVED = (
    "HandOpen", "HandClosed", "At", "Over", "Raised", "Stacked", "LeftOf", "Nested", "Upright",
    "Aligned", "Reaches", "Clicks", "Touching",
)  # fmt: skip
MIDDLE = 0.085  # metres from the middle line within which both arms can put things on a thing
SPOTS_Y = (-0.03, 0.04, -0.10, 0.10, -0.15, 0.15)  # where in the middle there may be room
APART = 0.035  # metres between the circles around things, for a spot to be free
ROW_STEP = 0.09  # metres between the middles of blocks in a row; the rule allows 13 cm
ROW_NEAR = 0.02  # metres: a block that is so near its spot stays there
NEST_RISE = 0.03
LIFTED = 0.03  # metres above a mark to which things are lifted
DROP = 0.05  # metres above a basket's floor at which bread is let go
IN_THE_AIR = 0.17  # metres above the table for a handover


def conjuncts(goal: Goal) -> list[list[Predicate]]:
    """The alternatives of a goal, each a list of predicates.

    Raises:
        PolicyFault: A part that no skill of two arms serves.
    """
    if isinstance(goal, Predicate):
        if goal.name not in SERVED:
            raise PolicyFault(
                f"the oracle has no plan for {goal}: with two arms it serves "
                f"{', '.join(SERVED)}; run this task with another policy."
            )
        return [[goal]]
    if isinstance(goal, All):
        out: list[list[Predicate]] = [[]]
        for term in goal.terms:
            out = [a + b for a in out for b in conjuncts(term)]
        return out
    if isinstance(goal, AnyOf):
        return [option for term in goal.terms for option in conjuncts(term)]
    raise PolicyFault(f"the oracle has no plan for {goal}: with two arms it undoes nothing.")


@dataclass(frozen=True)
class Placing:
    """One thing to bring somewhere.

    Attributes:
        thing: What.
        done: Whether it is there.
        targets: Where its body shall be, best first.
        support: Things and fixtures that it may touch there.
    """

    thing: str
    done: Callable[[View], bool]
    targets: Callable[[View], list[Pose]]
    support: tuple[str, ...] = ()


class Jobs:
    """The work behind one goal in one scene."""

    def __init__(self, goal: Goal, scene: Scene) -> None:
        self.options = conjuncts(goal)
        self.scene = scene

    def next(self, view: View, desk: Desk) -> Plan | None:
        """What to do now; None when nothing is left to do, or nothing was found."""
        wanted = self._option(view)
        names = {p.name for p in wanted}
        if "Reaches" in names:
            thing = next(p.args[0] for p in wanted if p.name == "Raised")
            return self._together(view, desk, thing, wanted)
        if "HandClosed" in names:
            return self._together(view, desk, wanted[-1].args[0], wanted)
        if "Clicks" in names:
            return self._press(view, desk, wanted[0])
        if "Touching" in names:
            return self._strike(view, desk, wanted)
        if "Raised" in names and "HandOpen" not in names:
            return self._hold_up(view, desk, wanted)
        return self._place(view, desk, wanted)

    def _option(self, view: View) -> list[Predicate]:
        """Of alternatives the one whose first hand is nearest, or else the first."""
        if len(self.options) == 1 or self.options[0][0].name != "Clicks":
            return self.options[0]
        where = view.region(self.options[0][0].args[1]).pos
        nearest = view.arms.arms[view.arms.nearest(where)[0]].hand
        return next((o for o in self.options if o[0].args[0] == nearest), self.options[0])

    # ----------------------------------------------------------- both at once

    def _together(
        self, view: View, desk: Desk, thing: str, wanted: Sequence[Predicate]
    ) -> Plan | None:
        if any(view.holding(arm) for arm in range(2)):
            return tools.go_home(desk)  # something slipped
        mark = next(p.args[1] for p in wanted if p.name == "Raised")
        rise = float(view.region(mark).pos[2] - view.thing(thing).pos[2]) + LIFTED
        return together.lift_together(desk, thing, rise)

    def _hold_up(self, view: View, desk: Desk, wanted: Sequence[Predicate]) -> Plan | None:
        things = [p.args[0] for p in wanted if p.name == "Over"]
        sides = sorted(things, key=lambda name: view.region(self._mark(wanted, name)).pos[0])
        held = [view.holding(arm) for arm in range(2)]
        missing = [arm for arm in range(2) if held[arm] != sides[arm]]
        if not missing:
            goals: dict[int, tuple[str, Pose]] = {}
            for arm, name in enumerate(sides):
                mark = view.region(self._mark(wanted, name)).pos
                height = next(
                    view.region(p.args[1]).pos[2]
                    for p in wanted
                    if p.name == "Raised" and p.args[0] == name
                )
                goals[arm] = name, Pose(np.array([mark[0], mark[1], height + LIFTED]), np.eye(3))
            return together.hold_up(desk, goals)
        chosen = [taking.takes(desk, arm, sides[arm]) for arm in missing]
        if any(c is None for c in chosen):
            return None
        return taking.take(desk, [c for c in chosen if c is not None])

    @staticmethod
    def _mark(wanted: Sequence[Predicate], thing: str) -> str:
        return next(p.args[1] for p in wanted if p.name == "Over" and p.args[0] == thing)

    # ------------------------------------------------------------------ tools

    def _press(self, view: View, desk: Desk, goal: Predicate) -> Plan | None:
        button = view.region(goal.args[1]).pos
        for arm in view.arms.nearest(button):
            plan = tools.press(desk, arm, button)
            if plan is not None:
                return plan
        return None

    def _strike(self, view: View, desk: Desk, wanted: Sequence[Predicate]) -> Plan | None:
        tool = next(p.args[0] for p in wanted if p.name == "Touching")
        over = next(p for p in wanted if p.name == "Over")
        place = view.region(over.args[1]).pos
        now = view.thing(tool)
        face = now.inverse() @ view.region(over.args[0])
        arms = view.arms.nearest(place)

        def targets() -> list[Pose]:
            heading = float(np.arctan2(now.rot[1, 0], now.rot[0, 0]))
            out = []
            for turn in (0.0, 0.3, -0.3, 0.6, -0.6):
                rot = turn_z(heading + turn)
                out.append(Pose(place - rot @ face.pos, rot))
            return out

        for arm in range(2):
            if view.holding(arm) == tool:
                return tools.strike(desk, arm, tool, face.pos, targets())
        for arm in arms:
            found = taking.takes(
                desk, arm, tool, lambda grip, arm=arm: taking.reachable(desk, arm, grip, targets())
            )
            if found is not None:
                return taking.take(desk, [found])
        return None

    # ---------------------------------------------------------------- placing

    def _place(self, view: View, desk: Desk, wanted: Sequence[Predicate]) -> Plan | None:
        jobs = list(self._placings(view, wanted))
        for arm in range(2):
            held = view.holding(arm)
            job = next((j for j in jobs if j.thing == held), None)
            if held is not None:
                return self._put(view, desk, arm, held, job)
        for job in jobs:
            if not job.done(view):
                return self._carry(view, desk, job)
        return None if view.all_open() else tools.go_home(desk)

    def _put(
        self, view: View, desk: Desk, arm: int, thing: str, job: Placing | None
    ) -> Plan | None:
        if job is not None:
            support = [g for name in job.support for g in view.geoms(name)]
            support += view.geoms("table")
            plan = taking.put(desk, arm, thing, job.targets(view), support=support)
            if plan is not None:
                return plan
            if len({tuple(h[0]) for h in hints(self.scene, thing)}) > 1:
                air = Pose(np.array([0.0, -0.03, view.table + IN_THE_AIR]), np.eye(3))
                plan = together.hand_over(desk, arm, thing, air)
                if plan is not None:
                    return plan
        return taking.put(desk, arm, thing, self._spots(view, thing), support=view.geoms("table"))

    def _carry(self, view: View, desk: Desk, job: Placing) -> Plan | None:
        thing = view.thing(job.thing)
        targets = job.targets(view)
        order = view.arms.nearest(thing.pos)
        for arm in order:
            found = taking.takes(
                desk, arm, job.thing,
                lambda grip, arm=arm: taking.reachable(desk, arm, grip, targets),
            )  # fmt: skip
            if found is not None:
                return taking.take(desk, [found])
        # Neither reaches both: bring it to the middle, or near the other hand.
        arm = order[0]
        side = np.sign(view.arms.arms[arm].base[0])

        def near_side(grip: Grip) -> float:
            return -2.0 * float(side * (thing.rot @ grip.hand.pos)[0])

        found = taking.takes(desk, arm, job.thing, near_side)
        return taking.take(desk, [found]) if found is not None else None

    def _spots(self, view: View, thing: str) -> list[Pose]:
        """Free places in the middle of the table."""
        own = self.scene.thing(thing)
        rots = _upright(view.thing(thing))
        out: list[Pose] = []
        for y in SPOTS_Y:
            for x in (0.0, -0.05, 0.05):
                at = np.array([x, y, view.table - own.bottom])
                if view.is_free(thing, at, APART):
                    out += [Pose(at, rot) for rot in rots]
        return out

    def _placings(self, view: View, wanted: Sequence[Predicate]) -> Iterator[Placing]:
        stacks = [p for p in wanted if p.name in ("Stacked", "Nested")]
        if stacks:
            yield from self._stack(view, stacks)
        row = [p for p in wanted if p.name == "LeftOf"]
        if row:
            yield from self._row(view, row)
        for p in wanted:
            if p.name in ("At", "Over"):
                yield self._into(view, p, wanted)

    def _into(self, view: View, p: Predicate, wanted: Sequence[Predicate]) -> Placing:
        thing, mark = p.args
        region = self.scene.region(mark)
        parent = region.parent or "table"
        mine = [q for q in wanted if q.name in ("At", "Over", "Aligned") and q.args[0] == thing]

        def done(view: View) -> bool:
            return all(view.holds(q) for q in mine) and view.at_rest(thing)

        def targets(view: View) -> list[Pose]:
            place, own = view.region(mark), self.scene.thing(thing)
            if any(q.name == "Aligned" for q in mine):
                z = view.body(self.scene.thing(parent).body).pos[2] + 0.003 - own.bottom
                return [Pose(np.array([*place.pos[:2], z]), place.rot)]
            if p.name == "Over":  # side by side in a basket, let go above its floor
                side = np.sign(view.thing(thing).pos[0] - place.pos[0]) or 1.0
                base = view.body(self.scene.thing(parent).body).pos[2]
                out = []
                for x in (0.03, 0.0):
                    at = place.pos * [1, 1, 0] + np.array([side * x, 0, base + DROP - own.bottom])
                    out += [Pose(at, turn_z(a)) for a in (np.pi / 2, -np.pi / 2, 0.0, np.pi)]
                return out
            return [Pose(place.pos, place.rot @ turn_z(a)) for a in (0.0, np.pi)]

        return Placing(thing, done, targets, (parent,))

    def _stack(self, view: View, stacks: Sequence[Predicate]) -> Iterator[Placing]:
        uppers = {p.args[0] for p in stacks}
        left = sorted(stacks, key=lambda p: p.args[1] in uppers)
        base = left[0].args[1]

        def in_the_middle(view: View) -> bool:
            return abs(view.thing(base).pos[0]) < MIDDLE

        yield Placing(base, in_the_middle, lambda view: self._spots(view, base))
        for p in left:
            upper, lower = p.args

            def done(view: View, p: Predicate = p) -> bool:
                return view.holds(p)

            def targets(view: View, p: Predicate = p) -> list[Pose]:
                below, a, b = view.thing(p.args[1]), *map(self.scene.thing, p.args)
                rise = NEST_RISE if p.name == "Nested" else b.top - a.bottom
                at = below.pos + np.array([0, 0, rise])
                return [Pose(at, rot) for rot in _upright(below)]

            yield Placing(upper, done, targets, (lower,))

    def _row(self, view: View, row: Sequence[Predicate]) -> Iterator[Placing]:
        names = [row[0].args[0], *(p.args[1] for p in row)]
        if all(view.holds(p) for p in row):
            return
        spots = self._row_spots(view, names)
        order = sorted(range(len(names)), key=lambda i: self._occupied(view, names, spots, i))
        for i in order:

            def done(view: View, i: int = i) -> bool:
                return bool(np.hypot(*(view.thing(names[i]).pos - spots[i])[:2]) < ROW_NEAR)

            def targets(view: View, i: int = i) -> list[Pose]:
                if self._occupied(view, names, spots, i):
                    return self._spots(view, names[i])
                return [Pose(spots[i], rot) for rot in _upright(view.thing(names[i]))]

            yield Placing(names[i], done, targets)

    def _occupied(self, view: View, names: Sequence[str], spots: Sequence[Array], i: int) -> bool:
        """Whether another block stands where the i-th shall be."""
        return any(
            np.hypot(*(view.thing(other).pos - spots[i])[:2]) < 0.078
            for j, other in enumerate(names)
            if j != i and np.hypot(*(view.thing(other).pos - spots[j])[:2]) > ROW_NEAR
        )

    def _row_spots(self, view: View, names: Sequence[str]) -> list[Array]:
        """Where the row is built: where most blocks are in place already, or else in nobody's way.

        A function of where the blocks are, so that it stays once the first block is placed.
        """
        z = view.table - self.scene.thing(names[0]).bottom
        best: tuple[float, list[Array]] | None = None
        for y in SPOTS_Y:
            spots = [
                np.array([(i - (len(names) - 1) / 2) * ROW_STEP, y, z]) for i in range(len(names))
            ]
            score = 0.0
            for i, name in enumerate(names):
                placed = np.hypot(*(view.thing(name).pos - spots[i])[:2]) < ROW_NEAR
                score += 10.0 * placed - 3.0 * self._occupied(view, names, spots, i)
            score -= 5.0 * abs(y)
            if best is None or score > best[0]:
                best = score, spots
        assert best is not None
        return best[1]


def _upright(pose: Pose) -> list[Array]:
    """Upright orientations a quarter turn apart, the one most like a pose's first, 0 before."""
    yaw = float(np.arctan2(pose.rot[1, 0], pose.rot[0, 0]))
    near = np.pi / 2 * np.round(yaw / (np.pi / 2))
    return [turn_z(a) for a in (near, near + np.pi / 2, near - np.pi / 2, near + np.pi, yaw)]
