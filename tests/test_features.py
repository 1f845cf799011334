"""What frozen parts give is computed once, whatever else is learnt from beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from learning_doubles import write_set
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.training.features import FeatureCache, Source, cache_features
from policies.training.sampling import Sampler
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE
from wamsim.demonstrations import open_set

SPEC = BatchSpec(
    cameras=("agentview",),
    image_size=(16, 16),
    frame_offsets=(0, 1),
    horizon=4,
    action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    proprio=None,
)


def run(folder: Path, episodes: int) -> Path:
    """Demonstrations of one task of a run."""
    return write_set(folder, episodes, steps=5, size=16)


def samples(folders: Sequence[Path]) -> Sampler:
    found = open_set(folders)
    return Sampler(found, SPEC, np.arange(len(found)), batch=4, seed=0)


class Frozen:
    """Gives which sample it is; counts them."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        self.seen += batch.size
        return {"which": torch.stack((batch.episode, batch.step), 1)}


def cached(sampler: Sampler, cache: Path, frozen: Frozen, said: list[tuple[int, int]]) -> Tensor:
    """The features of all samples, in the order 2, 1, 0, 3, 4 ... as a batch would ask."""
    found = cache_features(
        nn.Linear(1, 1), frozen, Source.of_set(sampler), cache, batch=4,
        progress=lambda done, total: said.append((done, total)),
    )  # fmt: skip
    assert isinstance(found, FeatureCache)
    order = np.arange(len(sampler.set))
    order[:3] = 2, 1, 0
    rows = found.of(order)["which"]
    assert torch.equal(rows[:3], torch.tensor([[0.0, 2.0], [0.0, 1.0], [0.0, 0.0]]))
    return rows


def test_a_run_that_is_added_costs_no_others(tmp_path: Path) -> None:
    one, two = run(tmp_path / "one", 3), run(tmp_path / "two", 2)
    cache, said = tmp_path / "cache", list[tuple[int, int]]()
    frozen = Frozen()
    cached(samples([one]), cache, frozen, said)
    assert frozen.seen == 15 + 1  # one more tells whether there are any
    assert said[-1] == (15, 15)
    frozen, said = Frozen(), []
    rows = cached(samples([one, two]), cache, frozen, said)
    assert frozen.seen == 10 + 1
    assert said == [(19, 25), (23, 25), (25, 25)]
    # every sample of the second run has its own: episodes 3 and 4 of the set, steps 0 to 4
    expected = [[3.0, float(s)] for s in range(5)] + [[4.0, float(s)] for s in range(5)]
    assert rows[15:].tolist() == expected


def test_a_batch_of_samples_of_several_runs(tmp_path: Path) -> None:
    both = samples([run(tmp_path / "one", 1), run(tmp_path / "two", 1)])
    found = cache_features(nn.Linear(1, 1), Frozen(), Source.of_set(both), tmp_path, batch=3)
    assert found is not None
    assert found.of([9, 0, 5, 4])["which"].tolist() == [[1, 4], [0, 0], [1, 0], [0, 4]]


def test_what_was_stopped_is_computed_again(tmp_path: Path) -> None:
    both = samples([run(tmp_path / "one", 2), run(tmp_path / "two", 1)])
    cache = tmp_path / "cache"

    def stop(done: int, total: int) -> None:
        if done > 10:  # within the second run
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_features(
            nn.Linear(1, 1), Frozen(), Source.of_set(both), cache, batch=4, progress=stop
        )
    assert len(list(cache.iterdir())) == 1  # the first run's; nothing half done
    frozen = Frozen()
    cached(both, cache, frozen, [])
    assert frozen.seen == 5 + 1
