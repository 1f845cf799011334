"""A shape that `envs.tabletop.shapes` has inside out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.tabletop.meshes import Mesh, shade


def prism(outline: Sequence[tuple[float, float]], depth: float, *, crease: float = 0.6) -> Mesh:
    """Extrude a convex outline in (x, z), counter-clockwise seen from -y, along y by +-depth/2.

    The tabletop's function of this name turns the sides inwards, which shows as a missing
    roof of its milk carton; it stays, because its pictures are part of recorded runs.
    """
    points = np.asarray(outline, np.float64)
    n = len(points)
    front = np.stack([points[:, 0], np.full(n, -depth / 2), points[:, 1]], 1)
    back = front + np.array([0.0, depth, 0.0])
    k = np.arange(n)
    after = (k + 1) % n
    sides = [np.stack([k, k + n, after + n], 1), np.stack([k, after + n, after], 1)]
    fan = np.stack([np.zeros(n - 2, int), np.arange(1, n - 1), np.arange(2, n)], 1)
    faces = np.concatenate([*sides, fan, fan[:, ::-1] + n])
    return shade(np.concatenate([front, back]), faces, crease=crease)
