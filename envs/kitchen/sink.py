"""A sink with a faucet: a lever for the water and a spout that turns."""

from __future__ import annotations

import mujoco
import numpy as np

from envs.kitchen.build import COUNTER_Z, Kit, weigh
from envs.kitchen.cabinets import worktop
from envs.scene import Articulation, Threshold
from envs.tabletop import shapes
from envs.tabletop.stage import BOX, CYLINDER, Piece

# RoboCasa (SUITES 2.2): water runs while 0.40 < handle < pi; a spout points left from pi to
# 2 pi - pi/6 and right from pi/6 to pi, which for a hinge around 0 is below -pi/6 and above it.
HANDLE_RANGE = 1.3
HANDLE = Articulation(turn_on=Threshold(above=0.40), turn_off=Threshold(below=0.40, inclusive=True))
SPOUT_RANGE = 1.3
SPOUT_LEFT = Articulation(turn_on=Threshold(below=-np.pi / 6, inclusive=True))
SPOUT_RIGHT = Articulation(turn_on=Threshold(above=np.pi / 6, inclusive=True))

X0, X1, HALF_Y, DEEP = 0.075, 0.375, 0.225, 0.17  # the basin
FAUCET_X = 0.455
SPOUT_Z, SPOUT_REACH = 0.21, 0.19


def sink(kit: Kit, body: mujoco.MjsBody, name: str, width: float, y: float) -> list[str]:
    """Add a worktop with a basin at y, and its faucet; gives the worktop's contact geoms.

    Live, its pieces are `name` (the basin), `<name>_handle`, and the spout under two names,
    `<name>_spout_left` and `<name>_spout_right`: turned on when it points there. The region
    is `<name>_basin`.
    """
    top = worktop(kit, body, name, width, hole=(X0, X1, y - HALF_Y, y + HALF_Y))
    wall, floor = 0.004, COUNTER_Z - DEEP
    middle = (X0 + X1) / 2
    geoms: list[str] = []
    for key, half, pos in (
        ("floor", ((X1 - X0) / 2, HALF_Y, wall), (middle, y, floor)),
        ("near", (wall, HALF_Y, DEEP / 2), (X0 + wall, y, floor + DEEP / 2)),
        ("far", (wall, HALF_Y, DEEP / 2), (X1 - wall, y, floor + DEEP / 2)),
        ("left", ((X1 - X0) / 2, wall, DEEP / 2), (middle, y + HALF_Y - wall, floor + DEEP / 2)),
        ("right", ((X1 - X0) / 2, wall, DEEP / 2), (middle, y - HALF_Y + wall, floor + DEEP / 2)),
    ):
        geoms += kit.board(body, f"{name}_basin_{key}", half, pos, kit.steel, radius=0.002)
    drain = [(0.028, 0.0), (0.024, 0.001), (0.018, -0.0005), (0.0, -0.0005)]
    kit.draw(
        body, f"{name}_drain", shapes.turned(drain, segments=20), kit.metal,
        (middle, y, floor + wall + 0.001),
    )  # fmt: skip
    kit.region(
        body, f"{name}_basin", (middle, y, floor + wall + DEEP / 2),
        ((X1 - X0) / 2 - wall, HALF_Y - wall, DEEP / 2), parent=name,
    )  # fmt: skip
    if kit.live:
        kit.pieces.append(
            Piece(
                name=name, category="sink", body=body.name, geoms=tuple(geoms), free=False,
                radius=HALF_Y, bottom=floor, top=COUNTER_Z,
            )
        )  # fmt: skip
    _faucet(kit, body, name, y)
    return top


def _faucet(kit: Kit, parent: mujoco.MjsBody, name: str, y: float) -> None:
    foot = [(0.027, 0.0), (0.027, 0.006), (0.019, 0.012), (0.019, 0.05), (0.0, 0.05)]
    kit.draw(
        parent, f"{name}_faucet_foot", shapes.turned(foot, segments=24), kit.chrome,
        (FAUCET_X, y, COUNTER_Z),
    )  # fmt: skip
    kit.solid(
        parent, f"{name}_faucet_foot", (0.018, 0.018, 0.025), (FAUCET_X, y, COUNTER_Z + 0.025)
    )
    spout = parent.add_body(name=f"{name}_spout", pos=(FAUCET_X, y, COUNTER_Z + 0.05))
    mesh = _arc(0.0115)
    kit.draw(spout, f"{name}_spout_tube", mesh, kit.chrome)
    geoms: list[str] = []
    if kit.live:
        weigh(spout, 0.5, (0.08, 0.012, 0.1), (-0.08, 0, 0.1))
        spout.add_joint(
            name=f"{name}_spout_joint", type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0, 0, 1),
            range=(-SPOUT_RANGE, SPOUT_RANGE), limited=True, damping=0.25, frictionloss=0.08,
            armature=0.003,
        )  # fmt: skip
        up = SPOUT_Z - 0.05
        for key, half, pos in (
            ("stem", (0.011, 0.011, up / 2), (0, 0, up / 2)),
            ("arch", (SPOUT_REACH / 2, 0.011, 0.012), (-SPOUT_REACH / 2, 0, up + 0.005)),
            ("nose", (0.011, 0.011, 0.035), (-SPOUT_REACH + 0.004, 0, up - 0.03)),
        ):
            geoms += kit.solid(spout, f"{name}_spout_{key}", half, pos)
        for side, rule in (("left", SPOUT_LEFT), ("right", SPOUT_RIGHT)):
            kit.pieces.append(
                Piece(
                    name=f"{name}_spout_{side}", category="spout", body=spout.name,
                    geoms=tuple(geoms), free=False, joints=(f"{name}_spout_joint",),
                    articulation=rule, radius=SPOUT_REACH, bottom=0.0, top=SPOUT_Z,
                )
            )  # fmt: skip
    _handle(kit, parent, name, y - 0.13)


def _handle(kit: Kit, parent: mujoco.MjsBody, name: str, y: float) -> None:
    """A lever on a post of its own, right of the spout; it turns about the vertical."""
    post = [(0.024, 0.0), (0.024, 0.005), (0.017, 0.010), (0.017, 0.045), (0.0, 0.045)]
    kit.draw(
        parent, f"{name}_handle_post", shapes.turned(post, segments=24), kit.chrome,
        (FAUCET_X, y, COUNTER_Z),
    )  # fmt: skip
    kit.solid(
        parent, f"{name}_handle_post", (0.016, 0.016, 0.022), (FAUCET_X, y, COUNTER_Z + 0.022)
    )
    body = parent.add_body(name=f"{name}_handle", pos=(FAUCET_X, y, COUNTER_Z + 0.047))
    half, middle = (0.040, 0.007, 0.011), (-0.024, 0.0, 0.013)
    kit.draw(
        body, f"{name}_handle_lever", shapes.rounded_box(half, 0.006, steps=1), kit.chrome, middle
    )
    if not kit.live:
        return
    weigh(body, 0.08, half, middle)
    body.add_joint(
        name=f"{name}_handle_joint", type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0, 0, 1),
        range=(0.0, HANDLE_RANGE), limited=True, damping=0.04, frictionloss=0.03, armature=0.0008,
    )  # fmt: skip
    geoms = [
        kit.stage.collide(
            body, f"{name}_handle_hub", CYLINDER, (0.016, 0.002), pos=(0, 0, 0.002), conaffinity=0
        ),
        kit.stage.collide(body, f"{name}_handle_box", BOX, half, pos=middle, conaffinity=0),
    ]
    # The water: a jet from the spout's end into the basin, shown while the handle is on.
    kit.stage.material("water", (0.75, 0.86, 0.95), specular=0.9, shininess=0.9)
    spout = kit.stage.spec.body(f"{name}_spout")
    drop = SPOUT_Z - 0.05 - 0.065
    bottom = -(DEEP + 0.05) + 0.012
    spout.add_site(
        name=f"{name}_water", type=CYLINDER, size=(0.006, (drop - bottom) / 2, 0),
        pos=(-SPOUT_REACH + 0.004, 0, (drop + bottom) / 2), rgba=(0.75, 0.86, 0.95, 0),
        material="water",
    )  # fmt: skip
    kit.pieces.append(
        Piece(
            name=f"{name}_handle", category="handle", body=body.name, geoms=tuple(geoms),
            free=False, joints=(f"{name}_handle_joint",), articulation=HANDLE,
            lit_sites=(f"{name}_water",), radius=0.064, bottom=0.0, top=0.026,
        )
    )  # fmt: skip


def _arc(radius: float) -> shapes.Mesh:
    """The spout: up, over in an arc towards the robot, and down a little."""
    up, reach, ring = SPOUT_Z - 0.05, SPOUT_REACH, 10
    bend = np.linspace(0, np.pi, 13)
    r = (reach - 0.004) / 2
    path = [(0.0, 0.0), (0.0, up - 0.05)]
    path += [(-r + r * np.cos(a), up - 0.05 + 0.065 * np.sin(a)) for a in bend]
    path += [(-2 * r, up - 0.065)]
    points = np.array([(x, 0.0, z) for x, z in path])
    tangent = np.gradient(points, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.array([0.0, 1.0, 0.0])
    normal = np.cross(side, tangent)
    angle = np.linspace(0, 2 * np.pi, ring, endpoint=False)
    rings = points[:, None] + radius * (
        np.cos(angle)[None, :, None] * side + np.sin(angle)[None, :, None] * normal[:, None]
    )
    vertices = np.concatenate([rings.reshape(-1, 3), points[[0, -1]]])
    n = len(points)
    i, j = np.meshgrid(np.arange(n - 1), np.arange(ring), indexing="ij")
    a = (i * ring + j).ravel()
    b = (i * ring + (j + 1) % ring).ravel()
    c, d = b + ring, a + ring
    faces = [np.stack([a, b, c], 1), np.stack([a, c, d], 1)]
    k = np.arange(ring)
    after = (k + 1) % ring
    last = (n - 1) * ring
    faces.append(np.stack([np.full(ring, len(vertices) - 2), after, k], 1))
    faces.append(np.stack([np.full(ring, len(vertices) - 1), last + k, last + after], 1))
    from envs.tabletop.meshes import shade

    return shade(vertices, np.concatenate(faces), crease=0.9)
