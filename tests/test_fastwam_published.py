"""Fast-WAM's published weights: every layout, written tiny by the tests."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import WanTransformer3DModel
from fastwam_doubles import drawn, observation, tiny
from torch import Tensor

from policies.checkpoint import (
    WEIGHTS,
    CheckpointMismatch,
)
from policies.fastwam import FAMILY, FastWamOptions, keymaps, weights
from policies.fastwam.config import Scaling
from policies.fastwam.model import FastWam
from policies.fastwam.policy import FastWamPolicy

# --------------------------------------------------------------- published layouts


def _wan_vae_name(key: str) -> str:
    """diffusers' name -> Wan's own, written independently of the loader."""
    table = {
        "quant_conv": "conv1", "post_quant_conv": "conv2",
        "encoder.conv_in": "encoder.conv1", "decoder.conv_in": "decoder.conv1",
    }  # fmt: skip
    stem, _, leaf = key.rpartition(".")
    if stem in table:
        return f"{table[stem]}.{leaf}"
    key = key.replace("norm_out.", "head.0.").replace("conv_out.", "head.2.")
    key = key.replace("mid_block.attentions.0.", "middle.1.")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"middle.{2 * int(m[1])}", key)
    blocks = {"down": 1, "up": 2}  # residual blocks a level in the tiny preset

    def level(m: re.Match[str]) -> str:
        place = m[4] or str(blocks[m[1]])
        return f"{m[1]}samples.{m[2]}.{m[1]}samples.{place}."

    key = re.sub(r"(down|up)_blocks\.(\d)\.(resnets\.(\d)|(?:down|up)sampler)\.", level, key)
    for old, new in (
        ("conv_shortcut.", "shortcut."), ("norm1.", "residual.0."), ("conv1.", "residual.2."),
        ("norm2.", "residual.3."), ("conv2.", "residual.6."),
    ):  # fmt: skip
        if "samples." in key or "middle.0." in key or "middle.2." in key:
            key = key.replace(old, new)
    return key


def _wan_text_name(key: str) -> str:
    """transformers' name -> Wan's own, written independently of the loader."""
    if key == "embed_tokens.weight":
        return "token_embedding.weight"
    if key == "final_layer_norm.weight":
        return "norm.weight"
    names = {
        "layer.0.layer_norm": "norm1", "layer.1.layer_norm": "norm2",
        "layer.0.SelfAttention.relative_attention_bias": "pos_embedding.embedding",
        "layer.1.DenseReluDense.wi_0": "ffn.gate.0", "layer.1.DenseReluDense.wi_1": "ffn.fc1",
        "layer.1.DenseReluDense.wo": "ffn.fc2",
    }  # fmt: skip
    _, index, rest = key.split(".", 2)
    stem = rest.removesuffix(".weight")
    return f"blocks.{index}.{names.get(stem, stem.replace('layer.0.SelfAttention', 'attn'))}.weight"


def test_wan_vae_keys_letter_by_letter() -> None:
    down, up = "encoder.down_blocks", "decoder.up_blocks"
    block, shrink = "resnets.0", "downsampler"
    pairs = {
        "encoder.downsamples.0.downsamples.0.residual.2.weight": f"{down}.0.resnets.0.conv1.weight",
        "encoder.downsamples.1.downsamples.0.shortcut.bias": f"{down}.1.{block}.conv_shortcut.bias",
        "encoder.downsamples.1.downsamples.2.time_conv.bias": f"{down}.1.{shrink}.time_conv.bias",
        "encoder.downsamples.0.downsamples.2.resample.1.bias": f"{down}.0.{shrink}.resample.1.bias",
        "decoder.upsamples.1.upsamples.2.residual.6.bias": f"{up}.1.resnets.2.conv2.bias",
        "decoder.upsamples.0.upsamples.3.time_conv.bias": f"{up}.0.upsampler.time_conv.bias",
        "decoder.middle.2.residual.3.gamma": "decoder.mid_block.resnets.1.norm2.gamma",
        "encoder.middle.1.to_qkv.weight": "encoder.mid_block.attentions.0.to_qkv.weight",
        "decoder.head.0.gamma": "decoder.norm_out.gamma",
        "encoder.conv1.weight": "encoder.conv_in.weight",
        "conv1.weight": "quant_conv.weight",
        "conv2.bias": "post_quant_conv.bias",
    }
    for theirs, ours in pairs.items():
        assert keymaps.wan_vae_key(theirs) == ours
        assert keymaps.wan_vae_key(ours) == ours


def write_parts(model: FastWam, folder: Path, *, own: bool) -> None:
    """Write the frozen parts as Wan does, or as diffusers does."""
    vae = {k: v.contiguous() for k, v in model.vae.wan.state_dict().items()}
    text = {k: v.contiguous() for k, v in model.text.umt5.state_dict().items()}
    if own:
        torch.save({_wan_vae_name(k): v for k, v in vae.items()}, folder / weights.VAE_FILE)
        torch.save({_wan_text_name(k): v for k, v in text.items()}, folder / weights.TEXT_FILE)
        return
    (folder / "vae").mkdir()
    (folder / "text_encoder").mkdir()
    safetensors.torch.save_file(vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
    text = {f"encoder.{k}": v for k, v in text.items()}
    text["shared.weight"] = text["encoder.embed_tokens.weight"].clone()
    half = len(text) // 2  # two shards
    for i, keys in enumerate((list(text)[:half], list(text)[half:])):
        path = folder / "text_encoder" / f"model-0000{i + 1}-of-00002.safetensors"
        safetensors.torch.save_file({k: text[k] for k in keys}, path)


def write_statistics(path: Path) -> None:
    """Write FastWAM's dataset_stats.json for LIBERO's dimensions (FAMILIES B.8)."""
    document: dict[str, object] = {"num_episodes": 3}
    for what, dim in (("action", 7), ("state", 8)):
        document[what] = {
            "default": {
                "global_min": [-2.0] * dim, "global_max": [2.0] * dim,
                "global_mean": [0.0] * dim, "global_std": [1.0] * dim,
                "q01": [-1.0] * dim, "q99": [1.0] * dim, "stepwise_min": [[0.0] * dim] * 4,
            }
        }  # fmt: skip
    path.write_text(json.dumps(document))


def write_fastwam(model: FastWam, file: Path) -> None:
    """Write FastWAM's payload."""
    mot = {f"mixtures.{k}": v for k, v in model.mixtures.state_dict().items()}
    proprio = dict(model.proprio_encoder.state_dict())
    payload = {"mot": mot, "step": 20_000, "torch_dtype": "bf16", "proprio_encoder": proprio}
    torch.save(payload, file)
    write_statistics(file.with_name(f"{file.stem}_dataset_stats.json"))


def same(policy: FastWamPolicy, source: FastWam) -> None:
    """The loaded weights are the written ones, frozen parts too, but for the VAE's scale."""
    expected = source.state_dict()
    for key, value in policy.model.state_dict().items():
        if key not in ("vae.mean", "vae.std"):
            assert torch.equal(value, expected[key]), key


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let "published" mean a tiny model, so that the whole way from options can be walked."""

    # Without measured latents: those of a published VAE come with the configuration.
    def small(preset: str, variant: str):
        vae = dataclasses.replace(tiny().vae, mean=(0.1,) * 24, std=(0.5,) * 24)
        return tiny(variant, vae=vae, preset=preset)

    monkeypatch.setattr("policies.fastwam.build.preset_config", small)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(("variant", "own"), [("fastwam", True), ("idm", False)])
def test_fastwams_checkpoints_load(tmp_path: Path, variant: str, own: bool) -> None:
    model = drawn(variant)
    for name in weights.RELEASED.values():
        write_fastwam(model if name == weights.RELEASED[variant] else drawn(), tmp_path / name)
    parts = tmp_path / "wan"
    parts.mkdir()
    write_parts(model, parts, own=own)
    options = FastWamOptions(
        checkpoint=str(tmp_path), preset="published", parts=str(parts), steps=1
    )
    policy = FAMILY.make(variant, options)
    assert isinstance(policy, FastWamPolicy)
    same(policy, model)
    assert policy.model.vae.mean.tolist() == pytest.approx([0.1] * 24)
    assert policy.model.statistics.get("action", "max", 7).tolist() == [2.0] * 7
    assert np.isfinite(policy.act(observation(2)).actions).all()
    assert "FastWAM" in policy.card.notes
    with pytest.raises(CheckpointMismatch, match="none is known to be of variant 'joint'"):
        FAMILY.make("joint", options)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("layout", ["mixtures", "layers", "aliases"])
def test_lerobots_checkpoints_load(tmp_path: Path, layout: str) -> None:
    model = drawn()
    state: dict[str, Tensor] = {}
    for key, value in model.mixtures.state_dict().items():
        name, rest = key.split(".", 1)
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)", rest)
        if layout == "layers" and block:
            state[f"model.mot.layers.{block[1]}.blocks.{name}.{block[2]}"] = value
        elif layout == "aliases" and name == "action":
            state[f"model.action_expert.{rest}"] = value
            state[f"model.dit.mixtures.action.{rest}"] = value.clone()
        else:
            state[f"model.mot.mixtures.{key}"] = value
    for key, value in model.proprio_encoder.state_dict().items():
        state[f"model.proprio_encoder.{key}"] = value
    state["model.vae.model.conv1.weight"] = torch.zeros(1)  # older ones bring frozen parts
    safetensors.torch.save_file(state, tmp_path / WEIGHTS)
    modes = {"VISUAL": "IDENTITY", "STATE": "MIN_MAX", "ACTION": "MIN_MAX"}
    document = {"type": "fastwam", "normalization_mapping": modes}
    (tmp_path / "config.json").write_text(json.dumps(document))
    numbers = {
        f"{what}.{kind}": torch.full((dim,), value)
        for what, dim in (("action", 7), ("observation.state", 8))
        for kind, value in (("min", -3.0), ("max", 3.0), ("mean", 0.0), ("std", 1.0))
    }
    name = "policy_preprocessor_step_4_normalizer_processor.safetensors"
    safetensors.torch.save_file(numbers, tmp_path / name)
    parts = tmp_path / "wan"
    parts.mkdir()
    write_parts(model, parts, own=False)
    options = FastWamOptions(
        checkpoint=str(tmp_path), preset="published", parts=str(parts), steps=1
    )
    policy = FAMILY.make("fastwam", options)
    assert isinstance(policy, FastWamPolicy)
    same(policy, model)
    assert policy.model.config.scaling is Scaling.MIN_MAX
    assert policy.model.statistics.get("proprio", "max", 8).tolist() == [3.0] * 8
    # their default scales by mean and spread
    (tmp_path / "config.json").write_text(json.dumps({"type": "fastwam"}))
    again = FAMILY.make("fastwam", options)
    assert isinstance(again, FastWamPolicy)
    assert again.model.config.scaling is Scaling.Z_SCORE
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointMismatch, match="normalizer"):
        FAMILY.make("fastwam", options)


def _square_config():
    """A tiny model whose video width is its attention width, as in Wan."""
    expert = dataclasses.replace(tiny().video, hidden=64)
    return tiny(
        video=expert, vae=dataclasses.replace(tiny().vae, mean=(0.1,) * 24, std=(0.5,) * 24)
    )


@pytest.mark.parametrize("own", [True, False])
def test_wans_base_grows_an_action_expert(
    tmp_path: Path, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _square_config()
    monkeypatch.setattr("policies.fastwam.build.preset_config", lambda preset, variant: config)
    source = FastWam.drawn(config, seed=8)
    state = {k: v.contiguous() for k, v in source.video.state_dict().items()}
    if not own:
        theirs = WanTransformer3DModel(
            num_attention_heads=4, attention_head_dim=16, in_channels=8, out_channels=8,
            text_dim=32, freq_dim=64, ffn_dim=256, num_layers=config.video.layers,
        )  # fmt: skip
        names = {keymaps.wan_video_key(k): k for k in theirs.state_dict()}
        state = {names[k]: v for k, v in state.items()}
        (tmp_path / "transformer").mkdir()
    shard = "diffusion_pytorch_model-00001-of-00001.safetensors"
    safetensors.torch.save_file(state, (tmp_path if own else tmp_path / "transformer") / shard)
    write_parts(source, tmp_path, own=own)
    policy = FAMILY.make("fastwam", FastWamOptions(checkpoint=str(tmp_path), steps=1))
    assert isinstance(policy, FastWamPolicy)
    model = policy.model
    assert all(
        torch.equal(v, source.video.state_dict()[k]) for k, v in model.video.state_dict().items()
    )
    grown = model.action.state_dict()["blocks.0.ffn.0.weight"]
    wan = source.video.state_dict()["blocks.0.ffn.0.weight"]
    assert (grown.shape, wan.shape) == ((192, 80), (256, 64))
    # corners stay, times sqrt(64 / 80)
    assert float(grown[0, 0]) == pytest.approx(float(wan[0, 0]) * 0.8**0.5, rel=1e-4)
    assert float(grown[-1, -1]) == pytest.approx(float(wan[-1, -1]) * 0.8**0.5, rel=1e-4)
    assert np.isfinite(policy.act(observation(2)).actions).all()


def test_resizing_by_hand() -> None:
    # a vector: linear with aligned corners, never scaled
    torch.testing.assert_close(
        keymaps.resized(torch.tensor([0.0, 3.0]), (4,)), torch.tensor([0.0, 1.0, 2.0, 3.0])
    )
    # a matrix: rows alone do not scale; columns 4 -> 2 scale by sqrt(2)
    matrix = torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]])
    torch.testing.assert_close(keymaps.resized(matrix, (1, 4)), matrix[:1])
    root = 2**0.5
    expected = torch.tensor([[0.0, 3 * root], [4 * root, 7 * root]])
    torch.testing.assert_close(keymaps.resized(matrix, (2, 2)), expected)


def test_fastwams_prepared_action_expert_loads(tmp_path: Path) -> None:
    source, model = drawn(), FastWam.drawn(tiny(), seed=9)
    backbone = {
        k: v
        for k, v in source.action.state_dict().items()
        if not k.startswith(("action_encoder.", "head."))
    }
    file = tmp_path / "ActionDiT.pt"
    torch.save({"policy": {}, "backbone_state_dict": backbone, "meta": {}}, file)
    head = model.action.head.weight.clone()
    weights.load_action_backbone(model, file)
    assert torch.equal(model.action.blocks[1].ffn[0].weight, source.action.blocks[1].ffn[0].weight)
    assert torch.equal(model.action.head.weight, head)
    del backbone["blocks.0.modulation"]
    torch.save({"backbone_state_dict": backbone}, file)
    with pytest.raises(CheckpointMismatch, match=r"1 missing: blocks\.0\.modulation"):
        weights.load_action_backbone(model, file)
