"""What the variants add to SmolVLA: predictors of the future and ways into the policy.

Axes: B rows, C steps of history, K steps ahead, D world channels, Q queries, d their width.
Source: FAMILIES C.1, C.3; charbelsan/world-modality-vla world_modality/model.py (Prophet,
GatedCrossAttention; attribute names follow it, so its checkpoints load by prefix).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from policies.smolvla_world.attention import time_embedding
from policies.smolvla_world.config import FusionConfig, HostConfig, WorldConfig

QUERY_STD = 0.02  # of learned slots, positions and tokens


@dataclass(frozen=True)
class Memory:
    """A future that a policy is shown.

    Attributes:
        values: [B, K, D], absolute features.
        valid: bool [B, K], False past an episode's end; None when all may be looked at.
    """

    values: Tensor
    valid: Tensor | None = None

    def first(self, count: int) -> Memory:
        """Give the nearest `count` steps."""
        return Memory(self.values[:, :count], None if self.valid is None else self.valid[:, :count])

    def spread(self, many: int) -> Memory:
        """Every row `many` times, one after the other."""
        valid = None if self.valid is None else self.valid.repeat_interleave(many, 0)
        return Memory(self.values.repeat_interleave(many, 0), valid)


class Prophet(nn.Module):
    """Predicts K features from C: learned slots after the history, in a small transformer.

    Pre-norm, ReLU, FFN 4 D, no final norm, and no positions unless asked for: the order of
    the history is invisible to the published predictor.
    """

    def __init__(self, fusion: FusionConfig, world: WorldConfig) -> None:
        super().__init__()
        dim = world.hidden
        self.horizon = world.horizon
        self.input_proj = nn.Linear(dim, dim)
        self.query_slots = nn.Parameter(torch.randn(1, world.horizon, dim) * QUERY_STD)
        layer = nn.TransformerEncoderLayer(
            dim, fusion.prophet_heads, 4 * dim, fusion.prophet_dropout,
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.encoder = nn.TransformerEncoder(
            layer, fusion.prophet_layers, enable_nested_tensor=False
        )
        self.output_proj = nn.Linear(dim, dim)
        self.positions = (
            nn.Parameter(torch.randn(1, world.context, dim) * QUERY_STD)
            if fusion.prophet_positions
            else None
        )

    def forward(self, history: Tensor, between: Tensor | None = None) -> Tensor:
        """Predict [B, K, D] from [B, C, D] and further tokens [B, n, D] after the history."""
        x = self.input_proj(history)
        x = x if self.positions is None else x + self.positions
        parts = [x, *([] if between is None else [between])]
        parts.append(self.query_slots.expand(len(x), -1, -1))
        return self.output_proj(self.encoder(torch.cat(parts, dim=1))[:, -self.horizon :])


class ActionProphet(Prophet):
    """A Prophet that also sees a chunk of actions at some noise level."""

    def __init__(self, fusion: FusionConfig, world: WorldConfig, host: HostConfig) -> None:
        super().__init__(fusion, world)
        self._periods = host.min_period, host.max_period
        self.action_proj = nn.Linear(host.action_dim, world.hidden)
        self.action_positions = nn.Parameter(torch.randn(1, host.chunk, world.hidden) * QUERY_STD)
        self.time_proj = nn.Linear(world.hidden, world.hidden)

    def with_actions(self, history: Tensor, actions: Tensor, time: Tensor) -> Tensor:
        """Predict [B, K, D] from history, actions [B, H, A] (real channels) and times [B]."""
        when = time_embedding(time, history.shape[-1], *self._periods)
        x = self.action_proj(actions) + self.action_positions
        return self(history, x + self.time_proj(when)[:, None])


class GatedCrossAttention(nn.Module):
    """x + tanh(gate) * attention(x, memory)."""

    def __init__(self, width: int, heads: int, memory: int, gate: float) -> None:
        super().__init__()
        self.future_proj = nn.Linear(memory, width)
        self.cross_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.gate = nn.Parameter(torch.tensor(float(gate)))

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Inject into [B, Q, d]."""
        return x + torch.tanh(self.gate) * self.look(x, memory)

    def look(self, x: Tensor, memory: Memory) -> Tensor:
        """Attend; a row whose memory is all invalid gets zeros, never NaN."""
        kv = self.future_proj(memory.values)
        if memory.valid is None:
            return self.cross_attn(x, kv, kv, need_weights=False)[0]
        anything = memory.valid.any(1)
        hidden = ~(memory.valid | ~anything[:, None])
        seen = self.cross_attn(x, kv, kv, key_padding_mask=hidden, need_weights=False)[0]
        return seen * anything[:, None, None]

    @torch.no_grad()
    def entropy(self, x: Tensor, memory: Memory) -> float:
        """Mean entropy of the attention weights in nats; log K means no preference."""
        kv = self.future_proj(memory.values)
        weights = self.cross_attn(x, kv, kv, need_weights=True)[1]
        return float(-(weights * weights.clamp_min(1e-12).log()).sum(-1).mean())


class SiteInjection(nn.Module):
    """Gated cross-attention after several expert layers; one gate per site."""

    def __init__(self, fusion: FusionConfig, width: int, memory: int) -> None:
        super().__init__()
        self._sites, self._horizons = fusion.sites, fusion.site_horizons
        count = 1 if fusion.share_sites else len(fusion.sites)
        made = [
            GatedCrossAttention(width, fusion.inject_heads, memory, fusion.gate_init)
            for _ in range(count)
        ]
        for module in made:
            del module.gate  # the gates are here, one per site also when attention is shared
        self.attention = nn.ModuleList(made)
        self.gates = nn.Parameter(torch.full((len(fusion.sites),), fusion.gate_init))

    def forward(self, depth: int, x: Tensor, memory: Memory) -> Tensor:
        """Inject into suffix states [B, Q, d] after `depth` layers, if that is a site."""
        if depth not in self._sites:
            return x
        site = self._sites.index(depth)
        seen = memory.first(self._horizons[site]) if self._horizons else memory
        attention = self.attention[site % len(self.attention)]
        look = cast(GatedCrossAttention, attention).look(x, seen)
        return x + torch.tanh(self.gates[site]) * look


class WorldTokens(nn.Module):
    """Features as tokens of a sequence, times a gate where there is one."""

    def __init__(self, memory: int, width: int, gate: float | None) -> None:
        super().__init__()
        self.project = nn.Linear(memory, width)
        self.gate = None if gate is None else nn.Parameter(torch.tensor(float(gate)))

    def forward(self, memory: Memory) -> Tensor:
        """Give [B, K, width]."""
        x = self.project(memory.values)
        return x if self.gate is None else torch.tanh(self.gate) * x


class FutureTokens(nn.Module):
    """FLARE: learned tokens in the action sequence, and the head that reads them."""

    def __init__(self, count: int, width: int, world: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(1, count, width) * QUERY_STD)
        self.head = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, world))

    def forward(self, states: Tensor) -> Tensor:
        """Read [B, M, width] after L layers as features [B, M, D]."""
        return self.head(states)
