"""One block of a Wan diffusion transformer, cut where two experts share attention.

Parameter names are those of Wan's and FastWAM's published weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from policies.fastwam.config import ExpertConfig

ROPE_BASE = 10_000.0  # Wan2.2 modules/model.py, rope_params

# (keys, values), each [B, S, width], normed and rotated: what attention reads.
KeyValue = tuple[Tensor, Tensor]


def rope_rates(dim: int, device: torch.device | str) -> Tensor:
    """Rotation rates of `dim` channels, [dim / 2], float64."""
    return ROPE_BASE ** (-torch.arange(0, dim, 2, dtype=torch.float64, device=device) / dim)


def rotate(x: Tensor, angles: Tensor, heads: int) -> Tensor:
    """Rotate channel pairs (2 i, 2 i + 1) of every head.

    Args:
        x: [B, S, width].
        angles: [S, head_dim / 2], radians, float64; Wan rotates in double precision.
        heads: Number of heads.
    """
    pairs = x.double().unflatten(-1, (heads, -1, 2))
    even, odd = pairs[..., 0], pairs[..., 1]
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(2).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention of [B, S, width]; mask bool [Sq, Sk], True = may attend."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


class RmsNorm(nn.Module):
    """Root-mean-square norm over the whole attention width (not per head), in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., dim]."""
        wide = x.float()
        scale = torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + self.eps)
        return (wide * scale).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Projections of one attention; hidden and attention width may differ."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.hidden, config.width)
        self.k = nn.Linear(config.hidden, config.width)
        self.v = nn.Linear(config.hidden, config.width)
        self.o = nn.Linear(config.width, config.hidden)
        self.norm_q = RmsNorm(config.width, config.eps)
        self.norm_k = RmsNorm(config.width, config.eps)

    def query(self, x: Tensor) -> Tensor:
        """Queries [B, S, width], normed."""
        return self.norm_q(self.q(x))

    def key_value(self, x: Tensor) -> KeyValue:
        """Keys, normed, and values."""
        return self.norm_k(self.k(x)), self.v(x)


class Block(nn.Module):
    """Self-attention (shared), cross-attention to the context, feed-forward.

    Self-attention and feed-forward are shifted, scaled and gated by the timestep;
    cross-attention is neither: it follows an affine norm (Wan2.2 modules/model.py).
    """

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden, config.eps, elementwise_affine=False)
        self.self_attn = Attention(config)
        self.norm3 = nn.LayerNorm(config.hidden, config.eps)
        self.cross_attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden, config.eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            nn.Linear(config.hidden, config.ffn),
            nn.GELU(approximate="tanh"),
            nn.Linear(config.ffn, config.hidden),
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, config.hidden) / config.hidden**0.5)

    def modulate(self, time: Tensor) -> tuple[Tensor, ...]:
        """Give shift, scale and gate of attention, then of the feed-forward part.

        Args:
            time: [B, S, 6, hidden] (S may be 1), the expert's projection of the timestep.

        Returns:
            Six of [B, S, hidden].
        """
        return (self.modulation.to(time.dtype)[:, None] + time).unbind(dim=2)

    def project(
        self, x: Tensor, shift: Tensor, scale: Tensor, angles: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give queries, keys and values of the shared attention, normed and rotated."""
        normed = self.norm1(x) * (1 + scale) + shift
        key, value = self.self_attn.key_value(normed)
        heads = self.self_attn.heads
        query = rotate(self.self_attn.query(normed), angles, heads)
        return query, rotate(key, angles, heads), value

    def finish(
        self, x: Tensor, mixed: Tensor, context: KeyValue, modulation: tuple[Tensor, ...]
    ) -> Tensor:
        """Add what attention gave, look at the context, feed forward.

        Args:
            x: [B, S, hidden], before the block.
            mixed: [B, S, width], the shared attention's result.
            context: Keys and values of this block's cross-attention.
            modulation: As from `modulate`.
        """
        _, _, gate, shift_ffn, scale_ffn, gate_ffn = modulation
        x = x + gate * self.self_attn.o(mixed)
        cross = self.cross_attn
        x = x + cross.o(attend(cross.query(self.norm3(x)), *context, cross.heads))
        return x + gate_ffn * self.ffn(self.norm2(x) * (1 + scale_ffn) + shift_ffn)
