"""Denoising actions and futures, with exact caches or without.

Nothing that the video expert computes depends on the actions, and nothing that it computes
for the first frame depends on later ones. So the first frame's keys and values hold for a
whole query; in IDM those of the finished video too. The uncached way runs the whole
sequence at every step, as the published code does for Joint and IDM's video.

Source: FastWAM repository, infer_action and infer_joint of the three classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.fastwam.blocks import KeyValue
from policies.fastwam.experts import Stream
from policies.fastwam.flow import sampling_schedule
from policies.fastwam.model import Context, FastWam
from policies.fastwam.mot import attention_mask, joined


@dataclass(frozen=True)
class Present:
    """What a query is conditioned on.

    Attributes:
        first: [B, C, 1, h, w], latent of the present picture.
        context: For cross-attention.
        past: Keys and values of `first`, per block; None without the cache.
    """

    first: Tensor
    context: Context
    past: list[KeyValue] | None


@torch.no_grad()
def prefill(model: FastWam, first: Tensor, context: Context, *, cache: bool = True) -> Present:
    """Send the present picture through the video expert once."""
    if not cache:
        return Present(first, context, None)
    times = torch.zeros(first.shape[0], 1, dtype=model.dtype, device=model.device)
    groups = [("V0", model.config.tokens_per_frame)]
    mask = attention_mask(model.config.variant, groups, groups, device=model.device)
    _, past = model.run([model.video.stream(first, times, context.video)], mask)
    return Present(first, context, past)


@torch.no_grad()
def sample_actions(model: FastWam, present: Present, noise: Tensor, steps: int) -> Tensor:
    """Denoise actions that look at the present alone (fastwam, no_video_cotrain).

    Args:
        model: The model.
        present: From `prefill`.
        noise: [B, H, A].
        steps: Denoising steps.

    Returns:
        [B, H, A], normalised.
    """

    def velocity(actions: Tensor, time: Tensor) -> Tensor:
        if present.past is None:
            return model.velocities(present.first, actions, (time, time), present.context)[1]
        return _action_velocity(model, present, present.past, actions, time)

    return _integrate(model, velocity, noise, steps)


@torch.no_grad()
def sample_video(model: FastWam, present: Present, noise: Tensor, steps: int) -> Tensor:
    """Denoise the future latents; no action takes part.

    Args:
        model: The model.
        present: From `prefill`.
        noise: [B, C, K, h, w].
        steps: Denoising steps.

    Returns:
        [B, C, K, h, w].
    """

    def velocity(future: Tensor, time: Tensor) -> Tensor:
        if present.past is not None:
            tokens, _ = model.run(
                [_future_stream(model, future, time, present.context)],
                _future_mask(model, future, actions=0),
                present.past,
            )
            return _read_future(model, tokens[0], future, time)
        whole = torch.cat([present.first, future], dim=2)
        times = model.frame_times(time, whole.shape[2])
        n = model.config.tokens_per_frame
        groups = [("V0", n), ("V+", n * future.shape[2])]
        mask = attention_mask(model.config.variant, groups, groups, device=model.device)
        tokens, _ = model.run([model.video.stream(whole, times, present.context.video)], mask)
        return model.video.read(tokens[0], times, whole)[:, :, 1:]

    return _integrate(model, velocity, noise, steps)


@torch.no_grad()
def sample_joint(
    model: FastWam, present: Present, noise_video: Tensor, noise_actions: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Denoise future and actions side by side (joint): actions see the half-made future.

    Returns:
        Future latents [B, C, K, h, w]; actions [B, H, A], normalised.
    """
    future, actions = noise_video.to(model.dtype), noise_actions.to(model.dtype)
    for time, delta in _schedule(model, steps, future.shape[0]):
        if present.past is None:
            whole = torch.cat([present.first, future], dim=2)
            video, action = model.velocities(whole, actions, (time, time), present.context)
            video = video[:, :, 1:]
        else:
            streams = [
                _future_stream(model, future, time, present.context),
                model.action.stream(actions, time, present.context.action),
            ]
            mask = _future_mask(model, future, actions=actions.shape[1])
            tokens, _ = model.run(streams, mask, present.past)
            video = _read_future(model, tokens[0], future, time)
            action = model.action.read(tokens[1])
        future, actions = future + video * delta, actions + action * delta
    return future, actions


@torch.no_grad()
def sample_idm(
    model: FastWam, present: Present, noise_video: Tensor, noise_actions: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """Denoise the future, then actions that lead there (idm).

    Returns:
        Future latents [B, C, K, h, w]; actions [B, H, A], normalised.
    """
    future = sample_video(model, present, noise_video, steps)
    if present.past is None:
        whole = torch.cat([present.first, future], dim=2)

        def uncached(actions: Tensor, time: Tensor) -> Tensor:
            times = (torch.zeros_like(time), time)
            return model.velocities(whole, actions, times, present.context)[1]

        return future, _integrate(model, uncached, noise_actions, steps)
    # The finished future counts as clean: its keys and values at timestep 0.
    zero = torch.zeros(future.shape[0], dtype=model.dtype, device=model.device)
    stream = _future_stream(model, future, zero, present.context)
    _, made = model.run([stream], _future_mask(model, future, actions=0), present.past)
    past = joined(present.past, made)

    def cached(actions: Tensor, time: Tensor) -> Tensor:
        return _action_velocity(model, present, past, actions, time)

    return future, _integrate(model, cached, noise_actions, steps)


# ---------------------------------------------------------------------------- parts


def _schedule(model: FastWam, steps: int, batch: int) -> list[tuple[Tensor, Tensor]]:
    times, deltas = sampling_schedule(steps, model.config.shift, dtype=model.dtype)
    return [
        (t.to(model.device).repeat(batch), d.to(model.device))
        for t, d in zip(times, deltas, strict=True)
    ]


def _integrate(
    model: FastWam, velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int
) -> Tensor:
    """Take Euler steps from noise to data."""
    x = noise.to(model.dtype)
    for time, delta in _schedule(model, steps, x.shape[0]):
        x = x + velocity(x, time) * delta
    return x


def _action_velocity(
    model: FastWam, present: Present, past: list[KeyValue], actions: Tensor, time: Tensor
) -> Tensor:
    """Run the action expert alone over all of the past: every key in it may be read."""
    stream = model.action.stream(actions, time, present.context.action)
    tokens, keys = actions.shape[1], past[0][0].shape[1]
    mask = torch.ones(tokens, keys + tokens, dtype=torch.bool, device=model.device)
    return model.action.read(model.run([stream], mask, past)[0][0])


def _future_stream(model: FastWam, future: Tensor, time: Tensor, context: Context) -> Stream:
    times = time[:, None].expand(-1, future.shape[2])
    return model.video.stream(future, times, context.video, first=1)


def _future_mask(model: FastWam, future: Tensor, *, actions: int) -> Tensor:
    n = model.config.tokens_per_frame
    queries = [("V+", n * future.shape[2]), *([("A", actions)] if actions else [])]
    return attention_mask(model.config.variant, queries, [("V0", n), *queries], device=model.device)


def _read_future(model: FastWam, tokens: Tensor, future: Tensor, time: Tensor) -> Tensor:
    times = time[:, None].expand(-1, future.shape[2])
    return model.video.read(tokens, times, future)
