"""Training of the small VAE, by itself and before the experts.

The published VAE is Wan2.2's and stays frozen; the tiny preset's has to be learnt from
simulator frames first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.training.reconstruction import Quality, picture_error, vae_terms

if TYPE_CHECKING:
    from policies.fastwam.model import FastWam

# Of so many samples one is learnt as a clip too, the others as single pictures: a clip costs
# as much as its frames do, and shows hardly more than one of them.
STILLS_A_CLIP = 6


class VaePart:
    """The video VAE of a model as a learner; see `policies.training.trainable.Part`.

    Args:
        model: Its owner.
    """

    prefixes: tuple[str, ...] = ("vae.",)

    def __init__(self, model: FastWam) -> None:
        self._model = model

    @property
    def batch_spec(self) -> BatchSpec:
        """The owner's: a latent draws on those before it, so each is learnt in its own place."""
        return self._model.batch_spec

    def parameters(self) -> Iterable[nn.Parameter]:
        """The VAE's weights."""
        return self._model.vae.parameters()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms: "reconstruction" (`picture_error`), "kl" in nats a number, "total".

        Each is the mean of what all samples' first frames and some samples' clips give.
        """
        from policies.fastwam.losses import batch_video

        video = batch_video(self._model, batch, self.batch_spec.frame_offsets)
        clips = video[: max(1, len(video) // STILLS_A_CLIP)]
        parts = [self._terms(video[:, :, :1]), self._terms(clips)]
        return {name: torch.stack([p[name] for p in parts]).mean() for name in parts[0]}

    def _terms(self, video: Tensor) -> dict[str, Tensor]:
        posterior = cast(Any, self._model.vae.wan.encode(video)).latent_dist
        found = cast(Any, self._model.vae.wan.decode(posterior.sample())).sample
        return vae_terms(picture_error(found, video), posterior)

    def after_step(self) -> None:
        """Nothing."""

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Measure the latents' mean and spread, and the VAE's quality."""
        from policies.fastwam.losses import batch_video

        model, quality = self._model, Quality()
        videos = [batch_video(model, b, self.batch_spec.frame_offsets) for b in batches]
        model.vae.measure_scale(torch.cat(videos))
        for video in videos:
            decoded = torch.from_numpy(model.vae.decode(model.vae.encode(video)))
            quality.add(decoded, ((video + 1.0) * 127.5).round().permute(0, 2, 3, 4, 1))
        return quality.numbers()
