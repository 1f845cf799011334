"""The kitchen task that needs the base: driving from one unit to another.

It is a suite of its own, `kitchen_mobile`, for RoboCasa's own reason: NavigateKitchen is an
atomic task there, too, but none of the 24 that papers report. A 25th task of `kitchen` would
move every mean over the suite, and would make the whole suite refuse 7-D policies, which do
the 24 with a base that stands.

Name, words, step limit and success rule are NavigateKitchen's (RoboCasa v0.2,
environments/kitchen/single_stage/kitchen_navigate.py). A scene's ten trials begin before one
unit and differ in where they go.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from envs.kitchen import layouts
from envs.kitchen.layouts import PARKED, PLACES, Pose2, inverse, kitchen_from_robot, place
from envs.kitchen.robot import BASE_RANGE
from envs.kitchen.tasks import PER_SCENE, Entry, generator

NAME = "navigate_kitchen"
# What is nearer needs no drive (NavigateKitchen chooses fixtures that are 1 m apart), and what
# is farther is beyond the base's slides, with room to back out.
NEAREST, ROOM = 1.0, 0.4


def ways(layout: str) -> dict[str, tuple[str, ...]]:
    """Kinds of units -> those that a robot parked before one can be sent to."""
    plan = layouts.layout(layout)
    poses = {kind: kitchen_from_robot(plan, station) for kind, station in PARKED.items()}
    return {
        start: tuple(end for end in poses if _drivable(poses[start], poses[end])) for start in poses
    }


def _drivable(start: Pose2, end: Pose2) -> bool:
    x, y, _ = place(inverse(start), end[0], end[1])  # in the axes of the base's slides
    return float(np.hypot(x, y)) >= NEAREST and max(abs(x), abs(y)) <= BASE_RANGE - ROOM


def _choose(trial: int, layout: str, rng: np.random.Generator) -> Mapping[str, str]:
    """Where from, which the trials of a scene share, and where to, by turns."""
    open_ways = ways(layout)
    # words alone must tell where to, so there is more than one way to go
    starts = [kind for kind in PLACES if len(open_ways[kind]) > 1]
    of_scene = generator(NAME, "start", trial // PER_SCENE)
    start = starts[int(of_scene.integers(len(starts)))]
    ends = of_scene.permutation(open_ways[start])
    kind = str(ends[trial % PER_SCENE % len(ends)])
    return {"station": f"at_{start}", "kind": kind, "fixture": PLACES[kind]}


MOBILE: Mapping[str, Entry] = {
    NAME: Entry(
        name=NAME,
        wordings=(
            "navigate to the {fixture}",
            "drive to the {fixture}",
            "go and park in front of the {fixture}",
        ),
        goal="Parked(place_{kind})",
        max_steps=500,
        station="at_sink",
        choose=_choose,
        plain={"fixture": "fixture", "kind": "sink"},
        start=NAME,
        requires=("base_forward", "base_side", "base_turn", "mode"),
    )
}
