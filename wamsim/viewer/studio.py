"""Who draws what next: films that somebody watches first, then pictures, then the rest.

A few processes draw, a moment of a film at a time, so that a film that was just opened never
waits for another one's end. What is drawn stays in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wamsim.viewer.artists import Begin, Fill, Movie, Pictures, Task
from wamsim.viewer.desk import CannotDraw, Desk
from wamsim.viewer.film import FILM_VERSION, FilmSpec, Layout, read_layout
from wamsim.viewer.illustrator import Illustrator

# Frames of one message: long enough that messages cost nothing (25 ms a frame), short enough
# that four films side by side all move within half a second.
_MOMENT = 6
# More processes hardly help: two films at life's speed are what two cores draw.
_PROCESSES = 2
_CACHE_BYTES = 4 << 30  # a film of the tabletop suite takes 1 to 4 MB
_STALE_S = 24 * 3600.0  # of parts that a killed viewer left


def media_name(kind: str, path: Path, stamp: tuple[int, int], what: str) -> str:
    """Name what was drawn of an episode in the cache; another file at its place is another name.

    Args:
        kind: Of drawing.
        path: The episode file.
        stamp: Its time and size.
        what: Camera and whatever else tells drawings of one kind apart.
    """
    text = repr([FILM_VERSION, kind, str(path.resolve()), stamp, what])
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16)
    return f"{digest.hexdigest()}.mp4"


@dataclass
class Film:
    """A film that is being drawn, or is done.

    Attributes:
        spec: Which.
        layout: Where its frames lie; None before the file is made.
        done: A byte a frame: 1 when it is there.
        fault: Why it cannot be drawn.
        wants: Reader -> the frame that it waits for.
        claimed: Frames that are being drawn.
        served: When it was last worked on; turns go by it.
    """

    spec: FilmSpec
    layout: Layout | None = None
    done: bytearray = field(default_factory=bytearray)
    fault: str | None = None
    wants: dict[object, int] = field(default_factory=dict[object, int])
    claimed: set[int] = field(default_factory=set[int])
    served: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether all frames are there."""
        return self.layout is not None and self.done.find(0) < 0

    @property
    def file(self) -> Path:
        """Where it is now."""
        return self.spec.target if self.finished else self.spec.partial

    def next_steps(self) -> tuple[int, ...]:
        """Give the frames to draw next: from where a reader waits on, else the first missing.

        Of several the newest reader's: whoever jumped left another one behind. Frames that
        another process draws already are passed over.
        """
        if self.layout is None:
            return () if self.claimed else (0,)
        start = list(self.wants.values())[-1] if self.wants else 0
        out: list[int] = []
        for t in (*range(start, len(self.done)), *range(start)):
            if not self.done[t] and t not in self.claimed:
                out.append(t)
            elif out:
                break
            if len(out) == _MOMENT:
                break
        return tuple(out)

    def open(self) -> int:
        """Open its file for reading; what is open stays readable when it is renamed.

        Raises:
            FileNotFoundError: Somebody emptied the cache.
        """
        with contextlib.suppress(FileNotFoundError):
            return os.open(self.file, os.O_RDONLY)
        return os.open(self.spec.target, os.O_RDONLY)


class Studio:
    """Draws for the viewer; every method may be called from any thread.

    Args:
        illustrator: Makes the artists.
        cache: Folder of what was drawn.
        processes: How many draw.
    """

    def __init__(self, illustrator: Illustrator, cache: Path, processes: int | None = None) -> None:
        self.cache = cache
        self._films: dict[Path, Film] = {}
        self._jobs: deque[tuple[Task, Future[Any]]] = deque()
        self._movies: dict[Path, Future[Any]] = {}
        self._wake = threading.Condition()
        self._closed = False
        self._warmed: Path | None = None
        self._warming: Pictures | None = None
        count = processes or min(_PROCESSES, os.cpu_count() or 1)
        self._desks = [
            Desk(illustrator, max(1, (os.cpu_count() or 1) // count)) for _ in range(count)
        ]
        self._threads = [
            threading.Thread(target=self._serve, args=(desk,), daemon=True) for desk in self._desks
        ]
        for thread in self._threads:
            thread.start()
        self._tidy()

    # -------------------------------------------------------------------- orders

    def warm(self, look: Pictures) -> None:
        """Draw a picture that nobody asked for, so that the first film need not wait.

        A process starts, OpenGL with it, and the scene is loaded that is likely wanted next.
        """
        scene = look.steps[0][0].parent  # episodes of one task lie together
        if scene == self._warmed:
            return
        with self._wake:  # what somebody only passed by is not waited for
            self._jobs = deque(job for job in self._jobs if job[0] is not self._warming)
        self._warmed, self._warming = scene, look
        self._add(look)

    def film(
        self,
        path: Path,
        stamp: tuple[int, int],
        config: Mapping[str, Any],
        camera: str,
        *,
        frames: int,
        fps: float,
    ) -> Film:
        """Give the film of an episode from one camera, begun if it is not there.

        Args:
            path: The episode file.
            stamp: Its time and size; another stamp is another film.
            config: Its run's configuration.
            camera: Name.
            frames: Env steps + 1.
            fps: The control rate.
        """
        target = self._target("film", path, stamp, camera)
        with self._wake:
            film = self._films.get(target)
            if film is not None and film.fault is None:
                if film.layout is None or film.file.exists():
                    return film
            spec = FilmSpec(
                path=path,
                config=config,
                camera=camera,
                frames=frames,
                fps=fps,
                target=target,
                partial=target.with_name(f"{target.stem}.{secrets.token_hex(4)}.part"),
            )
            film = self._films[target] = Film(spec)
            with contextlib.suppress(FileNotFoundError, ValueError):
                film.layout = read_layout(target)
                film.done = bytearray(b"\1") * frames
                os.utime(target)  # used now: the last to be tidied away
            self._wake.notify_all()
        return film

    def want(self, film: Film, reader: object, frame: int) -> None:
        """Say which frame a reader waits for."""
        with self._wake:
            film.wants[reader] = frame
            self._wake.notify_all()

    def leave(self, film: Film, reader: object) -> None:
        """Say that a reader waits no longer."""
        with self._wake:
            film.wants.pop(reader, None)

    def preview(
        self,
        path: Path,
        stamp: tuple[int, int],
        config: Mapping[str, Any],
        camera: str,
        *,
        frames: int,
    ) -> Future[Path]:
        """Have a small looping preview made.

        Returns:
            Its file, in the future; raises `CannotDraw` there.
        """
        target = self._target("preview", path, stamp, camera)
        with self._wake:
            known = self._movies.get(target)
            if known is not None and not known.done():
                return known
            if target.exists():
                ready: Future[Path] = Future()
                ready.set_result(target)
                self._movies[target] = ready
                os.utime(target)
                return ready
            movie = Movie(path=path, config=config, camera=camera, frames=frames, target=target)
            made = self._movies[target] = self._add(movie, lambda _: target)
            return made

    def pictures(self, wanted: Pictures) -> Future[Any]:
        """Have single steps drawn; see `Pictures`."""
        return self._add(wanted)

    def close(self) -> None:
        """End all processes."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for desk in self._desks:
            desk.close()
        for film in self._films.values():
            film.spec.partial.unlink(missing_ok=True)

    # ---------------------------------------------------------------------- work

    def _add(self, task: Task, then: Callable[[Any], Any] = lambda answer: answer) -> Future[Any]:
        future: Future[Any] = Future()
        raw: Future[Any] = Future()

        def deliver(done: Future[Any]) -> None:
            error = done.exception()
            if future.set_running_or_notify_cancel():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(then(done.result()))

        raw.add_done_callback(deliver)
        with self._wake:
            self._jobs.append((task, raw))
            self._wake.notify_all()
        return future

    def _serve(self, desk: Desk) -> None:
        while True:
            with self._wake:
                desk.idle = True
                while (todo := self._next(desk)) is None and not self._closed:
                    self._wake.wait()
                desk.idle = False
                if self._closed or todo is None:
                    return
            todo(desk)

    def _next(self, desk: Desk) -> Callable[[Desk], None] | None:
        """Choose what a desk does next; called with the lock in hand."""
        if not desk.started and any(other.started and other.idle for other in self._desks):
            return None  # a process that runs already begins at once
        todo = [
            (film, steps)
            for film in self._films.values()
            if not (film.fault or film.finished) and (steps := film.next_steps())
        ]
        watched = [one for one in todo if one[0].wants]
        if not watched and self._jobs:
            task, future = self._jobs.popleft()
            return lambda desk: self._do(desk, task, future)
        if not todo:
            return None
        # Films that nobody draws first; a process that is left over helps with another's. To
        # start one for that would take the time that the first frames need.
        film, steps = min(watched or todo, key=lambda one: (bool(one[0].claimed), one[0].served))
        if film.claimed and not desk.started:
            return None
        film.claimed.update(steps)
        film.served = time.monotonic()
        return lambda desk: self._draw(desk, film, steps)

    def _do(self, desk: Desk, task: Task, future: Future[Any]) -> None:
        try:
            future.set_result(desk.ask(task))
        except CannotDraw as error:
            future.set_exception(error)

    def _draw(self, desk: Desk, film: Film, steps: tuple[int, ...]) -> None:
        try:
            if film.layout is None:
                layout: Layout = desk.ask(Begin(film.spec))
                with self._wake:
                    film.done, film.layout = bytearray(film.spec.frames), layout
            else:
                desk.ask(Fill(film.spec, film.layout, steps))
            with self._wake:
                if film.done.count(0) == len(steps):
                    os.replace(film.spec.partial, film.spec.target)
                for step in steps:
                    film.done[step] = 1
            if film.finished:
                self._tidy()
        except (CannotDraw, OSError) as error:
            film.fault = str(error)
            with contextlib.suppress(OSError):
                film.spec.partial.unlink()
        finally:
            with self._wake:
                film.claimed.difference_update(steps)
                self._wake.notify_all()

    # --------------------------------------------------------------------- cache

    def _target(self, kind: str, path: Path, stamp: tuple[int, int], camera: str) -> Path:
        return self.cache / media_name(kind, path, stamp, camera)

    def _tidy(self) -> None:
        """Keep the cache below its limit: what was longest not looked at goes first."""
        found: list[tuple[float, int, Path]] = []
        with contextlib.suppress(OSError), os.scandir(self.cache) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    found.append((stat.st_mtime, stat.st_size, Path(entry.path)))
        total = sum(size for _, size, _ in found)
        stale = time.time() - _STALE_S
        for changed, size, path in sorted(found):
            unfinished = path.suffix != ".mp4"
            if (total > _CACHE_BYTES and not unfinished) or (unfinished and changed < stale):
                path.unlink(missing_ok=True)
                total -= size
