"""Flow-HWM behind the world model contract.

Axes: B rows, T frames, K future latents.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.flow_hwm.config import FlowHWMConfig
from policies.flow_hwm.model import FlowHWM
from policies.flow_hwm.network import Context
from policies.flow_hwm.options import FlowHWMOptions
from policies.flow_hwm.sampler import Sampler
from policies.flow_hwm.tokenizer import to_frames
from policies.flow_hwm.weights import load_or_initialise
from policies.noise import noise_from_seeds
from wamsim.contracts import Floats, Frames, ImaginationSpec, Imagined, WorldModelCard


def build(variant: str, options: FlowHWMOptions) -> FlowHWMWorld:
    """Make the world model that a run names."""
    model = load_or_initialise(variant, options)
    config = model.config
    sampler = Sampler(
        model.network,
        steps=config.steps if options.steps is None else options.steps,
        guidance=config.guidance if options.guidance is None else options.guidance,
        cache=options.cache,
        parity=options.sampler_parity,
    )
    return FlowHWMWorld(model, sampler)


def card_of(config: FlowHWMConfig) -> WorldModelCard:
    """Say what a model of this config needs and gives."""
    step, group = config.frame_stride, config.temporal_factor * config.frame_stride
    past = tuple(range(-config.past_steps, 1, step))
    future = tuple(range(step, config.future_steps + 1, step))
    return WorldModelCard(
        name=f"flow_hwm:{config.variant}",
        cameras=(config.camera,),
        image_size=config.image_size,
        past_offsets=past,
        action=config.convention,
        future_actions=config.future_steps,
        imagines=ImaginationSpec(
            # a latent is complete with the last of its frames
            horizons=tuple(group * (k + 1) for k in range(config.future_latents)),
            frame_offsets=(*past, *future),
            cameras=(config.camera,),
            image_size=config.image_size,
            latent_shape=(config.latent_channels, *config.latent_size),
            decodes=True,
        ),
    )


class FlowHWMWorld:
    """Imagines what the given future actions will show.

    Args:
        model: With its tokenizer attached.
        sampler: On the model's network.
    """

    def __init__(self, model: FlowHWM, sampler: Sampler) -> None:
        self.model = model.eval()
        self.sampler = sampler
        self.card = card_of(model.config)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def imagine(
        self,
        past_frames: Frames,
        past_actions: Floats,
        future_actions: Floats,
        seed: NDArray[np.uint64],
    ) -> Imagined:
        """Foresee, as `wamsim.contracts.WorldModel.imagine`.

        Returns:
            Latents float32 [B, K, C, y, x]; frames uint8 [B, K, H, W, 3], for each latent
            the last frame that it holds.

        Raises:
            ValueError: An array does not have the shape that the card promises.
        """
        config, card = self.model.config, self.card
        rows, dim = len(seed), card.action.dim
        past_shape = (len(card.past_offsets), len(card.cameras), *card.image_size, 3)
        _expect("past_frames", past_frames, (rows, *past_shape))
        _expect("past_actions", past_actions, (rows, config.past_steps, dim))
        _expect("future_actions", future_actions, (rows, card.future_actions, dim))
        with torch.no_grad():
            frames = self._tensor(past_frames[:, :, 0])
            past = self.model.encode_past(frames)
            steps = np.concatenate([past_actions, future_actions], axis=1)
            context = Context(past, *self.model.actions_beside_frames(self._tensor(steps)))
            shape = (config.latent_channels, config.future_latents, *config.latent_size)
            noise = noise_from_seeds(seed, shape, device=self._device)
            future = self.sampler.sample(noise, context)
            still = self.model.standing(frames) if config.change_spread else None
            future = self.model.as_latents(future, still)
            if "context_drop" in self.sampler.parity:
                past = torch.zeros_like(past)  # official: the overwritten batch is decoded
            drawn = self._draw(past, future)
        return Imagined(latents=future.transpose(1, 2).cpu().numpy(), frames=drawn)

    def encode(self, frames: Frames) -> NDArray[Any]:
        """Put real frames uint8 [B, T, cams, H, W, 3], past and future, into [B, K, C, y, x].

        Raises:
            ValueError: Another shape than the card's `ImaginationSpec` says.
        """
        latents = self._window(frames)
        return latents[:, :, self.model.config.past_latents :].transpose(1, 2).cpu().numpy()

    def redraw(self, frames: Frames) -> Frames:
        """Encode and draw real frames, futures in the light of their past: the ceiling.

        Args:
            frames: uint8 [B, T, cams, H, W, 3], as `encode` takes them.

        Returns:
            uint8 [B, K, H, W, 3], as `imagine`'s.
        """
        latents, past = self._window(frames), self.model.config.past_latents
        with torch.no_grad():
            return self._draw(latents[:, :, :past], latents[:, :, past:])

    def _window(self, frames: Frames) -> Tensor:
        card = self.card
        shape = (len(card.imagines.frame_offsets), len(card.cameras), *card.image_size, 3)
        _expect("frames", frames, (len(frames), *shape))
        with torch.no_grad():
            return self.model.encode_window(self._tensor(frames[:, :, 0]))

    def decode(self, latents: NDArray[Any]) -> Frames:
        """Draw latents [B, K, C, y, x] as uint8 [B, K, H, W, 3], without knowing their past.

        The decoder is causal and wants the past latents. `imagine` has them and its pictures
        are exact; here the first future latent stands in for each, an approximation.
        """
        future = torch.from_numpy(np.asarray(latents, np.float32)).to(self._device).transpose(1, 2)
        past = future[:, :, :1].expand(-1, -1, self.model.config.past_latents, -1, -1)
        with torch.no_grad():
            return self._draw(past, future)

    def _draw(self, past: Tensor, future: Tensor) -> Frames:
        config = self.model.config
        pixels = self.model.tokenizer.decode(torch.cat([past, future], dim=2))
        last = [
            config.past_frames - 1 + config.temporal_factor * (k + 1)
            for k in range(config.future_latents)
        ]
        if "fid_frame" in self.sampler.parity:
            last = [0] * len(last)
        return to_frames(pixels[:, :, last], bgr=config.bgr).cpu().numpy()

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _expect(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(
            f"{name} has shape {array.shape}, but the card promises {shape}; stack them as "
            f"WorldModel.imagine and ImaginationSpec describe"
        )
