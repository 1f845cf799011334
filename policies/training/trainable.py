"""What a model must have to be trained by the loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.checkpoint import CheckpointMismatch, Statistics, local_folder, read_tensors
from wamsim.errors import WamsimError, nearest


class NotTrainable(WamsimError):
    """There is nothing to learn in it."""


@runtime_checkable
class Trainable(Protocol):
    """A model as the loop sees it; also an `nn.Module`.

    It may have more:

    - ``data_actions(actions [..., A]) -> [..., A]``: actions as its statistics count them.
    - ``frozen_features(batch) -> {name: [B, ...]}``: what frozen parts give for a batch, the
      same in every epoch. They come back in ``Batch.features``.
    - ``parts() -> {name: Part}``: what can be trained beforehand, by itself.
    """

    @property
    def batch_spec(self) -> BatchSpec:
        """What `loss` needs of each sample."""
        ...

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Every term by name, and "total"."""
        ...

    def set_statistics(self, statistics: Statistics) -> None:
        """Take a data set's statistics."""
        ...

    def save_pretrained(self, save_directory: Path) -> Any:
        """Write weights, configuration and statistics."""
        ...


class Part(Protocol):
    """A piece of a model that is trained by itself before the rest: tokenizer, backbone.

    Attributes:
        prefixes: Keys of the model's state dict that belong to it start with one of these.
    """

    prefixes: tuple[str, ...]

    @property
    def batch_spec(self) -> BatchSpec:
        """What `loss` needs of each sample."""
        ...

    def parameters(self) -> Iterable[nn.Parameter]:
        """What the optimizer steps."""
        ...

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Every term by name, and "total"."""
        ...

    def after_step(self) -> None:
        """Do what follows an optimizer step (a moving average of its own, say)."""
        ...

    def finish(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Measure what the trained piece needs (scales); gives its quality, by name."""
        ...


def trainable_of(policy: Any, name: str) -> Trainable:
    """Give the model inside a policy or world model.

    Raises:
        NotTrainable: There is none.
    """
    model = getattr(policy, "model", None)
    if not isinstance(model, nn.Module) or not isinstance(model, Trainable):
        raise NotTrainable(
            f"{name!r} has nothing to learn. `wamsim list policies` shows the families with "
            f"weights, e.g. fastwam."
        )
    return model


def part_of(model: Trainable, part: str, name: str) -> Part:
    """Give a part of a model by name.

    Raises:
        UnknownName: With the nearest known name.
    """
    parts: Mapping[str, Part] = getattr(model, "parts", dict)()
    if part not in parts:
        raise nearest(part, tuple(parts) or ("all",), kind=f"part of {name}")
    return parts[part]


def adopt(model: Trainable, part: Part, source: str | Path) -> None:
    """Take a part's weights from another checkpoint, of any variant of the family.

    Raises:
        CheckpointMismatch: The checkpoint does not hold all of it in the same shapes.
    """
    assert isinstance(model, nn.Module)
    folder = local_folder(source)
    found = read_tensors(folder)
    own = model.state_dict()
    wanted = [k for k in own if k.startswith(part.prefixes)]
    missing = [k for k in wanted if k not in found or found[k].shape != own[k].shape]
    if missing:
        raise CheckpointMismatch(
            f"the checkpoint lacks {len(missing)} of {len(wanted)} tensors, or holds them in "
            f"another shape: {', '.join(missing[:5])}. Train the part with the same preset. "
            f"Checkpoint: {folder}"
        )
    model.load_state_dict({k: found[k].to(own[k].dtype) for k in wanted}, strict=False)
