"""Shapes that objects are drawn from: turned profiles, rounded boxes, extrusions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.tabletop.meshes import Mesh, shade

SEGMENTS = 32  # around a turned shape: round at 512 pixels, 64 triangles a ring


def turned(
    profile: Sequence[tuple[float, float]],
    *,
    segments: int = SEGMENTS,
    crease: float = 0.6,
    uv_height: tuple[float, float] | None = None,
) -> Mesh:
    """Turn a profile about the vertical axis.

    Args:
        profile: (radius, height) in metres, from the outside bottom upwards; to draw
            an inside too, continue down the inside.
        segments: Corners of a ring.
        crease: Angle in radians above which an edge stays sharp.
        uv_height: Heights that a label's lower and upper edge take; the label goes
            once around. None for no texture.

    Returns:
        The mesh; radius 0 closes it.
    """
    points = np.asarray(profile, np.float64)
    rings = len(points)
    angle = np.linspace(0, 2 * np.pi, segments + 1)  # the seam is doubled for the label
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    vertices = np.zeros((rings, segments + 1, 3))
    vertices[:, :, :2] = points[:, None, :1] * circle[None]
    vertices[:, :, 2] = points[:, 1:]
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(segments), indexing="ij")
    a = (i * (segments + 1) + j).ravel()
    b, c, d = a + 1, a + segments + 2, a + segments + 1
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    flat = vertices.reshape(-1, 3)
    corners = flat[faces]
    size = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    faces = faces[size > 1e-12]
    uv = None
    if uv_height is not None:
        low, high = uv_height
        u = np.broadcast_to(angle / (2 * np.pi), (rings, segments + 1))
        v = np.broadcast_to((points[:, 1:] - low) / (high - low), (rings, segments + 1))
        # Row 0 of a picture is its top.
        uv = np.stack([u, 1 - v], axis=-1).reshape(-1, 2)
    return shade(flat, faces, crease=crease, uv=uv)


def rounded_box(
    half: Sequence[float],
    radius: float,
    *,
    steps: int = 3,
    atlas: bool = False,
    tile: float | None = None,
) -> Mesh:
    """A box with rounded edges.

    Args:
        half: Half sizes in metres.
        radius: Of the edges.
        steps: Segments of a rounded edge.
        atlas: True for texture coordinates: the picture's four quarters of its width
            are the sides -y (front), +x, +y, -x, the lower quarter of its height the top.
        tile: Or: side in metres of one repetition of the picture on every face.

    Returns:
        The mesh.
    """
    size = np.asarray(half, np.float64)
    inner = size - radius
    # A cube's grid with lines crowded at the edges, pushed out to the rounding.
    t = np.tan(np.linspace(0, np.pi / 4, steps + 1)[1:])  # 0 < t <= 1
    vertices, faces, uvs = [], [], []
    at = 0
    for axis in range(3):
        u_axis, v_axis = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1.0, 1.0):
            grid = []
            for k in (u_axis, v_axis):
                edge = inner[k]
                line = np.concatenate([-edge - radius * t[::-1], [-edge, edge], edge + radius * t])
                grid.append(line)
            gu, gv = np.meshgrid(*grid, indexing="ij")
            cube = np.zeros((*gu.shape, 3))
            cube[..., axis] = sign * size[axis]
            cube[..., u_axis], cube[..., v_axis] = gu, gv
            core = np.clip(cube, -inner, inner)
            out = cube - core
            point = core + radius * out / np.linalg.norm(out, axis=-1, keepdims=True)
            n, m = gu.shape
            i, j = np.meshgrid(np.arange(n - 1), np.arange(m - 1), indexing="ij")
            a = (i * m + j).ravel() + at
            quad = np.stack([a, a + m, a + m + 1, a + 1], 1)
            if sign < 0:
                quad = quad[:, ::-1]
            faces.append(np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]]))
            vertices.append(point.reshape(-1, 3))
            flat = point.reshape(-1, 3)
            uvs.append(flat[:, _ACROSS[axis]] / tile if tile else _atlas(axis, sign, flat, size))
            at += n * m
    return shade(
        np.concatenate(vertices),
        np.concatenate(faces),
        crease=1.0,
        uv=np.concatenate(uvs) if atlas or tile else None,
    )


# Which coordinates run along the width and height of a picture on a face normal to each axis.
_ACROSS = {0: [1, 2], 1: [0, 2], 2: [0, 1]}


def _atlas(axis: int, sign: float, point: np.ndarray, size: np.ndarray) -> np.ndarray:
    x, y, z = (point / size * 0.5 + 0.5).T
    column = {(1, -1.0): 0, (0, 1.0): 1, (1, 1.0): 2, (0, -1.0): 3}
    if axis == 2:
        # Top and bottom share the lower left part of the picture.
        return np.stack([x * 0.25, 0.75 + 0.25 * (1 - y)], axis=1)
    across = {0: y if sign > 0 else 1 - y, 1: x if sign < 0 else 1 - x}[axis]
    return np.stack([(column[(axis, sign)] + across) * 0.25, 0.75 * (1 - z)], axis=1)


def prism(outline: Sequence[tuple[float, float]], depth: float, *, crease: float = 0.6) -> Mesh:
    """Extrude a convex outline in (x, z), counter-clockwise seen from -y, along y by +-depth/2."""
    points = np.asarray(outline, np.float64)
    n = len(points)
    front = np.stack([points[:, 0], np.full(n, -depth / 2), points[:, 1]], 1)
    back = front + np.array([0.0, depth, 0.0])
    vertices = np.concatenate([front, back])
    k = np.arange(n)
    after = (k + 1) % n
    sides = np.concatenate(
        [np.stack([k, k + n, after + n], 1), np.stack([k, after + n, after], 1)]
    )[:, ::-1]
    fan = np.stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)], 1)
    return shade(vertices, np.concatenate([sides, fan, fan[:, ::-1] + n]), crease=crease)
