"""Small real doubles: a pool whose pictures count, policies that say what they see.

Run as a program, this file evaluates `PixelPolicy`, for tests that kill a run.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from wamsim import gallery
from wamsim.contracts import (
    EpisodeKey,
    ImaginationSpec,
    Imagined,
    Observation,
    PolicyCard,
    Prediction,
    Task,
    WorldModelCard,
)
from wamsim.conventions import (
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    EEF_AXIS_ANGLE_GRIPPER,
    ProprioConvention,
    RobotStateLayout,
)
from wamsim.episode import Episode, Record, read_episode
from wamsim.messages import Began, Failed, Lost, Ran, Reply, View
from wamsim.rollout import Observer, Rollout, RolloutOptions
from wamsim.run_folder import RunFolder

SIZE = (2, 3)  # height, width: unequal, so that swapped axes show
LAYOUT = RobotStateLayout(fields=(("step", 1), ("index", 1)))
INDEX_STEP = ProprioConvention(name="INDEX_STEP", fields=("index", "step"), dim=2)


def task(name: str = "count", **changes: Any) -> Task:
    fields: dict[str, Any] = {
        "suite": "toy",
        "index": 0,
        "name": name,
        "instruction": f"{name}, please",
        "goal": "",
        "control_hz": 20.0,
        "max_steps": 10,
        "settle_steps": 0,
        "cameras": ("front", "wrist"),
        "action": DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
        "robot_state": LAYOUT,
        "n_initial_states": 5,
        "scene_id": "room",
    }
    return Task(**{**fields, **changes})


def key(index: int, name: str = "count") -> EpisodeKey:
    return EpisodeKey("toy", name, index)


def picture(step: int, index: int, camera: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Every pixel is (env step, trial, 100 * camera + 10 * row + column)."""
    out = np.empty((*size, 3), np.uint8)
    out[..., 0], out[..., 1] = step, index
    out[..., 2] = 100 * camera + 10 * np.arange(size[0])[:, None] + np.arange(size[1])
    return out


@dataclass(frozen=True)
class Mishap:
    """What goes wrong when a slot would pass env step `at` (0: while it starts)."""

    at: int
    how: str = "lost"  # or "failed"
    error: Exception | None = None


@dataclass
class _Slot:
    key: EpisodeKey
    attempt: int
    step: int = 0


class CountingPool:
    """A `PoolLike` without a simulator: all that a slot shows is its env step and trial.

    Like the real pool, it overwrites a slot's pictures with its next message, and a lost
    worker takes all its slots along.

    Args:
        views: What is looked at.
        tasks: What can be run.
        workers, slots: As the real pool's.
        success: Trial -> env step at which its goal holds.
        mishaps: (trial, attempt) -> what goes wrong; attempts count from 1.
        shuffle: Seed of an order in which replies come; None gives all, oldest first.
    """

    def __init__(
        self,
        views: Sequence[View] = (),
        tasks: Sequence[Task] = (),
        *,
        workers: int = 1,
        slots: int = 1,
        success: Mapping[int, int] | None = None,
        mishaps: Mapping[tuple[int, int], Mishap] | None = None,
        shuffle: int | None = None,
    ) -> None:
        self.views = tuple(views)
        self.num_envs = workers * slots
        self.began: list[tuple[int, EpisodeKey, int]] = []  # slot, key, run seed
        self.sent: list[SimpleNamespace] = []  # slot, key, step, actions, looks
        self._tasks = {t.name: t for t in tasks or (task(),)}
        self._per_worker = slots
        self._success, self._mishaps = dict(success or {}), dict(mishaps or {})
        self._rng = None if shuffle is None else np.random.default_rng(shuffle)
        self._slots: dict[int, _Slot] = {}
        self._replies: list[Reply] = []
        self._memory = [
            [(np.zeros(v.colour_shape(), np.uint8), np.zeros(v.depth_shape(), np.float32))
             for v in self.views]
            for _ in range(self.num_envs)
        ]  # fmt: skip

    def task(self, suite: str, name: str) -> Task:
        return self._tasks[name]

    def scene(self, suite: str, name: str) -> Any:
        return SimpleNamespace(model=SimpleNamespace(nq=1), name=name)

    def worker_of(self, slot: int) -> int:
        return slot // self._per_worker

    def pictures(self, slot: int, view: int) -> tuple[np.ndarray, np.ndarray]:
        return self._memory[slot][view]

    def receive(self, timeout: float | None = None) -> list[Reply]:
        assert self._replies, "the rollout waits for nothing"
        if self._rng is None:
            found, self._replies = self._replies, []
            return found
        count = self._rng.integers(1, len(self._replies) + 1)
        picked = self._rng.permutation(len(self._replies))[:count]
        found = [self._replies[i] for i in picked]
        self._replies = [r for i, r in enumerate(self._replies) if i not in picked]
        return found

    def begin(self, slot: int, key: EpisodeKey, run_seed: int) -> None:
        self._replies = [r for r in self._replies if not (r.slot == slot and isinstance(r, Lost))]
        self._expect_idle(slot)
        attempt = 1 + sum(k == key for _, k, _ in self.began)
        self.began.append((slot, key, run_seed))
        self._slots[slot] = _Slot(key, attempt)
        if self._mishap(slot, 0):
            return
        for view in range(len(self.views)):
            self._look(slot, view, 0)
        self._replies.append(
            Began(
                slot=slot,
                state=_state(0, key.index),
                seen_qpos=np.array([0.5]),
                lit=(False,),
                robot_state=np.array([0.0, key.index]),
                fixtures={"shelf": (np.array([key.index, 0.0, 0.0]), np.array([1.0, 0, 0, 0]))},
                perturbation={},
                initial_state=key.index,
                gripper_command=np.array([0.0]),
                intrinsics=[
                    np.stack([_pinhole(c, key.index) for c in range(len(v.cameras))])
                    if v.depth else None
                    for v in self.views
                ],
                extrinsics=[
                    np.stack([_pose(0, c, key.index) for c in range(len(v.cameras))])
                    if v.depth else None
                    for v in self.views
                ],
                stepping_s=0.0, drawing_s=0.0, loading_s=0.0, starting_s=0.0,
            )
        )  # fmt: skip

    def send(self, slot: int, actions: np.ndarray, looks: tuple[tuple[int, ...], ...]) -> None:
        if any(r.slot == slot and isinstance(r, Lost) for r in self._replies):
            return
        self._expect_idle(slot)
        at = self._slots[slot]
        self.sent.append(
            SimpleNamespace(slot=slot, key=at.key, step=at.step, actions=actions, looks=looks)
        )
        assert len(looks) == len(self.views)
        assert all(len(steps) <= v.capacity for steps, v in zip(looks, self.views, strict=True))
        if self._mishap(slot, len(actions)):
            return
        first, goal = at.step, self._success.get(at.key.index)
        looked: list[list[int]] = [[] for _ in self.views]
        done, success = 0, False
        while done < len(actions) and not success:
            done, at.step = done + 1, at.step + 1
            success = at.step == goal
            for view, steps in enumerate(looks):
                if done in steps:
                    self._look(slot, view, len(looked[view]))
                    looked[view].append(done)
        steps = range(first + 1, at.step + 1)
        self._replies.append(
            Ran(
                slot=slot,
                done=done,
                success=success,
                states=np.stack([_state(s, at.key.index) for s in steps]),
                seen_qpos=np.array([[s + 0.5] for s in steps]),
                robot_states=np.array([[s, at.key.index] for s in steps], np.float64),
                lit=np.array([[s % 2 == 1] for s in steps]),
                gripper_command=np.array([float(at.step)]),
                looked=[tuple(steps) for steps in looked],
                extrinsics=[
                    np.array(
                        [[_pose(first + s, c, at.key.index) for c in range(len(v.cameras))]
                         for s in looked[i]]
                    )
                    if v.depth else None
                    for i, v in enumerate(self.views)
                ],
                stepping_s=0.0, drawing_s=0.0,
            )
        )  # fmt: skip

    def _expect_idle(self, slot: int) -> None:
        assert slot not in [r.slot for r in self._replies], f"slot {slot} has a message under way"

    def _look(self, slot: int, view: int, position: int) -> None:
        spec, at = self.views[view], self._slots[slot]
        colour, depth = self._memory[slot][view]
        for c in range(len(spec.cameras)):
            colour[position, c] = picture(at.step, at.key.index, c, spec.size)
            if spec.depth:
                depth[position, c] = at.step + 0.25 * c

    def _mishap(self, slot: int, steps: int) -> bool:
        at = self._slots[slot]
        found = self._mishaps.get((at.key.index, at.attempt))
        if found is None or at.step + steps < found.at:
            return False
        if found.how == "failed":
            self._replies.append(
                Failed(slot=slot, reason="it tripped", trace="...", error=found.error)
            )
            return True
        first = self.worker_of(slot) * self._per_worker
        gone = range(first, first + self._per_worker)
        self._replies = [r for r in self._replies if r.slot not in gone]
        self._replies += [Lost(slot=s, reason="worker died") for s in gone]
        for s in gone:
            for colour, depth in self._memory[s]:
                colour[:], depth[:] = 0, 0
        return True


def pool_for(
    card: PolicyCard, *, imagine: bool = False, world: WorldModelCard | None = None, **changes: Any
) -> CountingPool:
    """A pool that looks at what a policy and a world model want to see."""
    return CountingPool(gallery.plan(card, imagine=imagine, world=world).views, **changes)


def _state(step: int, index: int) -> np.ndarray:
    return np.array([step * 0.05, step, index])  # time, qpos, qvel


def _pinhole(camera: int, index: int) -> np.ndarray:
    return np.diag([camera + 1.0, index + 1.0, 1.0])


def _pose(step: int, camera: int, index: int) -> np.ndarray:
    out = np.eye(4)
    out[:3, 3] = step, camera, index
    return out


# --------------------------------------------------------------------------- policies


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


class PixelPolicy:
    """Its actions are noise drawn from all that it is given, so a changed bit changes them."""

    def __init__(self, *, cameras: tuple[str, ...] = ("agentview", "eye_in_hand")) -> None:
        size = (64, 64)
        self.card = PolicyCard(
            name="pixels",
            action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
            horizon=8,
            execute=6,
            cameras=cameras,
            image_size=size,
            frame_offsets=(-7, -2, 0),
            proprio=EEF_AXIS_ANGLE_GRIPPER,
            predicts_value=True,
            imagines=ImaginationSpec(
                horizons=(3, 6), frame_offsets=(-1, 0, 3, 6), cameras=("agentview",),
                image_size=(32, 32), latent_shape=(3,),
            ),
        )  # fmt: skip

    def act(self, obs: Observation) -> Prediction:
        actions = np.zeros((obs.batch, self.card.horizon, 7), np.float32)
        latents = np.zeros((obs.batch, 2, 3), np.float32)
        value = np.zeros(obs.batch, np.float32)
        memory: list[bytes | None] = [None] * obs.batch
        assert obs.proprio is not None
        for row in np.flatnonzero(obs.valid):
            parts = [frames[row].tobytes() for frames in obs.frames.values()]
            parts += [obs.proprio[row].tobytes(), obs.seed[row].tobytes(), obs.memory[row] or b""]
            parts += [obs.instruction[row].encode(), obs.step[row].tobytes()]
            digest = hashlib.blake2b(b"".join(parts), digest_size=16).digest()
            rng = np.random.default_rng(int.from_bytes(digest, "little"))
            actions[row] = rng.uniform(-1, 1, actions.shape[1:])
            latents[row] = rng.uniform(-1, 1, (2, 3))
            value[row] = rng.uniform()
            memory[row] = digest
        return Prediction(
            actions=actions, imagined=Imagined(latents=latents), value=value, memory=memory
        )

    def encode(self, frames: np.ndarray) -> np.ndarray:
        means = frames[:, :, 0].mean(axis=(2, 3), dtype=np.float64) / 255  # [B, T, 3]
        return (means[:, 2:] - means[:, :1]).astype(np.float32)


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


def short_pool(limit: int) -> Any:
    """The real pool, with a step limit that a test can afford."""
    from envs.pool import Pool

    class ShortPool(Pool):
        def task(self, suite: str, name: str) -> Task:
            return replace(super().task(suite, name), max_steps=limit)

    return ShortPool


def evaluate_pixels(out: Path, cache: Path, suite: str, **changes: Any) -> Any:
    """Evaluate `PixelPolicy` on a suite, with a short step limit."""
    from envs import evaluation
    from wamsim.registry import PolicyChoice

    settings: dict[str, Any] = {"episodes": 2, "tasks": ("0",), "workers": 1, "slots": 1, **changes}
    resources = evaluation.Resources(
        workers=settings.pop("workers"),
        slots=settings.pop("slots"),
        cache_dir=cache,
        libero_assets=settings.pop("libero_assets", None),
    )
    config = evaluation.EvalConfig(
        policy=PolicyChoice(family="pixels", variant="", options={}), suites=(suite,), seed=5
    )
    limit = settings.pop("limit", 14)
    real, evaluation.Pool = evaluation.Pool, short_pool(limit)  # type: ignore[misc]
    try:
        return evaluation.evaluate(
            config, out=out, resources=resources, policy=PixelPolicy(), **settings
        )
    finally:
        evaluation.Pool = real  # type: ignore[misc]


if __name__ == "__main__":
    where, cache_folder, settings_json = sys.argv[1:]
    chosen = json.loads(settings_json)
    assets = chosen.pop("libero_assets", None)
    evaluate_pixels(
        Path(where), Path(cache_folder), chosen.pop("suite"),
        libero_assets=Path(assets) if assets else None, **chosen,
    )  # fmt: skip
