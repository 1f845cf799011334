"""What builders of objects and fixtures share: a spec, its materials, and finished pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.scene import Articulation, Region, Thing
from envs.tabletop.meshes import Mesh

BOX = mujoco.mjtGeom.mjGEOM_BOX
CYLINDER = mujoco.mjtGeom.mjGEOM_CYLINDER
CAPSULE = mujoco.mjtGeom.mjGEOM_CAPSULE
SPHERE = mujoco.mjtGeom.mjGEOM_SPHERE

# Groups 0..2 are drawn by default in MuJoCo's viewers and by robosuite's cameras.
VISUAL_GROUP = 1
COLLISION_GROUP = 3

# Contact of everything that is grasped or stood upon.
FRICTION = (1.0, 0.005, 0.0001)  # rubber-like on wood; MuJoCo's default rolling and torsion
CONDIM = 4  # torsional friction keeps a pinched thing from turning about the finger axis
# Two steps of 2 ms is the stiffest that MuJoCo's refsafe allows; a little softer than that.
SOLREF = (0.006, 1.0)
SOLIMP = (0.95, 0.99, 0.001, 0.5, 2.0)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A thing under construction: geoms by name, since ids exist only once compiled."""

    name: str
    category: str
    body: str
    geoms: tuple[str, ...]
    free: bool
    joints: tuple[str, ...] = ()
    articulation: Articulation | None = None
    radius: float
    bottom: float
    top: float
    lit_sites: tuple[str, ...] = ()
    half_extents: tuple[float, float, float] | None = None
    regions: tuple[Region, ...] = ()
    grasps: Mapping[str, Any] = field(default_factory=dict)

    def thing(self, model: mujoco.MjModel) -> Thing:
        """The piece with the ids of the compiled model."""
        return Thing(
            name=self.name,
            category=self.category,
            body=self.body,
            geoms=tuple(model.geom(name).id for name in self.geoms),
            free_joint=f"{self.name}_joint" if self.free else None,
            joints=self.joints,
            articulation=self.articulation,
            radius=self.radius,
            bottom=self.bottom,
            top=self.top,
            lit_sites=self.lit_sites,
            half_extents=self.half_extents,
        )


class Stage:
    """A spec with what is added to it; equal materials and meshes are stored once."""

    def __init__(self, spec: mujoco.MjSpec) -> None:
        self.spec = spec
        self._names: set[str] = set()

    def once(self, name: str) -> bool:
        """True the first time that a name is asked for."""
        fresh = name not in self._names
        self._names.add(name)
        return fresh

    def material(
        self,
        name: str,
        rgba: Sequence[float] = (1, 1, 1, 1),
        *,
        picture: NDArray[np.uint8] | None = None,
        specular: float = 0.25,
        shininess: float = 0.4,
        emission: float = 0.0,
        repeat: tuple[float, float] = (1, 1),
        uniform: bool = False,
    ) -> str:
        """Add a material, with a picture [H, W, 3] as its texture; gives its name."""
        if self.once(f"material {name}"):
            material = self.spec.add_material(
                name=name,
                rgba=[*rgba, 1][:4],
                specular=specular,
                shininess=shininess,
                emission=emission,
                texrepeat=repeat,
                texuniform=uniform,
            )
            if picture is not None:
                texture = self.spec.add_texture(
                    name=f"{name}_texture",
                    type=mujoco.mjtTexture.mjTEXTURE_2D,
                    width=picture.shape[1],
                    height=picture.shape[0],
                    nchannel=3,
                )
                texture.data = np.ascontiguousarray(picture).tobytes()
                material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture.name
        return name

    def draw(
        self,
        body: mujoco.MjsBody,
        name: str,
        mesh: Mesh,
        material: str,
        *,
        shared: str | None = None,
        pos: Sequence[float] = (0, 0, 0),
        quat: Sequence[float] = (1, 0, 0, 0),
    ) -> mujoco.MjsGeom:
        """Add a mesh that is only seen. `shared` names a mesh that several bodies use."""
        mesh_name = f"{shared or name}_mesh"
        if self.once(f"mesh {mesh_name}"):
            added = self.spec.add_mesh(
                name=mesh_name,
                uservert=mesh.vertices.ravel().tolist(),
                userface=mesh.faces.ravel().tolist(),
                usernormal=mesh.normals.ravel().tolist(),
                inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
            )
            if mesh.uv is not None:
                added.usertexcoord = mesh.uv.ravel().tolist()
        return body.add_geom(
            name=name,
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=mesh_name,
            material=material,
            contype=0,
            conaffinity=0,
            group=VISUAL_GROUP,
            mass=0,
            pos=pos,
            quat=quat,
        )

    def draw_box(
        self, body: mujoco.MjsBody, name: str, size: Sequence[float], material: str, **where: Any
    ) -> mujoco.MjsGeom:
        """Add a box (half sizes) that is only seen."""
        return body.add_geom(
            name=name, type=BOX, size=size, material=material, contype=0, conaffinity=0,
            group=VISUAL_GROUP, mass=0, **where,
        )  # fmt: skip

    def collide(
        self,
        body: mujoco.MjsBody,
        name: str,
        kind: mujoco.mjtGeom,
        size: Sequence[float],
        **where: Any,
    ) -> str:
        """Add a geom that is only touched; gives its name."""
        body.add_geom(
            name=name,
            type=kind,
            size=[*size, 0, 0][:3],
            group=COLLISION_GROUP,
            rgba=(0.9, 0.3, 0.2, 0.4),
            friction=FRICTION,
            condim=CONDIM,
            solref=SOLREF,
            solimp=SOLIMP,
            **where,
        )
        return name

    def free_body(self, name: str, mass: float, half: Sequence[float]) -> mujoco.MjsBody:
        """Add a body with a free joint and the inertia of a solid box of half sizes `half`."""
        x, y, z = half
        body = self.spec.worldbody.add_body(name=name)
        body.add_joint(name=f"{name}_joint", type=mujoco.mjtJoint.mjJNT_FREE)
        body.explicitinertial = True
        body.mass = mass
        body.ipos = [0, 0, 0]
        body.inertia = [
            mass / 3 * (y * y + z * z),
            mass / 3 * (x * x + z * z),
            mass / 3 * (x * x + y * y),
        ]
        return body


def yaw_quat(yaw: float) -> tuple[float, float, float, float]:
    """Quaternion wxyz of a turn about the vertical."""
    return (float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2)))
