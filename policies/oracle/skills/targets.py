"""Where a predicate wants a thing's body origin, and where the thing comes to rest there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from envs.goals import Predicate
from envs.kitchen.predicates import SLACK, receptacle_radius
from envs.scene import Region
from policies.oracle.geometry import Array, Pose
from policies.oracle.view import View
from wamsim.errors import PolicyFault

ON_THING = np.array([0.012, 0.012])  # metres; On allows 0.03 between the origins
ENCLOSED = ("In", "Inside", "CentreIn", "AtSpot")
IN_DISH = ("InReceptacle", "Touching")
OVER_DISH = 0.15  # metres above a dish's middle up to which a roof counts as one
SPOT_HALF = 0.05  # half height of what a spot is made for: a mug
WALL = 0.015  # metres between a thing and the walls of a basin
EDGE = 0.012  # metres higher than the lowest place: there a thing would stand on an edge
# Rings of places around the middle, by their share of the way to the edge.
RINGS = (0.0, 0.35, 0.65)
SHARED_RINGS = (0.8, 0.65, 0.5, 0.3, 0.0)  # where others come as well, the middle comes last
BETWEEN = (0.2, 0.1)  # the same, around the lowest place of a ring


class Target:
    """The second argument of an On or In, as it is now.

    Attributes:
        thing: The thing that goes there.
        centre: [3] middle of the target.
        extent: [2] half sizes of where the body origin may be, horizontally.
        region: True when the target is a region, False when it is a thing.
        inside: True when the thing goes in, False when it goes on.
    """

    def __init__(self, view: View, goal: Predicate) -> None:
        self._view, self._goal = view, goal
        self.thing = view.scene.thing(goal.args[0])
        self.inside = goal.name in ENCLOSED
        region = _region(view, goal)
        self.region = region is not None
        if region is not None:
            centre, rotation = view.world.site(region)
            self.centre, self._rotation = centre.copy(), rotation.copy()
            self._size = np.asarray(region.size)
            self.half = np.abs(rotation @ self._size)
            self.extent = self.half[:2]
            self._narrow()
            self.floor, self.rim = float(self.centre[2] - self.half[2]), 0.0
        else:
            dish = view.scene.thing(goal.args[1])
            self.centre = view.pose(dish).pos
            self.extent = ON_THING
            self.floor = float(self.centre[2] + dish.bottom)
            self.rim = dish.top - dish.bottom  # to be passed over on the way in
            if goal.name in IN_DISH:
                radius = receptacle_radius(dish)
                self.half = np.array([radius, radius, OVER_DISH])
                self.extent = np.minimum(0.5 * self.half[:2], 0.03)

    @property
    def enters(self) -> bool:
        """Whether the thing may come in through a side: into a region, or a dish in one."""
        return self._goal.name in IN_DISH if not self.region else self.inside

    def _narrow(self) -> None:
        """Leave out where a thing's middle cannot be, or should not."""
        if self._goal.name == "AtSpot":  # the site is in the middle of what stands there
            self.half = np.array([*(0.5 * self.half[:2]), SPOT_HALF])
        elif self._goal.name == "Inside":
            margin = max(0.0, self.thing.radius - 0.5 * SLACK)
            self.half = self.half - np.array([margin, margin, 0.0])
        elif self._goal.name == "CentreIn":
            margin = self.thing.radius + WALL
            self.half = self.half - np.array([margin, margin, 0.0])
        self.extent = np.maximum(self.half[:2], 0.005)

    def holds_at(self, pos: Array) -> bool:
        """Whether a body origin there is where the predicate wants it (contact aside)."""
        if not self.region:
            return True
        if self._goal.name == "Touching":
            return bool(np.all(np.abs(pos[:2] - self.centre[:2]) < self.half[:2]))
        if self.inside:
            within = np.abs(pos[:2] - self.centre[:2]) < self.half[:2]
            return bool(np.all(within) and pos[2] < self.centre[2] + self.half[2])
        # 0.10 m above the site and R, not R transposed: as envs.goals has it
        d = self._rotation @ (pos - self.centre)
        return bool(np.all(np.abs(d[:2]) < self._size[:2]) and d[2] < self._size[2] + 0.10)

    def spots(self, shared: bool) -> list[Array]:
        """Places for the body origin [3] at the target's height, best first."""
        out: list[Array] = []
        for share in SHARED_RINGS if shared else RINGS:
            out += _ring(self.centre, share * self.extent) if share else [self.centre]
        return out

    def towards(self, way: Array, depth: float, aside: float = 0.0) -> Array:
        """A place between the middle (0) and the side from which one comes in (1)."""
        across = np.array([-way[1], way[0], 0.0])
        spot = self.centre - way * (depth * float(np.abs(way[:2]) @ self.extent))
        return spot + across * (aside * float(np.abs(across[:2]) @ self.extent))

    def rest(self, spot: Array, rot: Array, *, fixtures_only: bool = False) -> float:
        """Height of the body origin when the thing is let down over a spot from above.

        Args:
            spot: [3], its height does not matter.
            rot: Orientation of the thing.
            fixtures_only: True to pass through other free things.
        """
        low = float(self.centre[2]) - 0.10
        return self._view.rest_height(self.thing, Pose(spot, rot), low, fixtures_only=fixtures_only)

    def rest_inside(self, spot: Array, rot: Array) -> float | None:
        """The same under a roof: from the region's floor up to where the thing is free."""
        floor, roof = self.floor, self.centre[2] + self.half[2]
        return self._view.lowest_free(self.thing, Pose(spot, rot), float(floor), float(roof))

    def level(self, spots: Sequence[Array], rot: Array) -> Iterator[Array]:
        """The spots in order, without those where the thing would stand on an edge.

        After the first, places around the lowest one are looked at as well.
        """
        yield spots[0]
        found = [(self.rest(spot, rot), k, spot) for k, spot in enumerate(spots)]
        for share in BETWEEN:
            _, _, around = min(found, key=lambda f: f[:2])
            for spot in _ring(around, share * self.extent):
                found.append((self.rest(spot, rot), len(found), spot))
        lowest = min(f[0] for f in found)
        for height, k, spot in found:
            if k and height < lowest + EDGE:
                yield spot


def _region(view: View, goal: Predicate) -> Region | None:
    """The region that a predicate names, or that a fixture to be touched has for it."""
    scene, name = view.scene, goal.args[1]
    if scene.has_region(name):
        return scene.region(name)
    if goal.name != "Touching" or scene.thing(name).free_joint is not None:
        return None
    for region in scene.info.regions:
        if region.parent == name:
            return region
    raise PolicyFault(
        f"the oracle has no plan for {goal}: {name!r} has no region where a thing could stand. "
        f"Run this task with another policy."
    )


def _ring(centre: Array, radii: Array) -> list[Array]:
    angles = np.arange(8) * np.pi / 4
    return [centre + np.array([radii[0] * np.cos(a), radii[1] * np.sin(a), 0.0]) for a in angles]
