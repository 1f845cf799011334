"""A base on the floor: where it stands, what is in its way, and how it comes to a stop's place.

All of it is flat: places are x, y and yaw in the world, metres and radians. The base's own
servos (`envs.control`) say which joints it has, how fast they go and how far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from policies.oracle.body import subtree
from policies.oracle.config import OracleConfig
from policies.oracle.geometry import Array, Solids, wrapped
from policies.oracle.motion import STEP_S, limited, perturbation, towards
from wamsim.contracts import PrivilegedState
from wamsim.conventions import DELTA_EEF_BASE_TORSO_MODE as SPOKEN

if TYPE_CHECKING:
    from policies.oracle.memory import Memory
    from policies.oracle.view import View

CHANNELS = {label: k for k, label in enumerate(SPOKEN.labels)}
DRIVEN = ("base_forward", "base_side", "base_turn")
CRUISE = 0.9  # share of the servos' speed: the rest is for catching up
ACCELERATION = 0.6  # m/s^2: full speed after three quarters of a second
TURN_ACCELERATION = 1.6  # rad/s^2
ARRIVED = (0.02, 0.03)  # metres, radians
PASSED = 0.10  # metres from a stop that is only passed
PATIENCE = 30  # steps beyond the expected duration before a stop counts as blocked
PERTURBED = [0, 1, 3]  # of the arm's six waves of perturbation: x, y, and a turn's


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A place for the base to go to.

    Attributes:
        x, y, yaw: Where, in the world.
        passed: Go on to the next when near; else come to rest here.
    """

    x: float
    y: float
    yaw: float
    passed: bool = False

    @property
    def pos(self) -> Array:
        """The place alone, [2]."""
        return np.array([self.x, self.y])


class Base:
    """A scene's driving base by its numbers, looked up once.

    Attributes:
        body: Whose pose is the base's.
        dofs: Of forward, side and turn, in `DRIVEN`'s order.
        speed: Of the same, m/s, m/s and rad/s at a signal of 1.
        low, high: [2] the places that its slides reach.
    """

    def __init__(self, view: View) -> None:
        info, model = view.scene.info, view.model
        assert info.platform is not None
        servos = {s.channel: s for s in info.control(SPOKEN.name).servos}
        mine = [servos[CHANNELS[label]] for label in DRIVEN]
        self.body = view.scene.body_id(info.platform.body)
        self.dofs = np.array([view.scene.dof_address(s.joint) for s in mine])
        self.speed = np.array([s.speed for s in mine])
        self.low = np.array([s.low for s in mine[:2]])
        self.high = np.array([s.high for s in mine[:2]])
        collides = (model.geom_contype | model.geom_conaffinity) != 0
        all_of_it = subtree(model, view.body.root)[model.geom_bodyid] & collides
        self._whole = np.flatnonzero(all_of_it)
        self._chassis = np.setdiff1d(self._whole, view.body.robot_geoms)
        others = view.body.other_geoms
        self._standing = others[model.geom_type[others] != mujoco.mjtGeom.mjGEOM_PLANE]

    def now(self, view: View) -> Stop:
        """Where the base is."""
        x, y, _ = view.data.xpos[self.body]
        facing = view.data.xmat[self.body].reshape(3, 3)[:2, 0]
        return Stop(x=float(x), y=float(y), yaw=math.atan2(facing[1], facing[0]))

    def radius(self, view: View) -> float:
        """Metres from the base's axis to the farthest point of base, arm and hand."""
        low, high = view.solids(self._whole.tolist()).bounds()
        here = self.now(view).pos
        return float(np.hypot(*np.maximum(here - low[:, :2], high[:, :2] - here).T).max())

    def outline(self, view: View) -> Array:
        """Points [P, 2] along the chassis' edges, in the base's frame, 5 cm apart or less."""
        rot = view.data.xmat[self.body].reshape(3, 3)
        local = view.solids(self._chassis.tolist())
        low, high = _seen_from(local, view.data.xpos[self.body], rot).bounds()
        (x0, y0), (x1, y1) = low[:, :2].min(0), high[:, :2].max(0)
        xs, ys = np.linspace(x0, x1, 14), np.linspace(y0, y1, 12)
        sides = [np.stack([xs, np.full_like(xs, y)], 1) for y in (y0, y1)]
        return np.concatenate([*sides, *(np.stack([np.full_like(ys, x), ys], 1) for x in (x0, x1))])

    def obstacles(self, view: View) -> Solids:
        """Everything that stands on the floor or hangs over it, but the robot."""
        return view.solids(self._standing.tolist())


def _seen_from(solids: Solids, origin: Array, rot: Array) -> Solids:
    return Solids((solids.centre - origin) @ rot, rot.T @ solids.axes, solids.half, solids.round)


def clearance(points: Array, obstacles: Solids) -> Array:
    """Metres on the floor from points [P, 2] to the nearest obstacle, [P]; 0 within one.

    Obstacles are taken as upright: what leans counts with the box around it.
    """
    if not len(obstacles):
        return np.full(len(points), np.inf)
    upright = np.abs(obstacles.axes[:, 2, 2]) > 0.999
    axes = np.where(upright[:, None, None], obstacles.axes, np.eye(3))
    half = np.where(upright[:, None], obstacles.half, obstacles.reach(np.eye(3)))
    away = points[:, None, :] - obstacles.centre[None, :, :2]
    local = np.abs(np.einsum("pmi,mij->pmj", away, axes[:, :2, :2]))
    outside = np.maximum(local - half[None, :, :2], 0.0)
    return np.hypot(outside[..., 0], outside[..., 1]).min(1)


def drive(
    base: Base,
    view: View,
    state: PrivilegedState,
    memory: Memory,
    step: int,
    config: OracleConfig,
) -> tuple[Array, Array, Memory]:
    """Plan a chunk, predicting the base where no new state is seen.

    Args:
        base: The base.
        view: The scene now.
        state: Behind it.
        memory: Whose stops are gone through.
        step: Env steps done in the episode.
        config: How many actions, and what perturbs them; nothing pushes a base.

    Returns:
        Actions [execute, 12]; what was meant, [ahead, 12]; and the memory after the actions.
    """
    here = base.now(view)
    velocity = state.qvel[base.dofs].copy()  # slides are in the world's axes
    index, patience = memory.index, memory.patience
    meant = np.tile(np.array(SPOKEN.hold), (max(config.execute, config.ahead), 1))
    meant[:, CHANNELS["gripper"]] = 0.0  # as it is
    meant[:, CHANNELS["mode"]] = 1.0
    after = memory
    channels = [CHANNELS[label] for label in DRIVEN]
    for k in range(len(meant)):
        goal = memory.stops[min(index, len(memory.stops) - 1)]
        velocity = _advance(base, here, velocity, goal)
        c, s = math.cos(here.yaw), math.sin(here.yaw)
        ahead = np.array(
            [c * velocity[0] + s * velocity[1], c * velocity[1] - s * velocity[0], velocity[2]]
        )
        meant[k, channels] = ahead / base.speed
        here = Stop(
            x=here.x + velocity[0] * STEP_S,
            y=here.y + velocity[1] * STEP_S,
            yaw=wrapped(here.yaw + velocity[2] * STEP_S),
        )
        if index < len(memory.stops):
            patience -= 1
            if patience <= 0 or _arrived(here, goal):
                index += 1
                patience = patience_for(base, here, memory.stops, index)
        if k + 1 == config.execute:
            after = replace(memory, index=index, patience=patience)
    np.clip(meant, -1.0, 1.0, out=meant)
    actions = meant[: config.execute].copy()
    for k in range(len(actions)):
        actions[k, channels] += perturbation(memory.seed, step + k, config.noise)[PERTURBED]
    return np.clip(actions, -1.0, 1.0), meant[: config.ahead], after


def _advance(base: Base, here: Stop, velocity: Array, goal: Stop) -> Array:
    """Velocity [3] (x, y, turn) of the next step on the way to a stop."""
    to = np.array([*(goal.pos - here.pos), 0.0])
    turn = np.array([0.0, 0.0, wrapped(goal.yaw - here.yaw)])
    pace = CRUISE * base.speed
    top = float(min(pace[:2]))
    if goal.passed:  # not slower for what is only passed
        length = float(np.sqrt(to @ to))
        wanted = to * (top / length) if length > 1e-6 else to
    else:
        wanted = towards(to, top, ACCELERATION)
    # Both at once: neither is there long before the other.
    moving = limited(velocity * [1, 1, 0], wanted, ACCELERATION)
    turning = limited(
        velocity * [0, 0, 1], towards(turn, float(pace[2]), TURN_ACCELERATION), TURN_ACCELERATION
    )
    return moving + turning


def _arrived(here: Stop, goal: Stop) -> bool:
    away = float(np.hypot(*(goal.pos - here.pos)))
    turned = abs(wrapped(goal.yaw - here.yaw))
    if goal.passed:
        return away < PASSED
    return away < ARRIVED[0] and turned < ARRIVED[1]


def patience_for(base: Base, here: Stop, stops: Sequence[Stop], index: int) -> int:
    """Steps that a stop may take from here before it counts as blocked."""
    if index >= len(stops):
        return 0
    goal = stops[index]
    pace = CRUISE * base.speed
    moving = float(np.hypot(*(goal.pos - here.pos))) / float(min(pace[:2]))
    turning = abs(wrapped(goal.yaw - here.yaw)) / float(pace[2])
    return int(2 * max(moving, turning) / STEP_S) + PATIENCE
