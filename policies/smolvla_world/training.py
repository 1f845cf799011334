"""Loss terms of a batch (FAMILIES C.0, C.3).

Axes: B samples, n noises drawn for each (nB rows, a sample's one after the other), H actions,
K steps ahead, C steps of history, D world channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from policies.batch import Batch
from policies.smolvla_world import losses as terms
from policies.smolvla_world.fusion import ActionProphet, Memory
from policies.smolvla_world.inputs import turn
from policies.smolvla_world.memory import ACTION_STREAM, Draws, training_memory

if TYPE_CHECKING:
    from policies.smolvla_world.model import SmolVLAWorld


def world_features(model: SmolVLAWorld, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Encode a batch's past [B, C, D] and future [B, K, D], and give `SmolVLAWorld.origin`.

    Samples that follow one another share most of their clips; each is encoded once.
    """
    assert model.encoder is not None
    c, world = model.config, model.world
    offsets = (*world.history, *range(1, world.horizon + 1))
    frames = turn(batch.at(c.cameras[world.camera], offsets), c.orientation)
    count, length = world.context + world.horizon, world.clip_frames
    ends = batch.step[:, None] + torch.arange(1 - world.context, world.horizon + 1)
    keys = torch.stack([batch.episode[:, None].expand_as(ends), ends], dim=-1).flatten(0, 1)
    _, place = torch.unique(keys, dim=0, return_inverse=True)
    first = torch.full((int(place.max()) + 1,), len(place)).scatter_reduce(
        0, place, torch.arange(len(place)), "amin"
    )
    windows = frames.unfold(1, length, 1).movedim(-1, 2).flatten(0, 1)  # [B count, m, H, W, 3]
    latents = model.encoder(windows[first].to(model.device), 1)[:, 0][place.to(model.device)]
    latents = latents.unflatten(0, (batch.size, count))
    history, future = latents[:, : world.context], latents[:, world.context :]
    return history, future, model.origin(frames[:, : len(world.history)], history)


class Step:
    """One training step's data: what was seen, what came, what is drawn."""

    def __init__(self, model: SmolVLAWorld, batch: Batch) -> None:
        c, self.batch = model.config, batch
        self.many = c.host.flow_draws
        # these predict from the noisy actions, so each noise has a future of its own
        self.apart = isinstance(model.prophet, ActionProphet) or bool(
            model.dynamics or model.future_tokens
        )
        way = c.orientation
        now = {name: turn(batch.at(name, (0,))[:, 0], way) for name in c.cameras}
        self.query = model.query(now, batch.proprio_at(0), batch.instruction, trim=True)
        seeds = None if batch.seed is None else batch.seed.cpu().numpy().astype(np.uint64)
        self.draws = Draws(seeds, batch.size, model.device)
        actions = model.normalise("action", batch.actions, c.host.max_action_dim)
        self.actions = self.spread(actions)
        self.actions_valid = self.spread(batch.action_valid.to(model.device))
        self.noise = self.draws.normal((self.many, *actions.shape[1:]), ACTION_STREAM).flatten(0, 1)
        self.time = self.draws.time((self.many,)).flatten()
        t = self.time[:, None, None]
        self.noisy = t * self.noise + (1 - t) * self.actions
        if c.world is None:
            return
        ahead = tuple(range(1, c.world.horizon + 1))
        eye = c.cameras[c.world.camera]
        if batch.features is None:
            self.history, self.future, self.origin = world_features(model, batch)
        else:
            found = {name: x.to(model.device) for name, x in batch.features.items()}
            self.history, self.future = found["history"], found["future"]
            self.origin = found.get("origin", self.history[:, -1:])
        self.present = self.history[:, -1]
        self.valid = batch.valid_at(ahead).to(model.device)
        self.policy_future: Tensor | None = None
        if model.policy_proj is not None:
            flat = model.steps(turn(batch.at(eye, ahead), way).flatten(0, 1))
            seen = model.policy_features(model.host.pictures(flat))
            self.policy_future = seen.unflatten(0, (batch.size, len(ahead)))
        self.history, self.future = self.told(self.history), self.told(self.future)
        self.present, self.valid = self.told(self.present), self.told(self.valid)
        self.origin = self.told(self.origin)
        if self.policy_future is not None:
            self.policy_future = self.told(self.policy_future)
        if self.apart:
            self.draws = self.draws.spread(self.many)

    def spread(self, rows: Tensor) -> Tensor:
        """Give each sample's row to all of its noises, [B, ...] -> [nB, ...]."""
        return rows if self.many == 1 else rows.repeat_interleave(self.many, 0)

    def told(self, rows: Tensor) -> Tensor:
        """The same where every noise has a future of its own; else the rows as they are."""
        return self.spread(rows) if self.apart else rows


def losses(model: SmolVLAWorld, batch: Batch) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Give the loss terms, unweighted but for "total", and diagnostics.

    total = flow + lambda_world * world [+ mu_constraint * constraint] [+ lambda_world *
    grounding].

    Args:
        model: Any variant.
        batch: As `model.batch_spec` asks; with seeds, noise and times depend on them alone.
    """
    step, fusion = Step(model, batch), model.config.fusion
    out: dict[str, Tensor] = {}
    notes: dict[str, float] = {}
    predicted, memory = None, None
    if model.prophet is not None:
        predicted = model.predict(step.history, step.noisy, step.time)
        if model.gates() is not None or model.world_tokens is not None:
            absolute = model.absolute(predicted, step.origin)
            values = training_memory(fusion.memory_train, absolute, step.future, step.draws)
            # far futures end with the episode; only this variant's attention says so
            memory = Memory(values, step.valid if fusion.site_horizons else None)
    prefix = model.prefix(step.query, memory)
    if step.many > 1:
        prefix = model.host.fill(prefix).repeated(step.many)
        if memory is not None and not step.apart:
            memory = memory.spread(step.many)
    velocity, states = model.velocity(prefix, step.noisy, step.time, memory)
    real = model.config.host.action_dim
    out["flow"] = terms.flow_loss(
        velocity[..., :real], step.noise[..., :real], step.actions[..., :real], step.actions_valid
    )
    total = out["flow"]
    if model.future_tokens is not None and states is not None:
        predicted = model.future_tokens(states)
    if predicted is not None:
        out["world"], notes["world_cos"] = _world_loss(model, step, predicted)
        total = total + fusion.lambda_world * out["world"]
        notes["world_valid_frac"] = float(step.valid.float().mean())
        notes["history_norm"] = float(step.present.norm(dim=-1).mean())
        notes["future_norm"] = float(step.future.norm(dim=-1).mean())
    if model.dynamics is not None and predicted is not None:
        clean = step.noisy - step.time[:, None, None] * velocity
        total = total + _constraint(model, model.dynamics, step, clean, predicted, out)
    if memory is not None:
        notes["memory_norm"] = float(memory.values.detach().norm(dim=-1).mean())
    gates = model.gates()
    for number, gate in enumerate([] if gates is None else gates.detach().tolist()):
        notes[f"gate_{number}"] = gate
    out["total"] = total
    return out, notes


def _target(model: SmolVLAWorld, step: Step, count: int) -> tuple[Tensor, Tensor]:
    """What a prediction of `count` tokens must match, and where that counts."""
    fusion = model.config.fusion
    if step.policy_future is not None:
        now = step.told(model.policy_features(step.query.world))
        target = step.policy_future - now[:, None] if fusion.delta else step.policy_future
    else:
        target = step.future - step.origin if fusion.delta else step.future
    valid = step.valid
    if model.future_tokens is not None and fusion.flare_target == "last":
        target, valid = target[:, -1:].expand(-1, count, -1), valid[:, -1:].expand(-1, count)
    return target.detach(), valid


def _world_loss(model: SmolVLAWorld, step: Step, predicted: Tensor) -> tuple[Tensor, float]:
    fusion, batch = model.config.fusion, step.batch
    target, valid = _target(model, step, predicted.shape[1])
    if model.policy_proj is not None:
        predicted = model.policy_proj(predicted)
    with torch.no_grad():
        similarity = float(terms.masked_mean(terms.cosine(predicted, target), valid))
    if fusion.loss == "mse":
        return terms.mse_loss(predicted, target, valid), similarity
    if fusion.loss == "relative":
        return terms.relative_loss(predicted, target, valid), similarity
    if fusion.loss == "contrastive":
        loss = terms.contrastive_loss(
            predicted, target, valid,
            episode=step.told(batch.episode.to(valid.device)),
            step=step.told(batch.step.to(valid.device)),
            temperature=fusion.temperature, across_horizons=fusion.contrast_horizons,
        )  # fmt: skip
        return loss, similarity
    return terms.cos_loss(predicted, target, valid), similarity


def _constraint(
    model: SmolVLAWorld,
    dynamics: ActionProphet,
    step: Step,
    clean: Tensor,
    predicted: Tensor,
    out: dict[str, Tensor],
) -> Tensor:
    """The estimated clean chunk must lead where the Prophet, or reality, says.

    The form is a design choice (FAMILIES C.3.8): the seed gives only a name.
    """
    fusion, real = model.config.fusion, model.config.host.action_dim
    done = torch.zeros_like(step.time)  # time 0: the actions are clean
    led = dynamics.with_actions(step.history, clean[..., :real], done)
    future = step.future - step.origin if fusion.delta else step.future
    target = predicted.detach() if fusion.constraint_target == "prophet" else future
    out["constraint"] = terms.cos_loss(led, target, step.valid)
    total = fusion.mu_constraint * out["constraint"]
    if fusion.constraint_grounding:
        grounded = dynamics.with_actions(step.history, step.actions[..., :real], done)
        out["grounding"] = terms.cos_loss(grounded, future, step.valid)
        total = total + fusion.lambda_world * out["grounding"]
    return total
