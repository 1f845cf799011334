"""Send a film, or any range of it, while it is drawn."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from wamsim.viewer.desk import CannotDraw
from wamsim.viewer.film import Layout
from wamsim.viewer.studio import Film, Studio

_LOOK_S = 0.02  # between looks whether a frame is there: less than a frame lasts
_PIECE = 1 << 16  # bytes sent at once

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


async def film_response(request: Request, studio: Studio, film: Film) -> Response:
    """Answer a request for a film or a part of it.

    Raises:
        CannotDraw: It cannot be drawn.
    """
    layout = await _layout(studio, film)
    tag = f'"{film.spec.target.stem}"'
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Cache-Control": "no-cache",
        "Content-Type": "video/mp4",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range")
    if asked is not None and request.headers.get("if-range", tag) != tag:
        asked = None  # of an older film
    span = parse_range(asked, layout.size)
    if span is None:
        headers["Content-Range"] = f"bytes */{layout.size}"
        return Response(status_code=416, headers=headers)
    first, end = span
    status = 200
    if asked is not None and _RANGE.fullmatch(asked.strip()):
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{layout.size}"
        status = 206
    headers["Content-Length"] = str(end - first)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    body = film_bytes(studio, film, layout, first, end)
    return StreamingResponse(body, status_code=status, headers=headers)


async def _layout(studio: Studio, film: Film) -> Layout:
    reader = object()
    try:
        while film.layout is None:
            if film.fault is not None:
                raise CannotDraw(film.fault)
            studio.want(film, reader, 0)
            await asyncio.sleep(_LOOK_S)
        return film.layout
    finally:
        studio.leave(film, reader)


async def film_bytes(
    studio: Studio, film: Film, layout: Layout, first: int, end: int
) -> AsyncIterator[bytes]:
    """Give bytes first..end of a film, each as soon as its frame is drawn.

    Raises:
        CannotDraw: Drawing failed on the way; the answer then breaks off.
    """
    reader = object()
    descriptor = film.open()
    at = first
    try:
        while at < end:
            frame = layout.frame_at(at)
            if frame >= 0 and not film.done[frame]:
                if film.fault is not None:
                    raise CannotDraw(film.fault)
                studio.want(film, reader, frame)
                await asyncio.sleep(_LOOK_S)
                continue
            studio.leave(film, reader)
            while layout.end_of(frame) < min(end, at + _PIECE) and film.done[frame + 1]:
                frame += 1
            upto = min(end, layout.end_of(frame), at + _PIECE)
            yield os.pread(descriptor, upto - at, at)
            at = upto
    finally:
        studio.leave(film, reader)
        os.close(descriptor)


def parse_range(asked: str | None, size: int) -> tuple[int, int] | None:
    """Read a Range header: (first byte, byte behind the last); None when it lies outside.

    One range is served; what is several or malformed gets the whole, as RFC 9110, 14.2
    allows.
    """
    found = _RANGE.fullmatch(asked.strip()) if asked else None
    if found is None or found.group(1) == found.group(2) == "":
        return 0, size
    first, last = found.groups()
    if first == "":
        length = min(int(last), size)
        return (size - length, size) if length else None
    begin = int(first)
    end = min(int(last) + 1, size) if last else size
    if begin >= size or end <= begin:
        return None
    return begin, end
