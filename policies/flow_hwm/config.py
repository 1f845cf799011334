"""What a Flow-HWM is made of. Imports no torch.

Sources: "paper" is Humanoid World Models (arXiv:2506.01182); "code" is the repository
qasim-ali0/humanoid_world_model (Flow-HWM/, configs of 4 May 2025).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wamsim.conventions import (
    ACTIONS,
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    ActionConvention,
    Gripper,
    Rotation,
)
from wamsim.errors import nearest

VARIANTS = ("base", "split_attention", "modality_sharing", "full_sharing")
PRESETS = ("tiny", "published")

_EVE_JOINTS = (
    "hip_yaw", "hip_roll", "hip_pitch", "knee_pitch", "ankle_roll", "ankle_pitch",
    *(f"{side}_{joint}" for side in ("left", "right") for joint in (
        "shoulder_pitch", "shoulder_roll", "shoulder_yaw", "elbow_pitch", "elbow_yaw",
        "wrist_pitch", "wrist_roll",
    )),
    "neck_pitch",
)  # fmt: skip
EVE_STATES = ActionConvention(
    # The rows of the 1X World Model data v2.0 that Flow-HWM takes as actions: measured
    # states of the EVE humanoid, index map of the data set's card. No suite here speaks it,
    # so the published preset refuses to run with a Panda instead of guessing.
    name="EVE_STATES",
    labels=(*_EVE_JOINTS, "left_closure", "right_closure", "linear_velocity", "angular_velocity"),
    low=(-math.inf,) * 25,
    high=(math.inf,) * 25,
    delta=False,
    rotation=Rotation.NONE,
    gripper=Gripper.NONE,
    hold=(0.0,) * 25,
)

# Slips of the official code that belong to the weights, each off unless named.
NETWORK_PARITY = {
    "rope": "1-D rotary embedding mutates its even half before using it for the odd half",
    "kv_norm": "split attention normalises the values of its cross-attention, not the keys",
    "rope_grid": "split attention numbers patches on the grid of unpatched latents",
    "noise_times_head": "training noise at t / 49 (HEAD), target and embedding at t",
    "noise_times_may_2025": "training noise at 50 t / 49 and embedding of 50 t (May 2025)",
}


@dataclass(frozen=True, kw_only=True)
class FlowHWMConfig:
    """One Flow-HWM.

    Attributes:
        variant: One of `VARIANTS`; preset: where the sizes come from.
        width, heads, layers: Of the transformer; the head size is width / heads.
        unshared_layers: Leading blocks without sharing in the two sharing variants.
        patch: Side of a patch, in latent pixels.
        latent_channels: Of the tokenizer; likewise spatial_factor and temporal_factor.
        image_size: (height, width) in pixels; past_frames, future_frames: of one window.
        frame_stride: Env steps between frames.
        action_stride: Env steps between the actions that stand beside the frames.
        action: Name of the action convention; camera: what it looks through.
        bgr: True when the tokenizer gets pictures in OpenCV's channel order.
        tokenizer: "wan" (a shrunk AutoencoderKLWan, part of the weights) or "cosmos"
            (TorchScript files, given beside them).
        tokenizer_dim: Base width of the shrunk tokenizer.
        tokenizer_weight: Weight of its reconstruction in the loss; 0 keeps it frozen, as it
            was trained beforehand.
        sigma_min: Noise left at t = 1; cfg_drop: share of samples trained without context.
        guidance, steps: Of sampling.
        change_spread: 0 as published: futures are denoised as they are. Else as changes from
            the standing world (the latents of a window whose future shows the present frame),
            in units of this: a small network need not also copy what does not move.
        parity: Names out of `NETWORK_PARITY`.
    """

    variant: str
    preset: str
    width: int
    heads: int
    layers: int
    unshared_layers: int
    image_size: tuple[int, int]
    latent_channels: int
    spatial_factor: int
    temporal_factor: int
    past_frames: int
    future_frames: int
    frame_stride: int
    action_stride: int
    action: str
    tokenizer: str
    tokenizer_dim: int
    tokenizer_weight: float
    bgr: bool
    steps: int
    patch: int = 2  # paper: p_lw = 2, p_t = 1
    camera: str = "agentview"
    sigma_min: float = 0.0  # code; the paper leaves it open
    cfg_drop: float = 0.15  # code
    guidance: float = 3.0  # paper and code
    change_spread: float = 0.0
    parity: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        if self.variant not in VARIANTS:
            raise nearest(self.variant, VARIANTS, kind="variant of flow_hwm")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width={self.width} must be an even multiple of heads={self.heads}")
        if self.width // self.heads < 6:
            raise ValueError("a head needs 6 channels or more: two for each of t, h and w")
        side = self.spatial_factor * self.patch
        if self.image_size[0] % side or self.image_size[1] % side:
            raise ValueError(f"image_size={self.image_size} must be multiples of {side}")
        first, rest = self.past_frames - 1, self.future_frames
        if first % self.temporal_factor or rest % self.temporal_factor or rest < 1:
            raise ValueError(
                f"past_frames={self.past_frames} must be 1 more than a multiple of "
                f"temporal_factor={self.temporal_factor}, future_frames={rest} a multiple"
            )
        if not 1 <= self.action_stride <= self.frame_stride:
            raise ValueError(
                f"action_stride={self.action_stride} must lie in 1..frame_stride="
                f"{self.frame_stride}"
            )
        for name in self.parity:
            if name not in NETWORK_PARITY:
                raise nearest(name, NETWORK_PARITY, kind="network parity flag of flow_hwm")
        action_convention(self.action)

    @property
    def convention(self) -> ActionConvention:
        """Of the actions that it takes."""
        return action_convention(self.action)

    @property
    def frames(self) -> int:
        """Frames of one window, past and future."""
        return self.past_frames + self.future_frames

    @property
    def past_latents(self) -> int:
        """Latents of the past: the first holds one frame, the others temporal_factor each."""
        return 1 + (self.past_frames - 1) // self.temporal_factor

    @property
    def future_latents(self) -> int:
        """Latents to be imagined."""
        return self.future_frames // self.temporal_factor

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of a latent."""
        height, width = self.image_size
        return height // self.spatial_factor, width // self.spatial_factor

    @property
    def past_steps(self) -> int:
        """Env steps from the oldest past frame to the present one."""
        return (self.past_frames - 1) * self.frame_stride

    @property
    def future_steps(self) -> int:
        """Env steps from the present frame to the last imagined one."""
        return self.future_frames * self.frame_stride

    @property
    def action_places(self) -> tuple[int, ...]:
        """For each frame, which of the window's env steps is its action.

        The data set's rows are states measured with a frame, so a frame's row is the env
        step that led into it. Nothing leads into the window's first frame; the first step
        stands in. With action_stride 1 and frame_stride 2 (the official loader) the
        rows run at twice the frames' pace and end in the middle of the window.
        """
        return tuple(max(0, j * self.action_stride - 1) for j in range(self.frames))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for config.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FlowHWMConfig:
        """Read what `to_dict` gave, also from JSON."""
        plain: dict[str, Any] = dict(values)
        for name in ("image_size", "parity"):  # JSON has no tuples
            plain[name] = tuple(plain[name])
        return cls(**plain)


def action_convention(name: str) -> ActionConvention:
    """Find an action convention by name.

    Raises:
        UnknownName: With the nearest known name.
    """
    known = {**ACTIONS, EVE_STATES.name: EVE_STATES}
    if name not in known:
        raise nearest(name, known, kind="action convention")
    return known[name]


def preset_config(variant: str, preset: str, **changes: Any) -> FlowHWMConfig:
    """Give a preset of a variant.

    Args:
        variant: One of `VARIANTS`.
        preset: "tiny": seconds on a CPU, the published layout of 2 past latents and 1 future
            one. "published": 15 layers of 1152 (code, May 2025), the size whose parameter
            counts are the paper's; the text's d=17, h=1172 is not divisible by 16 heads.
        changes: Other values of single fields.

    Raises:
        UnknownName: No such preset or variant.
    """
    if preset == "tiny":
        values: dict[str, Any] = {
            "width": 64, "heads": 4, "layers": 3, "unshared_layers": 1,
            "image_size": (64, 64), "latent_channels": 8,
            "spatial_factor": 8, "temporal_factor": 4,  # AutoencoderKLWan's
            "past_frames": 5, "future_frames": 4, "frame_stride": 1, "action_stride": 1,
            "action": DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name,
            "tokenizer": "wan", "tokenizer_dim": 12, "tokenizer_weight": 0.0,
            "bgr": False,
            # one step from pure noise gives the mean of the futures that are held possible,
            # which guidance would push away: DECISIONS 40
            "steps": 1, "guidance": 1.0,
            # root mean square of the changes within 4 steps of demonstrations of tabletop_object
            "change_spread": 0.5,
        }  # fmt: skip
    elif preset == "published":
        values = {
            "width": 1152, "heads": 16, "layers": 15, "unshared_layers": 4,
            "image_size": (256, 256), "latent_channels": 16,
            "spatial_factor": 16, "temporal_factor": 8,  # Cosmos CV8x16x16
            # 30 Hz data, every second frame; the official loader's rows are 1 apart, which
            # leaves the future without actions: action_stride=1 asks for that
            "past_frames": 9, "future_frames": 8, "frame_stride": 2, "action_stride": 2,
            "action": EVE_STATES.name,
            "tokenizer": "cosmos", "tokenizer_dim": 0, "tokenizer_weight": 0.0,
            "bgr": True,  # OpenCV frames, never converted
            "steps": 50,
        }  # fmt: skip
    else:
        raise nearest(preset, PRESETS, kind="preset of flow_hwm")
    return FlowHWMConfig(variant=variant, preset=preset, **{**values, **changes})
