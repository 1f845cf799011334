"""Pictures to continuous causal latents and back.

Two kinds: a shrunk Wan VAE, whose weights are part of the model's, for anything trained
here (`WanPart` trains it beforehand); and NVIDIA's Cosmos tokenizer as the TorchScript files
in which it is published.

Axes: B rows, T frames, C latent channels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.checkpoint import CheckpointMismatch, local_folder
from policies.flow_hwm.config import FlowHWMConfig
from policies.training.reconstruction import Quality, channel_scale, picture_error, vae_terms

if TYPE_CHECKING:
    from policies.flow_hwm.model import FlowHWM

ENCODER, DECODER = "encoder.jit", "decoder.jit"  # nvidia/Cosmos-0.1-Tokenizer-CV8x16x16


class Tokenizer(Protocol):
    """Encodes 1 + f n frames to 1 + n latents, each seeing no later frame."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode float [B, 3, T, H, W] in -1..1 to [B, C, T', H', W'], as the network takes it."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Decode the whole window's latents to [B, 3, T, H, W] in about -1..1."""
        ...


class WanTokenizer(nn.Module):
    """A Wan VAE (diffusers `AutoencoderKLWan`) shrunk to the config's `tokenizer_dim`.

    Temporal factor 4; spatial factor 8, of which 2 by cutting pictures into patches first, as
    Wan2.2's does, for speed. Latents are the posterior's mode, brought to unit size by means
    and spreads that `measure_scale` takes from an example; until then they are as they come.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: FlowHWMConfig) -> None:
        super().__init__()
        if (config.temporal_factor, config.spatial_factor) != (4, 8):
            raise ValueError(
                f"the Wan tokenizer compresses 4 x 8 x 8, the config says "
                f"{config.temporal_factor} x {config.spatial_factor} x {config.spatial_factor}"
            )
        z = config.latent_channels
        # the constructor is annotated for its defaults; its own means and stds are not used
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
        self.register_buffer("mean", torch.zeros(z))
        self.register_buffer("std", torch.ones(z))

    def encode(self, pixels: Tensor) -> Tensor:
        """As `Tokenizer.encode`."""
        return (self.posterior(pixels).mode() - _column(self.mean)) / _column(self.std)

    def decode(self, latents: Tensor) -> Tensor:
        """As `Tokenizer.decode`."""
        return self.draw(latents * _column(self.std) + _column(self.mean))

    def posterior(self, pixels: Tensor) -> Any:
        """Give diffusers' posterior of pixels, not normalised."""
        return cast(Any, self.vae.encode(pixels)).latent_dist

    def draw(self, raw: Tensor) -> Tensor:
        """Decode latents that are not normalised."""
        return cast(Any, self.vae.decode(raw)).sample

    @torch.no_grad()
    def measure_scale(self, pixels: Tensor) -> None:
        """Set means and spreads from an example [B, 3, T, H, W]."""
        self.take_scale(self.posterior(pixels).mode())

    @torch.no_grad()
    def take_scale(self, raw: Tensor) -> None:
        """Set means and spreads so that latents like `raw` [B, C, T', y, x] get unit size."""
        mean, std = channel_scale(raw)
        self.mean.copy_(mean)
        self.std.copy_(std)


class WanPart:
    """The Wan tokenizer of a model as a learner; see `policies.training.trainable.Part`.

    Args:
        owner: The model.
        wan: Its tokenizer.
    """

    prefixes = ("wan.",)

    def __init__(self, owner: FlowHWM, wan: WanTokenizer) -> None:
        self._owner, self._wan = owner, wan

    @property
    def batch_spec(self) -> BatchSpec:
        """The owner's: a latent draws on those before it, so each is learnt in its own place."""
        return self._owner.batch_spec

    def parameters(self) -> Iterable[nn.Parameter]:
        """The tokenizer's weights."""
        return self._wan.parameters()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms: "reconstruction" (`picture_error`), "kl" in nats a number, "total"."""
        pixels = self._pixels(batch)
        posterior = self._wan.posterior(pixels)
        error = picture_error(self._wan.draw(posterior.sample()), pixels)
        return vae_terms(error, posterior)

    def after_step(self) -> None:
        """Nothing."""

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Measure the latents' means and spreads, and how good pictures are: "psnr_db"."""
        quality, bgr = Quality(), self._owner.config.bgr
        raw: list[Tensor] = []
        for batch in batches:
            pixels = self._pixels(batch)
            raw.append(self._wan.posterior(pixels).mode())
            quality.add(to_frames(self._wan.draw(raw[-1]), bgr=bgr), to_frames(pixels, bgr=bgr))
        self._wan.take_scale(torch.cat(raw))
        return quality.numbers()

    def _pixels(self, batch: Batch) -> Tensor:
        config = self._owner.config
        frames = batch.at(config.camera, self.batch_spec.frame_offsets)
        return to_pixels(frames.to(self._wan.mean.device), bgr=config.bgr)


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


def _column(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1, 1)


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
