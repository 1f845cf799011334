"""Depth to world points, and pooling of patch features per voxel.

Axes: B rows, V views (cameras x times), S patches along a side, C channels.
Source: ZCMax/LLaVA-3D llava/model/multimodal_encoder/unproject.py and video_encoder.py.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.noise import noise_from_seeds

VOXEL_STREAM = 1  # stream 0 of a row's seed is the flow's noise


def patch_points(
    depth: Tensor, intrinsics: Tensor, extrinsics: Tensor, *, image_size: int, side: int
) -> Tensor:
    """Give the world point of every patch.

    LLaVA-3D resizes depth to the picture's size (nearest), lifts every pixel, and resizes the
    map of points to the patch grid (nearest: a patch's first pixel). Here only the pixels
    that survive are lifted; the points are the same. A pixel's place is its index, not its
    centre, as there.

    Args:
        depth: [B, V, H, W] metres along the optical axis.
        intrinsics: [B, V, 3, 3] pixels of the H x W picture.
        extrinsics: [B, V, 4, 4] camera (x right, y down, z forward) to world.
        image_size: Side of the picture that the vision model sees.
        side: Patches along a side (S).

    Returns:
        float32 [B, V, S, S, 3].

    Raises:
        ValueError: A depth is not finite.
    """
    if not bool(torch.isfinite(depth).all()):
        raise ValueError("depth holds values that are not finite; the renderer must give metres")
    height, width = depth.shape[-2:]
    seen = (torch.arange(side, device=depth.device) * image_size) // side
    rows = ((seen * 2 + 1) * height) // (2 * image_size)
    columns = ((seen * 2 + 1) * width) // (2 * image_size)
    z = depth[:, :, rows][:, :, :, columns].float()
    k = intrinsics.float()
    fx, px = (k[..., 0, i] * (image_size / width) for i in (0, 2))
    fy, py = (k[..., 1, i] * (image_size / height) for i in (1, 2))
    u, v = seen[None, None, None, :].float(), seen[None, None, :, None].float()
    x = (u - px[..., None, None]) * z / fx[..., None, None]
    y = (v - py[..., None, None]) * z / fy[..., None, None]
    camera = torch.stack((x, y, z, torch.ones_like(z)), -1)
    world = torch.einsum("bvij,bvstj->bvsti", extrinsics.float(), camera)
    return world[..., :3]


def pool_voxels(
    features: Tensor,
    points: Tensor,
    *,
    voxel_m: float,
    capacity: int,
    seeds: NDArray[np.uint64],
) -> tuple[Tensor, Tensor]:
    """Average the features of each voxel; thin out what is above the capacity.

    Voxels come in lexicographic order of their place. LLaVA-3D thins by a random permutation
    without a seed; here the permutation comes from the row's own seed.

    Args:
        features: [B, N, C].
        points: [B, N, 3] world metres.
        voxel_m: Edge of a voxel.
        capacity: Tokens of the result (K), the same whatever the scene.
        seeds: uint64 [B].

    Returns:
        Tokens [B, K, C], zero where there is none, and which are real, bool [B, K].
    """
    cells = torch.round(points / voxel_m).long()
    low, high = cells.amin((0, 1)), cells.amax((0, 1))
    at, span = cells - low, high - low + 1
    key = (at[..., 0] * span[1] + at[..., 1]) * span[2] + at[..., 2]  # lexicographic
    ordered, order = key.sort(1)
    rank = torch.zeros_like(key)
    rank[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).cumsum(1)
    owner = torch.empty_like(key).scatter_(1, order, rank)
    count = rank[:, -1] + 1
    most = min(int(count.max()), capacity)
    chosen = torch.arange(most, device=points.device).repeat(len(key), 1)
    for row in (count > capacity).nonzero()[:, 0].tolist():
        noise = noise_from_seeds(seeds[row : row + 1], (int(count[row]),), stream=VOXEL_STREAM)
        chosen[row] = noise[0].argsort()[:capacity].to(points.device)
    member = chosen[:, :, None] == owner[:, None, :]
    # a product and not a scatter: the same sum in the same order on every run
    weight = member.float() / member.sum(2, keepdim=True).clamp(min=1)
    tokens = torch.nn.functional.pad(weight @ features.float(), (0, 0, 0, capacity - most))
    valid = torch.arange(capacity, device=points.device) < count[:, None]
    return tokens.to(features.dtype), valid
