"""What every variant takes in: pictures, state, words, statistics and checkpoints.

Axes: B rows, H actions, P proprioception channels, hwc pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from policies.batch import BatchSpec
from policies.checkpoint import (
    STATISTICS,
    CheckpointMismatch,
    Identity,
    Pretrained,
    Statistics,
    local_folder,
)
from policies.preprocess import ImageSteps
from policies.smolvla_world.attention import Tokens
from policies.smolvla_world.config import FAMILY_NAME, Config, WorldConfig
from policies.smolvla_world.host import Host
from policies.smolvla_world.tokens import Tokenizer
from wamsim.conventions import ACTIONS, PROPRIOS, Orientation

_EPS = 1e-8  # LeRobot's normaliser: (x - mean) / (std + eps)


@dataclass(frozen=True)
class Query:
    """A policy's input, embedded but for the future.

    Attributes:
        context: Images and language.
        state: The state token.
        world: Latest picture of the world camera, [B, 3, side, side].
    """

    context: Tokens
    state: Tokens
    world: Tensor


def turn(frames: Tensor, orientation: Orientation) -> Tensor:
    """Turn upright pictures [..., H, W, 3] as `wamsim.conventions.orient` does."""
    if orientation is Orientation.UPRIGHT:
        return frames
    return frames.flip(-2 if orientation is Orientation.MIRRORED else -3)


class Inputs(nn.Module, Pretrained):
    """The host with everything that feeds it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.identity = Identity(family=FAMILY_NAME, variant=config.variant, preset=config.preset)
        host = config.host
        self.host = Host(host)
        self.tokenizer = Tokenizer(host.tokenizer, host.text_limit, host.vlm.vocabulary)
        self.statistics = Statistics.identity(
            {"action": host.action_dim, "proprio": host.state_dim}
        )

    def reconfigure(self, config: Config) -> None:
        """Take a configuration that differs in what weights do not depend on."""
        self.config = config
        self.host.config = config.host
        host = config.host
        self.tokenizer = Tokenizer(host.tokenizer, host.text_limit, host.vlm.vocabulary)

    # ------------------------------------------------------------------ checkpoints

    @classmethod
    def config_type(cls) -> type[Config]:
        """The class of `config`."""
        return Config

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        (save_directory / STATISTICS).write_text(self.statistics.to_json())

    @classmethod
    def load(cls, source: str | Path, *, expect: Identity | None = None) -> Self:
        """Load weights and the statistics beside them.

        Raises:
            CheckpointMismatch: As `Pretrained.load`; or no statistics, or of other lengths.
        """
        model = super().load(source, expect=expect)
        path = local_folder(source) / STATISTICS
        try:
            found = Statistics.from_json(path.read_text())
        except (OSError, ValueError) as error:
            raise CheckpointMismatch(
                f"{STATISTICS} belongs beside the weights but is not to be read ({error})."
            ) from error
        model.set_statistics(found)
        return model

    def set_statistics(self, statistics: Statistics) -> None:
        """Take a data set's statistics: mean and std of "action" and "proprio".

        Raises:
            CheckpointMismatch: Missing, or of other lengths.
        """
        host = self.config.host
        for what, dim in (("action", host.action_dim), ("proprio", host.state_dim)):
            for kind in ("mean", "std"):
                statistics.get(what, kind, dim)
        self.statistics = statistics

    # ----------------------------------------------------------------------- inputs

    @property
    def world(self) -> WorldConfig:
        """The world features' configuration; a variant without any has none to give."""
        assert self.config.world is not None
        return self.config.world

    @property
    def batch_spec(self) -> BatchSpec:
        """What `losses` needs of each sample."""
        c = self.config
        offsets = (0,) if c.world is None else (*c.world.history, *range(1, c.world.horizon + 1))
        return BatchSpec(
            cameras=c.cameras,
            image_size=c.image_size,
            frame_offsets=offsets,
            horizon=c.host.chunk,
            action=ACTIONS[c.action],
            proprio=PROPRIOS[c.proprio],
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.host.state_proj.weight.device

    def _scale(self, what: str, dim: int) -> tuple[Tensor, Tensor]:
        mean, std = (self.statistics.get(what, k, dim).to(self.device) for k in ("mean", "std"))
        return mean, std + _EPS

    def normalise(self, what: str, x: Tensor, width: int) -> Tensor:
        """Z-score the last axis and pad it with zeros to `width`."""
        mean, std = self._scale(what, x.shape[-1])
        x = (x.to(self.device).float() - mean) / std
        return nn.functional.pad(x, (0, width - x.shape[-1]))

    def denormalise(self, actions: Tensor) -> Tensor:
        """Cut [B, H, max_action_dim] to the real channels, in their own units."""
        mean, std = self._scale("action", self.config.host.action_dim)
        return actions[..., : self.config.host.action_dim] * std + mean

    def steps(self, frames: Tensor) -> Tensor:
        """Apply the configured picture steps to uint8 [..., H, W, 3]."""
        steps = self.config.images
        if steps == ImageSteps():
            return frames.to(self.device)
        done = np.ascontiguousarray(steps.apply(frames.cpu().numpy()))
        return torch.from_numpy(done).to(self.device)

    def query(
        self,
        frames: Mapping[str, Tensor],
        proprio: Tensor,
        instruction: Sequence[str],
        *,
        trim: bool = False,
    ) -> Query:
        """Embed the present.

        Args:
            frames: camera -> uint8 [B, H, W, 3], the right way up.
            proprio: [B, P], in its own units.
            instruction: B strings.
            trim: Pad to the longest of them, as training can afford; masked tokens change
                nothing but time and rounding.
        """
        pictures = [self.host.pictures(self.steps(frames[c])) for c in self.config.cameras]
        ids, valid = (t.to(self.device) for t in self.tokenizer(instruction))
        if trim:
            longest = int(valid.sum(1).max())
            ids, valid = ids[:, :longest], valid[:, :longest]
        state = self.normalise("proprio", proprio, self.config.host.max_state_dim)
        context, own = self.host.prefix(pictures, ids, valid, state)
        eye = self.config.world.camera if self.config.world else 0
        return Query(context, own, pictures[eye])

    def policy_features(self, pictures: Tensor) -> Tensor:
        """Give the policy's own feature of pictures, its image tokens' mean [B, VLM width]."""
        with torch.no_grad():
            return self.host.see(pictures).mean(1)
