"""The spatialvla policies: closed-loop answers, saving and loading, refusals."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from spatialvla_doubles import CAMERAS, batch, config, model, observation, only

from policies.batch import check_finite
from policies.checkpoint import CheckpointMismatch, Identity, Statistics, count_parameters
from policies.spatialvla import FAMILY, SpatialVLAOptions
from policies.spatialvla.config import (
    DEEP,
    LATE_GEMMA,
    LATE_LLAMA,
    VARIANTS,
    Mask,
    SpatialVLAConfig,
)
from policies.spatialvla.model import SpatialVLA, untrained
from policies.spatialvla.policy import SpatialVLAPolicy, build
from policies.spatialvla.presets import preset
from policies.spatialvla.text import InstructionTooLong
from wamsim.conventions import Orientation
from wamsim.errors import UnknownName, WamsimError
from wamsim.registry import parse_value

# ------------------------------------------------------------------------ the answer


@pytest.mark.parametrize("variant", VARIANTS)
def test_act_keeps_its_cards_promises(variant: str) -> None:
    policy = FAMILY.make(variant, SpatialVLAOptions(steps=2, execute=5))
    prediction = policy.act(observation(2))
    card = policy.card
    assert prediction.actions.shape == (2, card.horizon, card.action.dim) == (2, 8, 7)
    assert prediction.actions.dtype == np.float32
    assert np.isfinite(prediction.actions).all()
    assert (prediction.imagined, prediction.value, prediction.memory) == (None, None, None)
    assert set(prediction.timings) == {"perceive", "denoise"}
    assert card.name == f"spatialvla:{variant}"
    assert (card.cameras, card.depth, card.orientation) == (CAMERAS, True, Orientation.UPRIGHT)
    assert (card.imagines, card.execute) == (None, 5)
    assert "imagines nothing" in card.notes
    assert (card.proprio is not None) is (variant == DEEP)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_does_not_see_its_neighbours(variant: str) -> None:
    policy = SpatialVLAPolicy(model(variant), steps=2)
    together = observation(3)
    actions = policy.act(together).actions
    assert np.abs(actions[0] - actions[1]).max() > 1e-2
    for row, place in ((0, 2), (1, 0), (2, 2)):
        alone = policy.act(only(together, row, place)).actions[place]
        np.testing.assert_allclose(alone, actions[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_rows_neither_crash_nor_disturb(variant: str) -> None:
    policy = SpatialVLAPolicy(model(variant), steps=2)
    padded = policy.act(observation(3, real=(1,))).actions
    assert np.isfinite(padded).all()
    whole = policy.act(observation(3)).actions
    np.testing.assert_allclose(padded[1], whole[1], rtol=0, atol=1e-5)


def test_the_seed_alone_makes_the_noise() -> None:
    policy = SpatialVLAPolicy(model(LATE_GEMMA), steps=2)
    obs = observation(2)
    first, again = policy.act(obs).actions, policy.act(obs).actions
    np.testing.assert_array_equal(first, again)
    other = dataclasses.replace(obs, seed=obs.seed + np.uint64(1))
    assert np.abs(policy.act(other).actions - first).max() > 1e-2


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_input_moves_the_actions(variant: str) -> None:
    policy = SpatialVLAPolicy(model(variant), steps=1)
    obs = observation(1)
    assert obs.depth is not None
    assert obs.proprio is not None
    before = policy.act(obs).actions
    changes = {
        "instruction": ["open the top drawer"],
        "frames": {**obs.frames, "eye_in_hand": 255 - obs.frames["eye_in_hand"]},
        "depth": {**obs.depth, "agentview": obs.depth["agentview"] + 0.7},
    }
    if variant == DEEP:
        changes["proprio"] = obs.proprio + 1.0
    for name, value in changes.items():
        after = policy.act(dataclasses.replace(obs, **{name: value})).actions
        assert np.abs(after - before).max() > 1e-6, name


def test_history_repeats_the_first_frame_at_an_episodes_start() -> None:
    # Repeated frames fall into the same voxels, whose means they leave alone: with the
    # defined padding a history gives what the present alone gives.
    now = observation(2)
    offsets = (-8, -4, 0)
    views = ("frames", "depth", "extrinsics")
    repeated = {
        name: {c: np.repeat(a, 3, axis=1) for c, a in getattr(now, name).items()} for name in views
    }
    history = dataclasses.replace(now, **repeated)
    one, three = model(LATE_GEMMA), model(LATE_GEMMA, frame_offsets=offsets)
    assert three.config.visual_tokens == 3 * one.config.visual_tokens
    alone = SpatialVLAPolicy(one, steps=2).act(now).actions
    policy = SpatialVLAPolicy(three, steps=2)
    np.testing.assert_allclose(policy.act(history).actions, alone, rtol=0, atol=1e-4)
    frames = {c: a.copy() for c, a in history.frames.items()}
    frames["agentview"][:, 0] = 0  # and the past does count
    moved = policy.act(dataclasses.replace(history, frames=frames)).actions
    assert np.abs(moved - alone).max() > 1e-3


def test_the_state_is_the_presents() -> None:
    policy = SpatialVLAPolicy(model(DEEP, frame_offsets=(-4, 0)), steps=1)
    obs = observation(1, times=2)
    assert obs.proprio is not None
    before = policy.act(obs).actions
    for time, moves in ((0, False), (1, True)):
        proprio = obs.proprio.copy()
        proprio[:, time] += 1.0
        after = policy.act(dataclasses.replace(obs, proprio=proprio)).actions
        assert bool((after != before).any()) is moves


def test_without_depth_it_takes_the_plain_path() -> None:
    policy = SpatialVLAPolicy(model(LATE_GEMMA, use_depth=False), steps=1)
    assert policy.card.depth is False
    obs = dataclasses.replace(observation(1), depth=None, intrinsics=None, extrinsics=None)
    assert np.isfinite(policy.act(obs).actions).all()


# ---------------------------------------------------------------------- presets, options


@pytest.mark.parametrize("variant", VARIANTS)
def test_tiny_is_tiny(variant: str) -> None:
    assert count_parameters(untrained(preset(variant, "tiny"), 0)) <= 2_000_000


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["tiny", "published"])
def test_a_config_survives_plain_data(variant: str, name: str) -> None:
    made = preset(variant, name)
    assert SpatialVLAConfig.from_dict(made.to_dict()) == made
    with pytest.raises(ValueError, match="no field voxels"):
        SpatialVLAConfig.from_dict({**made.to_dict(), "voxels": 1})


def test_defaults_per_variant() -> None:
    gemma, llama, deep = (preset(v, "published") for v in VARIANTS)
    assert (gemma.mask, llama.mask, deep.mask) == (Mask.CAUSAL, Mask.CAUSAL, Mask.PI0)
    assert (gemma.scale_inputs, llama.scale_inputs) == (True, False)
    assert gemma.input_scale == pytest.approx(45.2548, abs=1e-4)
    assert (gemma.frozen, deep.frozen) == (("vision", "language"), ("vision",))
    assert (gemma.vision.side, gemma.visual_tokens) == (24, 2 * 576)
    assert (gemma.voxel_m, gemma.max_visual_tokens, gemma.horizon) == (0.2, 2560, 8)
    assert FAMILY.variants[0] == LATE_GEMMA


def test_frozen_parts_do_not_learn() -> None:
    made = untrained(config(LATE_GEMMA, frozen=("vision", "language")), 0)
    made.loss(batch())["total"].backward()
    without = {n.split(".")[0] for n, p in made.named_parameters() if p.grad is None}
    assert without == {"vision", "language"}


def test_options_as_the_command_line_gives_them() -> None:
    hints = typing.get_type_hints(SpatialVLAOptions)
    texts = {
        "mask": "prefix_block",
        "frame_offsets": "-4,0",
        "scale_inputs": "false",
        "voxel_m": "0.1",
        "cache": "no",
        "execute": "4",
    }
    values = {k: parse_value(t, hints[k], name=k) for k, t in texts.items()}
    made = build(LATE_GEMMA, SpatialVLAOptions(**values)).model.config
    assert (made.mask, made.frame_offsets, made.voxel_m) == (Mask.PREFIX_BLOCK, (-4, 0), 0.1)
    assert made.input_scale == 1.0


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys, policies.spatialvla; bad = {'torch', 'transformers'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


# --------------------------------------------------------------------- saving, loading


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_and_statistics_come_back(variant: str, tmp_path: Path) -> None:
    made = model(variant)
    table = {
        "action": {"mean": torch.arange(7.0), "std": torch.full((7,), 2.0)},
        "proprio": {"mean": torch.zeros(8), "std": torch.ones(8)},
    }
    made.set_statistics(Statistics(table))
    made.save_pretrained(tmp_path)
    again = build(variant, SpatialVLAOptions(checkpoint=str(tmp_path), steps=2))
    obs = observation(1)
    expected = SpatialVLAPolicy(made, steps=2).act(obs).actions
    np.testing.assert_array_equal(again.act(obs).actions, expected)
    assert "own checkpoint" in again.card.notes
    hub = SpatialVLA.from_pretrained(str(tmp_path))
    assert hub.identity == Identity(family="spatialvla", variant=variant, preset="tiny")
    torch.testing.assert_close(hub.statistics.values["action"]["mean"], torch.arange(7.0))


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    model(LATE_GEMMA).save_pretrained(tmp_path)
    place = str(tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"late_fusion_gemma \(tiny\), but .*llama"):
        build(LATE_LLAMA, SpatialVLAOptions(checkpoint=place))
    with pytest.raises(CheckpointMismatch, match=r"\(tiny\), but .* \(published\) was asked"):
        build(LATE_GEMMA, SpatialVLAOptions(checkpoint=place, preset="published"))
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"spatialvla"', '"fastwam"'))
    with pytest.raises(CheckpointMismatch, match="is of fastwam"):
        build(LATE_GEMMA, SpatialVLAOptions(checkpoint=place))


def test_options_that_contradict_a_checkpoint(tmp_path: Path) -> None:
    model(DEEP).save_pretrained(tmp_path)
    with pytest.raises(CheckpointMismatch, match="option sharing"):
        build(DEEP, SpatialVLAOptions(checkpoint=str(tmp_path), sharing="shared"))
    masked = build(DEEP, SpatialVLAOptions(checkpoint=str(tmp_path), mask="full"))
    assert masked.model.config.mask is Mask.FULL


def test_missing_statistics_are_named(tmp_path: Path) -> None:
    model(LATE_GEMMA).save_pretrained(tmp_path)
    (tmp_path / "statistics.json").unlink()
    with pytest.raises(CheckpointMismatch, match=r"statistics\.json is missing"):
        SpatialVLA.load(tmp_path)


# ------------------------------------------------------------------------- bad input


def test_unknown_variant_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'late_fusion_gemma'"):
        FAMILY.make("late_fusion_gema", SpatialVLAOptions())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preset": "huge"}, "preset='huge' must be one of tiny, published"),
        ({"mask": "block"}, "mask='block' must be one of causal"),
        ({"steps": 0}, "steps=0"),
        ({"checkpoint": "a", "backbone": "b"}, "either checkpoint or its parts"),
        ({"backbone": "b"}, "need preset=published"),
    ],
)
def test_bad_options(changes: dict[str, typing.Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SpatialVLAOptions(**changes)


def test_options_that_contradict_the_variant() -> None:
    with pytest.raises(WamsimError, match="no state token"):
        build(LATE_GEMMA, SpatialVLAOptions(use_state=True))
    with pytest.raises(WamsimError, match="execute=9"):
        build(LATE_GEMMA, SpatialVLAOptions(execute=9))


def test_too_long_an_instruction() -> None:
    policy = SpatialVLAPolicy(model(LATE_GEMMA), steps=1)
    limit = policy.model.config.text_tokens
    fits = dataclasses.replace(observation(1), instruction=["x " * (limit - 1)])
    assert np.isfinite(policy.act(fits).actions).all()
    with pytest.raises(InstructionTooLong, match="200 tokens, but the model takes 32"):
        policy.act(dataclasses.replace(fits, instruction=["x " * 199]))


def test_missing_inputs_are_named() -> None:
    policy = SpatialVLAPolicy(model(DEEP), steps=1)
    with pytest.raises(ValueError, match="metric depth and camera matrices"):
        policy.act(dataclasses.replace(observation(1), depth=None))
    with pytest.raises(ValueError, match="needs proprioception"):
        policy.act(dataclasses.replace(observation(1), proprio=None))
    with pytest.raises(ValueError, match="shows 3 times, but the model looks at 1"):
        policy.act(observation(1, times=3))
    obs = observation(1)
    assert obs.depth is not None
    obs.depth["agentview"][0, 0, :] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        policy.act(obs)


def test_statistics_of_other_dimensions() -> None:
    with pytest.raises(CheckpointMismatch, match=r"action/mean have \(14,\) values"):
        model(LATE_GEMMA).set_statistics(Statistics.identity({"action": 14}))
    with pytest.raises(CheckpointMismatch, match="no proprio/mean"):
        model(DEEP).set_statistics(Statistics.identity({"action": 7}))


def test_a_loss_that_is_not_finite_stops() -> None:
    made = model(LATE_GEMMA)
    with torch.no_grad():
        made.expert.action_out_proj.bias[0] = math.nan
    with pytest.raises(FloatingPointError, match="'flow'"):
        made.loss(batch())
    with pytest.raises(FloatingPointError, match="'total'"):
        check_finite({"total": torch.tensor(math.inf)})
