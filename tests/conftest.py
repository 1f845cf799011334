"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports mujoco's rendering: tests run without a display.
os.environ.setdefault("MUJOCO_GL", "egl")
# Before anything imports torch: with more threads, matrix products may round a row by its place
# in the batch, and two test processes would fight for two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def libero_assets() -> Path:
    """Folder of LIBERO's assets: WAMSIM_LIBERO_ASSETS, else shared/ beside the project."""
    given = os.environ.get("WAMSIM_LIBERO_ASSETS")
    folder = Path(given) if given else ROOT.parent / "shared" / "libero-assets"
    if not (folder / "articulated_objects").is_dir():
        pytest.skip(f"LIBERO's assets are not in {folder}; set WAMSIM_LIBERO_ASSETS")
    return folder


@pytest.fixture(scope="session")
def scene_cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where compiled scenes are kept: WAMSIM_CACHE (kept between runs), else this run's own."""
    given = os.environ.get("WAMSIM_CACHE")
    if given:
        yield Path(given)
        return
    own = tmp_path_factory.mktemp("scenes")
    yield own
    shutil.rmtree(own)  # a scene takes 100 to 200 MB, and pytest keeps three runs
