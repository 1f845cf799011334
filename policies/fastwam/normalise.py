"""Actions and proprioception to unit size and back.

Source: FastWAM repository, datasets/lerobot/utils/normalizer.py and FAMILIES' B.8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from policies.checkpoint import Statistics
from policies.fastwam.config import Scaling

LIMIT = 5.0  # normalised values are clamped to +-5
CONSTANT = 1e-4  # a channel of a smaller range is only shifted
SPREAD = 1e-8  # added to standard deviations


class Normaliser:
    """An affine map per channel.

    Args:
        scaling: How.
        statistics: Of the data set.
        what: "action" or "proprio".
        dim: Channels.

    Raises:
        CheckpointMismatch: The statistics lack something or have another number of channels.
    """

    def __init__(self, scaling: Scaling, statistics: Statistics, what: str, dim: int) -> None:
        if scaling is Scaling.MIN_MAX:
            low, high = (statistics.get(what, k, dim) for k in ("min", "max"))
            constant = (high - low) < CONSTANT
            self.scale = torch.where(constant, 1.0, 2.0 / (high - low).clamp_min(CONSTANT))
            self.offset = torch.where(constant, -low, -1.0 - low * self.scale)
        else:
            mean, std = (statistics.get(what, k, dim) for k in ("mean", "std"))
            self.scale = 1.0 / (std + SPREAD)
            self.offset = -mean * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., dim] and clamp."""
        x = x.float()
        y = x * self.scale.to(x.device) + self.offset.to(x.device)
        return y.clamp(-LIMIT, LIMIT)

    def backward(self, y: Tensor) -> Tensor:
        """Undo `forward`, float32."""
        y = y.float()
        return (y - self.offset.to(y.device)) / self.scale.to(y.device)
