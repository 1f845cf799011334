"""Things that stand still: pad, basket, shoe box, bell; and marks that goals measure by.

Origins are on the table, below the middle of the thing. Each is a body without a joint, so
its pose is part of an episode (the table may be lower).
"""

from __future__ import annotations

import mujoco
import numpy as np

from envs.bimanual.things import region
from envs.tabletop import shapes, textures
from envs.tabletop.fixtures import basket as tabletop_basket
from envs.tabletop.stage import BOX, CYLINDER, Piece, Stage


def _fixed(stage: Stage, name: str) -> mujoco.MjsBody:
    return stage.spec.worldbody.add_body(name=name)


def pad(stage: Stage, name: str) -> Piece:
    """A blue mat, 17 x 8 cm, on which a bar shall lie: its middle 2 cm above the mat."""
    body = _fixed(stage, name)
    mat = stage.material("pad_cloth", picture=textures.cloth((64, 112, 170)), specular=0.05)
    half = (0.085, 0.040, 0.002)
    stage.draw(body, f"{name}_mat", shapes.rounded_box(half, 0.0015, steps=1, tile=0.09), mat,
               pos=(0, 0, half[2]))  # fmt: skip
    geom = stage.collide(body, f"{name}_box", BOX, half, pos=(0, 0, half[2]))
    # RoboTwin's rule for handover_block: 3 cm in x and y, 1 cm in z.
    mark = region(body, f"{name}_mark", name, (0, 0, 0.024), (0.03, 0.03, 0.01))
    return Piece(
        name=name, category="pad", body=name, geoms=(geom,), free=False, radius=0.094,
        bottom=0.0, top=2 * half[2], regions=(mark,),
    )  # fmt: skip


def basket(stage: Stage, name: str) -> Piece:
    """The tabletop's wicker basket, 17 cm square inside; bread within 5 cm of its middle."""
    made = tabletop_basket(stage, name)
    mark = region(stage.spec.body(name), f"{name}_middle", name, (0, 0, 0.03), (0.05, 0.05, 0.05))
    return Piece(
        name=name, category="basket", body=name, geoms=made.geoms, free=False,
        radius=made.radius, bottom=0.0, top=made.top, regions=(mark,),
    )  # fmt: skip


def shoe_box(stage: Stage, name: str) -> Piece:
    """An open shoe box with a place for each shoe, toes away from the head camera."""
    body = _fixed(stage, name)
    card = stage.material("shoe_box", (0.88, 0.56, 0.22), specular=0.08)
    paper = stage.material("tissue", (0.80, 0.79, 0.76), specular=0.02)
    inner, wall, height = (0.083, 0.096), 0.003, 0.030
    stage.draw_box(body, f"{name}_floor", (inner[0], inner[1], 0.0015), paper, pos=(0, 0, 0.0015))
    geoms = [stage.collide(body, f"{name}_floor_box", BOX, (inner[0], inner[1], 0.0015),
                           pos=(0, 0, 0.0015))]  # fmt: skip
    for axis in (0, 1):
        half = [inner[0] + 2 * wall, inner[1] + 2 * wall, height / 2]
        half[axis] = wall
        for sign in (-1, 1):
            pos = [0.0, 0.0, height / 2]
            pos[axis] = sign * (inner[axis] + wall)
            side = f"{name}_wall_{'xy'[axis]}{'+' if sign > 0 else '-'}"
            stage.draw(body, side, shapes.rounded_box(half, 0.001, steps=1), card,
                       shared=f"{name}_wall_{axis}", pos=pos)  # fmt: skip
            geoms.append(stage.collide(body, f"{side}_box", BOX, half, pos=pos))
    regions = []
    for side, x in (("left", -0.042), ("right", 0.042)):
        # RoboTwin's rule for place_dual_shoes: 5 cm; toes along y, so the slot is turned.
        slot = region(body, f"{name}_{side}_slot", name, (x, 0, 0.032), (0.05, 0.05, 0.05))
        stage.spec.site(slot.site).quat = (float(np.sqrt(0.5)), 0, 0, float(np.sqrt(0.5)))
        regions.append(slot)
    return Piece(
        name=name, category="shoe_box", body=name, geoms=tuple(geoms), free=False,
        radius=float(np.hypot(*inner)), bottom=0.0, top=height, regions=tuple(regions),
    )  # fmt: skip


def bell(stage: Stage, name: str) -> Piece:
    """A reception bell, 8 cm across; its button sinks 4 mm under a finger."""
    body = _fixed(stage, name)
    wood = stage.material("bell_base", (0.20, 0.13, 0.09), specular=0.3)
    brass = stage.material("brass", (0.83, 0.64, 0.24), specular=1.0, shininess=0.85)
    steel = stage.material("bell_button", (0.80, 0.80, 0.82), specular=0.9, shininess=0.8)
    base = [(0, 0), (0.042, 0), (0.042, 0.006), (0.038, 0.010), (0, 0.010)]
    stage.draw(body, f"{name}_base", shapes.turned(base), wood)
    dome = [(0.037, 0.012), (0.037, 0.015), (0.034, 0.025), (0.026, 0.034), (0.014, 0.040),
            (0.0, 0.042)]  # fmt: skip
    stage.draw(body, f"{name}_dome", shapes.turned(dome, crease=1.0), brass)
    geoms = [
        stage.collide(body, f"{name}_foot", CYLINDER, (0.040, 0.006), pos=(0, 0, 0.006)),
        stage.collide(body, f"{name}_dome_lower", CYLINDER, (0.034, 0.008), pos=(0, 0, 0.020)),
        stage.collide(body, f"{name}_dome_upper", CYLINDER, (0.022, 0.005), pos=(0, 0, 0.033)),
    ]
    plunger = body.add_body(name=f"{name}_plunger", pos=(0, 0, 0.042))
    plunger.explicitinertial = True
    plunger.mass, plunger.ipos, plunger.inertia = 0.02, (0, 0, 0.004), (2e-6, 2e-6, 2e-6)
    plunger.add_joint(
        name=f"{name}_button_joint", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, 0, 1),
        limited=True, range=(-0.004, 0.0), stiffness=800.0, damping=4.0, armature=0.01,
    )  # fmt: skip
    plunger.gravcomp = 1.0
    button = [(0.004, -0.004), (0.004, 0.003), (0.010, 0.004), (0.010, 0.008), (0.007, 0.010),
              (0, 0.0105)]  # fmt: skip
    stage.draw(plunger, f"{name}_button", shapes.turned(button, segments=20), steel)
    geoms.append(stage.collide(plunger, f"{name}_button_box", CYLINDER, (0.010, 0.006),
                               pos=(0, 0, 0.004)))  # fmt: skip
    # RoboTwin's rule for click_bell: a finger's contact within 2.5 cm of the button, xy.
    mark = region(body, f"{name}_button", f"{name}", (0, 0, 0.052), (0.025, 0.025, 0.025))
    return Piece(
        name=name, category="bell", body=name, geoms=tuple(geoms), free=False, radius=0.042,
        bottom=0.0, top=0.052, joints=(f"{name}_button_joint",), regions=(mark,),
    )  # fmt: skip


def nail_block(stage: Stage, name: str) -> Piece:
    """A red block, fixed, that a hammer shall hit on its upper side."""
    body = _fixed(stage, name)
    paint = stage.material("paint_red", (0.80, 0.16, 0.14), specular=0.35, shininess=0.5)
    h = 0.025
    stage.draw(body, f"{name}_visual", shapes.rounded_box((h, h, h), 0.003, steps=2), paint,
               shared="block", pos=(0, 0, h))  # fmt: skip
    geom = stage.collide(body, f"{name}_box", BOX, (h, h, h), pos=(0, 0, h))
    # RoboTwin's rule for beat_block_hammer: 2 cm in x and y.
    mark = region(body, f"{name}_top", name, (0, 0, 2 * h), (0.02, 0.02, 0.02))
    return Piece(
        name=name, category="block", body=name, geoms=(geom,), free=False, radius=h * 1.42,
        bottom=0.0, top=2 * h, regions=(mark,),
    )  # fmt: skip
