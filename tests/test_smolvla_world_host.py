"""SmolVLA itself: masks, positions, the two kinds of layers, the cache."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from smolvla_world_doubles import tiny
from torch import Tensor

from policies.smolvla_world.attention import (
    Tokens,
    attend,
    block_mask,
    positions,
    rotate,
    time_embedding,
)
from policies.smolvla_world.host import Host


def _host() -> Host:
    return tiny("base").model.host


def _prefix(host: Host, seed: int = 0, rows: int = 2) -> Tokens:
    """Five context tokens, the fourth padding in row 1, and a state token."""
    draw = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(rows, 6, host.config.vlm.hidden, generator=draw)
    valid = torch.ones(rows, 6, dtype=torch.bool)
    valid[1, 3] = False
    return Tokens(embeddings, valid, torch.tensor([False] * 5 + [True]))


def _suffix(host: Host, seed: int = 1, rows: int = 2) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, host.config.expert_hidden, generator=draw)
    return Tokens.of(x, first=True, rest=True)


def _moved(before: Tensor, after: Tensor) -> list[bool]:
    """Which tokens [B, L, d] changed in any row."""
    return ((before - after).abs().amax(dim=(0, 2)) > 1e-6).tolist()


def test_block_mask_by_hand() -> None:
    # two context tokens, a state in its own block, two causal actions; the second is padding
    starts = torch.tensor([False, False, True, True, True])
    valid = torch.tensor([[True, False, True, True, True]])
    expected = [
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 0, 1, 1, 0],
        [1, 0, 1, 1, 1],
    ]
    assert block_mask(valid, starts)[0].int().tolist() == expected
    assert positions(valid).tolist() == [[0, 0, 1, 2, 3]]


def test_rotation_by_hand() -> None:
    # one head of 4: pairs (0, 2) and (1, 3), wavelengths 1 and 10000**(1/2) = 100
    x = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 4)
    turned = rotate(x, torch.tensor([[2]]), 10_000.0).flatten()
    expected = [math.cos(2), math.cos(0.02), math.sin(2), math.sin(0.02)]
    assert turned.tolist() == pytest.approx(expected, abs=1e-6)


def test_time_embedding_by_hand() -> None:
    # dim 4: periods 0.004 and 4; t = 0.001: angles pi/2 and 2 pi / 4000
    got = time_embedding(torch.tensor([0.001]), 4, 4e-3, 4.0)[0].tolist()
    small = 2 * math.pi / 4000
    assert got == pytest.approx([1.0, math.sin(small), 0.0, math.cos(small)], abs=1e-6)


def test_grouped_attention_against_a_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    q = torch.randn(1, 3, 4, 8, generator=draw)
    k, v = (torch.randn(1, 5, 2, 8, generator=draw) for _ in range(2))
    mask = torch.rand(1, 3, 5, generator=draw) > 0.3
    mask[..., 0] = True
    got = attend(q, k, v, mask).view(3, 4, 8)
    for i in range(3):
        for head in range(4):
            scores = (k[0, :, head // 2] @ q[0, i, head]) / math.sqrt(8)
            weights = torch.where(mask[0, i], scores, -torch.inf).softmax(0)
            expected = weights @ v[0, :, head // 2]
            assert torch.allclose(got[i, head], expected, atol=1e-6)


def test_the_prefix_stream_is_a_llama_with_our_mask() -> None:
    """`fill` and `together` against transformers' own forward pass."""
    host = _host()
    prefix = _prefix(host)
    mask = block_mask(prefix.valid, prefix.starts)[:, None]
    additive = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    with torch.no_grad():
        expected = host.vlm.text_model(
            inputs_embeds=prefix.embeddings,
            attention_mask=additive,
            position_ids=positions(prefix.valid),
        ).last_hidden_state
        got = host.together(prefix, _suffix(host))[0]
    assert torch.allclose(got[prefix.valid], expected[prefix.valid], atol=1e-5)


def test_cached_and_joint_passes_agree() -> None:
    host = _host()
    prefix, suffix = _prefix(host), _suffix(host)
    with torch.no_grad():
        joint = host.together(prefix, suffix)[1]
        cached = host.denoise(host.fill(prefix), suffix)
    assert torch.allclose(joint, cached, atol=1e-5)


def test_actions_see_earlier_actions_only() -> None:
    host = _host()
    prefix, suffix = _prefix(host), _suffix(host)
    with torch.no_grad():
        cache = host.fill(prefix)
        before = host.denoise(cache, suffix)
        changed = suffix.embeddings.clone()
        changed[:, 2] += 1
        after = host.denoise(cache, Tokens(changed, suffix.valid, suffix.starts))
    assert _moved(before, after) == [False, False, True, True]


@pytest.mark.parametrize(
    ("token", "prefix_moves", "suffix_moves"),
    [
        (0, [True] * 6, True),  # context is one block, and all see it
        (5, [False] * 5 + [True], True),  # the state is seen by actions only
    ],
)
def test_who_sees_a_prefix_token(token: int, prefix_moves: list[bool], suffix_moves: bool) -> None:
    host = _host()
    prefix, suffix = _prefix(host), _suffix(host)
    changed = prefix.embeddings.clone()
    changed[:, token] += 1
    with torch.no_grad():
        before = host.together(prefix, suffix)
        after = host.together(Tokens(changed, prefix.valid, prefix.starts), suffix)
    assert _moved(before[0][:1], after[0][:1]) == prefix_moves
    assert _moved(before[1], after[1]) == [suffix_moves] * 4


def test_nobody_sees_padding_or_the_prefix_the_suffix() -> None:
    host = _host()
    prefix, suffix = _prefix(host), _suffix(host)
    changed = prefix.embeddings.clone()
    changed[1, 3] += 5  # padding
    louder = Tokens(suffix.embeddings + 1, suffix.valid, suffix.starts)
    with torch.no_grad():
        before = host.together(prefix, suffix)
        after = host.together(Tokens(changed, prefix.valid, prefix.starts), suffix)
        other = host.together(prefix, louder)
    keep = prefix.valid
    assert torch.equal(before[0][keep], after[0][keep])
    assert torch.equal(before[1], after[1])
    assert torch.allclose(before[0][keep], other[0][keep], atol=1e-6)


def test_only_even_layers_mix_suffix_tokens() -> None:
    """Layer 1 lets the expert look at the VLM alone, layer 2 at itself too (FAMILIES C.0)."""
    host = _host()
    prefix, suffix = _prefix(host), _suffix(host)
    seen: dict[bool, dict[int, Tensor]] = {False: {}, True: {}}
    with torch.no_grad():
        cache = host.fill(prefix)
        for push in (False, True):

            def after(depth: int, x: Tensor, push: bool = push) -> Tensor:
                if depth == 1 and push:
                    x = x.clone()
                    x[:, 0] += 1
                seen[push][depth] = x
                return x

            host.denoise(cache, suffix, after)
    assert _moved(seen[False][2], seen[True][2]) == [True, False, False, False]
    assert _moved(seen[False][3], seen[True][3]) == [True] * 4


def test_pictures_are_padded_on_the_left_and_top() -> None:
    host = _host()
    side = host.config.vlm.image_px
    wide = torch.full((1, 10, 20, 3), 255, dtype=torch.uint8)
    picture = host.pictures(wide)[0, 0]
    assert picture.shape == (side, side)
    # black padding is 0 before, -1 after scaling
    assert torch.equal(picture[: side // 2], torch.full((side // 2, side), -1.0))
    assert torch.equal(picture[side // 2 :], torch.full((side // 2, side), 1.0))
    tall = host.pictures(wide.transpose(1, 2))[0, 0]
    assert torch.equal(tall, picture.T)


def test_expert_width_of_the_published_size() -> None:
    from policies.smolvla_world.config import HostConfig

    host = HostConfig()
    assert (host.expert_hidden, host.expert_ffn) == (720, 2048)
    assert np.isclose(math.sqrt(host.vlm.hidden), 30.983866)
