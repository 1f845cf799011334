"""Where things start: layouts with ranges, sampled with rejection.

A layout is a list of slots, each a rectangle around an anchor (the table, another
thing, a fixture, or the middle between two). The i-th state of a task is a function of
the suite's version, the task and i; fixture poses are drawn apart, from the run's seed
(`envs.tabletop.suite`), and things that stand on a fixture move with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.scene import Scene
from envs.tabletop.panda import BASE_POS
from envs.tabletop.room import TABLE_TOP_Z

Array = NDArray[np.float64]
Range = tuple[float, float]

# Things are let go 2 mm above their rest: 20 ms of fall, no bounce, at rest after 0.1 s.
DROP = 0.002
# Gap between the circles around two things, metres: an open finger (21 mm) fits between.
GAP = 0.022
# Distance of a thing's circle from a fixture's nominal footprint: its largest shift
# (FIXTURE_SHIFT on both axes and FIXTURE_YAW at 15 cm, 22 mm together) with 3 mm to spare.
FIXTURE_GAP = 0.025
FIXTURE_SHIFT = 0.01  # metres, each axis: LIBERO's fixture regions are 2 cm squares
FIXTURE_YAW = 0.05  # radians
# robosuite's hand, metres: half length along the fingers' opening and half thickness; its
# underside above the grip site. What it comes near may be taller than that.
HAND_HALF = (0.104, 0.032)
PALM_ABOVE_GRIP = 0.031
HAND_GAP = 0.01
# Horizontal distance from the robot's axis at which a downward gripper reaches the table
# with its elbow still bent: the Panda's 0.719 m of arm end at 0.778 m there.
REACH: Range = (0.36, 0.725)
# What agentview shows of the table top, metres.
IN_VIEW_X: Range = (-0.32, 0.12)
IN_VIEW_Y: Range = (-0.34, 0.34)
# Arrangements drawn together, and how often; the tightest layout accepts one in 75.
BATCH, BATCHES = 512, 20


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one thing may start.

    Attributes:
        thing: Its name.
        x, y: Offset from the anchor, metres.
        yaw: Turn about the vertical, radians.
        anchor: () for the table's centre; (name,) for a thing or fixture; two names
            for the middle between them. Anchors come before in the layout.
        on: Name of the thing or fixture that it stands on; None for the table.
        height: Height of that surface above the support's own origin, metres.
    """

    thing: str
    x: Range
    y: Range
    yaw: Range = (-np.pi, np.pi)
    anchor: tuple[str, ...] = ()
    on: str | None = None
    height: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the episodes of a task start.

    Attributes:
        slots: One for every free thing of the scene.
        joints: Joint name -> range of its starting position; others start at 0.
    """

    slots: tuple[Slot, ...]
    joints: Mapping[str, Range]


def layout(*slots: Slot, joints: Mapping[str, Range] | None = None) -> Layout:
    """Write a layout down."""
    return Layout(slots=slots, joints=joints or {})


def state_generator(draws: int, suite: str, task: str, index: int) -> np.random.Generator:
    """The generator of one initial state; independent of the run's seed."""
    text = "\x1f".join((str(draws), suite, task, str(index), "initial state"))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def sample_qpos(scene: Scene, plan: Layout, rng: np.random.Generator) -> Array:
    """Draw one qpos, for nominal fixture poses: arm and fingers at rest, things placed.

    Raises:
        RuntimeError: No arrangement without overlap was found; the layout is too tight.
    """
    qpos = np.zeros(scene.model.nq)
    robot = scene.info.robot
    for joint, q in zip(
        (*robot.joints, *robot.gripper_joints),
        (*robot.init_qpos, *robot.init_gripper_qpos),
        strict=True,
    ):
        qpos[scene.qpos_address(joint)] = q
    for joint, (low, high) in plan.joints.items():
        qpos[scene.qpos_address(joint)] = rng.uniform(low, high)
    for _ in range(BATCHES):
        poses = _draw(scene, plan, rng)
        good = _allowed(scene, plan, poses)
        if good.any():
            break
    else:
        raise RuntimeError(
            f"scene {scene.info.id}: none of {BATCHES * BATCH} arrangements of "
            f"{', '.join(s.thing for s in plan.slots)} is free of overlap and within reach. "
            f"Widen the slots in envs/tabletop/layouts.py."
        )
    first = int(np.argmax(good))
    for slot in plan.slots:
        x, y, z, yaw = poses[slot.thing][first]
        at = scene.qpos_address(f"{slot.thing}_joint")
        qpos[at : at + 7] = (x, y, z + DROP, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
    return qpos


def _draw(scene: Scene, plan: Layout, rng: np.random.Generator) -> dict[str, Array]:
    """Draw BATCH arrangements at once: (x, y, z, yaw) [BATCH, 4] of things and fixtures."""
    poses: dict[str, Array] = {
        name: np.broadcast_to(np.asarray(data["pose"], np.float64), (BATCH, 4))
        for name, data in scene.info.placement["fixtures"].items()
    }
    for slot in plan.slots:
        anchors = [poses[a][:, :2] for a in slot.anchor] or [np.zeros((BATCH, 2))]
        below = TABLE_TOP_Z if slot.on is None else poses[slot.on][:, 2] + slot.height
        pose = np.empty((BATCH, 4))
        pose[:, 0] = rng.uniform(*slot.x, BATCH)
        pose[:, 1] = rng.uniform(*slot.y, BATCH)
        pose[:, :2] += np.mean(anchors, axis=0)
        pose[:, 2] = below - scene.thing(slot.thing).bottom
        pose[:, 3] = rng.uniform(*slot.yaw, BATCH)
        poses[slot.thing] = pose
    return poses


def _allowed(scene: Scene, plan: Layout, poses: Mapping[str, Array]) -> NDArray[np.bool_]:
    names = [slot.thing for slot in plan.slots]
    radius = {name: scene.thing(name).radius for name in names}
    support = {slot.thing: slot.on for slot in plan.slots}
    good = np.ones(BATCH, bool)
    for i, a in enumerate(names):
        xy = poses[a][:, :2]
        reach = np.hypot(xy[:, 0] - BASE_POS[0], xy[:, 1] - BASE_POS[1])
        good &= (reach > REACH[0]) & (reach < REACH[1])
        good &= (xy[:, 0] > IN_VIEW_X[0]) & (xy[:, 0] < IN_VIEW_X[1])
        good &= (xy[:, 1] > IN_VIEW_Y[0]) & (xy[:, 1] < IN_VIEW_Y[1])
        for b in names[:i]:
            if support[a] == b or support[b] == a:
                continue
            away = np.linalg.norm(xy - poses[b][:, :2], axis=1)
            good &= away > radius[a] + radius[b] + GAP
        palm = _palm_height(scene, a, poses[a])
        for name, data in scene.info.placement["fixtures"].items():
            if support[a] == name:
                continue
            x, y, z, yaw = data["pose"]
            # The hand is as long as it may be turned: any yaw must do.
            under = z + scene.thing(name).top > palm
            room = np.maximum(np.where(under, HAND_HALF[0], 0.0), radius[a])
            for box in data["footprint"]:
                good &= _outside(xy, (x, y), yaw, box) > room + FIXTURE_GAP
        for b in names:
            grasp = scene.info.placement["grasps"].get(a, {})
            if b == a or support[b] == a or grasp.get("turns") != 2:
                continue  # other grasps leave a choice of yaw
            under = poses[b][:, 2] + scene.thing(b).top > palm
            yaw = poses[a][:, 3] + grasp["yaw"]
            x, y = HAND_HALF
            away = _outside(poses[b][:, :2], (xy[:, 0], xy[:, 1]), yaw, (-x, -y, x, y))
            good &= ~under | (away > radius[b] + HAND_GAP)
    return good


def _palm_height(scene: Scene, thing: str, pose: Array) -> Array:
    """Height of the hand's underside while it grasps the thing from above; inf if never."""
    grasp = scene.info.placement["grasps"].get(thing, {})
    if grasp.get("kind") != "top":
        return np.full(len(pose), np.inf)
    return pose[:, 2] + grasp["offset"][2] + PALM_ABOVE_GRIP


def _outside(
    point: Array,
    centre: tuple[Array | float, Array | float],
    yaw: Array | float,
    box: Sequence[float],
) -> Array:
    """Distance of points [n, 2] from a box (x0, y0, x1, y1) that is turned and moved."""
    dx, dy = point[:, 0] - centre[0], point[:, 1] - centre[1]
    along = np.cos(yaw) * dx + np.sin(yaw) * dy
    across = -np.sin(yaw) * dx + np.cos(yaw) * dy
    x = np.maximum(np.maximum(box[0] - along, along - box[2]), 0)
    y = np.maximum(np.maximum(box[1] - across, across - box[3]), 0)
    return np.hypot(x, y)


def draw_fixtures(
    nominal: Mapping[str, Mapping[str, Any]], rng: np.random.Generator
) -> dict[str, Array]:
    """Draw (x, y, z, yaw) of every fixture around its nominal pose."""
    out: dict[str, Array] = {}
    for name, data in nominal.items():
        dx, dy = rng.uniform(-FIXTURE_SHIFT, FIXTURE_SHIFT, 2)
        turn = rng.uniform(-FIXTURE_YAW, FIXTURE_YAW)
        out[name] = np.asarray(data["pose"], np.float64) + np.array([dx, dy, 0.0, turn])
    return out


def ride(scene: Scene, plan: Layout, qpos: Array, drawn: Mapping[str, Array]) -> Array:
    """Move the things that stand on fixtures as the fixtures moved."""
    fixtures = scene.info.placement["fixtures"]
    carried: dict[str, str] = {}
    for slot in plan.slots:
        if slot.on in fixtures:
            carried[slot.thing] = str(slot.on)
        elif slot.on in carried:
            carried[slot.thing] = carried[slot.on]
    out = qpos.copy()
    for thing, fixture in carried.items():
        before, after = np.asarray(fixtures[fixture]["pose"]), drawn[fixture]
        turn = after[3] - before[3]
        at = scene.qpos_address(f"{thing}_joint")
        offset = qpos[at : at + 2] - before[:2]
        c, s = np.cos(turn), np.sin(turn)
        out[at] = after[0] + c * offset[0] - s * offset[1]
        out[at + 1] = after[1] + s * offset[0] + c * offset[1]
        yaw = 2 * np.arctan2(qpos[at + 6], qpos[at + 3]) + turn
        out[at + 3 : at + 7] = (np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
    return out
