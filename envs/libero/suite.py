"""The five LIBERO suites: 130 genuine tasks on the native runtime.

Liu et al. 2023, "LIBERO: Benchmarking Knowledge Transfer for Lifelong Robot Learning",
arXiv:2306.03310. Task order is the benchmark's own (task_order_index 0).
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.libero import assets, bddl, init_states, placement, protocols, upstream
from envs.scene import Scene, Start, SuiteOptions
from envs.scene_cache import load_or_build
from wamsim.contracts import EpisodeKey, Suite, Task
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, PANDA_STATE
from wamsim.errors import UnknownName, nearest
from wamsim.seeding import derive, numpy_legacy_seed

Array = NDArray[np.float64]

REFERENCE = "Liu et al. 2023, arXiv:2306.03310"
VERSION = 1
N_INITIAL_STATES = 50  # rows of every .pruned_init
CONTROL_HZ = 20.0  # ControlEnv's control_freq

# Cameras that all LIBERO scenes have; the first two are what policies look through.
CAMERAS = (
    "agentview",
    "eye_in_hand",
    "frontview",
    "birdview",
    "sideview",
    "galleryview",
    "robot0_robotview",
)

# First model loads of a genuine environment before the reset that counts: its
# construction; lerobot resets once more when it makes one (envs/libero.py, _ensure_env).
_LOADS_BEFORE = {"per_episode": 1, "openvla": 1, "lerobot": 2}


def suite(name: str, options: SuiteOptions) -> LiberoSuite:
    """Entry point of group ``wamsim.suites``."""
    return LiberoSuite(name, options)


def instruction_of(name: str) -> str:
    """What a policy is told: a task's file name without its scene, as evaluations do it.

    >>> instruction_of("KITCHEN_SCENE10_put_the_butter_in_the_drawer")
    'put the butter in the drawer'
    """
    return re.sub(r"^[A-Z_]+_SCENE\d+_", "", name).replace("_", " ")


class LiberoSuite:
    """A `SuiteBackend`. Listing its tasks reads BDDL files and needs no assets.

    Args:
        name: One of `protocols.SUITES`.
        options: Folders, protocol, reset mode and wording.

    Raises:
        UnknownName: No such suite, protocol, reset mode or wording.
    """

    suite: Suite

    def __init__(self, name: str, options: SuiteOptions) -> None:
        if name not in protocols.SUITES:
            raise nearest(name, protocols.SUITES, kind="LIBERO suite")
        self.options = options
        self.protocol = protocols.choose(options.protocol)
        # A protocol says how it resets; without one the option decides.
        self.reset_mode = (
            options.reset_mode if options.protocol is None else self.protocol.reset_mode
        )
        if self.reset_mode not in protocols.RESET_MODES:
            raise nearest(self.reset_mode, protocols.RESET_MODES, kind="reset mode")
        self._assets = assets.find(options.libero_assets)
        self._states: dict[str, Array] = {}
        names = upstream.task_map()[name]
        tasks = tuple(self._task(name, i, task) for i, task in enumerate(names))
        self.suite = Suite(name=name, version=VERSION, tasks=tasks, reference=REFERENCE)

    def scene(self, task: Task) -> Scene:
        """Compile the task's scene, or load it from the cache.

        Raises:
            AssetsMissing: The folder of assets or files in it are not there.
        """
        path = upstream.bddl_path(task.suite, task.name)
        problem = bddl.read(path)
        folder = assets.require_complete(problem, self.options.libero_assets)
        key: dict[str, Any] = {
            "scene": task.scene_id,  # a hash of all of the BDDL that the scene depends on
            "versions": upstream.versions(),
            "assets": assets.fingerprint(folder),
            "code": _code_fingerprint(),
        }

        def build() -> Scene:
            from envs.libero import compile as compiler  # imports robosuite

            return compiler.build(path, folder)

        return load_or_build(self.options.cache_dir, key, build)

    def start(self, scene: Scene, task: Task, key: EpisodeKey, run_seed: int) -> Start:
        """Draw how this episode starts: a function of the key and the run's seed alone."""
        states = self.initial_states(task)
        which = key.index % len(states)
        drawn, seed = self._reset(scene, key, run_seed)
        return Start(
            nominal_qpos=drawn.qpos,
            state=states[which].copy(),
            fixtures=drawn.fixtures,
            perturbation={
                "initial_state": which,
                "reset_mode": self.reset_mode,
                "reset_seed": seed,
            },
        )

    def initial_states(self, task: Task) -> Array:
        """All initial states of a task, float64 [50, 1 + nq + nv]."""
        if task.name not in self._states:
            self._states[task.name] = init_states.read(upstream.init_path(task.suite, task.name))
        return self._states[task.name]

    def completeness(self, task: Task) -> assets.Completeness | None:
        """What the task finds in the folder of assets; None when there is no folder."""
        if self._assets is None:
            return None
        problem = bddl.read(upstream.bddl_path(task.suite, task.name))
        return assets.completeness(problem, self._assets)

    def _reset(self, scene: Scene, key: EpisodeKey, run_seed: int) -> tuple[placement.Drawn, int]:
        """The reset of this episode, and the seed of LIBERO's generator that it came from."""
        env_seed = self.protocol.env_seed or 0  # openvla without a protocol: env.seed(0)
        resets = 1
        if self.reset_mode == "per_episode":
            seed = numpy_legacy_seed(derive(run_seed, key, "fixtures"))
        elif self.reset_mode == "lerobot":
            seed = env_seed + key.index
        else:
            seed, resets = env_seed, key.index + 1
        rng = np.random.RandomState(seed)
        loads = _LOADS_BEFORE[self.reset_mode]
        for _ in range(resets - 1):
            loads = placement.draw(scene, rng, loads=loads).loads
        return placement.draw(scene, rng, loads=loads), seed

    def _task(self, suite_name: str, index: int, name: str) -> Task:
        problem = bddl.read(upstream.bddl_path(suite_name, name))
        wordings = [instruction_of(name)]
        if problem.language != wordings[0].lower():
            wordings.append(problem.language)
        if not 0 <= self.options.wording < len(wordings):
            raise UnknownName(
                f"task {name!r} of {suite_name} has {len(wordings)} wording(s), numbered from 0; "
                f"there is no wording {self.options.wording}. Choose tasks that have it."
            )
        found = None if self._assets is None else assets.completeness(problem, self._assets)
        return Task(
            suite=suite_name,
            index=index,
            name=name,
            instruction=wordings[self.options.wording],
            goal=problem.goal_text(),
            control_hz=CONTROL_HZ,
            max_steps=self.protocol.max_steps(suite_name),
            settle_steps=self.protocol.wait_steps,
            cameras=CAMERAS,
            action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
            robot_state=PANDA_STATE,
            n_initial_states=N_INITIAL_STATES,
            scene_id=problem.scene_id,
            paraphrases=tuple(wordings[1:]),
            stand_in_visuals=found is not None and bool(found.stand_ins),
        )


def _code_fingerprint() -> str:
    """Hash of the code that decides what a compiled scene holds."""
    digest = hashlib.sha256()
    for name in ("compile.py", "placement.py", "bddl.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]
