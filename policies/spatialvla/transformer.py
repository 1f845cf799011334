"""Decoder layers that several streams can run through together, with kept keys and values.

Modules are named as in transformers' Llama and Gemma, so their weights load as they are;
the libraries' own classes cannot run two stacks in one attention.

Axes: B rows, L tokens, W width, N heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.spatialvla.config import Blocks, TransformerConfig


@dataclass(frozen=True)
class KeyValues:
    """Keys (positions applied) and values of one layer, [B, kv heads, L, D] each."""

    keys: Tensor
    values: Tensor

    def repeated(self, times: int) -> KeyValues:
        """Every row `times` times, one after the other."""
        keys, values = (x.repeat_interleave(times, 0) for x in (self.keys, self.values))
        return KeyValues(keys, values)


class RMSNorm(nn.Module):
    """Root-mean-square norm in float32; Gemma's weight is an offset from 1."""

    def __init__(self, width: int, eps: float, *, gemma: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width) if gemma else torch.ones(width))
        self.eps, self.gemma = eps, gemma

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., W]; the order of rounding is the libraries'."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        if self.gemma:
            return (wide * (1.0 + self.weight.float())).to(x.dtype)
        return self.weight * wide.to(x.dtype)


class Attention(nn.Module):
    """The four projections; the attention itself is `run_layers`'."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        inner, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, inner, bias=False)
        self.k_proj = nn.Linear(config.width, kv, bias=False)
        self.v_proj = nn.Linear(config.width, kv, bias=False)
        self.o_proj = nn.Linear(inner, config.width, bias=False)


class MLP(nn.Module):
    """Gated MLP: SiLU (Llama) or tanh-GELU (Gemma)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.width, bias=False)
        self.gemma = config.blocks is Blocks.GEMMA

    def forward(self, x: Tensor) -> Tensor:
        """[..., W] to [..., W]."""
        gate = self.gate_proj(x)
        gate = F.gelu(gate, approximate="tanh") if self.gemma else F.silu(gate)
        return self.down_proj(gate * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer's weights."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        gemma = config.blocks is Blocks.GEMMA
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.width, config.norm_eps, gemma=gemma)
        self.post_attention_layernorm = RMSNorm(config.width, config.norm_eps, gemma=gemma)


class Stack(nn.Module):
    """Layers and the final norm; with `vocab`, also a token embedding.

    Weights start as in the libraries: normal with deviation 0.02.
    """

    def __init__(self, config: TransformerConfig, *, vocab: int | None = None) -> None:
        super().__init__()
        self.config = config
        if vocab is not None:
            self.embed_tokens = nn.Embedding(vocab, config.width)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.depth)])
        self.norm = RMSNorm(config.width, config.norm_eps, gemma=config.blocks is Blocks.GEMMA)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def run(
        self,
        x: Tensor,
        mask: Tensor,
        places: Tensor,
        past: Sequence[KeyValues] | None = None,
    ) -> tuple[Tensor, list[KeyValues]]:
        """Run alone: [B, L, W] to hidden states after the final norm, and the keys and values."""
        out, kept = run_layers([(self.layers, x)], self.config, mask, places, past)
        return self.norm(out[0]), kept


def rotary(places: Tensor, size: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine of rotary positions, [B, 1, L, D] each.

    Args:
        places: int64 [B, L].
        size: D.
        theta: Base of the periods.
        dtype: Of what is rotated.
    """
    powers = torch.arange(0, size, 2, device=places.device, dtype=torch.float32) / size
    angles = places[..., None].float() / theta**powers
    angles = torch.cat((angles, angles), -1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys [B, N, L, D] by `rotary`; halves are paired, as in transformers."""
    cos, sin = turn
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def run_layers(
    streams: Sequence[tuple[nn.ModuleList, Tensor]],
    config: TransformerConfig,
    mask: Tensor,
    places: Tensor,
    past: Sequence[KeyValues] | None = None,
    *,
    keys_only: bool = False,
) -> tuple[list[Tensor], list[KeyValues]]:
    """Run streams side by side; in every layer they share one attention.

    Each stream has its own norms, projections and MLP (widths may differ); queries, keys and
    values are put together in sequence order, so positions and softmax are joint.

    Args:
        streams: (layers, hidden states [B, L_s, W_s]) in sequence order.
        config: Heads, head size and theta that all streams share.
        mask: bool [B, 1, sum L_s, past + sum L_s].
        places: int64 [B, sum L_s].
        past: Keys and values of tokens before these, per layer.
        keys_only: Only keys and values are wanted: the last layer stops where they are known.

    Returns:
        Hidden states per stream before any final norm, with `keys_only` those that the last
        layer takes; keys and values per layer, of these tokens alone.

    Source: openpi's PaliGemmaWithExpert, with Llama's or Gemma's layers.
    """
    hidden = [x for _, x in streams]
    lengths = [x.shape[1] for x in hidden]
    kept: list[KeyValues] = []
    turn = rotary(places, config.head_dim, config.rope_theta, hidden[0].dtype)
    for number in range(config.depth):
        layers = [cast(Layer, layers[number]) for layers, _ in streams]
        normed = [layer.input_layernorm(x) for layer, x in zip(layers, hidden, strict=True)]
        pairs = list(zip(layers, normed, strict=True))
        k = _heads([a.self_attn.k_proj(x) for a, x in pairs], config.head_dim)
        v = _heads([a.self_attn.v_proj(x) for a, x in pairs], config.head_dim)
        k = rotate(k, turn)
        kept.append(KeyValues(k, v))
        if keys_only and number == config.depth - 1:
            break
        q = rotate(_heads([a.self_attn.q_proj(x) for a, x in pairs], config.head_dim), turn)
        if past is not None:
            k = torch.cat((past[number].keys, k), 2)
            v = torch.cat((past[number].values, v), 2)
        groups = config.heads // config.kv_heads
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        parts = mixed.transpose(1, 2).flatten(2).split(lengths, 1)
        for s, layer in enumerate(layers):
            x = hidden[s] + layer.self_attn.o_proj(parts[s])
            hidden[s] = x + layer.mlp(layer.post_attention_layernorm(x))
    return hidden, kept


def _heads(parts: Sequence[Tensor], size: int) -> Tensor:
    """Join [B, L_s, N * D] on the sequence and part the heads: [B, N, L, D]."""
    joined = torch.cat(list(parts), 1)
    return joined.unflatten(-1, (-1, size)).transpose(1, 2)
