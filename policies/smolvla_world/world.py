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

# ImageNet statistics of V-JEPA 2's video processor (facebook/vjepa2-vitg-fpc64-256,
# preprocessor_config.json).
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIPS_AT_ONCE = 16  # bounds the memory of ViT-g; no effect on values


class WorldEncoder(nn.Module):
    """Frozen V-JEPA 2 encoder, averaged over all its tokens."""

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
        each = x.unfold(1, length, 1).movedim(-1, 2).flatten(0, 1)  # [B N, m, 3, side, side]
        done = [self.vjepa.get_vision_features(part).mean(1) for part in each.split(_CLIPS_AT_ONCE)]
        return torch.cat(done).float().unflatten(0, (batch, clips))
