"""The genuine LIBERO environment: the reference of tests and `wamsim bench`.

Nothing in an evaluation goes through here; the runtime steps compiled scenes itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from envs.libero import upstream

CAMERAS = ("agentview", "robot0_eye_in_hand")  # ControlEnv's default camera_names


def make_genuine(
    suite: str,
    task_index: int,
    assets: Path,
    *,
    size: int = 256,
    cameras: Sequence[str] = CAMERAS,
    seed: int | None = None,
    rendering: bool = True,
    **kwargs: Any,
) -> Any:
    """Build the genuine environment of a task.

    Args:
        suite: "libero_spatial", ..., "libero_90".
        task_index: Position in the suite.
        assets: Folder of LIBERO's assets.
        size: Height and width of its pictures.
        cameras: Cameras of its observations.
        seed: Given to ``env.seed`` after construction, as evaluation scripts do.
        rendering: False builds the same environment without pictures and OpenGL.
        **kwargs: Passed on to ``ControlEnv``.

    Returns:
        An ``OffScreenRenderEnv`` (``ControlEnv`` when not rendering). Use `reset_genuine`
        on it, not its own ``reset``.
    """
    upstream.import_envs(assets)
    from libero.libero.envs.env_wrapper import ControlEnv, OffScreenRenderEnv

    name = upstream.task_map()[suite][task_index]
    settings: dict[str, Any] = {"bddl_file_name": str(upstream.bddl_path(suite, name))}
    if rendering:
        upstream.enable_rendering()
        settings.update(
            camera_names=list(cameras), camera_heights=size, camera_widths=size, **kwargs
        )
        kind = OffScreenRenderEnv
    else:
        settings.update(use_camera_obs=False, has_offscreen_renderer=False, **kwargs)
        kind = ControlEnv
    env = kind(**settings)
    if seed is not None:
        env.seed(seed)
    return env


def reset_genuine(env: Any, *, attempts: int = 100) -> Any:
    """Reset a genuine environment, trying again only when placement failed.

    ``ControlEnv.reset`` swallows every exception and loops for ever.

    Args:
        env: What `make_genuine` returned.
        attempts: Upper bound on failed placements.

    Returns:
        The observation.
    """
    from robosuite.utils.errors import RandomizationError

    for left in reversed(range(attempts)):
        try:
            return env.env.reset()
        except RandomizationError:
            if not left:
                raise
    raise AssertionError("unreachable")
