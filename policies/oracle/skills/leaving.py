"""Far and Clear: take the hand away from what it has done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from envs.goals import Predicate
from policies.oracle.geometry import Pose
from policies.oracle.motion import OPEN, Waypoint
from policies.oracle.routes import over
from policies.oracle.skills.base import DONE, Progress, Script
from policies.oracle.view import View

BACK = (0.16, 0.10, 0.05)  # metres along the hand's own axis, as far as the arm goes
SHARE = 0.75  # of the way home, which is farther than any predicate asks for


class Leaving:
    """Serves Far and Clear: back out, then towards the arm's home."""

    def proceed(self, view: View, goal: Predicate, progress: Progress) -> Script:
        """Plan the retreat."""
        here = view.eef
        gap = max(view.finger_gap, 0.0)
        waypoints: list[Waypoint] = []
        for distance in BACK:
            back = here.shifted(-here.rot[:, 2] * distance)
            if view.reach(back, view.arm) is not None:
                waypoints.append(
                    Waypoint(pose=back, gap=gap, straight=True, blend=0.02, label="back out")
                )
                break
        start = waypoints[-1].pose if waypoints else here
        home = view.hand_at(view.body.home)
        away = Pose(start.pos + SHARE * (home.pos - start.pos), start.rot)
        for end in (away, home):
            if view.reach(end) is not None:
                waypoints += over(view, start, end, gap=gap, label="leave")
                break
        else:
            up = start.shifted(np.array([0.0, 0.0, 0.2]))
            waypoints.append(Waypoint(pose=up, gap=OPEN, label="leave"))
        return Script(tuple(waypoints), replace(progress, stage=DONE))

    def failed(self, view: View, progress: Progress) -> bool:
        """A hand that goes has nothing to lose."""
        return False
