"""Files that are there whole or not at all, on a disk that may be full."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path

from wamsim.errors import OutOfSpace

TEMPORARY_SUFFIX = ".tmp"
RESERVE_BYTES = 1 << 30  # room on the disk that caches leave alone

# No space, over quota, over the process's file-size limit (`ulimit -f`): free something, go on.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def temporary_for(path: Path) -> Path:
    """Give a fresh hidden name in the same folder, for what shall become ``path``."""
    return path.parent / f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"


@contextlib.contextmanager
def naming_a_full_disk(path: Path) -> Generator[None]:
    """Turn the system's "no space" into what the user can do about it.

    Args:
        path: What is being written.

    Raises:
        OutOfSpace: Disk full, over quota or over the file-size limit.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OutOfSpace(
            f"could not write {path.name}: {os.strerror(error.errno)}. All finished episodes are "
            f"safe on disk. Make room, then run the same command again: the run resumes where it "
            f"stopped. File: {path}"
        ) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that its name only ever shows all of it, or what was there before.

    The bytes go to a temporary name in the same folder, reach the disk (fsync), and are
    renamed. The folder is not fsynced: a power cut may take the newest episode back, whole.

    Raises:
        OutOfSpace: See `naming_a_full_disk`; nothing is left behind.
    """
    temporary = temporary_for(path)
    with naming_a_full_disk(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                view = memoryview(data)
                while view:  # Linux writes at most 2 GiB a call, and may write less
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def check_room(folder: Path, needed: int) -> None:
    """Make a folder, and refuse to fill the disk.

    Args:
        folder: Where the files go.
        needed: Bytes.

    Raises:
        OutOfSpace: They would not fit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed + RESERVE_BYTES > free:
        raise OutOfSpace(
            f"the pictures and features take {needed / 1e9:.1f} GB and the disk has "
            f"{free / 1e9:.1f} GB free. Choose another --cache, or train on fewer episodes. "
            f"Folder: {folder}"
        )
