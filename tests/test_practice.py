"""A learner at the wheel in turns: what is recorded, who drove when, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.evaluation import EvalConfig, Resources, evaluate
from envs.scene import Scene, SuiteOptions
from policies.oracle.geometry import Pose
from policies.oracle.motion import OPEN
from policies.oracle.skills.picking import BESIDE, _is_nearly_there
from policies.oracle.view import View
from policies.practice import TURN_EVERY, Practice, PracticeConfig, leads_at
from policies.simple import HOLD
from wamsim import registry
from wamsim.contracts import (
    EpisodeKey,
    Observation,
    Outcome,
    Prediction,
    PrivilegedState,
    Task,
)
from wamsim.conventions import ACTIONS, DELTA_EEF_GRIPPER_CLOSE_POSITIVE
from wamsim.episode import Episode, episode_path, read_episode
from wamsim.errors import ConventionMismatch, UnknownName

CAN = "put_can_in_basket"


# ------------------------------------------------------------------------------ turns


def test_turns_are_a_function_of_seed_and_step() -> None:
    seeds, steps = range(0, 200_000, 1000), range(4 * TURN_EVERY)
    led = [[leads_at(seed, step, 0.8) for step in steps] for seed in seeds]
    assert led == [[leads_at(seed, step, 0.8) for step in steps] for seed in seeds]
    # 0.8 of the windows have a turn of 30 of 60 steps in the mean
    assert np.mean(led) == pytest.approx(0.4, abs=0.03)
    assert led[0] != led[1]
    # half of the first turns begin at once
    assert np.mean([row[0] for row in led]) == pytest.approx(0.4, abs=0.1)


def test_no_share_no_turn() -> None:
    assert not any(leads_at(3, step, 0.0) for step in range(1000))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"share": 1.5}, "share=1.5 must lie in 0..1"),
        ({"noise": 0.0}, "only a perturbed oracle records what it meant"),
        ({"ahead": 0}, "ahead=0 must lie in 1..64"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, float], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        PracticeConfig(learner="hold", **options)  # type: ignore[arg-type]


def test_a_learner_is_named() -> None:
    with pytest.raises(UnknownName, match="needs learner"):
        registry.choose_policy("practice")
    choice = registry.choose_policy("practice", {"learner": "smolvla"})
    with pytest.raises(UnknownName, match="smolvla_world"):
        registry.make_policy(choice)


def test_a_learner_of_another_convention_is_refused() -> None:
    other = next(n for n in ACTIONS if n != DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name)
    learner = HOLD.make("", HOLD.config(action=other))
    with pytest.raises(ConventionMismatch, match="Practise with a learner of one arm"):
        Practice(learner, PracticeConfig(learner="hold"))


# ---------------------------------------------------------------------------- episodes


def practise(out: Path, cache: Path, *, slots: int = 1) -> Episode:
    """Trial 305 of the can with a learner that stands still in its turns."""
    choice = registry.choose_policy("practice", {"learner": "hold"})
    config = EvalConfig(policy=choice, suites=("tabletop_object",), seed=1)
    resources = Resources(workers=1, slots=slots, cache_dir=cache)
    evaluate(config, out=out, episodes=slots, first=305, tasks=[CAN], resources=resources)
    return read_episode(episode_path(out, EpisodeKey("tabletop_object", CAN, 305)))


@pytest.mark.sim
def test_the_oracle_says_what_it_would_do_while_the_learner_drives(
    tmp_path: Path, scene_cache_dir: Path
) -> None:
    episode = practise(tmp_path / "one", scene_cache_dir)
    actions, meant = episode.arrays["actions"], episode.arrays["intended"]
    assert episode.record.outcome is Outcome.SUCCESS
    assert meant.shape == (episode.record.steps, 8, 7)
    stood = np.flatnonzero(np.all(actions[:, :6] == 0.0, axis=1))
    assert 12 <= len(stood) < len(actions)  # a turn at least
    # standing still in mid-air is not what the oracle would do
    assert np.abs(meant[stood, :, :3]).max((1, 2)).mean() > 0.3
    # and where it drives itself, it does what it means but for its noise, and for what an
    # earlier reference still asks of it
    driven = np.setdiff1d(np.arange(len(actions)), stood)
    assert np.median(np.abs(actions[driven, :3] - meant[driven, 0, :3])) < 0.35

    beside = practise(tmp_path / "two", scene_cache_dir, slots=2)
    for name in ("actions", "intended", "states"):
        assert np.array_equal(beside.arrays[name], episode.arrays[name])


class Counter:
    """Stands still for three steps at a time, and counts how often it was asked in a row."""

    def __init__(self) -> None:
        self.card = HOLD.make("", HOLD.config(horizon=4, execute=3)).card
        self.asked: list[tuple[int, bool, Any]] = []

    def act(self, obs: Observation) -> Prediction:
        assert obs.state is None  # what only the oracle sees
        assert not obs.imagine
        self.asked.append((int(obs.step[0]), bool(obs.first[0]), obs.memory[0]))
        return Prediction(
            actions=np.zeros((obs.batch, 4, 7), np.float32), memory=[(obs.memory[0] or 0) + 1]
        )


@pytest.mark.sim
def test_a_learner_begins_every_turn_afresh(tmp_path: Path, scene_cache_dir: Path) -> None:
    learner = Counter()
    config = EvalConfig(
        policy=registry.choose_policy("practice", {"learner": "hold"}), suites=("tabletop_object",)
    )
    evaluate(
        config, out=tmp_path / "run", episodes=1, first=301, tasks=[CAN],
        resources=Resources(workers=1, slots=1, cache_dir=scene_cache_dir),
        policy=Practice(learner, PracticeConfig(learner="hold")),
    )  # fmt: skip
    turns = 0
    for number, (step, first, memory) in enumerate(learner.asked):
        turns += first
        if first:
            assert memory is None
        else:  # as long as it leads: every third step, with what it gave last
            assert memory == (learner.asked[number - 1][2] or 0) + 1
            assert step == learner.asked[number - 1][0] + 3
    assert turns >= 2
    assert len(learner.asked) > 2 * turns


# ----------------------------------------------------------------- what it says, near a thing


@pytest.fixture
def state(scene_cache_dir: Path) -> PrivilegedState:
    backend = registry.suite("tabletop_object", SuiteOptions(cache_dir=scene_cache_dir))
    task: Task = next(t for t in backend.suite.tasks if t.name == CAN)
    scene: Scene = backend.scene(task)
    key = EpisodeKey(task.suite, task.name, 5)
    began = backend.start(scene, task, key, 0)
    nq = scene.model.nq
    return PrivilegedState(
        key=key, task=task, scene=scene, qpos=began.state[1 : 1 + nq],
        qvel=np.zeros(scene.model.nv), fixtures=began.fixtures,
        gripper_command=np.array([1.0, 1.0]),
    )  # fmt: skip


def with_hand_at(state: PrivilegedState, view: View, pose: Pose) -> PrivilegedState:
    with view.showing(state):
        arm = view.reach(pose)
    assert arm is not None
    qpos = state.qpos.copy()
    qpos[view.body.arm_qpos] = arm
    qpos[view.body.finger_qpos] = view.body.fingers_open
    return replace(state, qpos=qpos)


@pytest.mark.sim
@pytest.mark.parametrize(
    ("aside", "back", "near"),
    [
        (0.0, 0.04, True),
        (0.02, 0.05, True),
        (BESIDE + 0.01, 0.05, False),  # too far beside
        (0.0, 0.09, False),  # higher than where the way in begins
    ],
)
def test_a_hand_beside_the_way_in_goes_on_from_there(
    state: PrivilegedState, aside: float, back: float, near: bool
) -> None:
    view = View(state.scene)
    with view.showing(state):
        can = view.pose(state.scene.thing("can"))
        down = view.hand_at(view.body.home).rot
    grasp = Pose(can.pos + np.array([0.0, 0.0, 0.03]), down)
    at = grasp.shifted(np.array([aside, 0.0, back]))
    with view.showing(with_hand_at(state, view, at)):
        assert _is_nearly_there(view, grasp, OPEN) is near


@pytest.mark.sim
def test_a_thing_between_the_fingers_is_pinched_when_both_touch_it(
    state: PrivilegedState,
) -> None:
    view = View(state.scene)
    thing = state.scene.thing("can")
    with view.showing(state):
        assert not view.pinches(thing)
        can = view.pose(thing)
        down = view.hand_at(view.body.home).rot
    held = with_hand_at(state, view, Pose(can.pos.copy(), down))
    with view.showing(held):
        assert not view.pinches(thing)  # 8 cm between the pads, the can is narrower
    closed = replace(held, qpos=held.qpos.copy())
    closed.qpos[view.body.finger_qpos] = 0.7 * view.body.fingers_open  # 28 of 40 mm: a can of 29
    with view.showing(closed):
        assert view.pinches(thing)
    one = replace(held, qpos=closed.qpos.copy())
    one.qpos[view.body.finger_qpos[0]] = view.body.fingers_open[0]
    with view.showing(one):
        assert not view.pinches(thing)
