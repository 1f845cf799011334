"""The scenes of the tabletop suites, assembled from pieces and compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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
    """A fixture of a scene: nominal place on the table and footprint for the sampler."""

    build: Builder
    x: float
    y: float
    yaw: float = 0.0
    footprint: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What stands in a scene."""

    fixtures: Mapping[str, Fixed]
    objects: Mapping[str, Builder]


_STOVE_FOOTPRINT = (0.120, 0.090)

RECIPES: dict[str, Recipe] = {
    "tabletop_grocery": Recipe(
        fixtures={
            "basket": Fixed(build=fixtures.basket, x=-0.06, y=0.23, footprint=(0.092, 0.092)),
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
        fixtures={"stove": Fixed(build=fixtures.stove, x=-0.20, y=0.25, footprint=_STOVE_FOOTPRINT)},
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
            "cabinet": Fixed(build=fixtures.cabinet, x=-0.13, y=-0.33, footprint=(0.114, 0.112)),
            "stove": Fixed(
                build=fixtures.stove_with_mat, x=-0.20, y=0.27, footprint=_STOVE_FOOTPRINT
            ),
        },
        objects={"bowl": dishes.bowl, "plate": dishes.plate, "cream_cheese": objects.cream_cheese},
    ),
}


def build(scene_id: str) -> Scene:
    """Compile a scene (under a second)."""
    recipe = RECIPES[scene_id]
    stage = new_stage(scene_id)
    panda.add_panda(stage.spec)
    pieces: list[Piece] = []
    places: dict[str, dict[str, Sequence[float]]] = {}
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
            "footprint": list(fixed.footprint),
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
        provenance={**panda.provenance(), "mujoco": mujoco.__version__},
    )
    return Scene(model=model, info=info)
