"""Fast-WAM: schedules, who may look at whom, sampling with and without caches."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from fastwam_doubles import drawn, inputs, observation
from torch import Tensor

from policies.fastwam.config import VARIANTS
from policies.fastwam.flow import loss_weight, sampling_schedule, shifted, weight_constants
from policies.fastwam.mot import attention_mask
from policies.fastwam.policy import FastWamPolicy
from wamsim.contracts import Observation

# ------------------------------------------------------------------------ schedule


def test_the_sampling_grid_is_the_published_one() -> None:
    times, deltas = sampling_schedule(10, 5.0)
    # FAMILIES B.6: phi_5(1 - i / 10)
    expected = [1, 0.97826, 0.95238, 0.92105, 0.88235, 0.83333, 0.76923, 0.68182, 0.55556, 0.35714]
    assert times.tolist() == pytest.approx([1000 * s for s in expected], abs=1e-2)
    assert float(deltas.sum()) == pytest.approx(-1.0, abs=1e-6)


def test_in_bfloat16_the_grid_is_rounded_as_published() -> None:
    times, deltas = sampling_schedule(10, 5.0, dtype=torch.bfloat16)
    assert times.tolist() == [1000, 980, 952, 920, 884, 832, 768, 680, 556, 358]
    assert float(deltas.double().sum()) == pytest.approx(-0.99976, abs=1e-5)


def test_the_loss_weight_is_a_bell_without_its_foot() -> None:
    least, mean = weight_constants(5.0)
    assert (least, mean) == (pytest.approx(0.60653066), pytest.approx(0.18949555))
    times = torch.tensor([500.0, 833.3333, 357.142857, 1000.0])
    assert loss_weight(times, 5.0).tolist() == pytest.approx([2.0764, 1.0249, 1.8653, 0], abs=1e-4)
    assert float(shifted(torch.tensor(0.5), 5.0)) == pytest.approx(2.5 / 3)


def test_the_head_adds_what_is_carried() -> None:
    model, plain = drawn("fastwam"), drawn("fastwam", carry_noise=False)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *model.config.latent_shape[:1], 2, 8, 16, generator=generator)
    tokens = torch.randn(2, 64, model.config.video.hidden, generator=generator)
    times = torch.tensor([[0.0, 900.0], [0.0, 1000.0]])
    with torch.no_grad():
        added = model.video.read(tokens, times, latents) - plain.video.read(tokens, times, latents)
    torch.testing.assert_close(added[1, :, 1], latents[1, :, 1])
    torch.testing.assert_close(added[0, :, 1], latents[0, :, 1] * 0.8 / 0.82)


# --------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("variant", "rows"),
    [
        ("fastwam", ["110000", "110000", "111100", "111100", "110011", "110011"]),
        ("no_video_cotrain", ["110000", "110000", "111100", "111100", "110011", "110011"]),
        ("joint", ["110000", "110000", "111100", "111100", "111111", "111111"]),
    ],
)
def test_masks_by_hand(variant: str, rows: list[str]) -> None:
    groups = [("V0", 2), ("V+", 2), ("A", 2)]
    mask = attention_mask(variant, groups, groups)
    assert ["".join(str(int(x)) for x in row) for row in mask] == rows


def test_idm_mask_by_hand() -> None:
    groups = [("V0", 1), ("V+", 1), ("C0", 1), ("C+", 1), ("A", 1)]
    mask = attention_mask("idm", groups, groups)
    rows = ["10000", "11000", "00100", "00110", "00111"]
    assert ["".join(str(int(x)) for x in row) for row in mask] == rows


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_one_changed_future_token_moves_only_who_may_see_it(variant: str) -> None:
    model = drawn(variant)
    latents, actions, times, context = inputs(model)
    video, action = model.velocities(latents, actions, times, context)
    other = latents.clone()
    other[:, :, 1, :2, :2] += 1.0  # one token of the second latent frame
    video2, action2 = model.velocities(other, actions, times, context)
    assert torch.equal(video[:, :, 0], video2[:, :, 0])  # the present sees no future
    assert not torch.equal(video[:, :, 2], video2[:, :, 2])  # futures see each other both ways
    sees_future = variant in ("joint", "idm")  # idm: here the sequence is the copy
    assert torch.equal(action, action2) is not sees_future


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_one_changed_action_never_moves_the_video(variant: str) -> None:
    model = drawn(variant)
    latents, actions, times, context = inputs(model)
    video, action = model.velocities(latents, actions, times, context)
    other = actions.clone()
    other[:, 3] += 1.0
    video2, action2 = model.velocities(latents, other, times, context)
    assert torch.equal(video, video2)
    assert not torch.equal(action[:, 0], action2[:, 0])  # actions see each other both ways


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_the_present_moves_everybody(variant: str) -> None:
    model = drawn(variant)
    latents, actions, times, context = inputs(model)
    video, action = model.velocities(latents, actions, times, context)
    other = latents.clone()
    other[:, :, 0, :2, :2] += 1.0
    video2, action2 = model.velocities(other, actions, times, context)
    assert not torch.equal(video[:, :, 2], video2[:, :, 2])
    assert not torch.equal(action, action2)


@torch.no_grad()
def test_idm_trains_actions_on_the_copy_and_video_on_the_noise() -> None:
    model = drawn("idm")
    latents, actions, times, context = inputs(model)
    copy = latents + 0.1
    three = (times[0], torch.zeros(2), times[1])
    video, action = model.idm_velocities(latents, copy, actions, three, context)
    noisy2 = latents.clone()
    noisy2[:, :, 1] += 1.0
    video2, action2 = model.idm_velocities(noisy2, copy, actions, three, context)
    assert torch.equal(action, action2)
    assert not torch.equal(video, video2)
    copy2 = copy.clone()
    copy2[:, :, 2, :2, :2] += 1.0
    video3, action3 = model.idm_velocities(latents, copy2, actions, three, context)
    assert torch.equal(video, video3)
    assert not torch.equal(action, action3)
    _, action4 = model.idm_velocities(latents, copy, actions, (times[0] + 100, *three[1:]), context)
    assert torch.equal(action, action4)


@torch.no_grad()
def test_the_first_frame_is_clean_whatever_the_timestep() -> None:
    model = drawn()
    latents, actions, times, context = inputs(model)
    video, action = model.velocities(latents, actions, times, context)
    video2, action2 = model.velocities(latents, actions, (times[0] + 200, times[1]), context)
    assert torch.equal(video[:, :, 0], video2[:, :, 0])
    assert torch.equal(action, action2)
    assert not torch.equal(video[:, :, 1], video2[:, :, 1])


# ------------------------------------------------------------------------ sampling


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_and_uncached_agree(variant: str) -> None:
    model = drawn(variant)
    obs = observation(imagine=True)
    with_cache = FastWamPolicy(model, cache=True, steps=4).act(obs)
    without = FastWamPolicy(model, cache=False, steps=4).act(obs)
    np.testing.assert_allclose(with_cache.actions, without.actions, atol=2e-5)
    if variant == "no_video_cotrain":
        assert with_cache.imagined is None
    else:
        assert with_cache.imagined is not None
        assert without.imagined is not None
        np.testing.assert_allclose(with_cache.imagined.latents, without.imagined.latents, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_its_rows_one_by_one(variant: str) -> None:
    policy = FastWamPolicy(drawn(variant), steps=3)
    whole = policy.act(observation(4))
    full = observation(4)
    for row in range(3):
        # the row alone, in another place, beside padding
        def alone(values, fill, row=row):
            out = np.full_like(values, fill)
            out[1] = values[row]
            return out

        assert full.proprio is not None
        single = Observation(
            frames={c: alone(f, 0) for c, f in full.frames.items()},
            instruction=["", full.instruction[row], "", ""],
            seed=alone(full.seed, 0),
            step=full.step,
            slot=full.slot,
            first=full.first,
            valid=np.array([False, True, False, False]),
            memory=full.memory,
            proprio=alone(full.proprio, 0),
        )
        answer = policy.act(single)
        np.testing.assert_array_equal(answer.actions[1], whole.actions[row])
        if whole.imagined is not None:
            assert answer.imagined is not None
            np.testing.assert_array_equal(answer.imagined.latents[1], whole.imagined.latents[row])


def test_noise_comes_from_the_row_alone() -> None:
    policy = FastWamPolicy(drawn(), steps=2)
    first = policy.act(observation()).actions
    np.testing.assert_array_equal(first, policy.act(observation()).actions)
    obs = observation()
    obs.seed[0] = 99
    other = policy.act(obs).actions
    assert not np.array_equal(first[0], other[0])
    np.testing.assert_array_equal(first[1], other[1])


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_the_caches_save(variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = drawn(variant)
    obs = observation(4)
    seconds: dict[bool, float] = {}
    for cache in (True, False):
        policy = FastWamPolicy(model, cache=cache)
        policy.act(obs)
        began = time.perf_counter()
        for _ in range(5):
            policy.act(obs)
        seconds[cache] = (time.perf_counter() - began) / 5
    with capsys.disabled():
        print(
            f"\n{variant}: {seconds[False] * 1e3:.0f} ms uncached, {seconds[True] * 1e3:.0f} ms "
            f"cached, {seconds[False] / seconds[True]:.2f} times as fast"
        )
    assert seconds[True] < seconds[False] * 1.2


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_several_noises_of_a_sample_share_one_video(variant: str) -> None:
    model = drawn(variant)
    latents, actions, times, context = inputs(model, 2)
    others, later = torch.randn_like(actions), times[1] / 2
    many = torch.stack([actions, others], 1).flatten(0, 1)
    many_times = torch.stack([times[1], later], 1).flatten()

    def answer(actions: Tensor, when: Tensor) -> tuple[Tensor, Tensor]:
        if variant == "idm":
            three = (times[0], times[0] / 3, when)
            return model.idm_velocities(latents, latents + 0.1, actions, three, context)
        return model.velocities(latents, actions, (times[0], when), context)

    video, action = answer(many, many_times)
    for place, (one, when) in enumerate([(actions, times[1]), (others, later)]):
        alone = answer(one, when)
        torch.testing.assert_close(video, alone[0])
        torch.testing.assert_close(action[place::2], alone[1])
