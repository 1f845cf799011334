"""A whole model that goes on looking while it learns to act.

A backbone that has learnt to point forgets it while actions are learnt, for most of a
demonstration follows from where the hand is (DECISIONS 48). Looks among the samples keep it.
In continual learning this is rehearsal; published policies mix data of their backbones' own
training with robot data to the same end (Driess et al. 2025, arXiv:2505.23705).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from policies.batch import Batch
from policies.training.backbone import BackbonePart


class Rehearsal:
    """A model as a learner (see `policies.training.loop.Learner`), its backbone's looks along.

    Args:
        model: Trainable.
        backbone: Its own, with looks.
    """

    def __init__(self, model: Any, backbone: BackbonePart) -> None:
        self._model, self._backbone = model, backbone

    def parameters(self) -> Iterable[nn.Parameter]:
        """The model's and those of what points."""
        beside = self.beside().values()
        return [*self._model.parameters(), *(p for m in beside for p in m.parameters())]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The model's terms and those of pointing, see `BackbonePart.pointed`; "total" of both."""
        terms: dict[str, Tensor] = self._model.loss(batch)
        looked, pointed = self._backbone.pointed(batch)
        return {**terms, **looked, "total": terms["total"] + pointed}

    def beside(self) -> dict[str, nn.Module]:
        """What points; it is dropped in the end."""
        return {n: m for n, m in self._backbone.beside().items() if n == "pointer"}

    def extra(self) -> Mapping[str, Tensor]:
        """As the backbone's."""
        return self._backbone.extra()

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """As the backbone's."""
        self._backbone.load_extra(tensors)
