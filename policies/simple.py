"""The two floors that every table needs: acting at random, and not acting at all."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wamsim.contracts import Observation, Policy, PolicyCard, Prediction
from wamsim.conventions import ACTIONS, DELTA_EEF_GRIPPER_CLOSE_POSITIVE, ActionConvention
from wamsim.errors import nearest
from wamsim.registry import PolicyFamily
from wamsim.seeding import generator


@dataclass(frozen=True, kw_only=True)
class SimpleConfig:
    """Options of `random` and `hold`.

    Attributes:
        horizon: Actions predicted per query.
        execute: Env steps run per query.
        action: Name of the action convention to speak; where a suite expects another one
            that no converter leads to, that one.
    """

    horizon: int = 8
    execute: int = 8
    action: str = DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name

    def __post_init__(self) -> None:
        if not 1 <= self.execute <= self.horizon:
            raise ValueError(f"execute={self.execute} must lie in 1..horizon={self.horizon}")
        if self.action not in ACTIONS:
            raise nearest(self.action, ACTIONS, kind="action convention")


def _speaking(config: SimpleConfig, action: ActionConvention) -> SimpleConfig:
    if action.name not in ACTIONS:
        raise nearest(action.name, ACTIONS, kind="action convention")
    return replace(config, action=action.name)


def _card(name: str, config: SimpleConfig, notes: str) -> PolicyCard:
    return PolicyCard(
        name=name,
        action=ACTIONS[config.action],
        horizon=config.horizon,
        execute=config.execute,
        row_batch=False,
        notes=notes,
    )


class RandomPolicy:
    """Uniform in the action box; the gripper is told one thing for a whole chunk.

    Every row draws from its own `Observation.seed` alone.
    """

    def __init__(self, config: SimpleConfig) -> None:
        self._config = config
        self.card = _card("random", config, "uniform actions; what chance achieves")

    def speaking(self, action: ActionConvention) -> RandomPolicy:
        """The same in another convention."""
        return RandomPolicy(_speaking(self._config, action))

    def act(self, obs: Observation) -> Prediction:
        """Draw a chunk for every row."""
        convention = self.card.action
        low, high = np.array(convention.low), np.array(convention.high)
        actions = np.empty((obs.batch, self.card.horizon, convention.dim), np.float32)
        for row, seed in enumerate(obs.seed):
            rng = generator(int(seed))
            actions[row] = rng.uniform(low, high, (self.card.horizon, convention.dim))
            # Fingers need many steps for a stroke: a sign per step would only make them tremble.
            for channel in convention.grippers:
                actions[row, :, channel] = rng.choice([low[channel], high[channel]])
        return Prediction(actions=actions)


class HoldPolicy:
    """The convention's hold action, always: what happens when nobody acts."""

    def __init__(self, config: SimpleConfig) -> None:
        self._config = config
        self.card = _card("hold", config, "never moves; what the start alone achieves")

    def speaking(self, action: ActionConvention) -> HoldPolicy:
        """The same in another convention."""
        return HoldPolicy(_speaking(self._config, action))

    def act(self, obs: Observation) -> Prediction:
        """Hold, in every row."""
        hold = np.asarray(self.card.action.hold, np.float32)
        return Prediction(actions=np.tile(hold, (obs.batch, self.card.horizon, 1)))


def _make_random(variant: str, config: Any) -> Policy:
    return RandomPolicy(config)


def _make_hold(variant: str, config: Any) -> Policy:
    return HoldPolicy(config)


RANDOM = PolicyFamily(
    name="random",
    config=SimpleConfig,
    make=_make_random,
    summary="uniform random actions; the lower bound of every table",
    trained=False,
)
HOLD = PolicyFamily(
    name="hold",
    config=SimpleConfig,
    make=_make_hold,
    summary="never moves; shows what the start alone achieves",
    trained=False,
)
