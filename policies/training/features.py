"""What frozen parts give for every sample, computed once.

A frozen video VAE would be run again on the same frames in every epoch; its latents are a
few kilobytes a sample. They are kept on disk beside the pictures, folder by folder (a run's
task), under the hash of the frozen weights and the demonstrations: what is added to a set
costs nothing of what was there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.batch import Batch
from policies.training.sampling import Sampler
from wamsim.whole_file import check_room, temporary_for

Progress = Callable[[int, int], None]
Frozen = Callable[[Batch], Mapping[str, Tensor]]


class FeatureCache:
    """Frozen features of all samples of a set, as memory-mapped arrays.

    Args:
        folders: Where, one for each source, in the order of their samples.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._arrays: list[dict[str, NDArray[Any]]] = [
            {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
            for folder in folders
        ]
        counts = [len(next(iter(arrays.values()))) for arrays in self._arrays]
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def of(self, numbers: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """Give samples' features, name -> [B, ...]."""
        wanted = np.asarray(numbers, np.int64)
        owner = np.searchsorted(self._starts, wanted, side="right") - 1
        out: dict[str, Tensor] = {}
        for name, first in self._arrays[0].items():
            rows = np.empty((len(wanted), *first.shape[1:]), first.dtype)
            for number in np.unique(owner):
                mine = owner == number
                rows[mine] = self._arrays[number][name][wanted[mine] - self._starts[number]]
            out[name] = torch.from_numpy(rows)
        return out


@dataclass(frozen=True, kw_only=True)
class Source:
    """What features are computed of.

    Attributes:
        make: Sample numbers, from 0 in every source -> their batch.
        count: Samples.
        identity: Texts that tell these samples from all others.
    """

    make: Callable[[NDArray[np.int64]], Batch]
    count: int
    identity: Sequence[str]

    @classmethod
    def of_set(cls, sampler: Sampler) -> list[Source]:
        """All samples of a sampler's set, parted by the folders that they lie in."""
        spec = sampler.spec
        what = (spec.cameras, spec.image_size, spec.frame_offsets, spec.horizon, sampler.set.every)
        sources: list[Source] = []
        at = 0
        for _, together in groupby(sampler.set.files, key=lambda file: file.path.parent):
            files = list(together)
            first, stop = (int(sampler.set.starts[i]) for i in (at, at + len(files)))
            at += len(files)
            sources.append(
                cls(
                    make=partial(_made, sampler, first),
                    count=stop - first,
                    identity=(
                        repr(what),
                        *(json.dumps([str(f.path), f.info.to_json()]) for f in files),
                    ),
                )
            )
        return sources


def _made(sampler: Sampler, first: int, numbers: NDArray[np.int64]) -> Batch:
    return sampler.make(numbers + first, np.zeros(len(numbers), np.int64))


def cache_features(
    model: nn.Module,
    frozen: Frozen | None,
    sources: Sequence[Source],
    cache: Path,
    *,
    batch: int,
    progress: Progress | None = None,
) -> FeatureCache | None:
    """Compute the features of all samples, unless they are there.

    Args:
        model: Whose frozen weights decide them.
        frozen: batch -> features; where it is None or gives {}, there is nothing to cache.
        sources: The samples.
        cache: Folder for all features.
        batch: Samples at once.
        progress: Called with (done, all).

    Returns:
        The cache, or None.
    """
    if frozen is None:
        return None
    found = _features(frozen, sources[0], np.arange(1))
    if not found:
        return None
    kinds = [(name, tuple(value.shape[1:])) for name, value in sorted(found.items())]
    folders = [cache / _fingerprint(model, source, kinds) for source in sources]
    total = sum(source.count for source in sources)
    before = 0
    for source, folder in zip(sources, folders, strict=True):
        if not folder.exists():
            making = temporary_for(folder)
            making.mkdir(parents=True)
            try:
                so_far = partial(_also, progress, before, total)
                _fill(making, partial(_features, frozen, source), source.count, batch, so_far)
                making.rename(folder)
            finally:
                shutil.rmtree(making, ignore_errors=True)
        before += source.count
    return FeatureCache(folders)


def _also(progress: Progress | None, before: int, total: int, done: int) -> None:
    if progress:
        progress(before + done, total)


def _features(frozen: Frozen, source: Source, numbers: NDArray[np.int64]) -> Mapping[str, Tensor]:
    with torch.no_grad():
        return frozen(source.make(numbers))


def _fill(
    making: Path,
    made: Callable[[NDArray[np.int64]], Mapping[str, Tensor]],
    total: int,
    batch: int,
    progress: Callable[[int], None],
) -> None:
    """Compute the arrays."""
    arrays: dict[str, NDArray[Any]] = {}
    for first in range(0, total, batch):
        numbers = np.arange(first, min(first + batch, total))
        found = made(numbers)
        rows = {name: value.float().cpu().numpy() for name, value in found.items()}
        if not arrays:
            check_room(making, sum(r.nbytes for r in rows.values()) // len(numbers) * total)
            for name, row in rows.items():
                arrays[name] = np.lib.format.open_memmap(
                    making / f"{name}.npy",
                    mode="w+",
                    dtype=np.float32,
                    shape=(total, *row.shape[1:]),
                )
        for name, row in rows.items():
            arrays[name][numbers] = row
        progress(int(numbers[-1]) + 1)
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]


def _fingerprint(model: nn.Module, source: Source, kinds: list[Any]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    buffers = {n for n, _ in model.named_buffers()}
    for name, value in model.state_dict().items():
        if name in frozen or name in buffers:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    config = getattr(model, "config", None)
    digest.update(repr((type(model).__name__, kinds, getattr(config, "images", None))).encode())
    for text in source.identity:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()
