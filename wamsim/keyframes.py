"""Keyframes: the moments of a demonstration at which a gripper closes or opens.

Where the hand will be at the next one is what a policy must see to get there, it is the same
for many steps, and it is known from the demonstration alone, whatever it was recorded with.
Source: James and Davison 2022 (arXiv:2105.14829), section 3.3, keyframe discovery.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wamsim.conventions import ActionConvention


def next_keyframes(actions: NDArray[np.float32], convention: ActionConvention) -> NDArray[np.int64]:
    """Give each step's next keyframe: the later step at which a gripper is told otherwise.

    Args:
        actions: [S, A].
        convention: What they mean; a gripper is told otherwise when its channel crosses the
            middle of its bounds.

    Returns:
        [S], each above its own step; S, the state after the last action, behind the last one.
    """
    steps, channels = len(actions), convention.grippers
    middle = [(convention.low[c] + convention.high[c]) / 2 for c in channels]
    told = actions[:, channels] > middle
    changes = np.flatnonzero((told[1:] != told[:-1]).any(axis=1)) + 1
    moments = np.append(changes, steps)
    return moments[np.searchsorted(moments, np.arange(steps), side="right")]
