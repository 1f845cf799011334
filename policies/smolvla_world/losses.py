"""Loss terms, all in float32 and masked (FAMILIES C.0, C.3).

Axes: B samples, H actions, A action channels, K steps ahead, D feature channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_NORM_FLOOR = 1e-8  # world-modality-vla: norms are clamped there
_COUNT_FLOOR = 1e-6  # and mask sums here, so that nothing valid gives 0, not NaN


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of the elements where `mask`; 0 where there are none."""
    m = mask.expand_as(x).float()
    # where, not times: a masked NaN must not count
    return torch.where(m > 0, x.float(), 0.0).sum() / m.sum().clamp_min(_COUNT_FLOOR)


def unit(x: Tensor) -> Tensor:
    """Scale the last axis to length 1."""
    x = x.float()
    return x / x.norm(dim=-1, keepdim=True).clamp_min(_NORM_FLOOR)


def cosine(predicted: Tensor, target: Tensor) -> Tensor:
    """Cosine along the last axis, [B, K]."""
    return (unit(predicted) * unit(target)).sum(-1)


def flow_loss(velocity: Tensor, noise: Tensor, actions: Tensor, valid: Tensor) -> Tensor:
    """Squared error against u = noise - actions over real channels and steps.

    Args:
        velocity, noise, actions: [B, H, A], real channels only.
        valid: bool [B, H].
    """
    return masked_mean((velocity - (noise - actions)) ** 2, valid[..., None])


def cos_loss(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - cosine over valid [B, K]."""
    return masked_mean(1.0 - cosine(predicted, target), valid)


def mse_loss(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared error over valid [B, K] and all channels."""
    return masked_mean((predicted.float() - target.float()) ** 2, valid[..., None])


def relative_loss(predicted: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Squared error over that of predicting zeros, at every k by itself; their mean.

    Args:
        predicted, target: [B, K, D].
        valid: bool [B, K].
    """
    error = (predicted.float() - target.float()).square()
    still = target.float().square()
    ratios = [
        masked_mean(error[:, k], valid[:, k, None])
        / masked_mean(still[:, k], valid[:, k, None]).clamp_min(_COUNT_FLOOR)
        for k in range(predicted.shape[1])
    ]
    return torch.stack(ratios).mean()


def contrastive_loss(
    predicted: Tensor,
    target: Tensor,
    valid: Tensor,
    *,
    episode: Tensor,
    step: Tensor,
    temperature: float,
    across_horizons: bool,
) -> Tensor:
    """InfoNCE: each prediction must pick its own target among others' (FAMILIES C.3.7).

    Negatives are valid targets of the batch at the same k (or at any), but none of the same
    episode within K steps, which look alike.

    Args:
        predicted, target: [B, K, D].
        valid: bool [B, K].
        episode, step: int64 [B], of the samples.
        temperature: Divides cosines; the seed writes none (1).
        across_horizons: Also negatives at other k.
    """
    batch, horizon = valid.shape
    ahead = torch.arange(1, horizon + 1, device=valid.device)
    when = (step[:, None] + ahead).flatten()
    which = episode[:, None].expand(-1, horizon).flatten()
    k = ahead[None].expand(batch, -1).flatten()
    close = (which[:, None] == which) & ((when[:, None] - when).abs() <= horizon)
    allowed = valid.flatten()[None] & ~close
    if not across_horizons:
        allowed = allowed & (k[:, None] == k)
    allowed = allowed | torch.eye(len(k), dtype=torch.bool, device=valid.device)
    scores = unit(predicted).flatten(0, 1) @ unit(target).flatten(0, 1).T / temperature
    scores = scores.masked_fill(~allowed, -torch.inf)
    own = torch.arange(len(k), device=valid.device)
    each = F.cross_entropy(scores, own, reduction="none").view(batch, horizon)
    return masked_mean(each, valid)
