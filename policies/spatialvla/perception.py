"""LLaVA-3D's eyes: CLIP patches, a 3-D position embedding, voxels, a projector.

Axes: B rows, V views, S patches along a side, K visual tokens, W the language model's width.
Source: ZCMax/LLaVA-3D llava/model (llava_arch.py, multimodal_encoder/).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from policies.spatialvla.config import SpatialVLAConfig, VisionConfig
from policies.spatialvla.geometry import patch_points, pool_voxels
from policies.spatialvla.inputs import Inputs


class PositionEmbedding(nn.Module):
    """World metres to a feature: Linear, LayerNorm, ReLU, Linear; Xavier start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.position_embedding_head = nn.Sequential(
            nn.Linear(3, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, points: Tensor) -> Tensor:
        """[..., 3] to [..., width]."""
        return self.position_embedding_head(points)


def clip_vision(config: VisionConfig) -> CLIPVisionModel:
    """Build CLIP's vision transformer, untrained."""
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=config.width,
            intermediate_size=config.ffn,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            image_size=config.image_size,
            patch_size=config.patch,
        )
    )


def projector(vision_width: int, language_width: int) -> nn.Sequential:
    """LLaVA's mlp2x_gelu."""
    return nn.Sequential(
        nn.Linear(vision_width, language_width),
        nn.GELU(),
        nn.Linear(language_width, language_width),
    )


@dataclass(frozen=True)
class Seen:
    """What a look is to the language model.

    Attributes:
        tokens: [B, K, W], visual tokens.
        valid: bool [B, K], which of them are real.
        patches: [B, V, S, S, C], every patch's feature, before voxels and the projector.
    """

    tokens: Tensor
    valid: Tensor
    patches: Tensor


def see(
    inputs: Inputs,
    config: SpatialVLAConfig,
    vision: CLIPVisionModel,
    position: PositionEmbedding,
    project: nn.Sequential,
) -> Seen:
    """Turn pictures and depth into visual tokens.

    Args:
        inputs: B rows of V views.
        config: Select layer, voxels, capacity.
        vision, position, project: The modules.
    """
    side = config.vision.side
    rows, views = inputs.pictures.shape[:2]
    pictures = inputs.pictures.flatten(0, 1).to(vision.dtype)
    states = vision(pictures, output_hidden_states=True).hidden_states
    assert states is not None
    patches = states[config.vision.select_layer][:, 1:]
    patches = patches.unflatten(0, (rows, views)).flatten(1, 2)
    if not config.use_depth:
        # LLaVA-3D's 2-D path multiplies the position embedding by zero and pools nothing
        valid = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        return Seen(project(patches), valid, patches.unflatten(1, (views, side, side)))
    assert inputs.depth is not None
    assert inputs.intrinsics is not None
    assert inputs.extrinsics is not None
    points = patch_points(
        inputs.depth,
        inputs.intrinsics,
        inputs.extrinsics,
        image_size=config.vision.image_size,
        side=side,
    ).flatten(1, 3)
    patches = patches + position(points.to(patches.dtype))
    tokens, valid = pool_voxels(
        patches,
        points,
        voxel_m=config.voxel_m,
        capacity=config.visual_tokens,
        seeds=inputs.seeds,
    )
    return Seen(project(tokens), valid, patches.unflatten(1, (views, side, side)))
