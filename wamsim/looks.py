"""Looks on disk: pictures of scenes with the arm anywhere, and where the things are.

In demonstrations the hand's own place tells where it is going, so a network that learns from
them alone reads proprioception and ignores the pictures. In a look the arm stands where it
stood in another episode: whoever wants to know where a thing is has to see it.

Axes: N looks, K instructions, each of which asks for one thing of the scene.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from wamsim.demonstrations import GEOMETRY, UnusableDemonstrations
from wamsim.headed_file import open_headed
from wamsim.provenance import content_hash
from wamsim.whole_file import write_whole

FORMAT_VERSION = 1
_HEADER = "wamsim.looks"
_BY_CAMERA = ("frames", "pixel", "ahead")


@dataclass(frozen=True, kw_only=True)
class LooksInfo:
    """What the looks of a file are of.

    Attributes:
        suite, task: Whose initial states.
        instructions: K, each asking for a thing.
        things: K names in the scene; one thing may be asked for in several ways.
        first_trial: No look shows a trial below it.
        stand_in_visuals: True when pixels are not the benchmark's own.
        source: Hash of all that decides the file's content.
    """

    suite: str
    task: str
    instructions: tuple[str, ...]
    things: tuple[str, ...]
    first_trial: int
    stand_in_visuals: bool = False
    source: str = ""

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> LooksInfo:
        """Read what `to_json` wrote, without its version."""
        for name in ("instructions", "things"):
            document[name] = tuple(document[name])
        return cls(**document)

    def to_json(self) -> str:
        """Write as one line of JSON."""
        return json.dumps(
            {"format_version": FORMAT_VERSION}
            | {f.name: getattr(self, f.name) for f in fields(self)}
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """Looks at one task's scenes.

    Attributes:
        info: What they are of.
        trial: int64 [N], the initial state.
        hand: float32 [N, 3] metres: ``eef_pos`` of the robot state, in its frame of reference.
        place: float32 [N, K, 3] metres, the things' middles in that frame.
        frames: camera -> uint8 [N, H, W, 3] RGB, upright.
        pixel: camera -> float32 [N, K, 2], the middles' (column, row) in the upright picture;
            pixel i reaches from i to i + 1. It may lie outside the picture.
        ahead: camera -> bool [N, K], whether the middle lies before the camera; where it does
            not, its pixel means nothing.
        proprio: Convention's name -> float32 [N, P].
        depth: camera -> float32 [N, H, W] metres; empty where nobody asked for it, as are the
            next two.
        extrinsics: camera -> float32 [N, 4, 4], camera to world.
        intrinsics: camera -> float32 [3, 3], pixels.
    """

    info: LooksInfo
    trial: NDArray[np.int64]
    hand: NDArray[np.float32]
    place: NDArray[np.float32]
    frames: Mapping[str, NDArray[np.uint8]]
    pixel: Mapping[str, NDArray[np.float32]]
    ahead: Mapping[str, NDArray[np.bool_]]
    proprio: Mapping[str, NDArray[np.float32]]
    depth: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, Any])
    extrinsics: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, Any])
    intrinsics: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        count, things = len(self.trial), len(self.info.things)
        if len(self.info.instructions) != things:
            raise ValueError(f"{len(self.info.instructions)} instructions for {things} things")
        if self.hand.shape != (count, 3) or self.place.shape != (count, things, 3):
            raise ValueError(
                f"hand {self.hand.shape} and place {self.place.shape} of {count} looks at "
                f"{things} things"
            )
        for what in (*_BY_CAMERA, "proprio", "depth", "extrinsics"):
            for name, array in getattr(self, what).items():
                if len(array) != count:
                    raise ValueError(f"{what}/{name} has {len(array)} rows, expected {count}")


def write_looks(path: Path, looks: Looks) -> None:
    """Write looks, whole or not at all.

    Raises:
        OutOfSpace: See `write_whole`.
    """
    arrays: dict[str, NDArray[Any]] = {
        "trial": looks.trial, "hand": looks.hand, "place": looks.place
    }  # fmt: skip
    for what in (*_BY_CAMERA, "proprio", *GEOMETRY):
        for name, array in getattr(looks, what).items():
            arrays[f"{what}/{name}"] = np.ascontiguousarray(array)
    write_whole(path, safetensors.numpy.save(arrays, metadata={_HEADER: looks.info.to_json()}))


class LooksFile:
    """Looks on disk; pictures are read row by row.

    Raises:
        RecordCorrupt: Truncated, altered, or no looks; the message names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file, self.info = open_headed(
            path, _HEADER, FORMAT_VERSION, LooksInfo.from_document, what="looks"
        )
        self.names: frozenset[str] = frozenset(self._file.keys())
        self.trial: NDArray[np.int64] = self.whole("trial")

    def __len__(self) -> int:
        """Number of looks N."""
        return len(self.trial)

    def row(self, name: str, row: int) -> NDArray[Any]:
        """Read one row of an array, e.g. ``frames/agentview``."""
        found: NDArray[Any] = self._file.get_slice(name)[row : row + 1]
        return found[0]

    def whole(self, name: str) -> NDArray[Any]:
        """Read all of an array."""
        return self._file.get_tensor(name)


class LookSet:
    """The looks of several files, as if they were one.

    Instructions of the files are joined: row r of an array over instructions speaks of
    ``instructions[k]`` in column k, and `known` says whether its scene has what that asks for.

    Args:
        files: In an order that does not depend on the file system.
        cameras: Whose pictures will be asked for.
        proprio: Name of the convention that will be.
        depth: Whether depth and camera matrices will be.

    Attributes:
        instructions: All K of them, sorted.
        trial: int64 [N].
        known: bool [N, K].
        place: float32 [N, K, 3] and hand: float32 [N, 3]; see `Looks`.
        pixel: float32 [N, C, K, 2] as shares of the picture's (width, height), 0..1 inside.
        ahead: bool [N, C, K].
        proprio: float32 [N, P].

    Raises:
        UnusableDemonstrations: There are none, or they lack a camera or the convention.
    """

    def __init__(
        self,
        files: Sequence[LooksFile],
        cameras: Sequence[str],
        proprio: str,
        *,
        depth: bool = False,
    ) -> None:
        if not files:
            raise UnusableDemonstrations("there are no looks to learn from")
        wanted = [f"{what}/{c}" for what in _BY_CAMERA for c in cameras] + [f"proprio/{proprio}"]
        wanted += [f"{what}/{c}" for c in cameras if depth for what in GEOMETRY]
        for file in files:
            missing = [name for name in wanted if name not in file.names]
            if missing:
                raise UnusableDemonstrations(
                    f"looks lack {', '.join(missing)}, which the policy needs; they have "
                    f"{', '.join(sorted(file.names))}. File: {file.path}"
                )
        self.files, self.cameras = tuple(files), tuple(cameras)
        self.instructions = tuple(sorted({i for f in files for i in f.info.instructions}))
        self.starts: list[int] = [0, *np.cumsum([len(f) for f in files]).tolist()]
        count, things = self.starts[-1], len(self.instructions)
        self.trial = np.concatenate([f.trial for f in files])
        self.proprio = np.concatenate([f.whole(f"proprio/{proprio}") for f in files])
        self.hand = np.concatenate([f.whole("hand") for f in files])
        self.known = np.zeros((count, things), bool)
        self.place = np.zeros((count, things, 3), np.float32)
        self.pixel = np.zeros((count, len(cameras), things, 2), np.float32)
        self.ahead = np.zeros((count, len(cameras), things), bool)
        for number, file in enumerate(files):
            rows = slice(self.starts[number], self.starts[number + 1])
            at = [self.instructions.index(i) for i in file.info.instructions]
            self.known[rows, at] = True
            self.place[rows, at] = file.whole("place")
            for c, camera in enumerate(cameras):
                height, width = file.row(f"frames/{camera}", 0).shape[:2]
                self.pixel[rows, c, at] = file.whole(f"pixel/{camera}") / (width, height)
                self.ahead[rows, c, at] = file.whole(f"ahead/{camera}")

    def __len__(self) -> int:
        """Number of looks."""
        return len(self.trial)

    def frames(self, camera: str, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Give a camera's pictures of some looks, uint8 [n, H, W, 3]."""
        return np.stack([f.row(f"frames/{camera}", at) for f, at in self._placed(rows)])

    def geometry(self, camera: str, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Give what a camera measured in some looks.

        Returns:
            "depth" float32 [n, H, W] metres, "extrinsics" [n, 4, 4], "intrinsics" [n, 3, 3].
        """
        placed = self._placed(rows)
        return {
            what: np.stack([f.row(f"{what}/{camera}", at) for f, at in placed])
            for what in ("depth", "extrinsics")
        } | {"intrinsics": np.stack([f.whole(f"intrinsics/{camera}") for f, _ in placed])}

    def _placed(self, rows: NDArray[np.int64]) -> list[tuple[LooksFile, int]]:
        """The file of each look, and its row there."""
        numbers = [bisect.bisect_right(self.starts, row) - 1 for row in rows.tolist()]
        return [
            (self.files[n], row - self.starts[n])
            for n, row in zip(numbers, rows.tolist(), strict=True)
        ]

    def hash(self) -> str:
        """Hash of what decides the content, wherever the files lie."""
        return content_hash([f.info.to_json() for f in self.files])


def open_looks(
    folders: Sequence[Path], cameras: Sequence[str], proprio: str, *, depth: bool = False
) -> LookSet:
    """Open all looks below folders; see `LookSet` and `LooksFile` for errors."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*.safetensors"))]
    return LookSet([LooksFile(path) for path in paths], cameras, proprio, depth=depth)
