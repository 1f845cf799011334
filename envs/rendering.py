"""Pictures of a scene: colour and depth, drawn only when somebody looks.

A picture is a function of the scene, the fixture poses, the joint positions behind the
observed kinematics, and which burners are lit; so a recorded state gives the very pixels
that the policy saw. Settings are robosuite 1.4.0's (utils/binding_utils.py): collision
geoms hidden, at most 1000 geoms, the model's own offscreen buffer.
"""

from __future__ import annotations

import os
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.scene import Scene
from wamsim.errors import RenderingUnavailable

MAX_GEOMS = 1000  # robosuite 1.4.0, MjRenderContext
HIDDEN_GROUP = 5  # a geom group that no scene of ours draws
AWAY_M = 100.0  # what an episode does without is put this far off: past every camera's zfar

_context: Any = None


def gl_context() -> Any:
    """Give this process's one OpenGL context, made on first use and kept.

    Raises:
        RenderingUnavailable: No backend works; says which packages to install.
    """
    global _context
    if _context is None:
        backend = os.environ.get("MUJOCO_GL", "").lower() or "the default"
        try:
            context = mujoco.GLContext(64, 64)
            context.make_current()
            # glfw without a display makes a context that cannot draw; this finds out
            nothing = mujoco.MjModel.from_xml_string("<mujoco/>")
            mujoco.MjrContext(nothing, mujoco.mjtFontScale.mjFONTSCALE_50).free()
            _context = context
        except Exception as error:
            raise RenderingUnavailable(
                f"no OpenGL context could be made with MUJOCO_GL={backend} ({error}). On Debian or "
                "Ubuntu: `apt-get install libegl1 libgl1-mesa-dri libgles2` and MUJOCO_GL=egl, or "
                "`apt-get install libosmesa6` and MUJOCO_GL=osmesa. `wamsim doctor` checks it."
            ) from error
    return _context


def gl_strings() -> dict[str, str]:
    """Vendor, renderer and version of the OpenGL in use, for provenance."""
    gl_context()
    from OpenGL import GL

    names = {"vendor": GL.GL_VENDOR, "renderer": GL.GL_RENDERER, "version": GL.GL_VERSION}
    return {name: (GL.glGetString(value) or b"").decode() for name, value in names.items()}


class Painter:
    """Draws one scene. Costs OpenGL memory (textures, meshes) until `close`."""

    def __init__(self, scene: Scene) -> None:
        gl_context().make_current()
        self.scene = scene
        model = scene.model
        self._data = mujoco.MjData(model)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        self._view = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[0] = 0  # collision shapes
        self._option.geomgroup[1] = 1
        self._option.geomgroup[HIDDEN_GROUP] = 0
        self._perturb = mujoco.MjvPerturb()
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._group = model.geom_group.copy()
        self._casts_shadow = bool(model.light_castshadow.any())
        self._mirrors = _mirrors(model, self._group)
        self._lit = [scene.site_id(s) for t in scene.info.things for s in t.lit_sites]
        # LIBERO toggles alpha to one minus itself: -1 is off, 2 is on after a genuine reset
        # (set_visualization); our own scenes have 0 and 1.
        alpha = model.site_rgba[self._lit, 3]
        self._alpha_off = np.where(alpha > 0, 1.0 - alpha, alpha)

    def draw(
        self,
        seen_qpos: NDArray[np.float64],
        lit: NDArray[np.bool_] | tuple[bool, ...],
        camera: str,
        size: tuple[int, int],
        depth: bool = False,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        """Draw one camera.

        Args:
            seen_qpos: [nq] joint positions behind the kinematics.
            lit: For each lit site of the scene (in order of things) whether it shows.
            camera: Public camera name.
            size: (height, width).
            depth: Also give metric depth.

        Returns:
            uint8 [H, W, 3] upright RGB, and float32 [H, W] metres or None. Colours are means
            over a pixel's samples; its depth is that of one sample, so of a point within it.
        """
        self.pose(seen_qpos, lit)
        return self.shoot(camera, size, depth)

    def pose(
        self, seen_qpos: NDArray[np.float64], lit: NDArray[np.bool_] | tuple[bool, ...]
    ) -> None:
        """Put the scene into a state, for one or more `shoot`."""
        model, data = self.scene.model, self._data
        data.qpos[:] = seen_qpos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        for site, on, off in zip(self._lit, lit, self._alpha_off, strict=True):
            model.site_rgba[site, 3] = 1.0 - off if on else off

    def shoot(
        self, camera: str, size: tuple[int, int], depth: bool = False
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        """Draw the posed scene from one camera; see `draw`."""
        model, data = self.scene.model, self._data
        height, width = size
        context = gl_context()
        context.make_current()
        self._grow(height, width)
        self._camera.fixedcamid = self.scene.camera_id(camera)
        visible = self._visible(self._camera.fixedcamid, width / height)
        model.geom_group[:] = np.where(visible, self._group, HIDDEN_GROUP)
        mujoco.mjv_updateScene(
            model,
            data,
            self._option,
            self._perturb,
            self._camera,
            mujoco.mjtCatBit.mjCAT_ALL,
            self._view,
        )
        model.geom_group[:] = self._group
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        mujoco.mjr_render(viewport, self._view, self._context)
        rgb = np.empty((height, width, 3), np.uint8)
        z = np.empty((height, width), np.float32) if depth else None
        mujoco.mjr_readPixels(rgb, z, viewport, self._context)
        return rgb[::-1], None if z is None else self._metres(z)[::-1]

    def _metres(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        # OpenGL depth in [0, 1] to distance along the optical axis (MuJoCo, mjr_readPixels)
        extent = self.scene.model.stat.extent
        near = self.scene.model.vis.map.znear * extent
        far = self.scene.model.vis.map.zfar * extent
        return (near / (1.0 - z * (1.0 - near / far))).astype(np.float32)

    def _grow(self, height: int, width: int) -> None:
        if width <= self._context.offWidth and height <= self._context.offHeight:
            return
        model = self.scene.model
        model.vis.global_.offwidth = max(width, self._context.offWidth)
        model.vis.global_.offheight = max(height, self._context.offHeight)
        self._context.free()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)

    def _visible(self, camera: int, aspect: float) -> NDArray[np.bool_]:
        """Tell which geoms can touch a pixel, [ngeom]; leaving the others out changes none.

        A geom outside the view can still cast a shadow into it, or be seen in a mirror.
        """
        model, data = self.scene.model, self._data
        if self._casts_shadow:
            return np.abs(data.geom_xpos).max(axis=1) < AWAY_M
        boxes = _Boxes(model, data)
        eye = data.cam_xpos[camera]
        view = _view_planes(model, data, camera, aspect)
        visible = boxes.unbounded | boxes.touch(eye, view)
        reflecting = [mirror for mirror in self._mirrors if visible[mirror]]
        visible[self._mirrors] = True  # in MuJoCo one mirror, even unseen, dims another's image
        for mirror in reflecting:
            rotation = data.geom_xmat[mirror].reshape(3, 3)
            normal = rotation[:, 2]
            point = data.geom_xpos[mirror].copy()
            planes = view
            if model.geom_type[mirror] == mujoco.mjtGeom.mjGEOM_BOX:
                half = model.geom_size[mirror]
                point += normal * half[2]
                # seen through the top face only
                across, along = rotation[:, 0] * half[0], rotation[:, 1] * half[1]
                corners = point + np.array(
                    [-across - along, across - along, across + along, along - across]
                )
                planes = np.concatenate([view, _cone_planes(eye, corners, point)])
            if (eye - point) @ normal > 0:
                visible |= boxes.mirrored(point, normal).touch(eye, planes)
        return visible

    def camera_pose(self, camera: str) -> NDArray[np.float64]:
        """Give the posed camera to world transform [4, 4], OpenCV axes (x right, y down)."""
        i = self.scene.camera_id(camera)
        out = np.eye(4)
        out[:3, :3] = self._data.cam_xmat[i].reshape(3, 3) * np.array([1.0, -1.0, -1.0])
        out[:3, 3] = self._data.cam_xpos[i]
        return out

    def close(self) -> None:
        """Free OpenGL memory."""
        gl_context().make_current()
        self._context.free()


# A margin in metres around every box, far above the rounding of the float32 pipeline.
_MARGIN = 2e-3


class _Boxes:
    """Oriented boxes around all geoms of a posed scene."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self.axes = data.geom_xmat.reshape(-1, 3, 3)  # columns are the box's axes
        local, self.half = model.geom_aabb[:, :3], model.geom_aabb[:, 3:]
        self.centre = data.geom_xpos + np.einsum("gij,gj->gi", self.axes, local)
        self.unbounded = model.geom_rbound <= 0  # planes

    def mirrored(self, point: NDArray[np.float64], normal: NDArray[np.float64]) -> _Boxes:
        """The boxes' images in a plane."""
        out = object.__new__(_Boxes)
        flip = np.eye(3) - 2.0 * np.outer(normal, normal)
        out.axes = flip @ self.axes
        out.half, out.unbounded = self.half, self.unbounded
        out.centre = (self.centre - point) @ flip + point
        return out

    def touch(self, origin: NDArray[np.float64], planes: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which boxes reach the inner side of all planes [P, 3] through `origin`."""
        distance = (self.centre - origin) @ planes.T
        reach = np.einsum("gij,pi->gpj", self.axes, planes)
        reach = np.einsum("gpj,gj->gp", np.abs(reach), self.half)
        return np.all(distance + reach > -_MARGIN, axis=1)


def _view_planes(
    model: mujoco.MjModel, data: mujoco.MjData, camera: int, aspect: float
) -> NDArray[np.float64]:
    """Inward unit normals [5, 3] of a camera's four side planes and of its back plane."""
    y = np.tan(np.deg2rad(model.cam_fovy[camera]) / 2)
    x = y * aspect
    local = np.array([[1, 0, -x], [-1, 0, -x], [0, 1, -y], [0, -1, -y], [0, 0, -1.0]])
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    return local @ data.cam_xmat[camera].reshape(3, 3).T


def _cone_planes(
    eye: NDArray[np.float64], corners: NDArray[np.float64], inside: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Inward unit normals [4, 3] of the planes through an eye and a rectangle's edges."""
    rays = corners - eye
    normals = np.cross(rays, np.roll(rays, -1, axis=0))
    normals *= np.sign(normals @ (inside - eye))[:, None]
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _mirrors(model: mujoco.MjModel, group: NDArray[np.int32]) -> list[int]:
    """Drawn geoms in which others can be seen: MuJoCo mirrors in planes and tops of boxes."""
    kinds = (mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX)
    reflectance = np.append(model.mat_reflectance, 0.0)  # the last: geoms without a material (-1)
    shiny = (reflectance[model.geom_matid] > 0) & (group != 0)
    return [int(g) for g in np.flatnonzero(shiny & np.isin(model.geom_type, kinds))]


def intrinsics(scene: Scene, camera: str, size: tuple[int, int]) -> NDArray[np.float64]:
    """Give the pinhole matrix [3, 3] in pixels of a camera drawn at (height, width)."""
    height, width = size
    fovy = np.deg2rad(scene.model.cam_fovy[scene.camera_id(camera)])
    focal = 0.5 * height / np.tan(fovy / 2)
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
