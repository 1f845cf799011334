"""Ask a model: Euler steps from noise to a chunk of actions, and what it imagines.

Axes: B rows, H actions, K steps ahead, C steps of history, D world channels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from policies.smolvla_world.fusion import ActionProphet, Memory
from policies.smolvla_world.memory import ACTION_STREAM, Draws, rollout_memory
from policies.smolvla_world.model import Query, SmolVLAWorld


@dataclass
class Sampled:
    """An answer.

    Attributes:
        actions: [B, H, max_action_dim], normalised.
        imagined: [B, K, D'] in the space of `encode`, or None.
        otherwise: The same under other actions, where asked for.
        timings: Seconds; "imagine" is what the actions did not need.
    """

    actions: Tensor
    imagined: Tensor | None
    otherwise: Tensor | None
    timings: dict[str, float]


class Watch:
    """Adds up where the time went, also on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.parts = device, {}
        self._last = self._now()

    parts: dict[str, float]

    def lap(self, name: str) -> None:
        """Book the time since the last lap."""
        now = self._now()
        self.parts[name] = self.parts.get(name, 0.0) + now - self._last
        self._last = now

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


@torch.no_grad()
def sample(
    model: SmolVLAWorld,
    query: Query,
    frames: Tensor | None,
    draws: Draws,
    *,
    steps: int,
    mode: str,
    imagine: bool,
    cached: bool = True,
    other: Tensor | None = None,
) -> Sampled:
    """Denoise a chunk for every row.

    Args:
        model: Any variant.
        query: The present.
        frames: uint8 [B, T, H, W, 3] of the world camera at `world.history`; None where
            nothing needs it.
        draws: Noise by row.
        steps: Euler steps; times 1, 1 - 1/n, ..., 1/n.
        mode: One of `config.MEMORIES_ROLLOUT`.
        imagine: Also say what is imagined.
        cached: Run the prefix once (exact: it never looks at the suffix); False runs it at
            every step, for checks.
        other: Normalised chunk [B, H, max_action_dim]: also say what would be imagined under
            these actions, where imagination depends on actions.
    """
    watch = Watch(model.device)
    acting = model.prophet is not None and model.shows_memory()
    conditioned = isinstance(model.prophet, ActionProphet)
    history, origin, predicted, memory = None, None, None, None
    if model.prophet is not None and (acting or imagine):
        assert frames is not None
        assert model.encoder is not None
        history = model.encoder(frames.to(model.device), model.world.context)
        origin = model.origin(frames, history)
        if not conditioned:
            predicted = model.predict(history)
            if acting:
                memory = _memory(model, predicted, origin, mode, draws)
        watch.lap("world" if acting else "imagine")
    tokens = model.prefix(query, memory)
    prefix = model.host.fill(tokens) if cached else tokens
    watch.lap("prefix")
    host = model.config.host
    x = draws.normal((host.chunk, host.max_action_dim), ACTION_STREAM)
    states: Tensor | None = None
    for step in range(steps):
        t = x.new_full((len(x),), 1.0 - step / steps)
        if conditioned and acting and history is not None and origin is not None:
            # the future depends on the chunk, so the memory changes at every step
            memory = _memory(model, model.predict(history, x, t), origin, mode, draws)
        velocity, states = model.velocity(prefix, x, t, memory)
        x = x - velocity / steps
    watch.lap("denoise")
    imagined: Tensor | None = None
    if imagine and model.future_tokens is not None and states is not None:
        # FLARE's tokens of the last, least noisy evaluation
        if model.imagining_needs_history:
            assert frames is not None
            origin = model.origin(frames)
        predicted = model.future_tokens(states)
    elif imagine and conditioned and history is not None:
        predicted = model.predict(history, x, torch.zeros_like(x[:, 0, 0]))
    if imagine and predicted is not None:
        imagined = model.imagined(predicted, origin, query)
    otherwise: Tensor | None = None
    if imagine and conditioned and history is not None and other is not None:
        led = model.predict(history, other, torch.zeros_like(x[:, 0, 0]))
        otherwise = model.imagined(led, origin, query)
    watch.lap("imagine")
    return Sampled(x, imagined, otherwise, watch.parts)


def _memory(
    model: SmolVLAWorld, predicted: Tensor, origin: Tensor, mode: str, draws: Draws
) -> Memory:
    return Memory(rollout_memory(mode, model.absolute(predicted, origin), draws))
