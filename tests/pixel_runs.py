"""Runs in which every bit counts: `PixelPolicy` on real scenes.

Run as a program, this file evaluates it, for tests that kill a run.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wamsim.contracts import ImaginationSpec, Imagined, Observation, PolicyCard, Prediction, Task
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, EEF_AXIS_ANGLE_GRIPPER


class PixelPolicy:
    """Its actions are noise drawn from all that it is given, so a changed bit changes them."""

    def __init__(self, *, cameras: tuple[str, ...] = ("agentview", "eye_in_hand")) -> None:
        size = (64, 64)
        self.card = PolicyCard(
            name="pixels",
            action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
            horizon=8,
            execute=6,
            cameras=cameras,
            image_size=size,
            frame_offsets=(-7, -2, 0),
            proprio=EEF_AXIS_ANGLE_GRIPPER,
            predicts_value=True,
            imagines=ImaginationSpec(
                horizons=(3, 6), frame_offsets=(-1, 0, 3, 6), cameras=("agentview",),
                image_size=(32, 32), latent_shape=(3,),
            ),
        )  # fmt: skip

    def act(self, obs: Observation) -> Prediction:
        actions = np.zeros((obs.batch, self.card.horizon, 7), np.float32)
        latents = np.zeros((obs.batch, 2, 3), np.float32)
        value = np.zeros(obs.batch, np.float32)
        memory: list[bytes | None] = [None] * obs.batch
        assert obs.proprio is not None
        for row in np.flatnonzero(obs.valid):
            parts = [frames[row].tobytes() for frames in obs.frames.values()]
            parts += [obs.proprio[row].tobytes(), obs.seed[row].tobytes(), obs.memory[row] or b""]
            parts += [obs.instruction[row].encode(), obs.step[row].tobytes()]
            digest = hashlib.blake2b(b"".join(parts), digest_size=16).digest()
            rng = np.random.default_rng(int.from_bytes(digest, "little"))
            actions[row] = rng.uniform(-1, 1, actions.shape[1:])
            latents[row] = rng.uniform(-1, 1, (2, 3))
            value[row] = rng.uniform()
            memory[row] = digest
        return Prediction(
            actions=actions, imagined=Imagined(latents=latents), value=value, memory=memory
        )

    def encode(self, frames: np.ndarray) -> np.ndarray:
        means = frames[:, :, 0].mean(axis=(2, 3), dtype=np.float64) / 255  # [B, T, 3]
        return (means[:, 2:] - means[:, :1]).astype(np.float32)


def short_pool(limit: int) -> Any:
    """The real pool, with a step limit that a test can afford."""
    from envs.pool import Pool

    class ShortPool(Pool):
        def task(self, suite: str, name: str) -> Task:
            return replace(super().task(suite, name), max_steps=limit)

    return ShortPool


def evaluate_pixels(out: Path, cache: Path, suite: str, **changes: Any) -> Any:
    """Evaluate `PixelPolicy` on a suite, with a short step limit."""
    from envs import evaluation
    from wamsim.registry import PolicyChoice

    settings: dict[str, Any] = {"episodes": 2, "tasks": ("0",), "workers": 1, "slots": 1, **changes}
    resources = evaluation.Resources(
        workers=settings.pop("workers"),
        slots=settings.pop("slots"),
        cache_dir=cache,
        libero_assets=settings.pop("libero_assets", None),
    )
    config = evaluation.EvalConfig(
        policy=PolicyChoice(family="pixels", variant="", options={}), suites=(suite,), seed=5
    )
    limit = settings.pop("limit", 14)
    real, evaluation.Pool = evaluation.Pool, short_pool(limit)  # type: ignore[misc]
    try:
        return evaluation.evaluate(
            config, out=out, resources=resources, policy=PixelPolicy(), **settings
        )
    finally:
        evaluation.Pool = real  # type: ignore[misc]


if __name__ == "__main__":
    where, cache_folder, settings_json = sys.argv[1:]
    chosen = json.loads(settings_json)
    assets = chosen.pop("libero_assets", None)
    evaluate_pixels(
        Path(where), Path(cache_folder), chosen.pop("suite"),
        libero_assets=Path(assets) if assets else None, **chosen,
    )  # fmt: skip
