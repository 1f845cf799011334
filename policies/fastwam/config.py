"""What a Fast-WAM model is made of, and how it is asked to act.

Sources: the paper (arXiv:2603.16666) and its repository (yuantianyuan01/FastWAM); the video
expert, VAE and text encoder are those of Wan2.2-TI2V-5B. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Self

from policies.interface import check_interface, chosen
from policies.preprocess import GripperSteps, ImageSteps
from wamsim.conventions import (
    ACTIONS,
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    EEF_AXIS_ANGLE_GRIPPER,
    PROPRIOS,
    ActionConvention,
    Orientation,
    ProprioConvention,
)
from wamsim.errors import WamsimError, nearest

# The default first (paper, section 4.4: the controlled variants).
VARIANTS = ("fastwam", "joint", "idm", "no_video_cotrain")
PRESETS = ("tiny", "published")


class Scaling(enum.Enum):
    """How actions and proprioception are brought to unit size."""

    MIN_MAX = "min_max"  # LIBERO
    Z_SCORE = "z_score"  # RoboTwin


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """One expert of the mixture: a Wan diffusion transformer.

    Attributes:
        hidden: Width of the residual stream.
        ffn: Width inside the feed-forward part.
        heads, head_dim: Their product is the attention's width, equal in both experts.
        layers: Blocks, equal in both experts.
        text_dim: Width of the context tokens.
        freq_dim: Width of the timestep's sinusoid.
        eps: Of every norm.
    """

    hidden: int
    ffn: int
    heads: int
    head_dim: int
    layers: int
    text_dim: int
    freq_dim: int = 256
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.head_dim % 2 or self.freq_dim % 2:
            raise ValueError("head_dim and freq_dim must be even: rotations and sinusoids pair up")

    @property
    def width(self) -> int:
        """Width of queries, keys and values."""
        return self.heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """diffusers' `AutoencoderKLWan` in its Wan2.2 form: 16 x 16 pixels and 4 frames a latent.

    With three levels it is 8 x 8 pixels: what a tiny picture can spare.

    Attributes:
        base_dim, decoder_base_dim: Channels of the outermost level.
        z_dim: Latent channels.
        dim_mult: Channel factors, one a level; Wan2.2 has four.
        res_blocks: Residual blocks a level.
        mean, std: Of the latent channels; empty means that they are measured on synthetic
            pictures when weights are drawn (the tiny preset has no trained VAE).
    """

    base_dim: int
    decoder_base_dim: int
    z_dim: int
    dim_mult: tuple[int, ...]
    res_blocks: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.dim_mult) not in (3, 4):
            raise ValueError(f"dim_mult={self.dim_mult} must have three levels or four, as Wan2.2")
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, self.z_dim):
            raise ValueError("mean and std must be empty or give one number per latent channel")

    @property
    def spatial(self) -> int:
        """Pixels along the side of a latent."""
        return PIXEL_PATCH * 2 ** len(self.time_halved)

    @property
    def time_halved(self) -> tuple[bool, ...]:
        """Which of the reductions halve time as well, outermost first: the last two."""
        return (False, True, True)[-(len(self.dim_mult) - 1) :]


# Reductions of the Wan2.2 VAE (diffusers, scripts/convert_wan_to_diffusers.py).
TEMPORAL, PIXEL_PATCH = 4, 2
# Latent pixels per token side of the video expert (Wan2.2-TI2V-5B config: patch 1, 2, 2).
TOKEN_PATCH = 2
# Fields of older documents that now follow from the conventions.
_DERIVED = ("action_dim", "proprio_dim", "delta_dims")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The UMT5 encoder and its tokenizer.

    Attributes:
        vocab, dim, key_dim, ffn, layers, heads: Of transformers' `UMT5Config`.
        length: Tokens of a context; a longer instruction is an error.
        tokenizer: "words" (see `policies.words`: no vocabulary file) or a folder or
            hub id for `AutoTokenizer`.
    """

    vocab: int
    dim: int
    key_dim: int
    ffn: int
    layers: int
    heads: int
    length: int
    tokenizer: str


@dataclass(frozen=True, kw_only=True)
class FastWamConfig:
    """A whole model. Stored with every checkpoint.

    Attributes:
        variant, preset: Identity of a checkpoint.
        video, action: The experts.
        vae, text: The frozen parts.
        cameras: Side by side, in this order.
        render_size: (height, width) that the harness draws.
        images: What is done to a picture; its size is what each camera contributes.
        orientation: Which way up the pictures are.
        prompt: Template around the instruction.
        action_name, proprio_name: Conventions, by name.
        horizon: Actions predicted (H).
        execute: Actions run before the next query.
        stride: Env steps between video frames.
        scaling: Of actions and proprioception.
        gripper: From the data set's gripper channels to the suite's.
        shift: Of the noise schedule, training and sampling.
        steps: Denoising steps.
        imagine_steps: Denoising steps of a future that is only imagined; 0: `steps`. One step
            from pure noise gives the expected future, which squared error is least for; many
            give a possible one, whose squared error has the spread of futures twice.
        lambda_video, lambda_action: Weights of the loss terms.
        cond_noise: Probability that IDM's conditioning video is noised in training.
        flow_draws: Noises drawn for the actions of each sample in a training step: the video
            is looked at once for all of them.
        change_spread: 0 as published: futures are denoised as they are. Else as changes from
            the standing world (the latents of the present picture, shown all the while), in
            units of this: a small network need not also copy what does not move.
        carry_noise: False as published. Else a narrow video expert need not carry the noise
            through, see `policies.noise.carried`, and its loss weighs every timestep alike: the
            bell is zero at pure noise, where one step reads what is expected.
    """

    variant: str
    preset: str
    video: ExpertConfig
    action: ExpertConfig
    vae: VaeConfig
    text: TextConfig
    cameras: tuple[str, ...] = ("agentview", "eye_in_hand")
    render_size: tuple[int, int] = (256, 256)
    images: ImageSteps = field(default_factory=lambda: ImageSteps(size=(224, 224)))
    orientation: Orientation = Orientation.MIRRORED
    prompt: str = "{task}"
    action_name: str = DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name
    proprio_name: str = EEF_AXIS_ANGLE_GRIPPER.name
    horizon: int = 32
    execute: int = 10
    stride: int = 4
    scaling: Scaling = Scaling.MIN_MAX
    gripper: GripperSteps = field(default_factory=GripperSteps)
    shift: float = 5.0
    steps: int = 10
    imagine_steps: int = 0
    lambda_video: float = 1.0
    lambda_action: float = 1.0
    cond_noise: float = 0.5
    flow_draws: int = 1
    change_spread: float = 0.0
    carry_noise: bool = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise nearest(self.variant, VARIANTS, kind="variant of fastwam")
        check_interface(
            "fastwam", cameras=self.cameras, action=self.action_name, proprio=self.proprio_name
        )
        if self.video.width != self.action.width or self.video.layers != self.action.layers:
            raise ValueError(
                f"the experts share attention: widths {self.video.width} and {self.action.width}, "
                f"layers {self.video.layers} and {self.action.layers} must be equal"
            )
        if self.horizon % (self.stride * TEMPORAL):
            raise ValueError(
                f"horizon={self.horizon} must hold whole latents of {self.stride * TEMPORAL} steps"
            )
        height, width = self.picture_size
        token = self.vae.spatial * TOKEN_PATCH
        if height % token or width % token:
            raise ValueError(
                f"the picture {height} x {width} must be a multiple of {token} both ways"
            )

    @property
    def action_convention(self) -> ActionConvention:
        """Of the actions."""
        return ACTIONS[self.action_name]

    @property
    def proprio_convention(self) -> ProprioConvention:
        """Of the state."""
        return PROPRIOS[self.proprio_name]

    @property
    def action_dim(self) -> int:
        """Channels of an action."""
        return self.action_convention.dim

    @property
    def proprio_dim(self) -> int:
        """Channels of the state."""
        return self.proprio_convention.dim

    @property
    def camera_size(self) -> tuple[int, int]:
        """(height, width) of one camera's part of the picture."""
        return self.images.size or self.render_size

    @property
    def picture_size(self) -> tuple[int, int]:
        """(height, width) of all cameras side by side."""
        return self.camera_size[0], self.camera_size[1] * len(self.cameras)

    @property
    def frame_offsets(self) -> tuple[int, ...]:
        """Env steps of the video's frames: 0, 4, ..., 32 for the published model."""
        return tuple(range(0, self.horizon + 1, self.stride))

    @property
    def future(self) -> int:
        """Future latent frames (K)."""
        return (len(self.frame_offsets) - 1) // TEMPORAL

    @property
    def horizons(self) -> tuple[int, ...]:
        """Env steps ahead of the last frame inside each future latent."""
        return tuple(self.stride * TEMPORAL * (k + 1) for k in range(self.future))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one latent frame."""
        height, width = self.picture_size
        return self.vae.z_dim, height // self.vae.spatial, width // self.vae.spatial

    @property
    def tokens_grid(self) -> tuple[int, int]:
        """(rows, columns) of the video tokens of one latent frame."""
        _, height, width = self.latent_shape
        return height // TOKEN_PATCH, width // TOKEN_PATCH

    @property
    def tokens_per_frame(self) -> int:
        """Video tokens of one latent frame."""
        height, width = self.tokens_grid
        return height * width

    def to_dict(self) -> dict[str, Any]:
        """Write as plain JSON values."""
        return typing.cast(dict[str, Any], _plain(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote, also before it named conventions."""
        known = {k: v for k, v in document.items() if k not in _DERIVED}
        return typing.cast(Self, _typed(cls, known))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.value if isinstance(value, enum.Enum) else value


def _typed(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        return tuple(value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return typing.cast(Any, kind)(**{k: _typed(hints[k], v) for k, v in value.items()})
    return kind(value)


@dataclass(frozen=True, kw_only=True)
class FastWamOptions:
    """Options on the command line (``--set key=value``).

    Attributes:
        checkpoint: Folder or hub id: ours, FastWAM's (.pt) or LeRobot's; None leaves the
            weights as drawn from `init_seed`.
        preset: "tiny" or "published".
        parts: Folder or hub id of Wan2.2's VAE, text encoder and tokenizer, for checkpoints
            that do not bring them (FastWAM's and LeRobot's).
        statistics: A data set's statistics file; None takes the one beside the checkpoint.
        cameras, action, proprio: What an untrained model looks through (side by side) and
            which conventions it speaks, by name; None takes the preset's.
        device: torch device.
        dtype: "float32", or "bfloat16" as the published evaluation (schedule included).
        execute: Actions run per query; None takes the preset's.
        steps, imagine_steps: Denoising steps; None takes the configuration's.
        init_seed: For weights without a checkpoint.
        cache: Reuse keys and values of what does not change between denoising steps (exact).
    """

    checkpoint: str | None = None
    preset: str = "tiny"
    parts: str | None = None
    statistics: str | None = None
    cameras: tuple[str, ...] | None = None
    action: str | None = None
    proprio: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    execute: int | None = None
    steps: int | None = None
    imagine_steps: int | None = None
    init_seed: int = 0
    cache: bool = True

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise nearest(self.preset, PRESETS, kind="preset of fastwam")
        check_interface("fastwam", cameras=self.cameras, action=self.action, proprio=self.proprio)
        if self.dtype not in ("float32", "bfloat16"):
            raise WamsimError(f"dtype={self.dtype!r} is neither 'float32' nor 'bfloat16'")
        for name in ("steps", "imagine_steps"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise WamsimError(f"{name}={given} must be at least 1")

    @property
    def interface(self) -> dict[str, Any]:
        """The fields of `FastWamConfig` that these options choose."""
        return chosen(cameras=self.cameras, action_name=self.action, proprio_name=self.proprio)

    def resolve(self, config: FastWamConfig) -> FastWamConfig:
        """Give a preset's configuration as these options want it."""
        gripper = config.gripper
        if self.action is not None and self.action != config.action_name:
            # its other steps are about the preset's data set, which stores another convention
            gripper = GripperSteps(binarise=gripper.binarise)
        return dataclasses.replace(config, gripper=gripper, **self.interface)
