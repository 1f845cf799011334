"""Cosmos in the training loop: its autoencoder, its frozen features, its checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cosmos_doubles import batch, model, observation, tiny
from moving_squares_doubles import (
    assert_features_suffice,
    moving_squares,
    saved,
    statistics,
    steps_down,
)

from policies.cosmos.layout import SlotKind
from policies.cosmos.model import CosmosModel
from policies.cosmos.options import CosmosOptions, make
from policies.cosmos.policy import CosmosPlanner, CosmosPolicy
from policies.cosmos.training import clean_latents, present_latents, sample_seeds
from policies.training.backbone import BackbonePart
from policies.training.trainable import Trainable, adopt, part_of


def untrained(variant: str = "direct") -> CosmosPolicy:
    policy = make(variant, CosmosOptions(steps=2))
    assert isinstance(policy, CosmosPolicy)
    return policy


def test_the_autoencoder_learns_by_itself() -> None:
    m = model()
    part = m.parts()["tokenizer"]
    batch = moving_squares(part.batch_spec, 2)
    batch = dataclasses.replace(batch, seed=torch.tensor([0, 1]))  # the present's pictures
    seen = steps_down(part, batch, 30, lr=3e-3)
    assert seen[-1] < 0.7 * seen[0]
    numbers = part.finish([batch])
    assert 10 < numbers["psnr_db"] < 60
    with torch.no_grad():
        latents = m.frozen_features(batch)["pictures"]
    torch.testing.assert_close(latents.std(dim=(0, 2, 3, 4)), torch.ones(16), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3, 4)), torch.zeros(16), atol=1e-3, rtol=0)


def test_both_halves_of_the_layout_are_shown() -> None:
    part = model().parts()["tokenizer"]
    batch = moving_squares(part.batch_spec, 2)
    counts = []
    for future in (True, False):
        video, places = part._clip(part._pictures(batch), 2, future=future)
        counts.append((video.shape[2], places))
    # 1 + 4 frames a slot, up to slot 7 (the future's last picture) or 3
    assert counts == [(29, [2, 3, 6, 7]), (13, [2, 3])]


@pytest.mark.parametrize("variant", ["direct", "planning"])
def test_features_change_nothing(variant: str) -> None:
    m = model(variant)
    batch = moving_squares(m.batch_spec, 4)
    assert_features_suffice(m, batch, rel=1e-4)


@pytest.mark.parametrize("changes", [{"augment": True}, {"autoencoder_loss": 1.0}])
def test_what_changes_is_not_cached(changes: dict[str, Any]) -> None:
    m = model(**changes)
    assert m.frozen_features(moving_squares(m.batch_spec, 2)) == {}
    part = m.parts()["backbone"]
    assert isinstance(part, BackbonePart)
    assert part.frozen_features is None


def test_a_checkpoint_acts_as_the_model_that_was_saved(tmp_path: Path) -> None:
    policy = untrained()
    m = policy.model
    assert isinstance(m, Trainable)
    m.set_statistics(statistics(m.batch_spec))
    m.codec.measure_scale(torch.randn(1, 16, 4, 2, 2) * 3 + 1)
    again = make("direct", CosmosOptions(checkpoint=str(saved(m, tmp_path)), steps=2))
    obs = observation(m.config, 2, imagine=True)
    one, two = policy.act(obs), again.act(obs)
    np.testing.assert_array_equal(one.actions, two.actions)
    assert one.imagined is not None
    assert two.imagined is not None
    assert one.imagined.frames is not None
    np.testing.assert_array_equal(one.imagined.frames, two.imagined.frames)


def test_an_untrained_autoencoder_gives_unit_latents_and_is_adopted(tmp_path: Path) -> None:
    direct, planning = untrained().model, model("planning")
    batch = moving_squares(direct.batch_spec, 4)
    with torch.no_grad():
        assert 0.2 < float(direct.frozen_features(batch)["pictures"].std()) < 5
    assert isinstance(planning, CosmosModel)
    assert isinstance(planning, Trainable)
    assert isinstance(direct, Trainable)
    with torch.no_grad():
        next(direct.codec.vae.parameters()).add_(0.5)
    direct.codec.measure_scale(torch.randn(1, 16, 4, 2, 2) * 3 + 1)
    adopt(planning, part_of(planning, "tokenizer", "cosmos"), saved(direct, tmp_path))
    mine, theirs = planning.codec.state_dict(), direct.codec.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in theirs)
    assert "mean" in mine
    assert not any(p.requires_grad for p in planning.codec.parameters())


def test_the_backbone_sees_the_present_alone() -> None:
    """All of the present's slots, and nothing that the future would bring."""
    m = model()
    part = m.parts()["backbone"]
    assert isinstance(part, BackbonePart)
    spec = part.batch_spec  # the future is there for what it learns along
    assert (spec.frame_offsets, spec.keyframe) == ((0, 8), True)
    b = batch(m.config, 3)
    given = present_latents(m, b)
    whole = clean_latents(m, b, sample_seeds(b))
    torch.testing.assert_close(given, whole[:, :, :4])
    assert part.frozen_features is not None
    look = dataclasses.replace(  # as a sampler of looks gives it: it has no future
        b, frame_offsets=(0,), frames={c: x[:, :1] for c, x in b.frames.items()}
    )
    for shown, cameras in ((b, 4), (look, 2)):
        features = part.frozen_features(shown)  # of pictures, not of the state
        assert features["pictures"].shape[2] == cameras
        cached = dataclasses.replace(shown, features=features)
        cached = dataclasses.replace(cached, frames={c: 0 * x for c, x in shown.frames.items()})
        torch.testing.assert_close(present_latents(m, cached), given)
    text = m.net.text_key_values(m.embed_text(b.instruction))
    tokens = m.net.look(given, text)
    assert tokens.shape == (3, 4, 2, 2, m.config.net.width)
    # as the whole network computes them for its reading blocks, when there is nothing else
    seen: list[torch.Tensor] = []
    reader = m.net.blocks[-m.config.net.reading]
    reader.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    clean = torch.ones(3, 4, dtype=torch.bool)
    m.net(given, clean, torch.zeros(3, 4), text)
    torch.testing.assert_close(tokens.flatten(1, 3), seen[0])


def test_the_backbone_learns_to_denoise_along() -> None:
    m = model()
    part = m.parts()["backbone"]
    assert isinstance(part, BackbonePart)
    b = batch(m.config, 3)
    b = dataclasses.replace(b, keyframe=b.proprio_at(0))
    found, denoised = part.loss(b), m.loss(b)
    along = ("action", "future_proprio", "future_image", "value")
    weights = {"action": m.config.action_weight}
    for name in along:
        torch.testing.assert_close(found[name], denoised[name] * weights.get(name, 1.0))
    torch.testing.assert_close(sum(found[n] for n in along), denoised["total"])
    torch.testing.assert_close(sum(v for n, v in found.items() if n != "total"), found["total"])


@pytest.mark.parametrize("variant", ["direct", "planning"])
@pytest.mark.parametrize("depth", [1, 2])
def test_a_future_without_changes_is_the_present(
    variant: str, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the harness calls "nothing moves": the present's pictures in the future's slots."""
    planning = dataclasses.replace(tiny().planning, depth=depth)
    m = model(planning=planning, change_spread=0.5)
    policy = CosmosPlanner(m) if variant == "planning" else CosmosPolicy(m)
    obs = observation(m.config, 2, imagine=True)
    cameras = np.stack([obs.frames[c][:, -1] for c in m.config.layout.cameras], axis=1)
    still = policy.encode(np.stack([cameras, cameras], axis=1))
    generate = m.generate

    def unmoved(*args, **kwargs):
        out = generate(*args, **{**kwargs, "steps": 1})
        out[:, :, list(m.config.layout.places(SlotKind.FUTURE_IMAGE))] = 2.0
        return out

    monkeypatch.setattr(m, "generate", unmoved)
    imagined = policy.act(obs).imagined
    assert imagined is not None
    np.testing.assert_allclose(imagined.latents, still + 2.0 * 0.5, atol=1e-4)
