"""Weights: untrained, saved by wamsim, or in the layout of the official code.

No official weights are known to be published; the map below follows what
`accelerator.save_model` writes for the official modules, so that weights trained with the
official code load. Source: humanoid_world_model, Flow-HWM/models/*.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from policies.checkpoint import (
    CONFIG,
    CheckpointMismatch,
    Identity,
    load_mapped,
    local_folder,
    read_tensors,
)
from policies.flow_hwm.config import FlowHWMConfig, preset_config
from policies.flow_hwm.model import FlowHWM, read_statistics
from policies.flow_hwm.options import FlowHWMOptions
from policies.flow_hwm.tokenizer import DECODER, ENCODER, CosmosTokenizer
from policies.training.reconstruction import begin_narrow, synthetic_video
from wamsim.errors import WamsimError

# Buffers that the official modules save: zeros, and tables that follow from the sizes.
_BUFFERS = re.compile(r"(^|\.)(empty_\w+_emb|(action|video)_pos_embed\.(position_encoding|seq))$")

_OUTER = {
    "patcher_f.proj.0": "patch_future",
    "patcher_p.proj.0": "patch_past",
    "action_embedder": "action_embed",
    "time_embedder.1": "time_embed.0",
    "time_embedder.3": "time_embed.2",
    "final_layer.adaLN_modulation.linear": "final_modulation",
    "final_layer.linear": "head",
}
# fv, pv, fa, pa: future and past video, future and past actions. Feed-forwards of the base
# block say cv and ca for fv and fa. Sharing blocks keep only the future's name.
_GROUPS = {"fv": 0, "cv": 0, "pv": 1, "fa": 2, "ca": 2, "pa": 3}
_MODALITIES = {"fv": 0, "fa": 1, "v": 0, "a": 1, "cross": 2}
_CROSS = {"pv": 0, "fa": 1, "pa": 2}


def load_or_initialise(variant: str, options: FlowHWMOptions) -> FlowHWM:
    """Make the model that the options name, on their device, with its tokenizer.

    Raises:
        CheckpointMismatch: The checkpoint does not fit family, variant, preset or options;
            or the tokenizer is missing.
        WamsimError: The options do not fit one another.
    """
    _check_tokenizer(preset_config(variant, options.preset), options)
    if options.checkpoint is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.init_seed)
            model = FlowHWM(_wanted(variant, options))
            if model.wan is not None:  # latents of unit size, although untrained
                config = model.config
                begin_narrow(model.wan.vae)
                model.wan.measure_scale(synthetic_video(4, config.frames, config.image_size))
    else:
        folder = local_folder(options.checkpoint)
        if _is_ours(folder):
            expect = Identity(family="flow_hwm", variant=variant, preset=options.preset)
            model = FlowHWM.load(folder, expect=expect)
            _check_options(model.config, options, folder)
        else:
            model = FlowHWM(_wanted(variant, options))
            load_official(model, folder)
    model = model.to(options.device)
    if options.tokenizer is not None:
        model.attach_tokenizer(CosmosTokenizer(options.tokenizer, options.device))
    return model


def load_official(model: FlowHWM, folder: Path) -> None:
    """Load weights in the official layout, and the statistics that must lie beside them.

    Raises:
        CheckpointMismatch: Keys or shapes do not fit, statistics are missing, or the model
            has a tokenizer of its own.
    """
    if model.config.tokenizer != "cosmos":
        raise CheckpointMismatch(
            f"weights in the official layout hold no tokenizer, but preset "
            f"{model.config.preset!r} has one of its own; use --set preset=published. "
            f"Folder: {folder}"
        )
    state = read_tensors(folder)
    # accelerate and DistributedDataParallel put a prefix before every key
    state = {k.removeprefix("module."): v for k, v in state.items()}
    width = model.config.width
    load_mapped(
        model.network,
        _separated(state, width),
        lambda key: official_key(key, _sharing(model.config, key)),
        source=str(folder),
    )
    if folder.is_file():
        folder = folder.parent
    model.set_statistics(read_statistics(folder))


def official_key(key: str, sharing: str) -> str | None:
    """Give our name of an official parameter; None for a buffer that follows from the sizes.

    Args:
        key: The official name, after `_separated`.
        sharing: "separate", "modality", "together" or "split", of the block it belongs to.
    """
    if _BUFFERS.search(key):
        return None
    for theirs, ours in _OUTER.items():
        if key.startswith(f"{theirs}."):
            return ours + key[len(theirs) :]
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", key)
    if found is None:
        return key
    inner = _block_key(found[2], _MODALITIES if sharing in ("modality", "split") else _GROUPS)
    return f"blocks.{found[1]}.{inner}"


def _block_key(key: str, groups: Mapping[str, int]) -> str:
    # an unknown name passes through unchanged, so that strict loading lists it
    patterns = (
        (r"time_scale_shift\.(\d)\.linear\.(\w+)", r"modulation.{0}.{1}", None),
        (r"time_scale_shift_(v|a|cross)\.linear\.(\w+)", r"modulation.{0}.{1}", groups),
        (r"qkv_(\w\w)\.qkv\.(\w+)", r"qkv.{0}.proj.{1}", groups),
        (r"qkv_(\w\w)\.([qk]_norm\.\w+)", r"qkv.{0}.{1}", groups),
        (r"kv_(\w\w)\.kv\.(\w+)", r"cross_kv.{0}.proj.{1}", _CROSS),
        (r"kv_(\w\w)\.(k_norm\.\w+)", r"cross_kv.{0}.{1}", _CROSS),
        (r"q_(fv)\.q\.(\w+)", r"cross_q.proj.{1}", None),
        (r"q_(fv)\.(q_norm\.\w+)", r"cross_q.{1}", None),
        (r"(joint_attn)\.proj\.(\w+)", r"out.{1}", None),
        (r"joint_attns\.(\d)\.proj\.(\w+)", r"out.{0}.{1}", None),
        (r"(cross_attn)\.proj\.(\w+)", r"cross_out.{1}", None),
        (r"ff_(\w\w)\.linear1\.(\w+)", r"ff.{0}.0.{1}", groups),
        (r"ff_(\w\w)\.linear2\.(\w+)", r"ff.{0}.2.{1}", groups),
    )
    for pattern, ours, places in patterns:
        found = re.fullmatch(pattern, key)
        if found and (places is None or found[1] in places):
            return ours.format(found[1] if places is None else places[found[1]], found[2])
    return key


def _sharing(config: FlowHWMConfig, key: str) -> str:
    if config.variant == "split_attention":
        return "split"
    found = re.match(r"blocks\.(\d+)\.", key)
    if found is None or int(found[1]) < config.unshared_layers:
        return "separate"
    return {"modality_sharing": "modality", "full_sharing": "together"}.get(
        config.variant, "separate"
    )


def _separated(state: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Cut the fused modulation of unshared blocks, 6 h rows a stream, into its streams."""
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        found = re.fullmatch(r"(blocks\.\d+\.time_scale_shift)\.linear\.(weight|bias)", key)
        if found is None or len(tensor) % (6 * width):
            out[key] = tensor
            continue
        for i, part in enumerate(tensor.split(6 * width)):
            out[f"{found[1]}.{i}.linear.{found[2]}"] = part
    return out


def _is_ours(folder: Path) -> bool:
    """Whether config.json is one of wamsim's; also one of another family, to be refused."""
    try:
        document = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and "family" in document


def _asked(options: FlowHWMOptions) -> dict[str, Any]:
    """What the options say about the config."""
    stride = options.frame_stride if options.action_stride is None else options.action_stride
    asked = {
        "camera": options.camera,
        "action": options.action,
        "frame_stride": options.frame_stride,
        "action_stride": stride,
        "parity": options.network_parity or None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _wanted(variant: str, options: FlowHWMOptions) -> FlowHWMConfig:
    try:
        return preset_config(variant, options.preset, **_asked(options))
    except ValueError as error:
        raise WamsimError(f"flow_hwm: {error}") from error


def _check_tokenizer(config: FlowHWMConfig, options: FlowHWMOptions) -> None:
    """Refuse a missing or a superfluous tokenizer before anything large is built."""
    if config.tokenizer == "cosmos" and options.tokenizer is None:
        raise CheckpointMismatch(
            f"preset {config.preset!r} needs the Cosmos tokenizer CV8x16x16, which is not part "
            f"of its weights. Name the folder or hub id of its {ENCODER} and {DECODER} with "
            f"--set tokenizer=..."
        )
    if config.tokenizer != "cosmos" and options.tokenizer is not None:
        raise CheckpointMismatch(
            f"preset {config.preset!r} has a tokenizer of its own among its weights; leave out "
            f"--set tokenizer=..."
        )


def _check_options(config: FlowHWMConfig, options: FlowHWMOptions, folder: Path) -> None:
    """Refuse options that contradict what a checkpoint was trained with."""
    for name, value in _asked(options).items():
        if value != getattr(config, name):
            raise CheckpointMismatch(
                f"the checkpoint was trained with {name}={getattr(config, name)!r}, but "
                f"{value!r} was asked for. Leave the option out, or train anew. "
                f"Folder: {folder}"
            )
