"""What checkpoints of a family have in common lies once, and loads as before."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from policies.checkpoint import CONFIG, INDEX, WEIGHTS, CheckpointMismatch, read_tensors
from policies.sharing import SHARED, share

TOKENIZER = torch.arange(6.0).half()


def written(folder: Path, **tensors: Tensor) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text("{}")
    safetensors.torch.save_file(tensors, folder / WEIGHTS)
    return folder


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """Three variants: two have a tokenizer alike, the third has none."""
    written(tmp_path / "one", tokenizer=TOKENIZER, expert=torch.ones(2), head=torch.ones(1))
    written(tmp_path / "two", tokenizer=TOKENIZER, expert=torch.zeros(2), head=torch.ones(1))
    written(tmp_path / "three", expert=torch.ones(2))
    return tmp_path


def test_only_what_all_hold_alike_is_moved(family: Path) -> None:
    before = {v: read_tensors(family / v) for v in ("one", "two", "three")}
    share(family)
    assert set(safetensors.torch.load_file(family / SHARED)) == {"tokenizer", "head"}
    assert set(safetensors.torch.load_file(family / "one" / WEIGHTS)) == {"expert"}
    assert not (family / "three" / INDEX).exists()  # has nothing of the shared
    for variant, tensors in before.items():
        after = read_tensors(family / variant)
        assert set(after) == set(tensors)
        assert all(torch.equal(after[key], x) for key, x in tensors.items())


def test_sharing_twice_changes_nothing(family: Path) -> None:
    share(family)
    before = {p: p.read_bytes() for p in family.rglob("*") if p.is_file()}
    share(family)
    assert {p: p.read_bytes() for p in family.rglob("*") if p.is_file()} == before


def test_a_variant_that_was_trained_anew_keeps_what_it_brings(family: Path) -> None:
    share(family)
    (family / "two" / INDEX).unlink()
    written(family / "two", tokenizer=TOKENIZER + 1, expert=torch.zeros(2), head=torch.ones(1))
    share(family)
    assert torch.equal(read_tensors(family / "one")["tokenizer"], TOKENIZER)
    assert torch.equal(read_tensors(family / "two")["tokenizer"], TOKENIZER + 1)
    assert set(safetensors.torch.load_file(family / SHARED)) == {"head"}


def test_a_folder_that_was_copied_alone_says_what_is_missing(family: Path, tmp_path: Path) -> None:
    share(family)
    alone = tmp_path / "elsewhere" / "one"
    shutil.copytree(family / "one", alone)
    with pytest.raises(CheckpointMismatch, match=rf"{SHARED}.*is not there"):
        read_tensors(alone)
    safetensors.torch.save_file({"other": torch.ones(1)}, alone.parent / SHARED)
    with pytest.raises(CheckpointMismatch, match="do not hold: head, tokenizer"):
        read_tensors(alone)
    (alone / INDEX).write_text("{}")
    with pytest.raises(CheckpointMismatch, match="index cannot be read"):
        read_tensors(alone)
