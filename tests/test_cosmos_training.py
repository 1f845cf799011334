"""Cosmos: the loss, its roles, and that it can be learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from cosmos_doubles import batch, model, tiny
from torch import Tensor

from policies.batch import check_finite
from policies.cosmos import diffusion, training
from policies.cosmos.augment import augment, turn_hue
from policies.cosmos.config import preset
from policies.cosmos.layout import Mode, SlotKind
from policies.cosmos.slots import tile
from policies.noise import noise_from_seeds

TERMS = ["action", "future_proprio", "future_image", "value", "total"]


def test_terms_and_their_sum() -> None:
    m = model(autoencoder_loss=1.0, augment=True, action_weight=3.0)
    found = m.loss(batch(m.config))
    assert list(found) == [*TERMS[:-1], "autoencoder", "total"]
    assert all(v.ndim == 0 and float(v.detach()) > 0 for v in found.values())
    parts = {k: float(v.detach()) for k, v in found.items()}
    total = parts.pop("total")
    expected = sum(parts.values()) + 2.0 * parts["action"]
    assert total == pytest.approx(expected, rel=1e-5)
    check_finite(found)


def test_published_presets_train_the_transformer_alone() -> None:
    m = model()
    found = m.loss(batch(m.config, 2))
    assert "autoencoder" not in found
    found["total"].backward()
    assert all(p.grad is None for p in m.codec.parameters())
    assert all(p.grad is not None for p in m.net.parameters())


@pytest.mark.parametrize("variant", ["direct", "planning"])
def test_loss_is_ten_times_the_velocity_error(variant: str) -> None:
    """An independent computation: unit-weight rectified flow over all elements."""
    m = model(variant, carry_noise=False, action_weight=1.0)
    b = batch(m.config, 6, seed=3)
    assert b.seed is not None
    seeds = b.seed.numpy().astype(np.uint64)
    modes = training.roles(m.config, b, seeds)
    x0 = training.clean_latents(m, b, seeds)
    rows: list[Tensor] = []
    with torch.no_grad():
        for i, (seed, mode) in enumerate(zip(seeds, modes, strict=True)):
            draw = np.random.Generator(np.random.PCG64([int(seed), training.LEVEL]))
            sigma = diffusion.draw_sigma(m.config.noise, draw, 9)
            t = sigma / (1 + sigma)
            noise = noise_from_seeds(seeds[i : i + 1], x0.shape[1:], stream=training.NOISE)
            clean = torch.tensor(m.config.layout.clean(mode))
            z = (1 - t) * x0[i : i + 1] + t * noise
            z[:, :, clean] = x0[i : i + 1, :, clean]
            keys = m.net.text_key_values(m.embed_text(b.instruction[i : i + 1]))
            net = m.net(z, clean[None], torch.where(clean, 0.0, t)[None], keys)
            error = (net - (noise - x0[i : i + 1])) ** 2
            rows.append(error * torch.tensor(m.config.layout.scored(mode))[:, None, None])
        expected = 10.0 * torch.cat(rows).mean()
        found = m.loss(b)["total"]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_slots_of_a_training_video(spread: float) -> None:
    m = model(change_spread=spread)
    b = batch(m.config, 4)
    x0 = training.clean_latents(m, b, training.sample_seeds(b))
    assert x0.shape == (4, 16, 9, 4, 4)
    assert b.proprio is not None
    for slot, values in ((1, b.proprio[:, 0]), (4, b.actions), (5, b.proprio[:, 1])):
        # identity statistics scale by (x + 1) - 1, which rounds
        torch.testing.assert_close(x0[:, :, slot], tile(values, (16, 4, 4), patch=2))
    # steps_left 0, 7, 14, 21 with a chunk of 8; the fourth failed
    assert x0[:, 0, 8, 0, 0].tolist() == pytest.approx([1.0, 1.0, 2 * 0.99**6 - 1, -1.0])
    # pictures: the wrist is slot 2 now and 6 after the chunk
    from policies.cosmos.model import process

    wrist, front = (
        torch.from_numpy(np.stack([process(m.config.images, f) for f in b.frames[c].numpy()]))
        for c in ("eye_in_hand", "agentview")
    )
    now = {2: wrist[:, 0], 3: front[:, 0]}
    alone = m.encode_pictures({**now, 6: wrist[:, 1], 7: front[:, 1]}, 4, count=8)
    if spread:  # ours: what changes from the present's pictures in the future's places
        still = m.encode_pictures({**now, 6: wrist[:, 0], 7: front[:, 0]}, 4, count=8)
        alone[:, :, 6:] = (alone - still)[:, :, 6:] / spread
    torch.testing.assert_close(alone[:, :, [0, 2, 3, 6, 7]], x0[:, :, [0, 2, 3, 6, 7]])
    cached = dataclasses.replace(b, features=m.frozen_features(b)) if not m.config.augment else b
    again = training.clean_latents(m, cached, training.sample_seeds(b))
    torch.testing.assert_close(again, x0, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "variant", "shares"),
    [
        ("published", "direct", (0.5, 0.25, 0.25)),
        ("published", "planning", (0.1, 0.45, 0.45)),
        ("tiny", "direct", (0.75, 0.125, 0.125)),
        ("tiny", "planning", (0.1, 0.45, 0.45)),
    ],
)
def test_roles_have_the_published_shares(
    size: str, variant: str, shares: tuple[float, ...]
) -> None:
    config = preset(variant, size)
    n = 4000
    b = dataclasses.replace(batch(tiny(variant), 1), success=torch.ones(n, dtype=torch.bool))
    seeds = np.arange(n).astype(np.uint64)
    found = training.roles(config, b, seeds)
    for mode, share in zip((Mode.POLICY, Mode.WORLD, config.value_mode), shares, strict=True):
        assert found.count(mode) / n == pytest.approx(share, abs=0.02)
    failed = dataclasses.replace(b, success=torch.zeros(n, dtype=torch.bool))
    found = training.roles(config, failed, seeds)
    assert Mode.POLICY not in found
    assert found.count(Mode.WORLD) / n == pytest.approx(0.5, abs=0.03)


def test_value_of_state_scores_the_value_slot_alone() -> None:
    m = model("planning", policy_share=0.0, world_share=0.0)
    found = m.loss(batch(m.config, 3))
    assert float(found["value"].detach()) > 0
    others = ("action", "future_proprio", "future_image")
    assert [float(found[k].detach()) for k in others] == [0, 0, 0]


def test_seeded_samples_do_not_depend_on_the_batch() -> None:
    m = model(augment=True)
    whole = batch(m.config, 4)

    def rows(keep: list[int]) -> float:
        part = dataclasses.replace(
            whole,
            frames={c: f[keep] for c, f in whole.frames.items()},
            frame_valid=whole.frame_valid[keep],
            proprio=None if whole.proprio is None else whole.proprio[keep],
            actions=whole.actions[keep], action_valid=whole.action_valid[keep],
            instruction=[whole.instruction[i] for i in keep],
            success=whole.success[keep], steps_left=whole.steps_left[keep],
            episode=whole.episode[keep], step=whole.step[keep],
            seed=None if whole.seed is None else whole.seed[keep],
        )  # fmt: skip
        with torch.no_grad():
            return float(m.loss(part)["total"])

    assert np.mean([rows([0, 1]), rows([2, 3])]) == pytest.approx(rows([0, 1, 2, 3]), rel=1e-4)


def test_a_loss_that_is_not_finite_is_named() -> None:
    m = model()
    b = batch(m.config, 2)
    broken = dataclasses.replace(b, actions=b.actions * float("nan"))
    with torch.no_grad(), pytest.raises(FloatingPointError, match="loss term"):
        check_finite(m.loss(broken))


def test_augmentation_treats_a_sample_as_one() -> None:
    picture = torch.randint(0, 256, (1, 1, 32, 32, 3), dtype=torch.uint8)
    twice = picture.repeat(2, 2, 1, 1, 1)
    found = augment(twice, [np.random.default_rng(s) for s in (0, 1)])
    assert found.dtype == torch.uint8
    assert found.shape == twice.shape
    assert torch.equal(found[:, 0], found[:, 1])
    assert not torch.equal(found[0], found[1])
    again = augment(twice[1:], [np.random.default_rng(1)])
    assert torch.equal(again[0], found[1])


def test_hue_turns_as_colorsys_does() -> None:
    import colorsys

    rgb = torch.rand(1, 3, 2, 5)
    found = turn_hue(rgb, 0.31)
    for y in range(2):
        for x in range(5):
            h, s, v = colorsys.rgb_to_hsv(*rgb[0, :, y, x].tolist())
            expected = colorsys.hsv_to_rgb((h + 0.31) % 1.0, s, v)
            assert found[0, :, y, x].tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(turn_hue(rgb, 0.0), rgb)


def _losses(terms: Mapping[str, Tensor]) -> dict[str, float]:
    return {k: float(v.detach()) for k, v in terms.items()}


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["direct", "planning"])
def test_two_hundred_steps_halve_every_term(variant: str) -> None:
    """One fixed batch, fresh noise at every step; judged on a noise never trained on."""
    m = model(variant)
    b = batch(m.config, 4, seed=5)
    judged = [dataclasses.replace(b, seed=torch.arange(4) + 10_000 * k) for k in range(1, 9)]

    def judge() -> dict[str, float]:
        with torch.no_grad():
            each = [_losses(m.loss(j)) for j in judged]
        return {k: float(np.mean([e[k] for e in each])) for k in each[0]}

    start = judge()
    torch.manual_seed(0)
    free = dataclasses.replace(b, seed=None)
    optimiser = torch.optim.AdamW(m.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=200)
    for _ in range(200):
        optimiser.zero_grad()
        terms = m.loss(free)
        check_finite(terms)
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    end = judge()
    print(f"\ncosmos:{variant}, 200 steps")
    for name in TERMS:
        print(
            f"  {name:15s} {start[name]:8.4f} -> {end[name]:8.4f}  ({end[name] / start[name]:.2f})"
        )
    assert all(end[name] < 0.5 * start[name] for name in TERMS)
    assert SlotKind.ACTION.value in TERMS
