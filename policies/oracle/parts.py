"""Parts that a joint moves (drawers, doors, knobs): where they go, and their handles."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.scene import Threshold
from policies.oracle.body import subtree
from policies.oracle.geometry import Array, Pose, Solids, cross, perpendicular, unit
from policies.oracle.view import View

# Handles stick out: shapes within this distance of the foremost point, and no larger.
HANDLE_DEPTH = 0.05
HANDLE_HALF_SIZE = 0.075
KNOB_RADIUS = 0.08  # metres from a vertical axis within which all of a knob lies
# Beyond a threshold by this share of the joint's range that is left, or by this much.
SHARE = 0.7
STOP = 0.002  # metres before the end of a slide: where a drawer that is to be filled goes
OVERSHOOT = {mujoco.mjtJoint.mjJNT_SLIDE: 0.015, mujoco.mjtJoint.mjJNT_HINGE: 0.20}


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
        way = self.axis if self.slides else cross(self.axis, point - self.anchor)
        return unit(way * (1.0 if self.goal >= self.now else -1.0))


def slides(view: View, joint: str) -> bool:
    """Whether a joint is a slide."""
    return view.model.jnt_type[view.model.joint(joint).id] == mujoco.mjtJoint.mjJNT_SLIDE


def stop_of(view: View, joint: str, threshold: Threshold) -> float:
    """Just before the end of a joint's range, on the right side of a threshold."""
    low, high = view.joint_range(joint)
    return low + STOP if threshold.below is not None else high - STOP


def part_of(view: View, joint: str, threshold: Threshold, *, wide: bool = False) -> Part:
    """Describe the part that a joint moves, and where it should go.

    Args:
        view: The scene now.
        joint: Moves the part.
        threshold: Where the joint must get.
        wide: True to go as far as it goes.
    """
    model = view.model
    number = model.joint(joint).id
    body = int(model.jnt_bodyid[number])
    rot = view.data.xmat[body].reshape(3, 3)
    collides = (model.geom_contype | model.geom_conaffinity) != 0
    inside = subtree(model, body)
    kind = mujoco.mjtJoint(model.jnt_type[number])
    low, high = view.joint_range(joint)
    return Part(
        joint=joint,
        slides=kind == mujoco.mjtJoint.mjJNT_SLIDE,
        now=view.world.joint(joint),
        goal=stop_of(view, joint, threshold)
        if wide
        else _beyond(threshold, low, high, OVERSHOOT[kind]),
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


@dataclass(frozen=True)
class Handle:
    """What sticks out of a part: bar and stem of a handle, fin of a knob.

    In the frame of the body that the joint moves, read off the model's constants alone.

    Attributes:
        solids: Its shapes.
        centre: Their middle.
        front: Horizontal unit direction in which it sticks out.
        up: The vertical.
    """

    solids: Solids
    centre: Array
    front: Array
    up: Array


def handle_of(view: View, part: Part) -> Handle | None:
    """Find a part's handle; None when nothing sticks out."""
    model = view.model
    number = model.joint(part.joint).id
    body = int(model.jnt_bodyid[number])
    up = view.up_of(body)
    whole = view.shape(body, part.geoms)
    way = _front(whole, part.slides, model.jnt_pos[number], model.jnt_axis[number])
    if not part.slides and _is_knob(whole, model.jnt_pos[number], model.jnt_axis[number], up):
        reach = whole.reach(up[None])[:, 0]
        top, bottom = whole.centre @ up + reach, whole.centre @ up - reach
        chosen = top > top.max() - 0.5 * (top.max() - bottom.min())
    else:
        chosen = _standing_out(whole, way)
    if not chosen.any():
        return None
    solids = whole.of(chosen)
    return Handle(solids, solids.centre.mean(0), perpendicular(up, way), up)


def _standing_out(solids: Solids, way: Array) -> NDArray[np.bool_]:
    """Which shapes are small and in front of the rest."""
    small = solids.half.max(1) <= HANDLE_HALF_SIZE
    far = solids.centre @ way
    chosen = small & (far >= far.max() - HANDLE_DEPTH)
    if not small.all():
        # A panel's own boards can be small as well; a handle lies before the largest board.
        board = int(np.argmax(np.where(small, 0.0, solids.half.prod(1))))
        face = float(far[board] + solids.reach(way[None])[board, 0])
        chosen &= far >= face - 0.002
    return chosen


def _is_knob(solids: Solids, anchor: Array, axis: Array, up: Array) -> bool:
    away = solids.centre - anchor
    away = away - np.outer(away @ axis, axis)
    return bool(abs(axis @ up) > 0.8 and np.linalg.norm(away, axis=1).max() < KNOB_RADIUS)


def _front(solids: Solids, slides: bool, anchor: Array, axis: Array) -> Array:
    """Unit direction in which a handle sticks out: where the small shapes are.

    Along a slide, or across a door.
    """
    weight = solids.half.prod(1)
    middle = (solids.centre * weight[:, None]).sum(0) / weight.sum()
    way = unit(np.asarray(axis if slides else cross(axis, middle - anchor), np.float64))
    small = np.argsort(solids.half.max(1), kind="stable")[: max(1, len(solids) // 3)]
    return way * (1.0 if float(((solids.centre[small] - middle) @ way).mean()) >= 0 else -1.0)
