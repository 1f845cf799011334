"""LIBERO's reset, drawn without LIBERO: fixture poses and the nominal qpos.

The genuine hard reset draws from NumPy's global generator, and part of what it draws
(poses of fixtures) is not in LIBERO's initial states, so scores depend on it. Here is
the same arithmetic in the same order on a generator of our own; tests hold it equal bit
for bit. `envs.libero.compile` writes the samplers' settings into SceneInfo.placement.

What one reset draws, in order (robosuite 1.4.0, hf-libero 0.1.4):

1. ``randn(7)``: noise on the arm, drawn although its magnitude is 0 (robots/robot.py);
2. one uniform per Open/Close/Turnon/Turnoff in ``:init``. hf-libero appends to the list of
   these samplers each time that it loads the model, so the n-th load draws them n times
   and the last draw counts (bddl_base_domain.py, object_property_initializers);
3. fixtures and objects in regions of the table or floor, in the order of ``:init``;
4. objects on or in sites of other things, placed around where the site is *before* the
   fixtures move to their drawn poses;
5. objects on other objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.scene import Pose, Scene

Array = NDArray[np.float64]

TRIES = 5000  # per object, then the whole reset starts again (base_region_sampler.py)


class CannotPlace(Exception):
    """No free place for an object was found (robosuite's RandomizationError)."""


@dataclass(frozen=True, kw_only=True)
class Property:
    """A joint position drawn at reset: ``uniform(low, high)`` for all of its joints."""

    low: float
    high: float
    joints: list[str]


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Where one object or fixture may be put.

    Attributes:
        name: Object or fixture.
        body: Root body of a fixture, whose pose in the model is drawn; else None.
        joint: Free joint of an object; else None.
        x_ranges, y_ranges: [low, high] metres; one pair is chosen at random.
        inset: Taken from both ends of a range, metres.
        turns: [axis, low, high] radians each; several are multiplied.
        product: True when `turns` came as a mapping, and is multiplied in float32.
        scalar_first: Quaternion order that the sampler writes. Objects get x, y, z, w
            where MuJoCo reads w, x, y, z; scores are measured with that.
        avoid: Keep away from what is already placed.
        origin: World position that ranges are relative to, when `reference` is None.
        z_offset, radius, bottom, top: Metres, of the object.
        reference: Thing that the object is placed relative to.
        on_top: Add the reference's top to its height.
        site: Site of the reference that the object is placed on or in.
    """

    name: str
    body: str | None
    joint: str | None
    x_ranges: list[list[float]]
    y_ranges: list[list[float]]
    inset: float
    turns: list[tuple[str, float, float]]
    product: bool
    scalar_first: bool
    avoid: bool
    origin: list[float] | None
    z_offset: float
    radius: float
    bottom: float
    top: float
    reference: str | None = None
    on_top: bool = False
    site: str | None = None


# position, quaternion in the sampler's order, and who was placed
Placed = tuple[tuple[float, float, float], NDArray[np.floating], Sampler]


@dataclass(frozen=True, kw_only=True)
class Placement:
    """All that a reset draws, as SceneInfo.placement keeps it.

    Attributes:
        properties: Joint positions.
        samplers: In the order in which they draw.
        untouched: Poses of fixture bodies as compiled: body -> [position, quaternion].
    """

    properties: list[Property] = field(default_factory=list)
    samplers: list[Sampler] = field(default_factory=list)
    untouched: dict[str, list[list[float]]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Placement:
        """Read SceneInfo.placement."""
        return cls(
            properties=[Property(**p) for p in values["properties"]],
            samplers=[Sampler(**s) for s in values["samplers"]],
            untouched=dict(values["untouched"]),
        )


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One reset.

    Attributes:
        fixtures: Poses of bodies without a joint.
        qpos: [nq], the nominal generalised position.
        loads: Model loads of the genuine environment after this reset.
    """

    fixtures: dict[str, Pose]
    qpos: Array
    loads: int


def draw(scene: Scene, rng: np.random.RandomState, *, loads: int = 1) -> Drawn:
    """Draw one reset as the genuine environment does.

    Args:
        scene: A LIBERO scene.
        rng: Stands in for NumPy's global generator; advanced.
        loads: Times that the environment loaded its model before; its construction
            is the first.

    Returns:
        The reset; give its ``loads`` to the next call to continue the sequence.
    """
    placement = Placement.from_json(scene.info.placement)
    while True:
        loads += 1  # a failed attempt loads the model too
        try:
            return _attempt(scene, placement, rng, loads)
        except CannotPlace:
            continue


def _attempt(scene: Scene, placement: Placement, rng: np.random.RandomState, loads: int) -> Drawn:
    robot = scene.info.robot
    qpos = scene.model.qpos0.copy()
    rng.randn(len(robot.init_qpos))
    for joint, value in zip(robot.joints, robot.init_qpos, strict=True):
        qpos[scene.qpos_address(joint)] = value
    for joint, value in zip(robot.gripper_joints, robot.init_gripper_qpos, strict=True):
        qpos[scene.qpos_address(joint)] = value
    for _ in range(loads):
        for prop in placement.properties:
            value = rng.uniform(high=prop.high, low=prop.low)
            for joint in prop.joints:
                qpos[scene.qpos_address(joint)] = value

    sites = _sites_before_fixtures_move(scene, placement, qpos)
    placed: dict[str, Placed] = {}
    for sampler in placement.samplers:
        position, quaternion = _place(sampler, placed, sites, rng)
        placed[sampler.name] = (position, quaternion, sampler)

    fixtures: dict[str, Pose] = {}
    for position, quaternion, sampler in placed.values():
        if sampler.body is not None:
            fixtures[sampler.body] = (np.array(position), np.array(quaternion, np.float64))
        elif sampler.joint is not None:
            at = scene.qpos_address(sampler.joint)
            qpos[at : at + 7] = np.concatenate([np.array(position), quaternion])
    return Drawn(fixtures=fixtures, qpos=qpos, loads=loads)


def _place(
    sampler: Sampler,
    placed: Mapping[str, Placed],
    sites: Mapping[str, Array],
    rng: np.random.RandomState,
) -> tuple[tuple[float, float, float], NDArray[np.floating]]:
    """One object's pose: MultiRegionRandomSampler.sample and its relatives."""
    site = (0.0, 0.0, 0.0)
    if sampler.reference is None:
        assert sampler.origin is not None
        base = np.array(sampler.origin, np.float64)
    else:
        position, quaternion, reference = placed[sampler.reference]
        base = np.array(position)
        if sampler.on_top:
            base = base + np.array((0, 0, reference.top))
        if sampler.site is not None:
            site = _rotation(quaternion[[1, 2, 3, 0]]) @ sites[sampler.site]
    for _ in range(TRIES):
        which = rng.randint(len(sampler.x_ranges))
        x = _coordinate(sampler.x_ranges[which], sampler.inset, rng) + base[0] + site[0]
        y = _coordinate(sampler.y_ranges[which], sampler.inset, rng) + base[1] + site[1]
        z = sampler.z_offset + base[2] + site[2] - sampler.bottom
        if sampler.avoid and any(
            np.linalg.norm((x - px, y - py)) <= other.radius + sampler.radius
            and z - pz <= other.top - sampler.bottom
            for (px, py, pz), _, other in placed.values()
        ):
            continue
        return (x, y, z), _turn(sampler, rng)
    raise CannotPlace(sampler.name)


def _coordinate(limits: list[float], inset: float, rng: np.random.RandomState) -> float:
    low, high = limits
    return rng.uniform(high=high - inset, low=low + inset)


def _turn(sampler: Sampler, rng: np.random.RandomState) -> NDArray[np.floating]:
    """A drawn orientation, in the order of components that the sampler leaves."""
    result: NDArray[np.floating] = np.array([0.0, 0.0, 0.0, 1.0])
    for axis, low, high in sampler.turns:
        angle = rng.uniform(high=high, low=low)
        turn = np.zeros(4)
        if sampler.scalar_first:
            turn[0] = np.cos(angle / 2)
            turn["xyz".index(axis) + 1] = np.sin(angle / 2)
        else:
            turn[3] = np.cos(angle / 2)
            turn["xyz".index(axis)] = np.sin(angle / 2)
        if not sampler.product:
            return turn
        result = _multiply(turn, result)
    return result


def _multiply(a: Array, b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Quaternion product a b, xyzw, rounded to float32 as robosuite does."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return np.array(
        (
            ax * bw + ay * bz - az * by + aw * bx,
            -ax * bz + ay * bw + az * bx + aw * by,
            ax * by - ay * bx + az * bw + aw * bz,
            -ax * bx - ay * by - az * bz + aw * bw,
        ),
        dtype=np.float32,
    )


def _rotation(xyzw: NDArray[np.floating]) -> Array:
    """Rotation matrix [3, 3], with robosuite's mixture of float32 and float64.

    Its compiled quat2mat scales a float32 quaternion by a float64 factor and subtracts
    float32 products from a float64 one.
    """
    q = xyzw.astype(np.float32)[[3, 0, 1, 2]]
    norm = float(np.dot(q, q))
    q = (q.astype(np.float64) * np.sqrt(2.0 / norm)).astype(np.float32)
    p = np.outer(q, q)
    d = p.astype(np.float64)
    return np.array(
        [
            [1.0 - d[2, 2] - d[3, 3], p[1, 2] - p[3, 0], p[1, 3] + p[2, 0]],
            [p[1, 2] + p[3, 0], 1.0 - d[1, 1] - d[3, 3], p[2, 3] - p[1, 0]],
            [p[1, 3] - p[2, 0], p[2, 3] + p[1, 0], 1.0 - d[1, 1] - d[2, 2]],
        ],
        dtype=np.float64,
    )


def _sites_before_fixtures_move(
    scene: Scene, placement: Placement, qpos: Array
) -> dict[str, Array]:
    """World positions of the sites that objects are placed on, fixtures as compiled."""
    names = {s.site for s in placement.samplers if s.site is not None}
    if not names:
        return {}
    model = scene.model
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    bodies = [scene.body_id(body) for body in placement.untouched]
    kept = model.body_pos[bodies].copy(), model.body_quat[bodies].copy()
    try:
        for body, (position, quaternion) in zip(bodies, placement.untouched.values(), strict=True):
            model.body_pos[body] = position
            model.body_quat[body] = quaternion
        mujoco.mj_kinematics(model, data)
    finally:
        model.body_pos[bodies], model.body_quat[bodies] = kept
    return {name: data.site_xpos[scene.site_id(name)].copy() for name in names}
