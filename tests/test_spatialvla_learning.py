"""SpatialVLA in the training loop: it learns, trims padding, and comes back from disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from moving_squares_doubles import moving_squares, saved, statistics, steps_down
from spatialvla_doubles import observation

from policies.spatialvla.config import DEEP, LATE_GEMMA, VARIANTS, SpatialVLAOptions
from policies.spatialvla.inputs import from_batch
from policies.spatialvla.model import SpatialVLA
from policies.spatialvla.policy import build
from policies.spatialvla.transformer import Layer
from policies.training.backbone import BackbonePart
from policies.training.trainable import Trainable, trainable_of


def made(variant: str, **options: object) -> SpatialVLA:
    return build(variant, SpatialVLAOptions(**options)).model  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_trainable_and_has_nothing_frozen(variant: str) -> None:
    policy = build(variant, SpatialVLAOptions())
    model = trainable_of(policy, variant)
    assert isinstance(model, SpatialVLA)
    assert isinstance(model, Trainable)
    assert not hasattr(model, "frozen_features")
    assert all(p.requires_grad for p in model.parameters())
    model.set_statistics(statistics(model.batch_spec))


@pytest.mark.parametrize("variant", [LATE_GEMMA, DEEP])
def test_thirty_steps_lower_the_loss(variant: str) -> None:
    model = made(variant)
    seen = steps_down(model, moving_squares(model.batch_spec, 4), 30)
    assert seen[-1] < 0.7 * seen[0]


@pytest.mark.parametrize("variant", [LATE_GEMMA, DEEP])
def test_padding_that_is_cut_off_changes_nothing(variant: str) -> None:
    model = made(variant)
    batch = moving_squares(model.batch_spec, 3)
    inputs = from_batch(batch, model.config, model.tokenizer, model.device)
    actions, time = torch.randn(3, 8, 7), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        whole, short = (model.prefix(inputs, cache=False, trim=t) for t in (False, True))
        found = [model.velocity(actions, time, p) for p in (whole, short)]
    # start token and three words of 32
    assert short.tokens.shape[1] < whole.tokens.shape[1] - 25
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("depth", [False, True])
def test_the_backbone_gives_what_the_last_layer_is_given(variant: str, depth: bool) -> None:
    """At the last word, whatever padding follows it; and every patch, before voxels are made."""
    model = made(variant, use_depth=depth)
    part = model.parts()["backbone"]
    assert isinstance(part, BackbonePart)
    assert part.batch_spec.proprio is not None  # of what is learnt, whatever the expert takes in
    batch = moving_squares(part.batch_spec, 3)
    batch = dataclasses.replace(batch, instruction=["push", "push the red square", "go on"])
    given: list[torch.Tensor] = []
    layer = cast(Layer, model.language.layers[-1]).input_layernorm
    handle = layer.register_forward_hook(lambda _, args, out: given.append(args[0]))
    with torch.no_grad():
        reading = part._read(batch)
        assert not given  # the last layer is not run
        inputs = from_batch(batch, model.config, model.tokenizer, model.device)
        model.prefix(inputs, cache=True)
    handle.remove()
    seen = model.config.visual_tokens
    for row, words in enumerate((1, 4, 2)):  # behind the start token
        expected = given[0][row, seen + words]
        torch.testing.assert_close(reading.out[row, 0], expected, rtol=1e-4, atol=1e-5)
    assert reading.seen.shape == (3, 2, 4, 4, model.config.language.width)
    red = {c: x.clone() for c, x in batch.frames.items()}
    red["eye_in_hand"][:, :, 16:32, 32:48] = 0  # CLIP mixes patches, but never pictures
    with torch.no_grad():
        other = part._read(dataclasses.replace(batch, frames=red)).seen
    assert not torch.allclose(other[:, 1, 1, 2], reading.seen[:, 1, 1, 2])
    torch.testing.assert_close(other[:, 0], reading.seen[:, 0])


def test_a_checkpoint_acts_as_the_model_that_was_saved(tmp_path: Path) -> None:
    policy = build(DEEP, SpatialVLAOptions(steps=2))
    policy.model.set_statistics(statistics(policy.model.batch_spec))
    folder = saved(policy.model, tmp_path)
    again = build(DEEP, SpatialVLAOptions(steps=2, checkpoint=str(folder)))
    obs = observation(2)
    np.testing.assert_array_equal(policy.act(obs).actions, again.act(obs).actions)
