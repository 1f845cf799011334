"""Films: one video an episode and camera, drawn while it is watched.

A film's file has its final size from the start, and every frame its place in it, so frames
may be drawn in any order and a reader waits for those alone that it asks for. Every frame
stands for itself (H.264 intra), at one quantiser whatever came before: equal pictures give
equal bytes, and jumping to a step decodes one frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags

from wamsim.contracts import Frames
from wamsim.video import say_colours, to_yuv
from wamsim.viewer.mp4 import film_header, padded, split_units

VIDEO_SIZE = 256
PREVIEW_SIZE = 128
PREVIEW_EVERY = 4  # env steps between a preview's frames
PREVIEW_FPS = 10  # twice as fast as life at 20 Hz: a preview is for seeing what happened

# Changed whenever equal episodes would give other files; part of their names in the cache.
FILM_VERSION = 1

# Quantisers to try, best first; the last always fits. 20 is visually lossless on rendered
# scenes: 38 dB on the tabletop suite, 10 kB a frame of 256 x 256.
_QUANTISERS = (20, 26, 32, 38, 44, 51)
# A frame's place is so much larger than the first frame: scenes change little in size, and a
# frame that does not fit is only coarser.
_ROOM = 1.6
_SLICE = 5  # H.264 table 7-1, slice of an IDR picture


@dataclass(frozen=True, kw_only=True)
class FilmSpec:
    """Which film.

    Attributes:
        path: The episode file.
        config: Its run's configuration.
        camera: One of its task's.
        frames: How many: env steps + 1.
        fps: The control rate.
        target: Where the film is kept.
        partial: Where it lies while frames are missing.
    """

    path: Path
    config: Mapping[str, Any]
    camera: str
    frames: int
    fps: float
    target: Path
    partial: Path


@dataclass(frozen=True)
class Layout:
    """Where frames lie in a film's file.

    Attributes:
        header: Bytes before the first frame.
        slot: Bytes of every frame.
        frames: How many.
    """

    header: int
    slot: int
    frames: int

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.header + self.slot * self.frames

    def frame_at(self, byte: int) -> int:
        """Give the frame that a byte belongs to; -1 for the header."""
        return -1 if byte < self.header else (byte - self.header) // self.slot

    def end_of(self, frame: int) -> int:
        """Give the first byte behind a frame; -1 is the header."""
        return self.header + (frame + 1) * self.slot


class StillEncoder:
    """Encodes pictures one by one, each decodable by itself.

    Args:
        size: (height, width), even.
        fps: For the stream's timing fields.
    """

    def __init__(self, size: tuple[int, int], fps: float) -> None:
        self._size, self._fps = size, fps
        self._contexts: dict[int, Any] = {}
        self._count: dict[int, int] = {}
        self.decoder = bytes(self._context(_QUANTISERS[0]).extradata)

    def encode(self, picture: Frames, frame: int, slot: int | None = None) -> bytes:
        """Encode a picture.

        Args:
            picture: uint8 [H, W, 3].
            frame: Its number in the film.
            slot: Bytes that it must take; None for what the best quality takes.

        Returns:
            NAL units with their lengths, and filler up to `slot`.
        """
        for quantiser in _QUANTISERS:
            units = self._units(picture, frame, quantiser)
            data = padded(units, slot or sum(len(unit) + 4 for unit in units))
            if data is not None:
                return data
        raise ValueError(f"no quantiser brings a frame into {slot} bytes")

    def _units(self, picture: Frames, frame: int, quantiser: int) -> list[bytes]:
        context = self._context(quantiser)
        image = to_yuv(picture)
        # Neighbouring IDR pictures must differ in idr_pic_id (H.264, 7.4.3), which x264 counts
        # modulo 2; frames come in any order, so one that would have its neighbours' is repeated.
        times = 1 if self._count[quantiser] % 2 == frame % 2 else 2
        data = b""
        for _ in range(times):
            image.pts = self._count[quantiser]
            self._count[quantiser] += 1
            data = b"".join(bytes(packet) for packet in context.encode(image))
        return [unit for unit in split_units(data) if unit[0] & 0x1F == _SLICE]

    def _context(self, quantiser: int) -> Any:
        if quantiser not in self._contexts:
            context: Any = av.CodecContext.create("libx264", "w")
            context.height, context.width = self._size
            context.pix_fmt = "yuv420p"
            context.framerate = Fraction(self._fps).limit_denominator(1000)
            context.time_base = 1 / context.framerate
            context.flags |= Flags.global_header
            say_colours(context)
            context.options = {
                "qp": str(quantiser),
                "preset": "veryfast",
                "profile": "main",
                "tune": "zerolatency",  # every picture comes out at once
                # stitchable: one PPS whatever the quantiser; annexb=0: lengths, no start codes;
                # no CABAC: with it x264 gives one of two codings of the same picture
                "x264-params": "keyint=1:stitchable=1:annexb=0:cabac=0:sliced-threads=0",
                "threads": "1",
            }
            context.open()
            self._contexts[quantiser] = context
            self._count[quantiser] = 0
        return self._contexts[quantiser]


def begin_film(spec: FilmSpec, encoder: StillEncoder, first: Frames) -> Layout:
    """Make a film's file with its header and its first frame.

    Args:
        spec: Which.
        encoder: Of the film's size and rate.
        first: The picture before the first env step.
    """
    room = len(encoder.encode(first, 0))
    slot = -(-int(_ROOM * room) // 256) * 256
    height, width = first.shape[:2]
    header = film_header(
        width=width,
        height=height,
        fps=spec.fps,
        frames=spec.frames,
        slot=slot,
        decoder=encoder.decoder,
    )
    layout = Layout(len(header), slot, spec.frames)
    spec.partial.parent.mkdir(parents=True, exist_ok=True)
    with open(spec.partial, "wb") as file:
        file.write(header)
        file.truncate(layout.size)
    fill_film(spec, layout, encoder, [(0, first)])
    return layout


def fill_film(
    spec: FilmSpec, layout: Layout, encoder: StillEncoder, pictures: Iterable[tuple[int, Frames]]
) -> None:
    """Put frames into their places."""
    descriptor = os.open(spec.partial, os.O_WRONLY)
    try:
        for frame, picture in pictures:
            data = encoder.encode(picture, frame, layout.slot)
            os.pwrite(descriptor, data, layout.end_of(frame - 1))
    finally:
        os.close(descriptor)


def read_layout(path: Path) -> Layout:
    """Read where frames lie in a finished film.

    Raises:
        ValueError: The file is none of ours.
    """
    with open(path, "rb") as file:
        head = file.read(4096)
    table, data = head.find(b"stsz"), head.find(b"mdat")
    if table < 0 or data < 0:
        raise ValueError(f"{path.name} is no film")
    slot, frames = (int.from_bytes(head[table + 8 + i : table + 12 + i], "big") for i in (0, 4))
    return Layout(data + 4, slot, frames)
