"""Small inputs for the tests of the cosmos family."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from policies.batch import Batch
from policies.cosmos.config import CosmosConfig, preset
from policies.cosmos.model import CosmosModel, build
from wamsim.contracts import Observation

torch.set_num_threads(1)


def tiny(variant: str = "direct", layout: str = "libero", **changes: Any) -> CosmosConfig:
    """The tiny preset with the published protocol on pictures of 32 x 32 pixels, and changes."""
    config = preset(variant, "tiny", layout)
    first, *rest = preset(variant, "published", layout).images
    small = (dataclasses.replace(first, size=(32, 32)), *rest)
    return dataclasses.replace(config, **{"images": small, **changes})


def model(variant: str = "direct", layout: str = "libero", **changes: Any) -> CosmosModel:
    """An untrained tiny model."""
    return build(tiny(variant, layout, **changes), init_seed=0)


def batch(config: CosmosConfig, size: int = 8, *, seed: int = 0) -> Batch:
    """Random samples: smooth pictures, numbers in [-1, 1], every fourth episode failed."""
    rng = np.random.default_rng(seed)
    layout = config.layout
    height, width = config.render_size
    coarse = rng.integers(0, 256, (len(layout.cameras), size, 2, 4, 4, 3), np.uint8)
    pictures = np.kron(coarse, np.ones((1, 1, 1, height // 4, width // 4, 1), np.uint8))
    return Batch(
        frames={c: torch.from_numpy(p) for c, p in zip(layout.cameras, pictures, strict=True)},
        frame_offsets=(0, layout.horizon),
        frame_valid=torch.ones(size, 2, dtype=torch.bool),
        proprio=_uniform(rng, (size, 2, layout.proprio_convention.dim)),
        actions=_uniform(rng, (size, layout.horizon, layout.action_convention.dim)),
        action_valid=torch.ones(size, layout.horizon, dtype=torch.bool),
        instruction=[f"pick up object {i % 3}" for i in range(size)],
        success=torch.arange(size) % 4 != 3,
        steps_left=torch.arange(size) * 7,
        episode=torch.arange(size),
        step=torch.zeros(size, dtype=torch.int64),
        seed=torch.arange(size) + 1000 * seed,
    )


def _uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(-1, 1, shape).astype(np.float32))


def observation(
    config: CosmosConfig, rows: int = 3, *, padding: tuple[int, ...] = (), imagine: bool = False
) -> Observation:
    """Presents of several episodes; rows in `padding` are as the harness pads them."""
    layout = config.layout
    rng = np.random.default_rng(7)
    size = (config.render_size[0], config.render_size[1])
    valid = np.array([i not in padding for i in range(rows)])
    frames = {
        c: rng.integers(0, 256, (rows, 1, *size, 3), np.uint8)
        * valid[:, None, None, None, None].astype(np.uint8)
        for c in layout.cameras
    }
    proprio = rng.standard_normal((rows, layout.proprio_convention.dim)).astype(np.float32)
    return Observation(
        frames=frames,
        proprio=proprio * valid[:, None].astype(np.float32),
        instruction=[f"put the bowl on plate {i}" if v else "" for i, v in enumerate(valid)],
        seed=np.where(valid, np.arange(rows) + 11, 0).astype(np.uint64),
        step=np.zeros(rows, np.int64),
        slot=np.where(valid, np.arange(rows), -1),
        first=np.ones(rows, bool),
        valid=valid,
        memory=[None] * rows,
        imagine=imagine,
    )


def take(obs: Observation, row: int) -> Observation:
    """Keep one row where it is and make all others padding."""
    keep = np.arange(obs.batch) == row

    def only(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return x * keep.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype)

    assert obs.proprio is not None
    return dataclasses.replace(
        obs,
        frames={c: only(f) for c, f in obs.frames.items()},
        proprio=only(obs.proprio),
        instruction=[text if k else "" for text, k in zip(obs.instruction, keep, strict=True)],
        seed=only(obs.seed),
        valid=obs.valid & keep,
    )
