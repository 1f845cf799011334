"""Scripted policies in the loop: the oracle succeeds, its noise is its own, replay repeats."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from envs.evaluation import EvalConfig, Resources, evaluate
from wamsim.contracts import (
    EpisodeKey,
    Observation,
    Outcome,
    Policy,
    Prediction,
    PrivilegedState,
)
from wamsim.episode import Episode, arrays_equal, read_episode
from wamsim.errors import PolicyFault
from wamsim.registry import choose_policy, make_policy
from wamsim.run_folder import episode_files

pytestmark = pytest.mark.sim


def episodes(
    policy: str, out: Path, cache: Path, *, options: dict[str, str] | None = None,
    suite: str = "tabletop_object", tasks: tuple[str, ...] = ("0",), n: int = 2, seed: int = 0,
    given: Policy | None = None,
) -> dict[EpisodeKey, Episode]:  # fmt: skip
    config = EvalConfig(policy=choose_policy(policy, options), suites=(suite,), seed=seed)
    resources = Resources(workers=1, slots=2, cache_dir=cache)
    evaluate(config, out=out, episodes=n, tasks=tasks, resources=resources, policy=given)
    found = [read_episode(path) for path in episode_files(out)]
    return {e.record.key: e for e in found}


@pytest.mark.parametrize(
    ("suite", "tasks"),
    [
        ("tabletop_object", ("0", "4")),
        ("tabletop_spatial", ("5",)),
        ("tabletop_goal", ("open_top_drawer", "turn_on_stove")),
    ],
)
def test_the_oracle_succeeds(
    suite: str, tasks: tuple[str, ...], tmp_path: Path, scene_cache_dir: Path
) -> None:
    found = episodes("oracle", tmp_path, scene_cache_dir, suite=suite, tasks=tasks)
    assert [e.record.outcome for e in found.values()] == [Outcome.SUCCESS] * len(found)
    assert all(e.record.privileged for e in found.values())


class OverAsked:
    """The oracle, asked in trial 0 for what this scene does not allow."""

    def __init__(self) -> None:
        self._oracle = make_policy(choose_policy("oracle"))
        self.card = self._oracle.card

    def act(self, obs: Observation) -> Prediction:
        states = [s and self._altered(s) for s in obs.state or ()]
        return self._oracle.act(dataclasses.replace(obs, state=states))

    def _altered(self, state: PrivilegedState) -> PrivilegedState:
        if state.key.index:
            return state
        return dataclasses.replace(state, task=dataclasses.replace(state.task, goal="Open(basket)"))


def test_an_episode_without_a_plan_fails_and_the_run_goes_on(
    tmp_path: Path, scene_cache_dir: Path
) -> None:
    found = episodes("oracle", tmp_path, scene_cache_dir, given=OverAsked())
    ends = [(e.record.outcome, e.record.steps > 0) for _, e in sorted(found.items())]
    assert ends == [(Outcome.FAILURE, False), (Outcome.SUCCESS, True)]
    first = found[min(found)].record
    assert first.reason is not None
    assert "no plan for Open(basket): 'basket' (basket) has no joint to move" in first.reason


def test_noise_changes_the_way_and_not_the_outcome(tmp_path: Path, scene_cache_dir: Path) -> None:
    calm = episodes("oracle", tmp_path / "calm", scene_cache_dir)
    noisy = episodes("oracle", tmp_path / "noisy", scene_cache_dir, options={"noise": "0.2"})
    again = episodes("oracle", tmp_path / "again", scene_cache_dir, options={"noise": "0.2"})
    for key, episode in noisy.items():
        assert episode.record.outcome is Outcome.SUCCESS
        n = min(episode.record.steps, calm[key].record.steps)
        apart = episode.arrays["actions"][:n] - calm[key].arrays["actions"][:n]
        assert np.abs(apart).mean() > 0.02
        # smooth: neighbouring steps are perturbed alike
        first = apart[:20, 0]
        assert np.corrcoef(first[:-1], first[1:])[0, 1] > 0.3
        assert arrays_equal(episode, again[key]) == []


def test_replay_repeats_states_and_outcome_bit_for_bit(
    tmp_path: Path, scene_cache_dir: Path
) -> None:
    recorded = episodes("oracle", tmp_path / "run", scene_cache_dir, tasks=("1", "3"), seed=5)
    options = {"run": str(tmp_path / "run"), "execute": "5"}
    played = episodes(
        "replay", tmp_path / "played", scene_cache_dir, options=options, tasks=("1", "3"), seed=5
    )
    assert played.keys() == recorded.keys()
    for key, episode in played.items():
        before = recorded[key]
        assert (episode.record.outcome, episode.record.steps) == (
            before.record.outcome, before.record.steps,
        )  # fmt: skip
        assert arrays_equal(episode, before, ignore=("timing", "query_steps")) == []


def test_replay_under_another_seed_is_refused(tmp_path: Path, scene_cache_dir: Path) -> None:
    episodes("oracle", tmp_path / "run", scene_cache_dir, n=1)
    with pytest.raises(PolicyFault, match="seed"):
        episodes(
            "replay", tmp_path / "played", scene_cache_dir,
            options={"run": str(tmp_path / "run")}, n=1, seed=1,
        )  # fmt: skip


def test_random_and_hold(tmp_path: Path, scene_cache_dir: Path) -> None:
    random = episodes("random", tmp_path / "random", scene_cache_dir)
    hold = episodes("hold", tmp_path / "hold", scene_cache_dir)
    first, second = random.values()
    assert not np.array_equal(first.arrays["actions"], second.arrays["actions"])
    assert np.abs(first.arrays["actions"]).max() <= 1.0
    for episode in hold.values():
        assert (episode.arrays["actions"] == np.float32([0, 0, 0, 0, 0, 0, -1])).all()
        assert episode.record.outcome is Outcome.FAILURE
