"""Every task as a Gymnasium environment: ids ``wamsim/<suite>-<task index>-v<version>``.

    import gymnasium
    import wamsim  # registers; imports no simulator
    env = gymnasium.make("wamsim/libero_spatial-0-v1")

``gymnasium.make("wamsim:wamsim/libero_spatial-0-v1")`` does without the import.
"""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium

NAMESPACE = "wamsim"


@dataclass(frozen=True, kw_only=True)
class Listed:
    """What an id needs of a suite, written down so that registering imports no simulator.

    Attributes:
        tasks: Number of tasks.
        version: `Suite.version`.
    """

    tasks: int
    version: int = 1


# A test compares this with what the suites say of themselves.
SUITES: dict[str, Listed] = {
    # Liu et al. 2023, arXiv:2306.03310: 130 tasks
    "libero_spatial": Listed(tasks=10),
    "libero_object": Listed(tasks=10),
    "libero_goal": Listed(tasks=10),
    "libero_10": Listed(tasks=10),
    "libero_90": Listed(tasks=90),
    # ours: envs/tabletop/tasks.py
    "tabletop_object": Listed(tasks=5, version=2),
    "tabletop_spatial": Listed(tasks=7, version=2),
    "tabletop_goal": Listed(tasks=8, version=2),
    "tabletop_long": Listed(tasks=6, version=2),
    "kitchen": Listed(tasks=24, version=2),  # ours: envs/kitchen/tasks.py
    "kitchen_mobile": Listed(tasks=1, version=2),  # ours: envs/kitchen/mobile.py
    # ours: envs/bimanual/tasks.py
    "bimanual_clean": Listed(tasks=12, version=2),
    "bimanual_randomized": Listed(tasks=12, version=2),
    "bimanual_clean_eef": Listed(tasks=12, version=2),
    "bimanual_randomized_eef": Listed(tasks=12, version=2),
}


def environment_id(suite: str, task: int) -> str:
    """Give the id of a suite's task by its index."""
    return f"{NAMESPACE}/{suite}-{task}-v{SUITES[suite].version}"


def environment_ids() -> tuple[str, ...]:
    """Give all ids, in benchmark order."""
    return tuple(
        environment_id(suite, task)
        for suite, listed in SUITES.items()
        for task in range(listed.tasks)
    )


def register() -> None:
    """Register every task; those that are registered already stay as they are."""
    for suite, listed in SUITES.items():
        for task in range(listed.tasks):
            name = environment_id(suite, task)
            if name not in gymnasium.registry:
                gymnasium.register(
                    name,
                    entry_point="envs.gym_env:WamsimEnv",
                    kwargs={"suite": suite, "task": task},
                    # The environment truncates at its task's step limit by itself.
                    max_episode_steps=None,
                )
