"""A real browser over a real `wamsim view`, and small runs for it to show."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pixel_runs import evaluate_pixels, short_pool

from wamsim.contracts import EpisodeKey
from wamsim.episode import Episode, read_episode, write_episode

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SUITE, TASK = "tabletop_object", "put_can_in_basket"
KEY = EpisodeKey(SUITE, TASK, 0)
INJECTED = (
    "put <img src=x onerror=\"window.hacked = 1\"> <script>window.hacked = 2</script> & 'away'"
)


def chromium() -> str:
    """Give the browser: WAMSIM_CHROMIUM, else the first on the path; skip the test without."""
    given = os.environ.get("WAMSIM_CHROMIUM")
    found = given or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip("no chromium on the path; apt-get install chromium, or set WAMSIM_CHROMIUM")
    return found


def make_runs(folder: Path, cache: Path) -> None:
    """Make four runs of one episode each, all of the same key but the last.

    "oracle" and "clumsy" reach the goal after different numbers of steps; "pixels" fails at
    its limit, imagines latents (so its pictures are retrieved) and predicts values; "drawn"
    fails, and imagines pictures. "odd" is "clumsy" with markup in its instruction.
    """
    from envs import evaluation
    from wamsim.registry import PolicyChoice

    def run(
        name: str, family: str, variant: str = "", imagine: bool = False, **options: object
    ) -> None:
        config = evaluation.EvalConfig(
            policy=PolicyChoice(family=family, variant=variant, options=options),
            suites=(SUITE,),
            imagine=imagine,
        )
        resources = evaluation.Resources(workers=1, slots=1, cache_dir=cache)
        out = folder / name
        evaluation.evaluate(config, out=out, episodes=1, tasks=(TASK,), resources=resources)

    run("oracle", "oracle")
    run("clumsy", "oracle", noise=0.4)
    evaluate_pixels(folder / "pixels", cache, SUITE, episodes=1, tasks=(TASK,), limit=24)
    real, evaluation.Pool = evaluation.Pool, short_pool(16)  # type: ignore[misc]
    try:
        run("drawn", "fastwam", "joint", imagine=True)
    finally:
        evaluation.Pool = real  # type: ignore[misc]
    shutil.copytree(folder / "clumsy", folder / "odd")
    (path,) = (folder / "odd").glob("episodes/*/*/*.safetensors")
    episode = read_episode(path)
    record = replace(episode.record, instruction=INJECTED)
    write_episode(folder / "odd", Episode(record, episode.arrays))


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def viewer(*runs: Path, cache: Path) -> Iterator[str]:
    """Serve run folders with `wamsim view` in a process of its own; gives the address."""
    port = free_port()
    command = [
        sys.executable, "-c", "import wamsim_cli; wamsim_cli.main()", "view", *map(str, runs),
        "--port", str(port), "--no-open",
    ]  # fmt: skip
    env = {**os.environ, "WAMSIM_CACHE": str(cache)}
    with subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            address = f"http://127.0.0.1:{port}/"
            wait_for(address, server)
            yield address
        finally:
            server.terminate()
            server.communicate(timeout=20)


def wait_for(address: str, server: subprocess.Popen[str]) -> None:
    """Wait until the server answers; fail with its words when it ends before."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if server.poll() is not None:
            assert server.stdout is not None
            raise AssertionError(f"wamsim view ended: {server.stdout.read()}")
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2):
            return
        time.sleep(0.1)
    raise AssertionError("wamsim view did not answer within 60 s")


# Notes which frame each video shows and when it went to the screen: an independent witness of
# what a player only asks for. [[video, milliseconds, frame], ...]
WITNESS = """
(fps) => {
  window.shown = [];
  [...document.querySelectorAll(".pane video")].forEach((video, i) => {
    const note = (_, meta) => {
      window.shown.push([i, meta.presentationTime, Math.floor(meta.mediaTime * fps + 0.01)]);
      video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
  });
}
"""
REFRESH_MS = 1000 / 60  # what is nearer in time than this is on the screen at once


def frames_apart(shown: list[list[float]], lengths: list[int]) -> list[int]:
    """Say how many frames videos were apart, as often as two showed a new frame at once.

    A busy browser does not report every frame, so a video's last report may be old: only
    reports within one refresh of the screen are compared.

    Args:
        shown: (video, milliseconds, frame) of reported frames.
        lengths: Frames of each video; a last frame stays, and is not compared.
    """
    reports: list[list[tuple[float, int]]] = [[] for _ in lengths]
    for video, at, frame in shown:
        if frame < lengths[int(video)] - 1:
            reports[int(video)].append((at, int(frame)))
    out: list[int] = []
    for a, of_a in enumerate(reports):
        for of_b in reports[a + 1 :]:
            for at, frame in of_a:
                near = [other for when, other in of_b if abs(when - at) <= REFRESH_MS]
                if near:
                    out.append(min(abs(frame - other) for other in near))
    return out


def faults(results: dict[str, Any]) -> list[str]:
    """Name what axe-core found to be serious or critical, with the elements."""
    return [
        f"{v['id']} ({v['impact']}): {node['target']} {node['failureSummary'][:200]}"
        for v in results["violations"]
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]
