"""The variants, and for each its tiny and its published configuration (FAMILIES C.3)."""

from __future__ import annotations

import dataclasses
from typing import Any

from policies.smolvla_world.config import (
    Config,
    FusionConfig,
    HostConfig,
    VlmConfig,
    WorldConfig,
)
from wamsim.errors import nearest

PRESETS = ("tiny", "published")

# One line each for the README and `PolicyCard.notes`; the first is the default.
VARIANTS: dict[str, str] = {
    "late_gated_xattn": "gated cross-attention into the predicted future before the read-out",
    "base": "SmolVLA alone, no world features",
    "flare_tokens": "learned future tokens among the actions, aligned with the future's features",
    "multi_layer_inject": "gated cross-attention after several expert layers",
    "hierarchical_horizons": "near futures for early layers, far ones for late layers",
    "world_tokens": "the predicted future as tokens of the sequence",
    "action_conditioned_prophet": "the future is predicted from history and the noisy actions",
    "suffix_in": "gated cross-attention on the action embeddings before the expert",
    "prefix_xattn": "gated cross-attention on the prefix embeddings",
    "constraint": "the predicted future constrains training and is no input",
}

# What a variant changes in FusionConfig: (tiny, published).
_FUSION: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "flare_tokens": (
        {"flare_tokens": 4, "flare_layer": 3},
        # M = K tokens so that each has its own target; the paper's 32 pooled query tokens
        # need its Q-former. L = 6 as in the paper (of 8 layers there, of 16 here).
        {"flare_tokens": 8, "flare_layer": 6, "delta": False},
    ),
    "multi_layer_inject": ({"sites": (2, 3, 4)}, {"sites": (4, 8, 12)}),
    "hierarchical_horizons": (
        {"sites": (2, 3, 4), "site_horizons": (1, 3, 6)},
        {"sites": (4, 8, 12), "site_horizons": (2, 10, 30)},
    ),
}
_HORIZON = {"hierarchical_horizons": (6, 30)}

# Nothing is pretrained, so everything must be small enough to learn from simulator pictures
# alone: 16 tokens per 64 x 64 picture (the published 4 x 4 shuffle would leave 4).
_TINY_VLM = VlmConfig(
    hidden=64, layers=6, heads=4, kv_heads=2, head_dim=16, ffn=192, vocabulary=4096,
    vision_hidden=64, vision_layers=3, vision_heads=4, vision_ffn=128,
    image_px=64, patch_px=8, shuffle=2,
)  # fmt: skip
_TINY_HOST = HostConfig(
    vlm=_TINY_VLM,
    chunk=8,
    max_action_dim=10,  # wider than the real 7, so that padding is alive
    max_state_dim=12,
    text_limit=32,  # words; LIBERO's longest instruction has 19
    tokenizer="words",
    steps=4,
    flow_draws=4,  # a third more work a step than one, and much less noise in the gradient
    freeze_vlm=False,  # nothing is pretrained
)
# 8 x 8 patches at two times: fewer would leave nothing to mask when it is trained
_TINY_WORLD = WorldConfig(
    hidden=64, layers=3, heads=2, mlp_ratio=2.0, crop_px=64, patch_px=8, horizon=4, own=True
)  # fmt: skip
# Squared error gives predictions a scale, so that their skill can be measured; the published
# cosine leaves it open. From the standing world, over its error, and in order: DECISIONS 36.
_TINY_FUSION = FusionConfig(
    prophet_heads=4,
    prophet_positions=True,
    inject_heads=4,
    loss="relative",
    delta_from="standing",
)


def configuration(variant: str, preset: str) -> Config:
    """Give a variant's configuration.

    Raises:
        UnknownName: Variant or preset; with the nearest one.
    """
    if variant not in VARIANTS:
        raise nearest(variant, VARIANTS, kind="variant of smolvla_world")
    if preset not in PRESETS:
        raise nearest(preset, PRESETS, kind="preset of smolvla_world")
    tiny = preset == "tiny"
    world = _TINY_WORLD if tiny else WorldConfig()
    if variant in _HORIZON:
        world = dataclasses.replace(world, horizon=_HORIZON[variant][0 if tiny else 1])
    changes = _FUSION.get(variant, ({}, {}))[0 if tiny else 1]
    host = _TINY_HOST if tiny else HostConfig()
    return Config(
        variant=variant,
        preset=preset,
        image_size=(64, 64) if tiny else (256, 256),
        # LeRobot: n_action_steps = chunk_size; what is small looks again sooner
        execute=host.chunk // 2 if tiny else host.chunk,
        host=host,
        world=None if variant == "base" else world,
        fusion=dataclasses.replace(_TINY_FUSION if tiny else FusionConfig(), **changes),
    )
