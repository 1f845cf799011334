"""At most one live process writes to a run folder, however the last one died."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from episode_doubles import (
    CHILD,
    open_,
)

from wamsim import marker
from wamsim.errors import (
    RunFolderBusy,
)


def test_a_second_claim_in_this_process_is_refused(tmp_path: Path) -> None:
    with open_(tmp_path) as folder:
        with pytest.raises(RunFolderBusy) as caught:
            open_(tmp_path)
        assert str(caught.value) == (
            "this very process is writing to this run folder. Wait for it to end, or choose "
            f"another --out. Folder: {tmp_path}"
        )
        folder.close()
        folder.close()
        open_(tmp_path).close()


CONTENDER = """
import pathlib, sys
from wamsim.run_folder import RunFolder
from wamsim.errors import RunFolderBusy
print("ready", flush=True)
sys.stdin.readline()
try:
    folder = RunFolder.open(pathlib.Path(sys.argv[1]), {"a": 1}, {})
except RunFolderBusy as error:
    print("busy:", error, flush=True)
else:
    print("won", flush=True)
    sys.stdin.readline()
    folder.close()
    print("closed", flush=True)
"""


def contender(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CONTENDER, str(folder)],
        env=CHILD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(process: subprocess.Popen[str]) -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.parametrize("stale", [False, True])
def test_of_simultaneous_starters_one_wins(tmp_path: Path, stale: bool) -> None:
    if stale:
        write_marker(tmp_path, pid=dead_pid())
    with ExitStack() as stack:
        starters = [stack.enter_context(contender(tmp_path)) for _ in range(5)]
        for one in starters:
            assert one.stdout.readline() == "ready\n"
        for one in starters:
            tell(one)
        answers = [one.stdout.readline() for one in starters]
        assert answers.count("won\n") == 1
        busy = [a for a in answers if a.startswith("busy: ")]
        assert len(busy) == 4
        winner = starters[answers.index("won\n")]
        with pytest.raises(RunFolderBusy, match=f"process {winner.pid} on {socket.gethostname()}"):
            open_(tmp_path, {"a": 1})
        tell(winner)
        assert winner.stdout.readline() == "closed\n"
    open_(tmp_path, {"a": 1}).close()


def test_a_killed_owner_is_succeeded_silently(tmp_path: Path) -> None:
    with contender(tmp_path) as owner:
        owner.stdout.readline()
        tell(owner)
        assert owner.stdout.readline() == "won\n"
        with pytest.raises(RunFolderBusy):
            open_(tmp_path, {"a": 1})
        owner.kill()
    assert (tmp_path / "running.json").exists()
    with open_(tmp_path, {"a": 1}):
        assert json.loads((tmp_path / "running.json").read_text())["pid"] == os.getpid()


def write_marker(folder: Path, **changes: object) -> None:
    fields = {"pid": os.getpid(), "started_unix_s": 1.0, "host": socket.gethostname(), **changes}
    (folder / "running.json").write_text(json.dumps(fields))


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_a_reused_process_id_is_not_the_owner(tmp_path: Path) -> None:
    write_marker(tmp_path, pid=os.getppid(), started_unix_s=1.0)
    open_(tmp_path).close()


def test_a_live_owner_is_believed_where_its_lock_is_lost(tmp_path: Path) -> None:
    parent = psutil.Process(os.getppid())
    write_marker(tmp_path, pid=parent.pid, started_unix_s=parent.create_time())
    with pytest.raises(RunFolderBusy, match=f"process {parent.pid} on"):
        open_(tmp_path)
    assert json.loads((tmp_path / "running.json").read_text())["pid"] == parent.pid


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}'])
def test_an_unfinished_marker_is_stale(tmp_path: Path, text: str) -> None:
    (tmp_path / "running.json").write_text(text)
    open_(tmp_path).close()


def test_another_host_is_dead_when_its_lock_is_gone(tmp_path: Path) -> None:
    write_marker(tmp_path, host="elsewhere")
    open_(tmp_path).close()


@pytest.fixture
def _no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", unsupported)


@pytest.mark.usefixtures("_no_flock")
def test_without_locks_the_marker_decides(tmp_path: Path) -> None:
    with open_(tmp_path), pytest.raises(RunFolderBusy, match="this very process"):
        open_(tmp_path)
    write_marker(tmp_path, pid=dead_pid())
    open_(tmp_path).close()
    write_marker(tmp_path, host="elsewhere", pid=7)
    with pytest.raises(RunFolderBusy, match=r"process 7 on elsewhere.*delete running\.json"):
        open_(tmp_path)


def test_a_marker_released_between_open_and_lock_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = marker.Marker.claim(tmp_path)
    flock, waited = fcntl.flock, []

    def release_first(fd: int, operation: int) -> None:
        if not waited:
            waited.append(fd)
            owner.release()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", release_first)
    late = marker.Marker.claim(tmp_path)
    assert (tmp_path / "running.json").exists()
    with pytest.raises(RunFolderBusy):
        marker.Marker.claim(tmp_path)
    late.release()
    assert os.listdir(tmp_path) == []
