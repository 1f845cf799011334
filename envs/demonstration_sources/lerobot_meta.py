"""What a LeRobotDataset v3.0 holds, and what its features mean to us."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow
import pyarrow.parquet

from envs.demonstration_sources.shared import Viewpoint, check_aspect
from wamsim.conventions import (
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    EEF_AXIS_ANGLE_GRIPPER,
    Orientation,
)
from wamsim.demonstrations import UnusableDemonstrations
from wamsim.errors import ConventionMismatch, RecordCorrupt, WamsimError, nearest

CAMERA = "camera."  # before a feature's name in an option

pq: Any = pyarrow.parquet  # its stubs are partial

_EPISODE = (
    "episode_index", "length", "dataset_from_index", "dataset_to_index", "data/chunk_index",
    "data/file_index",
)  # fmt: skip
_VIDEO = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


def _libero_cameras() -> dict[str, str]:
    # HuggingFaceVLA/libero has image and image2, conversions by any4lerobot wrist_image
    return {
        "observation.images.image": "agentview",
        "observation.images.image2": "eye_in_hand",
        "observation.images.wrist_image": "eye_in_hand",
    }


@dataclass(frozen=True, kw_only=True)
class LeRobotLayout:
    """What the features of a dataset mean. The defaults are those of HuggingFaceVLA/libero.

    Attributes:
        cameras: Feature of pictures -> camera of ours.
        state: Feature of 8 numbers, EEF_AXIS_ANGLE_GRIPPER.
        action: Feature of 7 numbers, DELTA_EEF_GRIPPER_CLOSE_POSITIVE: the gripper as the
            environment takes it, -1 open and 1 close. OpenVLA's 0 close and 1 open is refused.
        orientation: How the pictures are turned. LIBERO's were turned by 180 degrees from
            OpenGL's rows (lerobot's LiberoProcessorStep does so with an environment's, to
            match), which is upright with left and right swapped.
        control_hz: Env steps per second; None takes ``fps``. LIBERO's control rate is 20,
            whereas many sets give 10 as their fps and hold every env step nevertheless.
    """

    cameras: Mapping[str, str] = field(default_factory=_libero_cameras)
    state: str = "observation.state"
    action: str = "action"
    orientation: Orientation = Orientation.MIRRORED
    control_hz: float | None = 20.0

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> Self:
        """Read ``--lerobot key=value``.

        Args:
            options: ``state``, ``action``, ``orientation`` (upright, mirrored, ...),
                ``control_hz`` (a number, or ``fps`` for the data set's own), and
                ``camera.FEATURE`` = a camera of ours; naming any camera drops the defaults.

        Raises:
            UnknownName: Another key or orientation.
            WamsimError: A control rate that is no positive number.
        """
        changes: dict[str, Any] = {}
        cameras: dict[str, str] = {}
        for key, value in options.items():
            if key.startswith(CAMERA):
                cameras[key.removeprefix(CAMERA)] = value
            elif key in ("state", "action"):
                changes[key] = value
            elif key == "orientation":
                known = {o.value: o for o in Orientation}
                if value not in known:
                    raise nearest(value, tuple(known), kind="orientation")
                changes[key] = known[value]
            elif key == "control_hz":
                changes[key] = None if value == "fps" else _rate(value)
            else:
                known_keys = ("state", "action", "orientation", "control_hz", f"{CAMERA}FEATURE")
                raise nearest(key, known_keys, kind="key of --lerobot")
        if cameras:
            changes["cameras"] = cameras
        return cls(**changes)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.0 < rate < float("inf"):
        raise WamsimError(
            f"--lerobot control_hz={text} is no rate. Give env steps per second, e.g. 20, or fps."
        )
    return rate


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What ``meta/`` says: info.json, task_index -> instruction, and a row per episode."""

    root: Path
    info: dict[str, Any]
    tasks: dict[int, str]
    episodes: list[dict[str, Any]]

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Name -> dtype, shape, ..."""
        return self.info["features"]

    def data_file(self, episode: Mapping[str, Any]) -> Path:
        """The file that holds an episode's rows."""
        chunk, file = episode["data/chunk_index"], episode["data/file_index"]
        return self.root / self.info["data_path"].format(chunk_index=chunk, file_index=file)

    def video_file(self, episode: Mapping[str, Any], key: str) -> Path:
        """The file that holds an episode's pictures."""
        chunk, file = episode[f"videos/{key}/chunk_index"], episode[f"videos/{key}/file_index"]
        template: str = self.info["video_path"]
        return self.root / template.format(video_key=key, chunk_index=chunk, file_index=file)


def read_meta(source: Path, layout: LeRobotLayout) -> Meta:
    """Read a dataset's metadata.

    Raises:
        RecordCorrupt: It is missing or damaged.
        UnusableDemonstrations: It is of another version of the format.
        ConventionMismatch: State or action is not as wide as our conventions.
    """
    try:
        info: dict[str, Any] = json.loads((source / "meta" / "info.json").read_text())
        version = str(info["codebase_version"])
        if not version.startswith("v3"):
            raise UnusableDemonstrations(
                f"the LeRobotDataset is {version}, and wamsim reads v3.0. Convert it with "
                f"lerobot's convert_dataset_v21_to_v30. Dataset: {source}"
            )
        tasks: dict[str, list[Any]] = pq.read_table(source / "meta" / "tasks.parquet").to_pydict()
        numbers = tasks.pop("task_index")
        # pandas writes the instruction as an index, whose name is "task" or none at all
        words = next(column for column in tasks.values() if all(isinstance(w, str) for w in column))
        rows: list[dict[str, Any]] = []
        videos = [key for key, f in info["features"].items() if f["dtype"] == "video"]
        wanted = [*_EPISODE, *(f"videos/{key}/{name}" for key in videos for name in _VIDEO)]
        for path in sorted((source / "meta" / "episodes").rglob("*.parquet")):
            rows += columns(path, *wanted).to_pylist()
        rows.sort(key=lambda row: row["episode_index"])
        shapes = {
            name: tuple(info["features"][name]["shape"]) for name in (layout.state, layout.action)
        }
    except (OSError, KeyError, ValueError, StopIteration, pyarrow.ArrowException) as error:
        raise RecordCorrupt(
            f"the metadata of a LeRobotDataset cannot be read: {error!r}. Download the dataset "
            f"again. Dataset: {source}"
        ) from error
    for name, convention in (
        (layout.state, EEF_AXIS_ANGLE_GRIPPER),
        (layout.action, DELTA_EEF_GRIPPER_CLOSE_POSITIVE),
    ):
        if shapes[name] != (convention.dim,):
            raise ConventionMismatch(
                f"{name} has shape {shapes[name]}, expected ({convention.dim},) for "
                f"{convention.name}. Name another feature in the LeRobotLayout. Dataset: {source}"
            )
    return Meta(root=source, info=info, tasks=dict(zip(numbers, words, strict=True)), episodes=rows)


def keys_of(meta: Meta, layout: LeRobotLayout, viewpoint: Viewpoint) -> dict[str, str]:
    """Find the feature of every camera.

    Returns:
        Camera -> feature.

    Raises:
        UnusableDemonstrations: A camera has none, or several; lists the dataset's.
    """
    pictures = [k for k, f in meta.features.items() if f["dtype"] in ("video", "image")]
    keys: dict[str, str] = {}
    for camera in viewpoint.cameras:
        fitting = [k for k, c in layout.cameras.items() if c == camera and k in pictures]
        if len(fitting) != 1:
            known = ", ".join(f"{key} is {name}" for key, name in layout.cameras.items())
            raise UnusableDemonstrations(
                f"{' and '.join(fitting) or 'no feature'} of the dataset would be camera "
                f"{camera!r}. Its pictures are {', '.join(pictures) or 'none'}; the LeRobotLayout "
                f"says {known}. Pass another. Dataset: {meta.root}"
            )
        keys[camera] = fitting[0]
        height, width = _height_width(meta.features[fitting[0]])
        check_aspect((height, width), viewpoint.size, meta.root)
    return keys


def columns(path: Path, *names: str, optional: tuple[str, ...] = ()) -> Any:
    """Read columns of a parquet file, a pyarrow table.

    Raises:
        KeyError: One is missing that is not optional.
        OSError, pyarrow.ArrowException: It cannot be read.
    """
    there = set(pq.read_schema(path).names)
    missing = sorted(set(names) - there)
    if missing:
        raise KeyError(", ".join(missing))
    return pq.read_table(path, columns=[*names, *(name for name in optional if name in there)])


def _height_width(feature: Mapping[str, Any]) -> tuple[int, int]:
    """Of a feature's shape, which may be channels first whatever its names say."""
    shape = [int(n) for n in feature["shape"]]
    return (shape[1], shape[2]) if shape[0] == 3 else (shape[0], shape[1])
