"""What the tests of flow_hwm share: tiny batches, stirred weights."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from policies.batch import Batch
from policies.flow_hwm.config import FlowHWMConfig, preset_config
from policies.flow_hwm.model import FlowHWM
from policies.flow_hwm.network import Context
from policies.flow_hwm.sampler import Sampler
from policies.flow_hwm.world import FlowHWMWorld
from wamsim.contracts import Imagined

Arrays = dict[str, np.ndarray]
M = TypeVar("M", bound=nn.Module)


def small(variant: str, **changes: Any) -> FlowHWMConfig:
    """The tiny preset with pictures of 32 x 32 pixels: 4 patches a latent."""
    return preset_config(variant, "tiny", **{"image_size": (32, 32), **changes})


def stirred(module: M, seed: int = 0) -> M:
    """Give every parameter a little noise, so that nothing that starts at zero stays dead."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module


def model_of(config: FlowHWMConfig, seed: int = 0) -> FlowHWM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FlowHWM(config)


def latents_and_context(config: FlowHWMConfig, rows: int, seed: int = 0) -> tuple[Tensor, Context]:
    """Random future latents and a random context."""
    g = torch.Generator().manual_seed(seed)
    size, c, a = config.latent_size, config.latent_channels, config.convention.dim
    return torch.randn(rows, c, config.future_latents, *size, generator=g), Context(
        past=torch.randn(rows, c, config.past_latents, *size, generator=g),
        past_actions=torch.randn(rows, config.past_frames, a, generator=g),
        future_actions=torch.randn(rows, config.future_frames, a, generator=g),
    )


def disc_frames(config: FlowHWMConfig, rows: int, seed: int = 0) -> np.ndarray:
    """A bright disc that crosses a coloured ground, uint8 [rows, T, H, W, 3]."""
    rng = np.random.default_rng(seed)
    height, width = config.image_size
    y, x = np.mgrid[:height, :width]
    out = np.empty((rows, config.frames, height, width, 3), np.uint8)
    for row in range(rows):
        start, pace = rng.uniform(0.2, 0.5, 2), rng.uniform(-0.03, 0.03, 2)
        ground, disc = rng.integers(0, 120, 3), rng.integers(150, 255, 3)
        for t in range(config.frames):
            cy, cx = (start + t * pace) * (height, width)
            inside = (y - cy) ** 2 + (x - cx) ** 2 < (0.15 * height) ** 2
            out[row, t] = np.where(inside[..., None], disc, ground)
    return out


def batch_of(config: FlowHWMConfig, rows: int = 2, seed: int = 0, **changes: Any) -> Batch:
    """Discs, with actions drawn at random."""
    rng = np.random.default_rng(seed)
    steps = config.past_steps + config.future_steps
    offsets = tuple(range(0, steps + 1, config.frame_stride))
    fields: dict[str, Any] = {
        "frames": {config.camera: torch.from_numpy(disc_frames(config, rows, seed))},
        "frame_offsets": offsets,
        "frame_valid": torch.ones(rows, len(offsets), dtype=torch.bool),
        "proprio": None,
        "actions": torch.from_numpy(
            rng.uniform(-1, 1, (rows, steps, config.convention.dim)).astype(np.float32)
        ),
        "action_valid": torch.ones(rows, steps, dtype=torch.bool),
        "instruction": ["push the disc"] * rows,
        "success": torch.ones(rows, dtype=torch.bool),
        "steps_left": torch.full((rows,), 50),
        "episode": torch.arange(rows),
        "step": torch.zeros(rows, dtype=torch.int64),
        "seed": None,
    }
    return Batch(**{**fields, **changes})


def world_of(variant: str, **sampling: Any) -> FlowHWMWorld:
    model = stirred(model_of(small(variant)))
    return FlowHWMWorld(model, Sampler(model.network, **{"steps": 3, "guidance": 3.0, **sampling}))


def inputs(config: FlowHWMConfig, rows: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    dim = config.convention.dim
    return {
        "past_frames": disc_frames(config, rows, seed)[:, : config.past_frames, None],
        "past_actions": rng.uniform(-1, 1, (rows, config.past_steps, dim)).astype(np.float32),
        "future_actions": rng.uniform(-1, 1, (rows, config.future_steps, dim)).astype(np.float32),
        "seed": np.arange(10, 10 + rows, dtype=np.uint64),
    }


def equal(a: Imagined, b: Imagined, row: int = 0, other: int = 0) -> bool:
    assert a.frames is not None
    assert b.frames is not None
    same = np.array_equal(a.latents[row], b.latents[other])
    return same and np.array_equal(a.frames[row], b.frames[other])
