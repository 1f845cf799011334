"""Cosmos Policy's configuration: published numbers and a tiny preset with every mechanism.

Source of the published numbers: NVlabs/cosmos-policy, config/experiment/*.py and
NVIDIA Cosmos-Predict2 2B; arXiv 2601.16163 sections 4 and 5. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from dataclasses import dataclass
from typing import Any, Self

from policies.cosmos.layout import LAYOUTS, VALUE_MODES, Layout, Mode
from policies.preprocess import ImageSteps, Resample
from wamsim.errors import nearest

VARIANTS = ("direct", "planning")
PRESETS = ("tiny", "published")


class Aggregator(enum.Enum):
    """How an ensemble of values becomes one (cosmos-policy, experiments/robot/aloha)."""

    AVERAGE = "average"
    LCB = "lcb"
    SUCCESS_VOTE = "success_vote"
    MAJORITY_MEAN = "majority_mean"


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The diffusion transformer (`MinimalV1LVGDiT`, config `cosmos_v1_2B`).

    Attributes:
        channels: Of a latent frame; input adds a condition mask and a padding mask.
        patch: Side of a spatial patch; one latent frame per patch in time.
        width, blocks, heads, mlp: Transformer sizes; mlp is the expansion.
        adaln_rank: Of the low-rank modulation.
        text_dim: Width of text features.
        rope_scale: (t, h, w) extrapolation; base 10000 * scale ** (d / (d - 2)).
        round_timesteps: Timesteps pass through bfloat16 before the sinusoid, as
            published (`use_wan_fp32_strategy=False`).
        positions: Frames, rows and columns of patches that have a learnt place of their own,
            as in Cosmos-Predict1 (`LearnablePosEmbAxis`); empty as published. Which numbers
            of a slot a token holds depends on where it is, and turned keys and queries tell a
            small network only how far tokens are apart.
        origins: For every frame the one whose patches its tokens are told in their own places,
            where that one is given, or -1; empty as published. So models that turn a picture
            into a video are told it (e.g. Stable Video Diffusion, arXiv:2311.15127,
            by channels); without it a small network first has to find out, by attention,
            which patch of the present each of the future's goes back to (DECISIONS 61).
        given_apart: False as published. Else given frames attend to each other alone: what is
            made of them does not depend on the noise beside them, so it is what a backbone
            learnt to make of them, and reusing their keys is exact.
        reading: The last so many blocks are no part of a look (`CosmosNet.look`): what is found
            in pictures is there before them, and slots read it in them.
    """

    channels: int = 16
    patch: int = 2
    width: int = 2048
    blocks: int = 28
    heads: int = 16
    mlp: int = 4
    adaln_rank: int = 256
    text_dim: int = 1024
    rope_scale: tuple[float, ...] = (1.0, 3.0, 3.0)
    round_timesteps: bool = True
    positions: tuple[int, ...] = ()
    origins: tuple[int, ...] = ()
    given_apart: bool = False
    reading: int = 1

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    def __post_init__(self) -> None:
        if self.width % self.heads or self.head_dim % 2:
            raise ValueError(f"width={self.width} must be an even multiple of heads={self.heads}")
        if not 1 <= self.reading < self.blocks:
            raise ValueError(f"reading={self.reading} must leave some of blocks={self.blocks}")


@dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """diffusers' `AutoencoderKLWan` (Wan2.1); the defaults are the published ones.

    Attributes:
        normalise: Use Wan2.1's latent means and deviations (diffusers' defaults); those of
            the tiny autoencoder, which is trained here, are measured.
        patch: Above 1 it has Wan2.2's form, which is faster and learns sooner: pictures are
            first cut into patches of this side, with fewer levels so that the whole still
            divides by 8, and there are shortcuts past what halves and doubles them.
    """

    base_dim: int = 96
    z_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    normalise: bool = True
    patch: int = 1

    def __post_init__(self) -> None:
        if self.patch * 2 ** (len(self.dim_mult) - 1) != 8:
            raise ValueError(
                f"patch={self.patch} and {len(self.dim_mult)} levels do not divide a picture by 8"
            )


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text encoder's output and, for the tiny preset, a T5 of our own that reads words.

    Attributes:
        max_tokens: Length of the zero-filled feature sequence; longer is an error.
        own: True when the encoder is part of the model; False when features come from
            T5-11B or from a file of its outputs.
        vocabulary, d_ff, heads, layers: Of the model's own encoder.
    """

    max_tokens: int = 512
    own: bool = False
    vocabulary: int = 4096
    d_ff: int = 64
    heads: int = 2
    layers: int = 2


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """Training noise: one sigma per sample, times sqrt(number of slots).

    Attributes:
        log_normal_share: Else uniform.
        log_mean, log_std: ln sigma ~ N(ln 4, 1.2^2).
        uniform_low, uniform_high: Of the other share.
        loss_scale: Multiplies the loss.
    """

    log_normal_share: float = 0.7
    log_mean: float = 1.3862943611198906
    log_std: float = 1.2
    uniform_low: float = 1.0
    uniform_high: float = 85.0
    loss_scale: float = 10.0


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """The sigma grid.

    Attributes:
        steps: Network evaluations for an action (LIBERO and RoboCasa 5, ALOHA 10). One gives
            what is expected, as nothing is known of the answer at the highest level.
        imagine_steps: 0 as published: what is imagined is the future that was denoised along
            with the actions, one of many that are possible. Else it is denoised anew where a
            run asks for it, the actions given, in so many steps; one gives the expected future.
        vary_variance: Per row sigma_max * U(1, 3) and sigma_min * U(0.1, 1), for diverse
            proposals (`use_variance_scale`).
    """

    steps: int = 5
    sigma_max: float = 80.0
    sigma_min: float = 4.0
    rho: float = 7.0
    imagine_steps: int = 0
    vary_variance: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")
        if self.imagine_steps < 0:
            raise ValueError(f"imagine_steps={self.imagine_steps} must be at least 0")


@dataclass(frozen=True, kw_only=True)
class PlanningConfig:
    """Best-of-N (arXiv 2601.16163 section 4.4; ALOHA defaults).

    Attributes:
        proposals: N; proposal 0 is kept unless another is strictly better.
        futures, values: Ensemble: so many imagined futures, so many values of each.
        world_steps, value_steps: Largest number of denoising steps; members take
            linspace(1, steps, members) of them.
        aggregator: How futures x values numbers become one.
        depth: Chunks looked ahead; 1 as published by default.
        last_value: Past depth 1: score by the last chunk's value, else by the average.
        proposal_steps: 0 as published: a proposal is denoised in as many steps as an action is
            without planning. A policy that acts on what it expects (`SamplerConfig.steps` of 1)
            needs more here: proposals that are all alike are no choice.
    """

    proposals: int = 8
    futures: int = 3
    values: int = 5
    world_steps: int = 5
    value_steps: int = 5
    aggregator: Aggregator = Aggregator.AVERAGE
    depth: int = 1
    last_value: bool = True
    proposal_steps: int = 0

    def __post_init__(self) -> None:
        if self.proposal_steps < 0:
            raise ValueError(f"proposal_steps={self.proposal_steps} must be at least 0")
        for name in ("proposals", "futures", "values", "world_steps", "value_steps", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class CosmosConfig:
    """Everything that fixes a model and its published protocol.

    Attributes:
        render_size: (height, width) of the pictures asked of the suite.
        images: What happens to a picture, in order; the last size is the model's.
        policy_share, world_share: Of the training batch; the rest is value samples.
        value_mode: What value samples see, in training and planning.
        action_weight: Of that term of the loss, 1 as published. Most of a future picture cannot
            be known, and its noise drowns the actions' gradient in a small network (DECISIONS 59).
        autoencoder_loss: Weight of the VAE's own reconstruction term; 0 keeps it frozen, as
            published, and in the tiny preset as it was trained beforehand.
        augment: Crop, turn and recolour training pictures (policies/cosmos/augment.py).
        change_spread: 0 as published: future pictures are denoised as they are. Else as changes
            from the present ones in their slots, in units of this: a small network need not
            also copy what does not move.
        action_deviations: False as published: actions are scaled from least to most. Else by
            mean and standard deviation: beside noise of unit size most actions are otherwise a
            few hundredths, and a short training learns little of them (DECISIONS 56).
        tile_by_token: False as published. Else every token of a slot holds its numbers in the
            same order, see `slots.tile`.
        carry_noise: False as published. Else a narrow network need not carry the noise
            through, see `policies.noise.carried`.
        dtype: Of network and VAE in inference.
    """

    variant: str
    preset: str
    layout: Layout
    net: NetConfig = NetConfig()
    vae: VaeConfig = VaeConfig()
    text: TextConfig = TextConfig()
    noise: NoiseConfig = NoiseConfig()
    sampler: SamplerConfig = SamplerConfig()
    planning: PlanningConfig = PlanningConfig()
    render_size: tuple[int, ...] = (256, 256)
    images: tuple[ImageSteps, ...] = ()
    policy_share: float = 0.5
    world_share: float = 0.25
    value_mode: Mode = Mode.VALUE
    action_weight: float = 1.0
    autoencoder_loss: float = 0.0
    augment: bool = True
    change_spread: float = 0.0
    action_deviations: bool = False
    tile_by_token: bool = False
    carry_noise: bool = False
    dtype: str = "bfloat16"

    def __post_init__(self) -> None:
        if self.value_mode not in VALUE_MODES:
            raise ValueError(f"value_mode={self.value_mode.value} is not a value mode")
        if self.change_spread and self.value_mode is Mode.VALUE_OF_STATE:
            raise ValueError("a future state alone has a value, so it cannot be told as changes")
        if self.net.channels != self.vae.z_dim:
            raise ValueError(f"net.channels={self.net.channels}, but vae.z_dim={self.vae.z_dim}")
        longest = self.layout.horizon * self.layout.action_convention.dim
        if longest > self.volume:
            raise ValueError(
                f"an action chunk has {longest} numbers, but a latent frame has room for "
                f"{self.volume}; shorten the horizon or enlarge the picture"
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) that the VAE sees."""
        size = next((s.size for s in reversed(self.images) if s.size), None)
        return size or (self.render_size[0], self.render_size[1])

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of a latent frame; the VAE divides by 8."""
        return self.image_size[0] // 8, self.image_size[1] // 8

    @property
    def volume(self) -> int:
        """Numbers in one latent frame: 12544 for 224 x 224."""
        return self.net.channels * self.latent_size[0] * self.latent_size[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for config.json."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return _build(cls, document)


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _build(kind: Any, value: Any) -> Any:
    """Rebuild a value of a declared type from plain data."""
    if value is None:
        return None
    members = [m for m in typing.get_args(kind) if m is not type(None)]
    if typing.get_origin(kind) is tuple:
        return tuple(_build(members[0], v) for v in value)
    if members:  # X | None
        return _build(members[0], value)
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return typing.cast(Any, kind)(**{k: _build(hints[k], v) for k, v in value.items()})
    return kind(value) if isinstance(kind, type) and issubclass(kind, enum.Enum) else value


def preset(variant: str, name: str, layout: str = "libero", **changes: Any) -> CosmosConfig:
    """Give a variant's configuration.

    Args:
        variant: "direct" or "planning".
        name: "tiny" or "published".
        layout: "libero", "robocasa" or "aloha".
        changes: Fields of the layout to be otherwise: cameras, action, proprio.

    Raises:
        UnknownName: With the nearest known name.
    """
    for given, known, kind in (
        (variant, VARIANTS, "variant of cosmos"),
        (name, PRESETS, "preset of cosmos"),
        (layout, LAYOUTS, "layout of cosmos"),
    ):
        if given not in known:
            raise nearest(given, known, kind=kind)
    tiny = name == "tiny"
    slots = dataclasses.replace(LAYOUTS[layout], **changes)
    if tiny:
        # 8 x 7 = 56 or 8 x 14 = 112 of a volume of 1024: repeats and leftovers both occur
        slots = dataclasses.replace(slots, horizon=8, execute=8)
    images = (
        # JPEG and the simulator's flip belong to LIBERO and RoboCasa, not to ALOHA
        ImageSteps(
            jpeg_quality=None if layout == "aloha" else 95,
            size=(224, 224), resample=Resample.BICUBIC,
        ),
        # int(224 * sqrt(0.9)) = 212, resized back: what a model trained with crops expects
        ImageSteps(crop_area=0.9, resample=Resample.BILINEAR),
    )  # fmt: skip
    config = CosmosConfig(
        variant=variant,
        preset=name,
        layout=slots,
        images=images,
        render_size=(64, 64) if tiny else (224, 224) if layout == "robocasa" else (256, 256),
        sampler=SamplerConfig(steps=10 if layout == "aloha" else 5),
    )
    if variant == "planning":
        # The planning checkpoint's V(s'); 90% of its batch goes to world model and value
        config = dataclasses.replace(
            config, value_mode=Mode.VALUE_OF_STATE, policy_share=0.1, world_share=0.45
        )
    if tiny:
        config = dataclasses.replace(
            config,
            # three blocks to look with, and three in which slots read what was found
            # (DECISIONS 69); a patch of 2 x 2 latents is 16 pixels wide
            net=NetConfig(
                width=96,
                blocks=6,
                reading=3,
                heads=3,
                adaln_rank=16,
                text_dim=32,
                positions=(len(slots.slots), *(side // 16 for side in config.render_size)),
                origins=slots.origins,
                given_apart=True,
            ),
            vae=VaeConfig(
                base_dim=8, dim_mult=(1, 4, 4), num_res_blocks=1, normalise=False, patch=2
            ),
            text=TextConfig(max_tokens=32, own=True),  # LIBERO's longest has 19 words
            images=(),  # drawn as they are seen
            planning=PlanningConfig(proposals=4, proposal_steps=5),
            # cameras stand still in simulation, and without it latents are computed once
            augment=False,
            # as for fastwam's tiny autoencoder; of this one it was not measured
            change_spread=0.0 if config.value_mode is Mode.VALUE_OF_STATE else 0.6,
            action_deviations=True,
            tile_by_token=True,
            carry_noise=True,
            action_weight=4.0,
            # what it draws is further from right than what it expects (DECISIONS 69)
            sampler=dataclasses.replace(config.sampler, steps=1, imagine_steps=1),
            dtype="float32",
        )
        if variant == "direct":  # actions are what it learns last (DECISIONS 69)
            config = dataclasses.replace(config, policy_share=0.75, world_share=0.125)
    return config
