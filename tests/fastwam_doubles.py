"""Small inputs for Fast-WAM's tests: observations, batches, statistics."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from policies.batch import Batch
from policies.fastwam.config import FastWamConfig
from policies.fastwam.model import FastWam
from policies.fastwam.presets import preset_config
from wamsim.contracts import Observation

torch.set_num_threads(1)

TASKS = ("put the bowl on the plate", "open the top drawer", "turn on the stove", "close it")


def tiny(variant: str = "fastwam", **changes: object) -> FastWamConfig:
    """Give the tiny preset, with some fields changed."""
    return dataclasses.replace(preset_config("tiny", variant), **changes)  # type: ignore[arg-type]


def drawn(variant: str = "fastwam", **changes: object) -> FastWam:
    """Give a tiny model."""
    return FastWam.drawn(tiny(variant, **changes), seed=3).eval()


def pictures(rng: np.random.Generator, *lead: int, size: tuple[int, int] = (64, 64)) -> np.ndarray:
    """Blocky random pictures uint8 [*lead, H, W, 3]."""
    coarse = rng.integers(0, 256, (*lead, size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=-3).repeat(8, axis=-2)


def observation(batch: int = 3, *, imagine: bool = False, seed: int = 0, **changes: object):
    """Give an observation for the tiny preset; the last row is padding."""
    rng = np.random.default_rng(seed)
    valid = np.ones(batch, bool)
    frames = {c: pictures(rng, batch, 1) for c in ("agentview", "eye_in_hand")}
    proprio = rng.normal(size=(batch, 1, 8)).astype(np.float32)
    instruction = [TASKS[i % len(TASKS)] for i in range(batch)]
    if batch > 1:
        valid[-1] = False
        instruction[-1] = ""
        proprio[-1] = 0
        for view in frames.values():
            view[-1] = 0
    fields = {
        "frames": frames,
        "instruction": instruction,
        "seed": np.arange(11, 11 + batch, dtype=np.uint64),
        "step": np.zeros(batch, np.int64),
        "slot": np.arange(batch),
        "first": np.ones(batch, bool),
        "valid": valid,
        "memory": [None] * batch,
        "proprio": proprio,
        "imagine": imagine,
    }
    return Observation(**{**fields, **changes})  # type: ignore[arg-type]


def training_batch(config: FastWamConfig, size: int = 4, *, seeded: bool = True) -> Batch:
    """Give a batch of drifting pictures and smooth actions that fits `batch_spec`."""
    rng = np.random.default_rng(5)
    frames: dict[str, torch.Tensor] = {}
    offsets = config.frame_offsets
    for camera in config.cameras:
        still = pictures(rng, size, size=config.render_size)
        moving = [np.roll(still, 4 * t, axis=2) for t in range(len(offsets))]
        frames[camera] = torch.from_numpy(np.stack(moving, axis=1))
    phase = torch.arange(config.horizon) * 0.4
    actions = 0.7 * torch.sin(
        phase[None, :, None] + torch.from_numpy(rng.uniform(0, 6, (size, 1, 7)))
    )
    actions[..., -1] = actions[..., -1].sign()
    count = len(offsets)
    return Batch(
        frames=frames,
        frame_offsets=offsets,
        frame_valid=torch.ones(size, count, dtype=torch.bool),
        proprio=torch.from_numpy(rng.normal(size=(size, count, 8)).astype(np.float32)),
        actions=actions.float(),
        action_valid=torch.ones(size, config.horizon, dtype=torch.bool),
        instruction=[TASKS[i % len(TASKS)] for i in range(size)],
        success=torch.ones(size, dtype=torch.bool),
        steps_left=torch.full((size,), 50),
        episode=torch.arange(size),
        step=torch.zeros(size, dtype=torch.long),
        seed=torch.arange(size) + 100 if seeded else None,
    )


def inputs(model: FastWam, batch: int = 2):
    """Random arguments of `FastWam.velocities`: latents, actions, times, context."""
    torch.manual_seed(0)
    config = model.config
    channels, height, width = config.latent_shape
    latents = torch.randn(batch, channels, 1 + config.future, height, width)
    actions = torch.randn(batch, config.horizon, config.action_dim)
    times = torch.full((batch,), 600.0), torch.full((batch,), 300.0)
    tokens = torch.randn(batch, config.text.length + 1, config.text.dim)
    return latents, actions, times, model.context(tokens)
