"""A learner practises under the oracle's eyes: demonstrations from where the learner gets to.

Demonstrations show states that an expert gets into. A learner's own mistakes lead elsewhere,
and there it has never been told what to do. Here the learner drives in turns; at every step
the oracle says what it would do, which is what is learnt, and between the turns it drives
itself, so that episodes end well. Where fingers close and open the oracle keeps the wheel.
Source: Ross et al. 2011 (DAgger, arXiv:1011.0686); taking over in turns as in Kelly et al.
2019 (HG-DAgger, arXiv:1810.02890), here by chance instead of by a person's judgement.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.oracle.config import OracleConfig
from policies.reference import with_reference
from wamsim import registry
from wamsim.contracts import Observation, Policy, Prediction, PrivilegedState
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE
from wamsim.errors import ConventionMismatch
from wamsim.registry import PolicyChoice, PolicyFamily
from wamsim.seeding import generator

# Turns: long enough to get to where a learner hovers, and seldom enough that most episodes of
# 240 steps (tabletop's limit) still end well.
TURN_EVERY, TURN_SHORTEST, TURN_LONGEST = 60, 12, 48  # steps

Actions = NDArray[np.float32]
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PracticeConfig:
    """Options of `practice`.

    Attributes:
        learner: ``family:variant`` of who drives in turns.
        weights: Its checkpoint; None takes the reference's.
        share: Of the turns that could be the learner's, how many are.
        noise, noise_floor, ahead: The oracle's, see `OracleConfig`.
    """

    learner: str
    weights: str | None = None
    share: float = 0.8
    noise: float = 0.3
    noise_floor: float = 0.5
    ahead: int = 8

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share={self.share} must lie in 0..1")
        if self.noise <= 0.0:
            raise ValueError(
                f"noise={self.noise} must be above 0: only a perturbed oracle records what it meant"
            )
        self.for_oracle()  # checks the rest

    def for_oracle(self) -> OracleConfig:
        """Give the oracle's options."""
        return OracleConfig(noise=self.noise, noise_floor=self.noise_floor, ahead=self.ahead)


def _nothing() -> Actions:
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """What a row remembers.

    Attributes:
        seed: Of the episode's first query; turns follow from it.
        oracle: The oracle's own.
        led: Whether the last step was the learner's.
        asked: How often the learner has been asked in this turn; every turn it begins afresh.
        learner: The learner's own.
        queue: [n, A] actions that the learner has said and that are still to be done.
    """

    seed: int
    oracle: Any = None
    led: bool = False
    asked: int = 0
    learner: Any = None
    queue: Actions = field(default_factory=_nothing)


class Practice:
    """The oracle with a learner at the wheel in turns.

    Args:
        learner: Who learns.
        config: See `PracticeConfig`.

    Raises:
        ConventionMismatch: It speaks another convention than the oracle.
    """

    def __init__(self, learner: Policy, config: PracticeConfig) -> None:
        from policies.oracle.policy import Oracle  # heavy: MuJoCo

        self._config, self._learner = config, learner
        self._oracle = Oracle(config.for_oracle())
        self.model = getattr(learner, "model", None)  # whose weights a run names
        card = learner.card
        if card.action != DELTA_EEF_GRIPPER_CLOSE_POSITIVE:
            raise ConventionMismatch(
                f"{card.name} speaks {card.action.name}, and the oracle can only take over from "
                f"{DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name}. Practise with a learner of one arm."
            )
        self.card = dataclasses.replace(
            card,
            name="practice",
            horizon=1,
            execute=1,
            imagines=None,
            predicts_value=False,
            privileged=True,
            notes=f"{card.name} drives in turns, the oracle says what it would do",
        )

    def check_task(self, task: Any) -> None:
        """Refuse what the oracle refuses; see `Oracle.check_task`."""
        self._oracle.check_task(task)

    def act(self, obs: Observation) -> Prediction:
        """Give every row's next action, and what the oracle meant.

        Raises:
            PolicyFault: No privileged state.
        """
        from policies.oracle.rows import answer  # heavy: MuJoCo

        found = answer(obs, self.card, self._config.for_oracle(), self._row)
        assert found.memory is not None
        began, actions, memory = time.perf_counter(), found.actions, list(found.memory)
        self._ask(obs, memory)
        for row, own in enumerate(memory):
            if own is not None and own.led:
                actions[row, 0] = own.queue[0]
                memory[row] = dataclasses.replace(own, queue=own.queue[1:])
        seconds = {**found.timings, "learner": time.perf_counter() - began}
        return dataclasses.replace(found, memory=memory, timings=seconds)

    def _row(
        self, state: PrivilegedState, memory: Memory | None, seed: int, step: int
    ) -> tuple[Array, Array, Memory]:
        before = memory or Memory(seed=seed)
        actions, meant, after, busy = self._oracle.watch(
            state, before.oracle, before.seed, step, strayed=before.led
        )
        if not busy and leads_at(before.seed, step, self._config.share):
            return actions, meant, dataclasses.replace(before, oracle=after, led=True)
        return actions, meant, Memory(seed=before.seed, oracle=after)

    def _ask(self, obs: Observation, memory: list[Memory | None]) -> None:
        """Let the learner say the next actions of those rows where it leads and has none left."""
        asks = [m is not None and m.led and not len(m.queue) for m in memory]
        if not any(asks):
            return
        said = self._learner.act(
            dataclasses.replace(
                obs, state=None, imagine=False, valid=np.array(asks),
                memory=[m and m.learner for m in memory],
                first=np.array([m is None or m.asked == 0 for m in memory]),
            )
        )  # fmt: skip
        later: Sequence[Any] = said.memory or [None] * obs.batch
        for row, asked in enumerate(asks):
            one = memory[row]
            if asked and one is not None:
                chunk = np.asarray(said.actions[row, : self._learner.card.execute], np.float32)
                memory[row] = dataclasses.replace(
                    one, queue=chunk, learner=later[row], asked=one.asked + 1
                )


def leads_at(seed: int, step: int, share: float) -> bool:
    """Whether a step is the learner's: a function of the episode's seed and the step.

    Every `TURN_EVERY` steps one turn or none begins, at a random moment; half of them at once.
    """
    number, place = divmod(step, TURN_EVERY)
    rng = generator(seed + number)
    length = int(rng.integers(TURN_SHORTEST, TURN_LONGEST + 1))
    begin = int(rng.integers(0, TURN_EVERY - length + 1)) if rng.random() < 0.5 else 0
    return bool(rng.random() < share and begin <= place < begin + length)


def _make(variant: str, config: Any) -> Policy:
    given = {} if config.weights is None else {"checkpoint": config.weights}
    choice: PolicyChoice = with_reference(registry.choose_policy(config.learner, given))
    return Practice(registry.make_policy(choice), config)


FAMILY = PolicyFamily(
    name="practice",
    config=PracticeConfig,
    make=_make,
    summary="a learner drives in turns, the oracle says what it would do (--set learner=NAME)",
    trained=False,
)
