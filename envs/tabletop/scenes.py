"""The scenes of the tabletop suites, assembled from pieces and compiled."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco

from envs.scene import Scene, SceneInfo
from envs.tabletop import dishes, fixtures, objects, panda
from envs.tabletop.room import TABLE_TOP_Z, new_stage
from envs.tabletop.stage import Piece, Stage, yaw_quat

# public name -> camera in the model
CAMERAS: Mapping[str, str] = {
    "agentview": "agentview",
    "eye_in_hand": panda.EYE_IN_HAND,
    "frontview": "frontview",
}

Builder = Callable[[Stage, str], Piece]


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """A fixture of a scene.

    Attributes:
        build: Adds it to a stage.
        x, y, yaw: Its nominal place on the table.
        footprint: Boxes (x0, y0, x1, y1) in its own frame that nothing starts on.
    """

    build: Builder
    x: float
    y: float
    yaw: float = 0.0
    footprint: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What stands in a scene."""

    fixtures: Mapping[str, Fixed]
    objects: Mapping[str, Builder]


_BASKET_FOOTPRINT = ((-0.097, -0.097, 0.097, 0.097),)
_STOVE_FOOTPRINT = ((-0.120, -0.090, 0.120, 0.090),)
_CABINET_FOOTPRINT = ((-0.114, -0.100, 0.114, 0.112), (-0.036, 0.112, 0.036, 0.160))  # handle

RECIPES: dict[str, Recipe] = {
    "tabletop_grocery": Recipe(
        fixtures={
            "basket": Fixed(build=fixtures.basket, x=-0.06, y=0.23, footprint=_BASKET_FOOTPRINT),
        },
        objects={
            "can": objects.can,
            "milk": objects.milk,
            "cereal": objects.cereal,
            "bread": objects.bread,
            "ketchup": objects.bottle,
        },
    ),
    "tabletop_bowls": Recipe(
        fixtures={
            "stove": Fixed(build=fixtures.stove, x=-0.20, y=0.25, footprint=_STOVE_FOOTPRINT)
        },
        objects={
            "bowl_1": dishes.bowl,
            "bowl_2": dishes.bowl,
            "plate": dishes.plate,
            "ramekin": dishes.ramekin,
            "cookie_box": objects.cookie_box,
        },
    ),
    "tabletop_kitchen": Recipe(
        fixtures={
            # Its drawer opens towards the middle of the table and ends short of the bowl.
            "cabinet": Fixed(
                build=fixtures.cabinet, x=-0.13, y=-0.33, footprint=_CABINET_FOOTPRINT
            ),
            "stove": Fixed(
                build=fixtures.stove_with_mat, x=-0.20, y=0.27, footprint=_STOVE_FOOTPRINT
            ),
        },
        objects={"bowl": dishes.bowl, "plate": dishes.plate, "cream_cheese": objects.cream_cheese},
    ),
}


def cache_key(scene_id: str) -> dict[str, str]:
    """Everything that a compiled scene depends on: our source, and what it is built with."""
    source = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        source.update(path.name.encode() + b"\0" + path.read_bytes())
    return {
        "scene": scene_id,
        "source": source.hexdigest(),
        "mujoco": mujoco.__version__,
        "pillow": importlib.metadata.version("pillow"),  # draws the labels
        **panda.provenance(),
    }


def build(scene_id: str) -> Scene:
    """Compile a scene (under a second)."""
    recipe = RECIPES[scene_id]
    stage = new_stage(scene_id)
    panda.add_panda(stage.spec)
    pieces: list[Piece] = []
    places: dict[str, dict[str, Any]] = {}
    # Free things first, so that qpos is arm, fingers, things, fixture joints, as in LIBERO.
    for name, make in recipe.objects.items():
        pieces.append(make(stage, name))
    for name, fixed in recipe.fixtures.items():
        pieces.append(fixed.build(stage, name))
        body = stage.spec.body(name)
        body.pos = (fixed.x, fixed.y, TABLE_TOP_Z)
        body.quat = yaw_quat(fixed.yaw)
        places[name] = {
            "pose": [fixed.x, fixed.y, TABLE_TOP_Z, fixed.yaw],
            "footprint": [list(box) for box in fixed.footprint],
        }
    model = stage.spec.compile()
    info = SceneInfo(
        id=scene_id,
        robot=panda.ROBOT,
        things=tuple(piece.thing(model) for piece in pieces),
        regions=tuple(region for piece in pieces for region in piece.regions),
        cameras=dict(CAMERAS),
        observe_like_libero=False,
        placement={
            "fixtures": places,
            "grasps": {piece.name: piece.grasps for piece in pieces if piece.grasps},
        },
        provenance=cache_key(scene_id),
    )
    return Scene(model=model, info=info)
