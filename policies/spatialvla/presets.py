"""Sizes: published ones with their sources, and tiny ones that keep every mechanism."""

from __future__ import annotations

from policies.preprocess import ImageSteps, Resample
from policies.spatialvla.config import (
    DEEP,
    LATE_GEMMA,
    LATE_LLAMA,
    PRESETS,
    Blocks,
    Mask,
    SpatialVLAConfig,
    TransformerConfig,
    VisionConfig,
)

# openai/clip-vit-large-patch14-336, vision part
CLIP_L_336 = VisionConfig(image_size=336, patch=14, width=1024, depth=24, heads=16, ffn=4096)
# LLaVA-v1.5-7B = Vicuna-7B v1.5 (Llama 2): rms_norm_eps 1e-5
LLAMA_7B = TransformerConfig(
    blocks=Blocks.LLAMA, width=4096, depth=32, heads=32, kv_heads=32, head_dim=128,
    ffn=11008, norm_eps=1e-5,
)  # fmt: skip
# 3dvla_late_fusion's own expert configuration
GEMMA_12 = TransformerConfig(
    blocks=Blocks.GEMMA, width=2048, depth=12, heads=8, kv_heads=1, head_dim=256, ffn=8192
)
# google/gemma-2b, the pre-trained alternative
GEMMA_2B = TransformerConfig(
    blocks=Blocks.GEMMA, width=2048, depth=18, heads=8, kv_heads=1, head_dim=256, ffn=16384
)
# no public code: our reading of the second plan
LLAMA_12 = TransformerConfig(
    blocks=Blocks.LLAMA, width=2048, depth=12, heads=16, kv_heads=16, head_dim=128,
    ffn=5504, norm_eps=1e-5,
)  # fmt: skip

# 16 patches a picture: the language model reads every one of them as a token of its own
_TINY_VISION = VisionConfig(image_size=64, patch=16, width=96, depth=3, heads=4, ffn=256)
# three layers to look and read with, and one in which actions read what was found
_TINY_LANGUAGE = TransformerConfig(
    blocks=Blocks.LLAMA, width=96, depth=4, heads=4, kv_heads=4, head_dim=24, ffn=256,
    norm_eps=1e-5,
)  # fmt: skip
_TINY_EXPERTS = {
    LATE_GEMMA: TransformerConfig(
        blocks=Blocks.GEMMA, width=64, depth=3, heads=4, kv_heads=1, head_dim=16, ffn=256
    ),
    LATE_LLAMA: TransformerConfig(
        blocks=Blocks.LLAMA, width=64, depth=3, heads=4, kv_heads=4, head_dim=16, ffn=192,
        norm_eps=1e-5,
    ),
    DEEP: _TINY_LANGUAGE,
}  # fmt: skip
_PUBLISHED_EXPERTS = {LATE_GEMMA: GEMMA_12, LATE_LLAMA: LLAMA_12, DEEP: LLAMA_7B}


def preset(variant: str, name: str) -> SpatialVLAConfig:
    """Give a variant's preset.

    Raises:
        ValueError: Another preset than tiny or published.
    """
    if name not in PRESETS:
        raise ValueError(f"preset={name!r} must be one of {', '.join(PRESETS)}")
    tiny, deep = name == "tiny", variant == DEEP
    vision = _TINY_VISION if tiny else CLIP_L_336
    size = vision.image_size
    # The VLM stays frozen under a late expert (3dvla_late_fusion utils_flow.py); CLIP always
    # (LLaVA). A tiny backbone has learnt nothing yet, so nothing of it is frozen.
    frozen = () if tiny else ("vision",) if deep else ("vision", "language")
    return SpatialVLAConfig(
        variant=variant,
        preset=name,
        vision=vision,
        language=_TINY_LANGUAGE if tiny else LLAMA_7B,
        vocab=4096 if tiny else 32_000,
        # LIBERO's longest instruction has 19 words; LLaVA's own limit is 4096 for the whole
        # sequence, and of the published tokenizer's pieces 128 are plenty
        text_tokens=32 if tiny else 128,
        expert=(_TINY_EXPERTS if tiny else _PUBLISHED_EXPERTS)[variant],
        mask=Mask.PI0 if deep else Mask.CAUSAL,
        image=ImageSteps(size=(size, size), resample=Resample.BICUBIC),
        frozen=frozen,
        scale_inputs=variant == LATE_GEMMA,
        use_state=deep,
        # LLaVA-3D's 0.2 m is for rooms: it would put a cube and its neighbours into one voxel
        voxel_m=0.05 if tiny else 0.2,
        flow_draws=4 if tiny else 1,
        execute=4 if tiny else None,  # of 8, as the other tiny presets
    )
