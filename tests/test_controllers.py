"""Servos, planar bases, the mode switch and pose goals, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from envs import goals, servos
from envs.control import Control, Platform, Servo
from envs.robot_state import layout
from envs.runtime import Simulation
from envs.scene import Scene, SceneInfo, Start, SuiteOptions, Thing
from envs.tabletop.panda import ROBOT, add_panda
from wamsim import registry
from wamsim.contracts import EpisodeKey
from wamsim.conventions import (
    ALOHA_STATE,
    DELTA_EEF_BASE_TORSO_MODE,
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    PANDA_BASE_STATE,
)
from wamsim.errors import ConventionMismatch

DT = 0.002
MODE = DELTA_EEF_BASE_TORSO_MODE.labels.index("mode")
FORWARD = DELTA_EEF_BASE_TORSO_MODE.labels.index("base_forward")
TURN = DELTA_EEF_BASE_TORSO_MODE.labels.index("base_turn")

# ------------------------------------------------------------------- targets, one by one


def one(kind: str, *, target: float = 0.0, **more: object) -> servos.Servos:
    """A single servo whose numbers a test says."""
    given = {
        "low": -1.0, "high": 1.0, "speed": 2.0, "gated": False, "across": -1, "across_sign": 0.0,
        "heading": -1, "channel": 0,
    } | more  # fmt: skip
    return servos.Servos(
        ctrl=np.zeros(1, np.int64), channel=np.array([given["channel"]]),
        kind=np.array([servos._KINDS[kind]]), low=np.array([given["low"]]),
        high=np.array([given["high"]]), speed=np.array([given["speed"]]),
        gated=np.array([given["gated"]], np.uint8), across=np.array([given["across"]]),
        across_sign=np.array([given["across_sign"]]), heading=np.array([given["heading"]]),
        joint=np.zeros(1, np.int64), target=np.array([target]),
    )  # fmt: skip


def after(
    s: servos.Servos, action: list[float], *, moving: bool = True, qpos=(0.0,)
) -> list[float]:
    """The target after each of the 25 substeps of an env step."""
    out = []
    for k in range(25):
        servos.move_targets(np.array(action), moving, 25 - k, DT, np.array(qpos), s)
        out.append(float(s.target[0]))
    return out


def test_a_position_is_reached_on_a_straight_line() -> None:
    path = after(one("position"), [0.05])
    assert path == pytest.approx(np.linspace(0.002, 0.05, 25), abs=1e-15)


def test_a_position_is_never_approached_faster_than_allowed() -> None:
    # 2 rad/s over 50 ms: 0.1 rad, however far it is; 4 mrad each substep
    path = after(one("position"), [0.9])
    assert path[0] == pytest.approx(0.004)
    assert path[-1] == pytest.approx(0.1)


def test_a_position_ends_at_its_bounds() -> None:
    assert after(one("position", target=0.95), [7.0])[-1] == 1.0
    assert after(one("position", target=-0.95), [-7.0])[-1] == -1.0


@pytest.mark.parametrize(("low", "high"), [(0.02, 0.06), (-0.02, -0.06), (0.06, 0.02)])
@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0), (1.5, 1.0)])
def test_a_fraction_lies_between_its_ends(
    low: float, high: float, share: float, expected: float
) -> None:
    s = one("fraction", target=low, low=low, high=high)
    assert after(s, [share])[-1] == pytest.approx(low + expected * (high - low))


def test_a_velocity_is_integrated_and_clipped() -> None:
    assert after(one("velocity"), [0.5])[-1] == pytest.approx(0.5 * 2.0 * 0.05)
    assert after(one("velocity"), [9.0])[-1] == pytest.approx(2.0 * 0.05)  # 1 at most
    assert after(one("velocity", target=0.99), [1.0])[-1] == 1.0


@pytest.mark.parametrize(
    ("heading", "sign", "expected"),
    [
        # forward 1, side 0.5, speed 2 m/s, 50 ms: 0.1 m ahead and 0.05 m to the side
        (0.0, -1.0, 0.10),  # the x slide, not turned
        (np.pi / 2, -1.0, -0.05),  # turned left by 90 degrees: aside is where x came from
        (np.pi / 6, -1.0, 0.10 * np.cos(np.pi / 6) - 0.05 * np.sin(np.pi / 6)),
    ],
)
def test_commands_of_a_base_turn_with_it(heading: float, sign: float, expected: float) -> None:
    s = one("velocity", across=1, across_sign=sign, heading=0)
    assert after(s, [1.0, 0.5], qpos=(heading,))[-1] == pytest.approx(expected)


def test_a_gated_servo_stands_while_the_arm_moves() -> None:
    assert after(one("velocity", gated=True), [1.0], moving=False)[-1] == 0.0
    assert after(one("velocity", gated=True), [1.0], moving=True)[-1] == pytest.approx(0.1)


def test_a_driven_servo_is_left_to_its_hand() -> None:
    assert after(one("driven", target=0.3), [0.0])[-1] == 0.3


# ------------------------------------------------------------------- a robot on a base

BASE = {"base_x": 2.0, "base_y": 2.0, "base_yaw": 3.0, "torso": 0.3}


def mobile_panda() -> Scene:
    """A Panda on a planar base with a lift, in an empty world."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    body = spec.worldbody
    kinds = {
        "base_x": (mujoco.mjtJoint.mjJNT_SLIDE, (1, 0, 0)),
        "base_y": (mujoco.mjtJoint.mjJNT_SLIDE, (0, 1, 0)),
        "base_yaw": (mujoco.mjtJoint.mjJNT_HINGE, (0, 0, 1)),
        "torso": (mujoco.mjtJoint.mjJNT_SLIDE, (0, 0, 1)),
    }
    for name, (kind, axis) in kinds.items():
        body = body.add_body(name=name)
        body.explicitinertial = True
        body.mass, body.ipos, body.inertia = 30.0, (0, 0, 0), (3.0, 3.0, 3.0)
        body.gravcomp = 1.0
        body.add_joint(name=name, type=kind, axis=axis, damping=4000.0)
        actuator = spec.add_actuator(
            name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT,
            gaintype=mujoco.mjtGain.mjGAIN_FIXED, biastype=mujoco.mjtBias.mjBIAS_AFFINE,
        )  # fmt: skip
        gain, bias = np.zeros(10), np.zeros(10)
        gain[0], bias[1] = 60000.0, -60000.0
        actuator.gainprm, actuator.biasprm = gain, bias
    arm = mujoco.MjSpec()
    arm.compiler.degree = False
    add_panda(arm)
    spec.attach(arm, frame=body.add_frame())
    thing = Thing(name="base", category="base", body="base_yaw", geoms=())
    low, high = -3.0, 3.0

    def servo(name: str, channel: str, speed: float, **more: object) -> Servo:
        return Servo(
            actuator=name, joint=name, channel=DELTA_EEF_BASE_TORSO_MODE.labels.index(channel),
            kind="velocity", low=low, high=high, speed=speed, gated=True, **more,
        )  # fmt: skip

    turned = {"heading": "base_yaw"}
    control = Control(
        action=DELTA_EEF_BASE_TORSO_MODE.name, frame="torso", mode=MODE,
        servos=(
            servo("base_x", "base_forward", 0.5, across=FORWARD + 1, across_sign=-1.0, **turned),
            servo("base_y", "base_side", 0.5, across=FORWARD, across_sign=1.0, **turned),
            servo("base_yaw", "base_turn", 0.5),
            servo("torso", "torso", 0.2),
        ),
    )  # fmt: skip
    info = SceneInfo(
        id="mobile", robot=ROBOT, things=(thing,), regions=(), cameras={},
        platform=Platform(body="base_yaw", torso_joint="torso"), controls=(control,),
    )  # fmt: skip
    return Scene(model=spec.compile(), info=info)


@pytest.fixture(scope="module")
def mobile() -> Scene:
    return mobile_panda()


def begin(scene: Scene, yaw: float = 0.0) -> Simulation:
    goal = goals.parse("Up(base)")  # the base is on the floor: it never holds
    sim = Simulation(scene, goal, action=DELTA_EEF_BASE_TORSO_MODE.name)
    qpos = np.zeros(scene.model.nq)
    for joint, q in zip(ROBOT.joints, ROBOT.init_qpos, strict=True):
        qpos[scene.qpos_address(joint)] = q
    qpos[scene.qpos_address("base_yaw")] = yaw
    state = np.concatenate([[0.0], qpos, np.zeros(scene.model.nv)])
    sim.start(Start(nominal_qpos=qpos, state=state, fixtures={}))
    for _ in range(3):
        sim.step(np.array(DELTA_EEF_BASE_TORSO_MODE.hold))
    return sim


def command(**channels: float) -> np.ndarray:
    out = np.array(DELTA_EEF_BASE_TORSO_MODE.hold)
    for name, value in channels.items():
        out[DELTA_EEF_BASE_TORSO_MODE.labels.index(name)] = value
    return out


def arm(sim: Simulation) -> np.ndarray:
    return sim.data.qpos[[sim.scene.qpos_address(j) for j in ROBOT.joints]].copy()


def joint(sim: Simulation, name: str) -> float:
    return float(sim.data.qpos[sim.scene.qpos_address(name)])


def hand(sim: Simulation) -> np.ndarray:
    return sim.data.site_xpos[sim.scene.site_id(ROBOT.eef_site)].copy()


def test_the_robot_state_has_the_base(mobile: Scene) -> None:
    assert layout(mobile.info) == PANDA_BASE_STATE
    sim = begin(mobile, yaw=np.pi / 2)
    parts = PANDA_BASE_STATE.split(sim.glimpse().robot_state)
    half = np.sqrt(0.5)
    assert parts["base_quat"] == pytest.approx([0, 0, half, half], abs=1e-4)
    assert parts["torso"] == pytest.approx([0], abs=5e-3)  # it carries the arm


def test_the_base_drives_where_it_faces_and_the_arm_is_held(mobile: Scene) -> None:
    sim = begin(mobile, yaw=np.pi / 2)
    before = arm(sim)
    for _ in range(20):  # one second at half a metre a second, facing y
        sim.step(command(mode=1.0, base_forward=1.0, dx=1.0, drz=1.0))
    for _ in range(8):
        sim.step(command(mode=1.0))
    assert joint(sim, "base_y") == pytest.approx(0.5, abs=0.01)
    assert joint(sim, "base_x") == pytest.approx(0.0, abs=0.01)
    assert np.abs(arm(sim) - before).max() < 0.01  # deltas are ignored meanwhile


def test_the_base_turns_and_the_torso_rises(mobile: Scene) -> None:
    sim = begin(mobile)
    for _ in range(20):
        sim.step(command(mode=1.0, base_turn=-1.0, torso=1.0))
    for _ in range(8):
        sim.step(command(mode=1.0))
    assert joint(sim, "base_yaw") == pytest.approx(-0.5, abs=0.01)
    assert joint(sim, "torso") == pytest.approx(0.2, abs=0.01)


def test_the_base_stands_while_the_arm_moves(mobile: Scene) -> None:
    sim = begin(mobile)
    start = hand(sim)
    for _ in range(10):
        sim.step(command(dx=0.5, base_forward=1.0, base_turn=1.0, torso=1.0))
    for name in BASE:
        assert joint(sim, name) == pytest.approx(0.0, abs=0.005)
    assert (hand(sim) - start)[0] > 0.05


@pytest.mark.parametrize("yaw", [0.0, np.pi / 2, -2.0])
def test_deltas_are_along_the_axes_of_the_base(mobile: Scene, yaw: float) -> None:
    sim = begin(mobile, yaw=yaw)
    start = hand(sim)
    for _ in range(8):
        sim.step(command(dx=0.4))
    moved = hand(sim) - start
    ahead = np.array([np.cos(yaw), np.sin(yaw)])
    assert moved[:2] @ ahead > 0.025
    assert abs(moved[:2] @ np.array([-ahead[1], ahead[0]])) < 0.006


def test_after_driving_the_hand_keeps_its_new_orientation(mobile: Scene) -> None:
    sim = begin(mobile)
    for _ in range(20):
        sim.step(command(mode=1.0, base_turn=1.0))
    for _ in range(8):
        sim.step(command(mode=1.0))
    site = sim.scene.site_id(ROBOT.eef_site)
    turned = sim.data.site_xmat[site].copy()
    for _ in range(10):
        sim.step(command())  # the arm's turn again: nothing is asked of it
    assert sim.data.site_xmat[site] == pytest.approx(turned, abs=0.03)


def test_a_mobile_robot_repeats_from_a_snapshot(mobile: Scene) -> None:
    sim = begin(mobile)
    rng = np.random.default_rng(0)
    rows = [rng.uniform(-1, 1, 12) for _ in range(12)]
    for row in rows[:4]:
        sim.step(row)
    kept = sim.snapshot()
    first = [sim.step(row) or sim.state().tobytes() for row in rows[4:]]
    sim.restore(kept)
    assert [sim.step(row) or sim.state().tobytes() for row in rows[4:]] == first


def test_a_scene_says_which_actions_it_understands(mobile: Scene) -> None:
    with pytest.raises(ConventionMismatch, match="understands DELTA_EEF_BASE_TORSO_MODE, but was"):
        Simulation(mobile, goals.parse("Up(base)"), action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name)


# --------------------------------------------------------------------------- two arms


@pytest.fixture(scope="module")
def pair(scene_cache_dir: Path) -> dict[str, tuple[Scene, str, str, Start]]:
    out = {}
    for name in ("bimanual_clean", "bimanual_clean_eef"):
        backend = registry.suite(name, SuiteOptions(cache_dir=scene_cache_dir))
        task = next(t for t in backend.suite.tasks if t.name == "click_bell")
        scene = backend.scene(task)
        start = backend.start(scene, task, EpisodeKey(name, task.name, 0), 0)
        out[name] = scene, task.goal, task.action, start
    return out


def two_arms(pair: dict, name: str) -> tuple[Simulation, np.ndarray]:
    scene, goal, action, start = pair[name]
    sim = Simulation(scene, goals.parse(goal), action=action.name)
    sim.start(start)
    return sim, np.array(action.hold)


def test_both_arms_report_themselves(pair: dict) -> None:
    assert layout(pair["bimanual_clean"][0].info) == ALOHA_STATE
    sim, hold = two_arms(pair, "bimanual_clean")
    parts = ALOHA_STATE.split(sim.glimpse().robot_state)
    assert parts["left_joint_pos"] == pytest.approx(hold[:6])
    assert parts["right_gripper_open"] == pytest.approx([1.0])
    assert parts["left_eef_pos"][0] == pytest.approx(-parts["right_eef_pos"][0])  # mirrored


def test_joints_go_where_they_are_told(pair: dict) -> None:
    sim, hold = two_arms(pair, "bimanual_clean")
    goal = hold.copy()
    goal[:6] += [0.3, -0.2, 0.2, 0.4, -0.3, 0.5]
    goal[13] = 0.0  # the right hand closes
    for _ in range(25):
        sim.step(goal)
    parts = ALOHA_STATE.split(sim.glimpse().robot_state)
    assert parts["left_joint_pos"] == pytest.approx(goal[:6], abs=0.005)
    assert parts["right_joint_pos"] == pytest.approx(goal[7:13], abs=0.005)
    assert parts["left_gripper_open"] == pytest.approx([1.0], abs=0.02)
    assert parts["right_gripper_open"] == pytest.approx([0.0], abs=0.02)


def test_standing_at_home_is_what_hold_asks_for(pair: dict) -> None:
    for name in pair:
        sim, hold = two_arms(pair, name)
        before = sim.data.qpos[:12].copy()
        for _ in range(20):
            sim.step(hold)
        # poses are written with six decimals, and inverse kinematics is damped
        assert sim.data.qpos[:12] == pytest.approx(before, abs=1e-3)


def test_hands_go_where_they_are_told(pair: dict) -> None:
    sim, goal = two_arms(pair, "bimanual_clean_eef")
    goal[0:3] += [0.06, 0.05, -0.08]
    goal[8:11] += [-0.04, -0.06, 0.03]
    turn = np.zeros(4)
    mujoco.mju_mulQuat(turn, np.array([np.cos(0.2), 0, 0, np.sin(0.2)]), goal[3:7])
    goal[3:7] = turn  # the left hand also turns by 0.4 rad about the vertical
    for _ in range(40):
        sim.step(goal)
    for side, at in (("left", 0), ("right", 8)):
        site = sim.scene.site_id(f"{side}_grip")
        assert sim.data.site_xpos[site] == pytest.approx(goal[at : at + 3], abs=0.002)
        quat = np.zeros(4)
        mujoco.mju_mat2Quat(quat, sim.data.site_xmat[site])
        assert abs(quat @ goal[at + 3 : at + 7]) > np.cos(0.01)  # within 0.02 rad


@pytest.mark.parametrize("name", ["bimanual_clean", "bimanual_clean_eef"])
def test_two_arms_repeat_from_a_snapshot(pair: dict, name: str) -> None:
    sim, hold = two_arms(pair, name)
    rng = np.random.default_rng(1)
    rows = [hold + rng.normal(0, 0.1, len(hold)) for _ in range(12)]
    for row in rows[:5]:
        sim.step(row)
    kept = sim.snapshot()
    first = [sim.step(row) or sim.state().tobytes() for row in rows[5:]]
    sim.restore(kept)
    assert [sim.step(row) or sim.state().tobytes() for row in rows[5:]] == first
