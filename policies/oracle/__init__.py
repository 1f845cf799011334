"""The scripted oracle: plans from the goal expression with privileged state."""

from __future__ import annotations

from typing import Any

from policies.oracle.config import OracleConfig
from wamsim.contracts import Policy
from wamsim.registry import PolicyFamily

__all__ = ["FAMILY", "OracleConfig"]


def _make(variant: str, config: Any) -> Policy:
    from policies.oracle.policy import Oracle  # heavy: listing policies must not need MuJoCo

    return Oracle(config)


FAMILY = PolicyFamily(
    name="oracle",
    config=OracleConfig,
    make=_make,
    summary="scripted expert with privileged state; makes demonstrations",
    trained=False,
)
