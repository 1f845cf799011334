"""The model of every variant: SmolVLA, a predictor of the future and a way in.

Axes: B rows, H actions, K steps ahead, C steps of history, D world channels.
Source: FAMILIES C.0 to C.3.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from policies.batch import Batch
from policies.smolvla_world.attention import Tokens
from policies.smolvla_world.config import Config
from policies.smolvla_world.fusion import (
    ActionProphet,
    FutureTokens,
    GatedCrossAttention,
    Memory,
    Prophet,
    SiteInjection,
    WorldTokens,
)
from policies.smolvla_world.host import Cache
from policies.smolvla_world.inputs import Inputs, Query, turn
from policies.smolvla_world.tokenizer import VJepaPart
from policies.smolvla_world.world import WorldEncoder
from policies.training.backbone import BackbonePart, Reading
from policies.training.reconstruction import synthetic_video
from policies.training.trainable import Part

GATE_CLOSED = 1e-6  # world-modality-vla: below it the memory is not even looked at


class SmolVLAWorld(Inputs):
    """One variant; `loss` trains it, `sampling.sample` asks it.

    Args:
        config: See `presets.configuration`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        host, fusion, world = config.host, config.fusion, config.world
        self.encoder: WorldEncoder | None = None
        self.prophet: Prophet | None = None
        self.dynamics: ActionProphet | None = None
        self.inject: GatedCrossAttention | None = None
        self.sites: SiteInjection | None = None
        self.suffix_inject: GatedCrossAttention | None = None
        self.prefix_inject: GatedCrossAttention | None = None
        self.world_tokens: WorldTokens | None = None
        self.future_tokens: FutureTokens | None = None
        self.policy_proj: nn.Linear | None = None
        if world is None:
            return
        self.encoder = WorldEncoder(world)
        variant, width = config.variant, host.expert_hidden
        if fusion.flare_tokens:
            self.future_tokens = FutureTokens(fusion.flare_tokens, width, world.hidden)
        elif variant == "action_conditioned_prophet":
            self.prophet = ActionProphet(fusion, world, host)
        else:
            self.prophet = Prophet(fusion, world)
        if variant in ("late_gated_xattn", "action_conditioned_prophet"):
            self.inject = self._gated(width)
        elif variant == "suffix_in":
            self.suffix_inject = self._gated(width)
        elif variant == "prefix_xattn":
            self.prefix_inject = self._gated(host.vlm.hidden)
        elif variant == "world_tokens":
            side = host.vlm.hidden if fusion.placement == "prefix" else width
            gate = fusion.gate_init if fusion.gate_tokens else None
            self.world_tokens = WorldTokens(world.hidden, side, gate)
        elif variant == "constraint":
            self.dynamics = ActionProphet(fusion, world, host)
        if fusion.sites:
            self.sites = SiteInjection(fusion, width, world.hidden)
        if fusion.loss == "cos_policy":
            self.policy_proj = nn.Linear(world.hidden, host.vlm.hidden)
        # a cosine has no slope at zero
        if self.from_standing and fusion.loss in ("mse", "relative"):
            self._begin_still()

    @torch.no_grad()
    def _begin_still(self) -> None:
        """Let what has not learnt yet say that nothing moves."""
        last = self.prophet.output_proj if self.prophet else None
        last = self.future_tokens.head[-1] if self.future_tokens else last
        for parameter in () if last is None else last.parameters():
            parameter.zero_()

    def _gated(self, width: int) -> GatedCrossAttention:
        assert self.config.world is not None
        fusion = self.config.fusion
        return GatedCrossAttention(
            width, fusion.inject_heads, self.config.world.hidden, fusion.gate_init
        )

    # --------------------------------------------------------------------- velocity

    def gates(self) -> Tensor | None:
        """Tanh of all gates, or None when the way in has none."""
        found = [m.gate for m in (self.inject, self.suffix_inject, self.prefix_inject) if m]
        if self.sites is not None:
            found.append(self.sites.gates)
        if self.world_tokens is not None and self.world_tokens.gate is not None:
            found.append(self.world_tokens.gate)
        return torch.tanh(torch.cat([g.reshape(-1) for g in found])) if found else None

    def shows_memory(self) -> bool:
        """Whether the future reaches the actions at all: there is a way in, and it is open.

        Gated tokens count as open: at gate zero they are still tokens that are looked at.
        """
        if self.world_tokens is not None:
            return True
        gates = self.gates()
        return gates is not None and bool((gates.abs() >= GATE_CLOSED).any())

    def prefix(self, query: Query, memory: Memory | None) -> Tokens:
        """Put the prefix together: images, language, state and, for some, the future."""
        if memory is not None and self.world_tokens is not None:
            block = self.config.fusion.prefix_block
            if self.config.fusion.placement == "prefix":
                future = Tokens.of(self.world_tokens(memory), first=block == "own", rest=False)
                if block == "prefix":
                    return Tokens.join(query.context, future, query.state)
                return Tokens.join(query.context, query.state, future)
        whole = Tokens.join(query.context, query.state)
        if memory is not None and self.prefix_inject is not None:
            return Tokens(self.prefix_inject(whole.embeddings, memory), whole.valid, whole.starts)
        return whole

    def _suffix(self, x: Tensor, time: Tensor, memory: Memory | None) -> tuple[Tokens, slice]:
        """Give the suffix and where in it the actions are."""
        fusion, chunk = self.config.fusion, self.config.host.chunk
        actions = self.host.suffix(x, time)
        if self.future_tokens is not None:
            learned = self.future_tokens.tokens.expand(len(x), -1, -1)
            order = (actions, learned) if fusion.flare_after else (learned, actions)
            tokens = Tokens.of(torch.cat(order, 1), first=True, rest=fusion.flare_causal)
            at = 0 if fusion.flare_after else fusion.flare_tokens
            return tokens, slice(at, at + chunk)
        if memory is not None and self.suffix_inject is not None:
            actions = self.suffix_inject(actions, memory)
        tokens = Tokens.of(actions, first=True, rest=True)  # causal among actions
        in_suffix = self.world_tokens is not None and fusion.placement == "suffix"
        if memory is not None and in_suffix and self.world_tokens is not None:
            future = Tokens.of(self.world_tokens(memory), first=True, rest=False)
            tokens = Tokens.join(future, tokens)
        return tokens, slice(tokens.length - chunk, tokens.length)

    def velocity(
        self, prefix: Tokens | Cache, x: Tensor, time: Tensor, memory: Memory | None
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the flow.

        Args:
            prefix: Its tokens (one joint pass), or its filled cache.
            x: Noisy actions [B, H, max_action_dim].
            time: [B], 1 is noise and 0 is data.
            memory: The future that is shown; None leaves it out.

        Returns:
            Velocity [B, H, max_action_dim]; FLARE's aligned token states [B, M, width].
        """
        suffix, actions = self._suffix(x, time, memory)
        kept: list[Tensor] = []

        def after(depth: int, states: Tensor) -> Tensor:
            if self.future_tokens is not None and depth == self.config.fusion.flare_layer:
                rest = states[:, actions.stop :], states[:, : actions.start]
                kept.append(torch.cat(rest, dim=1))
            if self.sites is None or memory is None:
                return states
            return self.sites(depth, states, memory)

        if isinstance(prefix, Cache):
            states = self.host.denoise(prefix, suffix, after)
        else:
            states = self.host.together(prefix, suffix, after)[1]
        states = states[:, actions].float()
        if memory is not None and self.inject is not None:
            states = self.inject(states, memory)
        return self.host.action_out_proj(states), kept[0] if kept else None

    # ------------------------------------------------------------------------ future

    def predict(
        self, history: Tensor, actions: Tensor | None = None, time: Tensor | None = None
    ) -> Tensor:
        """Run the Prophet: [B, K, D], a change or absolute as `fusion.delta` says."""
        assert self.prophet is not None
        if isinstance(self.prophet, ActionProphet):
            assert actions is not None
            assert time is not None
            real = actions[..., : self.config.host.action_dim]
            return self.prophet.with_actions(history, real, time)
        return self.prophet(history)

    @property
    def from_standing(self) -> bool:
        """Whether changes are counted from the standing world, not from the present."""
        fusion = self.config.fusion
        return fusion.delta and fusion.delta_from == "standing" and self.policy_proj is None

    def origin(self, frames: Tensor, history: Tensor | None = None) -> Tensor:
        """Give what changes are counted from, [B, K, D], or [B, 1, D] where it is the present.

        Args:
            frames: uint8 [B, T, H, W, 3] of the world camera at `world.history`.
            history: Their features [B, C, D], where they are known.
        """
        assert self.encoder is not None
        if self.from_standing:
            return self.encoder.standing(frames.to(self.device), self.world.horizon)
        if history is not None:
            return history[:, -1:]
        return self.encoder(frames.to(self.device), self.world.context)[:, -1:]

    def absolute(self, predicted: Tensor, origin: Tensor) -> Tensor:
        """Add what changes are counted from (see `origin`) to a predicted change."""
        return predicted + origin if self.config.fusion.delta else predicted

    @property
    def horizons(self) -> tuple[int, ...]:
        """Steps ahead of what `encode` and `imagined` give."""
        ahead = self.world.horizon
        return (ahead,) if self._far else tuple(range(1, ahead + 1))

    @property
    def _far(self) -> bool:
        """All of FLARE's tokens stand for the one farthest future."""
        return self.future_tokens is not None and self.config.fusion.flare_target == "last"

    @property
    def imagining_needs_history(self) -> bool:
        """Whether `imagined` needs features of the past."""
        changes = self.config.fusion.delta and self.policy_proj is None
        return self.prophet is not None or (self.future_tokens is not None and changes)

    def imagined(self, predicted: Tensor, origin: Tensor | None, query: Query) -> Tensor:
        """Put a prediction into the space of `encode`, [B, K, D'].

        With loss "cos_policy" that is the policy's own image features, else V-JEPA's.

        Args:
            predicted: [B, K, D] or, from FLARE's tokens, [B, M, D].
            origin: See `origin`, where changes are predicted.
            query: The present.
        """
        predicted = predicted.mean(1, keepdim=True) if self._far else predicted
        if self.policy_proj is not None:
            now = self.policy_features(query.world)[:, None]
            return self.absolute(self.policy_proj(predicted), now)
        if origin is None:
            return predicted
        return self.absolute(predicted, origin[:, -1:] if self._far else origin)

    def encode(self, frames: Tensor) -> Tensor:
        """Put real frames into the imagined space.

        Args:
            frames: uint8 [B, T, H, W, 3] of the world camera at `world.future`.

        Returns:
            float32 [B, K, D'].
        """
        assert self.encoder is not None
        count = len(self.horizons)
        if self.policy_proj is not None:
            flat = self.steps(frames[:, -count:].flatten(0, 1))
            return self.policy_features(self.host.pictures(flat)).unflatten(0, (-1, count))
        seen = count + self.world.clip_frames - 1  # the present's own clip is not asked for
        return self.encoder(frames[:, -seen:].to(self.device), count)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Give every loss term by name, and "total"; see `training.losses`."""
        from policies.smolvla_world.training import losses

        return losses(self, batch)[0]

    def frozen_features(self, batch: Batch) -> dict[str, Tensor]:
        """World features; empty without a future.

        "history" [B, C, D] and "future" [B, K, D], and "origin" [B, K, D] unless it is the
        present.
        """
        if self.encoder is None:
            return {}
        from policies.smolvla_world.training import world_features

        history, future, origin = world_features(self, batch)
        found = {"history": history, "future": future}
        return found | {"origin": origin} if self.from_standing else found

    def parts(self) -> dict[str, Part]:
        """What is trained by itself beforehand.

        "backbone" is the VLM, "tokenizer" a small V-JEPA of our own where there is one.
        """
        found: dict[str, Part] = {"backbone": self._backbone()}
        if self.encoder is not None and self.encoder.config.own:
            found["tokenizer"] = VJepaPart(self, self.encoder)
        return found

    def _backbone(self) -> BackbonePart:
        config = self.config
        cameras, vlm = config.cameras, config.host.vlm

        def grids(tokens: Tensor) -> Tensor:
            side = vlm.tokens_side
            pictures = tokens[:, : len(cameras) * side**2]  # they come first
            return pictures.unflatten(1, (len(cameras), side, side))

        def read(batch: Batch) -> Reading:
            frames = {c: turn(batch.at(c, (0,))[:, 0], self.config.orientation) for c in cameras}
            query = self.query(frames, batch.proprio_at(0), batch.instruction, trim=True)
            states = self.host.read(Tokens.join(query.context, query.state))
            return Reading(
                out=states[:, -1:],  # the proprioception, which sees all the others
                seen=grids(states),
                before=grids(query.context.embeddings) / math.sqrt(vlm.hidden),
            )

        return BackbonePart(
            self,
            prefixes=("host.vlm.", "host.state_proj."),
            spec=dataclasses.replace(self.batch_spec, frame_offsets=(0,), keyframe=True),
            read=read,
            width=vlm.hidden,
            orientation=config.orientation,
            whole=config.images.keeps_all and config.image_size[0] == config.image_size[1],
        )


def build(config: Config, *, seed: int) -> SmolVLAWorld:
    """Make a model with untrained weights that depend on `seed` alone."""
    devices: list[Any] = []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        model = SmolVLAWorld(config)
        if model.encoder is not None and model.encoder.config.own:
            world = model.encoder.config  # untrained features, too, are of unit size
            side = (world.crop_px, world.crop_px)
            video = synthetic_video(16, world.clip_frames, side).transpose(1, 2)
            with torch.no_grad():
                model.encoder.measure_scale(model.encoder.pooled(video))
        return model
