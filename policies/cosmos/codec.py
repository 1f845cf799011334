"""Pictures to latent slots and back, with the Wan2.1 video autoencoder.

A causal video model: a slot's latent depends on the slots before it and on none after, so
encoding only the slots that are needed from the start on gives the very same latents.

Source: NVlabs/cosmos-policy (slot order, read-out index (k - 1) * 4 + 1); autoencoder:
Wan2.1, through diffusers' `AutoencoderKLWan`, whose default latent statistics are the
published ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan, patchify
from torch import Tensor, nn

from policies.cosmos.config import VaeConfig
from policies.training.reconstruction import channel_scale

REPEATS = 4  # pixel frames per latent frame after the first


def build_vae(config: VaeConfig) -> AutoencoderKLWan:
    """Build the autoencoder with fresh weights."""
    sizes: dict[str, Any] = {
        "base_dim": config.base_dim,
        "z_dim": config.z_dim,
        "dim_mult": list(config.dim_mult),
        "num_res_blocks": config.num_res_blocks,
    }
    if config.patch > 1:
        channels = 3 * config.patch**2
        sizes.update(patch_size=config.patch, in_channels=channels, out_channels=channels)
        sizes.update(is_residual=True, decoder_base_dim=config.base_dim)
        # time is halved twice, in the last two levels
        spatial_only = len(config.dim_mult) - 1 - 2
        sizes.update(temperal_downsample=[False] * spatial_only + [True, True])
    if not config.normalise:
        sizes.update(latents_mean=[0.0] * config.z_dim, latents_std=[1.0] * config.z_dim)
    return AutoencoderKLWan(**sizes)


class Codec(nn.Module):
    """Slots of pictures to normalised latents, and back.

    The published latents' means and spreads are those of diffusers; an autoencoder that is
    trained here has its own, measured by `measure_scale` and stored with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.vae = build_vae(config)
        self._measured = not config.normalise
        if self._measured:
            self.register_buffer("mean", torch.zeros(config.z_dim))
            self.register_buffer("std", torch.ones(config.z_dim))

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1, 1, 1, 1)
        if self._measured:
            return self.mean.view(shape).to(like), self.std.view(shape).to(like)
        settings = cast(Any, self.vae.config)
        mean = torch.tensor(settings.latents_mean, device=like.device).view(shape)
        std = torch.tensor(settings.latents_std, device=like.device).view(shape)
        return mean.to(like.dtype), std.to(like.dtype)

    @torch.no_grad()
    def measure_scale(self, raw: Tensor) -> None:
        """Set means and spreads so that latents like `raw` [B, C, n, h, w] get unit size.

        Raises:
            ValueError: The configuration brings published ones.
        """
        if not self._measured:
            raise ValueError("this autoencoder has published latent statistics")
        mean, std = channel_scale(raw)
        self.mean.copy_(mean)
        self.std.copy_(std)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.vae.parameters()).dtype

    @property
    def _device(self) -> torch.device:
        return next(self.vae.parameters()).device

    def frames(self, slot: Tensor | None, size: tuple[int, int], rows: int, count: int) -> Tensor:
        """A slot as `count` equal frames of the video, [B, 3, count, H, W] in [-1, 1]."""
        if slot is None:
            slot = torch.zeros(rows, *size, 3, dtype=torch.uint8, device=self._device)
        pixels = slot.to(self._device).permute(0, 3, 1, 2).to(self._dtype) / 127.5 - 1.0
        return pixels[:, :, None].expand(-1, -1, count, -1, -1)

    def video(self, slots: Sequence[Tensor | None], size: tuple[int, int], rows: int) -> Tensor:
        """Lay slots out as the video that the autoencoder sees.

        Args:
            slots: Per slot a picture uint8 [B, H, W, 3], or None for black.
            size: (H, W).
            rows: B.

        Returns:
            [B, 3, 1 + 4 (n - 1), H, W] in [-1, 1].
        """
        counts = [1 if i == 0 else REPEATS for i in range(len(slots))]
        pairs = zip(slots, counts, strict=True)
        return torch.cat([self.frames(slot, size, rows, n) for slot, n in pairs], dim=2)

    def encode(self, slots: Sequence[Tensor | None], size: tuple[int, int], rows: int) -> Tensor:
        """Encode slots to the posterior's normalised mean, float32 [B, C, n, h, w]."""
        return self.encode_ends(slots, [()], size, rows)[0]

    @torch.no_grad()
    def encode_ends(
        self,
        start: Sequence[Tensor | None],
        ends: Sequence[Sequence[Tensor | None]],
        size: tuple[int, int],
        rows: int,
    ) -> list[Tensor]:
        """Encode videos that begin alike; what they share is encoded once.

        Args:
            start: The slots that they share, as `video` takes them.
            ends: The slots of each that follow.
            size: (H, W).
            rows: B.

        Returns:
            As from `encode`, one for each end.
        """
        begun = _Encoding(self, size)
        for slot in start:
            begun.add(slot)
        found: list[Tensor] = []
        for end in ends:
            own = begun.copy()
            for slot in end:
                own.add(slot)
            mean = torch.cat(own.means, dim=2).expand(rows, -1, -1, -1, -1)
            centre, spread = self._statistics(mean)
            found.append(((mean - centre) / spread).float())
        return found

    def posterior(self, video: Tensor) -> Any:
        """Give diffusers' posterior of a video [B, 3, 1 + 4 (n - 1), H, W], not normalised."""
        return cast(Any, self.vae.encode(video)).latent_dist

    def decode(self, latents: Tensor, slots: Sequence[int]) -> Tensor:
        """Decode latents [B, C, n, h, w] and give some slots' pictures, uint8 [B, k, H, W, 3]."""
        with torch.no_grad():
            z = latents[:, :, : max(slots) + 1].to(self._dtype)
            centre, spread = self._statistics(z)
            return self.draw(z * spread + centre, slots)

    def draw(self, raw: Tensor, slots: Sequence[int]) -> Tensor:
        """As `decode`, from latents that are not normalised."""
        video = cast(Any, self.vae.decode(raw)).sample
        pictures = video[:, :, [(k - 1) * REPEATS + 1 for k in slots]].float().clamp(-1.0, 1.0)
        return ((pictures + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1)

    def reconstruction_loss(self, slots: Sequence[Tensor | None], size: tuple[int, int]) -> Tensor:
        """Squared error of decoded pixels plus a small pull of latents towards unit size.

        For an autoencoder that is trained along with the transformer; trained by itself
        beforehand (`policies.cosmos.tokenizer`) it learns more. The weight 1e-3 keeps latents
        near the scale that the noise levels assume (sigma_data = 1).
        """
        rows = next(len(slot) for slot in slots if slot is not None)
        pixels = self.video(slots, size, rows)
        mean = self.posterior(pixels).mean
        decoded = cast(Any, self.vae.decode(mean)).sample
        return ((decoded - pixels) ** 2).mean() + 1e-3 * (mean**2).mean()


class _Encoding:
    """Slots put in one behind the other; a copy goes on by itself.

    As diffusers' `AutoencoderKLWan.encode` does it, piece by piece: what its convolutions keep
    of earlier frames is all that later latents know of them. Black slots that come first are
    the same in every row, so they are encoded for one.
    """

    def __init__(self, codec: Codec, size: tuple[int, int]) -> None:
        self._codec, self._size = codec, size
        convolutions: int = cast(Any, codec.vae)._cached_conv_counts["encoder"]
        self._kept: list[Tensor | None] = [None] * convolutions
        self._rows = 1
        self.means: list[Tensor] = []

    def copy(self) -> _Encoding:
        """Give another that has seen the same."""
        other = _Encoding(self._codec, self._size)
        other._kept, other._rows, other.means = list(self._kept), self._rows, list(self.means)
        return other

    def add(self, slot: Tensor | None) -> None:
        """Put in the next slot: uint8 [B, H, W, 3], or None for black."""
        if slot is not None and len(slot) != self._rows:
            self._rows = len(slot)
            self._kept = [x if x is None else self._spread(x) for x in self._kept]
            self.means = [self._spread(x) for x in self.means]
        wan = cast(Any, self._codec.vae)
        count = REPEATS if self.means else 1
        frames = self._codec.frames(slot, self._size, self._rows, count)
        if wan.config.patch_size is not None:
            frames = patchify(frames, patch_size=wan.config.patch_size)
        hidden = wan.encoder(frames, feat_cache=self._kept, feat_idx=[0])
        self.means.append(wan.quant_conv(hidden).chunk(2, dim=1)[0])

    def _spread(self, rows: Tensor) -> Tensor:
        return rows.expand(self._rows, *rows.shape[1:])
