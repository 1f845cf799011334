"""Every variant learns: 200 steps on one recorded tabletop batch halve every loss term.

``pytest -m slow tests/test_every_variant_learns.py -s`` prints the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learning_doubles import oracle_run

from envs.demonstrations import Viewpoint, prepare
from envs.evaluation import Resources
from policies.batch import Batch
from policies.training.sampling import Sampler
from policies.training.statistics import statistics_of
from wamsim import registry
from wamsim.demonstrations import open_set

pytestmark = [pytest.mark.sim, pytest.mark.slow]

STEPS, SAMPLES = 200, 8
LR = 2e-3
FAMILIES = ("fastwam", "cosmos", "smolvla_world", "spatialvla")
VARIANTS = [f"{f}:{v}" for f in FAMILIES for v in registry.family(f).variants]
VARIANTS += [f"flow_hwm:{v}" for v in registry.world_model_family("flow_hwm").variants]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, scene_cache_dir: Path) -> Path:
    """An oracle's run of two episodes."""
    out = tmp_path_factory.mktemp("learning") / "run"
    return oracle_run(out, scene_cache_dir, episodes=2)


def batch_for(model: Any, run: Path, scene_cache_dir: Path, cache: Path) -> Batch:
    spec = model.batch_spec
    view = Viewpoint(cameras=spec.cameras, size=spec.image_size, depth=spec.depth)
    resources = Resources(workers=1, cache_dir=scene_cache_dir)
    demonstrations = open_set(prepare(run, view, cache=cache, resources=resources))
    model.set_statistics(statistics_of(demonstrations, spec, model))
    # spread over both episodes, away from their ends, so that every future is there
    places = [np.arange(a + 5, b - 45) for a, b in zip(
        demonstrations.starts, demonstrations.starts[1:], strict=False
    )]  # fmt: skip
    rows = np.concatenate(places)
    numbers = rows[np.linspace(0, len(rows) - 1, SAMPLES).astype(int)]
    sampler = Sampler(demonstrations, spec, rows, batch=SAMPLES, seed=0)
    return sampler.make(numbers, np.arange(SAMPLES))


@pytest.mark.parametrize("name", VARIANTS)
def test_two_hundred_steps_halve_every_term(
    name: str, recorded: Path, scene_cache_dir: Path
) -> None:
    torch.manual_seed(0)
    _, learner = registry.make_learner(name)
    model: Any = learner.model  # type: ignore[attr-defined]
    batch = batch_for(model, recorded, scene_cache_dir, recorded.parent / "frames")
    model.train()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=LR, weight_decay=0.0
    )
    found: list[dict[str, float]] = []
    for _ in range(STEPS + 1):
        losses = model.loss(batch)
        found.append({k: float(v.detach()) for k, v in losses.items()})
        optimizer.zero_grad()
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    first, last = found[0], found[-1]
    table = ", ".join(f"{k} {first[k]:.3g} -> {last[k]:.3g}" for k in first)
    print(f"\n{name}: {table}")
    for term, start in first.items():
        assert last[term] < 0.5 * start or start == 0.0, f"{term}: {start} -> {last[term]}"
