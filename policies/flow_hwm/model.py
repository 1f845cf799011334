"""Flow-HWM as one module: tokenizer, velocity network, statistics and loss.

Axes: B rows, T frames, C latent channels, K future latents.
Source: paper arXiv:2506.01182; code qasim-ali0/humanoid_world_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.changes import ToldAsChanges
from policies.checkpoint import (
    STATISTICS,
    CheckpointMismatch,
    Identity,
    Pretrained,
    Statistics,
    local_folder,
)
from policies.flow_hwm.config import FlowHWMConfig
from policies.flow_hwm.network import Context, FlowNetwork
from policies.flow_hwm.tokenizer import (
    CosmosTokenizer,
    Tokenizer,
    WanPart,
    WanTokenizer,
    to_pixels,
)
from policies.noise import noise_from_seeds

# streams of one sample's draws
NOISE, TIME, DROP = 0, 1, 2


class FlowHWM(Pretrained, nn.Module, ToldAsChanges):
    """The whole model.

    Args:
        config: Its sizes. A "cosmos" tokenizer is not part of the weights; attach it with
            `attach_tokenizer`.
    """

    def __init__(self, config: FlowHWMConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.identity = Identity(family="flow_hwm", variant=config.variant, preset=config.preset)
        self.network = FlowNetwork(config)
        self.wan = WanTokenizer(config) if config.tokenizer == "wan" else None
        if self.wan is not None:
            self.wan.requires_grad_(config.tokenizer_weight > 0)
        self._cosmos: CosmosTokenizer | None = None
        self.statistics = Statistics.identity({"action": config.convention.dim})

    @classmethod
    def config_type(cls) -> type[FlowHWMConfig]:
        """As `Pretrained.config_type`."""
        return FlowHWMConfig

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        (save_directory / STATISTICS).write_text(self.statistics.to_json())

    @classmethod
    def load(cls, source: str | Path, *, expect: Identity | None = None) -> Self:
        """As `Pretrained.load`; also the statistics beside the weights.

        Raises:
            CheckpointMismatch: Also when the statistics are missing or of other actions.
        """
        folder = local_folder(source)
        model = super().load(folder, expect=expect)
        model.set_statistics(read_statistics(folder))
        return model

    def set_statistics(self, statistics: Statistics) -> None:
        """Take the mean and standard deviation of the training data's actions.

        Raises:
            CheckpointMismatch: They have another number of channels.
        """
        for kind in ("mean", "std"):
            statistics.get("action", kind, self.config.convention.dim)
        self.statistics = statistics

    # ------------------------------------------------------------------ data in

    def attach_tokenizer(self, tokenizer: CosmosTokenizer) -> None:
        """Give the tokenizer that is not part of the weights.

        Raises:
            CheckpointMismatch: It compresses otherwise than the config says.
        """
        config = self.config
        blank = torch.zeros(1, 3, config.frames, *config.image_size, device=self.device)
        latents = config.past_latents + config.future_latents
        expected = (1, config.latent_channels, latents, *config.latent_size)
        found = tuple(tokenizer.encode(blank).shape)
        if found != expected:
            raise CheckpointMismatch(
                f"the tokenizer makes latents {found} of {config.frames} frames of "
                f"{config.image_size}, the model takes {expected}. Take the tokenizer that it "
                f"was trained with (published: CV8x16x16)."
            )
        self._cosmos = tokenizer

    @property
    def tokenizer(self) -> Tokenizer:
        """Its own, or the one that was attached.

        Raises:
            CheckpointMismatch: None has been attached.
        """
        found = self.wan or self._cosmos
        if found is None:
            raise CheckpointMismatch(
                "this model's weights hold no tokenizer; give it one with attach_tokenizer"
            )
        return found

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.network.head.weight.device

    @property
    def batch_spec(self) -> BatchSpec:
        """What `loss` needs of a sample, whose step is the window's first frame."""
        config = self.config
        last = config.past_steps + config.future_steps
        return BatchSpec(
            cameras=(config.camera,),
            image_size=config.image_size,
            frame_offsets=tuple(range(0, last + 1, config.frame_stride)),
            horizon=last,
            action=config.convention,
            proprio=None,
            executed=True,
        )

    def normalised(self, actions: Tensor) -> Tensor:
        """Z-score actions [..., A]; a channel that never moved is only centred."""
        dim = self.config.convention.dim
        mean, std = (self.statistics.get("action", k, dim).to(actions) for k in ("mean", "std"))
        return (actions - mean) / torch.where(std == 0, 1.0, std)

    def actions_beside_frames(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Pick and normalise the action of each frame.

        Args:
            actions: [B, past_steps + future_steps, A], every env step of the window.

        Returns:
            [B, past_frames, A] and [B, future_frames, A].
        """
        rows = self.normalised(actions)[:, list(self.config.action_places)]
        return rows[:, : self.config.past_frames], rows[:, self.config.past_frames :]

    def encode_past(self, frames: Tensor) -> Tensor:
        """Encode uint8 [B, past_frames, H, W, 3] to [B, C, past_latents, y, x].

        The window's future is filled with zeros (code); a causal tokenizer does not see it.
        """
        pixels = to_pixels(frames, bgr=self.config.bgr)
        after = pixels.new_zeros(*pixels.shape[:2], self.config.future_frames, *pixels.shape[3:])
        latents = self.tokenizer.encode(torch.cat([pixels, after], dim=2))
        return latents[:, :, : self.config.past_latents]

    def encode_window(self, frames: Tensor) -> Tensor:
        """Encode uint8 [B, past and future frames, H, W, 3] to the latents of all of them."""
        return self.tokenizer.encode(to_pixels(frames, bgr=self.config.bgr))

    def standing(self, past: Tensor) -> Tensor:
        """Encode a future in which nothing moves.

        Args:
            past: uint8 [B, past_frames, H, W, 3].

        Returns:
            [B, C, K, y, x].
        """
        still = past[:, -1:].expand(-1, self.config.future_frames, -1, -1, -1)
        return self._parted(self.encode_window(torch.cat([past, still], dim=1)))[1]

    # --------------------------------------------------------------------- loss

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Give the loss terms of a batch.

        "flow": mean squared error of the velocity, over samples whose whole window lies in
        one episode; 0 when none does. "reconstruction", when the tokenizer is trained along:
        mean squared error of its pixels in -1..1. "total": their weighted sum.

        Source: code, Flow-HWM/train.py and data/future_video_dataset.py.
        """
        config, spec = self.config, self.batch_spec
        inside = batch.valid_at(spec.frame_offsets).all(1)
        inside &= batch.action_valid[:, : spec.horizon].all(1)
        inside = inside.to(self.device)
        losses: dict[str, Tensor] = {}
        if config.tokenizer_weight > 0:
            frames = self._frames(batch)
            latents = self.encode_window(frames)
            pixels = to_pixels(frames, bgr=config.bgr)
            error = (self.tokenizer.decode(latents) - pixels).square().flatten(1).mean(1)
            losses["reconstruction"] = _mean_where(error, inside)
            # the flow must not bend the latents to its own ease
            past, future = self._parted(latents.detach())
            still = self._standing(frames)
        else:
            seen = self._window(batch) if batch.features is None else batch.features
            past, future = (seen[name].to(self.device) for name in ("past", "future"))
            still = seen["standing"].to(self.device) if "standing" in seen else None
        future = self.as_denoised(future, still)
        actions = batch.actions[:, : spec.horizon].to(self.device)
        past_actions, future_actions = self.actions_beside_frames(actions)
        error = self._flow_error(future, Context(past, past_actions, future_actions), batch)
        losses["flow"] = _mean_where(error, inside)
        total = losses["flow"]
        if config.tokenizer_weight > 0:
            total = total + config.tokenizer_weight * losses["reconstruction"]
        return {**losses, "total": total}

    def frozen_features(self, batch: Batch) -> dict[str, Tensor]:
        """Latents of each sample's window: "past" [B, C, T, y, x] and "future" [B, C, K, y, x].

        And "standing" (see `standing`) where futures are changes. Empty while the tokenizer is
        trained along: they change with it.
        """
        return {} if self.config.tokenizer_weight > 0 else self._window(batch)

    def parts(self) -> dict[str, WanPart]:
        """What is trained by itself beforehand: "tokenizer", where it is part of the weights."""
        return {} if self.wan is None else {"tokenizer": WanPart(self, self.wan)}

    @torch.no_grad()
    def _window(self, batch: Batch) -> dict[str, Tensor]:
        frames = self._frames(batch)
        past, future = self._parted(self.encode_window(frames))
        if self.wan is None:  # only a Wan tokenizer is exactly causal: the past gives the same
            past = self.encode_past(frames[:, : self.config.past_frames])
        found = {"past": past, "future": future}
        still = self._standing(frames)
        return found if still is None else found | {"standing": still}

    @torch.no_grad()
    def _standing(self, frames: Tensor) -> Tensor | None:
        """What a window's future is told as changes from, where it is."""
        if not self.config.change_spread:
            return None
        return self.standing(frames[:, : self.config.past_frames])

    def _frames(self, batch: Batch) -> Tensor:
        return batch.at(self.config.camera, self.batch_spec.frame_offsets).to(self.device)

    def _parted(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        count = self.config.past_latents
        return latents[:, :, :count], latents[:, :, count:]

    def _flow_error(self, data: Tensor, context: Context, batch: Batch) -> Tensor:
        """Give each row's mean squared velocity error [B]."""
        config = self.config
        noise, t, drop = draw(_seeds(batch), data.shape[1:], config, data.device)
        x, target, told = noised(data, noise, t, config)
        found = self.network(x, told, context.without(drop))
        return (found - target).square().flatten(1).mean(1)


def draw(
    seeds: NDArray[np.uint64],
    shape: Sequence[int],
    config: FlowHWMConfig,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw what training needs, each row from its own seed.

    Returns:
        Noise [B, *shape]; logit-normal times [B], sigmoid of a standard normal; and which
        rows lose their context, bool [B].

    Source: code, Flow-HWM/train.py and `VideoDiTModel.context_drop`.
    """
    noise = noise_from_seeds(seeds, shape, stream=NOISE, device=device)
    u = noise_from_seeds(seeds, (1,), stream=TIME, device=device)[:, 0]
    coin = noise_from_seeds(seeds, (1,), stream=DROP, device=device)[:, 0]
    return noise, torch.sigmoid(u), torch.special.ndtr(coin) < config.cfg_drop


def noised(
    data: Tensor, noise: Tensor, t: Tensor, config: FlowHWMConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix data with noise.

    Args:
        data, noise: [B, ...].
        t: [B] in 0..1; 0 is noise, 1 is data.
        config: For sigma_min and parity flags.

    Returns:
        x_t = (1 - (1 - sigma_min) t) noise + t data; its velocity
        data - (1 - sigma_min) noise; and the time that the network is told.

    Source: paper, Flow Matching; code, schedulers/flow_matching.py for the slips.
    """
    keep = 1.0 - config.sigma_min
    mixed, told = t, t
    # 50 training times in the official config, 49 = n_timesteps - 1 there
    if "noise_times_head" in config.parity:
        mixed = t / 49.0
    elif "noise_times_may_2025" in config.parity:
        mixed, told = t * 50.0 / 49.0, t * 50.0
    mixed = mixed.reshape(-1, *[1] * (data.ndim - 1))
    return (1.0 - keep * mixed) * noise + mixed * data, data - keep * noise, told


def read_statistics(folder: Path) -> Statistics:
    """Read the statistics beside a checkpoint.

    Raises:
        CheckpointMismatch: There are none; the official layout has none, since its loader
            computes them from whatever data it is given.
    """
    path = folder / STATISTICS
    if not path.exists():
        raise CheckpointMismatch(
            f'no {STATISTICS} with {{"action": {{"mean": [...], "std": [...]}}}} of the training '
            f"data beside the weights; without it actions cannot be normalised. Folder: {folder}"
        )
    return Statistics.from_json(path.read_text())


def _mean_where(values: Tensor, keep: Tensor) -> Tensor:
    """Mean of values [B] where keep; 0, with gradients, where nothing is kept."""
    weights = keep.to(values)
    return (values * weights).sum() / weights.sum().clamp(min=1.0)


def _seeds(batch: Batch) -> NDArray[np.uint64]:
    if batch.seed is not None:
        return batch.seed.cpu().numpy().astype(np.uint64)
    drawn: Any = torch.randint(2**62, (batch.size,)).numpy()
    return cast("NDArray[np.uint64]", drawn.astype(np.uint64))
