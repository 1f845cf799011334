"""Which starts the oracle solves: the others are left out of evaluations.

RoboTwin keeps a seed when its expert solves it, and searches anew in every evaluation. Here
that was done once: `seeds.json` lists, for each task, the seeds below the last one needed
that the oracle did not solve. Trial i starts from the i-th of the remaining seeds.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

EVALUATED = 100  # trials whose starts were checked; those above are for demonstrations
TRAINING_FROM = 100_000  # their seeds are counted from here, and are not checked


@cache
def rejected(task: str, randomized: bool) -> frozenset[int]:
    """Seeds that the oracle does not solve."""
    path = Path(__file__).with_name("seeds.json")
    if not path.exists():
        return frozenset()
    table = json.loads(path.read_text())["rejected"]
    return frozenset(table.get("randomized" if randomized else "clean", {}).get(task, ()))


def seed(task: str, randomized: bool, index: int) -> int:
    """The seed of a trial."""
    if index >= EVALUATED:
        return TRAINING_FROM + index
    left_out = rejected(task, randomized)
    found = -1
    for _ in range(index + 1):
        found += 1
        while found in left_out:
            found += 1
    return found
