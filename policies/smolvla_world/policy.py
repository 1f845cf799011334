"""smolvla_world as a policy: pictures, state and words in; actions and features ahead out.

Axes: B rows, T frames, H actions, K steps ahead, hwc pixels.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.checkpoint import CheckpointMismatch, Identity, local_folder
from policies.smolvla_world import weights
from policies.smolvla_world.config import FAMILY_NAME
from policies.smolvla_world.memory import Draws
from policies.smolvla_world.model import SmolVLAWorld, build
from policies.smolvla_world.options import SmolVLAWorldOptions
from policies.smolvla_world.presets import VARIANTS
from policies.smolvla_world.sampling import sample
from policies.smolvla_world.statistics import find_statistics
from wamsim.contracts import (
    Frames,
    ImaginationSpec,
    Imagined,
    Observation,
    PolicyCard,
    Prediction,
)
from wamsim.conventions import ACTIONS, PROPRIOS


class SmolVLAWorldPolicy:
    """Adapts `SmolVLAWorld` to `Policy`; knows no suite."""

    def __init__(self, model: SmolVLAWorld, *, imagine: bool = True, cache: bool = True) -> None:
        self.model = model.eval()
        self._cache = cache
        c = model.config
        acting = model.prophet is not None and model.config.variant != "constraint"
        imagines = imagine and c.world is not None
        self._history = acting or (imagines and model.imagining_needs_history)
        self._spec = self._imagination(on_request=not acting) if imagines else None
        self.card = PolicyCard(
            name=f"{FAMILY_NAME}:{c.variant}",
            cameras=c.cameras,
            image_size=c.image_size,
            frame_offsets=c.world.history if c.world is not None and self._history else (0,),
            proprio=PROPRIOS[c.proprio],
            action=ACTIONS[c.action],
            horizon=c.host.chunk,
            execute=c.execute,
            orientation=c.orientation,
            imagines=self._spec,
            notes=f"{VARIANTS[c.variant]} ({c.preset})",
        )

    def _imagination(self, *, on_request: bool) -> ImaginationSpec:
        model, world = self.model, self.model.world
        width = model.config.host.vlm.hidden if model.policy_proj is not None else world.hidden
        return ImaginationSpec(
            horizons=model.horizons,
            frame_offsets=world.future,
            cameras=(model.config.cameras[world.camera],),
            image_size=model.config.image_size,
            latent_shape=(width,),
            on_request=on_request,
        )

    def act(self, obs: Observation) -> Prediction:
        """Predict a chunk of actions for every row, and the features ahead where asked."""
        began = time.perf_counter()
        model, config = self.model, self.model.config
        assert obs.proprio is not None
        frames = {c: _tensor(obs.frames[c]) for c in config.cameras}
        with torch.no_grad():
            now = {name: seen[:, -1] for name, seen in frames.items()}
            query = model.query(now, torch.from_numpy(obs.proprio[:, -1]), obs.instruction)
        spec = self._spec
        hold = torch.tensor(self.card.action.hold).expand(obs.batch, config.host.chunk, -1)
        embedded = time.perf_counter() - began
        done = sample(
            model,
            query,
            frames[config.cameras[model.world.camera]] if self._history else None,
            Draws(obs.seed, obs.batch, model.device),
            steps=config.host.steps,
            mode=config.fusion.memory_rollout,
            imagine=spec is not None and (obs.imagine or not spec.on_request),
            cached=self._cache,
            other=model.normalise("action", hold, config.host.max_action_dim)
            if obs.imagine
            else None,
        )
        actions = config.gripper.apply(
            model.denormalise(done.actions).cpu().numpy().astype(np.float32), self.card.action
        )
        return Prediction(
            actions=actions,
            imagined=_imagined(done.imagined),
            otherwise=_imagined(done.otherwise),
            timings={"embed": embedded, **done.timings},
        )

    @torch.no_grad()
    def encode(self, frames: Frames) -> NDArray[Any]:
        """Put real frames uint8 [B, T, 1, H, W, 3] into the imagined space, [B, K, D]."""
        return self.model.encode(_tensor(frames[:, :, 0])).cpu().numpy().astype(np.float32)

    def decode(self, latents: NDArray[Any]) -> Frames:
        """Refuse: features have no decoder, and the card says so."""
        raise NotImplementedError(
            f"{self.card.name} imagines features without a decoder "
            f"(ImaginationSpec.decodes is False)"
        )


def _imagined(latents: Tensor | None) -> Imagined | None:
    return None if latents is None else Imagined(latents=latents.float().cpu().numpy())


def _tensor(frames: Frames) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(frames))  # orientation makes views


def make(variant: str, options: SmolVLAWorldOptions) -> SmolVLAWorldPolicy:
    """Build a variant's policy as the options say.

    Raises:
        CheckpointMismatch: A checkpoint of another family, variant or preset, or one
            that does not fit.
    """
    model = _model(variant, options)
    return SmolVLAWorldPolicy(
        model.to(options.device), imagine=options.imagine, cache=options.cache
    )


def _model(variant: str, options: SmolVLAWorldOptions) -> SmolVLAWorld:
    if options.checkpoint is None:
        model = build(options.resolve(variant), seed=options.init_seed)
        if options.init_from is not None:
            weights.load_host(model, _folder(options.init_from), options.statistics)
        elif options.statistics is not None:
            model.set_statistics(find_statistics(Path(), {}, options.statistics))
        if options.world_encoder is not None:
            weights.load_world_encoder(model, _folder(options.world_encoder))
        return model
    folder = _folder(options.checkpoint)
    if weights.is_lerobot(folder):
        return weights.from_lerobot(folder, variant, options)
    for name in ("world_encoder", "statistics"):
        if getattr(options, name) is not None:
            raise CheckpointMismatch(
                f"the checkpoint holds its own {name}; leave that option out. Folder: {folder}"
            )
    expect = Identity(family=FAMILY_NAME, variant=variant, preset=options.preset)
    model = SmolVLAWorld.load(folder, expect=expect)
    model.reconfigure(options.adopt(model.config))
    return model


def _folder(source: str) -> Path:
    folder = local_folder(source)
    if not folder.is_dir():
        raise CheckpointMismatch(f"a checkpoint is a folder, this is a file: {folder}")
    return folder
