"""What a run foresaw as plain data, for results pages; and back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from wamsim.imagination.knowing import Bin, ValueSummary
from wamsim.imagination.resampling import Estimate
from wamsim.imagination.summary import (
    GroupSummary,
    HorizonSummary,
    ImaginationSummary,
    ImaginerSummary,
)
from wamsim.intervals import Interval

DOCUMENT_VERSION = 1

_LABEL = ("suite", "task", "index")
_ESTIMATES = ("auroc", "first_auroc", "auroc_within", "brier")


def to_dict(run: ImaginationSummary) -> dict[str, Any]:
    """Give everything as plain data for a results page: numbers at full precision.

    Every estimate is ``{"value", "low", "high"}``; null is no data, and also an infinite
    PSNR (its mse is then 0). By-episode entries have no intervals.
    """
    value = run.value
    document = {
        "version": DOCUMENT_VERSION,
        "run": run.run,
        "policy": run.policy,
        "errors": run.errors,
        "undescribed": run.undescribed,
        "imaginers": [
            {
                "imaginer": imaginer.imaginer,
                "world_model": imaginer.world,
                "horizons": list(imaginer.horizons),
                "execute": imaginer.execute,
                "unpictured": imaginer.unpictured,
                "by": {name: [_group(g) for g in groups] for name, groups in imaginer.by.items()},
            }
            for imaginer in run.imaginers
        ],
        "value": None if value is None else {
            f.name: getattr(value, f.name) for f in dataclasses.fields(value)
        },
    }  # fmt: skip
    return cast(dict[str, Any], _plain(document))


def to_json(run: ImaginationSummary) -> str:
    """Write `to_dict` as JSON."""
    return json.dumps(to_dict(run), indent=1, allow_nan=False) + "\n"


def from_dict(document: Mapping[str, Any]) -> ImaginationSummary:
    """Undo `to_dict`, but for an infinite PSNR, which is then no data.

    Raises:
        KeyError, TypeError, ValueError: It is not such a document.
    """
    if document["version"] != DOCUMENT_VERSION:
        raise ValueError(f"version {document['version']} of imagination is not known")
    value = document["value"]
    return ImaginationSummary(
        run=document["run"],
        policy=document["policy"],
        errors=document["errors"],
        undescribed=document["undescribed"],
        imaginers=tuple(
            ImaginerSummary(
                imaginer=one["imaginer"],
                world=one["world_model"],
                horizons=tuple(one["horizons"]),
                execute=one["execute"],
                unpictured=one["unpictured"],
                by={name: tuple(map(_read_group, groups)) for name, groups in one["by"].items()},
            )
            for one in document["imaginers"]
        ),
        value=None if value is None else _read_value(value),
    )


def _read_value(value: Mapping[str, Any]) -> ValueSummary:
    found: dict[str, Any] = {**value, "bins": tuple(Bin(**b) for b in value["bins"])}
    found.update((name, _read(found[name])) for name in _ESTIMATES)
    return ValueSummary(**found)


def _read_group(group: Mapping[str, Any]) -> GroupSummary:
    return GroupSummary(
        label=tuple(group[name] for name in _LABEL if name in group),
        episodes=group["episodes"],
        horizons=tuple(map(_read_horizon, group["horizons"])),
    )


def _read_horizon(one: Mapping[str, Any]) -> HorizonSummary:
    found: dict[str, Any] = {
        **one,
        "metrics": {name: _read(x) for name, x in one["metrics"].items()},
        "auroc": _read(one["auroc"]),
        "auroc_within": _read(one["auroc_within"]),
    }
    return HorizonSummary(**found)


def _read(estimate: Mapping[str, Any]) -> Estimate:
    low, high = estimate["low"], estimate["high"]
    return Estimate(estimate["value"], None if low is None else Interval(low, high))


def _group(group: GroupSummary) -> dict[str, Any]:
    return {
        **dict(zip(_LABEL, group.label, strict=False)),
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
