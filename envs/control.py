"""How the channels of an action are split over the controllers of a scene.

A `Control` belongs to one action convention; a scene has one for every convention that
its robot understands. All of it is data (JSON, beside the cached model); the compiled
loop of `envs.stepping` does the work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE


@dataclass(frozen=True, kw_only=True)
class Servo:
    """A position actuator of the model whose target follows a channel of the action.

    Attributes:
        actuator: The actuator; its control is the target (radians, metres).
        joint: What it moves. The first target of an episode is where the initial state
            has this joint.
        channel: Of the action.
        kind: "position": the channel is where the target shall be at the end of the env
            step. "fraction": likewise, from `low` at 0 to `high` at 1. Both are reached
            on a straight line, never faster than `speed`. "velocity": the channel, in
            [-1, 1], times `speed` is the target's velocity. "driven": a `PoseGoal` moves
            the target; the channel is not read.
        low, high: Bounds of the target; of a "fraction" its ends (either may be larger).
        speed: Radians or metres a second.
        gated: It moves only while the channel `Control.mode` is above 0.
        across, across_sign, heading: For the slides of a planar base, whose commands turn
            with it: cos(h) a[channel] + across_sign sin(h) a[across], with h the position
            of the joint `heading`. None for everything else.
    """

    actuator: str
    joint: str
    channel: int
    kind: Literal["position", "fraction", "velocity", "driven"]
    low: float
    high: float
    speed: float
    gated: bool = False
    across: int | None = None
    across_sign: float = 0.0
    heading: str | None = None


@dataclass(frozen=True, kw_only=True)
class PoseGoal:
    """Channels that say where a hand shall be; inverse kinematics moves its servos there.

    Attributes:
        robot: Number of the arm among `SceneInfo.robots`; its joints have "driven" servos.
        channel: First of seven: position (metres, world), quaternion wxyz of the grip site.
    """

    robot: int
    channel: int


@dataclass(frozen=True, kw_only=True)
class Control:
    """One action convention, split.

    Attributes:
        action: Name of the convention.
        osc: Channels 0..5 are OSC deltas of `SceneInfo.robot`, and the sign of channel 6
            moves its fingers, as in LIBERO.
        frame: Body in whose axes the deltas are given; None for the world's.
        mode: Channel that chooses what moves: above 0 the arm's joints are held where
            they are and gated servos move; else the arm moves and gated servos stand.
            None: everything always moves.
        servos: Actuators that follow channels.
        poses: Hands that follow channels.
    """

    action: str
    osc: bool = True
    frame: str | None = None
    mode: int | None = None
    servos: tuple[Servo, ...] = ()
    poses: tuple[PoseGoal, ...] = ()


OSC = Control(action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name)


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What carries an arm around; adds base_pos, base_quat and torso to the robot state.

    Attributes:
        body: Its pose is the base's.
        torso_joint: The lift's slide.
    """

    body: str
    torso_joint: str
