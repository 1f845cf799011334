"""The web application: documents, media and the page; reads runs, changes nothing.

What a visitor names is looked up and never becomes a path. Nothing that a record says is
written into markup: documents are JSON, and the page's policy forbids inline scripts.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wamsim.contracts import EpisodeKey
from wamsim.errors import WamsimError
from wamsim.provenance import wamsim_version
from wamsim.viewer import sheets
from wamsim.viewer.film_response import film_response
from wamsim.viewer.library import Library, episode_key
from wamsim.viewer.page_files import page_files, plotly_script
from wamsim.viewer.shelf import NotThere
from wamsim.viewer.studio import Film, Studio

POLL_S = 2.0  # a page of a run that is being written asks so often

HEADERS = {
    # Plotly writes styles into elements; scripts come from files alone.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    # Other pages in the same browser may not embed what is served here.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

Endpoint = Callable[[Request], Awaitable[Response]]


def application(library: Library, studio: Studio, hosts: Iterable[str] = ()) -> ASGIApp:
    """Build the application.

    Args:
        library: What there is to show.
        studio: Who draws.
        hosts: Names, beside this machine's own, by which it may be asked for.
    """
    pages = Pages(library, studio)
    episode = "{run}/{suite}/{task}/{trial}"
    routes = {
        "/data/{name:path}.json": pages.document,
        f"/media/video/{episode}/{{camera}}.mp4": pages.video,
        f"/media/preview/{episode}.mp4": pages.preview,
        f"/media/imagined/{episode}/{{imaginer}}/{{query}}.webp": pages.sheet,
        f"/media/strip/{episode}/{{imaginer}}.webp": pages.strip,
        "/exports/{file}": pages.export,
        "/config.js": pages.config,
        "/plotly.min.js": pages.plotly,
        "/{file:path}": pages.file,
    }
    app = Starlette(
        routes=[
            Route(path, _told(endpoint), methods=["GET", "HEAD"])
            for path, endpoint in routes.items()
        ],
        exception_handlers={HTTPException: _http_error},
    )
    return Guard(app, hosts)


class Pages:
    """The endpoints.

    Args:
        library, studio: See `application`.
    """

    def __init__(self, library: Library, studio: Studio) -> None:
        self._library, self._studio = library, studio

    async def document(self, request: Request) -> Response:
        """A JSON document, or 304 when the page has it already.

        With the query "soon" it is an episode that a pointer rests on: its scene is loaded.
        """
        name = request.path_params["name"]
        text = await run_in_threadpool(self._library.text, name)
        comes = "if-none-match" not in request.headers  # not a page that polls
        # a film that is asked for loads its scene itself
        if comes and name.startswith("episode/") == ("soon" in request.query_params):
            look = await run_in_threadpool(self._library.likely, name)
            if look is not None:
                self._studio.warm(look)
        return _tagged(request, text.body.encode(), text.tag, "application/json")

    async def video(self, request: Request) -> Response:
        """An episode from one camera; drawn while it is sent."""
        given = request.path_params
        prepared = await run_in_threadpool(self._film, given)
        return await film_response(request, self._studio, prepared)

    def _film(self, given: dict[str, str]) -> Film:
        seen = self._library.shelf.episode(given["run"], _key(given))
        task = self._library.illustrator.task(seen.config, seen.record)
        if given["camera"] not in task.cameras:
            raise NotThere(f"there is no camera {given['camera']!r}")
        return self._studio.film(
            seen.file.path,
            seen.file.stamp,
            seen.config,
            given["camera"],
            frames=seen.record.steps + 1,
            fps=task.control_hz,
        )

    async def preview(self, request: Request) -> Response:
        """A small looping video."""
        future = await run_in_threadpool(self._preview, request.path_params)
        return FileResponse(
            await asyncio.wrap_future(future),
            media_type="video/mp4",
            headers={"Cache-Control": "no-cache"},
        )

    def _preview(self, given: dict[str, str]) -> Future[Path]:
        seen = self._library.shelf.episode(given["run"], _key(given))
        task = self._library.illustrator.task(seen.config, seen.record)
        camera = self._library.illustrator.standard_cameras(task)[0]
        return self._studio.preview(
            seen.file.path, seen.file.stamp, seen.config, camera, frames=seen.record.steps + 1
        )

    async def sheet(self, request: Request) -> Response:
        """One query's imagined, real and difference."""
        given, library = request.path_params, self._library
        if not given["query"].isdecimal():
            raise NotThere(f"there is no query {given['query']!r}")
        query = int(given["query"])
        one = await run_in_threadpool(
            library.imaginer, given["run"], _key(given), given["imaginer"]
        )
        found = await run_in_threadpool(library.sheet, one, query, self._studio)
        if not isinstance(found, bytes):
            frames = await asyncio.wrap_future(found)
            shown = await run_in_threadpool(library.shown, one, query)
            found = await run_in_threadpool(sheets.retrieved_sheet, one.about, shown, frames)
        return _tagged(request, found, f"{one.seen.run.tag}-{query}", "image/webp")

    async def strip(self, request: Request) -> Response:
        """The whole episode's imagined pictures of one horizon."""
        given = request.path_params
        data, tag = await run_in_threadpool(self._strip, given)
        return _tagged(request, data, tag, "image/webp")

    def _strip(self, given: dict[str, str]) -> tuple[bytes, str]:
        one = self._library.imaginer(given["run"], _key(given), given["imaginer"])
        if one.about.kind != sheets.DECODED:
            raise NotThere("this model draws no pictures, so there is no strip of them")
        return sheets.decoded_strip(one.about), f"{one.seen.run.tag}-strip"

    async def export(self, request: Request) -> Response:
        """The leaderboard in another format."""
        name = request.path_params["file"]
        text, kind = await run_in_threadpool(self._library.export, name)
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        }
        return Response(text, media_type=kind, headers=headers)

    async def config(self, request: Request) -> Response:
        """Which of its two worlds the page is in."""
        return Response(
            config_script("served"),
            media_type="text/javascript",
            headers={"Cache-Control": "no-cache"},
        )

    async def plotly(self, request: Request) -> Response:
        """Plotly's script, from its installed package."""
        return FileResponse(await run_in_threadpool(plotly_script), media_type="text/javascript")

    async def file(self, request: Request) -> Response:
        """A file of the page."""
        files = await run_in_threadpool(page_files)
        path: Path | None = files.get(request.path_params["file"] or "index.html")
        if path is None:
            raise NotThere(f"there is no {request.url.path}")
        return FileResponse(path, headers={"Cache-Control": "no-cache"})


def config_script(mode: str) -> str:
    """Write ``config.js``.

    Args:
        mode: "served" or "report".
    """
    config = {"mode": mode, "poll_s": POLL_S, "wamsim": wamsim_version()}
    return f"window.wamsimConfig = {json.dumps(config)};\n"


def _key(given: dict[str, str]) -> EpisodeKey:
    return episode_key(given["suite"], given["task"], given["trial"])


def _tagged(request: Request, data: bytes, tag: str, kind: str) -> Response:
    """Answer with data, or with 304 when the visitor has it."""
    quoted = f'"{tag}"'
    headers = {"ETag": quoted, "Cache-Control": "no-cache"}
    known = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
    if quoted in known or f"W/{quoted}" in known:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)


def _told(endpoint: Endpoint) -> Endpoint:
    """Turn what cannot be shown into its sentence."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except NotThere as error:
            return _message(str(error), 404)
        except WamsimError as error:
            return _message(str(error), 409)
        except OSError as error:  # a run that is moved or deleted while it is looked at
            return _message(f"a file changed while it was read ({error}); look again", 409)

    return answer


def _message(text: str, status: int) -> Response:
    headers = {"Cache-Control": "no-store"}
    return JSONResponse({"message": text}, status_code=status, headers=headers)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = "this server only shows; ask with GET" if status == 405 else "there is nothing here"
    return _message(text, status)


class Guard:
    """Refuses requests under a foreign name, and puts `HEADERS` on every answer.

    A page elsewhere can have its own name point at this machine (DNS rebinding) and would then
    read what is served here; its requests carry that name.

    Args:
        app: What is guarded.
        hosts: Names that are allowed beside this machine's own and plain addresses.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", socket.gethostname().lower(), *(h.lower() for h in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guarded = partial(_with_headers, send)
        if not self._allowed(scope):
            text = "this address is not one of the viewer's; open the one that it printed"
            await _message(text, 421)(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _allowed(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) != 1:
            return False
        name = host_name(given[0].decode("latin-1"))
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower() in self._names
        return True  # an address cannot be rebound


def host_name(host: str) -> str:
    """Take the port, and IPv6's brackets, off a Host header."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rsplit(":", 1)[0] if host.count(":") == 1 else host


async def _with_headers(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
        message = {**message, "headers": [*message.get("headers", []), *extra]}
    await send(message)
