"""Cosmos: the transformer against diffusers' own, counts, and who sees whom."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from cosmos_doubles import model
from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel
from torch import Tensor

from policies.checkpoint import count_parameters
from policies.cosmos.codec import build_vae
from policies.cosmos.config import NetConfig, preset
from policies.cosmos.net import CleanBank, CosmosNet, Positions, rope
from policies.cosmos.weights import diffusers_key

# as published: without places and origins of our own
TINY = dataclasses.replace(
    preset("direct", "tiny").net, positions=(), origins=(), given_apart=False
)


def diffusers_net(config: NetConfig) -> CosmosTransformer3DModel:
    """Diffusers' transformer of the same size.

    Its padding mask needs torchvision, so the mask enters as one more input channel; its
    norms of queries and keys use 1e-5, the published ones 1e-6.
    """
    net = CosmosTransformer3DModel(
        in_channels=config.channels + 2, out_channels=config.channels,
        num_attention_heads=config.heads, attention_head_dim=config.head_dim,
        num_layers=config.blocks, mlp_ratio=config.mlp, text_embed_dim=config.text_dim,
        adaln_lora_dim=config.adaln_rank, rope_scale=config.rope_scale,
        concat_padding_mask=False, extra_pos_embed_type=None,
    )  # fmt: skip
    for name, module in net.named_modules():
        if name.endswith(("norm_q", "norm_k")):
            module.eps = 1e-6
    return net


def inputs(rows: int = 2, slots: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    latents = torch.randn(rows, TINY.channels, slots, 4, 4, generator=g)
    clean = torch.zeros(rows, slots, dtype=torch.bool)
    clean[0, :4] = True
    clean[1:, :5] = True
    # of a kind that bfloat16 holds exactly
    times = torch.tensor([0.9765625, 0.8046875])[:rows, None] * (~clean)
    return latents, clean, times, torch.randn(rows, 12, TINY.text_dim, generator=g)


def test_equals_diffusers() -> None:
    torch.manual_seed(0)
    ours = CosmosNet(TINY)
    theirs = diffusers_net(TINY)
    state = {diffusers_key(k): v for k, v in ours.state_dict().items()}
    assert set(state) == set(theirs.state_dict())
    theirs.load_state_dict(state)
    latents, clean, times, text = inputs()
    mask = clean[:, None, :, None, None].float().expand(-1, 1, -1, 4, 4)
    with torch.no_grad():
        expected = theirs(
            hidden_states=latents, timestep=times[:, None, :, None, None],
            encoder_hidden_states=text, fps=None,
            condition_mask=torch.cat((mask, torch.zeros_like(mask)), dim=1),
        ).sample  # fmt: skip
        found = ours(latents, clean, times, ours.text_key_values(text))
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_published_size() -> None:
    with torch.device("meta"):
        config = preset("direct", "published").net
        ours, theirs = CosmosNet(config), diffusers_net(config)
        vae = build_vae(preset("direct", "published").vae)
    d, text, rank = 2048, 1024, 256
    block = (
        (4 * d * d + 2 * 128)  # self-attention and its two norms
        + (2 * d * d + 2 * d * text + 2 * 128)  # cross-attention
        + 8 * d * d  # MLP
        + 3 * (d * rank + rank * 3 * d)  # three low-rank modulations
    )
    rest = 72 * d + (d * d + 3 * d * d) + d + (d * rank + rank * 2 * d) + d * 64
    assert count_parameters(ours) == 28 * block + rest == 1_956_413_440
    assert count_parameters(theirs) == 1_956_413_440
    # Wan2.1's autoencoder, "127 M" in the Wan report (arXiv 2503.20314)
    assert count_parameters(vae) == 126_892_531


@pytest.mark.parametrize("variant", ["direct", "planning"])
@pytest.mark.parametrize("layout", ["libero", "robocasa", "aloha"])
def test_tiny_size(variant: str, layout: str) -> None:
    assert count_parameters(model(variant, layout)) <= 2_000_000


def test_rope_bases() -> None:
    cos, sin = rope(NetConfig(), [0, 1], (3, 2))
    assert cos.shape == (12, 128)
    # token 6 is frame 1, row 0, column 0: first time angle 1, all space angles 0
    assert cos[6, 0] == pytest.approx(0.5403023)
    assert bool((cos[6, 22:64] == 1).all())
    # last row frequency: 31694.0 ** (-40 / 42), half-rotation layout repeats after 64
    # token 4 is frame 0, row 2, column 0
    assert sin[4, 22 + 20] == pytest.approx(2.0 * 31694.0 ** (-40 / 42), rel=1e-4)
    assert torch.equal(sin[:, :64], sin[:, 64:])


def _moved(before: Tensor, after: Tensor) -> str:
    """Per latent frame of row 0: "x" where anything changed."""
    moved = (before != after)[0].any(dim=0).flatten(1).any(dim=1)
    return "".join("x" if m else "." for m in moved)


def test_one_bidirectional_sequence_and_rows_apart() -> None:
    """Any frame's token moves all frames of its row, and none of another row."""
    net = model(net=TINY).net
    latents, clean, times, text = inputs()
    keys = net.text_key_values(text)
    with torch.no_grad():
        before = net(latents, clean, times, keys)
        for frame in (0, 4, 8):
            other = latents.clone()
            other[0, 0, frame, 0, 0] += 1.0
            after = net(other, clean, times, keys)
            assert _moved(before, after) == "x" * 9
            assert torch.equal(before[1], after[1])


def test_text_past_its_length_still_counts() -> None:
    """No text mask: more zero keys draw attention away from the words, as published."""
    net = model().net
    latents, clean, times, text = inputs()
    longer = torch.cat((text, torch.zeros_like(text)), dim=1)
    with torch.no_grad():
        short = net(latents, clean, times, net.text_key_values(text))
        long = net(latents, clean, times, net.text_key_values(longer))
    assert not torch.allclose(short, long)


def test_given_frames_see_no_noise_where_they_stand_apart() -> None:
    """What is made of them is what a look makes of them, whatever stands in the other slots."""
    torch.manual_seed(0)
    apart = CosmosNet(dataclasses.replace(TINY, given_apart=True)).eval()
    together = CosmosNet(TINY).eval()
    together.load_state_dict(apart.state_dict())
    latents, clean, times, text = inputs(1)
    noisier = torch.where(clean[:, None, :, None, None], latents, 3 * latents)
    moved: dict[bool, float] = {}
    for net in (apart, together):
        # the input of a block, as the keys of a bank show it
        banks = [CleanBank((0, 1, 2, 3)) for _ in range(2)]
        with torch.no_grad():
            keys = net.text_key_values(text)
            for x, bank in zip((latents, noisier), banks, strict=True):
                net(x, clean, times, keys, bank=bank)
            alone = net.look(latents[:, :, :4], keys)
            entering: list[Tensor] = []
            last = net.blocks[-net.config.reading]  # a look ends before it
            hook = last.register_forward_hook(lambda _, a, out, to=entering: to.append(a[0]))
            net(latents, clean, times, keys)
            hook.remove()
        moved[net.config.given_apart] = float(
            (banks[0].blocks[-1][0] - banks[1].blocks[-1][0]).abs().max()
        )
        same = torch.allclose(entering[0][:, :16], alone.flatten(1, 3), rtol=0, atol=1e-5)
        assert same == net.config.given_apart
    assert moved[True] < 1e-5 < moved[False]


def test_estimate_shows_noised_slots_only_and_returns_clean_ones() -> None:
    m = model()
    g = torch.Generator().manual_seed(2)
    given = torch.randn(1, 16, 9, 4, 4, generator=g)
    x = torch.randn(1, 16, 9, 4, 4, generator=g) * 10
    clean = torch.tensor([m.config.layout.clean(m.config.value_mode)])
    clean[0, 6] = False  # two predicted slots: 6 and 8
    keys = m.net.text_key_values(torch.randn(1, 4, 32, generator=g))
    sigma = torch.tensor([10.0])
    with torch.no_grad():
        before = m.estimate(x, sigma, given, clean, keys)
        assert torch.equal(before[:, :, clean[0]], given[:, :, clean[0]])
        # what the sampler's state holds in a clean slot is never seen
        other = x.clone()
        other[:, :, clean[0]] += 5.0
        assert torch.equal(m.estimate(other, sigma, given, clean, keys), before)
        # what `given` holds in a predicted slot is never seen
        other = given.clone()
        other[:, :, ~clean[0]] += 5.0
        assert torch.equal(m.estimate(x, sigma, other, clean, keys), before)
        # a clean slot's content moves exactly the predicted slots
        other = given.clone()
        other[:, :, 2] += 0.5
        after = m.estimate(x, sigma, other, clean, keys)
        assert _moved(before, after) == "..x...x.x"


def test_clean_bank_is_exact_in_its_first_call_and_close_after() -> None:
    net = model(net=TINY).net
    latents, clean, times, text = inputs(rows=1)
    keys = net.text_key_values(text[:1])
    bank = CleanBank((0, 1, 2, 3))
    with torch.no_grad():
        whole = net(latents, clean, times, keys)
        assert torch.equal(net(latents, clean, times, keys, bank=bank), whole)
        again = net(latents, clean, times, keys, bank=bank)
        torch.testing.assert_close(again[:, :, 4:], whole[:, :, 4:], rtol=1e-4, atol=1e-5)
        assert not again[:, :, :4].any()
        # once the noised frames move, the bank is stale: the approximation shows
        latents[:, :, 4:] += 1.0
        stale = net(latents, clean, times, keys, bank=bank)[:, :, 4:]
        fresh = net(latents, clean, times, keys)[:, :, 4:]
    assert not torch.equal(stale, fresh)


def test_tokens_know_their_place_by_what_was_learnt_for_it() -> None:
    """A place is the sum of its frame's, row's and column's vector, also of chosen frames."""
    torch.manual_seed(0)
    net = CosmosNet(dataclasses.replace(TINY, positions=(9, 4, 4)))
    places = net.extra_pos_embedder
    assert isinstance(places, Positions)
    found = places([2, 7], (2, 2)).unflatten(0, (2, 2, 2))
    expected = places.pos_emb_t[7] + places.pos_emb_h[1] + places.pos_emb_w[0]
    torch.testing.assert_close(found[1, 1, 0], expected)
    # and it is what tokens begin with: as the patches, before any block
    latents, clean, times, text = inputs(rows=1)
    begun: list[Tensor] = []
    net.blocks[0].register_forward_hook(lambda _, args, out: begun.append(args[0]))
    with torch.no_grad():
        keys = net.text_key_values(text)
        net(latents, clean, times, keys)
        net.extra_pos_embedder = None
        net(latents, clean, times, keys)
    torch.testing.assert_close(begun[0] - begun[1], places(range(9), (2, 2))[None])


def test_tokens_of_the_future_are_told_what_stands_in_their_place_now() -> None:
    torch.manual_seed(0)
    origins = preset("direct", "tiny").net.origins
    assert origins == (-1, -1, -1, -1, -1, -1, 2, 3, -1)  # wrist, third person
    net = CosmosNet(dataclasses.replace(TINY, origins=origins))
    told = net.origin_embedder
    assert told is not None
    latents, clean, times, text = inputs(rows=1)
    with torch.no_grad():
        keys = net.text_key_values(text)
        silent = net(latents, clean, times, keys)
        (weight,) = told.parameters()
        assert not weight.any()  # at first it says nothing
        torch.nn.init.normal_(weight)
        begun: list[Tensor] = []
        hook = net.blocks[0].register_forward_hook(lambda _, args, out: begun.append(args[0]))
        net(latents, clean, times, keys)
        net(latents, torch.zeros_like(clean), times, keys)  # nothing is given: nothing is told
        net.origin_embedder = None
        net(latents, clean, times, keys)
        net(latents, torch.zeros_like(clean), times, keys)
        hook.remove()
        net.origin_embedder = told
        bank = CleanBank((0, 1, 2, 3))
        loud, first = net(latents, clean, times, keys), net(latents, clean, times, keys, bank=bank)
        again = net(latents, clean, times, keys, bank=bank)
    added = (begun[0] - begun[2])[0].unflatten(0, (9, 2, 2))
    # a patch of the third person's future at row 1, column 0, by hand: (c, m, n) and two masks
    patch = torch.cat([latents[0, :, 3, 2:4, 0:2].flatten(), torch.ones(4), torch.zeros(4)])
    torch.testing.assert_close(added[7, 1, 0], weight @ patch, rtol=0, atol=1e-4)
    told_to = [i for i in range(9) if added[i].abs().max() > 1e-4]
    assert told_to == [6, 7]
    torch.testing.assert_close(begun[1], begun[3])
    assert not torch.allclose(silent, loud, atol=1e-3)
    torch.testing.assert_close(first, loud)
    assert torch.isfinite(again).all()
