"""The network against the libraries' own classes, hand-computed numbers and known counts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from spatialvla_doubles import batch, config, model, observation
from transformers import CLIPVisionConfig, CLIPVisionModel, GemmaConfig, GemmaModel
from transformers import LlamaConfig, LlamaModel

from policies.checkpoint import Statistics, count_parameters
from policies.noise import noise_from_seeds
from policies.spatialvla.config import (
    DEEP,
    GEMMA_2B,
    LATE_GEMMA,
    LATE_LLAMA,
    VARIANTS,
    Blocks,
    Mask,
    Sharing,
    TimeLaw,
    TransformerConfig,
    preset,
)
from policies.spatialvla.expert import LateExpert, embed_time
from policies.spatialvla.geometry import patch_points, pool_voxels
from policies.spatialvla.inputs import draw_flow, from_batch, from_observation
from policies.spatialvla.masks import Role, attention_mask, positions
from policies.spatialvla.model import SpatialVLA, untrained
from policies.spatialvla.perception import see
from policies.spatialvla.transformer import Stack, run_layers

# ------------------------------------------------------------- parity with transformers


def library(stack: Stack) -> Any:
    """transformers' own model with the stack's weights."""
    own = stack.config
    shape = {
        "vocab_size": 8,
        "pad_token_id": 0,
        "hidden_size": own.width,
        "num_hidden_layers": own.depth,
        "num_attention_heads": own.heads,
        "num_key_value_heads": own.kv_heads,
        "head_dim": own.head_dim,
        "intermediate_size": own.ffn,
        "rms_norm_eps": own.norm_eps,
        "attn_implementation": "eager",
    }
    gemma = own.blocks is Blocks.GEMMA
    theirs = GemmaModel(GemmaConfig(**shape)) if gemma else LlamaModel(LlamaConfig(**shape))
    state = {k: v for k, v in stack.state_dict().items() if not k.startswith("embed_tokens")}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["embed_tokens.weight"], [])
    return theirs.eval()


def additive(mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)


@pytest.mark.parametrize("variant", [LATE_GEMMA, LATE_LLAMA])
@pytest.mark.parametrize("kind", list(Mask))
def test_late_velocity_is_the_librarys(variant: str, kind: Mask) -> None:
    """[context | time | actions] through GemmaModel or LlamaModel, put together by hand."""
    made = model(variant, mask=kind)
    expert = made.expert
    assert isinstance(expert, LateExpert)
    inputs = from_observation(observation(2), made.config, made.tokenizer, made.device)
    x, time = torch.randn(2, 8, 7), torch.tensor([0.3, 0.8])
    with torch.no_grad():
        ours = made.velocity(x, time, made.prefix(inputs, cache=False))

        modules = (made.vision, made.position_embedding, made.projector)
        seen, real = see(inputs, made.config, *modules)
        tokens = torch.cat((seen, made.language.embed_tokens(inputs.ids)), 1)
        valid = torch.cat((real, inputs.words), 1)
        places = (valid.long().cumsum(1) - 1).clamp(min=0)
        # 2-D mask into a causal model, as the published code does
        context = library(made.language)(
            inputs_embeds=tokens, attention_mask=valid.long(), position_ids=places
        ).last_hidden_state
        angles = [
            [2 * math.pi * t / (4e-3 * 1000.0 ** (i / 31)) for i in range(32)] for t in (0.3, 0.8)
        ]
        wave = torch.tensor([[*map(math.sin, a), *map(math.cos, a)] for a in angles])
        token = expert.time_mlp_out(F.silu(expert.time_mlp_in(wave)))[:, None]
        whole = torch.cat((expert.context_projector(context), token, expert.action_in_proj(x)), 1)
        if variant == LATE_GEMMA:
            whole = whole * math.sqrt(64)
        valid = F.pad(valid, (0, 9), value=True)
        places = (valid.long().cumsum(1) - 1).clamp(min=0)
        if kind is Mask.CAUSAL:
            mask: torch.Tensor = valid.long()
        else:
            roles = [Role.PREFIX] * (valid.shape[1] - 9) + [Role.TIME] + [Role.ACTION] * 8
            mask = additive(attention_mask(kind, roles, valid))
        hidden = library(expert.model)(
            inputs_embeds=whole, attention_mask=mask, position_ids=places
        ).last_hidden_state
        theirs = expert.action_out_proj(hidden[:, -8:])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5)


@pytest.mark.parametrize("kind", [Mask.PI0, Mask.FULL, Mask.CAUSAL])
def test_shared_deep_fusion_is_one_llama_over_both_streams(kind: Mask) -> None:
    """With shared layers the two streams are one sequence through one LlamaModel."""
    made = model(DEEP, sharing=Sharing.SHARED, mask=kind)
    expert = made.expert
    inputs = from_observation(observation(2), made.config, made.tokenizer, made.device)
    x, time = torch.randn(2, 8, 7), torch.tensor([0.3, 0.8])
    with torch.no_grad():
        prefix = made.prefix(inputs, cache=False)
        ours = made.velocity(x, time, prefix)
        suffix = expert.suffix(x, time, prefix.state)
        valid = F.pad(prefix.valid, (0, 10), value=True)
        roles = [Role.PREFIX] * prefix.tokens.shape[1] + made.suffix_roles()
        hidden = library(made.language)(
            inputs_embeds=torch.cat((prefix.tokens, suffix), 1),
            attention_mask=additive(attention_mask(kind, roles, valid)),
            position_ids=positions(valid),
        ).last_hidden_state  # both final norms are ones at the start
        theirs = expert.action_out_proj(hidden[:, -9:-1])  # [state | 8 actions | time]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5)


def test_one_deep_layer_by_hand() -> None:
    """Two streams of different widths through one layer, loop by loop in NumPy."""
    torch.manual_seed(0)
    shape = dict(blocks=Blocks.LLAMA, depth=1, heads=2, kv_heads=2, head_dim=4, ffn=6)
    stacks = [Stack(TransformerConfig(width=w, **shape)).double() for w in (6, 4)]
    for p in (p for s in stacks for p in s.parameters() if p.dim() > 1):
        torch.nn.init.normal_(p, std=0.5)
    xs = [torch.randn(1, 3, 6).double(), torch.randn(1, 2, 4).double()]
    roles = [Role.PREFIX] * 3 + [Role.ACTION] * 2
    valid = torch.ones(1, 5, dtype=torch.bool)
    mask = attention_mask(Mask.PI0, roles, valid)
    streams = [(s.layers, x) for s, x in zip(stacks, xs, strict=True)]
    ours = run_layers(streams, stacks[0].config, mask, positions(valid))[0]

    def norm(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)

    def weights(s: int, name: str) -> np.ndarray:
        return stacks[s].state_dict()[f"layers.0.{name}.weight"].numpy()

    owners = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    q, k, v = (
        np.stack([
            (weights(s, f"self_attn.{n}_proj") @ norm(xs[s][0, i].numpy())).reshape(2, 4)
            for s, i in owners
        ])
        for n in "qkv"
    )  # fmt: skip
    for place in range(5):
        for table in (q, k):
            for head in range(2):
                for pair in range(2):
                    angle = place / 10_000 ** (2 * pair / 4)
                    a, b = table[place, head, pair], table[place, head, pair + 2]
                    table[place, head, pair] = a * math.cos(angle) - b * math.sin(angle)
                    table[place, head, pair + 2] = b * math.cos(angle) + a * math.sin(angle)
    for place, (s, i) in enumerate(owners):
        mixed = np.zeros((2, 4))
        sees = range(3) if s == 0 else range(5)
        for head in range(2):
            e = np.exp([q[place, head] @ k[j, head] / 2.0 for j in sees])
            mixed[head] = sum(w * v[j, head] for w, j in zip(e / e.sum(), sees, strict=True))
        x = xs[s][0, i].numpy() + weights(s, "self_attn.o_proj") @ mixed.ravel()
        gate = weights(s, "mlp.gate_proj") @ norm(x)
        up = weights(s, "mlp.up_proj") @ norm(x)
        x = x + weights(s, "mlp.down_proj") @ (gate / (1 + np.exp(-gate)) * up)
        np.testing.assert_allclose(ours[s][0, i].detach().numpy(), x, rtol=1e-5, atol=1e-5)


def test_a_narrow_expert_runs() -> None:
    wide = config(DEEP)
    narrow = dataclasses.replace(wide.expert, width=48, ffn=96)
    made = model(DEEP, expert=narrow)
    assert made.expert.action_in_proj.out_features == 48
    assert bool(torch.isfinite(made.loss(batch())["total"]))
    with pytest.raises(ValueError, match="shared layers"):
        config(DEEP, expert=narrow, sharing=Sharing.SHARED)
    with pytest.raises(ValueError, match="equal depth"):
        config(DEEP, expert=dataclasses.replace(wide.expert, depth=2))


# ------------------------------------------------------------------------- perception


def test_select_layer_minus_two_is_clip_without_its_last_layer() -> None:
    made = model(LATE_GEMMA, use_depth=False)
    inputs = from_observation(observation(1), made.config, made.tokenizer, made.device)
    seen, real = see(inputs, made.config, made.vision, made.position_embedding, made.projector)
    own = made.config.vision
    short = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=own.width, intermediate_size=own.ffn, num_hidden_layers=own.depth - 1,
            num_attention_heads=own.heads, image_size=own.image_size, patch_size=own.patch,
        )
    ).eval()  # fmt: skip
    short.load_state_dict(made.vision.state_dict(), strict=False)
    patches = short(inputs.pictures[0]).last_hidden_state[:, 1:]
    assert (patches.shape, bool(real.all())) == ((2, 64, 64), True)
    torch.testing.assert_close(seen[0], made.projector(patches.flatten(0, 1)))


def test_pictures_are_clips() -> None:
    made = model(LATE_GEMMA)
    obs = observation(1)
    for frames in obs.frames.values():
        frames[...] = 255
    inputs = from_observation(obs, made.config, made.tokenizer, made.device)
    # (1 - 0.48145466) / 0.26862954 = 1.930336
    assert inputs.pictures.shape == (1, 2, 3, 64, 64)
    assert inputs.pictures[0, 1, 0, 5, 5].item() == pytest.approx(1.930336, abs=1e-5)


def test_a_point_by_hand() -> None:
    # Patch (row 1, column 2) of 4 x 4 in an 8 x 8 picture stands at pixel (x 4, y 2), depth 2:
    # X = (4 - 3) 2 / 4 = 0.5, Y = (2 - 5) 2 / 8 = -0.75, Z = 2. The pose turns a quarter
    # around z (x -> y, y -> -x) and moves by (10, 20, 30): (0.75 + 10, 0.5 + 20, 2 + 30).
    depth = torch.zeros(1, 1, 8, 8)
    depth[0, 0, 2, 4] = 2.0
    k = torch.tensor([[4.0, 0, 3], [0, 8.0, 5], [0, 0, 1]])[None, None]
    pose = torch.tensor([[0.0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]])[None, None]
    points = patch_points(depth, k, pose, image_size=8, side=4)
    assert points[0, 0, 1, 2].tolist() == pytest.approx([10.75, 20.5, 32.0])
    assert points[0, 0, 0, 0].tolist() == [10.0, 20.0, 30.0]  # depth 0: the camera itself


@pytest.mark.parametrize("size", [32, 64, 96])
def test_points_are_those_of_the_resized_map(size: int) -> None:
    """LLaVA-3D's way: nearest-resize the depth, lift every pixel, nearest-resize the map."""
    from PIL import Image

    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 2.0, (size, size)).astype(np.float32)
    k = np.array([[1.2 * size, 0, size / 2], [0, 1.1 * size, size / 2], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.normal(size=3)
    seen = np.asarray(Image.fromarray(depth).resize((64, 64), Image.Resampling.NEAREST))
    f = k * np.array([[64 / size], [64 / size], [1.0]])
    y, x = np.mgrid[:64, :64]
    lifted = np.stack(((x - f[0, 2]) * seen / f[0, 0], (y - f[1, 2]) * seen / f[1, 1], seen), -1)
    world = torch.from_numpy(lifted @ pose[:3, :3].T + pose[:3, 3]).permute(2, 0, 1)[None]
    expected = F.interpolate(world, size=(8, 8), mode="nearest")[0].permute(1, 2, 0)
    ours = patch_points(
        torch.from_numpy(depth)[None, None],
        torch.from_numpy(k)[None, None],
        torch.from_numpy(pose)[None, None],
        image_size=64,
        side=8,
    )
    torch.testing.assert_close(ours[0, 0], expected.float(), rtol=0, atol=1e-5)


def test_voxels_by_hand() -> None:
    # edges 0.2: 0.29 / 0.2 = 1.45 -> 1; 0.31 -> 1.55 -> 2; -0.09 -> -0.45 -> 0
    points = torch.tensor([[[0.29, 0, 0], [0.31, 0, 0], [-0.09, 0, 0], [0.21, 0, 0]]])
    features = torch.tensor([[[1.0], [5.0], [7.0], [3.0]]])
    seeds = np.array([1], np.uint64)
    tokens, valid = pool_voxels(features, points, voxel_m=0.2, capacity=4, seeds=seeds)
    assert tokens[0, :, 0].tolist() == [7.0, 2.0, 5.0, 0.0]  # voxels 0, 1 (mean of 1, 3), 2
    assert valid.tolist() == [[True, True, True, False]]


def test_voxels_above_the_cap_are_chosen_by_the_rows_seed() -> None:
    points = torch.arange(20.0)[:, None].expand(-1, 3)[None].repeat(3, 1, 1)
    features = torch.arange(20.0)[None, :, None].repeat(3, 1, 1)

    def chosen(*seeds: int) -> list[list[float]]:
        own = np.array(seeds, np.uint64)
        n = len(seeds)
        tokens, valid = pool_voxels(features[:n], points[:n], voxel_m=0.2, capacity=6, seeds=own)
        assert bool(valid.all())
        return tokens[..., 0].tolist()

    one, two, three = chosen(1, 2, 1)
    assert one == three == chosen(1)[0]
    assert one != two
    assert len(set(one)) == 6


# ------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_term_by_term(variant: str) -> None:
    """x_t = t eps + (1 - t) a, target eps - a, plain mean; each sample alone."""
    made = model(variant)
    mean, std = torch.linspace(-1, 1, 7), torch.linspace(0.5, 2, 7)
    tables = {"action": {"mean": mean, "std": std}, **Statistics.identity({"proprio": 8}).values}
    made.use_statistics(Statistics(tables))
    data = batch(2)
    assert data.seed is not None
    losses = made.loss(data)
    assert set(losses) == {"flow", "total"}
    seeds = data.seed.numpy().astype(np.uint64)
    errors: list[float] = []
    inputs = from_batch(data, made.config, made.tokenizer, made.device)
    prefix = made.prefix(inputs, cache=False)
    eps = noise_from_seeds(seeds, (8, 7))
    z = noise_from_seeds(seeds, (1,), stream=2)[:, 0]
    t = torch.tensor([0.5 * (1 + math.erf(float(v) / math.sqrt(2))) for v in z])
    a = (data.actions - mean) / (std + 1e-8)
    x = torch.stack([t[i] * eps[i] + (1 - t[i]) * a[i] for i in range(2)])
    velocity = made.velocity(x, t, prefix).detach()
    for i in range(2):
        for h in range(8):
            for c in range(7):
                errors.append(float((velocity[i, h, c] - (eps[i, h, c] - a[i, h, c])) ** 2))
    assert losses["flow"].item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert losses["total"].item() == losses["flow"].item()


def test_euler_recovers_the_actions_of_a_perfect_velocity(monkeypatch: pytest.MonkeyPatch) -> None:
    made = model(LATE_GEMMA)
    target, times = torch.randn(2, 8, 7), []

    def perfect(x: torch.Tensor, time: torch.Tensor, prefix: Any) -> torch.Tensor:
        times.append(round(time[0].item(), 6))
        return (x - target) / time[:, None, None]

    monkeypatch.setattr(made, "velocity", perfect)
    mean, std = torch.full((7,), 0.5), torch.full((7,), 3.0)
    made.use_statistics(Statistics({"action": {"mean": mean, "std": std}}))
    prefix: Any = None
    out = made.denoise(prefix, torch.randn(2, 8, 7), steps=10)
    assert times == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    torch.testing.assert_close(out, target * 3.0 + 0.5, rtol=0, atol=1e-5)


def test_time_embedding_by_hand() -> None:
    # width 4: periods 4e-3 and 4; t = 0.5: 125 turns -> (sin, cos) = (0, 1); 1/8 turn.
    wave = embed_time(torch.tensor([0.5]), 4)[0].tolist()
    half = math.sqrt(0.5)
    assert wave == pytest.approx([0.0, half, 1.0, half], abs=1e-6)


def test_laws_of_time() -> None:
    _, uniform = draw_flow(np.arange(4000, dtype=np.uint64), 4000, (1,))
    beta = model(LATE_GEMMA, time_law=TimeLaw.BETA).training_time(uniform)
    assert uniform.mean().item() == pytest.approx(0.5, abs=0.02)
    # Beta(1.5, 1) has mean 1.5 / 2.5 = 0.6
    assert beta.mean().item() == pytest.approx(0.6 * 0.999 + 0.001, abs=0.02)
    assert beta.min() >= 0.001
    assert beta.max() <= 1.0
    assert torch.equal(model(LATE_GEMMA).training_time(uniform), uniform)


def test_batch_spec_asks_for_what_the_loss_takes() -> None:
    late, deep = model(LATE_GEMMA).batch_spec, model(DEEP).batch_spec
    assert (late.image_size, late.frame_offsets, late.horizon) == ((64, 64), (0,), 8)
    assert (late.depth, late.proprio) == (True, None)
    assert deep.proprio is not None
    free = model(LATE_GEMMA).loss(batch(seeds=False))
    assert bool(torch.isfinite(free["total"]))


# ----------------------------------------------------------------------------- counts


def _meta(variant: str, **changes: Any) -> dict[str, int]:
    with torch.device("meta"):
        made = SpatialVLA(dataclasses.replace(preset(variant, "published"), **changes))
    return {name: count_parameters(part) for name, part in made.named_children()}


def test_published_counts() -> None:
    late = _meta(LATE_GEMMA)
    # Llama-2-7B has 6 738 415 616, of which 32000 x 4096 are the head that nobody uses here
    assert late["language"] == 6_738_415_616 - 32_000 * 4096
    # openai/clip-vit-large-patch14-336: 24 layers of 12 w^2 + 13 w, patches, 577 places, norms
    w = 1024
    clip = 24 * (12 * w * w + 13 * w) + 3 * 14 * 14 * w + 577 * w + w + 4 * w
    assert late["vision"] == clip == 303_507_456
    assert late["projector"] == 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    assert late["position_embedding"] == (3 * w + w) + 2 * w + (w * w + w)
    # 12 Gemma layers: q, o 2048^2, k, v 2048 x 256, three 2048 x 8192, two norms
    h = 2048
    ends = (4096 * h + h) + 2 * (h * h + h) + (7 * h + h) + (h * 7 + 7)
    layer = 2 * h * h + 2 * h * 256 + 3 * h * 8192 + 2 * h
    assert late["expert"] == 12 * layer + h + ends == 734_091_271
    # google/gemma-2b has 2 506 172 416, of which 256000 x 2048 are its token embedding
    big = _meta(LATE_GEMMA, expert=GEMMA_2B)
    assert big["expert"] == 2_506_172_416 - 256_000 * h + ends
    llama = _meta(LATE_LLAMA)
    assert llama["expert"] == 12 * (4 * h * h + 3 * h * 5504 + 2 * h) + h + ends
    assert {k: late[k] for k in ("vision", "language")} == {
        k: llama[k] for k in ("vision", "language")
    }


def test_published_counts_of_deep_fusion() -> None:
    h = 4096
    ends = 2 * (h * h + h) + (7 * h + h) + (h * 7 + 7) + (8 * h + h)  # with a state of 8
    layers = 32 * (4 * h * h + 3 * h * 11008 + 2 * h)
    assert _meta(DEEP)["expert"] == layers + h + ends
    assert _meta(DEEP, sharing=Sharing.SHARED)["expert"] == h + ends
    # the later plan: width 2048, q, k, v 2048 -> 4096, o back
    narrow = dataclasses.replace(preset(DEEP, "published").expert, width=2048, ffn=5504)
    n = 2048
    own = 32 * (4 * n * h + 3 * n * 5504 + 2 * n) + n
    ends = 2 * (n * n + n) + (7 * n + n) + (n * 7 + 7) + (8 * n + n)
    assert _meta(DEEP, expert=narrow)["expert"] == own + ends


# --------------------------------------------------------------------------- training


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed noise", "fresh noise"])
def test_two_hundred_steps(variant: str, fixed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    made = untrained(preset(variant, "tiny"), 0)
    torch.manual_seed(0)
    data = batch(4, seeds=fixed)
    flat = data.actions.flatten(0, 1)
    identity = Statistics.identity({"action": 7, "proprio": 8}).values
    table = {"mean": flat.mean(0), "std": flat.std(0)}
    made.use_statistics(Statistics({**identity, "action": table}))
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-3)
    history: list[float] = []
    for _ in range(200):
        losses = made.loss(data)
        optimiser.zero_grad()
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimiser.step()
        history.append(losses["flow"].item())
    first, last = sum(history[:5]) / 5, sum(history[-5:]) / 5
    with capsys.disabled():
        print(f"\n{variant}, {'fixed' if fixed else 'fresh'} noise: {first:.4f} -> {last:.4f}")
    assert last < 0.5 * first
