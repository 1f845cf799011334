"""Fast-WAM's training losses.

Source: FastWAM repository, `training_loss` of fastwam.py and fastwam_idm.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from policies.batch import Batch
from policies.fastwam.config import TEMPORAL
from policies.fastwam.flow import TRAIN_STEPS, add_noise, loss_weight, shifted, uniform_from_normal
from policies.noise import noise_from_seeds
from wamsim.conventions import orient

if TYPE_CHECKING:
    from policies.fastwam.model import Context, FastWam

# Streams of a sample's noise, where the batch gives seeds; sampling uses its own.
ACTION, ACTION_TIME, VIDEO, VIDEO_TIME, COPY, COPY_TIME, COPY_COIN = range(10, 17)


def flow_losses(model: FastWam, batch: Batch) -> dict[str, Tensor]:
    """Score both experts' velocities on one batch.

    Every sample's error is a mean over what is valid of it, weighted by its timestep; video
    and actions are noised independently. Without video co-training the video expert sees
    the first frame alone, and there is no video term; nor is there one while the video expert
    is frozen, and then it sees no more than actions read of it.

    Returns:
        "action", "video" (where the video expert learns it), "total".
    """
    config = model.config
    draws = Draws(batch, model.device)
    context = model.context(model.context_tokens(batch.instruction, batch.proprio_at(0)))
    many = config.flow_draws
    actions = training_actions(model, batch).repeat_interleave(many, 0)
    noise_a = draws.normal(ACTION, (many, *actions.shape[1:])).flatten(0, 1).to(model.dtype)
    sigma_a = shifted(draws.uniform(ACTION_TIME, (many,)).flatten(), config.shift)
    time_a = sigma_a * TRAIN_STEPS
    noisy_actions = add_noise(actions, noise_a, sigma_a)

    cotrain = config.variant != "no_video_cotrain" and model.video.learns
    latents = video_latents(model, batch).to(model.device, model.dtype)
    noisy, wanted, time_v = _noised(draws, latents, config.shift)
    if config.variant == "idm":
        video, action = _idm(model, draws, latents, noisy, noisy_actions, (time_v, time_a), context)
    else:
        video, action = model.velocities(noisy, noisy_actions, (time_v, time_a), context)

    error_a = (action.float() - (noise_a - actions).float()).square().mean(dim=2)
    valid = batch.action_valid.to(model.device).repeat_interleave(many, 0)
    per_sample = masked_mean(error_a, valid)
    losses = {"action": (per_sample * loss_weight(time_a, config.shift)).mean()}
    total = config.lambda_action * losses["action"]
    if cotrain:
        losses["video"] = _video_error(model, batch, video, wanted, time_v)
        total = total + config.lambda_video * losses["video"]
    return {**losses, "total": total}


def video_loss(model: FastWam, batch: Batch) -> Tensor:
    """Score the video expert's velocities alone: the term "video" of `flow_losses`."""
    latents = video_latents(model, batch).to(model.device, model.dtype)
    noisy, wanted, time = _noised(Draws(batch, model.device), latents, model.config.shift)
    context = model.video.context(model.context_tokens(batch.instruction, batch.proprio_at(0)))
    return _video_error(model, batch, model.video_velocity(noisy, time, context), wanted, time)


def _noised(draws: Draws, latents: Tensor, shift: float) -> tuple[Tensor, Tensor, Tensor]:
    """Noise a video, its first frame kept: what is shown, the velocity wanted, timesteps [B]."""
    noise = draws.normal(VIDEO, latents.shape[1:]).to(latents.dtype)
    sigma = shifted(draws.uniform(VIDEO_TIME), shift)
    noisy = with_first(add_noise(latents, noise, sigma), latents)
    return noisy, noise - latents, sigma * TRAIN_STEPS


def _video_error(
    model: FastWam, batch: Batch, velocity: Tensor, wanted: Tensor, time: Tensor
) -> Tensor:
    error = (velocity.float() - wanted.float()).square().mean(dim=(1, 3, 4))
    # A latent counts unless all of its four frames lie outside the episode.
    inside = batch.valid_at(model.config.frame_offsets)[:, 1:].to(model.device)
    per_sample = masked_mean(error[:, 1:], inside.unflatten(1, (-1, TEMPORAL)).any(dim=2))
    if model.config.carry_noise:
        return per_sample.mean()
    return (per_sample * loss_weight(time, model.config.shift)).mean()


def _idm(
    model: FastWam,
    draws: Draws,
    latents: Tensor,
    noisy: Tensor,
    noisy_actions: Tensor,
    times: tuple[Tensor, Tensor],
    context: Context,
) -> tuple[Tensor, Tensor]:
    """Add IDM's conditioning copy: the true future, noised half of the time."""
    noised = draws.uniform(COPY_COIN) < model.config.cond_noise
    sigma = torch.where(noised, shifted(draws.uniform(COPY_TIME), model.config.shift), 0.0)
    noise = draws.normal(COPY, latents.shape[1:]).to(model.dtype)
    copy = with_first(add_noise(latents, noise, sigma), latents)
    return model.idm_velocities(
        noisy, copy, noisy_actions, (times[0], sigma * TRAIN_STEPS, times[1]), context
    )


def training_actions(model: FastWam, batch: Batch) -> Tensor:
    """Give the batch's actions, normalised, [B, H, A].

    Past the episode's end changes are zero before normalising ("no motion"); grippers, other
    switches and absolute targets keep their last state.
    """
    stored = model.data_actions(batch.actions.to(model.device).float())
    moves = torch.zeros(model.config.action_dim, dtype=torch.bool, device=model.device)
    moves[model.config.action_convention.changes] = True
    past = ~batch.action_valid.to(model.device)
    stored = torch.where(past[..., None] & moves, 0.0, stored)
    return model.action_scale.forward(stored).to(model.dtype)


def video_latents(model: FastWam, batch: Batch) -> Tensor:
    """Give what is denoised of a batch's video, [B, C, 1 + K, h, w], after its first latent.

    Where neither actions nor a loss need the future that is the first frame alone; the VAE is
    causal, so it is the same in a longer video.
    """
    variant = model.config.variant
    if variant not in ("joint", "idm") and not (variant == "fastwam" and model.video.learns):
        if batch.features is not None:
            return batch.features["latents"][:, :, :1]
        return model.vae.encode(batch_video(model, batch, (0,)))
    found = batch.features or model.frozen_features(batch)
    latents = found["latents"]
    future = model.as_denoised(latents[:, :, 1:], found.get("standing"))
    return torch.cat([latents[:, :, :1], future], dim=2)


def batch_video(model: FastWam, batch: Batch, offsets: Sequence[int]) -> Tensor:
    """Give the pixels of a batch's frames, [B, 3, T, height, width] in -1..1."""
    frames = [
        orient(batch.at(c, offsets).cpu().numpy(), model.config.orientation)
        for c in model.config.cameras
    ]
    return model.pixels(frames)


def with_first(noisy: Tensor, clean: Tensor) -> Tensor:
    """Put the clean first frame in place: it is given, never denoised."""
    return torch.cat([clean[:, :, :1], noisy[:, :, 1:]], dim=2)


def masked_mean(error: Tensor, valid: Tensor) -> Tensor:
    """Mean of [B, n] over what is valid; 0 where nothing is."""
    weight = valid.to(error.dtype)
    return (error * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)


class Draws:
    """Training noise: from the batch's seeds where it has them, else free."""

    def __init__(self, batch: Batch, device: torch.device) -> None:
        self.size, self.device = batch.size, device
        self.seeds = None if batch.seed is None else batch.seed.cpu().numpy().astype(np.uint64)

    def normal(self, stream: int, shape: Sequence[int]) -> Tensor:
        """Standard normal draws, [B, *shape]."""
        if self.seeds is None:
            return torch.randn(self.size, *shape, device=self.device)
        return noise_from_seeds(self.seeds, tuple(shape), stream=stream, device=self.device)

    def uniform(self, stream: int, shape: Sequence[int] = ()) -> Tensor:
        """Uniform draws on (0, 1), [B, *shape]."""
        if self.seeds is None:
            return torch.rand(self.size, *shape, device=self.device)
        return uniform_from_normal(self.normal(stream, shape))
