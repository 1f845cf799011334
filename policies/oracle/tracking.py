"""A chunk of actions: the reference rolled forward through the waypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from policies.oracle import motion
from policies.oracle.geometry import Array, rotation_vector
from policies.oracle.memory import Memory
from policies.oracle.motion import Hand, Reference, Waypoint
from policies.oracle.view import View
from wamsim.contracts import PrivilegedState


def roll(
    view: View,
    state: PrivilegedState,
    memory: Memory,
    step: int,
    horizon: int,
    noise: float,
    floor: float,
) -> tuple[Array, Array, Memory]:
    """Plan a chunk, predicting the hand where no new state is seen.

    Args:
        view: The scene now.
        state: Behind it.
        memory: Whose script is followed.
        step: Env steps done in the episode.
        horizon: Number of actions.
        noise: Amplitude of the perturbation.
        floor: Least share of it, where precision counts.

    Returns:
        Actions [horizon, 7]; what was meant, [horizon, 7]; and the memory after them. With
        noise, meant is what leads on from where the perturbed hand is, as if it had just come
        there: the reference that it was pushed away from is in nobody's observation.
    """
    eef, reference = view.eef, memory.reference
    velocity, spin = view.motion(state.qvel)
    hand = Hand(
        lag=reference.pose.pos - eef.pos,
        turn_lag=rotation_vector(reference.pose.rot @ eef.rot.T),
        velocity=velocity,
        spin=spin,
    )
    fresh = Reference(pose=eef, velocity=velocity, spin=spin)
    free = Hand(lag=np.zeros(3), turn_lag=np.zeros(3), velocity=velocity, spin=spin)
    # The integrated finger command is -1 when closed and 1 when open (envs/osc.py).
    gap = motion.OPEN * (float(state.gripper_command[0]) + 1.0) / 2.0
    index, reached, patience = memory.index, memory.reached, memory.patience
    waypoints = memory.waypoints
    meant, actions = np.zeros((horizon, 7)), np.zeros((horizon, 7))
    for k in range(horizon):
        goal = _goal(waypoints, index, reference)
        reference = motion.advance(
            reference, hand, goal, _get(waypoints, index - 1), _get(waypoints, index + 1)
        )
        meant[k, :6], hand = motion.follow(reference, hand)
        meant[k, 6], gap = motion.grip(gap, goal.gap)
        actions[k] = meant[k]
        if noise:
            fresh = motion.advance(
                fresh, free, goal, _get(waypoints, index - 1), _get(waypoints, index + 1)
            )
            meant[k, :6], free = motion.follow(fresh, free)
            share = max(goal.calm, floor)
            actions[k, :6] += share * motion.perturbation(memory.seed, step + k, noise)
        if index >= len(waypoints):
            continue
        patience -= 1
        if patience <= 0 or motion.arrived(reference, hand, goal):
            reached += 1
            if patience <= 0 or reached > goal.dwell:
                index, reached = index + 1, 0
                patience = patience_for(reference, waypoints, index)
    np.clip(actions, -1.0, 1.0, out=actions)
    np.clip(meant, -1.0, 1.0, out=meant)
    after = replace(memory, reference=reference, index=index, reached=reached, patience=patience)
    return actions, meant, after


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
