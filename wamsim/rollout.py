"""The only closed loop: a policy drives simulators until every planned episode is on disk.

While some slots step, the policy serves others. A policy's rows always come in batches
of one fixed shape, padded where fewer are ready, and all randomness comes from episode
keys; so the number of workers and slots changes no byte of any episode.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from wamsim import gallery
from wamsim.contracts import (
    Choosy,
    EpisodeKey,
    Imagined,
    Imaginer,
    Outcome,
    Policy,
    PolicyCard,
    WorldModel,
)
from wamsim.conventions import action_converter
from wamsim.dreaming import check_world_model, dream
from wamsim.episode import Episode, Record
from wamsim.errors import PolicyFault
from wamsim.fitting import check_fit, checked_actions
from wamsim.gallery import LookPlan
from wamsim.in_progress import InProgress, Job, JobQueue
from wamsim.messages import Began, Failed, Lost, PoolLike, Ran
from wamsim.observing import observe
from wamsim.reality import IMAGINATION_NOTE, Reality
from wamsim.run_folder import RunFolder

WORLD = "world_"  # prefix of a world model's arrays in an episode file

MAX_ATTEMPTS = 2  # an episode whose worker died runs once more, then it is an error


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """What the loop itself needs to know; part of the run's configuration.

    Attributes:
        run_seed: The run's seed.
        batch: Rows per policy call. Fixed, so that results do not depend on how many
            episodes happen to run side by side.
        imagine: Ask policies that imagine only on request to do so. A world model beside the
            policy then also foresees that nothing is done, which shows whether its
            imagination listens to actions; one more call a query.
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


def look_plan(
    card: PolicyCard, options: RolloutOptions, world_model: WorldModel | None = None
) -> LookPlan:
    """Plan what the pool of a run must draw."""
    spec = card.imagines
    imagines = spec is not None and (options.imagine or not spec.on_request)
    return gallery.plan(
        card, imagine=imagines, world=world_model.card if world_model is not None else None
    )


class Rollout:
    """Runs episodes with one policy on one pool into one run folder.

    Args:
        policy: The policy.
        pool: Where episodes step; its views must be those of `look_plan`.
        folder: Where each episode is written when it ends.
        options: See `RolloutOptions`.
        observers: See `Observer`.
        world_model: Foresees what each chunk will show, for the record.
    """

    def __init__(
        self,
        policy: Policy,
        pool: PoolLike,
        folder: RunFolder,
        options: RolloutOptions,
        observers: Sequence[Observer] = (),
        world_model: WorldModel | None = None,
    ) -> None:
        self.policy = policy
        self.pool = pool
        self.folder = folder
        self.options = options
        self.observers = observers
        self.accounts = Accounts()
        self._card = policy.card
        self._slots: list[InProgress | None] = [None] * pool.num_envs
        self._ready: list[int] = []  # slots that wait for the policy, in order of arrival
        self._world_model = world_model
        self._plan = look_plan(policy.card, options, world_model)
        if pool.views != self._plan.views:
            raise ValueError(f"the pool draws {pool.views}, but the run needs {self._plan.views}")
        self._realities = self._show_reality_to()

    def _show_reality_to(self) -> list[Reality]:
        card, world, plan = self._card, self._world_model, self._plan
        out: list[Reality] = []
        if plan.imagination is not None and card.imagines is not None:
            out.append(
                Reality(
                    cast(Imaginer, self.policy), card.name, card.imagines,
                    view=plan.imagination, orientation=card.orientation,
                )
            )  # fmt: skip
        if plan.world is not None and world is not None:
            out.append(
                Reality(world, world.card.name, world.card.imagines, view=plan.world, prefix=WORLD)
            )
        return out

    def run(self, keys: Sequence[EpisodeKey], suite_versions: Mapping[str, int]) -> Accounts:
        """Run the episodes; each is on disk before the next of its slot begins.

        Args:
            keys: What to run, in planned order.
            suite_versions: Suite name -> version, for the records.

        Raises:
            ConventionMismatch, UnknownName: The policy and a task do not fit together;
                before the first step.
            PolicyFault: The policy broke its card's promises; or, before the first step, it
                knows that it cannot do a task.
            OutOfSpace: The disk is full.
        """
        self._versions = suite_versions
        jobs = [Job(key, self.pool.variant(key)) for key in keys]
        for task in {(job.task.suite, job.task.name): job.task for job in jobs}.values():
            check_fit(self.policy, task)
            if isinstance(self.policy, Choosy):
                self.policy.check_task(task)
            if self._world_model is not None:
                check_world_model(self._world_model, self._card, task)
        self._jobs = JobQueue(jobs)
        began = time.perf_counter()
        for slot in range(self.pool.num_envs):
            self._refill(slot)
        while any(slot is not None for slot in self._slots):
            self._receive()
            # Serve when half of the running slots wait: the other half steps meanwhile.
            running = sum(slot is not None for slot in self._slots)
            if self._ready and len(self._ready) * 2 >= running:
                ready, self._ready = self._ready, []
                fixed = self._card.row_batch or self._world_model is not None
                size = self.options.batch if fixed else len(ready)
                for first in range(0, len(ready), size):
                    self._serve(ready[first : first + size])
        self.accounts.wall += time.perf_counter() - began
        return self.accounts

    def _refill(self, number: int) -> None:
        job = self._jobs.next(self.pool.worker_of(number))
        self._slots[number] = None
        if job is not None:
            self._start(number, job)

    def _start(self, number: int, job: Job) -> None:
        self._slots[number] = InProgress(job)
        self.pool.begin(number, job.key, self.options.run_seed)

    # -------------------------------------------------------------------- replies

    def _receive(self) -> None:
        if all(slot is None or i in self._ready for i, slot in enumerate(self._slots)):
            return  # nothing is under way
        waited = time.perf_counter()
        replies = self.pool.receive()
        self.accounts.waiting += time.perf_counter() - waited
        for reply in replies:
            episode = self._slots[reply.slot]
            if episode is None:
                continue  # a slot without work lost its worker
            if isinstance(reply, Began):
                self._on_began(episode, reply)
            elif isinstance(reply, Ran):
                self._on_ran(episode, reply)
            elif isinstance(reply, Failed):
                self._on_failed(episode, reply)
            else:
                self._on_lost(episode, reply)

    def _on_began(self, episode: InProgress, reply: Began) -> None:
        episode.begin(reply, self.pool)
        self.accounts.stepping += reply.stepping_s
        self.accounts.drawing += reply.drawing_s
        self.accounts.loading += reply.loading_s
        self.accounts.starting += reply.starting_s
        self._ready.append(reply.slot)

    def _on_ran(self, episode: InProgress, reply: Ran) -> None:
        episode.advance(reply, self.pool)
        self.accounts.stepping += reply.stepping_s
        self.accounts.drawing += reply.drawing_s
        self.accounts.steps += reply.done
        for observer in self.observers:
            observer.stepped(reply.done)
        for reality in self._realities:
            foreseen = episode.foreseen.get(reality.prefix)
            if foreseen:
                reality.capture(foreseen[-1], episode.galleries, episode.steps)
        limit = episode.job.task.max_steps
        if reply.success:
            self._finish(reply.slot, Outcome.SUCCESS, None)
        elif episode.steps >= limit:
            self._finish(reply.slot, Outcome.FAILURE, f"step limit {limit}")
        else:
            self._ready.append(reply.slot)

    def _on_failed(self, episode: InProgress, reply: Failed) -> None:
        if reply.error is not None:
            raise reply.error
        self._say(f"{episode.job.key}: {reply.reason}\n{reply.trace}")
        self._finish(reply.slot, Outcome.ERROR, reply.reason)

    def _on_lost(self, episode: InProgress, reply: Lost) -> None:
        if reply.slot in self._ready:
            self._ready.remove(reply.slot)
        job = episode.job
        if job.attempt < MAX_ATTEMPTS:
            self._say(f"{job.key}: {reply.reason}; running it again")
            self._start(reply.slot, Job(job.key, job.task, job.attempt + 1))
        else:
            self._say(f"{job.key}: {reply.reason}, twice; recorded as an error")
            self._finish(reply.slot, Outcome.ERROR, f"{reply.reason}, in {job.attempt} attempts")

    # --------------------------------------------------------------------- policy

    def _serve(self, numbers: Sequence[int]) -> None:
        rows = [episode for n in numbers if (episode := self._slots[n]) is not None]
        card, options = self._card, self.options
        batch = options.batch if card.row_batch else len(rows)
        observation = observe(
            card, rows, numbers, self.pool,
            batch=batch, run_seed=options.run_seed, imagine=options.imagine,
        )  # fmt: skip
        asked = time.perf_counter()
        prediction = self.policy.act(observation)
        latency = time.perf_counter() - asked
        self.accounts.policy += latency
        actions = checked_actions(card, prediction, batch)
        if stray := set(prediction.faults) - set(range(batch)):
            raise PolicyFault(
                f"policy {card.name!r} gave up rows {sorted(stray)} of a batch of {batch}. "
                f"Number faults by the observation's rows; finished episodes are safe."
            )
        dreamt, other, dreaming_s = self._dream(rows, actions)
        for row, (number, episode) in enumerate(zip(numbers, rows, strict=True)):
            episode.asked(row, prediction, latency)
            if dreamt is not None:
                episode.took("imagine_with", dreaming_s)
            for reality in self._realities:
                world = reality.prefix == WORLD
                episode.foreseen.setdefault(reality.prefix, []).append(
                    reality.remember(
                        dreamt if world else prediction.imagined,
                        row,
                        episode.galleries,
                        episode.steps,
                        batch=options.batch if world else batch,
                        other=other if world else prediction.otherwise,
                    )
                )
            if row in prediction.faults:
                self._finish(number, Outcome.FAILURE, prediction.faults[row])
                continue
            task = episode.job.task
            chunk = actions[row, : min(card.execute, task.max_steps - episode.steps)]
            if not np.isfinite(chunk).all():
                self._finish(
                    number,
                    Outcome.FAILURE,
                    f"the policy returned a non-finite action at step {episode.steps}",
                )
                continue
            convert = action_converter(card.action, task.action, policy=card.name, suite=task.suite)
            chunk = np.ascontiguousarray(convert(chunk), np.float32)
            meant = prediction.intended
            if meant is not None:
                meant = np.asarray(convert(meant[row]), np.float32)
            episode.sent(chunk, meant)
            for pictures, oldest in zip(episode.galleries, self._plan.oldest, strict=True):
                pictures.forget(episode.steps + oldest)
            looks = tuple(
                tuple(step for step in steps if step <= len(chunk)) for steps in self._plan.looks
            )
            self.pool.send(number, chunk, looks)

    def _dream(
        self, rows: Sequence[InProgress], actions: NDArray[np.float32]
    ) -> tuple[Imagined | None, Imagined | None, float]:
        model, view = self._world_model, self._plan.world
        if model is None or view is None:
            return None, None, 0.0
        began = time.perf_counter()
        imagined, other = dream(
            model, self._card, rows, np.nan_to_num(actions), also_hold=self.options.imagine,
            view=view, batch=self.options.batch, run_seed=self.options.run_seed,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        self.accounts.reality += seconds
        return imagined, other, seconds

    # --------------------------------------------------------------------- finish

    def _finish(self, number: int, outcome: Outcome, reason: str | None) -> None:
        episode = self._slots[number]
        assert episode is not None
        arrays = episode.arrays()
        notes: dict[str, Any] = {}
        began = time.perf_counter()
        for reality in self._realities:
            if reality.prefix in episode.foreseen:
                found = reality.arrays(episode.foreseen[reality.prefix])
                arrays.update(found)
                if found:
                    notes[reality.prefix] = {**reality.note(), "execute": self._card.execute}
        self.accounts.reality += time.perf_counter() - began
        record = episode.record(
            outcome,
            reason,
            card=self._card,
            run_seed=self.options.run_seed,
            suite_version=self._versions[episode.job.key.suite],
            hashes=(self.folder.config_hash, self.folder.provenance_hash),
        )
        if notes:
            record = replace(record, notes={**record.notes, IMAGINATION_NOTE: notes})
        began = time.perf_counter()
        self.folder.write(Episode(record, arrays))
        self.accounts.writing += time.perf_counter() - began
        self.accounts.episodes += 1
        for observer in self.observers:
            observer.episode(record)
        self._refill(number)

    def _say(self, sentence: str) -> None:
        for observer in self.observers:
            observer.said(sentence)
