"""Measure the genuine LIBERO loop and wamsim side by side.

Both run the same task, initial states and actions, each in processes of its own. Every
wamsim figure stands between two genuine measurements of the same run, so that a noisy
machine moves both sides of a ratio. Nothing here is a test: it prints, it does not judge.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from envs.evaluation import EvalConfig, Resources, suite_options
from envs.pool import Pool
from envs.scene import SuiteOptions
from wamsim import gallery, registry
from wamsim.contracts import EpisodeKey, Observation, PolicyCard, Prediction
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, EEF_AXIS_ANGLE_GRIPPER
from wamsim.errors import nearest
from wamsim.registry import PolicyChoice
from wamsim.rollout import Accounts, Rollout, RolloutOptions
from wamsim.run_folder import RunFolder

SIZE = 256  # pixels; what published LIBERO evaluations render (OpenVLA, Cosmos Policy, Fast-WAM)
CAMERAS = ("agentview", "eye_in_hand")
PARTS = ("physics", "loop", "workers")
WAIT_STEPS = 10  # hold actions after set_init_state, as published scripts run them


def recorded_actions(steps: int, seed: int = 0) -> NDArray[np.float32]:
    """Make a smooth, seeded action sequence [steps, 7] that moves the arm and its fingers."""
    rng = np.random.default_rng(seed)
    actions = np.zeros((steps, 7), np.float32)
    drift = np.zeros(6)
    for i in range(steps):
        drift = 0.9 * drift + 0.3 * rng.normal(size=6)
        actions[i, :6] = np.clip(drift, -1, 1)
        actions[i, 6] = 1.0 if (i // 30) % 2 else -1.0
    return actions


class TablePolicy:
    """An instant policy that looks and then plays given actions."""

    def __init__(
        self, actions: NDArray[np.float32], execute: int, cameras: tuple[str, ...]
    ) -> None:
        self._actions = actions
        self.card = PolicyCard(
            name="bench",
            action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
            horizon=execute,
            execute=execute,
            cameras=cameras,
            image_size=(SIZE, SIZE),
            proprio=EEF_AXIS_ANGLE_GRIPPER,
            row_batch=False,
        )

    def act(self, obs: Observation) -> Prediction:
        """Give rows of the table."""
        at = (obs.step[:, None] + np.arange(self.card.horizon)) % len(self._actions)
        return Prediction(actions=self._actions[at])


# ------------------------------------------------------------------------- genuine


def _genuine_main(
    pipe: Connection, suite: str, task: int, options: SuiteOptions, cameras: bool
) -> None:
    from envs.libero import assets as libero_assets
    from envs.libero.genuine import make_genuine, reset_genuine

    backend = registry.suite(suite, options)
    entry = backend.suite.tasks[task]
    folder = libero_assets.require(options.libero_assets)
    env = make_genuine(suite, task, folder, size=SIZE, rendering=cameras)
    states = backend.initial_states(entry)
    hold = np.array(entry.action.hold)
    pipe.send("up")
    while True:
        order = pipe.recv()
        if order is None:
            # robosuite's contexts complain when the interpreter tears OpenGL down
            os._exit(0)
        index, actions = order
        began = time.perf_counter()
        env.seed(index)
        reset_genuine(env)
        env.set_init_state(states[index])
        start = time.perf_counter() - began
        for _ in range(WAIT_STEPS):
            env.step(hold)
        began = time.perf_counter()
        for action in actions:
            env.step(action.astype(np.float64))
        pipe.send((start, len(actions) / (time.perf_counter() - began)))


class Genuine:
    """hf-libero's OffScreenRenderEnv in a process of its own."""

    def __init__(self, suite: str, task: int, options: SuiteOptions, *, cameras: bool) -> None:
        context = mp.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_genuine_main,
            args=(theirs, suite, task, options, cameras),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def measure(self, index: int, actions: NDArray[np.float32]) -> tuple[float, float]:
        """Run one start and some steps.

        Returns:
            Seconds of the start, env steps per second after it.
        """
        self._pipe.send((index, actions))
        return self._pipe.recv()

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()


# -------------------------------------------------------------------------- wamsim


@contextmanager
def _pool(
    suite: str, resources: Resources, policy: TablePolicy, *, workers: int, slots: int,
    exact: bool, threads: int | None,
) -> Iterator[Pool]:  # fmt: skip
    config = EvalConfig(policy=_CHOICE, suites=(suite,))
    with Pool(
        (suite,),
        suite_options(config, resources),
        views=gallery.plan(policy.card).views,
        workers=workers,
        slots=slots,
        exact=exact,
        threads=threads,
    ) as pool:
        pool.wait_until_up()
        yield pool


_CHOICE = PolicyChoice(family="bench", variant="", options={})


def _roll(
    pool: Pool, policy: TablePolicy, suite: str, name: str, indices: range, versions: dict[str, int]
) -> Accounts:
    with tempfile.TemporaryDirectory() as scratch:
        keys = [EpisodeKey(suite, name, i) for i in indices]
        with RunFolder.open(Path(scratch) / "run", {"bench": True}, {}, planned=keys) as folder:
            return Rollout(policy, pool, folder, RolloutOptions()).run(keys, versions)


@dataclass
class _Line:
    what: str
    genuine: float
    ours: float
    shares: dict[str, float]
    workers: int


def _shares(accounts: Accounts, workers: int) -> dict[str, float]:
    # With one worker and one slot nothing overlaps, so the shares add up to the wall time.
    wall = accounts.wall * workers
    named = {
        "stepping": accounts.stepping / wall,
        "drawing": accounts.drawing / wall,
        "start": (accounts.starting + accounts.loading) / wall,
        "policy": accounts.policy / wall,
        "files": accounts.writing / wall,
    }
    return {**named, "rest": 1.0 - sum(named.values())}


def bench(
    *,
    suite: str,
    task: int,
    steps: int,
    workers: int,
    resources: Resources,
    console: Console,
    parts: Sequence[str] = PARTS,
    rounds: int = 3,
) -> None:
    """Measure and print; see the module.

    Args:
        suite: A LIBERO suite (the genuine loop runs nothing else).
        task: Its number.
        steps: Env steps of one genuine measurement.
        workers: Also measure this many workers at ``execute`` 8.
        resources: Folders.
        console: Where to print.
        parts: Which of `PARTS`; all take some minutes.
        rounds: Measurements per figure; medians are printed.
    """
    config = EvalConfig(policy=_CHOICE, suites=(suite,))
    options = suite_options(config, resources)
    backend = registry.suite(suite, options)
    entry = backend.suite.tasks[task]
    versions = {suite: backend.suite.version}
    actions = recorded_actions(entry.max_steps)
    console.print(
        f"{suite} task {task}: {entry.instruction}\n{SIZE}x{SIZE}, cameras {', '.join(CAMERAS)}; "
        f"medians of {rounds} rounds; every wamsim figure between genuine ones of the same run",
        highlight=False,
    )

    lines: list[_Line] = []
    starts: dict[str, list[float]] = {"genuine": [], "wamsim": []}

    def compare(
        what: str, genuine: Genuine, policy: TablePolicy, *, count: int = 1, slots: int = 1,
        exact: bool = False, threads: int | None = None,
    ) -> None:  # fmt: skip
        with (
            _pool(
                suite, resources, policy, workers=count, slots=slots, exact=exact, threads=threads
            ) as pool,
            console.status(what),
        ):
            # drawing at every step is slow enough to be measured by one episode
            episodes = (1 if policy.card.execute == 1 else 2) * count * slots
            _roll(pool, policy, suite, entry.name, range(count * slots), versions)  # warm
            theirs, ours, shares = [], [], []
            theirs.append(_genuine_rate(genuine, actions[:steps], starts["genuine"]))
            for round_ in range(rounds):
                first = round_ * episodes
                accounts = _roll(
                    pool, policy, suite, entry.name, range(first, first + episodes), versions
                )
                ours.append(accounts.steps / accounts.wall)
                shares.append(_shares(accounts, count))
                starts["wamsim"].append(accounts.starting / accounts.episodes)
                theirs.append(_genuine_rate(genuine, actions[:steps], starts["genuine"]))
        lines.append(
            _Line(
                what,
                statistics.median(theirs),
                statistics.median(ours),
                {k: statistics.median(s[k] for s in shares) for k in shares[0]},
                count,
            )
        )

    for part in parts:
        if part not in PARTS:
            raise nearest(part, PARTS, kind="part of the benchmark")
    try:
        if "physics" in parts:
            blind = Genuine(suite, task, options, cameras=False)
            compare("physics only", blind, TablePolicy(actions, 16, ()))
            compare("physics only, exact", blind, TablePolicy(actions, 16, ()), exact=True)
            blind.close()
        looking = [part for part in parts if part != "physics"]
        if looking:
            starts = {"genuine": [], "wamsim": []}
            genuine = Genuine(suite, task, options, cameras=True)
            if "loop" in parts:
                for execute in (1, 16):
                    policy = TablePolicy(actions, execute, CAMERAS)
                    compare(f"two cameras, execute {execute}", genuine, policy)
                policy = TablePolicy(actions, 8, CAMERAS)
                compare("two cameras, execute 8, exact", genuine, policy, exact=True)
            policy = TablePolicy(actions, 8, CAMERAS)
            compare("two cameras, execute 8", genuine, policy)
            if "workers" in parts:
                # A single worker rasterises on all cores; to see what a worker adds, both draw
                # on one thread.
                for count in (1, workers):
                    what = f"two cameras, execute 8, {count} x 1 thread"
                    compare(what, genuine, policy, count=count, threads=1)
            genuine.close()
    finally:  # an interrupted benchmark shows what it has measured
        if lines:
            _print(console, lines, starts)


def _genuine_rate(genuine: Genuine, actions: NDArray[np.float32], starts: list[float]) -> float:
    start, rate = genuine.measure(0, actions)
    starts.append(start)
    return rate


def _print(console: Console, lines: list[_Line], starts: dict[str, list[float]]) -> None:
    table = Table("env steps per second", "genuine", "wamsim", "ratio", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in lines:
        table.add_row(
            line.what,
            f"{line.genuine:.1f}",
            f"{line.ours:.1f}",
            f"[bold]{line.ours / line.genuine:.2f}x[/]",
        )
    if all(starts.values()):
        theirs, ours = (statistics.median(starts[k]) for k in ("genuine", "wamsim"))
        table.add_row(
            "episode start, ms (warm, no pictures)",
            f"{theirs * 1e3:.0f}",
            f"{ours * 1e3:.1f}",
            f"[bold]{theirs / ours:.0f}x[/]",
        )
    console.print(table)
    if lines[-1].workers > 1:
        console.print(
            f"{lines[-1].workers} workers against one, each drawing on one thread: "
            f"{lines[-1].ours / lines[-2].ours:.2f}x"
        )
    shares = Table("where the time goes", *lines[0].shares, box=None)
    for column in shares.columns[1:]:
        column.justify = "right"
    for line in lines:
        shares.add_row(line.what, *(f"{share:.1%}" for share in line.shares.values()))
    console.print(shares)
