"""Frozen dataclasses as plain data (JSON) and back, strictly."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any, TypeVar, cast

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Write nested dataclasses, enums and tuples as dicts, values and lists."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [to_plain(v) for v in cast("tuple[Any, ...]", value)]
    return value


def from_plain(kind: type[T], data: Any) -> T:
    """Read what `to_plain` wrote.

    Raises:
        ValueError: An unknown field, a missing one, or a value that does not fit.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{kind.__name__} needs an object, got {type(data).__name__}")
    hints = typing.get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(cast(Any, kind))}
    unknown = sorted(set(cast("dict[str, Any]", data)) - known)
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {', '.join(unknown)}")
    values = {k: _read(hints[k], v) for k, v in cast("dict[str, Any]", data).items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _read(hint: Any, value: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _read(next(a for a in typing.get_args(hint) if a is not type(None)), value)
    if origin is tuple:
        inner = typing.get_args(hint)
        every = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_read(h, v) for h, v in zip(every, value, strict=True))
    if dataclasses.is_dataclass(hint):
        return from_plain(cast("type[Any]", hint), value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(value)
    return value
