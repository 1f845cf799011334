"""Flow-HWM's velocity network: sizes, who hears whom, and an independent second writing."""

from __future__ import annotations

import math

import pytest
import torch
from flow_hwm_doubles import latents_and_context, small, stirred
from flow_hwm_reference import official_shapes, official_weights, second_writing
from torch import Tensor

from policies.checkpoint import CheckpointMismatch, count_parameters, load_mapped
from policies.flow_hwm.blocks import BY_MODALITY, SEPARATE, TOGETHER, JointBlock, SplitBlock
from policies.flow_hwm.config import VARIANTS, FlowHWMConfig, preset_config
from policies.flow_hwm.model import FlowHWM
from policies.flow_hwm.network import Context, FlowNetwork
from policies.flow_hwm.rope import action_angles, rotate_halves, rotate_pairs, video_angles
from policies.flow_hwm.weights import _separated, _sharing, official_key

# paper: 1.36, 0.944, 0.886 and 0.648 B
PUBLISHED = {
    "base": 1_361_411_712,
    "split_attention": 944_418_816,
    "modality_sharing": 886_028_544,
    "full_sharing": 648_343_296,
}


def official_network(config: FlowHWMConfig, weights: dict[str, Tensor]) -> FlowNetwork:
    network = FlowNetwork(config)
    load_mapped(
        network,
        _separated(weights, config.width),
        lambda key: official_key(key, _sharing(config, key)),
        source="test",
    )
    return network


SECOND = [
    *((variant, ()) for variant in VARIANTS),
    ("base", ("rope",)),
    ("split_attention", ("kv_norm", "rope_grid")),
]


@pytest.mark.parametrize(("variant", "parity"), SECOND)
def test_network_equals_a_second_writing_on_official_names(
    variant: str, parity: tuple[str, ...]
) -> None:
    config = small(variant, width=32, heads=2, parity=parity, future_frames=8)
    weights = official_weights(config)
    x, context = latents_and_context(config, rows=2)
    t = torch.tensor([0.1, 0.7])
    with torch.no_grad():
        found = official_network(config, weights)(x, t, context)
        expected = second_writing(weights, config, x, t, context)
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_parity_flags_change_the_network(variant: str) -> None:
    config = small(variant)
    weights = official_weights(config)
    x, context = latents_and_context(config, rows=1)
    t = torch.tensor([0.5])
    flags = ("rope", "kv_norm", "rope_grid") if variant == "split_attention" else ("rope",)
    with torch.no_grad():
        plain = official_network(config, weights)(x, t, context)
        for flag in flags:
            altered = official_network(small(variant, parity=(flag,)), weights)(x, t, context)
            assert not torch.allclose(plain, altered, atol=1e-5), flag


# ------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_parameter_counts(variant: str) -> None:
    with torch.device("meta"):
        network = FlowNetwork(preset_config(variant, "published"))
    assert count_parameters(network) == PUBLISHED[variant]


def test_seventeen_layers_would_not_be_the_published_size() -> None:
    with torch.device("meta"):
        network = FlowNetwork(preset_config("base", "published", layers=17))
    assert count_parameters(network) == pytest.approx(1.545e9, rel=1e-3)  # paper: 1.36 B


@pytest.mark.parametrize("variant", VARIANTS)
def test_tiny_is_tiny(variant: str) -> None:
    assert count_parameters(FlowHWM(preset_config(variant, "tiny"))) <= 1_500_000


def test_published_window_has_209_tokens() -> None:
    config = preset_config("base", "published")
    with torch.device("meta"):
        at = FlowNetwork(config).positions
    assert at.video.shape == (192, 36)
    assert at.past_video == 128
    assert (at.video.shape[0] + at.actions.shape[0], at.past_actions) == (209, 9)


# -------------------------------------------------------------------------------- rope


def test_video_channels_are_shared_out_as_t_h_w() -> None:
    angles = video_angles((2, 3, 4), 16)  # h = w = 2 * (16 // 6) = 4, t = 8
    assert angles.shape == (24, 8)
    last = angles[-1]  # t = 1, h = 2, w = 3; rates 1, 0.1, 0.01, 0.001 and twice 1, 0.01
    expected = torch.tensor([1, 0.1, 0.01, 0.001, 2, 0.02, 3, 0.03])
    torch.testing.assert_close(last, expected)


def test_published_head_of_72_is_split_24_24_24() -> None:
    angles = video_angles((1, 1, 2), 72)
    assert (angles[1] != 0).nonzero()[:, 0].tolist() == list(range(24, 36))


def test_rotations_keep_lengths_and_the_official_slip_does_not() -> None:
    x = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    angles = action_angles(5, 8)
    size = x.norm(dim=-1)
    torch.testing.assert_close(rotate_pairs(x, angles).norm(dim=-1), size)
    torch.testing.assert_close(rotate_halves(x, angles).norm(dim=-1), size)
    assert not torch.allclose(rotate_pairs(x, angles, official=True).norm(dim=-1), size)


def test_official_slip_by_hand() -> None:
    x = torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2)
    angle = torch.tensor([[1.0]])
    even = math.cos(1) - 2 * math.sin(1)
    for official, other in ((False, 2 * math.cos(1) + math.sin(1)),
                            (True, 2 * math.cos(1) + even * math.sin(1))):  # fmt: skip
        found = rotate_pairs(x, angle, official=official).flatten()
        torch.testing.assert_close(found, torch.tensor([even, other]))


# ---------------------------------------------------------------------- who hears whom


def moved(before: list[Tensor], after: list[Tensor]) -> list[bool]:
    return [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize("groups", [SEPARATE, BY_MODALITY, TOGETHER])
@pytest.mark.parametrize("changed", range(4))
def test_joint_attention_has_no_mask(groups: tuple[int, ...], changed: int) -> None:
    at = FlowNetwork(small("base")).positions
    streams = [torch.randn(1, n, 64) for n in (4, 8, 4, 5)]
    altered = [x.clone() for x in streams]
    altered[changed][:, -1] += 1.0
    for last in (False, True):
        block = stirred(JointBlock(64, 4, groups=groups, qk_norm=True, last=last))
        mods = block.modulations(torch.randn(1, 64))
        with torch.no_grad():
            found = moved(block(streams, mods, at), block(altered, mods, at))
        assert found == ([True] if last else [True] * 4)


@pytest.mark.parametrize("changed", range(4))
def test_split_attention_hears_only_itself_and_then_the_future_hears_all(changed: int) -> None:
    at = FlowNetwork(small("split_attention")).positions
    block = stirred(SplitBlock(64, 4, last=False, norm_values=False))
    mods = block.modulations(torch.randn(1, 64))
    streams = [torch.randn(1, n, 64) for n in (4, 8, 4, 5)]
    altered = [x.clone() for x in streams]
    altered[changed][:, -1] += 1.0

    def run(s: list[Tensor]) -> list[Tensor]:
        context, kv = block.context(s[1:], mods, at)
        return [block.future(s[0], kv, mods, at), *context]

    with torch.no_grad():
        found = moved(run(streams), run(altered))
    expected = [True, False, False, False]
    expected[changed] = True
    assert found == expected


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("part", range(3))
def test_the_velocity_depends_on_every_part_of_the_context(variant: str, part: int) -> None:
    config = small(variant)
    network = stirred(FlowNetwork(config))
    x, context = latents_and_context(config, rows=2)
    parts = [p.clone() for p in context.parts()]
    parts[part][0, ..., -1] += 1.0
    with torch.no_grad():
        before = network(x, torch.tensor([0.3, 0.3]), context)
        after = network(x, torch.tensor([0.3, 0.3]), Context(*parts))
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])  # the other row


def test_a_new_network_ignores_its_context() -> None:
    # AdaLN-zero: every gate starts shut
    config = small("base")
    network = FlowNetwork(config)
    x, context = latents_and_context(config, rows=1)
    t = torch.tensor([0.3])
    with torch.no_grad():
        assert torch.equal(network(x, t, context), network(x, t, context.emptied()))


# -------------------------------------------------------------------- official weights


def test_official_layout_has_the_published_size() -> None:
    for variant, count in PUBLISHED.items():
        shapes = official_shapes(preset_config(variant, "published"))
        buffers = ("empty_", "action_pos_embed.", "video_pos_embed.")
        total = sum(math.prod(s) for k, s in shapes.items() if not k.startswith(buffers))
        assert total == count


@pytest.mark.parametrize("variant", VARIANTS)
def test_official_weights_must_fit(variant: str) -> None:
    config = small(variant)
    weights = official_weights(config)
    missing = {k: v for k, v in weights.items() if k != "patcher_p.proj.0.bias"}
    with pytest.raises(CheckpointMismatch, match=r"1 missing: patch_past\.bias"):
        official_network(config, missing)
    with pytest.raises(CheckpointMismatch, match=r"1 unexpected: blocks\.0\.ff_xx\.linear1"):
        official_network(config, {**weights, "blocks.0.ff_xx.linear1.bias": torch.zeros(3)})
    with pytest.raises(CheckpointMismatch, match=r"1 of another shape: head\.weight"):
        official_network(config, {**weights, "final_layer.linear.weight": torch.zeros(3, 3)})
