"""Our safetensors files that say in their header what they hold, and in which format version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import safetensors

from wamsim.errors import RecordCorrupt

T = TypeVar("T")


def open_headed(
    path: Path, header: str, version: int, make: Callable[[dict[str, Any]], T], *, what: str
) -> tuple[Any, T]:
    """Open a file that is drawn anew when it is lost.

    Args:
        path: The file.
        header: Name of the header's entry, a JSON object.
        version: The "format_version" that is read.
        make: Makes of the rest of the object what the file says it holds.
        what: For the text, e.g. "demonstration".

    Returns:
        The file, whose arrays are read when they are asked for, and what `make` gave.

    Raises:
        RecordCorrupt: Truncated, altered, or something else; the message names the file.
    """
    try:
        file: Any = safetensors.safe_open(path, framework="numpy")
        metadata: dict[str, str] = file.metadata() or {}
        document: dict[str, Any] = json.loads(metadata[header])
        found = document.pop("format_version")
        if found != version:
            raise ValueError(f"format {found}, this wamsim reads {version}")
        return file, make(document)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise RecordCorrupt(
            f"no {what} can be read ({error!r}). Delete it and run the same command again: it is "
            f"drawn anew. File: {path}"
        ) from error
