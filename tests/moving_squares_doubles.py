"""What the tests of four families' training share: moving squares, steps on one batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.checkpoint import WEIGHTS, Statistics

torch.set_num_threads(1)


class Learner(Protocol):
    """What `steps_down` steps."""

    def parameters(self) -> Iterable[nn.Parameter]: ...

    def loss(self, batch: Batch) -> dict[str, Tensor]: ...


def moving_squares(spec: BatchSpec, size: int = 8, *, seed: int = 0) -> Batch:
    """Bright squares that drift over a grey ground; proprioception and actions say how."""
    rng = np.random.default_rng(seed)
    times, (height, width) = len(spec.frame_offsets), spec.image_size
    start, pace = rng.uniform(0.3, 0.7, (size, 2)), rng.uniform(-0.02, 0.02, (size, 2))
    places = start[:, None] + np.array(spec.frame_offsets)[None, :, None] * pace[:, None]
    y, x = (np.arange(n) / n for n in (height, width))
    near_y = np.abs(y - places[..., :1]) < 0.15
    near_x = np.abs(x - places[..., 1:]) < 0.15
    inside = near_y[..., :, None] & near_x[..., None, :]
    colour = rng.integers(150, 255, (size, 1, 1, 1, 3))
    frames = np.where(inside[..., None], colour, 70).astype(np.uint8)
    proprio = None
    if spec.proprio is not None:
        proprio = np.zeros((size, times, spec.proprio.dim), np.float32)
        proprio[..., :2] = places
    actions = np.zeros((size, spec.horizon, spec.action.dim), np.float32)
    actions[..., :2] = 30.0 * pace[:, None]
    geometry: dict[str, Any] = {}
    if spec.depth:
        pinhole, pose = torch.eye(3), torch.eye(4)
        pinhole[0, 0] = pinhole[1, 1] = width
        pinhole[0, 2], pinhole[1, 2] = width / 2, height / 2
        geometry = {
            "depth": {c: torch.ones(size, times, height, width) for c in spec.cameras},
            "intrinsics": {c: pinhole.expand(size, 3, 3) for c in spec.cameras},
            "extrinsics": {c: pose.expand(size, times, 4, 4) for c in spec.cameras},
        }
    return Batch(
        frames={c: torch.from_numpy(frames) for c in spec.cameras},
        frame_offsets=spec.frame_offsets,
        frame_valid=torch.ones(size, times, dtype=torch.bool),
        proprio=None if proprio is None else torch.from_numpy(proprio),
        actions=torch.from_numpy(actions),
        action_valid=torch.ones(size, spec.horizon, dtype=torch.bool),
        instruction=[("push the square", "push it on")[i % 2] for i in range(size)],
        success=torch.ones(size, dtype=torch.bool),
        steps_left=torch.full((size,), 30),
        episode=torch.arange(size) // 4,
        step=torch.arange(size) % 4,
        seed=torch.arange(size) + 100 * seed,
        **geometry,
    )


def steps_down(learner: Learner, batch: Batch, steps: int, *, lr: float = 2e-3) -> list[float]:
    """Take optimizer steps on one batch; "total" before each of them."""
    parameters = list(learner.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(parameters, lr=lr)
    seen: list[float] = []
    for _ in range(steps):
        total = learner.loss(batch)["total"]
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        getattr(learner, "after_step", lambda: None)()
        seen.append(float(total.detach()))
    return seen


def statistics(spec: BatchSpec) -> Statistics:
    """What `policies.training.statistics` gives: six numbers a channel, none of them trivial."""
    dims = {"action": spec.action.dim} | ({"proprio": spec.proprio.dim} if spec.proprio else {})
    kinds = {"min": -2.0, "max": 3.0, "mean": 0.1, "std": 0.7, "q01": -1.5, "q99": 2.5}
    return Statistics(
        {w: {k: torch.linspace(v, v + 0.2, n) for k, v in kinds.items()} for w, n in dims.items()}
    )


def with_features(model: Any, batch: Batch) -> Batch:
    """The batch as the feature cache hands it out; without the pictures that are not needed."""
    with torch.no_grad():
        found = model.frozen_features(batch)
    assert found
    assert all(len(rows) == batch.size for rows in found.values())
    return dataclasses.replace(batch, features=found)


def losses(model: Any, batch: Batch) -> dict[str, float]:
    """Loss terms as numbers."""
    with torch.no_grad():
        return {name: float(value) for name, value in model.loss(batch).items()}


def assert_features_suffice(model: Any, batch: Batch, *, rel: float) -> None:
    """With features the losses stay, and the pictures are looked at no more."""
    cached = with_features(model, batch)
    assert losses(model, cached) == pytest.approx(losses(model, batch), rel=rel)
    blind = dataclasses.replace(
        cached, frames={c: torch.zeros_like(f) for c, f in batch.frames.items()}
    )
    assert losses(model, blind) == losses(model, cached)


def saved(model: Any, folder: Path) -> Path:
    """Save a model; the folder."""
    model.save_pretrained(folder)
    assert load_file(folder / WEIGHTS)
    return folder


class OneBatch:
    """A sampler that knows one batch; seeds are a function of the step."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def numbers(self, step: int) -> Any:
        return np.arange(self._batch.size)

    def batch(self, step: int) -> Batch:
        assert self._batch.seed is not None
        return dataclasses.replace(self._batch, seed=self._batch.seed + 1000 * step)
