"""The checkpoints that come with wamsim: tiny presets, trained by `make reference`.

They lie in ``policies/<family>/reference/<variant>/``. A run names them as
``reference:<family>:<variant>``, which means the same weights on every machine.

What variants of a family have in common, as a frozen tokenizer, lies once beside their folders
(`policies.sharing`).
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from pathlib import Path

from wamsim.registry import PolicyChoice

PREFIX, UNTRAINED = "reference:", "untrained"

# Variants that run on another's weights, as their authors do.
SAME_WEIGHTS = {("cosmos", "planning"): "direct"}


def folder_of(family: str, variant: str) -> Path:
    """Give the place of a family's reference checkpoint, whether it is there or not."""
    variant = SAME_WEIGHTS.get((family, variant), variant)
    return Path(str(importlib.resources.files(f"policies.{family}"))) / "reference" / variant


def resolve(source: str) -> Path | None:
    """Give the folder that ``reference:family:variant`` names; None for any other text."""
    if not source.startswith(PREFIX):
        return None
    family, _, variant = source.removeprefix(PREFIX).partition(":")
    return folder_of(family, variant)


def with_reference(choice: PolicyChoice) -> PolicyChoice:
    """Fill in the reference checkpoint where a choice names none.

    ``checkpoint=untrained`` asks for drawn weights. Families without the option, variants
    without a reference and other presets than tiny stay as they are.
    """
    if "checkpoint" not in choice.options:
        return choice
    given = choice.options["checkpoint"]
    if given == UNTRAINED:
        return _with(choice, None)
    if given is not None or choice.options.get("preset", "tiny") != "tiny":
        return choice
    if not (folder_of(choice.family, choice.variant) / "config.json").exists():
        return choice
    return _with(choice, f"{PREFIX}{choice.family}:{choice.variant}")


def _with(choice: PolicyChoice, checkpoint: str | None) -> PolicyChoice:
    return dataclasses.replace(choice, options={**choice.options, "checkpoint": checkpoint})
