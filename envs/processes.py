"""Independent jobs over spawned processes, one job a message.

A process keeps to one group of jobs (a scene) while that has any left, so that what is
slow to load is loaded once. A process that dies takes its job with it and is replaced.
"""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol, TypeVar

from wamsim.errors import WamsimError

J = TypeVar("J")

_PATIENCE_S = 10.0  # for a process to tidy up after itself before it is killed


class Worker(Protocol):
    """What does the jobs in a process."""

    def do(self, job: Any) -> str | None:
        """Do one job; a sentence says why it was left undone."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


@dataclass
class _Remote:
    process: SpawnProcess
    pipe: Connection
    job: Any
    group: str


def spread(
    jobs: Sequence[J],
    build: Callable[[], Worker],
    *,
    processes: int,
    group: Callable[[J], str],
) -> Iterator[tuple[J, str | None]]:
    """Do jobs side by side; one job, or one process, is done right here.

    Args:
        jobs: Picklable.
        build: Makes the worker, in its process; picklable.
        processes: At most so many.
        group: What a job needs that is slow to load.

    Yields:
        A job and None when it is done, or the sentence that says why it is not.

    Raises:
        WamsimError: What a worker raised, since it would hit other jobs as well.
        RuntimeError: A worker raised anything else; holds its traceback.
    """
    processes = min(processes, len(jobs))
    if processes <= 1:
        worker = build()
        try:
            for job in jobs:
                yield job, worker.do(job)
        finally:
            worker.close()
        return
    left = list(jobs)
    remotes: list[_Remote] = []
    try:
        while left or remotes:
            while left and len(remotes) < processes:
                job = _next(left, group, remotes)
                remotes.append(_start(build, job, group(job), processes))
            for pipe in wait([remote.pipe for remote in remotes]):
                remote = next(r for r in remotes if r.pipe is pipe)
                job = remote.job
                try:
                    sentence, error = remote.pipe.recv()
                except (EOFError, ConnectionResetError):
                    remotes.remove(remote)
                    yield job, _died(remote)
                    continue
                if error is not None:
                    raise error
                if left:
                    remote.job = _next(left, group, [r for r in remotes if r is not remote], remote)
                    remote.group = group(remote.job)
                    _post(remote)
                else:
                    remotes.remove(remote)
                    _stop([remote], at_once=False)
                yield job, sentence
    finally:
        _stop(remotes, at_once=True)


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while: what is started meanwhile inherits them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _next(
    left: list[J],
    group: Callable[[J], str],
    others: Sequence[_Remote],
    own: _Remote | None = None,
) -> J:
    """Take a job: of one's own group, else of one that nobody works on, else of the fullest."""
    groups: dict[str, int] = {}
    for job in left:
        groups[group(job)] = groups.get(group(job), 0) + 1
    taken = {remote.group for remote in others}
    if own is not None and own.group in groups:
        chosen = own.group
    else:
        free = [name for name in groups if name not in taken]
        chosen = free[0] if free else max(groups, key=lambda name: groups[name])
    return left.pop(next(i for i, job in enumerate(left) if group(job) == chosen))


def _start(build: Callable[[], Worker], job: Any, group: str, processes: int) -> _Remote:
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs, build), daemon=True)
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    # Read once, by llvmpipe and OpenBLAS, when they load in the child.
    with environment({"LP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": "1"}):
        process.start()
    theirs.close()
    remote = _Remote(process, ours, job, group)
    _post(remote)
    return remote


def _post(remote: _Remote) -> None:
    # A process that died in between is noticed when its answer is waited for.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        remote.pipe.send(remote.job)


def _died(remote: _Remote) -> str:
    remote.process.join(_PATIENCE_S)
    code = remote.process.exitcode
    remote.pipe.close()
    signalled = f" (signal {-code})" if code is not None and code < 0 else ""
    return f"the process that worked on it ended with exit code {code}{signalled}"


def _stop(remotes: Sequence[_Remote], *, at_once: bool) -> None:
    for remote in remotes:
        if at_once:
            remote.process.terminate()
        else:
            with contextlib.suppress(OSError):
                remote.pipe.send(None)
    for remote in remotes:
        remote.process.join(_PATIENCE_S)
        if remote.process.is_alive():
            remote.process.kill()
            remote.process.join()
        remote.pipe.close()


def _main(pipe: Connection, build: Callable[[], Worker]) -> None:
    """Serve jobs until None comes or the other end is gone; the target of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # runs "finally", removes what is half
    worker: Worker | None = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (job := pipe.recv()) is not None:
            try:
                worker = worker or build()
                answer = (worker.do(job), None)
            except WamsimError as error:
                answer = (None, error)
            except Exception:
                answer = (None, RuntimeError(f"a worker failed:\n{traceback.format_exc()}"))
            pipe.send(answer)
    if worker is not None:
        worker.close()
    sys.stdout.flush()
    # Interpreter shutdown would tear OpenGL down in an order that some drivers dislike.
    os._exit(0)
