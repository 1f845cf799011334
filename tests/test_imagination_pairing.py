"""Two runs' imagination on the episodes that both foresaw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from imagination_doubles import frozen, perfect, shuffled, write_run

from wamsim.imagination.episodes import read_imagination
from wamsim.imagination.pairing import paired_skill, skill_table
from wamsim.imagination.summary import summarise
from wamsim.tables import to_markdown


def halved(real: np.ndarray, still: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return still + (real - still) / 2  # a quarter of the squared error is left


def test_perfect_against_frozen_is_one_everywhere(tmp_path: Path) -> None:
    a = read_imagination(write_run(tmp_path / "a", perfect)).imaginers[0]
    b = read_imagination(write_run(tmp_path / "b", frozen)).imaginers[0]
    pairs = paired_skill(a, b)
    assert [p.horizon for p in pairs] == [2, 4, None]
    for pair in pairs:
        assert (pair.a, pair.b) == (1.0, 0.0)
        assert pair.difference.value == 1.0
        assert pair.difference.interval is None  # every episode says the same


def test_half_the_way_is_three_quarters_of_skill(tmp_path: Path) -> None:
    a = read_imagination(write_run(tmp_path / "a", halved)).imaginers[0]
    b = read_imagination(write_run(tmp_path / "b", frozen)).imaginers[0]
    # float16 latents: a thousandth
    assert paired_skill(a, b)[-1].difference.value == pytest.approx(0.75, abs=2e-3)


def test_only_shared_episodes_count(tmp_path: Path) -> None:
    a = read_imagination(write_run(tmp_path / "a", perfect, episodes=6)).imaginers[0]
    few = read_imagination(write_run(tmp_path / "b", shuffled, episodes=4)).imaginers[0]
    pair = paired_skill(a, few)[-1]
    assert pair.n == 4
    assert pair.b == pytest.approx(summarise(few)[0].horizons[-1].metrics["skill"].value)
    assert pair.difference.value == pytest.approx(1.0 - (pair.b or 0.0))
    low, high = pair.difference.interval or (0.0, 0.0)
    assert low < (pair.difference.value or 0.0) < high


def test_the_table_shows_nothing_unless_both_imagined(tmp_path: Path) -> None:
    a = read_imagination(write_run(tmp_path / "a", perfect))
    silent = read_imagination(write_run(tmp_path / "b", episodes=2, described=False))
    assert skill_table(a, silent) is None
    table = skill_table(a, read_imagination(write_run(tmp_path / "c", frozen)))
    assert table is not None
    assert "| 1.00 " in to_markdown(table)
