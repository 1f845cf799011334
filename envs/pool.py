"""The pool: episodes in progress, spread over spawned workers.

As a `gymnasium.vector.VectorEnv` it steps all slots together; its own method more,
`run(chunks)`, steps every slot through a chunk of actions. The rollout uses the
asynchronous half (`begin`, `send`, `receive`), so that some slots step while the policy
serves others. Slots never autoreset. Which worker or slot runs an episode changes
nothing in it.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from envs.processes import environment
from envs.scene import Scene, SuiteBackend, SuiteOptions, variant
from envs.worker import Begin, Describe, Run, WorkerSpec, main, slot_arrays
from wamsim import registry
from wamsim.contracts import EpisodeKey, Task
from wamsim.conventions import PANDA_STATE
from wamsim.errors import UnknownName, WorkerLost, nearest
from wamsim.messages import Failed, Lost, Reply, View


@dataclass(kw_only=True)
class _Remote:
    process: BaseProcess
    pipe: Connection
    shared: SharedMemory | None
    busy: deque[int]  # slots (global numbers) with a message under way, oldest first


class Pool(VectorEnv):
    """Slots over workers.

    Args:
        suites: Names of the suites that episodes may come from.
        options: How they are built.
        views: What to look at; see `View`.
        workers: Processes.
        slots: Episodes in progress per worker.
        exact: See `envs.runtime.Simulation`.
        memory_bound: Bytes of scenes to keep per worker.
        threads: Threads of software OpenGL and BLAS per worker; by default the cores
            are shared out.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        suites: Sequence[str],
        options: SuiteOptions,
        *,
        views: Sequence[View] = (),
        workers: int = 1,
        slots: int = 1,
        exact: bool = False,
        memory_bound: int = 3 << 30,
        threads: int | None = None,
    ) -> None:
        if workers < 1 or slots < 1:
            raise ValueError(f"workers={workers} and slots={slots} must both be at least 1")
        self.suites = tuple(suites)
        self.options = options
        self.views = tuple(views)
        self.workers = workers
        self.slots_per_worker = slots
        self.num_envs = workers * slots
        self._exact = exact
        self._memory_bound = memory_bound
        self._threads = threads or max(1, (os.cpu_count() or 1) // workers)
        self._context = mp.get_context("spawn")
        self._remotes: list[_Remote] = []
        self._pictures: list[Any] = [None] * self.num_envs
        self._backends: dict[str, SuiteBackend] = {}
        self._scenes: dict[str, Scene] = {}
        self._closing = False
        self._lost: deque[Lost] = deque()
        for _ in range(workers):
            self._remotes.append(self._spawn())
        for worker in range(workers):
            self._map_pictures(worker)
        self._define_spaces()
        self._running: list[Task | None] = [None] * self.num_envs
        self._steps = np.zeros(self.num_envs, np.int64)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --------------------------------------------------------- tasks and scenes

    def backend(self, suite: str) -> SuiteBackend:
        """The suite's backend in this process (cheap: nothing is compiled)."""
        if suite not in self._backends:
            self._backends[suite] = registry.suite(suite, self.options)
        return self._backends[suite]

    def task(self, suite: str, name: str) -> Task:
        """A task by its name.

        Raises:
            UnknownName: With the nearest known name.
        """
        tasks = {t.name: t for t in self.backend(suite).suite.tasks}
        if name not in tasks:
            raise nearest(name, tasks, kind=f"task of {suite}")
        return tasks[name]

    def variant(self, key: EpisodeKey) -> Task:
        """A trial's task, with the words, the goal and the scene of this trial."""
        return variant(self.backend(key.suite), self.task(key.suite, key.task), key)

    def scene(self, task: Task) -> Scene:
        """The scene of a task in this process, for privileged policies."""
        scene = self._scenes.pop(task.scene_id, None)
        if scene is None:
            # one scene a slot at most, the one not asked for the longest goes first
            if len(self._scenes) >= max(2, self.num_envs):
                self._scenes.pop(next(iter(self._scenes)))
            scene = self.backend(task.suite).scene(task)
        self._scenes[task.scene_id] = scene
        return scene

    # -------------------------------------------------------------- asynchronous

    def begin(self, slot: int, key: EpisodeKey, run_seed: int) -> None:
        """Start an episode in a slot; the reply is a `Began`."""
        self._post(slot, Begin(slot=self._local(slot), key=key, run_seed=run_seed))

    def send(
        self, slot: int, actions: NDArray[np.float32], looks: tuple[tuple[int, ...], ...]
    ) -> None:
        """Run a chunk [n, A] in a slot; the reply is a `Ran`."""
        self._post(slot, Run(slot=self._local(slot), actions=actions, looks=looks))

    def receive(self, timeout: float | None = None) -> list[Reply]:
        """Wait for replies; slots in them are global numbers.

        Returns:
            At least one reply, or none after `timeout` seconds.

        Raises:
            WorkerLost: A worker died and none can be started in its place.
        """
        if self._lost:
            found: list[Reply] = [*self._lost]
            self._lost.clear()
            return found
        pipes = {remote.pipe: i for i, remote in enumerate(self._remotes)}
        replies: list[Reply] = []
        for pipe in wait(list(pipes), timeout):
            worker = pipes[pipe]  # type: ignore[index]
            remote = self._remotes[worker]
            heard = len(replies)
            try:
                while remote.pipe.poll():
                    reply = remote.pipe.recv()
                    slot = worker * self.slots_per_worker + reply.slot
                    remote.busy.remove(slot)
                    reply.slot = slot
                    replies.append(reply)
            except (EOFError, ConnectionResetError, BrokenPipeError):
                # A dead worker's last answers come first: their pictures go with it.
                if len(replies) == heard:
                    replies.extend(self._replace(worker))
        return replies

    def pictures(self, slot: int, view: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Shared memory of a slot's view: colour and depth; overwritten by its next message."""
        return self._pictures[slot][view]

    def worker_of(self, slot: int) -> int:
        """Which worker a slot belongs to, for task affinity."""
        return slot // self.slots_per_worker

    def pids(self) -> list[int]:
        """Process ids of the workers, for memory checks."""
        return [remote.process.pid or 0 for remote in self._remotes]

    def wait_until_up(self) -> dict[str, str]:
        """Wait until every worker has imported what it needs; before the first episode.

        Returns:
            OpenGL vendor, renderer and version as the workers have them, for provenance;
            empty when there is nothing to look at.

        Raises:
            RenderingUnavailable: Workers cannot draw here.
            WorkerLost: A worker died while starting.
        """
        opengl = any(view.cameras for view in self.views)
        for remote in self._remotes:
            with contextlib.suppress(OSError):  # dead already: noticed below
                remote.pipe.send(Describe(opengl=opengl))
        found: dict[str, str] = {}
        for remote in self._remotes:
            try:
                reply = remote.pipe.recv()
            except (EOFError, OSError):
                remote.process.join(timeout=5)
                raise WorkerLost(
                    f"a simulation worker ended while starting (exit code "
                    f"{remote.process.exitcode}); `wamsim doctor` checks this machine"
                ) from None
            if isinstance(reply, Exception):
                raise reply
            found = reply
        return found

    def _local(self, slot: int) -> int:
        return slot % self.slots_per_worker

    def _post(self, slot: int, message: Begin | Run) -> None:
        if any(lost.slot == slot for lost in self._lost):
            if isinstance(message, Run):
                return  # its episode died with its worker; `receive` is about to say so
            self._lost = deque(lost for lost in self._lost if lost.slot != slot)
        worker = self.worker_of(slot)
        self._remotes[worker].busy.append(slot)
        try:
            self._remotes[worker].pipe.send(message)
        except OSError:  # it died between two messages
            self._lost.extend(self._replace(worker))
            if isinstance(message, Begin):  # nothing of this episode is lost yet
                self._lost = deque(lost for lost in self._lost if lost.slot != slot)
                self._remotes[worker].busy.append(slot)
                self._remotes[worker].pipe.send(message)

    # ------------------------------------------------------------------ processes

    def _spawn(self) -> _Remote:
        size = self.slots_per_worker * sum(v.nbytes for v in self.views if v.cameras)
        shared = None
        if size:
            # the owner's pid tells whose it is, should it ever be left behind
            name = f"wamsim_{os.getpid()}_{secrets.token_hex(6)}"
            shared = SharedMemory(create=True, size=size, name=name)
        spec = WorkerSpec(
            suites=self.suites,
            options=self.options,
            views=self.views,
            slots=self.slots_per_worker,
            exact=self._exact,
            memory_bound=self._memory_bound,
            shared=shared.name if shared else None,
        )
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=main, args=(theirs, spec), daemon=True)
        threads = str(self._threads)
        # Read once by llvmpipe and OpenBLAS when they load in the child.
        child = {
            "LP_NUM_THREADS": threads,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        }
        if "CUDA_VISIBLE_DEVICES" not in os.environ:
            del child["CUDA_VISIBLE_DEVICES"]
        with environment(child):
            process.start()
        theirs.close()
        return _Remote(process=process, pipe=ours, shared=shared, busy=deque())

    def _map_pictures(self, worker: int) -> None:
        arrays = slot_arrays(self._remotes[worker].shared, self.views, self.slots_per_worker)
        first = worker * self.slots_per_worker
        self._pictures[first : first + self.slots_per_worker] = arrays

    def _replace(self, worker: int) -> list[Lost]:
        remote = self._remotes[worker]
        remote.process.join(timeout=5)
        code = remote.process.exitcode
        reason = f"worker process ended with exit code {code}" + (
            f" (signal {-code})" if code is not None and code < 0 else ""
        )
        lost = [Lost(slot=slot, reason=reason) for slot in remote.busy]
        # A dead worker's other episodes are gone as well, whether or not a message was under way.
        first = worker * self.slots_per_worker
        lost += [
            Lost(slot=slot, reason=reason)
            for slot in range(first, first + self.slots_per_worker)
            if slot not in remote.busy
        ]
        self._discard(remote, worker)
        if self._closing:
            return lost
        try:
            self._remotes[worker] = self._spawn()
        except OSError as error:
            raise WorkerLost(f"{reason}, and no new one can be started: {error}") from error
        self._map_pictures(worker)
        return lost

    def _discard(self, remote: _Remote, worker: int) -> None:
        first = worker * self.slots_per_worker
        self._pictures[first : first + self.slots_per_worker] = [None] * self.slots_per_worker
        with contextlib.suppress(OSError):
            remote.pipe.close()
        if remote.shared:
            with contextlib.suppress(BufferError):
                remote.shared.close()
            with contextlib.suppress(FileNotFoundError):
                remote.shared.unlink()

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the workers and give back their memory."""
        self._closing = True
        for remote in self._remotes:
            with contextlib.suppress(OSError):
                remote.pipe.send(None)
        for worker, remote in enumerate(self._remotes):
            remote.process.join(timeout=2)
            if remote.process.is_alive():
                remote.process.kill()
                remote.process.join(timeout=5)
            self._discard(remote, worker)
        self._remotes = []

    # ------------------------------------------------------------------ VectorEnv

    def _define_spaces(self) -> None:
        low, high = -np.ones(7, np.float32), np.ones(7, np.float32)
        self.single_action_space = gymnasium.spaces.Box(low, high)
        spaces: dict[str, gymnasium.Space[Any]] = {
            "robot_state": gymnasium.spaces.Box(-np.inf, np.inf, (PANDA_STATE.dim,), np.float64)
        }
        for view in self.views:
            for camera in view.cameras:
                spaces[camera] = gymnasium.spaces.Box(0, 255, (*view.size, 3), np.uint8)
        self.single_observation_space = gymnasium.spaces.Dict(spaces)
        batch = gymnasium.vector.utils.batch_space
        self.action_space = batch(self.single_action_space, self.num_envs)
        self.observation_space = batch(self.single_observation_space, self.num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode in every slot.

        Args:
            seed: The run's seed (one for all slots).
            options: {"episodes": one `EpisodeKey` per slot}; by default trials 0, 1, ...
                of the first suite's first task.
        """
        run_seed = seed[0] if isinstance(seed, list) else seed
        first = self.backend(self.suites[0]).suite.tasks[0]
        keys: list[EpisodeKey] = list((options or {}).get("episodes", ())) or [
            EpisodeKey(first.suite, first.name, i) for i in range(self.num_envs)
        ]
        if len(keys) != self.num_envs:
            raise UnknownName(
                f"options['episodes'] must hold {self.num_envs} keys, got {len(keys)}"
            )
        for slot, key in enumerate(keys):
            self._running[slot] = self.task(key.suite, key.task)
            self.begin(slot, key, run_seed or 0)
        self._steps[:] = 0
        replies = self._collect()
        state = np.stack([r.robot_state for r in replies])
        return self._observe(state), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[dict[str, Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict]:
        """Step every slot once; see `run`."""
        return self.run(np.asarray(actions, np.float32)[:, None])

    def run(
        self, chunks: NDArray[np.float32]
    ) -> tuple[dict[str, Any], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict]:
        """Step every slot through a chunk; a slot stops early when its goal holds.

        Args:
            chunks: float32 [num_envs, n, A].

        Returns:
            Observations after the chunk, rewards (1 at success), terminated (success),
            truncated (step limit), and info with "steps" done [num_envs].
        """
        nothing = tuple(() for _ in self.views)
        for slot in range(self.num_envs):
            self._post(
                slot,
                Run(slot=self._local(slot), actions=chunks[slot], looks=nothing, and_last=True),
            )
        replies = self._collect()
        done = np.array([r.done for r in replies])
        success = np.array([r.success for r in replies])
        self._steps += done
        limit = np.array([task.max_steps if task else 0 for task in self._running])
        state = np.stack([r.robot_states[-1] for r in replies])
        observation = self._observe(state)
        return (
            observation,
            success.astype(np.float64),
            success,
            ~success & (self._steps >= limit),
            {"steps": done},
        )

    def _collect(self) -> list[Any]:
        found: dict[int, Reply] = {}
        while len(found) < self.num_envs:  # all of them, so that no answer is left for a reset
            found.update({reply.slot: reply for reply in self.receive()})
        for reply in found.values():
            if isinstance(reply, Lost):
                raise WorkerLost(f"slot {reply.slot}: {reply.reason}; reset() starts afresh")
            if isinstance(reply, Failed):
                raise reply.error or RuntimeError(f"slot {reply.slot} failed:\n{reply.trace}")
        return [found[slot] for slot in range(self.num_envs)]

    def _observe(self, robot_state: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        out: dict[str, NDArray[Any]] = {"robot_state": robot_state}
        for v, view in enumerate(self.views):
            for c, camera in enumerate(view.cameras):
                out[camera] = np.stack(
                    [self._pictures[s][v][0][0, c] for s in range(self.num_envs)]
                )
        return out
