"""The oracle for two arms as a policy: privileged state in, joint positions or poses out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from envs.goals import parse
from policies.oracle.config import OracleConfig
from policies.oracle.geometry import Array, to_quaternion
from policies.oracle.motion import perturbation
from policies.oracle.rows import PerScene, answer, oracle_card
from policies.oracle.two_arms import tools
from policies.oracle.two_arms.desk import Desk, Plan
from policies.oracle.two_arms.jobs import Jobs, conjuncts
from policies.oracle.two_arms.script import ROW
from policies.oracle.two_arms.view import View
from wamsim.contracts import Observation, Prediction, PrivilegedState, Task
from wamsim.conventions import (
    ALOHA_JOINTS_GRIPPER_OPEN_FRACTION,
    DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION,
    ActionConvention,
)
from wamsim.errors import PolicyFault

SPOKEN = (ALOHA_JOINTS_GRIPPER_OPEN_FRACTION, DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION)
ATTEMPTS = 6  # plans not found, one after another, before a row is given up
LOOK_AGAIN = 5  # steps to stand still after one
NOISE = 0.05  # radians of a joint for a perturbation of 1


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a row remembers: the script under way.

    Attributes:
        seed: Of the perturbation: the seed of the episode's first query.
        actions: [T, 14], joints and openings.
        at: Rows done.
        missed: Plans not found since the last one that was.
        label: Of the script, for people who debug.
    """

    seed: int
    actions: Array
    at: int
    missed: int
    label: str


class TwoArmOracle:
    """Plans from the goal with privileged state, for scenes with two arms.

    `OracleConfig.noise` perturbs joints, equally all along (`noise_floor` changes nothing);
    there are no pushes.
    """

    def __init__(self, config: OracleConfig, action: ActionConvention) -> None:
        self._config = config
        self._views = PerScene(View)
        self.card = oracle_card(config, action)

    def check_task(self, task: Task) -> None:
        """Refuse a task whose goal asks for what no skill serves.

        Raises:
            PolicyFault: Which task, and what of its goal.
        """
        try:
            conjuncts(parse(task.goal))
        except PolicyFault as fault:
            raise PolicyFault(f"task {task.name!r} of suite {task.suite!r}: {fault}") from None

    def act(self, obs: Observation) -> Prediction:
        """Give the next rows of every row's script; where it has ended, plan the next one.

        Raises:
            PolicyFault: No privileged state.
        """
        return answer(obs, self.card, self._config, self._row)

    def _row(
        self, state: PrivilegedState, memory: Memory | None, seed: int, step: int
    ) -> tuple[Array, Array, Memory]:
        if memory is None:
            memory = Memory(seed=seed, actions=np.empty((0, ROW)), at=0, missed=0, label="")
        view = self._views.of(state.scene)
        if memory.at >= len(memory.actions):
            with view.showing(state):
                memory = _plan(view, state, memory)
        n = self.card.horizon
        most = max(n, self._config.ahead)
        known = memory.actions[memory.at : memory.at + most]
        known = np.concatenate([known, np.repeat(memory.actions[-1:], most - len(known), axis=0)])
        rows, meant = known[:n], known[: self._config.ahead]
        if self._config.noise:
            rows = rows + _noise(memory.seed, step, n, self._config.noise)
        memory = Memory(
            seed=memory.seed,
            actions=memory.actions,
            at=memory.at + n,
            missed=memory.missed,
            label=memory.label,
        )
        if self.card.action == DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION:
            with view.showing(state):
                rows, meant = _as_poses(view, rows), _as_poses(view, meant)
        return rows, meant, memory


def _plan(view: View, state: PrivilegedState, memory: Memory) -> Memory:
    desk = _desk(view, state)
    jobs = Jobs(parse(state.task.goal), view.scene)
    plan = jobs.next(view, desk)
    missed = 0
    if plan is None:
        missed = memory.missed + 1
        if missed > ATTEMPTS:
            raise PolicyFault(f"the oracle found no way to go on with {state.task.goal}")
        if missed % 2 == 0:
            plan = tools.go_home(desk)
        else:
            script = desk.script()
            script.wait(LOOK_AGAIN)
            plan = Plan(script.actions, "wait")
    return Memory(seed=memory.seed, actions=plan.actions, at=0, missed=missed, label=plan.label)


def _desk(view: View, state: PrivilegedState) -> Desk:
    targets = state.gripper_command.reshape(2, -1)  # six joints and two fingers an arm
    opening = np.empty(2)
    for arm, robot in enumerate(view.scene.info.robots):
        assert robot.gripper_span is not None
        closed, opened = robot.gripper_span
        opening[arm] = np.clip((targets[arm, 6] - closed) / (opened - closed), 0.0, 1.0)
    return Desk(view.arms, targets[:, :6].copy(), opening)


def _as_poses(view: View, rows: Array) -> Array:
    """Joint targets [n, 14] as the poses that the hands have there, [n, 16]."""
    out = np.empty((len(rows), 16))
    for i, row in enumerate(rows):
        for arm in range(2):
            pose = view.arms.hand(arm, row[7 * arm : 7 * arm + 6])
            out[i, 8 * arm : 8 * arm + 3] = pose.pos
            out[i, 8 * arm + 3 : 8 * arm + 7] = to_quaternion(pose.rot)
            out[i, 8 * arm + 7] = row[7 * arm + 6]
    return out


def _noise(seed: int, step: int, n: int, amplitude: float) -> Array:
    """Smooth perturbations of the joints [n, 14]; grippers are left alone."""
    out = np.zeros((n, ROW))
    for k in range(n):
        for arm in range(2):
            wave = perturbation(seed + arm, step + k, amplitude)
            out[k, 7 * arm : 7 * arm + 6] = NOISE * wave
    return out
