"""Hundreds of episodes in one run: no process grows."""

from __future__ import annotations

import gc
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import psutil
import pytest
from pixel_runs import evaluate_pixels

from envs.evaluation import EvalConfig, Resources, evaluate
from envs.scene import SuiteOptions
from envs.worker import Begin, Run, Worker, WorkerSpec
from wamsim.contracts import EpisodeKey
from wamsim.episode import Record
from wamsim.messages import Began, Ran, View
from wamsim.registry import choose_policy
from wamsim.rollout import Observer
from wamsim.run_folder import episode_files

pytestmark = [pytest.mark.slow, pytest.mark.sim]

EPISODES, SETTLED = 300, 50
GROWTH = 8e6  # bytes over the 250 episodes that follow; one leaked picture each would be 6e6


class Scales(Observer):
    """Weighs this process and its workers after every episode: resident bytes."""

    def __init__(self) -> None:
        self.own: list[int] = []
        self.workers: list[dict[int, int]] = []

    def episode(self, record: Record) -> None:
        gc.collect()
        me = psutil.Process()
        self.own.append(me.memory_info().rss)
        weights = {}
        for child in me.children():
            if "spawn_main" in " ".join(child.cmdline()):  # not the resource tracker
                weights[child.pid] = child.memory_info().rss
        self.workers.append(weights)

    def check(self) -> None:
        assert len(self.own) == EPISODES
        pids = set(self.workers[SETTLED])
        assert len(pids) == 2
        assert all(set(weights) == pids for weights in self.workers[SETTLED:])  # nobody died
        curves = {"main": self.own, **{p: [w.get(p, 0) for w in self.workers] for p in pids}}
        for who, curve in curves.items():
            late = np.array(curve[SETTLED:], float)
            slope = np.polyfit(np.arange(len(late)), late, 1)[0]
            print(f"\n{who}: {late[0] / 1e6:.1f} MB, {slope / 1e3:+.2f} kB an episode")
            assert slope * len(late) < GROWTH, who


def test_blind_episodes_do_not_grow(tmp_path: Path, scene_cache_dir: Path) -> None:
    scales = Scales()
    evaluate(
        EvalConfig(policy=choose_policy("random"), suites=("tabletop_object",)),
        out=tmp_path, episodes=EPISODES // 5, observers=[scales],
        resources=Resources(workers=2, slots=2, cache_dir=scene_cache_dir),
    )  # fmt: skip
    assert len(episode_files(tmp_path)) == EPISODES
    scales.check()


def test_seeing_episodes_do_not_grow(tmp_path: Path, scene_cache_dir: Path) -> None:
    scales = Scales()
    evaluate_pixels(
        tmp_path, scene_cache_dir, "tabletop_object", tasks=(), episodes=EPISODES // 5,
        workers=2, slots=2, limit=7, observers=[scales],
    )  # fmt: skip
    assert len(episode_files(tmp_path)) == EPISODES
    scales.check()


def test_changing_scenes_gives_memory_back(tmp_path: Path, scene_cache_dir: Path) -> None:
    # A worker with room for one scene walks through three of them, again and again.
    tasks = {
        "tabletop_object": "put_can_in_basket",
        "tabletop_spatial": "put_bowl_on_stove_on_plate",
        "tabletop_goal": "turn_on_stove",
    }
    view = View(cameras=("agentview",), size=(32, 32), capacity=1)
    shared = SharedMemory(create=True, size=view.nbytes)
    worker = Worker(
        WorkerSpec(
            suites=tuple(tasks), options=SuiteOptions(cache_dir=scene_cache_dir), views=(view,),
            slots=1, exact=False, memory_bound=1, shared=shared.name,
        )
    )  # fmt: skip
    weights = []
    try:
        for turn in range(40):
            suite, name = list(tasks.items())[turn % 3]
            key = EpisodeKey(suite, name, turn)
            assert isinstance(worker.handle(Begin(slot=0, key=key, run_seed=0)), Began)
            chunk = np.zeros((2, 7), np.float32)
            assert isinstance(worker.handle(Run(slot=0, actions=chunk, looks=((2,),))), Ran)
            gc.collect()
            weights.append(psutil.Process().memory_info().rss)
    finally:
        worker.close()
        shared.close()
        shared.unlink()
    late = np.array(weights[10:], float)
    slope = np.polyfit(np.arange(len(late)), late, 1)[0]
    print(f"\n{late[0] / 1e6:.1f} MB, {slope / 1e6:+.3f} MB a scene")
    assert slope < 0.5e6
