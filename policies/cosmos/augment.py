"""Training-time picture augmentation, with one draw for all pictures of a sample.

Random crop of 90 percent of the area, rotation within 5 degrees, brightness 0.7-1.3,
contrast 0.6-1.4, saturation 0.5-1.5, hue within 0.05 of a turn.

Source: NVlabs/cosmos-policy, datasets/dataset_utils.py. The order and the interpolation are
torchvision's as far as documented; torchvision itself is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CROP_AREA = 0.9
DEGREES = 5.0
BRIGHTNESS, CONTRAST, SATURATION = (0.7, 1.3), (0.6, 1.4), (0.5, 1.5)
HUE = 0.05
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as torchvision's grayscale


def augment(pictures: Tensor, draws: Sequence[np.random.Generator]) -> Tensor:
    """Augment samples.

    Args:
        pictures: uint8 [B, n, H, W, 3].
        draws: One generator per sample.

    Returns:
        uint8 [B, n, H, W, 3].
    """
    return torch.stack([_one(own, draw) for own, draw in zip(pictures, draws, strict=True)])


def _one(pictures: Tensor, draw: np.random.Generator) -> Tensor:
    side = math.sqrt(CROP_AREA)
    room = 1.0 - side  # the crop's centre moves within this, in half widths
    shift_x, shift_y = draw.uniform(-room, room), draw.uniform(-room, room)
    angle = math.radians(draw.uniform(-DEGREES, DEGREES))
    cos, sin = math.cos(angle), math.sin(angle)
    x = pictures.permute(0, 3, 1, 2).float() / 255.0
    # crop and turn in one sampling: a target point is scaled, shifted, then turned
    turn = torch.tensor([[cos, -sin], [sin, cos]])
    theta = torch.cat(
        (turn * side, turn @ torch.tensor([[shift_x], [shift_y]], dtype=torch.float32)), dim=1
    )
    grid = F.affine_grid(theta.expand(len(x), -1, -1), list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    x = (x * draw.uniform(*BRIGHTNESS)).clamp(0.0, 1.0)
    contrast = draw.uniform(*CONTRAST)
    x = _blend(x, _luma(x).mean(dim=(1, 2, 3), keepdim=True), contrast)
    x = _blend(x, _luma(x), draw.uniform(*SATURATION))
    x = turn_hue(x, draw.uniform(-HUE, HUE))
    return (x * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1)


def _luma(x: Tensor) -> Tensor:
    return (x * torch.tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def _blend(x: Tensor, other: Tensor, amount: float) -> Tensor:
    return (amount * x + (1.0 - amount) * other).clamp(0.0, 1.0)


def turn_hue(x: Tensor, turns: float) -> Tensor:
    """Shift the hue of RGB pictures [n, 3, H, W] in [0, 1] by a share of the colour circle."""
    top, low = x.amax(1), x.amin(1)
    chroma = top - low
    safe = torch.where(chroma == 0, torch.ones_like(chroma), chroma)
    r, g, b = x.unbind(1)
    hue = torch.where(
        top == r,
        ((g - b) / safe) % 6.0,
        torch.where(top == g, (b - r) / safe + 2.0, (r - g) / safe + 4.0),
    )
    hue = (hue + 6.0 * turns) % 6.0
    # k-th channel of HSV: value - chroma * clamp(min(k, 4 - k), 0, 1), k = (n + hue) mod 6
    channels = []
    for n in (5.0, 3.0, 1.0):
        k = (n + hue) % 6.0
        channels.append(top - chroma * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0))
    return torch.stack(channels, dim=1).clamp(0.0, 1.0)
