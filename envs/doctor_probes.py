"""What the doctor tries in child processes, where a crash or a hang hurts nobody.

This module imports no simulator; the probes do, in their processes. Each prints one line
of JSON, its last; libraries may print what they like before.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

# A red ball before a camera: enough to see that a driver draws.
_BALL = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="sphere" size="0.5" rgba="1 0 0 1"/>
    <camera name="above" pos="0 0 2"/>
  </worldbody>
</mujoco>
"""
_PIXELS = 64
_STEPS = 20  # one simulated second


# What PyOpenGL and MuJoCo say, and what it means.
_SIGNS = {
    "eglQueryString": "libEGL cannot be loaded",
    "glGetError": "libOSMesa, or all OpenGL libraries, cannot be loaded",
    "gladLoadGL": "there is no display to draw on",
}


def ask(
    probe: str, timeout_s: float, *arguments: str, env: dict[str, str] | None = None
) -> dict[str, Any] | str:
    """Run a probe in a child process.

    Args:
        probe: Name of a function below.
        timeout_s: Until it is taken to hang.
        arguments: Of the probe.
        env: Environment variables to change.

    Returns:
        What it answered, or a sentence that says how it failed.
    """
    code = f"import sys; from envs import doctor_probes; doctor_probes.{probe}(*sys.argv[1:])"
    command = [sys.executable, "-c", code, *arguments]
    # An uninstalled checkout too. mujoco writes PYOPENGL_PLATFORM where it was imported.
    everywhere = os.pathsep.join(path for path in sys.path if path)
    child = {**os.environ, "PYTHONPATH": everywhere, **(env or {})}
    if env:
        child.pop("PYOPENGL_PLATFORM", None)
    run = partial(subprocess.run, capture_output=True, text=True, errors="replace", check=False)
    try:
        done = run(command, env=child, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout_s:g} s"
    if done.returncode == 0 and done.stdout.strip():
        return json.loads(done.stdout.strip().splitlines()[-1])
    if done.returncode < 0:
        return f"crashed with signal {-done.returncode}"
    # The exception's line ends the traceback; what fails later, in destructors, is no news.
    trace = done.stderr.partition("Exception ignored in")[0].splitlines()
    lines = [line for line in trace if re.match(r"[A-Za-z_][\w.]*(:|$)", line)]
    reason = (lines or [f"ended with exit code {done.returncode}"])[-1]
    return next((f"{words} ({reason})" for sign, words in _SIGNS.items() if sign in reason), reason)


def answer(found: dict[str, Any]) -> None:
    """Print what was found, for `ask` to read."""
    print("\n" + json.dumps(found), flush=True)


def opengl() -> None:
    """Make a context, say whose it is, and draw."""
    import mujoco

    from envs.rendering import gl_strings

    found = gl_strings()
    model: Any = mujoco.MjModel.from_xml_string(_BALL)  # type: ignore[attr-defined]
    data: Any = mujoco.MjData(model)  # type: ignore[attr-defined]
    mujoco.mj_forward(model, data)  # type: ignore[attr-defined]
    renderer = mujoco.Renderer(model, _PIXELS, _PIXELS)
    renderer.update_scene(data, "above")
    red, green, _ = (float(x) for x in renderer.render()[_PIXELS // 2, _PIXELS // 2])
    answer({**found, "drew": red > 50 and green < red / 2})


def stepping(cache_dir: str) -> None:
    """Step a small scene through the compiled loop; needs no OpenGL."""
    import numpy as np

    from envs import goals, stepping
    from envs.runtime import Simulation
    from envs.scene import SuiteOptions
    from wamsim import registry
    from wamsim.contracts import EpisodeKey

    backend = registry.suite("tabletop_goal", SuiteOptions(cache_dir=Path(cache_dir)))
    task = backend.suite.tasks[0]
    scene = backend.scene(task)
    simulation = Simulation(scene, goals.parse(task.goal))
    key = EpisodeKey(task.suite, task.name, 0)
    simulation.start(backend.start(scene, task, key, 0))
    hold = np.array(task.action.hold)
    began = time.perf_counter()
    simulation.step(hold)
    first = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(_STEPS):
        simulation.step(hold)
    rate = _STEPS / (time.perf_counter() - began)
    stats = stepping.run_env_step.stats
    answer(
        {
            "first_s": first,
            "steps_per_s": rate,
            "compiled": bool(sum(stats.cache_misses.values())),
            "cache": str(stats.cache_path),
            "finite": bool(np.isfinite(simulation.state()).all()),
        }
    )


def libero(folder: str) -> None:
    """Compare what the 130 tasks need with what a folder holds ("" looks for one)."""
    from envs.libero import assets, bddl, upstream

    given = Path(folder) if folder else None
    found = assets.find(given)
    looked = [given] if given else assets.default_folders()
    if found is None:
        answer({"folder": None, "looked": [str(f) for f in looked], "get": assets.how_to_get()})
        return
    needed: set[str] = set()
    missing: set[str] = set()
    stand_ins: set[str] = set()
    for suite, names in upstream.task_map().items():
        for name in names:
            problem = bddl.read(upstream.bddl_path(suite, name))
            of_task = assets.completeness(problem, found)
            needed |= set(of_task.needed)
            missing |= set(of_task.missing)
            stand_ins |= set(of_task.stand_ins)
    answer(
        {
            "folder": str(found),
            "needed": len(needed),
            "missing": sorted(missing),
            "stand_ins": sorted(stand_ins),
            "get": assets.how_to_get(),
        }
    )


def gpu() -> None:
    """Ask torch for GPUs."""
    import torch

    cuda: Any = torch.cuda
    names: list[str] = []
    if cuda.is_available():
        for i in range(cuda.device_count()):
            gib = cuda.get_device_properties(i).total_memory / 2**30
            names.append(f"{cuda.get_device_name(i)}, {gib:.0f} GiB")
    answer({"names": names, "torch": torch.__version__, "cuda": torch.version.cuda})
