"""Small real episodes and run folders for tests, and processes that die at bad moments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.episode import Episode, Record, episode_path
from wamsim.run_folder import RunFolder

HERE = Path(__file__).resolve().parent
# For child processes: this file's helpers, and wamsim installed or not.
CHILD = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}

KEY = EpisodeKey("libero_goal", "push_the_plate", 7)


def record(**changes: object) -> Record:
    fields: dict = {
        "key": KEY,
        "run_seed": 3,
        "outcome": Outcome.SUCCESS,
        "steps": 41,
        "success_step": 41,
        "instruction": "push the plate",
        "initial_state": 7,
        "suite_version": 1,
        "policy": "oracle",
        "config_hash": "c" * 32,
        "provenance_hash": "p" * 32,
        "seeds": {"fixtures": 2**64 - 1, "policy": 0},
        "fixtures": {"stove": ((0.1, -0.0, 1 / 3), (1.0, 0.0, 0.0, 5e-324))},
        "perturbation": {"light": {"scale": 0.1 + 0.2}},
        "timings": {"wall_s": 1.25},
        "notes": {"imagined": 4},
    }
    return Record(**{**fields, **changes})


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "states": rng.normal(size=(5, 3)),
        "actions": rng.normal(size=(4, 7)).astype(np.float32),
        "latents": rng.normal(size=(2, 3, 4)).astype(np.float16),
        "frames": rng.integers(0, 256, (2, 4, 4, 3), np.uint8),
        "first": np.array([True, False]),
        "query_steps": np.arange(3),
        "seeds": np.array([2**64 - 1], np.uint64),
        "value": np.float32([np.nan, -0.0]),
        "none": np.zeros((0, 7), np.float32),
        "scalar": np.array(2.5),
        "timing_act_s": rng.random(3),
    }


def kill_while_writing(run_dir: Path) -> Path:
    """Have another process write an episode, and kill it between write and rename."""
    code = (
        "import os, sys, time, pathlib, episode_doubles as t\n"
        "from wamsim.episode import write_episode\n"
        "def stop(*_):\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
        "os.replace = stop\n"
        "write_episode(pathlib.Path(sys.argv[1]), t.Episode(t.record(), t.arrays()))"
    )
    command = [sys.executable, "-c", code, str(run_dir)]
    with subprocess.Popen(command, env=CHILD, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "written\n"
        writer.send_signal(signal.SIGKILL)
    return episode_path(run_dir, KEY)


CONFIG = {"suite": "s", "seed": 0, "policy": {"name": "oracle", "execute": 8}}
PROVENANCE = {"wamsim": "0.1.0", "gpu": None}


def open_(path: Path, config: dict = CONFIG, provenance: dict = PROVENANCE, **more) -> RunFolder:
    return RunFolder.open(path, config, provenance, **more)


def key(index: int, task: str = "t", suite: str = "s") -> EpisodeKey:
    return EpisodeKey(suite, task, index)


def folder_record(folder: RunFolder, which: EpisodeKey, **changes: object) -> Record:
    fields = {"config_hash": folder.config_hash, "provenance_hash": folder.provenance_hash}
    if changes.get("outcome") is Outcome.ERROR:
        fields.update(success_step=None, reason="worker lost")
    return record(key=which, **{**fields, **changes})


def put(folder: RunFolder, which: EpisodeKey, x: float = 0.0, **changes: object) -> Path:
    arrays = {"x": np.full(3, x), "timing_s": np.random.default_rng().random(2)}
    return folder.write(Episode(folder_record(folder, which, **changes), arrays))


def shard(path: Path, indices: range, provenance: dict = PROVENANCE, **changes: object) -> Path:
    with open_(path, provenance=provenance, planned=[key(i) for i in indices]) as folder:
        for i in indices:
            put(folder, key(i), x=float(i), **changes)
    return path
