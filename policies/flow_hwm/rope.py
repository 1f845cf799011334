"""Rotary position embeddings of Flow-HWM: 3-D for video, 1-D for actions.

Source: humanoid_world_model, Flow-HWM/models/common_blocks.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

THETA = 1e4  # code, both modalities


def video_angles(grid: tuple[int, int, int], head_dim: int) -> Tensor:
    """Give the angles of a video's patches, in the order t, h, w.

    Channels are shared out h = w = 2 floor(d / 6), t the rest, and laid out for half
    rotation: channel c turns with channel c + d / 2.

    Args:
        grid: Patches along (t, h, w); past and future together.
        head_dim: d, even.

    Returns:
        float32 [t h w, d / 2], radians.
    """
    space = 2 * (head_dim // 6)
    parts = (head_dim - 2 * space, space, space)
    positions = torch.meshgrid(*(torch.arange(n).float() for n in grid), indexing="ij")
    angles = [
        place.reshape(-1, 1) * THETA ** (-torch.arange(0, width, 2).float() / width)
        for place, width in zip(positions, parts, strict=True)
    ]
    return torch.cat(angles, dim=-1)


def action_angles(length: int, head_dim: int) -> Tensor:
    """Give the angles of actions at positions 0..length-1, float32 [length, d / 2]."""
    rates = THETA ** (-torch.arange(0, head_dim, 2).float() / head_dim)
    return torch.arange(length).float()[:, None] * rates


def rotate_halves(x: Tensor, angles: Tensor) -> Tensor:
    """Turn video queries or keys.

    Args:
        x: [B, heads, N, d].
        angles: [N, d / 2].
    """
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    low, high = x.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1)


def rotate_pairs(x: Tensor, angles: Tensor, *, official: bool = False) -> Tensor:
    """Turn action queries or keys; channel 2c turns with channel 2c + 1.

    Args:
        x: [B, heads, N, d].
        angles: [N, d / 2].
        official: Use the turned even channels for the odd ones, as the official code does by
            writing in place: not a rotation.
    """
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = even * cos - odd * sin
    other = odd * cos + (turned if official else even) * sin
    return torch.stack([turned, other], dim=-1).flatten(-2)
