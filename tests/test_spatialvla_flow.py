"""Loss, integration and training of the flow, against hand-computed numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from spatialvla_doubles import batch, model

from policies.checkpoint import Statistics
from policies.noise import noise_from_seeds
from policies.spatialvla.config import (
    DEEP,
    LATE_GEMMA,
    VARIANTS,
    TimeLaw,
)
from policies.spatialvla.expert import embed_time
from policies.spatialvla.inputs import draw_flow, from_batch
from policies.spatialvla.model import untrained
from policies.spatialvla.presets import preset


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_term_by_term(variant: str) -> None:
    """x_t = t eps + (1 - t) a, target eps - a, plain mean; each sample and noise alone."""
    made, many = model(variant), 3
    made.reconfigure(dataclasses.replace(made.config, flow_draws=many))
    mean, std = torch.linspace(-1, 1, 7), torch.linspace(0.5, 2, 7)
    tables = {"action": {"mean": mean, "std": std}, **Statistics.identity({"proprio": 8}).values}
    made.set_statistics(Statistics(tables))
    data = batch(2)
    assert data.seed is not None
    losses = made.loss(data)
    assert set(losses) == {"flow", "total"}
    seeds = data.seed.numpy().astype(np.uint64)
    errors: list[float] = []
    inputs = from_batch(data, made.config, made.tokenizer, made.device)
    prefix = made.prefix(inputs, cache=False)  # training keeps the prefix's keys and values
    a = (data.actions - mean) / (std + 1e-8)
    for draw in range(many):
        eps = noise_from_seeds(seeds, (many, 8, 7))[:, draw]
        z = noise_from_seeds(seeds, (many,), stream=2)[:, draw]
        t = torch.tensor([0.5 * (1 + math.erf(float(v) / math.sqrt(2))) for v in z])
        x = torch.stack([t[i] * eps[i] + (1 - t[i]) * a[i] for i in range(2)])
        velocity = made.velocity(x, t, prefix).detach()
        for i in range(2):
            for h in range(8):
                for c in range(7):
                    errors.append(float((velocity[i, h, c] - (eps[i, h, c] - a[i, h, c])) ** 2))
    assert losses["flow"].item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert losses["total"].item() == losses["flow"].item()


def test_euler_recovers_the_actions_of_a_perfect_velocity(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model(LATE_GEMMA)
    target, times = torch.randn(2, 8, 7), []

    def perfect(x: torch.Tensor, time: torch.Tensor, prefix: Any) -> torch.Tensor:
        times.append(round(time[0].item(), 6))
        return (x - target) / time[:, None, None]

    monkeypatch.setattr(made, "velocity", perfect)
    mean, std = torch.full((7,), 0.5), torch.full((7,), 3.0)
    made.set_statistics(Statistics({"action": {"mean": mean, "std": std}}))
    prefix: Any = None
    out = made.denoise(prefix, torch.randn(2, 8, 7), steps=10)
    assert times == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    torch.testing.assert_close(out, target * 3.0 + 0.5, rtol=0, atol=1e-5)


def test_time_embedding_by_hand() -> None:
    # width 4: periods 4e-3 and 4; t = 0.5: 125 turns -> (sin, cos) = (0, 1); 1/8 turn.
    wave = embed_time(torch.tensor([0.5]), 4)[0].tolist()
    half = math.sqrt(0.5)
    assert wave == pytest.approx([0.0, half, 1.0, half], abs=1e-6)


def test_laws_of_time() -> None:
    _, uniform = draw_flow(np.arange(4000, dtype=np.uint64), 4000, (1,))
    beta = model(LATE_GEMMA, time_law=TimeLaw.BETA).training_time(uniform)
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.02)
    # Beta(1.5, 1) has mean 1.5 / 2.5 = 0.6
    assert beta.mean().item() == pytest.approx(0.6 * 0.999 + 0.001, abs=0.02)
    assert beta.min() >= 0.001
    assert beta.max() <= 1.0
    assert torch.equal(model(LATE_GEMMA).training_time(uniform), uniform)


def test_batch_spec_asks_for_what_the_loss_takes() -> None:
    late, deep = model(LATE_GEMMA).batch_spec, model(DEEP).batch_spec
    assert (late.image_size, late.frame_offsets, late.horizon) == ((64, 64), (0,), 8)
    assert (late.depth, late.proprio) == (True, None)
    assert deep.proprio is not None
    free = model(LATE_GEMMA).loss(batch(seeds=False))
    assert bool(torch.isfinite(free["total"]))


# --------------------------------------------------------------------------- training


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed noise", "fresh noise"])
def test_two_hundred_steps(variant: str, fixed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    made = untrained(preset(variant, "tiny"), 0)
    torch.manual_seed(0)
    data = batch(4, seeds=fixed)
    flat = data.actions.flatten(0, 1)
    identity = Statistics.identity({"action": 7, "proprio": 8}).values
    table = {"mean": flat.mean(0), "std": flat.std(0)}
    made.set_statistics(Statistics({**identity, "action": table}))
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-3)
    history: list[float] = []
    for _ in range(200):
        losses = made.loss(data)
        optimiser.zero_grad()
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimiser.step()
        history.append(losses["flow"].item())
    first, last = sum(history[:5]) / 5, sum(history[-5:]) / 5
    with capsys.disabled():
        print(f"\n{variant}, {'fixed' if fixed else 'fresh'} noise: {first:.4f} -> {last:.4f}")
    assert last < 0.5 * first
