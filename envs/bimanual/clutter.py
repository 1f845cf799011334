"""Things that have nothing to do with a task; they stand along the edges of the table.

They do not move: as bodies without a joint they cost no time in the solver, and their poses
are part of an episode like those of all that stands still. RoboTwin puts ten on the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mujoco

from envs.bimanual.room import AWAY
from envs.bimanual.shapes import prism
from envs.bimanual.things import bread
from envs.tabletop import dishes, objects, shapes, textures
from envs.tabletop.stage import BOX, Piece, Stage

Builder = Callable[[Stage, str], Piece]


class _Standing(Stage):
    """A stage on which free things have no joint."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.spec)
        self._names = stage._names

    def free_body(self, name: str, mass: float, half: Sequence[float]) -> mujoco.MjsBody:
        return self.spec.worldbody.add_body(name=name, pos=AWAY)


def book(stage: Stage, name: str) -> Piece:
    """A closed book, 15 x 11 x 2.2 cm."""
    half = (0.075, 0.055, 0.011)
    body = stage.free_body(name, 0.3, half)
    cover = stage.material(
        "book_cover",
        picture=textures.carton((38, 86, 92), (214, 178, 96), ("WORLDS",), (238, 226, 196)),
        specular=0.15,
    )
    pages = stage.material("book_pages", (0.93, 0.91, 0.85), specular=0.02)
    stage.draw(body, f"{name}_pages", shapes.rounded_box((0.073, 0.053, 0.009), 0.001, steps=1),
               pages)  # fmt: skip
    for sign in (-1, 1):
        stage.draw(
            body, f"{name}_cover{sign}", shapes.rounded_box((*half[:2], 0.0015), 0.001, steps=1,
            atlas=True), cover, shared="book_cover", pos=(0, 0, sign * (half[2] - 0.0015)),
        )  # fmt: skip
    geom = stage.collide(body, f"{name}_box", BOX, half)
    return Piece(
        name=name, category="book", body=name, geoms=(geom,), free=False, radius=0.093,
        bottom=-half[2], top=half[2],
    )  # fmt: skip


def milk(stage: Stage, name: str) -> Piece:
    """A milk carton with a gable, 5.2 x 5.2 x 11 cm."""
    side, half, eaves = 0.026, 0.056, 0.034
    body = stage.free_body(name, 0.16, (side, side, half))
    paper = stage.material(
        "clutter_milk_paper",
        picture=textures.carton(
            (240, 244, 250), (44, 110, 190), ("MILK", "fresh"), (30, 80, 160), sun=(250, 205, 70)
        ),
    )
    roof = stage.material("clutter_milk_roof", (0.20, 0.45, 0.76))
    box = shapes.rounded_box((side, side, (eaves + half) / 2), 0.002, steps=1, atlas=True)
    stage.draw(body, f"{name}_paper", box, paper, shared="clutter_milk_paper",
               pos=(0, 0, (eaves - half) / 2))  # fmt: skip
    gable = [(-side, eaves - 0.001), (side, eaves - 0.001), (0.003, half - 0.008),
             (0.003, half), (-0.003, half), (-0.003, half - 0.008)]  # fmt: skip
    stage.draw(body, f"{name}_gable", prism(gable, 2 * side, crease=0.3), roof,
               shared="clutter_milk_gable")  # fmt: skip
    geom = stage.collide(body, f"{name}_box", BOX, (side, side, half - 0.006), pos=(0, 0, -0.006))
    return Piece(
        name=name, category="carton", body=name, geoms=(geom,), free=False, radius=side * 1.42,
        bottom=-half, top=half,
    )  # fmt: skip


# name -> (builder, radius, height of its middle above the table), metres. Tall things stand
# at the back, behind everything that moves; low ones at the front too.
TALL: dict[str, tuple[Builder, float, float]] = {
    "clutter_can": (objects.can, 0.030, 0.0475),
    "clutter_milk": (milk, 0.037, 0.056),
    "clutter_cereal": (objects.cereal, 0.047, 0.055),
    "clutter_ketchup": (objects.bottle, 0.027, 0.060),
    "clutter_can_2": (objects.can, 0.030, 0.0475),
    "clutter_milk_2": (milk, 0.037, 0.056),
}
LOW: dict[str, tuple[Builder, float, float]] = {
    "clutter_cookies": (objects.cookie_box, 0.090, 0.020),
    "clutter_cheese": (objects.cream_cheese, 0.036, 0.013),
    "clutter_ramekin": (dishes.ramekin, 0.039, 0.022),
    "clutter_book": (book, 0.094, 0.011),
    "clutter_loaf": (bread, 0.047, 0.022),
    "clutter_cheese_2": (objects.cream_cheese, 0.036, 0.013),
}
ALL: dict[str, Any] = {**TALL, **LOW}


def add(stage: Stage) -> None:
    """Add all of them, far away."""
    standing = _Standing(stage)
    for name, (build, _, _) in ALL.items():
        build(standing, name)
