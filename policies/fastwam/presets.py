"""The presets: tiny, for tests and for learning on a CPU, and the published LIBERO model."""

from __future__ import annotations

from policies.fastwam.config import (
    PRESETS,
    ExpertConfig,
    FastWamConfig,
    Scaling,
    TextConfig,
    VaeConfig,
)
from policies.preprocess import GripperSteps, ImageSteps
from wamsim.errors import nearest

# Mean and spread of the Wan2.2 VAE's latent channels (diffusers,
# scripts/convert_wan_to_diffusers.py, `vae22_diffusers_config`).
WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557,
    -0.1382, 0.0542, 0.2813, 0.0891, 0.1570, -0.0098, 0.0375, -0.1825,
    -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230,
    -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748,
    0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)  # fmt: skip

WAN22_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013,
    0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165, 0.8454, 0.4978,
    0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093,
    0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887,
    0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)  # fmt: skip


def preset_config(preset: str, variant: str) -> FastWamConfig:
    """Give a preset's configuration.

    Args:
        preset: "tiny" (untrained, seconds on a CPU) or "published" (LIBERO, about 6 B).
        variant: One of `VARIANTS`.

    Raises:
        UnknownName: With the nearest known name.
    """
    if preset not in PRESETS:
        raise nearest(preset, PRESETS, kind="preset of fastwam")
    video_weight = 0.0 if variant == "no_video_cotrain" else 1.0
    if preset == "tiny":
        shared = {"heads": 4, "head_dim": 16, "layers": 4, "text_dim": 32, "freq_dim": 64}
        return FastWamConfig(
            variant=variant,
            preset=preset,
            # hidden, attention and feed-forward widths all differ, as in the action expert
            video=ExpertConfig(hidden=96, ffn=256, **shared),
            action=ExpertConfig(hidden=80, ffn=192, **shared),
            vae=VaeConfig(
                # three levels: 16 x 16 pixels of a 64-pixel picture are too much for one latent
                base_dim=8, decoder_base_dim=8, z_dim=24, dim_mult=(1, 4, 4), res_blocks=1
            ),
            text=TextConfig(
                vocab=4096, dim=32, key_dim=16, ffn=64, layers=1, heads=2,
                length=32, tokenizer="words",  # LIBERO's longest instruction has 19
            ),
            render_size=(64, 64),
            images=ImageSteps(),
            horizon=8,
            execute=4,
            stride=1,
            gripper=GripperSteps(binarise=True),
            # beside noise of unit size: from least to most, most actions are a few hundredths
            scaling=Scaling.Z_SCORE,
            # the video's error is far larger than the actions': with equal weights what the
            # backbone had learnt to see was overwritten (DECISIONS 46)
            lambda_video=0.2 * video_weight,
            # root mean square of the changes within 8 steps of demonstrations of tabletop_object
            change_spread=0.6,
            carry_noise=True,
            imagine_steps=1,
            flow_draws=4,  # a quarter more work a step than one, and a quieter gradient
        )  # fmt: skip
    shared = {"heads": 24, "head_dim": 128, "layers": 30, "text_dim": 4096}
    return FastWamConfig(
        variant=variant,
        preset=preset,
        # Wan2.2-TI2V-5B and the repository's ActionDiT
        video=ExpertConfig(hidden=3072, ffn=14336, **shared),
        action=ExpertConfig(hidden=1024, ffn=4096, **shared),
        # diffusers, scripts/convert_wan_to_diffusers.py: vae22_diffusers_config
        vae=VaeConfig(
            base_dim=160, decoder_base_dim=256, z_dim=48, dim_mult=(1, 2, 4, 4), res_blocks=2,
            mean=WAN22_MEAN, std=WAN22_STD,
        ),
        # UMT5-XXL; the repository's context_len 128
        text=TextConfig(
            vocab=256384, dim=4096, key_dim=64, ffn=10240, layers=24, heads=64,
            length=128, tokenizer="google/umt5-xxl",
        ),
        prompt="A video recorded from a robot's point of view executing the following "
        "instruction: {task}",
        # LIBERO data: 0 closed, 1 open; the suite closes with +1 (eval_libero_single.py)
        gripper=GripperSteps(from_unit=True, flip=True, binarise=True),
        lambda_video=video_weight,
    )  # fmt: skip
