"""Slow: every variant learns one batch; what the cache saves."""

from __future__ import annotations

import pytest
import torch
from smolvla_world_doubles import batch_of, fresh, observation, open_gates

from policies.batch import check_finite
from policies.smolvla_world.presets import VARIANTS

STEPS, RATE = 200, 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_two_hundred_steps_halve_every_term(variant: str) -> None:
    """One fixed batch with fixed noise; AdamW as LeRobot's, but for the rate."""
    model = fresh(variant).model.train()
    batch = batch_of(model.batch_spec)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=1e-10)
    start = {k: v.item() for k, v in model.loss(batch).items()}
    for _ in range(STEPS):
        terms = model.loss(batch)
        check_finite(terms)
        optimiser.zero_grad()
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(trained, 10.0)
        optimiser.step()
    end = {k: v.item() for k, v in model.loss(batch).items()}
    print(variant, {k: f"{start[k]:.3f} -> {end[k]:.4f}" for k in start})
    for name, value in end.items():
        assert value < start[name] / 2, name


@pytest.mark.slow
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_what_the_prefix_cache_saves(variant: str) -> None:
    seconds: dict[bool, float] = {}
    for cache in (True, False):
        policy = fresh(variant, cache=cache, steps=10)
        open_gates(policy.model)
        obs = observation(policy.card, 4)
        policy.act(obs)
        for _ in range(5):
            timings = policy.act(obs).timings
            seconds[cache] = seconds.get(cache, 0.0) + timings["prefix"] + timings["denoise"]
    print(f"{variant}: uncached / cached = {seconds[False] / seconds[True]:.2f}")
    assert seconds[True] < seconds[False]
