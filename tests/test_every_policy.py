"""Every registered policy runs closed-loop, untrained where it must, and fits both suites.

``pytest tests/test_every_policy.py -k NAME`` checks one while it is being written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from short_runs import check, run

from envs.scene import SuiteOptions
from wamsim import registry
from wamsim.episode import arrays_equal
from wamsim.fitting import check_fit

pytestmark = pytest.mark.sim


def every(*, variants: bool) -> list[str]:
    out: list[str] = []
    for name in registry.policy_names():
        if name in ("replay", "practice"):  # a run or a learner must be named
            continue  # tests/test_scripted_policies.py, tests/test_practice.py
        known = registry.family(name).variants
        out += [f"{name}:{v}" for v in known] if variants and known else [name]
    return out


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
