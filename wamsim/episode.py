"""The episode file: one episode, one ``.safetensors`` file, written whole or not at all.

Arrays (states, actions, imagined latents, ...) are the file's tensors; the record, which
says what happened, is one JSON text in the file's header. So a leaderboard reads a few
kilobytes an episode, runs merge by copying files, and any safetensors reader opens them.

Source of the layout: safetensors README, "Format": 8 bytes little-endian header length N,
N bytes of JSON, then the data.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.errors import RecordCorrupt
from wamsim.provenance import plain
from wamsim.whole_file import write_whole

# Raised whenever an older wamsim could misread a record; `Record.notes` takes additions that
# it may ignore.
FORMAT_VERSION = 1

FILE_SUFFIX = ".safetensors"

# Names that are one harmless path component everywhere: no separators, no hidden files, no "..".
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")

_LENGTH_BYTES = 8  # safetensors README, "Format"
_FIRST_READ_BYTES = 64 * 1024  # one system call for nearly every header; records are 2-10 kB

Pose = tuple[tuple[float, ...], tuple[float, ...]]  # position 3 in metres, quaternion wxyz 4


class NewerFormat(RecordCorrupt):
    """The file is sound, but this wamsim is too old to read it; never set aside or replaced."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one episode was and how it ended.

    Mappings are brought into JSON's own types at construction (tuples become lists, NumPy
    numbers become Python's), so ``Record.from_json(r.to_json()) == r`` always holds.

    Attributes:
        key: Which episode.
        run_seed: The run's seed (``--seed``).
        outcome: Success, failure, or error (a crash of ours; never a failure).
        reason: Why it failed or crashed, where that can be said; always set for errors.
        steps: Env steps done, settling not counted.
        success_step: Env steps done when the goal first held; None unless a success.
        instruction: What the policy was told.
        initial_state: Index of the initial state that was used.
        suite_version: `Suite.version`.
        policy: `PolicyCard.name`.
        config_hash, provenance_hash: Into the run folder's ``run.json``.
        seeds: Purpose -> 64-bit seed, as derived.
        fixtures: Body -> (position 3 in metres, quaternion wxyz 4) of bodies without a joint.
        perturbation: What was changed on purpose; empty when nothing was.
        stand_in_visuals: True when pixels are not the benchmark's own.
        privileged: True when the policy saw the simulator's state.
        attempt: 1, or 2 when a worker was lost and the episode ran again.
        timings: Seconds. The leaderboard knows ``started_unix_s`` (clock time at the first
            step), ``wall_s`` (from there to the last step) and ``latency_s`` (mean over the
            episode's queries, asking to having actions); others are kept.
        notes: Later additions, e.g. counts of imagined frames.
    """

    key: EpisodeKey
    run_seed: int
    outcome: Outcome
    steps: int
    instruction: str
    initial_state: int
    suite_version: int
    policy: str
    config_hash: str
    provenance_hash: str
    reason: str | None = None
    success_step: int | None = None
    seeds: Mapping[str, int] = field(default_factory=dict[str, int])
    fixtures: Mapping[str, Pose] = field(default_factory=dict[str, Pose])
    perturbation: Mapping[str, Any] = field(default_factory=dict[str, Any])
    stand_in_visuals: bool = False
    privileged: bool = False
    attempt: int = 1
    timings: Mapping[str, float] = field(default_factory=dict[str, float])
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        for one in fields(self):
            if one.name not in ("key", "outcome"):
                value = plain(getattr(self, one.name), one.name)
                _check_type(one.name, value, str(one.type))
                object.__setattr__(self, one.name, value)
        object.__setattr__(self, "timings", {k: float(v) for k, v in self.timings.items()})
        object.__setattr__(self, "fixtures", {k: _pose(k, v) for k, v in self.fixtures.items()})
        if (self.success_step is not None) != (self.outcome is Outcome.SUCCESS):
            raise ValueError(
                f"outcome is {self.outcome.value}, but success_step is {self.success_step}; "
                f"it belongs to successes, and to every one of them"
            )
        if self.outcome is Outcome.ERROR and not self.reason:
            raise ValueError("outcome is error, but reason is empty; say what crashed")

    def to_json(self) -> str:
        """Write the record as one line of JSON; floats keep every bit."""
        document: dict[str, Any] = {"format_version": FORMAT_VERSION}
        for one in fields(self):
            document[one.name] = getattr(self, one.name)
        document["key"] = {
            "suite": self.key.suite, "task": self.key.task, "index": self.key.index
        }  # fmt: skip
        document["outcome"] = self.outcome.value
        return json.dumps(document, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read what `to_json` wrote.

        Raises:
            NewerFormat: Written by a newer wamsim; the message says to upgrade.
            RecordCorrupt: Not JSON, a field is missing, unknown or of the wrong type.
        """
        try:
            document: dict[str, Any] = dict(json.loads(text))
            check_format(document.pop("format_version", None))
            key = EpisodeKey(**document["key"])
            if [type(part) for part in (key.suite, key.task, key.index)] != [str, str, int]:
                raise TypeError(f"key is {key}, expected texts and an int")
            document["key"] = key
            document["outcome"] = Outcome(document["outcome"])
            return cls(**document)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RecordCorrupt(
                f"the record is not one of format {FORMAT_VERSION}: {error!r}"
            ) from error


def check_format(found: object) -> None:
    """Refuse a format version that this wamsim cannot read (records and ``run.json``).

    Raises:
        NewerFormat: Newer than ours.
        ValueError: Not a version at all.
    """
    if type(found) is not int or found < 1:
        raise ValueError(f"format_version is {found!r}, expected 1..{FORMAT_VERSION}")
    if found > FORMAT_VERSION:
        raise NewerFormat(
            f"written in format {found}, but this wamsim reads up to format {FORMAT_VERSION}. "
            f"Upgrade wamsim (pip install --upgrade wamsim) to read it"
        )


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,), "int | None": (int, type(None)),
    "str": (str,), "str | None": (str, type(None)),
    "bool": (bool,),
}  # fmt: skip


def _check_type(name: str, value: object, annotation: str) -> None:
    expected = _TYPES.get(annotation, (dict,))
    if type(value) not in expected:
        raise TypeError(f"{name} is {value!r}, expected {annotation}")


def _pose(body: str, value: Any) -> Pose:
    position, quaternion = value
    if len(position) != 3 or len(quaternion) != 4:
        raise ValueError(f"fixtures.{body} is {value!r}, expected (position 3, quaternion wxyz 4)")
    return tuple(float(x) for x in position), tuple(float(x) for x in quaternion)


@dataclass(frozen=True, eq=False)
class Episode:
    """A record and its arrays (any names; a name that starts with "timing" is a clock's).

    Attributes:
        record: What happened.
        arrays: Name -> array of booleans, integers or floats.
    """

    record: Record
    arrays: Mapping[str, NDArray[Any]]


def episode_path(run_dir: Path, key: EpisodeKey) -> Path:
    """Give the one place of an episode in a run folder: ``episodes/suite/task/00007.safetensors``.

    Raises:
        ValueError: A name is not a plain path component, or the index is negative.
    """
    for kind, name in (("suite", key.suite), ("task", key.task)):
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{kind} name {name!r} cannot be a folder name. Expected letters, digits, "
                f"'_', '-' and '.' (not first); rename the {kind} in its suite."
            )
    if key.index < 0:
        raise ValueError(f"episode index {key.index} is negative; indices count from 0")
    return run_dir / "episodes" / key.suite / key.task / f"{key.index:05d}{FILE_SUFFIX}"


def write_episode(run_dir: Path, episode: Episode) -> Path:
    """Write an episode to its place, replacing an earlier file of the same key.

    Args:
        run_dir: The run folder; while a `RunFolder` is open, only its owner writes.
        episode: Equal records and arrays give equal bytes.

    Returns:
        The file's path.

    Raises:
        OutOfSpace: See `write_whole`.
        ValueError: An array holds something else than booleans, integers or floats.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, values in episode.arrays.items():  # safetensors sorts them
        array = np.asarray(values, order="C")  # the format has no strides
        if array.dtype.kind not in "biuf":
            raise ValueError(
                f"array {name!r} has dtype {array.dtype}, expected booleans, integers or floats"
            )
        arrays[name] = array
    path = episode_path(run_dir, episode.record.key)
    # One metadata entry: safetensors writes several in no fixed order.
    data = safetensors.numpy.save(arrays, metadata={"record": episode.record.to_json()})
    write_whole(path, data)
    return path


def _corrupt(path: Path, fact: str) -> NoReturn:
    raise RecordCorrupt(
        f"{fact}. Run the same command again: it sets the file aside and repeats the episode. "
        f"File: {path}"
    )


def _read_header(path: Path) -> tuple[str, list[str]]:
    """Read a file's record text and array names; check its size, touch none of its data."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(_FIRST_READ_BYTES)
        if len(start) < _LENGTH_BYTES:
            _corrupt(path, f"truncated: {size} bytes, expected at least {_LENGTH_BYTES}")
        length = int.from_bytes(start[:_LENGTH_BYTES], "little")
        end = _LENGTH_BYTES + length
        if end > size:
            _corrupt(path, f"truncated or no episode: header ends at {end}, file has {size} bytes")
        while len(start) < end:
            more = file.read(end - len(start))
            if not more:
                _corrupt(path, "the file shrank while it was read")
            start += more
    try:
        header = cast(dict[str, Any], json.loads(start[_LENGTH_BYTES:end]))
        record = header.pop("__metadata__")["record"]
        data_bytes = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        _corrupt(path, f"the header is not an episode's: {error!r}")
    if size != end + data_bytes:
        what = "truncated" if size < end + data_bytes else "bytes after the end"
        _corrupt(path, f"{what}: {size} bytes, expected {end + data_bytes}")
    if not isinstance(record, str):
        _corrupt(path, f"the header's record is {type(record).__name__}, expected text")
    return record, sorted(header)


def _parse(path: Path, text: str) -> Record:
    try:
        return Record.from_json(text)
    except NewerFormat as error:
        raise NewerFormat(f"{error}. File: {path}") from error
    except RecordCorrupt as error:
        _corrupt(path, str(error))


def read_record(path: Path) -> Record:
    """Read what happened; the header alone is read, but truncation of the data is seen.

    Raises:
        RecordCorrupt: Truncated, altered or not an episode; the message names the file.
        NewerFormat: Written by a newer wamsim.
    """
    return _parse(path, _read_header(path)[0])


def array_names(path: Path) -> set[str]:
    """List an episode file's arrays.

    Raises:
        RecordCorrupt: As `read_record`.
    """
    return set(_read_header(path)[1])


def read_episode(path: Path, only: Collection[str] | None = None) -> Episode:
    """Read an episode.

    Args:
        path: The file.
        only: Names of the arrays to read; others stay on disk. None reads all.

    Raises:
        RecordCorrupt: As `read_record`, or the tensors' table is altered.
        KeyError: ``only`` names an array that the episode does not have.
    """
    text, names = _read_header(path)
    record = _parse(path, text)
    if only is not None:
        missing = sorted(set(only) - set(names))
        if missing:
            raise KeyError(f"no array {missing} in {path}, which has {names}")
        names = [name for name in names if name in only]
    try:
        safe_open: Any = safetensors.safe_open  # its stub leaves the context manager untyped
        with safe_open(path, framework="np") as file:
            arrays: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in names}
    except safetensors.SafetensorError as error:
        _corrupt(path, f"the table of arrays is altered: {error}")
    return Episode(record, arrays)


def arrays_equal(a: Episode, b: Episode, ignore: Collection[str] = ("timing",)) -> list[str]:
    """Name the arrays in which two episodes differ by so much as a bit.

    Args:
        a: One episode.
        b: The other.
        ignore: Arrays whose name starts with one of these are not compared.

    Returns:
        Sorted names that only one has, or whose dtype, shape or bytes differ; empty when equal.
        Bytes, not values: a NaN equals itself, and -0.0 is not 0.0.
    """
    prefixes = tuple(ignore)
    names = {n for n in {*a.arrays, *b.arrays} if not n.startswith(prefixes)}
    return sorted(n for n in names if not _same(a.arrays.get(n), b.arrays.get(n)))


def _same(a: NDArray[Any] | None, b: NDArray[Any] | None) -> bool:
    if a is None or b is None:
        return False
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
