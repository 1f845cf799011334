"""Put the presents of several episodes together into one `Observation` of fixed shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wamsim import gallery, seeding
from wamsim.contracts import Observation, PolicyCard
from wamsim.conventions import orient, proprio_from_robot_state
from wamsim.in_progress import InProgress
from wamsim.messages import PoolLike

POLICY_VIEW = 0  # `wamsim.gallery.plan` puts the policy's own view first


def observe(
    card: PolicyCard,
    rows: Sequence[InProgress],
    slots: Sequence[int],
    pool: PoolLike,
    *,
    batch: int,
    run_seed: int,
    imagine: bool,
) -> Observation:
    """Assemble a policy's input.

    Args:
        card: What the policy needs.
        rows: Episodes, at most `batch`; further rows are padding (zeros, `valid` False).
        slots: Their slot numbers.
        pool: For privileged scenes.
        batch: Rows of the result.
        run_seed: The run's seed.
        imagine: Passed on.
    """
    pad = batch - len(rows)
    seeds = [seeding.policy_seed(run_seed, r.job.key, r.steps) for r in rows]
    return Observation(
        **_pictures(card, rows, batch),
        proprio=_proprio(card, rows, batch),
        instruction=[r.job.task.instruction for r in rows] + [""] * pad,
        seed=np.array(seeds + [0] * pad, np.uint64),
        step=np.array([r.steps for r in rows] + [0] * pad, np.int64),
        slot=np.array([*slots, *[-1] * pad], np.int64),
        first=np.array([r.first_query for r in rows] + [True] * pad),
        valid=np.array([True] * len(rows) + [False] * pad),
        memory=[r.memory for r in rows] + [None] * pad,
        state=[r.privileged(pool) for r in rows] + [None] * pad if card.privileged else None,
        imagine=imagine,
    )


def _pictures(card: PolicyCard, rows: Sequence[InProgress], batch: int) -> dict[str, Any]:
    out: dict[str, Any] = {"frames": {}}
    if not card.cameras:
        return out
    shots = [r.galleries[POLICY_VIEW].stack(r.steps + o for o in card.frame_offsets) for r in rows]
    for c, camera in enumerate(card.cameras):
        colour = [np.stack([shot.colour[c] for shot in row]) for row in shots]
        stacked = gallery.stack_rows(colour, batch)
        out["frames"][camera] = np.ascontiguousarray(orient(stacked, card.orientation))
    if card.depth:
        out.update(depth={}, intrinsics={}, extrinsics={})
        for c, camera in enumerate(card.cameras):
            metres = [np.stack([_given(shot.depth)[c] for shot in row]) for row in shots]
            poses = [np.stack([_given(shot.extrinsics)[c] for shot in row]) for row in shots]
            pinholes = [_given(_given(r.began).intrinsics[POLICY_VIEW])[c] for r in rows]
            out["depth"][camera] = gallery.stack_rows(metres, batch)
            out["extrinsics"][camera] = gallery.stack_rows(poses, batch)
            out["intrinsics"][camera] = gallery.stack_rows(pinholes, batch)
    return out


def _given(value: Any) -> Any:
    assert value is not None, "a view with depth gives depth and camera matrices"
    return value


def _proprio(
    card: PolicyCard, rows: Sequence[InProgress], batch: int
) -> NDArray[np.float32] | None:
    if card.proprio is None:
        return None
    history: list[NDArray[np.float32]] = []
    for r in rows:
        raw = np.stack([r.robot_states[max(r.steps + o, 0)] for o in card.frame_offsets])
        task = r.job.task
        history.append(
            proprio_from_robot_state(raw, task.robot_state, card.proprio, suite=task.suite)
        )
    return gallery.stack_rows(history, batch)
