"""From waypoints to actions: a smooth reference, tracked closed-loop.

A reference pose runs ahead through the waypoints with bounded speed and acceleration.
Each action asks the controller for the reference's next step plus a share of what the
hand is behind. Within a chunk, where no new state is seen, the hand is predicted to
close its lag at the rate that the controller has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.oracle.geometry import Array, Pose, from_rotation_vector, rotation_vector
from wamsim.seeding import generator

STEP_S = 0.05  # one control step at 20 Hz
POSITION_SCALE = 0.05  # metres per unit action (robosuite 1.4.0 osc_pose.json)
ROTATION_SCALE = 0.5  # radians per unit action

# Share of a constant delta by which the hand moves per step, kp = 150 1/s^2, critically
# damped, the goal renewed from the present pose each step: v = 150 d / (24.5 + 150 / 40).
RESPONSE = 0.265
GAIN = 1.5  # share of the lag asked for beside the reference's own step; 3.8 would ring
FOLLOW = 1.0 - RESPONSE * GAIN  # lag left after a step

CRUISE = 0.21  # m/s; an action of 1 gives 0.265
ACCELERATION = 0.9  # m/s^2: full speed after a quarter of a second
TURNING = 1.6  # rad/s; an action of 1 gives 2.65
TURN_ACCELERATION = 8.0  # rad/s^2
LANDING = 5.0  # 1/s: speed per distance left, so that motions end softly
LEASH = 0.03  # metres that the reference may be ahead of a hand that is held up

OPEN, CLOSED = 0.08, 0.0  # metres between the pads of a Panda's hand
STROKE = OPEN / 8  # metres per step: 25 substeps of 0.01 of half the range

ARRIVED = (0.004, 0.05)  # metres, radians
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
        calm: Share of the perturbation that is left here; small where precision counts.
        label: For people who debug.
    """

    pose: Pose
    gap: float
    speed: float = 1.0
    blend: float = 0.0
    dwell: int = 0
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


def advance(reference: Reference, goal: Waypoint, following: Waypoint | None) -> Reference:
    """Move the reference one step towards a waypoint."""
    to = goal.pose.pos - reference.pose.pos
    top = CRUISE * goal.speed
    landing = LANDING
    if goal.blend > 0 and following is not None:
        to = to + _beyond(goal, following)
    velocity = _approach(to, reference.velocity, top, ACCELERATION, landing)
    turn = rotation_vector(goal.pose.rot @ reference.pose.rot.T)
    spin = _approach(turn, reference.spin, TURNING * goal.speed, TURN_ACCELERATION, LANDING)
    return Reference(
        pose=Pose(
            reference.pose.pos + velocity * STEP_S,
            from_rotation_vector(spin * STEP_S) @ reference.pose.rot,
        ),
        velocity=velocity,
        spin=spin,
    )


def _beyond(goal: Waypoint, following: Waypoint) -> Array:
    """Look a little past a waypoint that is only passed, so that nothing slows down there."""
    ahead = following.pose.pos - goal.pose.pos
    length = float(np.sqrt(ahead @ ahead))
    return ahead * (min(goal.blend, length) / length) if length > 1e-6 else ahead


def _approach(to: Array, velocity: Array, top: float, acceleration: float, landing: float) -> Array:
    distance = float(np.sqrt(to @ to))
    if distance < 1e-9:
        wanted = np.zeros(3)
    else:
        speed = min(top, landing * distance, np.sqrt(2 * acceleration * distance))
        wanted = to * (speed / distance)
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


def action(reference: Reference, lag: Array, turn_lag: Array, grip: float) -> Array:
    """The action [7] that follows the reference.

    Args:
        reference: After this step.
        lag: Metres from the hand to the reference before this step.
        turn_lag: Rotation vector likewise.
        grip: Gripper channel.
    """
    out = np.empty(7)
    out[:3] = (reference.velocity * (STEP_S / RESPONSE) + GAIN * lag) / POSITION_SCALE
    out[3:6] = (reference.spin * (STEP_S / RESPONSE) + GAIN * turn_lag) / ROTATION_SCALE
    out[6] = grip
    np.clip(out, -1.0, 1.0, out=out)
    return out


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


def arrived(hand: Pose, lag: Array, reference: Reference, goal: Waypoint) -> bool:
    """Whether a (predicted) hand is at a waypoint."""
    left = goal.pose.pos - (reference.pose.pos - lag)
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
