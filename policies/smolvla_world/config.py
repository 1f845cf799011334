"""Configuration of smolvla_world: one frozen tree that a run and a checkpoint store whole.

FAMILIES C.n means section C.n of the project's notes; their sources are LeRobot's `smolvla`
(arXiv:2506.01844), charbelsan/world-modality-vla and FLARE (arXiv:2505.15659).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from policies.preprocess import GripperSteps, ImageSteps
from policies.smolvla_world.document import from_document, to_document
from wamsim.conventions import ACTIONS, PROPRIOS, Orientation

FAMILY_NAME = "smolvla_world"
LOSSES = ("cos", "mse", "relative", "contrastive", "cos_policy")
MEMORIES_ROLLOUT = ("pred", "zero", "shuffle", "random", "random_scaled", "signflip")
MEMORIES_TRAIN = (*MEMORIES_ROLLOUT, "oracle")
PREFIX_BLOCKS = ("state", "own", "prefix")


@dataclass(frozen=True, kw_only=True)
class VlmConfig:
    """Shape of the SmolVLM; the defaults are SmolVLM2-500M with 16 of its 32 text layers.

    Source: FAMILIES C.0. `vision_layers` and `vision_heads` are unverified.
    """

    hidden: int = 960
    layers: int = 16
    heads: int = 15
    kv_heads: int = 5
    head_dim: int = 64
    ffn: int = 2560
    vocabulary: int = 49280
    vision_hidden: int = 768
    vision_layers: int = 12
    vision_heads: int = 12
    vision_ffn: int = 3072
    image_px: int = 512
    patch_px: int = 16
    shuffle: int = 4  # pixel shuffle: one token for shuffle x shuffle patches

    @property
    def tokens_side(self) -> int:
        """Tokens along the side of a picture."""
        return self.image_px // self.patch_px // self.shuffle


@dataclass(frozen=True, kw_only=True)
class HostConfig:
    """The SmolVLA itself (FAMILIES C.0; LeRobot configuration_smolvla.py).

    Attributes:
        vlm: The vision-language model.
        expert_width: Expert width as a share of the VLM's.
        self_attention_every: Layers 0, n, 2n ... are joint self-attention, the others let
            the expert look at the VLM only.
        chunk: Actions per query (H).
        action_dim, state_dim: Real channels.
        max_action_dim, max_state_dim: Channels after zero padding.
        text_limit: Longest instruction in tokens, its final newline included.
        tokenizer: "words", or a hub id or folder with tokenizer files.
        steps: Euler steps.
        flow_draws: Noises and times drawn for a sample in training; they share one pass of the
            prefix, which never looks at them, so more of them cost little.
        min_period, max_period: Of the time embedding.
        rope_base: Of rotary positions.
        freeze_vlm: Train the expert and the projections only.
    """

    vlm: VlmConfig = field(default_factory=VlmConfig)
    expert_width: float = 0.75
    self_attention_every: int = 2
    chunk: int = 50
    action_dim: int = 7
    state_dim: int = 8
    max_action_dim: int = 32
    max_state_dim: int = 32
    text_limit: int = 48
    tokenizer: str = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    steps: int = 10
    flow_draws: int = 1
    min_period: float = 4e-3
    max_period: float = 4.0
    rope_base: float = 10_000.0
    freeze_vlm: bool = True

    @property
    def expert_hidden(self) -> int:
        """Width of the expert (720 for the published size)."""
        return int(self.vlm.hidden * self.expert_width)

    @property
    def expert_ffn(self) -> int:
        """Inner width of the expert's MLPs: 4 int(2 h / 3), rounded up to a multiple of 256."""
        return -(-4 * int(2 * self.expert_hidden / 3) // 256) * 256


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """World features: V-JEPA 2, averaged over all tokens of a clip (FAMILIES C.2).

    Attributes:
        hidden, layers, heads, mlp_ratio, crop_px, patch_px, tubelet: Shape of the encoder.
        clip_frames: Frames of one clip, the last one being the step itself.
        context: Steps of history that the Prophet sees.
        horizon: Steps ahead that are imagined (K).
        camera: Which of the policy's cameras.
        own: The encoder is trained here. Its patches are told their place in the picture, for
            the mean over all of them forgets it, and features are brought to mean 0 and
            spread 1 by measured values, which are part of the weights.
    """

    hidden: int = 1408
    layers: int = 40
    heads: int = 22
    mlp_ratio: float = 48 / 11
    crop_px: int = 256
    patch_px: int = 16
    tubelet: int = 2
    clip_frames: int = 4
    context: int = 4
    horizon: int = 8
    camera: int = 0
    own: bool = False

    @property
    def history(self) -> tuple[int, ...]:
        """Frame offsets of all clips of the history: (-6 .. 0) for 4 clips of 4."""
        return tuple(range(2 - self.clip_frames - self.context, 1))

    @property
    def future(self) -> tuple[int, ...]:
        """Frame offsets of all clips of the future, and of the present one: (-3 .. K)."""
        return tuple(range(1 - self.clip_frames, self.horizon + 1))


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """How the future enters the policy and what it is trained on (FAMILIES C.1, C.3).

    Attributes:
        prophet_layers, prophet_heads, prophet_dropout: The predictor of world features.
        prophet_positions: Give it position embeddings; the published one has none, so the
            order of the history is invisible to it.
        delta: Predict a change instead of z(t+k).
        delta_from: What changes are counted from: the "present" z(t) as published, or what
            the clip of each step ahead would give if the last picture stayed ("standing").
            Features of clips change as the past leaves them, also where nothing moves; that
            much is known and need not be predicted.
        inject_heads, gate_init: Gated cross-attention into the memory.
        sites: Layer counts after which suffix states are injected (several layers).
        site_horizons: Memory slots that each site sees; empty: all.
        share_sites: One attention for all sites; gates are separate anyway.
        placement: World tokens in the "prefix" or the "suffix".
        prefix_block: Attention block of prefix tokens: with the "state", their "own", or
            with images and language ("prefix").
        gate_tokens: Multiply world tokens by a gate that starts at `gate_init`.
        flare_tokens, flare_layer: M learned tokens, aligned after so many layers.
        flare_after: Tokens after the actions (paper), else before (GR00T N1.5).
        flare_causal: Keep SmolVLA's causal suffix mask (documents the pitfall).
        flare_target: "per_step" (M = K) or "last" (z(t+K) for every token).
        loss: One of `LOSSES`; lambda_world: its weight. "relative" is the squared error over
            that of predicting no change, at each step ahead by itself, so that near futures,
            which change little, count as much as far ones.
        temperature, contrast_horizons: Of the contrastive loss; negatives also across k.
        mu_constraint: Weight of the constraint (design choice).
        constraint_target: "prophet" or "future".
        constraint_grounding: Also train the action-conditioned predictor on the actions
            that were really done (design choice, off).
        memory_train, memory_rollout: What the policy is shown as the future.
    """

    prophet_layers: int = 2
    prophet_heads: int = 8
    prophet_dropout: float = 0.0
    prophet_positions: bool = False
    delta: bool = True
    delta_from: str = "present"
    inject_heads: int = 8
    gate_init: float = 0.0
    sites: tuple[int, ...] = ()
    site_horizons: tuple[int, ...] = ()
    share_sites: bool = False
    placement: str = "prefix"
    prefix_block: str = "state"
    gate_tokens: bool = False
    flare_tokens: int = 0
    flare_layer: int = 6
    flare_after: bool = True
    flare_causal: bool = False
    flare_target: str = "per_step"
    loss: str = "cos"
    lambda_world: float = 0.2
    temperature: float = 0.07
    contrast_horizons: bool = False
    mu_constraint: float = 0.2
    constraint_target: str = "prophet"
    constraint_grounding: bool = False
    memory_train: str = "pred"
    memory_rollout: str = "pred"

    def __post_init__(self) -> None:
        for name, known in (
            ("loss", LOSSES),
            ("memory_train", MEMORIES_TRAIN),
            ("memory_rollout", MEMORIES_ROLLOUT),
            ("delta_from", ("present", "standing")),
            ("placement", ("prefix", "suffix")),
            ("prefix_block", PREFIX_BLOCKS),
            ("flare_target", ("per_step", "last")),
            ("constraint_target", ("prophet", "future")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {known}")
        if self.site_horizons and len(self.site_horizons) != len(self.sites):
            raise ValueError(
                f"site_horizons={self.site_horizons} must name one horizon for each of "
                f"sites={self.sites}"
            )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything about a model but its weights and statistics.

    Attributes:
        variant, preset: See `presets`.
        cameras, image_size: What it looks through; the order is the checkpoint's.
        orientation: Which way up pictures must be.
        action, proprio: Names of conventions.
        execute: Actions run per query.
        images, gripper: Pre- and post-processing of the published protocol.
        host, world, fusion: The parts; `world` is None for a policy without a future.
    """

    variant: str
    preset: str
    cameras: tuple[str, ...] = ("agentview", "eye_in_hand")
    image_size: tuple[int, int] = (256, 256)  # LeRobot envs/libero.py
    # LeRobot turns LIBERO's raw rows by 180 degrees, as OpenVLA's data set has them
    orientation: Orientation = Orientation.MIRRORED
    action: str = "DELTA_EEF_GRIPPER_CLOSE_POSITIVE"
    proprio: str = "EEF_AXIS_ANGLE_GRIPPER"
    execute: int = 50
    images: ImageSteps = field(default_factory=ImageSteps)
    gripper: GripperSteps = field(default_factory=GripperSteps)
    host: HostConfig = field(default_factory=HostConfig)
    world: WorldConfig | None = None
    fusion: FusionConfig = field(default_factory=FusionConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.execute <= self.host.chunk:
            raise ValueError(f"execute={self.execute} must lie in 1..chunk={self.host.chunk}")
        for what, name, known, dim in (
            ("action", self.action, ACTIONS, self.host.action_dim),
            ("proprio", self.proprio, PROPRIOS, self.host.state_dim),
        ):
            if name not in known or known[name].dim != dim:
                raise ValueError(f"{what}={name!r} is not a convention of {dim} channels")
        if self.world is None:
            return
        if self.world.camera >= len(self.cameras):
            raise ValueError(f"world.camera={self.world.camera}, but cameras={self.cameras}")
        if max(self.fusion.site_horizons, default=0) > self.world.horizon:
            raise ValueError(
                f"site_horizons={self.fusion.site_horizons} need a horizon K of at least "
                f"{max(self.fusion.site_horizons)}, it is {self.world.horizon}"
            )
        flare = self.fusion.flare_tokens
        if flare and self.fusion.flare_target == "per_step" and flare != self.world.horizon:
            raise ValueError(
                f"flare_tokens={flare} with flare_target='per_step' must equal the horizon "
                f"K={self.world.horizon}; or take flare_target='last'"
            )

    def to_dict(self) -> dict[str, Any]:
        """Write as plain JSON values."""
        return to_document(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Config:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: An unknown field; it is named.
        """
        return from_document(cls, document)

    def with_fusion(self, **changes: Any) -> Config:
        """Give a copy with some fields of `fusion` changed."""
        return dataclasses.replace(self, fusion=dataclasses.replace(self.fusion, **changes))
