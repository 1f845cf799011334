"""The nearest real frame to an imagined latent, for models that cannot draw.

Candidates are the real latents of the run's episodes of the same task at the same horizon,
where they were executed as imagined: those frames can be drawn from recorded states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from wamsim.contracts import Outcome
from wamsim.episode import Record
from wamsim.reality import IMAGINATION_NOTE
from wamsim.viewer.shelf import EpisodeFile, Seen

# Latents that are compared at once; of a larger task's episodes some are left out, evenly.
_BANK_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Found:
    """The frame that is shown for an imagined latent.

    Attributes:
        path: Its episode file.
        trial: Its trial number.
        step: Its env step.
        distance: Euclidean distance of the latents, by the norm of the imagined one.
    """

    path: Path
    trial: int
    step: int
    distance: float


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """What was found for one episode.

    Attributes:
        found: [Q][K], None where there is no candidate or the step is past the episode.
        candidates: Real latents per horizon that were compared.
        episodes: Episodes that they come from.
    """

    found: tuple[tuple[Found | None, ...], ...]
    candidates: int
    episodes: int


def retrieve(seen: Seen, prefix: str, horizons: Sequence[int]) -> Retrieval:
    """Search the frames of a task for what an episode's imagination looks like.

    Args:
        seen: The episode.
        prefix: Of the imaginer's arrays.
        horizons: K env steps ahead.
    """
    latents, executed, _ = _read(seen.file, prefix, "imagined_latents")
    queries = len(executed)
    bank = _bank(seen, prefix, latents.nbytes)
    found: list[list[Found | None]] = [[None] * len(horizons) for _ in range(queries)]
    count = 0
    for k, ahead in enumerate(horizons):
        owners: list[tuple[EpisodeFile, int]] = []
        rows: list[NDArray[np.float32]] = []
        for other, real, done, at in bank:
            for q in np.flatnonzero(done[:, k]):
                owners.append((other, int(at[q]) + ahead))
            rows.append(_flat(real[done[:, k], k]))
        if not owners:
            continue
        candidates = np.concatenate(rows)
        count = max(count, len(candidates))
        wanted = _flat(latents[:, k])
        for q, (best, distance) in enumerate(_nearest(wanted, candidates)):
            owner, step = owners[best]
            if owner.record is not None and np.isfinite(distance):
                found[q][k] = Found(
                    path=owner.path,
                    trial=owner.record.key.index,
                    step=min(step, owner.record.steps),
                    distance=distance,
                )
    return Retrieval(found=tuple(tuple(row) for row in found), candidates=count, episodes=len(bank))


Block = tuple[EpisodeFile, NDArray[Any], NDArray[np.bool_], NDArray[Any]]


def _bank(seen: Seen, prefix: str, nbytes: int) -> list[Block]:
    task = (seen.record.key.suite, seen.record.key.task)
    same = [
        file
        for key, file in seen.run.paths.items()
        if (key.suite, key.task) == task and _imagined(seen.run.records[key], prefix)
    ]
    room = max(1, _BANK_BYTES // max(1, 2 * nbytes))  # float16 on disk, float32 here
    chosen = _spread(same, room)
    if seen.file not in chosen:
        chosen = [seen.file, *chosen[1:]]
    out: list[Block] = []
    for other in chosen:
        latents, executed, steps = _read(other, prefix, "real_latents")
        if executed.any():
            out.append((other, latents, executed, steps))
    return out


def _imagined(record: Record, prefix: str) -> bool:
    notes = record.notes.get(IMAGINATION_NOTE, {})
    return record.outcome is not Outcome.ERROR and prefix in notes


def _spread(files: Sequence[EpisodeFile], room: int) -> list[EpisodeFile]:
    if len(files) <= room:
        return list(files)
    return [files[i] for i in np.unique(np.linspace(0, len(files) - 1, room).astype(int))]


def _read(
    file: EpisodeFile, prefix: str, name: str
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[Any]]:
    safe_open: Any = safetensors.safe_open  # its stub leaves the context manager untyped
    with safe_open(file.path, framework="np") as opened:
        names = set(opened.keys())
        if prefix + name not in names:
            return np.zeros((0, 0)), np.zeros((0, 0), bool), np.zeros(0)
        return (
            opened.get_tensor(prefix + name),
            opened.get_tensor(prefix + "imagined_executed"),
            opened.get_tensor(prefix + "imagined_steps"),
        )


def _flat(latents: NDArray[Any]) -> NDArray[np.float32]:
    return latents.reshape(len(latents), -1).astype(np.float32)


def _nearest(
    wanted: NDArray[np.float32], candidates: NDArray[np.float32]
) -> list[tuple[int, float]]:
    """Give for each row [n, D] the index of the nearest candidate [m, D] and how far it is."""
    norms = np.einsum("nd,nd->n", wanted, wanted)
    squared = norms[:, None] - 2 * wanted @ candidates.T
    squared += np.einsum("md,md->m", candidates, candidates)[None]
    best = squared.argmin(1)
    apart = wanted - candidates[best]  # exactly: the square above cancels
    distance = np.sqrt(np.einsum("nd,nd->n", apart, apart) / np.maximum(norms, 1e-30))
    return [(int(i), float(d)) for i, d in zip(best, distance, strict=True)]
