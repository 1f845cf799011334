"""The velocity network of Flow-HWM: four streams of tokens, a stack of blocks, one head.

Axes: B rows, C latent channels, T latents, y x latent pixels, N actions, A action channels,
h width.
Source: humanoid_world_model, Flow-HWM/models/mmdit.py (`VideoDiTModel`) and its variants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.flow_hwm.blocks import (
    BY_MODALITY,
    SEPARATE,
    TOGETHER,
    JointBlock,
    Positions,
    SplitBlock,
    Streams,
    modulation,
)
from policies.flow_hwm.config import FlowHWMConfig
from policies.flow_hwm.rope import action_angles, video_angles

TIME_SCALE, TIME_THETA = 1000.0, 1e4  # code: SinusoidalPosEmb(theta=10000), mul_factor=1000
TIME_STD = 0.02  # code: initial weights of the time MLP


@dataclass(frozen=True)
class Modulations:
    """What a time makes of every block's norms; depends on nothing else.

    Attributes:
        blocks: [B or 1, chunks, h] of each block.
        final: [B or 1, 2, h], scale and shift before the head.
    """

    blocks: tuple[Tensor, ...]
    final: Tensor


@dataclass(frozen=True)
class Context:
    """What a row's future is imagined from, as the data set gives it.

    Attributes:
        past: Latents [B, C, T, y, x].
        past_actions, future_actions: [B, N, A], normalised.
    """

    past: Tensor
    past_actions: Tensor
    future_actions: Tensor

    def without(self, drop: Tensor) -> Context:
        """Replace all three by zeros in the rows that `drop` bool [B] names (joint drop)."""
        return Context(
            past=self.past.masked_fill(drop[:, None, None, None, None], 0.0),
            past_actions=self.past_actions.masked_fill(drop[:, None, None], 0.0),
            future_actions=self.future_actions.masked_fill(drop[:, None, None], 0.0),
        )

    def emptied(self) -> Context:
        """The same shapes with nothing in them."""
        return Context(*(torch.zeros_like(x) for x in self.parts()))

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Past latents, past actions, future actions."""
        return self.past, self.past_actions, self.future_actions


KeysValues = tuple[Tensor, Tensor]


class FlowNetwork(nn.Module):
    """Predicts the velocity of the future latents at a time, given the context."""

    def __init__(self, config: FlowHWMConfig) -> None:
        super().__init__()
        self.config = config
        h, p, heads = config.width, config.patch, config.heads
        kernel = (1, p, p)
        self.patch_future = nn.Conv3d(config.latent_channels, h, kernel, stride=kernel)
        self.patch_past = nn.Conv3d(config.latent_channels, h, kernel, stride=kernel)
        self.action_embed = nn.Sequential(
            nn.Linear(config.convention.dim, 4 * h), nn.SiLU(), nn.Linear(4 * h, h)
        )
        self.time_embed = nn.Sequential(nn.Linear(h, 4 * h), nn.SiLU(), nn.Linear(4 * h, h))
        self.blocks = nn.ModuleList(self._block(i) for i in range(config.layers))
        self.final_modulation = modulation(h, 2)
        self.head = nn.Linear(h, p * p * config.latent_channels, bias=False)
        self._initialise()

        rows, columns = config.latent_size
        if not (config.variant == "split_attention" and "rope_grid" in config.parity):
            rows, columns = rows // p, columns // p
        latents = config.past_latents + config.future_latents
        d = h // heads
        self.register_buffer(
            "video_angles", video_angles((latents, rows, columns), d), persistent=False
        )
        self.register_buffer("action_angles", action_angles(config.frames, d), persistent=False)

    def _block(self, place: int) -> nn.Module:
        config = self.config
        h, heads, last = config.width, config.heads, place == config.layers - 1
        if config.variant == "split_attention":
            return SplitBlock(h, heads, last=last, norm_values="kv_norm" in config.parity)
        groups = {"modality_sharing": BY_MODALITY, "full_sharing": TOGETHER}.get(config.variant)
        if groups is None or place < config.unshared_layers:
            return JointBlock(h, heads, groups=SEPARATE, qk_norm=True, last=last)
        return JointBlock(h, heads, groups=groups, qk_norm=False, last=last)

    def _initialise(self) -> None:
        for layer in (self.action_embed[0], self.action_embed[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.time_embed[0], self.time_embed[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=TIME_STD)
        # paper: Xavier, since a zero head was unstable; the code leaves torch's default
        nn.init.xavier_uniform_(self.head.weight)

    @property
    def splits(self) -> bool:
        """Whether the context never hears of the future, so that it can run apart."""
        return self.config.variant == "split_attention"

    @property
    def positions(self) -> Positions:
        """Rotary angles of the four streams."""
        config = self.config
        rows, columns = config.latent_size
        patches = (rows // config.patch) * (columns // config.patch)
        return Positions(
            video=cast(Tensor, self.video_angles),
            actions=cast(Tensor, self.action_angles),
            past_video=config.past_latents * patches,
            past_actions=config.past_frames,
            official="rope" in config.parity,
        )

    def modulations(self, t: Tensor) -> Modulations:
        """Give what times [B], in 0..1, make of every norm."""
        half = self.config.width // 2
        rates = torch.exp(
            -math.log(TIME_THETA) * torch.arange(half, device=t.device, dtype=t.dtype) / half
        )
        angles = TIME_SCALE * t[:, None] * rates
        time = self.time_embed(torch.cat([angles.cos(), angles.sin()], dim=-1))
        time = F.silu(time)
        blocks = [cast(JointBlock | SplitBlock, block) for block in self.blocks]
        return Modulations(
            blocks=tuple(block.modulations(time) for block in blocks),
            final=self.final_modulation(time).unflatten(-1, (2, -1)),
        )

    def embed_context(self, context: Context) -> Streams:
        """Give the tokens of past video, future actions and past actions; no time in them."""
        return [
            self.patch_past(context.past).flatten(2).transpose(1, 2),
            self.action_embed(context.future_actions),
            self.action_embed(context.past_actions),
        ]

    def velocity(self, x: Tensor, tokens: Streams, mods: Modulations) -> Tensor:
        """Give the velocity at x.

        Args:
            x: Noisy future latents [B, C, T, y, x].
            tokens: As `embed_context` gives them.
            mods: As `modulations` gives them, for B rows or for one.

        Returns:
            [B, C, T, y, x].
        """
        if self.splits:
            return self.velocity_beside(x, self.context_kv(tokens, mods), mods)
        at = self.positions
        streams = [self._future_tokens(x), *tokens]
        for block, mod in zip(self.blocks, mods.blocks, strict=True):
            streams = cast(JointBlock, block)(streams, mod, at)
        return self._unpatch(streams[0], mods.final)

    def context_kv(self, tokens: Streams, mods: Modulations) -> list[KeysValues]:
        """Run the context alone (split attention); keys and values for every block."""
        at = self.positions
        out: list[KeysValues] = []
        for block, mod in zip(self.blocks, mods.blocks, strict=True):
            tokens, kv = cast(SplitBlock, block).context(tokens, mod, at)
            out.append(kv)
        return out

    def velocity_beside(self, x: Tensor, kvs: list[KeysValues], mods: Modulations) -> Tensor:
        """Give the velocity at x beside a context that has run already (split attention)."""
        at = self.positions
        tokens = self._future_tokens(x)
        for block, mod, kv in zip(self.blocks, mods.blocks, kvs, strict=True):
            tokens = cast(SplitBlock, block).future(tokens, kv, mod, at)
        return self._unpatch(tokens, mods.final)

    def forward(self, x: Tensor, t: Tensor, context: Context) -> Tensor:
        """Give the velocity at x and times t [B]; shapes as in `velocity`."""
        return self.velocity(x, self.embed_context(context), self.modulations(t))

    def _future_tokens(self, x: Tensor) -> Tensor:
        return self.patch_future(x).flatten(2).transpose(1, 2)

    def _unpatch(self, tokens: Tensor, final: Tensor) -> Tensor:
        scale, shift = final.unbind(1)  # the code calls them shift and scale, in this order
        tokens = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)  # code: FinalLayer
        tokens = self.head(tokens * (1.0 + scale[:, None]) + shift[:, None])
        config, p = self.config, self.config.patch
        rows, columns = (side // p for side in config.latent_size)
        grid = tokens.view(-1, config.future_latents, rows, columns, p, p, config.latent_channels)
        return grid.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
