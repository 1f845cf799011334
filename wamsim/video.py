"""Frames -> a captioned H.264 video; knows no simulator.

Frames stream through, so an episode of any length needs the memory of one frame.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from wamsim.captions import Caption, Sheet
from wamsim.contracts import Frames
from wamsim.errors import OutOfSpace

__all__ = ["Caption", "Sheet", "read_frames", "write_video"]

HOLD_S = 1.0  # the last frame stays this long: one sees how it ended before the video repeats
# Visually lossless for H.264 (trac.ffmpeg.org/wiki/Encode/H.264: 17 or 18).
_CRF = "18"
_KEYFRAME_EVERY_S = 2.0  # a viewer jumps to any step without decoding the whole episode
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_video(
    path: Path,
    frames: Iterable[Frames],
    caption: Caption,
    *,
    fps: float = 20.0,
    hold_s: float = HOLD_S,
) -> Path:
    """Encode an episode.

    Args:
        path: The .mp4 to write; its folder is made. The name shows all of it or nothing.
        frames: uint8 [cameras, H, W, 3] after 0, 1, 2, ... env steps; consumed as they are
            encoded.
        caption: The words.
        fps: Frames per second: the control rate, for real time.
        hold_s: Seconds for which the last frame is repeated.

    Returns:
        The path.

    Raises:
        ValueError: There is no frame, or one has another shape than the first.
        OutOfSpace: The disk is full; nothing half-written remains.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        _encode(temporary, _composed(frames, caption, round(hold_s * fps)), caption, fps)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in _FULL:
            raise OutOfSpace(
                f"could not write {path.name}: {os.strerror(error.errno)}. Make room, then run "
                f"the same command again; finished videos are kept. File: {path}"
            ) from error
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return path


def _composed(frames: Iterable[Frames], caption: Caption, hold: int) -> Iterator[Frames]:
    sheet: Sheet | None = None
    before: Frames | None = None  # one frame behind, to know which is the last
    step = -1
    for pictures in frames:
        if sheet is None:
            sheet = Sheet(caption, len(pictures), (pictures.shape[1], pictures.shape[2]))
        elif before is not None:
            yield sheet.frame(before, step)
        before = pictures
        step += 1
    if sheet is None or before is None:
        raise ValueError("there are no frames to make a video of")
    last = sheet.frame(before, step, last=True)
    for _ in range(hold + 1):
        yield last


def _encode(path: Path, frames: Iterator[Frames], caption: Caption, fps: float) -> None:
    first = next(frames)  # before the file is made: no frames, no file
    rate = Fraction(fps).limit_denominator(1000)
    options = {
        "crf": _CRF,
        "preset": "medium",
        "g": str(max(1, round(_KEYFRAME_EVERY_S * fps))),
        "threads": "1",  # equal frames give equal bytes; drawing takes far longer than encoding
    }
    opened: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
    with opened as file:  # Any: PyAV's stubs leave packets untyped
        file.metadata["title"] = caption.instruction
        stream = file.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"  # what browsers and players take
        # Said and done in BT.709, or players guess by size and shift the colours.
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709
        for pixels in _with_first(first, frames):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p",
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            for packet in stream.encode(picture):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


def _with_first(first: Frames, rest: Iterator[Frames]) -> Iterator[Frames]:
    yield first
    yield from rest


def read_frames(path: Path) -> Iterator[Frames]:
    """Decode a video that `write_video` wrote, frame by frame, uint8 [height, width, 3] RGB."""
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            pixels = frame.reformat(
                format="rgb24",
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
            )
            yield cast(Frames, pixels.to_ndarray())
