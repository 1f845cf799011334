"""A training batch, the same for every family; each model takes from it what it needs.

Axes: B samples, T frames, H horizon, A action channels, P proprioception channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wamsim.conventions import ActionConvention, ProprioConvention


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """What a model wants of each sample.

    Attributes:
        cameras: In order.
        image_size: (height, width).
        frame_offsets: Env steps relative to the sample's step, past and future, rising.
        horizon: Actions from the sample's step on (H).
        action, proprio: Conventions; proprioception comes at every frame offset.
        depth: Also metric depth and camera matrices.
        executed: Actions as they were executed (world models); else as the expert meant them,
            where the demonstrations tell the two apart.
        keyframe: Also proprioception at the next keyframe (see `wamsim.keyframes`).
    """

    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    frame_offsets: tuple[int, ...]
    horizon: int
    action: ActionConvention
    proprio: ProprioConvention | None
    depth: bool = False
    executed: bool = False
    keyframe: bool = False


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples.

    Attributes:
        frames: camera -> uint8 [B, T, H, W, 3] RGB, upright.
        frame_offsets: The T offsets, as in the spec.
        frame_valid: bool [B, T]; False where an offset lies outside the episode (the
            nearest frame stands in).
        proprio: float32 [B, T, P], or None.
        actions: float32 [B, H, A]; past the episode's end the last action is repeated.
        action_valid: bool [B, H].
        instruction: B strings.
        success: bool [B], whether the sample's episode succeeded.
        steps_left: int64 [B], env steps from the sample's step to the episode's end.
        episode: int64 [B], which episode; step: int64 [B], which env step.
        depth, intrinsics, extrinsics: camera -> [B, T, H, W] metres, [B, 3, 3], [B, T, 4, 4].
        seed: int64 [B], for noise that must not depend on the batch; None draws freely.
        features: name -> [B, ...], what a model's ``frozen_features`` gave for these samples
            (see `policies.training.features`); None where they were not computed beforehand.
        keyframe: float32 [B, P], proprioception at the next keyframe, or None.
    """

    frames: Mapping[str, Tensor]
    frame_offsets: tuple[int, ...]
    frame_valid: Tensor
    proprio: Tensor | None
    actions: Tensor
    action_valid: Tensor
    instruction: Sequence[str]
    success: Tensor
    steps_left: Tensor
    episode: Tensor
    step: Tensor
    depth: Mapping[str, Tensor] | None = None
    intrinsics: Mapping[str, Tensor] | None = None
    extrinsics: Mapping[str, Tensor] | None = None
    seed: Tensor | None = None
    features: Mapping[str, Tensor] | None = None
    keyframe: Tensor | None = None

    @property
    def size(self) -> int:
        """Number of samples."""
        return int(self.actions.shape[0])

    def rows(self, which: slice) -> Batch:
        """Give some of the samples."""
        cut: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Mapping):
                cut[field.name] = {k: v[which] for k, v in value.items()}
            elif value is not None and field.name != "frame_offsets":
                cut[field.name] = value[which]
        return dataclasses.replace(self, **cut)

    def at(self, camera: str, offsets: Sequence[int]) -> Tensor:
        """Give a camera's frames at some of the offsets, [B, len(offsets), H, W, 3].

        Raises:
            ValueError: The batch does not hold an offset.
        """
        return self.frames[camera][:, self._places(offsets)]

    def valid_at(self, offsets: Sequence[int]) -> Tensor:
        """Whether frames at some of the offsets lie inside the episode, bool [B, n]."""
        return self.frame_valid[:, self._places(offsets)]

    def proprio_at(self, offset: int) -> Tensor:
        """Proprioception at one offset, [B, P].

        Raises:
            ValueError: The batch holds no proprioception, or not that offset.
        """
        if self.proprio is None:
            raise ValueError("this batch holds no proprioception; name a convention in the spec")
        return self.proprio[:, self._places([offset])[0]]

    def _places(self, offsets: Sequence[int]) -> list[int]:
        missing = [o for o in offsets if o not in self.frame_offsets]
        if missing:
            raise ValueError(
                f"the batch has frames at {self.frame_offsets}, not at {missing}; name them in "
                f"the model's BatchSpec"
            )
        return [self.frame_offsets.index(o) for o in offsets]


def check_finite(losses: Mapping[str, Tensor]) -> None:
    """Stop at the first loss term that is not finite.

    Raises:
        FloatingPointError: Names the term.
    """
    for name, value in losses.items():
        if not bool(torch.isfinite(value).all()):
            raise FloatingPointError(
                f"loss term {name!r} is {value.detach().float().mean().item()}; training stops "
                f"before it reaches the weights. Lower the learning rate or look at the batch."
            )
