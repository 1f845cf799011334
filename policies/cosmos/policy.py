"""Cosmos Policy as the harness sees it.

Source: NVlabs/cosmos-policy, experiments/robot/cosmos_utils.py (`get_action`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.cosmos.layout import Mode, SlotKind
from policies.cosmos.model import CosmosModel, Reuse, process, to_numpy
from policies.cosmos.planning import WORLD, plan
from wamsim.contracts import (
    Frames,
    ImaginationSpec,
    Imagined,
    Observation,
    PolicyCard,
    Prediction,
)
from wamsim.conventions import Orientation
from wamsim.errors import ConventionMismatch, WamsimError


class Stopwatch:
    """Named parts of a query's latency; waits for the device where there is one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.parts: dict[str, float] = {}
        self._since = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def lap(self, name: str) -> None:
        """Book the time since the last lap."""
        now = self._now()
        self.parts[name] = self.parts.get(name, 0.0) + now - self._since
        self._since = now


class CosmosPolicy:
    """Direct mode: action, future and value in one denoising.

    Args:
        model: Network, autoencoder and text.
        name: As on the command line.
        execute: Actions run per query; the first ones of the chunk.
        reuse: What one sampler run computes once.
        encode_all: Encode every slot as published, not only the present's; same latents.
        notes: For the card.
    """

    def __init__(
        self,
        model: CosmosModel,
        *,
        name: str = "cosmos:direct",
        execute: int | None = None,
        reuse: Reuse | None = None,
        encode_all: bool = False,
        notes: str = "",
    ) -> None:
        config, layout = model.config, model.config.layout
        self.model = model
        self._reuse = reuse or Reuse()
        self._encode_all = encode_all
        size = (config.render_size[0], config.render_size[1])
        self.card = PolicyCard(
            name=name,
            cameras=layout.cameras,
            image_size=size,
            proprio=layout.proprio_convention,
            action=layout.action_convention,
            horizon=layout.horizon,
            execute=layout.execute if execute is None else execute,
            orientation=Orientation.UPRIGHT,  # published `flipud` of the raw OpenGL rows
            predicts_value=True,
            imagines=ImaginationSpec(
                horizons=(layout.horizon,),
                frame_offsets=(0, layout.horizon),
                cameras=layout.cameras,
                image_size=size,
                latent_shape=(len(layout.cameras), *model.frame_shape),
                decodes=True,
                on_request=self._imagines_apart,
            ),
            notes=notes,
        )

    # ------------------------------------------------------------------------- act

    @torch.inference_mode()
    def act(self, obs: Observation) -> Prediction:
        """Predict a chunk of actions, the state after it and its value.

        Pictures of the future are drawn only when the run asks for imagination
        (`obs.imagine`), under "imagine"; its latents come with the actions, or are denoised
        then, too (see `SamplerConfig.imagine_steps`).
        """
        watch = Stopwatch(self._device)
        pictures = self._present(obs)
        imagining = obs.imagine or not self._imagines_apart
        standing = self._standing(pictures, obs) if imagining else None
        given = self._given(pictures, obs, standing)
        watch.lap("encode")
        text = self._embed(obs.instruction)
        watch.lap("text")
        still = None if standing is None else standing[:, :, self._future_places]
        acted, foreseen, value = self._decide(given, text, obs.seed, still)
        actions = to_numpy(self.model.read(acted, SlotKind.ACTION))
        watch.lap("denoise")
        imagined = None
        if imagining:
            if self._imagines_apart:
                foreseen = self._imagine(acted, text, obs.seed)
            future = self._future(foreseen, still)
            frames = self._draw(future, pictures, standing) if obs.imagine else None
            imagined = Imagined(latents=to_numpy(future)[:, None], frames=frames)
            watch.lap("imagine")
        return Prediction(
            actions=actions, imagined=imagined, value=to_numpy(value), timings=watch.parts
        )

    def _embed(self, instructions: Sequence[str]) -> tuple[Tensor, ...]:
        """Text features [B, L, D], one for each network that reads them."""
        return (self.model.embed_text(instructions),)

    def _decide(
        self,
        given: Tensor,
        text: tuple[Tensor, ...],
        seeds: NDArray[np.uint64],
        still: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latents to act by, latents that show the future (both [B, ...]), value [B]."""
        out = self.model.generate(given, Mode.POLICY, text[0], seeds, reuse=self._reuse)
        return out, out, self.model.read(out, SlotKind.VALUE)

    @property
    def _imagines_apart(self) -> bool:
        """Whether imagination is denoised by itself, after the actions."""
        return self.model.config.sampler.imagine_steps > 0

    def _imagine(
        self, acted: Tensor, text: tuple[Tensor, ...], seeds: NDArray[np.uint64]
    ) -> Tensor:
        """Denoise the future that follows from the actions [B, C, T, h, w]."""
        steps = self.model.config.sampler.imagine_steps
        return self.model.generate(
            acted, Mode.WORLD, text[0], seeds, streams=(WORLD,), steps=steps, reuse=self._reuse
        )

    @property
    def _device(self) -> torch.device:
        return next(self.model.net.parameters()).device

    def _present(self, obs: Observation) -> dict[int, Tensor]:
        """Processed pictures of the present, by slot, uint8 [B, H, W, 3]."""
        config, layout = self.model.config, self.model.config.layout
        return {
            place: process(config.images, obs.frames[camera][:, -1])
            for place, camera in zip(layout.places(SlotKind.IMAGE), layout.cameras, strict=True)
        }

    def _given(
        self, pictures: dict[int, Tensor], obs: Observation, standing: Tensor | None = None
    ) -> Tensor:
        """Latents [B, C, T, h, w] with the present's slots filled; the rest does not count."""
        model, layout = self.model, self.model.config.layout
        if obs.proprio is None:
            raise ConventionMismatch(
                f"policy {self.card.name!r} needs proprioception {layout.proprio}, but the "
                f"observation has none. Its card names the convention."
            )
        count = layout.conditional
        if self._encode_all:
            # the future's slots hold copies of the present, as published
            count = len(layout.slots)
            copies = zip(layout.places(SlotKind.FUTURE_IMAGE), pictures.values(), strict=True)
            pictures = {**pictures, **dict(copies)}
        if standing is None or self._encode_all:
            encoded = model.encode_pictures(pictures, obs.batch, count=count)
        else:  # it begins with the present
            encoded = standing[:, :, :count]
        shape = (obs.batch, encoded.shape[1], len(layout.slots), *encoded.shape[3:])
        latents = encoded.new_zeros(shape)
        latents[:, :, :count] = encoded
        proprio = torch.from_numpy(obs.proprio).to(encoded.device)
        scaled = model.normaliser.normalise("proprio", proprio)
        return model.inject(latents, SlotKind.PROPRIO, scaled)

    # ---------------------------------------------------------------- imagination

    def _standing(self, pictures: dict[int, Tensor], obs: Observation) -> Tensor | None:
        """What futures are told as changes from, where they are; as `CosmosModel.standing`."""
        if not self.model.config.change_spread:
            return None
        return self.model.standing(pictures, obs.batch)

    def _future(self, latents: Tensor, still: Tensor | None) -> Tensor:
        """Latents of the future pictures [B, cams, C, h, w]."""
        return self.model.as_latents(latents[:, :, self._future_places], still).transpose(1, 2)

    @torch.inference_mode()
    def encode(self, frames: Frames) -> NDArray[Any]:
        """Put real frames into the imagined slots.

        The whole video is encoded, present and future in their places, because a slot's
        latent depends on those before it.

        Args:
            frames: uint8 [B, 2, cams, H, W, 3], now and at the chunk's end.

        Returns:
            float32 [B, 1, cams, C, h, w].
        """
        future = self._real_future(frames, self._seen(frames))
        return to_numpy(future)[:, None]

    @torch.inference_mode()
    def redraw(self, frames: Frames) -> Frames:
        """Encode and draw real frames, the future after the present: the ceiling.

        Args:
            frames: uint8 [B, 2, cams, H, W, 3], as `encode` takes them.

        Returns:
            uint8 [B, 1, height, cams * width, 3], as `pictures`.
        """
        slots = self._seen(frames)
        present = {p: slots[p] for p in self.model.config.layout.places(SlotKind.IMAGE)}
        return self._draw(self._real_future(frames, slots), present)

    def _seen(self, frames: Frames) -> dict[int, Tensor]:
        """Processed pictures of now and of the chunk's end, by slot."""
        layout = self.model.config.layout
        processed = process(self.model.config.images, frames)
        return {
            place: processed[:, t, c]
            for t, kind in ((0, SlotKind.IMAGE), (1, SlotKind.FUTURE_IMAGE))
            for c, place in enumerate(layout.places(kind))
        }

    def _real_future(self, frames: Frames, slots: dict[int, Tensor]) -> Tensor:
        """Latents of the future's pictures, [B, cams, C, h, w]."""
        layout = self.model.config.layout
        count = layout.place(SlotKind.VALUE)  # nothing after the future is needed
        latents = self.model.encode_pictures(slots, len(frames), count=count)
        return latents[:, :, list(layout.places(SlotKind.FUTURE_IMAGE))].transpose(1, 2)

    @torch.inference_mode()
    def decode(self, latents: NDArray[Any]) -> Frames:
        """Draw imagined latents alone.

        The present is not known here, so its slots are black and pictures come out a little
        different from those that `act` draws.

        Args:
            latents: [B, 1, cams, C, h, w].

        Returns:
            uint8 [B, 1, H, cams * W, 3], cameras side by side.
        """
        future = torch.from_numpy(np.asarray(latents, np.float32))[:, 0].to(self._device)
        before = self.model.encode_pictures({}, 1, count=self._future_places[0])
        return self._pictures(before.repeat(len(future), 1, 1, 1, 1), future.transpose(1, 2))

    def pictures(self, frames: Frames) -> Frames:
        """Give the pictures that imagination aims at: the future's, processed, side by side.

        Args:
            frames: uint8 [B, 2, cams, H, W, 3], as `encode` takes them.

        Returns:
            uint8 [B, 1, height, cams * width, 3].
        """
        processed = process(self.model.config.images, frames).numpy()
        return np.concatenate(np.moveaxis(processed[:, 1:], 2, 0), axis=-2)

    def _draw(
        self, future: Tensor, pictures: dict[int, Tensor], standing: Tensor | None = None
    ) -> Frames:
        """Draw the future after the present; injected slots are black again, as published."""
        count = self._future_places[0]
        if standing is None:
            before = self.model.encode_pictures(pictures, len(future), count=count)
        else:
            before = standing[:, :, :count]
        return self._pictures(before, future.transpose(1, 2))

    @property
    def _future_places(self) -> list[int]:
        return list(self.model.config.layout.places(SlotKind.FUTURE_IMAGE))

    def _pictures(self, before: Tensor, future: Tensor) -> Frames:
        """Decode [B, C, n, h, w] and what follows it; pictures of the latter, side by side."""
        whole = torch.cat((before, future), dim=2)
        drawn = self.model.codec.decode(whole, range(before.shape[2], whole.shape[2]))
        return drawn.permute(0, 2, 1, 3, 4).flatten(2, 3).cpu().numpy()[:, None]


class CosmosPlanner(CosmosPolicy):
    """Planning mode: the best of N proposals by imagined futures and their values.

    Args:
        model: World model and value.
        proposer: The policy that proposes; None takes `model`.
        options: As `CosmosPolicy`.

    Raises:
        WamsimError: The two do not speak of the same latents or units.
    """

    def __init__(
        self, model: CosmosModel, *, proposer: CosmosModel | None = None, **options: Any
    ) -> None:
        super().__init__(model, **{"name": "cosmos:planning", **options})
        self._proposer = proposer or model
        _check_pair(model, self._proposer)

    @property
    def _imagines_apart(self) -> bool:
        return False  # what a proposal leads to is imagined to judge it

    def _embed(self, instructions: Sequence[str]) -> tuple[Tensor, ...]:
        own = self.model.embed_text(instructions)
        if self._proposer is self.model:
            return own, own
        return own, self._proposer.embed_text(instructions)

    def _decide(
        self,
        given: Tensor,
        text: tuple[Tensor, ...],
        seeds: NDArray[np.uint64],
        still: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        words = (text[0], text[1])
        found = plan(self.model, self._proposer, given, words, seeds, self._reuse, still)
        pick = (torch.arange(len(given), device=given.device), found.chosen)
        return found.proposals[pick], found.imagined[pick], found.values[pick]


def _check_pair(judge: CosmosModel, proposer: CosmosModel) -> None:
    """Refuse a proposer whose latents the judge would misread."""
    if judge is proposer:
        return
    after = "Take the checkpoint that the planning model was trained from."
    if judge.config.layout != proposer.config.layout:
        raise WamsimError(f"proposal_checkpoint has a different slot layout. {after}")
    mine, theirs = judge.codec.state_dict(), proposer.codec.state_dict()
    if mine.keys() != theirs.keys() or not all(
        torch.equal(v.cpu(), theirs[k].cpu()) for k, v in mine.items()
    ):
        raise WamsimError(
            f"proposal_checkpoint and checkpoint have different autoencoders. {after}"
        )
    for what, kinds in judge.statistics.values.items():
        other = proposer.statistics.values.get(what, {})
        for kind in ("min", "max"):
            if kind in kinds and not torch.equal(kinds[kind], other.get(kind, torch.empty(0))):
                raise WamsimError(
                    f"proposal_checkpoint and checkpoint have different statistics: {what}/{kind}. "
                    f"{after}"
                )
