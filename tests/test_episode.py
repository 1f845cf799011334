"""The episode file: exact to the bit, and nothing in it that cannot be."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from episode_doubles import arrays, record
from hypothesis import given, settings
from hypothesis import strategies as st

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.episode import (
    FORMAT_VERSION,
    Episode,
    NewerFormat,
    Record,
    arrays_equal,
    episode_path,
    read_episode,
    read_record,
    write_episode,
)
from wamsim.errors import RecordCorrupt

# ------------------------------------------------------------------------------ record


def test_a_record_survives_json_exactly() -> None:
    one = record()
    again = Record.from_json(one.to_json())
    assert again == one
    position, quaternion = again.fixtures["stove"]
    assert np.signbit(position[1])
    assert quaternion[3] == 5e-324
    assert again.perturbation["light"]["scale"] == 0.30000000000000004


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)  # a loaded machine is no failure
@given(
    st.dictionaries(st.text(), FINITE),
    st.lists(FINITE, min_size=7, max_size=7),
    st.text(),
    st.integers(0, 2**64 - 1),
)
def test_any_floats_and_texts_survive(timings, pose, text, seed) -> None:
    one = record(
        timings=timings, fixtures={text: (pose[:3], pose[3:])}, instruction=text, seeds={"x": seed}
    )
    again = Record.from_json(one.to_json())
    assert again == one
    assert again.to_json() == one.to_json()


def test_numpy_values_become_plain() -> None:
    one = record(
        steps=np.int64(41),
        fixtures={"stove": (np.zeros(3), np.float32([1, 0, 0, 0]))},
        notes={"counts": (np.int32(1), 2)},
        timings={"wall_s": 2},
    )
    assert type(one.steps) is int
    assert one.notes == {"counts": [1, 2]}
    assert type(one.timings["wall_s"]) is float
    assert one.fixtures == {"stove": ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))}
    assert Record.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"success_step": None}, ValueError, "outcome is success, but success_step is None"),
        (
            {"outcome": Outcome.FAILURE},
            ValueError,
            "outcome is failure, but success_step is 41",
        ),
        (
            {"outcome": Outcome.ERROR, "success_step": None},
            ValueError,
            "reason is empty; say what crashed",
        ),
        ({"steps": "41"}, TypeError, "steps is '41', expected int"),
        ({"steps": True}, TypeError, "steps is True, expected int"),
        ({"privileged": 1}, TypeError, "privileged is 1, expected bool"),
        ({"notes": []}, TypeError, r"notes is \[\], expected Mapping"),
        ({"timings": {"wall_s": float("nan")}}, ValueError, "timings.wall_s is nan"),
        ({"fixtures": {"stove": ([0, 0], [1, 0, 0, 0])}}, ValueError, "fixtures.stove"),
    ],
)
def test_impossible_records_are_refused(changes, error, message) -> None:
    with pytest.raises(error, match=message):
        record(**changes)


def test_a_newer_record_asks_for_an_upgrade() -> None:
    document = json.loads(record().to_json())
    document["format_version"] = FORMAT_VERSION + 1
    document["a_field_of_the_future"] = 1
    with pytest.raises(RecordCorrupt) as caught:
        Record.from_json(json.dumps(document))
    assert isinstance(caught.value, NewerFormat)
    assert str(caught.value) == (
        "written in format 2, but this wamsim reads up to format 1. "
        "Upgrade wamsim (pip install --upgrade wamsim) to read it"
    )


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.pop("steps"),
        lambda d: d.pop("format_version"),
        lambda d: d.update(format_version="1"),
        lambda d: d.update(format_version=0),
        lambda d: d.update(unknown=1),
        lambda d: d.update(outcome="great"),
        lambda d: d.update(steps="many"),
        lambda d: d.update(success_step=None),
        lambda d: d.update(key={"suite": "s", "task": "t"}),
        lambda d: d.update(key={"suite": "s", "task": "t", "index": "0"}),
        lambda d: d.update(key=None),
        lambda d: d.update(fixtures={"stove": [[0, 0, 0]]}),
        lambda d: d.update(seeds=[1]),
    ],
)
def test_altered_records_are_corrupt(edit) -> None:
    document = json.loads(record().to_json())
    edit(document)
    with pytest.raises(RecordCorrupt, match="the record is not one of format 1"):
        Record.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "null", "3", "[]", "{", '"x"', "[[", "{}", "[" * 100_000])
def test_garbage_is_no_record(text: str) -> None:
    with pytest.raises(RecordCorrupt):
        Record.from_json(text)


# -------------------------------------------------------------------------------- file


def test_an_episode_survives_its_file_bit_for_bit(tmp_path: Path) -> None:
    one = Episode(record(), arrays())
    path = write_episode(tmp_path, one)
    assert path == tmp_path / "episodes" / "libero_goal" / "push_the_plate" / "00007.safetensors"
    again = read_episode(path)
    assert again.record == one.record == read_record(path)
    assert set(again.arrays) == set(one.arrays)
    assert arrays_equal(one, again, ignore=()) == []
    assert {name: a.dtype for name, a in again.arrays.items()} == {
        name: a.dtype for name, a in one.arrays.items()
    }
    assert os.listdir(path.parent) == [path.name]


def test_any_safetensors_reader_opens_it(tmp_path: Path) -> None:
    path = write_episode(tmp_path, Episode(record(), arrays()))
    loaded = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(loaded["states"], arrays()["states"])


def test_equal_episodes_are_equal_files(tmp_path: Path) -> None:
    a = write_episode(tmp_path / "a", Episode(record(), arrays()))
    backwards = dict(reversed(arrays().items()))
    b = write_episode(tmp_path / "b", Episode(record(), backwards))
    assert a.read_bytes() == b.read_bytes()


def test_strided_and_foreign_arrays_are_written_as_they_read(tmp_path: Path) -> None:
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    odd = {"t": grid.T, "every_other": grid[::2, ::-1], "big": grid.astype(">f4")}
    again = read_episode(write_episode(tmp_path, Episode(record(), odd))).arrays
    for name, expected in odd.items():
        np.testing.assert_array_equal(again[name], expected)


def test_only_some_arrays_are_read(tmp_path: Path) -> None:
    path = write_episode(tmp_path, Episode(record(), arrays()))
    assert set(read_episode(path, only=("states", "value")).arrays) == {"states", "value"}
    assert read_episode(path, only=()).arrays == {}
    with pytest.raises(KeyError, match="no array"):
        read_episode(path, only=["state"])


def test_an_episode_without_arrays(tmp_path: Path) -> None:
    path = write_episode(tmp_path, Episode(record(), {}))
    assert read_episode(path).arrays == {}
    assert read_record(path) == record()


@pytest.mark.parametrize("bad", [np.array(["x"]), np.array([None]), np.array([1j])])
def test_other_arrays_are_refused(tmp_path: Path, bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="array 'x' has dtype"):
        write_episode(tmp_path, Episode(record(), {"x": bad}))
    assert not (tmp_path / "episodes").exists()


def test_writing_again_replaces(tmp_path: Path) -> None:
    path = write_episode(tmp_path, Episode(record(), arrays()))
    write_episode(tmp_path, Episode(record(attempt=2), {}))
    assert read_record(path).attempt == 2
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a b", "ä", ".hidden", "a\n"])
def test_names_that_are_no_folder_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a folder name"):
        episode_path(Path("run"), EpisodeKey("suite", name, 0))
    with pytest.raises(ValueError, match="cannot be a folder name"):
        episode_path(Path("run"), EpisodeKey(name, "task", 0))


def test_paths_of_odd_indices() -> None:
    assert episode_path(Path("r"), EpisodeKey("s", "t-1.x_Y", 123456)).name == "123456.safetensors"
    with pytest.raises(ValueError, match="negative"):
        episode_path(Path("r"), EpisodeKey("s", "t", -1))


# ------------------------------------------------------------------------------- equal


def test_arrays_equal_names_what_differs() -> None:
    a = Episode(record(), arrays())
    assert arrays_equal(a, Episode(record(), arrays())) == []
    other = arrays()
    other["timing_act_s"] = other["timing_act_s"] + 1
    other["states"] = other["states"].copy()
    other["states"][4, 2] = np.nextafter(other["states"][4, 2], np.inf)  # the last bit
    other["value"] = np.float32([np.nan, 0.0])  # not -0.0
    other["actions"] = other["actions"].astype(np.float64)
    other["query_steps"] = other["query_steps"][None]
    other["extra"] = np.zeros(1)
    del other["frames"]
    b = Episode(record(), other)
    expected = ["actions", "extra", "frames", "query_steps", "states", "value"]
    assert arrays_equal(a, b) == expected == arrays_equal(b, a)
    assert arrays_equal(a, b, ignore=()) == sorted([*expected, "timing_act_s"])


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        record().steps = 3
