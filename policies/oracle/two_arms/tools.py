"""Pressing, striking, and going home."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from policies.oracle.geometry import Array, Pose
from policies.oracle.two_arms.arms import hand_pose_rotation
from policies.oracle.two_arms.desk import CARRY, SLOW, UP, Desk, Plan

PRESS = 0.007  # metres below its top that a button is pressed
TIP = 0.019  # metres from the grip site to the finger tips


def press(desk: Desk, arm: int, button: Array) -> Plan | None:
    """Press a button from above with closed fingers, and go back up."""
    bearing = np.arctan2(*(button[:2] - desk.arms.arms[arm].base[:2])[::-1])
    closing = np.array([-np.sin(bearing), np.cos(bearing), 0.0])
    for tilt in (0.0, 0.3, 0.6):
        forward = np.array([np.cos(bearing), np.sin(bearing), 0.0])
        rot = hand_pose_rotation(closing, np.sin(tilt) * forward - np.cos(tilt) * UP)
        top = Pose(button - TIP * rot[:, 0], rot)
        start = desk.arms.reach(arm, top.shifted(0.07 * UP))
        if start is None:
            continue
        down = desk.line(arm, start, top.shifted(-PRESS * UP))
        if down is None:
            continue
        script = desk.script()
        script.opening[arm] = 0.0
        script.move({arm: desk.clear_path(arm, desk.joints[arm], start, {}, {})})
        script.move({arm: down}, SLOW)
        script.move({arm: [*reversed(down[:-1]), start]}, SLOW)
        return Plan(script.actions, "press")
    return None


def strike(desk: Desk, arm: int, tool: str, face: Array, targets: Iterable[Pose]) -> Plan | None:
    """Bring a tool that a hand holds down onto something, and up again.

    Args:
        desk: The present.
        arm: Whose hand.
        tool: What it holds.
        face: The tool's working point in its own frame.
        targets: Poses of the tool in which it strikes, best first.
    """
    undo = desk.offset(arm, tool).inverse()
    for target in targets:
        hand = target @ undo
        start = desk.arms.reach(arm, hand.shifted(0.06 * UP), desk.joints[arm])
        if start is None:
            continue
        down = desk.line(arm, start, hand.shifted(-0.008 * UP))
        if down is None:
            continue
        script = desk.script()
        script.move({arm: [start]}, CARRY)
        script.move({arm: down}, SLOW)
        script.move({arm: [*reversed(down[:-1]), start]}, SLOW)
        return Plan(script.actions, "strike")
    return None


def go_home(desk: Desk) -> Plan:
    """Open both hands, back off, and go home."""
    script = desk.script()
    script.grip({0: 1.0, 1: 1.0}, 8)
    for arm in range(2):
        hand = desk.arms.hand(arm, desk.joints[arm])
        up = desk.line(arm, desk.joints[arm], hand.shifted(0.08 * UP))
        if up is not None:
            script.move({arm: up}, SLOW)
    script.move({arm: [desk.arms.arms[arm].home] for arm in range(2)})
    script.wait(2)
    return Plan(script.actions, "home")
