"""Published weights: LLaVA-3D-7B, CLIP ViT-L/14-336 and the expert of 3dvla_late_fusion.

No weights of these were at hand. The names inside LLaVA-3D's shards are UNVERIFIED: they are
what its code (ZCMax/LLaVA-3D llava/model) would write in HF-llava naming. Whatever does not
fit is an error that names the keys; nothing is skipped but what is listed here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from policies.checkpoint import (
    CheckpointMismatch,
    Statistics,
    load_mapped,
    local_folder,
    read_tensors,
)
from policies.spatialvla.config import SpatialVLAOptions
from policies.spatialvla.expert import LateExpert
from policies.spatialvla.model import SpatialVLA
from policies.spatialvla.text import PublishedTokenizer

# LLaVA-3D's parts, published prefix -> ours. First match wins.
_LLAVA = (
    ("model.mm_projector.", "projector."),
    ("model.video_tower.video_tower.positional_embedding.", "position_embedding."),
    ("model.vision_tower.vision_tower.", "vision."),
    ("model.embed_tokens.", "language.embed_tokens."),
    ("model.layers.", "language.layers."),
    ("model.norm.", "language.norm."),
)
# Dropped on purpose: no text is generated (lm_head), nobody clicks (prompt_encoder), and
# tables that are computed (old transformers saved them).
_DROP_PREFIX = ("lm_head.", "model.video_tower.prompt_encoder.")
_DROP_SUFFIX = (".rotary_emb.inv_freq", "embeddings.position_ids")

_EXPERT_PREFIX = "action_expert."
_EXPERT_DROP = ("model.embed_tokens.",)  # 256000 rows that the expert never looks up
# What else a whole 3dvla_late_fusion checkpoint holds; its perception is not ours.
_EXPERT_BESIDE = (
    "vision_tower.", "language_model.", "geometric_model.", "multi_modal_projector.",
    "geometric_projector.", "fusion_projector.", "spatial_embed_tokens.",
)  # fmt: skip


def assemble(model: SpatialVLA, options: SpatialVLAOptions) -> None:
    """Load the published parts that the options name into a model, strictly.

    Raises:
        CheckpointMismatch: A key is missing, unexpected or of another shape; the message
            names it. Or a part that this variant does not have.
    """
    if options.backbone is not None:
        folder = local_folder(options.backbone)
        load_backbone(model, folder, has_vision=options.vision is None)
        model.tokenizer = PublishedTokenizer(folder)
        if model.tokenizer.size > model.config.vocab:
            raise CheckpointMismatch(
                f"the tokenizer has {model.tokenizer.size} pieces, the embedding "
                f"{model.config.vocab} rows. Folder: {folder}"
            )
    if options.vision is not None:
        load_clip(model, local_folder(options.vision))
    if options.expert is not None:
        folder = local_folder(options.expert)
        load_expert(model, folder)
        beside = folder / "norm_stats.json"  # its training script copies the file there
        if beside.exists() and options.statistics is None:
            model.set_statistics(read_statistics(beside))


def load_backbone(model: SpatialVLA, source: Path, *, has_vision: bool = True) -> None:
    """Load LLaVA-3D-7B's shards.

    Args:
        model: Where to.
        source: Folder of shards, or one file.
        has_vision: False when CLIP comes from elsewhere; CLIP keys of the shards are then
            dropped.

    Raises:
        CheckpointMismatch: As `assemble`.
    """
    parts = ["position_embedding", "projector", "language", *(["vision"] if has_vision else [])]
    target = nn.ModuleDict({name: getattr(model, name) for name in parts})
    rename = _clip_names(model)

    def place(key: str) -> str | None:
        if key.startswith(_DROP_PREFIX) or key.endswith(_DROP_SUFFIX):
            return None
        for published, ours in _LLAVA:
            if key.startswith(published):
                rest = key.removeprefix(published)
                if ours == "vision.":
                    return ours + rename(rest) if has_vision else None
                return ours + rest
        return key  # unknown: named as unexpected

    _load(target, source, place)


def load_clip(model: SpatialVLA, source: Path) -> None:
    """Load the vision part of openai/clip-vit-large-patch14-336 (text part dropped).

    Raises:
        CheckpointMismatch: As `assemble`.
    """
    rename = _clip_names(model)
    other = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")

    def place(key: str) -> str | None:
        if key.startswith(other) or key.endswith(_DROP_SUFFIX):
            return None
        return rename(key)

    _load(model.vision, source, place)


def load_expert(model: SpatialVLA, source: Path) -> None:
    """Load the action expert of a 3dvla_late_fusion checkpoint (`action_expert.*`).

    The expert was trained behind that repository's own perception (SigLIP and MapAnything),
    which this family does not have: its weights fit, its inputs differ.

    Raises:
        CheckpointMismatch: As `assemble`; or the variant has another kind of expert.
    """
    if not isinstance(model.expert, LateExpert):
        raise CheckpointMismatch(
            f"a 3dvla_late_fusion expert is a late-fusion one; {model.config.variant} has none. "
            f"Choose late_fusion_gemma. Source: {source}"
        )

    def place(key: str) -> str | None:
        if key.startswith(_EXPERT_BESIDE):
            return None
        name = key.removeprefix(_EXPERT_PREFIX)
        if name.startswith(_EXPERT_DROP) or name.endswith(_DROP_SUFFIX):
            return None
        return name

    _load(model.expert, source, place)


def _clip_names(model: SpatialVLA) -> Callable[[str], str]:
    """Files say `vision_model.x`; transformers 5 dropped that level, 4 has it."""
    nested = any(k.startswith("vision_model.") for k in model.vision.state_dict())
    return lambda key: key if nested else key.removeprefix("vision_model.")


def _load(target: nn.Module, source: Path, place: Callable[[str], str | None]) -> None:
    state = _read(source)
    load_mapped(target, state, place, source=str(source))


def _read(source: Path) -> Mapping[str, Tensor]:
    """Read weights; a folder of pytorch_model*.bin shards too, as older LLaVAs have them."""
    shards = sorted(source.glob("pytorch_model*.bin")) if source.is_dir() else []
    if shards and not any(source.glob("*.safetensors")):
        out: dict[str, Tensor] = {}
        for shard in shards:
            out.update(read_tensors(shard))
        return out
    return read_tensors(source)


def read_statistics(source: str | Path) -> Statistics:
    """Read statistics: ours, 3dvla_late_fusion's norm_stats.json, or LeRobot's bare action.

    Raises:
        CheckpointMismatch: No such file, or none of these layouts.
    """
    path = Path(source)
    try:
        document: Any = json.loads(path.read_text())
        tables = cast("dict[str, dict[str, list[float]]]", document.get("norm_stats", document))
        if "mean" in tables:  # load_norm_stats takes a bare mean/std table for the actions
            tables = {"action": cast("dict[str, list[float]]", tables)}
        names = {"actions": "action", "state": "proprio"}
        return Statistics(
            {
                names.get(what, what): {
                    kind: torch.tensor(values, dtype=torch.float32)
                    for kind, values in kinds.items()
                }
                for what, kinds in tables.items()
            }
        )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointMismatch(
            f"no statistics could be read ({error}). Expected JSON with action: mean, std. "
            f"File: {path}"
        ) from error
