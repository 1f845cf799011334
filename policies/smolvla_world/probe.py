"""Whether features say anything: their rank, their spread, what can be read from them.

Axes: n samples, D feature channels, P numbers to be read.
"""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-3  # of the normalised features' covariance: the probe stays linear and stable
TRAIN_SHARE = 0.75


def probe(features: Tensor, places: Tensor) -> dict[str, float]:
    """Judge features.

    Args:
        features: [n, D].
        places: [n, P], e.g. the end-effector's position in metres.

    Returns:
        "effective_rank": exp of the entropy of the covariance's eigenvalues (Roy & Vetterli
        2007), 1 to D; near 1 they have collapsed. "feature_std": root mean variance of a
        channel. "eef_r2": share of the variance of places that a linear map learnt on three
        quarters of the samples explains of the rest; 0 is no better than the mean.
    """
    x, y = features.double(), places.double()
    values = torch.linalg.eigvalsh(torch.cov(x.T)).clamp_min(0)
    share = values / values.sum().clamp_min(1e-30)
    rank = torch.exp(-(share * share.clamp_min(1e-30).log()).sum())
    cut = int(len(x) * TRAIN_SHARE)
    mean, std = x[:cut].mean(0), x[:cut].std(0).clamp_min(1e-9)
    x, y_mean = (x - mean) / std, y[:cut].mean(0)
    learn, judge = x[:cut], x[cut:]
    gram = learn.T @ learn / cut + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, learn.T @ (y[:cut] - y_mean) / cut)
    error = (y[cut:] - y_mean - judge @ weight).square().sum()
    whole = (y[cut:] - y_mean).square().sum().clamp_min(1e-30)
    return {
        "effective_rank": float(rank),
        "feature_std": float(features.double().var(0).mean().sqrt()),
        "eef_r2": float(1.0 - error / whole),
    }
