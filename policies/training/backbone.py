"""The backbone of a policy as a learner: what stands for pretraining where nothing is pretrained.

Published policies put an action expert on a network that can see already. A tiny one cannot,
and the noise of flow matching teaches it slowly. So it learns beforehand, from one look, by
plain regression: where the hand will be at the next keyframe, and the actions that come. The
action expert finds both in its features. Variants of a family start from one and the same
backbone.
Source of the idea: Driess et al. 2025 (arXiv:2505.23705), a backbone that learns actions as
plain targets beside a flow-matching expert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.training.reconstruction import SPREAD_FLOOR

HEAD_HIDDEN = 256
POOLED = 4  # queries


class Head(nn.Module):
    """Tokens to numbers: they are pooled by learnt queries, then a small MLP.

    Args:
        width: Of tokens.
        out: Numbers.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, POOLED)
        self.mlp = nn.Sequential(
            nn.Linear(POOLED * width, HEAD_HIDDEN), nn.GELU(), nn.Linear(HEAD_HIDDEN, out)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, n, width] to [B, out]."""
        x = self.norm(tokens)
        return self.mlp((self.score(x).softmax(1).transpose(1, 2) @ x).flatten(1))


class BackbonePart:
    """Some modules of a model as a learner; see `policies.training.trainable.Part`.

    Args:
        model: The owner, with statistics.
        prefixes: Of the modules' keys in its state dict.
        spec: What `read` needs of each sample; its one frame offset is 0.
        read: batch -> [B, n, width], the tokens that the modules make of one look.
        width: Of what is read.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        prefixes: tuple[str, ...],
        spec: BatchSpec,
        read: Callable[[Batch], Tensor],
        width: int,
    ) -> None:
        assert spec.proprio is not None
        self.prefixes = prefixes
        self._model: Any = model
        self._spec, self._read = spec, read
        self._dims = spec.proprio.dim, spec.horizon * spec.action.dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._head = Head(width, sum(self._dims))
        self._head.to(next(model.parameters()).device)

    @property
    def batch_spec(self) -> BatchSpec:
        """The present alone, with the keyframe."""
        return self._spec

    def parameters(self) -> Iterable[nn.Parameter]:
        """The modules' weights and the head's."""
        named = self._model.named_parameters()
        own = [p for name, p in named if name.startswith(self.prefixes)]
        return [*own, *self._head.parameters()]

    def beside(self) -> dict[str, nn.Module]:
        """What is learnt outside the model: the head."""
        return {"head": self._head}

    def extra(self) -> Mapping[str, Tensor]:
        """The head's weights."""
        return {f"head/{k}": v for k, v in self._head.state_dict().items()}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `extra` gave."""
        self._head.load_state_dict({k.removeprefix("head/"): v for k, v in tensors.items()})

    def after_step(self) -> None:
        """Nothing follows."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean absolute errors in standard deviations, and their sum "total".

        "keyframe": proprioception at the next keyframe, less the present one. "actions": of
        the chunk, where it lies inside the episode.
        """
        error, actions = self._errors(batch)
        terms = {"keyframe": error.mean(), "actions": actions}
        return {**terms, "total": sum(terms.values(), torch.zeros_like(actions))}

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Measure it: "keyframe_PLACE", mean absolute error of every channel in its own unit."""
        assert self._spec.proprio is not None
        found = torch.cat([self._errors(b)[0] for b in batches]).mean(0)
        scale = self._deviation("proprio", self._dims[0])
        return {f"keyframe_{i}": float(x) for i, x in enumerate(found * scale)}

    def _errors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.keyframe is not None
        device = next(self._head.parameters()).device
        keyframe, chunk = self._head(self._read(batch).float()).split(self._dims, dim=1)
        wanted = batch.keyframe.to(device) - batch.proprio_at(0).to(device)
        wanted = wanted / self._deviation("proprio", self._dims[0])
        error = (keyframe - wanted).abs()
        actions = getattr(self._model, "data_actions", lambda x: x)(batch.actions.to(device))
        mean = self._model.statistics.get("action", "mean", actions.shape[-1]).to(device)
        actions = (actions - mean) / self._deviation("action", actions.shape[-1])
        missed = (chunk.unflatten(1, actions.shape[1:]) - actions).abs().mean(2)
        inside = batch.action_valid.to(device).float()
        return error, (missed * inside).sum() / inside.sum().clamp_min(1.0)

    def _deviation(self, what: str, dim: int) -> Tensor:
        found = self._model.statistics.get(what, "std", dim)
        return found.to(next(self._head.parameters()).device) + SPREAD_FLOOR
