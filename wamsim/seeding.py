"""All randomness of an episode, from its key and the run's seed.

Never from the slot, the worker or the clock: the same episode gives the same bytes
whatever runs beside it.
"""

from __future__ import annotations

import hashlib

import numpy as np

from wamsim.contracts import EpisodeKey


def derive(run_seed: int, key: EpisodeKey, purpose: str) -> int:
    """Give a 64-bit seed for one use within one episode.

    Args:
        run_seed: The run's seed (``--seed``).
        key: Which episode.
        purpose: A fixed word for the use: "fixtures", "policy", "perturbation", ...

    Returns:
        An integer in [0, 2**64). BLAKE2b of the fields, so that neighbouring
        episodes share nothing and no field can run into the next.
    """
    text = "\x1f".join((str(run_seed), key.suite, key.task, str(key.index), purpose))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def policy_seed(run_seed: int, key: EpisodeKey, step: int) -> int:
    """Give the seed of one policy query: a function of the episode and the env step."""
    return derive(run_seed, key, f"policy@{step}")


def generator(seed: int) -> np.random.Generator:
    """Make the generator that our own code draws from."""
    return np.random.Generator(np.random.PCG64(seed))


def numpy_legacy_seed(seed: int) -> int:
    """Fold a 64-bit seed into what ``np.random.seed`` takes (32 bits)."""
    return seed & 0xFFFFFFFF
