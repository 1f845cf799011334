"""What is particular to single variants of smolvla_world."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from smolvla_world_doubles import batch_of, fresh, observation, open_gates, tiny

from policies.smolvla_world.fusion import Memory
from policies.smolvla_world.policy import SmolVLAWorldPolicy
from wamsim.errors import WamsimError


def test_the_history_is_seen_but_not_its_order() -> None:
    """The published Prophet has no positions; ours can have them."""
    for positions in (False, True):
        prophet = tiny(
            "late_gated_xattn", prophet_positions=positions, delta_from="present"
        ).model.prophet
        assert prophet is not None
        history = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            same = torch.allclose(prophet(history), prophet(history.flip(1)), atol=1e-6)
            other = torch.allclose(prophet(history), prophet(history * 2), atol=1e-6)
        assert same != positions
        assert not other


def test_flare_pitfall_with_a_causal_mask() -> None:
    """FAMILIES G.4.6: appended tokens reach the actions only without the causal mask."""

    def moves(**options: bool) -> bool:
        policy = fresh("flare_tokens", **options)
        obs = observation(policy.card, 1)
        before = policy.act(obs).actions
        tokens = policy.model.future_tokens
        assert tokens is not None
        with torch.no_grad():
            tokens.tokens += 1
        return not np.array_equal(before, policy.act(obs).actions)

    assert not moves(flare_causal=True)  # appended behind causal actions: invisible
    assert moves()  # one block: visible
    assert moves(flare_causal=True, flare_after=False)  # GR00T's order: visible either way
    assert moves(flare_after=False)


def test_flare_reads_its_tokens_after_l_layers() -> None:
    """An untouched middle: changing layers after L moves the actions, not the tokens."""
    policy = fresh("flare_tokens")
    obs = observation(policy.card, 1)
    before = policy.act(obs)
    with torch.no_grad():
        policy.model.host.expert.layers[3].mlp.down_proj.weight += 0.5
    steps = dataclasses.replace(policy.model.config.host, steps=1)
    policy.model.reconfigure(dataclasses.replace(policy.model.config, host=steps))
    one = policy.act(obs)
    with torch.no_grad():
        policy.model.host.expert.layers[4].mlp.down_proj.weight += 0.5
    two = policy.act(obs)
    assert before.imagined is not None
    assert one.imagined is not None
    assert two.imagined is not None
    assert not np.array_equal(one.actions, two.actions)
    assert np.array_equal(one.imagined.latents, two.imagined.latents)


def test_flare_with_one_far_target() -> None:
    policy = tiny("flare_tokens", flare_tokens=6, flare_target="last")
    spec = policy.card.imagines
    assert spec is not None
    assert spec.horizons == (4,)
    imagined = policy.act(observation(policy.card, 2)).imagined
    assert imagined is not None
    assert imagined.latents.shape == (2, 1, 64)
    assert policy.encode(np.zeros((2, 8, 1, 64, 64, 3), np.uint8)).shape == (2, 1, 64)
    with pytest.raises(WamsimError, match="flare_tokens=6 with flare_target='per_step'"):
        tiny("flare_tokens", flare_tokens=6)
    with pytest.raises(WamsimError, match="'base' has no learned future tokens"):
        tiny("base", flare_tokens=4)
    assert tiny("flare_tokens", horizon=6).model.config.fusion.flare_tokens == 6


@pytest.mark.parametrize(
    ("block", "context", "state"),
    [("state", False, True), ("own", False, False), ("prefix", True, True)],
)
def test_who_sees_world_tokens_in_the_prefix(block: str, context: bool, state: bool) -> None:
    policy = tiny("world_tokens", prefix_block=block)
    obs = observation(policy.card, 1)
    model = policy.model
    seen = {c: torch.from_numpy(x[:, -1].copy()) for c, x in obs.frames.items()}
    with torch.no_grad():
        query = model.query(seen, torch.zeros(1, 8), ["go"])
        memories = [Memory(torch.randn(1, 4, 64) * s) for s in (1.0, 2.0)]
        one, two = (model.host.fill(model.prefix(query, m)).layers[-1][0] for m in memories)
        x, t = torch.randn(1, 8, 10), torch.ones(1)
        actions = [model.velocity(model.prefix(query, m), x, t, m)[0] for m in memories]
    assert (not torch.equal(one[:, 0], two[:, 0])) == context
    at = query.context.length + (4 if block == "prefix" else 0)
    assert (not torch.equal(one[:, at], two[:, at])) == state
    assert not torch.equal(actions[0], actions[1])


def test_world_tokens_in_the_suffix_and_their_gate() -> None:
    policy = fresh("world_tokens", placement="suffix", gate_tokens=True)
    obs = observation(policy.card, 1)
    shut = policy.act(obs).actions
    open_gates(policy.model)
    assert not np.array_equal(policy.act(obs).actions, shut)


def test_sites_see_their_own_horizons() -> None:
    sites = fresh("hierarchical_horizons").model
    open_gates(sites)
    injection = sites.sites
    assert injection is not None
    x, values = torch.randn(1, 8, 48), torch.randn(1, 6, 64)
    later = values.clone()
    later[:, 3:] += 1
    with torch.no_grad():
        for depth, sees in ((2, False), (3, False), (4, True)):
            one, two = (injection(depth, x, Memory(v)) for v in (values, later))
            assert (not torch.equal(one, two)) == sees
        assert torch.equal(injection(1, x, Memory(values)), x)  # not a site
        hidden = Memory(values, torch.tensor([[True] * 3 + [False] * 3]))
        other = Memory(later, hidden.valid)
        assert torch.allclose(injection(4, x, hidden), injection(4, x, other), atol=1e-6)
        nothing = Memory(values, torch.zeros(1, 6, dtype=torch.bool))
        assert torch.equal(injection(4, x, nothing), x)
    with pytest.raises(WamsimError, match="need a horizon K of at least 6"):
        fresh("hierarchical_horizons", horizon=4)


def test_the_conditioned_prophet_is_asked_at_every_step() -> None:
    policy = fresh("action_conditioned_prophet", steps=5, delta_from="present")
    open_gates(policy.model)
    calls = 0
    predict = policy.model.predict

    def counted(*args: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return predict(*args)

    policy.model.predict = counted
    policy.act(observation(policy.card, 1, imagine=False))
    assert calls == 6  # five steps, and once for what the final chunk would lead to
    history = torch.randn(1, 4, 64)
    half, one = torch.full((1,), 0.5), torch.ones(1)
    chunk = torch.randn(1, 8, 10)
    with torch.no_grad():
        given = predict(history, chunk, half)
        assert not torch.allclose(given, predict(history, chunk + 1, half))
        assert not torch.allclose(given, predict(history, chunk, one))
        padded = chunk.clone()
        padded[..., 7:] += 1
        assert torch.equal(given, predict(history, padded, half))  # real channels only


def test_what_would_be_seen_if_nothing_were_done() -> None:
    policy = fresh("action_conditioned_prophet", delta_from="present")
    model, card = policy.model, policy.card
    obs = observation(card, 2, imagine=True)
    answer = policy.act(obs)
    assert answer.imagined is not None
    assert answer.otherwise is not None
    camera = model.config.cameras[model.world.camera]
    frames = torch.from_numpy(np.ascontiguousarray(obs.frames[camera]))
    assert model.encoder is not None
    with torch.no_grad():
        history = model.encoder(frames, model.world.context)
        hold = torch.tensor(card.action.hold).expand(2, card.horizon, -1)
        chunk = model.normalise("action", hold, model.config.host.max_action_dim)
        led = model.predict(history, chunk, torch.zeros(2))
        expected = model.absolute(led, model.origin(frames))
    np.testing.assert_allclose(answer.otherwise.latents, expected, atol=1e-5)
    assert np.abs(answer.otherwise.latents - answer.imagined.latents).max() > 1e-4
    assert (
        policy.act(observation(card, 2, imagine=False)).otherwise is None
    )  # it costs; only when asked


def test_imagination_that_ignores_actions_says_nothing_of_others() -> None:
    policy = fresh("late_gated_xattn")
    assert policy.act(observation(policy.card, 1, imagine=True)).otherwise is None


def standing(policy: SmolVLAWorldPolicy, frames: np.ndarray) -> np.ndarray:
    """What the harness calls "nothing moves": the window ahead with the last picture repeated."""
    spec = policy.card.imagines
    assert spec is not None
    past = sum(offset <= 0 for offset in spec.frame_offsets)
    still = np.repeat(frames[:, -1:], len(spec.frame_offsets) - past, axis=1)
    return policy.encode(np.concatenate([frames[:, -past:], still], axis=1)[:, :, None])


@pytest.mark.parametrize("variant", ["late_gated_xattn", "flare_tokens", "multi_layer_inject"])
@pytest.mark.parametrize("horizon", [2, 4, 6])  # fewer than a clip's frames, as many, more
def test_changes_are_counted_from_the_standing_world(variant: str, horizon: int) -> None:
    policy = fresh(variant, horizon=horizon)
    obs = observation(policy.card, 2, imagine=True)
    frames = obs.frames[policy.card.cameras[policy.model.world.camera]]
    answer = policy.act(obs).imagined
    assert answer is not None
    # what has learnt nothing says that nothing moves, exactly
    np.testing.assert_allclose(answer.latents, standing(policy, frames), atol=1e-5)
    last = policy.model.prophet.output_proj if policy.model.prophet else None
    last = policy.model.future_tokens.head[-1] if policy.model.future_tokens else last
    assert isinstance(last, torch.nn.Linear)
    with torch.no_grad():
        last.bias += 3.0
    moved = policy.act(obs).imagined
    assert moved is not None
    np.testing.assert_allclose(moved.latents, standing(policy, frames) + 3.0, atol=1e-4)


def test_a_world_that_stands_has_nothing_to_predict() -> None:
    model = tiny("late_gated_xattn").model
    batch = batch_of(model.batch_spec)
    now = batch.frame_offsets.index(0)
    for seen in batch.frames.values():
        seen[:, now:] = seen[:, now : now + 1]
    assert model.loss(batch)["world"].item() == pytest.approx(0.0, abs=1e-9)
    cached = dataclasses.replace(batch, features=model.frozen_features(batch))
    assert model.loss(cached)["world"].item() == pytest.approx(0.0, abs=1e-9)
    from_present = tiny("late_gated_xattn", delta_from="present").model
    assert "origin" not in from_present.frozen_features(batch)
    assert from_present.loss(batch)["world"].item() > 1e-3  # the past leaves its clips
