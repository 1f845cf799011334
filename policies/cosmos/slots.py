"""Numbers in and out of latent frames.

A vector is tiled over the whole volume C x h x w of its slot and read back as the mean of
its whole repeats. Tiled by tokens, a repeat begins with a token: as published, every token
holds other numbers of a chunk in another order, and one linear map at the end of a small
network does not tell them apart (DECISIONS 59).

Source: NVlabs/cosmos-policy, models/policy_text2world_model.py (`replace_latent_with_*`) and
experiments/robot/cosmos_utils.py (`extract_*`); tiling by tokens is ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from policies.checkpoint import Statistics
from policies.cosmos.layout import Layout


def tile(values: Tensor, shape: tuple[int, int, int], *, patch: int = 0) -> Tensor:
    """Fill latent frames with repeated vectors.

    Args:
        values: [B, ...]; flattened per row, actions time-major (index = t * A + d).
        shape: (C, h, w) of a latent frame.
        patch: 0 as published. Else the side of a token, by which to tile: a repeat takes whole
            tokens, and zeros fill its last.

    Returns:
        [B, C, h, w]. Row-major, the last repeat cut off; by tokens, tokens of no whole repeat
        are zero.
    """
    flat = values.flatten(1)
    volume = shape[0] * shape[1] * shape[2]
    if not patch:
        repeats = -(-volume // flat.shape[1])
        return flat.repeat(1, repeats)[:, :volume].reshape(-1, *shape)
    channels, rows, columns = shape[0], shape[1] // patch, shape[2] // patch
    span, repeats = _whole_tokens(flat.shape[1], shape, patch)
    repeated = F.pad(flat, (0, span - flat.shape[1])).repeat(1, repeats)
    tokens = F.pad(repeated, (0, volume - repeated.shape[1]))
    tokens = tokens.reshape(-1, rows, columns, channels, patch, patch)
    return tokens.permute(0, 3, 1, 4, 2, 5).reshape(-1, *shape)


def untile(frame: Tensor, shape: tuple[int, ...], *, patch: int = 0) -> Tensor:
    """Average a latent frame's whole repeats; what is left over is dropped.

    Args:
        frame: [B, C, h, w].
        shape: Of one row of the result.
        patch: As `tile` was given.

    Returns:
        [B, *shape].
    """
    flat = frame.flatten(1)
    length = torch.Size(shape).numel()
    span, repeats = length, flat.shape[1] // length
    if patch:
        size = (int(frame.shape[1]), int(frame.shape[2]), int(frame.shape[3]))
        span, repeats = _whole_tokens(length, size, patch)
        tokens = frame.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # B C h p w q
        flat = tokens.permute(0, 2, 4, 1, 3, 5).flatten(1)
    found = flat[:, : repeats * span].unflatten(1, (repeats, span))[:, :, :length]
    return found.mean(1).unflatten(1, shape)


def _whole_tokens(length: int, shape: tuple[int, int, int], patch: int) -> tuple[int, int]:
    """How many numbers of whole tokens a repeat takes, and how many repeats there are."""
    token = shape[0] * patch * patch
    span = -(-length // token) * token
    return span, shape[0] * shape[1] * shape[2] // span


def success_probability(frame: Tensor) -> Tensor:
    """Read the value slot [B, C, h, w] as [B] in [0, 1]: (mean + 1) / 2, clamped."""
    return ((frame.flatten(1).mean(1) + 1.0) / 2.0).clamp(0.0, 1.0)


def value_target(success: Tensor, steps_left: Tensor, *, horizon: int, discount: float) -> Tensor:
    """Give the value of the state that the future slots show.

    The discounted terminal reward at t' = min(t + H, end), as 2G - 1. The state after an
    episode's last action counts as its end (G = 1), since that is the picture the batch holds.

    Args:
        success: bool [B].
        steps_left: int [B], env steps from the sample to the episode's end.
        horizon: H.
        discount: Gamma.

    Returns:
        float32 [B] in [-1, 1]; -1 for every failed episode.
    """
    remaining = (steps_left - horizon).clamp(min=0).to(torch.float32)
    return 2.0 * success.to(torch.float32) * discount**remaining - 1.0


class Normaliser:
    """Per-dimension scaling of actions and proprioception to [-1, 1] by a data set's range.

    Not clipped, as published. A dimension that never moved in the data maps to -1 and back
    to its value.

    Args:
        statistics: Of the data set.
        layout: Says how many dimensions there are.
        action_deviations: See `CosmosConfig`.

    Raises:
        CheckpointMismatch: The statistics lack a range or have another number of dimensions.
    """

    def __init__(
        self, statistics: Statistics, layout: Layout, *, action_deviations: bool = False
    ) -> None:
        self._low: dict[str, Tensor] = {}
        self._span: dict[str, Tensor] = {}
        dims = {"action": layout.action_convention.dim, "proprio": layout.proprio_convention.dim}
        for what, dim in dims.items():
            low, high = (statistics.get(what, kind, dim) for kind in ("min", "max"))
            if what == "action" and action_deviations:
                mean, std = (statistics.get(what, kind, dim) for kind in ("mean", "std"))
                low, high = mean - std, mean + std  # to -1 and 1
            self._low[what] = low
            self._span[what] = high - low

    def normalise(self, what: str, x: Tensor) -> Tensor:
        """Scale [..., dim] of "action" or "proprio"."""
        low, span = self._low[what].to(x.device), self._span[what].to(x.device)
        return 2.0 * (x - low) / torch.where(span == 0, torch.ones_like(span), span) - 1.0

    def restore(self, what: str, x: Tensor) -> Tensor:
        """Undo `normalise`."""
        low, span = self._low[what].to(x.device), self._span[what].to(x.device)
        return 0.5 * (x + 1.0) * span + low
