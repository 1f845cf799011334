"""Fast-WAM in the closed loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.fastwam.config import TEMPORAL
from policies.fastwam.model import FastWam
from policies.fastwam.sampler import (
    Present,
    prefill,
    sample_actions,
    sample_idm,
    sample_joint,
    sample_video,
)
from policies.noise import noise_from_seeds
from wamsim.contracts import (
    Frames,
    ImaginationSpec,
    Imagined,
    Observation,
    PolicyCard,
    Prediction,
)

VIDEO_NOISE, ACTION_NOISE = 0, 1  # streams of a query's noise


class FastWamPolicy:
    """Acts, and shows the future it acted on, or imagines one for the record.

    ``joint`` and ``idm`` imagine on their way to the actions. ``fastwam`` does not: only
    when the run asks is a future denoised, after the actions. ``no_video_cotrain`` never
    learnt to.

    Args:
        model: The model.
        execute: Actions run per query; None takes the configuration's.
        steps, imagine_steps: Denoising steps; None takes the configuration's.
        cache: Use the exact caches.
        notes: One sentence for tables.
    """

    def __init__(
        self,
        model: FastWam,
        *,
        execute: int | None = None,
        steps: int | None = None,
        imagine_steps: int | None = None,
        cache: bool = True,
        notes: str = "",
    ) -> None:
        self.model = model.eval()
        self.steps = model.config.steps if steps is None else steps
        self.imagine_steps = imagine_steps or model.config.imagine_steps or self.steps
        self.cache = cache
        self.card = card_of(model, execute=execute, notes=notes)

    @torch.no_grad()
    def act(self, obs: Observation) -> Prediction:
        """Predict a chunk of actions for every row.

        Raises:
            InstructionTooLong: A prompt exceeds the text encoder.
        """
        model, config = self.model, self.model.config
        timings: dict[str, float] = {}
        with self._timed(timings, "encode"):
            assert obs.proprio is not None  # the card asks for it
            proprio = torch.from_numpy(obs.proprio[:, -1])
            context = model.context(model.context_tokens(obs.instruction, proprio))
            frames = [obs.frames[c][:, -1:] for c in config.cameras]
            pixels = model.pixels(frames)
            first = model.vae.encode(pixels).to(model.dtype)
        with self._timed(timings, "prefill"):
            present = prefill(model, first, context, cache=self.cache)
        noise = self._noise(obs, ACTION_NOISE, (config.horizon, config.action_dim))
        future: Tensor | None = None
        with self._timed(timings, "denoise"):
            if config.variant in ("joint", "idm"):
                sample = sample_joint if config.variant == "joint" else sample_idm
                future, actions = sample(model, present, self._video_noise(obs), noise, self.steps)
            else:
                actions = sample_actions(model, present, noise, self.steps)
        imagined = None
        if self.card.imagines is not None and (future is not None or obs.imagine):
            with self._timed(timings, "imagine"):
                imagined = self._imagine(obs, pixels, present, future)
        return Prediction(actions=model.suite_actions(actions), imagined=imagined, timings=timings)

    def _imagine(
        self, obs: Observation, pixels: Tensor, present: Present, future: Tensor | None
    ) -> Imagined:
        """Record the future; drawn as pictures only when the run asks (it is not free)."""
        if future is None:
            noise = self._video_noise(obs)
            future = sample_video(self.model, present, noise, self.imagine_steps)
        spread = self.model.config.change_spread
        future = self.model.as_latents(future, self.model.standing(pixels) if spread else None)
        pictures = self._draw(present.first, future) if obs.imagine else None
        latents = future.transpose(1, 2).float().cpu().numpy()
        return Imagined(latents=latents, frames=pictures)

    @torch.no_grad()
    def encode(self, frames: Frames) -> NDArray[np.float32]:
        """Put real frames into the imagined space.

        Args:
            frames: uint8 [B, T, cams, H, W, 3], T = the specification's frame offsets, in
                the card's orientation.

        Returns:
            [B, K, C, h, w]: the future latents that training aims at.
        """
        cameras = [frames[:, :, i] for i in range(frames.shape[2])]
        latents = self.model.vae.encode(self.model.pixels(cameras))
        return latents[:, :, 1:].transpose(1, 2).float().cpu().numpy()

    @torch.no_grad()
    def decode(
        self, latents: NDArray[np.float32], present: NDArray[np.float32] | None = None
    ) -> Frames:
        """Draw future latents.

        The VAE decodes a latent in the light of earlier ones. Without `present` the first
        future latent stands in for it, which makes the pictures approximate; those in
        `Prediction.imagined.frames` are exact.

        Args:
            latents: [B, K, C, h, w].
            present: [B, C, h, w], latent of the present picture.

        Returns:
            uint8 [B, K, height, width, 3]: the last frame inside each latent, the cameras
            side by side.
        """
        future = torch.from_numpy(np.asarray(latents, np.float32)).transpose(1, 2)
        first = future[:, :, :1]
        if present is not None:
            first = torch.from_numpy(np.asarray(present, np.float32))[:, :, None]
        device = self.model.device
        return self._draw(first.to(device), future.to(device))

    @torch.no_grad()
    def redraw(self, frames: Frames) -> Frames:
        """Encode and draw real frames, futures in the light of the present: the ceiling.

        Args:
            frames: uint8 [B, T, cams, H, W, 3], as `encode` takes them.

        Returns:
            uint8 [B, K, height, width, 3], as `pictures`.
        """
        cameras = [frames[:, :, i] for i in range(frames.shape[2])]
        latents = self.model.vae.encode(self.model.pixels(cameras))
        return self._draw(latents[:, :, :1], latents[:, :, 1:])

    def pictures(self, frames: Frames) -> Frames:
        """Give the pictures that imagination aims at, as the model sees them.

        Args:
            frames: uint8 [B, T, cams, H, W, 3], as `encode` takes them.

        Returns:
            uint8 [B, K, height, width, 3]: the last frame inside each future latent, the
            cameras side by side.
        """
        ends = frames[:, TEMPORAL::TEMPORAL]
        ready = [self.model.config.images.apply(ends[:, :, i]) for i in range(ends.shape[2])]
        return np.concatenate(ready, axis=-2)

    def _draw(self, first: Tensor, future: Tensor) -> Frames:
        return self.model.vae.decode(torch.cat([first, future], dim=2))[:, TEMPORAL::TEMPORAL]

    def _noise(self, obs: Observation, stream: int, shape: tuple[int, ...]) -> Tensor:
        return noise_from_seeds(obs.seed, shape, stream=stream, device=self.model.device)

    def _video_noise(self, obs: Observation) -> Tensor:
        channels, height, width = self.model.config.latent_shape
        shape = (channels, self.model.config.future, height, width)
        return self._noise(obs, VIDEO_NOISE, shape)

    @contextmanager
    def _timed(self, timings: dict[str, float], name: str) -> Iterator[None]:
        self._wait()
        began = time.perf_counter()
        yield
        self._wait()
        timings[name] = time.perf_counter() - began

    def _wait(self) -> None:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)


def card_of(model: FastWam, *, execute: int | None = None, notes: str = "") -> PolicyCard:
    """Write the card of a model."""
    config = model.config
    imagines = None
    if config.variant != "no_video_cotrain":
        imagines = ImaginationSpec(
            horizons=config.horizons,
            frame_offsets=config.frame_offsets,
            cameras=config.cameras,
            image_size=config.render_size,
            latent_shape=config.latent_shape,
            decodes=True,
            on_request=config.variant == "fastwam",
        )
    return PolicyCard(
        name=f"fastwam:{config.variant}",
        action=config.action_convention,
        horizon=config.horizon,
        execute=config.execute if execute is None else execute,
        cameras=config.cameras,
        image_size=config.render_size,
        proprio=config.proprio_convention,
        orientation=config.orientation,
        imagines=imagines,
        notes=notes,
    )
