"""Frozen dataclass trees to plain JSON values and back."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def to_document(value: Any) -> Any:
    """Write a dataclass tree as dicts, lists, strings and numbers."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_document(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [to_document(v) for v in typing.cast(tuple[Any, ...], value)]
    return value


def from_document(cls: type[T], document: Any) -> T:
    """Read what `to_document` wrote.

    Raises:
        ValueError: A field that the class does not have; it is named.
    """
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(document) - set(hints))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}")
    return cls(**{name: _value(hints[name], v) for name, v in document.items()})


def _value(kind: Any, value: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None:
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if dataclasses.is_dataclass(kind):
        return from_document(typing.cast(type[Any], kind), value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if typing.get_origin(kind) is tuple:
        return tuple(_value(typing.get_args(kind)[0], v) for v in value)
    return value
