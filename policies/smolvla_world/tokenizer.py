"""Training of the small V-JEPA 2, by itself and before the policy.

Masked latent prediction: an encoder sees a few patches of a clip, a small predictor says what
a teacher, the encoder's moving average, makes of the others when it sees them all; mean
absolute error on features normalised per token. The predictor is dropped afterwards.

That alone leaves the clip's mean feature, which the policy is given, almost constant: a still
background is most of a picture, and easy to predict. So the mean features of a batch must
also differ, in every channel and in channels that are not each other's copies.

Axes: B clips, N tokens of a clip, D feature channels, c context and t target tokens.
Source: Bardes et al. 2024 (V-JEPA, arXiv:2404.08471), sections 3.1 and 3.2; Assran et al.
2025 (V-JEPA 2, arXiv:2506.09985); the last two terms: Bardes et al. 2022 (VICReg,
arXiv:2105.04906).
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Predictor

from policies.batch import Batch, BatchSpec
from policies.smolvla_world.inputs import turn
from policies.smolvla_world.probe import probe
from policies.smolvla_world.world import WorldEncoder

if TYPE_CHECKING:
    from policies.smolvla_world.model import SmolVLAWorld

# (blocks, share of the picture each): V-JEPA's short-range and long-range masks
MASKS = ((8, 0.15), (2, 0.7))
ASPECT = (0.75, 1.5)
MIN_CONTEXT = 4  # cells that stay visible
TEACHER_DECAY = 0.998  # V-JEPA: 0.998 to 1; trainings here are short, so it does not rise
PREDICTOR = {"pred_hidden_size": 48, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 2}
MASK_STREAM = 201  # of a sample's seed
# Wanted of a mean feature's channels; single tokens have 1 after the last norm. Measured on
# 500 steps of 32 tabletop clips, before patches knew their places: without both terms the
# effective rank is 7 of 64, with them 31; 0.1 and 0.01 give 34 and a worse reading of the end
# effector (R2 0.79 for 0.88).
SPREAD = 0.06
SPREAD_WEIGHT, CORRELATION_WEIGHT = 3.0, 0.002


class VJepaPart:
    """The world encoder of a model as a learner; see `policies.training.trainable.Part`.

    Args:
        model: The owner.
        encoder: Its encoder.
    """

    prefixes: tuple[str, ...] = ("encoder.",)

    def __init__(self, model: SmolVLAWorld, encoder: WorldEncoder) -> None:
        self._model, self._encoder = model, encoder
        self._student: Any = encoder.vjepa.encoder
        self._teacher: Any = copy.deepcopy(self._student).requires_grad_(False)
        shape = copy.deepcopy(encoder.vjepa.config)
        shape.update({**PREDICTOR, "pred_mlp_ratio": 2.0})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._predictor: Any = VJEPA2Predictor(shape)
            nn.init.normal_(self._predictor.embeddings.mask_tokens, std=0.02)
        self._predictor.to(model.device)
        self._steps = 0

    @property
    def batch_spec(self) -> BatchSpec:
        """One clip of the world camera, and the proprioception that `finish` reads from it."""
        spec, world = self._model.batch_spec, self._encoder.config
        return dataclasses.replace(
            spec,
            cameras=(spec.cameras[world.camera],),
            frame_offsets=tuple(range(1 - world.clip_frames, 1)),
        )

    def parameters(self) -> Iterable[nn.Parameter]:
        """The encoder's weights and the predictor's."""
        return [*self._student.parameters(), *self._predictor.parameters()]

    def beside(self) -> dict[str, nn.Module]:
        """What is learnt outside the model: the predictor."""
        return {"predictor": self._predictor}

    def extra(self) -> Mapping[str, Tensor]:
        """Teacher, predictor and the number of steps done."""
        out = {f"teacher/{k}": v for k, v in self._teacher.state_dict().items()}
        out |= {f"predictor/{k}": v for k, v in self._predictor.state_dict().items()}
        return out | {"steps": torch.tensor(self._steps)}

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what `extra` gave."""
        for name, module in (("teacher/", self._teacher), ("predictor/", self._predictor)):
            own = {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}
            module.load_state_dict(own)
        self._steps = int(tensors["steps"])

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms, and their weighted sum "total".

        "prediction": mean absolute error of masked features. "spread": how much is lacking
        to `SPREAD`, mean over channels. "correlation": mean over channels of the squared
        correlations with all other channels.
        """
        clips = self._clips(batch)
        context, target = (m.to(clips.device) for m in self._masks(batch))
        with torch.no_grad():
            wanted = self._teacher(clips).last_hidden_state
            wanted = _taken(F.layer_norm(wanted, wanted.shape[-1:]), target)
        tokens = self._student.embeddings(clips)
        seen = self._encoded(_taken(tokens, context), context)
        # transformers' predictor takes the context out of a whole sequence again
        where = context[..., None].expand_as(seen)
        whole = torch.zeros_like(tokens).scatter(1, where, seen)
        found = self._predictor(whole, [context], [target]).last_hidden_state
        error = (found - wanted).abs().mean()
        spread, correlation = variety(self._encoded(tokens, None).mean(1))
        total = error + SPREAD_WEIGHT * spread + CORRELATION_WEIGHT * correlation
        return {
            "prediction": error, "spread": spread, "correlation": correlation, "total": total
        }  # fmt: skip

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the teacher follow: early on faster, as a moving average of what there is."""
        decay = min(TEACHER_DECAY, (1 + self._steps) / (10 + self._steps))
        pairs = zip(self._teacher.parameters(), self._student.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast.detach(), 1.0 - decay)
        self._steps += 1

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Measure the features' scale, and whether they say anything; see `probe`."""
        kept = list(batches)
        raw = torch.cat([self._encoder.pooled(self._clips(b)) for b in kept])
        self._encoder.measure_scale(raw)
        places = torch.cat([b.proprio_at(0)[:, :3] for b in kept])  # eef_pos comes first
        return probe(raw.cpu(), places.cpu())

    def _encoded(self, tokens: Tensor, places: Tensor | None) -> Tensor:
        """Run the encoder's layers over some tokens [B, n, D] at places [B, n], or over all."""
        for layer in self._student.layer:
            tokens = layer(tokens, places)[0]
        return self._student.layernorm(tokens)

    def _clips(self, batch: Batch) -> Tensor:
        spec = self.batch_spec
        frames = batch.at(spec.cameras[0], spec.frame_offsets)
        frames = turn(frames, self._model.config.orientation)
        return self._encoder.clips(frames.to(self._model.device), 1)

    def _masks(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Draw which tokens are seen and which are predicted, int64 [B, c] and [B, t].

        Blocks of one size for the batch, at places of each sample's own, through all times;
        then all samples are cut to the fewest tokens, as V-JEPA does.
        """
        world, rows = self._encoder.config, batch.size
        side = world.crop_px // world.patch_px
        drawn = torch.randint(0, 2**62, (rows,)) if batch.seed is None else batch.seed
        draws = [np.random.Generator(np.random.PCG64([int(s), MASK_STREAM])) for s in drawn]
        blocks, share = MASKS[int(draws[0].integers(len(MASKS)))]
        aspect = float(np.exp(draws[0].uniform(*np.log(ASPECT))))
        size = tuple(
            min(max(round(side * math.sqrt(share * a)), 1), side - 1) for a in (aspect, 1 / aspect)
        )
        masks = np.stack([_blocks(draw, side, size, blocks) for draw in draws])
        seen, hidden = int((~masks).sum(1).min()), int(masks.sum(1).min())
        context, target = (
            np.stack([
                np.sort(draw.permutation(np.flatnonzero(row))[:count])
                for draw, row in zip(draws, which, strict=True)
            ])
            for which, count in ((~masks, seen), (masks, hidden))
        )  # fmt: skip
        times = np.arange(world.clip_frames // world.tubelet)[:, None] * side**2
        return tuple(  # type: ignore[return-value]
            torch.from_numpy((times + cells[:, None]).reshape(rows, -1))
            for cells in (context, target)
        )


def variety(features: Tensor) -> tuple[Tensor, Tensor]:
    """Judge how much features [B, D] of a batch differ; see `VJepaPart.loss`. 0 for B = 1."""
    if len(features) < 2:
        return features.sum() * 0.0, features.sum() * 0.0
    # VICReg's epsilon is 1e-4, so large that shrinking would pay: it hides correlations
    std = (features.var(0) + 1e-8).sqrt()
    unit = (features - features.mean(0)) / std
    alike = (unit.T @ unit / (len(unit) - 1)).square()
    other = (alike.sum() - alike.diagonal().sum()) / len(alike)
    return F.relu(SPREAD - std).mean(), other


def _blocks(
    draw: np.random.Generator, side: int, size: tuple[int, ...], count: int
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Hide blocks of a grid, bool [side * side]; `MIN_CONTEXT` cells stay."""
    hidden = np.zeros((side, side), bool)
    for _ in range(count):
        row, column = (int(draw.integers(side - s + 1)) for s in size)
        more = hidden.copy()
        more[row : row + size[0], column : column + size[1]] = True
        if (~more).sum() >= MIN_CONTEXT:
            hidden = more
    return hidden.ravel()


def _taken(tokens: Tensor, which: Tensor) -> Tensor:
    """Give tokens [B, n, D] at places [B, n] of [B, N, D]."""
    return tokens.gather(1, which[..., None].expand(-1, -1, tokens.shape[-1]))
