"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from envs.evaluation import Resources
    from envs.rendering import Painter
    from envs.scene import Scene

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


@pytest.fixture(scope="module")
def resources(scene_cache_dir: Path) -> Resources:
    """One worker of two slots over the tests' scenes."""
    from envs.evaluation import Resources

    return Resources(workers=1, slots=2, cache_dir=scene_cache_dir)


@pytest.fixture
def painter() -> Iterator[Callable[[Scene], Painter]]:
    """Makes painters of scenes, and frees their OpenGL memory."""
    from envs.rendering import Painter

    made: list[Painter] = []

    def one(scene: Scene) -> Painter:
        made.append(Painter(scene))
        return made[-1]

    yield one
    for p in made:
        p.close()


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
