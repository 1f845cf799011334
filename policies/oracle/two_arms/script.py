"""From joint paths to actions: what both arms do, step by step, until somebody looks again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from policies.oracle.geometry import Array

STEP_S = 0.05  # one control step at 20 Hz
SPEED = 1.5  # rad/s of the fastest joint; the servos allow 3.1
RAMP = 5  # steps to full speed and from it: the servos lag 1.3 steps behind
SETTLE = 3  # steps after a motion, in which the servos catch up
STROKE = 8  # steps that fingers take to open or close

ROW = 14  # left 6 and gripper, right 6 and gripper


class Script:
    """Rows of joint targets and openings, begun from what the servos are told now.

    Args:
        joints: [2, 6] targets now.
        opening: [2] commanded openings now, 0 closed to 1 open.
    """

    def __init__(self, joints: Array, opening: Array) -> None:
        self.joints = joints.copy()
        self.opening = opening.copy()
        self.rows: list[Array] = []

    @property
    def actions(self) -> Array:
        """All rows, [T, 14]."""
        return np.array(self.rows).reshape(-1, ROW)

    def _row(self) -> None:
        row = np.empty(ROW)
        for arm in range(2):
            row[7 * arm : 7 * arm + 6] = self.joints[arm]
            row[7 * arm + 6] = self.opening[arm]
        self.rows.append(row)

    def wait(self, steps: int) -> None:
        """Stay."""
        for _ in range(steps):
            self._row()

    def move(self, paths: Mapping[int, Sequence[Array]], speed: float = 1.0) -> None:
        """Move arms along joint waypoints, all arriving together.

        Args:
            paths: arm -> waypoints [6], the present targets not among them.
            speed: Share of the usual speed.
        """
        lines = {arm: np.array([self.joints[arm], *path]) for arm, path in paths.items() if path}
        lengths = {
            arm: np.concatenate([[0.0], np.cumsum(np.abs(np.diff(line, axis=0)).max(1))])
            for arm, line in lines.items()
        }
        longest = max((length[-1] for length in lengths.values()), default=0.0)
        if longest < 1e-4:
            return
        # Trapezoidal speed: a ramp, a plateau, a ramp.
        steps = int(np.ceil(longest / (SPEED * speed * STEP_S))) + RAMP
        t = np.arange(1, steps + 1) / steps
        ramp = min(RAMP / steps, 0.5)
        top = 1.0 / (1.0 - ramp)
        share = np.where(
            t < ramp,
            top * t * t / (2 * ramp),
            np.where(t > 1 - ramp, 1 - top * (1 - t) ** 2 / (2 * ramp), top * (t - ramp / 2)),
        )
        for s in share:
            for arm, line in lines.items():
                at = s * lengths[arm][-1]
                self.joints[arm] = [np.interp(at, lengths[arm], line[:, j]) for j in range(6)]
            self._row()
        self.wait(SETTLE)

    def grip(self, opening: Mapping[int, float], steps: int = STROKE) -> None:
        """Open or close hands, standing still."""
        for arm, value in opening.items():
            self.opening[arm] = value
        self.wait(steps)
