"""From options to a policy: drawn, ours, FastWAM's, LeRobot's or Wan's weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from policies.checkpoint import CONFIG, Identity
from policies.fastwam import weights
from policies.fastwam.config import FastWamConfig, FastWamOptions
from policies.fastwam.model import FastWam
from policies.fastwam.policy import FastWamPolicy
from policies.fastwam.presets import preset_config
from policies.interface import keep_trained

WAN_PARTS = "Wan-AI/Wan2.2-TI2V-5B-Diffusers"


def make_policy(variant: str, options: FastWamOptions) -> FastWamPolicy:
    """Build a policy.

    Raises:
        UnknownName: The variant or preset is not known.
        WamsimError: The options contradict what a checkpoint of ours was trained with.
        CheckpointMismatch: Weights or statistics do not fit; says which keys.
    """
    config = options.resolve(preset_config(options.preset, variant))
    dtype = torch.bfloat16 if options.dtype == "bfloat16" else torch.float32
    if options.checkpoint is None:
        # The tiny preset is the same on every device; the published one is drawn in place.
        place = options.device if options.preset == "published" else "cpu"
        model = FastWam.drawn(config, seed=options.init_seed, device=place, dtype=dtype)
        model = model.to(options.device)
        notes = f"untrained, weights drawn from seed {options.init_seed}"
    else:
        model, notes = load_model(config, options, dtype)
    if options.statistics is not None:
        model.set_statistics(weights.read_statistics(Path(options.statistics)))
    return FastWamPolicy(
        model,
        execute=options.execute,
        steps=options.steps,
        imagine_steps=options.imagine_steps,
        cache=options.cache,
        notes=notes,
    )


def load_model(
    config: FastWamConfig, options: FastWamOptions, dtype: torch.dtype
) -> tuple[FastWam, str]:
    """Load a checkpoint of any known layout.

    Returns:
        The model and a note on its weights.
    """
    assert options.checkpoint is not None
    source = weights.checkpoint_folder(options.checkpoint)
    layout = weights.layout_of(source)
    if layout is weights.Layout.OURS:
        expect = Identity(family="fastwam", variant=config.variant, preset=config.preset)
        model = FastWam.load(source, expect=expect)
        keep_trained(model.identity.family, options.interface, model.config)
        return model.to(options.device, dtype), f"checkpoint {options.checkpoint}"
    statistics = options.statistics
    if layout is weights.Layout.LEROBOT:
        config = dataclasses.replace(config, scaling=weights.lerobot_scaling(source / CONFIG))
    # Built empty: the weights of twelve thousand million parameters are not drawn first.
    model = FastWam.empty(config, device=options.device, dtype=dtype)
    if layout is weights.Layout.WAN:
        weights.load_wan_video(model, source)
        weights.grow_action_expert(model, seed=options.init_seed)
        weights.load_parts(model, source)
        return model, "Wan2.2 video expert; actions untrained"
    if layout is weights.Layout.LEROBOT:
        weights.load_lerobot(model, source)
        if statistics is None:
            model.set_statistics(weights.read_lerobot_statistics(source))
    else:
        file = weights.fastwam_file(source, config.variant)
        weights.load_fastwam(model, file)
        if statistics is None:
            model.set_statistics(weights.read_statistics(weights.statistics_beside(file)))
    weights.load_parts(model, weights.parts_folder(options.parts or WAN_PARTS))
    return model, f"{layout.value} checkpoint {options.checkpoint}; not re-evaluated by us"
