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
        push: Amplitude, in units of actions, of pushes: now and then, for about half a second,
            the hand is driven aside by some centimetres, uncorrected, and the oracle plans
            anew from there. Demonstrations with 0.5 show how to come back from mistakes as
            large as a learner's.
        ahead: Env steps for which what it meant is said, where it perturbs: the longest
            chunk that can be learnt from the demonstration.
        execute: Env steps run per query; 1 to 8.
    """

    noise: float = 0.0
    noise_floor: float = 0.0
    push: float = 0.0
    ahead: int = 8
    execute: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.execute <= 8:
            raise ValueError(f"execute={self.execute} must lie in 1..8")
        if not 0.0 <= self.noise <= 1.0:
            raise ValueError(f"noise={self.noise} must lie in 0..1 (an action's range)")
        if not 0.0 <= self.noise_floor <= 1.0:
            raise ValueError(f"noise_floor={self.noise_floor} must lie in 0..1 (a share)")
        if not 0.0 <= self.push <= 1.0:
            raise ValueError(f"push={self.push} must lie in 0..1 (an action's range)")
        if not 1 <= self.ahead <= 64:
            raise ValueError(f"ahead={self.ahead} must lie in 1..64")
        if self.perturbs and self.execute != 1:
            raise ValueError(
                f"execute={self.execute}: with noise or pushes it must be 1, so that what was "
                f"meant is known at every step"
            )

    @property
    def perturbs(self) -> bool:
        """Whether it does something else than it means."""
        return self.noise > 0 or self.push > 0
