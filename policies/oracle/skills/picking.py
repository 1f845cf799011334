"""Taking a thing: choosing among its grasps, reaching, closing, lifting."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from itertools import tee

import numpy as np

from envs.scene import Thing
from policies.oracle.geometry import (
    DOWN,
    Array,
    Pose,
    across,
    cross,
    from_rotation_vector,
    rotation_vector,
    unit,
    wrapped,
)
from policies.oracle.grasps import Grasp, grasps
from policies.oracle.motion import CLOSED, Waypoint
from policies.oracle.routes import UPWARDS, over
from policies.oracle.skills.base import Failure, Held, Progress, Script
from policies.oracle.view import View

PREGRASP = 0.06  # metres before the grasp where the hand stops being in a hurry
BESIDE = 0.03  # metres beside the way in from which a hand still comes straight to it
LIFT = 0.09  # metres; what is held is checked on the way up
WITHDRAWAL = (0.06, 0.12, 0.18)  # metres before the grasp where the way in is checked
CLOSING = 7  # steps until the fingers have closed on what is between them
CLEAR = 0.0015  # metres around the open fingers
COMPARED = 32  # of those that the hand reaches, how many are also tried at the target
PLAY = 0.003  # metres between a finger and the thing before it closes
LEAN = 0.45  # radians by which the hand may be tilted
# (overlap that is put up with, metres between the pads, leanings): a wide upright hand
# first, then narrower and leaning ones for tight places, then one that pushes its
# neighbours a little.
ATTEMPTS = (
    (0.0, 0.08, (0,)),
    (0.0, 0.05, (0,)),
    (0.0, 0.035, (0,)),
    (0.0, 0.05, (1, 2, 3, 4)),
    (0.003, 0.035, (0, 1, 2, 3, 4)),
    (0.006, 0.08, (0,)),
    (0.02, 0.08, (0,)),
)
MOST = ATTEMPTS[-1][0]
# From the front, under a roof: the hand leans forwards about its fingertips by so many radians.
STOOPS = (0.8, 1.1, 1.4)
STOOPING = tuple(range(5, 5 + len(STOOPS)))
UNDER_A_ROOF = tuple(
    (slack, gap, STOOPING) for slack, gap in ((0.0, 0.08), (0.0, 0.05), (0.004, 0.05))
)
STOOPED = -0.6  # vertical part of the fingers' direction from which on a hand stoops
SINKING = 0.25  # metres down per metre forwards of a stooping hand's way in
FORWARD = 0.8  # cosine between the fingers' closing and the sideways direction, for stooping
UNFIT = (0.03, 0.6)  # metres and radians around a grasp that does not fit the target
SAME = (0.012, 0.35)  # metres and radians within which a grasp counts as one that failed
LOST = 0.035  # metres that a thing may move in the hand

# True when a thing taken like this can be put down where it should go.
Fits = Callable[[Held], bool]


class Grasping:
    """Grasps of a scene's things, found once per thing and side that is up."""

    def __init__(self, view: View) -> None:
        self._view = view
        # Not an lru_cache of a bound method: that would be a cycle, which keeps a model
        # of 100 MB and more until the garbage collector happens to look.
        self._found: dict[tuple[str, bytes], tuple[Grasp, ...]] = {}

    def of(self, thing: Thing) -> tuple[Grasp, ...]:
        """Grasps from above for a thing as it lies now, in its own frame, best first."""
        up = self._view.up_of(self._view.scene.body_id(thing.body))
        key = (thing.name, up.tobytes())
        if key not in self._found:
            self._found[key] = self._find(thing, up)
        return self._found[key]

    def _find(self, thing: Thing, up: Array) -> tuple[Grasp, ...]:
        view = self._view
        body = view.scene.body_id(thing.body)
        solids = view.shape(body, thing.geoms)
        return grasps(solids, _frame(up), view.model.body_ipos[body])


def _frame(up: Array) -> Array:
    """A rotation whose third column is a direction."""
    x = across(up)
    return np.column_stack([x, cross(up, x), up])


def pick(
    view: View,
    grasping: Grasping,
    thing: Thing,
    progress: Progress,
    fits: Fits,
    then: str,
    *,
    roofed: bool = False,
) -> Script | None:
    """Plan reaching for a thing, closing on it and lifting it.

    Args:
        view: The scene now.
        grasping: Its grasps.
        thing: What to take.
        progress: What failed before is avoided.
        fits: Whether a grasp serves the target as well.
        then: Stage after the lift.
        roofed: Whether it goes under a roof, where few grasps fit: worth looking for one.

    Returns:
        The script, or None when no grasp is within reach.
    """
    if view.pinches(thing):  # whoever moved the hand here: it need only be lifted
        hand = view.eef
        held = _taken(view, thing, hand, view.finger_gap)
        return Script(
            _take(hand, hand.shifted(LIFT * UPWARDS)), replace(progress, stage=then, held=held)
        )
    chosen = _choose(view, grasping, thing, progress.failures, fits, roofed)
    if chosen is None:
        return None
    held, hand, gap = chosen
    leaning = hand.rot[2, 2] > -0.99
    above = hand.shifted(-(WITHDRAWAL[1] if leaning else PREGRASP) * _way_in(hand))
    up = hand.shifted(-(WITHDRAWAL[1] if leaning else LIFT) * _way_in(hand))
    if not leaning and _is_nearly_there(view, hand, gap):
        away = float(np.linalg.norm(view.eef.pos - above.pos))
        route = (Waypoint(pose=above, gap=gap, blend=away + BESIDE, label="nearly there"),)
    else:
        route = over(view, view.eef, above, gap=gap, label=f"reach for {thing.name}")
    descend = Waypoint(pose=hand, gap=gap, speed=0.7, straight=True, calm=0.15, label="descend")
    return Script((*route, descend, *_take(hand, up)), replace(progress, stage=then, held=held))


def _take(hand: Pose, up: Pose) -> tuple[Waypoint, ...]:
    return (
        Waypoint(pose=hand, gap=CLOSED, dwell=CLOSING, calm=0.1, label="close"),
        Waypoint(pose=up, gap=CLOSED, speed=0.8, blend=0.03, calm=0.5, label="lift"),
    )


def _is_nearly_there(view: View, hand: Pose, gap: float) -> bool:
    """Whether an open hand is so near to a way in that it can go aside onto it, and on.

    Going up first, as from elsewhere, would mean opposite things for two hands that stand a
    few millimetres apart, on and beside the way: nobody could learn that from pictures.
    """
    eef, way = view.eef, _way_in(hand)
    back = float((hand.pos - eef.pos) @ way)
    aside = hand.pos - back * way - eef.pos
    if not 0.0 <= back <= PREGRASP or float(np.linalg.norm(aside)) > BESIDE:
        return False
    if view.finger_gap < gap - PLAY:
        return False
    turn = rotation_vector(hand.rot @ eef.rot.T)
    sideways = (
        Pose(eef.pos + share * aside, from_rotation_vector(share * turn) @ eef.rot)
        for share in (0.25, 0.5, 0.75)
    )
    return all(view.hits(pose, gap=gap) == 0 for pose in sideways)


def _taken(view: View, thing: Thing, hand: Pose, width: float) -> Held:
    pose = view.pose(thing)
    return Held(thing.name, hand.inverse() @ pose, pose.rot, width)


def _choose(
    view: View,
    grasping: Grasping,
    thing: Thing,
    failures: tuple[Failure, ...],
    fits: Fits,
    roofed: bool,
) -> tuple[Held, Pose, float] | None:
    """The best grasp that is free: what is then held, grip site, finger gap before."""
    options = tee(_candidates(view, grasping, thing, failures), 1)[0]
    depths: dict[tuple[int, int, float], float] = {}
    best: tuple[Held, Pose, float] | None = None
    for slack, gap, leans in (*UNDER_A_ROOF, *ATTEMPTS) if roofed else (*ATTEMPTS, *UNDER_A_ROOF):
        unfit: list[Grasp] = []
        ranked = enumerate(copy(options))  # remembers what was ranked before
        for number, grasp, hand, k in ((n, g, h, k) for n, (g, h) in ranked for k in leans):
            if grasp.width > gap - 2 * PLAY:
                continue
            if k in STOOPING and not _faces_forward(view, hand):
                continue
            leaning = _leaning(view, hand, k)
            key = (number, k, gap)
            if key not in depths:
                depths[key] = _overlap(view, thing, leaning, grasp.width, gap)
            if depths[key] > slack:
                continue
            found = (_taken(view, thing, leaning, grasp.width), leaning, gap)
            best = best or found
            if any(_similar(grasp, other) for other in unfit):
                continue
            if fits(found[0]):
                return found
            unfit.append(grasp)
            if len(unfit) >= COMPARED:
                break
        if best is not None and not roofed:
            return best
    return best


def _way_in(hand: Pose) -> Array:
    """Unit direction in which a hand comes: along its fingers; level where it stoops."""
    along = hand.rot[:, 2]
    if along[2] < STOOPED:
        return along
    return unit(along * np.array([1.0, 1.0, 0.0]) - np.array([0.0, 0.0, SINKING]))


def _faces_forward(view: View, hand: Pose) -> bool:
    """Whether a hand may stoop: its fingers close across the direction away from the robot."""
    away = hand.pos - view.body.base
    return abs(float(hand.rot[:2, 0] @ away[:2])) < (1 - FORWARD) * float(np.hypot(*away[:2]))


def _leaning(view: View, hand: Pose, way: int) -> Pose:
    """The hand tilted out of the vertical, about its fingertips.

    0 not, 1-4 a little to its four sides, from 5 on forwards.
    """
    if way == 0:
        return hand
    if way in STOOPING:
        angle = STOOPS[way - STOOPING[0]]
        away = (hand.pos - view.body.base) * np.array([1.0, 1.0, 0.0])
        turned = from_rotation_vector(hand.rot[:, 0] * angle) @ hand.rot
        if turned[:, 2] @ away < 0:
            turned = from_rotation_vector(hand.rot[:, 0] * -angle) @ hand.rot
        return Pose(hand.pos, turned)
    axis = hand.rot[:, (way - 1) // 2] * (LEAN if way % 2 else -LEAN)
    return Pose(hand.pos, from_rotation_vector(axis) @ hand.rot)


def _candidates(
    view: View, grasping: Grasping, thing: Thing, failures: tuple[Failure, ...]
) -> Iterator[tuple[Grasp, Pose]]:
    """Grasps in the order in which to try them, each with the nearer of its two turns.

    They come best first, and turning only costs more: as soon as one that was looked at is no
    worse than the next one without any turning, none that follow can be better.
    """
    pose = view.pose(thing)
    known = [f for f in failures if f.thing == thing.name]
    ranked: list[tuple[float, int, Grasp, Pose]] = []
    for number, grasp in enumerate(grasping.of(thing)):
        while ranked and ranked[0][0] <= grasp.cost:
            yield heapq.heappop(ranked)[2:]
        if any(_same(grasp, f) for f in known):
            continue
        hand = nearer_turn(view, grasp.in_world(pose, DOWN))
        turned = abs(float(rotation_vector(hand.rot @ view.eef.rot.T)[2]))
        twisted = abs(twist(view, hand))
        # Half a radian less to turn is worth about as much as 3 cm nearer to the centre.
        cost = grasp.cost + 0.3 * turned + 0.4 * max(0.0, twisted - 1.0)
        heapq.heappush(ranked, (cost, number, grasp, hand))
    while ranked:
        yield heapq.heappop(ranked)[2:]


def _similar(grasp: Grasp, other: Grasp) -> bool:
    """Whether one will not fit where the other does not."""
    return bool(
        np.linalg.norm(grasp.pos - other.pos) < UNFIT[0]
        and abs(grasp.closing @ other.closing) > np.cos(UNFIT[1])
    )


def _same(grasp: Grasp, failure: Failure) -> bool:
    return bool(
        np.linalg.norm(grasp.pos - failure.pos) < SAME[0]
        and abs(grasp.closing @ failure.rot[:, 0]) > np.cos(SAME[1])
    )


def twist(view: View, hand: Pose) -> float:
    """Turn of the wrist from home, radians: what the last joint has to give."""
    closing = hand.rot[:, 0]
    yaw = np.arctan2(closing[1], closing[0]) - np.pi / 2  # at home fingers close along y
    bearing = np.arctan2(hand.pos[1] - view.body.base[1], hand.pos[0] - view.body.base[0])
    return wrapped(float(yaw - bearing))


def nearer_turn(view: View, hand: Pose) -> Pose:
    """The same grasp with the fingers swapped where that spares the wrist."""
    if abs(twist(view, hand)) <= np.pi / 2:
        return hand
    return Pose(hand.pos, hand.rot * np.array([-1.0, -1.0, 1.0]))


def _overlap(view: View, thing: Thing, hand: Pose, width: float, gap: float) -> float:
    """Worst overlap of coming along the hand's axis, closing and lifting; metres.

    Infinite when it is too much or out of reach. The hand is looked at first, which is
    quick; then the arm, for hands that are free.
    """
    worst = view.hits(hand, gap=gap, margin=CLEAR) - CLEAR
    for closing in ((gap + width) / 2, width):
        if worst > MOST:
            return np.inf
        depth = view.hits(hand, gap=closing, ignore=thing.geoms, margin=CLEAR) - CLEAR
        worst = max(worst, depth)
    offset = hand.inverse() @ view.pose(thing)
    for distance in WITHDRAWAL:
        if worst > MOST:
            return np.inf
        back = hand.shifted(-distance * _way_in(hand))
        worst = max(worst, view.hits(back, gap=gap))
        carried = view.hits(back, gap=width, carried=thing, carried_pose=back @ offset)
        worst = max(worst, carried)
    arm = view.reach(hand)
    if worst > MOST or arm is None:
        return np.inf
    worst = max(worst, view.hits(arm, gap=gap, margin=CLEAR) - CLEAR)
    before = view.reach(hand.shifted(-PREGRASP * _way_in(hand)), arm)
    return np.inf if before is None else max(worst, view.hits(before, gap=gap))


def is_held(view: View, held: Held) -> bool:
    """Whether a thing is still where it was in the hand."""
    offset = view.eef.inverse() @ view.pose(view.scene.thing(held.thing))
    return bool(np.linalg.norm(offset.pos - held.offset.pos) < LOST)
