"""Checkpoints of smolvla_world: our own, LeRobot's layout, sizes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from smolvla_world_doubles import fresh, observation, open_gates, tiny
from torch import Tensor

from policies.checkpoint import CheckpointMismatch, Statistics, count_parameters
from policies.smolvla_world.model import SmolVLAWorld, build
from policies.smolvla_world.options import SmolVLAWorldOptions
from policies.smolvla_world.policy import SmolVLAWorldPolicy, make
from policies.smolvla_world.presets import VARIANTS, configuration
from policies.smolvla_world.tokens import Tokenizer

STATS = {
    "action": {"mean": torch.arange(7.0), "std": torch.full((7,), 2.0)},
    "proprio": {"mean": torch.arange(8.0), "std": torch.full((8,), 3.0)},
}


# ------------------------------------------------------------------------- our own layout


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_saved_and_loaded_policies_are_the_same(variant: str, tmp_path: Path) -> None:
    policy = fresh(variant, init_seed=3)
    open_gates(policy.model, 0.5)
    policy.model.set_statistics(Statistics(STATS))
    policy.model.save_pretrained(tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert {"model.safetensors", "config.json", "statistics.json"} <= names
    loaded = make(variant, SmolVLAWorldOptions(checkpoint=str(tmp_path)))
    obs = observation(policy.card, 2)
    one, two = policy.act(obs), loaded.act(obs)
    assert loaded.card == policy.card
    assert np.array_equal(one.actions, two.actions)
    again = SmolVLAWorld.from_pretrained(tmp_path)
    assert torch.equal(again.statistics.values["action"]["std"], STATS["action"]["std"])


def test_untrained_weights_come_from_their_seed_alone() -> None:
    one, two, other = (fresh("base", init_seed=s).model.state_dict() for s in (1, 1, 2))
    assert all(torch.equal(v, two[k]) for k, v in one.items())
    assert any(not torch.equal(v, other[k]) for k, v in one.items())


def test_other_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    tiny("base").model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"is of smolvla_world:base .*late_gated_xattn"):
        make("late_gated_xattn", SmolVLAWorldOptions(checkpoint=str(tmp_path)))
    with pytest.raises(CheckpointMismatch, match="holds its own world_encoder"):
        make("base", SmolVLAWorldOptions(checkpoint=str(tmp_path), world_encoder="x"))
    with pytest.raises(CheckpointMismatch, match=r"\(tiny\), but .* \(published\)"):
        make("base", SmolVLAWorldOptions(checkpoint=str(tmp_path), preset="published"))
    document = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**document, "family": "cosmos"}))
    with pytest.raises(CheckpointMismatch, match="is of cosmos:base"):
        make("base", SmolVLAWorldOptions(checkpoint=str(tmp_path)))


def test_statistics_of_other_dimensions_are_refused(tmp_path: Path) -> None:
    tiny("base").model.save_pretrained(tmp_path)
    wrong = Statistics({**STATS, "action": {k: v[:6] for k, v in STATS["action"].items()}})
    (tmp_path / "statistics.json").write_text(wrong.to_json())
    with pytest.raises(CheckpointMismatch, match=r"action/mean have \(6,\) values, .* has 7"):
        make("base", SmolVLAWorldOptions(checkpoint=str(tmp_path)))
    (tmp_path / "statistics.json").unlink()
    with pytest.raises(CheckpointMismatch, match=r"statistics\.json belongs beside"):
        make("base", SmolVLAWorldOptions(checkpoint=str(tmp_path)))


# ------------------------------------------------------------------------ LeRobot's layout


def _published(model: SmolVLAWorld) -> dict[str, Tensor]:
    """Our weights under LeRobot's names, written down independently of the key map."""
    out: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "host":
            sub, _, tail = rest.partition(".")
            name = {
                "vlm": "model.vlm_with_expert.vlm.model.",
                "expert": "model.vlm_with_expert.lm_expert.",
            }.get(sub, f"model.{sub}.")
            out[name + tail] = value.clone()
        elif part == "inject":
            out[f"model.world_inject.{rest}"] = value.clone()
        elif part == "prophet":
            out[key] = value.clone()
    vlm = model.config.host.vlm
    head = torch.zeros(vlm.vocabulary, vlm.hidden)
    out["model.vlm_with_expert.vlm.lm_head.weight"] = head
    return out


def _document(model: SmolVLAWorld, kind: str, **changes: Any) -> dict[str, Any]:
    """A LeRobot config.json; its layer count is that of the tiny VLM."""
    host = model.config.host
    document: dict[str, Any] = {
        "type": kind, "n_obs_steps": 1, "chunk_size": host.chunk, "n_action_steps": host.chunk,
        "max_state_dim": host.max_state_dim, "max_action_dim": host.max_action_dim,
        "tokenizer_max_length": host.text_limit, "num_steps": 3, "attention_mode": "cross_attn",
        "num_vlm_layers": host.vlm.layers, "num_expert_layers": -1, "prefix_length": -1,
        "self_attn_every_n_layers": 2, "expert_width_multiplier": 0.75,
        "input_features": {
            "observation.images.image": {"type": "VISUAL", "shape": [3, 256, 256]},
            "observation.images.image2": {"type": "VISUAL", "shape": [3, 256, 256]},
            "observation.state": {"type": "STATE", "shape": [8]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [7]}},
    }  # fmt: skip
    if kind == "smolvla_world":
        document |= {
            "world_latent_dim": 64, "context_frames": 4, "future_offset": 4,
            "prophet_layers": 2, "prophet_heads": 4, "world_inject_num_heads": 4,
            "delta_prediction": True, "lambda_world": 0.2, "latent_suffix": "m4",
            "world_latents_source": "vjepa", "world_memory_mode_rollout": "zero",
            "world_vision_model_name": "facebook/vjepa2-vitg-fpc64-256",
        }  # fmt: skip
    return {**document, **changes}


def _statistics_file(folder: Path) -> None:
    tensors = {
        f"{name}.{kind}": value
        for name, what in (("action", "action"), ("observation.state", "proprio"))
        for kind, value in STATS[what].items()
    }
    name = "policy_preprocessor_step_5_normalizer_processor.safetensors"
    safetensors.torch.save_file(tensors, folder / name)


def _write(folder: Path, state: dict[str, Tensor], document: dict[str, Any]) -> str:
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(document))
    return str(folder)


def test_a_lerobot_smolvla_gives_the_same_actions(tmp_path: Path) -> None:
    source = fresh("base", init_seed=5, steps=3)
    source.model.set_statistics(Statistics(STATS))
    state = _published(source.model)
    # the published VLM is bfloat16; ours here is exact in it
    folder = _write(tmp_path / "it", state, _document(source.model, "smolvla"))
    _statistics_file(tmp_path / "it")
    loaded = make("base", SmolVLAWorldOptions(checkpoint=folder, tokenizer="words"))
    obs = observation(source.card, 2)
    assert np.array_equal(loaded.act(obs).actions, source.act(obs).actions)
    assert loaded.model.config.host.steps == 3


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = tiny("base").model
    key = "model.vlm_with_expert.lm_expert.layers.1.self_attn.k_proj.weight"
    ours = "host.expert.layers.1.self_attn.k_proj.weight"
    for change, said in (
        (lambda s: s.pop(key), f"1 missing: {ours}"),
        (lambda s: s.update({"model.extra": torch.zeros(1)}), "1 unexpected: model.extra"),
        (lambda s: s.update({key: torch.zeros(2, 2)}), f"1 of another shape: {ours}"),
    ):
        state = _published(model)
        change(state)
        folder = _write(tmp_path, state, _document(model, "smolvla"))
        _statistics_file(tmp_path)
        with pytest.raises(CheckpointMismatch, match=said):
            make("base", SmolVLAWorldOptions(checkpoint=folder))


def test_statistics_in_buffers_of_older_checkpoints(tmp_path: Path) -> None:
    model = tiny("base").model
    buffers = {
        "normalize_inputs.buffer_observation_state.mean": STATS["proprio"]["mean"],
        "normalize_inputs.buffer_observation_state.std": STATS["proprio"]["std"],
        "normalize_targets.buffer_action.mean": STATS["action"]["mean"],
        "normalize_targets.buffer_action.std": STATS["action"]["std"],
        "unnormalize_outputs.buffer_action.mean": STATS["action"]["mean"].clone(),
        "unnormalize_outputs.buffer_action.std": STATS["action"]["std"].clone(),
    }
    folder = _write(tmp_path, {**_published(model), **buffers}, _document(model, "smolvla"))
    options = SmolVLAWorldOptions(checkpoint=folder)
    found = make("base", options).model.statistics.values
    assert torch.equal(found["proprio"]["std"], STATS["proprio"]["std"])
    assert torch.equal(found["action"]["mean"], STATS["action"]["mean"])

    other = "unnormalize_outputs.so100-red_buffer_action.mean"
    _write(
        tmp_path,
        {**_published(model), **buffers, other: torch.zeros(7)},
        _document(model, "smolvla"),
    )
    with pytest.raises(CheckpointMismatch, match="of several data sets"):
        make("base", options)
    named = {
        "action": {k: v.tolist() for k, v in STATS["action"].items()},
        "observation.state": {k: v.tolist() for k, v in STATS["proprio"].items()},
    }
    (tmp_path / "stats.json").write_text(json.dumps(named))
    chosen = SmolVLAWorldOptions(checkpoint=folder, statistics=str(tmp_path / "stats.json"))
    assert make("base", chosen).model.statistics.values["action"]["std"][0] == 2

    _write(tmp_path, _published(model), _document(model, "smolvla"))
    with pytest.raises(CheckpointMismatch, match=r"no statistics action\.mean"):
        make("base", options)


def test_a_lerobot_smolvla_world_and_its_separate_encoder(tmp_path: Path) -> None:
    config = fresh("late_gated_xattn", steps=3, memory="zero").model.config
    assert config.world is not None
    # features as published ones come
    config = dataclasses.replace(config, world=dataclasses.replace(config.world, own=False))
    source = SmolVLAWorldPolicy(build(config, seed=5))
    open_gates(source.model, 0.5)
    source.model.set_statistics(Statistics(STATS))
    folder = _write(
        tmp_path / "policy", _published(source.model), _document(source.model, "smolvla_world")
    )
    _statistics_file(tmp_path / "policy")
    assert source.model.encoder is not None
    encoder = {k.removeprefix("vjepa."): v for k, v in source.model.encoder.state_dict().items()}
    encoder["predictor.layernorm.weight"] = torch.zeros(3)  # the published file has it
    _write(tmp_path / "vjepa", encoder, {"model_type": "vjepa2"})
    with pytest.raises(CheckpointMismatch, match="give world_encoder='facebook/vjepa2-vitg"):
        make("late_gated_xattn", SmolVLAWorldOptions(checkpoint=folder, tokenizer="words"))
    loaded = make(
        "late_gated_xattn",
        SmolVLAWorldOptions(
            checkpoint=folder, tokenizer="words", world_encoder=str(tmp_path / "vjepa")
        ),
    )
    obs = observation(source.card, 2)
    one, two = source.act(obs), loaded.act(obs)
    assert np.array_equal(one.actions, two.actions)
    assert one.imagined is not None
    assert two.imagined is not None
    assert np.array_equal(one.imagined.latents, two.imagined.latents)
    document = _document(source.model, "smolvla_world", world_prefix_tokens=8)
    _write(tmp_path / "policy", _published(source.model), document)
    with pytest.raises(CheckpointMismatch, match="world_prefix_tokens=8; only 0 is built"):
        make("late_gated_xattn", SmolVLAWorldOptions(checkpoint=folder))


def test_a_smolvla_starts_a_world_policy_only_when_asked(tmp_path: Path) -> None:
    source = fresh("base", init_seed=5)
    folder = _write(tmp_path, _published(source.model), _document(source.model, "smolvla"))
    _statistics_file(tmp_path)
    with pytest.raises(CheckpointMismatch, match="variant 'base', but 'flare_tokens' was asked"):
        make("flare_tokens", SmolVLAWorldOptions(checkpoint=folder))
    for variant in ("flare_tokens", "late_gated_xattn"):
        started = make(variant, SmolVLAWorldOptions(init_from=folder)).model
        for name, value in source.model.host.state_dict().items():
            assert torch.equal(value, started.host.state_dict()[name])
        assert float(started.statistics.values["action"]["std"][0]) == 2
    with pytest.raises(ValueError, match="not both"):
        SmolVLAWorldOptions(checkpoint=folder, init_from=folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "pi0"}, "LeRobot's 'pi0'"),
        ({"attention_mode": "self_attn"}, "attention_mode='self_attn'"),
        ({"num_expert_layers": 3}, "3 expert layers for 6 VLM layers"),
        ({"input_features": {"observation.state": {"shape": [6]}}}, "a state of 6"),
    ],
)
def test_what_is_not_built_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    model = tiny("base").model
    folder = _write(tmp_path, {"x": torch.zeros(1)}, _document(model, "smolvla", **changes))
    with pytest.raises(CheckpointMismatch, match=said):
        make("base", SmolVLAWorldOptions(checkpoint=folder))


def test_a_tokenizer_from_files(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Raw
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    raw = Raw(WordLevel({"<pad>": 2, "go": 5, "\n": 7, "?": 0}, unk_token="?"))
    raw.pre_tokenizer = Split("\n", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>").save_pretrained(tmp_path)
    ids, valid = Tokenizer(str(tmp_path), 4, 8)(["go", "go\n"])
    assert ids.tolist() == [[5, 7, 2, 2]] * 2
    assert valid.tolist() == [[True, True, False, False]] * 2
    with pytest.raises(CheckpointMismatch, match="is no local folder"):
        Tokenizer("nobody/nothing", 4, 8)(["go"])


# --------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_tiny_is_tiny(variant: str) -> None:
    assert count_parameters(tiny(variant).model) <= 1_500_000


def _llama_layer(width: int, ffn: int, attention: int) -> int:
    return attention + 3 * width * ffn + 2 * width


def test_published_sizes() -> None:
    """On the meta device, against formulas written out from FAMILIES C.0 to C.3."""
    with torch.device("meta"):
        model = SmolVLAWorld(configuration("late_gated_xattn", "published"))
    host = model.host
    w, d, kv = 960, 720, 320
    text = 16 * _llama_layer(w, 2560, 2 * w * w + 2 * w * kv) + w + 49280 * w
    assert count_parameters(host.vlm.text_model) == text
    joint = _llama_layer(d, 2048, 2 * d * w + 2 * d * kv)
    cross = _llama_layer(d, 2048, 2 * d * w + 2 * kv * kv)
    assert count_parameters(host.expert) == 8 * (joint + cross) + d
    v = 768
    block = 4 * (v * v + v) + 2 * v * 3072 + 3072 + v + 4 * v
    vision = 12 * block + 2 * v + (3 * 16 * 16 * v + v) + 1024 * v
    assert count_parameters(host.vlm.vision_model) == vision
    assert count_parameters(host.vlm.connector) == 16 * v * w
    # SmolVLA is called 0.45 B with its unused language head
    assert count_parameters(host) + 49280 * w == pytest.approx(450e6, rel=0.005)
    z = 1408
    mlp = round(z * 48 / 11)
    layer = 4 * (z * z + z) + 2 * z * mlp + mlp + z + 4 * z
    patches = 3 * 2 * 16 * 16 * z + z
    assert model.encoder is not None
    assert count_parameters(model.encoder) == 40 * layer + 2 * z + patches
    encoder = 4 * (z * z + z) + 2 * 4 * z * z + 5 * z + 4 * z
    assert model.prophet is not None
    assert count_parameters(model.prophet) == 2 * (z * z + z) + 8 * z + 2 * encoder
    assert model.inject is not None
    assert count_parameters(model.inject) == z * d + d + 4 * (d * d + d) + 1


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_every_published_variant_can_be_built(variant: str) -> None:
    with torch.device("meta"):
        model = SmolVLAWorld(configuration(variant, "published"))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert not any(n.startswith(("host.vlm", "encoder")) for n in trained)
    assert any(n.startswith("host.expert") for n in trained)
