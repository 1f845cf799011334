"""From waypoints to actions: a smooth reference, tracked closed-loop.

A reference pose runs ahead through the waypoints with bounded speed and acceleration.
Each action asks the controller for the reference's next step plus a share of what the
hand is behind. Within a chunk, where no new state is seen, the hand is predicted to
close its lag at the rate that the controller has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from policies.oracle.geometry import Array, Pose, from_rotation_vector, rotation_vector
from wamsim.seeding import generator

STEP_S = 0.05  # one control step at 20 Hz
POSITION_SCALE = 0.05  # metres per unit action (robosuite 1.4.0 osc_pose.json)
ROTATION_SCALE = 0.5  # radians per unit action

# What the controller makes of a delta d in one step: a critically damped spring, kp = 150 1/s^2
# (osc_pose.json), towards a goal that is renewed from the present pose each step. Solved over
# the step, with velocity v at its start: moved by FROM_DELTA d + FROM_SPEED v, and at its end
# as fast as SPEED_FROM_DELTA d + SPEED_KEPT v. A constant delta ends in 5.1 d per second.
_OMEGA = math.sqrt(150.0)
_DECAY = math.exp(-_OMEGA * STEP_S)
FROM_DELTA = 1.0 - (1.0 + _OMEGA * STEP_S) * _DECAY
FROM_SPEED = STEP_S * _DECAY
SPEED_FROM_DELTA = _OMEGA**2 * STEP_S * _DECAY
SPEED_KEPT = (1.0 - _OMEGA * STEP_S) * _DECAY

CATCH_UP = 9.0  # 1/s: speed asked for per lag; 40 / (2 s) would ring

CRUISE = 0.23  # m/s; an action of 1 gives 0.257
ACCELERATION = 1.0  # m/s^2: full speed after a quarter of a second
TURNING = 1.1  # rad/s; an action of 1 gives 1.3, and pushes the hand aside as it turns
TURN_ACCELERATION = 8.0  # rad/s^2
LANDING = 5.0  # 1/s: speed per distance left, so that motions end softly
LEASH = 0.03  # metres that the reference may be ahead of a hand that is held up

OPEN, CLOSED = 0.08, 0.0  # metres between the pads of a Panda's hand
STROKE = OPEN / 8  # metres per step: 25 substeps of 0.01 of half the range

# Beside a straight line by this (metres), or turned by this (radians), the hand goes slower.
BESIDE, TURNED = 0.005, 0.12
ARRIVED = (0.004, 0.05)  # metres, radians
# Pushes: long enough to lead some centimetres aside at 0.5 of an action, and rare enough that
# most of a demonstration is coming back from them.
PUSH_EVERY, PUSH_SHORTEST, PUSH_LONGEST = 40, 5, 14  # steps
PUSH_SHARE = 0.8  # of the times that a push may begin
PATIENCE = 25  # steps beyond the expected duration before a waypoint counts as blocked


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """A pose to go through or to stop at.

    Attributes:
        pose: Of the grip site.
        gap: Metres between the pads that the fingers are told to have: `CLOSED`, `OPEN`
            or, where a wide hand does not fit, something between.
        speed: Share of the cruising speed.
        blend: Go on to the next waypoint when within so many metres; 0 stops here.
        dwell: Steps to stay after arriving (fingers need about 8 for their stroke).
        straight: Keep to the line from the waypoint before; go slower beside it.
        calm: Share of the perturbation that is left here; small where precision counts.
        label: For people who debug.
    """

    pose: Pose
    gap: float
    speed: float = 1.0
    blend: float = 0.0
    dwell: int = 0
    straight: bool = False
    calm: float = 1.0
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where the hand should be, and how fast it should be going."""

    pose: Pose
    velocity: Array
    spin: Array

    @classmethod
    def at_rest(cls, pose: Pose) -> Reference:
        """Standing still."""
        return cls(pose=pose, velocity=np.zeros(3), spin=np.zeros(3))


def advance(
    reference: Reference,
    hand: Hand,
    goal: Waypoint,
    before: Waypoint | None,
    after: Waypoint | None,
) -> Reference:
    """Move the reference one step towards a waypoint.

    Args:
        reference: Now.
        hand: Relative to it.
        goal: Where it goes.
        before, after: The waypoints around the goal; None where there is none.
    """
    to = goal.pose.pos - reference.pose.pos
    turn = rotation_vector(goal.pose.rot @ reference.pose.rot.T)
    top = CRUISE * goal.speed
    if goal.straight and before is not None:
        line = goal.pose.pos - before.pose.pos
        wanted = _along(to, line, hand.lag, turn + hand.turn_lag, top)
    elif goal.blend > 0 and after is not None:
        wanted = towards(to + _beyond(goal, after), top, ACCELERATION)
    else:
        wanted = towards(to, top, ACCELERATION)
    velocity = limited(reference.velocity, wanted, ACCELERATION)
    turning = towards(turn, TURNING * goal.speed, TURN_ACCELERATION)
    spin = limited(reference.spin, turning, TURN_ACCELERATION)
    return Reference(
        pose=Pose(
            reference.pose.pos + velocity * STEP_S,
            from_rotation_vector(spin * STEP_S) @ reference.pose.rot,
        ),
        velocity=velocity,
        spin=spin,
    )


def _along(to: Array, line: Array, lag: Array, turn: Array, top: float) -> Array:
    """Velocity along a line; the hand comes onto it, and turns, before it goes on."""
    length = float(np.sqrt(line @ line))
    if length < 1e-6:
        return towards(to, top, ACCELERATION)
    ahead = line / length
    left = float(to @ ahead)
    beside = to - left * ahead  # from the reference to the line
    off = beside + lag - float(lag @ ahead) * ahead  # from the hand to the line
    worst = max(float(np.sqrt(off @ off)) / BESIDE, float(np.sqrt(turn @ turn)) / TURNED)
    patience = float(np.clip(2.0 - worst, 0.1, 1.0))
    return towards(left * ahead, top * patience, ACCELERATION) + towards(beside, top, ACCELERATION)


def _beyond(goal: Waypoint, following: Waypoint) -> Array:
    """Look a little past a waypoint that is only passed, so that nothing slows down there."""
    ahead = following.pose.pos - goal.pose.pos
    length = float(np.sqrt(ahead @ ahead))
    return ahead * (min(goal.blend, length) / length) if length > 1e-6 else ahead


def towards(to: Array, top: float, acceleration: float) -> Array:
    """Velocity towards a place so that one can still stop there."""
    distance = float(np.sqrt(to @ to))
    if distance < 1e-9:
        return np.zeros(3)
    return to * (min(top, LANDING * distance, math.sqrt(2 * acceleration * distance)) / distance)


def limited(velocity: Array, wanted: Array, acceleration: float) -> Array:
    """The wanted velocity, or as far towards it as a step's acceleration goes."""
    change = wanted - velocity
    size = float(np.sqrt(change @ change))
    limit = acceleration * STEP_S
    return wanted if size <= limit else velocity + change * (limit / size)


def leashed(reference: Reference, hand: Pose) -> Reference:
    """Keep the reference near a hand that is held up."""
    ahead = reference.pose.pos - hand.pos
    length = float(np.sqrt(ahead @ ahead))
    if length <= LEASH:
        return reference
    pos = hand.pos + ahead * (LEASH / length)
    return Reference(
        pose=Pose(pos, reference.pose.rot), velocity=reference.velocity, spin=reference.spin
    )


@dataclass(frozen=True)
class Hand:
    """The hand relative to its reference, and its own motion.

    Attributes:
        lag: Metres from the hand to the reference.
        turn_lag: The same for the orientation, rotation vector.
        velocity, spin: Of the hand, m/s and rad/s.
    """

    lag: Array
    turn_lag: Array
    velocity: Array
    spin: Array


def follow(reference: Reference, hand: Hand) -> tuple[Array, Hand]:
    """The arm channels [6] that follow the reference for a step, and the hand after it.

    Args:
        reference: At the end of the step.
        hand: At its start, relative to the reference at its start.
    """
    move, lag, velocity = _follow(reference.velocity, hand.lag, hand.velocity, POSITION_SCALE)
    turn, turn_lag, spin = _follow(reference.spin, hand.turn_lag, hand.spin, ROTATION_SCALE)
    return np.concatenate([move, turn]), Hand(lag, turn_lag, velocity, spin)


def _follow(wanted: Array, lag: Array, speed: Array, scale: float) -> tuple[Array, Array, Array]:
    delta = (wanted + CATCH_UP * lag - SPEED_KEPT * speed) / SPEED_FROM_DELTA
    delta = np.clip(delta, -scale, scale)
    moved = FROM_DELTA * delta + FROM_SPEED * speed
    after = SPEED_FROM_DELTA * delta + SPEED_KEPT * speed
    return delta / scale, lag + wanted * STEP_S - moved, after


def grip(command: float, gap: float) -> tuple[float, float]:
    """Gripper channel that brings the commanded gap to a wanted one, and the gap after it.

    The ends of the range are held with a full signal, as in teleoperated demonstrations;
    in between, 0 keeps the fingers where they are.
    """
    if gap >= OPEN:
        return -1.0, min(command + STROKE, OPEN)
    if gap <= CLOSED:
        return 1.0, max(command - STROKE, CLOSED)
    if abs(command - gap) < STROKE / 2:
        return 0.0, command
    sign = 1.0 if command > gap else -1.0
    return sign, command - sign * STROKE


def arrived(reference: Reference, hand: Hand, goal: Waypoint) -> bool:
    """Whether a (predicted) hand is at a waypoint."""
    left = goal.pose.pos - (reference.pose.pos - hand.lag)
    distance = float(np.sqrt(left @ left))
    turned = rotation_vector(goal.pose.rot @ reference.pose.rot.T)
    if goal.blend > 0:
        return distance < goal.blend
    return distance < ARRIVED[0] and float(np.abs(turned).max()) < ARRIVED[1]


def expected_steps(start: Pose, goal: Waypoint) -> int:
    """About how many steps a waypoint takes from a standstill."""
    distance = float(np.linalg.norm(goal.pose.pos - start.pos))
    angle = float(np.linalg.norm(rotation_vector(goal.pose.rot @ start.rot.T)))
    moving = max(distance / (CRUISE * goal.speed), angle / (TURNING * goal.speed))
    return int(moving / STEP_S) + 12 + goal.dwell


def push(seed: int, step: int, amplitude: float) -> Array | None:
    """Where the hand is driven at a step, [3] in units of actions, or None when it is left.

    Every `PUSH_EVERY` steps one push or none begins, at a random moment, in a random
    direction; half as strong upwards and downwards. A function of the seed and the step.
    """
    if amplitude <= 0:
        return None
    number, place = divmod(step, PUSH_EVERY)
    rng = generator(seed + number)
    begin = int(rng.integers(0, PUSH_EVERY - PUSH_LONGEST))
    length = int(rng.integers(PUSH_SHORTEST, PUSH_LONGEST + 1))
    angle, upwards, strength = (
        rng.uniform(0, 2 * np.pi),
        rng.uniform(-0.5, 0.5),
        rng.uniform(0.3, 1),
    )
    if rng.random() > PUSH_SHARE or not begin <= place < begin + length:
        return None
    return amplitude * strength * np.array([np.cos(angle), np.sin(angle), upwards])


def perturbation(seed: int, step: int, amplitude: float) -> Array:
    """Smooth noise on the six arm channels, [6], a function of the seed and the step.

    Sums of three sines with periods of 1 to 4 seconds: neighbouring steps are close
    (demonstrations must stay smooth), the mean is zero, and the largest value is
    `amplitude` in units of actions for positions, a third of it for rotations.
    """
    rng = generator(seed)
    period = rng.uniform(1.0, 4.0, (6, 3)) / STEP_S
    phase = rng.uniform(0.0, 2 * np.pi, (6, 3))
    wave = np.sin(2 * np.pi * step / period + phase).mean(1)
    wave[3:] /= 3.0
    return amplitude * wave
