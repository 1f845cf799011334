"""Demonstrations -> batches. Which samples a step sees is a function of the seed and the step.

Nothing is remembered between steps, so a training that was killed goes on with the very
batches that it would have seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from policies.batch import Batch, BatchSpec
from policies.training import augmentation
from wamsim.demonstrations import DemonstrationSet, UnusableDemonstrations
from wamsim.keyframes import next_keyframes

if TYPE_CHECKING:
    from policies.training.features import FeatureCache

ORDER, NOISE = 1, 2  # what a draw is for


def split(
    demonstrations: DemonstrationSet, every: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part samples into those to learn from and those to validate on, by whole episodes.

    Args:
        demonstrations: All.
        every: Of each task every n-th episode validates; 0 takes none.

    Returns:
        Sample numbers of both.
    """
    seen: dict[str, int] = {}
    parts: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for number, file in enumerate(demonstrations.files):
        task = f"{file.info.suite}/{file.info.task}"
        seen[task] = seen.get(task, 0) + 1
        held_out = every > 0 and seen[task] % every == 0
        first, stop = demonstrations.starts[number : number + 2]
        parts[held_out].append(np.arange(first, stop))
    empty = np.zeros(0, np.int64)
    learn, validate = (np.concatenate(p) if p else empty for p in parts)
    if not len(learn):
        raise UnusableDemonstrations(
            "no episode is left to learn from after holding some out for validation; record more "
            "episodes, or --validate-every 0"
        )
    return learn, validate


class Sampler:
    """Makes batches of one spec.

    Args:
        demonstrations: Where from.
        spec: What the model wants.
        samples: Sample numbers to draw from.
        batch: Samples of a batch.
        seed: Of the training.
        shift: See `TrainConfig.shift`.

    Attributes:
        features: What frozen parts gave for every sample of the set; goes into batches.

    Raises:
        UnusableDemonstrations, ConventionMismatch: The episodes lack what the spec asks.
    """

    def __init__(
        self,
        demonstrations: DemonstrationSet,
        spec: BatchSpec,
        samples: NDArray[np.int64],
        *,
        batch: int,
        seed: int,
        shift: int = 0,
    ) -> None:
        demonstrations.check(
            spec.cameras, spec.action, spec.proprio, depth=spec.depth, horizon=spec.horizon,
            executed=spec.executed,
        )  # fmt: skip
        self.set, self.spec, self.samples = demonstrations, spec, samples
        self._batch, self._seed, self._shift = batch, seed, shift
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self.features: FeatureCache | None = None
        self._keyframes: dict[int, NDArray[np.int64]] = {}

    def numbers(self, step: int) -> NDArray[np.int64]:
        """Give the sample numbers of a step; every sample once before any comes again."""
        at = step * self._batch + np.arange(self._batch)
        return np.array([self._in_epoch(*divmod(int(i), len(self.samples))) for i in at])

    def _in_epoch(self, epoch: int, place: int) -> int:
        if self._order is None or self._order[0] != epoch:
            rng = np.random.Generator(np.random.PCG64([self._seed, ORDER, epoch]))
            self._order = epoch, rng.permutation(self.samples)
        return int(self._order[1][place])

    def batch(self, step: int) -> Batch:
        """Make the batch of a step; its noise seeds are a function of seed and step."""
        rng = np.random.Generator(np.random.PCG64([self._seed, NOISE, step]))
        batch = self.make(self.numbers(step), rng.integers(0, 2**62, self._batch))
        return self._moved(batch) if self._shift else batch

    def _moved(self, batch: Batch) -> Batch:
        assert batch.seed is not None
        cameras = self.spec.cameras
        by = augmentation.offsets(batch.seed.tolist(), len(cameras), self._shift)
        move = {camera: by[:, number] for number, camera in enumerate(cameras)}
        changed: dict[str, Any] = {
            "frames": {c: augmentation.shifted(x, move[c]) for c, x in batch.frames.items()}
        }
        if batch.depth is not None and batch.intrinsics is not None:
            changed["depth"] = {c: augmentation.shifted(x, move[c]) for c, x in batch.depth.items()}
            changed["intrinsics"] = {
                c: augmentation.moved_centre(x, move[c]) for c, x in batch.intrinsics.items()
            }
        return dataclasses.replace(batch, **changed)

    def make(self, numbers: Sequence[int] | NDArray[np.int64], seeds: NDArray[np.int64]) -> Batch:
        """Make a batch of given samples.

        Args:
            numbers: B sample numbers.
            seeds: [B], for noise.
        """
        spec = self.spec
        rows = [self._row(int(number)) for number in numbers]

        def stacked(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([row[name] for row in rows]))

        geometry: dict[str, Any] = {}
        if spec.depth:
            for what in ("depth", "intrinsics", "extrinsics"):
                geometry[what] = {c: stacked(f"{what}/{c}") for c in spec.cameras}
        return Batch(
            frames={c: stacked(f"frames/{c}") for c in spec.cameras},
            frame_offsets=spec.frame_offsets,
            frame_valid=stacked("frame_valid"),
            proprio=stacked("proprio") if spec.proprio else None,
            actions=stacked("actions"),
            action_valid=stacked("action_valid"),
            instruction=[row["info"].instruction for row in rows],
            success=torch.tensor([row["info"].success for row in rows]),
            steps_left=torch.tensor([row["info"].steps - row["step"] for row in rows]),
            episode=torch.tensor([row["episode"] for row in rows]),
            step=torch.tensor([row["step"] for row in rows]),
            seed=torch.from_numpy(np.asarray(seeds, np.int64)),
            features=None if self.features is None else self.features.of(numbers),
            keyframe=stacked("keyframe") if spec.keyframe else None,
            **geometry,
        )

    def _row(self, number: int) -> dict[str, Any]:
        spec = self.spec
        episode, step = self.set.locate(number)
        file = self.set.files[episode]
        last = file.info.steps
        wanted = step + np.array(spec.frame_offsets)
        places = wanted.clip(0, last)
        low, high = int(places.min()), int(places.max()) + 1
        ahead = step + np.arange(spec.horizon)
        actions = file.chunk(step, spec.horizon, executed=spec.executed)
        out: dict[str, Any] = {
            "info": file.info,
            "episode": episode,
            "step": step,
            "frame_valid": (wanted >= 0) & (wanted <= last),
            "action_valid": ahead < last,
            "actions": actions[np.minimum(np.arange(spec.horizon), len(actions) - 1)],
        }
        for camera in spec.cameras:
            out[f"frames/{camera}"] = file.rows(f"frames/{camera}", low, high)[places - low]
            if spec.depth:
                for what in ("depth", "extrinsics"):
                    out[f"{what}/{camera}"] = file.rows(f"{what}/{camera}", low, high)[places - low]
                out[f"intrinsics/{camera}"] = file.whole(f"intrinsics/{camera}")
        if spec.proprio is not None:
            name = f"proprio/{spec.proprio.name}"
            out["proprio"] = file.rows(name, low, high)[places - low]
            if spec.keyframe:
                at = self._next_keyframe(episode, step)
                out["keyframe"] = file.rows(name, at, at + 1)[0]
        return out

    def _next_keyframe(self, episode: int, step: int) -> int:
        if episode not in self._keyframes:
            file = self.set.files[episode]
            actions = file.actions(executed=self.spec.executed)
            self._keyframes[episode] = next_keyframes(actions, self.spec.action)
        return int(self._keyframes[episode][step])
