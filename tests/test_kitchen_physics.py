"""The kitchen's physics in every task: at rest, under random actions, in the hand; and its speed.

Slow, and printed: `pytest tests/test_kitchen_physics.py -m slow -s`.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from envs.goals import parse
from envs.kitchen.suite import KitchenBackend
from envs.kitchen.tasks import TASKS
from envs.rendering import Painter
from envs.runtime import Simulation
from envs.scene import Scene, SuiteOptions
from wamsim.contracts import EpisodeKey, Task
from wamsim.conventions import DELTA_EEF_BASE_TORSO_MODE, DELTA_EEF_GRIPPER_CLOSE_POSITIVE

pytestmark = [pytest.mark.sim, pytest.mark.slow]
HOLD = np.array(DELTA_EEF_BASE_TORSO_MODE.hold)
LABELS = DELTA_EEF_BASE_TORSO_MODE.labels


@pytest.fixture(scope="module")
def backend(scene_cache_dir: Path) -> KitchenBackend:
    return KitchenBackend("kitchen", SuiteOptions(cache_dir=scene_cache_dir))


def begun(
    backend: KitchenBackend, name: str, index: int = 0, action: str | None = None
) -> tuple[Task, Scene, Simulation]:
    task = next(t for t in backend.suite.tasks if t.name == name)
    key = EpisodeKey("kitchen", name, index)
    shown = backend.variant(task, key)
    scene = backend.scene(shown)
    sim = Simulation(scene, parse(shown.goal), action=action or shown.action.name)
    sim.start(backend.start(scene, shown, key, 0))
    for _ in range(shown.settle_steps):
        sim.step(HOLD if action is None else np.array(DELTA_EEF_GRIPPER_CLOSE_POSITIVE.hold))
    return shown, scene, sim


def joints_of_fixtures(scene: Scene, sim: Simulation) -> NDArray[np.float64]:
    names = [j for t in scene.info.things for j in t.joints]
    return np.array([sim.world.joint(j) for j in names])


@pytest.mark.parametrize("name", TASKS)
def test_nothing_moves_by_itself(backend: KitchenBackend, name: str) -> None:
    _, scene, sim = begun(backend, name)
    before = joints_of_fixtures(scene, sim)
    places = {t.name: sim.world.position(t).copy() for t in scene.info.things if t.free_joint}
    base = sim.data.qpos[:4].copy()
    for _ in range(100):  # 5 s
        sim.step(HOLD)
    drift = float(np.abs(joints_of_fixtures(scene, sim) - before).max(initial=0.0))
    moved = max(
        (float(np.linalg.norm(sim.world.position(scene.thing(n)) - p)) for n, p in places.items()),
        default=0.0,
    )
    sway = float(np.abs(sim.data.qpos[:4] - base).max())
    print(f"{name}: joints {drift:.1e}, things {moved:.1e} m, base {sway:.1e} in 5 s")
    assert drift < 1e-3
    assert moved < 2e-3
    assert sway < 1e-3


@pytest.mark.parametrize("name", TASKS)
def test_two_thousand_random_steps_break_nothing(backend: KitchenBackend, name: str) -> None:
    _, scene, sim = begun(backend, name)
    rng = np.random.default_rng(0)
    fastest, action = 0.0, HOLD.copy()
    for step in range(2000):
        if step % 8 == 0:  # smooth enough to get somewhere, and into things
            action = rng.uniform(-1, 1, len(HOLD))
        sim.step(action)
        assert np.isfinite(sim.data.qpos).all()
        fastest = max(fastest, float(np.abs(sim.data.qvel).max()))
    limits = scene.model.jnt_range[scene.model.jnt_limited.astype(bool)]
    at = scene.model.jnt_qposadr[scene.model.jnt_limited.astype(bool)]
    beyond = np.maximum(limits[:, 0] - sim.data.qpos[at], sim.data.qpos[at] - limits[:, 1]).max()
    print(f"{name}: fastest joint {fastest:.0f}, beyond a limit by {beyond:.1e}")
    assert sim.data.warning.number.sum() == 0
    assert beyond < 0.02
    assert fastest < 60.0  # a thing that is flung by a closing hand has 20 m/s of spin at most


def test_what_is_held_stays_held(backend: KitchenBackend) -> None:
    """The hand closes on something round, and keeps it in the air for 5 s."""
    _, scene, sim = begun(backend, "pnp_counter_to_microwave", 0)
    can = scene.thing("obj")
    assert can.category in ("fruit", "can")
    site = scene.site_id(scene.info.robot.eef_site)
    # Put the thing between the open fingers, as a grasp would have it.
    at = scene.qpos_address(str(can.free_joint))
    sim.data.qpos[at : at + 3] = sim.data.site_xpos[site]
    sim.data.qpos[at + 3 : at + 7] = sim.data.xquat[scene.body_id(scene.info.robot.eef_body)]
    sim.data.qvel[scene.dof_address(str(can.free_joint)) :][:6] = 0
    close = HOLD.copy()
    close[6] = 1.0
    for _ in range(10):
        gravity = scene.model.opt.gravity.copy()
        scene.model.opt.gravity[:] = 0  # until the fingers are there
        sim.step(close)
        scene.model.opt.gravity[:] = gravity
    for _ in range(10):
        sim.step(close)
    offset = sim.world.position(can) - sim.data.site_xpos[site]
    for _ in range(100):
        sim.step(close)
    slipped = np.linalg.norm(sim.world.position(can) - sim.data.site_xpos[site] - offset)
    print(f"slipped by {slipped * 1e3:.2f} mm in 5 s")
    assert slipped < 2e-3


def test_the_base_drives_and_the_lift_lifts(backend: KitchenBackend) -> None:
    _, scene, sim = begun(backend, "open_drawer")
    arm = sim.data.qpos[scene.qpos_address("robot0_joint1") :][:7].copy()
    drive = HOLD.copy()
    drive[LABELS.index("base_forward")] = -1.0
    drive[LABELS.index("torso")] = 0.5
    for _ in range(20):  # with mode <= 0 the arm listens, the base does not
        sim.step(drive)
    assert abs(sim.world.joint("robot0_base_x")) < 2e-3
    drive[LABELS.index("mode")] = 1.0
    for _ in range(20):  # one second at 0.5 m/s and 0.075 m/s
        sim.step(drive)
    for _ in range(10):
        sim.step(HOLD)
    print("drove", sim.world.joint("robot0_base_x"), "rose", sim.world.joint("robot0_torso"))
    assert sim.world.joint("robot0_base_x") == pytest.approx(-0.5, abs=0.02)
    assert sim.world.joint("robot0_torso") == pytest.approx(0.075, abs=0.01)
    now = sim.data.qpos[scene.qpos_address("robot0_joint1") :][:7]
    assert np.abs(now - arm).max() < 0.05


def test_the_arm_alone_is_the_same_in_both_conventions(backend: KitchenBackend) -> None:
    rng = np.random.default_rng(3)
    actions = rng.uniform(-0.5, 0.5, (30, 7))
    _, scene, whole = begun(backend, "open_drawer")
    _, _, alone = begun(backend, "open_drawer", action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name)
    for action in actions:
        whole.step(np.concatenate([action, HOLD[7:]]))
        alone.step(action)
    site = scene.site_id(scene.info.robot.eef_site)
    away = np.linalg.norm(whole.data.site_xpos[site] - alone.data.site_xpos[site])
    print(f"the hands are {away * 1e3:.3f} mm apart")
    assert away < 1e-3


def test_speed(backend: KitchenBackend) -> None:
    steps, pictures = [], []
    for name in TASKS:
        task, scene, sim = begun(backend, name)
        began = time.process_time()
        for _ in range(40):
            sim.step(HOLD)
        steps.append((time.process_time() - began) / 40 * 1e3)
        painter = Painter(scene)
        lit = sim.glimpse().lit
        painter.draw(sim.data.qpos, lit, "agentview_left", (128, 128))
        began = time.process_time()
        for _ in range(5):
            painter.draw(sim.data.qpos, lit, task.cameras[0], (128, 128))
        pictures.append((time.process_time() - began) / 5 * 1e3)
        painter.close()
        print(f"{name}: step {steps[-1]:.2f} ms, picture {pictures[-1]:.1f} ms of CPU")
    print(f"median: step {np.median(steps):.2f} ms, picture {np.median(pictures):.1f} ms")
    assert np.median(steps) < 5.0
    assert np.median(pictures) < 40.0  # 17 on an idle machine; this one is shared
