"""Looks -> what a backbone is shown and asked. See `wamsim.looks`.

Axes: B samples, C cameras, K instructions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.batch import Batch, BatchSpec
from policies.training.features import FeatureCache, Source
from policies.training.reconstruction import SPREAD_FLOOR
from wamsim.looks import LookSet

LOOK = 4  # what a draw is for, beside those of `sampling` and `augmentation`
NEAREST = 0.5  # of the questions are about what is nearest to the hand: DECISIONS 38
HOLD_OUT_EVERY = 20  # every so-many-th trial is only looked at to measure


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Looks with, for each, one of the instructions.

    Attributes:
        batch: The looks as samples; actions mean nothing.
        which: int64 [B], the instruction's number.
        point: float32 [B, C, K, 2], where the middles of all things are in the upright
            pictures, (column, row) as shares of their (width, height).
        ahead: bool [B, C, K], whether they lie before the camera.
        place: float32 [B, 3], the asked thing's middle less the hand's place, metres.
    """

    batch: Batch
    which: Tensor
    point: Tensor
    ahead: Tensor
    place: Tensor


class LookSampler:
    """Draws looks; which ones is a function of the demonstration batch's seeds alone.

    Those are a function of the training's seed and the step, so a training that was killed
    goes on with the very looks that it would have seen, and parts of a batch add up to it.

    Args:
        looks: All.
        spec: What the model wants.

    Attributes:
        learn, held_out: Rows; whole scenes are held out, by trial number. Where there are too
            few trials for that, both are all of them.
        spread: float64 [3], standard deviation of the places that are learnt, metres.
        features: What frozen parts give for every look, or None.
    """

    def __init__(self, looks: LookSet, spec: BatchSpec) -> None:
        self.looks, self.spec = looks, spec
        self.features: FeatureCache | None = None
        kept = looks.trial % HOLD_OUT_EVERY == 0
        every = np.arange(len(looks))
        parted = bool(kept.any()) and not bool(kept.all())
        self.learn, self.held_out = (every[~kept], every[kept]) if parted else (every, every)
        away = looks.place[self.learn] - looks.hand[self.learn, None]
        known = away[looks.known[self.learn]].astype(np.float64)
        self.spread = known.std(0) + SPREAD_FLOOR

    @property
    def source(self) -> Source:
        """All looks, to compute features of; what is asked for plays no part in them."""
        first = self.looks.known.argmax(1)
        return Source(
            make=lambda rows: self.make(rows, first[rows]).batch,
            count=len(self.looks),
            identity=(self.looks.hash(), repr(self.spec.cameras)),
        )

    @property
    def things(self) -> int:
        """Number of instructions K."""
        return len(self.looks.instructions)

    def draw(self, seeds: Sequence[int], *, held_out: bool = False) -> Sight:
        """Draw one look and one instruction that its scene can meet for every seed."""
        rows = self.held_out if held_out else self.learn
        drawn: list[tuple[int, int]] = []
        for seed in seeds:
            rng = np.random.Generator(np.random.PCG64([int(seed), LOOK]))
            row = int(rows[rng.integers(len(rows))])
            drawn.append((row, self._asked(row, rng)))
        chosen = np.array(drawn, np.int64)
        return self.make(chosen[:, 0], chosen[:, 1])

    def _asked(self, row: int, rng: np.random.Generator) -> int:
        known = np.flatnonzero(self.looks.known[row])
        if rng.uniform() >= NEAREST:
            return int(rng.choice(known))
        away = self.looks.place[row, known] - self.looks.hand[row]
        return int(known[np.linalg.norm(away, axis=1).argmin()])

    def measuring(self, size: int, count: int) -> Iterator[Sight]:
        """Give held-out looks, always the same ones.

        Args:
            size: Looks at a time.
            count: Times.
        """
        for number in range(count):
            yield self.draw(range(number * size, (number + 1) * size), held_out=True)

    def make(self, rows: NDArray[np.int64], which: NDArray[np.int64]) -> Sight:
        """Give chosen looks with chosen instructions, [B] each."""
        looks, spec, size = self.looks, self.spec, len(rows)
        geometry: dict[str, Any] = {}
        for camera in spec.cameras if spec.depth else ():
            for what, array in looks.geometry(camera, rows).items():
                found = torch.from_numpy(array)
                each = found if what == "intrinsics" else found[:, None]
                geometry.setdefault(what, {})[camera] = each
        batch = Batch(
            frames={c: torch.from_numpy(looks.frames(c, rows))[:, None] for c in spec.cameras},
            frame_offsets=(0,),
            frame_valid=torch.ones(size, 1, dtype=torch.bool),
            proprio=torch.from_numpy(looks.proprio[rows])[:, None],
            actions=torch.zeros(size, spec.horizon, spec.action.dim),
            action_valid=torch.zeros(size, spec.horizon, dtype=torch.bool),
            instruction=[looks.instructions[k] for k in which],
            success=torch.ones(size, dtype=torch.bool),
            steps_left=torch.zeros(size, dtype=torch.int64),
            episode=torch.zeros(size, dtype=torch.int64),
            step=torch.zeros(size, dtype=torch.int64),
            features=None if self.features is None else self.features.of(rows),
            **geometry,
        )
        return Sight(
            batch=batch,
            which=torch.from_numpy(which),
            point=torch.from_numpy(looks.pixel[rows]),
            ahead=torch.from_numpy(looks.ahead[rows]),
            place=torch.from_numpy(looks.place[rows, which] - looks.hand[rows]),
        )
