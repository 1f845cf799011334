"""What the network takes, made of an observation or of a training batch alike.

Axes: B rows, V views (camera by camera, each oldest first), hwc pixels, P proprioception.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.batch import Batch
from policies.noise import noise_from_seeds
from policies.spatialvla.config import SpatialVLAConfig
from policies.spatialvla.text import Tokenizer, tokenise
from wamsim.contracts import Observation

# openai/clip-vit-large-patch14-336 preprocessor_config.json
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
TIME_STREAM = 2  # of a row's seed, in training; 0 is the noise, 1 the choice of voxels


@dataclass(frozen=True)
class Inputs:
    """B rows, on the model's device.

    Attributes:
        pictures: float32 [B, V, 3, S, S], CLIP's normalisation.
        ids, words: int64 and bool [B, L].
        seeds: uint64 [B].
        state: float32 [B, P], not normalised, or None.
        depth, intrinsics, extrinsics: [B, V, H, W], [B, V, 3, 3], [B, V, 4, 4], or None.
    """

    pictures: Tensor
    ids: Tensor
    words: Tensor
    seeds: NDArray[np.uint64]
    state: Tensor | None = None
    depth: Tensor | None = None
    intrinsics: Tensor | None = None
    extrinsics: Tensor | None = None


def from_observation(
    obs: Observation, config: SpatialVLAConfig, tokenizer: Tokenizer, device: torch.device
) -> Inputs:
    """Read an observation.

    Padding rows come as zeros; their camera matrices are made regular, so that no row
    divides by zero. Their results are dropped.

    Raises:
        ValueError: Depth, camera matrices or proprioception are missing.
    """
    return _inputs(
        config, tokenizer, device,
        frames=obs.frames, depth=obs.depth, intrinsics=obs.intrinsics,
        extrinsics=obs.extrinsics, instruction=obs.instruction, seeds=obs.seed,
        proprio=None if obs.proprio is None else obs.proprio[:, -1], valid=obs.valid,
    )  # fmt: skip


def from_batch(
    batch: Batch, config: SpatialVLAConfig, tokenizer: Tokenizer, device: torch.device
) -> Inputs:
    """Read a training batch; without seeds the choice of voxels is drawn freely.

    Raises:
        ValueError: Depth, camera matrices, proprioception or a frame offset are missing.
    """
    offsets = config.frame_offsets
    places = [batch.frame_offsets.index(o) for o in offsets if o in batch.frame_offsets]
    if batch.seed is None:
        drawn = torch.randint(0, 2**62, (batch.size,))
    else:
        drawn = batch.seed
    return _inputs(
        config, tokenizer, device,
        frames={c: batch.at(c, offsets).cpu().numpy() for c in config.cameras},
        depth=_numpy(batch.depth, places), intrinsics=_numpy(batch.intrinsics, None),
        extrinsics=_numpy(batch.extrinsics, places), instruction=batch.instruction,
        seeds=drawn.cpu().numpy().astype(np.uint64),
        proprio=batch.proprio_at(0).cpu().numpy() if config.use_state else None,
        valid=np.ones(batch.size, bool),
    )  # fmt: skip


def draw_flow(
    seeds: NDArray[np.uint64] | None, rows: int, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Draw a training noise and a uniform number for the flow's time.

    Args:
        seeds: uint64 [B]; None draws from torch's global generator.
        rows: B.
        shape: Of one row's noises: how many, then one's shape.

    Returns:
        Standard normal [B, *shape]; uniform [B, how many] in [0, 1).
    """
    if seeds is None:
        return torch.randn(rows, *shape), torch.rand(rows, shape[0])
    normal = noise_from_seeds(seeds, shape[:1], stream=TIME_STREAM)
    uniform = 0.5 * (1.0 + torch.erf(normal / 2.0**0.5))  # its own distribution function
    return noise_from_seeds(seeds, shape), uniform.clamp(0.0, 1.0 - 1e-6)


def _numpy(
    of: Mapping[str, Tensor] | None, places: list[int] | None
) -> dict[str, NDArray[Any]] | None:
    """Give arrays at some places of the time axis; all, where there is no such axis."""
    if of is None:
        return None
    return {c: (t if places is None else t[:, places]).cpu().numpy() for c, t in of.items()}


def _inputs(
    config: SpatialVLAConfig,
    tokenizer: Tokenizer,
    device: torch.device,
    *,
    frames: Mapping[str, NDArray[np.uint8]],
    depth: Mapping[str, NDArray[Any]] | None,
    intrinsics: Mapping[str, NDArray[Any]] | None,
    extrinsics: Mapping[str, NDArray[Any]] | None,
    instruction: Sequence[str],
    seeds: NDArray[np.uint64],
    proprio: NDArray[Any] | None,
    valid: NDArray[np.bool_],
) -> Inputs:
    times = len(config.frame_offsets)
    for camera in config.cameras:
        if frames[camera].shape[1] != times:
            raise ValueError(
                f"camera {camera!r} shows {frames[camera].shape[1]} times, but the model looks at "
                f"{times}: env steps {config.frame_offsets}"
            )
    pictures = np.concatenate([config.image.apply(frames[c]) for c in config.cameras], 1)
    pixels = torch.from_numpy(pictures).to(device).permute(0, 1, 4, 2, 3).float() / 255.0
    mean, std = (torch.tensor(x, device=device)[:, None, None] for x in (CLIP_MEAN, CLIP_STD))
    ids, words = tokenise(tokenizer, instruction, limit=config.text_tokens)
    optional: dict[str, Tensor] = {}
    if config.use_depth:
        if depth is None or intrinsics is None or extrinsics is None:
            raise ValueError(
                "this model needs metric depth and camera matrices of every camera; ask for them "
                "(card.depth, BatchSpec.depth) or set use_depth=false"
            )
        pinhole = np.concatenate(
            [np.repeat(intrinsics[c][:, None], times, 1) for c in config.cameras], 1
        )
        pinhole = np.where(valid[:, None, None, None], pinhole, np.eye(3))
        for name, array in (
            ("depth", np.concatenate([depth[c] for c in config.cameras], 1)),
            ("intrinsics", pinhole),
            ("extrinsics", np.concatenate([extrinsics[c] for c in config.cameras], 1)),
        ):
            optional[name] = torch.from_numpy(np.asarray(array, np.float32)).to(device)
    if config.use_state:
        if proprio is None:
            raise ValueError("this model has a state token and needs proprioception")
        optional["state"] = torch.from_numpy(np.asarray(proprio, np.float32)).to(device)
    return Inputs(
        pictures=(pixels - mean) / std,
        ids=ids.to(device),
        words=words.to(device),
        seeds=seeds,
        **optional,
    )
