"""Damaged episode files, full disks and killed writers: named, and never half an episode."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from episode_doubles import CHILD, KEY, arrays, kill_while_writing, record

from wamsim.episode import (
    Episode,
    NewerFormat,
    arrays_equal,
    episode_path,
    read_episode,
    read_record,
    write_episode,
)
from wamsim.errors import OutOfSpace, RecordCorrupt

# ------------------------------------------------------------------------------ damage


def small(tmp_path: Path) -> Path:
    return write_episode(tmp_path, Episode(record(), {"x": np.arange(6.0), "y": np.arange(3)}))


def test_truncation_anywhere_is_seen_from_the_header(tmp_path: Path) -> None:
    path = small(tmp_path)
    whole = path.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(RecordCorrupt) as caught:
            read_record(cut)
        assert str(cut) in str(caught.value)
    cut.write_bytes(whole + b"\0")
    with pytest.raises(RecordCorrupt, match="bytes after the end"):
        read_record(cut)


def test_truncation_says_what_to_do(tmp_path: Path) -> None:
    path = small(tmp_path)
    size = path.stat().st_size
    os.truncate(path, size - 10)
    for read in (read_record, read_episode):
        with pytest.raises(RecordCorrupt) as caught:
            read(path)
        assert str(caught.value) == (
            f"truncated: {size - 10} bytes, expected {size}. Run the same command again: it "
            f"sets the file aside and repeats the episode. File: {path}"
        )


def test_any_damaged_byte_of_the_header_is_an_error_of_ours_or_a_record(tmp_path: Path) -> None:
    path = small(tmp_path)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    corrupt = 0
    for at in range(end):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read_episode(path)
        except RecordCorrupt:
            corrupt += 1
    assert corrupt > end / 2


def test_garbage_headers(tmp_path: Path) -> None:
    path = tmp_path / "garbage.safetensors"
    for header in (b"", b"garbage", b"[]", b"{}", b'{"__metadata__":{}}', b"\xff" * 8, b"[" * 9999):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(RecordCorrupt, match="the header is not an episode's"):
            read_record(path)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(RecordCorrupt, match="truncated or no episode"):
        read_record(path)


def test_somebody_elses_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"w": np.zeros(3)}, path, metadata={"format": "pt"})
    with pytest.raises(RecordCorrupt, match=r"KeyError.*record"):
        read_record(path)


def test_a_header_longer_than_the_first_read(tmp_path: Path) -> None:
    path = write_episode(tmp_path, Episode(record(notes={"long": "x" * 200_000}), arrays()))
    assert len(read_record(path).notes["long"]) == 200_000
    os.truncate(path, 150_000)
    with pytest.raises(RecordCorrupt, match="truncated"):
        read_record(path)


def test_a_newer_file_is_named_and_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "new.safetensors"
    text = json.dumps({**json.loads(record().to_json()), "format_version": 9})
    path.write_bytes(safetensors.numpy.save({}, metadata={"record": text}))
    for read in (read_record, read_episode):
        with pytest.raises(NewerFormat, match=r"Upgrade wamsim.*new\.safetensors"):
            read(path)


# ---------------------------------------------------------------------------- full disk


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OutOfSpace) as caught:
            write_episode(tmp_path, Episode(record(), arrays()))
    message = str(caught.value)
    assert "All finished episodes are safe" in message
    assert "resumes" in message
    assert str(episode_path(tmp_path, KEY)) in message
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_full_disk_keeps_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_episode(tmp_path, Episode(record(), arrays()))
    write = os.write

    def half(fd: int, data: bytes) -> int:
        if len(data) > 100:
            return write(fd, bytes(data[:100]))
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OutOfSpace):
        write_episode(tmp_path, Episode(record(attempt=2), arrays()))
    assert read_episode(path).record.attempt == 1
    assert os.listdir(path.parent) == [path.name]


def test_short_writes_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data[:7])))
    path = write_episode(tmp_path, Episode(record(), arrays()))
    assert arrays_equal(read_episode(path), Episode(record(), arrays())) == []


def test_other_errors_keep_their_type_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_episode(tmp_path, Episode(record(), arrays()))
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_file_size_limit_of_the_kernel(tmp_path: Path) -> None:
    code = (
        "import resource, sys, pathlib, numpy as np, episode_doubles as t\n"
        "from wamsim.episode import write_episode\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_episode(pathlib.Path(sys.argv[1]), t.Episode(t.record(), {'x': np.ones(9999)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=CHILD,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OutOfSpace: could not write 00007.safetensors" in done.stderr
    assert "File too large" in done.stderr
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_writer_killed_before_the_rename_leaves_no_episode(tmp_path: Path) -> None:
    path = kill_while_writing(tmp_path)
    assert not path.exists()
    assert len(list(path.parent.glob(".*.tmp"))) == 1
