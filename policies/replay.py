"""Plays the actions of a recorded run again: the same outcome and states, bit for bit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wamsim.contracts import (
    EpisodeKey,
    Observation,
    Policy,
    PolicyCard,
    Prediction,
    PrivilegedState,
)
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, ActionConvention
from wamsim.episode import Record, episode_path, read_episode
from wamsim.errors import PolicyFault
from wamsim.registry import PolicyFamily

KEPT = 64  # episodes whose actions stay in memory; more than the slots of any run


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Options of `replay`.

    Attributes:
        run: Run folder whose episodes are played again.
        execute: Env steps run per query; changes nothing but how often it is asked.
    """

    run: Path
    execute: int = 8

    def __post_init__(self) -> None:
        if self.execute < 1:
            raise ValueError(f"execute={self.execute} must be at least 1")


class Replay:
    """Gives each episode the actions that the run folder's episode of the same key had."""

    verbatim = True  # recorded actions are in the suite's own convention

    def __init__(
        self, config: ReplayConfig, action: ActionConvention = DELTA_EEF_GRIPPER_CLOSE_POSITIVE
    ) -> None:
        self._config = config
        self._run = config.run
        self._episodes: OrderedDict[EpisodeKey, tuple[Record, NDArray[np.float32]]] = OrderedDict()
        self.card = PolicyCard(
            name="replay",
            action=action,
            horizon=config.execute,
            execute=config.execute,
            privileged=True,  # for the episode's key and its fixtures
            row_batch=False,
            notes=f"recorded actions of {config.run.name}",
        )

    def speaking(self, action: ActionConvention) -> Replay:
        """The same run in another suite's convention."""
        return Replay(self._config, action)

    def act(self, obs: Observation) -> Prediction:
        """Give every row its next recorded actions.

        Raises:
            PolicyFault: No such episode in the run folder, or it started differently.
        """
        if obs.state is None:
            raise PolicyFault(
                "replay needs privileged state to know the episode, and the observation has none. "
                "Let the harness fill Observation.state (PolicyCard.privileged)."
            )
        hold = np.asarray(self.card.action.hold, np.float32)
        actions = np.tile(hold, (obs.batch, self.card.horizon, 1))
        for row, state in enumerate(obs.state):
            if state is None or not obs.valid[row]:
                continue
            record, recorded = self._episode(state.key)
            if obs.first[row]:
                _check_start(record, state)
            step = int(obs.step[row])
            left = recorded[step : step + self.card.horizon]
            actions[row, : len(left)] = left  # past the record's end it holds
        return Prediction(actions=actions)

    def _episode(self, key: EpisodeKey) -> tuple[Record, NDArray[np.float32]]:
        found = self._episodes.pop(key, None) or self._read(key)
        self._episodes[key] = found
        while len(self._episodes) > KEPT:
            self._episodes.popitem(last=False)
        return found

    def _read(self, key: EpisodeKey) -> tuple[Record, NDArray[np.float32]]:
        path = episode_path(self._run, key)
        if not path.is_file():
            raise PolicyFault(
                f"the run has no episode {key.index} of {key.suite}/{key.task}. Replay the suites, "
                f"tasks and number of episodes that it recorded: {self._run}"
            )
        episode = read_episode(path, only={"actions"})
        actions = np.asarray(episode.arrays["actions"], np.float32)
        if actions.ndim != 2 or actions.shape[1] != self.card.action.dim:
            raise PolicyFault(
                f"recorded actions have shape {actions.shape}, expected [steps, "
                f"{self.card.action.dim}] in {self.card.action.name}. Replay a run of a suite with "
                f"that convention: {path}"
            )
        return episode.record, actions


def _check_start(record: Record, state: PrivilegedState) -> None:
    """Refuse an episode whose fixtures stand elsewhere than in the record."""
    differing = sorted(
        name
        for name in {*record.fixtures, *state.fixtures}
        if not _same_pose(record.fixtures, state.fixtures, name)
    )
    if differing:
        raise PolicyFault(
            f"episode {state.key.index} of {state.key.suite}/{state.key.task} has "
            f"{', '.join(differing)} in another place than the record, whose run seed was "
            f"{record.run_seed}. Pass --seed {record.run_seed}."
        )


def _same_pose(recorded: Mapping[str, Any], present: Mapping[str, Any], name: str) -> bool:
    if name not in recorded or name not in present:
        return False
    return all(
        np.array_equal(np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(recorded[name], present[name], strict=True)
    )


def _make(variant: str, config: Any) -> Policy:
    return Replay(config)


FAMILY = PolicyFamily(
    name="replay",
    config=ReplayConfig,
    make=_make,
    summary="plays a recorded run's actions again (--set run=FOLDER)",
    trained=False,
)
