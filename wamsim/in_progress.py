"""Episodes to run, and what is known of one while it runs."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wamsim import seeding
from wamsim.contracts import EpisodeKey, Outcome, PolicyCard, Prediction, PrivilegedState, Task
from wamsim.episode import Record
from wamsim.gallery import Gallery, Shot
from wamsim.messages import Began, PoolLike, Ran
from wamsim.reality import Foreseen


@dataclass(frozen=True)
class Job:
    """An episode to run, and which try this is."""

    key: EpisodeKey
    task: Task
    attempt: int = 1


class JobQueue:
    """Jobs, handed out so that a worker keeps the scene that it has loaded."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._by_scene: OrderedDict[str, deque[Job]] = OrderedDict()
        self._at_work: dict[int, str] = {}
        for job in jobs:
            self._by_scene.setdefault(job.task.scene_id, deque()).append(job)

    def next(self, worker: int) -> Job | None:
        """Give a worker its next job: its own scene, else one that nobody works on, else any."""
        left = {scene: len(jobs) for scene, jobs in self._by_scene.items() if jobs}
        if not left:
            return None
        scene = self._at_work.get(worker)
        if scene is None or scene not in left:
            others = {s for w, s in self._at_work.items() if w != worker}
            free = [s for s in left if s not in others]
            # In planned order while scenes are free; then help where most is left.
            scene = free[0] if free else max(left, key=lambda s: left[s])
        self._at_work[worker] = scene
        return self._by_scene[scene].popleft()


@dataclass
class InProgress:
    """One episode while it runs.

    Attributes:
        job: Which.
        steps: Env steps done.
        memory: What the policy handed back at its last query.
        galleries: Looks, per view.
        foreseen: What was imagined, per query; by the imaginer's prefix.
    """

    job: Job
    began: Began | None = None
    steps: int = 0
    memory: Any = None
    galleries: list[Gallery] = field(default_factory=list[Gallery])
    foreseen: dict[str, list[Foreseen]] = field(default_factory=dict[str, Any])
    gripper_command: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    states: list[NDArray[np.float64]] = field(default_factory=list[Any])
    robot_states: list[NDArray[np.float64]] = field(default_factory=list[Any])
    _seen_qpos: list[NDArray[np.float64]] = field(default_factory=list[Any])
    _lit: list[NDArray[np.bool_]] = field(default_factory=list[Any])
    _actions: list[NDArray[np.float32]] = field(default_factory=list[Any])
    _intended: list[NDArray[np.float32]] = field(default_factory=list[Any])
    _query_steps: list[int] = field(default_factory=list[int])
    _values: list[np.float32] = field(default_factory=list[Any])
    _act_s: list[float] = field(default_factory=list[float])
    _parts_s: dict[str, list[float]] = field(default_factory=dict[str, Any])
    _started_unix: float = 0.0
    _started: float = 0.0
    _stepping_s: float = 0.0
    _drawing_s: float = 0.0

    @property
    def first_query(self) -> bool:
        """Whether the policy has not been asked yet."""
        return not self._query_steps

    # ---------------------------------------------------------------- progress

    def begin(self, reply: Began, pool: PoolLike) -> None:
        """Take in that the episode has started."""
        self.began = reply
        self._started_unix, self._started = time.time(), time.perf_counter()
        self.states.append(reply.state)
        self.robot_states.append(reply.robot_state)
        self._seen_qpos.append(reply.seen_qpos)
        self._lit.append(np.array(reply.lit, bool))
        self.gripper_command = reply.gripper_command
        self.galleries = [Gallery() for _ in pool.views]
        for v, view in enumerate(pool.views):
            if view.cameras:
                colour, depth = pool.pictures(reply.slot, v)
                shot = Shot(colour[0], depth[0] if view.depth else None, reply.extrinsics[v])
                self.galleries[v].add(0, shot)

    def asked(self, row: int, prediction: Prediction, latency_s: float) -> None:
        """Take in what the policy said at the present step."""
        self._query_steps.append(self.steps)
        self._act_s.append(latency_s)
        for name, seconds in prediction.timings.items():
            self.took(name, float(seconds))
        if prediction.value is not None:
            self._values.append(np.float32(prediction.value[row]))
        if prediction.memory is not None:
            self.memory = prediction.memory[row]

    def recent_actions(self, n: int) -> NDArray[np.float32]:
        """Give the last executed actions, at most `n`, oldest first: [<= n, A]."""
        dim = self.job.task.action.dim
        done = self._actions[max(self.steps - n, 0) : self.steps]
        return np.array(done, np.float32).reshape(-1, dim)

    def took(self, part: str, seconds: float) -> None:
        """Take in a named part of the present query's latency."""
        self._parts_s.setdefault(part, []).append(seconds)

    def sent(self, chunk: NDArray[np.float32], intended: NDArray[np.float32] | None = None) -> None:
        """Take in the chunk [n, A] that now runs, in the suite's convention.

        Args:
            chunk: What is executed.
            intended: [L, A], what a perturbed expert meant from here on.
        """
        self._actions.extend(chunk)
        if intended is not None:
            self._intended.append(intended)

    def advance(self, reply: Ran, pool: PoolLike) -> None:
        """Take in that a chunk has run."""
        first = self.steps
        self.steps += reply.done
        del self._actions[self.steps :]  # the goal held before the chunk's end
        self.states.extend(reply.states)
        self.robot_states.extend(reply.robot_states)
        self._seen_qpos.extend(reply.seen_qpos)
        self._lit.extend(reply.lit)
        self.gripper_command = reply.gripper_command
        self._stepping_s += reply.stepping_s
        self._drawing_s += reply.drawing_s
        for v, steps in enumerate(reply.looked):
            colour, depth = pool.pictures(reply.slot, v)
            poses = reply.extrinsics[v]
            for i, step in enumerate(steps):
                shot = Shot(
                    colour[i],
                    depth[i] if pool.views[v].depth else None,
                    None if poses is None else poses[i],
                )
                self.galleries[v].add(first + step, shot)

    def privileged(self, pool: PoolLike) -> PrivilegedState:
        """Give the simulator's state, for scripted experts."""
        assert self.began is not None
        task, state = self.job.task, self.states[-1]
        scene = pool.scene(task)
        nq = int(scene.model.nq)
        return PrivilegedState(
            key=self.job.key,
            task=task,
            scene=scene,
            qpos=state[1 : 1 + nq],
            qvel=state[1 + nq :],
            fixtures=self.began.fixtures,
            gripper_command=self.gripper_command,
        )

    # --------------------------------------------------------------------- end

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give what the episode file keeps, imagination apart.

        Returns:
            states [S + 1, 1 + nq + nv], seen_qpos [S + 1, nq], robot_state [S + 1, P],
            lit [S + 1, L] where the scene has lights, actions [S, A], query_steps [Q],
            intended [Q, L, A] where the policy gave it, value [Q] where predicted, timing_* [Q].
        """
        if self.began is None:
            return {}
        out: dict[str, NDArray[Any]] = {
            "states": np.array(self.states),
            "seen_qpos": np.array(self._seen_qpos),
            "robot_state": np.array(self.robot_states),
            "actions": self._executed(self._actions),
            "query_steps": np.array(self._query_steps, np.int32),
            "timing_act_s": np.array(self._act_s),
        }
        if self.began.lit:
            out["lit"] = np.array(self._lit, bool)
        if self._intended:
            out["intended"] = np.array(self._intended, np.float32)
        if self._values:
            out["value"] = np.array(self._values, np.float32)
        for name, seconds in self._parts_s.items():
            out[f"timing_{name}_s"] = np.array(seconds)
        return out

    def _executed(self, rows: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        shape = (self.steps, self.job.task.action.dim)
        return np.array(rows[: self.steps], np.float32).reshape(shape)

    def record(
        self,
        outcome: Outcome,
        reason: str | None,
        *,
        card: PolicyCard,
        run_seed: int,
        suite_version: int,
        hashes: Sequence[str],
    ) -> Record:
        """Give the record of the ended episode.

        Args:
            outcome, reason: How it ended.
            card: The policy's.
            run_seed, suite_version: The run's.
            hashes: Of configuration and provenance.
        """
        key, task, began = self.job.key, self.job.task, self.began
        fixtures: Mapping[str, Any] = began.fixtures if began else {}
        timings: dict[str, float] = {}
        if began:
            timings = {
                "started_unix_s": self._started_unix,
                "wall_s": time.perf_counter() - self._started,
                "stepping_s": self._stepping_s,
                "drawing_s": self._drawing_s,
            }
        if self._act_s:
            timings["latency_s"] = float(np.mean(self._act_s))
        return Record(
            key=key,
            run_seed=run_seed,
            outcome=outcome,
            reason=reason,
            steps=self.steps,
            success_step=self.steps if outcome is Outcome.SUCCESS else None,
            instruction=task.instruction,
            initial_state=key.index % task.n_initial_states,
            suite_version=suite_version,
            policy=card.name,
            config_hash=hashes[0],
            provenance_hash=hashes[1],
            seeds={
                "fixtures": seeding.derive(run_seed, key, "fixtures"),
                "policy@0": seeding.policy_seed(run_seed, key, 0),
            },
            fixtures={
                body: (tuple(position), tuple(quaternion))
                for body, (position, quaternion) in fixtures.items()
            },
            perturbation=dict(began.perturbation) if began else {},
            stand_in_visuals=task.stand_in_visuals,
            privileged=card.privileged,
            attempt=self.job.attempt,
            timings=timings,
            notes={"settle_steps": task.settle_steps},
        )
