"""How each family is built for a measurement, and where its denoising step can be captured.

Trained weights change no latency, so everything here has random ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from policies.latency import build
from policies.latency.stand_ins import Autocast, FixedText, PoolingTokenizer
from wamsim import registry
from wamsim.contracts import Policy, WorldModel
from wamsim.registry import PolicyChoice

# Where a callable sits that may be wrapped: an object and the name of its attribute.
Spot = tuple[Any, str]


@dataclass
class Built:
    """A model with everything that a measurement of it needs.

    Attributes:
        name, kind, preset: As in `rows.Row`.
        model: The module; None for a policy without one.
        make: Whether to keep what does not change -> the policy or world model on `model`.
        device, dtype: Where and in what precision.
        caches: Whether `make(False)` differs from `make(True)`.
        steps: Spots of pure functions of tensors, each called once per denoising step or
            so: for CUDA graphs.
        compiled: Spots for torch.compile: blocks that repeat, so that one compilation
            serves all of them, or else the same as `steps`.
        note: What is left out.
    """

    name: str
    kind: str
    preset: str
    model: nn.Module | None
    make: Callable[[bool], Policy | WorldModel]
    device: torch.device
    dtype: torch.dtype
    caches: bool = True
    steps: Sequence[Spot] = ()
    compiled: Sequence[Spot] = ()
    note: str = ""


def registered(choice: PolicyChoice, *, device: str) -> Built:
    """Build a policy or world model as a run would, tiny and untrained, in float32."""
    world = choice.family in registry.world_model_names()
    maker: Any = registry.make_world_model if world else registry.make_policy
    options = {**choice.options, **({"device": device} if "device" in choice.options else {})}
    found = maker(dataclasses.replace(choice, options=options))
    model = getattr(found, "model", None)
    if model is not None:
        open_gates(model)
    wrap = WRAPPERS.get(choice.family)
    steps, compiled = spots(choice.family, model)
    return Built(
        name=choice.name,
        kind="world model" if world else "policy",
        preset=str(options.get("preset", "tiny")),
        model=model,
        make=(lambda cache: wrap(model, cache)) if wrap else (lambda _: found),
        device=torch.device(device),
        dtype=torch.float32,
        caches=wrap is not None,
        steps=steps,
        compiled=compiled,
    )


@dataclass
class Hollow:
    """A model of some size that has no memory yet.

    Attributes:
        model: Its large parameters are on the meta device.
        note: What is left out.
        whole: True when the family casts the whole module to bfloat16; False when its
            arithmetic relies on autocast there.
        finish: What is to be done when the weights are drawn.
    """

    model: nn.Module
    note: str = ""
    whole: bool = True
    finish: Callable[[torch.device, torch.dtype], None] = lambda device, dtype: None


def drawn(
    choice: PolicyChoice, made: Hollow, *, device: str, dtype: torch.dtype, seed: int = 0
) -> Built:
    """Give a hollow model random weights on its device."""
    place = torch.device(device)
    build.fill(made.model, place, dtype, seed=seed)
    if made.whole:
        made.model.to(dtype)
    open_gates(made.model)
    made.model.eval()
    made.finish(place, dtype)
    wrap = WRAPPERS[choice.family]
    low = dtype is not torch.float32 and not made.whole

    def make(cache: bool) -> Any:
        subject = wrap(made.model, cache)
        return Autocast(subject, place, dtype) if low else subject

    steps, compiled = spots(choice.family, made.model)
    return Built(
        name=choice.name,
        kind="world model" if choice.family == "flow_hwm" else "policy",
        preset=str(getattr(made.model, "config").preset),  # noqa: B009
        model=made.model,
        make=make,
        device=place,
        dtype=dtype,
        steps=steps,
        compiled=compiled,
        note=made.note,
    )


def hollow(choice: PolicyChoice, preset: str) -> Hollow | None:
    """Build a family's model without memory; None for a family that is not known here."""
    maker = HOLLOW.get(choice.family)
    return None if maker is None else maker(choice.variant, preset)


def open_gates(model: nn.Module) -> None:
    """Open gates that are closed before training: a closed one's future is not looked at.

    A trained model pays for it in every query, so its latency is with open gates.
    """
    for name, parameter in model.named_parameters():
        if name.rpartition(".")[2] in ("gate", "gates"):
            parameter.data.fill_(0.5)


# ---------------------------------------------------------------------- per family


def _fastwam(variant: str, preset: str) -> Hollow:
    from policies.fastwam.model import FastWam
    from policies.fastwam.presets import preset_config

    config = preset_config(preset, variant)
    if preset == "tiny":
        return Hollow(build.hollow(lambda: FastWam(config)))
    # An instruction is encoded once per episode and remembered; so the encoder is left out.
    text = dataclasses.replace(config.text, layers=1, heads=1, key_dim=8, ffn=8, vocab=8)
    model = build.hollow(lambda: FastWam(dataclasses.replace(config, text=text)))

    def finish(device: torch.device, dtype: torch.dtype) -> None:
        known = FixedText((config.text.length, config.text.dim), device, dtype)
        setattr(model, "text", known)  # noqa: B010

    setattr(model, "text", nn.Module())  # noqa: B010
    return Hollow(model, note="without UMT5 (5.68 B): its context is remembered", finish=finish)


def _cosmos(variant: str, preset: str) -> Hollow:
    from policies.cosmos.config import preset as configuration
    from policies.cosmos.model import CosmosModel

    config = configuration(variant, preset)
    model = build.hollow(lambda: CosmosModel(config))
    if config.text.own:
        # the family keeps the text encoder in float32
        return Hollow(model)

    def finish(device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.text.max_tokens, config.net.text_dim)
        model.set_features(FixedText(shape, device, dtype))

    return Hollow(model, note="without T5-11B: features are read from a file", finish=finish)


def _smolvla_world(variant: str, preset: str) -> Hollow:
    from policies.smolvla_world.model import SmolVLAWorld
    from policies.smolvla_world.presets import configuration

    config = configuration(variant, preset)
    # words need no vocabulary file; the padded length, which decides the cost, is the same
    config = dataclasses.replace(config, host=dataclasses.replace(config.host, tokenizer="words"))
    return Hollow(build.hollow(lambda: SmolVLAWorld(config)), whole=False)


def _spatialvla(variant: str, preset: str) -> Hollow:
    from policies.spatialvla.model import SpatialVLA
    from policies.spatialvla.presets import preset as configuration

    config = configuration(variant, preset)
    return Hollow(build.hollow(lambda: SpatialVLA(config)))


def _flow_hwm(variant: str, preset: str) -> Hollow:
    from policies.flow_hwm.config import preset_config
    from policies.flow_hwm.model import FlowHWM

    config = preset_config(variant, preset)
    model = build.hollow(lambda: FlowHWM(config))
    if config.tokenizer == "wan":
        return Hollow(model, whole=False)

    def finish(device: torch.device, dtype: torch.dtype) -> None:
        stand_in: Any = PoolingTokenizer(
            config.latent_channels, config.temporal_factor, config.spatial_factor
        )
        model.attach_tokenizer(stand_in)

    note = "without the Cosmos tokenizer (pooling stands in)"
    return Hollow(model, note=note, whole=False, finish=finish)


HOLLOW: dict[str, Callable[[str, str], Hollow]] = {
    "fastwam": _fastwam,
    "cosmos": _cosmos,
    "smolvla_world": _smolvla_world,
    "spatialvla": _spatialvla,
    "flow_hwm": _flow_hwm,
}


def _wrap_fastwam(model: Any, cache: bool) -> Policy:
    from policies.fastwam.policy import FastWamPolicy

    return FastWamPolicy(model, cache=cache)


def _wrap_cosmos(model: Any, cache: bool) -> Policy:
    from policies.cosmos.model import Reuse
    from policies.cosmos.policy import CosmosPlanner, CosmosPolicy

    kind = CosmosPlanner if model.config.variant == "planning" else CosmosPolicy
    return kind(model, reuse=Reuse(text=cache))


def _wrap_smolvla_world(model: Any, cache: bool) -> Policy:
    from policies.smolvla_world.policy import SmolVLAWorldPolicy

    return SmolVLAWorldPolicy(model, cache=cache)


def _wrap_spatialvla(model: Any, cache: bool) -> Policy:
    from policies.spatialvla.policy import SpatialVLAPolicy

    return SpatialVLAPolicy(model, cache=cache)


def _wrap_flow_hwm(model: Any, cache: bool) -> WorldModel:
    from policies.flow_hwm.sampler import Sampler
    from policies.flow_hwm.world import FlowHWMWorld

    config = model.config
    sampler = Sampler(model.network, steps=config.steps, guidance=config.guidance, cache=cache)
    return FlowHWMWorld(model, sampler)


WRAPPERS: dict[str, Callable[[Any, bool], Any]] = {
    "fastwam": _wrap_fastwam,
    "cosmos": _wrap_cosmos,
    "smolvla_world": _wrap_smolvla_world,
    "spatialvla": _wrap_spatialvla,
    "flow_hwm": _wrap_flow_hwm,
}


def spots(family: str, model: Any) -> tuple[Sequence[Spot], Sequence[Spot]]:
    """Give where a family's model can be captured, and where compiled (see `Built`)."""
    if family == "fastwam":
        blocks = [b for expert in (model.video, model.action) for b in expert.blocks]
        return [(model, "run")], [(b, n) for b in blocks for n in ("project", "finish")]
    if family == "cosmos":
        return [(model.net, "stack")], [(b, "forward") for b in model.net.blocks]
    if family in ("smolvla_world", "spatialvla"):
        return [(model, "velocity")], [(model, "velocity")]
    if family == "flow_hwm":
        name = "velocity_beside" if model.network.splits else "velocity"
        return [(model.network, name)], [(model.network, name)]
    return [], []
