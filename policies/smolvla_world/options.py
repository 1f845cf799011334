"""What `--set key=value` can say; imports neither torch nor transformers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from policies.interface import check_interface, chosen, keep_trained
from policies.smolvla_world.config import FAMILY_NAME, Config
from policies.smolvla_world.presets import PRESETS, configuration
from wamsim.conventions import ACTIONS, PROPRIOS
from wamsim.errors import WamsimError

# Options that change weights or what they were trained for. None means: as the preset, or
# as the checkpoint, says. Name -> where in Config.
_FUSION = (
    "delta", "delta_from", "loss", "lambda_world", "temperature", "contrast_horizons",
    "memory_train", "placement", "prefix_block", "gate_tokens", "gate_init", "share_sites",
    "prophet_positions", "flare_tokens", "flare_after", "flare_causal", "flare_target",
    "mu_constraint", "constraint_target", "constraint_grounding",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SmolVLAWorldOptions:
    """Options of every variant; see `config.FusionConfig` for the family's own switches.

    Attributes:
        checkpoint: Folder or hub id: one of wamsim's, or LeRobot's `smolvla` (variant base)
            or `smolvla_world` (variant late_gated_xattn); None: untrained weights.
        preset: "tiny" or "published"; for LeRobot checkpoints, the VLM's shape.
        cameras, action, proprio: What an untrained model looks through (the first is the one
            whose future it imagines) and which conventions it speaks, by name; for LeRobot
            checkpoints, what theirs are called here.
        device: Where the model runs.
        execute: Actions run per query; None: all of the chunk, as LeRobot does.
        init_seed: Of untrained weights.
        init_from: LeRobot `smolvla` checkpoint for the host alone; the rest is untrained.
        steps: Euler steps; None: the configuration's.
        memory: What the policy is shown at rollout: pred, zero, shuffle, random,
            random_scaled or signflip; None: the configuration's.
        imagine: False drops imagination from the card, and the history that only it needs.
        cache: False runs the prefix at every step: slower, same result.
        tokenizer: "words", or a folder or hub id; None: the configuration's.
        world_encoder: Folder or hub id of V-JEPA 2 weights, for checkpoints without them.
        statistics: A data set's stats.json, for models and LeRobot checkpoints without them.
        horizon: Steps ahead that are imagined (K).
        delta, loss, ...: The family's switches.
    """

    checkpoint: str | None = None
    preset: str = "tiny"
    cameras: tuple[str, ...] | None = None
    action: str | None = None
    proprio: str | None = None
    device: str = "cpu"
    execute: int | None = None
    init_seed: int = 0
    init_from: str | None = None
    steps: int | None = None
    memory: str | None = None
    imagine: bool = True
    cache: bool = True
    tokenizer: str | None = None
    world_encoder: str | None = None
    statistics: str | None = None
    horizon: int | None = None
    delta: bool | None = None
    delta_from: str | None = None
    loss: str | None = None
    lambda_world: float | None = None
    temperature: float | None = None
    contrast_horizons: bool | None = None
    memory_train: str | None = None
    placement: str | None = None
    prefix_block: str | None = None
    gate_tokens: bool | None = None
    gate_init: float | None = None
    share_sites: bool | None = None
    prophet_positions: bool | None = None
    flare_tokens: int | None = None
    flare_after: bool | None = None
    flare_causal: bool | None = None
    flare_target: str | None = None
    mu_constraint: float | None = None
    constraint_target: str | None = None
    constraint_grounding: bool | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset={self.preset!r} must be one of {PRESETS}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")
        if self.checkpoint is not None and self.init_from is not None:
            raise ValueError("give checkpoint or init_from, not both: both fill the host")
        check_interface(FAMILY_NAME, **self.interface)
        # misspelt values are refused here, before anything is built
        self._running(configuration("base", self.preset)).with_fusion(**self._switches())

    @property
    def interface(self) -> dict[str, Any]:
        """The fields of `Config` that these options choose."""
        return chosen(cameras=self.cameras, action=self.action, proprio=self.proprio)

    def base(self, variant: str) -> Config:
        """Give the preset's configuration with these options' cameras and conventions."""
        config = configuration(variant, self.preset)
        host = config.host
        action = ACTIONS[self.action or config.action].dim
        state = PROPRIOS[self.proprio or config.proprio].dim
        host = dataclasses.replace(
            host,
            action_dim=action,
            state_dim=state,
            max_action_dim=max(action, host.max_action_dim),
            max_state_dim=max(state, host.max_state_dim),
        )
        return dataclasses.replace(config, host=host, **self.interface)

    def resolve(self, variant: str) -> Config:
        """Give the configuration of an untrained model with these options.

        Raises:
            WamsimError: Options that do not go together, or not with the variant.
        """
        config = self._running(self.base(variant))
        switches = self._switches()
        if self.flare_tokens is not None and variant != "flare_tokens":
            raise WamsimError(
                f"variant {variant!r} has no learned future tokens; leave flare_tokens out, or "
                f"take variant 'flare_tokens'"
            )
        world = config.world
        if world is not None and self.horizon is not None:
            world = dataclasses.replace(world, horizon=self.horizon)
            if variant == "flare_tokens" and self.flare_target != "last":
                switches.setdefault("flare_tokens", self.horizon)  # one token per step
        try:
            fusion = dataclasses.replace(config.fusion, **switches)
            return dataclasses.replace(config, world=world, fusion=fusion)
        except ValueError as error:
            raise WamsimError(f"smolvla_world:{variant}: {error}") from error

    def adopt(self, config: Config) -> Config:
        """Give a checkpoint's configuration with what may change after training.

        Raises:
            WamsimError: An option contradicts what the checkpoint was trained as.
        """
        keep_trained(FAMILY_NAME, self.interface, config)
        for name, wanted in self._switches().items():
            has = getattr(config.fusion, name)
            if name != "memory_rollout" and has != wanted:
                raise WamsimError(
                    f"the checkpoint was trained with {name}={has!r}, the option says "
                    f"{wanted!r}. Leave the option out, or take another checkpoint."
                )
        if self.horizon is not None and config.world and config.world.horizon != self.horizon:
            raise WamsimError(
                f"the checkpoint imagines {config.world.horizon} steps ahead, the option says "
                f"horizon={self.horizon}. Leave the option out, or take another checkpoint."
            )
        if self.memory is not None:
            config = config.with_fusion(memory_rollout=self.memory)
        return self._running(config)

    def _running(self, config: Config) -> Config:
        host: dict[str, Any] = {}
        if self.steps is not None:
            host["steps"] = self.steps
        if self.tokenizer is not None:
            host["tokenizer"] = self.tokenizer
        return dataclasses.replace(
            config,
            host=dataclasses.replace(config.host, **host),
            execute=config.execute if self.execute is None else self.execute,
        )

    def _switches(self) -> dict[str, Any]:
        given = {name: getattr(self, name) for name in _FUSION}
        given["memory_rollout"] = self.memory
        return {name: value for name, value in given.items() if value is not None}
