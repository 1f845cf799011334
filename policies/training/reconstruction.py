"""How small picture and video tokenizers learn, and how good they are."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Of the mean absolute error, beside four times the mean square (which is the square in units
# of the picture's range). Squares keep the colours of small things, which a median drops:
# absolute errors alone, even weighted by how much a pixel stands out, drew tabletop's red
# ketchup brown, at 21.1 dB after 200 steps of 8, where these gave 22.0 (DECISIONS 44).
ABSOLUTE_WEIGHT = 0.25
# Rombach et al. 2022 (arXiv:2112.10752), section 3.1: a slight penalty towards the unit normal
KL_WEIGHT = 1e-6
# Log variance of an untrained posterior, less than a plain layer's: else its noise, as large as
# the latents themselves, takes most of a short training to die away. 24.8 dB in place of 23.9
# after 400 steps of 4 (DECISIONS 44).
NARROW = 6.0
SPREAD_FLOOR = 1e-3  # of a latent channel that never changes


def picture_error(found: Tensor, real: Tensor) -> Tensor:
    """Score drawn pictures, both of one shape in -1..1.

    Returns:
        A scalar: 4 mean (found - real)^2 + ABSOLUTE_WEIGHT mean |found - real|.
    """
    away = found - real
    return 4.0 * away.square().mean() + ABSOLUTE_WEIGHT * away.abs().mean()


@torch.no_grad()
def begin_narrow(wan: Any) -> None:
    """Let the posterior of an untrained AutoencoderKLWan (diffusers) begin with little noise."""
    bias: Tensor = wan.quant_conv.bias  # means, then log variances
    bias[len(bias) // 2 :] -= NARROW


def vae_terms(error: Tensor, posterior: Any) -> dict[str, Tensor]:
    """Give a VAE's loss terms.

    Args:
        error: Of the reconstruction, a scalar.
        posterior: diffusers' diagonal Gaussian over latents.

    Returns:
        "reconstruction", "kl" in nats a number, and "total".
    """
    kl = posterior.kl().sum() / posterior.mean.numel()
    return {"reconstruction": error, "kl": kl, "total": error + KL_WEIGHT * kl}


def channel_scale(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each channel of latents [B, C, ...], both [C]; the spread never 0."""
    over = [axis for axis in range(latents.ndim) if axis != 1]
    return latents.mean(dim=over), latents.std(dim=over).clamp_min(SPREAD_FLOOR)


def synthetic_video(
    clips: int, frames: int, size: tuple[int, int], *, moments: int | None = None
) -> Tensor:
    """Smooth random pictures that drift: something to measure an untrained tokenizer on.

    Args:
        clips, frames: How many (B, T).
        size: (height, width).
        moments: Random pictures a clip, between which it drifts; None takes a quarter of
            the frames.

    Returns:
        [B, 3, T, height, width] in -1..1, from torch's generator.
    """
    moments = max(2, frames // 4) if moments is None else moments
    coarse = torch.rand(clips, 3, moments, size[0] // 8, size[1] // 8)
    return F.interpolate(coarse, size=(frames, *size), mode="trilinear") * 2.0 - 1.0


class Quality:
    """Reconstruction quality, pooled over many clips."""

    def __init__(self) -> None:
        self._squares, self._count = 0.0, 0

    def add(self, found: Tensor, real: Tensor) -> None:
        """Add clips, both in 0..255, of equal shape."""
        error = found.double() - real.double()
        self._squares += float(error.square().sum())
        self._count += error.numel()

    def numbers(self) -> dict[str, float]:
        """Give "psnr_db": 10 log10(255^2 / mean squared error)."""
        mean = torch.tensor(self._squares / max(self._count, 1))
        return {"psnr_db": float(10.0 * torch.log10(255.0**2 / mean))}
