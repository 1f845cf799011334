"""Training of the small autoencoder, by itself and before the transformer.

The published one is Wan2.1's and stays frozen; the tiny preset's has to be learnt from
simulator frames first, laid out as slots lay them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.cosmos.codec import REPEATS
from policies.cosmos.layout import SlotKind
from policies.training.reconstruction import Quality, picture_error, vae_terms

if TYPE_CHECKING:
    from policies.cosmos.model import CosmosModel

WHOLE = 4  # the whole layout costs more than twice as much, and shows little that is new
# Of so many samples one is learnt in the layout, beside all samples' pictures as stills: in its
# slot a picture costs six times as much (black slots before it, four frames each) and shows no
# more.
STILLS_A_CLIP = 8


class CodecPart:
    """The autoencoder of a model as a learner; see `policies.training.trainable.Part`.

    What pictures look like it learns from the present's, each a video of one frame; slots from
    some samples' layouts: mostly up to the present's pictures, in one batch of `WHOLE` (drawn
    by its seeds) up to the future's, which come after the present's and after black slots.
    Black slots are part of the clip and none of the loss.

    Args:
        model: Its owner.
    """

    prefixes: tuple[str, ...] = ("codec.",)

    def __init__(self, model: CosmosModel) -> None:
        self._model = model

    @property
    def batch_spec(self) -> BatchSpec:
        """The owner's: the present and the chunk's end."""
        return self._model.batch_spec

    def parameters(self) -> Iterable[nn.Parameter]:
        """The autoencoder's weights."""
        return self._model.codec.parameters()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms: "reconstruction" (`picture_error`), "kl" in nats a number, "total".

        Each is the mean of what stills and layouts give.
        """
        codec, layout = self._model.codec, self._model.config.layout
        pictures = self._pictures(batch)
        now = torch.cat([pictures[k] for k in layout.places(SlotKind.IMAGE)])
        stills = codec.video([now], self._model.config.image_size, len(now))
        clips = max(1, batch.size // STILLS_A_CLIP)
        future = batch.seed is None or int(batch.seed.sum()) % WHOLE == 0
        some = {k: picture[:clips] for k, picture in pictures.items()}
        video, places = self._clip(some, clips, future=future)
        parts = [
            self._terms(stills, lambda frames: [frames]),
            self._terms(video, lambda frames: [_slot(frames, k) for k in places]),
        ]
        return {name: torch.stack([p[name] for p in parts]).mean() for name in parts[0]}

    def _terms(self, video: Tensor, shown: Callable[[Tensor], list[Tensor]]) -> dict[str, Tensor]:
        posterior = self._model.codec.posterior(video)
        found = cast(Any, self._model.codec.vae.decode(posterior.sample())).sample
        pairs = zip(shown(found), shown(video), strict=True)
        return vae_terms(torch.stack([picture_error(f, v) for f, v in pairs]).mean(), posterior)

    def after_step(self) -> None:
        """Nothing."""

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Measure the pictures' latents and how good they are: "psnr_db" of drawn pictures."""
        codec, quality = self._model.codec, Quality()
        raw: list[Tensor] = []
        for batch in batches:
            pictures = self._pictures(batch)
            video, places = self._clip(pictures, batch.size, future=True)
            mean = codec.posterior(video).mean
            drawn = codec.draw(mean, places)
            quality.add(drawn.cpu(), torch.stack([pictures[k] for k in places], dim=1))
            raw.append(mean[:, :, places])
        codec.measure_scale(torch.cat(raw))
        return quality.numbers()

    def _pictures(self, batch: Batch) -> dict[int, Tensor]:
        from policies.cosmos.training import pictures_of  # it needs the model's types

        return pictures_of(self._model, batch)

    def _clip(
        self, pictures: dict[int, Tensor], rows: int, *, future: bool
    ) -> tuple[Tensor, list[int]]:
        """Lay pictures out up to the present's or the future's last; with their slots."""
        layout = self._model.config.layout
        kinds = (SlotKind.IMAGE, SlotKind.FUTURE_IMAGE) if future else (SlotKind.IMAGE,)
        places = list(layout.places(*kinds))
        laid = [pictures.get(i) for i in range(places[-1] + 1)]
        return self._model.codec.video(laid, self._model.config.image_size, rows), places


def _slot(video: Tensor, k: int) -> Tensor:
    """Frames of slot k > 0 of a video [B, 3, 1 + 4 (n - 1), H, W]."""
    first = (k - 1) * REPEATS + 1
    return video[:, :, first : first + REPEATS]
