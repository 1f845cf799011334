"""Masks, rotary positions and attention of SmolVLA.

Axes: B rows, L tokens, h heads, d channels of a head. Source: FAMILIES C.0 and D.1;
LeRobot policies/smolvla/{modeling_smolvla,smolvlm_with_expert}.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """One stream's tokens.

    Attributes:
        embeddings: [B, L, width].
        valid: bool [B, L]; False for padding.
        starts: bool [L]; True where a token begins a new attention block.
    """

    embeddings: Tensor
    valid: Tensor
    starts: Tensor

    @property
    def length(self) -> int:
        """Number of tokens."""
        return int(self.embeddings.shape[1])

    @classmethod
    def of(cls, embeddings: Tensor, *, first: bool, rest: bool) -> Tokens:
        """Make valid tokens whose first one, or all others, begin a block."""
        batch, length = embeddings.shape[:2]
        starts = torch.full((length,), rest, dtype=torch.bool, device=embeddings.device)
        starts[0] = first
        return cls(embeddings, starts.new_ones(batch, length), starts)

    @classmethod
    def join(cls, *parts: Tokens) -> Tokens:
        """Put parts one after another."""
        return cls(
            torch.cat([p.embeddings for p in parts], dim=1),
            torch.cat([p.valid for p in parts], dim=1),
            torch.cat([p.starts for p in parts]),
        )


def block_mask(valid: Tensor, starts: Tensor) -> Tensor:
    """Who may look at whom: token i at j iff j's block is not later and both are valid.

    Args:
        valid: bool [B, L].
        starts: bool [L].

    Returns:
        bool [B, L, L].
    """
    block = starts.long().cumsum(0)
    allowed = block[None, :] <= block[:, None]
    return allowed[None] & valid[:, None, :] & valid[:, :, None]


def positions(valid: Tensor) -> Tensor:
    """Positions that skip padding, int64 [B, L]."""
    return valid.long().cumsum(1) - 1


def rotate(x: Tensor, position: Tensor, base: float) -> Tensor:
    """Apply rotary positions, halves of a head paired.

    Args:
        x: [B, L, h, d].
        position: [B, L].
        base: Longest wavelength over 2 pi.
    """
    half = x.shape[-1] // 2
    exponent = torch.arange(half, dtype=torch.float32, device=x.device) / half
    angle = (position[..., None].float() / base**exponent)[..., None, :]
    sin, cos = angle.sin(), angle.cos()
    a, b = x.float().split(half, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Grouped-query attention, weights in float32.

    A query that may look nowhere averages all values instead of giving NaN; only padding
    tokens are such queries, and nobody looks at them.

    Args:
        query: [B, Lq, h, d].
        key, value: [B, Lk, h / groups, d].
        mask: bool [B, Lq, Lk].

    Returns:
        [B, Lq, h * d].
    """
    groups = query.shape[2] // key.shape[2]
    q = query.float().transpose(1, 2)
    k = key.float().repeat_interleave(groups, dim=2).transpose(1, 2)
    v = value.repeat_interleave(groups, dim=2).transpose(1, 2)
    scores = q @ k.transpose(2, 3) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


def time_embedding(time: Tensor, dim: int, min_period: float, max_period: float) -> Tensor:
    """Sinusoids of a scalar: [sin, cos] of 2 pi t / period, periods in geometric steps.

    Args:
        time: [B].
        dim: Even.
        min_period, max_period: Shortest and longest period.

    Returns:
        float32 [B, dim].
    """
    share = torch.linspace(0.0, 1.0, dim // 2, dtype=torch.float64, device=time.device)
    period = min_period * (max_period / min_period) ** share
    angle = 2 * math.pi * time.double()[:, None] / period
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()
