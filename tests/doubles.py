"""Small real doubles: policies that say what they see, and a loop to run them in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from counting_pool import (
    INDEX_STEP,
    LAYOUT,
    SIZE,
    CountingPool,
    Mishap,
    key,
    picture,
    pool_for,
    task,
)

from wamsim.contracts import (
    EpisodeKey,
    ImaginationSpec,
    Imagined,
    Observation,
    PolicyCard,
    Prediction,
    WorldModelCard,
)
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE
from wamsim.episode import Episode, Record, read_episode
from wamsim.rollout import Observer, Rollout, RolloutOptions
from wamsim.run_folder import RunFolder

__all__ = [
    "INDEX_STEP", "LAYOUT", "SIZE", "CountingPolicy", "CountingPool", "CountingWorld", "Mishap",
    "Watcher", "card", "key", "open_folder", "picture", "pool_for", "roll", "sees", "task",
    "untimed",
]  # fmt: skip


def card(**changes: Any) -> PolicyCard:
    fields: dict[str, Any] = {
        "name": "counting",
        "action": DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
        "horizon": 4,
        "execute": 2,
        "image_size": SIZE,
    }
    return PolicyCard(**{**fields, **changes})


def sees(horizons: tuple[int, ...], **changes: Any) -> ImaginationSpec:
    """A spec whose latents are step numbers, one a horizon."""
    fields: dict[str, Any] = {
        "horizons": horizons,
        "frame_offsets": (0, *horizons),
        "cameras": ("front",),
        "image_size": SIZE,
        "latent_shape": (1,),
    }
    return ImaginationSpec(**{**fields, **changes})


class CountingPolicy:
    """Action h of a query at step s is (s + h + 1) / 100; memory counts the queries.

    Args:
        card: What it says of itself.
        alter: Changes its answers, for tests of what the harness makes of them.
    """

    def __init__(
        self,
        card: PolicyCard,
        alter: Callable[[Observation, Prediction], Prediction] = lambda _, answer: answer,
    ) -> None:
        self.card = card
        self.seen: list[Observation] = []
        self._alter = alter

    def act(self, obs: Observation) -> Prediction:
        self.seen.append(obs)
        actions = np.zeros((obs.batch, self.card.horizon, self.card.action.dim), np.float32)
        actions[..., 0] = (obs.step[:, None] + np.arange(1, self.card.horizon + 1)) / 100
        answer = Prediction(
            actions=actions,
            imagined=self._imagined(obs),
            value=(obs.step / 100).astype(np.float32) if self.card.predicts_value else None,
            memory=[(m or 0) + 1 for m in obs.memory],
        )
        return self._alter(obs, answer)

    def _imagined(self, obs: Observation) -> Imagined | None:
        spec = self.card.imagines
        if spec is None or (spec.on_request and not obs.imagine):
            return None
        return Imagined(latents=(obs.step[:, None] + np.array(spec.horizons))[..., None] + 0.25)

    def encode(self, frames: np.ndarray) -> np.ndarray:
        spec = self.card.imagines
        assert spec is not None
        at = [spec.frame_offsets.index(h) for h in spec.horizons]
        return frames[:, at, 0, 0, 0, :1].astype(np.float32)  # the env step that a frame shows


class CountingWorld:
    """A world model that foresees step numbers: those of its last frame, plus the horizons."""

    def __init__(self, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "name": "world",
            "cameras": ("front",),
            "image_size": SIZE,
            "past_offsets": (-3, 0),
            "action": DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
            "future_actions": 3,
            "imagines": sees((2,)),
        }
        self.card = WorldModelCard(**{**fields, **changes})
        self.seen: list[SimpleNamespace] = []

    def imagine(
        self, past_frames: np.ndarray, past_actions: np.ndarray, future_actions: np.ndarray,
        seed: np.ndarray,
    ) -> Imagined:  # fmt: skip
        self.seen.append(
            SimpleNamespace(frames=past_frames, past=past_actions, future=future_actions, seed=seed)
        )
        now = past_frames[:, -1, 0, 0, 0, 0].astype(float)
        latents = now[:, None, None] + np.array(self.card.imagines.horizons)[:, None] + 0.5
        return Imagined(latents=latents)

    def encode(self, frames: np.ndarray) -> np.ndarray:
        return frames[:, 1:, 0, 0, 0, :1].astype(np.float32)


# ----------------------------------------------------------------------------- running


@dataclass
class Watcher(Observer):
    """Keeps what a rollout says."""

    records: list[Record] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    steps: int = 0

    def episode(self, record: Record) -> None:
        self.records.append(record)

    def stepped(self, steps: int) -> None:
        self.steps += steps

    def said(self, sentence: str) -> None:
        self.sentences.append(sentence)


def open_folder(path: Path) -> RunFolder:
    return RunFolder.open(path, {"policy": "counting"}, {"machine": "a table"})


def roll(
    path: Path,
    policy: Any,
    pool: CountingPool,
    keys: Sequence[EpisodeKey] = (key(0),),
    *,
    watcher: Watcher | None = None,
    world: Any = None,
    **options: Any,
) -> dict[EpisodeKey, Episode]:
    """Run episodes into a new run folder and read them back."""
    with open_folder(path) as folder:
        rollout = Rollout(
            policy, pool, folder, RolloutOptions(**options), [watcher] if watcher else [], world
        )
        rollout.run(keys, {"toy": 3})
        return {
            k: read_episode(path)
            for k, path in folder.finished(rerun_errors=False).episodes.items()
        }


def untimed(episode: Episode) -> tuple[Record, list[str]]:
    """A record without its clock times, and the names of its arrays."""
    return replace(episode.record, timings={}), sorted(episode.arrays)
