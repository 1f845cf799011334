"""The Fast-WAM model: its parts, its inputs, one pass over all tokens.

The training loss is in `losses.py`, sampling in `sampler.py`, the closed-loop side in
`policy.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

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
from policies.fastwam.blocks import KeyValue
from policies.fastwam.config import FastWamConfig
from policies.fastwam.experts import ActionExpert, Stream, VideoExpert
from policies.fastwam.losses import batch_video, flow_losses, video_loss
from policies.fastwam.mot import attention_mask, run
from policies.fastwam.normalise import Normaliser
from policies.fastwam.text import TextEncoder
from policies.fastwam.tokenizer import VaePart
from policies.fastwam.vae import WanVae
from policies.preprocess import ImageSteps
from policies.training.backbone import BackbonePart, Reading
from policies.training.reconstruction import begin_narrow, synthetic_video
from policies.training.trainable import Part
from wamsim.contracts import Frames


@dataclass(frozen=True)
class Context:
    """What both experts cross-attend to: keys and values per block, computed once per query."""

    video: list[KeyValue]
    action: list[KeyValue]


class FastWam(nn.Module, Pretrained, ToldAsChanges):
    """Both experts, the proprioception token, and the frozen VAE and text encoder.

    Parameter names below ``mixtures`` and ``proprio_encoder`` are those of the published
    checkpoints (their ``mot`` and ``proprio_encoder``).

    Args:
        config: See `FastWamConfig`.
    """

    def __init__(self, config: FastWamConfig) -> None:
        super().__init__()
        self.config = config
        self.identity = Identity(family="fastwam", variant=config.variant, preset=config.preset)
        self.mixtures = nn.ModuleDict(
            {
                "video": VideoExpert(
                    config.video, config.vae.z_dim, carry_noise=config.carry_noise
                ),
                "action": ActionExpert(config.action, config.action_dim),
            }
        )
        # All passes through the blocks; a CUDA graph may stand here (policies/latency).
        self.run = run
        self.proprio_encoder = nn.Linear(config.proprio_dim, config.text.dim)
        self.vae = WanVae(config.vae).requires_grad_(False).eval()
        self.text = TextEncoder(config.text).requires_grad_(False).eval()
        with torch.device("cpu"):  # values even where the weights have none yet
            self.set_statistics(
                Statistics.identity({"action": config.action_dim, "proprio": config.proprio_dim})
            )

    @classmethod
    def drawn(
        cls,
        config: FastWamConfig,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Build with weights drawn from a seed; the global generator is left as it was."""
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(seed)
            model = cls(config)
            begin_narrow(model.vae.wan)
            if not config.vae.mean:
                frames = len(config.frame_offsets)
                example = synthetic_video(4, frames, config.picture_size, moments=frames)
                model.vae.measure_scale(example)
        return model.to(dtype)

    @classmethod
    def empty(
        cls,
        config: FastWamConfig,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Build with memory but no values, for a checkpoint to fill."""
        with torch.device("meta"):
            model = cls(config)
        model = model.to(dtype).to_empty(device=device)
        model.vae.set_scale()
        return model

    def train(self, mode: bool = True) -> Self:
        """Switch to training; the frozen parts stay as they are."""
        super().train(mode)
        self.vae.eval()
        self.text.eval()
        return self

    @property
    def video(self) -> VideoExpert:
        """The video expert."""
        expert = self.mixtures["video"]
        assert isinstance(expert, VideoExpert)
        return expert

    @property
    def action(self) -> ActionExpert:
        """The action expert."""
        expert = self.mixtures["action"]
        assert isinstance(expert, ActionExpert)
        return expert

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.proprio_encoder.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the experts."""
        return self.proprio_encoder.weight.dtype

    @property
    def batch_spec(self) -> BatchSpec:
        """What `loss` needs of each sample."""
        config = self.config
        return BatchSpec(
            cameras=config.cameras,
            image_size=config.render_size,
            frame_offsets=config.frame_offsets,
            horizon=config.horizon,
            action=config.action_convention,
            proprio=config.proprio_convention,
        )

    # ----------------------------------------------------------------------- inputs

    def set_statistics(self, statistics: Statistics) -> None:
        """Take a data set's statistics: "action" (of `data_actions`) and "proprio".

        Raises:
            CheckpointMismatch: They lack something or are of other dimensions.
        """
        config = self.config
        self.action_scale = Normaliser(config.scaling, statistics, "action", config.action_dim)
        self.proprio_scale = Normaliser(config.scaling, statistics, "proprio", config.proprio_dim)
        self.statistics = statistics

    def data_actions(self, actions: Tensor) -> Tensor:
        """Write actions [..., A] of the suite's convention as the data set stores them.

        Statistics are of these. The published LIBERO data store the gripper as 0 closed,
        1 open; in the tiny preset nothing changes.
        """
        steps, out = self.config.gripper, actions.clone()
        for channel in self.config.action_convention.grippers:
            if steps.flip:
                out[..., channel] = -out[..., channel]
            if steps.from_unit:
                out[..., channel] = (out[..., channel] + 1.0) / 2.0
        return out

    def suite_actions(self, normalised: Tensor) -> NDArray[np.float32]:
        """Write denoised actions [..., A] in the suite's convention."""
        stored = self.action_scale.backward(normalised).cpu().numpy()
        return self.config.gripper.apply(stored.astype(np.float32), self.config.action_convention)

    def pixels(self, frames: Sequence[Frames]) -> Tensor:
        """Process pictures and put the cameras side by side.

        Args:
            frames: Per camera uint8 [B, T, H, W, 3], in the model's orientation.

        Returns:
            [B, 3, T, height, width] in -1..1.
        """
        steps = self.config.images
        ready = frames if steps == ImageSteps() else [steps.apply(f) for f in frames]
        wide = np.concatenate(ready, axis=-2)
        video = torch.from_numpy(np.ascontiguousarray(wide)).to(self.device)
        return video.permute(0, 4, 1, 2, 3).to(self.dtype) * (2.0 / 255.0) - 1.0

    def context_tokens(self, instruction: Sequence[str], proprio: Tensor) -> Tensor:
        """Give the context: the prompt's tokens, then one token of proprioception.

        Args:
            instruction: B strings.
            proprio: [B, P], raw.

        Returns:
            [B, length + 1, text dim].

        Raises:
            InstructionTooLong: A prompt exceeds the encoder.
        """
        text = self.text.encode([self.config.prompt.format(task=i) for i in instruction])
        normalised = self.proprio_scale.forward(proprio.to(self.device)).to(self.dtype)
        return torch.cat([text.to(self.dtype), self.proprio_encoder(normalised)[:, None]], dim=1)

    def context(self, tokens: Tensor) -> Context:
        """Project context tokens for every block of both experts."""
        return Context(video=self.video.context(tokens), action=self.action.context(tokens))

    def frame_times(self, timestep: Tensor, frames: int) -> Tensor:
        """Spread timesteps [B] over latent frames [B, frames]: the first is clean, so 0."""
        times = timestep[:, None].repeat(1, frames)
        times[:, 0] = 0
        return times

    # ----------------------------------------------------------------------- future

    def standing(self, present: Tensor) -> Tensor:
        """Encode a future in which nothing moves.

        Args:
            present: Pixels [B, 3, 1, height, width] in -1..1.

        Returns:
            [B, C, K, h, w].
        """
        still = present.expand(-1, -1, len(self.config.frame_offsets), -1, -1)
        return self.vae.encode(still)[:, :, 1:]

    # ------------------------------------------------------------------- velocities

    def velocities(
        self, latents: Tensor, actions: Tensor, times: tuple[Tensor, Tensor], context: Context
    ) -> tuple[Tensor, Tensor]:
        """Predict both velocities over the whole sequence.

        Args:
            latents: [B, C, F, h, w], the first frame clean.
            actions: [nB, H, A]: n of each sample, one after the other.
            times: Video and action timesteps, [B] and [nB].
            context: From `context`.

        Returns:
            [B, C, F, h, w] (the first frame's is of no use) and [nB, H, A].
        """
        video_times = self.frame_times(times[0], latents.shape[2])
        # actions read the copy
        groups = self._groups("C" if self.config.variant == "idm" else "V", latents.shape[2])
        stream = self.video.stream(latents, video_times, context.video)
        (video,), action = self._beside(groups, [stream], actions, times[1], context)
        return self.video.read(video, video_times, latents), self.action.read(action)

    def video_velocity(self, latents: Tensor, time: Tensor, context: list[KeyValue]) -> Tensor:
        """Predict the video's velocity where there are no actions.

        Args:
            latents: [B, C, F, h, w], the first frame clean.
            time: [B].
            context: The video expert's.

        Returns:
            [B, C, F, h, w]; the first frame's is of no use.
        """
        times = self.frame_times(time, latents.shape[2])
        groups = self._groups("V", latents.shape[2])
        mask = attention_mask(self.config.variant, groups, groups, device=self.device)
        (tokens,), _ = self.run([self.video.stream(latents, times, context)], mask)
        return self.video.read(tokens, times, latents)

    def idm_velocities(
        self,
        noisy: Tensor,
        copy: Tensor,
        actions: Tensor,
        times: tuple[Tensor, Tensor, Tensor],
        context: Context,
    ) -> tuple[Tensor, Tensor]:
        """Predict IDM's velocities in training: noisy video, conditioning copy, actions.

        Args:
            noisy, copy: [B, C, F, h, w], first frames clean.
            actions: [nB, H, A]: n of each sample, one after the other.
            times: Of the three, [B], [B] and [nB].
            context: From `context`.
        """
        frames = noisy.shape[2]
        groups = [*self._groups("V", frames), *self._groups("C", frames)]
        video_times = self.frame_times(times[0], frames)
        streams = [
            self.video.stream(noisy, video_times, context.video),
            self.video.stream(copy, self.frame_times(times[1], frames), context.video),
        ]
        (video, _), action = self._beside(groups, streams, actions, times[2], context)
        return self.video.read(video, video_times, noisy), self.action.read(action)

    def _groups(self, kind: str, frames: int) -> list[tuple[str, int]]:
        """Name the tokens of a video's first frame and of the later ones (see `mot.Groups`)."""
        per_frame = self.config.tokens_per_frame
        return [(f"{kind}0", per_frame), (f"{kind}+", per_frame * (frames - 1))]

    def _beside(
        self,
        groups: Sequence[tuple[str, int]],
        videos: Sequence[Stream],
        actions: Tensor,
        time: Tensor,
        context: Context,
    ) -> tuple[list[Tensor], Tensor]:
        """Send video streams and, beside them, actions through all blocks.

        Video attends to actions in no variant, so several noises of a sample's actions share
        its one video.

        Returns:
            Tokens of each video stream and of the actions [nB, H, hidden].
        """
        variant, rows = self.config.variant, videos[0].x.shape[0]
        own = [("A", actions.shape[1])]
        every = [*groups, *own]
        if len(actions) == rows:
            mask = attention_mask(variant, every, every, device=self.device)
            *tokens, action = self.run(
                [*videos, self.action.stream(actions, time, context.action)], mask
            )[0]
            return tokens, action
        mask = attention_mask(variant, groups, groups, device=self.device)
        tokens, kept = self.run(videos, mask)
        many = len(actions) // rows

        def spread(both: KeyValue) -> KeyValue:
            return both[0].repeat_interleave(many, 0), both[1].repeat_interleave(many, 0)

        stream = self.action.stream(actions, time, [spread(layer) for layer in context.action])
        mask = attention_mask(variant, own, every, device=self.device)
        return tokens, self.run([stream], mask, [spread(layer) for layer in kept])[0][0]

    # --------------------------------------------------------------- loss and disk

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Flow-matching losses of one batch: see `losses.flow_losses`."""
        return flow_losses(self, batch)

    def frozen_features(self, batch: Batch) -> dict[str, Tensor]:
        """Latents, for every variant alike, so that they share the cache.

        "latents" [B, C, 1 + K, h, w] of the whole video, and "standing" [B, C, K, h, w] where
        futures are changes.
        """
        video = batch_video(self, batch, self.config.frame_offsets)
        found = {"latents": self.vae.encode(video)}
        if self.config.change_spread:
            found["standing"] = self.standing(video[:, :, :1])
        return found

    def parts(self) -> dict[str, Part]:
        """What is trained by itself beforehand: "tokenizer", the video VAE, and "backbone".

        The backbone is the video expert as it looks at the present; where there is video
        co-training it learns that along, as published ones start from a video model.
        """
        config = self.config
        cameras, (height, width) = len(config.cameras), config.tokens_grid
        cotrain = config.variant != "no_video_cotrain"
        offsets = config.frame_offsets if cotrain else (0,)

        def frozen(batch: Batch) -> dict[str, Tensor]:
            if len(batch.frame_offsets) > 1:  # demonstrations, not looks
                return self.frozen_features(batch)
            return {"latents": self.vae.encode(batch_video(self, batch, (0,)))}

        def read(batch: Batch) -> Reading:
            found = batch.features or frozen(batch)
            first = found["latents"][:, :, :1].to(self.device, self.dtype)
            context = self.context_tokens(batch.instruction, batch.proprio_at(0))
            times = torch.zeros(batch.size, 1, dtype=self.dtype, device=self.device)
            stream = self.video.stream(first, times, self.video.context(context))
            # Actions read every block's input. What the last block makes of the present they
            # never see, so what is to be read must be there before (DECISIONS 52).
            stream = dataclasses.replace(stream, blocks=stream.blocks[:-1])
            groups = [("V0", self.config.tokens_per_frame)]
            mask = attention_mask(self.config.variant, groups, groups, device=self.device)
            tokens = self.run([stream], mask)[0][0]
            seen = tokens.unflatten(1, (height, cameras, -1)).movedim(2, 1)  # side by side
            return Reading(out=tokens, seen=seen)

        backbone = BackbonePart(
            self,
            prefixes=("mixtures.video.", "proprio_encoder."),
            spec=dataclasses.replace(self.batch_spec, frame_offsets=offsets, keyframe=True),
            read=read,
            width=config.video.hidden,
            orientation=config.orientation,
            whole=config.images.keeps_all and width % cameras == 0,
            frozen=frozen,
            along=(lambda batch: {"video": video_loss(self, batch)})
            if cotrain else None,
        )  # fmt: skip
        return {"tokenizer": VaePart(self), "backbone": backbone}

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        (save_directory / STATISTICS).write_text(self.statistics.to_json())

    @classmethod
    def load(cls, source: str | Path, *, expect: Identity | None = None) -> Self:
        """Load from a folder or hub id, statistics included (see `Pretrained.load`)."""
        model = super().load(source, expect=expect)
        path = local_folder(source) / STATISTICS
        try:
            text = path.read_text()
        except OSError as error:
            raise CheckpointMismatch(f"the checkpoint brings no {STATISTICS}: {path}") from error
        model.set_statistics(Statistics.from_json(text))
        return model

    @classmethod
    def config_type(cls) -> Any:
        """The class of `config`."""
        return FastWamConfig
