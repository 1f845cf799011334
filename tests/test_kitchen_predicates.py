"""Every success rule of the kitchen on both sides of its thresholds.

Distances are on a small scene of boxes; joints, buttons and regions are those of the
kitchen's own scenes, put where a test says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest

from envs.goals import World, check, holds, parse
from envs.kitchen.scenes import Spec, build, cache_key
from envs.scene import Region, Robot, Scene, SceneInfo, Thing
from envs.scene_cache import load_or_build

ROBOT = Robot(
    joints=(), actuators=(), gripper_joints=(), gripper_actuators=(), eef_site="grip",
    eef_body="hand", init_qpos=(), init_gripper_qpos=(), pad_geoms=((), ()),
)  # fmt: skip


class Shelf:
    """A hand, a box of 4 x 6 x 10 cm, a dish of radius 0.1 m, a pan, a turned region."""

    def __init__(self) -> None:
        spec = mujoco.MjSpec()
        spec.option.gravity = (0, 0, 0)
        box = mujoco.mjtGeom.mjGEOM_BOX
        for name, size in (
            ("hand", (0.01, 0.01, 0.01)), ("box", (0.02, 0.03, 0.05)),
            ("dish", (0.1, 0.1, 0.01)), ("pan", (0.1, 0.1, 0.01)),
        ):  # fmt: skip
            body = spec.worldbody.add_body(name=name)
            body.add_freejoint(name=f"{name}_joint")
            body.add_geom(name=f"{name}_geom", type=box, size=size)
        spec.body("hand").add_site(name="grip")
        turn = math.radians(90) / 2
        spec.worldbody.add_site(name="inside", quat=(math.cos(turn), 0, 0, math.sin(turn)))
        model = spec.compile()

        def thing(name: str, category: str) -> Thing:
            return Thing(
                name=name, category=category, body=name, free_joint=f"{name}_joint",
                geoms=(model.geom(f"{name}_geom").id,), radius=0.1,
            )  # fmt: skip

        regions = (
            # 20 x 10 x 30 cm in its own axes; it is turned by 90 degrees: 10 x 20 in the world's
            Region(name="inside", site="inside", size=(0.10, 0.05, 0.15)),
            Region(name="spot", site="inside", size=(0.04, 0.04, 0.10)),
        )
        things = (thing("box", "box"), thing("dish", "plate"), thing("pan", "pan"))
        info = SceneInfo(id="shelf", robot=ROBOT, things=things, regions=regions, cameras={})
        self.scene = Scene(model=model, info=info)
        self.data = mujoco.MjData(model)
        for k, name in enumerate(("hand", "box", "dish", "pan")):
            self.put(name, 10.0 * (k + 1), 0, 0)

    def put(self, name: str, x: float, y: float, z: float, degrees: float = 0.0) -> None:
        at = self.scene.qpos_address(f"{name}_joint")
        half = math.radians(degrees) / 2
        self.data.qpos[at : at + 7] = x, y, z, math.cos(half), 0, 0, math.sin(half)
        mujoco.mj_forward(self.scene.model, self.data)

    def holds(self, text: str) -> bool:
        goal = parse(text)
        check(goal, self.scene)
        return holds(goal, World(self.scene, self.data))


@pytest.mark.parametrize(
    ("distance", "far", "clear"),
    [(0.26, True, True), (0.24, False, True), (0.16, False, True), (0.14, False, False)],
)
def test_far_and_clear_are_distances_of_the_gripper(
    distance: float, far: bool, clear: bool
) -> None:
    shelf = Shelf()
    shelf.put("box", 0, 0, 0)
    shelf.put("hand", 0, distance * 0.6, distance * 0.8)
    assert shelf.holds("Far(box)") is far
    assert shelf.holds("Clear(box)") is clear


@pytest.mark.parametrize(
    ("x", "y", "z", "degrees", "inside"),
    [
        (0, 0, 0, 0, True),
        # its corner at x + 0.02 against 0.05 + 0.05 (slack): 0.08
        (0.079, 0, 0, 0, True),
        (0.081, 0, 0, 0, False),
        # y + 0.03 against 0.10 + 0.05: 0.12
        (0, 0.119, 0, 0, True),
        (0, 0.121, 0, 0, False),
        # z + 0.05 against 0.15 + 0.05: 0.15
        (0, 0, -0.149, 0, True),
        (0, 0, -0.151, 0, False),
        # turned, its longer side lies along x: x + 0.03 against 0.10: 0.07
        (0.069, 0, 0, 90, True),
        (0.071, 0, 0, 90, False),
    ],
)
def test_inside_asks_for_all_corners_with_five_centimetres_of_slack(
    x: float, y: float, z: float, degrees: float, inside: bool
) -> None:
    shelf = Shelf()
    shelf.put("box", x, y, z, degrees)
    assert shelf.holds("Inside(box, inside)") is inside


@pytest.mark.parametrize(
    ("x", "y", "inside"),
    [(0.049, 0, True), (0.051, 0, False), (0, -0.099, True), (0, -0.101, False)],
)
def test_the_centre_alone_counts_in_a_sink(x: float, y: float, inside: bool) -> None:
    shelf = Shelf()
    shelf.put("box", x, y, 0)
    assert shelf.holds("CentreIn(box, inside)") is inside


@pytest.mark.parametrize(
    ("dish", "away", "inside"),
    [("dish", 0.0699, True), ("dish", 0.0701, False), ("pan", 0.069, True), ("pan", 0.071, False)],
)
def test_in_a_receptacle_within_its_middle(dish: str, away: float, inside: bool) -> None:
    shelf = Shelf()  # 0.7 of a radius of 0.1 m, and 0.07 m for pans: the same here
    shelf.put(dish, 0, 0, 0)
    shelf.put("box", 0.6 * away, -0.8 * away, 0.06 - 1e-4)
    assert shelf.holds(f"InReceptacle(box, {dish})") is inside
    shelf.put("box", 0, 0, 0.06 + 1e-3)
    assert not shelf.holds(f"InReceptacle(box, {dish})")  # it must touch


@pytest.mark.parametrize(
    ("x", "y", "z", "there"),
    [
        (0.039, 0, 0, True), (0.041, 0, 0, False), (0.03, 0.03, 0, False),  # 0.042 in all
        (0, 0, 0.099, True), (0, 0, 0.101, False), (0, 0, -0.101, False),
    ],
)  # fmt: skip
def test_a_spot_is_a_circle_with_a_height(x: float, y: float, z: float, there: bool) -> None:
    shelf = Shelf()
    shelf.put("box", x, y, z)
    assert shelf.holds("AtSpot(box, spot)") is there


# ------------------------------------------------------------------- joints of fixtures

LEFT = "cabinet_left_door_joint"
DOOR, DRAWER = 1.4, 0.275  # radians and metres that doors and drawers open


@pytest.fixture(scope="module")
def world(scene_cache_dir: Path) -> Callable[[str], World]:
    """Scenes by station, with nothing free in them."""

    def of(station: str) -> World:
        spec = Spec(layout="one_wall", style="modern", station=station)
        scene = load_or_build(scene_cache_dir, cache_key(spec), lambda: build(spec))
        data = mujoco.MjData(scene.model)
        mujoco.mj_forward(scene.model, data)
        return World(scene, data)

    return of


@pytest.mark.sim
@pytest.mark.parametrize(
    ("station", "joint", "goal", "true", "false"),
    [
        ("doors", LEFT, "Open(cabinet_left_door)", 0.901 * DOOR, 0.899 * DOOR),
        ("doors", LEFT, "Close(cabinet_left_door)", 0.049 * DOOR, 0.051 * DOOR),
        ("microwave", "microwave_door_joint", "Open(microwave_door)", 0.901 * 1.7, 0.899 * 1.7),
        ("drawers", "drawer_left_joint", "Open(drawer_left)", 0.951 * DRAWER, 0.949 * DRAWER),
        ("drawers", "drawer_right_joint", "Close(drawer_right)", 0.049 * DRAWER, 0.051 * DRAWER),
        ("sink", "sink_handle_joint", "TurnOn(sink_handle)", 0.401, 0.40),
        ("sink", "sink_handle_joint", "TurnOff(sink_handle)", 0.40, 0.401),
        ("sink", "sink_spout_joint", "TurnOn(sink_spout_left)", -0.524, -0.523),  # pi / 6 = 0.5236
        ("sink", "sink_spout_joint", "TurnOn(sink_spout_right)", 0.524, 0.523),
        ("knobs", "stove_rear_left_joint", "TurnOn(stove_rear_left)", 0.351, 0.349),
        ("knobs", "stove_rear_left_joint", "TurnOff(stove_rear_left)", 0.349, 0.351),
        ("coffee", "coffee_button_joint", "TurnOn(coffee_button)", 0.0061, 0.0059),
        ("microwave", "microwave_start_joint", "TurnOn(microwave_start)", 0.0061, 0.0059),
        ("microwave", "microwave_stop_joint", "TurnOn(microwave_stop)", 0.0061, 0.0059),
    ],
)  # fmt: skip
def test_joints_of_fixtures(
    world: Callable[[str], World], station: str, joint: str, goal: str, true: float, false: float
) -> None:
    seen = world(station)
    asked = parse(goal)
    check(asked, seen.scene)
    for value, expected in ((true, True), (false, False)):
        seen.data.qpos[seen.scene.qpos_address(joint)] = value
        assert holds(asked, seen) is expected


@pytest.mark.sim
def test_both_doors_must_be_open(world: Callable[[str], World]) -> None:
    seen = world("doors")
    goal = parse("Open(cabinet_left_door) & Open(cabinet_right_door)")
    seen.data.qpos[seen.scene.qpos_address("cabinet_left_door_joint")] = DOOR
    assert not holds(goal, seen)
    seen.data.qpos[seen.scene.qpos_address("cabinet_right_door_joint")] = DOOR
    assert holds(goal, seen)


@pytest.mark.sim
def test_the_microwaves_buttons_push_each_other_out(world: Callable[[str], World]) -> None:
    seen = world("microwave")
    model, data = seen.scene.model, seen.data
    start, stop = (seen.scene.qpos_address(f"microwave_{b}_joint") for b in ("start", "stop"))
    data.qpos[start], data.qpos[stop] = 0.0, 0.012
    mujoco.mj_forward(model, data)
    data.qfrc_applied[seen.scene.dof_address("microwave_start_joint")] = 5.0  # a finger's push
    for _ in range(500):
        mujoco.mj_step(model, data)
    data.qfrc_applied[:] = 0.0
    for _ in range(500):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos[[start, stop]], [0.012, 0.0], atol=5e-4)
    assert holds(parse("TurnOn(microwave_start) & TurnOff(microwave_stop)"), seen)
