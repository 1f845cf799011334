"""Sampling noise from an observation's seeds, row by row."""

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
