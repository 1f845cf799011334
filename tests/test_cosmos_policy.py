"""Cosmos: closed-loop acting, imagination, planning."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cosmos_doubles import model, observation, take, tiny

from policies.checkpoint import Statistics
from policies.cosmos import FAMILY, CosmosOptions
from policies.cosmos.config import (
    Aggregator,
    NetConfig,
    PlanningConfig,
    SamplerConfig,
    TextConfig,
    preset,
)
from policies.cosmos.layout import Mode, SlotKind
from policies.cosmos.model import CosmosModel, Reuse, build
from policies.cosmos.options import resolve
from policies.cosmos.planning import WORLD, aggregate, choose, member_steps, plan
from policies.cosmos.policy import CosmosPlanner, CosmosPolicy
from policies.cosmos.text import InstructionTooLong
from policies.preprocess import ImageSteps
from wamsim import registry
from wamsim.contracts import Imaginer
from wamsim.conventions import Orientation
from wamsim.errors import ConventionMismatch, UnknownName, WamsimError
from wamsim.fitting import checked_actions


@pytest.fixture(scope="module")
def direct_model() -> CosmosModel:
    return model()


@pytest.fixture(scope="module")
def planning_model() -> CosmosModel:
    small = PlanningConfig(proposals=3, futures=2, values=2, world_steps=2, value_steps=2)
    return model("planning", planning=small)


def test_listing_is_cheap() -> None:
    code = (
        "import sys, policies.cosmos as c; assert c.FAMILY.variants == ('direct', 'planning');"
        "assert not {'torch', 'transformers', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("variant", ["direct", "planning"])
def test_the_card_is_kept(variant: str) -> None:
    policy = FAMILY.make(variant, CosmosOptions(proposals=2, futures=1, values=2, value_steps=2))
    card = policy.card
    assert card.name == f"cosmos:{variant}"
    assert card.cameras == ("eye_in_hand", "agentview")
    assert card.orientation is Orientation.UPRIGHT
    assert isinstance(policy, Imaginer)
    obs = observation(tiny(variant), padding=(1,), imagine=True)
    found = policy.act(obs)
    actions = checked_actions(card, found, 3)
    assert np.isfinite(actions).all()
    assert found.value is not None
    assert found.value.dtype == np.float32
    assert ((found.value >= 0) & (found.value <= 1)).all()
    spec, imagined = card.imagines, found.imagined
    assert spec is not None
    assert imagined is not None
    assert imagined.latents.shape == (3, 1, *spec.latent_shape) == (3, 1, 2, 16, 8, 8)
    assert imagined.frames is not None
    assert imagined.frames.shape == (3, 1, 64, 128, 3)
    assert set(found.timings) == {"encode", "text", "denoise", "imagine"}
    real = policy.encode(np.zeros((3, 2, 2, 64, 64, 3), np.uint8))
    assert real.shape == imagined.latents.shape
    drawn = policy.decode(imagined.latents)
    assert (drawn.shape, drawn.dtype) == (imagined.frames.shape, np.uint8)


def test_the_ceiling_is_drawn_after_the_present(direct_model: CosmosModel) -> None:
    policy = CosmosPolicy(direct_model)
    frames = np.random.default_rng(0).integers(0, 256, (2, 2, 2, 64, 64, 3), np.uint8)
    other = frames.copy()
    other[:, 0] = 0  # `decode` knows no present: it takes a black one
    found, expected = policy.redraw(other), policy.decode(policy.encode(other))
    # black slots are encoded for one row there, for all here: a level of grey by rounding
    np.testing.assert_allclose(found.astype(int), expected.astype(int), rtol=0, atol=1)
    assert not np.array_equal(policy.redraw(frames), policy.redraw(other))


@pytest.mark.parametrize("layout", ["robocasa", "aloha"])
def test_other_layouts_act(layout: str) -> None:
    m = model(layout=layout)
    found = CosmosPolicy(m).act(observation(m.config, 1, imagine=True))
    dim = m.config.layout.action_convention.dim
    assert found.actions.shape == (1, 8, dim)
    assert found.imagined is not None
    assert found.imagined.latents.shape == (1, 1, 3, 16, 4, 4)


def test_imagination_along_with_the_actions_and_after_them(direct_model: CosmosModel) -> None:
    """As published the future comes with the actions; else it is denoised when it is asked for."""
    tiny = direct_model.config
    obs = observation(tiny, 2)
    asked = dataclasses.replace(obs, imagine=True)
    text = direct_model.embed_text(obs.instruction)
    sampler = dataclasses.replace(tiny.sampler, imagine_steps=0)
    direct_model.config = dataclasses.replace(tiny, sampler=sampler)
    try:
        along = CosmosPolicy(direct_model)
        with_actions, unasked = along.act(asked), along.act(obs)
    finally:
        direct_model.config = tiny
    apart = CosmosPolicy(direct_model)
    after, none = apart.act(asked), apart.act(obs)
    spec = apart.card.imagines
    assert spec is not None
    assert spec.on_request
    assert none.imagined is None
    for other in (with_actions, unasked, none):  # asking changes no action
        np.testing.assert_allclose(after.actions, other.actions, rtol=0, atol=1e-5)
    assert unasked.imagined is not None
    assert unasked.imagined.frames is None
    # by definition: the world model's one estimate from pure noise, the actions given
    pictures = apart._present(asked)
    standing = direct_model.standing(pictures, 2)
    given = apart._given(pictures, asked, standing)
    acted = direct_model.generate(given, Mode.POLICY, text, obs.seed)
    future = list(tiny.layout.places(SlotKind.FUTURE_IMAGE))
    for found, latents in (
        (with_actions, acted),
        (
            after,
            direct_model.generate(acted, Mode.WORLD, text, obs.seed, streams=(WORLD,), steps=1),
        ),
    ):
        expected = direct_model.as_latents(latents[:, :, future], standing[:, :, future])
        assert found.imagined is not None
        np.testing.assert_allclose(
            found.imagined.latents[:, 0], expected.transpose(1, 2).detach(), rtol=0, atol=1e-4
        )
    assert with_actions.imagined is not None
    assert after.imagined is not None
    assert not np.allclose(with_actions.imagined.latents, after.imagined.latents, atol=1e-2)


@pytest.mark.parametrize("variant", ["direct", "planning"])
def test_a_row_does_not_know_its_batch(
    variant: str, direct_model: CosmosModel, planning_model: CosmosModel
) -> None:
    policy = CosmosPolicy(direct_model) if variant == "direct" else CosmosPlanner(planning_model)
    obs = observation(policy.model.config, 3, imagine=True)
    whole = policy.act(obs)
    again = policy.act(obs)
    assert np.array_equal(whole.actions, again.actions)
    for row in range(3):
        alone = policy.act(take(obs, row))
        assert np.array_equal(alone.actions[row], whole.actions[row])
        assert alone.value is not None
        assert whole.value is not None
        assert alone.value[row] == whole.value[row]
        assert alone.imagined is not None
        assert whole.imagined is not None
        assert np.array_equal(alone.imagined.latents[row], whole.imagined.latents[row])


def test_seed_instruction_picture_and_proprio_all_count(direct_model: CosmosModel) -> None:
    policy = CosmosPolicy(direct_model)
    obs = observation(policy.model.config, 1)
    base = policy.act(obs).actions
    assert obs.proprio is not None
    others = [
        dataclasses.replace(obs, seed=obs.seed + np.uint64(1)),
        dataclasses.replace(obs, instruction=["open the drawer"]),
        dataclasses.replace(obs, proprio=obs.proprio + 0.1),
        *(
            dataclasses.replace(obs, frames={**obs.frames, c: 255 - obs.frames[c]})
            for c in obs.frames
        ),
    ]
    assert all(not np.array_equal(policy.act(o).actions, base) for o in others)


def test_only_the_present_of_a_history_counts(direct_model: CosmosModel) -> None:
    """Frames before the present (repeated first frames at an episode's start) are not read."""
    policy = CosmosPolicy(direct_model)
    obs = observation(policy.model.config, 1)
    longer = {c: np.concatenate([255 - f, f], axis=1) for c, f in obs.frames.items()}
    found = policy.act(dataclasses.replace(obs, frames=longer))
    assert np.array_equal(found.actions, policy.act(obs).actions)


def test_reuse_of_the_text_and_of_the_prefix_is_exact(direct_model: CosmosModel) -> None:
    obs = observation(direct_model.config, 2, imagine=True)
    fast = CosmosPolicy(direct_model).act(obs)
    slow = CosmosPolicy(direct_model, reuse=Reuse(text=False), encode_all=True).act(obs)
    np.testing.assert_allclose(fast.actions, slow.actions, rtol=0, atol=1e-5)
    assert fast.imagined is not None
    assert slow.imagined is not None
    np.testing.assert_allclose(fast.imagined.latents, slow.imagined.latents, rtol=0, atol=1e-4)
    bank = CosmosPolicy(direct_model, reuse=Reuse(clean=True)).act(obs)
    np.testing.assert_allclose(bank.actions, fast.actions, rtol=0, atol=1e-5)  # given apart


def test_reuse_of_clean_slots_is_approximate_where_they_see_the_others() -> None:
    net = dataclasses.replace(tiny().net, given_apart=False)
    published = model(net=net, sampler=SamplerConfig(steps=5))
    obs = observation(published.config, 2)
    exact = CosmosPolicy(published).act(obs)
    bank = CosmosPolicy(published, reuse=Reuse(clean=True)).act(obs)
    assert np.abs(bank.actions - exact.actions).max() > 1e-4


def test_prefix_latents_equal_those_of_the_whole_video(direct_model: CosmosModel) -> None:
    pictures = {i: torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8) for i in (2, 3, 6, 7)}
    whole = direct_model.encode_pictures(pictures, 2)
    for count in (1, 4, 8):
        part = direct_model.encode_pictures(pictures, 2, count=count)
        torch.testing.assert_close(part, whole[:, :, :count], rtol=0, atol=1e-6)


@pytest.mark.parametrize("change", [{}, {"patch": 1, "dim_mult": (1, 1, 2, 2)}])
def test_slots_are_encoded_as_diffusers_encodes_their_video(change: dict[str, Any]) -> None:
    """Piece by piece, for one row while all are black, and two videos from one beginning."""
    from policies.cosmos.codec import Codec

    torch.manual_seed(0)
    codec = Codec(dataclasses.replace(tiny().vae, **change)).eval()
    codec.measure_scale(torch.randn(1, 16, 4, 2, 2) * 3 + 1)
    a, b, c = (torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8) for _ in range(3))
    start: list[torch.Tensor | None] = [None, None, a, None]
    found = codec.encode_ends(start, [[b, c], [c]], (32, 32), 2)
    for end, latents in zip(([b, c], [c]), found, strict=True):
        with torch.no_grad():
            mean = codec.posterior(codec.video([*start, *end], (32, 32), 2)).mean
        expected = (mean - codec.mean.view(1, -1, 1, 1, 1)) / codec.std.view(1, -1, 1, 1, 1)
        torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-5)
    black = codec.encode([None, None], (32, 32), 3)
    assert black.shape == (3, 16, 2, 4, 4)
    torch.testing.assert_close(black[:2], found[0][:, :, :2])


def test_encode_gives_the_training_slots(direct_model: CosmosModel) -> None:
    from cosmos_doubles import batch

    from policies.cosmos import training

    m = model(augment=False, change_spread=0.0)
    b = batch(m.config, 2)
    x0 = training.clean_latents(m, b, training.sample_seeds(b))
    frames = np.stack([b.frames[c].numpy() for c in m.config.layout.cameras], axis=2)
    found = CosmosPolicy(m).encode(frames)
    expected = x0[:, :, [6, 7]].transpose(1, 2)[:, None].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_future_proprioception_is_read_from_its_slot(direct_model: CosmosModel) -> None:
    latents = torch.zeros(1, 16, 9, 4, 4)
    values = torch.linspace(-2, 2, 9)[None]
    latents = direct_model.inject(latents, SlotKind.FUTURE_PROPRIO, values)
    torch.testing.assert_close(direct_model.read(latents, SlotKind.FUTURE_PROPRIO), values)


def test_missing_proprioception_is_named(direct_model: CosmosModel) -> None:
    obs = dataclasses.replace(observation(direct_model.config, 1), proprio=None)
    with pytest.raises(ConventionMismatch, match="GRIPPER_EEF_POS_QUAT"):
        CosmosPolicy(direct_model).act(obs)


def test_too_long_an_instruction_is_refused(direct_model: CosmosModel) -> None:
    obs = dataclasses.replace(observation(direct_model.config, 1), instruction=["x " * 33])
    with pytest.raises(InstructionTooLong, match="33 tokens, but the text encoder takes 32"):
        CosmosPolicy(direct_model).act(obs)


def test_bad_options_name_what_was_meant() -> None:
    with pytest.raises(UnknownName, match="'planning'"):
        FAMILY.make("plannning", CosmosOptions())
    with pytest.raises(UnknownName, match="'tiny'"):
        CosmosOptions(preset="tinny")
    with pytest.raises(UnknownName, match="'libero'"):
        CosmosOptions(layout="libro")
    with pytest.raises(WamsimError, match="steps=0 must be at least 1"):
        FAMILY.make("direct", CosmosOptions(steps=0))
    with pytest.raises(WamsimError, match="execute=17"):
        FAMILY.make("direct", CosmosOptions(execute=17))
    with pytest.raises(UnknownName, match="Known: value, value_of_action, value_of_state"):
        CosmosOptions(value_mode=Mode.WORLD)


# ---------------------------------------------------------------------------- planning


def test_aggregators() -> None:
    values = torch.tensor([[0.8, 0.6, 0.0, 0.04], [0.9, 0.0, 0.0, 0.0]])
    found = {how: aggregate(values, how).tolist() for how in Aggregator}
    assert found[Aggregator.AVERAGE] == pytest.approx([0.36, 0.225])
    # population deviations sqrt(0.1208) and sqrt(0.1519); the second falls below 0 and is clipped
    assert found[Aggregator.LCB] == pytest.approx([0.36 - 0.1208**0.5, 0.0], abs=1e-6)
    assert found[Aggregator.SUCCESS_VOTE] == pytest.approx([0.5, 0.25])
    assert found[Aggregator.MAJORITY_MEAN] == pytest.approx([0.7, 0.0])


def test_the_base_proposal_stays_unless_another_is_strictly_better() -> None:
    values = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.6], [0.1, 0.3, 0.3], [0.9, 0.1, 0.2]])
    assert choose(values).tolist() == [0, 2, 1, 0]


def test_ensemble_steps() -> None:
    assert member_steps(5, 3) == (1, 3, 5)
    assert member_steps(5, 5) == (1, 2, 3, 4, 5)
    assert member_steps(5, 1) == (5,)


@pytest.mark.parametrize("mode", [Mode.VALUE, Mode.VALUE_OF_STATE, Mode.VALUE_OF_ACTION])
def test_planning_batches_what_one_by_one_would_give(
    mode: Mode, planning_model: CosmosModel
) -> None:
    m = planning_model
    config = dataclasses.replace(m.config, value_mode=mode)
    obs = observation(config, 2)
    m.config, before = config, m.config
    try:
        policy = CosmosPlanner(m)
        given = policy._given(policy._present(obs), obs)
        text = m.embed_text(obs.instruction).detach()
        found = plan(m, m, given, (text, text), obs.seed, Reuse())
        n = config.planning.proposals
        members = 2 if mode is Mode.VALUE_OF_ACTION else 4
        assert found.ensemble.shape == (2, n, members)
        for i in range(n):
            one = m.generate(given, Mode.POLICY, text, obs.seed, streams=(i << 8,))
            torch.testing.assert_close(found.proposals[:, i], one, rtol=0, atol=1e-4)
        # proposal 0 is what direct mode would do
        direct = CosmosPolicy(m).act(obs)
        base = m.read(found.proposals[:, 0], SlotKind.ACTION)
        np.testing.assert_allclose(direct.actions, base.numpy(), rtol=0, atol=1e-4)
        # the world model keeps the proposal's present and action, and moves its future
        action, future = slice(0, 5), slice(5, 8)
        assert torch.equal(found.imagined[:, :, :, action], found.proposals[:, :, :, action])
        same = torch.equal(found.imagined[:, :, :, future], found.proposals[:, :, :, future])
        assert same is (mode is Mode.VALUE_OF_ACTION)
        assert found.chosen.tolist() == choose(found.values).tolist()
    finally:
        m.config = before


def test_value_of_state_hears_of_the_present_only_through_the_future(
    planning_model: CosmosModel,
) -> None:
    m = planning_model
    seeds = np.array([3], np.uint64)
    given = torch.randn(1, 16, 9, 4, 4, generator=torch.Generator().manual_seed(0))
    text = m.embed_text(["go"]).detach()
    base = m.generate(given, Mode.VALUE_OF_STATE, text, seeds)
    for slot, moves in ((1, False), (3, False), (4, False), (0, True), (5, True), (7, True)):
        other = given.clone()
        other[:, :, slot] += 1.0
        found = m.generate(other, Mode.VALUE_OF_STATE, text, seeds)
        assert torch.equal(found[:, :, 8], base[:, :, 8]) is not moves


def test_two_models_share_the_work() -> None:
    """With one proposal, planning acts as the proposing model does."""
    judge = model("planning", planning=PlanningConfig(proposals=1, futures=1, values=1))
    base = build(tiny(), init_seed=1)
    obs = observation(judge.config, 2)
    with pytest.raises(WamsimError, match="different autoencoders"):
        CosmosPlanner(judge, proposer=base)
    base.codec.load_state_dict(judge.codec.state_dict())
    found = CosmosPlanner(judge, proposer=base).act(obs)
    expected = CosmosPolicy(base).act(obs)
    np.testing.assert_allclose(found.actions, expected.actions, rtol=0, atol=1e-5)
    assert not np.allclose(found.actions, CosmosPolicy(judge).act(obs).actions, atol=1e-3)
    base.set_statistics(Statistics.identity({"action": 7, "proprio": 9}))
    base.statistics.values["action"]["max"].mul_(2)
    with pytest.raises(WamsimError, match="different statistics"):
        CosmosPlanner(judge, proposer=base)


def test_deeper_search_starts_from_the_imagined_state(planning_model: CosmosModel) -> None:
    m = planning_model
    obs = observation(m.config, 1)
    before = m.config
    policy = CosmosPlanner(m)
    given = policy._given(policy._present(obs), obs)
    text = m.embed_text(obs.instruction).detach()
    try:
        found = {}
        for depth, last in ((1, True), (2, True), (2, False)):
            m.config = dataclasses.replace(
                before, planning=dataclasses.replace(before.planning, depth=depth, last_value=last)
            )
            found[depth, last] = plan(m, m, given, (text, text), obs.seed, Reuse())
    finally:
        m.config = before
    assert torch.equal(found[1, True].proposals, found[2, True].proposals)
    mean = (found[1, True].values + found[2, True].values) / 2
    torch.testing.assert_close(found[2, False].values, mean)


# ---------------------------------------------------------------------------- speed


def _seconds(work: Callable[[], object]) -> float:
    """CPU time of one thread, the best of four: other programs must not count."""
    laps: list[float] = []
    for _ in range(4):
        began = time.process_time()
        work()
        laps.append(time.process_time() - began)
    return min(laps)


@pytest.mark.slow
def test_measured_speed_of_reuse(capsys: pytest.CaptureFixture[str]) -> None:
    """A middle-sized network with as many text tokens as published: what reuse buys."""
    config = NetConfig(width=256, blocks=4, heads=4, adaln_rank=16, text_dim=256)
    m = model(
        text=TextConfig(own=False),
        net=config,
        render_size=(128, 128),
        images=(ImageSteps(size=(128, 128)),),
    )
    rng = torch.Generator().manual_seed(0)
    given = torch.randn(2, *m.frame_shape[:1], 9, *m.frame_shape[1:], generator=rng)
    text = torch.randn(2, 512, 256, generator=rng)
    seeds = np.arange(2).astype(np.uint64)

    def denoise(reuse: Reuse) -> torch.Tensor:
        return m.generate(given, Mode.POLICY, text, seeds, reuse=reuse)

    ways = {
        "nothing": Reuse(text=False),
        "text keys": Reuse(),
        "text keys, clean slots (approximate)": Reuse(clean=True),
    }
    exact = denoise(ways["nothing"])
    took = {name: _seconds(lambda r=r: denoise(r)) for name, r in ways.items()}
    pictures = {i: torch.zeros(2, 128, 128, 3, dtype=torch.uint8) for i in (2, 3)}
    whole = _seconds(lambda: m.encode_pictures(pictures, 2))
    present = _seconds(lambda: m.encode_pictures(pictures, 2, count=4))
    with capsys.disabled():
        print("\n  denoising, 5 steps, 576 latent tokens, 512 text tokens")
        for name, reuse in ways.items():
            off = float((denoise(reuse) - exact).abs().max())
            gain = took["nothing"] / took[name]
            print(f"    reused: {name:38s} {1e3 * took[name]:6.0f} ms, x {gain:.2f}, off {off:.1e}")
            assert reuse.clean or off < 1e-4
        print(f"  encoding 9 slots {1e3 * whole:.0f} ms, the present's 4 {1e3 * present:.0f} ms")
    assert present < whole


def test_pictures_are_what_imagination_aims_at() -> None:
    policy = registry.make_policy(registry.choose_policy("cosmos:direct"))
    card = policy.card
    assert card.imagines is not None
    height, width = card.imagines.image_size
    frames = np.zeros((2, 2, 2, height, width, 3), np.uint8)
    frames[:, 1, 0], frames[:, 1, 1] = 50, 200  # the future's cameras
    shown = policy.pictures(frames)  # type: ignore[attr-defined]
    assert shown.shape[:2] == (2, 1)
    half = shown.shape[3] // 2
    assert set(np.unique(shown[..., :half, :])) == {50}
    assert set(np.unique(shown[..., half:, :])) == {200}


def test_proposals_take_steps_of_their_own(planning_model: CosmosModel) -> None:
    m, before = planning_model, planning_model.config
    obs = observation(before, 2)
    policy = CosmosPlanner(m)
    given = policy._given(policy._present(obs), obs)
    text = m.embed_text(obs.instruction).detach()
    try:
        for own, taken in ((3, 3), (0, before.sampler.steps)):
            planning = dataclasses.replace(before.planning, proposals=1, proposal_steps=own)
            m.config = dataclasses.replace(before, planning=planning)
            found = plan(m, m, given, (text, text), obs.seed, Reuse()).proposals[:, 0]
            alone = m.generate(given, Mode.POLICY, text, obs.seed, steps=taken)
            torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
    finally:
        m.config = before


def test_steps_that_are_asked_for_are_those_of_proposals_too() -> None:
    def planned(**given: Any) -> tuple[int, int]:
        config = resolve(preset("planning", "tiny"), CosmosOptions(**given))
        return config.sampler.steps, config.planning.proposal_steps

    assert planned() == (1, 5)
    assert planned(steps=2) == (2, 0)
