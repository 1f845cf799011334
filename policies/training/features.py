"""What frozen parts give for every sample, computed once.

A frozen video VAE would be run again on the same frames in every epoch; its latents are a
few kilobytes a sample. They are kept on disk beside the pictures, under the hash of the
frozen weights and the demonstrations.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.training.sampling import Sampler
from wamsim.whole_file import check_room, temporary_for

Progress = Callable[[int, int], None]


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


def cache_features(
    model: Any, sampler: Sampler, cache: Path, *, batch: int, progress: Progress | None = None
) -> FeatureCache | None:
    """Compute the features of a sampler's set, unless they are there.

    Args:
        model: With ``frozen_features``; without, or where that gives {}, there is nothing
            to cache.
        sampler: Of the whole set.
        cache: Folder for all features.
        batch: Samples at once.
        progress: Called with (done, all).

    Returns:
        The cache, or None.
    """
    if not hasattr(model, "frozen_features"):
        return None
    found = _features(model, sampler, np.arange(1))
    if not found:
        return None
    kinds = [(name, tuple(value.shape[1:])) for name, value in sorted(found.items())]
    folder = cache / _fingerprint(model, sampler, kinds)
    if folder.exists():
        return FeatureCache(folder)
    making = temporary_for(folder)
    making.mkdir(parents=True)
    try:
        _fill(making, model, sampler, batch, progress)
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return FeatureCache(folder)


def _features(model: Any, sampler: Sampler, numbers: NDArray[np.int64]) -> dict[str, Tensor]:
    one = sampler.make(numbers, np.zeros(len(numbers), np.int64))
    with torch.no_grad():
        return model.frozen_features(one)


def _fill(
    making: Path, model: Any, sampler: Sampler, batch: int, progress: Progress | None
) -> None:
    """Compute the arrays."""
    arrays: dict[str, NDArray[Any]] = {}
    total = len(sampler.set)
    for first in range(0, total, batch):
        numbers = np.arange(first, min(first + batch, total))
        found = _features(model, sampler, numbers)
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


def _fingerprint(model: nn.Module, sampler: Sampler, kinds: list[Any]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    buffers = {n for n, _ in model.named_buffers()}
    for name, value in model.state_dict().items():
        if name in frozen or name in buffers:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    spec = sampler.spec
    what = (spec.cameras, spec.image_size, spec.frame_offsets, spec.horizon, type(model).__name__)
    what = (*what, sampler.set.every, kinds)
    digest.update(repr((what, getattr(model.config, "images", None))).encode())
    for file in sampler.set.files:
        digest.update(json.dumps([str(file.path), file.info.to_json()]).encode())
    return digest.hexdigest()
