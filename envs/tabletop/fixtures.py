"""Things without a free joint: basket, cabinet, stove. Their poses vary per episode.

Origins are on the table, below the middle of the thing. Handle hints, for scripted
experts (`SceneInfo.placement["grasps"]`):

    {"kind": "handle", "region": name, "joint": name, "site": name, "axis": [x, y, z],
     "yaw": a, "width": w}
        Close around the site from above, fingers opening along the direction `a`
        (radians from the site's x), then pull along `axis` (the site's frame) to open,
        against it to close. The joint's position falls while it opens. A bowl is set
        into the drawer with the fingers opening across it (the cabinet's x): finger tips
        at its rim clear the tray's low sides, but not the front.
    {"kind": "knob", "joint": name, "site": name, "axis": [x, y, z], "yaw": a,
     "width": w, "length": l}
        A lever through the site, l metres long, w wide. Close around it with fingers
        opening along `a`, and turn by the right-hand rule about `axis` to turn it on;
        or push its end sideways.
"""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np

from envs.scene import Articulation, Region, Threshold
from envs.tabletop import shapes, textures
from envs.tabletop.stage import BOX, CYLINDER, Piece, Stage


def basket(stage: Stage, name: str) -> Piece:
    """A wicker basket, 17 cm square inside and 8 cm high."""
    inner, wall, height, floor = 0.085, 0.006, 0.080, 0.006
    body = stage.spec.worldbody.add_body(name=name)
    wicker = stage.material("wicker", picture=textures.weave((206, 158, 98)), specular=0.05)
    rim = stage.material("wicker_rim", (0.62, 0.43, 0.24), specular=0.1)
    outer = inner + 2 * wall
    at_floor = (0, 0, floor / 2)
    bottom = (outer - 0.002, outer - 0.002, floor / 2)
    stage.draw(
        body,
        f"{name}_floor",
        shapes.rounded_box(bottom, 0.002, steps=1, tile=0.06),
        wicker,
        pos=at_floor,
    )
    geoms = [stage.collide(body, f"{name}_floor_box", BOX, bottom, pos=at_floor)]
    for axis in (0, 1):
        half = [outer, outer, height / 2]
        half[axis] = wall
        edge = [outer + 0.002, outer + 0.002, 0.006]
        edge[axis] = wall + 0.002
        for sign in (-1, 1):
            pos = [0.0, 0.0, height / 2]
            pos[axis] = sign * (inner + wall)
            side = f"{name}_wall_{'xy'[axis]}{'+' if sign > 0 else '-'}"
            stage.draw(
                body, side, shapes.rounded_box(half, 0.003, steps=1, tile=0.06), wicker,
                shared=f"{name}_wall_{axis}", pos=pos,
            )  # fmt: skip
            stage.draw(
                body, f"{side}_rim", shapes.rounded_box(edge, 0.005, steps=2), rim,
                shared=f"{name}_rim_{axis}", pos=(*pos[:2], height - 0.004),
            )  # fmt: skip
            geoms.append(stage.collide(body, f"{side}_box", BOX, half, pos=pos))
    # In: the centre between the walls and at most 1 cm above the rim. What leans in a corner
    # is in; what lies across the rim (its centre 2 cm or more above it) is not.
    top = height + 0.01
    size = (inner, inner, (top - floor) / 2)
    region = _region(body, f"{name}_region", name, (0, 0, (top + floor) / 2), size)
    return Piece(
        name=name, category="basket", body=name, geoms=tuple(geoms), free=False,
        radius=outer * 1.42, bottom=0.0, top=height, regions=(region,),
        half_extents=(inner, inner, height),
    )  # fmt: skip


# LIBERO's wooden_cabinet: slides of 0.16 m, open below -0.14, closed above 0 with 1 cm of
# overtravel (articulated_objects.py); ours has no overtravel, so closed is the last 5 mm.
DRAWER_TRAVEL = 0.16
DRAWER = Articulation(open=Threshold(below=-0.14), close=Threshold(above=-0.005))


def cabinet(stage: Stage, name: str) -> Piece:
    """A cabinet with two drawers that open along +y; the upper one has a handle."""
    half_x, half_y, height, panel = 0.110, 0.100, 0.172, 0.008
    world = stage.spec.worldbody
    body = world.add_body(name=name)
    walnut = stage.material(
        "walnut", picture=textures.wood((122, 78, 48), planks=2, contrast=1.6, seed=7), specular=0.3
    )
    geoms = []
    for key, half, pos in (
        ("roof", (half_x + 0.004, half_y + 0.006, panel / 2), (0, 0.004, height - panel / 2)),
        ("bottom", (half_x, half_y, panel / 2), (0, 0, panel / 2)),
        ("middle", (half_x - panel, half_y - 0.004, 0.003), (0, -0.004, 0.079)),
        (
            "back",
            (half_x - panel, panel / 2, height / 2 - panel),
            (0, -half_y + panel / 2, height / 2),
        ),
        ("left", (panel / 2, half_y, height / 2 - panel), (-half_x + panel / 2, 0, height / 2)),
        ("right", (panel / 2, half_y, height / 2 - panel), (half_x - panel / 2, 0, height / 2)),
    ):
        mesh = shapes.rounded_box(half, 0.0015 if key != "roof" else 0.003, steps=1, tile=0.25)
        stage.draw(body, f"{name}_{key}", mesh, walnut, pos=pos)
        geoms.append(stage.collide(body, f"{name}_{key}_box", BOX, half, pos=pos))
    drawers = (("top", 0.123, 0.0395), ("bottom", 0.043, 0.0335))
    regions = []
    for level, z, front in drawers:
        drawer_geoms, region = _drawer(stage, body, name, level, z, front, half_x - panel)
        geoms += drawer_geoms
        regions.append(region)
    size = (half_x - 0.01, half_y - 0.01, 0.002)
    regions.append(_region(body, f"{name}_top_side", name, (0, 0, height), size))
    return Piece(
        name=name, category="drawer_cabinet", body=name, geoms=tuple(geoms), free=False,
        joints=tuple(f"{name}_{level}_joint" for level, *_ in drawers), articulation=DRAWER,
        radius=float(np.hypot(half_x, half_y)), bottom=0.0, top=height, regions=tuple(regions),
        grasps={
            "kind": "handle", "region": f"{name}_top_region", "joint": f"{name}_top_joint",
            "site": f"{name}_top_handle", "axis": [0.0, 1.0, 0.0], "yaw": 0.0, "width": 0.012,
        },
    )  # fmt: skip


def _drawer(
    stage: Stage,
    parent: mujoco.MjsBody,
    cabinet_name: str,
    level: str,
    z: float,
    front: float,
    room: float,
) -> tuple[list[str], Region]:
    """Add a drawer; gives its contact geoms and the region inside.

    Args:
        stage: Where to add.
        parent: The cabinet.
        cabinet_name: Its name.
        level: "top" or "bottom".
        z: Height of the drawer's middle above the table.
        front: Half height of its front panel.
        room: Half width between the cabinet's sides.
    """
    name = f"{cabinet_name}_{level}"
    body = parent.add_body(name=f"{name}_drawer", pos=(0, 0, z))
    body.explicitinertial = True
    body.mass, body.ipos = 0.4, (0, 0, 0)
    body.inertia = (0.002, 0.002, 0.003)
    body.add_joint(
        name=f"{name}_joint", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, -1, 0),
        range=(-DRAWER_TRAVEL, 0.0), limited=True, damping=12.0, frictionloss=1.0,
    )  # fmt: skip  # 1 N holds it where it is left; 12 N s/m: no rattling, 2 N at a hand's speed
    # The cabinet does not move, so MuJoCo would not leave out contacts between the two.
    stage.spec.add_exclude(bodyname1=cabinet_name, bodyname2=body.name)
    oak = stage.material(
        "drawer_oak",
        picture=textures.wood((176, 128, 84), planks=2, contrast=1.2, seed=8),
        specular=0.25,
    )
    lining = stage.material("drawer_lining", (0.86, 0.78, 0.66), specular=0.05)
    # The tray's sides are below finger tips that let go of a bowl's rim in it (29 mm).
    inner_x, depth, wall, low, tray = room - 0.008, 0.085, 0.004, -front + 0.006, 0.024
    face = (room + 0.004, 0.006, front)
    geoms = []
    for key, half, pos, material in (
        ("front", face, (0, 0.106, 0), oak),
        ("floor", (inner_x, depth, 0.003), (0, 0.012, low), lining),
        ("back", (inner_x, wall / 2, tray / 2), (0, 0.012 - depth, low + tray / 2), lining),
        ("left", (wall / 2, depth, tray / 2), (-inner_x, 0.012, low + tray / 2), lining),
        ("right", (wall / 2, depth, tray / 2), (inner_x, 0.012, low + tray / 2), lining),
    ):
        mesh = shapes.rounded_box(half, 0.0015, steps=1, tile=0.25)
        stage.draw(body, f"{name}_{key}", mesh, material, pos=pos)
        geoms.append(stage.collide(body, f"{name}_{key}_box", BOX, half, pos=pos))
    brass = stage.material("brass", (0.80, 0.66, 0.36), specular=0.9, shininess=0.8)
    if level == "top":
        # A T: fingers (17 mm wide) close on the stem, between front and bar. High on the
        # front, because the palm reaches 1 cm over the roof, 31 mm above the fingers.
        stem, up = 0.036, front - 0.016
        y = 0.112 + stem / 2
        pieces = (
            ("stem", (0.006, stem / 2, 0.006), (0, y, up)),
            ("bar", (0.036, 0.006, 0.006), (0, 0.112 + stem + 0.006, up)),
        )
        body.add_site(
            name=f"{name}_handle", pos=(0, y, up), size=(0.004, 0.004, 0.004), rgba=(0, 0, 0, 0)
        )
    else:
        pieces = (("bar", (0.036, 0.005, 0.005), (0, 0.116, front - 0.016)),)
    for key, half, pos in pieces:
        stage.draw(
            body, f"{name}_handle_{key}", shapes.rounded_box(half, 0.0045, steps=2), brass, pos=pos
        )
        geoms.append(stage.collide(body, f"{name}_handle_{key}_box", BOX, half, pos=pos))
    size = (inner_x - wall, depth - wall, 0.030)
    region = _region(
        body, f"{name}_region", cabinet_name, (0, 0.012, low + size[2]), size, (f"{name}_joint",)
    )
    return geoms, region


# LIBERO's flat_stove: knob hinge to 2.1 rad, on from 0.5, off below 0 with a range from
# -0.005 (articulated_objects.py); ours starts at 0 and is off below 0.05.
KNOB_RANGE = (0.0, 2.1)
MAT_X = 0.218  # middle of the mat, 1 cm of table between it and the stove
STOVE = Articulation(turn_on=Threshold(above=0.5, inclusive=True), turn_off=Threshold(below=0.05))


def stove_with_mat(stage: Stage, name: str) -> Piece:
    """The stove with a mat in front of it, which goals know as its front region."""
    piece = stove(stage, name)
    mat = stage.material("mat", picture=textures.cloth((92, 132, 128)), specular=0.0)
    body = stage.spec.body(name)
    stage.draw_box(body, f"{name}_mat", (0.085, 0.085, 0.0006), mat, pos=(MAT_X, 0, 0.0006))
    # LIBERO's target zones are 7 mm in half height; this one is on the table: no parent.
    front = _region(body, f"{name}_front_region", None, (MAT_X, 0, 0), (0.05, 0.05, 0.007))
    return replace(piece, regions=(*piece.regions, front))


def stove(stage: Stage, name: str) -> Piece:
    """A flat stove: one burner, a lever knob at its front (+x)."""
    half = (0.120, 0.090, 0.013)
    burner_x, knob_x, top = -0.035, 0.086, 2 * half[2]
    body = stage.spec.worldbody.add_body(name=name)
    steel = stage.material("stove_steel", (0.66, 0.67, 0.69), specular=0.7, shininess=0.6)
    glass = stage.material("stove_glass", (0.07, 0.07, 0.08), specular=0.8, shininess=0.9)
    ring = stage.material("burner_ring", (0.36, 0.36, 0.38), specular=0.4)
    middle = (0, 0, half[2])
    stage.draw(body, f"{name}_case", shapes.rounded_box(half, 0.005, steps=2), steel, pos=middle)
    stage.draw_box(
        body, f"{name}_glass", (0.076, 0.078, 0.0004), glass, pos=(burner_x, 0, top + 0.0002)
    )
    for k, radius in enumerate((0.058, 0.040, 0.022)):
        circle = [(radius, 0.0), (radius - 0.004, 0.0)]
        stage.draw(
            body, f"{name}_ring{k}", shapes.turned(circle), ring, pos=(burner_x, 0, top + 0.0009)
        )
    stage.material("burner_glow", (0.95, 0.22, 0.05), emission=0.8)
    body.add_site(
        name=f"{name}_burner", type=CYLINDER, pos=(burner_x, 0, top + 0.0005),
        size=(0.057, 0.0002, 0), rgba=(0.95, 0.22, 0.05, 0), material="burner_glow",
    )  # fmt: skip
    geoms = [stage.collide(body, f"{name}_box", BOX, half, pos=middle)]
    geoms += _knob(stage, body, name, (knob_x, 0, top), steel)
    cook = _region(body, f"{name}_cook_region", name, (burner_x, 0, top), (0.05, 0.05, 0.002))
    return Piece(
        name=name, category="stove", body=name, geoms=tuple(geoms), free=False,
        joints=(f"{name}_knob_joint",), articulation=STOVE, lit_sites=(f"{name}_burner",),
        radius=float(np.hypot(*half[:2])), bottom=0.0, top=top, regions=(cook,),
        grasps={
            "kind": "knob", "joint": f"{name}_knob_joint", "site": f"{name}_knob_handle",
            "axis": [0.0, 0.0, -1.0], "yaw": np.pi / 2, "width": 0.012, "length": 0.060,
        },
    )  # fmt: skip


def _knob(
    stage: Stage,
    parent: mujoco.MjsBody,
    stove_name: str,
    pos: tuple[float, float, float],
    case: str,
) -> list[str]:
    name = f"{stove_name}_knob"
    body = parent.add_body(name=name, pos=pos)
    body.explicitinertial = True
    body.mass, body.ipos = 0.05, (0, 0, 0)
    body.inertia = (2e-5, 2e-5, 2e-5)
    body.add_joint(
        name=f"{name}_joint", type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0, 0, -1), range=KNOB_RANGE,
        limited=True, damping=0.02, frictionloss=0.02, armature=0.0005,
    )  # fmt: skip  # 0.02 N m: stays where it was turned, 0.7 N at the lever's end turns it
    stage.spec.add_exclude(bodyname1=stove_name, bodyname2=name)
    dark = stage.material("knob_dark", (0.12, 0.12, 0.13), specular=0.5)
    red = stage.material("knob_mark", (0.86, 0.16, 0.12), specular=0.3)
    disc = [(0.024, 0.0), (0.024, 0.006), (0.022, 0.008), (0.0, 0.008)]
    stage.draw(body, f"{name}_disc", shapes.turned(disc), case)
    lever, middle = (0.030, 0.006, 0.011), (0, 0, 0.019)
    stage.draw(body, f"{name}_lever", shapes.rounded_box(lever, 0.004, steps=2), dark, pos=middle)
    stage.draw_box(body, f"{name}_mark", (0.009, 0.0025, 0.0004), red, pos=(0.018, 0, 0.0302))
    body.add_site(name=f"{name}_handle", pos=middle, size=(0.004, 0.004, 0.004), rgba=(0, 0, 0, 0))
    return [
        stage.collide(body, f"{name}_disc_side", CYLINDER, (0.024, 0.004), pos=(0, 0, 0.004)),
        stage.collide(body, f"{name}_lever_box", BOX, lever, pos=middle),
    ]


def _region(
    body: mujoco.MjsBody,
    name: str,
    parent: str | None,
    pos: tuple[float, float, float],
    size: tuple[float, float, float],
    joints: tuple[str, ...] = (),
) -> Region:
    """Add an invisible box site and the region that goals know it by."""
    body.add_site(name=name, pos=pos, size=size, type=BOX, rgba=(0, 0, 0, 0))
    return Region(name=name, site=name, size=size, parent=parent, joints=joints)
