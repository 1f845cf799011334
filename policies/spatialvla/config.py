"""Configuration of the family: frozen dataclasses, presets, options. Imports no torch."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import Any

from policies.interface import check_interface, chosen
from policies.preprocess import GripperSteps, ImageSteps
from policies.spatialvla.plain import from_plain, to_plain
from wamsim.conventions import (
    ACTIONS,
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    EEF_AXIS_ANGLE_GRIPPER,
    PROPRIOS,
    ActionConvention,
    ProprioConvention,
)

FAMILY_NAME = "spatialvla"
LATE_GEMMA, LATE_LLAMA, DEEP = "late_fusion_gemma", "late_fusion_llama", "deep_fusion"
VARIANTS = (LATE_GEMMA, LATE_LLAMA, DEEP)
PRESETS = ("tiny", "published")


class Mask(enum.Enum):
    """Who attends to whom; `policies.spatialvla.masks` has the rule.

    CAUSAL is what 3dvla_late_fusion really does, PREFIX_BLOCK what its plan intended, PI0
    openpi's blocks, FULL everybody to everybody (no prefix cache is possible then).
    """

    CAUSAL = "causal"
    PREFIX_BLOCK = "prefix_block"
    FULL = "full"
    PI0 = "pi0"


class Sharing(enum.Enum):
    """Layers of the deep-fusion expert: the language model's own, or a second stack."""

    SHARED = "shared"
    INDEPENDENT = "independent"


class TimeLaw(enum.Enum):
    """Training law of the flow time t (1 is noise): uniform, or openpi's Beta(1.5, 1)."""

    UNIFORM = "uniform"
    BETA = "beta"


class Blocks(enum.Enum):
    """Details of a transformer's layers: Gemma's (1 + w) norm and tanh-GELU, or Llama's."""

    GEMMA = "gemma"
    LLAMA = "llama"


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """CLIP's vision transformer and the layer that is taken from it.

    Attributes:
        image_size, patch: Pixels of a side.
        width, depth, heads, ffn: Of the transformer.
        select_layer: Index into its hidden states (LLaVA: -2); the class token is dropped.
    """

    image_size: int
    patch: int
    width: int
    depth: int
    heads: int
    ffn: int
    select_layer: int = -2

    def __post_init__(self) -> None:
        if self.image_size % self.patch:
            raise ValueError(f"image_size={self.image_size} is no multiple of patch={self.patch}")
        if self.depth + 1 + self.select_layer < 0:
            raise ValueError(f"select_layer={self.select_layer} with only {self.depth} layers")

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A decoder stack with rotary positions and a gated MLP.

    Attributes:
        blocks: Gemma's or Llama's details.
        width, depth, heads, kv_heads, head_dim, ffn: Sizes; heads x head_dim may differ
            from width.
        rope_theta, norm_eps: As in the libraries' configurations.
    """

    blocks: Blocks
    width: int
    depth: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads or self.head_dim % 2 or self.width % 2:
            raise ValueError("kv_heads must divide heads; head_dim and width must be even")


@dataclass(frozen=True, kw_only=True)
class SpatialVLAConfig:
    """One variant, whole.

    Attributes:
        variant, preset: Names.
        vision, language: The backbone.
        vocab: Rows of the token embedding.
        text_tokens: Length that every instruction is padded to, its limit.
        expert: The action expert's stack.
        mask, scale_inputs: See `Mask`; multiply the expert's inputs by sqrt(width), as
            transformers 4.47 did for Gemma.
        sharing, use_state: Deep fusion only.
        time_law: See `TimeLaw`.
        cameras, frame_offsets: What it looks through; views = cameras x offsets.
        use_depth: False is LLaVA's plain path: no position embedding, no voxels.
        voxel_m, max_visual_tokens: Edge of a voxel; more voxels than this are thinned out
            by a choice seeded with the row's seed.
        horizon: Actions predicted.
        execute: Of these, executed; None: all (no protocol is published).
        flow_draws: Noises and times drawn for a sample in training, behind one pass of the
            prefix, which never looks at them (but with mask "full").
        action_name, proprio_name: Conventions, by name.
        image, gripper: Pre- and post-processing.
        frozen: Attributes of the model that training leaves alone.
    """

    variant: str
    preset: str
    vision: VisionConfig
    language: TransformerConfig
    vocab: int
    text_tokens: int
    expert: TransformerConfig
    mask: Mask
    image: ImageSteps
    frozen: tuple[str, ...]
    scale_inputs: bool = False
    sharing: Sharing = Sharing.INDEPENDENT
    use_state: bool = False
    time_law: TimeLaw = TimeLaw.UNIFORM
    cameras: tuple[str, ...] = ("agentview", "eye_in_hand")
    frame_offsets: tuple[int, ...] = (0,)
    use_depth: bool = True
    # LLaVA-3D llava/model/multimodal_encoder/video_encoder.py and llava_arch.py
    voxel_m: float = 0.2
    max_visual_tokens: int = 2560
    horizon: int = 8  # 3dvla_late_fusion train/train_flow.py
    execute: int | None = None
    flow_draws: int = 1
    action_name: str = DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name
    proprio_name: str = EEF_AXIS_ANGLE_GRIPPER.name
    gripper: GripperSteps = field(default_factory=GripperSteps)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"variant={self.variant!r} must be one of {', '.join(VARIANTS)}")
        check_interface(
            FAMILY_NAME, cameras=self.cameras, action=self.action_name, proprio=self.proprio_name
        )
        if self.voxel_m <= 0 or self.max_visual_tokens < 1 or self.text_tokens < 2:
            raise ValueError("voxel_m, max_visual_tokens must be positive, text_tokens >= 2")
        if not self.deep:
            if self.use_state:
                raise ValueError("the late-fusion experts have no state token (use_state)")
            return
        one, two = self.language, self.expert
        if (one.depth, one.heads, one.kv_heads, one.head_dim, one.rope_theta) != (
            two.depth, two.heads, two.kv_heads, two.head_dim, two.rope_theta,
        ):  # fmt: skip
            raise ValueError("deep fusion needs equal depth, heads, head_dim and rope_theta")
        if self.sharing is Sharing.SHARED and one != two:
            raise ValueError("shared layers need an expert configured as the language model")

    @property
    def deep(self) -> bool:
        """Whether the streams meet in every layer."""
        return self.variant == DEEP

    @property
    def views(self) -> int:
        """Pictures per query."""
        return len(self.cameras) * len(self.frame_offsets)

    @property
    def visual_tokens(self) -> int:
        """Fixed length of the visual part, padded; so no row depends on another's scene."""
        patches = self.views * self.vision.side**2
        return min(patches, self.max_visual_tokens) if self.use_depth else patches

    @property
    def action(self) -> ActionConvention:
        """Of the actions."""
        return ACTIONS[self.action_name]

    @property
    def proprio(self) -> ProprioConvention | None:
        """Of the state token; None when there is none."""
        return PROPRIOS[self.proprio_name] if self.use_state else None

    @property
    def input_scale(self) -> float:
        """Factor on the expert's inputs (late fusion)."""
        return math.sqrt(self.expert.width) if self.scale_inputs else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Write as plain data."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SpatialVLAConfig:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: An unknown or missing field, or a value out of range.
        """
        return from_plain(cls, data)


@dataclass(frozen=True, kw_only=True)
class SpatialVLAOptions:
    """Options of the command line (``--set key=value``); None keeps the preset's choice.

    Attributes:
        checkpoint: Folder or hub id of weights saved by wamsim; None starts untrained.
        preset: tiny or published.
        cameras, action, proprio: What an untrained model looks through and which conventions
            it speaks, by name; proprio only where there is a state token.
        device, dtype: Where, and float32 or bfloat16.
        execute: Env steps per query.
        init_seed: Of untrained weights.
        steps: Euler steps per query.
        cache: Reuse the prefix's keys and values where that is exact (every mask but full).
        mask, sharing, time_law: causal, prefix_block, full, pi0; shared, independent;
            uniform, beta.
        scale_inputs, use_state, use_depth, voxel_m, frame_offsets: See `SpatialVLAConfig`.
        backbone: LLaVA-3D-7B (folder or hub id): weights and tokenizer; published preset.
        vision: CLIP ViT-L/14-336, where the backbone's shards lack it.
        expert: A 3dvla_late_fusion checkpoint; only its action expert is read.
        statistics: JSON with action (and proprio) mean and std: ours, or its norm_stats.json.
    """

    checkpoint: str | None = None
    preset: str = "tiny"
    cameras: tuple[str, ...] | None = None
    action: str | None = None
    proprio: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    execute: int | None = None
    init_seed: int = 0
    steps: int = 10  # openpi and 3dvla_late_fusion
    cache: bool = True
    mask: str | None = None
    sharing: str | None = None
    time_law: str | None = None
    scale_inputs: bool | None = None
    use_state: bool | None = None
    use_depth: bool | None = None
    voxel_m: float | None = None
    frame_offsets: tuple[int, ...] | None = None
    backbone: str | None = None
    vision: str | None = None
    expert: str | None = None
    statistics: str | None = None

    def __post_init__(self) -> None:
        allowed: dict[str, tuple[str, ...]] = {
            "preset": PRESETS,
            "dtype": ("float32", "bfloat16"),
            "mask": tuple(m.value for m in Mask),
            "sharing": tuple(s.value for s in Sharing),
            "time_law": tuple(t.value for t in TimeLaw),
        }
        for name, values in allowed.items():
            given = getattr(self, name)
            if given is not None and given not in values:
                raise ValueError(f"{name}={given!r} must be one of {', '.join(values)}")
        check_interface(FAMILY_NAME, cameras=self.cameras, action=self.action, proprio=self.proprio)
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")
        parts = self.backbone or self.vision or self.expert
        if self.checkpoint and parts:
            raise ValueError("give either checkpoint or its parts backbone, vision, expert")
        if parts and self.preset != "published":
            raise ValueError("published parts need preset=published")

    @property
    def interface(self) -> dict[str, Any]:
        """Cameras and conventions among `changes`."""
        return chosen(cameras=self.cameras, action_name=self.action, proprio_name=self.proprio)

    def changes(self) -> dict[str, Any]:
        """Give the fields of `SpatialVLAConfig` that these options set."""
        out: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("scale_inputs", "use_state", "use_depth", "voxel_m", "frame_offsets")
        }
        for name, kind in (("mask", Mask), ("sharing", Sharing), ("time_law", TimeLaw)):
            text = getattr(self, name)
            out[name] = None if text is None else kind(text)
        return {**chosen(**out), **self.interface}
