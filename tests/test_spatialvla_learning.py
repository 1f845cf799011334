"""SpatialVLA in the training loop: it learns, trims padding, and comes back from disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from moving_squares_doubles import moving_squares, saved, statistics, steps_down
from spatialvla_doubles import observation

from policies.spatialvla.config import DEEP, LATE_GEMMA, VARIANTS, SpatialVLAOptions
from policies.spatialvla.inputs import from_batch
from policies.spatialvla.model import SpatialVLA
from policies.spatialvla.policy import build
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
    # start token and fifteen bytes, and less than 128 voxels
    assert short.tokens.shape[1] < whole.tokens.shape[1] - 100
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_a_checkpoint_acts_as_the_model_that_was_saved(tmp_path: Path) -> None:
    policy = build(DEEP, SpatialVLAOptions(steps=2))
    policy.model.set_statistics(statistics(policy.model.batch_spec))
    folder = saved(policy.model, tmp_path)
    again = build(DEEP, SpatialVLAOptions(steps=2, checkpoint=str(folder)))
    obs = observation(2)
    np.testing.assert_array_equal(policy.act(obs).actions, again.act(obs).actions)
