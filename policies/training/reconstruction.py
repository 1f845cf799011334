"""How small picture and video tokenizers learn, and how good they are."""

from __future__ import annotations

import torch
from torch import Tensor

# In a robot's video most pixels stay; what moves, and where it stands out, is what matters.
# Chosen by eye on tabletop frames: without it small things vanish.
DETAIL_WEIGHT = 4.0


def weighted_error(found: Tensor, real: Tensor) -> Tensor:
    """Mean absolute error, heavier where a pixel differs from its clip's mean picture.

    Args:
        found, real: [B, 3, T, H, W] in -1..1.

    Returns:
        A scalar: mean of |found - real| (1 + DETAIL_WEIGHT d), where d in 0..1 is how far
        the real pixel lies from the mean over the batch, capped.
    """
    typical = real.mean(dim=(0, 2), keepdim=True)
    detail = (real - typical).abs().mean(dim=1, keepdim=True).clamp_max(1.0)
    return ((found - real).abs() * (1.0 + DETAIL_WEIGHT * detail)).mean()


class Quality:
    """Reconstruction quality, pooled over many clips."""

    def __init__(self) -> None:
        self._squares, self._count = 0.0, 0

    def add(self, found: Tensor, real: Tensor) -> None:
        """Add clips, both in 0..255, of equal shape."""
        error = found.double() - real.double()
        self._squares += float(error.square().sum())
        self._count += error.numel()

    def numbers(self) -> dict[str, float]:
        """Give "psnr_db": 10 log10(255^2 / mean squared error)."""
        mean = torch.tensor(self._squares / max(self._count, 1))
        return {"psnr_db": float(10.0 * torch.log10(255.0**2 / mean))}
