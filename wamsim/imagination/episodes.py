"""Read a run's imagination: one pass over its files, sums per episode and horizon kept.

An episode file holds a block of arrays for the policy's own imagination and, under the
prefix ``world_``, one for a world model beside it; `Record.notes` says what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
from numpy.typing import NDArray

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.episode import Record
from wamsim.errors import RecordCorrupt
from wamsim.imagination.latents import NotFinite, score_latents
from wamsim.imagination.resampling import Array
from wamsim.imagination.scores import QueryScores
from wamsim.reality import IMAGINATION_NOTE
from wamsim.run_folder import episode_files, read_placed

_LATENTS = ("imagined_latents", "real_latents", "still_latents", "other_latents")
_PICTURES = ("imagined_mse", "imagined_ssim", "ceiling_mse", "ceiling_ssim")


@dataclass(frozen=True, kw_only=True)
class EpisodeSums:
    """What is kept of an episode.

    Attributes:
        key: The episode.
        failed: Whether it failed.
        sums: See `QueryScores.sums`.
        compared: int [K], queries compared.
        left_out: Reason -> int [K].
    """

    key: EpisodeKey
    failed: bool
    sums: Array
    compared: NDArray[np.int64]
    left_out: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class ImaginerRecord:
    """One imaginer over a run.

    Attributes:
        imaginer: Its name.
        world: True for a world model beside the policy.
        horizons: K env steps ahead.
        execute: Actions run per query.
        episodes: Scored episodes in which it imagined, sorted by key.
        unpictured: Episodes whose imagined pictures could not be compared, because they are
            of another size than real frames (see `wamsim.reality`).
    """

    imaginer: str
    world: bool
    horizons: tuple[int, ...]
    execute: int
    episodes: tuple[EpisodeSums, ...]
    unpictured: int


@dataclass(frozen=True, kw_only=True)
class EpisodeValues:
    """An episode's predicted values.

    Attributes:
        key: The episode.
        failed: Whether it failed.
        values: float32 [Q], the policy's estimate of success at each query.
    """

    key: EpisodeKey
    failed: bool
    values: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RunImagination:
    """What a run foresaw.

    Attributes:
        path: The run folder.
        policy: Name; None without an episode.
        imaginers: The policy's own first, then a world model's.
        values: Scored episodes with predicted values.
        errors: Episodes that ended in an error; they are in nothing here.
        undescribed: Episodes whose imagination an older wamsim wrote without saying what
            its horizons are; in nothing here.
    """

    path: Path
    policy: str | None
    imaginers: tuple[ImaginerRecord, ...]
    values: tuple[EpisodeValues, ...]
    errors: int
    undescribed: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One episode file, measured; small enough to keep for every episode of a run.

    Attributes:
        path: The file.
        policy: Name.
        error: True when the episode ended in an error; then nothing is measured.
        blocks: Prefix -> (imaginer, horizons, execute, unpictured) and the episode's sums.
        values: Predicted values, where there are any.
        described: False when an older wamsim did not say what the horizons are.
    """

    path: Path
    policy: str
    error: bool = False
    blocks: Mapping[str, tuple[tuple[str, tuple[int, ...], int, bool], EpisodeSums]]
    values: EpisodeValues | None = None
    described: bool = True


def measure_episode(path: Path, record: Record) -> Measured:
    """Measure one episode.

    Args:
        path: Its file.
        record: What `read_placed` gave for it.

    Raises:
        RecordCorrupt, NotFinite: As `read_imagination`.
    """
    if record.outcome is Outcome.ERROR:
        return Measured(path=path, policy=record.policy, error=True, blocks={})
    blocks, value, described = _measure(path, record)
    return Measured(
        path=path,
        policy=record.policy,
        blocks={
            prefix: (
                (scores.imaginer, scores.horizons, scores.execute, scores.unpictured),
                EpisodeSums(
                    key=scores.key,
                    failed=scores.failed,
                    sums=scores.sums(),
                    compared=scores.compared.sum(0),
                    left_out=scores.left_out(),
                ),
            )
            for prefix, scores in blocks.items()
        },
        values=None
        if value is None
        else EpisodeValues(key=record.key, failed=_failed(record), values=value),
        described=described,
    )


def read_imagination(folder: Path) -> RunImagination:
    """Measure every scored episode of a run.

    Raises:
        RecordCorrupt: A file cannot be read, or the horizons of the episodes differ.
        NotFinite: A recorded latent or value is not finite; the message names the file.
    """
    files = episode_files(folder)
    return gather(folder, (measure_episode(path, read_placed(folder, path)) for path in files))


def gather(folder: Path, episodes: Iterable[Measured]) -> RunImagination:
    """Put measured episodes of one run together, sorted by key as they come.

    Raises:
        RecordCorrupt: Their horizons differ.
    """
    found: dict[str, tuple[str, tuple[int, ...], int, bool]] = {}
    unpictured: dict[str, int] = {}
    kept: dict[str, list[EpisodeSums]] = {}
    values: list[EpisodeValues] = []
    policy: str | None = None
    errors = undescribed = 0
    for one in episodes:
        policy = one.policy
        errors += one.error
        undescribed += not one.described
        for prefix, (about, sums) in one.blocks.items():
            first = found.setdefault(prefix, about)
            if about[:2] != first[:2]:
                raise RecordCorrupt(
                    f"episodes of one run differ in imagination: {first[0]} at "
                    f"{first[1]} and {about[0]} at {about[1]}. Keep each in "
                    f"a run folder of its own. File: {one.path}"
                )
            unpictured[prefix] = unpictured.get(prefix, 0) + about[3]
            kept.setdefault(prefix, []).append(sums)
        if one.values is not None:
            values.append(one.values)
    return RunImagination(
        path=folder,
        policy=policy,
        imaginers=tuple(
            ImaginerRecord(
                imaginer=imaginer,
                world=bool(prefix),
                horizons=horizons,
                execute=execute,
                episodes=tuple(kept[prefix]),
                unpictured=unpictured[prefix],
            )
            for prefix, (imaginer, horizons, execute, _) in sorted(found.items())
        ),
        values=tuple(values),
        errors=errors,
        undescribed=undescribed,
    )


def query_scores(folder: Path, path: Path) -> dict[str, QueryScores]:
    """Measure one episode query by query, by prefix ("" for the policy's own).

    Raises:
        RecordCorrupt, NotFinite: As `read_imagination`.
    """
    return _measure(path, read_placed(folder, path))[0]


def _failed(record: Record) -> bool:
    return record.outcome is Outcome.FAILURE


def _measure(
    path: Path, record: Record
) -> tuple[dict[str, QueryScores], NDArray[np.float32] | None, bool]:
    """Scores by prefix, predicted values, and whether all imagination is described."""
    notes = cast(Mapping[str, Mapping[str, Any]], record.notes.get(IMAGINATION_NOTE, {}))
    try:
        safe_open: Any = safetensors.safe_open  # its stub leaves the context manager untyped
        with safe_open(path, framework="np") as file:
            names = set(cast(list[str], file.keys()))
            blocks = {prefix: _block(file, names, prefix) for prefix in notes}
            drawn = {prefix for prefix in notes if prefix + "imagined_frames" in names}
            value = file.get_tensor("value") if "value" in names else None
    except (safetensors.SafetensorError, OSError) as error:
        raise RecordCorrupt(f"the table of arrays is altered: {error}. File: {path}") from error
    described = bool(notes) or "imagined_latents" not in names
    try:
        if value is not None and not np.isfinite(value).all():
            raise NotFinite("predicted values are not finite; mend the policy and run again")
        scores = {
            p: _scores(record, notes[p], block, p in drawn) for p, block in blocks.items() if block
        }
    except NotFinite as error:
        raise NotFinite(f"{error}. File: {path}") from error
    return scores, value if value is not None and len(value) else None, described


def _block(file: Any, names: set[str], prefix: str) -> dict[str, NDArray[Any]]:
    executed = prefix + "imagined_executed"
    if executed not in names:
        return {}
    out = {n: file.get_tensor(prefix + n) for n in ("imagined_executed", "imagined_steps")}
    compared = out["imagined_executed"].any()
    for name in (*_LATENTS, *_PICTURES):
        if compared and prefix + name in names:  # latents of nothing compared stay on disk
            out[name] = file.get_tensor(prefix + name)
    return out


def _scores(
    record: Record, note: Mapping[str, Any], block: Mapping[str, NDArray[Any]], drawn: bool
) -> QueryScores:
    compared, steps = block["imagined_executed"], block["imagined_steps"]
    cells: dict[str, Array] = {}
    if "imagined_latents" in block:
        latents = {name: block[name] for name in _LATENTS if name in block}
        cells = score_latents(latents, compared, steps)
        cells |= {n: block[n].astype(np.float64) for n in _PICTURES if n in block}
    return QueryScores(
        key=record.key,
        failed=_failed(record),
        imaginer=str(note["imaginer"]),
        horizons=tuple(int(h) for h in note["horizons"]),
        execute=int(note["execute"]),
        steps=steps,
        compared=compared,
        cells=cells,
        unpictured=drawn and bool(compared.any()) and "imagined_mse" not in block,
    )
