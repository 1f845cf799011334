"""The run folder: ``run.json`` (what was asked, by what code) and the episode files.

No database and no index: what is finished is what is there. A killed run resumes by
listing, and runs of one configuration merge by copying files.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, cast

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.episode import (
    FILE_SUFFIX,
    FORMAT_VERSION,
    Episode,
    NewerFormat,
    Record,
    check_format,
    episode_path,
    read_record,
    write_episode,
)
from wamsim.errors import ConfigurationMismatch, RecordCorrupt
from wamsim.marker import Marker
from wamsim.provenance import content_hash, plain, provenance_hash, wamsim_version
from wamsim.whole_file import TEMPORARY_SUFFIX, naming_a_full_disk, write_whole

RUN_FILE = "run.json"
SET_ASIDE = "set_aside"

Planned = Mapping[str, Mapping[str, Sequence[int]]]  # suite -> task -> episode indices, sorted


def config_hash(config: Mapping[str, object]) -> str:
    """Hash a configuration: equal options give equal hashes, whatever their order."""
    return content_hash(config)


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What ``run.json`` holds.

    Attributes:
        config: The resolved configuration, plain data.
        provenances: Hash -> what `wamsim.provenance.collect` gave, in order of first use.
        planned: The episodes that were asked for; empty when nobody said.
        created: UTC time of the folder's creation, ISO 8601.
        wamsim: Version of wamsim that created it.
    """

    config: Mapping[str, Any]
    provenances: Mapping[str, Mapping[str, Any]]
    planned: frozenset[EpisodeKey]
    created: str
    wamsim: str

    @property
    def config_hash(self) -> str:
        """The configuration's hash, as in every record."""
        return config_hash(self.config)

    def plus(self, other: RunInfo) -> RunInfo:
        """Add the provenances and the plan of another run of the same configuration."""
        return replace(
            self,
            provenances={**self.provenances, **other.provenances},
            planned=self.planned | other.planned,
        )

    def to_json(self) -> str:
        """Write as indented JSON, for people too."""
        planned: dict[str, dict[str, list[int]]] = {}
        for key in sorted(self.planned):
            planned.setdefault(key.suite, {}).setdefault(key.task, []).append(key.index)
        document = {
            "format_version": FORMAT_VERSION,
            "wamsim": self.wamsim,
            "created": self.created,
            "config_hash": self.config_hash,
            "config": self.config,
            "provenances": [{"hash": h, "provenance": p} for h, p in self.provenances.items()],
        }
        # Long lists of indices, one line a task.
        head = json.dumps(document, indent=2, allow_nan=False)
        return f'{head[:-2]},\n  "planned": {json.dumps(planned)}\n}}\n'


def read_run(folder: Path) -> RunInfo:
    """Read a run folder's ``run.json``.

    Raises:
        RecordCorrupt: Missing, not JSON, or edited; the message names the file.
        NewerFormat: Written by a newer wamsim.
    """
    path = folder / RUN_FILE
    try:
        document: dict[str, Any] = dict(json.loads(path.read_bytes()))
        check_format(document["format_version"])
        planned = cast(Planned, document["planned"])
        info = RunInfo(
            config=dict(document["config"]),
            provenances={p["hash"]: dict(p["provenance"]) for p in document["provenances"]},
            planned=frozenset(
                EpisodeKey(suite, task, int(index))
                for suite, tasks in planned.items()
                for task, indices in tasks.items()
                for index in indices
            ),
            created=str(document["created"]),
            wamsim=str(document["wamsim"]),
        )
        if info.config_hash != document["config_hash"]:
            raise ValueError("config does not match config_hash; the file was edited")
    except (FileNotFoundError, NotADirectoryError):
        raise RecordCorrupt(
            f"no run folder: it has no {RUN_FILE}. Name a folder that `wamsim eval --out` wrote. "
            f"Folder: {folder}"
        ) from None
    except NewerFormat as error:
        raise NewerFormat(f"{error}. File: {path}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise RecordCorrupt(
            f"{RUN_FILE} is not a run's: {error!r}. Put back its original, or run into another "
            f"--out. File: {path}"
        ) from error
    return info


def differences(before: Mapping[str, Any], now: Mapping[str, Any], there: str = "now") -> list[str]:
    """Say in which keys two configurations differ, nested keys with dots, with both values."""
    a, b = dict(_leaves(plain(before))), dict(_leaves(plain(now)))
    return [
        f"{key}: {_shown(a, key)} in the folder, {_shown(b, key)} {there}"
        for key in sorted({*a, *b})
        if _shown(a, key) != _shown(b, key)
    ]


def _leaves(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(cast(dict[str, Any], value), f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _shown(leaves: Mapping[str, Any], key: str) -> str:
    return json.dumps(leaves[key]) if key in leaves else "absent"


def check_same_config(
    folder: Path,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    there: str = "now",
    advice: str = "Choose another --out, or the same options to resume.",
) -> None:
    """Refuse to mix two configurations.

    Args:
        folder: The run folder, for the message.
        before: Its configuration.
        now: The other one.
        there: Words that say where the other is from.
        advice: The message's next step.

    Raises:
        ConfigurationMismatch: Lists every key that differs, with both values.
    """
    if config_hash(before) != config_hash(now):
        listed = "\n".join(f"  {line}" for line in differences(before, now, there))
        raise ConfigurationMismatch(
            f"the run folder has another configuration:\n{listed}\n{advice} Folder: {folder}"
        )


def episode_files(folder: Path) -> list[Path]:
    """List a run's episode files, in order of their keys; opens none of them."""
    found = (folder / "episodes").glob(f"*/*/*{FILE_SUFFIX}")
    # Longer numbers are larger: names have five digits or more.
    return sorted(found, key=lambda p: (p.parts[-3], p.parts[-2], len(p.name), p.name))


def read_placed(folder: Path, path: Path) -> Record:
    """Read a record and check that its file lies where its key says.

    Raises:
        RecordCorrupt: As `read_record`; or a copy that was renamed by hand.
    """
    record = read_record(path)
    if path != episode_path(folder, record.key):
        raise RecordCorrupt(
            f"the file holds {record.key}, which belongs elsewhere; it was moved or renamed. "
            f"Put it back, or delete it. File: {path}"
        )
    return record


def records(folder: Path) -> Iterator[Record]:
    """Read every record of a run, sorted by key, headers only; also while the run goes on.

    Raises:
        RecordCorrupt: A file is truncated or altered; the message names it.
    """
    return (read_placed(folder, path) for path in episode_files(folder))


class Finished(NamedTuple):
    """What a resumed run need not do again.

    Attributes:
        episodes: Key -> file.
        messages: One sentence for every file that was set aside.
    """

    episodes: dict[EpisodeKey, Path]
    messages: list[str]


class RunFolder:
    """A run folder that this process, and no other, may write to. Use `open`, and ``with``."""

    def __init__(self, path: Path, info: RunInfo, provenance_hash: str, marker: Marker) -> None:
        self.path = path
        self.info = info
        self.config_hash = info.config_hash
        self.provenance_hash = provenance_hash  # of this process, for its records
        self._marker = marker

    @classmethod
    def open(
        cls,
        path: Path,
        config: Mapping[str, object],
        provenance: Mapping[str, object],
        planned: Iterable[EpisodeKey] = (),
    ) -> RunFolder:
        """Create a run folder, or resume one of the same configuration.

        Temporary files of killed writers are removed. A new provenance is added to those
        that ``run.json`` keeps.

        Args:
            path: The folder.
            config: Everything that decides an episode's bytes, as plain data; not the number
                of workers or of episodes, which may change when a run is resumed.
            provenance: What `wamsim.provenance.collect` gave.
            planned: The episodes asked for; added to those asked for before. Tables then show
                how many are missing.

        Raises:
            ConfigurationMismatch: The folder has another configuration, or is a file.
            RunFolderBusy: Another live process writes there.
            RecordCorrupt: ``run.json`` is altered, or gone while episodes are there.
            OutOfSpace: The disk is full.
        """
        try:
            with naming_a_full_disk(path):
                path.mkdir(parents=True, exist_ok=True)
                marker = Marker.claim(path)
        except (FileExistsError, NotADirectoryError):
            raise ConfigurationMismatch(
                f"--out names a file, expected a folder. Choose another --out. File: {path}"
            ) from None
        try:
            before = None
            if (path / RUN_FILE).exists() or episode_files(path):
                before = read_run(path)
                check_same_config(path, before.config, config)
            own = provenance_hash(provenance)
            info = RunInfo(
                config=plain(config, "config"),
                provenances={own: plain(provenance, "provenance")},
                planned=frozenset(planned),
                created=datetime.now(UTC).isoformat("T", "seconds"),
                wamsim=wamsim_version(),
            )
            info = before.plus(info) if before else info
            for leftover in _leftovers(path):
                leftover.unlink(missing_ok=True)
            if info != before:
                write_whole(path / RUN_FILE, info.to_json().encode())
        except BaseException:
            marker.release()
            raise
        return cls(path, info, own, marker)

    def finished(self, *, rerun_errors: bool = True) -> Finished:
        """List the episodes that are done.

        Files that cannot be read are moved to ``set_aside/``, so that their episodes run
        again; nothing is deleted.

        Args:
            rerun_errors: Leave out episodes that ended in an error, so that they are tried
                again; the new file then replaces the old.

        Raises:
            NewerFormat: A newer wamsim wrote here; its files are left alone.
            ConfigurationMismatch: Somebody copied an episode of another configuration here.
        """
        episodes: dict[EpisodeKey, Path] = {}
        messages: list[str] = []
        for path in episode_files(self.path):
            try:
                record = read_placed(self.path, path)
            except NewerFormat:
                raise
            except RecordCorrupt as error:
                kept = self._set_aside(path)
                messages.append(f"set aside {path.name} as {kept}: {error}")
                continue
            if record.config_hash != self.config_hash:
                raise ConfigurationMismatch(
                    f"{record.key} has configuration {record.config_hash}, but the run folder "
                    f"has {self.config_hash}. Move the file out. File: {path}"
                )
            if not (rerun_errors and record.outcome is Outcome.ERROR):
                episodes[record.key] = path
        return Finished(episodes, messages)

    def _set_aside(self, path: Path) -> Path:
        target = self.path / SET_ASIDE / path.relative_to(self.path / "episodes")
        with naming_a_full_disk(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while target.exists():
            number += 1
            target = target.with_name(f"{path.stem}-{number}{path.suffix}")
        os.replace(path, target)
        return target

    def adopt(self, other: RunInfo) -> None:
        """Take over the provenances and the plan of another run of the same configuration.

        Raises:
            ConfigurationMismatch: It is of another configuration.
            OutOfSpace: The disk is full.
        """
        check_same_config(self.path, self.info.config, other.config)
        self.info = self.info.plus(other)
        write_whole(self.path / RUN_FILE, self.info.to_json().encode())

    def write(self, episode: Episode) -> Path:
        """Write one episode to its place, replacing an earlier file of the same key.

        Raises:
            OutOfSpace: The disk is full; nothing half-written remains.
            ValueError: The record names another configuration or an unknown provenance.
        """
        record = episode.record
        if record.config_hash != self.config_hash:
            raise ValueError(
                f"the record's config_hash is {record.config_hash}, expected {self.config_hash}; "
                f"take it from RunFolder.config_hash"
            )
        if record.provenance_hash not in self.info.provenances:
            raise ValueError(
                f"{RUN_FILE} has no provenance {record.provenance_hash}; take the hash from "
                f"RunFolder.provenance_hash"
            )
        return write_episode(self.path, episode)

    def records(self) -> Iterator[Record]:
        """Read every record of the run, sorted by key, headers only."""
        return records(self.path)

    def close(self) -> None:
        """Let others write; does nothing the second time."""
        self._marker.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _leftovers(folder: Path) -> Iterator[Path]:
    """List temporary files; with the marker in hand, no live process is writing one."""
    for pattern in (f".*{TEMPORARY_SUFFIX}", f"episodes/*/*/.*{TEMPORARY_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):
            yield from folder.glob(pattern)
