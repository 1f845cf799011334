"""What all ways to make demonstrations have in common."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs.processes import Worker, spread
from wamsim.contracts import Frames
from wamsim.conventions import PROPRIOS, RobotStateLayout, proprio_from_robot_state
from wamsim.demonstrations import UnusableDemonstrations
from wamsim.errors import ConventionMismatch
from wamsim.gallery import Shot

if TYPE_CHECKING:
    from envs.rendering import Painter

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]
J = TypeVar("J")

_POSE = (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2))
_JOINTS = ("joint_pos", 7)
_NAME = re.compile(r"(?P<height>\d+)x(?P<width>\d+)-(?P<cameras>.+?)(?P<depth>-depth)?")


@dataclass(frozen=True, kw_only=True)
class Viewpoint:
    """What is drawn.

    Attributes:
        cameras: Given in any order, kept in that of their names: one drawing serves all models.
        size: (height, width).
        depth: Also depth and camera matrices.
    """

    cameras: tuple[str, ...]
    size: tuple[int, int]
    depth: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "cameras", tuple(sorted(self.cameras)))

    @property
    def name(self) -> str:
        """A folder name: equal viewpoints share their pictures."""
        size = f"{self.size[0]}x{self.size[1]}"
        return "-".join((size, *self.cameras, *(("depth",) if self.depth else ())))

    @classmethod
    def named(cls, name: str) -> Self | None:
        """Read a folder's name; None where it is not one of a viewpoint."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        size = (int(found["height"]), int(found["width"]))
        cameras = tuple(found["cameras"].split("-"))
        return cls(cameras=cameras, size=size, depth=found["depth"] is not None)

    def shows(self, other: Viewpoint) -> bool:
        """Whether pictures of this one are also pictures of another: a camera draws alone."""
        return (
            self.size == other.size
            and set(self.cameras) >= set(other.cameras)
            and self.depth >= other.depth
        )

    def bytes(self, rows: int) -> int:
        """How much `rows` pictures of every camera take."""
        pixels = self.size[0] * self.size[1] * len(self.cameras)
        return rows * pixels * (3 + (4 if self.depth else 0))


def seen(shots: Iterable[Shot], painter: Painter, viewpoint: Viewpoint) -> dict[str, Any]:
    """Lay drawn looks out camera by camera.

    Args:
        shots: Of the viewpoint's cameras and size, one per row, upright.
        painter: Who draws them.
        viewpoint: What they show.

    Returns:
        "frames" and, with depth, "depth", "extrinsics" and "intrinsics" of a `Demonstration`.
    """
    colour: list[Frames] = []
    depths: list[NDArray[np.float32]] = []
    poses: list[NDArray[Any]] = []
    for shot in shots:
        colour.append(shot.colour)
        if shot.depth is not None and shot.extrinsics is not None:
            depths.append(shot.depth)
            poses.append(shot.extrinsics)
    cameras = list(enumerate(viewpoint.cameras))
    out: dict[str, Any] = {"frames": {c: np.stack([p[i] for p in colour]) for i, c in cameras}}
    if viewpoint.depth:
        from envs.rendering import intrinsics

        scene, size = painter.scene, viewpoint.size
        out["depth"] = {c: np.stack([d[i] for d in depths]) for i, c in cameras}
        out["extrinsics"] = {
            c: np.stack([p[i] for p in poses]).astype(np.float32) for i, c in cameras
        }
        out["intrinsics"] = {c: intrinsics(scene, c, size).astype(np.float32) for _, c in cameras}
    return out


def made_wider(folder: Path, viewpoint: Viewpoint, targets: Sequence[Path]) -> list[Path]:
    """Find all files as another viewpoint, that shows all of this one, has them; or none.

    Args:
        folder: The viewpoint's own; those of others lie beside it.
        viewpoint: What is asked for.
        targets: Every file that its own folder would have.
    """
    inside = [t.relative_to(folder) for t in targets]
    for beside in sorted(folder.parent.iterdir()) if folder.parent.is_dir() else []:
        other = Viewpoint.named(beside.name)
        if other is not None and other.shows(viewpoint):
            files = [beside / path for path in inside]
            if all(file.exists() for file in files):
                return files
    return []


def make_all(
    left: Sequence[J],
    build: Callable[[], Worker],
    *,
    total: int,
    processes: int,
    group: Callable[[J], str],
    name: Callable[[J], str],
    progress: Progress | None,
    said: Callable[[str], None],
) -> tuple[int, str | None]:
    """Make what is not there yet, in several processes.

    Args:
        left: Jobs that are left; see `envs.processes.spread`, as for the next three.
        build, processes, group: See there.
        total: All demonstrations, those that are there included.
        name: Names a job, for sentences.
        progress: Called with (there, all).
        said: Called with a sentence for every one that was left out.

    Returns:
        How many are there now, and why the last that was left out was.
    """
    done, reason = total - len(left), None
    for job, sentence in spread(left, build, processes=processes, group=group):
        if sentence is not None:
            reason = sentence
            said(f"left out {name(job)}: {sentence}")
            continue
        done += 1
        if progress:
            progress(done, total)
    return done, reason


def fingerprint(files: Iterable[Path], *settings: object) -> str:
    """Name files and settings, for a folder of the cache: files that changed are read anew.

    Args:
        files: Told apart by path, size and time of the last change; reading gigabytes to
            hash them would take as long as to use them.
        settings: Whatever else decides what comes out; their ``repr`` counts.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for file in sorted(files):
        stat = file.stat()
        digest.update(f"\n{file.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def check_aspect(found: tuple[int, int], size: tuple[int, int], where: Path) -> None:
    """Refuse pictures that could only be had by stretching or cropping.

    Args:
        found: (height, width) of the source's pictures.
        size: (height, width) that is asked for.
        where: The source.

    Raises:
        UnusableDemonstrations: The two are not of one shape.
    """
    if found[0] * size[1] != found[1] * size[0]:
        raise UnusableDemonstrations(
            f"the source's own pictures are {found[0]}x{found[1]} and {size[0]}x{size[1]} are "
            f"asked for, which is another shape: they would be stretched. Choose a policy with "
            f"square pictures, or one that takes {found[0]}x{found[1]}. Source: {where}"
        )


def resized(pictures: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize pictures [T, h, w, 3] to (height, width); shrinking averages, so nothing aliases."""
    if pictures.shape[1:3] == tuple(size):
        return np.ascontiguousarray(pictures)
    out = np.empty((len(pictures), *size, 3), np.uint8)
    for row, picture in enumerate(pictures):
        image = Image.fromarray(np.ascontiguousarray(picture))
        out[row] = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return out


def refuse_depth(asked: bool, source: str, remedy: str) -> None:
    """Refuse depth that a source cannot give.

    Raises:
        UnusableDemonstrations: `asked`.
    """
    if asked:
        raise UnusableDemonstrations(
            f"the policy needs depth and camera matrices, and {source} has colour only. {remedy}"
        )


def axis_angle_to_quat(axis_angle: Array) -> Array:
    """Undo `quat_to_axis_angle`: [..., 3] radians -> xyzw [..., 4], exact up to 2 pi.

    An angle above pi gives w < 0, the very quaternion that robosuite had.
    """
    angle = np.linalg.norm(axis_angle, axis=-1, keepdims=True)
    axis = axis_angle / np.where(angle > 0, angle, 1.0)
    return np.concatenate([axis * np.sin(angle / 2), np.cos(angle / 2)], axis=-1)


def proprio_from_pose(
    eef_pos: Array, eef_axis_angle: Array, gripper_qpos: Array, joint_pos: Array | None = None
) -> dict[str, NDArray[np.float32]]:
    """Write published proprioception in every convention that it suffices for.

    Args:
        eef_pos: [T, 3] metres, world frame.
        eef_axis_angle: [T, 3] radians, angle in [0, 2 pi].
        gripper_qpos: [T, 2] metres.
        joint_pos: [T, 7] radians, where the source has it.

    Returns:
        Convention's name -> float32 [T, P].
    """
    columns = [eef_pos, axis_angle_to_quat(np.asarray(eef_axis_angle, np.float64)), gripper_qpos]
    fields = _POSE
    if joint_pos is not None:
        fields, columns = (*_POSE, _JOINTS), [*columns, joint_pos]
    raw = np.concatenate([np.asarray(c, np.float64) for c in columns], axis=-1)
    return proprio(raw, RobotStateLayout(fields=fields), suite="a published dataset")


def proprio(raw: Array, layout: RobotStateLayout, *, suite: str) -> dict[str, NDArray[np.float32]]:
    """Write raw robot states [T, layout.dim] in every convention that they suffice for."""
    out: dict[str, NDArray[np.float32]] = {}
    for name, convention in PROPRIOS.items():
        try:
            out[name] = proprio_from_robot_state(raw, layout, convention, suite=suite)
        except ConventionMismatch:  # another robot; refused later if a policy needs it
            continue
    return out
