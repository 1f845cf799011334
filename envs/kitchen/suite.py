"""The kitchen suites as the harness sees them: ours, in the style of RoboCasa.

`kitchen` is the 24 atomic tasks, `kitchen_mobile` the one that needs the base
(`envs.kitchen.mobile` says why it is apart). Both let the user choose the layout and the
style of every trial (``--suite-set layout=galley --suite-set style=modern``); the protocol's
own five scenes are the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from envs.kitchen.layouts import LAYOUTS, layout
from envs.kitchen.mobile import MOBILE
from envs.kitchen.placement import RULES, park, sample_qpos
from envs.kitchen.styles import STYLES, style
from envs.kitchen.tasks import TASKS, VERSION, Entry, Variant, generator, variant
from envs.scene import Array, Pose, Scene, Start, SuiteBackend, SuiteOptions
from envs.tabletop.stage import yaw_quat
from wamsim.contracts import EpisodeKey, Suite, Task
from wamsim.conventions import DELTA_EEF_BASE_TORSO_MODE, PANDA_BASE_STATE
from wamsim.errors import nearest
from wamsim.seeding import derive
from wamsim.seeding import generator as seeded

SUITES: Mapping[str, Mapping[str, Entry]] = {"kitchen": TASKS, "kitchen_mobile": MOBILE}
CONTROL_HZ = 20.0
SETTLE_STEPS = 10  # of Cosmos Policy's evaluation (SUITES 2.4)
# As tabletop: evaluations count from 0; demonstrations take trials from 100 on.
N_INITIAL_STATES = 1000
PUBLIC_CAMERAS = ("agentview_left", "agentview_right", "eye_in_hand", "overview")


class KitchenBackend:
    """One of the suites. Building it compiles nothing.

    Attributes:
        suite: Name, version and tasks.
        choices: What `SuiteOptions.chosen` may say: option -> values.
    """

    choices: Mapping[str, tuple[str, ...]] = {"layout": tuple(LAYOUTS), "style": tuple(STYLES)}

    def __init__(self, name: str, options: SuiteOptions) -> None:
        if name not in SUITES:
            raise nearest(name, SUITES, kind="suite", hint="List suites with `wamsim list suites`.")
        self._options = options
        self._entries = SUITES[name]
        self._layout, self._style = options.choice("layout"), options.choice("style")
        if self._layout is not None:
            layout(self._layout)  # refuses what there is not
        if self._style is not None:
            style(self._style)
        self._scenes: dict[str, Scene] = {}
        self.suite = Suite(
            name=name,
            version=VERSION,
            reference="ours, in the style of RoboCasa",
            tasks=tuple(
                self._task(name, k, entry) for k, entry in enumerate(self._entries.values())
            ),
        )

    def _task(self, suite: str, index: int, entry: Entry) -> Task:
        first = self._drawn(entry, 0)
        wordings = tuple(w.format(**{**first.words, **entry.plain}) for w in entry.wordings)
        wording = self._options.wording
        if not 0 <= wording < len(wordings):
            known = [str(i) for i in range(len(wordings))]
            raise nearest(str(wording), known, kind=f"wording of {suite}")
        return Task(
            suite=suite,
            index=index,
            name=entry.name,
            instruction=wordings[wording],
            goal=entry.goal.format(**{**first.words, **entry.plain}),
            control_hz=CONTROL_HZ,
            max_steps=entry.max_steps,
            settle_steps=SETTLE_STEPS,
            cameras=PUBLIC_CAMERAS,
            action=DELTA_EEF_BASE_TORSO_MODE,
            robot_state=PANDA_BASE_STATE,
            n_initial_states=N_INITIAL_STATES,
            scene_id=first.spec.id,
            paraphrases=wordings[1:],
            requires=entry.requires,
        )

    def _drawn(self, entry: Entry, trial: int) -> Variant:
        return variant(entry, trial, layout=self._layout, style=self._style)

    def _variant(self, task: Task, index: int) -> Variant:
        return self._drawn(self._entries[task.name], index % task.n_initial_states)

    def variant(self, task: Task, key: EpisodeKey) -> Task:
        """Give the task with this trial's scene, words and goal."""
        entry, drawn = self._entries[task.name], self._variant(task, key.index)
        wordings = tuple(w.format(**drawn.words) for w in entry.wordings)
        return replace(
            task,
            instruction=wordings[self._options.wording],
            paraphrases=wordings[1:],
            goal=entry.goal.format(**drawn.words),
            scene_id=drawn.spec.id,
        )

    def scene(self, task: Task) -> Scene:
        """Give a task's scene: from an earlier call, from the cache, or compiled now."""
        if task.scene_id not in self._scenes:
            from envs.kitchen.scenes import build, cache_key, parse_id  # heavy to compile
            from envs.scene_cache import load_or_build

            spec = parse_id(task.scene_id)
            made = load_or_build(self._options.cache_dir, cache_key(spec), lambda: build(spec))
            self._scenes = {task.scene_id: made}  # one at a time: the pool keeps what it needs
        return self._scenes[task.scene_id]

    def initial_states(self, task: Task) -> Array:
        """The initial states [N, 1 + nq + nv] of the trials in the task's own scene."""
        key = [EpisodeKey(task.suite, task.name, i) for i in range(task.n_initial_states)]
        mine = [k.index for k in key if self.variant(task, k).scene_id == task.scene_id]
        scene = self.scene(task)
        return np.stack([self._state(scene, task, i, self._nominal(scene)) for i in mine])

    def _nominal(self, scene: Scene) -> tuple[float, float, float]:
        x, y, yaw = scene.info.placement["kitchen"]
        return (x, y, yaw)

    def _state(
        self, scene: Scene, task: Task, index: int, kitchen: tuple[float, float, float]
    ) -> Array:
        drawn = self._variant(task, index)
        rng = generator(task.name, "state", index % task.n_initial_states)
        rule = RULES[self._entries[task.name].start](drawn, rng)
        state = np.zeros(1 + scene.model.nq + scene.model.nv)
        state[1 : 1 + scene.model.nq] = sample_qpos(scene, rule, kitchen, rng)
        return state

    def start(self, scene: Scene, task: Task, key: EpisodeKey, run_seed: int) -> Start:
        """Draw how the robot has parked; take the trial's state, moved along with the kitchen."""
        from envs.kitchen.scenes import ROOT

        kitchen = park(self._nominal(scene), seeded(derive(run_seed, key, "fixtures")))
        state = self._state(scene, task, key.index, kitchen)
        fixtures: dict[str, Pose] = {
            ROOT: (np.array([kitchen[0], kitchen[1], 0.0]), np.asarray(yaw_quat(kitchen[2])))
        }
        return Start(
            nominal_qpos=state[1 : 1 + scene.model.nq].copy(),
            state=state,
            fixtures=fixtures,
            perturbation=dict(self._options.chosen),  # what is not the protocol's says so
        )


def suite(name: str, options: SuiteOptions) -> SuiteBackend:
    """Give the backend of `kitchen` or `kitchen_mobile`."""
    return KitchenBackend(name, options)
