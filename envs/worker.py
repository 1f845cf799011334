"""A simulation worker: a spawned process that runs whole chunks of actions.

It knows no policy and holds no CUDA context. It receives one message per chunk, steps
without the interpreter, draws only at the steps that were asked for, and leaves
pictures in shared memory.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections import OrderedDict
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wamsim import registry
from wamsim.contracts import EpisodeKey, Task
from wamsim.errors import WamsimError
from wamsim.messages import Began, Failed, Ran, View

if TYPE_CHECKING:
    from envs.rendering import Painter
    from envs.runtime import Simulation
    from envs.scene import Scene, SuiteBackend, SuiteOptions

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """All that a worker is built with; pickled once.

    Attributes:
        suites, options: What to build suite backends from.
        views: Pictures per slot, in shared-memory order.
        slots: Episodes in progress in this worker.
        exact: See `Simulation`.
        memory_bound: Bytes of scenes (models, textures, meshes) to keep; at least one stays.
        shared: Name of the shared memory; None when there is nothing to look at.
    """

    suites: tuple[str, ...]
    options: SuiteOptions
    views: tuple[View, ...]
    slots: int
    exact: bool
    memory_bound: int
    shared: str | None


@dataclass(frozen=True, kw_only=True)
class Begin:
    """Message: start an episode in a slot, settle it, and look."""

    slot: int
    key: EpisodeKey
    run_seed: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """Message: run a chunk.

    Attributes:
        slot: Where.
        actions: float32 [n, A] in the suite's convention.
        looks: For every view, the local steps (1..n) after which to draw.
        and_last: Also draw every view after the last step run, be that n or the goal's.
    """

    slot: int
    actions: NDArray[np.float32]
    looks: tuple[tuple[int, ...], ...]
    and_last: bool = False


@dataclass(frozen=True)
class Describe:
    """Message: say that you are up; the reply is a dict (of OpenGL's strings) or an exception."""

    opengl: bool


@dataclass(kw_only=True)
class _Loaded:
    scene: Scene
    bytes: int
    painter: Painter | None = None


@dataclass(kw_only=True)
class _Slot:
    task: Task
    loaded: _Loaded
    sim: Simulation


class Worker:
    """The worker's side of the pipe; also used in-process by tests."""

    def __init__(self, spec: WorkerSpec) -> None:
        from envs import goals, rendering, runtime

        self._goals, self._rendering, self._runtime = goals, rendering, runtime
        self.spec = spec
        self._backends: dict[str, SuiteBackend] = {}
        self._tasks: dict[tuple[str, str], Task] = {}
        self._scenes: OrderedDict[str, _Loaded] = OrderedDict()
        self._slots: dict[int, _Slot] = {}
        self._shared = SharedMemory(spec.shared) if spec.shared else None
        self._pictures = slot_arrays(self._shared, spec.views, spec.slots)

    def close(self) -> None:
        """Free OpenGL and shared memory."""
        self._slots.clear()
        for loaded in self._scenes.values():
            if loaded.painter:
                loaded.painter.close()
        self._scenes.clear()
        self._pictures = []
        if self._shared:
            self._shared.close()

    def handle(self, message: Begin | Run) -> Began | Ran | Failed:
        """Answer one message; an exception becomes `Failed`."""
        try:
            return self._begin(message) if isinstance(message, Begin) else self._run(message)
        except Exception as error:
            self._slots.pop(message.slot, None)
            return Failed(
                slot=message.slot,
                reason=f"{type(error).__name__}: {error}",
                trace=traceback.format_exc(),
                error=error if isinstance(error, WamsimError) else None,
            )

    def describe(self) -> dict[str, str] | Exception:
        """OpenGL vendor, renderer and version, with names for provenance."""
        try:
            return {f"gl_{name}": text for name, text in self._rendering.gl_strings().items()}
        except Exception as error:
            return error

    # --------------------------------------------------------------- messages

    def _begin(self, message: Begin) -> Began:
        from envs.scene import variant

        self._slots.pop(message.slot, None)
        entered = time.perf_counter()
        key = message.key
        backend = self._backend(key.suite)
        task = variant(backend, self._task(key.suite, key.task), key)
        loaded = self._load(backend, task)
        scene = loaded.scene
        loading_s = time.perf_counter() - entered
        entered = time.perf_counter()
        sim = self._runtime.Simulation(
            scene, self._goals.parse(task.goal), exact=self.spec.exact, action=task.action.name
        )
        start = backend.start(scene, task, key, message.run_seed)
        sim.start(start)
        starting_s = time.perf_counter() - entered
        entered = time.perf_counter()
        hold = np.array(task.action.hold, np.float64)
        for _ in range(task.settle_steps):
            sim.step(hold)
        stepping_s = time.perf_counter() - entered
        slot = _Slot(task=task, loaded=loaded, sim=sim)
        self._slots[message.slot] = slot
        glimpse = sim.glimpse()
        drawing_s, extrinsics = 0.0, []
        for i in range(len(self.spec.views)):
            seconds, pose = self._look(message.slot, i, 0)
            drawing_s += seconds
            extrinsics.append(pose)
        return Began(
            slot=message.slot,
            state=sim.state(),
            seen_qpos=glimpse.seen_qpos,
            lit=glimpse.lit,
            robot_state=glimpse.robot_state,
            fixtures={name: (p.copy(), q.copy()) for name, (p, q) in start.fixtures.items()},
            perturbation=dict(start.perturbation),
            initial_state=key.index % task.n_initial_states,
            gripper_command=sim.gripper_command,
            intrinsics=[
                np.stack([self._rendering.intrinsics(scene, c, v.size) for c in v.cameras])
                if v.depth
                else None
                for v in self.spec.views
            ],
            extrinsics=extrinsics,
            stepping_s=stepping_s,
            drawing_s=drawing_s,
            loading_s=loading_s,
            starting_s=starting_s,
        )

    def _run(self, message: Run) -> Ran:
        slot = self._slots[message.slot]
        sim = slot.sim
        sim.activate()
        actions = message.actions.astype(np.float64)
        model = slot.loaded.scene.model
        n, nq = len(actions), model.nq
        states = np.empty((n, 1 + nq + model.nv))
        seen, robot = np.empty((n, nq)), np.empty((n, slot.task.robot_state.dim))
        lit = np.empty((n, len(sim.lit)), bool)
        looked: list[list[int]] = [[] for _ in self.spec.views]
        poses: list[list[Array]] = [[] for _ in self.spec.views]
        drawing_s, success, done = 0.0, False, 0
        stepped = time.perf_counter()
        for action in actions:
            success = sim.step(action)
            sim.write(states[done], seen[done], robot[done], lit[done])
            done += 1
            last = message.and_last and (success or done == n)
            for view, steps in enumerate(message.looks):
                if last or done in steps:
                    seconds, pose = self._look(message.slot, view, len(looked[view]))
                    drawing_s += seconds
                    looked[view].append(done)
                    if pose is not None:
                        poses[view].append(pose)
            if success:
                break
        stepping_s = time.perf_counter() - stepped - drawing_s
        return Ran(
            slot=message.slot,
            done=done,
            success=success,
            states=states[:done],
            seen_qpos=seen[:done],
            robot_states=robot[:done],
            lit=lit[:done],
            gripper_command=sim.gripper_command,
            looked=[tuple(steps) for steps in looked],
            extrinsics=[np.array(p) if p else None for p in poses],
            stepping_s=stepping_s,
            drawing_s=drawing_s,
        )

    def _look(self, slot: int, view: int, position: int) -> tuple[float, Array | None]:
        spec = self.spec.views[view]
        if not spec.cameras:
            return 0.0, None
        began = time.perf_counter()
        entry = self._slots[slot]
        painter = entry.loaded.painter
        if painter is None:
            painter = entry.loaded.painter = self._rendering.Painter(entry.loaded.scene)
        colour, depth = self._pictures[slot][view]
        frames, metres = self._runtime.shoot(
            painter,
            entry.sim.fixtures,
            entry.sim.glimpse(),
            self._runtime.Look(cameras=spec.cameras, size=spec.size, depth=spec.depth),
        )
        colour[position] = frames
        pose = None
        if metres is not None:
            depth[position] = metres
            pose = np.stack([painter.camera_pose(c) for c in spec.cameras])
        return time.perf_counter() - began, pose

    # ----------------------------------------------------------------- scenes

    def _backend(self, suite: str) -> SuiteBackend:
        if suite not in self._backends:
            backend = registry.suite(suite, self.spec.options)
            self._backends[suite] = backend
            self._tasks.update({(suite, t.name): t for t in backend.suite.tasks})
        return self._backends[suite]

    def _task(self, suite: str, name: str) -> Task:
        return self._tasks[(suite, name)]

    def _load(self, backend: SuiteBackend, task: Task) -> _Loaded:
        if task.scene_id in self._scenes:
            self._scenes.move_to_end(task.scene_id)
            return self._scenes[task.scene_id]
        scene = backend.scene(task)
        loaded = _Loaded(scene=scene, bytes=scene_bytes(scene))
        in_use = {id(s.loaded) for s in self._slots.values()}
        total = loaded.bytes + sum(s.bytes for s in self._scenes.values())
        for name, old in list(self._scenes.items()):
            if total <= self.spec.memory_bound:
                break
            if id(old) in in_use:
                continue
            if old.painter:
                old.painter.close()
            total -= old.bytes
            del self._scenes[name]
        self._scenes[task.scene_id] = loaded
        return loaded


def scene_bytes(scene: Scene) -> int:
    """Estimate what a loaded and drawn scene holds: model, its textures and meshes in OpenGL."""
    model = scene.model
    textures = int(4 * model.ntexdata / 3 * 4 / 3)  # RGBA with mipmaps
    meshes = int(model.nmeshface) * 3 * 32  # unindexed position, normal, texture coordinate
    return int(model.nbuffer) + textures + meshes


def slot_arrays(
    shared: SharedMemory | None, views: tuple[View, ...], slots: int
) -> list[list[tuple[NDArray[np.uint8], NDArray[np.float32]]]]:
    """Lay the slots' picture arrays over shared memory: [slot][view] -> (colour, depth)."""
    out: list[list[tuple[NDArray[np.uint8], NDArray[np.float32]]]] = []
    at = 0
    for _ in range(slots):
        row: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = []
        for view in views:
            if shared is None or not view.cameras:
                row.append((np.empty(0, np.uint8), np.empty(0, np.float32)))
                continue
            colour = np.ndarray(view.colour_shape(), np.uint8, shared.buf, at)
            depth = np.ndarray(view.depth_shape(), np.float32, shared.buf, at + view.depth_offset)
            row.append((colour, depth))
            at += view.nbytes
        out.append(row)
    return out


def main(pipe: Connection, spec: WorkerSpec) -> None:
    """Serve messages until the other end closes; the target of the spawned process."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    worker = Worker(spec)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            message = pipe.recv()
            if message is None:
                break
            if isinstance(message, Describe):
                pipe.send(worker.describe() if message.opengl else {})
            else:
                pipe.send(worker.handle(message))
    worker.close()
    sys.stdout.flush()
    # Interpreter shutdown would tear OpenGL down in an order that some drivers dislike.
    os._exit(0)
