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

__all__ = ["Caption", "Sheet", "encode", "read_frames", "say_colours", "to_yuv", "write_video"]

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
        composed = _composed(frames, caption, round(hold_s * fps))
        encode(temporary, composed, fps=fps, title=caption.instruction)
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


def encode(
    path: Path,
    frames: Iterator[Frames],
    *,
    fps: float,
    title: str = "",
    keyframe_every_s: float = _KEYFRAME_EVERY_S,
) -> None:
    """Encode frames as they come; no caption, no temporary name.

    Args:
        path: The .mp4.
        frames: uint8 [H, W, 3], even height and width.
        fps: Frames per second.
        title: Into the file's metadata.
        keyframe_every_s: Seconds between frames that a player can jump to.

    Raises:
        ValueError: There is no frame.
    """
    first = next(frames, None)  # before the file is made: no frames, no file
    if first is None:
        raise ValueError("there are no frames to make a video of")
    rate = Fraction(fps).limit_denominator(1000)
    options = {
        "crf": _CRF,
        "preset": "medium",
        "g": str(max(1, round(keyframe_every_s * fps))),
        "threads": "1",  # equal frames give equal bytes; drawing takes far longer than encoding
    }
    opened: Any = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
    with opened as file:  # Any: PyAV's stubs leave packets untyped
        file.metadata["title"] = title
        stream = file.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"  # what browsers and players take
        say_colours(stream.codec_context)
        for pixels in _with_first(first, frames):
            for packet in stream.encode(to_yuv(pixels)):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


def say_colours(context: Any) -> None:
    """Have an encoder say BT.709, or players guess by size and shift the colours."""
    context.colorspace = Colorspace.ITU709
    context.color_range = ColorRange.MPEG
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709


def to_yuv(pixels: Frames) -> av.VideoFrame:
    """Write uint8 [H, W, 3] RGB as the BT.709 that `say_colours` promises."""
    return av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        format="yuv420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
    )


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
