"""Parked: drive the base to a place on the floor and face as one does who stands there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from envs.goals import Predicate
from policies.oracle.driving import Base, Stop, clearance
from policies.oracle.geometry import Array, Solids
from policies.oracle.skills.base import DONE, Progress, Script
from policies.oracle.view import View
from wamsim.errors import PolicyFault

MARGIN = 0.04  # metres kept from what stands around, wherever the robot may turn
BESIDE = 0.02  # the same where it only slides
STEP = 0.05  # metres between the points at which a way is looked at
FARTHEST = 1.4  # metres that it may slide from a unit before it can turn
CORNERS = 0.25  # metres between the places at which a way may bend


class Driving:
    """Serves Parked.

    Out from the unit without turning, to where there is room to turn; over the free floor,
    turning on the way; then straight in. Kitchens leave one convex piece of floor free, so
    one line does; where it is blocked, the way bends once.
    """

    def __init__(self, view: View) -> None:
        self._base = Base(view)

    def proceed(self, view: View, goal: Predicate, progress: Progress) -> Script:
        """Plan the way from where the robot is."""
        centre, rotation = view.world.site(view.scene.region(goal.args[0]))
        end = Stop(
            x=float(centre[0]), y=float(centre[1]), yaw=math.atan2(rotation[1, 0], rotation[0, 0])
        )
        here = self._base.now(view)
        floor = _Floor(view, self._base)
        out, entry = floor.room_near(here), floor.room_near(end)
        way = floor.way(out, entry) if out is not None and entry is not None else None
        if out is None or entry is None or way is None:
            raise PolicyFault(
                f"the oracle has no plan for {goal}: it finds no way over the floor that is wide "
                f"enough to turn in. Run this task with another policy."
            )
        # It turns when it is out, not on the way out.
        stops = [Stop(x=float(out[0]), y=float(out[1]), yaw=here.yaw)]
        stops += [Stop(x=float(x), y=float(y), yaw=end.yaw, passed=True) for x, y in way[1:-1]]
        stops += [Stop(x=float(entry[0]), y=float(entry[1]), yaw=end.yaw), end]
        return Script((), replace(progress, stage=DONE), stops=tuple(stops))

    def failed(self, view: View, progress: Progress) -> bool:
        """A base cannot slip: the predicate is asked again at the end."""
        return False


class _Floor:
    """What is free of it, for one robot."""

    def __init__(self, view: View, base: Base) -> None:
        self._low, self._high = base.low, base.high
        self._obstacles: Solids = base.obstacles(view)
        self._room = base.radius(view) + MARGIN
        self._outline = base.outline(view)

    def room_near(self, place: Stop) -> Array | None:
        """The nearest point [2] at which there is room to turn, and that a slide leads to."""
        turn = np.array(
            [
                [math.cos(place.yaw), -math.sin(place.yaw)],
                [math.sin(place.yaw), math.cos(place.yaw)],
            ]
        )
        outline = self._outline @ turn.T
        for point in _around(place.pos):
            if not self._has_room(point[None]).all():
                continue
            swept = (_between(place.pos, point)[:, None] + outline).reshape(-1, 2)
            if (clearance(swept, self._obstacles) > BESIDE).all():
                return point
        return None

    def way(self, start: Array, end: Array) -> list[Array] | None:
        """Points [2] to go through, the ends included; None where a way would bend twice."""
        if self._is_free(start, end):
            return [start, end]
        low = np.maximum(np.minimum(start, end) - FARTHEST, self._low)
        high = np.minimum(np.maximum(start, end) + FARTHEST, self._high)
        grid = np.stack(
            np.meshgrid(*(np.arange(a, b, CORNERS) for a, b in zip(low, high, strict=True))), -1
        ).reshape(-1, 2)
        bends = grid[self._has_room(grid)]
        length = np.hypot(*(bends - start).T) + np.hypot(*(bends - end).T)
        for bend in bends[np.argsort(length, kind="stable")]:
            if self._is_free(start, bend) and self._is_free(bend, end):
                return [start, bend, end]
        return None

    def _is_free(self, start: Array, end: Array) -> bool:
        return bool(self._has_room(_between(start, end)).all())

    def _has_room(self, points: Array) -> np.ndarray:
        inside = np.all((points > self._low) & (points < self._high), axis=1)
        return inside & (clearance(points, self._obstacles) > self._room)


def _around(place: Array) -> Iterator[Array]:
    """Points around a place, nearer ones first, itself among them."""
    yield place
    for ring in range(1, round(FARTHEST / STEP) + 1):
        for k in range(24):
            angle = 2 * math.pi * k / 24
            yield place + ring * STEP * np.array([math.cos(angle), math.sin(angle)])


def _between(start: Array, end: Array) -> Array:
    """Points [P, 2] along a line, no more than `STEP` apart, the ends included."""
    count = max(2, math.ceil(float(np.hypot(*(end - start))) / STEP) + 1)
    return start + np.linspace(0.0, 1.0, count)[:, None] * (end - start)
