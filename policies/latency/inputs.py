"""Synthetic observations that fit a card: random numbers in the promised shapes.

Axes: B rows, T frames, A action channels, P proprioception channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wamsim.contracts import Floats, Frames, Observation, PolicyCard, WorldModelCard

# Every text encoder of the families holds it (the tiny presets' 32 words are the tightest).
INSTRUCTION = "put the bowl on the plate"
# metres; a table in front of a camera, so that voxels are as many as in a real scene
NEAR_M, FAR_M = 0.5, 1.5


def observation(
    card: PolicyCard, batch: int, *, imagine: bool = False, seed: int = 0
) -> Observation:
    """Make an observation of B rows, all of them real, at the first step of episodes.

    Args:
        card: Says cameras, picture size, history, depth and proprioception.
        batch: B.
        imagine: Whether the run asks for imagination.
        seed: Of the numbers.

    Raises:
        ValueError: The card asks for the simulator's own state, which nobody can make up.
    """
    if card.privileged:
        raise ValueError(f"{card.name} looks at a simulator's state, which has no synthetic form")
    rng = np.random.default_rng(seed)
    times, (height, width) = len(card.frame_offsets), card.image_size
    pictures = (batch, times, height, width)
    depth: dict[str, Floats] = {}
    intrinsics: dict[str, NDArray[np.float64]] = {}
    extrinsics: dict[str, NDArray[np.float64]] = {}
    if card.depth:
        for place, camera in enumerate(card.cameras):
            depth[camera] = rng.uniform(NEAR_M, FAR_M, pictures).astype(np.float32)
            # a field of view of 53 degrees
            pinhole = np.array([[width, 0, width / 2], [0, height, height / 2], [0, 0, 1.0]])
            intrinsics[camera] = np.repeat(pinhole[None], batch, 0)
            pose = np.eye(4)
            pose[:3, 3] = (0.3 * place, 0.0, 0.5)
            extrinsics[camera] = np.broadcast_to(pose, (batch, times, 4, 4)).copy()
    proprio = None
    if card.proprio is not None:
        proprio = rng.normal(size=(batch, times, card.proprio.dim)).astype(np.float32)
    return Observation(
        frames={c: rng.integers(0, 256, (*pictures, 3), dtype=np.uint8) for c in card.cameras},
        instruction=[INSTRUCTION] * batch,
        seed=np.arange(1, batch + 1, dtype=np.uint64),
        step=np.zeros(batch, np.int64),
        slot=np.arange(batch),
        first=np.ones(batch, bool),
        valid=np.ones(batch, bool),
        memory=[None] * batch,
        proprio=proprio,
        depth=depth or None,
        intrinsics=intrinsics or None,
        extrinsics=extrinsics or None,
        imagine=imagine,
    )


@dataclass(frozen=True, kw_only=True)
class WorldQuestion:
    """What `WorldModel.imagine` takes; attributes as its arguments."""

    past_frames: Frames
    past_actions: Floats
    future_actions: Floats
    seed: NDArray[np.uint64]


def world_question(card: WorldModelCard, batch: int, *, seed: int = 0) -> WorldQuestion:
    """Make the arguments of one `imagine` of B rows; actions are small normal numbers."""
    rng = np.random.default_rng(seed)
    shape = (batch, len(card.past_offsets), len(card.cameras), *card.image_size, 3)

    def actions(steps: int) -> Floats:
        return rng.normal(0.0, 0.1, (batch, steps, card.action.dim)).astype(np.float32)

    return WorldQuestion(
        past_frames=rng.integers(0, 256, shape, dtype=np.uint8),
        past_actions=actions(-min(card.past_offsets)),
        future_actions=actions(card.future_actions),
        seed=np.arange(1, batch + 1, dtype=np.uint64),
    )
