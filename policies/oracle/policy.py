"""The oracle as a policy: privileged state in, actions out, memory in the open."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from envs.goals import Predicate, parse
from envs.scene import Scene
from policies.oracle import motion
from policies.oracle.config import OracleConfig
from policies.oracle.driving import Base, drive
from policies.oracle.driving import patience_for as patience_for_stop
from policies.oracle.geometry import Array
from policies.oracle.memory import Memory
from policies.oracle.motion import Reference
from policies.oracle.planner import (
    DRIVING,
    LEAVING,
    MOVING_A_JOINT,
    PLACING,
    Subgoal,
    check,
    plan,
)
from policies.oracle.room import at_stop, drawer, is_cramped, swings
from policies.oracle.rows import PerScene, answer, oracle_card
from policies.oracle.skills.base import DONE, MOVING, Progress, Script, Skill, look_again
from policies.oracle.skills.carrying import Carrying
from policies.oracle.skills.driving import Driving
from policies.oracle.skills.leaving import Leaving
from policies.oracle.skills.moving import Moving
from policies.oracle.skills.pushing import Pushing
from policies.oracle.tracking import is_busy, patience_for, pushed, roll
from policies.oracle.view import View
from wamsim.contracts import Observation, Policy, Prediction, PrivilegedState, Task
from wamsim.conventions import (
    DELTA_EEF_BASE_TORSO_MODE,
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    ActionConvention,
)
from wamsim.errors import ConventionMismatch, PolicyFault

WIDENINGS = 1  # second pulls at a drawer that is open, but not to its stop


class _Stage:
    """A scene with the skills that work in it."""

    def __init__(self, scene: Scene) -> None:
        self.view = View(scene)
        self._pushing = Pushing(self.view)
        moving, carrying = Moving(self.view), Carrying(self.view)
        self._skills: dict[str, Skill] = dict.fromkeys(PLACING, carrying)
        self._skills |= dict.fromkeys(MOVING_A_JOINT, moving)
        self._skills |= dict.fromkeys(LEAVING, Leaving())
        if scene.info.platform is not None:
            self._skills |= dict.fromkeys(DRIVING, Driving(self.view))

    @cached_property
    def base(self) -> Base:
        """What the robot drives on."""
        return Base(self.view)

    def skill(self, goal: Predicate) -> Skill:
        """The skill that serves a predicate."""
        if self._pushing.suits(self.view, goal):
            return self._pushing
        return self._skills[goal.name]


class Oracle:
    """Plans from the goal with privileged state. Knows no suite.

    Args:
        config: Its options.
        action: What it speaks: the arm's seven channels, or those of an arm on a base.
    """

    def __init__(
        self, config: OracleConfig, action: ActionConvention = DELTA_EEF_GRIPPER_CLOSE_POSITIVE
    ) -> None:
        self._config = config
        self._stages = PerScene(_Stage)
        self.card = oracle_card(config, action)

    def speaking(self, action: ActionConvention) -> Policy:
        """The oracle for robots that understand another convention.

        Raises:
            ConventionMismatch: It has no skills for such a robot.
            PolicyFault: Pushes are asked for, which only one arm knows.
        """
        from policies.oracle.two_arms.policy import SPOKEN, TwoArmOracle

        if action == DELTA_EEF_BASE_TORSO_MODE:
            return Oracle(self._config, action)
        if action not in SPOKEN:
            own = (DELTA_EEF_GRIPPER_CLOSE_POSITIVE, DELTA_EEF_BASE_TORSO_MODE)
            raise ConventionMismatch(
                f"the oracle speaks {', '.join(a.name for a in (*own, *SPOKEN))}, but not "
                f"{action.name}. Choose suites that expect one of these."
            )
        if self._config.push:
            raise PolicyFault(
                f"push={self._config.push}: the oracle for two arms has no pushes; leave the "
                f"option out, noise perturbs it as well"
            )
        return TwoArmOracle(self._config, action)

    def check_task(self, task: Task) -> None:
        """Refuse a task whose goal asks for what no skill serves.

        Raises:
            PolicyFault: Which task, and what of its goal.
        """
        try:
            check(parse(task.goal))
        except PolicyFault as fault:
            raise PolicyFault(f"task {task.name!r} of suite {task.suite!r}: {fault}") from None

    def act(self, obs: Observation) -> Prediction:
        """Plan the next chunk of every row.

        A row for which there is no plan is given up, with the reason, in
        `Prediction.faults`: another initial state of the same task may have one.

        Raises:
            PolicyFault: No privileged state.
        """
        return answer(obs, self.card, self._config, self._row)

    def _row(
        self,
        state: PrivilegedState,
        memory: Memory | None,
        seed: int,
        step: int,
        strayed: bool = False,
    ) -> tuple[Array, Array, Memory]:
        stage = self._stages.of(state.scene)
        with stage.view.showing(state) as view:
            if memory is None:
                memory = _begin(view, state, seed)
            memory = replace(memory, reference=motion.leashed(memory.reference, view.eef))
            memory = _decide(stage, memory)
            config = self._config
            if memory.index < len(memory.stops):
                # The hand goes along: it is where it is.
                memory = replace(memory, reference=Reference.at_rest(view.eef))
                return drive(stage.base, view, state, memory, step, config)
            if strayed or (step and pushed(memory, step - 1, config) is not None):
                memory = _regained(stage, memory)
            actions, meant, memory = roll(view, state, memory, step, config)
            return self._spoken(actions), self._spoken(meant), memory

    def watch(
        self, state: PrivilegedState, memory: Memory | None, seed: int, step: int, *, strayed: bool
    ) -> tuple[Array, Array, Memory, bool]:
        """Say what to do in a state that somebody else may have led to.

        Args:
            state: The simulator's.
            memory: What the last call gave; None at first.
            seed: Of the perturbation.
            step: Env steps done in the episode.
            strayed: Whether the step before was somebody else's.

        Returns:
            Actions [1, 7] to go on with; what is meant, [ahead, 7]; the memory; and whether
            the fingers are being closed or opened, where nobody should interfere.

        Raises:
            PolicyFault: There is no way to go on.
        """
        actions, meant, after = self._row(state, memory, seed, step, strayed)
        return actions, meant, after, is_busy(after)

    def _spoken(self, arm: Array) -> Array:
        """The arm's channels [H, 7] in the convention of the card: a base stands."""
        rest = np.array(self.card.action.hold[arm.shape[1] :])
        return np.concatenate([arm, np.tile(rest, (len(arm), 1))], axis=1)


def _begin(view: View, state: PrivilegedState, seed: int) -> Memory:
    subgoals = plan(parse(state.task.goal), view.scene)
    at = _next(view, subgoals, 0)
    return Memory(
        seed=seed,
        subgoals=subgoals,
        at=at,
        progress=_fresh(view, subgoals, at),
        before=Progress(),
        waypoints=(),
        index=0,
        reached=0,
        patience=0,
        reference=Reference.at_rest(view.eef),
    )


def _decide(stage: _Stage, memory: Memory) -> Memory:
    """Give a memory whose script says what to do now."""
    view = stage.view
    if memory.at >= len(memory.subgoals):
        at = _next(view, memory.subgoals, 0)
        if at >= len(memory.subgoals):
            return memory  # all holds: stand still
        memory = replace(memory, at=at, progress=_fresh(view, memory.subgoals, at))
    subgoal, progress = memory.subgoals[memory.at], memory.progress
    goal = subgoal.predicate
    skill = stage.skill(goal)
    if memory.index < len(memory.stops):
        return memory
    if memory.index < len(memory.waypoints):
        # What slips does so in a closed hand: letting go is not losing.
        closed = memory.waypoints[memory.index].gap == motion.CLOSED
        if closed and skill.failed(view, progress):
            progress = progress.again()
        elif not (progress.stage == MOVING and view.holds(goal) and at_stop(view, subgoal)):
            return memory
        elif swings(view, subgoal):
            return memory
    elif progress.stage == DONE:
        # A drawer that is open and goes no further will have to do.
        enough = progress.wide and progress.attempt >= WIDENINGS and view.holds(goal)
        at = _next(view, memory.subgoals, memory.at + enough)
        if at == memory.at:
            progress = progress.again()
        else:
            progress = _fresh(view, memory.subgoals, at)
        memory = replace(memory, at=at, progress=progress)
        if at >= len(memory.subgoals):
            return memory
        goal = memory.subgoals[at].predicate
        skill = stage.skill(goal)
    try:
        script = skill.proceed(view, goal, progress)
    except PolicyFault:
        if not (memory.waypoints or memory.stops):
            raise  # nothing was done yet: the task is beyond us, and says why
        script = look_again(view, progress)
    return _with(stage, memory, script, progress)


def _with(stage: _Stage, memory: Memory, script: Script, before: Progress) -> Memory:
    """A memory that begins a script, made when its skill was that far."""
    if script.stops:
        patience = patience_for_stop(stage.base, stage.base.now(stage.view), script.stops, 0)
    else:
        patience = patience_for(memory.reference, script.waypoints, 0)
    return replace(
        memory,
        progress=script.progress,
        before=before,
        waypoints=script.waypoints,
        stops=script.stops,
        index=0,
        reached=0,
        patience=patience,
    )


def _regained(stage: _Stage, memory: Memory) -> Memory:
    """A memory after a push: an open hand plans its way anew, a closed one goes on from here."""
    view = stage.view
    memory = replace(memory, reference=Reference.at_rest(view.eef))
    if memory.index >= len(memory.waypoints):
        return memory
    if memory.waypoints[memory.index].gap == motion.CLOSED and memory.progress.stage != DONE:
        return memory  # being lifted
    goal = memory.subgoals[memory.at].predicate
    try:
        script = stage.skill(goal).proceed(view, goal, memory.before)
    except PolicyFault:
        return memory
    return _with(stage, memory, script, memory.before)


def _next(view: View, subgoals: tuple[Subgoal, ...], start: int) -> int:
    """Index of the first subgoal from `start` on that has still to be served."""
    for i in range(start, len(subgoals)):
        if not view.holds(subgoals[i].predicate) or is_cramped(view, subgoals[i]):
            return i
    return len(subgoals)


def _fresh(view: View, subgoals: tuple[Subgoal, ...], at: int) -> Progress:
    """Progress of a subgoal that is about to be begun."""
    if at >= len(subgoals):
        return Progress()
    target = subgoals[at].predicate.args[-1]
    others = (s.predicate for i, s in enumerate(subgoals) if i != at)
    return Progress(
        shared=any(p.name in PLACING and p.args[1] == target for p in others),
        wide=drawer(view, subgoals[at]) is not None,
    )
