"""SpatialVLA experts: LLaVA-3D's perception with a flow-matching action expert."""

from __future__ import annotations

from typing import Any

from policies.spatialvla.config import VARIANTS, SpatialVLAOptions
from wamsim.contracts import Policy
from wamsim.errors import nearest
from wamsim.registry import PolicyFamily

__all__ = ["FAMILY", "SpatialVLAOptions"]


def _make(variant: str, options: Any) -> Policy:
    if variant not in VARIANTS:
        raise nearest(variant, VARIANTS, kind="variant of spatialvla")
    from policies.spatialvla.policy import build  # heavy: listing policies must not need torch

    return build(variant, options)


FAMILY = PolicyFamily(
    name="spatialvla",
    config=SpatialVLAOptions,
    make=_make,
    variants=VARIANTS,
    summary="LLaVA-3D perception (RGB-D, voxels) with a flow-matching action expert",
)
