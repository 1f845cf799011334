"""The run folder: create, resume, refuse, list."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from episode_doubles import (
    CONFIG,
    PROVENANCE,
    folder_record,
    key,
    kill_while_writing,
    open_,
    put,
    record,
)

from wamsim.contracts import Outcome
from wamsim.episode import Episode, NewerFormat, episode_path, write_episode
from wamsim.errors import (
    ConfigurationMismatch,
    OutOfSpace,
    RecordCorrupt,
)
from wamsim.run_folder import config_hash, read_run, records

# ------------------------------------------------------------------------------ resume


def test_a_new_folder_says_what_was_asked(tmp_path: Path) -> None:
    plan = [key(1), key(0), key(0, "u")]
    with open_(tmp_path / "deep" / "run", planned=plan) as folder:
        assert (folder.path / "running.json").exists()
    info = read_run(folder.path)
    assert info.config == CONFIG
    assert info.config_hash == config_hash(CONFIG) == folder.config_hash
    assert info.provenances == {folder.provenance_hash: PROVENANCE}
    assert info.planned == set(plan)
    assert info.created.endswith("+00:00")
    assert sorted(os.listdir(folder.path)) == ["run.json"]
    document = json.loads((folder.path / "run.json").read_text())
    assert document["planned"] == {"s": {"t": [0, 1], "u": [0]}}


def test_resume_lists_what_is_finished(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        assert folder.finished() == ({}, [])
        paths = {key(i): put(folder, key(i)) for i in (0, 2)}
        put(folder, key(1), outcome=Outcome.ERROR)
    with open_(tmp_path) as folder:
        assert folder.finished() == (paths, [])
        assert set(folder.finished(rerun_errors=False).episodes) == {key(0), key(1), key(2)}
        put(folder, key(1))  # the retry replaces the error
        assert set(folder.finished().episodes) == {key(0), key(1), key(2)}
        assert len(list(folder.records())) == 3


def test_the_same_options_in_another_order_resume(tmp_path: Path) -> None:
    with open_(tmp_path):
        pass
    again = {"policy": {"execute": np.int64(8), "name": "oracle"}, "seed": 0, "suite": "s"}
    with open_(tmp_path, again) as folder:
        assert folder.config_hash == config_hash(CONFIG)


def test_another_configuration_is_refused_key_by_key(tmp_path: Path) -> None:
    with open_(tmp_path):
        pass
    other = {"suite": "s", "seed": 1, "policy": {"name": "oracle", "horizon": 16}}
    with pytest.raises(ConfigurationMismatch) as caught:
        open_(tmp_path, other)
    assert str(caught.value) == (
        "the run folder has another configuration:\n"
        "  policy.execute: 8 in the folder, absent now\n"
        "  policy.horizon: absent in the folder, 16 now\n"
        "  seed: 0 in the folder, 1 now\n"
        f"Choose another --out, or the same options to resume. Folder: {tmp_path}"
    )
    with open_(tmp_path):  # the refused one holds nothing
        pass


def test_provenance_may_change_and_every_one_is_kept(tmp_path: Path) -> None:
    with open_(tmp_path) as first:
        put(first, key(0))
    upgraded = {**PROVENANCE, "wamsim": "0.2.0"}
    with open_(tmp_path, provenance=upgraded) as second:
        put(second, key(1))
    with open_(tmp_path) as third:
        assert third.provenance_hash == first.provenance_hash != second.provenance_hash
    info = read_run(tmp_path)
    assert list(info.provenances.values()) == [PROVENANCE, upgraded]
    assert all(r.provenance_hash in info.provenances for r in records(tmp_path))


def test_resuming_unchanged_does_not_touch_run_json(tmp_path: Path) -> None:
    with open_(tmp_path, planned=[key(0)]):
        pass
    before = (tmp_path / "run.json").stat()
    with open_(tmp_path, planned=[key(0)]):
        pass
    assert (tmp_path / "run.json").stat().st_ino == before.st_ino
    with open_(tmp_path, planned=[key(3)]) as folder:
        assert folder.info.planned == {key(0), key(3)}


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigurationMismatch, match="--out names a file"):
            open_(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text[:40],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace('"seed": 0', '"seed": 1'),
        lambda text: text.replace('"provenances": [', '"provenances": [3, '),
        lambda text: text.replace('"planned": {', '"planned": {"s": 3'),
    ],
)
def test_an_altered_run_json_is_refused(tmp_path: Path, edit) -> None:
    with open_(tmp_path):
        pass
    path = tmp_path / "run.json"
    path.write_text(edit(path.read_text()))
    with pytest.raises(RecordCorrupt, match=r"run\.json is not a run's.*another --out"):
        open_(tmp_path)


def test_a_newer_run_json_asks_for_an_upgrade(tmp_path: Path) -> None:
    with open_(tmp_path):
        pass
    path = tmp_path / "run.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(NewerFormat, match=r"reads up to format 1\. Upgrade"):
        open_(tmp_path)


def test_episodes_without_run_json_are_not_adopted(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        put(folder, key(0))
    (tmp_path / "run.json").unlink()
    with pytest.raises(RecordCorrupt, match=r"it has no run\.json"):
        open_(tmp_path)


def test_the_folder_guards_its_records(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        with pytest.raises(ValueError, match=r"take it from RunFolder\.config_hash"):
            put(folder, key(0), config_hash="0" * 32)
        with pytest.raises(ValueError, match=r"take the hash from RunFolder\.provenance_hash"):
            put(folder, key(0), provenance_hash="0" * 32)
        assert folder.finished() == ({}, [])


def test_a_full_disk_while_creating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutOfSpace, match=r"could not write run\.json"):
            open_(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_while_claiming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OutOfSpace, match="Make room"):
            open_(tmp_path)
    open_(tmp_path).close()


# ------------------------------------------------------------------------------ damage


def test_damaged_episodes_are_set_aside_and_run_again(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        paths = [put(folder, key(i)) for i in range(4)]
        os.truncate(paths[1], 100)
        paths[2].write_bytes(b"garbage that is no header at all")
        finished = folder.finished()
        assert set(finished.episodes) == {key(0), key(3)}
        aside = tmp_path / "set_aside" / "s" / "t"
        assert len(finished.messages) == 2
        expected = f"set aside 00001.safetensors as {aside / '00001.safetensors'}: truncated"
        assert finished.messages[0].startswith(expected)
        assert (aside / "00002.safetensors").read_bytes() == b"garbage that is no header at all"

        put(folder, key(1))
        os.truncate(paths[1], 50)
        folder.finished()  # the second does not overwrite the first
        assert sorted(os.listdir(aside)) == [
            "00001-2.safetensors",
            "00001.safetensors",
            "00002.safetensors",
        ]
        put(folder, key(1))
        assert set(folder.finished().episodes) == {key(0), key(1), key(3)}


def test_a_damaged_file_stops_readers_with_its_name(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        path = put(folder, key(0))
    os.truncate(path, 100)
    with pytest.raises(RecordCorrupt, match=r"00000\.safetensors"):
        list(records(tmp_path))


def test_a_renamed_copy_is_no_second_episode(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        path = put(folder, key(0))
        for name in ("00001.safetensors", "00000 (copy).safetensors"):
            (path.parent / name).write_bytes(path.read_bytes())
        with pytest.raises(RecordCorrupt, match="moved or renamed"):
            list(folder.records())
        finished = folder.finished()
        assert set(finished.episodes) == {key(0)}
        assert len(finished.messages) == 2


def test_a_newer_episode_is_left_alone(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        path = put(folder, key(0))
        text = json.dumps(
            {**json.loads(folder_record(folder, key(0)).to_json()), "format_version": 2}
        )
        path.write_bytes(safetensors.numpy.save({}, metadata={"record": text}))
        with pytest.raises(NewerFormat, match="Upgrade"):
            folder.finished()
    assert path.exists()


def test_a_foreign_episode_is_named(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        write_episode(tmp_path, Episode(record(key=key(0)), {}))
        with pytest.raises(ConfigurationMismatch, match="Move the file out"):
            folder.finished()


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        put(folder, key(0))
    unfinished = kill_while_writing(tmp_path)
    (tmp_path / ".run.json.0123.tmp").write_text("half")
    assert len(list(unfinished.parent.glob(".*"))) == 1
    with open_(tmp_path) as folder:
        assert set(folder.finished().episodes) == {key(0)}
        assert list(unfinished.parent.iterdir()) == []
        assert not (tmp_path / ".run.json.0123.tmp").exists()


def test_two_thousand_episodes_are_listed_in_order(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        keys = [key(i, f"t{t}", s) for s in ("a", "b") for t in range(10) for i in range(100)]
        for one in keys:  # as write_episode does, without waiting for the disk
            path = episode_path(tmp_path, one)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = folder_record(folder, one).to_json()
            data = safetensors.numpy.save({"x": np.zeros(8)}, metadata={"record": text})
            path.write_bytes(data)
        assert set(folder.finished().episodes) == set(keys)
        assert [r.key for r in folder.records()] == sorted(keys)


def test_order_of_records_with_long_indices(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        for one in (key(100_000), key(99_999), key(0, "a-b"), key(0, "a")):
            put(folder, one)
        found = [r.key for r in folder.records()]
    assert found == [key(0, "a"), key(0, "a-b"), key(99_999), key(100_000)]
