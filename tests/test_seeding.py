"""Seeds: fixed for ever, different for every use, drawn from nothing else."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np

from wamsim.contracts import EpisodeKey
from wamsim.seeding import derive, generator, numpy_legacy_seed, policy_seed

KEY = EpisodeKey("libero_goal", "push_the_plate", 7)


def test_seeds_are_the_blake2b_of_their_fields() -> None:
    text = "3\x1flibero_goal\x1fpush_the_plate\x1f7\x1ffixtures"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    assert derive(3, KEY, "fixtures") == int.from_bytes(digest, "little")


def test_golden_seeds() -> None:
    # Runs of different versions are comparable only while these stay as they are. By
    # printf '0\x1flibero_goal\x1fpush_the_plate\x1f7\x1ffixtures' | b2sum -l 64
    assert derive(0, KEY, "fixtures").to_bytes(8, "little").hex() == "72d8c16a22aa2765"
    assert policy_seed(0, KEY, 16).to_bytes(8, "little").hex() == "5548c4730e86e44d"


def test_every_field_changes_the_seed() -> None:
    keys = [EpisodeKey(s, t, i) for s, t, i in itertools.product("ab", "ab", range(50))]
    found = {
        derive(run, key, purpose)
        for run, key, purpose in itertools.product(range(5), keys, ("fixtures", "policy@0"))
    }
    assert len(found) == 5 * len(keys) * 2


def test_fields_do_not_run_into_each_other() -> None:
    pairs = [(EpisodeKey("ab", "c", 1), EpisodeKey("a", "bc", 1)),
             (EpisodeKey("a", "b1", 1), EpisodeKey("a", "b", 11))]  # fmt: skip
    for one, other in pairs:
        assert derive(0, one, "x") != derive(0, other, "x")
    assert derive(1, EpisodeKey("1", "a", 0), "x") != derive(11, EpisodeKey("", "a", 0), "x")


def test_seeds_fill_64_bits_evenly() -> None:
    seeds = np.array([derive(0, EpisodeKey("s", "t", i), "x") for i in range(2000)], np.uint64)
    bits = np.unpackbits(seeds.view(np.uint8)).reshape(2000, 64).mean(axis=0)
    # each bit's mean has standard deviation 0.5 / sqrt(2000) = 0.011
    assert np.abs(bits - 0.5).max() < 5 * 0.0112


def test_a_query_seed_depends_on_the_step() -> None:
    assert policy_seed(0, KEY, 8) == derive(0, KEY, "policy@8")
    assert len({policy_seed(0, KEY, step) for step in range(500)}) == 500


def test_generators_repeat() -> None:
    seed = derive(0, KEY, "perturbation")
    assert generator(seed).random(4).tolist() == generator(seed).random(4).tolist()
    assert generator(seed).random(4).tolist() != generator(seed + 1).random(4).tolist()


def test_legacy_seeds_are_the_low_32_bits() -> None:
    assert numpy_legacy_seed(0x123456789ABCDEF0) == 0x9ABCDEF0
    np.random.RandomState(numpy_legacy_seed(2**64 - 1))  # takes it
