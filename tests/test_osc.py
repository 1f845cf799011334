"""The controller: torques against their definition, goals, gripper, quirks of the first step."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from envs import goals, osc
from envs.runtime import Simulation, _indices
from envs.scene import Scene, Start, SuiteOptions
from wamsim import registry
from wamsim.contracts import EpisodeKey, Task

pytestmark = pytest.mark.sim

HOLD = np.array([0, 0, 0, 0, 0, 0, -1.0])


@pytest.fixture(scope="module")
def scene_and_start(scene_cache_dir: Path) -> tuple[Scene, Task, Start]:
    backend = registry.suite("tabletop_object", SuiteOptions(cache_dir=scene_cache_dir))
    task = backend.suite.tasks[0]
    scene = backend.scene(task)
    return scene, task, backend.start(scene, task, EpisodeKey(task.suite, task.name, 0), 0)


@pytest.fixture
def sim(scene_and_start: tuple[Scene, Task, Start]) -> Simulation:
    scene, task, start = scene_and_start
    made = Simulation(scene, goals.parse(task.goal))
    made.start(start)
    return made


class Arm:
    """What the controller reads of a random configuration, and the same through MuJoCo's API."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        model, at = scene.model, _indices(scene)
        self.data = data = mujoco.MjData(model)
        joints = [model.joint(j).id for j in scene.info.robot.joints]
        low, high = model.jnt_range[joints].T
        data.qpos[at.qpos_at] = rng.uniform(low, high)
        data.qvel[at.dofs] = rng.normal(0, 0.5, 7)
        mujoco.mj_forward(model, data)
        self.read = (
            np.zeros(3), np.eye(3), np.zeros(6), np.zeros(7), np.zeros(7),
            np.zeros((6, 7), order="F"), np.zeros((7, 7), order="F"),
        )  # fmt: skip
        osc.read_controller(
            model._address, data._address, at.site, at.dofs, at.qpos_at, data.qpos, data.qvel,
            data.qM, at.madr, at.parent, data.site_xpos, data.site_xmat,
            np.zeros((6, model.nv)), *self.read,
        )  # fmt: skip
        self.rest = at.rest
        self.bias = data.qfrc_bias[at.dofs].copy()
        jacobian = np.zeros((6, model.nv))
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], at.site)
        mass = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, mass, data.qM)
        self.expected = (
            data.site_xpos[at.site], data.site_xmat[at.site].reshape(3, 3), jacobian @ data.qvel,
            data.qpos[at.qpos_at], data.qvel[at.dofs],
            jacobian[:, at.dofs], mass[np.ix_(at.dofs, at.dofs)],
        )  # fmt: skip


@pytest.fixture(scope="module")
def arms(scene_and_start: tuple[Scene, Task, Start]) -> list[Arm]:
    rng = np.random.default_rng(0)
    return [Arm(scene_and_start[0], rng) for _ in range(60)]


def _goal(arm: Arm, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    position, rotation = arm.read[:2]
    turn = Rotation.from_rotvec(rng.uniform(-0.5, 0.5, 3)).as_matrix()
    return position + rng.uniform(-0.05, 0.05, 3), turn @ rotation


# ----------------------------------------------------------------------------- torques


def test_the_controller_reads_what_mujoco_says(arms: list[Arm]) -> None:
    for arm in arms:
        for read, expected in zip(arm.read, arm.expected, strict=True):
            assert read == pytest.approx(expected, abs=1e-12)


def test_torques_are_those_of_operational_space_control(arms: list[Arm]) -> None:
    # Khatib 1987 with robosuite's choices: position and orientation decoupled, kp 150,
    # critically damped, a null space that pulls to the rest pose with kp 10.
    rng = np.random.default_rng(1)
    for arm in arms:
        goal_pos, goal_mat = _goal(arm, rng)
        pos, mat, vel, q, qd, jacobian, mass = arm.read
        inverse = np.linalg.inv(mass)
        kd = 2 * np.sqrt(150)
        error = sum(np.cross(mat[:, k], goal_mat[:, k]) for k in range(3)) / 2
        force = 150 * (goal_pos - pos) - kd * vel[:3]
        torque = 150 * error - kd * vel[3:]

        def inertia(j: np.ndarray, inverse: np.ndarray = inverse) -> np.ndarray:
            return np.linalg.inv(j @ inverse @ j.T)

        wrench = np.concatenate(
            [inertia(jacobian[:3]) @ force, inertia(jacobian[3:]) @ torque]
        )  # fmt: skip
        null = np.eye(7) - inverse @ jacobian.T @ inertia(jacobian) @ jacobian
        pull = mass @ (10 * (arm.rest - q) - 2 * np.sqrt(10) * qd)
        expected = jacobian.T @ wrench + arm.bias + null.T @ pull
        for torques in (osc._torques_exact, osc._torques_fast):
            found = torques(*arm.read, goal_pos, goal_mat, arm.rest, arm.bias)
            assert found == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_fast_torques_equal_exact_ones(arms: list[Arm]) -> None:
    rng = np.random.default_rng(2)
    for arm in arms:
        goal = _goal(arm, rng)
        fast, exact = (
            torques(*arm.read, *goal, arm.rest, arm.bias)
            for torques in (osc._torques_fast, osc._torques_exact)
        )
        assert np.abs(fast - exact).max() <= 1e-9 * max(1.0, np.abs(exact).max())


# ------------------------------------------------------------------------------- goals

HERE = np.array([0.1, 0.2, 1.0])
QUARTER = Rotation.from_euler("z", 90, degrees=True).as_matrix()  # the hand's rotation


def _set_goal(action: list[float]) -> tuple[np.ndarray, np.ndarray]:
    goal_pos, goal_mat = np.zeros(3), np.full((3, 3), 7.0)
    osc.set_goal(np.array(action), HERE, QUARTER, goal_pos, goal_mat)
    return goal_pos, goal_mat


def test_a_unit_of_translation_is_five_centimetres() -> None:
    goal_pos, _ = _set_goal([1, -1, 0.5, 0, 0, 0, 0])
    assert goal_pos == pytest.approx([0.15, 0.15, 1.025], abs=1e-15)


def test_a_unit_of_rotation_is_half_a_radian_about_the_worlds_axes() -> None:
    _, goal_mat = _set_goal([0, 0, 0, 1, 0, 0, 0])
    c, s = np.cos(0.5), np.sin(0.5)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    assert goal_mat == pytest.approx(about_x @ QUARTER, abs=3e-7)  # rounded to float32


def test_rotations_are_rounded_to_single_precision() -> None:
    _, goal_mat = _set_goal([0, 0, 0, 1, 0, 0, 0])
    sine = goal_mat[2, 0]  # (about_x @ quarter)[2, 0]
    assert sine == pytest.approx(np.sin(0.5), abs=3e-7)
    assert abs(sine - np.sin(0.5)) > 1e-10


@pytest.mark.parametrize("turn", [[0.0, 0.0, 0.0], [-0.0, 0.0, -0.0]])
def test_the_orientation_goal_stays_while_the_rotation_is_zero(turn: list[float]) -> None:
    _, goal_mat = _set_goal([1, 0, 0, *turn, 0])
    assert (goal_mat == 7.0).all()


def test_the_smallest_rotation_sets_a_new_orientation_goal() -> None:
    _, goal_mat = _set_goal([0, 0, 0, 0, 0, 1e-12, 0])
    assert goal_mat == pytest.approx(QUARTER, abs=1e-6)


def test_actions_are_clipped() -> None:
    for asked, clipped in (
        ([9, -9, 1, 0, 0, 0, 0], [1, -1, 1, 0, 0, 0, 0]),
        ([0, 0, 0, -3, 2, 0, 0], [0, 0, 0, -1, 1, 0, 0]),
    ):
        for found, expected in zip(_set_goal(asked), _set_goal(clipped), strict=True):
            assert np.array_equal(found, expected)


def test_clipped_actions_move_the_arm_alike(scene_and_start: tuple[Scene, Task, Start]) -> None:
    scene, task, start = scene_and_start
    states = []
    for size in (1.0, 4.0):
        sim = Simulation(scene, goals.parse(task.goal))
        sim.start(start)
        for _ in range(5):
            sim.step(np.array([size, 0, -size, 0, size, 0, 1.0]))
        states.append(sim.state())
    assert np.array_equal(*states)


def test_the_hand_goes_where_it_is_told(sim: Simulation) -> None:
    sim.step(HOLD)
    before = sim.glimpse().robot_state[14:17]
    for _ in range(10):
        sim.step(np.array([0, 0.3, 0.2, 0, 0, 0, -1.0]))
    moved = sim.glimpse().robot_state[14:17] - before
    assert abs(moved[0]) < 0.01
    assert moved[1] > 0.03
    assert moved[2] > 0.02


# ----------------------------------------------------------------------------- gripper


def test_only_the_sign_of_the_gripper_channel_counts(sim: Simulation) -> None:
    # 0.01 of the range a substep, 25 substeps; fingers move against each other
    sim.step(np.array([0, 0, 0, 0, 0, 0, 0.001]))
    assert sim.gripper_command == pytest.approx([-0.25, 0.25], abs=1e-12)
    sim.step(np.array([0, 0, 0, 0, 0, 0, 5.0]))
    assert sim.gripper_command == pytest.approx([-0.5, 0.5], abs=1e-12)
    sim.step(np.zeros(7))
    assert sim.gripper_command == pytest.approx([-0.5, 0.5], abs=1e-12)
    sim.step(np.array([0, 0, 0, 0, 0, 0, -0.3]))
    assert sim.gripper_command == pytest.approx([-0.25, 0.25], abs=1e-12)


def test_the_gripper_command_ends_at_its_range(sim: Simulation) -> None:
    for _ in range(6):
        sim.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert sim.gripper_command.tolist() == [-1.0, 1.0]
    closed = sim.data.qpos[_indices(sim.scene).finger_qpos_at].copy()
    for _ in range(10):
        sim.step(HOLD)
    assert sim.gripper_command.tolist() == [1.0, -1.0]
    opened = sim.data.qpos[_indices(sim.scene).finger_qpos_at]
    assert opened[0] - opened[1] > 0.07  # an 8 cm stroke
    assert closed[0] - closed[1] < 0.02


def test_finger_commands_span_the_servos_range(sim: Simulation) -> None:
    servos = _indices(sim.scene).arm.finger_ctrl
    low, high = sim.scene.model.actuator_ctrlrange[servos].T
    sim.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    share = (np.array([-0.25, 0.25]) + 1) / 2
    assert sim.data.ctrl[servos] == pytest.approx(low + share * (high - low))


# --------------------------------------------------------------- quirks of the first step


def _displaced(scene: Scene, start: Start) -> Start:
    """The start with its elbow 0.3 rad from the nominal reset; nothing else near."""
    assert start.state is not None
    state = start.state.copy()
    state[1 + scene.qpos_address(scene.info.robot.joints[3])] += 0.3
    return Start(nominal_qpos=start.nominal_qpos, state=state, fixtures=start.fixtures)


def test_the_first_goal_is_set_from_the_nominal_reset(
    scene_and_start: tuple[Scene, Task, Start],
) -> None:
    scene, task, start = scene_and_start
    at = _indices(scene)
    nominal = mujoco.MjData(scene.model)
    nominal.qpos[at.qpos_at] = at.rest
    mujoco.mj_kinematics(scene.model, nominal)
    there = nominal.site_xpos[at.site]

    moved = {}
    for quirk in (True, False):
        sim = Simulation(scene, goals.parse(task.goal))
        here = sim.start(_displaced(scene, start)).robot_state[14:17]
        if not quirk:
            sim._memory.fresh[0] = 0  # as after any later substep: the controller reads first
        sim.step(HOLD)
        after = sim.glimpse().robot_state[14:17]
        way = (there - here) / np.linalg.norm(there - here)
        moved[quirk] = float((after - here) @ way)
        if quirk:
            # the goal of a step without translation: where the controller believed to be
            assert sim._memory.goal_pos == pytest.approx(there, abs=1e-12)
    # 0.1 m away with kp 150, the nominal pose pulls the hand along within 0.05 s
    assert np.linalg.norm(there - here) > 0.05
    assert moved[True] > moved[False] + 0.005, moved  # the rest is its orientation that returns


def test_later_goals_are_set_from_the_present(sim: Simulation) -> None:
    for _ in range(3):
        sim.step(np.array([0.5, 0, 0, 0, 0, 0, -1.0]))
    mujoco.mj_kinematics(sim.scene.model, sim.data)  # to the end of the last substep
    present = sim.data.site_xpos[_indices(sim.scene).site].copy()
    sim.step(np.array([1.0, 0, 0, 0, 0, 0, -1.0]))
    assert sim._memory.goal_pos == pytest.approx(present + np.array([0.05, 0, 0]), abs=1e-12)


def test_the_orientation_of_the_nominal_reset_is_kept(sim: Simulation) -> None:
    at = _indices(sim.scene)
    nominal = mujoco.MjData(sim.scene.model)
    nominal.qpos[at.qpos_at] = at.rest
    mujoco.mj_kinematics(sim.scene.model, nominal)
    upright = nominal.site_xmat[at.site].reshape(3, 3)
    for _ in range(8):
        sim.step(np.array([0.4, -0.3, 0, 0, 0, 0, -1.0]))
        assert np.array_equal(sim._memory.goal_mat, upright)
    sim.step(np.array([0, 0, 0, 0, 0, 0.2, -1.0]))
    turned = Rotation.from_matrix(sim._memory.goal_mat @ upright.T).as_rotvec()
    assert turned[2] == pytest.approx(0.1, abs=0.05)  # 0.2 units of 0.5 rad from the present
