"""What a run foresaw as plain data, for results pages."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any, cast

from wamsim.imagination.episodes import RunImagination
from wamsim.imagination.resampling import Estimate
from wamsim.imagination.summary import GroupSummary, summarise, value_summary

DOCUMENT_VERSION = 1


def to_dict(
    run: RunImagination, by: Sequence[str] = ("policy", "suite", "task", "episode")
) -> dict[str, Any]:
    """Give everything as plain data for a results page: numbers at full precision.

    Every estimate is ``{"value", "low", "high"}``; null is no data, and also an infinite
    PSNR (its mse is then 0). By-episode entries have no intervals.
    """
    value = value_summary(run)
    document = {
        "version": DOCUMENT_VERSION,
        "run": run.path.name,
        "policy": run.policy,
        "errors": run.errors,
        "undescribed": run.undescribed,
        "imaginers": [
            {
                "imaginer": imaginer.imaginer,
                "world_model": imaginer.world,
                "horizons": list(imaginer.horizons),
                "execute": imaginer.execute,
                "by": {name: [_group(g) for g in summarise(imaginer, name)] for name in by},
            }
            for imaginer in run.imaginers
        ],
        "value": None if value is None else {
            f.name: getattr(value, f.name) for f in dataclasses.fields(value)
        },
    }  # fmt: skip
    return cast(dict[str, Any], _plain(document))


def to_json(run: RunImagination) -> str:
    """Write `to_dict` as JSON."""
    return json.dumps(to_dict(run), indent=1, allow_nan=False) + "\n"


def _group(group: GroupSummary) -> dict[str, Any]:
    names = ("suite", "task", "index")
    return {
        **dict(zip(names, group.label, strict=False)),
        "episodes": group.episodes,
        "horizons": [
            {f.name: getattr(one, f.name) for f in dataclasses.fields(one)}
            for one in group.horizons
        ],
    }


def _plain(x: Any) -> Any:
    if isinstance(x, Estimate):
        low, high = x.interval or (None, None)
        return {"value": _plain(x.value), "low": low, "high": high}
    if dataclasses.is_dataclass(x):
        return {f.name: _plain(getattr(x, f.name)) for f in dataclasses.fields(x)}
    if isinstance(x, dict):
        return {str(k): _plain(v) for k, v in cast(dict[Any, Any], x).items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in cast(Sequence[Any], x)]
    return None if isinstance(x, float) and not math.isfinite(x) else x
