"""Wamsim against the genuine OffScreenRenderEnv: states, pictures, proprioception, success."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs import goals
from envs.libero.genuine import make_genuine, reset_genuine
from envs.rendering import Painter
from envs.runtime import Look, Simulation, shoot
from envs.scene import SuiteOptions
from wamsim import registry, seeding
from wamsim.contracts import EpisodeKey, Observation, PrivilegedState
from wamsim.registry import choose_policy, make_policy

pytestmark = [pytest.mark.libero, pytest.mark.sim]

LOOK = Look(cameras=("agentview", "eye_in_hand"), size=(128, 128))

# suite, task, actions: all five problem classes, oracle and random
FEW = [("libero_object", 1, "oracle"), ("libero_10", 2, "random"), ("libero_goal", 7, "oracle")]
TWELVE = [
    ("libero_spatial", 0, "oracle"),  # Tabletop
    ("libero_spatial", 7, "random"),
    ("libero_goal", 0, "oracle"),
    ("libero_goal", 7, "oracle"),  # lights the burner
    ("libero_object", 0, "oracle"),  # Floor
    ("libero_object", 5, "random"),
    ("libero_10", 0, "oracle"),  # Living room
    ("libero_10", 4, "random"),
    ("libero_10", 2, "oracle"),  # Kitchen
    ("libero_10", 9, "random"),
    ("libero_10", 5, "oracle"),  # Study
    ("libero_90", 77, "random"),
]


class Pair:
    """The genuine environment and two simulations, exact and default, of one episode."""

    def __init__(self, suite: str, task: int, index: int, assets: Path, cache: Path) -> None:
        options = SuiteOptions(cache_dir=cache, libero_assets=assets)
        backend = registry.suite(suite, options)
        self.task = backend.suite.tasks[task]
        self.key = EpisodeKey(suite, self.task.name, index)
        self.scene = backend.scene(self.task)
        goal = goals.parse(self.task.goal)
        start = backend.start(self.scene, self.task, self.key, 0)
        self.exact = Simulation(self.scene, goal, exact=True)
        self.default = Simulation(self.scene, goal)
        self.genuine = make_genuine(suite, task, assets, size=LOOK.size[0])
        self.genuine.seed(seeding.numpy_legacy_seed(seeding.derive(0, self.key, "fixtures")))
        reset_genuine(self.genuine)
        state = backend.initial_states(self.task)[index]
        self.observation = self.genuine.set_init_state(state)
        self.exact.start(start)
        self.default.start(start)
        self.painter = Painter(self.scene)

    def step_genuine(self, action: np.ndarray) -> bool:
        # robosuite makes its OpenGL context current once, when it is made; ours came between
        self.genuine.env.sim._render_context_offscreen.gl_ctx.make_current()
        self.observation, _, done, _ = self.genuine.step(action)
        return done

    def close(self) -> None:
        self.painter.close()
        self.genuine.close()

    def difference(self, sim: Simulation) -> tuple[float, float]:
        data = self.genuine.env.sim.data
        return (
            float(np.abs(sim.data.qpos - data.qpos).max()),
            float(np.abs(sim.data.qvel - data.qvel).max()),
        )

    def check_observation(self) -> None:
        glimpse = self.exact.glimpse()
        obs, state = self.observation, glimpse.robot_state
        assert np.array_equal(state[14:17], obs["robot0_eef_pos"])
        assert np.array_equal(state[17:21], obs["robot0_eef_quat"])
        assert np.array_equal(state[21:23], obs["robot0_gripper_qpos"])
        assert np.array_equal(state[7:14], obs["robot0_joint_vel"])
        frames, _ = shoot(self.painter, self.exact.fixtures, glimpse, LOOK)
        assert np.array_equal(frames[0], obs["agentview_image"][::-1])
        assert np.array_equal(frames[1], obs["robot0_eye_in_hand_image"][::-1])


class Hands:
    """Actions for a pair: random ones, or the oracle's with noise, from the exact simulation."""

    def __init__(self, kind: str, pair: Pair) -> None:
        self._pair = pair
        self._rng = np.random.default_rng(3)
        self._oracle = (
            make_policy(choose_policy("oracle", {"noise": "0.2", "execute": "1"}))
            if kind == "oracle"
            else None
        )
        self._memory = None
        self._steps = 0

    def __call__(self) -> np.ndarray:
        if self._oracle is None:
            action = self._rng.uniform(-1, 1, 7)
            action[2] -= 0.4  # press into the table: contacts
            return np.clip(action, -1, 1).astype(np.float32)
        pair, sim = self._pair, self._pair.exact
        state = PrivilegedState(
            key=pair.key, task=pair.task, scene=pair.scene, qpos=sim.data.qpos.copy(),
            qvel=sim.data.qvel.copy(), fixtures=sim.fixtures, gripper_command=sim.gripper_command,
        )  # fmt: skip
        prediction = self._oracle.act(
            Observation(
                frames={}, instruction=[pair.task.instruction],
                seed=np.array([seeding.policy_seed(0, pair.key, self._steps)], np.uint64),
                step=np.array([self._steps]), slot=np.array([0]),
                first=np.array([self._steps == 0]), valid=np.array([True]),
                memory=[self._memory], state=[state],
            )
        )  # fmt: skip
        self._steps += 1
        assert prediction.memory is not None
        self._memory = prediction.memory[0]
        return prediction.actions[0, 0]


def follow(pair: Pair, kind: str, steps: int, look_every: int) -> dict[str, float]:
    """Step all three together; exact must be equal at every step."""
    hold = np.array(pair.task.action.hold)
    hands = Hands(kind, pair)
    worst, before_contact, success_at = 0.0, 0.0, {}
    pair.check_observation()
    for step in range(pair.task.settle_steps + steps):
        settling = step < pair.task.settle_steps
        action = hold if settling else hands().astype(np.float64)
        done = pair.step_genuine(action)
        won = {"exact": pair.exact.step(action), "default": pair.default.step(action)}
        assert pair.difference(pair.exact) == (0.0, 0.0), f"step {step}"
        assert won["exact"] == done, f"step {step}"
        if step % look_every == 0:
            pair.check_observation()
        now = max(pair.difference(pair.default))
        worst = max(worst, now)
        if now <= 1e-6:
            before_contact = max(before_contact, now)
        for name, flag in (*won.items(), ("genuine", done)):
            if flag and not settling:
                success_at.setdefault(name, step - pair.task.settle_steps + 1)
        if done and not settling:
            break
    return {"default_worst": worst, **{f"success_{k}": v for k, v in success_at.items()}}


@pytest.mark.parametrize(("suite", "task", "kind"), FEW)
def test_exact_mode_equals_the_genuine_environment(
    suite: str, task: int, kind: str, libero_assets: Path, scene_cache_dir: Path
) -> None:
    pair = Pair(suite, task, 3, libero_assets, scene_cache_dir)
    try:
        follow(pair, kind, steps=40, look_every=13)
    finally:
        pair.close()


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "task", "kind"), TWELVE)
def test_two_hundred_steps_of_twelve_tasks(
    suite: str, task: int, kind: str, libero_assets: Path, scene_cache_dir: Path
) -> None:
    pair = Pair(suite, task, 7, libero_assets, scene_cache_dir)
    try:
        found = follow(pair, kind, steps=200, look_every=10)
    finally:
        pair.close()
    print(f"\n{suite} {task} {kind}: {found}")
