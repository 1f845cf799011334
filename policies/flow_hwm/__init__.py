"""Flow-HWM: a flow-matching world model that foresees what given actions will show."""

from __future__ import annotations

from typing import Any

from policies.flow_hwm.config import VARIANTS
from policies.flow_hwm.options import FlowHWMOptions
from wamsim.contracts import WorldModel
from wamsim.registry import WorldModelFamily

__all__ = ["WORLD_MODEL", "FlowHWMOptions"]


def _make(variant: str, config: Any) -> WorldModel:
    from policies.flow_hwm.world import build  # heavy: listing families must not need torch

    return build(variant, config)


WORLD_MODEL = WorldModelFamily(
    name="flow_hwm",
    config=FlowHWMOptions,
    make=_make,
    variants=VARIANTS,
    summary="Flow-HWM: imagines future video latents from past frames and a plan of actions",
)
