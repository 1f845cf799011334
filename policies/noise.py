"""Noise: drawn from an observation's seeds, row by row; and what of it goes past a network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


def noise_from_seeds(
    seeds: NDArray[np.uint64],
    shape: Sequence[int],
    *,
    stream: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Draw standard normal noise, one independent stream per row.

    A row's noise depends on its own seed alone: not on the batch, the row's place in it or
    the device.

    Args:
        seeds: uint64 [B], `Observation.seed`.
        shape: Shape of one row.
        stream: Which of several draws within one query (proposal number, denoised part).
        device, dtype: Of the result; drawing is float32 on the CPU.

    Returns:
        [B, *shape].
    """
    rows = [
        np.random.Generator(np.random.PCG64([int(seed), stream])).standard_normal(
            tuple(shape), np.float32
        )
        for seed in seeds
    ]
    return torch.from_numpy(np.stack(rows)).to(device=device, dtype=dtype)


def carried(noisy: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Give what of a flow's velocity follows from noisy data alone, the data's spread being 1.

    With x_s = (1 - s) x + s e and the velocity e - x, the best linear guess is
    (2 s - 1) / ((1 - s)^2 + s^2) of x_s; at pure noise all of it. A network to whose output it
    is added tells the rest. One narrower than its tokens' numbers cannot carry their noise
    through, and what it fails to carry drowns what it knows (DECISIONS 58). Source of the idea:
    Karras et al. 2022 (arXiv:2206.00364), c_skip.

    Args:
        noisy: x_s, [...].
        level: s in 0..1, to be broadcast.

    Returns:
        As `noisy`.
    """
    return noisy * (2.0 * level - 1.0) / ((1.0 - level).square() + level.square())
