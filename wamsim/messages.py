"""What the rollout and a pool of simulators say to each other.

NumPy and the standard library alone, so that the rollout knows no simulator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wamsim.contracts import EpisodeKey, Task

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class View:
    """Pictures that somebody wants: which cameras, how large, how many per chunk at most.

    Attributes:
        cameras: Public camera names.
        size: (height, width).
        capacity: Looks per message that fit into shared memory.
        depth: Also metric depth.
    """

    cameras: tuple[str, ...]
    size: tuple[int, int]
    capacity: int
    depth: bool = False

    def colour_shape(self) -> tuple[int, ...]:
        """uint8 [capacity, cams, H, W, 3]."""
        return (self.capacity, len(self.cameras), *self.size, 3)

    def depth_shape(self) -> tuple[int, ...]:
        """float32 [capacity, cams, H, W]; empty without depth."""
        return (self.capacity if self.depth else 0, len(self.cameras), *self.size)

    @property
    def nbytes(self) -> int:
        """Bytes of one slot's pictures of this view, a multiple of 64."""
        return -(-(self.depth_offset + 4 * int(np.prod(self.depth_shape()))) // 64) * 64

    @property
    def depth_offset(self) -> int:
        """Where depth begins behind colour, a multiple of 64."""
        return -(-int(np.prod(self.colour_shape())) // 64) * 64


@dataclass(kw_only=True)
class Began:
    """An episode has started and settled; its first pictures lie at position 0 of every view.

    Attributes:
        slot: Where.
        state: [1 + nq + nv] time, qpos, qvel after settling.
        seen_qpos, lit, robot_state: What the first picture and proprioception are made of.
        fixtures: body -> (position [3], quaternion wxyz [4]), for the record.
        perturbation: What else was drawn, for the record.
        initial_state: Which of the task's initial states.
        gripper_command: The integrated finger commands.
        intrinsics: Per view float64 [cams, 3, 3], None without depth.
        extrinsics: Per view float64 [cams, 4, 4] camera to world, None without depth.
        stepping_s, drawing_s, loading_s, starting_s: Seconds spent.
    """

    slot: int
    state: Array
    seen_qpos: Array
    lit: tuple[bool, ...]
    robot_state: Array
    fixtures: Mapping[str, tuple[Array, Array]]
    perturbation: Mapping[str, Any]
    initial_state: int
    gripper_command: Array
    intrinsics: Sequence[Array | None]
    extrinsics: Sequence[Array | None]
    stepping_s: float
    drawing_s: float
    loading_s: float
    starting_s: float


@dataclass(kw_only=True)
class Ran:
    """A chunk has run.

    Attributes:
        slot: Where.
        done: Steps run; fewer than asked when the goal held.
        success: Whether the goal held after the last step.
        states: [done, 1 + nq + nv].
        seen_qpos: [done, nq].
        robot_states: [done, P].
        lit: bool [done, L].
        gripper_command: The integrated finger commands after the last step.
        looked: Per view, the local steps (1-based) whose pictures lie in order.
        extrinsics: Per view float64 [looks, cams, 4, 4], None without depth.
        stepping_s, drawing_s: Seconds spent.
    """

    slot: int
    done: int
    success: bool
    states: Array
    seen_qpos: Array
    robot_states: Array
    lit: NDArray[np.bool_]
    gripper_command: Array
    looked: Sequence[tuple[int, ...]]
    extrinsics: Sequence[Array | None]
    stepping_s: float
    drawing_s: float


@dataclass(kw_only=True)
class Failed:
    """A message raised in the simulator: the episode is an error, the worker goes on.

    Attributes:
        slot: Where.
        reason: One line.
        trace: The traceback.
        error: The exception when it is the user's to mend (missing assets, no OpenGL):
            it would hit every episode, so the run stops with its sentence.
    """

    slot: int
    reason: str
    trace: str
    error: Exception | None = None


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A slot's worker died; the worker has been replaced, the episode is gone."""

    slot: int
    reason: str


Reply = Began | Ran | Failed | Lost


class PoolLike(Protocol):
    """What the rollout needs of a pool; `envs.pool.Pool` is one."""

    num_envs: int
    views: tuple[View, ...]

    def task(self, suite: str, name: str) -> Task:
        """A task by name."""
        ...

    def variant(self, key: EpisodeKey) -> Task:
        """A trial's task: its words and scene may differ from the suite's own."""
        ...

    def scene(self, task: Task) -> Any:
        """The task's scene in this process, for privileged policies."""
        ...

    def begin(self, slot: int, key: EpisodeKey, run_seed: int) -> None:
        """Start an episode; answered by `Began`."""
        ...

    def send(
        self, slot: int, actions: NDArray[np.float32], looks: tuple[tuple[int, ...], ...]
    ) -> None:
        """Run a chunk [n, A] and draw every view after these local steps; answered by `Ran`."""
        ...

    def receive(self, timeout: float | None = None) -> list[Reply]:
        """Wait for replies."""
        ...

    def pictures(self, slot: int, view: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A slot's pictures, [capacity, cams, H, W, 3] and depth; valid until its next message."""
        ...

    def worker_of(self, slot: int) -> int:
        """Which worker a slot belongs to."""
        ...
