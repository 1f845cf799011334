"""Cosmos Policy's model: transformer, autoencoder and text features over latent slots.

Axes: B rows of a batch, R rows of one sampler run, C h w of a latent frame, T slots.
Source: NVlabs/cosmos-policy; arXiv 2601.16163.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.changes import ToldAsChanges
from policies.checkpoint import STATISTICS, Identity, Pretrained, Statistics, local_folder
from policies.cosmos import diffusion, slots
from policies.cosmos.codec import REPEATS, Codec
from policies.cosmos.config import CosmosConfig
from policies.cosmos.layout import Mode, SlotKind
from policies.cosmos.net import KV, CleanBank, CosmosNet
from policies.cosmos.text import TextSource, WordText
from policies.cosmos.tokenizer import CodecPart
from policies.noise import carried, noise_from_seeds
from policies.preprocess import ImageSteps
from policies.training.backbone import BackbonePart, Reading
from policies.training.reconstruction import begin_narrow, synthetic_video
from policies.training.trainable import Part
from wamsim.conventions import Orientation
from wamsim.errors import WamsimError

FAMILY_NAME = "cosmos"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reuse:
    """What one sampler run computes once. The first is exact, the second not always.

    Attributes:
        text: Cross-attention keys and values of the text serve all steps (exact).
        clean: Self-attention keys and values of clean slots serve all steps, although they
            would move with the noised ones (approximate, but for networks with `given_apart`).
    """

    text: bool = True
    clean: bool = False


class CosmosModel(nn.Module, Pretrained, ToldAsChanges):
    """One network that is policy, world model and value, by which slots are clean."""

    def __init__(self, config: CosmosConfig) -> None:
        super().__init__()
        self.config = config
        self.identity = Identity(family=FAMILY_NAME, variant=config.variant, preset=config.preset)
        self.net = CosmosNet(config.net)
        self.codec = Codec(config.vae)
        self.text = WordText(config.text, config.net.text_dim) if config.text.own else None
        self._features: TextSource | None = None
        layout = config.layout
        self.set_statistics(
            Statistics.identity(
                {"action": layout.action_convention.dim, "proprio": layout.proprio_convention.dim}
            )
        )
        # Published: only the transformer is trained
        self.codec.requires_grad_(config.autoencoder_loss > 0)

    # ------------------------------------------------------------------ weights, statistics

    @classmethod
    def config_type(cls) -> type[CosmosConfig]:
        """The class of `config`."""
        return CosmosConfig

    def set_statistics(self, statistics: Statistics) -> None:
        """Take a data set's ranges.

        Raises:
            CheckpointMismatch: Missing, or of other dimensions.
        """
        self.normaliser = slots.Normaliser(
            statistics, self.config.layout, action_deviations=self.config.action_deviations
        )
        self.statistics = statistics

    def set_features(self, source: TextSource) -> None:
        """Take text features from outside (the published presets have no encoder inside)."""
        self._features = source

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        (save_directory / STATISTICS).write_text(self.statistics.to_json())

    @classmethod
    def load(cls, source: str | Path, *, expect: Identity | None = None) -> Self:
        """Load weights and, where they lie beside, statistics; see `Pretrained.load`."""
        folder = local_folder(source)
        model = super().load(folder, expect=expect)
        path = folder / STATISTICS
        if path.exists():
            model.set_statistics(Statistics.from_json(path.read_text()))
        return model.eval()

    # ------------------------------------------------------------------------ slots

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent frame."""
        return (self.config.net.channels, *self.config.latent_size)

    def embed_text(self, instructions: Sequence[str]) -> Tensor:
        """Text features [B, L, D].

        Raises:
            InstructionTooLong, UnknownName: As the source of features says.
            WamsimError: A published preset has been given no source.
        """
        source = self.text or self._features
        if source is None:
            raise WamsimError(
                "this preset takes text features from outside: add --set text_encoder=... "
                "(T5-11B) or a checkpoint that brings a *_t5_embeddings.pkl"
            )
        weight = next(self.net.parameters())
        return source.embed(instructions).to(weight.device, weight.dtype)

    def encode_pictures(
        self, pictures: Mapping[int, Tensor], rows: int, *, count: int | None = None
    ) -> Tensor:
        """Encode pictures in their slots; all other slots are black.

        Args:
            pictures: Slot -> processed uint8 [B, H, W, 3].
            rows: B.
            count: Only so many slots from the start; None for all.

        Returns:
            float32 [B, C, count, h, w].
        """
        total = len(self.config.layout.slots) if count is None else count
        laid = [pictures.get(i) for i in range(total)]
        return self.codec.encode(laid, self.config.image_size, rows)

    def standing(self, pictures: Mapping[int, Tensor], rows: int) -> Tensor:
        """Encode a video in which nothing moves: the future's slots show the present's pictures.

        Args:
            pictures: As `encode_pictures`; the present's are looked at.
            rows: B.

        Returns:
            float32 [B, C, n, h, w]: all n slots from the first to the future's last picture.
        """
        layout = self.config.layout
        now, then = layout.places(SlotKind.IMAGE), layout.places(SlotKind.FUTURE_IMAGE)
        copies = {later: pictures[i] for i, later in zip(now, then, strict=True)}
        laid = {i: pictures[i] for i in now} | copies
        return self.encode_pictures(laid, rows, count=then[-1] + 1)

    def inject(self, latents: Tensor, kind: SlotKind, values: Tensor) -> Tensor:
        """Overwrite a slot with tiled numbers, already scaled; gives a new tensor.

        Args:
            latents: [B, C, T, h, w].
            kind: Which slot.
            values: [B, ...]; the value slot takes [B].
        """
        out = latents.clone()
        row = values[:, None] if values.ndim == 1 else values
        place = self.config.layout.place(kind)
        out[:, :, place] = slots.tile(row.to(latents), self.frame_shape, patch=self._tile_patch)
        return out

    def read(self, latents: Tensor, kind: SlotKind) -> Tensor:
        """Read numbers out of a slot, in their own units, float32.

        Returns:
            Actions [B, H, A], proprioception [B, P] or success probability [B].
        """
        layout = self.config.layout
        frame = latents[:, :, layout.place(kind)].float()
        if kind is SlotKind.VALUE:
            return slots.success_probability(frame)
        what, shape = "proprio", (layout.proprio_convention.dim,)
        if kind is SlotKind.ACTION:
            what, shape = "action", (layout.horizon, layout.action_convention.dim)
        numbers = slots.untile(frame, shape, patch=self._tile_patch)
        return self.normaliser.restore(what, numbers)

    @property
    def _tile_patch(self) -> int:
        return self.config.net.patch if self.config.tile_by_token else 0

    # --------------------------------------------------------------------- denoising

    def estimate(
        self,
        x: Tensor,
        sigma: Tensor,
        given: Tensor,
        clean: Tensor,
        text: list[KV],
        *,
        bank: CleanBank | None = None,
    ) -> Tensor:
        """Estimate the clean latents from noised ones.

        Args:
            x: Noised [R, C, T, h, w], any float type.
            sigma: [R].
            given: Clean latents; only the clean frames are looked at.
            clean: bool [R, T].
            text: Keys and values of the text.
            bank: See `CleanBank`.

        Returns:
            float32 (or wider) [R, C, T, h, w]; clean frames are `given` itself.
        """
        t = diffusion.flow_time(sigma).to(x.device, x.dtype)[:, None, None, None, None]
        frames = clean[:, None, :, None, None]
        weight = next(self.net.parameters())
        entered = torch.where(frames, given.to(x), (1.0 - t) * x).to(weight.dtype)
        timesteps = torch.where(clean, torch.zeros_like(t[:, :, 0, 0, 0]), t[:, :, 0, 0, 0])
        out = self.net(entered, clean, timesteps.float(), text, bank=bank).to(x.dtype)
        noisy = (1.0 - t) * x
        if self.config.carry_noise:
            out = out + carried(noisy, t)
        return torch.where(frames, given.to(x), noisy - t * out)

    @torch.no_grad()
    def generate(
        self,
        given: Tensor,
        mode: Mode,
        text: Tensor,
        seeds: NDArray[np.uint64],
        *,
        streams: Sequence[int] = (0,),
        steps: int | None = None,
        reuse: Reuse | None = None,
    ) -> Tensor:
        """Denoise every slot that a mode predicts.

        Args:
            given: float32 [R, C, T, h, w] with R = B * streams, streams last; the clean
                slots are read.
            mode: Which slots those are.
            text: Features [B, L, D].
            seeds: uint64 [B]; noise depends on a row's seed and stream alone.
            streams: Draws within the query, one per proposal or ensemble member.
            steps: Network evaluations; None takes the config's.
            reuse: What is computed once; None takes the exact part.

        Returns:
            float32 [R, C, T, h, w] with the clean slots as given.
        """
        reuse = reuse or Reuse()
        pattern = self.config.layout.clean(mode)
        clean = torch.tensor(pattern, device=given.device).expand(len(given), -1)
        drawn = [noise_from_seeds(seeds, given.shape[1:], stream=s) for s in streams]
        noise = torch.stack(drawn, dim=1).flatten(0, 1).to(given.device)
        sigmas = diffusion.row_grids(self.config.sampler, seeds, steps=steps, streams=streams)
        once = self._text_keys(text, len(streams)) if reuse.text else None
        bank = CleanBank(tuple(i for i, c in enumerate(pattern) if c)) if reuse.clean else None

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            keys = self._text_keys(text, len(streams)) if once is None else once
            return self.estimate(x, sigma, given, clean, keys, bank=bank)

        return diffusion.sample(denoise, noise, sigmas).float()

    def _text_keys(self, text: Tensor, repeats: int) -> list[KV]:
        """Keys and values of the text, computed once per instruction and repeated per stream."""
        found = self.net.text_key_values(text)
        if repeats == 1:
            return found
        return [
            (k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)) for k, v in found
        ]

    # ---------------------------------------------------------------------- training

    @property
    def batch_spec(self) -> BatchSpec:
        """What `loss` needs of each sample: the present and the chunk's end."""
        layout, size = self.config.layout, self.config.render_size
        return BatchSpec(
            cameras=layout.cameras,
            image_size=(size[0], size[1]),
            frame_offsets=(0, layout.horizon),
            horizon=layout.horizon,
            action=layout.action_convention,
            proprio=layout.proprio_convention,
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Every term by name and their sum, "total"; see `policies.cosmos.training`."""
        from policies.cosmos.training import loss  # it needs this module's types

        return loss(self, batch)

    def frozen_features(self, batch: Batch) -> dict[str, Tensor]:
        """Latents of the batch's pictures, "pictures" [B, C, pictures, h, w].

        And "standing" (see `standing`) where futures are changes. Empty where they change from
        epoch to epoch: with augmentation, or while the autoencoder is trained along.
        """
        from policies.cosmos.training import picture_latents, pictures_of

        if self.config.augment or self.config.autoencoder_loss > 0:
            return {}
        return picture_latents(self, pictures_of(self, batch), batch.size)

    def parts(self) -> dict[str, Part]:
        """What is trained by itself beforehand.

        "backbone" is the transformer as it looks at the present's slots; it learns to denoise
        along, as the published one starts from a video model. "tokenizer" is an autoencoder of
        our own where there is one.
        """
        found: dict[str, Part] = {"backbone": self._backbone()}
        if not self.config.vae.normalise:
            found["tokenizer"] = CodecPart(self)
        return found

    def _backbone(self) -> BackbonePart:
        from policies.cosmos.training import loss, present_latents, present_pictures, weighted

        config, layout = self.config, self.config.layout
        fixed = not config.augment and config.autoencoder_loss == 0

        def frozen(batch: Batch) -> dict[str, Tensor]:
            if len(batch.frame_offsets) > 1:  # demonstrations, not looks
                return self.frozen_features(batch)
            return {"pictures": present_pictures(self, batch)}

        def read(batch: Batch) -> Reading:
            given = present_latents(self, batch)
            text = self.net.text_key_values(self.embed_text(batch.instruction))
            tokens = self.net.look(given, text)
            return Reading(
                out=tokens.flatten(1, 3), seen=tokens[:, list(layout.places(SlotKind.IMAGE))]
            )

        def along(batch: Batch) -> dict[str, Tensor]:
            terms = loss(self, batch)
            del terms["total"]
            return weighted(config, terms)

        return BackbonePart(
            self,
            prefixes=("net.", "text."),
            spec=dataclasses.replace(self.batch_spec, keyframe=True),
            read=read,
            width=config.net.width,
            orientation=Orientation.UPRIGHT,
            whole=all(step.keeps_all for step in config.images),
            frozen=frozen if fixed else None,
            along=along,
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """As `loss`, for wrappers that call modules."""
        return self.loss(batch)


def build(config: CosmosConfig, *, init_seed: int) -> CosmosModel:
    """Build an untrained model; its weights are a function of `init_seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        model = CosmosModel(config).eval()
        if not config.vae.normalise:  # an untrained autoencoder, too, gives latents of unit size
            begin_narrow(model.codec.vae)
            with torch.no_grad():
                video = synthetic_video(4, 1 + 2 * REPEATS, config.image_size)
                model.codec.measure_scale(model.codec.posterior(video).mean)
        return model


def process(steps: Sequence[ImageSteps], pictures: NDArray[np.uint8]) -> Tensor:
    """Apply a picture protocol to [..., H, W, 3]; uint8 tensor."""
    for step in steps:
        pictures = step.apply(pictures)
    return torch.from_numpy(np.ascontiguousarray(pictures))


def to_numpy(x: Tensor) -> NDArray[Any]:
    """Give a float32 array on the CPU."""
    return x.detach().float().cpu().numpy()
