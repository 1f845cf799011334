"""What a user can set. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from policies.flow_hwm.config import NETWORK_PARITY, PRESETS, action_convention
from wamsim.errors import nearest

# Slips of the official sampling and evaluation code, each off unless named.
SAMPLER_PARITY = {
    "sampler": "every Euler step evaluates the initial noise",
    "context_drop": "after the first step the conditional pass has no context either",
    "fid_frame": "pictures show decoded frame 0, a past one",
}


@dataclass(frozen=True, kw_only=True)
class FlowHWMOptions:
    """What `--set key=value` sets.

    Attributes:
        checkpoint: Folder or hub id of weights saved by wamsim, or a folder of the official
            layout; None is an untrained model.
        preset: "tiny" or "published".
        device: Where it runs, e.g. "cpu" or "cuda".
        init_seed: Of untrained weights.
        steps: Euler steps; None is the preset's.
        guidance: Classifier-free guidance; 1 does without; None is the preset's.
        camera: What a new model looks through; None is the preset's.
        action: Action convention of a new model, by name; None is the preset's.
        frame_stride: Env steps between the frames of a window; None is the preset's.
        action_stride: Env steps between its actions; None is `frame_stride` where that is
            given, else the preset's.
        tokenizer: Folder or hub id with encoder.jit and decoder.jit (preset "published").
        cache: Keep what every query computes alike (exact).
        parity: Defects of the official code to reproduce: names out of
            `NETWORK_PARITY` and `SAMPLER_PARITY`.
    """

    checkpoint: str | None = None
    preset: str = "tiny"
    device: str = "cpu"
    init_seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    camera: str | None = None
    action: str | None = None
    frame_stride: int | None = None
    action_stride: int | None = None
    tokenizer: str | None = None
    cache: bool = True
    parity: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no model could mean."""
        if self.preset not in PRESETS:
            raise nearest(self.preset, PRESETS, kind="preset of flow_hwm")
        if self.action is not None:
            action_convention(self.action)
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps={self.steps} must be 1 or more")
        for name in self.parity:
            if name not in {**NETWORK_PARITY, **SAMPLER_PARITY}:
                raise nearest(
                    name, [*NETWORK_PARITY, *SAMPLER_PARITY], kind="parity flag of flow_hwm"
                )

    @property
    def network_parity(self) -> tuple[str, ...]:
        """Flags that belong to the weights."""
        return tuple(name for name in self.parity if name in NETWORK_PARITY)

    @property
    def sampler_parity(self) -> tuple[str, ...]:
        """Flags that belong to sampling."""
        return tuple(name for name in self.parity if name in SAMPLER_PARITY)
