"""Choosing among the grasps of a thing: which are free, within reach, and fit the target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from envs.scene import Thing
from policies.oracle.geometry import (
    DOWN,
    Array,
    Pose,
    across,
    from_rotation_vector,
    rotation_vector,
    wrapped,
)
from policies.oracle.grasps import Grasp, grasps
from policies.oracle.skills.base import Failure, Held
from policies.oracle.view import View

PREGRASP = 0.06  # metres before the grasp where the hand stops being in a hurry
AXIS = (0.06, 0.12, 0.18)  # metres before the grasp where the way in is looked at
LIFTS = (0.012, 0.025, 0.04, 0.06, 0.09, 0.12, 0.18)  # metres where the way out is
CLEAR = 0.0015  # metres around the open fingers
PLAY = 0.003  # metres between a finger and the thing before it closes
LEAN = 0.45  # radians by which the hand may be tilted
# Where something hangs over the thing it is first moved aside, a little above the ground.
SLIDES = [
    np.array([d * np.cos(a), d * np.sin(a), 0.008])
    for d in (0.04, 0.07)
    for a in np.arange(8) * np.pi / 4
]
UPRIGHT, ANY_LEAN = (0,), (0, 1, 2, 3, 4)
# (overlap that is put up with, metres between the pads, leanings, slides allowed): a wide
# upright hand first, then narrower and leaning ones for tight places, then ways out from
# under a roof, then a hand that pushes its neighbours a little.
ATTEMPTS = (
    (0.0, 0.08, UPRIGHT, False),
    (0.0, 0.05, UPRIGHT, False),
    (0.0, 0.035, UPRIGHT, False),
    (0.0, 0.05, ANY_LEAN, False),
    (0.0, 0.08, UPRIGHT, True),
    (0.0, 0.035, UPRIGHT, True),
    (0.003, 0.035, ANY_LEAN, True),
    (0.006, 0.08, UPRIGHT, True),
    (0.02, 0.08, UPRIGHT, True),
)
MOST = ATTEMPTS[-1][0]
COMPARED = 32  # of the free grasps, how many are also tried at the target
UNFIT = (0.03, 0.6)  # metres and radians around a grasp that does not fit the target
SAME = (0.012, 0.35)  # metres and radians within which a grasp counts as one that failed

# True when a thing taken like this can be put down where it should go.
Fits = Callable[[Held], bool]


@dataclass(frozen=True)
class Choice:
    """A grasp to make.

    Attributes:
        hand: Grip site.
        gap: Metres between the pads on the way there.
        held: What is then in the hand.
        slide: Way [3] of the hand before it lifts; zero where nothing is in the way.
    """

    hand: Pose
    gap: float
    held: Held
    slide: Array


class Grasping:
    """Grasps of a scene's things, found once per thing and side that is up."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._cached = lru_cache(maxsize=256)(self._find)

    def of(self, thing: Thing) -> tuple[Grasp, ...]:
        """Grasps from above for a thing as it lies now, in its own frame, best first."""
        up = self._view.up_of(self._view.scene.body_id(thing.body))
        return self._cached(thing.name, tuple(up.tolist()))

    def _find(self, name: str, up: tuple[float, ...]) -> tuple[Grasp, ...]:
        view, thing = self._view, self._view.scene.thing(name)
        body = view.scene.body_id(thing.body)
        z = np.array(up)
        frame = np.column_stack([across(z), np.cross(z, across(z)), z])
        return grasps(view.shape(body, thing.geoms), frame, view.model.body_ipos[body])


def choose(
    view: View,
    grasping: Grasping,
    thing: Thing,
    failures: tuple[Failure, ...],
    fits: Fits,
) -> Choice | None:
    """The best grasp that is free and serves the target; None when none is within reach.

    Where no grasp serves the target, one that is free has to do: the thing can be taken
    anew from where it is then put.
    """
    options = _candidates(view, grasping, thing, failures)
    pose = view.pose(thing)
    found: dict[tuple[int, int, float, bool], tuple[float, Array]] = {}
    for slack, gap, leans, slides in ATTEMPTS:
        best: Choice | None = None
        unfit: list[Grasp] = []
        for (number, (grasp, upright)), lean in product(enumerate(options), leans):
            if grasp.width > gap - 2 * PLAY:
                continue
            hand = leaning(upright, lean)
            key = (number, lean, gap, slides)
            if key not in found:
                found[key] = _overlap(view, thing, hand, grasp.width, gap, slides)
            overlap, slide = found[key]
            if overlap > slack or any(_similar(grasp, other) for other in unfit):
                continue
            held = Held(thing.name, hand.inverse() @ pose, pose.rot, grasp.width)
            choice = Choice(hand, gap, held, slide)
            best = best or choice
            if fits(held):
                return choice
            unfit.append(grasp)
            if len(unfit) >= COMPARED:
                break
        if best is not None:
            return best
    return None


def leaning(hand: Pose, way: int) -> Pose:
    """The hand tilted out of the vertical, about its fingertips: 0 not, 1-4 to its four sides."""
    if way == 0:
        return hand
    axis = hand.rot[:, (way - 1) // 2] * (LEAN if way % 2 else -LEAN)
    return Pose(hand.pos, from_rotation_vector(axis) @ hand.rot)


def _candidates(
    view: View, grasping: Grasping, thing: Thing, failures: tuple[Failure, ...]
) -> list[tuple[Grasp, Pose]]:
    """Grasps in the order in which to try them, each with the nearer of its two turns."""
    pose = view.pose(thing)
    ranked: list[tuple[float, int, Grasp, Pose]] = []
    for number, grasp in enumerate(grasping.of(thing)):
        if any(_same(grasp, f) for f in failures if f.thing == thing.name):
            continue
        hand = nearer_turn(view, grasp.in_world(pose, DOWN))
        turned = abs(float(rotation_vector(hand.rot @ view.eef.rot.T)[2]))
        twisted = abs(twist(view, hand))
        # Half a radian less to turn is worth about as much as 3 cm nearer to the centre.
        cost = grasp.cost + 0.3 * turned + 0.4 * max(0.0, twisted - 1.0)
        ranked.append((cost, number, grasp, hand))
    ranked.sort(key=lambda r: r[:2])
    return [(grasp, hand) for _, _, grasp, hand in ranked]


def _similar(grasp: Grasp, other: Grasp) -> bool:
    """Whether one will not fit where the other does not."""
    near = np.linalg.norm(grasp.pos - other.pos) < UNFIT[0]
    return bool(near and abs(grasp.closing @ other.closing) > np.cos(UNFIT[1]))


def _same(grasp: Grasp, failure: Failure) -> bool:
    near = np.linalg.norm(grasp.pos - failure.pos) < SAME[0]
    return bool(near and abs(grasp.closing @ failure.rot[:, 0]) > np.cos(SAME[1]))


def twist(view: View, hand: Pose) -> float:
    """Turn of the wrist from home, radians: what the last joint has to give."""
    closing, base = hand.rot[:, 0], view.body.base
    yaw = np.arctan2(closing[1], closing[0]) - np.pi / 2  # at home fingers close along y
    bearing = np.arctan2(hand.pos[1] - base[1], hand.pos[0] - base[0])
    return wrapped(float(yaw - bearing))


def nearer_turn(view: View, hand: Pose) -> Pose:
    """The same grasp with the fingers swapped where that spares the wrist."""
    if abs(twist(view, hand)) <= np.pi / 2:
        return hand
    return Pose(hand.pos, hand.rot * np.array([-1.0, -1.0, 1.0]))


def _overlap(
    view: View, thing: Thing, hand: Pose, width: float, gap: float, slides: bool
) -> tuple[float, Array]:
    """Worst overlap of coming along the hand's axis, closing and lifting, and the slide.

    Infinite when it is too much or out of reach. The hand is looked at first, which is
    quick; then the arm, for hands that are free.
    """
    still = np.zeros(3)
    worst = view.hits(hand, gap=gap, margin=CLEAR) - CLEAR
    for closing in ((gap + width) / 2, width):
        if worst > MOST:
            return np.inf, still
        depth = view.hits(hand, gap=closing, ignore=thing.geoms, margin=CLEAR) - CLEAR
        worst = max(worst, depth)
    axis = hand.rot[:, 2]
    for distance in AXIS:
        if worst <= MOST:
            worst = max(worst, view.hits(hand.shifted(-distance * axis), gap=gap))
    if worst > MOST:
        return np.inf, still
    out, slide = _way_out(view, thing, hand, width, slides)
    worst = max(worst, out)
    arm = view.reach(hand)
    if worst > MOST or arm is None:
        return np.inf, still
    worst = max(worst, view.hits(arm, gap=gap, margin=CLEAR) - CLEAR)
    before = view.reach(hand.shifted(-PREGRASP * axis), arm)
    if before is None:
        return np.inf, still
    return max(worst, view.hits(before, gap=gap)), slide


def _way_out(
    view: View, thing: Thing, hand: Pose, width: float, slides: bool
) -> tuple[float, Array]:
    """Worst overlap of lifting the thing along the hand's axis, aside first if need be."""
    offset = hand.inverse() @ view.pose(thing)

    def depth(at: Pose) -> float:
        return view.hits(at, gap=width, carried=thing, carried_pose=at @ offset)

    def lifted(start: Pose) -> float:
        worst = 0.0
        for distance in LIFTS:
            worst = max(worst, depth(start.shifted(-distance * hand.rot[:, 2])))
            if worst > MOST:
                break
        return worst

    best = (lifted(hand), np.zeros(3))
    if best[0] == 0.0 or not slides:
        return best
    for slide in SLIDES:
        worst = max(depth(hand.shifted(share * slide)) for share in (0.5, 1.0))
        if worst < best[0]:
            worst = max(worst, lifted(hand.shifted(slide)))
        if worst < best[0]:
            best = (worst, slide)
        if worst == 0.0:
            break
    return best
