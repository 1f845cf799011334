"""The tabletop suites: ours, built in code, nothing to download.

Four groups with LIBERO's observation and action contract (Panda, 7-D OSC deltas at
20 Hz, `agentview` and `eye_in_hand`), but not LIBERO's scenes, tasks or scores.

What scripted experts find in a scene, beside things and regions, is described in
`envs.tabletop.objects` (how to grasp things) and `envs.tabletop.fixtures` (handles).
"""

from __future__ import annotations

# The function, not the module of that name: bound once, here, whoever imports the module.
from envs.tabletop.suite import suite

__all__ = ["suite"]
