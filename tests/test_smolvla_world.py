"""The variants of smolvla_world as policies: what they see, say, imagine and refuse."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from smolvla_world_doubles import (
    GATED,
    batch_of,
    fresh,
    observation,
    one_row,
    open_gates,
    tiny,
)

from envs.scene import SuiteOptions
from policies.smolvla_world import FAMILY, SmolVLAWorldOptions
from policies.smolvla_world.config import MEMORIES_ROLLOUT, Config
from policies.smolvla_world.fusion import Memory
from policies.smolvla_world.inputs import turn
from policies.smolvla_world.memory import Draws
from policies.smolvla_world.presets import VARIANTS, configuration
from policies.smolvla_world.sampling import sample
from policies.smolvla_world.tokens import TextTooLong, Tokenizer
from policies.smolvla_world.training import Step
from policies.words import word_ids
from wamsim import registry
from wamsim.contracts import Imaginer
from wamsim.conventions import Orientation, orient
from wamsim.errors import UnknownName, WamsimError
from wamsim.gallery import Gallery, Shot, stack_frames
from wamsim.registry import parse_value

ALL = list(VARIANTS)
ALWAYS = [v for v in ALL if v not in ("base", "flare_tokens", "constraint")]


def test_listing_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from policies.smolvla_world import FAMILY; FAMILY.config(); "
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert FAMILY.variants[0] == "late_gated_xattn"
    assert set(FAMILY.variants) == set(VARIANTS)


@pytest.mark.parametrize("variant", ALL)
def test_card_and_answer(variant: str) -> None:
    policy = tiny(variant)
    card, obs = policy.card, observation(policy.card, 2)
    prediction = policy.act(obs)
    assert prediction.actions.shape == (2, card.horizon, 7)
    assert prediction.actions.dtype == np.float32
    assert np.isfinite(prediction.actions).all()
    assert {"embed", "prefix", "denoise"} <= set(prediction.timings)
    assert card.action.name == "DELTA_EEF_GRIPPER_CLOSE_POSITIVE"
    assert card.cameras == ("agentview", "eye_in_hand")
    spec = card.imagines
    if variant == "base":
        assert spec is None
        assert prediction.imagined is None
        return
    assert spec is not None
    assert isinstance(policy, Imaginer)
    assert spec.on_request == (variant not in ALWAYS)
    assert spec.frame_offsets == (-3, -2, -1, *range(len(spec.horizons) + 1))
    assert prediction.imagined is not None
    assert prediction.imagined.latents.shape == (2, len(spec.horizons), *spec.latent_shape)
    height, width = spec.image_size
    frames = np.zeros((2, len(spec.frame_offsets), 1, height, width, 3), np.uint8)
    assert policy.encode(frames).shape == prediction.imagined.latents.shape
    unasked = policy.act(dataclasses.replace(obs, imagine=False))
    assert (unasked.imagined is None) == spec.on_request
    assert np.array_equal(unasked.actions, prediction.actions)


@pytest.mark.parametrize("variant", ALL)
def test_a_row_does_not_depend_on_its_neighbours(variant: str) -> None:
    """Same batch shape, other rows replaced by padding: bit for bit the same.

    At another place of the batch a matrix product may round differently (its last rows go
    through another kernel), so there it is the same up to rounding.
    """
    policy = fresh(variant)
    open_gates(policy.model)
    obs = observation(policy.card, 3)
    together = policy.act(obs)
    for row in range(3):
        for place in (row, 0):
            alone = policy.act(one_row(obs, row, place))
            pairs = [(alone.actions[place], together.actions[row])]
            if together.imagined is not None and alone.imagined is not None:
                pairs.append((alone.imagined.latents[place], together.imagined.latents[row]))
            for one, other in pairs:
                assert np.allclose(one, other, atol=1e-5)
                assert place != row or np.array_equal(one, other)


def test_only_the_seed_makes_noise() -> None:
    policy = tiny("late_gated_xattn")
    obs = observation(policy.card, 2)
    again = policy.act(obs).actions
    assert np.array_equal(policy.act(obs).actions, again)
    other = policy.act(dataclasses.replace(obs, seed=obs.seed + np.uint64(1))).actions
    assert not np.array_equal(other, again)


@pytest.mark.parametrize("variant", GATED)
def test_a_closed_gate_is_the_base_policy(variant: str) -> None:
    """FAMILIES G.4.5, exactly; and an open gate is not."""
    base, policy = tiny("base"), fresh(variant)
    own = base.model.state_dict()
    shared = policy.model.state_dict()
    assert all(torch.equal(shared[k], v) for k, v in own.items())
    obs = observation(policy.card, 2)
    now = dataclasses.replace(
        obs,
        frames={c: x[:, -1:] for c, x in obs.frames.items()},
        proprio=None if obs.proprio is None else obs.proprio[:, -1:],
    )
    expected = base.act(now).actions
    assert np.array_equal(policy.act(obs).actions, expected)
    # also when the memory is looked at: tanh(0) times anything finite
    query = policy.model.query(
        {c: torch.from_numpy(x[:, -1].copy()) for c, x in obs.frames.items()},
        torch.zeros(2, 8),
        obs.instruction,
    )
    ahead = policy.model.world.horizon
    memory = Memory(torch.randn(2, ahead, policy.model.world.hidden))
    x, t = torch.randn(2, 8, 10), torch.full((2,), 0.5)
    with torch.no_grad():
        without = policy.model.velocity(policy.model.prefix(query, None), x, t, None)[0]
        given = policy.model.velocity(policy.model.prefix(query, memory), x, t, memory)[0]
        open_gates(policy.model)
        opened = policy.model.velocity(policy.model.prefix(query, memory), x, t, memory)[0]
    assert torch.equal(given, without)
    assert not torch.equal(opened, without)
    assert not np.array_equal(policy.act(obs).actions, expected)


@pytest.mark.parametrize("variant", ALL)
def test_cached_and_uncached_sampling_agree(variant: str) -> None:
    policy, slow = fresh(variant), fresh(variant, cache=False)
    for each in (policy, slow):
        open_gates(each.model)
    obs = observation(policy.card, 2)
    one, two = policy.act(obs), slow.act(obs)
    assert np.allclose(one.actions, two.actions, atol=1e-4)


@pytest.mark.parametrize("mode", MEMORIES_ROLLOUT)
def test_rollout_memory_changes_actions_not_imagination(mode: str) -> None:
    policy, other = fresh("late_gated_xattn"), fresh("late_gated_xattn", memory=mode)
    for each in (policy, other):
        open_gates(each.model)
    obs = observation(policy.card, 2)
    one, two = policy.act(obs), other.act(obs)
    assert np.array_equal(one.actions, two.actions) == (mode == "pred")
    assert one.imagined is not None
    assert two.imagined is not None
    assert np.array_equal(one.imagined.latents, two.imagined.latents)


def test_imagination_is_absolute() -> None:
    """z_hat = z_now + change, in the space of `encode`: a still Prophet imagines the present."""
    policy = fresh("late_gated_xattn")
    prophet = policy.model.prophet
    assert prophet is not None
    with torch.no_grad():
        prophet.output_proj.weight.zero_()
        assert prophet.output_proj.bias is not None
        prophet.output_proj.bias.zero_()
    obs = observation(policy.card, 2)
    still = np.repeat(obs.frames["agentview"][:, -1:], 7, axis=1)
    frames = {"agentview": still, "eye_in_hand": obs.frames["eye_in_hand"]}
    imagined = policy.act(dataclasses.replace(obs, frames=frames)).imagined
    assert imagined is not None
    real = policy.encode(np.repeat(still[:, :1], 8, axis=1)[:, :, None])
    assert np.allclose(imagined.latents, real, atol=1e-5)


def test_clips_of_the_past_and_the_future_meet() -> None:
    """Each feature sees its own step and the three frames before it (FAMILIES C.2)."""
    policy = tiny("late_gated_xattn")
    encoder = policy.model.encoder
    assert encoder is not None
    film = torch.from_numpy(observation(policy.card, 1).frames["agentview"])
    film = torch.cat([film, film.flip(1)], dim=1)[:, :11]  # offsets -6 .. 4
    together = encoder(film, 8)
    alone = torch.cat([encoder(film[:, i : i + 4], 1) for i in range(8)], dim=1)
    assert torch.allclose(together, alone, atol=1e-5)
    ahead = policy.encode(film[:, 3:, None].numpy())  # offsets -3 .. 4
    assert np.allclose(ahead, together[:, 4:].numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="4 clips of 4 frames need 7 consecutive"):
        encoder(film, 4)


def test_an_episode_begins_with_its_first_frame_repeated() -> None:
    """What the harness's gallery gives before the start, and what that means for features."""
    policy = tiny("late_gated_xattn")
    whole = observation(policy.card, 1)
    gallery = Gallery()
    shot = np.stack([whole.frames[c][0, -1] for c in policy.card.cameras])
    gallery.add(0, Shot(shot))
    seen = stack_frames(gallery.stack(policy.card.frame_offsets))  # [T, cams, H, W, 3]
    assert seen.shape == (7, 2, 64, 64, 3)
    frames = {c: seen[None, :, i] for i, c in enumerate(policy.card.cameras)}
    prediction = policy.act(dataclasses.replace(whole, frames=frames))
    assert np.isfinite(prediction.actions).all()
    encoder = policy.model.encoder
    assert encoder is not None
    history = encoder(torch.from_numpy(frames["agentview"].copy()), 4)
    assert torch.allclose(history, history[:, :1].expand_as(history), atol=1e-6)


@pytest.mark.parametrize("orientation", list(Orientation))
def test_training_turns_pictures_as_the_harness_does(orientation: Orientation) -> None:
    frames = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    turned = turn(torch.from_numpy(frames), orientation)
    assert np.array_equal(turned.numpy(), orient(frames, orientation))


def test_training_and_acting_see_the_same() -> None:
    model = tiny("late_gated_xattn").model
    batch = batch_of(model.batch_spec, 2)
    step = Step(model, batch)
    now = {
        c: torch.from_numpy(orient(batch.at(c, (0,))[:, 0].numpy(), Orientation.MIRRORED).copy())
        for c in model.config.cameras
    }
    with torch.no_grad():
        query = model.query(now, batch.proprio_at(0), batch.instruction, trim=True)
    assert torch.equal(query.context.embeddings, step.query.context.embeddings)
    assert torch.equal(query.state.embeddings, step.query.state.embeddings)


def test_euler_steps_follow_a_straight_flow_exactly() -> None:
    """With v = noise - a, any number of steps ends at a."""
    model = fresh("base").model
    draws = Draws(np.array([4], np.uint64), 1, "cpu")
    noise, goal = draws.normal((8, 10), 0), torch.randn(1, 8, 10)
    times: list[float] = []

    def velocity(prefix: object, x: object, t: torch.Tensor, memory: object) -> tuple:
        times.append(float(t[0]))
        return noise - goal, None

    model.velocity = velocity
    query = model.query(
        {c: torch.zeros(1, 64, 64, 3, dtype=torch.uint8) for c in model.config.cameras},
        torch.zeros(1, 8),
        ["go"],
    )
    done = sample(model, query, None, draws, steps=4, mode="pred", imagine=False)
    assert torch.allclose(done.actions, goal, atol=1e-5)
    assert times == [1.0, 0.75, 0.5, 0.25]


def test_without_imagination_less_is_drawn() -> None:
    assert tiny("constraint").card.frame_offsets == (-6, -5, -4, -3, -2, -1, 0)
    lean = tiny("constraint", imagine=False).card
    assert (lean.frame_offsets, lean.imagines) == ((0,), None)
    acting = tiny("late_gated_xattn", imagine=False)
    assert len(acting.card.frame_offsets) == 7  # the policy itself needs it
    assert acting.act(observation(acting.card, 1)).imagined is None


def test_the_policy_space_is_imagined_with_cos_policy() -> None:
    policy = tiny("late_gated_xattn", loss="cos_policy")
    spec = policy.card.imagines
    assert spec is not None
    assert spec.latent_shape == (64,)
    obs = observation(policy.card, 1)
    model = policy.model
    picture = model.host.pictures(torch.from_numpy(obs.frames["agentview"][:, -1].copy()))
    frames = np.repeat(obs.frames["agentview"][:, -1:], 8, axis=1)[:, :, None]
    with torch.no_grad():
        expected = model.host.see(picture).mean(1).numpy()
    assert np.allclose(policy.encode(frames), expected[:, None], atol=1e-5)
    assert policy.act(obs).imagined is not None


def test_features_cannot_be_drawn() -> None:
    policy = tiny("late_gated_xattn")
    assert policy.card.imagines is not None
    assert not policy.card.imagines.decodes
    with pytest.raises(NotImplementedError, match="features without a decoder"):
        policy.decode(np.zeros((1, 4, 64)))


def test_tokens_are_words() -> None:
    ids, valid = Tokenizer("words", 3, 100)(["Open it", "", "it  open\n"])
    one, other = (zlib.crc32(word) % 99 + 1 for word in (b"open", b"it"))
    assert ids.tolist() == [[one, other, 0], [0, 0, 0], [other, one, 0]]
    assert valid.sum(1).tolist() == [2, 0, 2]


def test_instructions_differ_in_their_words_ids(tmp_path: Path) -> None:
    vocabulary = tiny("base").model.config.host.vlm.vocabulary
    instructions = {
        task.instruction.lower()
        for name in registry.suite_names()
        for task in registry.suite(name, SuiteOptions(cache_dir=tmp_path)).suite.tasks
    }
    assert len(instructions) > 100
    ids = {tuple(word_ids(text, vocabulary)) for text in instructions}
    assert len(ids) == len(instructions)


def test_too_long_an_instruction_is_refused() -> None:
    policy = tiny("base")
    obs = observation(policy.card, 1, instruction=["word " * 40])
    with pytest.raises(TextTooLong, match="has 40 tokens, the model takes 32"):
        policy.act(obs)


def test_wrong_names_say_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'late_gated_xattn'"):
        configuration("late_gated_attn", "tiny")
    with pytest.raises(UnknownName, match="'published'"):
        configuration("base", "publshed")
    for bad in ({"preset": "large"}, {"loss": "cosine"}, {"memory": "oracle"}, {"steps": 0}):
        with pytest.raises(ValueError, match=next(iter(bad)).split("_")[0]):
            SmolVLAWorldOptions(**bad)
    with pytest.raises(ValueError, match="execute=9 must lie in"):
        SmolVLAWorldOptions(execute=9)
    assert parse_value("false", bool | None, name="delta") is False


@pytest.mark.parametrize("preset", ["tiny", "published"])
@pytest.mark.parametrize("variant", ALL)
def test_configurations_survive_json(variant: str, preset: str) -> None:
    config = configuration(variant, preset)
    assert Config.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="no field wings"):
        Config.from_dict({**config.to_dict(), "wings": 2})


def test_a_checkpoint_keeps_what_it_was_trained_as() -> None:
    trained = configuration("late_gated_xattn", "tiny")
    with pytest.raises(WamsimError, match="trained with delta=True"):
        SmolVLAWorldOptions(delta=False).adopt(trained)
    with pytest.raises(WamsimError, match="imagines 4 steps ahead"):
        SmolVLAWorldOptions(horizon=5).adopt(trained)
    adopted = SmolVLAWorldOptions(memory="zero", steps=2, execute=3).adopt(trained)
    assert (adopted.fusion.memory_rollout, adopted.host.steps, adopted.execute) == ("zero", 2, 3)
