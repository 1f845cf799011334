"""The network against the libraries' own classes, NumPy loops and known counts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from spatialvla_doubles import batch, config, model, observation
from transformers import (
    GemmaConfig,
    GemmaModel,
    LlamaConfig,
    LlamaModel,
)

from policies.checkpoint import count_parameters
from policies.spatialvla.config import (
    DEEP,
    LATE_GEMMA,
    LATE_LLAMA,
    Blocks,
    Mask,
    Sharing,
    TransformerConfig,
)
from policies.spatialvla.expert import LateExpert
from policies.spatialvla.inputs import from_observation
from policies.spatialvla.masks import Role, attention_mask, positions
from policies.spatialvla.model import SpatialVLA
from policies.spatialvla.perception import see
from policies.spatialvla.presets import GEMMA_2B, preset
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
def test_a_loud_stack_is_the_librarys(variant: str) -> None:
    """With weights large enough that the form of the GELU shows (tanh or exact: 4e-4)."""
    torch.manual_seed(0)
    stack = Stack(config(variant).expert)
    for parameter in stack.parameters():
        torch.nn.init.normal_(parameter, std=0.15 if parameter.dim() > 1 else 0.5)
    valid = torch.ones(1, 7, dtype=torch.bool)
    x = torch.randn(1, 7, stack.config.width)
    with torch.no_grad():
        ours = stack.run(x, attention_mask(Mask.CAUSAL, [Role.PREFIX] * 7, valid), positions(valid))
        theirs = library(stack)(inputs_embeds=x).last_hidden_state
    torch.testing.assert_close(ours[0], theirs, rtol=0, atol=1e-5)


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
        seen = see(inputs, made.config, *modules)
        tokens = torch.cat((seen.tokens, made.language.embed_tokens(inputs.ids)), 1)
        valid = torch.cat((seen.valid, inputs.words), 1)
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
