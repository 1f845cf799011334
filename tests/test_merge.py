"""Runs of one configuration merge by copying files; disagreement is named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from episode_doubles import (
    CONFIG,
    PROVENANCE,
    key,
    open_,
    put,
    shard,
)

from wamsim.contracts import Outcome
from wamsim.episode import episode_path, read_episode
from wamsim.errors import (
    ConfigurationMismatch,
    RecordCorrupt,
    RunFolderBusy,
    WamsimError,
)
from wamsim.merge import EpisodeConflict, merge
from wamsim.run_folder import read_run, records


def test_shards_become_one_run(tmp_path: Path) -> None:
    a = shard(tmp_path / "a", range(0, 3))
    b = shard(tmp_path / "b", range(2, 5), provenance={"gpu": "H"})
    out = tmp_path / "out"
    assert merge([a, b], out) == 5
    assert [r.key for r in records(out)] == [key(i) for i in range(5)]
    info = read_run(out)
    assert info.planned == {key(i) for i in range(5)}
    assert list(info.provenances.values()) == [PROVENANCE, {"gpu": "H"}]
    assert all(r.provenance_hash in info.provenances for r in records(out))
    assert merge([a, b], out) == 5  # again changes nothing
    with open_(out) as folder:  # and the run goes on from there
        assert len(folder.finished().episodes) == 5
        put(folder, key(0), x=99.0)
    untouched = read_episode(episode_path(a, key(0)))
    assert untouched.arrays["x"][0] == 0.0  # links are never written through


def test_merging_adds_to_a_run(tmp_path: Path) -> None:
    out = shard(tmp_path / "out", range(0, 2))
    assert merge([shard(tmp_path / "b", range(2, 4))], out) == 4


def test_merging_copies_where_links_are_impossible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "other device")

    a = shard(tmp_path / "a", range(2))
    monkeypatch.setattr(os, "link", refuse)
    assert merge([a], tmp_path / "out") == 2
    copied = episode_path(tmp_path / "out", key(1))
    assert copied.stat().st_nlink == 1
    assert copied.read_bytes() == episode_path(a, key(1)).read_bytes()
    assert not list(tmp_path.rglob(".*"))


def test_merging_refuses_another_configuration(tmp_path: Path) -> None:
    a = shard(tmp_path / "a", range(1))
    with open_(tmp_path / "b", {**CONFIG, "seed": 5}):
        pass
    with pytest.raises(ConfigurationMismatch) as caught:
        merge([a, tmp_path / "b"], tmp_path / "out")
    assert "seed: 5 in the folder, 0 in a\nMerge only runs of one" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_one_episode_with_two_contents_is_named(tmp_path: Path) -> None:
    a, b = shard(tmp_path / "a", range(3)), tmp_path / "b"
    with open_(b) as folder:
        put(folder, key(1), x=1.0)
        put(folder, key(2), x=2.5, steps=40)
    with pytest.raises(EpisodeConflict) as caught:
        merge([a, b], tmp_path / "out")
    assert "index=2" in str(caught.value)
    assert "steps, x differ" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_scored_episode_is_preferred_to_an_error(tmp_path: Path, first: str) -> None:
    shard(tmp_path / "a", range(2), outcome=Outcome.ERROR)
    shard(tmp_path / "b", range(1))
    order = [tmp_path / first, tmp_path / ("b" if first == "a" else "a")]
    assert merge(order, tmp_path / "out") == 2
    outcomes = [r.outcome for r in records(tmp_path / "out")]
    assert outcomes == [Outcome.SUCCESS, Outcome.ERROR]


def test_merging_needs_run_folders(tmp_path: Path) -> None:
    with pytest.raises(WamsimError, match="nothing to merge"):
        merge([], tmp_path / "out")
    with pytest.raises(RecordCorrupt, match=r"no run folder: it has no run\.json"):
        merge([tmp_path], tmp_path / "out")


def test_merging_into_a_running_run_is_refused(tmp_path: Path) -> None:
    a = shard(tmp_path / "a", range(2))
    with open_(tmp_path / "out"), pytest.raises(RunFolderBusy):
        merge([a], tmp_path / "out")
