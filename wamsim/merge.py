"""Several run folders of one configuration become one, by copying files.

Shards of a run, or runs on several machines: because an episode's bytes depend on its key
and the run's seed alone, it does not matter which machine did it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.episode import Record, arrays_equal, episode_path, read_episode
from wamsim.errors import WamsimError
from wamsim.run_folder import (
    RUN_FILE,
    RunFolder,
    check_same_config,
    episode_files,
    read_placed,
    read_run,
)
from wamsim.whole_file import temporary_for, write_whole

Chosen = dict[EpisodeKey, tuple[Record, Path]]


class EpisodeConflict(WamsimError):
    """Two runs of one configuration hold the same episode with different content."""


def merge(sources: Sequence[Path], out: Path) -> int:
    """Bring the episodes of several run folders into one.

    Everything is checked before the first file is written. The sources stay as they are;
    files are hard links where the file system allows it (episode files are never changed
    in place), else copies.

    When two folders have the same episode, a scored one is preferred to an error, and two
    scored ones must agree in every array but the timings.

    Args:
        sources: Run folders.
        out: A new folder, or a run folder of the same configuration, which is added to.

    Returns:
        The number of episodes in ``out`` afterwards.

    Raises:
        ConfigurationMismatch: The configurations differ; lists the keys.
        EpisodeConflict: One episode, two contents: something is not deterministic.
        RecordCorrupt: A source is no run folder, or one of its files is unreadable.
        RunFolderBusy: Another process writes to ``out``.
        OutOfSpace: The disk is full; merging again goes on.
    """
    if not sources:
        raise WamsimError("nothing to merge: no source folder was named. Name at least one.")
    folders = [out, *sources] if (out / RUN_FILE).exists() else list(sources)
    infos = [read_run(folder) for folder in folders]
    for folder, info in zip(folders, infos, strict=True):
        check_same_config(
            folder,
            info.config,
            infos[0].config,
            there=f"in {folders[0].name}",
            advice="Merge only runs of one configuration.",
        )
    chosen = _choose(folders)

    provenance = next(iter(infos[0].provenances.values()))
    with RunFolder.open(out, infos[0].config, provenance) as target:
        for info in infos:
            target.adopt(info)
        for key, (_, path) in chosen.items():
            _place(path, episode_path(out, key))
    return len(chosen)


def _choose(folders: Sequence[Path]) -> Chosen:
    chosen: Chosen = {}
    for folder in folders:
        for path in episode_files(folder):
            record = read_placed(folder, path)
            before = chosen.get(record.key)
            chosen[record.key] = _better(before, (record, path)) if before else (record, path)
    return chosen


def _better(first: tuple[Record, Path], second: tuple[Record, Path]) -> tuple[Record, Path]:
    """Choose between two files of one key; the first where they are equally good."""
    (a, a_path), (b, b_path) = first, second
    if b.outcome is Outcome.ERROR or a_path.samefile(b_path):
        return first
    if a.outcome is Outcome.ERROR:
        return second
    differ = [
        name
        for name in ("outcome", "steps", "success_step", "initial_state")
        if getattr(a, name) != getattr(b, name)
    ]
    differ += arrays_equal(read_episode(a_path), read_episode(b_path))
    if differ:
        raise EpisodeConflict(
            f"two runs of one configuration disagree on {a.key}: {', '.join(differ)} differ. "
            f"Expected the same bytes; compare the provenances in their {RUN_FILE}, and merge "
            f"without one of the runs. Files: {a_path} and {b_path}"
        )
    return first


def _place(source: Path, target: Path) -> None:
    """Make an episode appear at its place, whole, at once."""
    if source == target:
        return
    temporary = temporary_for(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, temporary)
        os.replace(temporary, target)
    except OSError:  # another file system, one without links, or a full one
        write_whole(target, source.read_bytes())
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
