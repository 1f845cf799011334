"""Cosmos: saving, loading, published files written here in their layout at tiny size."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cosmos_doubles import model, observation, tiny
from torch import Tensor

from policies.checkpoint import CheckpointMismatch, Statistics, load_mapped
from policies.cosmos import CosmosOptions, options
from policies.cosmos.codec import build_vae
from policies.cosmos.config import CosmosConfig, TextConfig, VaeConfig, preset
from policies.cosmos.model import CosmosModel, build
from policies.cosmos.text import InstructionTooLong, TextTable, read_features
from policies.cosmos.weights import load_published, load_vae, read_statistics, wan_vae_key
from wamsim.errors import UnknownName

STATISTICS = Statistics(
    {
        "action": {"min": -2 * torch.ones(7), "max": 2 * torch.ones(7)},
        "proprio": {"min": -3 * torch.ones(9), "max": 3 * torch.ones(9)},
    }
)


@pytest.mark.parametrize("variant", ["direct", "planning"])
def test_save_and_load_give_the_same_policy(variant: str, tmp_path: Path) -> None:
    m = build(preset(variant, "tiny"), init_seed=0)
    moments = {"mean": torch.zeros(7), "std": 2 * torch.ones(7)}
    action = {**STATISTICS.values["action"], **moments}
    m.set_statistics(Statistics({**STATISTICS.values, "action": action}))
    m.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".md") == [
        "config.json", "model.safetensors", "statistics.json",
    ]  # fmt: skip
    again = CosmosModel.from_pretrained(tmp_path)
    assert again.config == m.config
    assert again.identity == m.identity
    chosen: dict[str, Any] = {"proposals": 2, "futures": 1, "values": 1}
    loaded = options.make(variant, CosmosOptions(checkpoint=str(tmp_path), **chosen))
    untrained = options.make(variant, CosmosOptions(**chosen))
    obs = observation(m.config, 1)
    # statistics differ, weights do not: twice the actions' deviations, other proprioception
    assert obs.proprio is not None
    found = loaded.act(dataclasses.replace(obs, proprio=obs.proprio * 3)).actions
    np.testing.assert_allclose(found, 2 * untrained.act(obs).actions, rtol=1e-4, atol=1e-5)


def test_planning_takes_the_weights_of_direct(tmp_path: Path) -> None:
    """One network proposes and judges; with one proposal it acts as it would by itself."""
    m = model("direct")
    m.save_pretrained(tmp_path)
    whole: dict[str, Any] = {"checkpoint": str(tmp_path), "steps": 3}
    planner = options.make("planning", CosmosOptions(**whole, proposals=1, futures=1, values=1))
    direct = options.make("direct", CosmosOptions(**whole))
    obs = observation(m.config, 2)
    np.testing.assert_allclose(planner.act(obs).actions, direct.act(obs).actions, atol=1e-5)


def test_another_checkpoint_is_refused(tmp_path: Path) -> None:
    model("planning").save_pretrained(tmp_path)
    with pytest.raises(CheckpointMismatch, match=r"cosmos:planning \(tiny\), but cosmos:direct"):
        options.make("direct", CosmosOptions(checkpoint=str(tmp_path)))
    with pytest.raises(CheckpointMismatch, match=r"\(tiny\), but cosmos:planning \(published\)"):
        options.make("planning", CosmosOptions(checkpoint=str(tmp_path), preset="published"))
    document = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**document, "family": "fastwam"}))
    with pytest.raises(CheckpointMismatch, match="fastwam:planning"):
        options.make("planning", CosmosOptions(checkpoint=str(tmp_path)))


def test_statistics_of_other_dimensions_are_refused(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path)
    wrong = Statistics.identity({"action": 7, "proprio": 8})
    (tmp_path / "statistics.json").write_text(wrong.to_json())
    with pytest.raises(
        CheckpointMismatch, match=r"proprio/min have \(8,\) values, the model has 9"
    ):
        options.make("direct", CosmosOptions(checkpoint=str(tmp_path)))


# ------------------------------------------------------------------------ published files


def published_config() -> CosmosConfig:
    """Tiny sizes, but text from outside and the published autoencoder's normalisation."""
    return tiny(
        action_deviations=False,
        vae=VaeConfig(base_dim=8, num_res_blocks=2),
        text=TextConfig(max_tokens=16, own=False),
        autoencoder_loss=0.0,
    )


def wan_keys(config: VaeConfig) -> dict[str, Tensor]:
    """The autoencoder's weights under their original names (Wan2.1, modules/vae.py).

    Written forwards from the original's structure: its decoder is one flat list.
    """
    source = build_vae(config).state_dict()
    inner = {
        "norm1.": "residual.0.", "conv1.": "residual.2.", "norm2.": "residual.3.",
        "conv2.": "residual.6.", "conv_shortcut.": "shortcut.",
    }  # fmt: skip

    def old(key: str) -> str:
        for new, original in (
            ("quant_conv.", "conv1."), ("post_quant_conv.", "conv2."),
        ):  # fmt: skip
            if key.startswith(new):
                return original + key.removeprefix(new)
        side, _, rest = key.partition(".")
        for new, original in (
            ("conv_in.", "conv1."), ("norm_out.", "head.0."), ("conv_out.", "head.2."),
        ):  # fmt: skip
            if rest.startswith(new):
                return f"{side}.{original}{rest.removeprefix(new)}"
        rest = re.sub(r"^mid_block\.attentions\.0", "middle.1", rest)
        rest = re.sub(r"^mid_block\.resnets\.(\d)", lambda m: f"middle.{2 * int(m[1])}", rest)
        rest = rest.replace("down_blocks.", "downsamples.")
        blocks = config.num_res_blocks + 2
        rest = re.sub(
            r"^up_blocks\.(\d)\.resnets\.(\d)",
            lambda m: f"upsamples.{blocks * int(m[1]) + int(m[2])}",
            rest,
        )
        rest = re.sub(
            r"^up_blocks\.(\d)\.upsamplers\.0",
            lambda m: f"upsamples.{blocks * int(m[1]) + blocks - 1}",
            rest,
        )
        head, number, tail = rest.split(".", 2)
        for new, original in inner.items():
            if tail.startswith(new):
                tail = original + tail.removeprefix(new)
        return f"{side}.{head}.{number}.{tail}"

    return {old(k): v for k, v in source.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published folder at tiny size."""
    config = published_config()
    torch.manual_seed(3)
    net = CosmosModel(config).net
    state = {f"net.{k}": v for k, v in net.state_dict().items()}
    state["net.pos_embedder.seq"] = torch.arange(4).float()
    state["net.accum_iteration"] = torch.tensor(7)
    state["net.blocks.0.self_attn.q_norm._extra_state"] = torch.zeros(1)
    torch.save(state, tmp_path / "Cosmos-Policy-LIBERO-Predict2-2B.pt")
    torch.save(wan_keys(config.vae), tmp_path / "tokenizer.pth")
    flat = {
        f"{what}_{kind}": values.tolist()
        for what, name in (("actions", "action"), ("proprio", "proprio"))
        for kind, values in STATISTICS.values[name].items()
    }
    (tmp_path / "libero_dataset_statistics.json").write_text(json.dumps(flat))
    features = {"open the drawer": torch.rand(1, 16, 32).to(torch.bfloat16)}
    with (tmp_path / "libero_t5_embeddings.pkl").open("wb") as file:
        pickle.dump(features, file)
    return tmp_path


def test_published_folder_loads_and_acts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = published_config()
    monkeypatch.setattr(options, "preset", lambda *_: config)
    policy = options.make("direct", CosmosOptions(checkpoint=str(folder), dtype="bfloat16"))
    obs = observation(config, 2, padding=(1,), imagine=True)
    found = policy.act(dataclasses.replace(obs, instruction=["open the drawer", ""]))
    assert np.isfinite(found.actions).all()
    assert found.imagined is not None
    assert found.imagined.frames is not None
    with pytest.raises(UnknownName, match=r"Did you mean 'open the drawer'.*text_encoder"):
        policy.act(dataclasses.replace(obs, instruction=["open a drawer", ""]))


def test_published_weights_arrive_where_they_belong(folder: Path) -> None:
    config = published_config()
    m = load_published(config, folder)
    state = torch.load(folder / "Cosmos-Policy-LIBERO-Predict2-2B.pt", weights_only=True)
    assert torch.equal(m.net.x_embedder.proj[1].weight, state["net.x_embedder.proj.1.weight"])
    assert m.statistics.get("action", "max", 7).tolist() == [2.0] * 7
    assert m.config.vae.normalise


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("net.final_layer.linear.weight"), "1 missing: final_layer.linear.weight"),
        (lambda s: s.update({"net.extra.weight": torch.zeros(1)}), "1 unexpected: extra.weight"),
        (
            lambda s: s.update({"net.t_embedding_norm.weight": torch.zeros(3)}),
            r"t_embedding_norm.weight: \(3,\) in the file, \(96,\) in the model",
        ),
    ],
)
def test_keys_that_do_not_fit_are_named(folder: Path, change: Any, message: str) -> None:
    path = folder / "Cosmos-Policy-LIBERO-Predict2-2B.pt"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(CheckpointMismatch, match=message):
        load_published(published_config(), folder)


def test_a_published_folder_without_statistics_is_refused(folder: Path) -> None:
    (folder / "libero_dataset_statistics.json").unlink()
    with pytest.raises(CheckpointMismatch, match=r"statistics\.json is missing"):
        load_published(published_config(), folder)


def test_statistics_file(folder: Path) -> None:
    found = read_statistics(folder / "libero_dataset_statistics.json")
    assert found.get("proprio", "min", 9).tolist() == [-3.0] * 9
    assert "mean" not in found.values["action"]


def test_autoencoder_keys_agree_with_diffusers_own_map() -> None:
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    config = VaeConfig(base_dim=8)
    original = wan_keys(config)
    assert "decoder.upsamples.14.residual.6.weight" in original
    assert "decoder.upsamples.4.shortcut.weight" in original
    rename = wan_vae_key(config)
    theirs = convert_wan_vae_to_diffusers(dict(original))
    ours = {rename(k): v for k, v in original.items()}
    assert ours.keys() == theirs.keys()
    assert all(ours[k] is theirs[k] for k in theirs)
    load_mapped(build_vae(config), original, rename, source="test")


def test_autoencoder_in_diffusers_layout(tmp_path: Path) -> None:
    m = CosmosModel(published_config())
    other = build_vae(published_config().vae)
    other.save_pretrained(tmp_path / "vae")
    load_vae(m, tmp_path)
    assert torch.equal(m.codec.vae.quant_conv.weight, other.quant_conv.weight)


def test_latents_carry_wans_normalisation() -> None:
    m = CosmosModel(published_config()).eval()
    mean, std = m.codec._statistics(torch.zeros(1))
    assert mean.flatten()[0].item() == pytest.approx(-0.7571)
    assert std.flatten()[-1].item() == pytest.approx(1.9160)


def test_text_pickle_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("ran",)

    path = tmp_path / "x_t5_embeddings.pkl"
    with path.open("wb") as file:
        pickle.dump({"a": Evil()}, file)
    with pytest.raises(CheckpointMismatch, match=r"builtins.print is no part of a tensor"):
        read_features(path)
    torch.save({"a": torch.ones(1, 2, 3)}, path)
    assert read_features(path)["a"].shape == (1, 2, 3)


def test_text_features_of_another_size_are_refused() -> None:
    with pytest.raises(CheckpointMismatch, match=r"shape \(1, 4, 8\), the model takes \(16, 32\)"):
        TextTable({"go": torch.zeros(1, 4, 8)}, TextConfig(max_tokens=16), 32)


def test_the_published_encoder_is_used_when_given(tmp_path: Path) -> None:
    """A tiny T5 with a byte tokenizer stands for T5-11B's folder."""
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

    torch.manual_seed(0)
    encoder = T5EncoderModel(
        T5Config(vocab_size=259, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2)
    ).eval()
    encoder.save_pretrained(tmp_path)
    ByT5Tokenizer(extra_ids=0).save_pretrained(tmp_path)
    table = TextTable({}, TextConfig(max_tokens=16), 32, encoder=str(tmp_path))
    found = table.embed(["go", "", "go"])
    assert found.shape == (3, 16, 32)
    assert torch.equal(found[0], found[2])
    assert not found[1].any()
    ids = torch.tensor([[ord("g") + 3, ord("o") + 3, 1]])
    with torch.no_grad():
        expected = encoder(input_ids=ids).last_hidden_state[0]
    torch.testing.assert_close(found[0, :3], expected, rtol=1e-4, atol=1e-5)
    assert not found[0, 3:].any()
    with pytest.raises(InstructionTooLong, match="18 tokens, but the text encoder takes 16"):
        table.embed(["seventeen letters"])
