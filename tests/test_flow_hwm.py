"""Flow-HWM behind the world model contract: imagining, cards, the registry."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import CountingPolicy, card, key, pool_for, roll, task
from flow_hwm_doubles import disc_frames, equal, inputs, model_of, small, stirred, world_of
from torch import Tensor

from policies.flow_hwm import WORLD_MODEL, FlowHWMOptions
from policies.flow_hwm.config import EVE_STATES, VARIANTS, preset_config
from policies.flow_hwm.sampler import Sampler
from policies.flow_hwm.tokenizer import to_frames
from policies.flow_hwm.world import FlowHWMWorld, card_of
from wamsim import registry
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, action_converter
from wamsim.errors import ConventionMismatch, UnknownName, WamsimError
from wamsim.gallery import Gallery, Shot, stack_frames

# --------------------------------------------------------------------------- imagining


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_row_imagines_the_same_whatever_stands_beside_it(variant: str) -> None:
    world = world_of(variant)
    whole = inputs(world.model.config, rows=3)
    together = world.imagine(**whole)
    for row in range(3):
        # alone in a batch of the same shape, the rest padding: zeros, as the harness pads
        alone = {k: np.zeros_like(v) for k, v in whole.items()}
        for name, value in whole.items():
            alone[name][0] = value[row]
        assert equal(world.imagine(**alone), together, 0, row)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_imagined_depends_on(variant: str) -> None:
    world = world_of(variant)
    given = inputs(world.model.config, rows=1)
    first = world.imagine(**given)
    assert first.latents.shape == (1, 1, 8, 4, 4)
    assert first.latents.dtype == np.float32
    assert first.frames is not None
    assert (first.frames.shape, first.frames.dtype) == ((1, 1, 32, 32, 3), np.uint8)
    assert np.isfinite(first.latents).all()
    assert equal(first, world.imagine(**given))
    for name, change in (
        ("past_frames", 60), ("past_actions", 0.5), ("future_actions", 0.5), ("seed", 1),
    ):  # fmt: skip
        altered = dict(given)
        altered[name] = (given[name] + change).astype(given[name].dtype)
        assert not np.array_equal(world.imagine(**altered).latents, first.latents), name


def test_real_frames_are_encoded_into_the_imagined_space() -> None:
    world = world_of("base")
    frames = disc_frames(world.model.config, 2)[:, :, None]
    found = world.encode(frames)
    card = world.card.imagines
    assert found.shape == (2, len(card.horizons), *card.latent_shape)
    with torch.no_grad():
        whole = world.model.encode_window(torch.from_numpy(frames[:, :, 0]))
    assert np.array_equal(found[:, 0], whole[:, :, 2].numpy())


def test_pictures_are_the_last_frame_of_each_latent() -> None:
    config = small("base", future_frames=8)
    model = stirred(model_of(config))
    world = FlowHWMWorld(model, Sampler(model.network, steps=2, guidance=1.0))
    assert world.card.imagines.horizons == (4, 8)
    given = inputs(config, rows=1)
    found = world.imagine(**given)
    with torch.no_grad():
        past = model.encode_past(torch.from_numpy(given["past_frames"][:, :, 0]))
        future = torch.from_numpy(found.latents).transpose(1, 2)
        video = to_frames(model.tokenizer.decode(torch.cat([past, future], 2)), bgr=False)
    assert video.shape[1] == 13
    assert np.array_equal(found.frames, video[:, [8, 12]].numpy())


def test_decode_draws_without_a_past() -> None:
    world = world_of("base")
    found = world.decode(world.encode(disc_frames(world.model.config, 2)[:, :, None]))
    assert (found.shape, found.dtype) == ((2, 1, 32, 32, 3), np.uint8)


def test_futures_told_as_changes_are_imagined_as_they_are() -> None:
    """A velocity that ends where nothing changes imagines the standing world."""
    config = small("base")
    model = stirred(model_of(config))
    given = inputs(config, rows=2)

    class Still(Sampler):
        def sample(self, noise: torch.Tensor, context: object) -> torch.Tensor:
            return torch.zeros_like(noise)

    world = FlowHWMWorld(model, Still(model.network, steps=1, guidance=1.0))
    found = world.imagine(**given)
    past = given["past_frames"]
    expected = world.encode(np.concatenate([past, past[:, -1:].repeat(4, axis=1)], axis=1))
    np.testing.assert_allclose(found.latents, expected, atol=1e-6)

    class One(Still):
        def sample(self, noise: torch.Tensor, context: object) -> torch.Tensor:
            return torch.ones_like(noise)

    moved = FlowHWMWorld(model, One(model.network, steps=1, guidance=1.0)).imagine(**given)
    np.testing.assert_allclose(moved.latents - found.latents, config.change_spread, atol=1e-5)


def test_the_ceiling_is_drawn_with_its_past() -> None:
    world = world_of("base")
    frames = disc_frames(world.model.config, 2)[:, :, None]
    with torch.no_grad():
        whole = world.model.encode_window(torch.from_numpy(frames[:, :, 0]))
        video = to_frames(world.model.tokenizer.decode(whole), bgr=False)
    assert np.array_equal(world.redraw(frames), video[:, -1:].numpy())
    assert not np.array_equal(world.redraw(frames), world.decode(world.encode(frames)))


def test_official_fid_frame_is_the_oldest_past_one() -> None:
    given = inputs(small("base"), rows=1)
    plain, defect = world_of("base"), world_of("base", parity=("fid_frame",))
    assert not equal(plain.imagine(**given), defect.imagine(**given))
    altered = {**given, "future_actions": given["future_actions"] + 0.5}
    # frame 0 comes before everything imagined
    assert np.array_equal(defect.imagine(**given).frames, defect.imagine(**altered).frames)


def test_official_context_drop_draws_with_an_empty_past() -> None:
    given = inputs(small("base"), rows=1)
    world = world_of("base", parity=("context_drop", "fid_frame"))
    other = {**given, "past_frames": 255 - given["past_frames"]}
    assert np.array_equal(world.imagine(**given).frames, world.imagine(**other).frames)


def test_an_episode_begins_with_its_first_frame_repeated() -> None:
    world = world_of("base")
    gallery = Gallery()
    video = disc_frames(world.model.config, 2)  # two cameras of a suite
    gallery.add(0, Shot(colour=video[:, 0]))
    looks = stack_frames(gallery.stack(world.card.past_offsets))
    mine = looks[None, :, [("eye_in_hand", "agentview").index(c) for c in world.card.cameras]]
    given = inputs(world.model.config, rows=1)
    by_hand = np.repeat(video[None, 1:, :1].transpose(0, 2, 1, 3, 4, 5), 5, axis=1)
    found = [world.imagine(**{**given, "past_frames": f}) for f in (mine, by_hand)]
    assert equal(*found)


@pytest.mark.parametrize("variant", VARIANTS)
def test_beside_a_policy_in_the_loop(variant: str, tmp_path: Path) -> None:
    model = stirred(model_of(small(variant, camera="wrist")))
    world = FlowHWMWorld(model, Sampler(model.network, steps=2, guidance=3.0))
    policy = CountingPolicy(card(execute=4))
    runs: list[dict[str, np.ndarray]] = []
    for slots in (1, 2):
        pool = pool_for(policy.card, world=world.card, tasks=[task(max_steps=10)], slots=slots)
        episodes = roll(tmp_path / str(slots), policy, pool, [key(0), key(1)], world=world, batch=2)
        runs.append({k: v for k, v in episodes[key(1)].arrays.items() if "world" in k})
    first, second = runs
    assert first["world_imagined_steps"].tolist() == [0, 4, 8]
    assert first["world_imagined_executed"].tolist() == [[True], [True], [False]]
    shape = (3, 1, *world.card.imagines.latent_shape)
    for name in ("world_imagined_latents", "world_real_latents", "world_still_latents"):
        assert first[name].shape == shape
        assert np.isfinite(first[name]).all()
        assert np.array_equal(first[name], second[name]), name
    assert first["world_imagined_frames"].shape == (3, 1, 32, 32, 3)
    assert not np.array_equal(first["world_real_latents"], first["world_still_latents"])


def test_arrays_that_the_card_does_not_promise_are_refused() -> None:
    world = world_of("base")
    given = inputs(world.model.config, rows=2)
    with pytest.raises(ValueError, match=r"past_actions has shape \(2, 3, 7\).*\(2, 4, 7\)"):
        world.imagine(**{**given, "past_actions": given["past_actions"][:, 1:]})
    with pytest.raises(ValueError, match="future_actions"):
        world.imagine(**{**given, "future_actions": given["future_actions"][:, 1:]})
    with pytest.raises(ValueError, match="past_frames"):
        world.imagine(**{**given, "past_frames": given["past_frames"][:, :, 0]})
    with pytest.raises(ValueError, match="frames has shape"):
        world.encode(given["past_frames"])


# ------------------------------------------------------------------------------- cards


def test_cards() -> None:
    tiny = card_of(preset_config("base", "tiny"))
    assert (tiny.name, tiny.cameras, tiny.past_offsets) == (
        "flow_hwm:base", ("agentview",), (-4, -3, -2, -1, 0),
    )  # fmt: skip
    assert (tiny.future_actions, tiny.imagines.horizons) == (4, (4,))
    assert tiny.imagines.frame_offsets == tuple(range(-4, 5))
    published = card_of(preset_config("base", "published"))
    assert published.past_offsets == tuple(range(-16, 1, 2))
    assert (published.future_actions, published.imagines.horizons) == (16, (16,))
    assert published.imagines.latent_shape == (16, 16, 16)


def test_published_actions_are_a_humanoids_and_refuse_a_panda() -> None:
    card = card_of(preset_config("base", "published"))
    assert card.action is EVE_STATES
    assert card.action.dim == 25
    with pytest.raises(ConventionMismatch, match="EVE_STATES"):
        action_converter(
            DELTA_EEF_GRIPPER_CLOSE_POSITIVE, card.action, policy="a", suite="flow_hwm"
        )
    panda = preset_config("base", "published", action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name)
    assert card_of(panda).action.dim == 7


# ------------------------------------------------------------------------ the registry


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    def points(group: str) -> dict[str, EntryPoint]:
        point = EntryPoint(name="flow_hwm", value="policies.flow_hwm:WORLD_MODEL", group=group)
        return {"flow_hwm": point}

    monkeypatch.setattr(registry, "_points", points)


@pytest.mark.usefixtures("_registered")
def test_made_by_name() -> None:
    choice = registry.choose_world_model("flow_hwm", {"steps": "2", "parity": "sampler,rope"})
    assert choice.name == "flow_hwm:base"
    world: Any = registry.make_world_model(choice)
    assert world.card.name == "flow_hwm:base"
    assert (world.sampler.steps, world.sampler.guidance) == (2, 1.0)
    assert (world.sampler.parity, world.model.config.parity) == ({"sampler"}, ("rope",))


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("flow_hwm:split", {}, "split_attention"),
        ("flow_hwm:base", {"preset": "publish"}, "published"),
        ("flow_hwm:base", {"parity": "ropes"}, "rope"),
        ("flow_hwm:base", {"guidence": "1"}, "guidance"),
        ("flow_hwm:base", {"steps": "0"}, "steps=0 must be 1 or more"),
    ],
)
def test_unknown_names_say_the_nearest(text: str, options: dict[str, str], said: str) -> None:
    with pytest.raises(WamsimError, match=said):
        registry.choose_world_model(text, options)


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys, policies.flow_hwm as f; assert f.WORLD_MODEL.variants[0] == 'base';"
        "assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_untrained_weights_follow_their_seed() -> None:
    def head(seed: int) -> Tensor:
        world: Any = WORLD_MODEL.make("base", FlowHWMOptions(init_seed=seed))
        return world.model.network.head.weight

    before = torch.get_rng_state()
    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))
    assert torch.equal(before, torch.get_rng_state())


def test_strides_are_set_together() -> None:
    world: Any = WORLD_MODEL.make("base", FlowHWMOptions(frame_stride=2))
    assert world.card.past_offsets == (-8, -6, -4, -2, 0)
    assert (world.card.future_actions, world.card.imagines.horizons) == (8, (8,))
    assert world.model.config.action_places == (0, 1, 3, 5, 7, 9, 11, 13, 15)
    # the official loader's rows: the last lies in the past, so plans change nothing
    official: Any = WORLD_MODEL.make("base", FlowHWMOptions(frame_stride=2, action_stride=1))
    assert max(official.model.config.action_places) < official.model.config.past_steps
    with pytest.raises(WamsimError, match=r"action_stride=3 must lie in 1\.\.frame_stride=2"):
        WORLD_MODEL.make("base", FlowHWMOptions(frame_stride=2, action_stride=3))


def test_config_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="even multiple of heads"):
        small("base", width=66)
    with pytest.raises(ValueError, match="multiples of 16"):
        small("base", image_size=(40, 32))
    with pytest.raises(ValueError, match="1 more than a multiple"):
        small("base", past_frames=4)
    with pytest.raises(ValueError, match=r"action_stride=2 must lie in 1\.\.frame_stride=1"):
        small("base", action_stride=2)
    with pytest.raises(UnknownName, match="DELTA_EEF_GRIPPER_CLOSE_POSITIVE"):
        small("base", action="DELTA_EEF_GRIPPER_CLOSE")
