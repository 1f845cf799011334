"""Small demonstrations for training tests: a white square that the action moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from envs.evaluation import EvalConfig, Resources, evaluate
from wamsim import registry
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, PROPRIOS
from wamsim.demonstrations import Demonstration, DemonstrationInfo, write_demonstration
from wamsim.looks import Looks, LooksInfo

CAMERAS = ("agentview", "eye_in_hand")


def demonstration(
    index: int, *, steps: int = 12, success: bool = True, size: int = 64, task: str = "move"
) -> Demonstration:
    """Make episode `index`; its first action channel is the square's speed, in tenths of pixels."""
    rng = np.random.default_rng(index)
    actions = np.zeros((steps, 7), np.float32)
    actions[:, 0] = rng.uniform(-1, 1, steps)
    actions[:, 6] = rng.choice([-1.0, 1.0], steps)
    at = np.concatenate([[0.0], np.cumsum(actions[:, 0])]) * 4 + size / 2
    frames = np.full((steps + 1, size, size, 3), 40 + index % 5 * 20, np.uint8)
    for row, x in enumerate(at):
        left = int(np.clip(x, 0, size - 8))
        frames[row, 20:28, left : left + 8] = 255
    proprio = {
        name: np.repeat(at[:, None], c.dim, axis=1).astype(np.float32) / size
        for name, c in PROPRIOS.items()
    }
    return Demonstration(
        info=DemonstrationInfo(
            suite="squares", task=task, index=index, instruction=f"{task} the square",
            success=success, steps=steps, action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name,
            control_hz=20.0, source="drawn by the tests",
        ),
        actions=actions,
        frames={c: frames for c in CAMERAS},
        proprio=proprio,
    )  # fmt: skip


def write_set(folder: Path, episodes: int = 4, **options: int) -> Path:
    """Write demonstrations 0.. into a folder."""
    for index in range(episodes):
        write_demonstration(folder / f"{index:05d}.safetensors", demonstration(index, **options))
    return folder


def square_looks(count: int, *, seed: int = 0, size: int = 64) -> Looks:
    """Make looks at a white square, or sometimes at none, that one instruction asks for.

    The second camera sees it half as far from its upper left corner. What the hand's place and
    proprioception say has nothing to do with it.
    """
    rng = np.random.default_rng(seed)
    at = rng.uniform(4, size * 1.2, (count, 1, 2))  # the fifth of them or so is out of view
    frames, pixel = {}, {}
    for share, camera in zip((1.0, 0.5), CAMERAS, strict=True):
        pixel[camera] = (at * share).astype(np.float32)
        pictures = np.full((count, size, size, 3), 60, np.uint8)
        for picture, (column, row) in zip(pictures, pixel[camera][:, 0].astype(int), strict=True):
            picture[max(row - 4, 0) : row + 4, max(column - 4, 0) : column + 4] = 255
        frames[camera] = pictures
    hand = rng.normal(size=(count, 3)).astype(np.float32)
    place = np.concatenate([at / size, np.zeros((count, 1, 1))], axis=2) + hand[:, None]
    return Looks(
        info=LooksInfo(
            suite="squares", task="move", instructions=("move the square",), things=("square",),
            first_trial=0, source=f"drawn by the tests, {count} of seed {seed}",
        ),
        trial=np.arange(count),
        hand=hand,
        place=place.astype(np.float32),
        frames=frames,
        pixel=pixel,
        ahead={c: np.ones((count, 1), bool) for c in CAMERAS},
        proprio={
            name: rng.normal(size=(count, c.dim)).astype(np.float32)
            for name, c in PROPRIOS.items()
        },
    )  # fmt: skip


def oracle_run(out: Path, scene_cache_dir: Path, *, episodes: int) -> Path:
    """Record noisy demonstrations of tabletop_object's first task; gives the run folder."""
    choice = registry.choose_policy("oracle", {"noise": "0.2"})
    config = EvalConfig(policy=choice, suites=("tabletop_object",), seed=1)
    resources = Resources(workers=1, cache_dir=scene_cache_dir)
    done = evaluate(
        config, out=out, episodes=episodes, first=100, tasks=("0",), resources=resources
    )
    return done.folder
