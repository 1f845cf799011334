"""The oracle as a policy: privileged state in, actions out, memory in the open."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np

from envs.goals import Predicate, parse
from envs.scene import Scene
from policies.oracle import motion
from policies.oracle.config import OracleConfig
from policies.oracle.geometry import Array, rotation_vector
from policies.oracle.memory import Memory
from policies.oracle.motion import Hand, Reference, Waypoint
from policies.oracle.planner import PLACING, Subgoal, plan
from policies.oracle.skills.base import DONE, MOVING, Progress, Skill, look_again
from policies.oracle.skills.carrying import Carrying
from policies.oracle.skills.moving import Moving
from policies.oracle.skills.pushing import Pushing
from policies.oracle.view import View
from wamsim.contracts import Observation, PolicyCard, Prediction, PrivilegedState
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE
from wamsim.errors import PolicyFault

SCENES = 12  # private copies of scenes that are kept; a LIBERO model takes about 100 MB


class _Stage:
    """A scene with the skills that work in it."""

    def __init__(self, scene: Scene) -> None:
        self.view = View(scene)
        moving = Moving(self.view)
        carrying = Carrying(self.view)
        self._pushing = Pushing(self.view)
        self._skills: dict[str, Skill] = {
            "On": carrying, "In": carrying,
            "Open": moving, "Close": moving, "TurnOn": moving, "TurnOff": moving,
        }  # fmt: skip

    def skill(self, goal: Predicate) -> Skill:
        """The skill that serves a predicate."""
        if self._pushing.suits(self.view, goal):
            return self._pushing
        return self._skills[goal.name]


class Oracle:
    """Plans from the goal with privileged state. Knows no suite."""

    def __init__(self, config: OracleConfig) -> None:
        self._config = config
        self._stages: OrderedDict[str, _Stage] = OrderedDict()
        self.card = PolicyCard(
            name="oracle",
            action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
            horizon=config.execute,
            execute=config.execute,
            privileged=True,
            row_batch=False,
            notes="scripted expert with privileged state; for demonstrations and checks",
        )

    def act(self, obs: Observation) -> Prediction:
        """Plan the next chunk of every row."""
        began = time.perf_counter()
        if obs.state is None:
            raise PolicyFault(
                "the oracle needs privileged state, and the observation has none. "
                "Let the harness fill Observation.state (PolicyCard.privileged)."
            )
        actions = np.tile(
            np.asarray(self.card.action.hold, np.float32), (obs.batch, self.card.horizon, 1)
        )
        memory: list[Any] = [None] * obs.batch
        for row, state in enumerate(obs.state):
            if state is None or not obs.valid[row]:
                continue
            actions[row], memory[row] = self._row(
                state, obs.memory[row], int(obs.seed[row]), int(obs.step[row])
            )
        return Prediction(
            actions=actions, memory=memory, timings={"plan": time.perf_counter() - began}
        )

    def _stage(self, scene: Scene) -> _Stage:
        found = self._stages.pop(scene.info.id, None) or _Stage(scene)
        self._stages[scene.info.id] = found
        while len(self._stages) > SCENES:
            self._stages.popitem(last=False)
        return found

    def _row(
        self, state: PrivilegedState, memory: Memory | None, seed: int, step: int
    ) -> tuple[Array, Memory]:
        stage = self._stage(state.scene)
        view = stage.view
        view.refresh(state)
        if memory is None:
            memory = self._begin(stage, state, seed)
        memory = replace(memory, reference=motion.leashed(memory.reference, view.eef))
        memory = self._decide(stage, memory)
        command = motion.OPEN * (float(state.gripper_command[0]) + 1.0) / 2.0
        return self._roll(view, state.qvel, command, memory, step)

    def _begin(self, stage: _Stage, state: PrivilegedState, seed: int) -> Memory:
        subgoals = plan(parse(state.task.goal), stage.view.scene)
        at = _next(stage.view, subgoals, 0)
        return Memory(
            seed=seed,
            subgoals=subgoals,
            at=at,
            progress=_fresh(subgoals, at),
            waypoints=(),
            index=0,
            reached=0,
            patience=0,
            reference=Reference.at_rest(stage.view.eef),
        )

    def _decide(self, stage: _Stage, memory: Memory) -> Memory:
        """Give a memory whose script says what to do now."""
        view = stage.view
        if memory.at >= len(memory.subgoals):
            at = _next(view, memory.subgoals, 0)
            if at >= len(memory.subgoals):
                return memory  # all holds: stand still
            memory = replace(memory, at=at, progress=_fresh(memory.subgoals, at))
        skill = stage.skill(memory.subgoals[memory.at].predicate)
        progress = memory.progress
        # A script that lost its point ends before its last waypoint: letting go is not losing.
        under_way = memory.index < len(memory.waypoints)
        closed = under_way and memory.waypoints[memory.index].gap == motion.CLOSED
        if closed and skill.failed(view, progress):
            progress = progress.again()
        elif under_way and not (
            progress.stage == MOVING and view.holds(memory.subgoals[memory.at].predicate)
        ):
            return memory
        elif progress.stage == DONE:
            at = _next(view, memory.subgoals, memory.at)
            progress = progress.again() if at == memory.at else _fresh(memory.subgoals, at)
            memory = replace(memory, at=at)
            if at >= len(memory.subgoals):
                return replace(memory, progress=progress)
            skill = stage.skill(memory.subgoals[at].predicate)
        goal = memory.subgoals[memory.at].predicate
        try:
            script = skill.proceed(view, goal, progress)
        except PolicyFault:
            if not memory.waypoints:
                raise  # nothing was done yet: the task is beyond us, and says why
            script = look_again(view, progress)
        return replace(
            memory,
            progress=script.progress,
            waypoints=script.waypoints,
            index=0,
            reached=0,
            patience=_patience(memory.reference, script.waypoints, 0),
        )

    def _roll(
        self, view: View, qvel: Array, command: float, memory: Memory, step: int
    ) -> tuple[Array, Memory]:
        """Roll the reference forward over a chunk."""
        hand = view.eef
        velocity, spin = view.motion(qvel)
        actions = np.zeros((self.card.horizon, 7))
        reference, index = memory.reference, memory.index
        reached, patience = memory.reached, memory.patience
        now = Hand(
            lag=reference.pose.pos - hand.pos,
            turn_lag=rotation_vector(reference.pose.rot @ hand.rot.T),
            velocity=velocity,
            spin=spin,
        )
        for k in range(self.card.horizon):
            goal = _at(memory.waypoints, index)
            if goal is None:
                goal = Waypoint(pose=reference.pose, gap=motion.OPEN)
            reference = motion.advance(
                reference, now, goal, _at(memory.waypoints, index + 1, False)
            )
            actions[k, :6], now = motion.follow(reference, now)
            actions[k, 6], command = motion.grip(command, goal.gap)
            if self._config.noise:
                actions[k, :6] += goal.calm * motion.perturbation(
                    memory.seed, step + k, self._config.noise
                )
            if index >= len(memory.waypoints):
                continue
            patience -= 1
            if patience <= 0 or motion.arrived(reference, now, goal):
                reached += 1
                if patience <= 0 or reached > goal.dwell:
                    index, reached = index + 1, 0
                    patience = _patience(reference, memory.waypoints, index)
        np.clip(actions, -1.0, 1.0, out=actions)
        memory = replace(
            memory, reference=reference, index=index, reached=reached, patience=patience
        )
        return actions, memory


def _patience(reference: Reference, waypoints: tuple[Waypoint, ...], index: int) -> int:
    """Steps that a waypoint may take from here."""
    if index >= len(waypoints):
        return 0
    return motion.expected_steps(reference.pose, waypoints[index]) + motion.PATIENCE


def _at(waypoints: tuple[Waypoint, ...], index: int, last: bool = True) -> Waypoint | None:
    """The waypoint of that number; past the end the last one (or None)."""
    if index < len(waypoints):
        return waypoints[index]
    return waypoints[-1] if last and waypoints else None


def _next(view: View, subgoals: tuple[Subgoal, ...], start: int) -> int:
    """Index of the first subgoal from `start` on that does not hold yet."""
    for i in range(start, len(subgoals)):
        if not view.holds(subgoals[i].predicate):
            return i
    return len(subgoals)


def _fresh(subgoals: tuple[Subgoal, ...], at: int) -> Progress:
    """Progress of a subgoal that is about to be begun."""
    if at >= len(subgoals):
        return Progress()
    target = subgoals[at].predicate.args[-1]
    others = (s.predicate for i, s in enumerate(subgoals) if i != at)
    return Progress(shared=any(p.name in PLACING and p.args[1] == target for p in others))
