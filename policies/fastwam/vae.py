"""The frozen Wan2.2 VAE (diffusers), with latents brought to unit size."""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn

from policies.fastwam.config import PIXEL_PATCH, VaeConfig
from policies.training.reconstruction import channel_scale
from wamsim.contracts import Frames

RGB = 3


class WanVae(nn.Module):
    """Videos to latents and back.

    The first latent frame is made of the first picture alone, each later one of four.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        channels = RGB * PIXEL_PATCH**2
        self.wan = AutoencoderKLWan(
            base_dim=config.base_dim,
            decoder_base_dim=config.decoder_base_dim,
            z_dim=config.z_dim,
            dim_mult=list(config.dim_mult),
            num_res_blocks=config.res_blocks,
            temperal_downsample=list(config.time_halved),  # diffusers spells it so
            is_residual=True,
            in_channels=channels,
            out_channels=channels,
            patch_size=PIXEL_PATCH,
            scale_factor_spatial=config.spatial,
            latents_mean=list(config.mean),
            latents_std=list(config.std),
        )
        self.register_buffer("mean", torch.zeros(config.z_dim))
        self.register_buffer("std", torch.ones(config.z_dim))
        self.set_scale()

    def set_scale(self) -> None:
        """Take mean and spread from the configuration, where it has them."""
        if self.config.mean and self.mean.device.type != "meta":
            self.mean.copy_(torch.tensor(self.config.mean))
            self.std.copy_(torch.tensor(self.config.std))

    @torch.no_grad()
    def measure_scale(self, video: Tensor) -> None:
        """Set mean and spread from an example, so that an untrained VAE gives unit latents."""
        raw = self._raw(video)
        mean, std = channel_scale(raw)
        self.mean.copy_(mean)
        self.std.copy_(std)

    @torch.no_grad()
    def encode(self, video: Tensor) -> Tensor:
        """Encode pixels in -1..1.

        The posterior's mean, as in Wan; nothing is drawn.

        Args:
            video: [B, 3, 1 + 4 F, H, W].

        Returns:
            [B, C, 1 + F, H / 16, W / 16], or eighths (`VaeConfig.spatial`).
        """
        raw = self._raw(video)
        return (raw - self._column(self.mean)) / self._column(self.std)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Frames:
        """Decode latents [B, C, 1 + F, h, w] to uint8 [B, 1 + 4 F, H, W, 3]."""
        raw = latents.to(self.mean.dtype) * self._column(self.std) + self._column(self.mean)
        out = cast(Any, self.wan.decode(raw)).sample.float().clamp(-1, 1)
        # truncated, as the repository's _decode_latents does
        pixels = ((out + 1.0) * 127.5).to(torch.uint8)
        return pixels.permute(0, 2, 3, 4, 1).cpu().numpy()

    def _raw(self, video: Tensor) -> Tensor:
        return cast(Any, self.wan.encode(video.to(self.mean.dtype))).latent_dist.mode()

    @staticmethod
    def _column(values: Tensor) -> Tensor:
        return values.view(1, -1, 1, 1, 1)
