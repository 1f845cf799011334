"""Six layouts: which units stand along which walls, and where the robot stands before each.

A run is a row of units, left to right as one sees them who stands before it. Its frame has
x to the wall and its origin on the floor at the left end of the fronts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.kitchen.build import DEPTH
from wamsim.errors import nearest

Array = NDArray[np.float64]
Pose2 = tuple[float, float, float]  # x, y, yaw

# kind of unit -> width in metres (envs/kitchen/units.py builds them)
WIDTHS: Mapping[str, float] = {
    "drawers": 0.90,
    "sink": 1.00,
    "stove": 1.20,
    "microwave": 1.00,
    "coffee": 0.80,
    "fridge": 0.80,
    "cupboard": 0.60,
    "corner": DEPTH,
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A row of units along a wall.

    Attributes:
        pose: Of its frame in the kitchen.
        units: Kinds, left to right.
    """

    pose: Pose2
    units: tuple[str, ...]

    @property
    def width(self) -> float:
        """Metres from its left to its right end."""
        return sum(WIDTHS[kind] for kind in self.units)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Rows of units; every kind that a task needs stands once."""

    name: str
    runs: tuple[Run, ...]


def _right_of(run: Run, units: tuple[str, ...]) -> Run:
    """A run along the wall to the right of another, from the corner on."""
    x, y, yaw = run.pose
    assert yaw == 0.0
    return Run(pose=(x, y - run.width, -np.pi / 2), units=units)


def _left_of(run: Run, units: tuple[str, ...]) -> Run:
    """A run along the wall to the left of another, up to the corner."""
    x, y, yaw = run.pose
    assert yaw == 0.0
    width = sum(WIDTHS[kind] for kind in units)
    return Run(pose=(x - width, y, np.pi / 2), units=units)


def _opposite(units: tuple[str, ...], away: float) -> Run:
    """A run that faces the first one, `away` metres between their fronts."""
    return Run(pose=(-away, -sum(WIDTHS[kind] for kind in units), np.pi), units=units)


_LONG = Run(pose=(0, 0, 0), units=("fridge", "drawers", "sink", "stove", "microwave", "coffee"))
_L = Run(pose=(0, 0, 0), units=("fridge", "microwave", "sink", "stove"))
_M = Run(pose=(0, 0, 0), units=("coffee", "drawers", "sink", "cupboard"))
_G = Run(pose=(0, 0, 0), units=("fridge", "stove", "drawers", "cupboard"))
_U = Run(pose=(0, 0, 0), units=("microwave", "sink", "cupboard"))
_W = Run(pose=(0, 0, 0), units=("cupboard", "stove", "coffee", "cupboard"))

LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(name="one_wall", runs=(_LONG,)),
        Layout(name="l_right", runs=(_L, _right_of(_L, ("coffee", "drawers")))),
        Layout(name="l_left", runs=(_M, _left_of(_M, ("fridge", "stove", "microwave")))),
        Layout(name="galley", runs=(_G, _opposite(("microwave", "sink", "coffee"), 2.3))),
        Layout(
            name="u_shape",
            runs=(
                _U,
                _right_of(_U, ("stove", "fridge")),
                _left_of(_U, ("drawers", "coffee")),
            ),
        ),
        Layout(
            name="wraparound",
            runs=(
                _W,
                _right_of(_W, ("sink", "drawers")),
                _left_of(_W, ("fridge", "cupboard", "microwave")),
            ),
        ),
    )
}


def layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        UnknownName: With the nearest known name.
    """
    if name not in LAYOUTS:
        raise nearest(name, LAYOUTS, kind="layout of kitchen")
    return LAYOUTS[name]


@dataclass(frozen=True, kw_only=True)
class Station:
    """Where the robot stands for a task.

    Attributes:
        unit: Kind of unit that it stands before.
        y: Left or right of the unit's middle, metres.
        away: From the fronts to the arm's axis, metres.
        lift: How far the arm has been raised, metres.
        live: Which fixtures of the unit can be touched and moved.
    """

    unit: str
    y: float = 0.0
    away: float = 0.30
    lift: float = 0.0
    live: tuple[str, ...] = ()


STATIONS: Mapping[str, Station] = {
    # A drawer comes out 29 cm with its handle, and must stop before the robot's base.
    "drawers": Station(unit="drawers", away=0.62, live=("drawers",)),
    "cabinet": Station(unit="drawers", away=0.34, lift=0.22, live=("cabinet",)),
    # Open doors stand 40 cm out; their outsides must be within reach.
    "doors": Station(unit="drawers", away=0.46, lift=0.30, live=("cabinet",)),
    "open_doors": Station(unit="drawers", away=0.48, lift=0.30, live=("cabinet",)),
    "single": Station(unit="coffee", away=0.40, lift=0.30, live=("single",)),
    "sink": Station(unit="sink", y=0.0, away=0.24, live=("sink",)),
    "stove": Station(unit="stove", y=0.0, away=0.26, live=("stove",)),
    "knobs": Station(unit="stove", y=0.28, away=0.42, live=("stove",)),
    "microwave": Station(unit="microwave", y=0.08, away=0.40, lift=-0.10, live=("microwave",)),
    "coffee": Station(unit="coffee", y=0.08, away=0.46, lift=-0.10, live=("coffee",)),
}
# Kinds of units that a robot can be sent to -> what people call them. Every layout has each once.
PLACES: Mapping[str, str] = {
    "drawers": "drawers",
    "sink": "sink",
    "stove": "stove",
    "microwave": "microwave",
    "coffee": "coffee machine",
    "fridge": "fridge",
}
# Where it stands there: before the middle of the unit, the arm's hand short of the fronts.
PARKED: Mapping[str, Station] = {kind: Station(unit=kind, away=0.62) for kind in PLACES}


def station(name: str) -> Station:
    """The station of that name: one of `STATIONS`, or ``at_<kind>``, parked before a unit.

    Raises:
        KeyError: There is none.
    """
    return PARKED[name.removeprefix("at_")] if name.startswith("at_") else STATIONS[name]


def place(pose: Pose2, x: float, y: float, yaw: float = 0.0) -> Pose2:
    """A pose that is given in the frame of another."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    return (
        float(pose[0] + c * x - s * y),
        float(pose[1] + s * x + c * y),
        float(pose[2] + yaw),
    )


def inverse(pose: Pose2) -> Pose2:
    """The pose that undoes another."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    return (
        float(-c * pose[0] - s * pose[1]),
        float(s * pose[0] - c * pose[1]),
        float(-pose[2]),
    )


def unit_poses(plan: Layout) -> list[tuple[str, Pose2, Run]]:
    """Kind, pose in the kitchen and run of every unit."""
    out: list[tuple[str, Pose2, Run]] = []
    for run in plan.runs:
        y = 0.0
        for kind in run.units:
            width = WIDTHS[kind]
            out.append((kind, place(run.pose, 0.0, y - width / 2), run))
            y -= width
    return out


def kitchen_from_robot(plan: Layout, station: Station) -> Pose2:
    """Where the robot stands in the kitchen: before a unit, facing it."""
    for kind, pose, _ in unit_poses(plan):
        if kind == station.unit:
            return place(pose, -station.away, station.y)
    raise KeyError(f"layout {plan.name} has no unit {station.unit!r}")
