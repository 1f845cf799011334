"""smolvla_world in the training loop: its V-JEPA, its frozen features, its checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moving_squares_doubles import (
    OneBatch,
    losses,
    moving_squares,
    saved,
    statistics,
    steps_down,
    with_features,
)
from smolvla_world_doubles import fresh, observation, open_gates, tiny

from policies.smolvla_world import tokenizer
from policies.smolvla_world.model import SmolVLAWorld
from policies.smolvla_world.probe import probe
from policies.smolvla_world.tokenizer import VJepaPart, variety
from policies.training.config import TrainConfig
from policies.training.loop import Trainer
from policies.training.trainable import Trainable, adopt, part_of


def part_of_fresh() -> tuple[SmolVLAWorld, VJepaPart]:
    model = fresh("late_gated_xattn").model
    return model, model.parts()["tokenizer"]


def test_vjepa_learns_and_says_how_well() -> None:
    model, part = part_of_fresh()
    batch = moving_squares(part.batch_spec, 16)
    seen = steps_down(part, batch, 30)
    assert seen[-1] < 0.7 * seen[0]
    judged = [moving_squares(part.batch_spec, 48, seed=s) for s in (0, 1)]
    numbers = part.finish(judged)
    assert sorted(numbers) == ["eef_r2", "effective_rank", "feature_std"]
    assert 1 < numbers["effective_rank"] < 64
    assert model.encoder is not None
    frames = judged[0].frames["agentview"].flip(-2)
    found = model.encoder(frames, 1)[:, 0]
    torch.testing.assert_close(found.std(0).mean(), torch.tensor(1.0), rtol=0.1, atol=0.1)


def test_masks_hide_blocks_through_all_times() -> None:
    _, part = part_of_fresh()
    batch = moving_squares(part.batch_spec, 6)
    sizes = set()
    for seed in range(8):
        seeded = dataclasses.replace(batch, seed=torch.arange(6) + 50 * seed)
        context, target = part._masks(seeded)
        sizes.add(target.shape[1])
        assert context.shape[0] == target.shape[0] == 6
        assert context.shape[1] >= 2 * tokenizer.MIN_CONTEXT
        for seen, hidden in zip(context, target, strict=True):
            assert not set(seen.tolist()) & set(hidden.tolist())
        # the second time's tokens are the first's, 64 cells on
        half = target.shape[1] // 2
        assert torch.equal(target[:, half:], target[:, :half] + 64)
    assert len(sizes) > 1


def test_a_step_sees_no_hidden_patch() -> None:
    _, part = part_of_fresh()
    batch = moving_squares(part.batch_spec, 2)
    clips = part._clips(batch).requires_grad_(True)
    context, _ = part._masks(batch)
    tokens = part._student.embeddings(clips)
    part._encoded(tokenizer._taken(tokens, context), context).sum().backward()
    assert clips.grad is not None
    # [B, T, 3, H, W] -> which of 2 x 8 x 8 tokens had an influence
    felt = clips.grad.abs().sum(2).unflatten(1, (2, 2)).sum(2)
    felt = felt.unflatten(-1, (8, 8)).unflatten(-3, (8, 8)).sum((-1, -3)).flatten(1) > 0
    for row in range(2):
        assert set(felt[row].nonzero()[:, 0].tolist()) == set(context[row].tolist())


def test_variety_by_hand() -> None:
    # two channels that are copies of each other: correlation 1 with one other channel
    x = torch.tensor([[0.0, 0.0], [2.0, 4.0]])
    spread, correlation = variety(x)
    assert float(spread) == 0.0
    assert float(correlation) == pytest.approx(1.0, abs=1e-3)
    # nothing differs: all of SPREAD is lacking
    assert float(variety(torch.ones(4, 3))[0]) == pytest.approx(tokenizer.SPREAD, abs=1e-3)


def test_probe_by_hand() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 4, generator=g)
    found = probe(x, x[:, :2] @ torch.randn(2, 3, generator=g) + 5.0)
    assert found["eef_r2"] == pytest.approx(1.0, abs=0.01)
    assert found["effective_rank"] == pytest.approx(4.0, abs=0.2)
    assert found["feature_std"] == pytest.approx(1.0, abs=0.1)
    flat = probe(x[:, :1].expand(-1, 4), torch.randn(400, 3, generator=g))
    assert flat["effective_rank"] == pytest.approx(1.0, abs=1e-3)
    assert flat["eef_r2"] < 0.1


def test_a_killed_training_goes_on_with_the_same_result(tmp_path: Path) -> None:
    def trainer(folder: Path, steps: int) -> tuple[SmolVLAWorld, Trainer]:
        model, part = part_of_fresh()
        for parameter in part.parameters():
            parameter.requires_grad_(True)
        sampler: Any = OneBatch(moving_squares(part.batch_spec, 4))
        folder.mkdir(exist_ok=True)
        config = TrainConfig(steps=steps, batch=4, warmup=1, lr_end=1.0)
        return model, Trainer(
            model=model, learner=part, config=config, folder=folder, train=sampler
        )

    whole, one = trainer(tmp_path / "whole", 4)
    before = {n: p.clone() for n, p in one.learner.beside()["predictor"].named_parameters()}  # type: ignore[attr-defined]
    one.run()
    after = dict(one.learner.beside()["predictor"].named_parameters())  # type: ignore[attr-defined]
    assert any(not torch.equal(before[n], after[n]) for n in before)  # it is stepped, too
    _, first = trainer(tmp_path / "cut", 2)
    first.run()
    cut, second = trainer(tmp_path / "cut", 4)
    assert second.resume()
    second.run()
    left, right = whole.state_dict(), cut.state_dict()
    assert all(torch.equal(left[k], right[k]) for k in left)
    assert all(torch.equal(one.average[k], second.average[k]) for k in one.average)


@pytest.mark.parametrize("variant", ["late_gated_xattn", "flare_tokens", "constraint"])
def test_features_change_nothing(variant: str) -> None:
    model = fresh(variant).model
    open_gates(model)
    batch = moving_squares(model.batch_spec, 6)
    cached = with_features(model, batch)
    assert {k: v.shape[1:] for k, v in cached.features.items()} == {  # type: ignore[union-attr]
        "history": (4, 64), "future": (4, 64), "origin": (4, 64)
    }  # fmt: skip
    assert losses(model, cached) == pytest.approx(losses(model, batch), rel=1e-4)


def test_clips_that_samples_share_are_encoded_once() -> None:
    model = fresh("late_gated_xattn").model
    spec = model.batch_spec
    batch = moving_squares(spec, 4)
    # four samples of one episode, one step apart, of one film
    film = moving_squares(dataclasses.replace(spec, frame_offsets=tuple(range(-6, 8))), 1).frames[
        "agentview"
    ][0]
    frames = torch.stack([film[s : s + 11] for s in range(4)])
    batch = dataclasses.replace(
        batch, frames=dict.fromkeys(spec.cameras, frames), episode=torch.zeros(4, dtype=torch.long)
    )
    assert model.encoder is not None
    seen: list[int] = []
    model.encoder.register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    with torch.no_grad():
        found = model.frozen_features(batch)
        apart = [model.frozen_features(batch.rows(slice(i, i + 1))) for i in range(4)]
    # 3 + 4 + 4 clips instead of 32; then a row for each sample's standing world
    assert seen == [11, 4, *[8, 1] * 4]
    for name, value in found.items():
        torch.testing.assert_close(value, torch.cat([a[name] for a in apart]), atol=1e-4, rtol=1e-4)


def test_base_has_nothing_to_cache_and_no_tokenizer() -> None:
    model = tiny("base").model
    assert model.frozen_features(moving_squares(model.batch_spec, 2)) == {}
    assert set(model.parts()) == {"backbone"}


def test_a_checkpoint_acts_as_the_model_that_was_saved(tmp_path: Path) -> None:
    policy = fresh("late_gated_xattn", steps=2)
    model = policy.model
    assert isinstance(model, Trainable)
    open_gates(model)
    model.set_statistics(statistics(model.batch_spec))
    assert model.encoder is not None
    model.encoder.std.mul_(2.0)
    again = fresh("late_gated_xattn", steps=2, checkpoint=str(saved(model, tmp_path)))
    obs = observation(policy.card, 2)
    one, two = policy.act(obs), again.act(obs)
    np.testing.assert_array_equal(one.actions, two.actions)
    assert one.imagined is not None
    assert two.imagined is not None
    np.testing.assert_array_equal(one.imagined.latents, two.imagined.latents)


def test_another_variant_adopts_the_encoder(tmp_path: Path) -> None:
    mine, other = fresh("late_gated_xattn").model, fresh("flare_tokens", init_seed=5).model
    assert mine.encoder is not None
    mine.encoder.std.mul_(2.0)
    assert isinstance(other, Trainable)
    adopt(other, part_of(other, "tokenizer", "smolvla_world"), saved(mine, tmp_path))
    batch = moving_squares(mine.batch_spec, 2)
    with torch.no_grad():
        one, two = mine.frozen_features(batch), other.frozen_features(batch)
    assert torch.equal(one["future"], two["future"])
    assert other.encoder is not None
    assert not any(p.requires_grad for p in other.encoder.parameters())
