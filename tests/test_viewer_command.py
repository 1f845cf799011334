"""`wamsim view` and `wamsim report` as somebody types them, and real scenes in the viewer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import pytest
from episode_doubles import CHILD
from test_replay import SUITE, Photographer
from typer.testing import CliRunner
from viewer_doubles import write_run

import wamsim_cli
from envs.evaluation import EvalConfig, Resources, evaluate
from envs.illustrating import SceneIllustrator
from wamsim.episode import read_episode
from wamsim.errors import ConfigurationMismatch, RecordCorrupt, UnknownName
from wamsim.registry import PolicyChoice
from wamsim.run_folder import episode_files
from wamsim.video import read_frames
from wamsim.viewer.desk import CannotDraw
from wamsim.viewer.serve import PortInUse, listen
from wamsim.viewer.shelf import Shelf
from wamsim.viewer.studio import Studio

FILM = "media/video/run/s/t/0/front.mp4"
COMMAND = [sys.executable, "-c", "import wamsim_cli; wamsim_cli.main()"]


@contextmanager
def viewing(*arguments: str, cache: Path) -> Iterator[tuple[subprocess.Popen, list[str]]]:
    """Run `wamsim view` until the block ends; gives the process and what it said first."""
    command = [*COMMAND, "view", "--no-open", "--port", "0", "--cache", str(cache), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        lines: list[str] = []
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if "http://" in line:
                break
        try:
            yield process, lines
        finally:
            process.kill()


def test_view_serves_until_ctrl_c_and_ends_quietly(tmp_path: Path) -> None:
    write_run(tmp_path / "results" / "run")
    with viewing("--results", str(tmp_path / "results"), cache=tmp_path) as (process, lines):
        address = re.search(r"http://127\.0\.0\.1:\d+/", lines[-1])
        assert address is not None
        assert lines[-1].startswith("1 run at ")
        found = httpx2.get(f"{address[0]}data/runs.json").json()
        assert [run["id"] for run in found["runs"]] == ["run"]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, "")


SLOW = """
import sys
from pathlib import Path
from viewer_doubles import GreyIllustrator
from wamsim.viewer.serve import serve
root = Path(sys.argv[1])
serve([root], GreyIllustrator(pause_s=1.0), cache=root / "cache", port=0, open_page=False)
"""


@pytest.mark.parametrize("wait_s", [0.0, 3.0])  # while a process starts; in the middle of a film
def test_ctrl_c_is_quiet_while_a_film_is_sent(tmp_path: Path, wait_s: float) -> None:
    write_run(tmp_path / "run")
    command = [sys.executable, "-u", "-c", SLOW, str(tmp_path)]
    # A group of its own gets the signal, as all processes of a terminal do.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=CHILD,
        start_new_session=True,
    ) as process:  # fmt: skip
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        film = subprocess.Popen(
            [sys.executable, "-c", f"import httpx2; httpx2.get({address!r} + {FILM!r})"],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(1.0 + wait_s)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        film.wait()
    assert (process.returncode, errors) == (0, "")


def test_view_says_how_to_make_a_run_and_who_can_look(tmp_path: Path) -> None:
    options = ("--host", "0.0.0.0", "--results", str(tmp_path / "none"))
    with viewing(*options, cache=tmp_path) as (process, lines):
        assert "wamsim eval --policy oracle" in lines[0]
        assert "Everybody who reaches 0.0.0.0 can look at these runs" in lines[1]
        assert process.poll() is None  # it shows a run as soon as there is one


@pytest.mark.parametrize("command", [["view"], ["report", "--out", "OUT"]])
def test_a_folder_without_runs_is_refused(tmp_path: Path, command: list[str]) -> None:
    out = str(tmp_path / "out")
    arguments = [out if word == "OUT" else word for word in command]
    done = CliRunner().invoke(wamsim_cli.app, [*arguments, str(tmp_path)])
    assert isinstance(done.exception, RecordCorrupt)
    assert "there is no run folder there or below" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_port_in_use_is_said_before_anything_is_started(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        arguments = ["view", "--no-open", "--port", str(port), str(tmp_path / "run")]
        done = CliRunner().invoke(wamsim_cli.app, arguments)
    assert isinstance(done.exception, PortInUse)


# ---------------------------------------------------------------------------- scenes


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, resources: Resources) -> Path:
    """A failed episode of six steps."""
    done = evaluate(
        EvalConfig(
            policy=PolicyChoice(family="photographer", variant="", options={}), suites=(SUITE,)
        ),
        out=tmp_path_factory.mktemp("run") / "run",
        episodes=1,
        tasks=("0",),
        resources=resources,
        policy=Photographer(),
    )
    return done.folder


@pytest.mark.sim
def test_a_real_film_shows_the_recorded_steps(
    recorded: Path, resources: Resources, tmp_path: Path
) -> None:
    illustrator = SceneIllustrator(resources)
    (path,) = episode_files(recorded)
    run = Shelf([recorded]).run("run")
    (file,) = run.files
    config = run.info.config
    artist = illustrator.artist()
    (drawn,) = zip(*artist.draw(path, config, ("agentview",), (256, 256), range(7)), strict=True)
    artist.close()
    studio = Studio(illustrator, tmp_path, processes=1)
    try:
        film = studio.film(path, file.stamp, config, "agentview", frames=7, fps=20.0)
        studio.want(film, "test", 0)
        while not film.finished:
            assert film.fault is None
            time.sleep(0.02)
        gone = studio.film(path, file.stamp, config, "no such camera", frames=7, fps=20.0)
        studio.want(gone, "test", 0)
        while gone.fault is None:
            time.sleep(0.02)
        assert "camera" in gone.fault
        preview = studio.preview(path, file.stamp, config, "side", frames=7)
        with pytest.raises(CannotDraw, match="camera"):
            preview.result(timeout=60)
    finally:
        studio.close()
    for shown, real in zip(read_frames(film.file), drawn, strict=True):
        mse = np.mean((shown.astype(float) - real) ** 2)
        assert 10 * np.log10(255**2 / mse) > 34  # colours at half resolution cost most of it


@pytest.mark.sim
def test_a_task_is_known_by_its_record(recorded: Path, resources: Resources) -> None:
    import dataclasses

    illustrator = SceneIllustrator(resources)
    run = Shelf([recorded]).run("run")
    record = read_episode(episode_files(recorded)[0], only=()).record
    task = illustrator.task(run.info.config, record)
    assert (task.suite, task.name) == (record.key.suite, record.key.task)
    assert illustrator.standard_cameras(task) == ("agentview", "eye_in_hand")
    with pytest.raises(ConfigurationMismatch, match="version 9"):
        illustrator.task(run.info.config, dataclasses.replace(record, suite_version=9))
    key = dataclasses.replace(record.key, task="put_bred_in_basket")
    with pytest.raises(UnknownName, match="put_bread_in_basket"):
        illustrator.task(run.info.config, dataclasses.replace(record, key=key))
