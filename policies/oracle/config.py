"""Options of the oracle."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class OracleConfig:
    """Options of the oracle.

    Attributes:
        noise: Amplitude, in units of actions, of a smooth perturbation that the oracle
            then corrects: demonstrations with 0.1 to 0.3 show recoveries. What it meant is
            recorded beside what was done.
        noise_floor: Least share of the perturbation where precision counts (descending,
            closing, lowering); 0 leaves those nearly calm.
        execute: Env steps run per query; 1 to 8.
    """

    noise: float = 0.0
    noise_floor: float = 0.0
    execute: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.execute <= 8:
            raise ValueError(f"execute={self.execute} must lie in 1..8")
        if not 0.0 <= self.noise <= 1.0:
            raise ValueError(f"noise={self.noise} must lie in 0..1 (an action's range)")
        if not 0.0 <= self.noise_floor <= 1.0:
            raise ValueError(f"noise_floor={self.noise_floor} must lie in 0..1 (a share)")
