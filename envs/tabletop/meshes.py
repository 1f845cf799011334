"""Triangle meshes as arrays: reading, simplifying, shading normals.

The Panda's visual meshes have 180 000 triangles; software OpenGL pays for every
vertex (50 ms a picture). Simplified once, when a scene is built, they cost a tenth
and look the same at 256 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Mesh:
    """A mesh ready to draw: one normal (and one texture coordinate) per vertex.

    Attributes:
        vertices: [V, 3] metres.
        faces: [F, 3] vertex indices, counter-clockwise seen from outside.
        normals: [V, 3] unit.
        uv: [V, 2] texture coordinates, or None.
    """

    vertices: Array
    faces: Ints
    normals: Array
    uv: Array | None = None


def read_obj(path: Path) -> tuple[Array, Ints]:
    """Read positions and triangles of a Wavefront file; polygons become fans."""
    positions: list[str] = []
    triangles: list[tuple[int, int, int]] = []
    with path.open() as file:
        for line in file:
            if line.startswith("v "):
                positions.append(line[2:])
            elif line.startswith("f "):
                corners = [int(word.split("/")[0]) - 1 for word in line.split()[1:]]
                triangles += [
                    (corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)
                ]
    vertices = np.array("".join(positions).split(), np.float64).reshape(-1, 3)
    return vertices, np.array(triangles, np.int64)


def read_stl(path: Path) -> tuple[Array, Ints]:
    """Read positions and triangles of a binary STL file; corners are not yet shared."""
    raw = path.read_bytes()
    count = int(np.frombuffer(raw, "<u4", 1, 80)[0])
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("skip", "<u2")])
    corners = np.frombuffer(raw, record, count, 84)["corners"]
    return corners.reshape(-1, 3).astype(np.float64), np.arange(3 * count).reshape(-1, 3)


def concatenate(parts: Sequence[tuple[Array, Ints]]) -> tuple[Array, Ints]:
    """Put several meshes into one, unchanged."""
    offsets = np.cumsum([0] + [len(v) for v, _ in parts[:-1]])
    vertices = np.concatenate([v for v, _ in parts])
    faces = np.concatenate([f + at for (_, f), at in zip(parts, offsets, strict=True)])
    return vertices, faces


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def simplify(vertices: Array, faces: Ints, cell: float) -> tuple[Array, Ints]:
    """Merge all vertices that share a cube of side `cell` into one.

    Each cube's vertex sits where the squared distance to the planes of the triangles
    that met there is least, so that edges stay sharp and flat parts stay flat.

    Args:
        vertices: [V, 3].
        faces: [F, 3].
        cell: Side of the cubes, metres.

    Returns:
        Fewer vertices and faces.

    Source: Lindstrom 2000, "Out-of-core simplification of large polygonal models".
    """
    keys = np.floor(vertices / cell).astype(np.int64)
    cubes, owner = np.unique(keys, axis=0, return_inverse=True)
    owner = owner.reshape(-1)
    n = len(cubes)
    corners = vertices[faces]
    normal_area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal_area, axis=1)
    normal = _unit(normal_area)
    plane = np.einsum("fi,fi->f", normal, corners[:, 0])
    counts = np.bincount(owner, minlength=n)
    centre = np.stack(
        [np.bincount(owner, vertices[:, i], minlength=n) / counts for i in range(3)], axis=1
    )
    quadric = np.zeros((n, 3, 3))
    linear = np.zeros((n, 3))
    for corner in range(3):
        cube = owner[faces[:, corner]]
        np.add.at(quadric, cube, area[:, None, None] * normal[:, :, None] * normal[:, None, :])
        np.add.at(linear, cube, (area * plane)[:, None] * normal)
    values, axes = np.linalg.eigh(quadric)
    # Directions without curvature (under 1% of the strongest) keep the mean position.
    solid = values > 0.01 * values[:, -1:] + 1e-15
    residual = linear - np.einsum("nij,nj->ni", quadric, centre)
    along = np.einsum("nij,ni->nj", axes, residual) * solid / np.where(solid, values, 1.0)
    moved = centre + np.einsum("nij,nj->ni", axes, along)
    low = cubes * cell
    moved = np.clip(moved, low, low + cell)

    merged = owner[faces]
    kept = (
        (merged[:, 0] != merged[:, 1])
        & (merged[:, 1] != merged[:, 2])
        & (merged[:, 2] != merged[:, 0])
    )
    merged = merged[kept]
    _, first = np.unique(np.sort(merged, axis=1), axis=0, return_index=True)
    merged = merged[np.sort(first)]
    used, compact = np.unique(merged, return_inverse=True)
    return moved[used], compact.reshape(-1, 3)


def shade(vertices: Array, faces: Ints, *, crease: float = 0.7, uv: Array | None = None) -> Mesh:
    """Give every corner the mean normal of the neighbours that it is smooth with.

    Args:
        vertices: [V, 3].
        faces: [F, 3].
        crease: Angle in radians above which an edge is drawn sharp.
        uv: [V, 2] texture coordinates, carried along.

    Returns:
        A mesh whose vertices are doubled along sharp edges.
    """
    corners = vertices[faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    unit = _unit(weighted)
    # Positions decide who meets where; texture seams must not show in the shading.
    _, place = np.unique(np.round(vertices, 7), axis=0, return_inverse=True)
    at = place.reshape(-1)[faces].reshape(-1)  # place of each corner, corner = 3 * face + i
    order = np.argsort(at, kind="stable")
    starts = np.searchsorted(at[order], np.arange(at.max() + 2))
    valence = np.diff(starts)
    mine = np.repeat(order, valence[at[order]])
    offset = np.arange(len(mine)) - np.repeat(
        np.cumsum(valence[at[order]]) - valence[at[order]], valence[at[order]]
    )
    theirs = order[starts[at[mine]] + offset]
    smooth = np.einsum("pi,pi->p", unit[mine // 3], unit[theirs // 3]) > np.cos(crease)
    normals = np.zeros((len(at), 3))
    np.add.at(normals, mine[smooth], weighted[theirs[smooth] // 3])
    normals = _unit(normals)
    identity = np.concatenate([faces.reshape(-1, 1), np.round(normals * 64)], axis=1)
    _, first, index = np.unique(identity, axis=0, return_index=True, return_inverse=True)
    source = faces.reshape(-1)[first]
    return Mesh(
        vertices=vertices[source],
        faces=index.reshape(-1, 3),
        normals=normals[first],
        uv=None if uv is None else uv[source],
    )
