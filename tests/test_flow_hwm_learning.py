"""Flow-HWM in the training loop: its tokenizer, its frozen features, its checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from flow_hwm_doubles import inputs, model_of, small
from moving_squares_doubles import (
    assert_features_suffice,
    moving_squares,
    saved,
    statistics,
    steps_down,
)

from policies.flow_hwm.model import FlowHWM
from policies.flow_hwm.options import FlowHWMOptions
from policies.flow_hwm.world import build
from policies.training.trainable import Trainable, adopt, part_of


def test_the_tokenizer_learns_by_itself() -> None:
    model = model_of(small("base"))
    part = model.parts()["tokenizer"]
    assert part.batch_spec.frame_offsets == tuple(range(9))  # a latent draws on those before it
    batch = moving_squares(part.batch_spec, 4)
    seen = steps_down(part, batch, 30, lr=3e-3)
    assert seen[-1] < 0.7 * seen[0]
    numbers = part.finish([batch, moving_squares(part.batch_spec, 4, seed=1)])
    assert 10 < numbers["psnr_db"] < 60
    assert model.wan is not None
    with torch.no_grad():
        pixels = [part._pixels(moving_squares(part.batch_spec, 4, seed=s)) for s in (0, 1)]
        latents = model.wan.encode(torch.cat(pixels))
    torch.testing.assert_close(latents.std(dim=(0, 2, 3, 4)), torch.ones(8), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("variant", ["base", "split_attention"])
def test_features_change_nothing(variant: str) -> None:
    model = model_of(small(variant))
    batch = moving_squares(model.batch_spec, 4)
    assert_features_suffice(model, batch, rel=1e-5)


def test_a_tokenizer_that_is_trained_along_is_not_cached() -> None:
    model = model_of(small("base", tokenizer_weight=1.0))
    assert model.frozen_features(moving_squares(model.batch_spec, 2)) == {}
    assert all(p.requires_grad for p in model.parameters())


def test_a_checkpoint_foresees_as_the_model_that_was_saved(tmp_path: Path) -> None:
    world = build("base", FlowHWMOptions(steps=2))
    model = world.model
    assert isinstance(model, Trainable)
    model.set_statistics(statistics(model.batch_spec))
    assert model.wan is not None
    model.wan.std.mul_(3.0)
    again = build("base", FlowHWMOptions(steps=2, checkpoint=str(saved(model, tmp_path))))
    given = inputs(model.config, 2)
    one, two = (
        w.imagine(
            given["past_frames"], given["past_actions"], given["future_actions"], given["seed"]
        )
        for w in (world, again)
    )
    np.testing.assert_array_equal(one.latents, two.latents)
    assert one.frames is not None
    assert two.frames is not None
    np.testing.assert_array_equal(one.frames, two.frames)


def test_untrained_latents_have_unit_size_and_another_variant_adopts_them(tmp_path: Path) -> None:
    base = build("base", FlowHWMOptions()).model
    batch = moving_squares(base.batch_spec, 2)
    with torch.no_grad():
        future = base.frozen_features(batch)["future"]
    assert 0.2 < float(future.std()) < 5
    sharing = build("full_sharing", FlowHWMOptions(init_seed=3)).model
    assert isinstance(sharing, FlowHWM)
    assert isinstance(sharing, Trainable)
    assert isinstance(base, Trainable)
    adopt(sharing, part_of(sharing, "tokenizer", "flow_hwm"), saved(base, tmp_path))
    with torch.no_grad():
        assert torch.equal(sharing.frozen_features(batch)["future"], future)
