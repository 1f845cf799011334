"""Cosmos: noise levels, parametrisation, sampler."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from cosmos_doubles import model
from torch import Tensor

from policies.cosmos import diffusion
from policies.cosmos.config import NoiseConfig, SamplerConfig


def test_golden_grids() -> None:
    five = diffusion.sigma_grid(SamplerConfig(steps=5))
    golden = [80.0, 42.2911, 20.9724, 9.6183, 4.0]
    torch.testing.assert_close(five, torch.tensor(golden).double(), rtol=0, atol=6e-5)
    times = [0.98765, 0.97690, 0.95449, 0.90582, 0.8]
    torch.testing.assert_close(
        diffusion.flow_time(five), torch.tensor(times).double(), rtol=0, atol=6e-6
    )
    ten = diffusion.sigma_grid(SamplerConfig(steps=5), steps=10)
    golden = [80.0, 60.6947, 45.5286, 33.7340, 24.6618, 17.7667, 12.5947, 8.7709, 5.9887, 4.0]
    torch.testing.assert_close(ten, torch.tensor(golden).double(), rtol=0, atol=6e-5)
    assert diffusion.sigma_grid(SamplerConfig(), steps=1).tolist() == [80.0]


def _grid(steps: int, rows: int = 1) -> Tensor:
    return diffusion.sigma_grid(SamplerConfig(), steps=steps)[:, None].expand(-1, rows)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
def test_a_constant_estimate_is_returned_exactly(steps: int) -> None:
    noise, target = torch.randn(2, 1, 1, 2, 2), torch.randn(2, 1, 1, 2, 2).double()
    calls: list[float] = []
    kept: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(float(sigma[0]))
        kept.append(x)
        return target

    assert torch.equal(diffusion.sample(denoise, noise, _grid(steps, 2)), target)
    assert len(calls) == steps  # network evaluations
    assert calls[0] == 80.0
    # with a constant estimate every state is exactly estimate + sigma * noise-like remainder
    ratio = (kept[-1] - target) / (kept[0] - target)
    torch.testing.assert_close(ratio, torch.full_like(ratio, calls[-1] / 80.0))


def test_solver_follows_an_estimate_linear_in_log_noise() -> None:
    """Two-point interpolation in lambda is exact when the estimate is linear in lambda.

    dx/dlambda = x0 - x with x0 = lambda gives x = lambda - 1 + c exp(-lambda). The first
    step is first order, so the exact solution is compared from the second point on.
    """
    sigmas = _grid(5)
    states: list[tuple[float, float]] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        lam = -math.log(float(sigma[0]))
        states.append((lam, float(x)))
        return torch.full_like(x, lam)

    diffusion.sample(denoise, torch.ones(1, 1, 1, 1, 1), sigmas)
    lam, x = states[1]
    c = (x - lam + 1.0) * math.exp(lam)
    for lam, x in states[2:]:
        assert x == pytest.approx(lam - 1.0 + c * math.exp(-lam), rel=1e-12)


def test_first_step_is_exponential_euler() -> None:
    states: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        states.append(float(x))
        return torch.full_like(x, 3.0)

    diffusion.sample(denoise, torch.full((1, 1, 1, 1, 1), 2.0), torch.tensor([[8.0], [2.0]]))
    # x = 16; (8 - 2) / 8 * 3 + 2 / 8 * 16
    assert states == [16.0, 6.25]


def test_unit_velocity_weight() -> None:
    """weight * (x0 estimate - x0)^2 is the squared velocity error of rectified flow."""
    sigma = torch.tensor([0.3, 4.0, 80.0]).double()
    t = diffusion.flow_time(sigma)
    x0, noise, net = torch.randn(3, 3).double()
    x_sigma = x0 + sigma * noise
    estimate = (1 - t) * x_sigma - t * net
    torch.testing.assert_close(
        diffusion.loss_weight(sigma) * (estimate - x0) ** 2, ((noise - x0) - net) ** 2
    )


def test_what_is_carried_goes_past_the_network() -> None:
    """A network that answers nothing: x0 is what noisy data tell of it, at pure noise nothing."""
    sigma = torch.tensor([1.0, 1e6])
    carrying = model()
    torch.nn.init.zeros_(carrying.net.final_layer.linear.weight)
    config = carrying.config
    shape = (2, config.net.channels, len(config.layout.slots), *config.latent_size)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * (1 + sigma).view(
        -1, 1, 1, 1, 1
    )
    clean = torch.zeros(2, shape[2], dtype=torch.bool)
    text = carrying.net.text_key_values(carrying.embed_text(["a", "b"]))
    with torch.no_grad():
        x0 = carrying.estimate(x, sigma, torch.zeros_like(x), clean, text)
    # t = 1/2: half of x is x_t, of whose velocity nothing is known, so x0 is x_t itself
    torch.testing.assert_close(x0[0], x[0] / 2, atol=1e-5, rtol=1e-5)
    assert float(x0[1].abs().max()) < 1e-3


def test_training_noise_is_a_mixture_scaled_by_the_number_of_slots() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([diffusion.draw_sigma(NoiseConfig(), rng, 9) for _ in range(20000)]) / 3.0
    # median of 0.7 logN(ln 4, 1.2) + 0.3 U(1, 85), by bisection of its distribution function
    low, high = 0.1, 85.0
    for _ in range(60):
        mid = (low + high) / 2
        normal = 0.5 * (1 + math.erf((math.log(mid) - math.log(4)) / (1.2 * 2**0.5)))
        uniform = min(max((mid - 1) / 84, 0), 1)
        low, high = (mid, high) if 0.7 * normal + 0.3 * uniform < 0.5 else (low, mid)
    assert np.median(drawn) == pytest.approx(low, rel=0.05)
    assert (drawn > 85).mean() == pytest.approx(0.7 * 0.00545, abs=0.002)


def test_variance_is_varied_by_row_and_stream() -> None:
    config = SamplerConfig(vary_variance=True)
    seeds = np.array([1, 2], np.uint64)
    grids = diffusion.row_grids(config, seeds, streams=(0, 1))
    assert grids.shape == (5, 4)
    assert len(set(grids[0].tolist())) == 4
    assert bool(((grids[0] >= 80) & (grids[0] <= 240)).all())
    assert bool(((grids[-1] >= 0.4) & (grids[-1] <= 4)).all())
    alone = diffusion.row_grids(config, seeds[1:], streams=(1,))
    assert torch.equal(alone[:, 0], grids[:, 3])
