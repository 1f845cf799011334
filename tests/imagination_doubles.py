"""Runs whose imagination is known: perfect, frozen, shuffled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from episode_doubles import PROVENANCE, folder_record

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.episode import Episode
from wamsim.imagination.episodes import read_imagination
from wamsim.imagination.summary import HorizonSummary, summarise
from wamsim.run_folder import RunFolder

HORIZONS = (2, 4)
EXECUTE = 4
OUTCOMES = {"+": Outcome.SUCCESS, "-": Outcome.FAILURE, "e": Outcome.ERROR}

Imaginer = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def perfect(real: np.ndarray, still: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return real


def frozen(real: np.ndarray, still: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return still


def shuffled(real: np.ndarray, still: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return real[rng.permutation(len(real))]


def walk(rng: np.random.Generator) -> np.ndarray:
    """Latents of 41 env steps: a random walk."""
    return rng.normal(0, 1, (41, 8)).cumsum(0)


def blocks(
    imaginer: Imaginer,
    latents: np.ndarray,
    rng: np.random.Generator,
    horizons: tuple[int, ...] = HORIZONS,
    execute: int = EXECUTE,
) -> dict[str, np.ndarray]:
    """Record an episode's imagination as `wamsim.reality` does; ``latents`` [S + 1, D]."""
    end = len(latents) - 1
    steps = np.arange(0, end, execute)
    ahead = steps[:, None] + np.array(horizons)
    now = np.minimum(steps + execute, end)[:, None]  # where the query's chunk ended
    real = latents[np.minimum(ahead, now)].astype(np.float16)
    still = np.repeat(latents[steps][:, None], len(horizons), 1).astype(np.float16)
    return {
        "imagined_steps": steps.astype(np.int32),
        "imagined_executed": ahead <= now,
        "imagined_latents": imaginer(real, still, rng).astype(np.float16),
        "real_latents": real,
        "still_latents": still,
    }


def write_run(
    path: Path,
    imaginer: Imaginer = perfect,
    *,
    episodes: int = 8,
    outcomes: str = "",
    latents: Callable[[np.random.Generator], np.ndarray] = walk,
    horizons: tuple[int, ...] = HORIZONS,
    execute: int = EXECUTE,
    task: str = "t",
    first: int = 0,
    seed: int = 0,
    described: bool = True,
    prefix: str = "",
    extra: Callable[[int, dict[str, np.ndarray]], dict[str, np.ndarray]] = lambda i, block: {},
) -> Path:
    """Write a run, or add episodes to it.

    Args:
        outcomes: One letter an episode (+ - e); all successes when empty.
        extra: (episode, its arrays without prefix) -> further arrays.
    """
    note = {"imaginer": "world" if prefix else "net", "horizons": horizons, "execute": execute}
    with RunFolder.open(path, {"policy": "net", "seed": 0}, PROVENANCE) as folder:
        for i in range(first, first + episodes):
            rng = np.random.default_rng([seed, i])
            block = blocks(imaginer, latents(rng), rng, horizons, execute)
            arrays = {prefix + name: array for name, array in block.items()}
            outcome = OUTCOMES[outcomes[i - first]] if outcomes else Outcome.SUCCESS
            fields = {"success_step": None} if outcome is Outcome.FAILURE else {}
            record = folder_record(
                folder,
                EpisodeKey("s", task, i),
                outcome=outcome,
                policy="net",
                run_seed=0,
                timings={},
                notes={"imagination": {prefix: note}} if described else {},
                **fields,
            )
            folder.write(Episode(record, {**arrays, **extra(i, block)}))
    return path


def of_run(path: Path) -> tuple[HorizonSummary, ...]:
    """Summarise the one imaginer of a run over all episodes: horizons, then together."""
    (imaginer,) = read_imagination(path).imaginers
    (group,) = summarise(imaginer)
    return group.horizons
