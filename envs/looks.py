"""A run folder -> looks: its scenes with the arm where it stood in other episodes.

What they are for says `wamsim.looks`. The initial states are those of the demonstrations'
trials and of later ones, so what is kept for evaluation is never seen. The arm's poses are
recorded ones, from before the first time that a gripper is told otherwise: on its way, with
nothing in the hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs import replay
from envs.demonstration_sources.shared import Progress, Viewpoint, make_all
from envs.demonstrations import digest_of
from envs.goals import All, Predicate, parse
from envs.look_sheets import HAND, Sheet, Sketcher, arm_joints
from envs.scene import Scene, Thing, Varied
from wamsim.contracts import EpisodeKey, Outcome, Task
from wamsim.demonstrations import UnusableDemonstrations
from wamsim.episode import read_episode
from wamsim.errors import RecordCorrupt
from wamsim.keyframes import next_keyframes
from wamsim.looks import FORMAT_VERSION
from wamsim.provenance import content_hash
from wamsim.run_folder import RUN_FILE, read_run
from wamsim.seeding import derive, generator
from wamsim.whole_file import check_room

if TYPE_CHECKING:
    from envs.evaluation import Resources
    from envs.scene import SuiteBackend

POSE_EVERY = 4  # env steps between poses that are taken: neighbours are nearly the same
POSES_A_LOOK = 4  # of which every second look takes the nearest: see `Sheet`
LOOKS_A_FILE = 256  # a few seconds of drawing: what a killed drawing loses

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where an arm once stood.

    Attributes:
        task, trial: In which episode.
        arm: [J] joint positions of arm and fingers.
        state: [R] robot state.
    """

    task: str
    trial: int
    arm: Array
    state: Array


def check_drawable(sources: Sequence[Path]) -> None:
    """Refuse sources that no looks can be drawn of: others' files hold no scenes of ours.

    Raises:
        UnusableDemonstrations: Names the first.
    """
    for source in sources:
        if not (source / RUN_FILE).is_file():
            raise UnusableDemonstrations(
                f"looks are drawn of the scenes of a run folder (with {RUN_FILE}), and this is "
                f"none. Leave out --looks, or name a run. Source: {source}"
            )


def draw_looks(
    run_dir: Path,
    viewpoint: Viewpoint,
    count: int,
    *,
    cache: Path,
    resources: Resources | None = None,
    progress: Progress | None = None,
    said: Callable[[str], None] | None = None,
) -> Path:
    """Draw looks at the scenes of a run's tasks; what is there already is not drawn again.

    The trials of every task go from the lowest that was recorded to the last that there is,
    spread evenly. What can be asked for in a scene: see `asked_for`.

    Args:
        run_dir: The run folder; only read.
        viewpoint: What to draw.
        count: Looks, over all tasks.
        cache: Where they go, as ``<hash of all that decides them>/<suite>/<task>/``.
        resources: Processes and folders.
        progress: Called with (drawn, all), in files.
        said: Called with a sentence for every file that was left out.

    Returns:
        The folder of looks.

    Raises:
        RecordCorrupt: No run folder, or it has no episodes.
        UnusableDemonstrations: Nothing in the scenes is taken by a task, scenes differ by
            trial, the robot is not one arm that stands in its place, or there are fewer than
            two episodes to take poses from.
        OutOfSpace: The pictures would not fit on the disk; nothing was drawn.
        UnknownName: A suite, task or camera that is not there.
    """
    from envs.evaluation import Resources

    resources = resources or Resources()
    said = said or (lambda sentence: None)
    info = read_run(run_dir)
    options = replay.suite_options(info.config, resources)
    jobs = replay.plan(run_dir, "all", options, cache, said)
    usable = [j for j in jobs if j.record.outcome is not Outcome.ERROR]
    if not usable:
        raise UnusableDemonstrations(f"every episode of the run is an error. Run: {run_dir}")
    source = content_hash(
        {
            "format": FORMAT_VERSION,
            "run": info.config_hash,
            "episodes": [
                [j.record.key.suite, j.record.key.task, j.record.key.index, _digest(j.episode)]
                for j in usable
            ],
            "viewpoint": viewpoint.name,
            "count": count,
            "every": POSE_EVERY,
            "poses": POSES_A_LOOK,
        }
    )
    folder = cache / source[:16]
    painters = replay.Painters(options)  # its suites; nothing is drawn here
    sheets = _sheets(usable, painters, viewpoint, count, folder, source)
    left = [s for s in sheets if not s.target.exists()]
    if left:
        check_room(folder, viewpoint.bytes(sum(len(s.trials) for s in left)))
        left = _posed(left, _poses(usable, painters), info.config["seed"], run_dir)
    done, reason = make_all(
        left,
        partial(Sketcher, options, viewpoint, info.config["seed"]),
        total=len(sheets),
        processes=resources.workers,
        group=lambda s: s.task.scene_id,
        name=lambda s: f"{s.target.name} of {s.task.name}",
        progress=progress,
        said=said,
    )
    if not done:
        raise UnusableDemonstrations(f"no looks could be drawn ({reason}). Run: {run_dir}")
    return folder


def _digest(episode: Path) -> str:
    try:
        return digest_of(episode)
    except RecordCorrupt:  # no poses will be taken from it
        return ""


def asked_for(backend: SuiteBackend, task: Task, scene: Scene) -> tuple[tuple[str, str], ...]:
    """Say which instructions of a suite ask for which things of a scene.

    An instruction asks for what the first term of its task's goal takes. The words of another
    task count as well, unless the scene holds a second thing of that kind: then they may tell
    the two apart by their places ("the bowl next to the plate"), which are not those of here.

    Args:
        backend: The suite.
        task: Whose scene it is.
        scene: Compiled.

    Returns:
        (instruction, thing's name), in the suite's order; every instruction once.
    """
    kinds = [t.category for t in scene.info.things]
    found: dict[str, str] = {}
    for other in backend.suite.tasks:
        thing = _taken(other, scene)
        if thing and (other.name == task.name or kinds.count(thing.category) == 1):
            found.setdefault(other.instruction, thing.name)
    return tuple(found.items())


def _taken(task: Task, scene: Scene) -> Thing | None:
    """What a task's goal takes first, if this scene has it and it is loose."""
    goal = parse(task.goal)
    first = goal.terms[0] if isinstance(goal, All) else goal
    if not isinstance(first, Predicate) or not first.args or not scene.has_thing(first.args[0]):
        return None
    thing = scene.thing(first.args[0])
    return thing if thing.free_joint is not None else None


def _sheets(
    jobs: Sequence[replay.Job],
    painters: replay.Painters,
    viewpoint: Viewpoint,
    count: int,
    folder: Path,
    source: str,
) -> list[Sheet]:
    """Share the looks among tasks and files; arms are chosen later."""
    firsts: dict[tuple[str, str], tuple[Task, int]] = {}
    for job in jobs:
        key = job.record.key
        task, first = firsts.get((key.suite, key.task), (job.task, key.index))
        firsts[key.suite, key.task] = task, min(first, key.index)
    asked: list[tuple[Task, int, tuple[tuple[str, str], ...]]] = []
    for task, first in firsts.values():
        replay.check_cameras(viewpoint.cameras, task)
        backend = painters.backend(task)
        known = not isinstance(backend, Varied) and HAND in dict(task.robot_state.fields)
        # a platform's pose would have to be that of the arm's episode, too
        if not known or backend.scene(task).info.platform is not None:
            raise UnusableDemonstrations(
                f"looks are for suites whose tasks keep to one scene, with one arm that stands in "
                f"its place, and {task.suite} is not one of them. Leave out --looks."
            )
        things = asked_for(backend, task, backend.scene(task))
        if things and first < task.n_initial_states:
            asked.append((task, first, things))
    if not asked:
        raise UnusableDemonstrations(
            "no task of the run takes a loose thing and has initial states from its lowest trial "
            "on, so there is nothing to point at. Leave out --looks."
        )
    sheets: list[Sheet] = []
    none = np.zeros((0, 0, 0))
    for number, (task, first, things) in enumerate(asked):
        own = count // len(asked) + (number < count % len(asked))
        trials = first + np.arange(own) * (task.n_initial_states - first) // max(own, 1)
        for begin in range(0, own, LOOKS_A_FILE):
            sheets.append(
                Sheet(
                    task=task, asked=things, first_trial=first,
                    trials=tuple(trials[begin : begin + LOOKS_A_FILE].tolist()),
                    target=folder / task.suite / task.name
                    / f"{begin // LOOKS_A_FILE:05d}.safetensors",
                    source=source, arms=none, states=none,
                )
            )  # fmt: skip
    return sheets


def _poses(jobs: Sequence[replay.Job], painters: replay.Painters) -> dict[str, list[Pose]]:
    """Collect each suite's recorded poses from before a gripper is told otherwise."""
    found: dict[str, list[Pose]] = {}
    for job in jobs:
        key = job.record.key
        joints = arm_joints(painters.backend(job.task).scene(job.task))
        try:
            arrays = read_episode(job.episode, only=("seen_qpos", "robot_state", "actions")).arrays
        except (KeyError, RecordCorrupt):
            continue  # said when the demonstrations were drawn
        if not len(arrays["actions"]):
            continue
        first = int(next_keyframes(arrays["actions"].astype(np.float32), job.task.action)[0])
        for row in range(0, first, POSE_EVERY):
            arm, state = arrays["seen_qpos"][row][joints], arrays["robot_state"][row]
            pose = Pose(task=key.task, trial=key.index, arm=arm.copy(), state=state.copy())
            found.setdefault(key.suite, []).append(pose)
    return found


def _posed(
    sheets: Sequence[Sheet], poses: dict[str, list[Pose]], run_seed: int, run_dir: Path
) -> list[Sheet]:
    """Choose for every look poses of other episodes, as a function of trial and place alone."""
    out: list[Sheet] = []
    for sheet in sheets:
        task, pool = sheet.task, poses.get(sheet.task.suite, [])
        if len({(p.task, p.trial) for p in pool}) < 2:
            raise UnusableDemonstrations(
                f"looks take the arm's poses from other episodes of the run, and it has fewer than "
                f"two of {task.suite}. Record more. Run: {run_dir}"
            )
        chosen: list[list[Pose]] = []
        for number, trial in enumerate(sheet.trials):
            key = EpisodeKey(task.suite, task.name, trial)
            rng = generator(derive(run_seed, key, f"look {sheet.target.stem} {number}"))
            few: list[Pose] = []
            while len(few) < POSES_A_LOOK:
                pose = pool[int(rng.integers(len(pool)))]
                if (pose.task, pose.trial) != (task.name, trial):
                    few.append(pose)
            chosen.append(few)
        arms = np.array([[p.arm for p in few] for few in chosen])
        states = np.array([[p.state for p in few] for few in chosen])
        out.append(dataclasses.replace(sheet, arms=arms, states=states))
    return out
