"""The diffusion transformer of Cosmos-Predict2, with the published names of its weights.

Axes: R rows, C latent channels, T latent frames, h w latent pixels, F frames computed,
N tokens (F x h/2 x w/2), L text tokens, D width.

Source: NVlabs/cosmos-policy, `MinimalV1LVGDiT` on `MiniTrainDIT` (config `cosmos_v1_2B`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.cosmos.config import NetConfig

KV = tuple[Tensor, Tensor]


@dataclass
class CleanBank:
    """Self-attention keys and values of the clean frames, from a first evaluation.

    An approximation, but for networks with `given_apart`: clean tokens attend to noised ones, so
    past the first block their keys and values change from step to step (see README). ``blocks``
    is empty until filled.
    """

    clean: tuple[int, ...]
    blocks: list[KV] = field(default_factory=list[KV])


def rope(config: NetConfig, frames: Sequence[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rotary cosines and sines of every token, float32 [N, head_dim].

    Half-rotation layout [t | h | w] twice; positions are latent frame and patch numbers.

    Args:
        config: Head width and extrapolation.
        frames: Latent frame numbers to compute.
        size: (rows, columns) of patches.
    """
    spatial = config.head_dim // 6 * 2
    dims = (config.head_dim - 2 * spatial, spatial, spatial)
    axes = (torch.tensor(list(frames)), torch.arange(size[0]), torch.arange(size[1]))
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2).float()
    parts: list[Tensor] = []
    for axis, (dim, scale) in enumerate(zip(dims, config.rope_scale, strict=True)):
        theta = 10000.0 * scale ** (dim / (dim - 2))
        frequency = 1.0 / theta ** (torch.arange(0, dim, 2).float() / dim)
        parts.append(grid[:, axis, None] * frequency)
    angles = torch.cat(parts * 2, dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn queries or keys [R, heads, N, head_dim]; computed in float32."""
    cos, sin = turn
    a, b = x.float().chunk(2, dim=-1)
    return (x.float() * cos + torch.cat((-b, a), dim=-1) * sin).to(x.dtype)


class Attention(nn.Module):
    """Multi-head attention with per-head RMS-normed queries and keys, no biases."""

    def __init__(self, config: NetConfig, context: int) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(context, width, bias=False)
        self.v_proj = nn.Linear(context, width, bias=False)
        self.output_proj = nn.Linear(width, width, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=1e-6)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=1e-6)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def key_value(self, x: Tensor, turn: tuple[Tensor, Tensor] | None = None) -> KV:
        """Keys and values [R, heads, tokens, head_dim] of [R, tokens, context]."""
        k = self.k_norm(self._split(self.k_proj(x)))
        return (k if turn is None else rotate(k, turn)), self._split(self.v_proj(x))

    def forward(
        self,
        x: Tensor,
        kv: KV,
        turn: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from [R, N, D] to given keys and values, where a bool mask allows it."""
        q = self.q_norm(self._split(self.q_proj(x)))
        if turn is not None:
            q = rotate(q, turn)
        out = F.scaled_dot_product_attention(q, *kv, attn_mask=mask)
        return self.output_proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, exact GELU, Linear; no biases."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.layer1 = nn.Linear(config.width, config.width * config.mlp, bias=False)
        self.layer2 = nn.Linear(config.width * config.mlp, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[R, N, D] to [R, N, D]."""
        return self.layer2(F.gelu(self.layer1(x)))


def _low_rank(config: NetConfig, parts: int) -> nn.Sequential:
    return nn.Sequential(
        nn.SiLU(),
        nn.Linear(config.width, config.adaln_rank, bias=False),
        nn.Linear(config.adaln_rank, parts * config.width, bias=False),
    )


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise tokens [R, N, D], then scale and shift them by their frames' [R, F, D]."""
    apart = F.layer_norm(x, x.shape[-1:], eps=1e-6).unflatten(1, (shift.shape[1], -1))
    return (apart * (1.0 + scale)[:, :, None] + shift[:, :, None]).flatten(1, 2)


def _gated(gate: Tensor, x: Tensor) -> Tensor:
    """Scale tokens [R, N, D] by their frames' gates [R, F, D]."""
    return (gate[:, :, None] * x.unflatten(1, (gate.shape[1], -1))).flatten(1, 2)


class Block(nn.Module):
    """Self-attention, cross-attention to text, MLP; each with its own modulation."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config, config.width)
        self.cross_attn = Attention(config, config.text_dim)
        self.mlp = Mlp(config)
        self.adaln_modulation_self_attn = _low_rank(config, 3)
        self.adaln_modulation_cross_attn = _low_rank(config, 3)
        self.adaln_modulation_mlp = _low_rank(config, 3)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        shared: Tensor,
        text: KV,
        turn: tuple[Tensor, Tensor],
        bank: KV | None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, KV]:
        """One block.

        Args:
            x: [R, N, D].
            time, shared: [R, F, D] and [R, F, 3 D], per latent frame.
            text: Keys and values of the text.
            turn: Rotary angles of the tokens.
            bank: Keys and values of frames that are not computed, or None.
            mask: bool [R, 1, N, N], which tokens each attends to; None for all.

        Returns:
            [R, N, D], and the self-attention keys and values of its own tokens.
        """

        def parts(modulation: nn.Module) -> tuple[Tensor, ...]:
            return (modulation(time) + shared).chunk(3, dim=-1)

        shift, scale, gate = parts(self.adaln_modulation_self_attn)
        normed = _modulate(x, shift, scale)
        own = self.self_attn.key_value(normed, turn)
        kv = (
            own
            if bank is None
            else (torch.cat((bank[0], own[0]), 2), torch.cat((bank[1], own[1]), 2))
        )
        x = x + _gated(gate, self.self_attn(normed, kv, turn, mask))
        shift, scale, gate = parts(self.adaln_modulation_cross_attn)
        x = x + _gated(gate, self.cross_attn(_modulate(x, shift, scale), text))
        shift, scale, gate = parts(self.adaln_modulation_mlp)
        return x + _gated(gate, self.mlp(_modulate(x, shift, scale))), own


class Sinusoid(nn.Module):
    """[cos, sin] of t times exp(-ln(10^4) i / half); t itself in [0, 1], not times 1000."""

    def __init__(self, width: int, *, round_to_bfloat16: bool) -> None:
        super().__init__()
        self.waves = width // 2
        self.round_to_bfloat16 = round_to_bfloat16

    def forward(self, t: Tensor) -> Tensor:
        """[...] to float32 [..., width]."""
        if self.round_to_bfloat16:
            t = t.to(torch.bfloat16)
        steps = torch.arange(self.waves, dtype=torch.float32, device=t.device)
        angles = t.float()[..., None] * torch.exp(-math.log(10000.0) * steps / self.waves)
        return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """The shared modulation vector of a timestep, 3 D wide."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(config.width, config.width, bias=False)
        self.linear_2 = nn.Linear(config.width, 3 * config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., 3 D]."""
        return self.linear_2(F.silu(self.linear_1(x)))


class PatchEmbedding(nn.Module):
    """Patches ordered (c, r, m, n) to tokens; the published layer sits at `proj.1`."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        # 16 latent channels, the condition mask, the padding mask
        size = (config.channels + 2) * config.patch**2
        self.proj = nn.Sequential(nn.Identity(), nn.Linear(size, config.width, bias=False))
        self.patch = config.patch

    def forward(self, x: Tensor) -> Tensor:
        """[R, C + 2, F, h, w] to [R, N, D]."""
        p = self.patch
        x = x.unflatten(4, (-1, p)).unflatten(3, (-1, p))  # R c F h p w q
        return self.proj(x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3))


class FinalLayer(nn.Module):
    """Modulated norm and projection; a token's numbers are ordered (p1, p2, t, C)."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.width, config.patch**2 * config.channels, bias=False)
        self.adaln_modulation = _low_rank(config, 2)

    def forward(self, x: Tensor, time: Tensor, shared: Tensor) -> Tensor:
        """[R, N, D] to [R, N, patch^2 C]."""
        vector = self.adaln_modulation(time) + shared[..., : 2 * x.shape[-1]]
        return self.linear(_modulate(x, *vector.chunk(2, dim=-1)))


class Positions(nn.Module):
    """A learnt vector for every frame, row and column; a token's place is their sum.

    Source: the names and the three axes are those of nvidia-cosmos/cosmos-predict1,
    `LearnablePosEmbAxis`, which also scales the sum.
    """

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        frames, rows, columns = config.positions
        self.pos_emb_t = nn.Parameter(torch.zeros(frames, config.width))
        self.pos_emb_h = nn.Parameter(torch.zeros(rows, config.width))
        self.pos_emb_w = nn.Parameter(torch.zeros(columns, config.width))
        for axis in self.parameters():
            nn.init.normal_(axis, std=0.02)  # as the embedding tables of most transformers

    def forward(self, frames: Sequence[int], size: tuple[int, int]) -> Tensor:
        """[N, D] of the tokens of some frames."""
        t, h, w = self.pos_emb_t[list(frames)], self.pos_emb_h[: size[0]], self.pos_emb_w[: size[1]]
        return (t[:, None, None] + h[:, None] + w).flatten(0, 2)


class CosmosNet(nn.Module):
    """The transformer; state-dict keys are the published ones without ``net.``."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.x_embedder = PatchEmbedding(config)
        self.extra_pos_embedder = Positions(config) if config.positions else None
        self.origin_embedder = PatchEmbedding(config) if config.origins else None
        if self.origin_embedder is not None:  # at first it says nothing
            for weight in self.origin_embedder.parameters():
                nn.init.zeros_(weight)
        self.t_embedder = nn.Sequential(
            Sinusoid(config.width, round_to_bfloat16=config.round_timesteps), TimeEmbedding(config)
        )
        self.t_embedding_norm = nn.RMSNorm(config.width, eps=1e-6)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.final_layer = FinalLayer(config)

    def text_key_values(self, text: Tensor) -> list[KV]:
        """Cross-attention keys and values [R, L, text_dim] gives in every block.

        They do not depend on the noise, so one set serves all steps exactly. There is no
        text mask: zero-filled positions are attended to, as published.
        """
        return [block.cross_attn.key_value(text) for block in self._blocks()]

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    def forward(
        self,
        latents: Tensor,
        clean: Tensor,
        timesteps: Tensor,
        text: list[KV],
        *,
        bank: CleanBank | None = None,
    ) -> Tensor:
        """Predict the network output (a velocity) of every latent frame.

        Args:
            latents: [R, C, T, h, w], already scaled by c_in where noised.
            clean: bool [R, T], frames that are given.
            timesteps: [R, T] in [0, 1]; 0 where given.
            text: From `text_key_values`.
            bank: Reuse of the clean frames, see `CleanBank`; filled by the first call, after
                which only the other frames are computed (the rest of the result is 0).

        Returns:
            [R, C, T, h, w].
        """
        rows, _, count, h, w = latents.shape
        frames = list(range(count))
        reuse = bank is not None and bool(bank.blocks)
        if reuse and bank is not None:
            frames = [f for f in frames if f not in bank.clean]
        size = (h // self.config.patch, w // self.config.patch)
        x, time, shared, turn = self._entered(latents, clean, timesteps, frames)
        kept = [] if bank is None or reuse else self._tokens(bank.clean, size)
        mask = None if reuse else self._mask(clean, x.shape[1] // count)
        if bank is None:
            x = self.stack(x, time, shared, text, turn, mask)
        else:
            for i, block in enumerate(self._blocks()):
                stored = bank.blocks[i] if reuse else None
                x, (k, v) = block(x, time, shared, text[i], turn, stored, mask)
                if not reuse:
                    bank.blocks.append((k[:, :, kept], v[:, :, kept]))
        x = self.final_layer(x, time, shared)
        p = self.config.patch
        x = x.reshape(rows, len(frames), *size, p, p, -1).permute(0, 6, 1, 2, 4, 3, 5)
        x = x.reshape(rows, -1, len(frames), h, w)
        if not reuse:
            return x
        whole = torch.zeros_like(latents)
        whole[:, :, frames] = x
        return whole

    def look(self, latents: Tensor, text: list[KV]) -> Tensor:
        """What all blocks but the reading ones make of given frames alone.

        Slots attend to each block's input: what the last block makes of the given frames no
        other slot ever sees, so what is to be learnt from them must be there before.

        Args:
            latents: [R, C, F, h, w], the first F frames, all of them given.
            text: From `text_key_values`.

        Returns:
            [R, F, h / 2, w / 2, D].
        """
        rows, _, count, h, w = latents.shape
        clean = torch.ones(rows, count, dtype=torch.bool, device=latents.device)
        times = torch.zeros(rows, count, device=latents.device)
        x, time, shared, turn = self._entered(latents, clean, times, range(count))
        looking = self.config.blocks - self.config.reading
        x = self.stack(x, time, shared, text[:looking], turn, blocks=self._blocks()[:looking])
        return x.unflatten(1, (count, h // self.config.patch, w // self.config.patch))

    def _entered(
        self, latents: Tensor, clean: Tensor, timesteps: Tensor, frames: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """What the blocks get of some frames: tokens, time, its shared part, rotary angles."""
        dtype, (h, w), chosen = latents.dtype, latents.shape[3:], list(frames)
        given = clean[:, None, :, None, None].to(dtype).expand(-1, 1, -1, h, w)
        shown = torch.cat((latents, given, torch.zeros_like(given)), dim=1)
        x = self.x_embedder(shown[:, :, chosen])
        size = (h // self.config.patch, w // self.config.patch)
        if self.origin_embedder is not None:
            given_alone = F.pad(shown * given, (0, 0, 0, 0, 0, 1))  # -1: an empty frame, the last
            x = x + self.origin_embedder(
                given_alone[:, :, [self.config.origins[f] for f in chosen]]
            )
        if self.extra_pos_embedder is not None:
            x = x + self.extra_pos_embedder(chosen, size)
        turn = rope(self.config, chosen, size)
        sinusoid = self.t_embedder[0](timesteps[:, chosen]).to(dtype)
        shared, time = self.t_embedder[1](sinusoid), self.t_embedding_norm(sinusoid)
        return x, time, shared, (turn[0].to(x.device), turn[1].to(x.device))

    def _mask(self, clean: Tensor, per_frame: int) -> Tensor | None:
        """Who attends to whom where given frames stay apart, bool [R, 1, N, N]."""
        if not self.config.given_apart:
            return None
        given = clean.repeat_interleave(per_frame, dim=1)
        return (~given[:, :, None] | given[:, None])[:, None]

    def stack(
        self,
        x: Tensor,
        time: Tensor,
        shared: Tensor,
        text: list[KV],
        turn: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
        *,
        blocks: Sequence[Block] | None = None,
    ) -> Tensor:
        """Send [R, N, D] through all blocks or some; arguments as in `Block.forward`.

        A pure function of tensors on one device, so that it can be captured as a CUDA graph
        (policies/latency).
        """
        for block, kv in zip(self._blocks() if blocks is None else blocks, text, strict=True):
            x, _ = block(x, time, shared, kv, turn, None, mask)
        return x

    @staticmethod
    def _tokens(frames: Sequence[int], size: tuple[int, int]) -> list[int]:
        each = size[0] * size[1]
        return [f * each + i for f in frames for i in range(each)]
