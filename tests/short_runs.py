"""Short closed loops of any policy: the real pool and rollout, a few queries long."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from envs.pool import Pool
from envs.scene import SuiteOptions
from wamsim import registry
from wamsim.contracts import EpisodeKey, Task
from wamsim.episode import Episode, read_episode
from wamsim.rollout import Rollout, RolloutOptions, look_plan
from wamsim.run_folder import RunFolder

QUERIES = 2
SUITE = "tabletop_object"


class ShortPool(Pool):
    """A pool whose episodes end after a few queries."""

    max_steps = 8

    def task(self, suite: str, name: str) -> Task:
        return dataclasses.replace(super().task(suite, name), max_steps=self.max_steps)


def run(
    name: str,
    out: Path,
    cache: Path,
    *,
    suite: str = SUITE,
    task: str | None = None,
    options: Mapping[str, str] | None = None,
    world: str | None = None,
    world_options: Mapping[str, str] | None = None,
    workers: int = 1,
    slots: int = 1,
    episodes: int = 1,
) -> list[Episode]:
    """Run the first trials of a suite's task (its first, unless named)."""
    policy = registry.make_policy(registry.choose_policy(name, options))
    model = None
    if world is not None:
        model = registry.make_world_model(registry.choose_world_model(world, world_options))
    loop = RolloutOptions(batch=2, imagine=True)
    with ShortPool(
        (suite,),
        SuiteOptions(cache_dir=cache),
        views=look_plan(policy.card, loop, model).views,
        workers=workers,
        slots=slots,
    ) as pool:
        pool.max_steps = QUERIES * policy.card.execute
        task = task or pool.backend(suite).suite.tasks[0].name
        keys = [EpisodeKey(suite, task, i) for i in range(episodes)]
        with RunFolder.open(out, {"policy": name}, {}, planned=keys) as folder:
            Rollout(policy, pool, folder, loop, world_model=model).run(keys, {suite: 1})
            return [read_episode(path) for path in folder.finished().episodes.values()]


def check(episode: Episode, card_horizons: tuple[int, ...] | None, execute: int) -> None:
    """Check queries, and imagination where there is any, against the policy's card."""
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
