"""A training's state on disk: weights, their average, the optimizer's moments, the step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from policies.checkpoint import CheckpointMismatch
from wamsim.errors import ConfigurationMismatch
from wamsim.whole_file import write_whole

STATE = "state.safetensors"
_HEADER = "wamsim.training"


def save_state(
    path: Path,
    *,
    model: nn.Module,
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    names: list[str],
    step: int,
    config_hash: str,
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the state, whole or not at all.

    Args:
        path: The file; replaced.
        model: All of its tensors.
        average: The moving average.
        optimizer: AdamW.
        names: Of its parameters, in its order.
        step: Optimizer steps done.
        config_hash: Of what decides the training; `load_state` refuses another.
        extra: Of a part.
    """
    tensors: dict[str, Tensor] = {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average/{k}": v for k, v in average.items()}
    tensors |= {f"extra/{k}": v for k, v in (extra or {}).items()}
    moments: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    for number, values in moments.items():
        for kind, value in values.items():
            tensors[f"optimizer/{kind}/{names[number]}"] = torch.as_tensor(value)
    plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    header = json.dumps({"step": step, "config_hash": config_hash})
    write_whole(path, safetensors.torch.save(plain, metadata={_HEADER: header}))


def load_state(
    path: Path,
    *,
    model: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    names: list[str],
    config_hash: str,
) -> tuple[int, dict[str, Tensor]]:
    """Read what `save_state` wrote, into place.

    Returns:
        Optimizer steps done, and the extra tensors.

    Raises:
        ConfigurationMismatch: The folder holds another training.
        CheckpointMismatch: The file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            header: dict[str, Any] = json.loads(metadata[_HEADER])
            tensors: dict[str, Tensor] = {k: file.get_tensor(k) for k in file.keys()}
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise CheckpointMismatch(
            f"the training's state cannot be read ({error!r}). Delete it to begin again. "
            f"File: {path}"
        ) from error
    if header["config_hash"] != config_hash:
        raise ConfigurationMismatch(
            f"the folder holds a training with another configuration, model or data. Choose "
            f"another --out, or delete it. File: {path}"
        )

    def below(prefix: str) -> dict[str, Tensor]:
        return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

    model.load_state_dict(below("model/"))
    for name, value in below("average/").items():
        average[name].copy_(value)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in below("optimizer/").items():
        kind, name = key.split("/", 1)
        moments.setdefault(names.index(name), {})[kind] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": whole["param_groups"]})
    return int(header["step"]), below("extra/")
