"""The pictures of one episode in progress, by env step.

Only the steps that the policy's history or its imagination needs are ever drawn; this
keeps those still needed and says which to ask for next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wamsim.contracts import Frames, ImaginationSpec, PolicyCard, WorldModelCard
from wamsim.messages import View

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, kw_only=True)
class LookPlan:
    """Which pictures a run draws, and for whom.

    Attributes:
        views: What workers draw; consumers of equal cameras and size share one.
        looks: Per view, the local steps (1..execute) of a chunk after which to draw.
        oldest: Per view, the oldest offset from a query that anybody asks for.
        policy, imagination, world: Index of the view of the policy, of its own imagination
            and of the world model; None for who is not there.
    """

    views: tuple[View, ...]
    looks: tuple[tuple[int, ...], ...]
    oldest: tuple[int, ...]
    policy: int
    imagination: int | None
    world: int | None


def plan(
    card: PolicyCard, *, imagine: bool = False, world: WorldModelCard | None = None
) -> LookPlan:
    """Plan what to draw.

    Args:
        card: The policy's.
        imagine: Whether real frames for its own imagination are wanted.
        world: A world model that foresees beside it.
    """
    cameras: list[tuple[tuple[str, ...], tuple[int, int]]] = []
    looks: list[set[int]] = []
    oldest: list[int] = []

    def want(
        names: tuple[str, ...], size: tuple[int, int], steps: Iterable[int], offsets: Iterable[int]
    ) -> int:
        if (names, size) not in cameras:
            cameras.append((names, size))
            looks.append(set())
            oldest.append(0)
        view = cameras.index((names, size))
        looks[view].update(steps)
        oldest[view] = min(oldest[view], *offsets)
        return view

    policy = want(card.cameras, card.image_size, policy_looks(card), card.frame_offsets)
    imagination = other = None
    spec = card.imagines
    if imagine and spec is not None:
        steps = imagination_looks(spec, card.execute)
        imagination = want(spec.cameras, spec.image_size, steps, spec.frame_offsets)
    if world is not None:
        offsets = tuple(sorted({*world.past_offsets, *world.imagines.frame_offsets}))
        steps = _looks(offsets, card.execute)
        other = want(world.cameras, world.image_size, steps, offsets)
    return LookPlan(
        views=tuple(
            View(
                cameras=names,
                size=size,
                capacity=max(1, len(looks[v])),
                depth=card.depth and v == policy,
            )
            for v, (names, size) in enumerate(cameras)
        ),
        looks=tuple(tuple(sorted(steps)) for steps in looks),
        oldest=tuple(oldest),
        policy=policy,
        imagination=imagination,
        world=other,
    )


def policy_looks(card: PolicyCard) -> tuple[int, ...]:
    """Give the local steps (1..execute) of a chunk that some later query's history shows.

    Queries come every ``execute`` steps, so history offset o shows local step o modulo
    execute of the chunk that it falls into.
    """
    if not card.cameras:
        return ()
    return _looks(card.frame_offsets, card.execute)


def imagination_looks(spec: ImaginationSpec | None, execute: int) -> tuple[int, ...]:
    """Give the local steps that imagination's `encode` takes, as far as they are executed.

    Besides the query's own future also its history, which lies in earlier chunks.
    """
    return () if spec is None else _looks(spec.frame_offsets, execute)


def _looks(offsets: Iterable[int], execute: int) -> tuple[int, ...]:
    future = {o for o in offsets if 1 <= o <= execute}
    past = {o % execute or execute for o in offsets if o <= 0}
    return tuple(sorted(future | past))


@dataclass
class Shot:
    """One look: colour uint8 [cams, H, W, 3], depth [cams, H, W], camera poses [cams, 4, 4]."""

    colour: Frames
    depth: NDArray[np.float32] | None = None
    extrinsics: NDArray[np.float64] | None = None


class Gallery:
    """Looks of one view, by env step (0 is the episode's first query)."""

    def __init__(self) -> None:
        self._shots: dict[int, Shot] = {}

    def add(self, step: int, shot: Shot) -> None:
        """Keep a look; its arrays are copied out of shared memory."""
        self._shots[step] = Shot(
            colour=shot.colour.copy(),
            depth=None if shot.depth is None else shot.depth.copy(),
            extrinsics=shot.extrinsics,
        )

    def at(self, step: int) -> Shot:
        """Give the look at a step.

        Before the episode's start the first look stands in. After its end, or where a step
        was never drawn because the goal was reached first, the latest earlier look does.

        Raises:
            KeyError: Nothing at or before the step is kept: a defect of the look plan.
        """
        step = max(step, 0)
        found = self._shots.get(step)
        if found is not None:
            return found
        earlier = [s for s in self._shots if s < step]
        if not earlier:
            raise KeyError(f"no look at or before step {step}; kept: {sorted(self._shots)}")
        return self._shots[max(earlier)]

    def forget(self, before: int) -> None:
        """Drop looks of steps that nobody will ask for again; the newest earlier one stays."""
        old = sorted(s for s in self._shots if s < before)
        for step in old[:-1] if before not in self._shots else old:
            del self._shots[step]

    def stack(self, steps: Iterable[int]) -> list[Shot]:
        """Give the looks at several steps, in order."""
        return [self.at(step) for step in steps]


def stack_frames(shots: list[Shot]) -> Frames:
    """Put looks of T steps together: uint8 [T, cams, H, W, 3]."""
    return np.stack([shot.colour for shot in shots])


def stack_rows(rows: Sequence[NDArray[T]], batch: int) -> NDArray[T]:
    """Stack rows to [batch, ...]; padding is zeros.

    Raises:
        ValueError: There is no row to take the shape from, or more rows than `batch`.
    """
    if not 0 < len(rows) <= batch:
        raise ValueError(f"{len(rows)} rows do not fit a batch of {batch}")
    out = np.zeros((batch, *rows[0].shape), rows[0].dtype)
    for i, row in enumerate(rows):
        out[i] = row
    return out
