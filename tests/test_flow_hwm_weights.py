"""Flow-HWM's checkpoints: its own, the official layout, the published tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from flow_hwm_doubles import equal, inputs, model_of, small, stirred
from flow_hwm_reference import official_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from policies.checkpoint import CONFIG, STATISTICS, WEIGHTS, CheckpointMismatch, Statistics
from policies.flow_hwm import WORLD_MODEL, FlowHWMOptions
from policies.flow_hwm.config import VARIANTS, FlowHWMConfig, preset_config
from policies.flow_hwm.model import FlowHWM
from policies.flow_hwm.sampler import Sampler
from policies.flow_hwm.tokenizer import DECODER, ENCODER, CosmosTokenizer, to_frames, to_pixels
from policies.flow_hwm.weights import load_official
from policies.flow_hwm.world import FlowHWMWorld

# ------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_returns(variant: str, tmp_path: Path) -> None:
    model = stirred(model_of(small(variant)))
    statistics = Statistics({"action": {"mean": torch.arange(7.0), "std": torch.full((7,), 2.0)}})
    model.set_statistics(statistics)
    model.save_pretrained(tmp_path)
    for found in (FlowHWM.from_pretrained(str(tmp_path)), FlowHWM.load(tmp_path)):
        assert found.config == model.config
        assert torch.equal(found.statistics.get("action", "mean", 7), torch.arange(7.0))
        for (name, a), b in zip(
            model.state_dict().items(), found.state_dict().values(), strict=True
        ):
            assert torch.equal(a, b), name
    options = FlowHWMOptions(checkpoint=str(tmp_path), steps=2)
    world = WORLD_MODEL.make(variant, options)
    own = FlowHWMWorld(model, Sampler(model.network, steps=2, guidance=model.config.guidance))
    given = inputs(model.config, rows=2)
    assert equal(world.imagine(**given), own.imagine(**given))


def test_checkpoints_that_are_not_what_was_asked_for(tmp_path: Path) -> None:
    model_of(small("base")).save_pretrained(tmp_path)

    def refused(match: str, variant: str = "base", **options: Any) -> None:
        with pytest.raises(CheckpointMismatch, match=match):
            WORLD_MODEL.make(variant, FlowHWMOptions(checkpoint=str(tmp_path), **options))

    refused(r"flow_hwm:base \(tiny\), but flow_hwm:full_sharing", variant="full_sharing")
    refused("trained with action_stride=1, but 2", action_stride=2)
    refused(r"trained with parity=\(\), but \('rope',\)", parity=("rope",))
    refused("has a tokenizer of its own", tokenizer="somewhere")
    (tmp_path / STATISTICS).write_text(Statistics.identity({"action": 9}).to_json())
    refused(r"\(9,\) values, the model has 7")
    (tmp_path / STATISTICS).unlink()
    refused("no statistics.json")
    document = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**document, "family": "cosmos"}))
    refused(r"of cosmos:base \(tiny\)")
    (tmp_path / CONFIG).write_text(json.dumps({**document, "preset": "published"}))
    refused(r"flow_hwm:base \(published\), but flow_hwm:base \(tiny\)")
    with pytest.raises(CheckpointMismatch, match="is no local folder"):
        WORLD_MODEL.make("base", FlowHWMOptions(checkpoint="/nowhere/at/all"))


# ---------------------------------------------------- published tokenizer and weights


class _Encoder(nn.Module):
    """What the published encoder.jit does to shapes: 1 + 8 n frames to 1 + n, 16 x 16 to 1."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        groups = [x[:, :, :1]] + [x[:, :, i : i + 8] for i in range(1, x.shape[2], 8)]
        out = torch.cat([g.mean(2, keepdim=True) for g in groups], 2)
        pooled = torch.nn.functional.avg_pool3d(out, (1, 16, 16))
        return (pooled.repeat(1, 6, 1, 1, 1)[:, :16],)


class _Decoder(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        up = z[:, :3].repeat_interleave(16, 3).repeat_interleave(16, 4)
        return torch.cat([up[:, :, :1], up[:, :, 1:].repeat_interleave(8, 2)], 2)


def jit_folder(folder: Path, frames: int = 17) -> Path:
    folder.mkdir()
    pixels = torch.zeros(1, 3, frames, 64, 64)
    with torch.no_grad():
        torch.jit.trace(_Encoder(), pixels).save(str(folder / ENCODER))
        torch.jit.trace(_Decoder(), _Encoder()(pixels)[0]).save(str(folder / DECODER))
    return folder


def published_but_small(variant: str, **changes: Any) -> FlowHWMConfig:
    sizes = {"width": 32, "heads": 2, "layers": 3, "unshared_layers": 1, "image_size": (64, 64)}
    return preset_config(variant, "published", **{**sizes, **changes})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("variant", VARIANTS)
def test_published_layout(variant: str, tmp_path: Path) -> None:
    config = published_but_small(variant)
    official = tmp_path / "official"
    official.mkdir()
    weights = official_weights(config)
    save_file({f"module.{k}": v for k, v in weights.items()}, official / WEIGHTS)
    with pytest.raises(CheckpointMismatch, match=r"no statistics\.json"):
        load_official(FlowHWM(config), official)
    (official / STATISTICS).write_text(Statistics.identity({"action": 25}).to_json())
    model = FlowHWM(config)
    load_official(model, official)
    assert torch.equal(model.network.head.weight, weights["final_layer.linear.weight"])
    with pytest.raises(CheckpointMismatch, match="hold no tokenizer"):
        model.encode_past(torch.zeros(1, 9, 64, 64, 3, dtype=torch.uint8))
    model.attach_tokenizer(CosmosTokenizer(jit_folder(tmp_path / "jit")))
    world = FlowHWMWorld(model, Sampler(model.network, steps=2, guidance=3.0))
    found = world.imagine(**inputs(config, rows=2))
    assert found.latents.shape == (2, 1, 16, 4, 4)
    assert found.frames is not None
    assert found.frames.shape == (2, 1, 64, 64, 3)
    # neither the weights nor a checkpoint hold the tokenizer
    assert not any("tokenizer" in key or "_cosmos" in key for key in model.state_dict())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_published_tokenizer_turns_frames_to_bgr_and_back(tmp_path: Path) -> None:
    config = published_but_small("base")
    tokenizer = CosmosTokenizer(jit_folder(tmp_path / "jit"))
    frames = torch.zeros(1, 17, 64, 64, 3, dtype=torch.uint8)
    frames[..., 0] = 255  # red
    pixels = to_pixels(frames, bgr=config.bgr)
    latents = tokenizer.encode(pixels)
    assert latents.shape == (1, 16, 3, 4, 4)
    assert latents[0, :3, 0, 0, 0].tolist() == [-1.0, -1.0, 1.0]  # blue, green, red
    assert torch.equal(to_frames(tokenizer.decode(latents), bgr=config.bgr), frames)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_tokenizers_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="needs the Cosmos tokenizer"):
        WORLD_MODEL.make("base", FlowHWMOptions(preset="published"))
    with pytest.raises(CheckpointMismatch, match=r"no encoder\.jit and no decoder\.jit"):
        CosmosTokenizer(tmp_path)
    model = FlowHWM(published_but_small("base", latent_channels=8))
    with pytest.raises(CheckpointMismatch, match=r"\(1, 16, 3, 4, 4\).*takes \(1, 8, 3, 4, 4\)"):
        model.attach_tokenizer(CosmosTokenizer(jit_folder(tmp_path / "jit")))
    save_file(official_weights(small("base")), tmp_path / WEIGHTS)
    with pytest.raises(CheckpointMismatch, match="in the official layout hold no tokenizer"):
        WORLD_MODEL.make("base", FlowHWMOptions(checkpoint=str(tmp_path)))
