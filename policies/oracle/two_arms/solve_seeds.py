"""Find out which starts of the bimanual suites the oracle solves; writes seeds.json.

    python -m policies.oracle.two_arms.solve_seeds [TASK ...]

Run it when a scene, a rule or the oracle changes (and raise the suites' version then). For
each task, clean and randomised, seeds 0, 1, .. are tried until as many as evaluations use
are solved; the others are written down (`envs.bimanual.seeds`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import envs.bimanual.seeds
from envs import goals
from envs.bimanual.suite import DRAWS, BimanualBackend
from envs.runtime import Simulation
from envs.scene import Start, SuiteOptions
from policies.oracle.config import OracleConfig
from policies.oracle.two_arms.policy import TwoArmOracle
from wamsim.contracts import EpisodeKey, Observation, PrivilegedState, Task
from wamsim.folders import default_cache_dir

MOST = 2 * envs.bimanual.seeds.EVALUATED  # more seeds than that are needed by a broken task


def solves(simulation: Simulation, oracle: TwoArmOracle, task: Task, start: Start) -> bool:
    """Whether the oracle reaches the goal from a start within the step limit."""
    simulation.start(start)
    hold = np.array(task.action.hold)
    for _ in range(task.settle_steps):
        simulation.step(hold)
    memory = None
    for step in range(task.max_steps):
        state = PrivilegedState(
            key=EpisodeKey(task.suite, task.name, 0),
            task=task,
            scene=simulation.scene,
            qpos=simulation.data.qpos.copy(),
            qvel=simulation.data.qvel.copy(),
            fixtures=simulation.fixtures,
            gripper_command=simulation.gripper_command,
        )
        answer = oracle.act(
            Observation(
                frames={},
                instruction=[task.instruction],
                seed=np.zeros(1, np.uint64),
                step=np.array([step]),
                slot=np.zeros(1, np.int64),
                first=np.array([step == 0]),
                valid=np.ones(1, bool),
                memory=[memory],
                state=[state],
            )
        )
        if answer.faults:
            return False
        memory = answer.memory[0] if answer.memory else None
        simulation.activate()
        if simulation.step(answer.actions[0, 0].astype(np.float64)):
            return True
    return False


def rejected(backend: BimanualBackend, task: Task, wanted: int) -> list[int]:
    """Seeds that the oracle does not solve, below the last that is needed."""
    scene = backend.scene(task)
    simulation = Simulation(scene, goals.parse(task.goal), action=task.action.name)
    oracle = TwoArmOracle(OracleConfig(), task.action)
    out: list[int] = []
    seed = solved = 0
    while solved < wanted:
        if seed >= MOST:
            raise RuntimeError(f"{task.suite} {task.name}: {solved} of {seed} seeds are solved")
        start = backend.from_seed(scene, task, seed, evaluated=True)
        if solves(simulation, oracle, task, start):
            solved += 1
        else:
            out.append(seed)
        seed += 1
    return out


def main(names: Sequence[str]) -> None:
    """Try all tasks, or the named ones, and write what was found beside the suite."""
    module = envs.bimanual.seeds.__file__
    path = Path(module).with_name("seeds.json")
    table = json.loads(path.read_text())["rejected"] if path.exists() else {}
    for mode in ("clean", "randomized"):
        backend = BimanualBackend(f"bimanual_{mode}", SuiteOptions(cache_dir=default_cache_dir()))
        for task in backend.suite.tasks:
            if names and task.name not in names:
                continue
            began = time.perf_counter()
            found = rejected(backend, task, envs.bimanual.seeds.EVALUATED)
            table.setdefault(mode, {})[task.name] = found
            tried = envs.bimanual.seeds.EVALUATED + len(found)
            print(
                f"{mode} {task.name}: {tried - len(found)}/{tried} solved, not {found}, "
                f"{time.perf_counter() - began:.0f} s",
                flush=True,
            )
            text = json.dumps({"draws": DRAWS, "rejected": table}, indent=1)
            path.write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
