"""Loaders of published weights, on files written here in the published layouts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from spatialvla_doubles import config, model, observation
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import policies.spatialvla.policy as policy_module
from policies.checkpoint import CheckpointMismatch
from policies.spatialvla.config import DEEP, LATE_GEMMA, SpatialVLAConfig, SpatialVLAOptions
from policies.spatialvla.model import SpatialVLA
from policies.spatialvla.weights import (
    assemble,
    load_backbone,
    load_clip,
    load_expert,
    read_statistics,
)


def llava_state(made: SpatialVLA) -> dict[str, Tensor]:
    """A tiny LLaVA-3D in HF-llava naming, with what such files hold beside."""
    names = {
        "language.": "model.",
        "projector.": "model.mm_projector.",
        "vision.": "model.vision_tower.vision_tower.vision_model.",
        "position_embedding.": "model.video_tower.video_tower.positional_embedding.",
    }
    out: dict[str, Tensor] = {}
    for key, tensor in made.state_dict().items():
        for ours, published in names.items():
            if key.startswith(ours):
                out[published + key.removeprefix(ours)] = tensor.clone()
    width = made.config.language.width
    click = "model.video_tower.prompt_encoder.pos_emb3d.position_embedding_head.0.weight"
    ids = "model.vision_tower.vision_tower.vision_model.embeddings.position_ids"
    out["lm_head.weight"] = torch.zeros(made.config.vocab, width)
    out[click] = torch.zeros(width, 3)
    out[ids] = torch.arange(65)[None]
    out["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(12)
    return out


def expert_state(made: SpatialVLA) -> dict[str, Tensor]:
    out = {f"action_expert.{k}": v.clone() for k, v in made.expert.state_dict().items()}
    out["action_expert.model.embed_tokens.weight"] = torch.zeros(8, 64)
    for beside in ("vision_tower.x", "language_model.y", "fusion_projector.weight"):
        out[beside] = torch.zeros(2)
    return out


def write_shards(folder: Path, state: dict[str, Tensor]) -> None:
    keys = sorted(state)
    for i, part in enumerate((keys[::2], keys[1::2]), 1):
        own = {k: state[k].contiguous() for k in part}
        save_file(own, folder / f"model-0000{i}-of-00002.safetensors")


def write_tokenizer(folder: Path) -> None:
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "put": 3, "the": 4, "bowl": 5}
    own = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=own, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(str(folder))


def same(a: SpatialVLA, b: SpatialVLA, *parts: str) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return all(torch.equal(one[k], two[k]) for k in one if k.startswith(parts))


BACKBONE = ("vision.", "language.", "projector.", "position_embedding.")


@pytest.mark.parametrize("variant", [LATE_GEMMA, DEEP])
def test_llava_shards_load(variant: str, tmp_path: Path) -> None:
    theirs, ours = model(variant, seed=1), model(variant, seed=2)
    write_shards(tmp_path, llava_state(theirs))
    assert not same(ours, theirs, *BACKBONE)
    load_backbone(ours, tmp_path)
    assert same(ours, theirs, *BACKBONE)
    assert not same(ours, theirs, "expert.")


def test_old_bin_shards_load(tmp_path: Path) -> None:
    theirs, ours = model(LATE_GEMMA, seed=1), model(LATE_GEMMA, seed=2)
    state = llava_state(theirs)
    keys = sorted(state)
    for i, part in enumerate((keys[::2], keys[1::2]), 1):
        torch.save({k: state[k] for k in part}, tmp_path / f"pytorch_model-0000{i}-of-00002.bin")
    load_backbone(ours, tmp_path)
    assert same(ours, theirs, *BACKBONE)


def test_clip_from_elsewhere(tmp_path: Path) -> None:
    theirs, ours = model(LATE_GEMMA, seed=1), model(LATE_GEMMA, seed=2)
    shards, clip = tmp_path / "llava", tmp_path / "clip"
    shards.mkdir()
    clip.mkdir()
    state = {k: v for k, v in llava_state(theirs).items() if "vision_tower" not in k}
    write_shards(shards, state)
    with pytest.raises(CheckpointMismatch, match=r"missing: vision\."):
        load_backbone(ours, shards)
    load_backbone(ours, shards, has_vision=False)
    own = {f"vision_model.{k}": v for k, v in theirs.vision.state_dict().items()}
    own |= {"text_model.final_layer_norm.bias": torch.zeros(3), "logit_scale": torch.zeros(())}
    own["visual_projection.weight"] = torch.zeros(2, 2)
    save_file(own, clip / "model.safetensors")
    load_clip(ours, clip)
    assert same(ours, theirs, *BACKBONE)


@pytest.mark.parametrize("how", ["missing", "unexpected", "of another shape"])
def test_a_key_that_does_not_fit_is_named(how: str, tmp_path: Path) -> None:
    state = llava_state(model(LATE_GEMMA))
    if how == "missing":
        del state["model.mm_projector.2.bias"]
        name = r"projector\.2\.bias"
    elif how == "unexpected":
        state["model.image_newline"] = torch.zeros(4)
        name = r"model\.image_newline"
    else:
        state["model.embed_tokens.weight"] = torch.zeros(7, 96)
        name = r"language\.embed_tokens\.weight: \(7, 96\) in the file, \(4096, 96\)"
    write_shards(tmp_path, state)
    with pytest.raises(CheckpointMismatch, match=f"1 {how}: {name}"):
        load_backbone(model(LATE_GEMMA), tmp_path)


def test_the_expert_of_3dvla_late_fusion_loads(tmp_path: Path) -> None:
    theirs, ours = model(LATE_GEMMA, seed=1), model(LATE_GEMMA, seed=2)
    write_shards(tmp_path, expert_state(theirs))
    load_expert(ours, tmp_path)
    assert same(ours, theirs, "expert.")
    # the names themselves, as its modeling_flow_expert.py gives them
    keys = set(ours.expert.state_dict())
    assert {
        "context_projector.weight", "action_in_proj.bias", "time_mlp_in.weight",
        "time_mlp_out.bias", "action_out_proj.weight", "model.norm.weight",
        "model.layers.0.self_attn.q_proj.weight", "model.layers.2.mlp.down_proj.weight",
        "model.layers.1.post_attention_layernorm.weight",
    } <= keys  # fmt: skip
    with pytest.raises(CheckpointMismatch, match="deep_fusion has none"):
        load_expert(model(DEEP), tmp_path)


@pytest.mark.parametrize(
    "document",
    [
        {"norm_stats": {"actions": {"mean": [1.0] * 7, "std": [2.0] * 7}, "state": {}}},
        {"action": {"mean": [1.0] * 7, "std": [2.0] * 7}},
        {"mean": [1.0] * 7, "std": [2.0] * 7},
    ],
    ids=["3dvla", "ours", "bare"],
)
def test_layouts_of_statistics(document: object, tmp_path: Path) -> None:
    path = tmp_path / "norm_stats.json"
    path.write_text(json.dumps(document))
    made = model(LATE_GEMMA)
    made.set_statistics(read_statistics(path))
    assert made.restore(torch.ones(1, 8, 7)).unique().tolist() == [3.0]
    path.write_text("[1, 2]")
    with pytest.raises(CheckpointMismatch, match="no statistics could be read"):
        read_statistics(path)


def test_published_parts_make_a_policy_that_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shrunk(variant: str, name: str) -> SpatialVLAConfig:
        return dataclasses.replace(config(variant), preset=name)

    monkeypatch.setattr(policy_module, "preset", shrunk)
    theirs = model(LATE_GEMMA, seed=1)
    folders = {name: tmp_path / name for name in ("backbone", "expert", "own")}
    for folder in folders.values():
        folder.mkdir()
    write_shards(folders["backbone"], llava_state(theirs))
    write_tokenizer(folders["backbone"])
    write_shards(folders["expert"], expert_state(theirs))
    stats = {"norm_stats": {"actions": {"mean": [1.0] * 7, "std": [2.0] * 7}}}
    (folders["expert"] / "norm_stats.json").write_text(json.dumps(stats))
    given = {n: str(folders[n]) for n in ("backbone", "expert")}
    options = SpatialVLAOptions(preset="published", steps=2, **given)
    made = policy_module.build(LATE_GEMMA, options)
    assert same(made.model, theirs, "vision.", "language.", "expert.")
    assert made.model.tokenizer.encode("put the bowl") == [1, 3, 4, 5]
    assert "published backbone and expert" in made.card.notes
    obs = observation(1, instruction="put the bowl")
    first = made.act(obs).actions
    made.model.save_pretrained(folders["own"])
    again = SpatialVLAOptions(preset="published", steps=2, checkpoint=str(folders["own"]))
    back = policy_module.build(LATE_GEMMA, again)
    np.testing.assert_array_equal(back.act(obs).actions, first)
    assert back.model.tokenizer.encode("put the bowl") == [1, 3, 4, 5]


def test_no_such_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="no weights"):
        load_backbone(model(LATE_GEMMA), tmp_path)
    write_shards(tmp_path, llava_state(model(LATE_GEMMA)))
    options = SpatialVLAOptions(preset="published", backbone=str(tmp_path))
    with pytest.raises(CheckpointMismatch, match="tokenizer could not be read"):
        assemble(model(LATE_GEMMA), options)
