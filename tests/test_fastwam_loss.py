"""Fast-WAM's losses: against values worked out by hand, and that they can be learnt."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from fastwam_doubles import drawn, tiny, training_batch
from torch import Tensor

from policies.batch import check_finite
from policies.checkpoint import CheckpointMismatch, Statistics
from policies.fastwam.config import VARIANTS, Scaling
from policies.fastwam.losses import (
    ACTION,
    ACTION_TIME,
    COPY_COIN,
    COPY_TIME,
    VIDEO,
    VIDEO_TIME,
    training_actions,
    video_loss,
)
from policies.fastwam.model import FastWam
from policies.fastwam.normalise import Normaliser
from policies.fastwam.presets import preset_config
from policies.noise import noise_from_seeds
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, EEF_AXIS_ANGLE_GRIPPER


def _noise(batch, stream: int, shape: tuple[int, ...]) -> Tensor:
    return noise_from_seeds(batch.seed.numpy().astype(np.uint64), shape, stream=stream)


def _sigma(batch, stream: int) -> list[float]:
    """phi_5 of a uniform number, the slow way."""
    out = []
    for z in _noise(batch, stream, ()).tolist():
        u = 0.5 * (1 + math.erf(z / math.sqrt(2)))
        out.append(5 * u / (1 + 4 * u))
    return out


def _weight(sigma: float) -> float:
    bell = math.exp(-2 * (sigma - 0.5) ** 2)
    return (bell - 0.60653066) / 0.18949555  # FAMILIES B.6


@pytest.mark.parametrize(("spread", "carry"), [(0.0, False), (0.5, True)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_is_what_the_paper_says(
    variant: str, spread: float, carry: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that always answers 0.25: the loss is the weighted square of its mistakes."""
    model = drawn(variant, flow_draws=1, change_spread=spread, carry_noise=carry)
    batch = training_batch(model.config, 3)
    # row 0: the last 3 actions and 6 frames lie past the end; row 1: nothing is valid
    action_valid, frame_valid = batch.action_valid.clone(), batch.frame_valid.clone()
    action_valid[0, 5:], frame_valid[0, 3:] = False, False
    action_valid[1, :], frame_valid[1, 1:] = False, False
    batch = dataclasses.replace(batch, action_valid=action_valid, frame_valid=frame_valid)
    seen: dict[str, Tensor] = {}

    def fake(latents, *args):
        actions = args[-3] if variant == "idm" else args[0]
        seen.update(latents=latents, actions=actions)
        return torch.full_like(latents, 0.25), torch.full_like(actions, 0.25)

    monkeypatch.setattr(model, "idm_velocities" if variant == "idm" else "velocities", fake)
    losses = model.loss(batch)

    frames = [batch.at(c, model.config.frame_offsets).numpy() for c in model.config.cameras]
    mirrored = [np.ascontiguousarray(f[:, :, :, ::-1]) for f in frames]
    clean = model.vae.encode(model.pixels(mirrored))
    if spread:  # ours: what changes from a future in which nothing moves
        still = model.vae.encode(model.pixels([f[:, [0] * f.shape[1]] for f in mirrored]))
        clean[:, :, 1:] = (clean - still)[:, :, 1:] / spread
    noise_v, noise_a = _noise(batch, VIDEO, tuple(clean.shape[1:])), _noise(batch, ACTION, (8, 7))
    clean_a = batch.actions.clone()
    clean_a[..., :6][~action_valid] = 0.0

    action = 0.0
    for row, sigma in enumerate(_sigma(batch, ACTION_TIME)):
        expected = (1 - sigma) * clean_a[row] + sigma * noise_a[row]
        torch.testing.assert_close(seen["actions"][row], expected, atol=1e-5, rtol=1e-5)
        mistakes = [
            float(((0.25 - (noise_a[row, h] - clean_a[row, h])) ** 2).mean())
            for h in range(8)
            if action_valid[row, h]
        ]
        if mistakes:
            action += _weight(sigma) * sum(mistakes) / len(mistakes) / 3
    assert float(losses["action"]) == pytest.approx(action, rel=1e-4)

    if variant == "no_video_cotrain":
        assert set(losses) == {"action", "total"}
        assert seen["latents"].shape[2] == 1  # the future is not even encoded
        assert float(losses["total"]) == pytest.approx(action, rel=1e-4)
        return
    video = 0.0
    for row, sigma in enumerate(_sigma(batch, VIDEO_TIME)):
        # row 0: frames 1, 2 are inside, so latent 1 (frames 1-4) counts and latent 2 does not
        valid = {0: [1], 1: [], 2: [1, 2]}[row]
        torch.testing.assert_close(seen["latents"][row, :, 0], clean[row, :, 0])
        for k in valid:
            expected = (1 - sigma) * clean[row, :, k] + sigma * noise_v[row, :, k]
            torch.testing.assert_close(seen["latents"][row, :, k], expected, atol=1e-5, rtol=1e-5)
            mistake = float(((0.25 - (noise_v - clean)[row, :, k]) ** 2).mean())
            weight = 1.0 if carry else _weight(sigma)  # ours: every noise level alike
            video += weight * mistake / len(valid) / 3
    assert float(losses["video"]) == pytest.approx(video, rel=1e-4)
    assert float(losses["total"]) == pytest.approx(
        model.config.lambda_video * video + action, rel=1e-4
    )


@pytest.mark.parametrize("variant", ["fastwam", "joint", "idm"])
def test_a_backbone_learns_the_same_video_along(variant: str) -> None:
    """Video attends to actions in no variant, so its loss is the same where there are none."""
    model = drawn(variant)
    batch = training_batch(model.config, 3)
    alone = float(video_loss(model, batch).detach())
    assert alone == pytest.approx(float(model.loss(batch)["video"].detach()), rel=1e-4)
    part = model.parts()["backbone"]
    assert part.batch_spec.frame_offsets == model.config.frame_offsets
    keyed = dataclasses.replace(batch, keyframe=batch.proprio_at(0))
    terms = {n: float(v.detach()) for n, v in part.loss(keyed).items()}
    assert terms["video"] == pytest.approx(alone, rel=1e-4)
    assert terms["total"] == pytest.approx(sum(v for n, v in terms.items() if n != "total"))


def test_a_frozen_video_expert_is_looked_through_and_has_no_term() -> None:
    model = drawn()
    batch = training_batch(model.config, 3)
    free = float(model.loss(batch)["action"].detach())
    model.video.requires_grad_(False)
    losses = model.loss(batch)
    assert set(losses) == {"action", "total"}
    assert float(losses["total"].detach()) == pytest.approx(free, rel=1e-4)
    losses["total"].backward()
    assert model.action.head.weight.grad is not None


def test_what_a_backbone_is_asked_for_lies_where_actions_read() -> None:
    """Keys and values of a block are of its input: the last block's work reaches no action."""
    model = drawn()
    batch = training_batch(model.config, 2)
    part = model.parts()["backbone"]
    last = model.video.blocks[-1]
    keyed = dataclasses.replace(batch, keyframe=batch.proprio_at(0))
    terms, action = part.loss(keyed), float(model.loss(batch)["action"].detach())
    with torch.no_grad():
        last.ffn[2].weight.add_(1.0)
        last.self_attn.o.weight.add_(1.0)
    again = part.loss(keyed)
    for name in ("keyframe", "actions"):
        assert float(again[name].detach()) == float(terms[name].detach()), name
    assert float(model.loss(batch)["action"].detach()) == pytest.approx(action, rel=1e-5)
    assert float(again["video"].detach()) != float(terms["video"].detach())


def test_a_tokenizer_learns_every_latent_in_its_place() -> None:
    """A clip that ends earlier leaves how later latents are drawn to chance (DECISIONS 50)."""
    model = drawn()
    assert model.parts()["tokenizer"].batch_spec.frame_offsets == model.config.frame_offsets


def test_a_backbone_without_video_sees_the_present_alone() -> None:
    model = drawn("no_video_cotrain")
    batch = training_batch(model.config, 3)
    part = model.parts()["backbone"]
    assert part.batch_spec.frame_offsets == (0,)
    terms = part.loss(dataclasses.replace(batch, keyframe=batch.proprio_at(0)))
    assert set(terms) == {"keyframe", "actions", "total"}


def test_idm_noises_half_of_its_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn("idm", change_spread=0.0)
    batch = training_batch(model.config, 4)
    batch = dataclasses.replace(batch, seed=torch.arange(4) + 7)
    coins = [0.5 * (1 + math.erf(z / math.sqrt(2))) < 0.5 for z in _noise(batch, COPY_COIN, ())]
    assert 0 < sum(coins) < 4  # both kinds are in this batch
    seen: dict[str, Tensor] = {}

    def fake(noisy, copy, actions, times, context):
        seen.update(copy=copy, time=times[1])
        return torch.zeros_like(noisy), torch.zeros_like(actions)

    monkeypatch.setattr(model, "idm_velocities", fake)
    model.loss(batch)
    sigma = _sigma(batch, COPY_TIME)
    frames = [batch.frames[c].numpy()[:, :, :, ::-1] for c in model.config.cameras]
    clean = model.vae.encode(model.pixels(frames))
    for row, noised in enumerate(coins):
        expected = 1000 * sigma[row] if noised else 0.0
        assert float(seen["time"][row]) == pytest.approx(expected, rel=1e-4)
        assert torch.equal(seen["copy"][row, :, 1:], clean[row, :, 1:]) is not noised
        assert torch.equal(seen["copy"][row, :, 0], clean[row, :, 0])


def test_seeded_noise_does_not_depend_on_the_batch() -> None:
    model = drawn()
    batch = training_batch(model.config, 4)
    rows = [
        dataclasses.replace(
            batch,
            frames={c: f[i : i + 1] for c, f in batch.frames.items()},
            frame_valid=batch.frame_valid[i : i + 1],
            proprio=batch.proprio[i : i + 1],
            actions=batch.actions[i : i + 1],
            action_valid=batch.action_valid[i : i + 1],
            instruction=[batch.instruction[i]],
            seed=batch.seed[i : i + 1],
        )
        for i in range(4)
    ]
    with torch.no_grad():
        whole = float(model.loss(batch)["total"])
        mean = sum(float(model.loss(row)["total"]) for row in rows) / 4
        assert whole == pytest.approx(mean, rel=1e-4)
        free = dataclasses.replace(batch, seed=None)
        assert float(model.loss(free)["total"]) != float(model.loss(free)["total"])


def test_gradients_reach_the_experts_and_not_the_frozen_parts() -> None:
    for variant in VARIANTS:
        model = drawn(variant).train()
        assert not model.vae.training
        assert not model.text.training
        model.loss(training_batch(model.config, 2))["total"].backward()
        without = {n for n, p in model.named_parameters() if p.grad is None}
        assert all(
            n.startswith(("vae.", "text."))
            # without co-training nothing reads the video after its last keys and values
            or (variant == "no_video_cotrain" and n.startswith("mixtures.video."))
            for n in without
        )
        assert any(n.startswith("vae.") for n in without)
        q = dict(model.named_parameters())["mixtures.video.blocks.0.self_attn.k.weight"]
        assert q.grad is not None
        assert float(q.grad.abs().sum()) > 0  # actions train the video expert through attention


def test_the_batch_spec_is_what_the_loss_takes() -> None:
    spec = drawn().batch_spec
    assert spec.cameras == ("agentview", "eye_in_hand")
    assert (spec.frame_offsets, spec.horizon) == (tuple(range(9)), 8)
    assert spec.action is DELTA_EEF_GRIPPER_CLOSE_POSITIVE
    assert spec.proprio is EEF_AXIS_ANGLE_GRIPPER


def test_a_loss_that_is_not_finite_is_named() -> None:
    model = drawn()
    batch = training_batch(model.config, 2)
    with torch.no_grad():
        model.action.head.bias.fill_(float("nan"))
        losses = model.loss(batch)
    with pytest.raises(FloatingPointError, match="'action'"):
        check_finite(losses)


# ------------------------------------------------------------------- normalisation


def test_normalisation_by_hand() -> None:
    statistics = Statistics(
        {
            "action": {
                "min": torch.tensor([0.0, 2.0, 1.0]),
                "max": torch.tensor([2.0, 2.00005, 5.0]),
                "mean": torch.tensor([1.0, 2.0, 3.0]),
                "std": torch.tensor([2.0, 0.5, 1.0]),
            }
        }
    )
    x = torch.tensor([[0.5, 2.00005, 30.0]])
    by_range = Normaliser(Scaling.MIN_MAX, statistics, "action", 3)
    # 2 * 0.5 / 2 - 1; a constant channel is only shifted; 13.5 is clamped to 5
    torch.testing.assert_close(
        by_range.forward(x), torch.tensor([[-0.5, 5e-5, 5.0]]), atol=1e-6, rtol=1e-4
    )
    torch.testing.assert_close(
        by_range.backward(torch.tensor([[-0.5, 0.0, 0.0]])), torch.tensor([[0.5, 2.0, 3.0]])
    )
    by_spread = Normaliser(Scaling.Z_SCORE, statistics, "action", 3)
    torch.testing.assert_close(by_spread.forward(x)[0, 0], torch.tensor(-0.25))
    with pytest.raises(CheckpointMismatch, match=r"\(3,\) values, the model has 7"):
        drawn().set_statistics(statistics)


def test_the_published_gripper_round_trip() -> None:
    """Suite +1 closes; the data store closed as 0; back again."""
    model = drawn(gripper=preset_config("published", "fastwam").gripper)
    suite = torch.tensor([[[0.1] * 6 + [1.0], [0.1] * 6 + [-1.0]]])
    stored = model.data_actions(suite)
    assert stored[0, :, 6].tolist() == [0.0, 1.0]
    back = model.suite_actions(model.action_scale.forward(stored))
    np.testing.assert_allclose(back, suite.numpy(), atol=1e-6)


def test_past_the_end_the_arm_stands_still_and_the_gripper_keeps() -> None:
    model = drawn()
    batch = training_batch(model.config, 2)
    batch.action_valid[0, 6:] = False
    actions = training_actions(model, batch)
    assert (actions[0, 6:, :6] == 0).all()
    torch.testing.assert_close(actions[0, 6:, 6], batch.actions[0, 6:, 6])


# ------------------------------------------------------------------------ learning


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_hundred_steps_halve_every_term(
    variant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One batch, fresh noise at every step; scored over 16 fixed draws before and after."""
    weight = 0.0 if variant == "no_video_cotrain" else 1.0  # no term waits for the other
    # the published loss: where noise is carried, half of the video's is gone from the start
    model = FastWam.drawn(tiny(variant, lambda_video=weight, carry_noise=False), seed=0)
    batch = training_batch(model.config)

    @torch.no_grad()
    def score() -> dict[str, float]:
        draws = [
            model.loss(dataclasses.replace(batch, seed=torch.arange(4) + 1000 * i))
            for i in range(16)
        ]
        return {k: float(torch.stack([d[k] for d in draws]).mean()) for k in draws[0]}

    before = score()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.01)
    torch.manual_seed(0)
    free = dataclasses.replace(batch, seed=None)
    for _ in range(200):
        losses = model.train().loss(free)
        check_finite(losses)
        optimiser.zero_grad()
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
    after = score()
    with capsys.disabled():
        print(f"\n{variant}: " + ", ".join(f"{k} {before[k]:.3f} -> {after[k]:.3f}" for k in after))
    for term in before:
        assert after[term] < before[term] / 2, term
