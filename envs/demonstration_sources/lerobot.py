"""LeRobotDataset v3.0 folders, read without lerobot.

    meta/info.json                          fps, features, templates of paths
    meta/tasks.parquet                      task_index, and the instruction as its index
    meta/episodes/chunk-*/file-*.parquet    a row per episode: which file, which rows, which seconds
    data/chunk-000/file-000.parquet         a row per frame, many episodes per file
    videos/<key>/chunk-000/file-000.mp4     likewise; or pictures as PNG or JPEG in the data

Frame t was seen before action t, and there is no frame after the last action: T frames
give S = T - 1 steps, and the last action is left out.

There is no outcome in the format. These are demonstrations, and published LIBERO sets hold
successful ones only, so an episode counts as a success unless a column ``next.success``
says otherwise at its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
from numpy.typing import NDArray

from envs.demonstration_sources import shared
from envs.demonstration_sources.films import Films, decoded
from envs.demonstration_sources.lerobot_meta import (
    LeRobotLayout,
    Meta,
    columns,
    keys_of,
    read_meta,
)
from envs.demonstration_sources.shared import Progress, Viewpoint
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, orient
from wamsim.demonstrations import (
    Demonstration,
    DemonstrationInfo,
    UnusableDemonstrations,
    write_demonstration,
)
from wamsim.errors import ConventionMismatch, RecordCorrupt
from wamsim.whole_file import check_room

pc: Any = pyarrow.compute  # made at run time, so without stubs
_ROW = ("episode_index", "frame_index", "task_index")
_ROUNDING = 1e-5  # of an action's bounds, in float32
_READABLE = 80  # characters of an instruction in a folder's name


def read_lerobot(
    source: Path,
    viewpoint: Viewpoint,
    *,
    cache: Path,
    layout: LeRobotLayout,
    progress: Progress | None = None,
    said: Callable[[str], None],
) -> list[Path]:
    """Make demonstrations from a LeRobotDataset; every video is decoded once, from its start.

    Args:
        source: The dataset's folder.
        viewpoint: Cameras, and the size that pictures are resized to.
        cache: Where demonstrations go, as ``lerobot-<hash>/<viewpoint>/<task>/``.
        layout: What the dataset's features mean.
        progress: Called with (made, all).
        said: Called with a sentence for every episode that was left out.

    Returns:
        The files of demonstrations, in order.

    Raises:
        RecordCorrupt: Metadata or data cannot be read.
        ConventionMismatch: States or actions are not in our conventions.
        UnusableDemonstrations: Not version 3, a camera that it lacks, depth, or no episode
            could be used.
        OutOfSpace: The pictures would not fit on the disk; nothing was written.
    """
    shared.refuse_depth(viewpoint.depth, "a LeRobotDataset", "Train on a wamsim run folder.")
    meta = read_meta(source, layout)
    keys = keys_of(meta, layout, viewpoint)
    data = sorted({meta.data_file(episode) for episode in meta.episodes})
    _check_actions(data, layout)
    films = (source / "videos").rglob("*.mp4")
    stamp = shared.fingerprint([source / "meta" / "info.json", *data, *films], layout)
    folder = cache / f"lerobot-{stamp}" / viewpoint.name
    reader = Reader(meta, layout, keys, viewpoint.size)
    there = {path.name for path in folder.glob("*/*.safetensors")}
    left = [e for e in meta.episodes if _file_name(e) not in there]
    check_room(folder, viewpoint.bytes(sum(e["length"] for e in left)))
    done, reason = len(meta.episodes) - len(left), "it has no episodes"
    try:
        for episode in left:
            try:
                made = reader.read(episode)
            except RecordCorrupt as error:
                reason = str(error)
                said(f"left out episode {episode['episode_index']}: {reason}")
                continue
            write_demonstration(folder / made.info.task / _file_name(episode), made)
            done += 1
            if progress:
                progress(done, len(meta.episodes))
    finally:
        reader.close()
    if not done:
        raise UnusableDemonstrations(f"no episode could be used: {reason}. Dataset: {source}")
    return sorted(folder.glob("*/*.safetensors"))


class Reader:
    """Reads episodes in their order.

    Args:
        meta: Of the dataset.
        layout: What features mean.
        keys: Camera -> feature.
        size: (height, width) of the pictures.
    """

    def __init__(
        self, meta: Meta, layout: LeRobotLayout, keys: Mapping[str, str], size: tuple[int, int]
    ) -> None:
        self._meta, self._layout, self._keys, self._size = meta, layout, keys, size
        self._films = Films(float(meta.info["fps"]))
        self._table: tuple[Path, Any] | None = None

    def close(self) -> None:
        """Close the videos."""
        self._films.close()

    def read(self, episode: Mapping[str, Any]) -> Demonstration:
        """Read one episode.

        Raises:
            RecordCorrupt: Rows, frames and ``length`` do not agree, or it has several tasks.
        """
        layout, number, length = self._layout, episode["episode_index"], episode["length"]
        rows = self._rows(episode)
        counted = (rows.num_rows, episode["dataset_to_index"] - episode["dataset_from_index"])
        if counted != (length, length) or length < 2:
            raise RecordCorrupt(
                f"episode {number} is {length} frames long, but has {counted[0]} rows and "
                f"{counted[1]} indices; as many of all, at least 2, were expected"
            )
        tasks = set(rows["task_index"].to_pylist())
        instruction = self._meta.tasks.get(min(tasks), "") if len(tasks) == 1 else ""
        if not instruction:
            raise RecordCorrupt(f"episode {number} has tasks {sorted(tasks)}, expected a known one")
        state = _numbers(rows, layout.state)
        frames = {
            camera: shared.resized(
                orient(self._pictures(rows, episode, key), layout.orientation), self._size
            )
            for camera, key in self._keys.items()
        }
        told = "next.success" in rows.column_names
        return Demonstration(
            info=DemonstrationInfo(
                suite="",
                task=re.sub(r"[^a-z0-9]+", "_", instruction.lower()).strip("_")[:_READABLE],
                index=number,
                instruction=instruction,
                success=not told or bool(rows["next.success"][-1].as_py()),
                steps=length - 1,
                action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name,
                control_hz=layout.control_hz or float(self._meta.info["fps"]),
                source=f"{self._meta.root.name}:{number}",
            ),
            actions=_numbers(rows, layout.action)[:-1].astype(np.float32),
            frames=frames,
            proprio=shared.proprio_from_pose(state[:, :3], state[:, 3:6], state[:, 6:]),
        )

    def _rows(self, episode: Mapping[str, Any]) -> Any:
        path = self._meta.data_file(episode)
        if self._table is None or self._table[0] != path:
            images = [k for k in self._keys.values() if self._meta.features[k]["dtype"] == "image"]
            wanted = [self._layout.state, self._layout.action, *_ROW, *images]
            try:
                self._table = (path, columns(path, *wanted, optional=("next.success",)))
            except (OSError, KeyError, pyarrow.ArrowException) as error:
                raise RecordCorrupt(f"no data can be read: {error!r}. File: {path}") from error
        table = self._table[1]
        own = pc.equal(table["episode_index"], episode["episode_index"])
        return table.filter(own).sort_by("frame_index")

    def _pictures(self, rows: Any, episode: Mapping[str, Any], key: str) -> NDArray[np.uint8]:
        if self._meta.features[key]["dtype"] == "image":
            return np.stack([decoded(cell["bytes"], key) for cell in rows[key].to_pylist()])
        first, last = (episode[f"videos/{key}/{end}_timestamp"] for end in ("from", "to"))
        fps = float(self._meta.info["fps"])
        if round((last - first) * fps) != episode["length"]:
            raise RecordCorrupt(
                f"episode {episode['episode_index']} is {episode['length']} frames long, but its "
                f"video {key} lasts {last - first:.3f} s at {fps:g} frames per second"
            )
        path = self._meta.video_file(episode, key)
        start = round(first * fps)
        return self._films.of(key, path, start).take(start, episode["length"])


def _check_actions(files: list[Path], layout: LeRobotLayout) -> None:
    """Refuse actions of another convention, before anything is decoded."""
    opens = False
    for path in files:
        try:
            actions = _numbers(columns(path, layout.action), layout.action)
        except (OSError, KeyError, pyarrow.ArrowException) as error:
            raise RecordCorrupt(f"no data can be read: {error!r}. File: {path}") from error
        low, high = float(actions.min(initial=0)), float(actions.max(initial=0))
        if not (low >= -1 - _ROUNDING and high <= 1 + _ROUNDING):
            raise ConventionMismatch(
                f"{layout.action} reaches from {low:g} to {high:g}, and "
                f"{DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name} from -1 to 1. Convert the dataset to "
                f"what LIBERO's environment takes. File: {path}"
            )
        opens = opens or bool((actions[:, -1] < 0).any())
    if files and not opens:
        raise ConventionMismatch(
            f"the gripper channel of {layout.action} is never below 0, so it is not -1 open and "
            f"1 close, as {DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name} has it; OpenVLA's sets have 0 "
            f"close and 1 open. Convert it with 1 - 2 * gripper. File: {files[0]}"
        )


def _numbers(rows: Any, name: str) -> NDArray[np.float64]:
    return np.asarray(rows[name].to_pylist(), np.float64).reshape(rows.num_rows, -1)


def _file_name(episode: Mapping[str, Any]) -> str:
    return f"{episode['episode_index']:06d}.safetensors"
