"""Noise: what of a velocity follows from noisy data alone."""

from __future__ import annotations

import pytest
import torch

from policies.noise import carried


def test_what_is_carried_is_the_best_linear_guess() -> None:
    """No other multiple of the noisy data comes closer to the velocity, the data being unit."""
    clean, noise = torch.randn(2, 50_000, generator=torch.Generator().manual_seed(0))
    for level, share in ((1.0, 1.0), (0.8, 0.6 / 0.68), (0.5, 0.0), (0.0, -1.0)):
        noisy, velocity = (1 - level) * clean + level * noise, noise - clean
        best = float((velocity * noisy).mean() / noisy.square().mean())
        assert best == pytest.approx(share, abs=0.02)
        assert float(carried(torch.ones(1), torch.tensor(level))) == pytest.approx(share, abs=1e-6)


def test_levels_are_broadcast() -> None:
    noisy = torch.ones(2, 3, 4)
    out = carried(noisy, torch.tensor([1.0, 0.0])[:, None, None])
    assert out.shape == noisy.shape
    assert out[0].eq(1).all()
    assert out[1].eq(-1).all()
