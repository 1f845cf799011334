"""Serve the page until Ctrl-C, on this machine alone unless told otherwise."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from wamsim.errors import RecordCorrupt, WamsimError
from wamsim.viewer.illustrator import Illustrator
from wamsim.viewer.library import Library
from wamsim.viewer.server import application
from wamsim.viewer.shelf import HOW_TO_MAKE_A_RUN, IT_APPEARS, Shelf, find_runs
from wamsim.viewer.studio import Studio

PORT = 8765
LOOPBACK = "127.0.0.1"
_GRACE_S = 1  # for answers under way when Ctrl-C comes; a film may take long

Said = Callable[[str], None]


class PortInUse(WamsimError):
    """Another program listens there."""


def serve(
    roots: Sequence[Path],
    illustrator: Illustrator,
    *,
    cache: Path,
    host: str = LOOPBACK,
    port: int = PORT,
    open_page: bool = True,
    said: Said = print,
) -> None:
    """Serve runs as a page; returns when somebody presses Ctrl-C.

    Args:
        roots: Run folders, or folders that hold them.
        illustrator: Knows and draws tasks.
        cache: Folder for what is drawn.
        host: Address to listen at.
        port: Likewise; 0 takes a free one.
        open_page: Open it in the browser, where there is one.
        said: Prints a sentence.

    Raises:
        PortInUse: Another program listens there.
        WamsimError: The address cannot be listened at.
    """
    listener = listen(host, port)
    with listener:
        runs = find_runs(roots)
        if not runs:
            places = ", ".join(map(str, roots))
            said(f"There is no run in {places} yet. {HOW_TO_MAKE_A_RUN} {IT_APPEARS}")
        if not is_loopback(host):
            said(
                f"Everybody who reaches {host} can look at these runs; nothing asks who they "
                f"are. Without --host only this machine can."
            )
        shown = "localhost" if host in ("0.0.0.0", "::") else host
        shown = f"[{shown}]" if ":" in shown else shown
        address = f"http://{shown}:{listener.getsockname()[1]}/"
        plural = "" if len(runs) == 1 else "s"
        said(f"{len(runs)} run{plural} at {address} (Ctrl-C ends it)")
        studio = Studio(illustrator, cache)
        try:
            names = () if is_loopback(host) else (host,)
            app = application(Library(Shelf(roots), illustrator), studio, names)
            config = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
            # Somebody who jumps in a film hangs up on the rest of it; that is no news.
            logging.getLogger("asyncio").setLevel(logging.ERROR)
            if open_page:
                threading.Timer(0.3, _open, [address]).start()
            with contextlib.suppress(KeyboardInterrupt):
                _Server(config).run(sockets=[listener])
        finally:
            studio.close()


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; answers that are cut off by that are no errors."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().handle_exit(sig, frame)


def listen(host: str, port: int) -> socket.socket:
    """Open the listening socket before anything else is started.

    Raises:
        PortInUse, WamsimError: See `serve`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port whose last user has just gone is free; one that is listened at is not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} is in use, perhaps by another `wamsim view`. Choose another with "
                f"--port {port + 1 if port < 65535 else PORT}, or --port 0 for any free one."
            ) from error
        raise WamsimError(
            f"cannot listen at {host}, port {port}: {error}. Leave out --host for this machine "
            f"alone; ports go from 1024 to 65535."
        ) from error
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_runs(roots: Sequence[Path]) -> list[Path]:
    """List the run folders at or below paths that somebody named.

    Raises:
        RecordCorrupt: A path holds none.
    """
    for root in roots:
        if not find_runs([root]):
            raise RecordCorrupt(
                f"there is no run folder there or below: none has a run.json. {HOW_TO_MAKE_A_RUN} "
                f"Folder: {root}"
            )
    return find_runs(roots)


def _open(address: str) -> None:
    # Without a screen a text browser would take over the terminal.
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return
    with contextlib.suppress(webbrowser.Error):
        webbrowser.open(address)
