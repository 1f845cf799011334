"""What frozen parts give for every sample, computed once.

A frozen video VAE would be run again on the same frames in every epoch; its latents are a
few kilobytes a sample. They are kept on disk beside the pictures, under the hash of the
frozen weights and the demonstrations.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
        folder: Where.
    """

    def __init__(self, folder: Path) -> None:
        self._arrays: dict[str, NDArray[Any]] = {
            path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))
        }

    def of(self, numbers: Sequence[int] | NDArray[np.int64]) -> dict[str, Tensor]:
        """Give samples' features, name -> [B, ...]."""
        return {n: torch.from_numpy(np.asarray(a[numbers])) for n, a in self._arrays.items()}


@dataclass(frozen=True, kw_only=True)
class Source:
    """What features are computed of.

    Attributes:
        make: Sample numbers -> their batch.
        count: Samples.
        identity: Texts that tell these samples from all others.
    """

    make: Callable[[NDArray[np.int64]], Batch]
    count: int
    identity: Sequence[str]

    @classmethod
    def of_set(cls, sampler: Sampler) -> Source:
        """All samples of a sampler's set."""
        spec = sampler.spec
        what = (spec.cameras, spec.image_size, spec.frame_offsets, spec.horizon, sampler.set.every)
        files = (json.dumps([str(f.path), f.info.to_json()]) for f in sampler.set.files)
        return cls(
            make=lambda numbers: sampler.make(numbers, np.zeros(len(numbers), np.int64)),
            count=len(sampler.set),
            identity=(repr(what), *files),
        )


def cache_features(
    model: nn.Module,
    frozen: Frozen | None,
    source: Source,
    cache: Path,
    *,
    batch: int,
    progress: Progress | None = None,
) -> FeatureCache | None:
    """Compute the features of all samples, unless they are there.

    Args:
        model: Whose frozen weights decide them.
        frozen: batch -> features; where it is None or gives {}, there is nothing to cache.
        source: The samples.
        cache: Folder for all features.
        batch: Samples at once.
        progress: Called with (done, all).

    Returns:
        The cache, or None.
    """
    if frozen is None:
        return None
    made = partial(_features, frozen, source)
    found = made(np.arange(1))
    if not found:
        return None
    kinds = [(name, tuple(value.shape[1:])) for name, value in sorted(found.items())]
    folder = cache / _fingerprint(model, source, kinds)
    if folder.exists():
        return FeatureCache(folder)
    making = temporary_for(folder)
    making.mkdir(parents=True)
    try:
        _fill(making, made, source.count, batch, progress)
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return FeatureCache(folder)


def _features(frozen: Frozen, source: Source, numbers: NDArray[np.int64]) -> Mapping[str, Tensor]:
    with torch.no_grad():
        return frozen(source.make(numbers))


def _fill(
    making: Path,
    made: Callable[[NDArray[np.int64]], Mapping[str, Tensor]],
    total: int,
    batch: int,
    progress: Progress | None,
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
        if progress:
            progress(int(numbers[-1]) + 1, total)
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
