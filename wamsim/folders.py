"""Where things are kept unless somebody says otherwise."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def default_cache_dir() -> Path:
    """Compiled scenes: the user's cache folder, as the platform has it."""
    return Path(platformdirs.user_cache_dir("wamsim", appauthor=False))
