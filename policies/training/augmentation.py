"""Random shifts: the one augmentation that keeps what a robot sees true.

Kostrikov et al. 2020 (arXiv:2004.13649), section 3: pictures moved by a few pixels, edges
repeated. Without it a small policy learns its few hundred demonstrations' pixels by heart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SHIFT = 3  # what a draw is for, beside `policies.training.sampling`'s


def offsets(seeds: Sequence[int], cameras: int, pixels: int) -> torch.Tensor:
    """Draw (down, right) for every sample and camera, int64 [B, cameras, 2] in -pixels..pixels."""
    drawn = [
        np.random.Generator(np.random.PCG64([int(seed), SHIFT])).integers(
            -pixels, pixels + 1, (cameras, 2)
        )
        for seed in seeds
    ]
    return torch.from_numpy(np.array(drawn, np.int64))


def shifted(pictures: Tensor, by: Tensor) -> Tensor:
    """Move each sample's pictures; all times of a sample alike.

    Args:
        pictures: [B, T, H, W] or [B, T, H, W, C].
        by: int64 [B, 2]; pixel (y, x) of the result shows (y + down, x + right), or the
            nearest pixel that there is.
    """
    height, width = pictures.shape[2:4]
    down, right = by[:, 0, None], by[:, 1, None]
    rows = (torch.arange(height) + down).clamp(0, height - 1)
    columns = (torch.arange(width) + right).clamp(0, width - 1)
    which = torch.arange(len(pictures))
    return pictures.movedim(1, 3)[
        which[:, None, None], rows[:, :, None], columns[:, None, :]
    ].movedim(3, 1)


def moved_centre(intrinsics: Tensor, by: Tensor) -> Tensor:
    """Intrinsics [B, 3, 3] of cameras whose pictures were `shifted`."""
    moved = intrinsics.clone()
    moved[:, 0, 2] -= by[:, 1]
    moved[:, 1, 2] -= by[:, 0]
    return moved
