"""Where two parallel fingers can take a thing, read off its collision shapes.

For each direction of the fingers, rays are shot through the shape as the fingers would
close. What they run through falls into blocks with gaps between them; a block (or all of
them together) that fits between the pads, with room for a finger on both sides, is a
candidate. So one rule gives the narrow side of a box, the neck of a bottle, the wall of
a bowl and the bar of a handle.

All of it happens in the frame of the approach: the hand comes from +z, pointing to -z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policies.oracle.geometry import Array, Pose, Solids, hand_rotation

# The Panda's hand about its grip site, metres (robosuite 1.4.0, panda_gripper.xml and its
# collision meshes): fingertips end 9 mm past the site, the palm begins 31 mm before it,
# pads reach from 12 mm before to 4 mm past it and are 16 mm wide, open pads are 80 mm
# apart and a finger is up to 27 mm thick.
TIP = 0.0095
PALM = 0.031
PAD_ABOVE, PAD_BELOW = 0.0116, 0.0044
PAD_HALF_WIDTH = 0.008
OPEN = 0.08
FINGER = 0.027

WIDEST = OPEN - 0.006  # 3 mm of play on either side
PLAY_BELOW = 0.003  # fingertips stay this far above what the thing stands on
YAWS = 12
STEP = 0.010  # metres between neighbouring places along the hand's width
KEPT = 160  # grasps of a thing
# Grasps nearer to a better one than this (metres, radians) are dropped; the second, coarser
# measure makes sure that every part of a thing is among them.
APART, FAR_APART = (0.009, 0.2), (0.025, 0.5)
DEPTHS = (0.027, 0.020, 0.013, 0.006)  # grip site below the thing's top; the palm allows 31 mm


@dataclass(frozen=True, eq=False)
class Grasp:
    """A place to take a thing, in the thing's own frame.

    Attributes:
        pos: Grip site.
        closing: Unit direction in which the fingers close.
        width: Metres between the pads when closed on it.
        cost: Lower is better; about 1 separates a good grasp from a poor one.
    """

    pos: Array
    closing: Array
    width: float
    cost: float

    def in_world(self, thing: Pose, approach: Array) -> Pose:
        """Pose of the grip site for a thing's pose and a direction of approach (world)."""
        return Pose(
            thing.pos + thing.rot @ self.pos, hand_rotation(thing.rot @ self.closing, approach)
        )


def grasps(
    solids: Solids, frame: Array, centre: Array, *, below: float = TIP + PLAY_BELOW
) -> tuple[Grasp, ...]:
    """Find grasps of a thing, best first.

    Args:
        solids: Its collision shapes, in its own frame.
        frame: Rotation from the approach's frame to the thing's; column 2 points to
            where the hand comes from.
        centre: Its centre of mass, in its own frame.
        below: Least height of the grip site over the thing's lowest point; what stands
            on something leaves room for the fingertips.

    Returns:
        Grasps that differ from each other; empty when nothing fits.
    """
    seen = solids.seen_from(Pose(np.zeros(3), frame))
    low, high = seen.bounds()
    bottom, top = float(low[:, 2].min()), float(high[:, 2].max())
    floor = bottom + below
    levels = np.array(sorted({round(max(top - d, floor), 4) for d in DEPTHS}))
    com = frame.T @ centre
    found: list[Grasp] = []
    for yaw in _directions(seen):
        found.extend(_along(seen, float(yaw), levels, com, top))
    return tuple(
        Grasp(pos=frame @ g.pos, closing=frame @ g.closing, width=g.width, cost=g.cost)
        for g in _distinct(sorted(found, key=lambda g: g.cost))
    )


def _distinct(found: list[Grasp]) -> list[Grasp]:
    """The best grasps, none close to a better one; and the best of every part of the thing."""
    coarse = _thinned(found, *FAR_APART)[: KEPT // 3]
    kept = dict.fromkeys(coarse)
    for grasp in _thinned(found, *APART):
        if len(kept) == KEPT:
            break
        kept.setdefault(grasp)
    return sorted(kept, key=lambda g: g.cost)


def _thinned(found: list[Grasp], metres: float, radians: float) -> list[Grasp]:
    """Those that are not close to a better one; `found` comes best first."""
    pos = np.array([g.pos for g in found]).reshape(-1, 3)
    closing = np.array([g.closing for g in found]).reshape(-1, 3)
    free = np.ones(len(found), bool)
    out: list[Grasp] = []
    for i in range(len(found)):
        if free[i]:
            out.append(found[i])
            # Depths are few and far between: half as far apart is different enough.
            near = np.linalg.norm((pos - pos[i]) * [1.0, 1.0, 2.0], axis=1) < metres
            free &= ~(near & (np.abs(closing @ closing[i]) > np.cos(radians)))
    return out


def _directions(solids: Solids) -> Array:
    """Yaws to try: evenly spread, and along the horizontal axes of the larger boxes."""
    even = np.arange(YAWS) * np.pi / YAWS
    volume = solids.half.prod(1)
    own: list[float] = []
    for k in np.argsort(-volume)[:8]:
        for axis in solids.axes[k].T:
            if not solids.round[k] and abs(axis[2]) < 0.2:
                own.append(float(np.arctan2(axis[1], axis[0]) % np.pi))
    return np.unique(np.round(np.concatenate([even, np.array(own, np.float64)]), 3))


def _along(solids: Solids, yaw: float, levels: Array, com: Array, top: float) -> list[Grasp]:
    """Grasps with fingers closing along one yaw."""
    u = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    v = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    reach = solids.reach(np.stack([u, v]))
    middle = np.stack([solids.centre @ u, solids.centre @ v], axis=1)
    low, high = (middle - reach).min(0), (middle + reach).max(0)
    inset = min(0.004, (high[1] - low[1]) / 4)
    places = np.linspace(
        low[1] + inset, high[1] - inset, max(1, int((high[1] - low[1] - 2 * inset) / STEP) + 1)
    )
    places = np.union1d(places, [com @ v])
    side = np.array([-0.6, 0.0, 0.6]) * PAD_HALF_WIDTH
    height = np.array([-0.5 * PAD_BELOW, 0.3 * PAD_ABOVE, 0.8 * PAD_ABOVE])
    # rays: [place, level, side, height]
    p, z, s, h = np.meshgrid(places, levels, side, height, indexing="ij")
    start = low[0] - 0.1
    origins = u * start + (p + s).reshape(-1, 1) * v
    origins = origins + np.array([0.0, 0.0, 1.0]) * (z + h).reshape(-1, 1)
    enter, leave = solids.intervals(origins, u)
    groups = len(places) * len(levels)
    enter = (enter + start).reshape(groups, -1)  # [group, ray * solid]
    leave = (leave + start).reshape(groups, -1)
    missed = enter > leave
    enter = np.where(missed, np.inf, enter)
    leave = np.where(missed, -np.inf, leave)
    order = np.argsort(enter, axis=1)
    enter, leave = np.take_along_axis(enter, order, 1), np.take_along_axis(leave, order, 1)
    ray = order // len(solids)  # which of a group's nine rays
    cover = np.maximum.accumulate(leave, axis=1)
    out: list[Grasp] = []
    for group in np.flatnonzero(np.isfinite(enter[:, 0])):
        place, level = divmod(int(group), len(levels))
        for pinch in _blocks(enter[group], leave[group], cover[group], ray[group]):
            a, b, covered, slant = pinch
            middle_u = (a + b) / 2
            pos = u * middle_u + v * places[place]
            pos = pos + np.array([0.0, 0.0, levels[level]])
            off = float(np.hypot(middle_u - com @ u, places[place] - com @ v))
            shallow = max(0.0, 0.02 - (top - levels[level]))
            out.append(
                Grasp(
                    pos=pos,
                    closing=u,
                    width=b - a,
                    # Weights: a slant of 1 cm between the rays, a third of the rays missing,
                    # 8 cm beside the centre of mass, and a grip only 1 cm deep each cost
                    # about as much; wide things leave little play for the fingers.
                    cost=100 * max(0.0, slant - 0.0005)
                    + 3 * (1 - covered)
                    + 12 * off
                    + 60 * shallow
                    + 40 * max(0.0, b - a - 0.06),
                )
            )
    return out


def _blocks(
    enter: Array, leave: Array, cover: Array, ray: Array
) -> list[tuple[float, float, float, float]]:
    """Blocks that fit between the pads: (from, to, share of rays that meet it, slant)."""
    n = int(np.isfinite(enter).sum())
    enter, leave, cover, ray = enter[:n], leave[:n], cover[:n], ray[:n]
    cuts = np.flatnonzero(enter[1:] > cover[:-1] + 1e-3) + 1
    firsts = np.concatenate([[0], cuts])
    lasts = np.concatenate([cuts, [n]])
    begin, end = enter[firsts], cover[lasts - 1]
    spans = [(i, i) for i in range(len(firsts))]
    if len(firsts) > 1:
        spans.append((0, len(firsts) - 1))
    out: list[tuple[float, float, float, float]] = []
    for i, j in spans:
        a, b = float(begin[i]), float(end[j])
        if b - a > WIDEST:
            continue
        # Open fingers stand this far from the middle; they must stand in a gap.
        near, far = OPEN / 2, OPEN / 2 + FINGER
        middle = (a + b) / 2
        if _meets(begin, end, middle - far, middle - near) or _meets(
            begin, end, middle + near, middle + far
        ):
            continue
        inside = slice(firsts[i], lasts[j])
        met = np.unique(ray[inside])
        lows = np.array([enter[inside][ray[inside] == r].min() for r in met])
        highs = np.array([leave[inside][ray[inside] == r].max() for r in met])
        slant = max(float(np.ptp(lows)), float(np.ptp(highs)))
        out.append((a, b, len(met) / 9, slant))
    return out


def _meets(begin: Array, end: Array, low: float, high: float) -> bool:
    return bool(np.any((begin < high) & (end > low)))
