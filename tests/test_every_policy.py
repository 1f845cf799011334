"""Every registered policy runs closed-loop, untrained where it must, and fits both suites.

``pytest tests/test_every_policy.py -k NAME`` checks one while it is being written.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from envs.pool import Pool
from envs.scene import SuiteOptions
from wamsim import registry
from wamsim.contracts import EpisodeKey, Task
from wamsim.episode import Episode, arrays_equal, read_episode
from wamsim.fitting import check_fit
from wamsim.rollout import Rollout, RolloutOptions, look_plan
from wamsim.run_folder import RunFolder

pytestmark = pytest.mark.sim

QUERIES = 2
SUITE = "tabletop_object"


def every(*, variants: bool) -> list[str]:
    out: list[str] = []
    for name in registry.policy_names():
        if name == "replay":  # needs a recorded run: tests/test_simple_policies.py
            continue
        known = registry.family(name).variants
        out += [f"{name}:{v}" for v in known] if variants and known else [name]
    return out


class ShortPool(Pool):
    """A pool whose episodes end after a few queries."""

    max_steps = 8

    def task(self, suite: str, name: str) -> Task:
        return dataclasses.replace(super().task(suite, name), max_steps=self.max_steps)


def run(
    name: str, out: Path, cache: Path, *, workers: int = 1, slots: int = 1, episodes: int = 1,
    world: str | None = None,
) -> list[Episode]:  # fmt: skip
    policy = registry.make_policy(registry.choose_policy(name))
    model = registry.make_world_model(registry.choose_world_model(world)) if world else None
    options = RolloutOptions(batch=2, imagine=True)
    with ShortPool(
        (SUITE,),
        SuiteOptions(cache_dir=cache),
        views=look_plan(policy.card, options, model).views,
        workers=workers,
        slots=slots,
    ) as pool:
        pool.max_steps = QUERIES * policy.card.execute
        task = pool.backend(SUITE).suite.tasks[0]
        keys = [EpisodeKey(SUITE, task.name, i) for i in range(episodes)]
        with RunFolder.open(out, {"policy": name}, {}, planned=keys) as folder:
            Rollout(policy, pool, folder, options, world_model=model).run(keys, {SUITE: 1})
            return [read_episode(path) for path in folder.finished().episodes.values()]


def check(episode: Episode, card_horizons: tuple[int, ...] | None, execute: int) -> None:
    arrays = episode.arrays
    assert np.isfinite(arrays["actions"]).all()
    assert list(arrays["query_steps"]) == [q * execute for q in range(QUERIES)]
    if card_horizons is None:
        assert "imagined_latents" not in arrays
        return
    latents, real = arrays["imagined_latents"], arrays["real_latents"]
    assert latents.shape == real.shape == arrays["still_latents"].shape
    assert latents.shape[:2] == (QUERIES, len(card_horizons))
    assert np.isfinite(latents).all()
    assert np.isfinite(real).all()
    expected = [h <= execute for h in card_horizons]
    assert arrays["imagined_executed"].tolist() == [expected] * QUERIES


@pytest.mark.parametrize("name", every(variants=False))
def test_a_policy_runs_closed_loop(name: str, tmp_path: Path, scene_cache_dir: Path) -> None:
    card = registry.make_policy(registry.choose_policy(name)).card
    (episode,) = run(name, tmp_path / "run", scene_cache_dir)
    check(episode, card.imagines.horizons if card.imagines else None, card.execute)


@pytest.mark.slow
@pytest.mark.parametrize("name", every(variants=True))
def test_a_variant_is_the_same_over_workers_and_slots(
    name: str, tmp_path: Path, scene_cache_dir: Path
) -> None:
    alone = run(name, tmp_path / "1", scene_cache_dir, episodes=3)
    card = registry.make_policy(registry.choose_policy(name)).card
    check(alone[0], card.imagines.horizons if card.imagines else None, card.execute)
    beside = run(name, tmp_path / "2", scene_cache_dir, episodes=3, workers=2, slots=2)
    assert [arrays_equal(a, b) for a, b in zip(alone, beside, strict=True)] == [[], [], []]


@pytest.mark.slow
@pytest.mark.parametrize("variant", registry.world_model_family("flow_hwm").variants)
def test_a_world_model_foresees_beside_a_policy(
    variant: str, tmp_path: Path, scene_cache_dir: Path
) -> None:
    (episode,) = run("random", tmp_path / "run", scene_cache_dir, world=f"flow_hwm:{variant}")
    arrays = episode.arrays
    assert arrays["world_imagined_latents"].shape == arrays["world_real_latents"].shape
    assert np.isfinite(arrays["world_imagined_latents"]).all()
    assert arrays["world_imagined_executed"].any()


@pytest.mark.parametrize("name", every(variants=True))
@pytest.mark.parametrize("suite", ["tabletop_goal", "libero_10"])
def test_a_policy_fits_the_suites(name: str, suite: str, tmp_path: Path) -> None:
    policy = registry.make_policy(registry.choose_policy(name))
    for task in registry.suite(suite, SuiteOptions(cache_dir=tmp_path)).suite.tasks:
        check_fit(policy, task)
