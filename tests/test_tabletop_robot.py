from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from envs.scene import SuiteOptions
from envs.tabletop import suite
from envs.tabletop.panda import BASE_POS, ROBOT, assets_root
from envs.tabletop.suite import TabletopBackend
from envs.tabletop.tasks import TASKS


@pytest.fixture(scope="module")
def backends(scene_cache_dir: Path) -> dict[str, TabletopBackend]:
    return {name: suite(name, SuiteOptions(cache_dir=scene_cache_dir)) for name in TASKS}


@pytest.mark.sim
def test_robot_equals_robosuites(backends: dict[str, TabletopBackend]) -> None:
    robosuite = pytest.importorskip("robosuite")
    env = robosuite.make(
        "Lift",
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
    )
    theirs = env.sim.model._model
    backend = backends["tabletop_object"]
    ours = backend.scene(backend.suite.tasks[0]).model
    np.testing.assert_allclose(ours.body("robot0_base").pos, BASE_POS)
    for i in range(theirs.nbody):
        name = theirs.body(i).name
        if not name.startswith(("robot0_", "gripper0_")) or name == "robot0_base":
            continue
        a, b = ours.body(name), theirs.body(name)
        for field in ("mass", "inertia", "ipos", "iquat", "pos", "quat"):
            np.testing.assert_allclose(getattr(a, field), getattr(b, field), atol=1e-9)
    for name in (*ROBOT.joints, *ROBOT.gripper_joints):
        a, b = ours.joint(name), theirs.joint(name)
        for field in ("axis", "range", "limited", "pos"):
            np.testing.assert_allclose(getattr(a, field), getattr(b, field), atol=1e-9)
        for field in ("damping", "armature", "frictionloss"):
            np.testing.assert_allclose(getattr(a, field), getattr(b, field), atol=1e-9)
    for name in (*ROBOT.actuators, *ROBOT.gripper_actuators):
        a, b = ours.actuator(name), theirs.actuator(name)
        for field in ("ctrlrange", "forcerange", "gainprm", "biasprm", "gear", "ctrllimited"):
            np.testing.assert_allclose(getattr(a, field), getattr(b, field))
    for name in (
        *(pad for side in ROBOT.pad_geoms for pad in side),
        "gripper0_finger1_collision",
        "gripper0_finger2_collision",
        "gripper0_hand_collision",
    ):
        a, b = ours.geom(name), theirs.geom(name)
        for field in ("size", "pos", "friction", "solref", "solimp", "condim", "contype"):
            np.testing.assert_allclose(getattr(a, field), getattr(b, field), atol=1e-9)
        np.testing.assert_allclose(a.conaffinity, b.conaffinity)
    np.testing.assert_allclose(
        ours.site(ROBOT.eef_site).pos, theirs.site(ROBOT.eef_site).pos, atol=1e-9
    )
    a, b = ours.camera("robot0_eye_in_hand"), theirs.camera("robot0_eye_in_hand")
    np.testing.assert_allclose(a.pos, b.pos)
    np.testing.assert_allclose(a.quat, b.quat, atol=1e-9)
    np.testing.assert_allclose(a.fovy, b.fovy)
    for field in ("timestep", "integrator", "cone", "impratio", "density", "viscosity", "solver"):
        assert getattr(ours.opt, field) == getattr(theirs.opt, field), field


@pytest.mark.sim
def test_drawn_robot_is_light_and_lies_on_the_original(
    backends: dict[str, TabletopBackend],
) -> None:
    from envs.tabletop.meshes import read_stl

    backend = backends["tabletop_object"]
    model = backend.scene(backend.suite.tasks[0]).model
    assert model.nmeshface < 25_000  # robosuite's Panda alone has 180 000
    vertices, _ = read_stl(assets_root() / "robots/panda/meshes/link5_vis.stl")
    geom = model.geom("robot0_link5_white")
    mesh = int(model.geom_dataid[geom.id])
    first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, geom.quat)
    placed = model.mesh_vert[first : first + count] @ rotation.reshape(3, 3).T + geom.pos
    # Vertices stay within the cube that they merge: half its diagonal, 10 mm.
    gaps = np.array([np.linalg.norm(vertices - v, axis=1).min() for v in placed[::7]])
    assert gaps.max() < 0.011
    np.testing.assert_allclose(placed.min(0), vertices.min(0), atol=0.011)
    np.testing.assert_allclose(placed.max(0), vertices.max(0), atol=0.011)


@pytest.mark.sim
def test_only_the_collision_shapes_collide(backends: dict[str, TabletopBackend]) -> None:
    for backend in backends.values():
        model = backend.scene(backend.suite.tasks[0]).model
        drawn = model.geom_group == 1
        solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        both = {model.geom(i).name for i in np.flatnonzero(drawn & solid)}
        assert both == {"floor"}
