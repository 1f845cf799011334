"""What a policy is shown as the future: the prediction, or a control (FAMILIES C.1, C.3.1).

Axes: B rows, K steps ahead, D world channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.noise import noise_from_seeds

# Streams of one row's noise; each draw within a query or a training step has its own.
ACTION_STREAM, TIME_STREAM, MEMORY_STREAM, ORDER_STREAM = 0, 1, 2, 3
_SIGN_SEED = 0  # "fixed random sign flip per dimension": the same one for every row and run


class Draws:
    """Standard normal noise row by row, or free when there are no seeds.

    Args:
        seeds: One per row; None draws from torch's generator (training).
        rows: Number of rows.
        device: Where to.
    """

    def __init__(
        self, seeds: NDArray[np.uint64] | None, rows: int, device: torch.device | str
    ) -> None:
        self._seeds, self._rows, self._device = seeds, rows, device

    def normal(self, shape: Sequence[int], stream: int) -> Tensor:
        """Draw float32 [B, *shape]."""
        if self._seeds is None:
            return torch.randn((self._rows, *shape), device=self._device)
        return noise_from_seeds(self._seeds, shape, stream=stream, device=self._device)

    def spread(self, many: int) -> Draws:
        """The same noise for `many` rows in the place of each."""
        seeds = None if self._seeds is None else np.repeat(self._seeds, many)
        return Draws(seeds, self._rows * many, self._device)

    def time(self, shape: Sequence[int] = ()) -> Tensor:
        """Draw flow times [B, *shape]: Beta(1.5, 1) * 0.999 + 0.001 (FAMILIES C.0).

        The distribution function of Beta(a, 1) is t**a, so a uniform u gives u**(1/a).
        """
        uniform = torch.special.ndtr(self.normal(shape, TIME_STREAM))
        return uniform ** (1 / 1.5) * 0.999 + 0.001


def training_memory(mode: str, predicted: Tensor, future: Tensor, draws: Draws) -> Tensor:
    """Give the memory of a training step, absolute features [B, K, D].

    Args:
        mode: One of `config.MEMORIES_TRAIN`; "shuffle" gives the true future of another
            sample of the batch.
        predicted: The prediction; with "pred" the flow loss trains the predictor too.
        future: What really came.
        draws: For random modes.
    """
    if mode == "oracle":
        return future
    if mode == "shuffle":
        return future[draws.normal((), ORDER_STREAM).argsort()]
    return _either(mode, predicted, draws)


def rollout_memory(mode: str, predicted: Tensor, draws: Draws) -> Tensor:
    """Give the memory of a query, absolute features [B, K, D].

    "shuffle" permutes the D channels, with one permutation per row from its own seed. A
    permutation over rows would make a row depend on its neighbours, and one over the K
    steps changes nothing: attention does not see their order. (Design choice; the public
    code of this mode was not found.)
    """
    if mode == "shuffle":
        order = draws.normal((predicted.shape[-1],), ORDER_STREAM).argsort(-1)
        return predicted.gather(-1, order[:, None].expand_as(predicted))
    return _either(mode, predicted, draws)


def _either(mode: str, predicted: Tensor, draws: Draws) -> Tensor:
    if mode == "pred":
        return predicted
    if mode == "zero":
        return torch.zeros_like(predicted)
    if mode == "signflip":
        seed = np.array([_SIGN_SEED], np.uint64)
        signs = noise_from_seeds(seed, predicted.shape[-1:], device=predicted.device).sign()
        return predicted * signs
    noise = draws.normal(predicted.shape[1:], MEMORY_STREAM)
    if mode == "random":
        return noise
    if mode == "random_scaled":
        # to the root mean square of the row's prediction
        return noise * predicted.detach().square().mean((1, 2), keepdim=True).sqrt()
    raise ValueError(f"unknown memory mode {mode!r}")
