"""Refuse, with a sentence, what does not fit: before the first step, and at every answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wamsim.contracts import Policy, PolicyCard, Prediction, Task
from wamsim.conventions import (
    ActionConvention,
    Orientation,
    action_converter,
    proprio_from_robot_state,
)
from wamsim.errors import ConventionMismatch, PolicyFault, nearest


@runtime_checkable
class Polyglot(Policy, Protocol):
    """A scripted policy that can speak other conventions than the one in its card.

    With an attribute ``verbatim`` that is True it speaks no other than a suite's own, though a
    converter may lead there from its card's.
    """

    def speaking(self, action: ActionConvention) -> Policy:
        """Give the same policy in another convention.

        Raises:
            ConventionMismatch: It does not know that one.
        """
        ...


def fitted(policy: Policy, tasks: Sequence[Task]) -> Policy:
    """Let a policy that speaks several conventions speak the one that all tasks expect.

    A policy that fits as it is, or speaks one convention only, is given back unchanged:
    `check_fit` says what is wrong with it.
    """
    actions = {task.action.name: task.action for task in tasks}
    if len(actions) != 1 or not isinstance(policy, Polyglot):
        return policy
    if getattr(policy, "verbatim", False) and policy.card.action.name not in actions:
        return policy.speaking(*actions.values())
    try:
        for task in tasks:
            check_fit(policy, task)
    except ConventionMismatch:
        return policy.speaking(*actions.values())
    return policy


def check_fit(policy: Policy, task: Task) -> None:
    """Check before the first step that a policy and a task fit together.

    Raises:
        UnknownName: A camera that the suite does not have.
        ConventionMismatch: Action or proprioception conventions with no converter, a task
            that requires channels that the policy lacks, or a depth policy that wants
            flipped pictures.
    """
    card = policy.card
    spec = card.imagines
    for camera in sorted({*card.cameras, *(spec.cameras if spec else ())}):
        if camera not in task.cameras:
            raise nearest(
                camera,
                task.cameras,
                kind=f"camera (policy {card.name!r} on suite {task.suite!r})",
                hint="A missing camera never becomes zeros.",
            )
    action_converter(card.action, task.action, policy=card.name, suite=task.suite)
    lacking = [label for label in task.requires if label not in card.action.labels]
    if lacking:
        raise ConventionMismatch(
            f"task {task.name!r} of suite {task.suite!r} cannot be done without "
            f"{', '.join(lacking)}, which policy {card.name!r} has no channel for: it emits "
            f"{card.action.name}. Choose other tasks (--task), or a policy that emits "
            f"{task.action.name}."
        )
    if card.proprio is not None:
        proprio_from_robot_state(
            np.zeros(task.robot_state.dim), task.robot_state, card.proprio, suite=task.suite
        )
    if card.depth and card.orientation is not Orientation.UPRIGHT:
        raise ConventionMismatch(
            f"policy {card.name!r} asks for depth and for {card.orientation.value} pictures; "
            f"camera matrices are given for upright ones. Flip inside the policy."
        )


def checked_actions(card: PolicyCard, prediction: Prediction, batch: int) -> NDArray[np.float32]:
    """Check a policy's answer against its card.

    Returns:
        float32 [batch, H, A]; values may still be non-finite, which is one episode's
        failure and not a broken promise.

    Raises:
        PolicyFault: Wrong shape or type, a short chunk, a promised value that is missing.
    """
    actions = np.asarray(prediction.actions)
    expected = (batch, card.horizon, card.action.dim)
    after = "Mend the policy or its card; finished episodes are safe and the run resumes."
    if actions.shape != expected:
        hint = ""
        if actions.ndim == 3 and actions.shape[1] < card.horizon:
            hint = f" The chunk is short: the card promises horizon={card.horizon}."
        raise PolicyFault(
            f"policy {card.name!r} returned actions of shape {actions.shape}, but its card "
            f"promises {expected} (batch, horizon, {card.action.name}).{hint} {after}"
        )
    if actions.dtype.kind != "f":
        raise PolicyFault(
            f"policy {card.name!r} returned actions of type {actions.dtype}, expected float32. "
            f"{after}"
        )
    for name, value in (("value", prediction.value), ("memory", prediction.memory)):
        if value is not None and len(value) != batch:
            raise PolicyFault(
                f"policy {card.name!r} returned {name} for {len(value)} rows, expected {batch}. "
                f"{after}"
            )
    if card.predicts_value and prediction.value is None:
        raise PolicyFault(f"policy {card.name!r} promises a value but returned None. {after}")
    return actions.astype(np.float32, copy=False)
