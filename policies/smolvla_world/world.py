"""World features: the mean of V-JEPA 2's tokens over a clip of a few frames (FAMILIES C.2).

Axes: B rows, T frames, N clips, D world channels, hwc pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import VJEPA2Config, VJEPA2Model

from policies.smolvla_world.config import WorldConfig
from policies.training.reconstruction import channel_scale

# ImageNet statistics of V-JEPA 2's video processor (facebook/vjepa2-vitg-fpc64-256,
# preprocessor_config.json).
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LONGEST = 100.0  # period of the slowest wave / 2 pi, in patches; a picture has 8
_CLIPS_AT_ONCE = 16  # bounds the memory of ViT-g; no effect on values


class PlacedPatches(nn.Module):
    """Patch embeddings plus sines and cosines of row and column.

    V-JEPA's first version had such (Bardes et al. 2024, arXiv:2404.08471); the second one's
    rotary positions are relative, and with few layers a mean over all tokens then hardly says
    where anything is (R2 of the end effector: 0.88 without, 0.95 with, after a short training).
    """

    places: Tensor

    def __init__(self, embeddings: nn.Module, config: WorldConfig) -> None:
        super().__init__()
        self.embeddings = embeddings
        side, waves = config.crop_px // config.patch_px, config.hidden // 4
        rates = _LONGEST ** -(torch.arange(waves) / waves)
        angles = torch.arange(side)[:, None] * rates
        axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, hidden / 2]
        grid = torch.cat(
            [axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)], dim=-1
        )
        times = config.clip_frames // config.tubelet
        self.register_buffer("places", grid.flatten(0, 1).repeat(times, 1), persistent=False)

    def forward(self, clips: Tensor) -> Tensor:
        """Embed [n, T, 3, side, side] as tokens [n, N, D]."""
        tokens = self.embeddings(clips)
        return tokens + self.places.to(tokens.dtype)


class WorldEncoder(nn.Module):
    """Frozen V-JEPA 2 encoder, averaged over all its tokens.

    A small one of our own is trained by `policies.smolvla_world.tokenizer`; its features are
    brought to unit size (`WorldConfig.own`).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        self.config = config
        vjepa = VJEPA2Config(
            hidden_size=config.hidden, num_hidden_layers=config.layers,
            num_attention_heads=config.heads, mlp_ratio=config.mlp_ratio,
            crop_size=config.crop_px, patch_size=config.patch_px, tubelet_size=config.tubelet,
            # the predictor is dropped below; do not build a big one first
            pred_hidden_size=24, pred_num_attention_heads=1, pred_num_hidden_layers=1,
        )  # fmt: skip
        self.vjepa: Any = VJEPA2Model(vjepa)
        self.vjepa.predictor = nn.Identity()  # `skip_predictor`: nothing calls it
        self.requires_grad_(False)
        if config.own:
            self.vjepa.encoder.embeddings = PlacedPatches(self.vjepa.encoder.embeddings, config)
            self.register_buffer("mean", torch.zeros(config.hidden))
            self.register_buffer("std", torch.ones(config.hidden))

    def train(self, mode: bool = True) -> WorldEncoder:
        """Stay in evaluation mode: the encoder is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, frames: Tensor, clips: int) -> Tensor:
        """Encode the last `clips` steps, each with the frames before it.

        Args:
            frames: uint8 [B, T, height, width, 3] with T = clips + clip_frames - 1,
                consecutive env steps, oldest first.
            clips: How many steps (N).

        Returns:
            float32 [B, N, D].

        Raises:
            ValueError: Another number of frames.
        """
        each = self.clips(frames, clips)
        done = [self.pooled(part) for part in each.split(_CLIPS_AT_ONCE)]
        found = torch.cat(done).float().unflatten(0, (len(frames), clips))
        return (found - self.mean) / self.std if self.config.own else found

    def standing(self, frames: Tensor, clips: int) -> Tensor:
        """Encode the steps ahead as if the last picture stayed.

        Args:
            frames: uint8 [B, T, height, width, 3], T at least clip_frames - 1, the last one now.
            clips: How many steps ahead (K).

        Returns:
            float32 [B, K, D].
        """
        known = self.config.clip_frames - 1
        different = min(clips, known)  # further ahead a clip holds nothing but the last picture
        still = frames[:, -1:].expand(-1, different, -1, -1, -1)
        found = self(torch.cat([frames[:, -known:], still], dim=1), different)
        return torch.cat([found, found[:, -1:].expand(-1, clips - different, -1)], dim=1)

    def clips(self, frames: Tensor, clips: int) -> Tensor:
        """Cut and scale frames as `forward` takes them: float32 [B N, clip_frames, 3, side, side].

        Raises:
            ValueError: Another number of frames.
        """
        length, side = self.config.clip_frames, self.config.crop_px
        batch, given = frames.shape[:2]
        if given != clips + length - 1:
            raise ValueError(
                f"{clips} clips of {length} frames need {clips + length - 1} consecutive "
                f"frames, got {given}"
            )
        x = frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        if x.shape[2:] != (side, side):
            x = F.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)
        mean, std = (x.new_tensor(v)[:, None, None] for v in (_MEAN, _STD))
        x = ((x - mean) / std).unflatten(0, (batch, given))
        return x.unfold(1, length, 1).movedim(-1, 2).flatten(0, 1)

    def pooled(self, clips: Tensor) -> Tensor:
        """Give clips' features [n, D] before any scaling."""
        return self.vjepa.get_vision_features(clips).mean(1)

    @torch.no_grad()
    def measure_scale(self, pooled: Tensor) -> None:
        """Take mean and spread from features [n, D] of an example."""
        mean, std = channel_scale(pooled)
        self.mean.copy_(mean)
        self.std.copy_(std)
