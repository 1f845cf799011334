"""Runs for the viewer without a simulator: episodes that can be drawn are grey, step by step."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from episode_doubles import PROVENANCE, folder_record

from wamsim.contracts import EpisodeKey, Outcome, Task
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, PANDA_STATE
from wamsim.episode import Episode, Record, read_episode, write_episode
from wamsim.errors import ConfigurationMismatch, RecordCorrupt
from wamsim.run_folder import RunFolder, episode_files

CAMERAS = ("front", "hand")
OUTCOMES = {"+": Outcome.SUCCESS, "-": Outcome.FAILURE, "e": Outcome.ERROR}
STEPS = 9
VERSION = 1


def grey(step: int, camera: int = 0) -> int:
    """What the double draws: a shade a step, another per camera."""
    return min(20 + 10 * step + 5 * camera, 255)


@dataclass(frozen=True)
class GreyIllustrator:
    """Draws grey pictures; an episode of the task "gone" cannot be drawn.

    Attributes:
        pause_s: Seconds that a picture takes.
    """

    pause_s: float = 0.0

    def task(self, config: Mapping[str, Any], record: Record) -> Task:
        if record.suite_version != VERSION:
            raise ConfigurationMismatch("recorded with another version")
        return Task(
            suite=record.key.suite,
            index=0,
            name=record.key.task,
            instruction="",
            goal="On(a, b)",
            control_hz=20.0,
            max_steps=40,
            settle_steps=0,
            cameras=(*CAMERAS, "top"),
            action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
            robot_state=PANDA_STATE,
            n_initial_states=10,
            scene_id="grey",
        )

    def standard_cameras(self, task: Task) -> tuple[str, ...]:
        return CAMERAS

    def artist(self) -> GreyArtist:
        return GreyArtist(self.pause_s)


class GreyArtist:
    def __init__(self, pause_s: float) -> None:
        self.pause_s = pause_s

    def draw(
        self,
        path: Path,
        config: Mapping[str, Any],
        cameras: Sequence[str],
        size: tuple[int, int],
        steps: Sequence[int],
    ) -> Iterator[np.ndarray]:
        record = read_episode(path, only=()).record
        if record.key.task == "gone":
            raise RecordCorrupt("its scene is gone")
        for step in steps:
            time.sleep(self.pause_s)
            out = np.zeros((len(cameras), *size, 3), np.uint8)
            for c, camera in enumerate(cameras):
                out[c] = grey(step, (*CAMERAS, "top").index(camera))
            yield out

    def close(self) -> None:
        pass


def write_run(
    path: Path,
    tasks: Mapping[str, str] | None = None,
    *,
    policy: str = "oracle",
    instruction: str = "push the plate",
    planned: int = 0,
    suite: str = "s",
    version: int = VERSION,
    seed: int = 0,
    value: bool = False,
) -> Path:
    """Write a run.

    Args:
        tasks: Task -> one letter an episode (+ - e).
        planned: Trials per task that were asked for.
    """
    tasks = tasks or {"t": "+-"}
    keys = [EpisodeKey(suite, task, i) for task in tasks for i in range(planned)]
    with RunFolder.open(path, {"policy": policy, "seed": seed}, PROVENANCE, keys) as folder:
        for task, outcomes in tasks.items():
            for i, letter in enumerate(outcomes):
                key = EpisodeKey(suite, task, i)
                add(folder, key, letter, policy, instruction, version, seed, value)
    return path


def add(
    folder: RunFolder,
    key: EpisodeKey,
    letter: str = "+",
    policy: str = "oracle",
    instruction: str = "push the plate",
    version: int = VERSION,
    seed: int = 0,
    value: bool = False,
) -> Path:
    """Write one episode of `STEPS` steps into an open run."""
    fields: dict[str, Any] = {"steps": STEPS, "success_step": STEPS}
    if letter != "+":
        fields |= {"success_step": None, "reason": "step limit"}
    record = folder_record(
        folder,
        key,
        outcome=OUTCOMES[letter],
        policy=policy,
        instruction=instruction,
        suite_version=version,
        run_seed=seed,
        timings={"started_unix_s": 1e9 + key.index, "wall_s": 2.0, "latency_s": 0.5},
        notes={},
        **fields,
    )
    arrays = {
        "actions": np.arange(STEPS * 7, dtype=np.float32).reshape(STEPS, 7) / 100,
        "query_steps": np.array([0, 4, 8], np.int32),
        "timing_act_s": np.array([0.5, 0.25, 0.75]),
        "robot_state": np.arange((STEPS + 1) * 25, dtype=np.float64).reshape(STEPS + 1, 25),
        "seen_qpos": np.zeros((STEPS + 1, 3)),
    }
    if value:
        arrays["value"] = np.array([0.25, 0.5, 0.75], np.float32)
    return folder.write(Episode(record, arrays))


def say_cameras(run: Path) -> None:
    """Add to the episodes' notes which cameras the imaginer sees, and enough steps."""
    for path in episode_files(run):
        episode = read_episode(path)
        notes = {
            "imagination": {"": {**episode.record.notes["imagination"][""], "cameras": ["front"]}}
        }
        won = {"success_step": 40} if episode.record.success_step is not None else {}
        record = dataclasses.replace(episode.record, notes=notes, steps=40, **won)
        write_episode(run, dataclasses.replace(episode, record=record))
