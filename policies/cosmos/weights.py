"""Published Cosmos Policy files: transformer, autoencoder, statistics and text features.

A published folder holds one ``.pt`` with `net.*` keys, ``*_dataset_statistics.json`` and
``*_t5_embeddings.pkl``; the autoencoder is Cosmos-Predict2's ``tokenizer/tokenizer.pth`` in
the original Wan2.1 layout.

Source: NVlabs/cosmos-policy (file formats); Wan-Video/Wan2.1, modules/vae.py (layout of the
autoencoder); diffusers, `CosmosTransformer3DModel` (the other layout of the transformer).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import torch

from policies.checkpoint import (
    CheckpointMismatch,
    Statistics,
    load_mapped,
    local_folder,
    read_tensors,
)
from policies.cosmos.config import CosmosConfig, VaeConfig
from policies.cosmos.model import CosmosModel, build
from policies.cosmos.text import TextTable, read_features

# Where the published code takes its autoencoder from
VAE_REPOSITORY = "nvidia/Cosmos-Predict2-2B-Video2World"

# Position tables are recomputed; TransformerEngine's and the trainer's states carry no weights
_DROPPED = re.compile(r"^pos_embedder\.|^accum_|_extra_state$")


def published_key(key: str) -> str | None:
    """Map a published transformer key to ours; None drops it."""
    bare = key.removeprefix("net.")
    return None if _DROPPED.search(bare) else bare


_TO_DIFFUSERS = (
    (r"^t_embedder\.1\.", "time_embed.t_embedder."),
    (r"^t_embedding_norm\.", "time_embed.norm."),
    (r"^x_embedder\.proj\.1\.", "patch_embed.proj."),
    (r"^final_layer\.adaln_modulation\.(\d)", r"norm_out.linear_\1"),
    (r"^final_layer\.linear\.", "proj_out."),
    (r"^blocks\.", "transformer_blocks."),
    (r"adaln_modulation_self_attn\.(\d)", r"norm1.linear_\1"),
    (r"adaln_modulation_cross_attn\.(\d)", r"norm2.linear_\1"),
    (r"adaln_modulation_mlp\.(\d)", r"norm3.linear_\1"),
    (r"\.self_attn\.", ".attn1."),
    (r"\.cross_attn\.", ".attn2."),
    (r"\.([qkv])_proj\.", r".to_\1."),
    (r"\.output_proj\.", ".to_out.0."),
    (r"\.([qk])_norm\.", r".norm_\1."),
    (r"\.mlp\.layer1\.", ".ff.net.0.proj."),
    (r"\.mlp\.layer2\.", ".ff.net.2."),
)


def diffusers_key(key: str) -> str:
    """Map our transformer key to diffusers' `CosmosTransformer3DModel`."""
    for pattern, replacement in _TO_DIFFUSERS:
        key = re.sub(pattern, replacement, key)
    return key


def wan_vae_key(config: VaeConfig) -> Callable[[str], str | None]:
    """Build the map from original Wan2.1 autoencoder keys to diffusers'.

    The original lays the decoder's residual blocks and upsamplers out in one list: per stage
    num_res_blocks + 1 residual blocks, then an upsampler except after the last.
    """
    per_stage = config.num_res_blocks + 2
    residual = {
        "residual.0.": "norm1.", "residual.2.": "conv1.",
        "residual.3.": "norm2.", "residual.6.": "conv2.", "shortcut.": "conv_shortcut.",
    }  # fmt: skip

    def parts(rest: str) -> str:
        for old, new in residual.items():
            if rest.startswith(old):
                return new + rest.removeprefix(old)
        return rest

    def rename(key: str) -> str | None:
        if key.startswith(("conv1.", "conv2.")):
            return {"1": "quant_conv.", "2": "post_quant_conv."}[key[4]] + key[6:]
        side, _, rest = key.partition(".")
        for old, new in (
            ("conv1.", "conv_in."),
            ("head.0.", "norm_out."),
            ("head.2.", "conv_out."),
        ):
            if rest.startswith(old):
                return f"{side}.{new}{rest.removeprefix(old)}"
        found = re.match(r"(middle|downsamples|upsamples)\.(\d+)\.(.*)", rest)
        if found is None:
            return key
        what, number, inner = found[1], int(found[2]), parts(found[3])
        if what == "middle":
            place = "attentions.0" if number == 1 else f"resnets.{number // 2}"
            return f"{side}.mid_block.{place}.{inner}"
        if what == "downsamples":
            return f"{side}.down_blocks.{number}.{inner}"
        stage, place = divmod(number, per_stage)
        part = "upsamplers.0" if place == per_stage - 1 else f"resnets.{place}"
        return f"{side}.up_blocks.{stage}.{part}.{inner}"

    return rename


def read_statistics(path: Path) -> Statistics:
    """Read `*_dataset_statistics.json`: flat keys like "actions_min", "proprio_max".

    Raises:
        CheckpointMismatch: Not such a file.
    """
    try:
        flat = json.loads(path.read_text())
        values = {
            what: {
                kind: torch.tensor(flat[f"{prefix}_{kind}"], dtype=torch.float32)
                for kind in ("min", "max", "mean", "std", "median")
                if f"{prefix}_{kind}" in flat
            }
            for what, prefix in (("action", "actions"), ("proprio", "proprio"))
        }
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointMismatch(
            f"the data set's statistics cannot be read ({error}). File: {path}"
        ) from error
    return Statistics(values)


def load_vae(model: CosmosModel, path: Path) -> None:
    """Load the autoencoder from `tokenizer.pth` (original keys) or a diffusers folder.

    Raises:
        CheckpointMismatch: A key is missing, unexpected or misshapen.
    """
    if path.is_dir():
        for name in ("tokenizer/tokenizer.pth", "tokenizer.pth", "Wan2.1_VAE.pth"):
            if (path / name).exists():
                return load_vae(model, path / name)
        path = path / "vae" if (path / "vae").is_dir() else path
    tensors = read_tensors(path)
    original = any(key.startswith("decoder.upsamples.") for key in tensors)
    rename = wan_vae_key(model.config.vae) if original else (lambda key: key)
    load_mapped(model.codec.vae, tensors, rename, source=str(path))
    return None


def load_published(config: CosmosConfig, folder: Path, *, vae: str | None = None) -> CosmosModel:
    """Load a published checkpoint folder.

    Args:
        config: What it is of (variant, preset and layout are not written in the file).
        folder: As downloaded; the transformer is its first ``.pt`` (or ``.safetensors``).
        vae: Where the autoencoder is, unless in the folder; None asks the hub.

    Raises:
        CheckpointMismatch: A file or key is missing, unexpected or misshapen.
    """
    weights = sorted([*folder.glob("*.pt"), *folder.glob("*.safetensors")])
    if not weights:
        raise CheckpointMismatch(
            f"no config.json of wamsim and no published .pt there. Folder: {folder}"
        )
    model = _empty(config)
    load_mapped(model.net, read_tensors(weights[0]), published_key, source=str(weights[0]))
    inside = any((folder / n).exists() for n in ("tokenizer.pth", "tokenizer/tokenizer.pth"))
    load_vae(model, folder if inside and vae is None else local_folder(vae or VAE_REPOSITORY))
    statistics = sorted(folder.glob("*_dataset_statistics.json"))
    if not statistics:
        raise CheckpointMismatch(
            f"*_dataset_statistics.json is missing: without it actions have no scale. "
            f"Folder: {folder}"
        )
    model.set_statistics(read_statistics(statistics[0]))
    return model.eval()


def _empty(config: CosmosConfig) -> CosmosModel:
    """Build a model whose weights are all about to be loaded; drawing two billion takes long."""
    if config.text.own:  # a published folder holds no weights for this encoder
        return build(config, init_seed=0)
    with torch.device("meta"):
        model = CosmosModel(config).to(getattr(torch, config.dtype))
    return model.to_empty(device="cpu")


def text_table(
    config: CosmosConfig, folder: Path | None, *, encoder: str | None, device: str = "cpu"
) -> TextTable:
    """Give the text features that a checkpoint brings, and the encoder for others."""
    files = [] if folder is None else sorted(folder.glob("*_t5_embeddings.pkl"))
    features = read_features(files[0]) if files else {}
    return TextTable(features, config.text, config.net.text_dim, encoder=encoder, device=device)
