"""smolvla_world: SmolVLA with predicted V-JEPA 2 features of the future. See README.md."""

from __future__ import annotations

from typing import Any

from policies.smolvla_world.options import SmolVLAWorldOptions
from policies.smolvla_world.presets import VARIANTS
from wamsim.contracts import Policy
from wamsim.registry import PolicyFamily

__all__ = ["FAMILY", "SmolVLAWorldOptions"]


def _make(variant: str, config: Any) -> Policy:
    # heavy: listing policies must need neither torch nor transformers
    from policies.smolvla_world.policy import make

    return make(variant, config)


FAMILY = PolicyFamily(
    name="smolvla_world",
    config=SmolVLAWorldOptions,
    make=_make,
    variants=tuple(VARIANTS),
    summary="SmolVLA with predicted V-JEPA 2 features of the future, and FLARE's tokens",
)
