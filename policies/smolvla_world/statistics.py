"""Where LeRobot policies keep mean and standard deviation of actions and state.

Newer checkpoints: the normaliser's own .safetensors file. Older ones: buffers among the
weights, with a data set's name in them where there were several. Else a stats.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from policies.checkpoint import CheckpointMismatch, Statistics, read_tensors

_BUFFER = re.compile(
    r"(?:normalize_inputs|normalize_targets|unnormalize_outputs)\."
    r"(?:[\w-]+[._])?buffer[_.](observation_state|observation\.state|action)\.(mean|std)"
)


def find_statistics(folder: Path, state: Mapping[str, Tensor], given: str | None) -> Statistics:
    """Find mean and std of action and state.

    Args:
        folder: Of the checkpoint.
        state: Its tensors, for buffers of older checkpoints.
        given: A stats.json, which goes before everything else.

    Raises:
        CheckpointMismatch: There are none, or several data sets' worth.
    """
    if given is not None:
        try:
            found = json.loads(Path(given).read_text())
        except (OSError, ValueError) as error:
            raise CheckpointMismatch(f"statistics={given!r} is not to be read: {error}") from error
        values = {
            f"{what}.{kind}": torch.tensor(found[what][kind], dtype=torch.float32)
            for what in ("action", "observation.state")
            for kind in ("mean", "std")
            if kind in found.get(what, {})
        }
        return _statistics(values, str(given))
    files = sorted(folder.glob("policy_preprocessor_step_*_normalizer_processor.safetensors"))
    if files:
        return _statistics(read_tensors(files[0]), str(files[0]))
    buffers: dict[str, Tensor] = {}
    for key, tensor in state.items():
        match = _BUFFER.fullmatch(key)
        if match is None:
            continue
        name = f"{match[1].replace('observation_state', 'observation.state')}.{match[2]}"
        if name in buffers and not torch.equal(buffers[name], tensor):
            raise CheckpointMismatch(
                f"the checkpoint holds {name} of several data sets (the second: {key}); give "
                f"the right one with statistics=<its meta/stats.json>"
            )
        buffers[name] = tensor
    return _statistics(buffers, str(folder))


def _statistics(values: Mapping[str, Tensor], source: str) -> Statistics:
    missing = [k for k in _STATISTICS if k not in values]
    if missing:
        raise CheckpointMismatch(
            f"no statistics {', '.join(missing)}; give statistics=<a data set's "
            f"meta/stats.json>. Looked in: {source}"
        )
    out: dict[str, dict[str, Tensor]] = {"action": {}, "proprio": {}}
    for name, (what, kind) in _STATISTICS.items():
        out[what][kind] = values[name].float().flatten()
    return Statistics(out)


_STATISTICS = {
    "action.mean": ("action", "mean"), "action.std": ("action", "std"),
    "observation.state.mean": ("proprio", "mean"), "observation.state.std": ("proprio", "std"),
}  # fmt: skip
