"""What builders of kitchen fixtures share: boards, handles, doors, buttons, names.

Frames. A unit's body has its origin on the floor, in the middle of its width, in the plane
of the base cabinets' fronts. x points to the wall, so the robot comes from -x; y to the
left as the robot sees it; z up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np

from envs.kitchen.styles import Style
from envs.scene import Articulation, Region, Threshold
from envs.tabletop import shapes
from envs.tabletop.meshes import Mesh
from envs.tabletop.stage import BOX, Piece, Stage

Vec = Sequence[float]

# Usual European kitchens: worktop at 0.92 m, 0.62 m deep; wall cabinets 1.45 to 2.15 m.
COUNTER_Z = 0.92
SLAB = 0.04  # thickness of the worktop
DEPTH = 0.62
OVERHANG = 0.03
TOE = 0.10
FRONT = 0.020  # thickness of doors and drawer fronts
WALL_FRONT, WALL_LOW, WALL_HIGH = 0.26, 1.45, 2.13

# RoboCasa's rules on a joint's share of its range (SUITES 2.2).
DOOR_RANGE = 1.4  # radians: a stop at 80 degrees keeps a door within an arm's reach
WINDOW_RANGE = 1.7  # the microwave's: out of the way of what goes in


def door_articulation(reach: float) -> Articulation:
    """Open from 0.90, closed up to 0.05 of a hinge's range (SUITES 2.2)."""
    return Articulation(
        open=Threshold(above=0.90 * reach, inclusive=True),
        close=Threshold(below=0.05 * reach, inclusive=True),
    )


def drawer_articulation(travel: float) -> Articulation:
    """Open from 0.95, closed up to 0.05 of a slide's travel (SUITES 2.2)."""
    return Articulation(
        open=Threshold(above=0.95 * travel, inclusive=True),
        close=Threshold(below=0.05 * travel, inclusive=True),
    )


SEEN = 0.0025  # metres: smaller roundings show in no picture of 256 pixels


def _moved(pos: Vec, axis: int, by: float) -> list[float]:
    """A position moved along an axis."""
    out = [float(p) for p in pos]
    out[axis] += by
    return out


def slab(half: Vec, tile: float) -> Mesh:
    """A plain box, 12 triangles: software OpenGL pays for every vertex.

    Args:
        half: Half sizes, metres.
        tile: Side in metres of one repetition of the picture.
    """
    size = np.asarray(half, np.float64)
    vertices, normals, uvs, faces = [], [], [], []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1.0, 1.0):
            first = len(vertices)
            for du, dv in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corner = np.zeros(3)
                corner[[axis, u, v]] = sign, du, dv
                vertices.append(corner * size)
                normals.append(np.eye(3)[axis] * sign)
                across = [k for k in range(3) if k != axis]
                uvs.append((corner * size)[across] / tile)
            order = ((0, 1, 2), (0, 2, 3)) if sign > 0 else ((0, 2, 1), (0, 3, 2))
            faces += [[first + i for i in triangle] for triangle in order]
    return Mesh(
        vertices=np.array(vertices), faces=np.array(faces, np.int64), normals=np.array(normals),
        uv=np.array(uvs),
    )  # fmt: skip


def joined(*parts: tuple[Mesh, Vec]) -> Mesh:
    """Several meshes, each moved to its place, as one: one thing less to draw."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh, _ in parts)])
    uvs = [mesh.uv for mesh, _ in parts if mesh.uv is not None]
    return Mesh(
        vertices=np.concatenate([mesh.vertices + np.asarray(at) for mesh, at in parts]),
        faces=np.concatenate([m.faces + s for (m, _), s in zip(parts, starts, strict=False)]),
        normals=np.concatenate([mesh.normals for mesh, _ in parts]),
        uv=np.concatenate(uvs),
    )


def upright(mesh: Mesh) -> Mesh:
    """The same mesh with its picture turned by a right angle: grain runs upwards."""
    assert mesh.uv is not None
    return replace(mesh, uv=mesh.uv[:, ::-1])


@dataclass
class Kit:
    """A kitchen under construction.

    Attributes:
        stage: Where geoms and materials are added.
        style: The surfaces.
        live: Whether what is built now can be touched and moved; scenery cannot.
        near: Whether it can be seen closely; what is far away is drawn in fewer triangles.
        pieces, regions: What goals can name, so far.
    """

    stage: Stage
    style: Style
    live: bool = True
    near: bool = True
    pieces: list[Piece] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)

    # ------------------------------------------------------------- materials

    @property
    def fronts(self) -> str:
        """Material of doors and drawer fronts."""
        return self.stage.material("fronts", picture=self.style.fronts(), specular=0.18)

    @property
    def carcass(self) -> str:
        """Material of sides and insides."""
        return self.stage.material("carcass", picture=self.style.carcass(), specular=0.08)

    @property
    def worktop(self) -> str:
        """Material of the counter."""
        shine = self.style.counter_shine
        return self.stage.material(
            "worktop", picture=self.style.counter(), specular=shine, shininess=0.6
        )

    @property
    def splash(self) -> str:
        """Material of the wall between worktop and wall cabinets."""
        return self.stage.material(
            "splash", picture=self.style.splash(), specular=0.35, shininess=0.6
        )

    @property
    def metal(self) -> str:
        """Material of handles."""
        return self.stage.material("metal", self.style.metal, specular=0.8, shininess=0.7)

    @property
    def steel(self) -> str:
        """Material of stove, sink and hood."""
        from envs.kitchen.textures import brushed

        return self.stage.material(
            "steel", picture=brushed(self.style.steel), specular=0.6, shininess=0.6
        )

    @property
    def steel_plain(self) -> str:
        """The same for meshes without texture coordinates."""
        r, g, b = (c / 255 for c in self.style.steel)
        return self.stage.material("steel_plain", (r, g, b), specular=0.6, shininess=0.6)

    @property
    def chrome(self) -> str:
        """Material of faucets."""
        return self.stage.material("chrome", (0.78, 0.79, 0.81), specular=0.95, shininess=0.9)

    @property
    def black(self) -> str:
        """Glass and plastic in black."""
        return self.stage.material("black", (0.06, 0.06, 0.065), specular=0.7, shininess=0.8)

    @property
    def dark(self) -> str:
        """What lies in shade: toe kicks, gaps."""
        return self.stage.material("shade", (0.10, 0.095, 0.09), specular=0.02)

    @property
    def appliance(self) -> str:
        """Case of microwave and coffee machine."""
        return self.stage.material("appliance", self.style.appliance, specular=0.5, shininess=0.6)

    # ----------------------------------------------------------------- parts

    def draw(
        self, body: mujoco.MjsBody, name: str, mesh: Mesh, material: str, pos: Vec = (0, 0, 0)
    ) -> None:
        """Add a mesh that is only seen."""
        self.stage.draw(body, name, mesh, material, pos=pos)

    def panel(self, half: Vec, radius: float, tile: float) -> Mesh:
        """A board's mesh: rounded where that can be seen, that is, before the robot."""
        if self.live and radius > SEEN:
            return shapes.rounded_box(half, radius, steps=1, tile=tile)
        return slab(half, tile)

    def solid(self, body: mujoco.MjsBody, name: str, half: Vec, pos: Vec) -> list[str]:
        """Add a box that is only touched, by robot and things, not by other fixtures."""
        if not self.live:
            return []
        return [self.stage.collide(body, f"{name}_box", BOX, half, pos=pos, conaffinity=0)]

    def board(
        self,
        body: mujoco.MjsBody,
        name: str,
        half: Vec,
        pos: Vec,
        material: str,
        *,
        radius: float = 0.002,
        tile: float = 0.5,
        grain_up: bool = False,
        solid: bool = True,
    ) -> list[str]:
        """Add a board, seen and (where things are live) touched; gives its contact geoms."""
        mesh = self.panel(half, min(radius, min(half) * 0.9), tile)
        self.draw(body, name, upright(mesh) if grain_up else mesh, material, pos)
        return self.solid(body, name, half, pos) if solid else []

    def handle(
        self, body: mujoco.MjsBody, name: str, pos: Vec, *, along: int, half: float = 0.065
    ) -> list[str]:
        """A bar on two posts; `pos` is on the front's surface, the bar 4 cm before it."""
        bar, out, thick = [0.006, 0.006, 0.006], 0.040, 0.006
        bar[along] = half
        at = _moved(pos, 0, -out)
        mesh = shapes.rounded_box(bar, 0.005, steps=1) if self.near else slab(bar, 1.0)
        self.draw(body, name, mesh, self.metal, at)
        thickness = [thick] * 3
        thickness[along] = half
        geoms = self.solid(body, name, thickness, at)
        for k, sign in enumerate((-1, 1)):
            size = (out / 2, 0.004, 0.004)
            post = _moved(_moved(pos, 0, -out / 2), along, sign * (half - 0.012))
            if self.near:
                self.stage.draw_box(body, f"{name}_post{k}", size, self.metal, pos=post)
            geoms += self.solid(body, f"{name}_post{k}", size, post)
        return geoms

    def door(
        self,
        parent: mujoco.MjsBody,
        name: str,
        *,
        width: float,
        low: float,
        high: float,
        front: float,
        hinge_left: bool,
        y: float,
        handle_z: float,
        material: str | None = None,
        window: bool = False,
    ) -> None:
        """Add a hinged door; a piece of that name where it is live.

        Args:
            parent: The cabinet.
            name: Of body, piece; its joint is `<name>_joint`.
            width: Of the opening that it covers.
            low, high: Its lower and upper edge.
            front: x of the carcass's front plane.
            hinge_left: On which side it hangs, as the robot sees it.
            y: Middle of the opening.
            handle_z: Middle of its handle.
            material: Of the door; the style's fronts when None.
            window: Whether it has a dark pane (microwave).
        """
        side = 1.0 if hinge_left else -1.0
        reach = WINDOW_RANGE if window else DOOR_RANGE
        gap = 0.0015
        pos = (front - FRONT / 2, y + side * width / 2, 0)
        body = parent.add_body(name=name, pos=pos)
        half = (FRONT / 2, width / 2 - gap, (high - low) / 2 - gap)
        middle = (0.0, -side * width / 2, (low + high) / 2)
        if self.live:
            weigh(body, 1.5, half, middle)
            # 0.25 N m keeps it where it is left; a hand at the handle feels 0.7 N of it.
            body.add_joint(
                name=f"{name}_joint", type=mujoco.mjtJoint.mjJNT_HINGE, axis=(0, 0, -side),
                range=(0.0, reach), limited=True, damping=0.6, frictionloss=0.25,
                armature=0.01,
            )  # fmt: skip
        material = material or self.fronts
        geoms = self.board(
            body, f"{name}_panel", half, middle, material, radius=0.004, grain_up=True
        )
        if window:
            pane = (0.001, half[1] - 0.045, half[2] - 0.035)
            self.stage.draw_box(
                body, f"{name}_pane", pane, self.black, pos=(-FRONT / 2, *middle[1:])
            )
        elif self.near:
            self._frame(body, name, half, middle, material)
        edge = (-FRONT / 2, -side * (width - 0.045), handle_z)
        geoms += self.handle(body, f"{name}_handle", edge, along=2)
        if self.live:
            self.pieces.append(
                Piece(
                    name=name, category="door", body=name, geoms=tuple(geoms), free=False,
                    joints=(f"{name}_joint",), articulation=door_articulation(reach),
                    radius=width, bottom=low, top=high,
                )
            )  # fmt: skip

    def _frame(
        self, body: mujoco.MjsBody, name: str, half: Vec, middle: Vec, material: str
    ) -> None:
        """Stiles and rails of a panelled door: 4 mm proud, 5 cm wide."""
        proud, wide = 0.003, 0.026
        stile = upright(slab((proud, wide, half[2]), 0.5))
        rail = slab((proud, half[1] - 2 * wide, wide), 0.5)
        mesh = joined(
            (stile, (0, half[1] - wide, 0)), (stile, (0, -half[1] + wide, 0)),
            (rail, (0, 0, half[2] - wide)), (rail, (0, 0, -half[2] + wide)),
        )  # fmt: skip
        at = (middle[0] - half[0] - proud, middle[1], middle[2])
        self.draw(body, f"{name}_frame", mesh, material, at)

    def button(
        self,
        parent: mujoco.MjsBody,
        name: str,
        pos: Vec,
        *,
        material: str,
        half: float = 0.013,
    ) -> None:
        """A button that stays in when it is pressed; its slide goes from 0 (out) to TRAVEL."""
        body = parent.add_body(name=name, pos=pos)
        size = (0.011, half, half)
        middle = (-size[0], 0, 0)
        if self.live:
            weigh(body, 0.03, (0.01, half, half), middle)
            body.add_joint(
                name=f"{name}_joint", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(1, 0, 0),
                range=(0.0, BUTTON_TRAVEL), limited=True, damping=4.0, frictionloss=0.4,
                armature=0.05,
            )  # fmt: skip
        self.draw(body, f"{name}_cap", shapes.rounded_box(size, 0.003, steps=1), material, middle)
        geoms = self.solid(body, name, size, middle)
        if self.live:
            self.pieces.append(
                Piece(
                    name=name, category="button", body=name, geoms=tuple(geoms), free=False,
                    joints=(f"{name}_joint",), articulation=BUTTON, radius=half,
                    bottom=-half, top=half,
                )
            )  # fmt: skip

    def region(
        self,
        body: mujoco.MjsBody,
        name: str,
        pos: Vec,
        size: tuple[float, float, float],
        *,
        parent: str | None = None,
    ) -> None:
        """Add an invisible box that goals can name; nothing where things are scenery."""
        if self.live:
            body.add_site(name=name, pos=pos, size=size, type=BOX, rgba=(0, 0, 0, 0))
            self.regions.append(Region(name=name, site=name, size=size, parent=parent))


# Buttons latch: in counts as on. 12 mm of travel, the last half of it is "on", so that a
# touch does not start anything and a press does.
BUTTON_TRAVEL = 0.012
BUTTON = Articulation(
    turn_on=Threshold(above=0.5 * BUTTON_TRAVEL, inclusive=True),
    turn_off=Threshold(below=0.5 * BUTTON_TRAVEL),
)


def weigh(body: mujoco.MjsBody, mass: float, half: Vec, middle: Vec) -> None:
    """Give a body the mass and inertia of a solid box."""
    x, y, z = half
    body.explicitinertial = True
    body.mass, body.ipos = mass, middle
    body.inertia = (
        mass / 3 * (y * y + z * z),
        mass / 3 * (x * x + z * z),
        mass / 3 * (x * x + y * y),
    )
