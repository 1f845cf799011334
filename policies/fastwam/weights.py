"""Published weights and statistics, strictly: a key that does not fit is an error by name.

Layouts: FastWAM (yuanty/fastwam: one .pt of both experts), LeRobot's port (a policy folder),
Wan2.2-TI2V-5B (Wan's own files or diffusers' folders).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from policies.checkpoint import (
    CONFIG,
    STATISTICS,
    WEIGHTS,
    CheckpointMismatch,
    Statistics,
    load_strict,
    local_folder,
    read_tensors,
)
from policies.fastwam import keymaps
from policies.fastwam.config import Scaling
from policies.fastwam.model import FastWam

# Names in the hub repository yuanty/fastwam; Joint and "no co-training" were not released.
RELEASED = {"fastwam": "libero_uncond_2cam224.pt", "idm": "libero_optional_idm_2cam224.pt"}
VAE_FILE, TEXT_FILE = "Wan2.2_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"
TOKENIZER_FOLDERS = ("tokenizer", "google/umt5-xxl")  # diffusers', Wan's own
WAN_SHARDS = "diffusion_pytorch_model*.safetensors"


class Layout(enum.Enum):
    """Who wrote a checkpoint."""

    OURS = "wamsim"
    LEROBOT = "LeRobot"
    FASTWAM = "FastWAM"
    WAN = "Wan2.2"


def layout_of(source: Path) -> Layout:
    """Recognise a checkpoint.

    Raises:
        CheckpointMismatch: It is none of the known layouts.
    """
    if source.suffix == ".pt" or (source.is_dir() and list(source.glob("*.pt"))):
        return Layout.FASTWAM
    if (source / "transformer").is_dir() or list(source.glob(WAN_SHARDS)):
        return Layout.WAN
    if (source / CONFIG).exists():
        document = json.loads((source / CONFIG).read_text())
        if "family" in document:
            return Layout.OURS
        if document.get("type") == "fastwam":
            return Layout.LEROBOT
    raise CheckpointMismatch(
        f"no Fast-WAM checkpoint: expected {CONFIG} of wamsim or LeRobot, a .pt of FastWAM, or "
        f"Wan2.2's {WAN_SHARDS}. Looked at: {source}"
    )


def checkpoint_folder(source: str) -> Path:
    """Give a checkpoint's folder or file; a hub id is downloaded, RoboTwin's files left out.

    Raises:
        CheckpointMismatch: Neither local nor to be had from the hub.
    """
    return local_folder(source, ignore=["robotwin*"], advice="pass the folder")


# ------------------------------------------------------------------------- experts


def fastwam_file(source: Path, variant: str) -> Path:
    """Find a variant's file.

    Raises:
        CheckpointMismatch: The folder does not hold one, or several without saying which.
    """
    if source.is_file():
        return source
    files = sorted(source.glob("*.pt"))
    named = [f for f in files if f.name == RELEASED.get(variant)]
    if named or len(files) == 1:
        return (named or files)[0]
    raise CheckpointMismatch(
        f"{len(files)} .pt files, and none is known to be of variant {variant!r} (released were "
        f"{', '.join(f'{v}: {n}' for v, n in RELEASED.items())}). Pass the file itself. "
        f"Folder: {source}"
    )


def load_fastwam(model: FastWam, file: Path) -> None:
    """Load both experts and the proprioception token from FastWAM's payload.

    Raises:
        CheckpointMismatch: Another payload, or keys that do not fit.
    """
    payload: Any = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(payload, dict) or not {"mot", "proprio_encoder"} <= set(payload):
        raise CheckpointMismatch(
            f"not FastWAM's payload: expected 'mot' and 'proprio_encoder'. File: {file}"
        )
    state = {**payload["mot"]}
    state.update({f"proprio_encoder.{k}": v for k, v in payload["proprio_encoder"].items()})
    load_strict(_experts(model), state, source=str(file))


def load_lerobot(model: FastWam, folder: Path) -> None:
    """Load both experts and the proprioception token from LeRobot's policy folder."""
    state = _tensors(folder, "model*.safetensors")
    load_strict(_experts(model), _renamed(state, keymaps.lerobot_key, folder), source=str(folder))


def load_wan_video(model: FastWam, folder: Path) -> None:
    """Load the video expert alone from Wan2.2-TI2V-5B's transformer, either layout."""
    inner = folder / "transformer"
    state = _tensors(inner if inner.is_dir() else folder, WAN_SHARDS)
    state = _renamed(state, keymaps.wan_video_key, folder)
    load_strict(model.video, state, source=str(folder))


def grow_action_expert(model: FastWam, *, seed: int = 0) -> None:
    """Start the action expert from the video expert's resized weights (FAMILIES B.3).

    Its first and last layer, and the proprioception token, are drawn from a seed.
    """
    video = model.video.state_dict()
    for name, own in model.action.state_dict().items():
        if not name.startswith(("action_encoder.", "head.")):
            own.copy_(keymaps.resized(video[name], tuple(own.shape)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in (model.action.action_encoder, model.action.head, model.proprio_encoder):
            fresh = nn.Linear(layer.in_features, layer.out_features)
            layer.load_state_dict(fresh.state_dict())


def load_action_backbone(model: FastWam, file: Path) -> None:
    """Load FastWAM's prepared ActionDiT (backbone_state_dict) instead of resizing.

    Raises:
        CheckpointMismatch: Keys that do not fit; the encoder and head are not part of it.
    """
    payload: Any = torch.load(file, map_location="cpu", weights_only=True)
    state = dict(payload["backbone_state_dict"])
    for name, own in model.action.state_dict().items():
        if name.startswith(("action_encoder.", "head.")):
            state.setdefault(name, own)
    load_strict(model.action, state, source=str(file))


# --------------------------------------------------------------------- frozen parts


def parts_folder(source: str) -> Path:
    """Give the folder of Wan2.2's VAE, text encoder and tokenizer, downloading these alone.

    Raises:
        CheckpointMismatch: Neither a folder nor to be had from the hub.
    """
    wanted = ["vae/*", "text_encoder/*", "tokenizer/*", VAE_FILE, TEXT_FILE, "google/*"]
    return local_folder(source, allow=wanted, advice="pass --set parts=FOLDER")


def load_parts(model: FastWam, folder: Path) -> None:
    """Load the frozen parts, from Wan's own files or diffusers' folders."""
    vae = folder / VAE_FILE if (folder / VAE_FILE).exists() else folder / "vae"
    state = _renamed(read_tensors(vae), keymaps.wan_vae_key, vae)
    load_strict(model.vae.wan, state, source=str(vae))
    text = folder / TEXT_FILE if (folder / TEXT_FILE).exists() else folder / "text_encoder"
    state = _renamed(read_tensors(text), keymaps.umt5_key, text)
    load_strict(model.text.umt5, state, source=str(text))
    for name in TOKENIZER_FOLDERS:
        if (folder / name).is_dir():
            model.text.load_tokenizer(str(folder / name))
            return
    model.text.load_tokenizer()


# ----------------------------------------------------------------------- statistics


def statistics_beside(file: Path) -> Path:
    """Find the statistics of a FastWAM checkpoint.

    Raises:
        CheckpointMismatch: There is none; actions could not be scaled back.
    """
    for path in (
        file.with_name(f"{file.stem}_dataset_stats.json"),
        file.with_name("dataset_stats.json"),
    ):
        if path.exists():
            return path
    raise CheckpointMismatch(
        f"no {file.stem}_dataset_stats.json beside the checkpoint. Pass --set statistics=FILE. "
        f"Folder: {file.parent}"
    )


def read_statistics(path: Path) -> Statistics:
    """Read FastWAM's dataset_stats.json, or ours.

    Theirs has "action" and "state", each with one key (LIBERO: "default") that holds
    global_min, global_max, global_mean, global_std and others.

    Raises:
        CheckpointMismatch: Neither.
    """
    try:
        document = json.loads(path.read_text())
        if "proprio" in document:
            return Statistics.from_json(path.read_text())
        values: dict[str, dict[str, Tensor]] = {}
        for theirs, ours in (("action", "action"), ("state", "proprio")):
            (inner,) = document[theirs].values()
            values[ours] = {
                k.removeprefix("global_"): torch.tensor(v, dtype=torch.float32)
                for k, v in inner.items()
                if k.startswith("global_")
            }
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointMismatch(
            f"no data set's statistics ({error!r}): expected FastWAM's dataset_stats.json or "
            f"our {STATISTICS}. File: {path}"
        ) from error
    return Statistics(values)


def read_lerobot_statistics(folder: Path) -> Statistics:
    """Read the statistics in LeRobot's saved normaliser (keys "action.min", ...).

    Raises:
        CheckpointMismatch: The folder has none.
    """
    for path in sorted(folder.glob("policy_preprocessor*normalizer*.safetensors")):
        tensors = safetensors.torch.load_file(path)
        values: dict[str, dict[str, Tensor]] = {}
        for theirs, ours in (("action", "action"), ("observation.state", "proprio")):
            values[ours] = {
                k.removeprefix(f"{theirs}."): v.float()
                for k, v in tensors.items()
                if k.startswith(f"{theirs}.")
            }
        return Statistics(values)
    raise CheckpointMismatch(
        f"no policy_preprocessor*normalizer*.safetensors. Pass --set statistics=FILE. "
        f"Folder: {folder}"
    )


def lerobot_scaling(config: Path) -> Scaling:
    """Read how LeRobot's checkpoint scales actions (its default is mean and spread)."""
    modes = json.loads(config.read_text()).get("normalization_mapping", {})
    used = {str(modes.get(k, "MEAN_STD")).upper() for k in ("ACTION", "STATE")}
    known = {"MIN_MAX": Scaling.MIN_MAX, "MEAN_STD": Scaling.Z_SCORE}
    if len(used) != 1 or not used <= set(known):
        raise CheckpointMismatch(
            f"normalization_mapping asks for {', '.join(sorted(used))}; actions and state must "
            f"both be MIN_MAX or both MEAN_STD. File: {config}"
        )
    return known[used.pop()]


# ------------------------------------------------------------------------- helpers


def _experts(model: FastWam) -> nn.Module:
    """Give what a FastWAM checkpoint holds, under its names."""
    return nn.ModuleDict({"mixtures": model.mixtures, "proprio_encoder": model.proprio_encoder})


def _tensors(folder: Path, pattern: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for shard in sorted(folder.glob(pattern)):
        found.update(safetensors.torch.load_file(shard))
    if not found:
        raise CheckpointMismatch(f"no {pattern} (LeRobot writes {WEIGHTS}). Folder: {folder}")
    return found


def _renamed(
    state: Mapping[str, Tensor], rename: Callable[[str], str | None], source: Path
) -> dict[str, Tensor]:
    """Rename keys. Two names of one tensor may meet; two tensors may not."""
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = rename(key)
        if name is None:
            continue
        if name in out and not torch.equal(out[name], tensor):
            raise CheckpointMismatch(
                f"two different tensors of the checkpoint map to {name!r}, the second is {key!r}. "
                f"Source: {source}"
            )
        out[name] = tensor
    return out
