"""Loss terms against hand-computed values and independent references."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from smolvla_world_doubles import batch_of, fresh, open_gates, tiny

from policies.batch import check_finite
from policies.checkpoint import Statistics
from policies.smolvla_world import losses
from policies.smolvla_world.attention import Tokens
from policies.smolvla_world.config import LOSSES, MEMORIES_TRAIN
from policies.smolvla_world.memory import Draws, rollout_memory, training_memory
from policies.smolvla_world.presets import VARIANTS
from policies.smolvla_world.training import Step
from policies.smolvla_world.training import losses as all_losses

IMAGINING = [v for v in VARIANTS if v != "base"]


def _free(rows: int = 2) -> Draws:
    return Draws(np.arange(rows, dtype=np.uint64), rows, "cpu")


def test_cos_loss_by_hand() -> None:
    predicted = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 2.0], [5.0, 5.0]]])
    target = torch.tensor([[[3.0, 0.0], [1.0, 0.0]], [[0.0, -1.0], [math.nan, 0.0]]])
    valid = torch.tensor([[True, True], [True, False]])  # the NaN must not count
    # cosines 1, 1/sqrt(2), -1: (0 + 0.292893 + 2) / 3 = 0.764298
    assert float(losses.cos_loss(predicted, target, valid)) == pytest.approx(0.764298, abs=1e-6)


def test_mse_loss_by_hand() -> None:
    predicted, target = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 3.0], [100.0, 100.0]]])
    valid = torch.tensor([[True, False]])
    assert float(losses.mse_loss(predicted, target, valid)) == pytest.approx(5.0)  # (1 + 9) / 2


def test_flow_loss_counts_real_steps_only() -> None:
    velocity = torch.zeros(1, 2, 1)
    noise, actions = torch.tensor([[[3.0], [9.0]]]), torch.tensor([[[1.0], [0.0]]])
    valid = torch.tensor([[True, False]])
    assert float(losses.flow_loss(velocity, noise, actions, valid)) == pytest.approx(4.0)


@pytest.mark.parametrize("across", [False, True])
def test_contrastive_loss_against_a_loop(across: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    predicted, target = (torch.randn(3, 2, 4, generator=draw) for _ in range(2))
    valid = torch.tensor([[True, True], [True, False], [True, True]])
    episode, step = torch.tensor([0, 0, 1]), torch.tensor([5, 6, 5])  # 0 and 1 are neighbours
    got = losses.contrastive_loss(
        predicted, target, valid,
        episode=episode, step=step, temperature=0.5, across_horizons=across,
    )  # fmt: skip
    total, count = 0.0, 0
    for i in range(3):
        for k in range(2):
            if not valid[i, k]:
                continue
            own, others = 0.0, 0.0
            for j in range(3):
                for m in range(2):
                    near = (
                        episode[i] == episode[j] and abs(int(step[i]) + k - int(step[j]) - m) <= 2
                    )
                    mine = (i, k) == (j, m)
                    if not mine and (near or not valid[j, m] or (m != k and not across)):
                        continue
                    cos = torch.cosine_similarity(predicted[i, k], target[j, m], dim=0)
                    score = math.exp(float(cos) / 0.5)
                    others += score
                    own = score if mine else own
            total, count = total - math.log(own / others), count + 1
    assert float(got) == pytest.approx(total / count, abs=1e-5)


def test_nothing_valid_gives_zero_and_gradients() -> None:
    for kind in LOSSES:
        model = fresh("hierarchical_horizons", loss=kind).model
        open_gates(model)
        spec = model.batch_spec
        valid = torch.ones(4, len(spec.frame_offsets), dtype=torch.bool)
        valid[:, [o > 0 for o in spec.frame_offsets]] = False
        terms = model.loss(batch_of(spec, frame_valid=valid))
        assert terms["world"].item() == 0
        terms["total"].backward()
        for parameter in model.parameters():
            assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())


def test_futures_past_the_end_do_not_count() -> None:
    """Horizon clamp: what stands in for frames past the end changes no loss."""
    model = tiny("hierarchical_horizons").model
    spec = model.batch_spec
    past = [i for i, o in enumerate(spec.frame_offsets) if o > 2]
    valid = torch.ones(4, len(spec.frame_offsets), dtype=torch.bool)
    valid[:, past] = False
    one = batch_of(spec, frame_valid=valid)
    frames = {c: x.clone() for c, x in one.frames.items()}
    frames["agentview"][:, past] = 0
    other = dataclasses.replace(one, frames=frames)
    for name, value in model.loss(one).items():
        assert value.item() == pytest.approx(model.loss(other)[name].item(), abs=1e-6), name


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_terms_and_total(variant: str) -> None:
    model = tiny(variant).model
    terms, notes = all_losses(model, batch_of(model.batch_spec))
    fusion = model.config.fusion
    expected = terms["flow"].item()
    if variant != "base":
        expected += fusion.lambda_world * terms["world"].item()
        assert -1 <= notes["world_cos"] <= 1
        assert notes["world_valid_frac"] == 1
    if variant == "constraint":
        expected += fusion.mu_constraint * terms["constraint"].item()
    assert terms["total"].item() == pytest.approx(expected, rel=1e-6)
    assert (fusion.lambda_world, fusion.mu_constraint) == (0.2, 0.2)


def test_the_flow_term_from_its_parts() -> None:
    model = tiny("base").model
    batch = batch_of(model.batch_spec)
    step = Step(model, batch)
    many = step.many
    assert len(set(step.time.tolist())) == 4 * many > 4  # every noise has a time of its own
    assert torch.equal(step.actions[0], step.actions[many - 1])  # rows of one sample
    t = step.time[:, None, None]
    noisy = t * step.noise + (1 - t) * step.actions
    prefix = model.prefix(step.query, None)
    each = (x.repeat_interleave(many, 0) for x in (prefix.embeddings, prefix.valid))
    rows = Tokens(*each, prefix.starts)
    with torch.no_grad():  # one joint pass for each noise; training fills the prefix once
        velocity = model.velocity(rows, noisy, step.time, None)[0]
    error = (velocity - (step.noise - step.actions))[..., :7]
    expected = float((error**2).mean())
    assert model.loss(batch)["flow"].item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(step.actions[..., 7:], torch.zeros(4 * many, 8, 3))  # padding is zeros


def test_delta_and_absolute_targets() -> None:
    for delta in (True, False):
        model = tiny("late_gated_xattn", delta=delta, delta_from="present", loss="cos").model
        batch = batch_of(model.batch_spec)
        step = Step(model, batch)
        with torch.no_grad():
            predicted = model.predict(step.history)
        target = step.future - step.present[:, None] if delta else step.future
        cos = torch.cosine_similarity(predicted, target, dim=-1)
        got = model.loss(batch)["world"].item()
        assert got == pytest.approx(float(1 - cos.mean()), abs=1e-5)


def test_relative_loss_by_hand() -> None:
    target = torch.tensor([[[1.0, 1.0], [4.0, 0.0]], [[3.0, 1.0], [9.0, 9.0]]])
    predicted = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[3.0, 3.0], [7.0, 7.0]]])
    valid = torch.tensor([[True, True], [True, False]])
    # k = 1: (1 + 4) / (2 + 10); k = 2: all of 16 of the one that counts
    found = losses.relative_loss(predicted, target, valid)
    assert found.item() == pytest.approx((5 / 12 + 1.0) / 2)
    nothing = losses.relative_loss(predicted, target, torch.zeros(2, 2, dtype=torch.bool))
    assert nothing.item() == 0.0


@pytest.mark.parametrize("variant", IMAGINING)
@pytest.mark.parametrize("kind", LOSSES)
def test_every_loss_reaches_the_predictor(variant: str, kind: str) -> None:
    model = fresh(variant, loss=kind).model
    model.loss(batch_of(model.batch_spec))["world"].backward()
    part = model.prophet or model.future_tokens
    assert part is not None
    grads = [p.grad for p in part.parameters()]
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in grads)
    assert model.encoder is not None
    assert all(p.grad is None for p in model.encoder.parameters())  # frozen


def test_the_flow_trains_the_predictor_once_the_gate_is_open() -> None:
    model = fresh("late_gated_xattn", delta_from="present").model
    model.loss(batch_of(model.batch_spec))["flow"].backward()
    assert model.prophet is not None
    assert model.inject is not None
    slots = model.prophet.query_slots
    assert slots.grad is not None
    assert float(slots.grad.abs().max()) == 0  # closed
    assert model.inject.gate.grad is not None
    assert float(model.inject.gate.grad.abs()) > 0  # but it can open
    open_gates(model)
    model.loss(batch_of(model.batch_spec))["flow"].backward()
    assert float(slots.grad.abs().max()) > 0


@pytest.mark.parametrize("mode", MEMORIES_TRAIN)
def test_training_memories(mode: str) -> None:
    predicted, future = torch.full((2, 3, 4), 2.0), torch.arange(24.0).view(2, 3, 4)
    got = training_memory(mode, predicted, future, _free())
    if mode == "pred":
        assert got is predicted
    elif mode == "oracle":
        assert got is future
    elif mode == "zero":
        assert not got.any()
    elif mode == "shuffle":
        assert sorted(got[:, 0, 0].tolist()) == [0.0, 12.0]  # rows permuted, nothing else
    elif mode == "signflip":
        assert torch.equal(got.abs(), predicted)
        assert torch.equal(got[0], got[1])  # one fixed flip per channel
        assert {-2.0, 2.0} >= set(got.unique().tolist())
    else:
        assert got.shape == predicted.shape
        assert not torch.equal(got[0], got[1])
    model = tiny("late_gated_xattn", memory_train=mode).model
    check_finite(model.loss(batch_of(model.batch_spec)))


def test_rollout_memories_keep_what_they_promise() -> None:
    draw = torch.Generator().manual_seed(3)
    predicted = torch.randn(64, 3, 48, generator=draw)
    draws = _free(64)
    shuffled = rollout_memory("shuffle", predicted, draws)
    assert torch.equal(shuffled.sort(-1).values, predicted.sort(-1).values)
    assert not torch.equal(shuffled, predicted)
    scaled = rollout_memory("random_scaled", predicted * 7, draws)
    assert float(scaled.std()) == pytest.approx(7, rel=0.05)
    assert float(rollout_memory("random", predicted * 7, draws).std()) == pytest.approx(1, rel=0.05)
    with pytest.raises(ValueError, match="unknown memory mode 'oracle'"):
        rollout_memory("oracle", predicted, draws)


def test_times_are_beta_distributed() -> None:
    """Beta(1.5, 1) has mean 0.6 and second moment 1.5 / 3.5."""
    t = (_free(4000).time() - 0.001) / 0.999
    assert 0 <= float(t.min()) <= float(t.max()) <= 1
    assert float(t.mean()) == pytest.approx(0.6, abs=0.015)
    assert float((t**2).mean()) == pytest.approx(1.5 / 3.5, abs=0.015)


def test_statistics_scale_actions_and_state() -> None:
    model = fresh("base").model
    mean, std = torch.arange(7.0), torch.arange(1.0, 8.0)
    model.set_statistics(
        Statistics(
            {
                "action": {"mean": mean, "std": std},
                "proprio": {"mean": torch.zeros(8), "std": torch.ones(8)},
            }
        )
    )
    actions = torch.randn(2, 8, 7)
    scaled = model.normalise("action", actions, 10)
    assert torch.allclose(scaled[..., :7], (actions - mean) / std, atol=1e-6)
    assert torch.allclose(model.denormalise(scaled), actions, atol=1e-5)


def test_a_loss_that_is_not_finite_is_named() -> None:
    model = tiny("late_gated_xattn").model
    batch = batch_of(model.batch_spec)
    actions = batch.actions.clone()
    actions[0, 0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="loss term 'flow'"):
        check_finite(model.loss(dataclasses.replace(batch, actions=actions)))


def test_noise_comes_from_the_batchs_seeds() -> None:
    model = tiny("late_gated_xattn").model
    batch = batch_of(model.batch_spec)
    assert model.loss(batch)["flow"].item() == model.loss(batch)["flow"].item()
    free = dataclasses.replace(batch, seed=None)
    assert model.loss(free)["flow"].item() != model.loss(free)["flow"].item()


def test_constraint_against_the_future_and_with_grounding() -> None:
    model = tiny("constraint", constraint_target="future", constraint_grounding=True).model
    terms = model.loss(batch_of(model.batch_spec))
    parts = ("flow", "world", "constraint", "grounding")
    expected = sum(w * terms[p].item() for p, w in zip(parts, (1, 0.2, 0.2, 0.2), strict=True))
    assert terms["total"].item() == pytest.approx(expected, rel=1e-5)
