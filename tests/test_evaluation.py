"""What an evaluation plans."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from envs.evaluation import EvalConfig, Resources, plan
from wamsim.errors import WamsimError
from wamsim.registry import choose_policy


def _plan(suites: tuple[str, ...], **changes) -> list[str]:
    config = EvalConfig(policy=choose_policy("hold"), suites=suites)
    resources = Resources(workers=1, cache_dir=Path("unused"))
    keys, tasks, versions = plan(config, resources, **changes)
    assert set(versions) == set(suites)
    assert set(tasks) == {f"{k.suite}/{k.task}" for k in keys}
    short = {"tabletop_goal": "goal", "tabletop_object": "object"}
    return [f"{short[k.suite]}/{k.task}/{k.index}" for k in keys]


def test_a_plan_is_in_order_of_suites_tasks_and_trials() -> None:
    both = ("tabletop_object", "tabletop_goal")
    assert len(_plan(both, episodes=3)) == (5 + 8) * 3
    assert _plan(both, episodes=2, tasks=["turn_on_stove", "0"], first=7) == [
        "object/put_can_in_basket/7", "object/put_can_in_basket/8",
        "goal/open_top_drawer/7", "goal/open_top_drawer/8",
        "goal/turn_on_stove/7", "goal/turn_on_stove/8",
    ]  # fmt: skip
    assert _plan(both, episodes=1, tasks=["tabletop_goal/0", "tabletop_object/put_can_in_basket"])
    assert _plan(both, episodes=1, tasks=["tabletop_goal/0"]) == ["goal/open_top_drawer/0"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: _plan(("tabletop_goal",), episodes=0), "episodes=0 must be at least 1"),
        (lambda: _plan((), episodes=1), "no suite was named"),
        (
            lambda: EvalConfig(policy=choose_policy("hold"), suites=("tabletop_goal",), batch=0),
            "batch=0 must be at least 1",
        ),
    ],
)
def test_a_plan_of_nothing_is_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(WamsimError, match=sentence):
        make()
