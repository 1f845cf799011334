"""Suites and policies by name, through entry points.

Another package adds its own with entry points of group ``wamsim.suites`` (callables
``(name, options) -> backend``) and ``wamsim.policies`` (a `PolicyFamily`); nothing here
changes. Names are listed without importing what they name.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from wamsim.contracts import Policy, WorldModel
from wamsim.errors import UnknownName, WamsimError, nearest

# Names that stand for several suites, in benchmark order.
SUITE_GROUPS: dict[str, tuple[str, ...]] = {
    # The four standard suites (Liu et al. 2023, arXiv:2306.03310); libero_90 goes by its name
    "libero": ("libero_spatial", "libero_object", "libero_goal", "libero_10"),
    "tabletop": ("tabletop_object", "tabletop_spatial", "tabletop_goal", "tabletop_long"),
    "bimanual": ("bimanual_clean", "bimanual_randomized"),
}


@dataclass(frozen=True, kw_only=True)
class PolicyFamily:
    """A family of policies, as its entry point gives it.

    Attributes:
        name: First part of ``--policy family:variant``.
        variants: Known variants, the default first; empty when there is only one.
        config: Frozen, keyword-only dataclass of its options (``--set key=value``).
        make: (variant, config) -> policy; heavy imports happen in here.
        summary: One line for `wamsim list policies`.
        trained: False for scripted policies that need no checkpoint.
    """

    name: str
    config: type[Any]
    make: Callable[[str, Any], Policy]
    variants: tuple[str, ...] = ()
    summary: str = ""
    trained: bool = True


@dataclass(frozen=True, kw_only=True)
class WorldModelFamily:
    """A family of world models, as its entry point of group ``wamsim.world_models`` gives it.

    Attributes:
        name: First part of ``--imagine-with family:variant``.
        variants, config, summary: As in `PolicyFamily`.
        make: (variant, config) -> world model; heavy imports happen in here.
    """

    name: str
    config: type[Any]
    make: Callable[[str, Any], WorldModel]
    variants: tuple[str, ...] = ()
    summary: str = ""


def _points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def suite_names() -> tuple[str, ...]:
    """All registered suites, sorted."""
    return tuple(sorted(_points("wamsim.suites")))


def expand_suites(text: str) -> tuple[str, ...]:
    """Read a comma-separated list of suites and groups.

    Args:
        text: e.g. "libero_object,tabletop".

    Raises:
        UnknownName: With the nearest known name.
    """
    known = suite_names()
    out: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if name in SUITE_GROUPS:
            out.extend(n for n in SUITE_GROUPS[name] if n not in out)
        elif name in known:
            if name not in out:
                out.append(name)
        else:
            raise nearest(
                name, [*known, *SUITE_GROUPS], kind="suite", hint="`wamsim list suites` shows all."
            )
    return tuple(out)


def suite(name: str, options: Any) -> Any:
    """Build a suite's backend.

    Args:
        name: One registered suite.
        options: ``envs.scene.SuiteOptions``.

    Raises:
        UnknownName: There is no such suite, or it has no option of a name that was chosen.
    """
    points = _points("wamsim.suites")
    if name not in points:
        raise nearest(name, points, kind="suite", hint="`wamsim list suites` shows all.")
    backend = points[name].load()(name, options)
    known = getattr(backend, "choices", {})
    for option, _ in options.chosen:
        if option not in known:
            hint = "`wamsim list options` shows all." if known else "It has no options."
            raise nearest(option, known, kind=f"option of suite {name!r}", hint=hint)
    return backend


def policy_names() -> tuple[str, ...]:
    """All registered policy families, sorted."""
    return tuple(sorted(_points("wamsim.policies")))


def family(name: str) -> PolicyFamily:
    """Load one policy family.

    Raises:
        UnknownName: With the nearest known name.
    """
    points = _points("wamsim.policies")
    if name not in points:
        raise nearest(name, points, kind="policy", hint="`wamsim list policies` shows all.")
    found = points[name].load()
    if not isinstance(found, PolicyFamily):
        raise WamsimError(
            f"entry point wamsim.policies:{name} gives {type(found).__name__}, not a PolicyFamily"
        )
    return found


def world_model_names() -> tuple[str, ...]:
    """All registered world model families, sorted."""
    return tuple(sorted(_points("wamsim.world_models")))


def world_model_family(name: str) -> WorldModelFamily:
    """Load one world model family.

    Raises:
        UnknownName: With the nearest known name.
    """
    points = _points("wamsim.world_models")
    if name not in points:
        raise nearest(
            name, points, kind="world model", hint="`wamsim list world-models` shows all."
        )
    found = points[name].load()
    if not isinstance(found, WorldModelFamily):
        raise WamsimError(
            f"entry point wamsim.world_models:{name} gives {type(found).__name__}, "
            f"not a WorldModelFamily"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class PolicyChoice:
    """A policy or world model as a run names it: family, variant and resolved options."""

    family: str
    variant: str
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name in tables: "family" or "family:variant"."""
        return f"{self.family}:{self.variant}" if self.variant else self.family

    def described(self) -> dict[str, Any]:
        """As plain data, for a run's configuration."""
        options = {k: _plain(v) for k, v in self.options.items()}
        return {"family": self.family, "variant": self.variant, "options": options}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in typing.cast("tuple[Any, ...]", value)]
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def choose_policy(text: str, options: Mapping[str, str] | None = None) -> PolicyChoice:
    """Resolve ``family[:variant]`` and its ``key=value`` options without building it.

    Raises:
        UnknownName: Family, variant or option is not known; says the nearest one.
        WamsimError: An option's value does not fit its type.
    """
    return _choose(text, family(text.partition(":")[0]), options)


def choose_world_model(text: str, options: Mapping[str, str] | None = None) -> PolicyChoice:
    """Resolve a world model; as `choose_policy`."""
    return _choose(text, world_model_family(text.partition(":")[0]), options)


def _choose(
    text: str, found: PolicyFamily | WorldModelFamily, options: Mapping[str, str] | None
) -> PolicyChoice:
    name, _, variant = text.partition(":")
    if variant and variant not in found.variants:
        raise nearest(variant, found.variants, kind=f"variant of {name}")
    if not variant and found.variants:
        variant = found.variants[0]
    config = _configure(found, dict(options or {}))
    resolved = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    return PolicyChoice(family=name, variant=variant, options=resolved)


def make_policy(choice: PolicyChoice) -> Policy:
    """Build the chosen policy (loads weights)."""
    found = family(choice.family)
    return found.make(choice.variant, found.config(**choice.options))


def make_world_model(choice: PolicyChoice) -> WorldModel:
    """Build the chosen world model (loads weights)."""
    found = world_model_family(choice.family)
    return found.make(choice.variant, found.config(**choice.options))


def make_learner(
    text: str,
    options: Mapping[str, str] | None = None,
    *,
    defaults: Mapping[str, str] | None = None,
) -> tuple[PolicyChoice, Policy | WorldModel]:
    """Build a policy or a world model, whichever has that name, to be trained.

    Args:
        text: ``family[:variant]``.
        options: As of `choose_policy`.
        defaults: Options for families that have them; `options` go before.

    Raises:
        UnknownName: Neither has; with the nearest name of both.
    """
    name = text.partition(":")[0]
    known = (*policy_names(), *world_model_names())
    if name not in known:
        raise nearest(name, known, kind="policy or world model")
    world = name in world_model_names()
    found = world_model_family(name) if world else family(name)
    fields = {f.name for f in dataclasses.fields(found.config)}
    given = {k: v for k, v in (defaults or {}).items() if k in fields} | dict(options or {})
    choice = _choose(text, found, given)
    return choice, make_world_model(choice) if world else make_policy(choice)


def _configure(found: PolicyFamily | WorldModelFamily, options: Mapping[str, str]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(found.config)}
    hints = typing.get_type_hints(found.config)
    values: dict[str, Any] = {}
    for key, text in options.items():
        if key not in fields:
            raise nearest(key, fields, kind=f"option of policy {found.name!r}")
        values[key] = parse_value(text, hints[key], name=f"{found.name}.{key}")
    missing = [
        f.name
        for f in fields.values()
        if f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
        and f.name not in values
    ]
    if missing:
        wanted = " ".join(f"--set {m}=..." for m in missing)
        raise UnknownName(f"policy {found.name!r} needs {', '.join(missing)}: add {wanted}")
    try:
        return found.config(**values)
    except ValueError as error:
        raise WamsimError(f"policy {found.name!r}: {error}") from error


def parse_value(text: str, kind: Any, *, name: str) -> Any:
    """Read an option's text as its declared type (bool, int, float, str, Path, Enum, tuple).

    Raises:
        WamsimError: The text is not of that type.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        members = [m for m in typing.get_args(kind) if m is not type(None)]
        if text.lower() in ("none", "") and len(members) < len(typing.get_args(kind)):
            return None
        return parse_value(text, members[0], name=name)
    if origin is tuple:
        kinds = typing.get_args(kind)
        parts = [part for part in text.split(",") if part]
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(parts)
        if len(parts) != len(kinds):
            raise WamsimError(
                f"option {name}={text!r} has {len(parts)} value(s), expected {len(kinds)}, "
                f"separated by commas"
            )
        return tuple(parse_value(p, k, name=name) for p, k in zip(parts, kinds, strict=True))
    try:
        if kind is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text.lower()
            ]
        if kind is float and not math.isfinite(float(text)):
            raise ValueError("the run's configuration is kept as JSON, which cannot hold it")
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return kind(text)
        if kind in (int, float, str, Path):
            return kind(text)
    except (KeyError, ValueError):
        raise WamsimError(f"option {name}={text!r} is not {_described(kind)}") from None
    raise WamsimError(f"option {name} has a type that the command line cannot set: {kind}")


def _described(kind: Any) -> str:
    if issubclass(kind, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in kind)
    return {bool: "true or false", int: "a whole number", float: "a finite number"}[kind]
