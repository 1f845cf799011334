"""Jobs over processes: done once each, whoever dies; no process outlives its reason."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from envs.processes import environment, spread
from wamsim.errors import AssetsMissing


class Clerk:
    """Writes a file per job, named after it; some jobs are trouble."""

    def __init__(self, folder: Path, pause_s: float = 0.0) -> None:
        self.folder, self.pause_s = folder, pause_s

    def do(self, job: str) -> str | None:
        time.sleep(self.pause_s)
        if "killed" in job:
            os.kill(os.getpid(), signal.SIGKILL)
        if "assets" in job:
            raise AssetsMissing("download them")
        if "defect" in job:
            raise KeyError("a defect")
        if "sleep" in job:
            (self.folder / job).write_text(str(os.getpid()))
            time.sleep(60)
        (self.folder / job).write_text(str(os.getpid()))
        return "left out" if "skip" in job else None

    def close(self) -> None:
        pass


def run(
    folder: Path, jobs: list[str], processes: int, pause_s: float = 0.0
) -> dict[str, str | None]:
    clerk = partial(Clerk, folder, pause_s)
    return dict(spread(jobs, clerk, processes=processes, group=lambda job: job[0]))


def test_one_job_or_one_process_needs_no_other(tmp_path: Path) -> None:
    assert run(tmp_path, ["a", "b-skip"], 1) == {"a": None, "b-skip": "left out"}
    assert run(tmp_path, ["c"], 8) == {"c": None}
    assert {p.read_text() for p in tmp_path.iterdir()} == {str(os.getpid())}
    assert run(tmp_path, [], 8) == {}


def test_a_process_keeps_to_its_group_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    jobs = ["a1", "a2", "b1", "a3-killed", "b2-skip", "b3"]
    # Slow enough that neither has finished its own group before the other has begun.
    answers = run(tmp_path, jobs, 2, pause_s=0.3)
    assert set(answers) == set(jobs)
    assert answers.pop("a3-killed") == (
        "the process that worked on it ended with exit code -9 (signal 9)"
    )
    assert answers.pop("b2-skip") == "left out"
    assert set(answers.values()) == {None}
    pids = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert pids["a1"] != pids["b1"]
    assert pids["a1"] == pids["a2"]


@pytest.mark.parametrize(
    ("job", "error", "words"),
    [("assets", AssetsMissing, "download them"), ("defect", RuntimeError, "KeyError: 'a defect'")],
)
def test_what_would_hit_every_job_is_raised(
    tmp_path: Path, job: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(tmp_path, [job, "b-sleep"], 2)
    assert not psutil.Process().children(recursive=True) or all(
        "resource_tracker" in " ".join(child.cmdline())
        for child in psutil.Process().children(recursive=True)
    )


def test_giving_up_in_between_ends_the_processes(tmp_path: Path) -> None:
    jobs = ["a", "b", "c", "d"]
    answers = spread(jobs, partial(Clerk, tmp_path), processes=2, group=str)
    next(answers)
    answers.close()
    pids = {int(p.read_text()) for p in tmp_path.iterdir()}
    assert pids
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAMSIM_TEST_A", "before")
    with environment({"WAMSIM_TEST_A": "1", "WAMSIM_TEST_B": "2"}):
        assert (os.environ["WAMSIM_TEST_A"], os.environ["WAMSIM_TEST_B"]) == ("1", "2")
    assert os.environ["WAMSIM_TEST_A"] == "before"
    assert "WAMSIM_TEST_B" not in os.environ
