"""Observations, batches and small models for the tests of smolvla_world."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from policies.batch import Batch, BatchSpec
from policies.smolvla_world.model import SmolVLAWorld
from policies.smolvla_world.options import SmolVLAWorldOptions
from policies.smolvla_world.policy import SmolVLAWorldPolicy, make
from wamsim.contracts import Observation, PolicyCard

torch.set_num_threads(1)

GATED = (
    "late_gated_xattn",
    "multi_layer_inject",
    "hierarchical_horizons",
    "action_conditioned_prophet",
    "suffix_in",
    "prefix_xattn",
)


@functools.cache
def tiny(variant: str, **options: Any) -> SmolVLAWorldPolicy:
    """A tiny untrained policy; shared between tests, which must not change it."""
    return make(variant, SmolVLAWorldOptions(**options))


def fresh(variant: str, **options: Any) -> SmolVLAWorldPolicy:
    """One that a test may change."""
    return make(variant, SmolVLAWorldOptions(**options))


def open_gates(model: SmolVLAWorld, value: float = 1.0) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("gate", "gates")):
                parameter.fill_(value)


def observation(card: PolicyCard, rows: int, seed: int = 0, **changes: Any) -> Observation:
    draw = np.random.default_rng(seed)
    times, (height, width) = len(card.frame_offsets), card.image_size
    fields: dict[str, Any] = {
        "frames": {
            c: draw.integers(0, 256, (rows, times, height, width, 3), dtype=np.uint8)
            for c in card.cameras
        },
        "instruction": [f"pick up the bowl {i}" for i in range(rows)],
        "seed": np.arange(10, 10 + rows, dtype=np.uint64),
        "step": np.zeros(rows, np.int64),
        "slot": np.arange(rows),
        "first": np.ones(rows, bool),
        "valid": np.ones(rows, bool),
        "memory": [None] * rows,
        "proprio": draw.normal(size=(rows, times, 8)).astype(np.float32),
        "imagine": True,
    }
    return Observation(**{**fields, **changes})


def one_row(obs: Observation, row: int, place: int) -> Observation:
    """A row alone in a batch of the same shape, at some place; the rest is padding."""
    batch = obs.batch

    def alone(x: np.ndarray) -> np.ndarray:
        out = np.zeros_like(x)
        out[place] = x[row]
        return out

    assert obs.proprio is not None
    return Observation(
        frames={c: alone(x) for c, x in obs.frames.items()},
        instruction=[obs.instruction[row] if i == place else "" for i in range(batch)],
        seed=alone(obs.seed),
        step=alone(obs.step),
        slot=alone(obs.slot),
        first=alone(obs.first),
        valid=np.arange(batch) == place,
        memory=[None] * batch,
        proprio=alone(obs.proprio),
        imagine=obs.imagine,
    )


def batch_of(spec: BatchSpec, size: int = 4, seed: int = 1, **changes: Any) -> Batch:
    draw = np.random.default_rng(seed)
    times, (height, width) = len(spec.frame_offsets), spec.image_size
    assert spec.proprio is not None
    fields: dict[str, Any] = {
        "frames": {
            c: torch.from_numpy(
                draw.integers(0, 256, (size, times, height, width, 3), dtype=np.uint8)
            )
            for c in spec.cameras
        },
        "frame_offsets": spec.frame_offsets,
        "frame_valid": torch.ones(size, times, dtype=torch.bool),
        "proprio": torch.from_numpy(
            draw.normal(size=(size, times, spec.proprio.dim)).astype(np.float32)
        ),
        "actions": torch.from_numpy(
            draw.normal(size=(size, spec.horizon, spec.action.dim)).astype(np.float32)
        ),
        "action_valid": torch.ones(size, spec.horizon, dtype=torch.bool),
        "instruction": [f"go {i}" for i in range(size)],
        "success": torch.ones(size, dtype=torch.bool),
        "steps_left": torch.full((size,), 9),
        "episode": torch.arange(size),
        "step": torch.zeros(size, dtype=torch.long),
        "seed": torch.arange(size),
    }
    return Batch(**{**fields, **changes})
