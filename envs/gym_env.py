"""One task as a `gymnasium.Env`, stepped in this process.

For training code and notebooks. An evaluation runs through `envs.evaluation`, whose
episodes begin exactly as these do: ``reset(seed=s, options={"index": k})`` is episode
``EpisodeKey(suite, task, k)`` of a run with seed ``s``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from envs import goals
from envs.rendering import Painter
from envs.replay import standard_cameras
from envs.runtime import Look, Simulation, shoot
from envs.scene import Scene, SuiteOptions, pairs, variant
from wamsim import registry
from wamsim.contracts import EpisodeKey, Task
from wamsim.errors import RenderingUnavailable, UnknownName, nearest
from wamsim.folders import default_cache_dir

Observation = dict[str, NDArray[Any]]

# gymnasium.make has no command line above it, so the variables are read here.
ASSETS_VARIABLE = "WAMSIM_LIBERO_ASSETS"
CACHE_VARIABLE = "WAMSIM_CACHE"


class WamsimEnv(gymnasium.Env[Any, NDArray[np.float32]]):
    """One task.

    Observations are a dict of upright pictures, one uint8 [H, W, 3] per camera, and
    "robot_state", float64 (`task.robot_state` names its fields). Actions are what
    `task.action` says, seven numbers in [-1, 1] in most suites; values outside are clipped.
    The reward is 1 at the step at which the goal holds, else 0. An episode terminates with
    success and is truncated at the task's step limit.

    Args:
        suite: Name of a registered suite.
        task: Index or name of the task.
        cameras: What to look through; ``()`` draws nothing and needs no OpenGL; None takes
            agentview and eye_in_hand, or the first three of a task without these.
        image_size: (height, width) of observed pictures.
        render_mode: None or "rgb_array".
        render_camera, render_size: What `render` draws; None takes agentview, or the last of
            a task's cameras, which is there for videos.
        assets: LIBERO's assets folder; None takes WAMSIM_LIBERO_ASSETS, else where
            hf-libero keeps its download.
        cache: Where compiled scenes are kept; None takes WAMSIM_CACHE, else the user's
            cache folder.
        exact: See `envs.runtime.Simulation`.
        protocol, reset_mode, wording: See `envs.scene.SuiteOptions`.
        suite_set: Choices among the suite's own options, as ``--suite-set`` of an evaluation.

    Attributes:
        task: The `wamsim.contracts.Task`.
        scene: The `envs.scene.Scene`; not shared with other environments.
        run_seed: Seed of the present episode, as ``--seed`` of an evaluation.
    """

    _drawn_by: ClassVar[int | None] = None  # the process that drew first
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012  Gymnasium's type

    def __init__(
        self,
        suite: str,
        task: int | str = 0,
        *,
        cameras: Sequence[str] | None = None,
        image_size: tuple[int, int] = (256, 256),
        render_mode: str | None = None,
        render_camera: str | None = None,
        render_size: tuple[int, int] = (512, 512),
        assets: str | Path | None = None,
        cache: str | Path | None = None,
        exact: bool = False,
        protocol: str | None = None,
        reset_mode: str = "per_episode",
        wording: int = 0,
        suite_set: Mapping[str, str] | None = None,
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}, expected None or 'rgb_array'")
        self._backend = registry.suite(
            suite,
            SuiteOptions(
                cache_dir=_cache_dir(cache),
                libero_assets=_folder(assets, ASSETS_VARIABLE),
                protocol=protocol,
                reset_mode=reset_mode,
                wording=wording,
                chosen=pairs(suite_set or {}),
            ),
        )
        self.task = _find(self._backend.suite.tasks, task, suite)
        cameras = standard_cameras(self.task) if cameras is None else cameras
        if render_camera is None:
            known = self.task.cameras
            render_camera = "agentview" if "agentview" in known else known[-1]
        for camera in (*cameras, render_camera):
            if camera not in self.task.cameras:
                raise nearest(camera, self.task.cameras, kind=f"camera of {suite}")
        self.metadata = {**self.metadata, "render_fps": round(self.task.control_hz)}
        self.render_mode = render_mode
        self._look = Look(cameras=tuple(cameras), size=_size(image_size))
        self._render_look = Look(cameras=(render_camera,), size=_size(render_size))
        self.action_space = gymnasium.spaces.Box(
            np.array(self.task.action.low, np.float32), np.array(self.task.action.high, np.float32)
        )
        self.observation_space = gymnasium.spaces.Dict(
            {
                **{
                    camera: gymnasium.spaces.Box(0, 255, (*self._look.size, 3), np.uint8)
                    for camera in cameras
                },
                "robot_state": gymnasium.spaces.Box(
                    -np.inf, np.inf, (self.task.robot_state.dim,), np.float64
                ),
            }
        )
        self._exact = exact
        self._painter: Painter | None = None
        self._enter(self.task)
        self._hold = np.array(self.task.action.hold, np.float64)
        self.run_seed = 0
        self._index = 0
        self._steps: int | None = None  # since settling; None before the first reset

    def _enter(self, task: Task) -> None:
        """Take a task's scene and goal."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None
        self.task = task
        self.scene: Scene = self._backend.scene(task)
        self._simulation = Simulation(
            self.scene, goals.parse(task.goal), exact=self._exact, action=task.action.name
        )

    @property
    def model(self) -> Any:
        """The compiled `mujoco.MjModel`, in which fixture poses change from episode to episode."""
        return self.scene.model

    @property
    def data(self) -> Any:
        """The simulation's `mujoco.MjData`; another object where a trial has a scene of its own."""
        return self._simulation.data

    def success(self) -> bool:
        """Whether the goal holds now."""
        return self._simulation.success()

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode and let it settle, as the harness does.

        Args:
            seed: The run's seed. None keeps the present one; before any was given, one is
                drawn from the operating system.
            options: ``{"index": k}`` picks the trial, as `EpisodeKey.index` does. Without it,
                one of the task's initial states is drawn from `np_random`: seeds change the
                start, and a reset without a seed goes on to another one.

        Raises:
            UnknownName: An option other than "index".
            ValueError: The index is not a whole number >= 0.
        """
        super().reset(seed=seed)
        for name in options or {}:
            if name != "index":
                raise nearest(name, ["index"], kind="reset option")
        index = (options or {}).get("index")
        if index is None:
            index = self.np_random.integers(self.task.n_initial_states)
        if isinstance(index, bool) or not isinstance(index, int | np.integer) or index < 0:
            raise ValueError(f"options['index'] is {index!r}, expected a whole number >= 0")
        self._index = int(index)
        self.run_seed = self.np_random_seed
        key = EpisodeKey(self.task.suite, self.task.name, self._index)
        task = variant(self._backend, self.task, key)
        if (task.scene_id, task.goal) != (self.task.scene_id, self.task.goal):
            self._enter(task)
        self.task = task
        simulation = self._simulation
        simulation.start(self._backend.start(self.scene, self.task, key, self.run_seed))
        for _ in range(self.task.settle_steps):
            simulation.step(self._hold)
        self._steps = 0
        return self._observe(), self._info(self.success())

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Run one env step.

        Args:
            action: In the convention of `task.action`.

        Raises:
            ValueError: The action has another shape, or holds a NaN or an infinity.
            ResetNeeded: There was no `reset`.
        """
        if self._steps is None:
            raise ResetNeeded("step() before reset(): call reset() to start an episode")
        success = self._simulation.step(self._checked(action))
        self._steps += 1
        truncated = not success and self._steps >= self.task.max_steps
        return self._observe(), float(success), success, truncated, self._info(success)

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Draw `render_camera` at `render_size`, uint8 [H, W, 3]; None without a render mode."""
        if self.render_mode is None:
            return None
        if self._steps is None:
            raise ResetNeeded("render() before reset(): call reset() to start an episode")
        return self._draw(self._render_look)[0]

    def close(self) -> None:
        """Free OpenGL memory; may be called again, and drawing afterwards works."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None

    # ------------------------------------------------------------------- details

    def _checked(self, action: Any) -> NDArray[np.float64]:
        # float32 first, as policies give it: equal actions then give equal episodes
        checked = np.asarray(action, np.float32)
        if checked.shape != self.action_space.shape:
            raise ValueError(
                f"action has shape {checked.shape}, expected {self.action_space.shape}: "
                f"{', '.join(self.task.action.labels)} ({self.task.action.name})"
            )
        if not np.isfinite(checked).all():
            raise ValueError(f"action is not finite: {checked.tolist()}")
        return checked.astype(np.float64)

    def _observe(self) -> Observation:
        out: Observation = {}
        if self._look.cameras:
            out.update(zip(self._look.cameras, self._draw(self._look).copy(), strict=True))
        out["robot_state"] = self._simulation.glimpse().robot_state
        return out

    def _draw(self, look: Look) -> NDArray[np.uint8]:
        if WamsimEnv._drawn_by not in (None, os.getpid()):
            raise RenderingUnavailable(
                "this process was forked from one that had already drawn, and OpenGL would hang "
                "here. Pass context='spawn' to AsyncVectorEnv (or as vector_kwargs of make_vec), "
                "or make the vector environment before anything is drawn."
            )
        WamsimEnv._drawn_by = os.getpid()
        if self._painter is None:
            self._painter = Painter(self.scene)
        simulation = self._simulation
        frames, _ = shoot(self._painter, simulation.fixtures, simulation.glimpse(), look)
        return frames

    def _info(self, success: bool) -> dict[str, Any]:
        return {
            "success": success,
            "index": self._index,
            "instruction": self.task.instruction,
            "steps": self._steps,
        }


def _find(tasks: Sequence[Task], wanted: int | str, suite: str) -> Task:
    if isinstance(wanted, str):
        found = {task.name: task for task in tasks}
        if wanted not in found:
            raise nearest(wanted, found, kind=f"task of {suite}")
        return found[wanted]
    if not 0 <= wanted < len(tasks):
        raise UnknownName(f"{suite} has tasks 0..{len(tasks) - 1}; there is no task {wanted}.")
    return tasks[wanted]


def _size(size: Sequence[int]) -> tuple[int, int]:
    height, width = (int(side) for side in size)
    if min(height, width) < 1:
        raise ValueError(f"picture size is {(height, width)}, expected (height, width) >= 1")
    return height, width


def _folder(given: str | Path | None, variable: str) -> Path | None:
    found = given or os.environ.get(variable)
    return Path(found).expanduser() if found else None


def _cache_dir(given: str | Path | None) -> Path:

    return _folder(given, CACHE_VARIABLE) or default_cache_dir()
