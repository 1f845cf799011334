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
# Horizontal distance from the robot's axis at which a downward gripper reaches the table
# with its elbow still bent: the Panda's 0.719 m of arm end at 0.778 m there.
REACH: Range = (0.36, 0.725)
# What agentview shows of the table top, metres.
IN_VIEW_X: Range = (-0.32, 0.12)
IN_VIEW_Y: Range = (-0.34, 0.34)
ATTEMPTS = 512


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


def state_generator(version: int, suite: str, task: str, index: int) -> np.random.Generator:
    """The generator of one initial state; independent of the run's seed."""
    text = "\x1f".join((str(version), suite, task, str(index), "initial state"))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def nominal_qpos(scene: Scene, plan: Layout) -> Array:
    """Arm and gripper at rest, every thing at the middle of its slot."""
    rng = np.random.Generator(np.random.PCG64(0))
    return sample_qpos(scene, plan, rng, middle=True)


def sample_qpos(
    scene: Scene, plan: Layout, rng: np.random.Generator, *, middle: bool = False
) -> Array:
    """Draw one qpos for nominal fixture poses.

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
        qpos[scene.qpos_address(joint)] = (low + high) / 2 if middle else rng.uniform(low, high)
    chosen = _arrange(scene, plan, rng, middle)
    for slot, (x, y, z, yaw) in zip(plan.slots, chosen, strict=True):
        at = scene.qpos_address(f"{slot.thing}_joint")
        qpos[at : at + 7] = (x, y, z + DROP, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2))
    return qpos


def _arrange(scene: Scene, plan: Layout, rng: np.random.Generator, middle: bool) -> Array:
    """Give (x, y, z, yaw) of every slot, [slots, 4]."""
    fixtures = scene.info.placement["fixtures"]
    n = 1 if middle else ATTEMPTS
    unit = np.full((len(plan.slots), n, 3), 0.5) if middle else rng.random((len(plan.slots), n, 3))
    poses: dict[str, Array] = {
        name: np.broadcast_to(np.asarray(data["pose"]), (n, 4)) for name, data in fixtures.items()
    }
    table = np.array([0.0, 0.0, TABLE_TOP_Z, 0.0])
    for slot, u in zip(plan.slots, unit, strict=True):
        anchors = [poses[a][:, :2] for a in slot.anchor] or [np.zeros((n, 2))]
        pose = np.empty((n, 4))
        pose[:, :2] = np.mean(anchors, axis=0)
        pose[:, 0] += slot.x[0] + (slot.x[1] - slot.x[0]) * u[:, 0]
        pose[:, 1] += slot.y[0] + (slot.y[1] - slot.y[0]) * u[:, 1]
        below = table[2] if slot.on is None else poses[slot.on][:, 2] + slot.height
        pose[:, 2] = below - scene.thing(slot.thing).bottom
        pose[:, 3] = slot.yaw[0] + (slot.yaw[1] - slot.yaw[0]) * u[:, 2]
        poses[slot.thing] = pose
    good = np.ones(n, bool) if middle else _allowed(scene, plan, poses)
    if not good.any():
        raise RuntimeError(
            f"scene {scene.info.id}: none of {n} arrangements of "
            f"{', '.join(s.thing for s in plan.slots)} is free of overlap and within reach. "
            f"Widen the slots in envs/tabletop/layouts.py."
        )
    first = int(np.argmax(good))
    return np.stack([poses[slot.thing][first] for slot in plan.slots])


def _allowed(scene: Scene, plan: Layout, poses: Mapping[str, Array]) -> NDArray[np.bool_]:
    names = [slot.thing for slot in plan.slots]
    radius = {name: scene.thing(name).radius for name in names}
    support = {slot.thing: slot.on for slot in plan.slots}
    good = np.ones(len(poses[names[0]]), bool)
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
        for name, data in scene.info.placement["fixtures"].items():
            if support[a] == name:
                continue
            x, y, _, yaw = data["pose"]
            dx, dy = xy[:, 0] - x, xy[:, 1] - y
            along = np.cos(yaw) * dx + np.sin(yaw) * dy
            across = -np.sin(yaw) * dx + np.cos(yaw) * dy
            half = data["footprint"]
            outside = np.hypot(
                np.maximum(np.abs(along) - half[0], 0), np.maximum(np.abs(across) - half[1], 0)
            )
            good &= outside > radius[a] + FIXTURE_GAP
    return good


def draw_fixtures(
    nominal: Mapping[str, Mapping[str, Sequence[float]]], rng: np.random.Generator
) -> dict[str, Array]:
    """Draw (x, y, z, yaw) of every fixture around its nominal pose."""
    out: dict[str, Array] = {}
    for name, data in nominal.items():
        dx, dy = rng.uniform(-FIXTURE_SHIFT, FIXTURE_SHIFT, 2)
        turn = rng.uniform(-FIXTURE_YAW, FIXTURE_YAW)
        out[name] = np.asarray(data["pose"], np.float64) + (dx, dy, 0.0, turn)
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
