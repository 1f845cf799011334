"""Flow-HWM's training: draws, loss terms against references, two hundred steps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from flow_hwm_doubles import batch_of, model_of, small, stirred

from policies.batch import check_finite
from policies.checkpoint import CheckpointMismatch, Statistics
from policies.flow_hwm.config import VARIANTS, preset_config
from policies.flow_hwm.model import draw, noised
from policies.flow_hwm.network import Context
from policies.flow_hwm.tokenizer import to_pixels

# --------------------------------------------------------------------- flow matching


def test_noised_by_hand() -> None:
    data, noise, t = torch.tensor([[4.0]]), torch.tensor([[1.0]]), torch.tensor([0.25])
    x, v, told = noised(data, noise, t, small("base"))
    assert (x.item(), v.item(), told.item()) == (0.75 * 1 + 0.25 * 4, 3.0, 0.25)
    # paper: X_t = t X_1 + (1 - (1 - s) t) X_0, V = X_1 - (1 - s) X_0
    x, v, _ = noised(data, noise, t, small("base", sigma_min=0.2))
    assert x.item() == pytest.approx(0.25 * 4 + (1 - 0.8 * 0.25) * 1)
    assert v.item() == pytest.approx(4 - 0.8)


def test_official_noise_times_by_hand() -> None:
    data, noise, t = torch.tensor([[4.0]]), torch.tensor([[1.0]]), torch.tensor([0.49])
    # HEAD: t / 49 = 0.01, almost pure noise
    x, v, told = noised(data, noise, t, small("base", parity=("noise_times_head",)))
    assert (x.item(), v.item(), told.item()) == pytest.approx((0.99 + 0.04, 3.0, 0.49))
    # May 2025: 50 t / 49 = 0.5, and the embedding is told 50 t
    x, v, told = noised(data, noise, t, small("base", parity=("noise_times_may_2025",)))
    assert (x.item(), v.item(), told.item()) == pytest.approx((2.5, 3.0, 24.5))


def test_draws_are_logit_normal_and_drop_fifteen_percent() -> None:
    seeds = np.arange(4000, dtype=np.uint64)
    noise, t, drop = draw(seeds, (3,), small("base"))
    u = torch.logit(t)
    assert abs(u.mean()) < 0.05
    assert abs(u.std() - 1) < 0.05
    assert abs(noise.mean()) < 0.03
    assert abs(drop.float().mean() - 0.15) < 0.02
    assert abs(torch.corrcoef(torch.stack([u, drop.float()]))[0, 1]) < 0.05


def test_context_is_dropped_jointly() -> None:
    parts = (torch.ones(2, 1, 1, 1, 1), torch.ones(2, 3, 2), torch.ones(2, 4, 2))
    dropped = Context(*parts).without(torch.tensor([True, False])).parts()
    assert all(float(p[0].abs().sum()) == 0 and bool((p[1] == 1).all()) for p in dropped)


# ------------------------------------------------------------------------------ loss


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("spread", [0.0, 0.25])
def test_loss_equals_a_second_writing(variant: str, spread: float) -> None:
    config = small(variant, cfg_drop=0.5, tokenizer_weight=1.0, change_spread=spread)
    model = stirred(model_of(config))
    mean, std = torch.linspace(-1, 1, 7), torch.linspace(0.5, 2, 7)
    model.set_statistics(Statistics({"action": {"mean": mean, "std": std}}))
    rows, seeds = 4, np.array([5, 6, 7, 8], np.uint64)
    batch = replace(batch_of(config, rows), seed=torch.from_numpy(seeds.astype(np.int64)))
    with torch.no_grad():
        found = model.loss(batch)
        pixels = batch.frames["agentview"].permute(0, 4, 1, 2, 3) / 127.5 - 1
        latents = model.tokenizer.encode(pixels)
        rebuilt = model.tokenizer.decode(latents)
        future = latents[:, :, 2:]
        if spread:  # ours: what changes from a window that ends in four frames of the present
            still = model.tokenizer.encode(pixels[:, :, [0, 1, 2, 3, 4, 4, 4, 4, 4]])
            future = (future - still[:, :, 2:]) / spread
        actions = (batch.actions - mean) / std
        noise, t, drop = draw(seeds, (8, 1, 4, 4), config)
        assert 0 < int(drop.sum()) < rows
        errors = []
        for i in range(rows):
            keep = 0.0 if drop[i] else 1.0
            x1, x0 = future[i : i + 1], noise[i : i + 1]
            told = Context(
                past=keep * latents[i : i + 1, :, :2],
                # the action of a frame is the step that led into it; the first repeats
                past_actions=keep * actions[i : i + 1, [0, 0, 1, 2, 3]],
                future_actions=keep * actions[i : i + 1, [4, 5, 6, 7]],
            )
            v = model.network((1 - t[i]) * x0 + t[i] * x1, t[i : i + 1], told)
            errors.append(((v - (x1 - x0)) ** 2).mean())
    torch.testing.assert_close(found["flow"], torch.stack(errors).mean(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["reconstruction"], ((rebuilt - pixels) ** 2).mean())
    torch.testing.assert_close(found["total"], found["flow"] + found["reconstruction"])


def test_a_frozen_tokenizer_has_no_term_and_no_gradient() -> None:
    model = model_of(small("base"))
    losses = model.loss(batch_of(model.config))
    assert sorted(losses) == ["flow", "total"]
    losses["total"].backward()
    assert model.wan is not None
    assert all(p.grad is None for p in model.wan.parameters())


def test_the_flow_does_not_bend_the_tokenizer() -> None:
    model = stirred(model_of(small("base", tokenizer_weight=1.0)))
    model.loss(batch_of(model.config))["flow"].backward()
    assert model.wan is not None
    assert all(p.grad is None for p in model.wan.parameters())
    # in the last block nobody reads what the context asks for
    unreached = {n for n, p in model.network.named_parameters() if p.grad is None}
    assert unreached == {
        f"blocks.2.qkv.{s}.q_norm.{kind}" for s in (1, 2, 3) for kind in ("weight", "bias")
    }


def test_a_window_that_leaves_the_episode_is_not_learnt_from() -> None:
    model = stirred(model_of(small("base", tokenizer_weight=1.0)))
    batch = replace(batch_of(model.config, rows=2), seed=torch.tensor([3, 4]))
    cut = batch.frame_valid.clone()
    cut[1, -1] = False
    late = batch.action_valid.clone()
    late[0, -1] = False
    with torch.no_grad():
        both = model.loss(batch)["flow"]
        first = model.loss(replace(batch, frame_valid=cut))["flow"]
        second = model.loss(replace(batch, action_valid=late))["flow"]
    torch.testing.assert_close(both, (first + second) / 2)
    nothing = model.loss(replace(batch, frame_valid=cut, action_valid=late))
    assert {k: float(v.detach()) for k, v in nothing.items()} == {
        "flow": 0.0, "reconstruction": 0.0, "total": 0.0,
    }  # fmt: skip
    nothing["total"].backward()
    check_finite({n: p.grad for n, p in model.named_parameters() if p.grad is not None})


def test_seeds_fix_the_loss_and_no_seed_draws_freely() -> None:
    model = model_of(small("base"))
    batch = batch_of(model.config)
    with torch.no_grad():
        fixed = [model.loss(replace(batch, seed=torch.tensor([-1, 2])))["flow"] for _ in "ab"]
        free = [model.loss(batch)["flow"] for _ in "ab"]
    assert fixed[0] == fixed[1]
    assert free[0] != free[1]


def test_a_loss_that_is_not_finite_stops_training() -> None:
    model = model_of(small("base"))
    with torch.no_grad():
        model.network.head.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="'flow' is nan"):
        check_finite(model.loss(batch_of(model.config)))


# ------------------------------------------------------------------------- data layout


def test_action_of_each_frame() -> None:
    # window of 5 + 4 frames: nothing leads into the first, its step stands in
    assert preset_config("base", "tiny").action_places == (0, 0, 1, 2, 3, 4, 5, 6, 7)
    published = preset_config("base", "published")
    assert published.action_places == (0, *range(1, 32, 2))
    assert (published.past_steps, published.future_steps) == (16, 16)
    # the official loader's rows never leave the past: the last is the step before the present
    official = preset_config("base", "published", action_stride=1)
    assert official.action_places == (0, *range(16))


def test_batch_spec_is_the_window() -> None:
    spec = model_of(small("base")).batch_spec
    assert (spec.frame_offsets, spec.horizon) == (tuple(range(9)), 8)
    assert (spec.cameras, spec.image_size, spec.proprio) == (("agentview",), (32, 32), None)


def test_a_channel_that_never_moved_is_only_centred() -> None:
    model = model_of(small("base"))
    std = torch.ones(7)
    std[3] = 0.0
    model.set_statistics(Statistics({"action": {"mean": torch.full((7,), 0.5), "std": std}}))
    found = model.normalised(torch.full((1, 7), 0.75))
    torch.testing.assert_close(found, torch.full((1, 7), 0.25))


def test_statistics_of_another_robot_are_refused() -> None:
    model = model_of(small("base"))
    with pytest.raises(CheckpointMismatch, match=r"action/mean have \(9,\) values.*has 7"):
        model.set_statistics(Statistics.identity({"action": 9}))
    with pytest.raises(CheckpointMismatch, match="no action/std"):
        model.set_statistics(Statistics({"action": {"mean": torch.zeros(7)}}))


def test_the_tokenizer_is_causal() -> None:
    model = stirred(model_of(small("base")))
    frames = batch_of(model.config).frames["agentview"]
    with torch.no_grad():
        whole, past = model.encode_window(frames), model.encode_past(frames[:, :5])
    assert torch.equal(whole[:, :, :2], past)


def test_pixels_reach_from_minus_one_to_one_and_may_be_bgr() -> None:
    frames = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 1, 3)
    found = to_pixels(frames, bgr=False).flatten()
    torch.testing.assert_close(found, torch.tensor([-1.0, -0.6, 1.0]))
    assert torch.equal(to_pixels(frames, bgr=True).flatten(), found.flip(0))


# ---------------------------------------------------------------------------- learning


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "weight"), [*((v, 0.0) for v in VARIANTS), ("base", 1.0)])
def test_two_hundred_steps_halve_every_term(
    variant: str, weight: float, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = model_of(preset_config(variant, "tiny", tokenizer_weight=weight))
    batch = batch_of(model.config)
    if weight == 0:  # frozen: latents of unit size, as an untrained model has them
        assert model.wan is not None
        model.wan.measure_scale(to_pixels(batch.frames["agentview"], bgr=False))
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-2)
    history: list[dict[str, float]] = []
    for _ in range(200):
        losses = model.loss(batch)
        check_finite(losses)
        optimiser.zero_grad()
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    for name in history[0]:
        # times and noise are drawn anew each step, hence means over a few
        start = float(np.mean([h[name] for h in history[:5]]))
        end = float(np.mean([h[name] for h in history[-20:]]))
        with capsys.disabled():
            print(f"\n{variant} {name}: {start:.3f} -> {end:.3f}", end="")
        assert end < start / 2, name
