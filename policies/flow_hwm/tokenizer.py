"""Pictures to continuous causal latents and back.

Two kinds: a shrunk Wan VAE, whose weights are part of the model's, for anything trained
here; and NVIDIA's Cosmos tokenizer as the TorchScript files in which it is published.

Axes: B rows, T frames, C latent channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn

from policies.checkpoint import CheckpointMismatch, local_folder
from policies.flow_hwm.config import FlowHWMConfig

ENCODER, DECODER = "encoder.jit", "decoder.jit"  # nvidia/Cosmos-0.1-Tokenizer-CV8x16x16


class Tokenizer(Protocol):
    """Encodes 1 + f n frames to 1 + n latents, each seeing no later frame."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode float [B, 3, T, H, W] in -1..1 to [B, C, T', H', W'], unscaled."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode the whole window's latents to [B, 3, T, H, W] in about -1..1."""
        ...


class WanTokenizer(nn.Module):
    """A Wan VAE (diffusers `AutoencoderKLWan`) shrunk to the config's `tokenizer_dim`.

    Temporal factor 4; spatial factor 8, of which 2 by cutting pictures into patches first, as
    Wan2.2's does, for speed. Latents are the posterior's mode.
    """

    def __init__(self, config: FlowHWMConfig) -> None:
        super().__init__()
        if (config.temporal_factor, config.spatial_factor) != (4, 8):
            raise ValueError(
                f"the Wan tokenizer compresses 4 x 8 x 8, the config says "
                f"{config.temporal_factor} x {config.spatial_factor} x {config.spatial_factor}"
            )
        z = config.latent_channels
        # the constructor is annotated for its defaults; the means and stds are not used here
        arguments: dict[str, Any] = {
            "base_dim": config.tokenizer_dim,
            "z_dim": z,
            "dim_mult": [1, 2, 2],
            "num_res_blocks": 1,
            "temperal_downsample": [True, True],
            "patch_size": 2,
            "in_channels": 12,  # 3 colours x 2 x 2
            "out_channels": 12,
            "latents_mean": [0.0] * z,
            "latents_std": [1.0] * z,
        }
        self.vae = AutoencoderKLWan(**arguments)

    def encode(self, pixels: Tensor) -> Tensor:
        """As `Tokenizer.encode`."""
        return self.vae.encode(pixels).latent_dist.mode()  # type: ignore[union-attr]

    def decode(self, latents: Tensor) -> Tensor:
        """As `Tokenizer.decode`."""
        return self.vae.decode(latents).sample  # type: ignore[union-attr]


class CosmosTokenizer:
    """NVIDIA's continuous video tokenizer, from its TorchScript files.

    No `nn.Module`, so that its weights stay out of the model's.

    Args:
        source: Folder or hub id with encoder.jit and decoder.jit.
        device: Where to.

    Raises:
        CheckpointMismatch: A file is missing.
    """

    def __init__(self, source: str | Path, device: torch.device | str = "cpu") -> None:
        folder = local_folder(source)
        missing = [name for name in (ENCODER, DECODER) if not (folder / name).exists()]
        if missing:
            raise CheckpointMismatch(
                f"no {' and no '.join(missing)}; take a continuous Cosmos tokenizer such as "
                f"nvidia/Cosmos-0.1-Tokenizer-CV8x16x16. Folder: {folder}"
            )
        self._encoder = torch.jit.load(str(folder / ENCODER), map_location=device).eval()
        self._decoder = torch.jit.load(str(folder / DECODER), map_location=device).eval()
        # published in bfloat16; files without weights run as they are given
        dtypes = [p.dtype for p in self._encoder.parameters()]
        self._dtype = dtypes[0] if dtypes else torch.float32

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """As `Tokenizer.encode`."""
        found: Any = self._encoder(pixels.to(self._dtype))
        # the published encoder gives a tuple whose first part are the latents
        return (found[0] if isinstance(found, tuple | list) else found).to(pixels.dtype)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """As `Tokenizer.decode`."""
        return self._decoder(latents.to(self._dtype)).to(latents.dtype)


def to_pixels(frames: Tensor, *, bgr: bool) -> Tensor:
    """Scale uint8 [B, T, H, W, 3] RGB to float [B, 3, T, H, W] in -1..1 (x / 255 * 2 - 1)."""
    pixels = frames.permute(0, 4, 1, 2, 3).float() / 255.0 * 2.0 - 1.0
    return pixels.flip(1) if bgr else pixels


def to_frames(pixels: Tensor, *, bgr: bool) -> Tensor:
    """Undo `to_pixels`, rounded to the nearest level and clipped."""
    if bgr:
        pixels = pixels.flip(1)
    levels = ((pixels.float() + 1.0) / 2.0).clamp(0.0, 1.0) * 255.0
    return levels.round().to(torch.uint8).permute(0, 2, 3, 4, 1)
