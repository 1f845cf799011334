"""The bimanual suites as the harness sees them.

`bimanual_clean` and `bimanual_randomized` take joint positions, `bimanual_clean_eef` and
`bimanual_randomized_eef` are the same tasks for policies that say where the hands shall be.
Of the randomised ones the user can choose what varies
(``--suite-set randomization=background,light``); all of it does by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from envs.bimanual import predicates, randomization, seeds, starts
from envs.bimanual.room import TABLE_TOP_Z
from envs.bimanual.tasks import BY_NAME, ENTRIES, Entry
from envs.scene import Array, Pose, Scene, Start, SuiteBackend, SuiteOptions
from envs.tabletop.stage import yaw_quat
from wamsim.contracts import EpisodeKey, Suite, Task
from wamsim.conventions import (
    ALOHA_JOINTS_GRIPPER_OPEN_FRACTION,
    ALOHA_STATE,
    DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION,
)
from wamsim.errors import nearest

assert predicates.PREDICATES  # importing it teaches envs.goals what our goals say

# Of the suites. 2: pictures have coarser shadow maps (envs/bimanual/room.py).
VERSION = 2
# Of what trials draw; part of every generator and of seeds.json, so that new pictures do not
# shuffle the trials.
DRAWS = 1
CONTROL_HZ = 20.0  # RoboTwin records every 15th substep of 4 ms, 16.7 Hz
SETTLE_STEPS = 10
N_INITIAL_STATES = 1000  # the first 100 are checked, the others are for demonstrations
PUBLIC_CAMERAS = ("head", "left_wrist", "right_wrist", "front")
# name -> (randomised, convention)
SUITES = {
    "bimanual_clean": (False, ALOHA_JOINTS_GRIPPER_OPEN_FRACTION),
    "bimanual_randomized": (True, ALOHA_JOINTS_GRIPPER_OPEN_FRACTION),
    "bimanual_clean_eef": (False, DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION),
    "bimanual_randomized_eef": (True, DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION),
}


class BimanualBackend:
    """One of the suites. Building it compiles nothing.

    Attributes:
        suite: Name, version and tasks.
        choices: What `SuiteOptions.chosen` may say: option -> values; "randomization" takes
            several, separated by commas.
    """

    def __init__(self, name: str, options: SuiteOptions) -> None:
        if name not in SUITES:
            raise nearest(name, SUITES, kind="suite", hint="List suites with `wamsim list suites`.")
        self._options = options
        self._randomized, self._action = SUITES[name]
        self.choices: Mapping[str, tuple[str, ...]] = (
            {"randomization": randomization.PARTS} if self._randomized else {}
        )
        self._varied = randomization.parts(options.choice("randomization"))
        self._scenes: dict[str, Scene] = {}
        self.suite = Suite(
            name=name,
            version=VERSION,
            reference="ours, in the style of RoboTwin 2.0",
            tasks=tuple(self._task(name, index, entry) for index, entry in enumerate(ENTRIES)),
        )

    def _task(self, suite: str, index: int, entry: Entry) -> Task:
        # Wording 0 is drawn for each trial (see `variant`); 1.. are the same for all.
        wordings = (*entry.seen, *entry.unseen)
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
            action=self._action,
            robot_state=ALOHA_STATE,
            n_initial_states=N_INITIAL_STATES,
            scene_id=f"bimanual_{entry.name}",
            paraphrases=wordings[1:],
        )

    def variant(self, task: Task, key: EpisodeKey) -> Task:
        """Give the task in a trial's own words.

        As in RoboTwin, clean scenes are told what training sees, randomised ones what it
        does not; trials for demonstrations are always told what training sees.
        """
        if self._options.wording:
            return task
        entry = BY_NAME[task.name]
        unseen = self._randomized and key.index < seeds.EVALUATED
        pool = entry.unseen if unseen else entry.seen
        rng = starts.generator(DRAWS, task.name, key.index, "words")
        return replace(task, instruction=pool[int(rng.integers(len(pool)))])

    def scene(self, task: Task) -> Scene:
        """Give the task's scene: from an earlier call, from the cache, or compiled now."""
        if task.scene_id not in self._scenes:
            from envs.bimanual.scenes import build, cache_key  # heavy: listing must not need it
            from envs.scene_cache import load_or_build

            self._scenes[task.scene_id] = load_or_build(
                self._options.cache_dir, cache_key(task.scene_id), lambda: build(task.scene_id)
            )
        return self._scenes[task.scene_id]

    def initial_states(self, task: Task) -> Array:
        """All initial states [N, 1 + nq + nv]; fixtures go with each (see `start`)."""
        scene = self.scene(task)
        out = []
        for index in range(task.n_initial_states):
            state = self.drawn(scene, task, index).state
            assert state is not None
            out.append(state)
        return np.stack(out)

    def start(self, scene: Scene, task: Task, key: EpisodeKey, run_seed: int) -> Start:
        """Give the start of trial `key.index`; the run's seed changes nothing of it."""
        return self.drawn(scene, task, key.index % task.n_initial_states)

    def drawn(self, scene: Scene, task: Task, index: int) -> Start:
        """Draw the start of a trial."""
        seed = seeds.seed(task.name, self._randomized, index)
        return self.from_seed(scene, task, seed, evaluated=index < seeds.EVALUATED)

    def from_seed(self, scene: Scene, task: Task, seed: int, *, evaluated: bool) -> Start:
        """Draw a start from its seed; see `envs.bimanual.seeds`."""
        entry = BY_NAME[task.name]
        mode = "randomized" if self._randomized else "clean"
        rng = starts.generator(DRAWS, mode, task.name, seed, "things")
        places = starts.draw(scene, entry.slots, rng)
        if self._randomized:
            rng = starts.generator(DRAWS, task.name, seed, "surroundings")
            fixtures, height, record = randomization.draw(
                rng, evaluated=evaluated, varied=self._varied
            )
        else:
            fixtures, height, record = randomization.clean()
        for name in entry.fixed:
            x, y, yaw = places[name]
            pose: Pose = (np.array([x, y, TABLE_TOP_Z + height]), np.asarray(yaw_quat(yaw)))
            fixtures[name] = pose
        qpos = starts.qpos(scene, places, height)
        state = np.concatenate([[0.0], qpos, np.zeros(scene.model.nv)])
        return Start(
            nominal_qpos=qpos,
            state=state,
            fixtures=fixtures,
            perturbation=record | {"seed": seed} | dict(self._options.chosen),
        )


def suite(name: str, options: SuiteOptions) -> SuiteBackend:
    """Give the backend of one of the bimanual suites."""
    return BimanualBackend(name, options)
