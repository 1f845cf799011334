"""Demonstrations on disk: one drawn episode, one ``.safetensors`` file.

Whatever the source was (a run folder, LIBERO's HDF5, a LeRobotDataset), training reads
this: pictures as the policy will see them, actions in a named convention, proprioception
in every convention that the source can give. Files are written whole, so drawing that was
stopped goes on where it stopped.

Axes: S env steps; row t of a picture or state was seen before action t, so they have S + 1
rows and actions have S.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from wamsim.conventions import ActionConvention, ProprioConvention
from wamsim.errors import ConventionMismatch, WamsimError
from wamsim.headed_file import open_headed
from wamsim.whole_file import write_whole

FORMAT_VERSION = 1
_HEADER = "wamsim.demonstration"
INTENDED = "intended"
GEOMETRY = ("depth", "intrinsics", "extrinsics")  # what a camera measures, beside its picture


class UnusableDemonstrations(WamsimError):
    """A demonstration set cannot be trained on."""


@dataclass(frozen=True, kw_only=True)
class DemonstrationInfo:
    """What a demonstration is of.

    Attributes:
        suite, task, index: Which episode, where the source says so.
        instruction: What the robot was told.
        success: Whether the goal was reached.
        steps: Env steps S.
        action: Name of the action convention.
        control_hz: Env steps per second.
        stand_in_visuals: True when pixels are not the benchmark's own.
        source: Where it came from, for provenance: a run's configuration hash, a file name.
    """

    suite: str
    task: str
    index: int
    instruction: str
    success: bool
    steps: int
    action: str
    control_hz: float
    stand_in_visuals: bool = False
    source: str = ""

    def to_json(self) -> str:
        """Write as one line of JSON."""
        return json.dumps(
            {"format_version": FORMAT_VERSION}
            | {f.name: getattr(self, f.name) for f in fields(self)}
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Demonstration:
    """One drawn episode.

    Attributes:
        info: What it is of.
        actions: float32 [S, A], as executed.
        intended: float32 [S, L, A], the next L actions as the expert meant them at each step,
            where it perturbed them; None: the actions that follow.
        frames: camera -> uint8 [S + 1, H, W, 3] RGB, upright.
        proprio: Convention's name -> float32 [S + 1, P].
        depth: camera -> float32 [S + 1, H, W] metres.
        intrinsics: camera -> float32 [3, 3], pixels.
        extrinsics: camera -> float32 [S + 1, 4, 4], camera to world.
    """

    info: DemonstrationInfo
    actions: NDArray[np.float32]
    frames: Mapping[str, NDArray[np.uint8]]
    proprio: Mapping[str, NDArray[np.float32]]
    depth: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, Any])
    intrinsics: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, Any])
    extrinsics: Mapping[str, NDArray[np.float32]] = field(default_factory=dict[str, Any])
    intended: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        steps = self.info.steps
        if self.actions.shape[:1] != (steps,):
            raise ValueError(f"actions {self.actions.shape} for {steps} steps")
        if self.intended is not None and (
            self.intended.ndim != 3 or self.intended[:, 0].shape != self.actions.shape
        ):
            raise ValueError(f"intended {self.intended.shape}, actions {self.actions.shape}")
        for what in ("frames", "proprio", "depth", "extrinsics"):
            for name, array in getattr(self, what).items():
                if len(array) != steps + 1:
                    raise ValueError(
                        f"{what}/{name} has {len(array)} rows, expected {steps + 1}: one before "
                        f"every action and one after the last"
                    )


def write_demonstration(path: Path, demonstration: Demonstration) -> None:
    """Write a demonstration, whole or not at all.

    Raises:
        OutOfSpace: See `write_whole`.
    """
    arrays: dict[str, NDArray[Any]] = {"actions": demonstration.actions}
    if demonstration.intended is not None:
        arrays[INTENDED] = demonstration.intended
    for what in ("frames", "proprio", "depth", "intrinsics", "extrinsics"):
        for name, array in getattr(demonstration, what).items():
            arrays[f"{what}/{name}"] = np.ascontiguousarray(array)
    data = safetensors.numpy.save(arrays, metadata={_HEADER: demonstration.info.to_json()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


class DemonstrationFile:
    """A demonstration on disk, read slice by slice.

    Raises:
        RecordCorrupt: Truncated, altered, or no demonstration; the message names the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file, self.info = open_headed(
            path, _HEADER, FORMAT_VERSION, lambda d: DemonstrationInfo(**d), what="demonstration"
        )
        self.names: frozenset[str] = frozenset(self._file.keys())

    def actions(self, *, executed: bool) -> NDArray[np.float32]:
        """All actions [S, A]: as executed, or as the expert meant them."""
        if executed or INTENDED not in self.names:
            return self.whole("actions")
        return self.whole(INTENDED)[:, 0]

    def chunk(self, step: int, horizon: int, *, executed: bool) -> NDArray[np.float32]:
        """The actions from a step on, as executed or as the expert meant them there.

        Returns:
            [<= horizon, A]; fewer at the episode's end.
        """
        stop = min(step + horizon, self.info.steps)
        if executed or INTENDED not in self.names:
            return self.rows("actions", step, stop)
        return self.rows(INTENDED, step, step + 1)[0, : stop - step]

    @property
    def ahead(self) -> int | None:
        """How many steps ahead the expert said what it meant; None where it just did it."""
        return self.rows(INTENDED, 0, 1).shape[1] if INTENDED in self.names else None

    def rows(self, name: str, first: int, stop: int) -> NDArray[Any]:
        """Read rows of an array, e.g. ``frames/agentview``.

        Raises:
            KeyError: The file has no such array.
        """
        if name not in self.names:
            raise KeyError(name)
        return self._file.get_slice(name)[first:stop]

    def whole(self, name: str) -> NDArray[Any]:
        """Read all of an array."""
        if name not in self.names:
            raise KeyError(name)
        return self._file.get_tensor(name)


class DemonstrationSet:
    """Demonstrations that one policy can be trained on.

    Args:
        files: In an order that does not depend on the file system.
        only_successes: Leave failed episodes out, as imitation does.
        every: Samples begin at every so-many env steps; neighbours tell nearly the same.

    Raises:
        UnusableDemonstrations: Nothing is left, or they are of several action conventions.
    """

    def __init__(
        self, files: Sequence[DemonstrationFile], *, only_successes: bool = True, every: int = 1
    ) -> None:
        successes = sum(f.info.success for f in files)
        kept = [f for f in files if f.info.steps > 0 and (f.info.success or not only_successes)]
        if not kept:
            raise UnusableDemonstrations(
                f"there is nothing to learn from: {len(files)} episodes, {successes} of them "
                f"successful. Record others, e.g. `wamsim eval -p oracle --set noise=0.2 "
                f"--first 100`, or train on failures too with --failures."
            )
        actions = sorted({f.info.action for f in kept})
        if len(actions) > 1:
            raise UnusableDemonstrations(
                f"the episodes use different action conventions: {', '.join(actions)}. Train on "
                f"sets of one convention."
            )
        self.files = tuple(kept)
        self.left_out = len(files) - len(kept)
        self.every = every
        self.starts = np.concatenate([[0], np.cumsum([-(-f.info.steps // every) for f in kept])])

    def __len__(self) -> int:
        """Number of samples."""
        return int(self.starts[-1])

    def locate(self, sample: int) -> tuple[int, int]:
        """Give the episode and the env step of a sample."""
        episode = int(np.searchsorted(self.starts, sample, side="right")) - 1
        return episode, int(sample - self.starts[episode]) * self.every

    def check(
        self,
        cameras: Sequence[str],
        action: ActionConvention,
        proprio: ProprioConvention | None,
        *,
        depth: bool,
        horizon: int = 1,
        executed: bool = False,
    ) -> None:
        """Refuse before the first step what a model needs and the episodes do not hold.

        Raises:
            UnusableDemonstrations: Names the file and what is missing.
            ConventionMismatch: The actions are of another convention.
        """
        if self.files[0].info.action != action.name:
            raise ConventionMismatch(
                f"the demonstrations hold {self.files[0].info.action} actions, the policy learns "
                f"{action.name}. Record demonstrations in that convention."
            )
        wanted = [f"frames/{c}" for c in cameras]
        wanted += [f"proprio/{proprio.name}"] if proprio else []
        wanted += [f"{what}/{c}" for c in cameras if depth for what in GEOMETRY]
        for file in self.files:
            said = file.ahead
            if not executed and said is not None and said < horizon:
                raise UnusableDemonstrations(
                    f"the expert said what it meant for {said} steps ahead, the policy learns "
                    f"chunks of {horizon}. Record with `--set ahead={horizon}`. File: {file.path}"
                )
            missing = [name for name in wanted if name not in file.names]
            if missing:
                raise UnusableDemonstrations(
                    f"an episode lacks {', '.join(missing)}, which the policy needs; it has "
                    f"{', '.join(sorted(file.names))}. File: {file.path}"
                )

    def actions(self, *, executed: bool) -> Iterator[NDArray[np.float32]]:
        """All actions, episode by episode, [S, A]; see `DemonstrationFile.actions`."""
        return (f.actions(executed=executed) for f in self.files)

    def proprio(self, convention: ProprioConvention) -> Iterator[NDArray[np.float32]]:
        """All proprioception, episode by episode, [S + 1, P]."""
        return (f.whole(f"proprio/{convention.name}") for f in self.files)


def open_set(
    sources: Sequence[Path],
    *,
    only_successes: bool = True,
    tasks: Sequence[str] = (),
    every: int = 1,
) -> DemonstrationSet:
    """Open all demonstrations of some sources.

    Args:
        sources: Files of demonstrations, or folders that are searched for ``*.safetensors``;
            order and names decide the samples' order.
        only_successes, every: See `DemonstrationSet`.
        tasks: Keep these tasks only; all when empty.

    Raises:
        UnusableDemonstrations: One would count twice.
    """
    paths = [
        path
        for source in sources
        for path in (sorted(source.rglob("*.safetensors")) if source.is_dir() else [source])
    ]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise UnusableDemonstrations(
            f"{len(twice)} demonstrations would count twice: two sources hold the same episodes. "
            f"Name each source once; runs of one configuration that overlap can be merged "
            f"(`wamsim merge`). First: {twice[0]}"
        )
    files = [DemonstrationFile(path) for path in paths]
    if tasks:
        files = [f for f in files if f.info.task in set(tasks)]
    return DemonstrationSet(files, only_successes=only_successes, every=every)
