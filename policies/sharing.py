"""Keep once what checkpoints of one family have in common.

``python -m policies.sharing FOLDER...``, where each FOLDER holds a folder for every variant.
Variants were trained with one frozen tokenizer, which is up to half of their weights. What all
that have a tensor hold alike moves to ``shared.safetensors`` beside them, and the index of each
says which file holds what. Loading and hashes are as before. It can be run again when a
checkpoint was replaced.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from policies.checkpoint import CONFIG, INDEX, WEIGHTS, read_tensors
from wamsim.whole_file import write_whole

SHARED = "shared.safetensors"


def share(family: Path) -> int:
    """Move what variants have in common out of their folders.

    Args:
        family: Holds checkpoints' folders; other things in it stay as they are.

    Returns:
        Bytes of weights that are on disk afterwards.

    Raises:
        CheckpointMismatch: A checkpoint cannot be read.
    """
    folders = sorted(path.parent for path in family.glob(f"*/{CONFIG}"))
    held = {folder: read_tensors(folder) for folder in folders}
    common: dict[str, Tensor] = {}
    for key in sorted({key for tensors in held.values() for key in tensors}):
        first, *others = (tensors[key] for tensors in held.values() if key in tensors)
        if others and all(_same(first, other) for other in others):
            common[key] = first
    place = family / SHARED
    if common:
        write_whole(place, safetensors.torch.save(common))  # before a folder does without
    for folder, tensors in held.items():
        _write(folder, tensors, outside={key for key in tensors if key in common})
    if not common:
        place.unlink(missing_ok=True)
    return sum(path.stat().st_size for path in family.rglob("*.safetensors"))


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def _write(folder: Path, tensors: dict[str, Tensor], *, outside: set[str]) -> None:
    own = {key: x for key, x in tensors.items() if key not in outside}
    write_whole(folder / WEIGHTS, safetensors.torch.save(own))
    if not outside:
        (folder / INDEX).unlink(missing_ok=True)
        return
    placed = {key: f"../{SHARED}" if key in outside else WEIGHTS for key in sorted(tensors)}
    size = sum(x.numel() * x.element_size() for x in tensors.values())
    document = {"metadata": {"total_size": size}, "weight_map": placed}
    write_whole(folder / INDEX, (json.dumps(document, indent=2) + "\n").encode())


if __name__ == "__main__":
    for given in sys.argv[1:]:
        print(f"{given}: {share(Path(given)) / 1e6:.1f} MB of weights")
