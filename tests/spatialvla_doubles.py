"""Small observations, batches and models of the spatialvla family, for its tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from policies.batch import Batch
from policies.spatialvla.config import SpatialVLAConfig
from policies.spatialvla.model import SpatialVLA, untrained
from policies.spatialvla.presets import preset
from wamsim.contracts import Observation

torch.set_num_threads(1)

CAMERAS = ("agentview", "eye_in_hand")
SIZE = 64


def config(variant: str, **changes: Any) -> SpatialVLAConfig:
    """The tiny preset, with changes."""
    return dataclasses.replace(preset(variant, "tiny"), **changes)


def model(variant: str, seed: int = 0, **changes: Any) -> SpatialVLA:
    """Untrained, but loud: the start's weights are so small that little would show."""
    made = untrained(config(variant, **changes), seed).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() > 1 and "norm" not in name and "vision" not in name:
                parameter.mul_(3.0)
    return made


def observation(
    rows: int = 2,
    *,
    times: int = 1,
    seed: int = 0,
    real: tuple[int, ...] | None = None,
    instruction: str = "put the bowl on the plate",
) -> Observation:
    """Random pictures, a bumpy table under two cameras; rows outside `real` are padding."""
    rng = np.random.default_rng(seed)
    frames: dict[str, np.ndarray] = {}
    depth: dict[str, np.ndarray] = {}
    pinholes: dict[str, np.ndarray] = {}
    poses: dict[str, np.ndarray] = {}
    for camera in CAMERAS:
        frames[camera] = rng.integers(0, 256, (rows, times, SIZE, SIZE, 3), np.uint8)
        depth[camera] = rng.uniform(0.4, 1.6, (rows, times, SIZE, SIZE)).astype(np.float32)
        pinholes[camera] = np.tile(
            np.array([[77.0, 0, 32], [0, 77.0, 32], [0, 0, 1]]), (rows, 1, 1)
        )
        turn = np.linalg.qr(rng.normal(size=(rows, times, 3, 3)))[0]
        poses[camera] = np.tile(np.eye(4), (rows, times, 1, 1))
        poses[camera][..., :3, :3] = turn
        poses[camera][..., :3, 3] = rng.uniform(-0.5, 0.5, (rows, times, 3))
    proprio = rng.normal(size=(rows, times, 8)).astype(np.float32)
    valid = np.ones(rows, bool) if real is None else np.isin(np.arange(rows), real)
    for array in (*frames.values(), *depth.values(), *pinholes.values(), *poses.values(), proprio):
        array[~valid] = 0
    return Observation(
        frames=frames,
        depth=depth,
        intrinsics=pinholes,
        extrinsics=poses,
        proprio=proprio,
        instruction=[f"{instruction} {i}" if v else "" for i, v in enumerate(valid)],
        seed=np.where(valid, np.arange(rows) + 11, 0).astype(np.uint64),
        step=np.zeros(rows, np.int64),
        slot=np.where(valid, np.arange(rows), -1),
        first=np.ones(rows, bool),
        valid=valid,
        memory=[None] * rows,
    )


def only(obs: Observation, row: int, place: int) -> Observation:
    """The same batch shape with one row alone, moved to another place, the rest padding."""

    def move(array: np.ndarray) -> np.ndarray:
        out = np.zeros_like(array)
        out[place] = array[row]
        return out

    def views(of: Any) -> Any:
        return None if of is None else {camera: move(array) for camera, array in of.items()}

    rows = obs.batch
    texts = [""] * rows
    texts[place] = obs.instruction[row]
    return dataclasses.replace(
        obs,
        frames=views(obs.frames),
        depth=views(obs.depth),
        intrinsics=views(obs.intrinsics),
        extrinsics=views(obs.extrinsics),
        proprio=None if obs.proprio is None else move(obs.proprio),
        instruction=texts,
        seed=move(obs.seed),
        valid=np.arange(rows) == place,
    )


def batch(rows: int = 2, *, seed: int = 0, seeds: bool = True, horizon: int = 8) -> Batch:
    """The same pictures as a training batch, with smooth actions."""
    obs = observation(rows, seed=seed)
    rng = np.random.default_rng(seed + 1)
    steps = np.linspace(0, 1, horizon)[None, :, None]
    actions = rng.uniform(-0.8, 0.8, (rows, 1, 7)) + steps * rng.uniform(-0.2, 0.2, (rows, 1, 7))
    assert obs.depth is not None
    assert obs.intrinsics is not None
    assert obs.extrinsics is not None
    assert obs.proprio is not None
    return Batch(
        frames={c: torch.from_numpy(a) for c, a in obs.frames.items()},
        frame_offsets=(0,),
        frame_valid=torch.ones(rows, 1, dtype=torch.bool),
        proprio=torch.from_numpy(obs.proprio),
        actions=torch.from_numpy(actions.astype(np.float32)),
        action_valid=torch.ones(rows, horizon, dtype=torch.bool),
        instruction=obs.instruction,
        success=torch.ones(rows, dtype=torch.bool),
        steps_left=torch.full((rows,), 50),
        episode=torch.arange(rows),
        step=torch.zeros(rows, dtype=torch.int64),
        depth={c: torch.from_numpy(a) for c, a in obs.depth.items()},
        intrinsics={c: torch.from_numpy(a) for c, a in obs.intrinsics.items()},
        extrinsics={c: torch.from_numpy(a) for c, a in obs.extrinsics.items()},
        seed=torch.arange(rows) + 5 if seeds else None,
    )
