"""What the oracles for one arm and for two share: their card, rows one by one, scenes."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from envs.scene import Scene
from policies.oracle.config import OracleConfig
from policies.oracle.geometry import Array
from wamsim.contracts import Observation, PolicyCard, Prediction, PrivilegedState
from wamsim.conventions import ActionConvention
from wamsim.errors import PolicyFault

# state, the row's memory, its seed, env steps done -> actions, what was meant, memory
Row = Callable[[PrivilegedState, Any, int, int], tuple[Array, Array, Any]]
T = TypeVar("T")


def oracle_card(config: OracleConfig, action: ActionConvention) -> PolicyCard:
    """The oracle's card in a convention."""
    return PolicyCard(
        name="oracle",
        action=action,
        horizon=config.execute,
        execute=config.execute,
        privileged=True,
        row_batch=False,
        notes="scripted expert with privileged state; for demonstrations and checks",
    )


def answer(obs: Observation, card: PolicyCard, config: OracleConfig, one: Row) -> Prediction:
    """Ask for every row; a row that has no way to go on is given up alone.

    Raises:
        PolicyFault: No privileged state.
    """
    began = time.perf_counter()
    if obs.state is None:
        raise PolicyFault(
            "the oracle needs privileged state, and the observation has none. "
            "Let the harness fill Observation.state (PolicyCard.privileged)."
        )
    hold = np.asarray(card.action.hold, np.float32)
    actions = np.tile(hold, (obs.batch, card.horizon, 1))
    intended = np.tile(hold, (obs.batch, config.ahead, 1))
    memory: list[Any] = [None] * obs.batch
    faults: dict[int, str] = {}
    for row, state in enumerate(obs.state):
        if state is None or not obs.valid[row]:
            continue
        try:
            actions[row], meant, memory[row] = one(
                state, obs.memory[row], int(obs.seed[row]), int(obs.step[row])
            )
            if config.perturbs:
                intended[row] = meant
        except PolicyFault as fault:
            faults[row] = str(fault)
    return Prediction(
        actions=actions,
        intended=intended if config.perturbs else None,
        memory=memory,
        timings={"plan": time.perf_counter() - began},
        faults=faults,
    )


class PerScene(Generic[T]):
    """What is made once for a scene object, and dropped when its owner drops the scene.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[Scene], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def of(self, scene: Scene) -> T:
        """Give it."""
        number = id(scene)
        if number not in self._made:
            self._made[number] = self._make(scene)
            # Not at exit, and no later than the scene: a LIBERO model takes 100 to 180 MB.
            weakref.finalize(scene, self._made.pop, number, None).atexit = False
        return self._made[number]
