"""Noise levels, parametrisation and sampler of Cosmos Policy.

Noise levels are EDM's sigma; the network is parametrised as rectified flow with
t = sigma / (1 + sigma). The solver is the second-order multistep exponential one that the
code calls "2ab" (RES), on Karras' grid from 80 to 4.

Source: NVlabs/cosmos-policy, _src/predict2 (denoiser scaling "rectified_flow",
`res_sampler`), arXiv 2601.16163 appendix A; Karras et al. 2022 (grid); Zhang et al. 2023,
arXiv 2308.02157 (RES).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.cosmos.config import NoiseConfig, SamplerConfig
from policies.noise import noise_from_seeds

# Past every stream that planning draws latents from
VARIANCE_STREAM = 1 << 48

# x_sigma [R, C, T, h, w] float64, sigma [R] float64 -> x0 estimate [R, C, T, h, w]
Denoiser = Callable[[Tensor, Tensor], Tensor]


def flow_time(sigma: Tensor) -> Tensor:
    """Rectified-flow time t in [0, 1) of a noise level."""
    return sigma / (1.0 + sigma)


def loss_weight(sigma: Tensor) -> Tensor:
    """Weight of the squared x0 error: (1 + sigma)^2 / sigma^2, unit weight on velocity."""
    return (1.0 + sigma) ** 2 / sigma**2


def sigma_grid(config: SamplerConfig, *, steps: int | None = None) -> Tensor:
    """Give the grid of noise levels.

    Args:
        config: Range and exponent.
        steps: Network evaluations N; None takes the config's.

    Returns:
        float64 [N], from sigma_max down to sigma_min; [sigma_max] for one step.
    """
    n = config.steps if steps is None else steps
    if n == 1:
        return torch.tensor([config.sigma_max], dtype=torch.float64)
    at = torch.arange(n, dtype=torch.float64) / (n - 1)
    high, low = config.sigma_max ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
    return (high + at * (low - high)) ** config.rho


def row_grids(
    config: SamplerConfig,
    seeds: NDArray[np.uint64],
    *,
    steps: int | None = None,
    streams: Sequence[int] = (0,),
) -> Tensor:
    """Give one grid per (seed, stream), [N, R] float64; equal without `vary_variance`."""
    if not config.vary_variance:
        return sigma_grid(config, steps=steps)[:, None].expand(-1, len(seeds) * len(streams))
    # uniform draws as the normal distribution's own quantiles, so that they too come from
    # the rows' seeds alone
    drawn = [noise_from_seeds(seeds, (2,), stream=VARIANCE_STREAM + s) for s in streams]
    normal = torch.stack(drawn, dim=1).flatten(0, 1).to(torch.float64)
    uniform = 0.5 * (1.0 + torch.erf(normal / 2.0**0.5))
    columns: list[Tensor] = []
    for high, low in uniform.tolist():
        own = dataclasses.replace(
            config,
            sigma_max=config.sigma_max * (1.0 + 2.0 * high),
            sigma_min=config.sigma_min * (0.1 + 0.9 * low),
        )
        columns.append(sigma_grid(own, steps=steps))
    return torch.stack(columns, dim=1)


def _phi1(z: Tensor) -> Tensor:
    return torch.expm1(z) / z


def _phi2(z: Tensor) -> Tensor:
    return (_phi1(z) - 1.0) / z


def sample(denoise: Denoiser, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Denoise from pure noise.

    N - 1 solver steps between the N grid points and one last estimate at the lowest noise
    level, which is returned: N network evaluations in all.

    Args:
        denoise: Gives the x0 estimate.
        noise: Standard normal [R, C, T, h, w].
        sigmas: float64 [N, R].

    Returns:
        float64 [R, C, T, h, w].
    """
    axes = (1,) * (noise.ndim - 1)
    levels = sigmas.to(noise.device).view(sigmas.shape[0], -1, *axes)
    x = noise.to(torch.float64) * levels[0]
    before: tuple[Tensor, Tensor] | None = None  # (lambda, x0) of the point before
    for i in range(len(levels) - 1):
        clean = denoise(x, sigmas[i]).to(torch.float64)
        now, then = -torch.log(levels[i]), -torch.log(levels[i + 1])
        dt = then - now
        if before is None:
            ratio = levels[i + 1] / levels[i]
            x = (1.0 - ratio) * clean + ratio * x
        else:
            c2 = (before[0] - now) / dt
            b2 = _phi2(-dt) / c2
            b1 = _phi1(-dt) - b2
            x = torch.exp(-dt) * x + dt * (b1 * clean + b2 * before[1])
        before = (now, clean)
    return denoise(x, sigmas[-1]).to(torch.float64)


def draw_sigma(config: NoiseConfig, draw: np.random.Generator, slots: int) -> float:
    """Draw a training sample's noise level, shared by all its frames.

    Args:
        config: Mixture of log-normal and uniform.
        draw: The sample's own generator.
        slots: Number of latent frames; the level grows with its square root
            (`adjust_video_noise`).
    """
    if draw.uniform() < config.log_normal_share:
        sigma = float(np.exp(draw.normal(config.log_mean, config.log_std)))
    else:
        sigma = float(draw.uniform(config.uniform_low, config.uniform_high))
    return sigma * slots**0.5
