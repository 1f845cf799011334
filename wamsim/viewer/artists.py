"""What a drawing process does: one task a message, one answer each."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from wamsim.contracts import Frames
from wamsim.errors import WamsimError
from wamsim.video import encode
from wamsim.viewer.film import (
    PREVIEW_EVERY,
    PREVIEW_FPS,
    PREVIEW_SIZE,
    VIDEO_SIZE,
    FilmSpec,
    Layout,
    StillEncoder,
    begin_film,
    fill_film,
)
from wamsim.viewer.illustrator import Artist, Illustrator

_SIZE = (VIDEO_SIZE, VIDEO_SIZE)


@dataclass(frozen=True)
class Begin:
    """Make a film's file; answered with its `Layout`."""

    film: FilmSpec


@dataclass(frozen=True)
class Fill:
    """Draw frames of a film."""

    film: FilmSpec
    layout: Layout
    steps: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Movie:
    """Make a whole video at once: compressed over time, so much smaller than a film.

    Attributes:
        path, config, camera: Of which episode, from where.
        frames: How many env steps + 1.
        every: Env steps between frames.
        size: (height, width).
        fps: Frames per second.
        target: The .mp4.
    """

    path: Path
    config: Mapping[str, Any]
    camera: str
    frames: int
    target: Path
    every: int = PREVIEW_EVERY
    size: tuple[int, int] = (PREVIEW_SIZE, PREVIEW_SIZE)
    fps: float = PREVIEW_FPS


@dataclass(frozen=True)
class Pictures:
    """Draw single steps; answered with uint8 [n, H, cameras * W, 3], cameras side by side.

    Attributes:
        steps: Episode file and env step of each.
        config: Of their run.
        cameras: In order.
        size: (height, width) of each camera.
    """

    steps: tuple[tuple[Path, int], ...]
    config: Mapping[str, Any]
    cameras: tuple[str, ...]
    size: tuple[int, int]


Task = Begin | Fill | Movie | Pictures


class Hand:
    """Does tasks in this process.

    Args:
        artist: Draws.
    """

    def __init__(self, artist: Artist) -> None:
        self._artist = artist
        self._encoders: dict[float, StillEncoder] = {}

    def do(self, task: Task) -> Any:
        """Do one task.

        Raises:
            WamsimError: It cannot be done.
        """
        match task:
            case Begin(film):
                (first,) = self._draw(film, [0])
                return begin_film(film, self._encoder(film.fps), first)
            case Fill(film, layout, steps):
                pictures = zip(steps, self._draw(film, steps), strict=True)
                fill_film(film, layout, self._encoder(film.fps), pictures)
            case Movie():
                make_movie(self._artist, task)
            case Pictures(wanted, config, cameras, size):
                return np.stack(
                    [self._picture(path, step, config, cameras, size) for path, step in wanted]
                )
        return None

    def close(self) -> None:
        """Free what drawing holds."""
        self._artist.close()

    def _draw(self, film: FilmSpec, steps: Sequence[int]) -> list[Frames]:
        drawn = self._artist.draw(film.path, film.config, (film.camera,), _SIZE, steps)
        return [frames[0] for frames in drawn]

    def _picture(
        self,
        path: Path,
        step: int,
        config: Mapping[str, Any],
        cameras: tuple[str, ...],
        size: tuple[int, int],
    ) -> Frames:
        (frames,) = self._artist.draw(path, config, cameras, size, [step])
        return np.concatenate(list(frames), axis=1)

    def _encoder(self, fps: float) -> StillEncoder:
        if fps not in self._encoders:
            self._encoders[fps] = StillEncoder(_SIZE, fps)
        return self._encoders[fps]


def make_movie(artist: Artist, movie: Movie) -> None:
    """Draw and encode a video; its name shows all of it or nothing.

    Raises:
        WamsimError: The episode cannot be drawn.
    """
    movie.target.parent.mkdir(parents=True, exist_ok=True)
    partial = movie.target.with_name(f".{movie.target.name}.{secrets.token_hex(4)}.tmp")
    steps = range(0, movie.frames, movie.every)
    drawn = artist.draw(movie.path, movie.config, (movie.camera,), movie.size, steps)
    try:
        # Half a second between places to jump to: a scrubber is moved in smaller steps.
        encode(partial, (f[0] for f in drawn), fps=movie.fps, keyframe_every_s=0.5)
        os.replace(partial, movie.target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def work(pipe: Connection, illustrator: Illustrator, threads: int) -> None:
    """Answer tasks until None comes or the other end is gone; the target of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ.setdefault("LP_NUM_THREADS", str(threads))  # software OpenGL reads it when it loads
    hand: Hand | None = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while (task := pipe.recv()) is not None:
            try:
                hand = hand or Hand(illustrator.artist())
                answer = (hand.do(task), None)
            except WamsimError as error:
                answer = (None, str(error))
            except OSError as error:  # a full disk, a file that vanished
                answer = (None, f"drawing failed: {error}. `--cache` names another folder")
            except Exception as error:
                traceback.print_exc()  # a defect: the terminal has the whole of it
                answer = (None, f"drawing failed: {error!r}; the terminal says where")
            pipe.send(answer)
    if hand is not None:
        hand.close()
    # Interpreter shutdown would tear OpenGL down in an order that some drivers dislike.
    os._exit(0)
