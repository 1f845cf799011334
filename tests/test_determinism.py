"""The same episode gives the same bytes, whatever runs beside it and whoever kills the run.

The policy's actions depend on every pixel, on proprioception, seeds and its memory, so one
changed bit anywhere changes all that follows.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from pixel_runs import evaluate_pixels

from wamsim.contracts import EpisodeKey
from wamsim.episode import Episode, arrays_equal, read_episode
from wamsim.run_folder import episode_files

HERE = Path(__file__).resolve().parent

pytestmark = pytest.mark.sim


def _read(folder: Path) -> dict[EpisodeKey, Episode]:
    found = [read_episode(path) for path in episode_files(folder)]
    return {episode.record.key: episode for episode in found}


def check_equal(folder: Path, reference: Path) -> None:
    found, expected = _read(folder), _read(reference)
    assert found.keys() == expected.keys()
    for key, episode in found.items():
        assert arrays_equal(episode, expected[key]) == [], key
        assert sorted(episode.arrays) == sorted(expected[key].arrays)
        a, b = (
            dataclasses.replace(e.record, timings={}, attempt=1, provenance_hash="")
            for e in (episode, expected[key])
        )
        assert a == b


class Killed:
    """A run in a process of its own, and what SIGKILL leaves of it."""

    def __init__(self, out: Path, cache: Path, settings: dict) -> None:
        command = [sys.executable, str(HERE / "pixel_runs.py"), str(out), str(cache)]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
        self.out = out
        self.process = subprocess.Popen([*command, json.dumps(settings)], env=environment)

    def after(self, episodes: int, patience_s: float = 120) -> set[Path]:
        """Kill the run when so many episodes are on disk and the next is under way.

        Returns:
            Files of shared memory that it used.
        """
        until = time.monotonic() + patience_s
        while len(episode_files(self.out)) < episodes:
            assert self.process.poll() is None, "it ended by itself"
            assert time.monotonic() < until, f"only {len(episode_files(self.out))} episodes"
            time.sleep(0.01)
        time.sleep(0.15)
        main = psutil.Process(self.process.pid)
        used = {Path(m.path) for m in main.memory_maps() if "wamsim_" in Path(m.path).name}
        others = main.children(recursive=True)  # workers, resource tracker
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        _, alive = psutil.wait_procs(others, timeout=10)  # nobody tells them to stop
        assert not alive
        return used


# ------------------------------------------------------------------------------ default


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, scene_cache_dir: Path) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    evaluate_pixels(out, scene_cache_dir, "tabletop_object", tasks=("0", "3"))
    return out


def test_workers_and_slots_change_no_byte(
    undisturbed: Path, tmp_path: Path, scene_cache_dir: Path
) -> None:
    evaluate_pixels(
        tmp_path, scene_cache_dir, "tabletop_object", tasks=("0", "3"), workers=2, slots=2
    )
    check_equal(tmp_path, undisturbed)


def test_the_episodes_differ_from_each_other(undisturbed: Path) -> None:
    # else the tests around this one would prove little
    episodes = _read(undisturbed)
    assert len(episodes) == 4
    for name in ("actions", "states", "real_latents", "imagined_latents", "value"):
        assert len({e.arrays[name].tobytes() for e in episodes.values()}) == 4
    for episode in episodes.values():
        assert np.abs(episode.arrays["real_latents"].astype(float)).max() > 5e-4  # it moves
        assert episode.arrays["imagined_executed"].tolist() == [[True, True]] * 2 + [[False] * 2]


def test_a_run_killed_in_the_middle_resumes_to_the_same_bytes(
    tmp_path: Path, scene_cache_dir: Path
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    # so many that a kill that comes late still finds it in the middle
    settings = {"suite": "tabletop_object", "tasks": ["0", "3"], "episodes": 10}
    evaluate_pixels(whole, scene_cache_dir, **settings)
    used = Killed(out, scene_cache_dir, {**settings, "slots": 2}).after(episodes=1)
    assert len(used) == 1
    assert not [path for path in used if path.exists()]
    done = len(episode_files(out))
    assert 1 <= done < 20
    result = evaluate_pixels(out, scene_cache_dir, **settings)
    assert (result.resumed, result.accounts.episodes) == (done, 20 - done)
    check_equal(out, whole)
    assert not list(out.rglob("*.tmp*"))


def test_a_resumed_run_may_grow(undisturbed: Path, tmp_path: Path, scene_cache_dir: Path) -> None:
    for episodes in (1, 2):
        result = evaluate_pixels(
            tmp_path, scene_cache_dir, "tabletop_object", tasks=("0",), episodes=episodes
        )
        assert result.accounts.episodes == 1
    found, expected = _read(tmp_path), _read(undisturbed)
    for key, episode in found.items():
        assert arrays_equal(episode, expected[key]) == []


# --------------------------------------------------------------------------------- slow

LARGER = {"tasks": ("0", "2"), "episodes": 6, "limit": 40}


@pytest.fixture(scope="module", params=["tabletop_object", "libero_object"])
def larger(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, scene_cache_dir: Path
) -> tuple[Path, dict, Callable]:
    """An undisturbed run of a dozen episodes, its settings, and how to run them again."""
    settings = {"suite": request.param, **LARGER}
    if request.param.startswith("libero"):
        settings["libero_assets"] = request.getfixturevalue("libero_assets")

    def again(out: Path, **changes: object) -> None:
        evaluate_pixels(out, scene_cache_dir, **{**settings, **changes})

    out = tmp_path_factory.mktemp("larger") / "run"
    again(out)
    return out, settings, again


@pytest.mark.slow
@pytest.mark.libero
@pytest.mark.parametrize(("workers", "slots"), [(1, 4), (2, 1), (2, 4), (3, 1), (3, 4)])
def test_more_workers_and_slots_change_no_byte(
    larger: tuple[Path, dict, Callable], tmp_path: Path, workers: int, slots: int
) -> None:
    reference, _, again = larger
    again(tmp_path, workers=workers, slots=slots)
    check_equal(tmp_path, reference)


@pytest.mark.slow
@pytest.mark.libero
def test_a_run_killed_twice_resumes_to_the_same_bytes(
    larger: tuple[Path, dict, Callable], tmp_path: Path, scene_cache_dir: Path
) -> None:
    reference, settings, again = larger
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    counts = Counter()
    for kill in (1, 2):
        Killed(tmp_path, scene_cache_dir, {**settings, "workers": 2, "slots": 2}).after(4 * kill)
        counts[kill] = len(episode_files(tmp_path))
    assert 4 <= counts[1] < counts[2] < 12
    again(tmp_path, workers=2, slots=1)
    check_equal(tmp_path, reference)
