"""hf-libero and robosuite: where they are, and importing them without their surprises.

They build scenes and serve as the reference in tests; no stepping code imports them.
What this module guards against (hf-libero 0.1.4, robosuite 1.4.0):

- ``import libero.libero`` asks a question with ``input()`` when its config.yaml is missing;
- ``import robosuite`` sets MUJOCO_GL=egl and loads OpenGL, prints warnings, and opens a
  log file in /tmp that belongs to whoever came first;
- ``libero.libero.benchmark`` needs torch and prints; its task map is a plain file of names.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import mujoco  # noqa: F401  it reads MUJOCO_GL when imported: before _no_opengl changes it
import numpy as np

from envs.processes import environment
from wamsim.errors import AssetsMissing

# requirements/simulators.txt installs exactly these.
PACKAGES = ("mujoco", "robosuite", "hf-libero")

_config_dir: tempfile.TemporaryDirectory[str] | None = None


@lru_cache
def package_dir() -> Path:
    """Folder of the installed ``libero.libero``, found without importing it.

    Raises:
        AssetsMissing: hf-libero is not installed.
    """
    spec = importlib.util.find_spec("libero")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "libero"
        if (folder / "bddl_files").is_dir():
            return folder
    raise AssetsMissing(
        "hf-libero is not installed, or has no bddl_files. Install the simulators with "
        "`pip install --no-deps -r requirements/simulators.txt`."
    )


@lru_cache
def versions() -> dict[str, str]:
    """Versions of everything that a compiled scene depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@lru_cache
def task_map() -> dict[str, list[str]]:
    """Task names of every suite in benchmark order (``task_order_index=0``)."""
    path = package_dir() / "benchmark" / "libero_suite_task_map.py"
    spec = importlib.util.spec_from_file_location("_wamsim_libero_task_map", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.libero_task_map


def bddl_path(suite: str, name: str) -> Path:
    """A task's BDDL file."""
    return package_dir() / "bddl_files" / suite / f"{name}.bddl"


def init_path(suite: str, name: str) -> Path:
    """A task's file of initial states."""
    return package_dir() / "init_files" / suite / f"{name}.pruned_init"


def import_envs(assets: Path) -> Any:
    """Import ``libero.libero.envs`` and point it at a folder of assets.

    OpenGL is not loaded: compiling a scene needs none. `enable_rendering` loads it.

    Args:
        assets: Folder that holds ``scenes/``, ``articulated_objects/``, ...

    Returns:
        The module ``libero.libero.envs``.
    """
    if "libero.libero.envs" not in sys.modules:
        with contextlib.redirect_stdout(io.StringIO()), _config(), _no_opengl():
            importlib.import_module("libero.libero.envs")
    # The `assets` key of config.yaml is ignored upstream; this cache is what it reads.
    package: Any = importlib.import_module("libero.libero")
    package._assets_path_cache = str(assets)
    return sys.modules["libero.libero.envs"]


def enable_rendering() -> None:
    """Give robosuite an OpenGL context class, as its own import would have done."""
    binding: Any = importlib.import_module("robosuite.utils.binding_utils")
    if hasattr(binding, "GLContext"):
        return
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    kind, name = {
        "osmesa": ("osmesa", "OSMesaGLContext"),
        "glfw": ("glfw", "GLFWGLContext"),
    }.get(wanted, ("egl", "EGLGLContext"))
    module = importlib.import_module(f"robosuite.renderers.context.{kind}_context")
    binding.GLContext = getattr(module, name)


@contextlib.contextmanager
def keep_global_randomness() -> Iterator[None]:
    """Leave NumPy's global generator as it was: upstream draws from it."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


@contextlib.contextmanager
def _config() -> Iterator[None]:
    """Make config.yaml exist in a folder of ours, unless the user has their own."""
    global _config_dir
    before = os.environ.get("LIBERO_CONFIG_PATH")
    if (Path(before or "~/.libero").expanduser() / "config.yaml").is_file():
        yield
        return
    _config_dir = tempfile.TemporaryDirectory(prefix="wamsim-libero-")  # kept until exit
    root = package_dir()
    keys = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": root.parent / "datasets",
        "assets": root / "assets",
    }
    text = "".join(f'{key}: "{value}"\n' for key, value in keys.items())
    (Path(_config_dir.name) / "config.yaml").write_text(text)
    with environment({"LIBERO_CONFIG_PATH": _config_dir.name}):
        yield


@contextlib.contextmanager
def _no_opengl() -> Iterator[None]:
    """Import robosuite without OpenGL, log file or advice on its macros.

    Its macros end with ``from robosuite.macros_private import *``, the place meant for
    local settings; where the user has none, ours stands in.
    """
    if "robosuite" in sys.modules:
        yield
        return
    spec = importlib.util.find_spec("robosuite")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    if not any((Path(folder) / "macros_private.py").exists() for folder in folders):
        private = types.ModuleType("robosuite.macros_private")
        private.__dict__.update(
            MUJOCO_GPU_RENDERING=False, FILE_LOGGING_LEVEL=None, CONSOLE_LOGGING_LEVEL="ERROR"
        )
        sys.modules["robosuite.macros_private"] = private
    with environment({"MUJOCO_GL": "disabled"}):
        yield
