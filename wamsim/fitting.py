"""Refuse, with a sentence, what does not fit: before the first step, and at every answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wamsim.contracts import Policy, PolicyCard, Prediction, Task
from wamsim.conventions import Orientation, action_converter, proprio_from_robot_state
from wamsim.errors import ConventionMismatch, PolicyFault, nearest


def check_fit(policy: Policy, task: Task) -> None:
    """Check before the first step that a policy and a task fit together.

    Raises:
        UnknownName: A camera that the suite does not have.
        ConventionMismatch: Action or proprioception conventions with no converter, or a
            depth policy that wants flipped pictures.
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
