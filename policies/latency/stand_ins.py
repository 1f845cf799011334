"""What stands where a measurement leaves something out, or runs it in a lower precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class FixedText(nn.Module):
    """Text features of any instruction, drawn once and kept on the device."""

    def __init__(self, shape: tuple[int, int], device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator(device).manual_seed(0)
        features = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
        self.register_buffer("features", (0.1 * features).to(dtype))

    def embed(self, instructions: Sequence[str]) -> Tensor:
        """Features [B, L, D] of B instructions."""
        features: Any = self.features
        return features.expand(len(instructions), -1, -1)

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """As `embed`."""
        return self.embed(prompts)


class PoolingTokenizer:
    """Video latents by averaging: right shapes, no weights.

    Args:
        channels: Of a latent.
        temporal, spatial: Factors.
    """

    def __init__(self, channels: int, temporal: int, spatial: int) -> None:
        self._channels, self._factors = channels, (temporal, spatial)

    def encode(self, pixels: Tensor) -> Tensor:
        """[B, 3, 1 + f n, H, W] to [B, C, 1 + n, H / s, W / s]."""
        f, s = self._factors
        first = pixels[:, :, :1].expand(-1, -1, f - 1, -1, -1)
        pooled = functional.avg_pool3d(torch.cat([first, pixels], 2), (f, s, s))
        return pooled.repeat(1, -(-self._channels // 3), 1, 1, 1)[:, : self._channels]

    def decode(self, latents: Tensor) -> Tensor:
        """Repeat each latent's first three channels over its frames and pixels."""
        f, s = self._factors
        big = latents[:, :3].repeat_interleave(f, 2).repeat_interleave(s, 3)
        return big.repeat_interleave(s, 4)[:, :, f - 1 :]


class Autocast:
    """A policy or world model whose arithmetic runs in a lower precision.

    For families that are written for float32: weights are in `dtype` already, and what must
    not lose precision (norms, softmax) is computed in float32 as autocast decides.
    """

    def __init__(self, subject: Any, device: torch.device, dtype: torch.dtype) -> None:
        self._subject, self._device, self._dtype = subject, device, dtype
        self.card = subject.card

    @contextlib.contextmanager
    def _lowered(self) -> Iterator[None]:
        # no cache of cast weights: it would not survive a CUDA graph, and there are none
        with torch.autocast(self._device.type, self._dtype, cache_enabled=False):
            yield

    def act(self, obs: Any) -> Any:
        """As the policy's."""
        with self._lowered():
            return self._subject.act(obs)

    def imagine(self, *args: Any) -> Any:
        """As the world model's."""
        with self._lowered():
            return self._subject.imagine(*args)
