"""How a training runs; stored with its results."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the weights, beside the model and the data.

    Attributes:
        steps: Optimizer steps.
        batch: Samples per optimizer step.
        accumulate: Parts that a step's batch is computed in, to save memory.
        lr: Peak learning rate.
        taken_lr: Learning rate of the weights that were taken from a part's checkpoint, as a
            share of `lr`: what has learnt already need not run to meet what has not. With 0 it
            is frozen.
        warmup: Steps of linear warm-up.
        lr_end: Final learning rate, as a share of the peak (cosine in between).
        weight_decay: AdamW's; matrices alone, neither biases nor norms.
        betas: AdamW's.
        clip: Largest gradient norm.
        ema: Decay of the weights' moving average; 0 keeps none. Early on it follows faster,
            min(ema, (1 + step) / (10 + step)).
        seed: Of the samples' order and the noise.
        validate_every: Of each task every n-th episode validates; 0 holds none out.
        threads: CPU threads; they decide how sums are cut, so the last bits.
        shift: Pixels by which the pictures that are learnt from are moved at random; what
            frozen parts gave beforehand (`Batch.features`) is of unmoved ones.
        bf16: Compute in bfloat16 where the device is a GPU; on a CPU, let products be rounded to it
            inside where that is faster.
    """

    steps: int = 10_000
    batch: int = 64
    accumulate: int = 1
    lr: float = 1e-3
    taken_lr: float = 1.0
    warmup: int = 200
    lr_end: float = 0.02
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    validate_every: int = 20
    threads: int = 1
    shift: int = 0
    bf16: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.batch % self.accumulate:
            raise ValueError(f"batch={self.batch} cannot be cut into {self.accumulate} equal parts")
        if self.taken_lr < 0.0:
            raise ValueError(f"taken_lr={self.taken_lr} must not be negative")
        if self.shift < 0:
            raise ValueError(f"shift={self.shift} must not be negative")
        if not 0.0 <= self.ema < 1.0:
            raise ValueError(f"ema={self.ema} must lie in 0..1, 1 excluded")

    def lr_at(self, step: int) -> float:
        """Give the learning rate of a step (0-based)."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
        return self.lr * (self.lr_end + (1.0 - self.lr_end) * cosine)

    def ema_at(self, step: int) -> float:
        """Give the moving average's decay after a step (0-based)."""
        return min(self.ema, (1 + step) / (10 + step))
