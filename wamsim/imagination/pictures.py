"""Imagined pictures beside real ones: PSNR and SSIM.

An imagined picture cannot be better than the tokenizer that draws it, so every number
stands beside the same number for decode(encode(real)), the tokenizer's own ceiling.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.ndimage  # pyright: ignore[reportMissingTypeStubs]  # scipy ships no types
from numpy.typing import NDArray

from wamsim.contracts import Frames

_ndimage: Any = scipy.ndimage

PEAK = 255.0  # of uint8

# Wang et al. 2004, section III.C: window, its deviation, and the two stabilising constants.
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03

# Luminance of RGB (ITU-R BT.601-7, 2.5.1), as the paper's authors measure colour pictures.
_LUMA = np.array([0.299, 0.587, 0.114])


def psnr(mse: float | None) -> float | None:
    """Give 10 log10(255^2 / MSE) in decibels.

    Args:
        mse: Mean squared error, pooled over pictures, pixels and colours (0..255 squared).

    Returns:
        ``inf`` for identical pictures; None without data.

    Source: Hore & Ziou 2010, "Image Quality Metrics: PSNR vs. SSIM".
    """
    if mse is None:
        return None
    return math.inf if mse == 0 else 10 * math.log10(PEAK**2 / mse)


def squared_error(a: Frames, b: Frames) -> float:
    """Give the mean squared error of two pictures uint8 [H, W, 3], over pixels and colours."""
    _check(a, b)
    return float(np.mean(np.square(a.astype(np.float64) - b.astype(np.float64))))


def ssim(a: Frames, b: Frames) -> float | None:
    """Give the mean structural similarity of two pictures' luminance.

    At every place where the window (11 x 11, Gaussian of deviation 1.5, weights sum to 1)
    lies wholly inside the picture, with weighted means m, variances v and covariance c:
    (2 ma mb + C1) (2 c + C2) / ((ma^2 + mb^2 + C1) (va + vb + C2)), C = (K 255)^2.

    Args:
        a: uint8 [H, W, 3] RGB.
        b: Likewise; the order does not matter.

    Returns:
        In [-1, 1], 1 for identical pictures; None for pictures smaller than the window.

    Source: Wang, Bovik, Sheikh & Simoncelli 2004, "Image Quality Assessment: From Error
    Visibility to Structural Similarity", IEEE TIP 13:600-612, without the authors'
    optional downsampling of pictures above 256 pixels.
    """
    _check(a, b)
    if min(a.shape[:2]) < WINDOW:
        return None
    x, y = a.astype(np.float64) @ _LUMA, b.astype(np.float64) @ _LUMA
    ma, mb = _window_mean(x), _window_mean(y)
    va = _window_mean(x * x) - ma * ma
    vb = _window_mean(y * y) - mb * mb
    cov = _window_mean(x * y) - ma * mb
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    places = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(places.mean())


def _window_mean(x: NDArray[np.float64]) -> NDArray[np.float64]:
    reach = WINDOW // 2
    smooth: NDArray[np.float64] = _ndimage.gaussian_filter(x, SIGMA, radius=reach)
    return smooth[reach:-reach, reach:-reach]  # elsewhere it looked past the border


def _check(a: Frames, b: Frames) -> None:
    if a.shape != b.shape or a.ndim != 3 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(
            f"pictures must be uint8 [H, W, 3] of one size, got {a.dtype} {a.shape} and "
            f"{b.dtype} {b.shape}"
        )


def compare_pictures(
    drawn: Frames, real: Frames, compared: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Score pictures where they may be compared.

    Args:
        drawn: uint8 [Q, K, H, W, 3].
        real: Likewise.
        compared: bool [Q, K].

    Returns:
        Mean squared error and SSIM, float32 [Q, K]; NaN where not compared, SSIM also for
        pictures smaller than its window.
    """
    mse = np.full(compared.shape, np.nan, np.float32)
    similarity = mse.copy()
    for at in zip(*np.nonzero(compared), strict=True):
        mse[at] = squared_error(drawn[at], real[at])
        found = ssim(drawn[at], real[at])
        similarity[at] = np.nan if found is None else found
    return mse, similarity
