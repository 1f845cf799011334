"""Fast-WAM's networks: counted, and against independent implementations of them."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel
from fastwam_doubles import drawn, tiny
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from policies.checkpoint import (
    count_parameters,
)
from policies.fastwam import keymaps
from policies.fastwam.config import VARIANTS, ExpertConfig
from policies.fastwam.experts import VideoExpert
from policies.fastwam.model import FastWam
from policies.fastwam.mot import run
from policies.fastwam.presets import preset_config
from policies.fastwam.text import TextEncoder

# -------------------------------------------------------------------------- counts


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_tiny_preset_is_tiny(variant: str) -> None:
    assert count_parameters(drawn(variant)) < 2_000_000


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        model = FastWam(preset_config("published", "fastwam"))

    def linear(a: int, b: int) -> int:
        return a * b + b

    def expert(hidden: int, ffn: int) -> int:
        attention = 3 * linear(hidden, 3072) + linear(3072, hidden) + 2 * 3072
        feed = linear(hidden, ffn) + linear(ffn, hidden)
        block = 2 * attention + 2 * hidden + feed + 6 * hidden
        text = linear(4096, hidden) + linear(hidden, hidden)
        time = linear(256, hidden) + linear(hidden, hidden) + linear(hidden, 6 * hidden)
        return 30 * block + text + time

    # Wan2.2-TI2V-5B's transformer, FAMILIES B.2
    video = expert(3072, 14336) + linear(48 * 4, 3072) + linear(3072, 192) + 2 * 3072
    assert video == 4_999_787_712
    assert count_parameters(model.video) == video
    # ActionDiT, FAMILIES B.3: about 1 B
    action = expert(1024, 4096) + linear(7, 1024) + linear(1024, 7)
    assert action == 1_020_886_023
    assert count_parameters(model.action) == action
    assert count_parameters(model.proprio_encoder) == linear(8, 4096)
    # UMT5-XXL's encoder: embedding, 24 blocks with their own position biases, final norm
    block = 4 * 4096 * 4096 + 3 * 4096 * 10240 + 32 * 64 + 2 * 4096
    assert count_parameters(model.text) == 256384 * 4096 + 24 * block + 4096 == 5_680_910_336
    assert count_parameters(model.vae) == 704_688_668


# -------------------------------------------------------------------------- parity


@torch.no_grad()
def test_the_video_expert_is_diffusers_wan_transformer() -> None:
    """An independent implementation of the same network, through the key map."""
    torch.manual_seed(0)
    theirs = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=3, attention_head_dim=16, in_channels=4,
        out_channels=4, text_dim=20, freq_dim=32, ffn_dim=80, num_layers=2,
        cross_attn_norm=True, qk_norm="rms_norm_across_heads", eps=1e-6,
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))  # norms too
    config = ExpertConfig(
        hidden=48, ffn=80, heads=3, head_dim=16, layers=2, text_dim=20, freq_dim=32
    )
    ours = VideoExpert(config, 4).eval()
    state = {keymaps.wan_video_key(k): v for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state, strict=True)
    latents, context = torch.randn(2, 4, 3, 4, 6), torch.randn(2, 7, 20)
    times = torch.tensor([[0.0, 700.0, 700.0], [0.0, 123.5, 123.5]])
    expected = theirs(
        hidden_states=latents,
        timestep=times.repeat_interleave(6, dim=1),  # 2 x 3 tokens a frame
        encoder_hidden_states=context,
        return_dict=False,
    )[0]
    stream = ours.stream(latents, times, ours.context(context))
    (tokens,), _ = run([stream], torch.ones(18, 18, dtype=torch.bool))
    got = ours.read(tokens, times, latents)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def _wan_names(state: dict[str, Tensor]) -> set[str]:
    return {keymaps.wan_video_key(k) for k in state}


def test_wans_own_names_pass_unchanged() -> None:
    own = drawn().video.state_dict()
    assert _wan_names(own) == set(own)
    # FAMILIES B.12, letter by letter
    for key in (
        "patch_embedding.weight", "text_embedding.0.bias", "text_embedding.2.weight",
        "time_embedding.0.weight", "time_projection.1.bias", "blocks.1.self_attn.q.weight",
        "blocks.0.cross_attn.o.bias", "blocks.0.self_attn.norm_q.weight",
        "blocks.0.cross_attn.norm_k.weight", "blocks.0.norm3.bias", "blocks.1.ffn.2.weight",
        "blocks.0.modulation", "head.head.weight", "head.modulation",
    ):  # fmt: skip
        assert key in own, key
    action = drawn().action.state_dict()
    assert {"action_encoder.weight", "head.bias", "blocks.0.modulation"} <= set(action)


@torch.no_grad()
def test_the_text_encoder_is_transformers_umt5() -> None:
    config = tiny().text
    torch.manual_seed(1)
    theirs = UMT5EncoderModel(
        UMT5Config(
            vocab_size=4096, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2,
            dropout_rate=0.0,
        )
    ).eval()  # fmt: skip
    ours = TextEncoder(config)
    state = {keymaps.umt5_key(k): v for k, v in theirs.state_dict().items()}
    ours.umt5.load_state_dict(state, strict=True)
    ids = torch.tensor([ours.tokenize("open  the drawer")])
    alone = theirs(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(
        ours.encode(["open the drawer"])[0, : ids.shape[1]], alone, atol=1e-5, rtol=1e-4
    )
