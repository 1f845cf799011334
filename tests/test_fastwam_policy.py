"""Fast-WAM in the closed loop: the card, imagination, configuration, errors."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from fastwam_doubles import TASKS, drawn, inputs, observation, pictures, tiny

from policies.fastwam import FAMILY, FastWamOptions
from policies.fastwam import policy as policy_module
from policies.fastwam.config import VARIANTS, FastWamConfig
from policies.fastwam.policy import FastWamPolicy
from policies.fastwam.presets import preset_config
from policies.fastwam.text import InstructionTooLong
from wamsim import registry
from wamsim.contracts import Imaginer
from wamsim.conventions import Orientation, orient
from wamsim.errors import UnknownName, WamsimError
from wamsim.fitting import checked_actions

# --------------------------------------------------------------------- closed loop


@pytest.mark.parametrize("variant", VARIANTS)
def test_act_keeps_the_cards_promises(variant: str) -> None:
    policy = FAMILY.make(variant, FastWamOptions(steps=2))
    card = policy.card
    assert card.name == f"fastwam:{variant}"
    for imagine in (False, True):
        prediction = policy.act(observation(imagine=imagine))
        actions = checked_actions(card, prediction, 3)
        assert np.isfinite(actions).all()
        assert set(np.unique(actions[..., -1])) <= {-1.0, 0.0, 1.0}
        wanted = card.imagines is not None and (imagine or not card.imagines.on_request)
        assert (prediction.imagined is not None) is wanted
        assert ("imagine" in prediction.timings) is wanted
        if prediction.imagined is not None:
            assert card.imagines is not None
            shape = (3, len(card.imagines.horizons), *card.imagines.latent_shape)
            assert prediction.imagined.latents.shape == shape
            assert (prediction.imagined.frames is not None) is imagine


def test_imagining_on_request_changes_no_action() -> None:
    policy = FastWamPolicy(drawn(), steps=3)
    np.testing.assert_array_equal(
        policy.act(observation(imagine=True)).actions, policy.act(observation()).actions
    )
    assert policy.card.imagines is not None
    assert policy.card.imagines.on_request
    for variant in ("joint", "idm"):
        spec = FastWamPolicy(drawn(variant)).card.imagines
        assert spec is not None
        assert not spec.on_request
    assert FastWamPolicy(drawn("no_video_cotrain")).card.imagines is None


def test_every_input_counts() -> None:
    policy = FastWamPolicy(drawn(), steps=2)
    base = policy.act(observation(2)).actions[0]
    for camera in ("agentview", "eye_in_hand"):
        obs = observation(2)
        obs.frames[camera][0] = 255 - obs.frames[camera][0]
        assert not np.array_equal(base, policy.act(obs).actions[0]), camera
    obs = observation(2)
    assert obs.proprio is not None
    obs.proprio[0, 0, 3] += 1
    assert not np.array_equal(base, policy.act(obs).actions[0])
    other = observation(2, instruction=["turn on the stove", ""])
    assert not np.array_equal(base, policy.act(other).actions[0])


def test_the_present_frame_alone_counts() -> None:
    """The card asks for no history; at an episode's start earlier frames repeat the first."""
    policy = FastWamPolicy(drawn(), steps=2)
    assert policy.card.frame_offsets == (0,)
    one = observation(2)
    assert one.proprio is not None
    history = {c: f.repeat(3, axis=1) for c, f in one.frames.items()}
    padded = observation(2, frames=history, proprio=one.proprio.repeat(3, axis=1))
    np.testing.assert_array_equal(policy.act(one).actions, policy.act(padded).actions)
    history["agentview"][:, :2] = 7
    assert padded.proprio is not None
    padded.proprio[:, :2] = 7
    np.testing.assert_array_equal(policy.act(one).actions, policy.act(padded).actions)


def test_real_frames_are_encoded_into_the_training_space() -> None:
    policy = FastWamPolicy(drawn())
    spec = policy.card.imagines
    assert spec is not None
    assert isinstance(policy, Imaginer)
    assert (spec.horizons, spec.frame_offsets) == ((4, 8), tuple(range(9)))
    rng = np.random.default_rng(1)
    upright = pictures(rng, 2, 9, 2)
    latents = policy.encode(orient(upright, policy.card.orientation))
    assert latents.shape == (2, 2, *spec.latent_shape)
    # what `loss` makes of the same upright frames
    mirrored = [np.ascontiguousarray(upright[:, :, c, :, ::-1]) for c in range(2)]
    target = policy.model.vae.encode(policy.model.pixels(mirrored))[:, :, 1:]
    np.testing.assert_array_equal(latents, target.transpose(1, 2).numpy())
    still = policy.encode(upright[:, :1].repeat(9, axis=1))
    assert np.isfinite(still).all()
    assert not np.allclose(still, latents)


def test_the_present_latent_does_not_depend_on_the_future() -> None:
    vae = drawn().vae
    video = torch.rand(1, 3, 9, 64, 128) * 2 - 1
    np.testing.assert_allclose(vae.encode(video)[:, :, :1], vae.encode(video[:, :, :1]), atol=1e-6)


def test_pictures_are_drawn_in_the_light_of_the_present() -> None:
    policy = FastWamPolicy(drawn("joint"), steps=2)
    obs = observation(2, imagine=True)
    imagined = policy.act(obs).imagined
    assert imagined is not None
    assert imagined.frames is not None
    assert imagined.frames.shape == (2, 2, 64, 128, 3)
    first = policy.model.vae.encode(policy.model.pixels([f[:, -1:] for f in obs.frames.values()]))
    exact = policy.decode(imagined.latents, present=first[:, :, 0].numpy())
    np.testing.assert_array_equal(exact, imagined.frames)
    assert policy.decode(imagined.latents).shape == exact.shape


def test_the_ceiling_is_drawn_in_the_light_of_the_present_too() -> None:
    policy = FastWamPolicy(drawn("joint"))
    upright = pictures(np.random.default_rng(1), 2, 9, 2)
    first = policy.model.vae.encode(policy.model.pixels([upright[:, :1, c] for c in range(2)]))
    expected = policy.decode(policy.encode(upright), present=first[:, :, 0].numpy())
    np.testing.assert_array_equal(policy.redraw(upright), expected)
    assert not np.array_equal(policy.decode(policy.encode(upright)), expected)


def test_only_imagined_futures_have_steps_of_their_own() -> None:
    for variant, changes in (("fastwam", True), ("joint", False)):
        model = drawn(variant, imagine_steps=0)
        obs, acted, seen = observation(2, imagine=True), [], []
        for steps in (None, 1):
            found = FastWamPolicy(model, steps=3, imagine_steps=steps).act(obs)
            assert found.imagined is not None
            acted.append(found.actions)
            seen.append(found.imagined.latents)
        np.testing.assert_array_equal(acted[0], acted[1])
        assert np.array_equal(seen[0], seen[1]) is not changes
    assert FastWamPolicy(drawn(), steps=7).imagine_steps == 1
    assert FastWamPolicy(drawn(imagine_steps=0), steps=7).imagine_steps == 7
    with pytest.raises(WamsimError, match="imagine_steps=0 must be at least 1"):
        FastWamOptions(imagine_steps=0)


@pytest.mark.parametrize("variant", ["fastwam", "joint", "idm"])
def test_a_future_without_changes_is_the_standing_world(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the harness calls "nothing moves": the present picture, all the while."""
    policy = FastWamPolicy(drawn(variant))
    obs = observation(2, imagine=True)
    cameras = np.stack([obs.frames[c] for c in policy.card.cameras], axis=2)
    offsets = len(policy.model.config.frame_offsets)
    still = policy.encode(cameras[:, [0] * offsets])
    for change in (0.0, 2.0):
        monkeypatch.setattr(policy_module, "sample_video", lambda *args: made(args)[0])
        monkeypatch.setattr(policy_module, "sample_joint", lambda *args: made(args))
        monkeypatch.setattr(policy_module, "sample_idm", lambda *args: made(args))

        def made(args, change=change):
            video, actions = args[2], args[-2]  # noises
            return torch.full_like(video, change), actions

        imagined = policy.act(obs).imagined
        assert imagined is not None
        expected = still + change * policy.model.config.change_spread
        np.testing.assert_allclose(imagined.latents, expected, atol=1e-4)


def test_bfloat16_runs() -> None:
    policy = FAMILY.make("idm", FastWamOptions(steps=2, dtype="bfloat16"))
    prediction = policy.act(observation(2))
    assert prediction.actions.dtype == np.float32
    assert np.isfinite(prediction.actions).all()


# ------------------------------------------------------------- configuration, errors


def test_the_published_protocol_is_in_the_configuration() -> None:
    config = preset_config("published", "fastwam")
    assert config.frame_offsets == (0, 4, 8, 12, 16, 20, 24, 28, 32)
    assert (config.horizons, config.execute, config.steps) == ((16, 32), 10, 10)
    assert (config.latent_shape, config.tokens_per_frame) == ((48, 14, 28), 98)
    assert config.orientation is Orientation.MIRRORED
    assert config.images.size == (224, 224)
    # stored 1 opens; the suite closes with +1
    stored = np.array([[0.2] * 6 + [0.9], [0.2] * 6 + [0.1]], np.float32)
    ours = config.gripper.apply(stored, config.action_convention)
    np.testing.assert_array_equal(ours[:, -1], [-1.0, 1.0])
    np.testing.assert_array_equal(ours[:, :6], stored[:, :6])
    assert FastWamConfig.from_dict(config.to_dict()) == config


def test_listing_needs_no_torch() -> None:
    code = "import sys, policies.fastwam; print('torch' in sys.modules, 'diffusers' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_unknown_names_say_what_was_meant() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'joint'"):
        FAMILY.make("jiont", FastWamOptions())
    with pytest.raises(UnknownName, match="Did you mean 'tiny'"):
        FastWamOptions(preset="tinny")
    with pytest.raises(WamsimError, match="float16"):
        FastWamOptions(dtype="float16")
    with pytest.raises(ValueError, match="share attention"):
        tiny(video=preset_config("published", "fastwam").video)


def test_too_long_an_instruction_is_an_error() -> None:
    policy = FastWamPolicy(drawn(), steps=1)
    long = observation(1, instruction=["put the bowl on the plate " * 6])
    with pytest.raises(InstructionTooLong, match=r"36 tokens, the text encoder takes 32"):
        policy.act(long)


@torch.no_grad()
def test_padding_of_a_prompt_is_zero_and_attended_to() -> None:
    model = drawn()
    context = model.text.encode([TASKS[0], ""])
    words = len(TASKS[0].split())
    assert context.shape == (2, 32, 32)
    assert (context[0, words:] == 0).all()
    assert (context[0, words - 1] != 0).any()
    # zeros are keys: a context cut to its true length gives another answer
    latents, actions, times, _ = inputs(model, 1)
    whole = model.velocities(latents, actions, times, model.context(context[:1]))[1]
    cut = context[:1, :words]
    assert not torch.allclose(
        whole, model.velocities(latents, actions, times, model.context(cut))[1]
    )


def test_pictures_are_what_imagination_aims_at() -> None:
    policy = registry.make_policy(registry.choose_policy("fastwam:joint"))
    frames = np.zeros((1, 9, 2, 64, 64, 3), np.uint8)
    frames[:, 4], frames[:, 8], frames[:, 8, 1] = 10, 20, 30
    shown = policy.pictures(frames)  # type: ignore[attr-defined]
    assert shown.shape == (1, 2, 64, 128, 3)
    assert set(np.unique(shown[0, 0])) == {10}
    assert set(np.unique(shown[0, 1, :, :64])) == {20}
    assert set(np.unique(shown[0, 1, :, 64:])) == {30}
