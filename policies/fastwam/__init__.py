"""Fast-WAM: imagine during training, act without imagining (arXiv:2603.16666).

A video expert and an action expert share every layer's attention. `README.md` beside this
file says what is exact, what is approximate and what is unverified.
"""

from __future__ import annotations

from typing import Any

from policies.fastwam.config import VARIANTS, FastWamOptions
from wamsim.contracts import Policy
from wamsim.registry import PolicyFamily

__all__ = ["FAMILY", "FastWamOptions"]


def _make(variant: str, options: Any) -> Policy:
    from policies.fastwam.build import make_policy  # heavy: listing policies must not need torch

    return make_policy(variant, options)


FAMILY = PolicyFamily(
    name="fastwam",
    config=FastWamOptions,
    make=_make,
    variants=VARIANTS,
    summary="video and action experts with shared attention; acts from the present frame alone",
)
