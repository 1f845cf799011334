"""Flow matching with Wan's shifted schedule.

x_s = (1 - s) x + s e, target e - x, network timestep 1000 s. Source: FastWAM repository,
schedulers/scheduler_continuous.py (the paper's text speaks of logit-normal times; its code
draws uniform ones and shifts them).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

TRAIN_STEPS = 1000  # num_train_timesteps


def shifted(u: Tensor, shift: float) -> Tensor:
    """Bend uniform noise levels towards noise: s u / (1 + (s - 1) u)."""
    return shift * u / (1.0 + (shift - 1.0) * u)


@functools.cache
def weight_constants(shift: float) -> tuple[float, float]:
    """Give the least and the mean remaining bell value over the shifted 1000-point grid.

    For shift 5: 0.60653066 (at t = 1000) and 0.18949555.
    """
    u = torch.linspace(1.0, 0.0, TRAIN_STEPS + 1, dtype=torch.float64)[:-1]
    y = _bell(shifted(u, shift) * TRAIN_STEPS)
    least = float(y.min())
    return least, float((y - least).mean())


def _bell(timestep: Tensor) -> Tensor:
    return torch.exp(-2.0 * ((timestep - TRAIN_STEPS / 2) / TRAIN_STEPS) ** 2)


def loss_weight(timestep: Tensor, shift: float) -> Tensor:
    """Weight a sample's loss by its timestep: a bell around 500, zero at 1000.

    Args:
        timestep: [B] in 0..1000.
        shift: Of the schedule.
    """
    least, mean = weight_constants(shift)
    return (_bell(timestep.float()) - least) / (mean + 1e-10)


def add_noise(x: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Mix data [B, ...] with noise at level sigma [B]."""
    s = sigma.to(x.dtype).view(-1, *([1] * (x.ndim - 1)))
    return (1 - s) * x + s * noise


def sampling_schedule(
    steps: int, shift: float, *, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Give timesteps [steps] from 1000 down, and noise-level changes [steps] (negative).

    In bfloat16 both are rounded as in the published evaluation, where the changes of ten
    steps add up to -0.99976 only.
    """
    sigma = shifted(torch.linspace(1.0, 0.0, steps + 1), shift)
    return (sigma[:-1] * TRAIN_STEPS).to(dtype), (sigma[1:] - sigma[:-1]).to(dtype)


def sinusoid(timestep: Tensor, dim: int) -> Tensor:
    """Write timesteps [...] as [..., dim]: cosines, then sines, periods up to 10^4.

    Source: Wan2.2 modules/model.py, `sinusoidal_embedding_1d`.
    """
    half = dim // 2
    rates = torch.exp(
        -math.log(10_000.0) * torch.arange(half, dtype=torch.float64, device=timestep.device) / half
    )
    angles = timestep.double()[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(timestep.dtype)


def uniform_from_normal(z: Tensor) -> Tensor:
    """Turn standard normal draws into uniform ones on (0, 1)."""
    return torch.special.ndtr(z)
