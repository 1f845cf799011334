"""Holds of a part that a joint moves: fingers around its handle, or against a face of it.

The hand stays fixed to the part while it moves. Both kinds of hold are read off the
collision shapes, and checked for reach and clearance at the start, half way and at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from envs.scene import Threshold
from policies.oracle.geometry import (
    DOWN,
    Array,
    Pose,
    Solids,
    across,
    cross,
    from_rotation_vector,
    hand_rotation,
    rotation_vector,
)
from policies.oracle.grasps import PAD_BELOW, Grasp, grasps
from policies.oracle.motion import CLOSED, OPEN
from policies.oracle.parts import HANDLE_DEPTH, Part, handle_of, part_of
from policies.oracle.routes import HIGH
from policies.oracle.view import View

TILTS = np.deg2rad([0.0, 25.0, 45.0, 60.0, 75.0, 90.0])  # of the hand from straight down
TILT_COST = 1.2  # per radian: an upright hand hides least and reaches best
GRASPS_PER_TILT = 24
SHARES = (1.0, 0.7, 0.4)  # of the way, where the wrist cannot follow a door to its end
# Of the way, where the arm must be able to follow without a jump of its joints (radians).
CLOSELY, JUMP = (0.17, 0.33, 0.5, 0.67, 0.83, 1.0), 0.7
WRIST = 2.2  # radians of the last joint that leave some for what the controller makes of it
AWAY = 0.06  # metres by which the hand must be able to back off
TOUCH = 0.002  # metres of overlap with what is held or pushed
CLEAR = 0.0015  # metres around open fingers
# (overlap that is put up with, metres between the pads): as in skills.picking
ATTEMPTS = ((0.0, 0.08), (0.0, 0.05), (0.004, 0.05), (0.012, 0.05))
MOST = ATTEMPTS[-1][0]
CLOSED_AROUND = 0.02  # metres between the pads with a handle between them
# Half thickness of the closed fingers, metres, across and along their closing direction.
ACROSS, ALONG = 0.0115, 0.0275
ALIKE = (0.015, 0.3)  # metres and radians within which two holds are the same


@dataclass(frozen=True)
class Hold:
    """How to have a part in the hand.

    Attributes:
        hand: Grip site at the part's present position.
        gap: Metres between the pads on the way there.
        pushes: True for closed fingers against a face, False for a grasped handle.
        back: Unit direction in which the hand leaves.
        share: Part of the way to the goal that the hand can go along.
        cost: Lower is better.
    """

    hand: Pose
    gap: float
    pushes: bool
    back: Array
    cost: float
    share: float = 1.0


class Holding:
    """Finds holds of a scene's parts; grasps of handles are found once."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._found: dict[str, tuple[tuple[float, Array, Grasp], ...]] = {}

    def best(
        self, part: Part, avoid: tuple[Pose, ...] = (), *, inside: bool = False
    ) -> Hold | None:
        """The best hold that works all the way, or a part of it; None when there is none.

        Args:
            part: What to move.
            avoid: Hands that were tried in vain.
            inside: True for a drawer that is open, which can be pushed from inside.
        """
        found = (*self._grasped(part), *_pushing(self._view, part, inside))
        options = [h for h in found if not any(_alike(h.hand, a) for a in avoid)]
        options.sort(key=lambda hold: hold.cost)
        for share in SHARES:
            found = self._first(part, options, share)
            if found is not None:
                return replace(found, share=share)
        return None

    def _first(self, part: Part, options: list[Hold], share: float) -> Hold | None:
        """The first of the options that works for a share of the way."""
        still = self._view.part_at(part.joint, part.now).inverse()
        shares = CLOSELY if is_high(self._view, part) else (0.5, 1.0)
        stops = [part.now + s * share * (part.goal - part.now) for s in shares]
        moves = tuple((q, self._view.part_at(part.joint, q) @ still) for q in stops)
        overlaps: dict[tuple[int, float], float] = {}
        for slack, gap in ATTEMPTS:
            for number, option in enumerate(options):
                hold = option if option.pushes else replace(option, gap=gap)
                key = (number, hold.gap)
                if key not in overlaps:
                    overlaps[key] = _overlap(self._view, part, hold, moves)
                if overlaps[key] <= slack:
                    return hold
        return None

    def _grasped(self, part: Part) -> Iterator[Hold]:
        """Fingers closed around the handle."""
        view = self._view
        body = view.part_at(part.joint, part.now)
        if part.joint not in self._found:
            self._found[part.joint] = self._handle_grasps(part.joint)
        for tilt, approach, grasp in self._found[part.joint]:
            hand = body @ Pose(grasp.pos, hand_rotation(grasp.closing, approach))
            hand = nearest_turn(view, hand)
            hands = (hand, _swapped(hand)) if is_high(view, part) else (hand,)
            for hand in hands:
                cost = grasp.cost + TILT_COST * tilt + _turning_cost(view, hand)
                yield Hold(hand, OPEN, False, -hand.rot[:, 2], cost)

    def _handle_grasps(self, joint: str) -> tuple[tuple[float, Array, Grasp], ...]:
        """Tilts, approaches and grasps of a joint's handle, in the frame of its body."""
        handle = handle_of(self._view, part_of(self._view, joint, Threshold(above=0.0)))
        if handle is None:
            return ()
        side = cross(-handle.up, -handle.front)
        out: list[tuple[float, Array, Grasp]] = []
        for tilt in TILTS:
            approach = from_rotation_vector(side * tilt) @ -handle.up
            # grasps() wants a frame whose third column is where the hand comes from
            frame = hand_rotation(across(approach), approach) * np.array([1.0, -1.0, -1.0])
            found = grasps(handle.solids, frame, handle.centre, below=PAD_BELOW)
            out += [(float(tilt), approach, g) for g in found[:GRASPS_PER_TILT]]
        return tuple(out)


def is_high(view: View, part: Part) -> bool:
    """Whether a hinged part is where the arm must stretch, and cannot follow every turn."""
    if part.slides:
        return False
    return float(view.solids(part.geoms).centre[:, 2].max()) > view.body.base[2] + HIGH


def _alike(a: Pose, b: Pose) -> bool:
    turned = float(np.linalg.norm(rotation_vector(a.rot @ b.rot.T)))
    near = np.linalg.norm(a.pos - b.pos) < ALIKE[0]
    return bool(near and min(turned, np.pi - turned) < ALIKE[1])


def _swapped(hand: Pose) -> Pose:
    """The same hold with the fingers swapped."""
    return Pose(hand.pos, hand.rot * np.array([-1.0, -1.0, 1.0]))


def nearest_turn(view: View, hand: Pose) -> Pose:
    """The same hold with the fingers swapped where that is less to turn."""
    swapped = _swapped(hand)
    here = np.linalg.norm(rotation_vector(hand.rot @ view.eef.rot.T))
    there = np.linalg.norm(rotation_vector(swapped.rot @ view.eef.rot.T))
    return hand if here <= there else swapped


def _turning_cost(view: View, hand: Pose) -> float:
    return 0.3 * float(np.linalg.norm(rotation_vector(hand.rot @ view.eef.rot.T)))


def _pushing(view: View, part: Part, inside: bool) -> Iterator[Hold]:
    """Closed fingers against faces that look away from where the part must go."""
    solids = view.solids(part.geoms)
    rear = None
    if part.slides and not inside:  # a face behind others cannot be pushed
        way = part.direction(part.anchor)
        rear = float((solids.centre @ way - solids.reach(way[None])[:, 0]).min())
    for k in range(len(solids)):
        for sign in (1.0, -1.0):
            for j in range(3):
                normal = sign * solids.axes[k][:, j]
                face = solids.centre[k] + normal * solids.half[k, j]
                if normal @ part.direction(face) > -0.9 or abs(normal[2]) > 0.3:
                    continue
                if rear is not None and face @ part.direction(face) > rear + HANDLE_DEPTH:
                    continue
                for hold in _against(view, part, face, solids, k, j):
                    # Out of a drawer the hand goes as it came in, from above.
                    yield replace(hold, back=-hold.hand.rot[:, 2]) if inside else hold


def _against(view: View, part: Part, face: Array, solids: Solids, k: int, j: int) -> Iterator[Hold]:
    """Hands against one face of a solid: at its middle, and towards its edges."""
    points = [face]
    for i in range(3):
        span = solids.axes[k][:, i] * solids.half[k, i]
        if i != j and solids.half[k, i] > 0.03:
            points += [face + 0.6 * span, face - 0.6 * span]
            if is_high(view, part):  # at the edge, where less of the hand must get past it
                points += [face + 0.9 * span, face - 0.9 * span]
    for point in points:
        way = part.direction(point)
        lever = 1.0 if part.slides else float(np.linalg.norm((point - part.anchor)[:2]))
        side = cross(DOWN, way)
        side = side / np.linalg.norm(side)
        leans = [(tilt, from_rotation_vector(side * tilt) @ DOWN) for tilt in TILTS[:5]]
        if is_high(view, part):  # also past the part, as the arm stretches
            out = np.sign(side @ (point - view.body.base)) or 1.0
            leans += [(t, from_rotation_vector(way * -out * t) @ DOWN) for t in TILTS[2:]]
        for tilt, approach in leans:
            for closing, thick in ((cross(approach, way), ACROSS), (way, ALONG)):
                if np.linalg.norm(closing - approach * (approach @ closing)) < 0.3:
                    continue
                rot = hand_rotation(closing, approach)
                hand = nearest_turn(view, Pose(point - way * thick, rot))
                cost = 1.0 + TILT_COST * float(tilt) + _turning_cost(view, hand)
                # Far from the hinge it takes little force and little room.
                cost += 0.0 if part.slides else 0.3 / max(lever, 0.03)
                yield Hold(hand, CLOSED, True, -way, cost)


def _overlap(view: View, part: Part, hold: Hold, moves: tuple[tuple[float, Pose], ...]) -> float:
    """Worst overlap on the way to a hold and with it, beyond what touching takes; metres.

    The hand is looked at first, which is quick; then the arm, for hands that are free.

    Args:
        view: The scene now.
        part: What is moved.
        hold: How.
        moves: (joint position, what it does to a pose that is fixed to the part).
    """
    worst = _depth(view, part, hold, hold.hand, hold.hand.shifted(hold.back * AWAY), ())
    if worst > MOST:
        return np.inf
    path = [(q, move @ hold.hand) for q, move in moves]
    arm = view.reach(hold.hand)
    if arm is None:
        return np.inf
    away = view.reach(hold.hand.shifted(hold.back * AWAY), arm)
    if away is None:
        return np.inf
    there: list[tuple[float, Array]] = []
    follows = is_high(view, part)
    before = arm
    for q, hand in path:
        moved = view.reach(hand, before if follows else arm)
        if moved is None:
            return np.inf
        if follows and float(np.abs(moved - before).max()) > JUMP:
            return np.inf
        if follows and abs(float(moved[-1])) > WRIST:
            return np.inf
        before = moved
        there.append((q, moved))
    return max(worst, _depth(view, part, hold, arm, away, there))


def _depth(
    view: View,
    part: Part,
    hold: Hold,
    start: Array | Pose,
    away: Array | Pose,
    path: Sequence[tuple[float, Array]],
) -> float:
    margin, taken = (0.0, TOUCH) if hold.pushes else (CLEAR, CLEAR)
    worst = view.hits(start, gap=hold.gap, margin=margin) - taken
    if worst > MOST:
        return worst
    worst = max(worst, view.hits(away, gap=hold.gap))
    closed = CLOSED if hold.pushes else CLOSED_AROUND
    for q, where in path:
        depth = view.hits(where, gap=closed, ignore=part.geoms, joints={part.joint: q})
        worst = max(worst, depth - TOUCH)
    return worst
