"""The oracle in the kitchen: what it refuses, and that it does every task (slow)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from envs.evaluation import EvalConfig, Resources, evaluate
from envs.goals import parse
from envs.kitchen.tasks import TASKS, variant
from policies.oracle.planner import check
from wamsim.contracts import Outcome
from wamsim.errors import PolicyFault
from wamsim.registry import choose_policy
from wamsim.run_folder import records


def test_every_goal_of_the_kitchen_has_a_skill() -> None:
    for entry in TASKS.values():
        words = {"door": "single_door", "side": "left", "burner": "front_left"}
        check(parse(entry.goal.format(**words)))


def test_what_nobody_can_do_is_refused() -> None:
    with pytest.raises(PolicyFault, match="no plan for Up"):
        check(parse("Far(obj) & Up(obj)"))


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_oracle_does_every_task(name: str, tmp_path: Path, scene_cache_dir: Path) -> None:
    config = EvalConfig(policy=choose_policy("oracle"), suites=("kitchen",))
    resources = Resources(workers=1, slots=1, cache_dir=scene_cache_dir)
    wins: list[bool] = []
    for first in (0, 10, 20, 30, 40):  # one trial of every scene
        out = tmp_path / str(first)
        evaluate(config, out=out, episodes=1, first=first, tasks=(name,), resources=resources)
        (record,) = records(out)
        words = variant(TASKS[name], first).words
        assert record.instruction == TASKS[name].wordings[0].format(**words)  # not the suite's own
        wins.append(record.outcome is Outcome.SUCCESS)
    print(f"{name}: {sum(wins)}/5")
    assert np.mean(wins) >= 0.6
