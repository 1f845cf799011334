"""The runtime's own promises: snapshots repeat, steps are counted, sharing a model is safe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs import goals
from envs.runtime import Simulation
from envs.scene import Scene, Start, SuiteOptions
from wamsim import registry
from wamsim.contracts import EpisodeKey

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def scene_and_starts(scene_cache_dir: Path) -> tuple[Scene, str, list[Start]]:
    backend = registry.suite("tabletop_object", SuiteOptions(cache_dir=scene_cache_dir))
    task = backend.suite.tasks[0]
    scene = backend.scene(task)
    starts = [backend.start(scene, task, EpisodeKey(task.suite, task.name, i), 0) for i in range(2)]
    return scene, task.goal, starts


def actions(n: int, seed: int) -> np.ndarray:
    out = np.random.default_rng(seed).uniform(-1, 1, (n, 7))
    out[:, 2] -= 0.5  # down into the things
    return out


def run(sim: Simulation, chunk: np.ndarray) -> list[bytes]:
    sim.activate()
    states = []
    for action in chunk:
        sim.step(action)
        states.append(sim.state().tobytes() + sim.glimpse().robot_state.tobytes())
    return states


@pytest.mark.parametrize("exact", [False, True])
def test_steps_after_a_restored_snapshot_repeat_bit_for_bit(
    scene_and_starts: tuple[Scene, str, list[Start]], exact: bool
) -> None:
    scene, goal, starts = scene_and_starts
    sim = Simulation(scene, goals.parse(goal), exact=exact)
    sim.start(starts[0])
    run(sim, actions(15, 0))
    kept = sim.snapshot()
    first = run(sim, actions(25, 1))
    sim.restore(kept)
    assert sim.steps == 15
    assert run(sim, actions(25, 1)) == first
    other = Simulation(scene, goals.parse(goal), exact=exact)
    other.restore(kept)
    assert run(other, actions(25, 1)) == first


def test_simulations_that_share_a_model_do_not_disturb_each_other(
    scene_and_starts: tuple[Scene, str, list[Start]],
) -> None:
    scene, goal, starts = scene_and_starts
    assert any(
        not np.array_equal(starts[0].fixtures[b][0], starts[1].fixtures[b][0])
        for b in starts[0].fixtures
    ), "the two episodes must differ in fixtures for this test to mean anything"
    alone = []
    for i, start in enumerate(starts):
        sim = Simulation(scene, goals.parse(goal))
        sim.start(start)
        alone.append(run(sim, actions(24, i)))
    pair = [Simulation(scene, goals.parse(goal)) for _ in starts]
    for sim, start in zip(pair, starts, strict=True):
        sim.start(start)
    together: list[list[bytes]] = [[], []]
    for first in range(0, 24, 8):
        for i, sim in enumerate(pair):
            together[i] += run(sim, actions(24, i)[first : first + 8])
    assert together == alone
