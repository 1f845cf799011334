"""The marker that says who is writing to a run folder; at most one live process may.

Two signs, so that each covers the other's weakness. An flock on the marker vanishes with
its process, however that died, but some network file systems do not know it or keep it to
one machine. The marker's text (process id, its start time, host) works everywhere, but
only for processes that this machine can see. A claim is refused when either sign shows life.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from wamsim.errors import RunFolderBusy

MARKER_NAME = "running.json"

# What flock gives where the file system has none (Lustre without -o flock, some FUSE).
_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)

# The kernel counts start times from boot, and boot's own date moves by fractions of a second
# when the clock is set. Process ids come round again only after thousands of processes.
_SAME_START_S = 1.0


@dataclass(frozen=True)
class Writer:
    """A process that writes, or wrote.

    Attributes:
        pid: Process id on its host.
        started_unix_s: When the process started; tells it from a later one with its id.
        host: Host name.
    """

    pid: int
    started_unix_s: float
    host: str

    @classmethod
    def present(cls) -> Writer:
        """Describe this process."""
        started = psutil.Process().create_time()
        return cls(pid=os.getpid(), started_unix_s=started, host=socket.gethostname())

    def lives(self) -> bool | None:
        """Say whether the process still runs; None when it ran on another host."""
        if self.host != socket.gethostname():
            return None
        try:
            started = psutil.Process(self.pid).create_time()
        except psutil.Error:
            return False
        return abs(started - self.started_unix_s) < _SAME_START_S


def read_writer(marker: Path) -> Writer | None:
    """Read who a marker names; None when there is none or a killed process left it unfinished."""
    try:
        document: dict[str, Any] = dict(json.loads(marker.read_text(encoding="utf-8")))
        return Writer(
            int(document["pid"]), float(document["started_unix_s"]), str(document["host"])
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


class Marker:
    """The claim of this process on a folder, until `release`."""

    def __init__(self, path: Path, fd: int, took_over: Writer | None) -> None:
        self.path = path
        self.took_over = took_over  # the dead writer whose marker was found
        self._fd: int | None = fd

    @classmethod
    def claim(cls, folder: Path) -> Marker:
        """Become the folder's only writer; a dead writer's marker is taken over.

        Args:
            folder: An existing folder.

        Raises:
            RunFolderBusy: Another live process writes there (or this one, through another
                claim); also when that was on another host and cannot be asked.
        """
        path = folder / MARKER_NAME
        while True:
            fd, fresh = _open(path)
            try:
                locked = _lock(fd)
                before = None if fresh else read_writer(path)
                if locked is False:
                    raise _busy(path, before)
                if not _is_at(path, fd):  # its owner released it between our open and lock
                    os.close(fd)
                    continue
                # With a lock in hand, a writer on another host is dead: its lock is gone. Without
                # locks on this file system nobody can tell.
                lives = before.lives() if before else False
                if lives or (lives is None and locked is None):
                    raise _busy(path, before)
                os.ftruncate(fd, 0)
                os.pwrite(fd, json.dumps(asdict(Writer.present())).encode(), 0)
            except BaseException:
                os.close(fd)
                raise
            return cls(path, fd, before)

    def release(self) -> None:
        """Give the folder free; does nothing the second time."""
        if self._fd is not None:
            # Unlink first: whoever waits on this file sees that it is no longer the marker.
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None


def _open(path: Path) -> tuple[int, bool]:
    """Open the marker; the second value is True when it was not there."""
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), True
        except FileExistsError:
            pass
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC), False
        except FileNotFoundError:  # released in between
            continue


def _lock(fd: int) -> bool | None:
    """Take the lock: True when taken, False when somebody has it, None where there are none."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return None
        raise
    return True


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _busy(marker: Path, writer: Writer | None) -> RunFolderBusy:
    if writer is None:
        who = "another process"
    elif writer.pid == os.getpid() and writer.lives():
        who = "this very process"
    else:
        who = f"process {writer.pid} on {writer.host}"
    text = f"{who} is writing to this run folder. Wait for it to end, or choose another --out."
    if writer is not None and writer.lives() is None:
        text += f" If that run is dead, delete {MARKER_NAME}."
    return RunFolderBusy(f"{text} Folder: {marker.parent}")
