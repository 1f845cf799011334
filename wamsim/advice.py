"""What to do with a network that was made for another suite, as lines to paste."""

from __future__ import annotations

import dataclasses
import enum
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, cast

from wamsim import registry
from wamsim.contracts import PolicyCard, Task, WorldModelCard
from wamsim.conventions import PROPRIO_BESIDE
from wamsim.errors import ConventionMismatch
from wamsim.registry import PolicyChoice

# Options by which a family lets others choose what its untrained network looks through and
# speaks; one with a single eye has `camera`.
_INTERFACE = ("cameras", "camera", "action", "proprio")


def for_another_suite(
    misfit: Exception,
    choice: PolicyChoice,
    card: PolicyCard | WorldModelCard,
    task: Task,
    cameras: Sequence[str],
    *,
    beside: str | None = None,
) -> Exception:
    """Say in place of a misfit that nothing trained is there, and what can be done about it.

    Args:
        misfit: What a check of policy and task raised.
        choice: The policy or world model.
        card: Its card.
        task: Of the suite that was asked for.
        cameras: What networks look through in this suite.
        beside: For a world model, the name of the policy that acts.

    Returns:
        The misfit itself where the caller chose cameras or conventions, so that it says what is
        wrong with them, or where the family offers no choice.
    """
    options = choice.options
    offered = [name for name in _INTERFACE if name in options]
    if "checkpoint" not in options or not offered:
        return misfit
    if any(options[name] is not None for name in offered):
        return misfit
    wanted: dict[str, Any] = {}
    for name in offered:
        if name == "cameras":
            wanted[name] = tuple(cameras)
        elif name == "camera":
            wanted[name] = cameras[0]
        elif name == "action":
            wanted[name] = task.action.name
        elif isinstance(card, PolicyCard) and card.proprio is not None:
            wanted[name] = PROPRIO_BESIDE[task.action.name].name
    wanted = {**_departures(choice), **wanted}
    untrained = {"checkpoint": "untrained", **wanted}
    if beside is None:
        line = f"wamsim eval -p {choice.name} -s {task.suite}{_flags('--set', untrained)}"
    else:
        line = f"wamsim eval -p {beside} -s {task.suite} --imagine-with {choice.name}"
        line += _flags("--imagine-set", untrained)
    checkpoint = options["checkpoint"]
    fact = f"no trained checkpoint of {choice.name} for suite {task.suite!r} exists."
    if checkpoint is not None:
        fact = (
            f"checkpoint {str(checkpoint)!r} of {choice.name} was not trained for suite "
            f"{task.suite!r} ({misfit})"
        )
    return ConventionMismatch(
        f"{fact} Train one on demonstrations (`wamsim train -p {choice.name} -d RUN --out "
        f"DIR{_flags('--set', wanted)}`), or run the untrained architecture: `{line}`"
    )


def _departures(choice: PolicyChoice) -> dict[str, Any]:
    """Options beside the weights that are not defaults: a line keeps what was asked for."""
    known = registry.policy_names()
    find = registry.family if choice.family in known else registry.world_model_family
    defaults = {f.name: f.default for f in dataclasses.fields(find(choice.family).config)}
    return {k: v for k, v in choice.options.items() if k != "checkpoint" and v != defaults[k]}


def _flags(flag: str, options: Mapping[str, Any]) -> str:
    return "".join(f" {flag} {shlex.quote(f'{k}={_text(v)}')}" for k, v in options.items())


def _text(value: Any) -> str:
    """Write a value as `registry.parse_value` reads it."""
    if isinstance(value, tuple):
        return ",".join(_text(part) for part in cast("tuple[Any, ...]", value))
    if isinstance(value, enum.Enum):
        return str(value.value)
    return str(value).lower() if isinstance(value, bool | None) else str(value)
