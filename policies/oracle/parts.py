"""Parts that a joint moves (drawers, doors, knobs): where they go, and how to move them.

A hold is a place of the hand that is fixed to the part while it moves: fingers closed
around a handle, or closed fingers against a face. Both are read off the collision shapes,
and checked for reach and clearance at the start, on the way and at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import mujoco
import numpy as np

from envs.scene import Threshold
from policies.oracle.geometry import (
    DOWN,
    Array,
    Pose,
    Solids,
    from_rotation_vector,
    hand_rotation,
    rotation_vector,
)
from policies.oracle.grasps import PAD_BELOW, grasps
from policies.oracle.motion import CLOSED, OPEN
from policies.oracle.view import View

# Handles stick out: shapes within this distance of the foremost point, and no larger.
HANDLE_DEPTH = 0.05
HANDLE_HALF_SIZE = 0.075
TILTS = np.deg2rad([0.0, 25.0, 45.0, 60.0, 75.0, 90.0])  # of the hand from straight down
OVERSHOOT = {mujoco.mjtJoint.mjJNT_SLIDE: 0.015, mujoco.mjtJoint.mjJNT_HINGE: 0.30}
SHARE = 0.7  # of what is left of the joint's range beyond a threshold
TOUCH = 0.002  # metres of overlap with what is held or pushed
CLEAR = 0.0015
CANDIDATES = 24  # grasps of a handle per direction of approach
AWAY = 0.06  # metres by which the hand must be able to back off
# (overlap that is put up with, metres between the pads): see skills.picking
ATTEMPTS = ((0.0, 0.08), (0.0, 0.05), (0.004, 0.05), (0.01, 0.05))


@dataclass(frozen=True)
class Part:
    """What a joint moves.

    Attributes:
        joint: Its name.
        slides: True for a slide, False for a hinge.
        now: Present position, metres or radians.
        goal: Position to bring it to.
        anchor, axis: Of the joint, in the world.
        geoms: Ids of its collision geoms.
    """

    joint: str
    slides: bool
    now: float
    goal: float
    anchor: Array
    axis: Array
    geoms: tuple[int, ...]

    def direction(self, point: Array) -> Array:
        """Unit direction in which a point of the part goes towards the goal."""
        way = self.axis if self.slides else np.cross(self.axis, point - self.anchor)
        way = way * np.sign(self.goal - self.now)
        return way / max(float(np.linalg.norm(way)), 1e-9)


@dataclass(frozen=True)
class Hold:
    """How to have a part in the hand.

    Attributes:
        hand: Grip site at the part's present position.
        gap: Metres between the pads on the way there.
        pushes: True for closed fingers against a face, False for a grasped handle.
        back: Unit direction in which the hand leaves.
        cost: Lower is better.
    """

    hand: Pose
    gap: float
    pushes: bool
    back: Array
    cost: float


def part_of(view: View, joint: str, threshold: Threshold) -> Part:
    """Describe the part that a joint moves, and where a threshold wants it."""
    model = view.model
    number = model.joint(joint).id
    body = int(model.jnt_bodyid[number])
    mujoco.mj_kinematics(model, view.data)
    rot = view.data.xmat[body].reshape(3, 3)
    collides = (model.geom_contype | model.geom_conaffinity) != 0
    inside = np.zeros(model.nbody, bool)
    for b in range(body, model.nbody):
        inside[b] = b == body or inside[model.body_parentid[b]]
    kind = mujoco.mjtJoint(model.jnt_type[number])
    low, high = model.jnt_range[number]
    return Part(
        joint=joint,
        slides=kind == mujoco.mjtJoint.mjJNT_SLIDE,
        now=view.world.joint(joint),
        goal=_beyond(threshold, float(low), float(high), OVERSHOOT[kind]),
        anchor=view.data.xpos[body] + rot @ model.jnt_pos[number],
        axis=rot @ model.jnt_axis[number],
        geoms=tuple(int(g) for g in np.flatnonzero(collides & inside[model.geom_bodyid])),
    )


def _beyond(threshold: Threshold, low: float, high: float, most: float) -> float:
    """A position well on the right side of a threshold, within the joint's range."""
    if threshold.below is not None:
        return threshold.below - min(SHARE * (threshold.below - low), most)
    assert threshold.above is not None
    return threshold.above + min(SHARE * (high - threshold.above), most)


def carried_along(view: View, part: Part, hand: Pose, q: float) -> Pose:
    """Where a hand that is fixed to the part is when the joint is at q."""
    return view.part_at(part.joint, q) @ (view.part_at(part.joint, part.now).inverse() @ hand)


def holds(view: View, part: Part, avoid: tuple[Pose, ...] = ()) -> Iterator[Hold]:
    """Holds that work all the way, best first.

    Args:
        view: The scene now.
        part: What to move.
        avoid: Hands that were tried in vain.
    """
    options = sorted(
        (
            h
            for h in (*_grasped(view, part), *_pushing(view, part))
            if not any(_alike(h.hand, a) for a in avoid)
        ),
        key=lambda hold: hold.cost,
    )
    arms: dict[int, Array | None] = {}
    for slack, gap in ATTEMPTS:
        for number, hold in enumerate(options):
            if number not in arms:
                arms[number] = view.reach(hold.hand)
            arm = arms[number]
            opened = hold if hold.pushes else replace(hold, gap=gap)
            if arm is not None and _works(view, part, opened, arm, slack):
                yield opened


def _alike(a: Pose, b: Pose) -> bool:
    turned = float(np.linalg.norm(rotation_vector(a.rot @ b.rot.T)))
    return bool(np.linalg.norm(a.pos - b.pos) < 0.015 and min(turned, np.pi - turned) < 0.3)


def _approaches(view: View, part: Part, at: Array) -> list[tuple[Array, float]]:
    """Directions of the hand and their costs: from above, and tilted towards the part."""
    outward = _outward(view, part, at)
    side = np.cross(DOWN, -outward)
    out: list[tuple[Array, float]] = []
    for tilt in TILTS:
        out.append((from_rotation_vector(side * tilt) @ DOWN, 1.2 * float(tilt)))
    return out


def _outward(view: View, part: Part, at: Array) -> Array:
    """Horizontal unit direction from which a handle is in front of its part."""
    solids = view.solids(part.geoms)
    weight = solids.half.prod(1)
    middle = (solids.centre * weight[:, None]).sum(0) / weight.sum()
    way = part.axis if part.slides else np.cross(part.axis, at - part.anchor)
    if part.slides:
        out = way * np.sign((at - middle) @ way or 1.0)
    else:
        # In front of a door: along its motion, on the side where the handle is.
        out = way * np.sign((at - middle) @ way or 1.0)
    out = out * np.array([1.0, 1.0, 0.0])
    size = float(np.linalg.norm(out))
    return out / size if size > 1e-6 else np.array([-1.0, 0.0, 0.0])


def handle_geoms(view: View, part: Part) -> tuple[int, ...]:
    """Geoms of what sticks out of a part: bar and stem of a handle, fin of a knob."""
    geoms = np.array(part.geoms)
    solids = view.solids(geoms)
    up = abs(float(part.axis[2])) > 0.8 and not part.slides
    if up and _is_compact(solids, part):
        low, high = solids.bounds()
        top = high[:, 2]
        # A knob: what stands higher than the disc below it.
        tall = top > top.max() - 0.5 * (top.max() - low[:, 2].min())
        return tuple(int(g) for g in geoms[tall])
    size = solids.half.max(1)
    small = size <= HANDLE_HALF_SIZE
    way = _front(solids, part)
    far = (solids.centre + 0.0) @ way
    front = small & (far >= far.max() - HANDLE_DEPTH)
    # A panel's own boards can be small as well; a handle lies before the largest board.
    board = int(np.argmax(np.where(small, 0.0, solids.half.prod(1))))
    if not small.all():
        face = float(solids.centre[board] @ way + solids.reach(way[None])[board, 0])
        front &= far >= face - 0.002
    return tuple(int(g) for g in geoms[front])


def _is_compact(solids: Solids, part: Part) -> bool:
    away = np.linalg.norm((solids.centre - part.anchor)[:, :2], axis=1)
    return bool(away.max() < 0.08)


def _front(solids: Solids, part: Part) -> Array:
    """Direction in which a part's handle sticks out of it."""
    weight = solids.half.prod(1)
    middle = (solids.centre * weight[:, None]).sum(0) / weight.sum()
    if part.slides:
        way = part.axis
    else:
        way = np.cross(part.axis, middle - part.anchor)
        way = way / np.linalg.norm(way)
    # It sticks out where the small shapes are.
    light = np.argsort(solids.half.max(1))[: max(1, len(solids) // 3)]
    side = float(((solids.centre[light] - middle) @ way).mean())
    return way * (1.0 if side >= 0 else -1.0)


def _grasped(view: View, part: Part) -> Iterator[Hold]:
    """Fingers closed around the handle."""
    geoms = handle_geoms(view, part)
    if not geoms:
        return
    solids = view.solids(geoms)
    centre = solids.centre.mean(0)
    for approach, tilt_cost in _approaches(view, part, centre):
        frame = hand_rotation(_across(approach), approach) * np.array([1.0, -1.0, -1.0])
        for number, grasp in enumerate(grasps(solids, frame, centre, below=PAD_BELOW)):
            if number >= CANDIDATES:
                break
            rot = hand_rotation(grasp.closing, approach)
            hand = nearest_turn(view, Pose(grasp.pos, rot))
            turned = float(np.linalg.norm(rotation_vector(hand.rot @ view.eef.rot.T)))
            yield Hold(hand, OPEN, False, -approach, grasp.cost + tilt_cost + 0.3 * turned)


def _across(approach: Array) -> Array:
    """Any unit direction across an approach."""
    other = np.eye(3)[int(np.argmin(np.abs(approach)))]
    x = other - approach * (approach @ other)
    return x / np.linalg.norm(x)


def nearest_turn(view: View, hand: Pose) -> Pose:
    """The same hold with the fingers swapped where that is less to turn."""
    swapped = Pose(hand.pos, hand.rot * np.array([-1.0, -1.0, 1.0]))
    here = np.linalg.norm(rotation_vector(hand.rot @ view.eef.rot.T))
    there = np.linalg.norm(rotation_vector(swapped.rot @ view.eef.rot.T))
    return hand if here <= there else swapped


def _pushing(view: View, part: Part) -> Iterator[Hold]:
    """Closed fingers against faces that look away from where the part must go."""
    solids = view.solids(part.geoms)
    rear = None
    if part.slides:  # faces behind others cannot be pushed
        way = part.direction(part.anchor)
        rear = float((solids.centre @ way - solids.reach(way[None])[:, 0]).min())
    for k in range(len(solids)):
        for sign in (1.0, -1.0):
            for j in range(3):
                normal = sign * solids.axes[k][:, j]
                face = solids.centre[k] + normal * solids.half[k, j]
                way = part.direction(face)
                if normal @ way > -0.9 or abs(normal[2]) > 0.3:
                    continue
                if rear is not None and face @ way > rear + HANDLE_DEPTH:
                    continue
                yield from _against(view, part, face, solids, k, j)


def _against(
    view: View, part: Part, face: Array, solids: Solids, k: int, j: int
) -> Iterator[Hold]:
    """Hands against one face of a solid: at its middle, and towards its free end."""
    others = [i for i in range(3) if i != j]
    spans = [solids.axes[k][:, i] * solids.half[k, i] for i in others]
    points = [face]
    for span in spans:
        if np.linalg.norm(span) > 0.03:
            points += [face + 0.6 * span, face - 0.6 * span]
    for point in points:
        way = part.direction(point)
        lever = 1.0 if part.slides else float(np.linalg.norm((point - part.anchor)[:2]))
        side = np.cross(DOWN, way)
        for tilt in TILTS[:4]:
            approach = from_rotation_vector(side / np.linalg.norm(side) * tilt) @ DOWN
            for closing, thick in ((np.cross(approach, way), 0.0115), (way, 0.0275)):
                if np.linalg.norm(closing) < 0.3:
                    continue
                rot = hand_rotation(closing, approach)
                hand = nearest_turn(view, Pose(point - way * thick, rot))
                turned = float(np.linalg.norm(rotation_vector(hand.rot @ view.eef.rot.T)))
                # Pushing far from the hinge needs little force; a handle may be pushed too.
                cost = 1.0 + 1.2 * float(tilt) + 0.3 * turned
                cost += 0.0 if part.slides else 0.3 / max(lever, 0.03)
                yield Hold(hand, CLOSED, True, -way, cost)


def _works(view: View, part: Part, hold: Hold, arm: Array, slack: float) -> bool:
    """Whether the hand gets to its hold, and stays clear of the rest all the way."""
    allowed = slack + (TOUCH if hold.pushes else CLEAR)
    if view.hits(arm, gap=hold.gap, margin=0.0 if hold.pushes else CLEAR) > allowed:
        return False
    away = view.reach(hold.hand.shifted(hold.back * AWAY))
    if away is None or view.hits(away, gap=hold.gap) > allowed:
        return False
    for share in (0.5, 1.0):
        q = part.now + share * (part.goal - part.now)
        there = view.reach(carried_along(view, part, hold.hand, q))
        if there is None:
            return False
        gap = CLOSED if hold.pushes else 0.02
        if view.hits(there, gap=gap, ignore=part.geoms, joints={part.joint: q}) > TOUCH + slack:
            return False
    return True
