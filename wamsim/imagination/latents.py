"""One episode's imagination against what came: numbers per query and horizon.

Axes: Q queries of the episode, K horizons, D numbers of a latent (flattened). NaN stands
wherever nothing may be compared or a quantity is not defined; sums leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wamsim.errors import WamsimError

Array = NDArray[np.float64]

# Squared distances within this part of |a|^2 + |b|^2 count as equal: float64 products of
# float16 numbers round at 1e-16 times a few hundred, and the smallest real difference that
# float16 keeps, one step (2^-11) in one of 20,000 numbers, is 1e-11.
_TIE = 1e-12


class NotFinite(WamsimError):
    """Recorded numbers that are not finite, so that nothing can be measured on them."""


def score_latents(
    arrays: Mapping[str, NDArray[Any]], compared: NDArray[np.bool_], steps: NDArray[Any]
) -> dict[str, Array]:
    """Measure how near imagination came, per query and horizon.

    With imagined latent i, real latent r and s, what "nothing moves" would show:

    - error = |i - r|^2, still_error = |s - r|^2, power = |r|^2 (squared Euclidean norms).
      A set's normalised squared error is sum(error) / sum(power), its skill
      1 - sum(error) / sum(still_error): ratios of sums over the set, never means of ratios,
      because where nothing moves still_error is 0.
    - cosine = i.r / (|i| |r|), still_cosine likewise; not defined for a zero latent.
    - retrieval and action-consistency: see `_retrieve` and `_respond`.

    Args:
        arrays: imagined_latents, real_latents, still_latents [Q, K, ...]; other_latents
            where imagination under other actions was recorded.
        compared: bool [Q, K], where actions were executed as imagined.
        steps: [Q], env step of each query.

    Returns:
        Name -> [Q, K].

    Raises:
        NotFinite: A compared latent is infinite or NaN.
    """
    flat = {
        name: array.reshape(*compared.shape, -1)
        for name, array in arrays.items()
        if name.endswith("_latents")
    }
    out: dict[str, Array] = {}
    for k in range(compared.shape[1]):
        rows = np.flatnonzero(compared[:, k])
        at = {name: _finite(name, array[rows, k]) for name, array in flat.items()}
        if not len(rows):
            continue
        imagined, real, still = (at[f"{n}_latents"] for n in ("imagined", "real", "still"))
        found = {
            "error": _squared(imagined - real),
            "still_error": _squared(still - real),
            "power": _squared(real),
            "cosine": _cosine(imagined, real),
            "still_cosine": _cosine(still, real),
            **_retrieve(imagined, real, steps[rows]),
            "still_recall": _retrieve(still, real, steps[rows])["recall"],
        }
        if "other_latents" in at:
            found |= _respond(imagined, at["other_latents"], found["error"], real)
        for name, values in found.items():
            out.setdefault(name, np.full(compared.shape, np.nan))[rows, k] = values
    return out


def _finite(name: str, latents: NDArray[Any]) -> Array:
    exact = latents.astype(np.float64)
    with np.errstate(invalid="ignore"):
        total = exact.sum()  # any infinity or NaN survives a sum
    if not np.isfinite(total):
        raise NotFinite(
            f"{name} hold values that are not finite. Files keep float16, which ends at 65504: "
            f"scale the latents down in the model's encode() and imagination, and run again; "
            f"NaN is the model's own"
        )
    return exact


def _squared(x: Array) -> Array:
    return np.einsum("nd,nd->n", x, x)


def _cosine(a: Array, b: Array) -> Array:
    norms = np.sqrt(_squared(a) * _squared(b))
    dots = np.einsum("nd,nd->n", a, b)
    return np.divide(dots, norms, out=np.full(len(a), np.nan), where=norms > 0)


def _retrieve(imagined: Array, real: Array, times: NDArray[Any]) -> dict[str, Array]:
    """Ask whether an imagined latent is nearest to the real latent of its own time.

    Candidates are the real latents of the same episode and horizon at all compared times.
    Ties are broken as a fair draw would on average: m candidates tied for the nearest, the
    own among them, give recall 1/m; rank is 1 + nearer + ties/2. So identical candidates
    give exactly chance (1/n), never a win. An episode with a single candidate says nothing.

    Chance is not all that must be beaten: where a horizon is nearer to the present than to
    the query before, "nothing moves" is nearest to its own time too (still_recall).

    Args:
        imagined: [n, D].
        real: [n, D].
        times: [n], env steps (of the queries; the horizon is common).

    Returns:
        recall, chance (1/n), rank (1 is best, (n + 1) / 2 is chance), time_error: distance in
        env steps between the nearest candidate's time and the own (mean over ties),
        chance_time_error: mean distance to a candidate drawn blindly; each [n].
    """
    n = len(real)
    if n < 2:
        names = ("recall", "chance", "rank", "time_error", "chance_time_error")
        return {name: np.full(n, np.nan) for name in names}
    scale = _squared(imagined)[:, None] + _squared(real)[None]
    distance = scale - 2 * imagined @ real.T  # [query, candidate]
    slack = _TIE * scale
    own = np.diag(distance)[:, None]
    nearer = (distance < own - slack).sum(1)
    tied = (np.abs(distance - own) <= slack).sum(1)  # the own among them
    nearest = distance <= distance.min(1, keepdims=True) + slack
    apart = np.abs(times[:, None] - times[None]).astype(np.float64)
    return {
        "recall": np.where(nearer == 0, 1 / tied, 0.0),
        "chance": np.full(n, 1 / n),
        "rank": 1 + nearer + (tied - 1) / 2,
        "time_error": (apart * nearest).sum(1) / nearest.sum(1),
        "chance_time_error": apart.mean(1),
    }


def _respond(imagined: Array, other: Array, error: Array, real: Array) -> dict[str, Array]:
    """Ask whether imagination changes when the actions do, and towards what came.

    Args:
        imagined: [n, D] under the actions that were executed.
        other: [n, D] under the same past and noise, with other actions.
        error: [n], |imagined - real|^2.
        real: [n, D].

    Returns:
        response: |imagined - other|^2; a set's is sum(response) / sum(still_error), change
        by other actions relative to real change. better: 1 where the true actions'
        imagination lies nearer to reality, 0 where the others' does, 1/2 where equal, so
        that a model deaf to actions sits at 1/2 exactly.
    """
    others = _squared(other - real)
    return {
        "response": _squared(imagined - other),
        "better": 0.5 * (1 + np.sign(others - error)),
    }
