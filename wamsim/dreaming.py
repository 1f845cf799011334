"""A world model that foresees through somebody else's hands (``--imagine-with``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wamsim import gallery, seeding
from wamsim.contracts import Frames, Imagined, PolicyCard, Task, WorldModel
from wamsim.conventions import action_converter
from wamsim.errors import ConventionMismatch, nearest
from wamsim.in_progress import InProgress


def check_world_model(model: WorldModel, card: PolicyCard, task: Task) -> None:
    """Check before the first step that a world model, a policy and a task fit together.

    Raises:
        UnknownName: A camera that the suite does not have.
        ConventionMismatch: Actions that cannot be converted, or a chunk that is shorter than
            the future actions that the world model takes.
    """
    own = model.card
    for camera in sorted({*own.cameras, *own.imagines.cameras}):
        if camera not in task.cameras:
            raise nearest(
                camera,
                task.cameras,
                kind=f"camera (world model {own.name!r} on suite {task.suite!r})",
            )
    for emits in (card.action, task.action):
        action_converter(emits, own.action, policy=card.name, suite=f"world model {own.name}")
    if card.horizon < own.future_actions:
        raise ConventionMismatch(
            f"world model {own.name!r} takes {own.future_actions} future actions, but policy "
            f"{card.name!r} predicts {card.horizon}. Choose a policy with a longer horizon, or "
            f"set the policy's horizon option."
        )


def dream(
    model: WorldModel,
    card: PolicyCard,
    rows: Sequence[InProgress],
    actions: NDArray[np.float32],
    *,
    view: int,
    batch: int,
    run_seed: int,
    also_hold: bool = False,
) -> tuple[Imagined, Imagined | None]:
    """Let a world model foresee what the chunks that are about to run will show.

    Args:
        model: The world model.
        card: The policy's, whose actions these are.
        rows: Episodes, at most `batch`.
        actions: float32 [rows.., H, A] in the policy's convention.
        view: Which view shows the model its past frames.
        batch: Rows of the call; further ones are zeros.
        run_seed: The run's seed.
        also_hold: True to let it also foresee, from the same past and noise, that nothing is
            done (its convention's hold action), for one more call.

    Returns:
        What it foresaw under the chunks; and under the hold action, or None.
    """
    own = model.card
    past: list[Frames] = []
    done: list[NDArray[np.float32]] = []
    future: list[NDArray[np.float32]] = []
    needed = -min(own.past_offsets)
    hold = np.array([own.action.hold], np.float32)
    for row, chunk in zip(rows, actions, strict=False):
        task = row.job.task
        past.append(
            gallery.stack_frames(row.galleries[view].stack(row.steps + o for o in own.past_offsets))
        )
        executed = row.recent_actions(needed)
        ours = action_converter(task.action, own.action, policy=card.name, suite=task.suite)
        theirs = action_converter(card.action, own.action, policy=card.name, suite=task.suite)
        # Before the episode's start nothing moved.
        before = np.repeat(hold, needed - len(executed), axis=0)
        done.append(np.concatenate([before, ours(executed)]) if needed else executed)
        future.append(theirs(chunk[: own.future_actions]))
    seeds = [seeding.derive(run_seed, r.job.key, f"world@{r.steps}") for r in rows]

    def foresee(actions: Sequence[NDArray[np.float32]]) -> Imagined:
        return model.imagine(
            gallery.stack_rows(past, batch),
            gallery.stack_rows(done, batch),
            gallery.stack_rows(actions, batch),
            np.array(seeds + [0] * (batch - len(rows)), np.uint64),
        )

    nothing = [np.repeat(hold, own.future_actions, axis=0)] * len(rows)
    return foresee(future), foresee(nothing) if also_hold else None
