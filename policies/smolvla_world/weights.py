"""Published checkpoints: LeRobot's `smolvla`, `smolvla_world` built on it, and V-JEPA 2.

Key layout (lerobot/smolvla_base; FAMILIES G): `model.vlm_with_expert.{vlm,lm_expert}.*`,
`model.{state_proj,action_*}.*`; smolvla_world adds `prophet.*` and `model.world_inject.*`
and never holds the world encoder. Statistics lie in the normaliser's own file, in buffers
of the weights (older checkpoints) or in a data set's meta/stats.json.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policies.checkpoint import (
    CONFIG,
    CheckpointMismatch,
    load_mapped,
    read_tensors,
)
from policies.smolvla_world.config import Config
from policies.smolvla_world.model import SmolVLAWorld, build
from policies.smolvla_world.options import SmolVLAWorldOptions
from policies.smolvla_world.statistics import find_statistics
from wamsim.conventions import PROPRIOS

# LeRobot's `type` -> our variant.
_TYPES = {"smolvla": "base", "smolvla_world": "late_gated_xattn"}
_WORLD = "vjepa2/"  # marks tensors of the separate world encoder while they are renamed
_PREFIXES = (
    ("model.vlm_with_expert.vlm.model.", "host.vlm."),
    ("model.vlm_with_expert.lm_expert.", "host.expert."),
    ("model.world_inject.", "inject."),
    ("model.state_proj.", "host.state_proj."),
    ("model.action_", "host.action_"),
    (f"{_WORLD}encoder.", "encoder.vjepa.encoder."),
)
# Nothing of these is used: language heads, statistics (read on their own), V-JEPA's predictor.
_DROPPED = (
    "model.vlm_with_expert.vlm.lm_head.",
    "model.vlm_with_expert.lm_expert.lm_head.",
    "normalize_inputs.",
    "normalize_targets.",
    "unnormalize_outputs.",
    f"{_WORLD}predictor.",
)


def rename(key: str) -> str | None:
    """Published key -> ours; None drops it; an unknown one stays and is refused by name."""
    key = key.replace("model._orig_mod.", "model.")  # saved from torch.compile
    if key.startswith(_DROPPED):
        return None
    for theirs, ours in _PREFIXES:
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def is_lerobot(folder: Path) -> bool:
    """Whether a folder holds a LeRobot policy."""
    return "type" in _document(folder)


def from_lerobot(folder: Path, variant: str, options: SmolVLAWorldOptions) -> SmolVLAWorld:
    """Load a LeRobot `smolvla` or `smolvla_world` policy.

    Args:
        folder: With config.json, model.safetensors and, in newer ones, statistics files.
        variant: Must be the one that the checkpoint is of.
        options: `preset` gives the VLM's shape, which LeRobot's config does not hold.

    Raises:
        CheckpointMismatch: Another type or variant, an unsupported switch, missing
            statistics or world encoder, keys that do not fit.
    """
    document = _document(folder)
    kind = _TYPES.get(document["type"])
    if kind != variant:
        raise CheckpointMismatch(
            f"the checkpoint is LeRobot's {document['type']!r}, which is variant {kind!r}, but "
            f"{variant!r} was asked for. Ask for that variant, or give init_from for the host "
            f"alone. Folder: {folder}"
        )
    model = build(options.adopt(lerobot_config(document, variant, options)), seed=0)
    state = read_tensors(folder / "model.safetensors")
    model.set_statistics(find_statistics(folder, state, options.statistics))
    if model.encoder is not None:
        if options.world_encoder is None:
            raise CheckpointMismatch(
                "a smolvla_world checkpoint does not hold its world encoder; give "
                f"world_encoder={document.get('world_vision_model_name')!r} or a folder with it"
            )
        extra = read_tensors(_folder(options.world_encoder))
        state = {**state, **{_WORLD + k: v for k, v in extra.items()}}
    load_mapped(model, state, rename, source=str(folder))
    return model


def load_host(model: SmolVLAWorld, folder: Path, stats: str | None) -> None:
    """Fill the host alone from a LeRobot `smolvla` checkpoint, and take its statistics.

    Raises:
        CheckpointMismatch: Another type, or keys that do not fit.
    """
    document = _document(folder)
    if document.get("type") != "smolvla":
        raise CheckpointMismatch(
            f"init_from needs a LeRobot 'smolvla' checkpoint, this is "
            f"{document.get('type')!r}. Folder: {folder}"
        )
    state = read_tensors(folder / "model.safetensors")
    model.set_statistics(find_statistics(folder, state, stats))

    def inner(key: str) -> str | None:
        name = rename(key)
        return name if name is None else name.removeprefix("host.")

    load_mapped(model.host, state, inner, source=str(folder))


def load_world_encoder(model: SmolVLAWorld, folder: Path) -> None:
    """Fill the world encoder from V-JEPA 2's own checkpoint.

    Raises:
        CheckpointMismatch: The variant has none, or keys do not fit.
    """
    if model.encoder is None:
        raise CheckpointMismatch(f"variant {model.config.variant!r} has no world encoder")

    def inner(key: str) -> str | None:
        name = rename(_WORLD + key)
        return name if name is None else name.removeprefix("encoder.")

    load_mapped(model.encoder, read_tensors(folder), inner, source=str(folder))


def lerobot_config(
    document: Mapping[str, Any], variant: str, options: SmolVLAWorldOptions
) -> Config:
    """Write a LeRobot config as ours.

    Raises:
        CheckpointMismatch: It uses something that is not built here; it is named.
    """
    for field, wanted in _UNSUPPORTED.items():
        if document.get(field, wanted[0]) not in wanted:
            raise CheckpointMismatch(
                f"the checkpoint has {field}={document[field]!r}; only {wanted[0]!r} is built"
            )
    base = options.base(variant)
    vlm, host = base.host.vlm, base.host
    layers = int(document.get("num_vlm_layers", vlm.layers))
    experts = int(document.get("num_expert_layers", -1))
    # zero or less keeps all of SmolVLM2-500M's 32 layers (HuggingFaceVLA/smolvla_libero)
    layers = layers if layers > 0 else 32
    if experts not in (layers, *range(-1, 1)):
        raise CheckpointMismatch(
            f"the checkpoint has {experts} expert layers for {layers} VLM layers; only equal "
            f"numbers are built"
        )
    state, action = _shapes(document, base)
    host = dataclasses.replace(
        host,
        vlm=dataclasses.replace(vlm, layers=layers),
        action_dim=action,
        state_dim=state,
        **_given(document, _HOST),
    )
    fields = dataclasses.replace(
        base,
        cameras=base.cameras[: _cameras(document, len(base.cameras))],
        host=host,
        execute=int(document.get("n_action_steps", host.chunk)),
    )
    if fields.world is None:
        return fields
    world = dataclasses.replace(
        fields.world,
        camera=1 if document.get("world_camera") == "wrist" else 0,
        own=False,  # it was trained on V-JEPA 2's own features
        **_given(document, _WORLD_FIELDS),
    )
    return dataclasses.replace(fields, world=world).with_fusion(**_given(document, _FUSION))


# Published name -> ours.
_HOST = {
    "chunk_size": "chunk", "max_action_dim": "max_action_dim", "max_state_dim": "max_state_dim",
    "tokenizer_max_length": "text_limit", "num_steps": "steps", "min_period": "min_period",
    "max_period": "max_period", "expert_width_multiplier": "expert_width",
    "self_attn_every_n_layers": "self_attention_every", "train_expert_only": "freeze_vlm",
}  # fmt: skip
_WORLD_FIELDS = {
    "world_latent_dim": "hidden", "context_frames": "context", "future_offset": "horizon",
}  # fmt: skip
_FUSION = {
    "world_inject_num_heads": "inject_heads", "world_gate_init": "gate_init",
    "prophet_layers": "prophet_layers", "prophet_heads": "prophet_heads",
    "prophet_dropout": "prophet_dropout", "delta_prediction": "delta",
    "lambda_world": "lambda_world", "world_memory_mode_train": "memory_train",
    "world_memory_mode_rollout": "memory_rollout",
}  # fmt: skip
# What is built is the first value; the published default where there are several.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "attention_mode": ("cross_attn",),
    "add_image_special_tokens": (False,),
    "adapt_to_pi_aloha": (False,),
    "prefix_length": (-1, 0),  # -1 and 0 both mean: not padded
    "world_latents_source": ("vjepa",),
    "latent_suffix": ("m4",),
    "enable_world_injection": (True,),
    "enable_world_predictor": (True,),
    # the modeling code of these was not found; their keys are unknown
    "world_inject_suffix_in": (False,),
    "world_prefix_tokens": (0,),
    "world_prefix_cross_attn": (False,),
}


def _given(document: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {ours: document[theirs] for theirs, ours in names.items() if theirs in document}


def _shapes(document: Mapping[str, Any], base: Config) -> tuple[int, int]:
    """Lengths of state and action, which must be those of the conventions."""
    inputs, outputs = document.get("input_features", {}), document.get("output_features", {})
    state = inputs.get("observation.state", {}).get("shape", [base.host.state_dim])[0]
    action = outputs.get("action", {}).get("shape", [base.host.action_dim])[0]
    if (state, action) != (PROPRIOS[base.proprio].dim, base.host.action_dim):
        raise CheckpointMismatch(
            f"the checkpoint takes a state of {state} and gives actions of {action} channels; "
            f"{base.proprio} has {PROPRIOS[base.proprio].dim}, {base.action} "
            f"{base.host.action_dim}. It belongs to another robot: train it on this one first."
        )
    return state, action


def _cameras(document: Mapping[str, Any], known: int) -> int:
    """How many cameras it was trained with; LeRobot leaves out those that are missing."""
    seen = [f for f in document.get("input_features", {}).values() if f.get("type") == "VISUAL"]
    return min(len(seen), known) if seen else known


def _document(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointMismatch(
            f"{CONFIG} is not to be read ({error}). Folder: {folder}"
        ) from error


def _folder(source: str) -> Path:
    from policies.checkpoint import local_folder

    return local_folder(source)
