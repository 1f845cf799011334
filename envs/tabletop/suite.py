"""The tabletop suites as the harness sees them."""

from __future__ import annotations

import numpy as np

from envs.scene import Array, Pose, Scene, Start, SuiteBackend, SuiteOptions
from envs.tabletop.placement import draw_fixtures, ride, sample_qpos, state_generator
from envs.tabletop.stage import yaw_quat
from envs.tabletop.tasks import TASKS, Entry
from wamsim.contracts import EpisodeKey, Suite, Task
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, PANDA_STATE
from wamsim.errors import nearest
from wamsim.seeding import derive, generator

# Of the suites. 2: lights cast no shadows, so pictures take a quarter of the time (DECISIONS 42).
VERSION = 2
# Of what a trial draws. It stays when only pictures change: trials are the same in every version.
DRAWS = 1
CONTROL_HZ = 20.0  # LIBERO's: 25 substeps of 2 ms
SETTLE_STEPS = 10  # LIBERO's evaluation protocol
# Far more than an evaluation runs, so that demonstrations (`wamsim eval --first 100`) and
# evaluations (from 0) never share a state.
N_INITIAL_STATES = 1000
PUBLIC_CAMERAS = ("agentview", "eye_in_hand", "frontview")


class TabletopBackend:
    """One of the four groups. Building it compiles nothing."""

    def __init__(self, name: str, options: SuiteOptions) -> None:
        if name not in TASKS:
            raise nearest(name, TASKS, kind="suite", hint="List suites with `wamsim list suites`.")
        self._options = options
        self._entries: dict[str, Entry] = {entry.name: entry for entry in TASKS[name]}
        self._scenes: dict[str, Scene] = {}
        self.suite = Suite(
            name=name,
            version=VERSION,
            reference="ours",
            tasks=tuple(self._task(name, index, entry) for index, entry in enumerate(TASKS[name])),
        )

    def _task(self, suite: str, index: int, entry: Entry) -> Task:
        wordings = (entry.instruction, *entry.paraphrases)
        wording = self._options.wording
        if not 0 <= wording < len(wordings):
            raise nearest(
                str(wording), [str(i) for i in range(len(wordings))], kind=f"wording of {suite}"
            )
        return Task(
            suite=suite,
            index=index,
            name=entry.name,
            instruction=wordings[wording],
            goal=entry.goal,
            control_hz=CONTROL_HZ,
            max_steps=entry.max_steps,
            settle_steps=SETTLE_STEPS,
            cameras=PUBLIC_CAMERAS,
            action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
            robot_state=PANDA_STATE,
            n_initial_states=N_INITIAL_STATES,
            scene_id=entry.scene,
            paraphrases=entry.paraphrases,
        )

    def scene(self, task: Task) -> Scene:
        """Give the task's scene: from an earlier call, from the cache, or compiled now."""
        if task.scene_id not in self._scenes:
            from envs.scene_cache import load_or_build
            from envs.tabletop.scenes import build, cache_key  # heavy: listing must not need it

            self._scenes[task.scene_id] = load_or_build(
                self._options.cache_dir, cache_key(task.scene_id), lambda: build(task.scene_id)
            )
        return self._scenes[task.scene_id]

    def initial_states(self, task: Task) -> Array:
        """All initial states [N, 1 + nq + nv], for fixtures in their nominal poses."""
        return np.stack([self._initial_state(task, i) for i in range(task.n_initial_states)])

    def _initial_state(self, task: Task, index: int) -> Array:
        scene = self.scene(task)
        state = np.zeros(1 + scene.model.nq + scene.model.nv)
        rng = state_generator(DRAWS, task.suite, task.name, index)
        plan = self._entries[task.name].plan
        state[1 : 1 + scene.model.nq] = sample_qpos(scene, plan, rng)
        return state

    def start(self, scene: Scene, task: Task, key: EpisodeKey, run_seed: int) -> Start:
        """Draw fixture poses; take initial state `key.index`, moved along with them."""
        plan = self._entries[task.name].plan
        drawn = draw_fixtures(
            scene.info.placement["fixtures"], generator(derive(run_seed, key, "fixtures"))
        )
        state = self._initial_state(task, key.index % task.n_initial_states)
        nq = scene.model.nq
        state[1 : 1 + nq] = ride(scene, plan, state[1 : 1 + nq], drawn)
        fixtures: dict[str, Pose] = {
            name: (pose[:3].copy(), np.asarray(yaw_quat(pose[3]))) for name, pose in drawn.items()
        }
        return Start(
            nominal_qpos=state[1 : 1 + nq].copy(),  # no thing moves between reset and start
            state=state,
            fixtures=fixtures,
        )


def suite(name: str, options: SuiteOptions) -> SuiteBackend:
    """Give the backend of `tabletop_object`, `_spatial`, `_goal` or `_long`."""
    return TabletopBackend(name, options)
