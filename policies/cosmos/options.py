"""Options of the cosmos family (``--set key=value``) and how they make a policy."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.cosmos.config import PRESETS, Aggregator, CosmosConfig, preset
from policies.cosmos.layout import (
    COSMOS_ACTIONS,
    COSMOS_PROPRIOS,
    LAYOUTS,
    VALUE_MODES,
    Mode,
)
from policies.interface import check_interface, chosen, keep_trained
from wamsim.contracts import Policy
from wamsim.errors import WamsimError, nearest

if TYPE_CHECKING:
    from policies.cosmos.model import CosmosModel


@dataclass(frozen=True, kw_only=True)
class CosmosOptions:
    """What a run can choose; None takes the preset's.

    Attributes:
        checkpoint: Folder or hub id: ours, or a published one (`net.*` keys, statistics and
            text features beside). None: untrained weights.
        preset, layout: Of an untrained or published model; ours carries its own.
        cameras, action, proprio: What stands in the layout's slots instead of its own; names
            of cameras (in slot order) and conventions.
        device: "cpu", "cuda", "cuda:1", ...
        dtype: "float32" or "bfloat16", of network and autoencoder.
        execute: Actions run per query.
        init_seed: Of untrained weights.
        steps: Denoising steps of the action, and of proposals.
        imagine_steps: Of what is imagined, the actions given; 0 imagines along with them.
        vary_variance: Draw the noise range per row, for diverse proposals.
        vae: The Wan2.1 autoencoder for a published checkpoint that brings none: a
            `tokenizer.pth`, a diffusers folder or a hub id.
        text_encoder: T5-11B, folder or hub id, for instructions without stored features.
        text_reuse: Compute the text's keys and values once per sampler run (exact).
        clean_reuse: Likewise those of clean slots; None where that is exact (see README).
        encode_all: Encode all slots as published, not only the present's (same latents).
        proposals, futures, values, world_steps, value_steps, aggregator, value_mode, depth,
        last_value: Of planning; see `PlanningConfig`.
        proposal_checkpoint: Another checkpoint that proposes actions (published: the base
            policy proposes, the planning model judges). None: one model does both.
    """

    checkpoint: str | None = None
    preset: str = "tiny"
    layout: str = "libero"
    cameras: tuple[str, ...] | None = None
    action: str | None = None
    proprio: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    execute: int | None = None
    init_seed: int = 0
    steps: int | None = None
    imagine_steps: int | None = None
    vary_variance: bool = False
    vae: str | None = None
    text_encoder: str | None = None
    text_reuse: bool = True
    clean_reuse: bool | None = None
    encode_all: bool = False
    proposals: int | None = None
    futures: int | None = None
    values: int | None = None
    world_steps: int | None = None
    value_steps: int | None = None
    aggregator: Aggregator | None = None
    value_mode: Mode | None = None
    depth: int | None = None
    last_value: bool | None = None
    proposal_checkpoint: str | None = None

    def __post_init__(self) -> None:
        for given, known, kind in (
            (self.preset, PRESETS, "preset of cosmos"),
            (self.layout, LAYOUTS, "layout of cosmos"),
            (self.dtype or "float32", ("float32", "bfloat16"), "dtype"),
        ):
            if given not in known:
                raise nearest(given, known, kind=kind)
        check_interface(
            "cosmos", **self.interface, actions=COSMOS_ACTIONS, proprios=COSMOS_PROPRIOS
        )
        if self.value_mode is not None and self.value_mode not in VALUE_MODES:
            raise nearest(self.value_mode.value, [m.value for m in VALUE_MODES], kind="value mode")

    @property
    def interface(self) -> dict[str, Any]:
        """The fields of `Layout` that these options choose."""
        return chosen(cameras=self.cameras, action=self.action, proprio=self.proprio)


def resolve(config: CosmosConfig, options: CosmosOptions) -> CosmosConfig:
    """Apply options that change behaviour but no weights.

    Raises:
        WamsimError: A value that the configuration refuses.
    """

    def given(names: tuple[str, ...]) -> dict[str, Any]:
        return {n: v for n in names if (v := getattr(options, n)) is not None}

    names = ("proposals", "futures", "values", "world_steps", "value_steps", "aggregator",
             "depth", "last_value")  # fmt: skip
    try:
        sampler = dataclasses.replace(
            config.sampler, vary_variance=options.vary_variance, **given(("steps", "imagine_steps"))
        )
        planning = dataclasses.replace(config.planning, **given(names))
        if options.steps is not None:
            planning = dataclasses.replace(planning, proposal_steps=0)  # as many
        return dataclasses.replace(
            config, sampler=sampler, planning=planning, **given(("value_mode", "dtype"))
        )
    except ValueError as error:
        raise WamsimError(f"policy 'cosmos': {error}") from error


def make(variant: str, options: CosmosOptions) -> Policy:
    """Build a policy; heavy imports happen here.

    Raises:
        UnknownName: An unknown variant.
        CheckpointMismatch: The checkpoint does not fit.
    """
    config = _configured(variant, options)
    model = _load(config, options, options.checkpoint)
    from policies.cosmos.model import Reuse
    from policies.cosmos.policy import CosmosPlanner, CosmosPolicy

    apart = model.config.net.given_apart
    clean_reuse = apart if options.clean_reuse is None else options.clean_reuse
    common: dict[str, Any] = {
        "execute": options.execute,
        "reuse": Reuse(text=options.text_reuse, clean=clean_reuse),
        "encode_all": options.encode_all,
        "notes": _notes(model.config, options),
    }
    try:
        if variant == "direct":
            return CosmosPolicy(model, **common)
        proposer = None
        if options.proposal_checkpoint is not None:
            base = dataclasses.replace(_configured("direct", options), planning=config.planning)
            proposer = _load(base, options, options.proposal_checkpoint)
        return CosmosPlanner(model, proposer=proposer, **common)
    except ValueError as error:
        raise WamsimError(str(error)) from error


def _configured(variant: str, options: CosmosOptions) -> CosmosConfig:
    try:
        return preset(variant, options.preset, options.layout, **options.interface)
    except ValueError as error:
        raise WamsimError(f"policy 'cosmos': {error}") from error


def _load(config: CosmosConfig, options: CosmosOptions, checkpoint: str | None) -> CosmosModel:
    import torch

    from policies.checkpoint import CONFIG, Identity, local_folder, read_identity
    from policies.cosmos.model import FAMILY_NAME, CosmosModel, build
    from policies.cosmos.weights import load_published, text_table
    from policies.reference import SAME_WEIGHTS

    folder = None if checkpoint is None else local_folder(checkpoint)
    if folder is None:
        model = build(resolve(config, options), init_seed=options.init_seed)
    elif (folder / CONFIG).exists():
        expect = Identity(family=FAMILY_NAME, variant=config.variant, preset=config.preset)
        other = SAME_WEIGHTS.get((expect.family, expect.variant))
        if read_identity(folder)[0].variant == other:  # one network proposes and judges
            expect = dataclasses.replace(expect, variant=other)
        model = CosmosModel.load(folder, expect=expect)
        keep_trained(FAMILY_NAME, options.interface, model.config.layout)
        model.config = resolve(model.config, options)
    else:
        model = load_published(resolve(config, options), folder, vae=options.vae)
    dtype = getattr(torch, model.config.dtype)
    model.net.to(dtype)
    model.codec.to(dtype)
    if model.text is None:
        model.set_features(
            text_table(model.config, folder, encoder=options.text_encoder, device=options.device)
        )
    return model.to(options.device).eval()


def _notes(config: CosmosConfig, options: CosmosOptions) -> str:
    weights = options.checkpoint or f"untrained weights (seed {options.init_seed})"
    inexact = options.clean_reuse and not config.net.given_apart
    approximate = "; clean slots' keys reused (approximate)" if inexact else ""
    return f"{config.preset}, {config.layout.name} slots, {weights}{approximate}"
