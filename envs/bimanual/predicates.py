"""What the bimanual tasks ask: RoboTwin's success rules (SUITES, section 3.6) as predicates.

Registered in `envs.goals.PREDICATES` when this module is imported. Distances are metres;
places are regions, whose half sizes are the rules' tolerances. Hands are things named
"left_hand" and "right_hand".

RoboTwin evaluates its rules at every physics substep, here they are evaluated at the end of
every env step, as in all other suites.
"""

from __future__ import annotations

import mujoco
import numpy as np

from envs import goals
from envs.goals import Array, World
from envs.scene import Robot, Thing

OPEN_FROM = 0.8  # RoboTwin: is_left_gripper_open
CLOSED_TO = 0.2  # RoboTwin: is_left_gripper_close
STACK_BESIDE, STACK_HEIGHT = 0.025, 0.012  # stack_blocks_*
ROW_ALONG, ROW_BESIDE = 0.13, 0.03  # blocks_ranking_*
NEST_BESIDE, NEST_HEIGHT = 0.04, 0.02  # stack_bowls_*
NEST_RISE = 0.03  # stack_bowls_*: 0.74, 0.77, 0.81
HANDLE = 0.03  # lift_pot: tool centre point to handle
UPRIGHT = 0.8  # lift_pot: cosine of the tilt
# RoboTwin bounds each component of the quaternions' difference by 0.07, which admits turns
# of up to 2 asin(0.07 sqrt(3)) about one skewed axis, 0.14 rad about any main axis.
ALIGNED = 0.14  # radians
HANDS = {"left_hand": 0, "right_hand": 1}


def _robot(world: World, hand: str) -> Robot:
    return world.scene.info.robots[HANDS[hand]]


def opening(world: World, hand: str) -> float:
    """Measured opening of a hand: 0 closed, 1 open."""
    robot = _robot(world, hand)
    assert robot.gripper_span is not None
    closed, opened = robot.gripper_span
    return (world.joint(robot.gripper_joints[0]) - closed) / (opened - closed)


def command(world: World, hand: str) -> float:
    """Opening that a hand is told to have: a hand that holds something never closes."""
    robot = _robot(world, hand)
    assert robot.gripper_span is not None
    closed, opened = robot.gripper_span
    actuator = world.scene.actuator_id(robot.gripper_actuators[0])
    return (float(world.data.ctrl[actuator]) - closed) / (opened - closed)


def _hand_open(world: World, hand: str) -> bool:
    return opening(world, hand) > OPEN_FROM


def _hand_closed(world: World, hand: str) -> bool:
    return command(world, hand) < CLOSED_TO


def _centre(world: World, name: str) -> Array:
    """Body origin of a thing, or middle of a region."""
    if world.scene.has_thing(name):
        return world.position(world.scene.thing(name))
    return world.site(world.scene.region(name))[0]


def _offset(world: World, a: str, b: str) -> tuple[Array, Array]:
    """From region b to a in b's axes, and b's half sizes."""
    region = world.scene.region(b)
    centre, rotation = world.site(region)
    return rotation.T @ (_centre(world, a) - centre), np.asarray(region.size)


def _at(world: World, a: str, b: str) -> bool:
    away, size = _offset(world, a, b)
    return bool(np.all(np.abs(away) < size))


def _over(world: World, a: str, b: str) -> bool:
    away, size = _offset(world, a, b)
    return bool(np.all(np.abs(away[:2]) < size[:2]))


def _raised(world: World, a: str, mark: str) -> bool:
    return bool(_centre(world, a)[2] > _centre(world, mark)[2])


def _stacked(world: World, a: str, b: str) -> bool:
    upper, lower = world.scene.thing(a), world.scene.thing(b)
    d = world.position(upper) - world.position(lower)
    height = lower.top - upper.bottom  # 5 cm for blocks
    return bool(np.all(np.abs(d[:2]) < STACK_BESIDE) and abs(d[2] - height) < STACK_HEIGHT)


def _left_of(world: World, a: str, b: str) -> bool:
    d = _centre(world, b) - _centre(world, a)
    return bool(0.0 < d[0] < ROW_ALONG and abs(d[1]) < ROW_BESIDE)


def _nested(world: World, a: str, b: str) -> bool:
    d = _centre(world, a) - _centre(world, b)
    return bool(np.hypot(d[0], d[1]) < NEST_BESIDE and abs(d[2] - NEST_RISE) < NEST_HEIGHT)


def _upright(world: World, a: str) -> bool:
    body = world.scene.body_id(world.scene.thing(a).body)
    return bool(world.data.xmat[body][8] > UPRIGHT)


def _aligned(world: World, a: str, b: str) -> bool:
    body = world.scene.body_id(world.scene.thing(a).body)
    rotation = world.site(world.scene.region(b))[1]
    trace = float(np.trace(rotation.T @ world.data.xmat[body].reshape(3, 3)))
    return bool(np.arccos(np.clip((trace - 1) / 2, -1, 1)) < ALIGNED)


def _reaches(world: World, hand: str, handle: str) -> bool:
    site = world.scene.site_id(_robot(world, hand).eef_site)
    away = world.data.site_xpos[site] - _centre(world, handle)
    return bool(np.linalg.norm(away) < HANDLE)


def _clicks(world: World, hand: str, mark: str) -> bool:
    region = world.scene.region(mark)
    assert region.parent is not None
    where = contacts(world, world.scene.thing(hand), world.scene.thing(region.parent))
    if not len(where):
        return False
    away = np.abs(where - _centre(world, mark))[:, :2]
    return bool(np.any(np.all(away < np.asarray(region.size)[:2], axis=1)))


def contacts(world: World, a: Thing, b: Thing) -> Array:
    """Where two things touch, [n, 3]."""
    data: mujoco.MjData = world.data
    if not data.ncon:
        return np.empty((0, 3))
    pairs = data.contact.geom
    first = np.isin(pairs, a.geoms)
    second = np.isin(pairs, b.geoms)
    touching = (first[:, 0] & second[:, 1]) | (first[:, 1] & second[:, 0])
    return data.contact.pos[touching]


# name -> (number of arguments, definition)
PREDICATES = {
    "HandOpen": (1, _hand_open),  # the measured opening is above 0.8
    "HandClosed": (1, _hand_closed),  # the commanded opening is below 0.2
    "At": (2, _at),  # a's middle lies in region b's box
    "Over": (2, _over),  # likewise in x and y
    "Raised": (2, _raised),  # a is higher than the mark
    "Stacked": (2, _stacked),  # a stands on b: 2.5 cm beside, 1.2 cm in height
    "LeftOf": (2, _left_of),  # b is up to 13 cm to the right of a, 3 cm before or behind
    "Nested": (2, _nested),  # bowl a sits in bowl b: 4 cm beside, 3 cm +- 2 cm higher
    "Upright": (1, _upright),  # its z axis is within 37 degrees of the vertical
    "Aligned": (2, _aligned),  # turned as region b, within 0.14 rad
    "Reaches": (2, _reaches),  # a hand's grip site is within 3 cm of a handle
    "Clicks": (2, _clicks),  # a hand touches a mark's owner where the mark is, in x and y
}
goals.PREDICATES.update(PREDICATES)
