"""The only closed loop: a policy drives simulators until every planned episode is on disk.

While some slots step, the policy serves others. A policy's rows always come in batches
of one fixed shape, padded where fewer are ready, and all randomness comes from episode
keys; so the number of workers and slots changes no byte of any episode.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wamsim import gallery, seeding
from wamsim.contracts import (
    EpisodeKey,
    Observation,
    Outcome,
    Policy,
    Prediction,
    PrivilegedState,
    Task,
)
from wamsim.conventions import action_converter, orient, proprio_from_robot_state
from wamsim.episode import Episode, Record
from wamsim.errors import ConventionMismatch, PolicyFault, nearest
from wamsim.gallery import Gallery, Shot
from wamsim.messages import Began, Failed, Lost, PoolLike, Ran
from wamsim.reality import Foreseen, Reality
from wamsim.run_folder import RunFolder

MAX_ATTEMPTS = 2  # an episode whose worker died runs once more, then it is an error


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """What the loop itself needs to know; part of the run's configuration.

    Attributes:
        run_seed: The run's seed.
        batch: Rows per policy call. Fixed, so that results do not depend on how many
            episodes happen to run side by side.
        imagine: Ask policies that imagine only on request to do so.
    """

    run_seed: int = 0
    batch: int = 4
    imagine: bool = False


class Observer:
    """Somebody who watches the loop (a progress bar, a log). All methods may be overridden."""

    def planned(self, total: int, finished: Sequence[Path]) -> None:
        """So many episodes are wanted; these files of an earlier run are there already."""

    def episode(self, record: Record) -> None:
        """An episode has been written."""

    def stepped(self, steps: int) -> None:
        """This many env steps were run."""

    def said(self, sentence: str) -> None:
        """Something worth a line happened (a worker died, a file was set aside)."""


@dataclass
class Accounts:
    """Where the time went, in seconds; workers' shares are summed over workers.

    Attributes:
        startup: Processes started and imports done, before `wall` begins.
        wall: The loop, from the first episode's start to the last one's end.
        policy: In `Policy.act`; reality: in `encode`, for the record.
        stepping, drawing: In the workers.
        loading: Compiling or loading scenes; starting: writing initial states.
        writing: Episode files; waiting: for workers.
    """

    startup: float = 0.0
    wall: float = 0.0
    policy: float = 0.0
    reality: float = 0.0
    stepping: float = 0.0
    drawing: float = 0.0
    loading: float = 0.0
    starting: float = 0.0
    writing: float = 0.0
    waiting: float = 0.0
    steps: int = 0
    episodes: int = 0


@dataclass(frozen=True)
class _Job:
    key: EpisodeKey
    task: Task
    attempt: int = 1


@dataclass
class _Slot:
    """One episode in progress."""

    job: _Job
    began: Began | None = None
    started_unix: float = 0.0
    started: float = 0.0
    steps: int = 0
    memory: Any = None
    waiting_since: float = 0.0
    states: list[NDArray[np.float64]] = field(default_factory=list[Any])
    seen_qpos: list[NDArray[np.float64]] = field(default_factory=list[Any])
    robot_states: list[NDArray[np.float64]] = field(default_factory=list[Any])
    lit: list[NDArray[np.bool_]] = field(default_factory=list[Any])
    actions: list[NDArray[np.float32]] = field(default_factory=list[Any])
    galleries: list[Gallery] = field(default_factory=list[Gallery])
    gripper_command: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    query_steps: list[int] = field(default_factory=list[int])
    values: list[np.float32] = field(default_factory=list[Any])
    act_s: list[float] = field(default_factory=list[float])
    parts_s: dict[str, list[float]] = field(default_factory=dict[str, Any])
    foreseen: list[Foreseen] = field(default_factory=list[Foreseen])
    stepping_s: float = 0.0
    drawing_s: float = 0.0


class _Jobs:
    """Episodes to run, handed out so that a worker keeps the scene that it has loaded."""

    def __init__(self, jobs: Iterable[_Job]) -> None:
        self._by_scene: OrderedDict[str, deque[_Job]] = OrderedDict()
        self._at_work: dict[int, str] = {}
        for job in jobs:
            self._by_scene.setdefault(job.task.scene_id, deque()).append(job)

    def __len__(self) -> int:
        return sum(len(jobs) for jobs in self._by_scene.values())

    def again(self, job: _Job) -> None:
        """Put a job back, to be run before others of its scene."""
        self._by_scene.setdefault(job.task.scene_id, deque()).appendleft(job)

    def next(self, worker: int) -> _Job | None:
        """Give a worker its next job: its own scene, else one that nobody works on, else any."""
        left = {scene: len(jobs) for scene, jobs in self._by_scene.items() if jobs}
        if not left:
            return None
        scene = self._at_work.get(worker)
        if scene not in left:
            others = {s for w, s in self._at_work.items() if w != worker}
            free = [s for s in left if s not in others]
            # In planned order while scenes are free; then help where most is left.
            scene = free[0] if free else max(left, key=lambda s: left[s])
        self._at_work[worker] = scene
        return self._by_scene[scene].popleft()


class Rollout:
    """Runs episodes with one policy on one pool into one run folder.

    Args:
        policy: The policy.
        pool: Where episodes step; its views must be `wamsim.gallery.views` of the card.
        folder: Where each episode is written when it ends.
        options: See `RolloutOptions`.
        observers: See `Observer`.

    Raises:
        ConventionMismatch, UnknownName: At `run`, before the first step, when the policy
            and a task do not fit together.
    """

    def __init__(
        self,
        policy: Policy,
        pool: PoolLike,
        folder: RunFolder,
        options: RolloutOptions,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.policy = policy
        self.pool = pool
        self.folder = folder
        self.options = options
        self.observers = observers
        self.accounts = Accounts()
        self._card = policy.card
        self._slots: list[_Slot | None] = [None] * pool.num_envs
        self._ready: list[int] = []
        self._reality = Reality.of(policy, options)

    # ------------------------------------------------------------------------ run

    def run(self, keys: Sequence[EpisodeKey], suite_versions: Mapping[str, int]) -> Accounts:
        """Run the episodes; each is on disk before the next of its slot begins.

        Args:
            keys: What to run, in planned order.
            suite_versions: Suite name -> version, for the records.
        """
        self._versions = suite_versions
        jobs = [_Job(key, self.pool.task(key.suite, key.task)) for key in keys]
        for task in {job.task.scene_id + job.task.name: job.task for job in jobs}.values():
            check_fit(self.policy, task)
        self._jobs = _Jobs(jobs)
        began = time.perf_counter()
        for slot in range(self.pool.num_envs):
            self._refill(slot)
        while any(slot is not None for slot in self._slots):
            waited = time.perf_counter()
            replies = self.pool.receive() if self._in_flight() else []
            self.accounts.waiting += time.perf_counter() - waited
            for reply in replies:
                if isinstance(reply, Began):
                    self._on_began(reply)
                elif isinstance(reply, Ran):
                    self._on_ran(reply)
                elif isinstance(reply, Failed):
                    self._on_failed(reply)
                else:
                    self._on_lost(reply)
            # Serve when half of the running slots wait: the other half steps meanwhile.
            running = sum(slot is not None for slot in self._slots)
            if self._ready and len(self._ready) * 2 >= running:
                ready, self._ready = self._ready, []
                size = self.options.batch if self._card.row_batch else len(ready)
                for first in range(0, len(ready), size):
                    self._serve(ready[first : first + size])
        self.accounts.wall += time.perf_counter() - began
        return self.accounts

    def _in_flight(self) -> bool:
        return any(slot is not None and i not in self._ready for i, slot in enumerate(self._slots))

    def _refill(self, slot: int) -> None:
        job = self._jobs.next(self.pool.worker_of(slot))
        if job is None:
            self._slots[slot] = None
            return
        self._slots[slot] = _Slot(job=job)
        self.pool.begin(slot, job.key, self.options.run_seed)

    # -------------------------------------------------------------------- replies

    def _on_began(self, reply: Began) -> None:
        slot = self._slots[reply.slot]
        assert slot is not None
        slot.began = reply
        slot.started_unix, slot.started = time.time(), time.perf_counter()
        slot.states.append(reply.state)
        slot.seen_qpos.append(reply.seen_qpos)
        slot.robot_states.append(reply.robot_state)
        slot.lit.append(np.array(reply.lit, bool))
        slot.gripper_command = reply.gripper_command
        slot.galleries = [Gallery() for _ in self.pool.views]
        for v, view in enumerate(self.pool.views):
            if view.cameras:
                colour, depth = self.pool.pictures(reply.slot, v)
                slot.galleries[v].add(
                    0, Shot(colour[0], depth[0] if view.depth else None, reply.extrinsics[v])
                )
        self.accounts.stepping += reply.stepping_s
        self.accounts.drawing += reply.drawing_s
        self.accounts.loading += reply.loading_s
        self.accounts.starting += reply.starting_s
        self._ready.append(reply.slot)

    def _on_ran(self, reply: Ran) -> None:
        slot = self._slots[reply.slot]
        assert slot is not None
        first = slot.steps
        slot.steps += reply.done
        slot.states.extend(reply.states)
        slot.seen_qpos.extend(reply.seen_qpos)
        slot.robot_states.extend(reply.robot_states)
        slot.lit.extend(reply.lit)
        del slot.actions[slot.steps :]  # the goal held before the chunk's end
        slot.gripper_command = reply.gripper_command
        slot.stepping_s += reply.stepping_s
        slot.drawing_s += reply.drawing_s
        for v, steps in enumerate(reply.looked):
            colour, depth = self.pool.pictures(reply.slot, v)
            poses = reply.extrinsics[v]
            for i, step in enumerate(steps):
                slot.galleries[v].add(
                    first + step,
                    Shot(
                        colour[i],
                        depth[i] if self.pool.views[v].depth else None,
                        None if poses is None else poses[i],
                    ),
                )
        self.accounts.stepping += reply.stepping_s
        self.accounts.drawing += reply.drawing_s
        self.accounts.steps += reply.done
        for observer in self.observers:
            observer.stepped(reply.done)
        if self._reality and slot.foreseen:
            self._reality.capture(slot.foreseen[-1], slot.galleries, slot.steps)
        if reply.success:
            self._finish(reply.slot, Outcome.SUCCESS, None)
        elif slot.steps >= slot.job.task.max_steps:
            self._finish(reply.slot, Outcome.FAILURE, f"step limit {slot.job.task.max_steps}")
        else:
            self._ready.append(reply.slot)

    def _on_failed(self, reply: Failed) -> None:
        if reply.error is not None:
            raise reply.error
        slot = self._slots[reply.slot]
        if slot is not None:
            self._say(f"{slot.job.key}: {reply.reason}\n{reply.trace}")
            self._finish(reply.slot, Outcome.ERROR, reply.reason)

    def _on_lost(self, reply: Lost) -> None:
        slot = self._slots[reply.slot]
        if slot is None:
            return
        if reply.slot in self._ready:
            self._ready.remove(reply.slot)
        job = slot.job
        if job.attempt < MAX_ATTEMPTS:
            self._say(f"{job.key}: {reply.reason}; running it again")
            again = _Job(job.key, job.task, job.attempt + 1)
            self._slots[reply.slot] = _Slot(job=again)
            self.pool.begin(reply.slot, again.key, self.options.run_seed)
        else:
            self._say(f"{job.key}: {reply.reason}, twice; recorded as an error")
            self._finish(reply.slot, Outcome.ERROR, f"{reply.reason}, in {job.attempt} attempts")

    # --------------------------------------------------------------------- policy

    def _serve(self, numbers: list[int]) -> None:
        slots = [self._slots[n] for n in numbers]
        rows = [slot for slot in slots if slot is not None]
        batch = self.options.batch if self._card.row_batch else len(rows)
        observation = self._observe(numbers, rows, batch)
        asked = time.perf_counter()
        prediction = self.policy.act(observation)
        latency = time.perf_counter() - asked
        self.accounts.policy += latency
        actions = _checked_actions(self.policy, prediction, batch)
        card = self._card
        for i, (number, slot) in enumerate(zip(numbers, rows, strict=True)):
            slot.query_steps.append(slot.steps)
            slot.act_s.append(latency)
            for name, seconds in prediction.timings.items():
                slot.parts_s.setdefault(name, []).append(float(seconds))
            if prediction.value is not None:
                slot.values.append(np.float32(prediction.value[i]))
            if prediction.memory is not None:
                slot.memory = prediction.memory[i]
            if self._reality and prediction.imagined is not None:
                slot.foreseen.append(
                    self._reality.remember(prediction.imagined, i, slot.galleries, slot.steps)
                )
            task = slot.job.task
            chunk = actions[i, : min(card.execute, task.max_steps - slot.steps)]
            if not np.isfinite(chunk).all():
                self._finish(
                    number,
                    Outcome.FAILURE,
                    f"the policy returned a non-finite action at step {slot.steps}",
                )
                continue
            convert = action_converter(card.action, task.action, policy=card.name, suite=task.suite)
            chunk = np.ascontiguousarray(convert(chunk), np.float32)
            slot.actions.extend(chunk)
            for v, gallery_ in enumerate(slot.galleries):
                gallery_.forget(slot.steps + self._oldest(v))
            self.pool.send(number, chunk, self._looks(len(chunk)))

    def _oldest(self, view: int) -> int:
        offsets = [0, *(self._card.frame_offsets if view == gallery.POLICY else ())]
        if self._reality:
            offsets += self._reality.spec.frame_offsets
        return min(offsets) - 1

    def _looks(self, steps: int) -> tuple[tuple[int, ...], ...]:
        if not self.pool.views:
            return ()
        own = set(gallery.policy_looks(self._card))
        out: list[tuple[int, ...]] = []
        if self._reality:
            seen = gallery.imagination_looks(self._reality.spec, self._card.execute)
            if gallery.shares_view(self._card):
                own |= set(seen)
            else:
                out.append(tuple(s for s in seen if s <= steps))
        return (tuple(sorted(s for s in own if s <= steps)), *out)

    def _observe(self, numbers: list[int], rows: list[_Slot], batch: int) -> Observation:
        card = self._card
        pad = batch - len(rows)
        frames: dict[str, NDArray[np.uint8]] = {}
        depth: dict[str, NDArray[np.float32]] = {}
        intrinsics: dict[str, NDArray[np.float64]] = {}
        extrinsics: dict[str, NDArray[np.float64]] = {}
        if card.cameras:
            shots = [
                r.galleries[gallery.POLICY].stack(r.steps + o for o in card.frame_offsets)
                for r in rows
            ]
            for c, camera in enumerate(card.cameras):
                stacked = [np.stack([s.colour[c] for s in row]) for row in shots]
                frames[camera] = np.ascontiguousarray(
                    orient(gallery.zeros_like_batch([*stacked], batch), card.orientation)
                )
                if card.depth:
                    metres = [np.stack([s.depth[c] for s in row if s.depth is not None])
                              for row in shots]  # fmt: skip
                    poses = [np.stack([s.extrinsics[c] for s in row if s.extrinsics is not None])
                             for row in shots]  # fmt: skip
                    pinholes: list[Any] = []
                    for r in rows:
                        assert r.began is not None
                        own = r.began.intrinsics[gallery.POLICY]
                        assert own is not None
                        pinholes.append(own[c])
                    depth[camera] = gallery.zeros_like_batch([*metres], batch)
                    extrinsics[camera] = gallery.zeros_like_batch([*poses], batch)
                    intrinsics[camera] = gallery.zeros_like_batch(pinholes, batch)
        proprio = None
        if card.proprio is not None:
            history: list[NDArray[Any] | None] = []
            for r in rows:
                raw = np.stack([r.robot_states[max(r.steps + o, 0)] for o in card.frame_offsets])
                task = r.job.task
                history.append(
                    proprio_from_robot_state(raw, task.robot_state, card.proprio, suite=task.suite)
                )
            proprio = gallery.zeros_like_batch(history, batch)
        seeds = [seeding.policy_seed(self.options.run_seed, r.job.key, r.steps) for r in rows] + [
            0
        ] * pad
        return Observation(
            frames=frames,
            depth=depth if card.depth else None,
            intrinsics=intrinsics if card.depth else None,
            extrinsics=extrinsics if card.depth else None,
            proprio=proprio,
            instruction=[r.job.task.instruction for r in rows] + [""] * pad,
            seed=np.array(seeds, np.uint64),
            step=np.array([r.steps for r in rows] + [0] * pad, np.int64),
            slot=np.array([*numbers, *[-1] * pad], np.int64),
            first=np.array([not r.query_steps for r in rows] + [True] * pad),
            valid=np.array([True] * len(rows) + [False] * pad),
            memory=[r.memory for r in rows] + [None] * pad,
            state=[self._privileged(r) for r in rows] + [None] * pad if card.privileged else None,
            imagine=self.options.imagine,
        )

    def _privileged(self, slot: _Slot) -> PrivilegedState:
        assert slot.began is not None
        task, state = slot.job.task, slot.states[-1]
        scene = self.pool.scene(task.suite, task.name)
        nq = int(scene.model.nq)
        return PrivilegedState(
            key=slot.job.key,
            task=task,
            scene=scene,
            qpos=state[1 : 1 + nq],
            qvel=state[1 + nq :],
            fixtures=slot.began.fixtures,
            gripper_command=slot.gripper_command,
        )

    # --------------------------------------------------------------------- finish

    def _finish(self, number: int, outcome: Outcome, reason: str | None) -> None:
        slot = self._slots[number]
        assert slot is not None
        episode = self._episode(slot, outcome, reason)
        began = time.perf_counter()
        self.folder.write(episode)
        self.accounts.writing += time.perf_counter() - began
        self.accounts.episodes += 1
        for observer in self.observers:
            observer.episode(episode.record)
        self._refill(number)

    def _episode(self, slot: _Slot, outcome: Outcome, reason: str | None) -> Episode:
        job, began, card = slot.job, slot.began, self._card
        arrays: dict[str, NDArray[Any]] = {}
        timings: dict[str, float] = {}
        notes: dict[str, Any] = {"settle_steps": job.task.settle_steps}
        if began is not None:
            arrays = {
                "states": np.array(slot.states),
                "seen_qpos": np.array(slot.seen_qpos),
                "robot_state": np.array(slot.robot_states),
                "actions": np.array(slot.actions[: slot.steps], np.float32).reshape(
                    slot.steps, job.task.action.dim
                ),
                "query_steps": np.array(slot.query_steps, np.int32),
                "timing_act_s": np.array(slot.act_s),
            }
            if began.lit:
                arrays["lit"] = np.array(slot.lit, bool)
            if slot.values:
                arrays["value"] = np.array(slot.values, np.float32)
            for name, seconds in slot.parts_s.items():
                arrays[f"timing_{name}_s"] = np.array(seconds)
            if self._reality and slot.foreseen:
                real = time.perf_counter()
                arrays.update(self._reality.arrays(slot.foreseen))
                self.accounts.reality += time.perf_counter() - real
            timings = {
                "started_unix_s": slot.started_unix,
                "wall_s": time.perf_counter() - slot.started,
                "stepping_s": slot.stepping_s,
                "drawing_s": slot.drawing_s,
            }
            if slot.act_s:
                timings["latency_s"] = float(np.mean(slot.act_s))
        key = job.key
        fixtures: Mapping[str, Any] = began.fixtures if began else {}
        return Episode(
            Record(
                key=key,
                run_seed=self.options.run_seed,
                outcome=outcome,
                reason=reason,
                steps=slot.steps,
                success_step=slot.steps if outcome is Outcome.SUCCESS else None,
                instruction=job.task.instruction,
                initial_state=key.index % job.task.n_initial_states,
                suite_version=self._versions[key.suite],
                policy=card.name,
                config_hash=self.folder.config_hash,
                provenance_hash=self.folder.provenance_hash,
                seeds={
                    "fixtures": seeding.derive(self.options.run_seed, key, "fixtures"),
                    "policy@0": seeding.policy_seed(self.options.run_seed, key, 0),
                },
                fixtures={
                    body: (tuple(position), tuple(quaternion))
                    for body, (position, quaternion) in fixtures.items()
                },
                perturbation=dict(began.perturbation) if began else {},
                stand_in_visuals=job.task.stand_in_visuals,
                privileged=card.privileged,
                attempt=job.attempt,
                timings=timings,
                notes=notes,
            ),
            arrays,
        )

    def _say(self, sentence: str) -> None:
        for observer in self.observers:
            observer.said(sentence)


def check_fit(policy: Policy, task: Task) -> None:
    """Check before the first step that a policy and a task fit together.

    Raises:
        UnknownName: A camera that the suite does not have.
        ConventionMismatch: Action or proprioception conventions with no converter, or a
            depth policy that wants flipped pictures.
    """
    card = policy.card
    spec = card.imagines
    for camera in {*card.cameras, *(spec.cameras if spec else ())}:
        if camera not in task.cameras:
            raise nearest(
                camera,
                task.cameras,
                kind=f"camera (policy {card.name!r} on suite {task.suite!r})",
                hint="A missing camera never becomes zeros.",
            )
    action_converter(card.action, task.action, policy=card.name, suite=task.suite)
    if card.proprio is not None:
        proprio_from_robot_state(
            np.zeros(task.robot_state.dim), task.robot_state, card.proprio, suite=task.suite
        )
    if card.depth and card.orientation.value != "upright":
        raise ConventionMismatch(
            f"policy {card.name!r} asks for depth and for {card.orientation.value} pictures; "
            f"camera matrices are given for upright ones. Flip inside the policy."
        )


def _checked_actions(policy: Policy, prediction: Prediction, batch: int) -> NDArray[np.float32]:
    card = policy.card
    actions = np.asarray(prediction.actions)
    expected = (batch, card.horizon, card.action.dim)
    if actions.shape != expected:
        hint = ""
        if actions.ndim == 3 and actions.shape[1] < card.horizon:
            hint = f" The chunk is short: the card promises horizon={card.horizon}."
        raise PolicyFault(
            f"policy {card.name!r} returned actions of shape {actions.shape}, but its card "
            f"promises {expected} (batch, horizon, {card.action.name}).{hint} Mend "
            f"the policy or its card; finished episodes are safe and the run resumes."
        )
    if actions.dtype.kind != "f":
        raise PolicyFault(
            f"policy {card.name!r} returned actions of type {actions.dtype}, expected float32"
        )
    for name, value in (("value", prediction.value), ("memory", prediction.memory)):
        if value is not None and len(value) != batch:
            raise PolicyFault(
                f"policy {card.name!r} returned {name} for {len(value)} rows, expected {batch}"
            )
    if card.predicts_value and prediction.value is None:
        raise PolicyFault(f"policy {card.name!r} promises a value but returned None")
    return actions.astype(np.float32, copy=False)
