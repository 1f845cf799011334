"""What is wrong with this machine, and what to do about it: `wamsim doctor`.

Imports no simulator itself: with a broken OpenGL ``import mujoco`` already fails, and that
is what one asks a doctor about. Whatever may crash or hang runs in a child process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from envs.doctor_probes import ask
from wamsim.folders import default_cache_dir
from wamsim.messages import View

Status = Literal["ok", "warn", "fail"]

# system-packages.txt, which an installed wheel does not carry.
SYSTEM_PACKAGES = ("libegl1", "libgl1-mesa-dri", "libgles2")

# What numbers depend on, to the last digit. mujoco: pyproject.toml; the others:
# requirements/simulators.txt, installed without their declared needs.
PINS = {
    "mujoco": "3.3.2",
    "robosuite": "1.4.0",
    "hf-libero": "0.1.4",
    "bddl": "1.0.1",
    "gym-aloha": "0.1.5",
}
_WHY = {
    "mujoco": "later versions change LIBERO's lighting (3.3.3) and contacts (3.4)",
    "robosuite": "its Panda, controller and objects are those of LIBERO",
    "hf-libero": "it holds LIBERO's tasks and initial states",
    "bddl": "hf-libero reads its tasks with it",
    "gym-aloha": "bimanual's arms are its",
}

_BACKENDS = ("egl", "osmesa", "glfw")
# Renderer strings of Mesa's and Google's software drivers.
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "swiftshader", "software")

_DRAW_S = 60.0  # a context takes under a second; a hung driver takes for ever
_STEP_S = 600.0  # compiling the loop took 20 s on two slow cores
_ASK_S = 120.0

# 41 scenes of the five LIBERO suites at 105-231 MB, of which some share a model.
_CACHE_BYTES_ALL = 8 << 30
_CACHE_BYTES_LEAST = 1 << 30

_SLOTS = 2  # Resources.slots, per worker; Resources.workers is the number of cores
# Cosmos Policy runs 16 actions per query (arXiv:2601.16163); imagination may look after each.
_LOOKS = 16


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        status: "ok", "warn" (something works less well, or not at all but can be done
            without), or "fail" (evaluations will not run or not count).
        found: What is there, in one sentence.
        advice: What to do; empty when nothing need be done.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is examined.

    Attributes:
        cache_dir: Where compiled scenes are kept.
        libero_assets: LIBERO's assets; None looks where hf-libero keeps its download.
        workers: Processes of an evaluation.
    """

    cache_dir: Path = field(default_factory=default_cache_dir)
    libero_assets: Path | None = None
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)


def checks(setup: Setup | None = None) -> list[Check]:
    """Examine this machine; takes a few seconds, once longer when the loop is compiled."""
    return list(examine(setup or Setup()))


def examine(setup: Setup) -> Iterator[Check]:
    """As `checks`, each as soon as it and those before it are done."""
    looks: list[Callable[[], list[Check]]] = [
        versions,
        lambda: [opengl()],
        lambda: [stepping(setup.cache_dir)],
        lambda: [libero(setup.libero_assets)],
        lambda: [gpu()],
        lambda: [cache(setup.cache_dir)],
        lambda: [shared_memory(setup.workers)],
    ]
    with ThreadPoolExecutor(2) as side_by_side:
        for future in [side_by_side.submit(look) for look in looks]:
            yield from future.result()


# ----------------------------------------------------------------------------- OpenGL


def opengl() -> Check:
    """Draw something, in a child process, with the MUJOCO_GL of this one."""
    chosen = os.environ.get("MUJOCO_GL", "")
    words = f"MUJOCO_GL={chosen}" if chosen else "MUJOCO_GL is not set"
    found = ask("opengl", _DRAW_S)
    if isinstance(found, dict) and found["drew"]:
        renderer = f"{found['vendor']}, {found['renderer']} ({words})"
        if not any(name in found["renderer"].lower() for name in _SOFTWARE):
            return Check(name="OpenGL", status="ok", found=renderer)
        if not _nvidia():
            return Check(name="OpenGL", status="ok", found=f"software: {renderer}")
        return Check(
            name="OpenGL",
            status="warn",
            found=f"software, although there is an NVIDIA GPU: {renderer}",
            advice="Drawing is slower than it need be. In a container set "
            "NVIDIA_DRIVER_CAPABILITIES=all (or graphics,compute,utility); elsewhere install the "
            "driver's libnvidia-gl. Then MUJOCO_GL=egl finds it.",
        )
    reason = found if isinstance(found, str) else "it drew a wrong picture"
    for backend in _BACKENDS:
        if backend != chosen:
            other = ask("opengl", _DRAW_S, env={"MUJOCO_GL": backend})
            if isinstance(other, dict) and other["drew"]:
                return Check(
                    name="OpenGL",
                    status="fail",
                    found=f"{words}: {reason}",
                    advice=f"MUJOCO_GL={backend} works here ({other['renderer']}): set it.",
                )
    return Check(
        name="OpenGL",
        status="fail",
        found=f"{words}: {reason}",
        advice=f"`apt-get install {' '.join(SYSTEM_PACKAGES)}` and set MUJOCO_GL=egl, or "
        "`apt-get install libosmesa6` and set MUJOCO_GL=osmesa. Policies that look through no "
        "camera run without.",
    )


def _nvidia() -> bool:
    return any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/dxg"))  # dxg: WSL


# -------------------------------------------------------------------------- versions


def versions() -> list[Check]:
    """Compare what is installed with what is pinned and required."""
    out: list[Check] = []
    for name, wanted in PINS.items():
        have = _version(name)
        if have == wanted:
            out.append(Check(name=name, status="ok", found=wanted))
            continue
        out.append(
            Check(
                name=name,
                status="fail",
                found=f"{have or 'not installed'}, expected {wanted}: {_WHY[name]}",
                advice=f"`pip install {'' if name == 'mujoco' else '--no-deps '}{name}=={wanted}`",
            )
        )
    return [*out, packages()]


def packages() -> Check:
    """Compare all other packages with the requirements in wamsim's own metadata."""
    try:
        lines = metadata.requires("wamsim") or []
    except metadata.PackageNotFoundError:
        return Check(
            name="packages",
            status="warn",
            found="wamsim itself is not installed, so nobody knows what it requires",
            advice="`pip install -e .` in its folder.",
        )
    shown: list[str] = []
    wrong: list[str] = []
    for line in lines:
        need = Requirement(line)
        if need.name in PINS or (need.marker and not need.marker.evaluate({"extra": ""})):
            continue
        have = _version(need.name)
        if have is None or not need.specifier.contains(have, prereleases=True):
            wrong.append(f"{need.name} {have or 'missing'}, expected {need.specifier}")
        elif need.name in ("numpy", "torch", "gymnasium", "numba", "transformers"):
            shown.append(f"{need.name} {have}")
    if wrong:
        advice = "`pip install --upgrade wamsim` (or `pip install -e .`) brings them."
        return Check(name="packages", status="fail", found="; ".join(wrong), advice=advice)
    return Check(name="packages", status="ok", found=", ".join(shown))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# -------------------------------------------------------------------- the simulation


def stepping(cache_dir: Path) -> Check:
    """Step a scene; says whether the compiled loop was loaded or had to be compiled."""
    name = "compiled loop"
    found = ask("stepping", _STEP_S, str(cache_dir), env={"MUJOCO_GL": "disabled"})
    if isinstance(found, str):
        advice = "Mend what the other checks find first."
        if "no locator available" in found or "cannot cache" in found:
            advice = "Set NUMBA_CACHE_DIR to a folder that can be written to."
        return Check(name=name, status="fail", found=found, advice=advice)
    if not found["finite"]:
        return Check(
            name=name,
            status="fail",
            found="the robot's state is not finite after a step",
            advice=f"Remove numba's cache and try again: {found['cache']}",
        )
    speed = f"{found['steps_per_s']:.0f} env steps a second"
    if not found["compiled"]:
        return Check(name=name, status="ok", found=f"loaded from {found['cache']}, {speed}")
    return Check(
        name=name,
        status="ok",
        found=f"compiled in {found['first_s']:.0f} s and kept in {found['cache']}, {speed}",
        advice="If it is compiled every time, set NUMBA_CACHE_DIR to a folder that lasts.",
    )


def libero(folder: Path | None) -> Check:
    """Look for LIBERO's assets and count what is missing or stands in."""
    name = "LIBERO assets"
    env = {"MUJOCO_GL": "disabled"}
    found = ask("libero", _ASK_S, str(folder or ""), env=env)
    if isinstance(found, str):
        return Check(name=name, status="warn", found=found, advice="The tabletop suites need none.")
    if found["folder"] is None:
        return Check(
            name=name,
            status="fail" if folder else "warn",
            found=f"not in {' nor '.join(found['looked'])}",
            advice=f"{found['get']} The tabletop suites need none.",
        )
    place = f"{found['folder']}, {found['needed']} files for 130 tasks"
    for kind, status in (("missing", "fail"), ("stand_ins", "warn")):
        if files := found[kind]:
            words = {"missing": "missing", "stand_ins": "stand-ins (physics is exact, pixels are "
                     "not LIBERO's, and every table says so)"}[kind]  # fmt: skip
            some = ", ".join(files[:2]) + (", ..." if len(files) > 2 else "")
            return Check(
                name=name,
                status=status,  # type: ignore[arg-type]
                found=f"{place}; {len(files)} {words}: {some}",
                advice=found["get"],
            )
    return Check(name=name, status="ok", found=f"complete: {place}")


# ----------------------------------------------------------------------- the machine


def gpu() -> Check:
    """Say which GPUs torch sees; none is fine."""
    found = ask("gpu", _ASK_S)
    if isinstance(found, str):
        return Check(
            name="GPU",
            status="fail" if _version("torch") else "warn",
            found=found,
            advice="`pip install torch`; the instructions at pytorch.org pick the build.",
        )
    if found["names"]:
        return Check(name="GPU", status="ok", found="; ".join(found["names"]))
    if _nvidia():
        return Check(
            name="GPU",
            status="warn",
            found=f"there is an NVIDIA GPU, but torch {found['torch']} does not see it",
            advice="Install a CUDA build of torch that fits the driver (pytorch.org).",
        )
    return Check(name="GPU", status="ok", found="none; policies run on the CPU")


def cache(folder: Path) -> Check:
    """Check that compiled scenes can be kept."""
    name = "cache folder"
    advice = "Set WAMSIM_CACHE to a folder that can be written to and has room."
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"wamsim")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        found = f"cannot be written to ({error.strerror}): {folder}"
        return Check(name=name, status="fail", found=found, advice=advice)
    found = f"{free / 2**30:.1f} GiB free: {folder}"
    if free < _CACHE_BYTES_LEAST:
        return Check(name=name, status="fail", found=found, advice=advice)
    if free < _CACHE_BYTES_ALL:
        advice = f"All LIBERO scenes need up to {_CACHE_BYTES_ALL / 2**30:.0f} GiB. {advice}"
        return Check(name=name, status="warn", found=found, advice=advice)
    return Check(name=name, status="ok", found=found)


def shared_memory(workers: int, folder: Path = Path("/dev/shm")) -> Check:
    """Check that pictures of all slots fit into shared memory."""
    name = "shared memory"
    if not folder.is_dir():  # not Linux
        return Check(name=name, status="ok", found="has no size limit of its own here")
    cameras = ("agentview", "eye_in_hand")
    views = [View(cameras=cameras, size=(256, 256), capacity=looks) for looks in (1, _LOOKS)]
    each = _SLOTS * sum(view.nbytes for view in views)
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**20:.0f} MiB free; {workers} workers need up to {workers * each >> 20} MiB"
    if free >= workers * each:
        return Check(name=name, status="ok", found=found)
    return Check(
        name=name,
        status="warn" if free >= each else "fail",
        found=found,
        advice=f"In Docker run with `--shm-size={max(1, -(-workers * each >> 30))}g`, or use "
        f"`--workers {max(1, free // each)}`.",
    )
