"""A demonstration set's statistics, for normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.batch import BatchSpec
from policies.checkpoint import Statistics
from wamsim.demonstrations import DemonstrationSet


def statistics_of(demonstrations: DemonstrationSet, spec: BatchSpec, model: Any) -> Statistics:
    """Compute min, max, mean, std and the 1st and 99th percentile of every channel.

    Args:
        demonstrations: All of them, validation included: a few numbers per channel.
        spec: Names the conventions.
        model: Its ``data_actions``, where it has one, says how actions are counted.

    Returns:
        "action" and, where the spec asks for it, "proprio".
    """
    convert: Callable[[Tensor], Tensor] = getattr(model, "data_actions", lambda x: x)
    actions = _together(demonstrations.actions(executed=spec.executed))
    values = {"action": _of(convert(torch.from_numpy(actions)).numpy())}
    if spec.proprio is not None:
        values["proprio"] = _of(_together(demonstrations.proprio(spec.proprio)))
    return Statistics(values)


def _together(parts: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(list(parts))


def _of(rows: NDArray[np.float32]) -> dict[str, Tensor]:
    x = rows.astype(np.float64)
    found = {
        "min": x.min(0), "max": x.max(0), "mean": x.mean(0), "std": x.std(0),
        "q01": np.quantile(x, 0.01, axis=0), "q99": np.quantile(x, 0.99, axis=0),
    }  # fmt: skip
    return {name: torch.from_numpy(value).float() for name, value in found.items()}
