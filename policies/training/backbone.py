"""The backbone of a policy as a learner: what stands for pretraining where nothing is pretrained.

Published policies put an action expert on a network that can see already. A tiny one cannot,
and the noise of flow matching teaches it slowly. So it learns beforehand, from one look, by
plain regression: where the hand will be at the next keyframe, and the actions that come. The
action expert finds both in its features. Variants of a family start from one and the same
backbone.
Source of the idea: Driess et al. 2025 (arXiv:2505.23705), a backbone that learns actions as
plain targets beside a flow-matching expert.

With looks (see `wamsim.looks`) it also learns to point: which token of each camera holds what
is to be taken. That decides among a few tokens, which a network finds out much sooner than it
finds a place in metres, and what it has found out tells it the place.

Axes: B samples, C cameras, h x w tokens of a camera, D width, K instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.training.looks import LookSampler, Sight
from policies.training.reconstruction import SPREAD_FLOOR
from wamsim.conventions import Orientation, orient_points
from wamsim.demonstrations import UnusableDemonstrations

M = TypeVar("M", bound=nn.Module)

HEAD_HIDDEN = 256
POOLED = 4  # queries
PLACE_WEIGHT = 2.0  # this and the next: DECISIONS 34
RARE_WEIGHT = 8.0  # of a token that holds a thing's middle: 15 of 16 hold none
MEASURED = 8  # batches of held-out looks, of MEASURED_SIZE each
MEASURED_SIZE = 32


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


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a backbone makes of one look.

    Attributes:
        out: [B, n, D], the tokens that regressions read.
        seen: [B, C, h, w, D], each camera's tokens after the words were read, rows from the
            top of the picture that the model sees.
        before: The same before the words were read, or None where no such tokens are.
    """

    out: Tensor
    seen: Tensor
    before: Tensor | None = None


class Pointer(nn.Module):
    """Says where a thing is: in which tokens, where within them, and how far from the hand.

    Args:
        width: Of tokens (D).
        cameras: Their number (C).
        things: Instructions that there are (K).
    """

    def __init__(self, width: int, cameras: int, things: int) -> None:
        super().__init__()
        self.place = Head(width, 3)
        self.norm_out, self.norm_seen = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_dense = nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.nowhere = nn.Parameter(torch.zeros(cameras, 1, width))
        self.offset = nn.Linear(width, 2)
        self.things = nn.Linear(width, things)

    def token_scores(self, reading: Reading) -> Tensor:
        """Score the tokens for the thing asked for: [B, C, h * w + 1], the last "not in view".

        What is read out asks; where it is several tokens they are pooled by a learnt query.
        """
        out = self.norm_out(reading.out.float())
        asked = self.query((self.pool(out).softmax(1) * out).sum(1))
        keys = self.key(self._seen(reading))
        keys = torch.cat([keys, self.nowhere.expand(len(keys), -1, -1, -1)], dim=2)
        return torch.einsum("bd,bcnd->bcn", asked, keys) / keys.shape[-1] ** 0.5

    def offsets(self, reading: Reading) -> Tensor:
        """Where in each token a middle would be, from the token's own: [B, C, h * w, 2]."""
        return self.offset(self._seen(reading))

    def thing_scores(self, reading: Reading) -> Tensor:
        """Score every token for every thing: [B, C, h * w, K]."""
        tokens = reading.seen if reading.before is None else reading.before
        return self.things(self.norm_dense(tokens.float().flatten(2, 3)))

    def _seen(self, reading: Reading) -> Tensor:
        return self.norm_seen(reading.seen.float().flatten(2, 3))


def targets(point: Tensor, ahead: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Say which token holds each point, and where in it.

    Args:
        point: [..., 2] (column, row) as shares of the seen picture's (width, height).
        ahead: bool [...], whether it lies before the camera.
        grid: (h, w) tokens.

    Returns:
        int64 [...], row * w + column of the token, h * w where the point is not in view; and
        [..., 2] (column, row) from the token's middle, in tokens: -0.5 to 0.5 where in view.
    """
    height, width = grid
    scaled = point * point.new_tensor([width, height])
    cell = scaled.floor()
    column, row = cell.unbind(-1)
    inside = ahead & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    number = torch.where(inside, row * width + column, float(height * width))
    return number.long(), scaled - cell - 0.5


class BackbonePart:
    """Some modules of a model as a learner; see `policies.training.trainable.Part`.

    Attributes:
        looks: What it learns to point in, or None.

    Args:
        model: The owner, with statistics.
        prefixes: Of the modules' keys in its state dict.
        spec: What `read` and `along` need of each sample; offset 0 is the first of its frames.
        read: batch -> the tokens that the modules make of one look.
        width: Of what is read.
        orientation: Which way up the model sees pictures.
        whole: Whether it sees all of each picture, every camera in tokens of its own.
        frozen: batch -> what frozen parts give for it, which `read` then finds in
            `Batch.features`; None where nothing stands before the modules.
        along: batch -> what the modules learn along from the same samples, weighted terms by
            name; None where that is nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        prefixes: tuple[str, ...],
        spec: BatchSpec,
        read: Callable[[Batch], Reading],
        width: int,
        orientation: Orientation,
        whole: bool,
        frozen: Callable[[Batch], Mapping[str, Tensor]] | None = None,
        along: Callable[[Batch], Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.frozen_features, self._along = frozen, along
        assert spec.proprio is not None
        self.prefixes = prefixes
        self._model: Any = model
        self._spec, self._read = spec, read
        self._width, self._orientation, self._whole = width, orientation, whole
        self._dims = spec.proprio.dim, spec.horizon * spec.action.dim
        self._heads: dict[str, nn.Module] = {}
        self._head = self._own("head", lambda: Head(width, sum(self._dims)))
        self.looks: LookSampler | None = None
        self._pointer: Pointer | None = None

    def look_at(self, looks: LookSampler) -> None:
        """Learn from looks, too.

        Raises:
            UnusableDemonstrations: The model crops its pictures, so that where a thing is in
                them is not where it is in its tokens.
        """
        if not self._whole:
            raise UnusableDemonstrations(
                "looks are for models that see the whole of each camera's picture, and this one "
                "crops or pads it, or has tokens that two cameras share. Leave out --looks."
            )
        self.looks = looks
        cameras, things = len(self._spec.cameras), looks.things
        self._pointer = self._own("pointer", lambda: Pointer(self._width, cameras, things))

    def _own(self, name: str, make: Callable[[], M]) -> M:
        """Make what is learnt outside the model: weights do not depend on what was drawn before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = make()
        self._heads[name] = made.to(next(self._model.parameters()).device)
        return made

    @property
    def batch_spec(self) -> BatchSpec:
        """The present alone, with the keyframe."""
        return self._spec

    def parameters(self) -> Iterable[nn.Parameter]:
        """The modules' weights and the heads'."""
        named = self._model.named_parameters()
        own = [p for name, p in named if name.startswith(self.prefixes)]
        return [*own, *(p for head in self._heads.values() for p in head.parameters())]

    def beside(self) -> dict[str, nn.Module]:
        """What is learnt outside the model: "head" and, with looks, "pointer"."""
        return self._heads

    def extra(self) -> Mapping[str, Tensor]:
        """The heads' weights."""
        return {f"{n}/{k}": v for n, m in self._heads.items() for k, v in m.state_dict().items()}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `extra` gave."""
        for name, head in self._heads.items():
            own = {k: v for k, v in tensors.items() if k.startswith(f"{name}/")}
            head.load_state_dict({k.removeprefix(f"{name}/"): v for k, v in own.items()})

    def after_step(self) -> None:
        """Nothing follows."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Give every term and "total".

        Mean absolute errors in standard deviations: "keyframe", proprioception at the next
        keyframe, less the present one; "actions" of the chunk, where it lies inside the
        episode. With looks also "place", "point", "offset" and "dense", see `_looked`; a model
        that is being trained learns from its looks, one that is not is shown held-out scenes.
        Then what is learnt along.
        """
        error, actions = self._errors(batch)
        terms = {"keyframe": error.mean(), "actions": actions}
        total = terms["keyframe"] + terms["actions"]
        if self._along is not None:
            along = self._along(batch)
            terms |= along
            total = total + torch.stack(list(along.values())).sum()
        if self.looks is not None:
            looked, pointed = self.pointed(batch)
            terms |= looked
            total = total + pointed
        return {**terms, "total": total}

    def pointed(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Point in looks that the batch's seeds choose.

        Returns:
            The terms, see `_looked`, and their weighted sum.
        """
        assert self.looks is not None
        assert batch.seed is not None
        sight = self.looks.draw(batch.seed.tolist(), held_out=not self._model.training)
        looked = self._looked(sight)[0]
        weighted = [PLACE_WEIGHT * v if n == "place" else v for n, v in looked.items()]
        return looked, torch.stack(weighted).sum()

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Measure it.

        Returns:
            "keyframe_PLACE", mean absolute error of every channel in its own unit. With looks,
            of held-out scenes: "look_place", mean distance in metres between a thing and where
            it is said to be, and "look_point", the share of pictures pointed at rightly.
        """
        assert self._spec.proprio is not None
        found = torch.cat([self._errors(b)[0] for b in batches]).mean(0)
        scale = self._deviation("proprio", self._dims[0])
        quality = {f"keyframe_{i}": float(x) for i, x in enumerate(found * scale)}
        if self.looks is not None:
            sights = self.looks.measuring(MEASURED_SIZE, MEASURED)
            seen = [self._looked(s)[1] for s in sights]
            for name in ("look_place", "look_point"):
                quality[name] = float(torch.cat([s[name] for s in seen]).mean())
        return quality

    def _looked(self, sight: Sight) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Point.

        Returns:
            Loss terms: "place", mean absolute error of the asked thing's place relative to the
            hand, in standard deviations; "point", cross-entropy over each camera's tokens and
            "not in view"; "offset", mean absolute error of the middle in the right token, in
            tokens; "dense", whether each thing's middle is in each token. And for each look
            "look_place" [B] in metres and "look_point" [B], the share of cameras.
        """
        assert self.looks is not None
        assert self._pointer is not None
        pointer, device = self._pointer, next(self._head.parameters()).device
        reading = self._read(sight.batch)
        grid = reading.seen.shape[2], reading.seen.shape[3]
        turned = torch.from_numpy(orient_points(sight.point.numpy(), self._orientation))
        cells, offsets = (t.to(device) for t in targets(turned, sight.ahead, grid))  # [B, C, K]
        rows, which = torch.arange(len(cells), device=device), sight.which.to(device)
        cell, offset = cells[rows, :, which], offsets[rows, :, which]  # [B, C], [B, C, 2]
        tokens = grid[0] * grid[1]

        scores = pointer.token_scores(reading)
        point = F.cross_entropy(scores.flatten(0, 1), cell.flatten())
        at = cell.clamp_max(tokens - 1)[:, :, None, None].expand(-1, -1, 1, 2)
        missed = (pointer.offsets(reading).gather(2, at)[:, :, 0] - offset).abs().mean(2)
        inside = (cell < tokens).float()
        held = F.one_hot(cells, tokens + 1)[..., :tokens].transpose(2, 3).float()
        rare = held.new_tensor(RARE_WEIGHT)
        spread = torch.from_numpy(self.looks.spread).float().to(device)
        error = pointer.place(reading.out.float()) - sight.place.to(device) / spread
        terms = {
            "place": error.abs().mean(),
            "point": point,
            "offset": (missed * inside).sum() / inside.sum().clamp_min(1.0),
            "dense": F.binary_cross_entropy_with_logits(
                pointer.thing_scores(reading), held, pos_weight=rare
            ),
        }
        return terms, {
            "look_place": (error * spread).norm(dim=1),
            "look_point": (scores.argmax(2) == cell).float().mean(1),
        }

    def _errors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        assert batch.keyframe is not None
        device = next(self._head.parameters()).device
        keyframe, chunk = self._head(self._read(batch).out.float()).split(self._dims, dim=1)
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
