"""A chunk of actions: the reference rolled forward through the waypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from policies.oracle import motion
from policies.oracle.config import OracleConfig
from policies.oracle.geometry import Array, rotation_vector
from policies.oracle.memory import Memory
from policies.oracle.motion import Hand, Reference, Waypoint
from policies.oracle.view import View
from wamsim.contracts import PrivilegedState


def roll(
    view: View, state: PrivilegedState, memory: Memory, step: int, config: OracleConfig
) -> tuple[Array, Array, Memory]:
    """Plan a chunk, predicting the hand where no new state is seen.

    Args:
        view: The scene now.
        state: Behind it.
        memory: Whose script is followed.
        step: Env steps done in the episode.
        config: How many actions, and what perturbs them.

    Returns:
        Actions [execute, 7]; what was meant, [ahead, 7]; and the memory after the actions.
        Meant is what leads on from where the perturbed hand is, as if it had just come there
        and nothing pushed it any more: the reference that it was pushed away from is in
        nobody's observation.
    """
    eef, reference = view.eef, memory.reference
    velocity, spin = view.motion(state.qvel)
    hand = Hand(
        lag=reference.pose.pos - eef.pos,
        turn_lag=rotation_vector(reference.pose.rot @ eef.rot.T),
        velocity=velocity,
        spin=spin,
    )
    # The integrated finger command is -1 when closed and 1 when open (envs/osc.py).
    gap = motion.OPEN * (float(state.gripper_command[0]) + 1.0) / 2.0
    actions, calm, after = _followed(memory, hand, gap, config.execute)
    if not config.perturbs:
        return actions, actions, after
    free = replace(hand, lag=np.zeros(3), turn_lag=np.zeros(3))
    fresh = replace(memory, reference=Reference(pose=eef, velocity=velocity, spin=spin))
    meant, _, _ = _followed(fresh, free, gap, config.ahead)
    share = np.maximum(calm, config.noise_floor)[:, None]
    actions[:, :6] += share * motion.perturbation(memory.seed, step, config.noise)
    push = pushed(memory, step, config)
    if push is not None:
        actions[:, :3] = push
    return np.clip(actions, -1.0, 1.0), meant, after


def pushed(memory: Memory, step: int, config: OracleConfig) -> Array | None:
    """The push of a step, [3], or None; none while the fingers close or open."""
    return None if is_busy(memory) else motion.push(memory.seed, step, config.push)


def is_busy(memory: Memory) -> bool:
    """Whether the fingers are being closed or opened."""
    return _goal(memory.waypoints, memory.index, memory.reference).dwell > 0


def _followed(memory: Memory, hand: Hand, gap: float, steps: int) -> tuple[Array, Array, Memory]:
    """Follow a script from a memory's reference.

    Returns:
        Actions [steps, 7] in -1..1; how much perturbation each of them bears, [steps]; and
        the memory after them.
    """
    waypoints, reference = memory.waypoints, memory.reference
    index, reached, patience = memory.index, memory.reached, memory.patience
    actions, calm = np.zeros((steps, 7)), np.zeros(steps)
    for k in range(steps):
        goal = _goal(waypoints, index, reference)
        reference = motion.advance(
            reference, hand, goal, _get(waypoints, index - 1), _get(waypoints, index + 1)
        )
        actions[k, :6], hand = motion.follow(reference, hand)
        actions[k, 6], gap = motion.grip(gap, goal.gap)
        calm[k] = goal.calm
        if index >= len(waypoints):
            continue
        patience -= 1
        if patience <= 0 or motion.arrived(reference, hand, goal):
            reached += 1
            if patience <= 0 or reached > goal.dwell:
                index, reached = index + 1, 0
                patience = patience_for(reference, waypoints, index)
    after = replace(memory, reference=reference, index=index, reached=reached, patience=patience)
    return np.clip(actions, -1.0, 1.0), calm, after


def patience_for(reference: Reference, waypoints: Sequence[Waypoint], index: int) -> int:
    """Steps that a waypoint may take from here before it counts as blocked."""
    if index >= len(waypoints):
        return 0
    return motion.expected_steps(reference.pose, waypoints[index]) + motion.PATIENCE


def _get(waypoints: Sequence[Waypoint], index: int) -> Waypoint | None:
    return waypoints[index] if 0 <= index < len(waypoints) else None


def _goal(waypoints: Sequence[Waypoint], index: int, reference: Reference) -> Waypoint:
    """The waypoint of that number; past the end the last one; with no script, stand still."""
    if not waypoints:
        return Waypoint(pose=reference.pose, gap=motion.OPEN)
    return waypoints[min(index, len(waypoints) - 1)]
