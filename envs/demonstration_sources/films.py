"""Pictures out of compressed files: videos read in sequence, and single ones."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from wamsim.errors import RecordCorrupt


class Film:
    """A video, decoded in sequence: no seeking, so no key frame to get wrong.

    Args:
        path: The video.
        fps: Frames per second that it must have, since episodes are found by seconds.

    Raises:
        RecordCorrupt: It cannot be read, or has another rate.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        try:
            self._file: Any = av.open(str(path))
            stream = self._file.streams.video[0]
        except (OSError, IndexError, av.error.FFmpegError) as error:
            raise RecordCorrupt(f"no video can be read ({error}). File: {path}") from error
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or 0)
        if abs(rate - fps) > 0.01 * fps:  # containers round rates
            self.close()
            raise RecordCorrupt(
                f"a video has {rate:g} frames per second, the dataset {fps:g}. File: {path}"
            )
        self.position = 0
        self._frames: Iterator[Any] = self._file.decode(stream)

    def take(self, first: int, count: int) -> NDArray[np.uint8]:
        """Give frames [count, h, w, 3] RGB, from number `first`, not before `position`.

        Raises:
            RecordCorrupt: The video is shorter, or damaged.
        """
        taken: list[NDArray[np.uint8]] = []
        while len(taken) < count:
            try:
                frame = next(self._frames)
            except StopIteration:
                raise RecordCorrupt(
                    f"a video has {self.position} frames, and an episode wants {first} to "
                    f"{first + count - 1}. File: {self.path}"
                ) from None
            except av.error.FFmpegError as error:
                raise RecordCorrupt(f"a video is damaged ({error}). File: {self.path}") from error
            if self.position >= first:
                taken.append(frame.to_ndarray(format="rgb24"))
            self.position += 1
        return np.stack(taken)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Films:
    """One open video per camera.

    Args:
        fps: Of all of them.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._open: dict[str, Film] = {}

    def of(self, key: str, path: Path, first: int = 0) -> Film:
        """Give a camera's video; it goes back to the start when `first` has passed.

        Raises:
            RecordCorrupt: See `Film`.
        """
        film = self._open.get(key)
        if film is None or film.path != path or film.position > first:
            if film is not None:
                del self._open[key]
                film.close()
            film = self._open[key] = Film(path, self._fps)
        return film

    def close(self) -> None:
        """Close all."""
        for film in self._open.values():
            film.close()
        self._open.clear()


def decoded(data: bytes | None, name: str) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG to uint8 [h, w, 3] RGB.

    Raises:
        RecordCorrupt: It is neither, or not there.
    """
    try:
        with Image.open(io.BytesIO(data or b"")) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise RecordCorrupt(f"a picture of {name} cannot be read ({error})") from error
