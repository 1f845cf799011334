"""The video and the action expert: what stands before and after the shared blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from policies.fastwam.blocks import Block, KeyValue, rope_rates
from policies.fastwam.config import TOKEN_PATCH, ExpertConfig
from policies.fastwam.flow import TRAIN_STEPS, sinusoid
from policies.noise import carried


@dataclass(frozen=True)
class Stream:
    """Tokens of one expert on their way through the blocks.

    Attributes:
        blocks: The expert's blocks.
        x: [B, S, hidden].
        time: [B, S or 1, 6, hidden], projected timestep of every token.
        angles: [S, head_dim / 2], rotary angles.
        context: Keys and values of the context, per block.
    """

    blocks: nn.ModuleList
    x: Tensor
    time: Tensor
    angles: Tensor
    context: list[KeyValue]


class Expert(nn.Module):
    """What both experts have: context and time embeddings, blocks."""

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.config = config
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, hidden),
            nn.GELU(approximate="tanh"),
            nn.Linear(hidden, hidden),
        )
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return as_block(self.blocks[0]).modulation.dtype

    @property
    def learns(self) -> bool:
        """Whether it is not frozen."""
        return as_block(self.blocks[0]).modulation.requires_grad

    def context(self, tokens: Tensor) -> list[KeyValue]:
        """Project context tokens [B, L, text_dim] to every block's keys and values.

        They do not depend on what is denoised, so once per query is enough (exact).
        """
        embedded = self.text_embedding(tokens)
        return [as_block(b).cross_attn.key_value(embedded) for b in self.blocks]

    def time(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Embed timesteps [B, F] in 0..1000.

        Returns:
            [B, F, hidden] for the head, [B, F, 6, hidden] for the blocks.
        """
        embedded = self.time_embedding(sinusoid(timestep, self.config.freq_dim).to(self.dtype))
        return embedded, self.time_projection(embedded).unflatten(-1, (6, -1))


def as_block(module: nn.Module) -> Block:
    """Tell the type checker that a module of `blocks` is a `Block`."""
    assert isinstance(module, Block)
    return module


class VideoHead(nn.Module):
    """Norm, shift and scale by the timestep, one linear map to a patch."""

    def __init__(self, hidden: int, out: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, eps, elementwise_affine=False)
        self.head = nn.Linear(hidden, out)
        self.modulation = nn.Parameter(torch.randn(1, 2, hidden) / hidden**0.5)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map [B, S, hidden] with time [B, S, hidden] to [B, S, out]."""
        both = self.modulation.to(time.dtype)[:, None] + time[:, :, None]
        shift, scale = both.unbind(dim=2)
        return self.head(self.norm(x) * (1 + scale) + shift)


class VideoExpert(Expert):
    """Wan2.2-TI2V-5B's transformer with a timestep per token.

    Args:
        config: Sizes.
        channels: Latent channels.
        carry_noise: Whether what of a velocity follows from the noisy latents alone goes past
            the network, see `policies.noise.carried`.
    """

    def __init__(self, config: ExpertConfig, channels: int, *, carry_noise: bool = False) -> None:
        super().__init__(config)
        patch = (1, TOKEN_PATCH, TOKEN_PATCH)
        self.channels, self.carry_noise = channels, carry_noise
        self.patch_embedding = nn.Conv3d(channels, config.hidden, patch, stride=patch)
        self.head = VideoHead(config.hidden, channels * TOKEN_PATCH**2, config.eps)

    def stream(
        self, latents: Tensor, timestep: Tensor, context: list[KeyValue], *, first: int = 0
    ) -> Stream:
        """Turn latents into tokens.

        Args:
            latents: [B, C, F, h, w].
            timestep: [B, F]: one per latent frame; 0 says that the frame is clean.
            context: From `context`.
            first: Place of the first of the F frames in the video.
        """
        grid = self.patch_embedding(latents)
        _, _, frames, height, width = grid.shape
        _, time = self.time(timestep)
        return Stream(
            blocks=self.blocks,
            x=grid.flatten(2).transpose(1, 2),
            time=time.repeat_interleave(height * width, dim=1),
            angles=self._angles(range(first, first + frames), height, width, grid.device),
            context=context,
        )

    def read(self, x: Tensor, timestep: Tensor, latents: Tensor) -> Tensor:
        """Turn tokens into a velocity.

        Args:
            x: [B, S, hidden].
            timestep: [B, F].
            latents: [B, C, F, h, w], those that the tokens came from.

        Returns:
            [B, C, F, h, w].
        """
        _, channels, frames, height, width = latents.shape
        embedded, _ = self.time(timestep)
        out = self.head(x, embedded.repeat_interleave(x.shape[1] // frames, dim=1))
        # Within a token: row, column, channel (Wan2.2 modules/model.py, `unpatchify`).
        p = TOKEN_PATCH
        out = out.reshape(-1, frames, height // p, width // p, p, p, channels)
        out = out.permute(0, 6, 1, 2, 4, 3, 5).reshape(-1, channels, frames, height, width)
        if not self.carry_noise:
            return out
        return out + carried(latents, timestep.to(out)[:, None, :, None, None] / TRAIN_STEPS)

    def _angles(self, frames: range, height: int, width: int, device: torch.device) -> Tensor:
        """Rotary angles of all tokens: 44, 42 and 42 of 128 channels for time, row, column."""
        side = 2 * (self.config.head_dim // 6)
        rates = (
            rope_rates(self.config.head_dim - 2 * side, device),
            rope_rates(side, device),
            rope_rates(side, device),
        )
        places = (
            torch.arange(frames.start, frames.stop, device=device),
            torch.arange(height, device=device),
            torch.arange(width, device=device),
        )
        grid = torch.meshgrid(*places, indexing="ij")
        return torch.cat(
            [g.flatten()[:, None].double() * r for g, r in zip(grid, rates, strict=True)], dim=-1
        )


class ActionExpert(Expert):
    """The repository's ActionDiT: narrower than its attention, with a plain linear head."""

    def __init__(self, config: ExpertConfig, action_dim: int) -> None:
        super().__init__(config)
        self.action_encoder = nn.Linear(action_dim, config.hidden)
        self.head = nn.Linear(config.hidden, action_dim)

    def stream(self, actions: Tensor, timestep: Tensor, context: list[KeyValue]) -> Stream:
        """Turn noisy actions [B, H, A] at timestep [B] into tokens; positions 0..H-1."""
        _, time = self.time(timestep[:, None])
        steps = torch.arange(actions.shape[1], device=actions.device, dtype=torch.float64)
        return Stream(
            blocks=self.blocks,
            x=self.action_encoder(actions),
            time=time,
            angles=steps[:, None] * rope_rates(self.config.head_dim, actions.device),
            context=context,
        )

    def read(self, x: Tensor) -> Tensor:
        """Turn tokens [B, H, hidden] into a velocity [B, H, A]."""
        return self.head(x)
