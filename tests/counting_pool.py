"""A pool without a simulator: all that its slots show is their env step and trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from wamsim import gallery
from wamsim.contracts import EpisodeKey, PolicyCard, Task, WorldModelCard
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, ProprioConvention, RobotStateLayout
from wamsim.messages import Began, Failed, Lost, Ran, Reply, View

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


@dataclass(frozen=True)
class _Dying:
    """In place of a slot's reply: its worker dies of it, when its turn comes."""

    slot: int


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
        self.lost_while_waiting = 0  # slots that had answered and waited for the policy
        self._tasks = {t.name: t for t in tasks or (task(),)}
        self._per_worker = slots
        self._success, self._mishaps = dict(success or {}), dict(mishaps or {})
        self._rng = None if shuffle is None else np.random.default_rng(shuffle)
        self._slots: dict[int, _Slot] = {}
        self._replies: list[Reply | _Dying] = []
        self._memory = [
            [(np.zeros(v.colour_shape(), np.uint8), np.zeros(v.depth_shape(), np.float32))
             for v in self.views]
            for _ in range(self.num_envs)
        ]  # fmt: skip

    def task(self, suite: str, name: str) -> Task:
        return self._tasks[name]

    def variant(self, key: EpisodeKey) -> Task:
        return self.task(key.suite, key.task)

    def scene(self, task: Task) -> Any:
        return SimpleNamespace(model=SimpleNamespace(nq=1), name=task.name)

    def worker_of(self, slot: int) -> int:
        return slot // self._per_worker

    def pictures(self, slot: int, view: int) -> tuple[np.ndarray, np.ndarray]:
        return self._memory[slot][view]

    def receive(self, timeout: float | None = None) -> list[Reply]:
        assert self._replies, "the rollout waits for nothing"
        count = len(self._replies)
        if self._rng is not None:
            self._rng.shuffle(self._replies)  # type: ignore[arg-type]
            count = self._rng.integers(1, count + 1)
        found, self._replies = self._replies[:count], self._replies[count:]
        for dying in [r for r in found if isinstance(r, _Dying)]:
            gone = self._slots_beside(dying.slot)
            under_way = {r.slot for r in (*found, *self._replies)}
            self.lost_while_waiting += sum(s in self._slots and s not in under_way for s in gone)
            found, self._replies = (
                [r for r in some if r.slot not in gone] for some in (found, self._replies)
            )
            found += [Lost(slot=s, reason="worker died") for s in gone]
            for colour, depth in (views for s in gone for views in self._memory[s]):
                colour[:], depth[:] = 0, 0
        return found

    def _slots_beside(self, slot: int) -> range:
        first = self.worker_of(slot) * self._per_worker
        return range(first, first + self._per_worker)

    def begin(self, slot: int, key: EpisodeKey, run_seed: int) -> None:
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
        self._replies.append(_Dying(slot))
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
