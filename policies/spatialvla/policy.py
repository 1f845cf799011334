"""The policy: observations in, action chunks out. It does not imagine."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch
from numpy.typing import NDArray

from policies.checkpoint import CheckpointMismatch, Identity
from policies.interface import keep_trained
from policies.noise import noise_from_seeds
from policies.spatialvla.config import FAMILY_NAME, SpatialVLAOptions
from policies.spatialvla.inputs import from_observation
from policies.spatialvla.model import SpatialVLA, untrained
from policies.spatialvla.presets import preset
from policies.spatialvla.weights import assemble, read_statistics
from wamsim.contracts import Observation, PolicyCard, Prediction
from wamsim.conventions import Orientation
from wamsim.errors import WamsimError

# Options that change which weights there are; a checkpoint has decided them.
_WEIGHTS = ("sharing", "use_state")


class SpatialVLAPolicy:
    """Adapts `SpatialVLA` to `Policy`; knows no suite and keeps nothing between calls.

    Args:
        model: The network, on its device.
        steps: Euler steps per query.
        cache: Reuse the prefix's keys and values where that is exact.
        execute: Env steps per query; None takes the configuration's.
        origin: Where the weights come from, for the card's notes.
    """

    def __init__(
        self,
        model: SpatialVLA,
        *,
        steps: int = 10,
        cache: bool = True,
        execute: int | None = None,
        origin: str = "untrained",
    ) -> None:
        self.model = model.eval()
        self.steps, self.cache = steps, cache
        config = model.config
        execute = config.execute if execute is None else execute
        self.card = PolicyCard(
            name=f"{FAMILY_NAME}:{config.variant}",
            cameras=config.cameras,
            image_size=(config.vision.image_size,) * 2,
            frame_offsets=config.frame_offsets,
            depth=config.use_depth,
            proprio=config.proprio,
            action=config.action,
            horizon=config.horizon,
            execute=config.horizon if execute is None else execute,
            orientation=Orientation.UPRIGHT,
            imagines=None,
            notes=(
                f"{origin}; {config.preset}, mask {config.mask.value}, {steps} steps; "
                f"imagines nothing itself; no success rate of this family is published"
            ),
        )

    def act(self, obs: Observation) -> Prediction:
        """Predict a chunk for every row, each from its own seed.

        Raises:
            InstructionTooLong: An instruction does not fit.
            ValueError: Depth, camera matrices or proprioception are missing.
        """
        model = self.model
        config = model.config
        began = self._now()
        inputs = from_observation(obs, config, model.tokenizer, model.device)
        noise = noise_from_seeds(obs.seed, (config.horizon, config.action.dim), device=model.device)
        with torch.no_grad():
            prefix = model.prefix(inputs, cache=self.cache)
            seen = self._now()
            actions = model.denoise(prefix, noise, steps=self.steps)
        chunk: NDArray[np.float32] = actions.cpu().numpy()
        timings = {"perceive": seen - began, "denoise": self._now() - seen}
        return Prediction(actions=config.gripper.apply(chunk, config.action), timings=timings)

    def _now(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        return time.perf_counter()


def build(variant: str, options: SpatialVLAOptions) -> SpatialVLAPolicy:
    """Build a variant with its weights.

    Raises:
        CheckpointMismatch: Weights, statistics or options do not fit together.
        WamsimError: Options that contradict the variant.
    """
    config = preset(variant, options.preset)
    if options.checkpoint is not None:
        expect = Identity(family=FAMILY_NAME, variant=variant, preset=options.preset)
        model = SpatialVLA.load(options.checkpoint, expect=expect)
        for name in _WEIGHTS:
            wanted, has = options.changes().get(name), getattr(model.config, name)
            if wanted is not None and wanted != has:
                raise CheckpointMismatch(
                    f"option {name} asks for {wanted}, but the checkpoint has {has}. Leave the "
                    f"option out. Checkpoint: {options.checkpoint}"
                )
        keep_trained(FAMILY_NAME, options.interface, model.config)
        config, origin = model.config, "own checkpoint"
    else:
        model, origin = None, f"untrained, init_seed {options.init_seed}"
    try:
        config = dataclasses.replace(config, **options.changes())
    except ValueError as error:
        raise WamsimError(f"policy {FAMILY_NAME}:{variant}: {error}") from error
    if options.proprio is not None and not config.use_state:
        raise WamsimError(
            f"policy {FAMILY_NAME}:{variant} has no state token, so proprio={options.proprio} "
            f"would do nothing. Leave it out, or take deep_fusion with use_state=true."
        )
    if model is None:
        model = untrained(config, options.init_seed)
        if options.backbone or options.vision or options.expert:
            assemble(model, options)
            given = [n for n in ("backbone", "vision", "expert") if getattr(options, n)]
            origin = f"published {' and '.join(given)}, the rest {origin}"
    else:
        model.reconfigure(config)
    if options.statistics is not None:
        model.set_statistics(read_statistics(options.statistics))
    model.to(device=options.device, dtype=getattr(torch, options.dtype))
    try:
        return SpatialVLAPolicy(
            model,
            steps=options.steps,
            cache=options.cache,
            execute=options.execute,
            origin=origin,
        )
    except ValueError as error:
        raise WamsimError(str(error)) from error
