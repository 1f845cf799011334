"""The transformer blocks of Flow-HWM.

Four streams of tokens travel side by side, always in the order future video, past video,
future actions, past actions (`STREAMS`). Variants differ in which of them share weights,
and in how they meet: in one joint attention, or split into self- and cross-attention.

Axes: B rows, N tokens of a stream, h width, d head size, G groups that share weights.
Source: humanoid_world_model, Flow-HWM/models/{mmdit,mmdit_sharing,common_blocks}.py and
models/mmdit_split_attn.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.flow_hwm.rope import rotate_halves, rotate_pairs

STREAMS = ("future_video", "past_video", "future_actions", "past_actions")
SEPARATE = (0, 1, 2, 3)  # group of each stream: no sharing
BY_MODALITY = (0, 0, 1, 1)
TOGETHER = (0, 0, 0, 0)

Streams = list[Tensor]


@dataclass(frozen=True)
class Positions:
    """Rotary angles of every stream.

    Attributes:
        video: [past + future patches, d / 2]; the past comes first.
        actions: [past + future actions, d / 2].
        past_video, past_actions: Where the future begins.
        official: The official code's in-place slip (`rotate_pairs`).
    """

    video: Tensor
    actions: Tensor
    past_video: int
    past_actions: int
    official: bool = False

    def turn(self, stream: int, x: Tensor) -> Tensor:
        """Turn queries or keys [B, heads, N, d] of a stream by their places in the window."""
        if stream < 2:
            first = self.past_video if stream == 0 else 0
            return rotate_halves(x, self.video[first : first + x.shape[2]])
        first = self.past_actions if stream == 2 else 0
        angles = self.actions[first : first + x.shape[2]]
        return rotate_pairs(x, angles, official=self.official)

    def turn_from_start(self, x: Tensor) -> Tensor:
        """Turn video tokens as if they began the window (cross-attention does so)."""
        return rotate_halves(x, self.video[: x.shape[2]])


def scaled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalise tokens [B, N, h] without affine, then x (1 + scale) + shift, each [B, h]."""
    x = F.layer_norm(x, x.shape[-1:])
    return x * (1.0 + scale[:, None]) + shift[:, None]


class Projection(nn.Module):
    """A biasless projection to n parts (query, key, value), some with a norm per head.

    Args:
        width, heads: h and its division.
        parts: How many.
        norms: Name of the norm of each part, None for none. Query and key norms are
            LayerNorms with affine over a head.
    """

    def __init__(self, width: int, heads: int, parts: int, norms: Sequence[str | None]) -> None:
        super().__init__()
        self.heads = heads
        self.parts = parts
        self.places = {name: i for i, name in enumerate(norms) if name is not None}
        self.proj = nn.Linear(width, parts * width, bias=False)
        nn.init.xavier_uniform_(self.proj.weight)
        for name in self.places:
            self.add_module(name, nn.LayerNorm(width // heads))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Project [B, N, h] to parts of [B, heads, N, d]."""
        split = self.proj(x).unflatten(-1, (self.parts, self.heads, -1))
        out = [split[:, :, i].transpose(1, 2) for i in range(self.parts)]
        for name, i in self.places.items():
            out[i] = self.get_submodule(name)(out[i])
        return out


def attend(q: Tensor, k: Tensor, v: Tensor, out: nn.Linear) -> Tensor:
    """Attend without mask; [B, heads, N, d] to [B, N, h]."""
    mixed = F.scaled_dot_product_attention(q, k, v)
    return out(mixed.transpose(1, 2).flatten(2))


def modulation(width: int, chunks: int) -> nn.Linear:
    """Give a layer from time to scales, gates and shifts that starts at zero (AdaLN-zero)."""
    layer = nn.Linear(width, chunks * width)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def feed_forward(width: int) -> nn.Sequential:
    """Give the MLP h to 4h to h with GELU."""
    layers = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    for layer in (layers[0], layers[2]):
        assert isinstance(layer, nn.Linear)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layers


class JointBlock(nn.Module):
    """Modulate, project, attend jointly over all four streams, modulate, feed forward.

    Args:
        width, heads: h and its division.
        groups: Group of each stream; streams of one group share modulation, projection and
            feed-forward. The output projection is always shared.
        qk_norm: LayerNorm on queries and keys.
        last: Only the future video goes on: the context has no feed-forward, and its
            attention outputs, which nobody would read, are not computed.
    """

    def __init__(
        self, width: int, heads: int, *, groups: Sequence[int], qk_norm: bool, last: bool
    ) -> None:
        super().__init__()
        count = max(groups) + 1
        norms = ("q_norm", "k_norm", None) if qk_norm else (None,) * 3
        self.groups = tuple(groups)
        self.last = last
        self.modulation = nn.ModuleList(modulation(width, 6) for _ in range(count))
        self.qkv = nn.ModuleList(Projection(width, heads, 3, norms) for _ in range(count))
        self.out = nn.Linear(width, width)
        self.ff = nn.ModuleList(feed_forward(width) for _ in range(1 if last else count))

    def modulations(self, time: Tensor) -> Tensor:
        """Give scales, gates and shifts for times SiLU'd [B, h]: [B, 6 G, h]."""
        return torch.cat([m(time).unflatten(-1, (6, -1)) for m in self.modulation], dim=1)

    def forward(self, streams: Streams, mods: Tensor, at: Positions) -> Streams:
        """Advance the streams; in the last block only the future video is given back."""
        # order of a group's chunks: scale and gate of attention, of feed-forward, the shifts
        chunks = [mods[:, 6 * g : 6 * g + 6].unbind(1) for g in self.groups]
        qs: Streams = []
        ks: Streams = []
        vs: Streams = []
        for s, (x, c) in enumerate(zip(streams, chunks, strict=True)):
            q, k, v = self.qkv[self.groups[s]](scaled(x, c[0], c[4]))
            qs.append(at.turn(s, q))
            ks.append(at.turn(s, k))
            vs.append(v)
        going = 1 if self.last else len(streams)
        mixed = attend(torch.cat(qs[:going], 2), torch.cat(ks, 2), torch.cat(vs, 2), self.out)
        parts = mixed.split([x.shape[1] for x in streams[:going]], dim=1)
        advanced: Streams = []
        for s, part in enumerate(parts):
            c = chunks[s]
            x = streams[s] + part * c[1][:, None]
            x = x + self.ff[self.groups[s]](scaled(x, c[2], c[5])) * c[3][:, None]
            advanced.append(x)
        return advanced


class SplitBlock(nn.Module):
    """Each stream attends to itself, then the future video to the other three.

    Weights are shared by modality, but the keys and values of cross-attention have their
    own. Nothing flows from the future video to the context, so `context` and `future` can
    run apart.

    Args:
        width, heads: h and its division.
        last: The context has no feed-forward.
        norm_values: Put the norm of cross-attention's keys on its values (official slip).
    """

    def __init__(self, width: int, heads: int, *, last: bool, norm_values: bool) -> None:
        super().__init__()
        norms = ("q_norm", "k_norm", None)
        self.last = last
        self.modulation = nn.ModuleList(
            [modulation(width, 6), modulation(width, 6), modulation(width, 3)]
        )
        self.qkv = nn.ModuleList(Projection(width, heads, 3, norms) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.cross_q = Projection(width, heads, 1, ("q_norm",))
        self.cross_kv = nn.ModuleList(
            Projection(width, heads, 2, (None, "k_norm") if norm_values else ("k_norm", None))
            for _ in range(3)
        )
        self.cross_out = nn.Linear(width, width)
        self.ff = nn.ModuleList(feed_forward(width) for _ in range(1 if last else 2))

    def modulations(self, time: Tensor) -> Tensor:
        """Give scales, gates and shifts for times SiLU'd [B, h]: [B, 6 + 6 + 3, h]."""
        chunks = [
            m(time).unflatten(-1, (n, -1)) for m, n in zip(self.modulation, (6, 6, 3), strict=True)
        ]
        return torch.cat(chunks, dim=1)

    def _self_attention(self, s: int, x: Tensor, c: Sequence[Tensor], at: Positions) -> Tensor:
        q, k, v = self.qkv[BY_MODALITY[s]](scaled(x, c[0], c[4]))
        out = self.out[BY_MODALITY[s]]
        assert isinstance(out, nn.Linear)
        return x + attend(at.turn(s, q), at.turn(s, k), v, out) * c[1][:, None]

    def context(
        self, streams: Streams, mods: Tensor, at: Positions
    ) -> tuple[Streams, tuple[Tensor, Tensor]]:
        """Advance past video, future and past actions; give keys and values for the future.

        Returns:
            The three streams after the block, and keys and values [B, heads, N, d] each.
        """
        ks: Streams = []
        vs: Streams = []
        advanced: Streams = []
        for s, before in enumerate(streams, start=1):
            g = BY_MODALITY[s]
            c = mods[:, 6 * g : 6 * g + 6].unbind(1)
            x = self._self_attention(s, before, c, at)
            k, v = self.cross_kv[s - 1](F.layer_norm(x, x.shape[-1:]))
            ks.append(at.turn_from_start(k) if s == 1 else at.turn(s, k))
            vs.append(v)
            if not self.last:
                x = x + self.ff[g](scaled(x, c[2], c[5])) * c[3][:, None]
            advanced.append(x)
        return advanced, (torch.cat(ks, 2), torch.cat(vs, 2))

    def future(self, x: Tensor, kv: tuple[Tensor, Tensor], mods: Tensor, at: Positions) -> Tensor:
        """Advance the future video [B, N, h], given the context's keys and values."""
        c = mods[:, :6].unbind(1)
        scale, gate, shift = mods[:, 12:].unbind(1)
        x = self._self_attention(0, x, c, at)
        (q,) = self.cross_q(scaled(x, scale, shift))
        x = x + attend(at.turn_from_start(q), *kv, self.cross_out) * gate[:, None]
        return x + self.ff[0](scaled(x, c[2], c[5])) * c[3][:, None]
