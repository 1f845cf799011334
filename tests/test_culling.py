"""Leaving out what cannot be seen changes no pixel."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
from small_scenes import BOX, PLANE, SPHERE, add_geom, draw, empty_spec, make_scene

from envs import rendering
from envs.rendering import Painter
from envs.scene import Scene, SuiteOptions
from wamsim import registry
from wamsim.contracts import EpisodeKey

pytestmark = pytest.mark.sim


class Culling:
    """Compares pictures with and without what `_visible` leaves out, and counts that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.everything = False
        self.left_out = 0
        original = Painter._visible

        def visible(painter: Painter, camera: int, aspect: float) -> np.ndarray:
            found = original(painter, camera, aspect)
            if self.everything:
                return np.ones_like(found)
            self.left_out += int((~found).sum())
            return found

        monkeypatch.setattr(Painter, "_visible", visible)

    def check(self, p: Painter, camera: str, size: tuple[int, int] = (64, 64)) -> np.ndarray:
        pictures = []
        for self.everything in (False, True):
            pictures.append(p.shoot(camera, size)[0].copy())
        assert np.array_equal(*pictures), camera
        return pictures[0]


@pytest.fixture
def culling(monkeypatch: pytest.MonkeyPatch) -> Culling:
    return Culling(monkeypatch)


def _random_pose(scene: Scene, start: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The arm anywhere within its limits, things anywhere around the table."""
    model, qpos = scene.model, start.copy()
    for j in range(model.njnt):
        at = model.jnt_qposadr[j]
        if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE:
            qpos[at : at + 3] += rng.normal(0, 0.3, 3)
            qpos[at + 3 : at + 7] = rng.normal(0, 1, 4)
        elif model.jnt_limited[j]:
            qpos[at] = rng.uniform(*model.jnt_range[j])
    return qpos


def _check_poses(scene: Scene, start: np.ndarray, p: Painter, culling: Culling, poses: int) -> None:
    rng = np.random.default_rng(0)
    lights = sum(len(t.lit_sites) for t in scene.info.things)
    for i in range(poses):
        qpos = start if i == 0 else _random_pose(scene, start, rng)
        p.pose(qpos, (bool(i % 2),) * lights)
        for camera in ("agentview", "eye_in_hand"):
            culling.check(p, camera)
    assert culling.left_out > 10 * poses  # it is worth something
    pictures = [p.draw(start, (lit,) * lights, "agentview", (64, 64))[0] for lit in (True, False)]
    assert np.array_equal(*pictures) == (lights == 0)  # burners show


@pytest.mark.parametrize("suite", ["tabletop_object", "tabletop_spatial", "tabletop_goal"])
def test_leaving_geoms_out_changes_no_pixel_of_tabletop(
    suite: str, scene_cache_dir: Path, painter, culling: Culling
) -> None:
    backend = registry.suite(suite, SuiteOptions(cache_dir=scene_cache_dir))
    task = backend.suite.tasks[0]
    scene = backend.scene(task)
    start = backend.start(scene, task, EpisodeKey(suite, task.name, 0), 0)
    scene.set_fixtures(start.fixtures)
    scene.model.light_castshadow[:] = 0  # else all is drawn, for its shadow
    _check_poses(scene, start.nominal_qpos, painter(scene), culling, poses=12)


@pytest.mark.libero
@pytest.mark.parametrize(
    ("suite", "task", "mirror"),
    [
        ("libero_goal", 7, True),  # a stove, whose top mirrors
        ("libero_object", 0, False),
        ("libero_10", 2, True),  # kitchen with a stove
    ],
)
def test_leaving_geoms_out_changes_no_pixel_of_libero(
    suite: str, task: int, mirror: bool, libero_assets: Path, scene_cache_dir: Path, painter,
    culling: Culling,
) -> None:  # fmt: skip
    options = SuiteOptions(cache_dir=scene_cache_dir, libero_assets=libero_assets)
    backend = registry.suite(suite, options)
    chosen = backend.suite.tasks[task]
    scene = backend.scene(chosen)
    start = backend.start(scene, chosen, EpisodeKey(suite, chosen.name, 0), 0)
    scene.set_fixtures(start.fixtures)
    p = painter(scene)
    assert bool(p._mirrors) is mirror
    _check_poses(scene, start.nominal_qpos, p, culling, poses=5)


def test_leaving_geoms_out_changes_no_pixel_between_mirrors(painter, culling: Culling) -> None:
    spec = empty_spec()
    spec.add_material(name="mirror", reflectance=0.7, rgba=(0.3, 0.3, 0.3, 1))
    world = spec.worldbody
    add_geom(world, PLANE, (3, 3, 0.1), material="mirror", pos=(0, 0, -1))
    rng = np.random.default_rng(0)
    for i in range(12):
        body = world.add_body(name=f"thing_{i}")
        body.add_freejoint()
        kind = (BOX, SPHERE, mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER)[i % 4]
        add_geom(body, kind, tuple(rng.uniform(0.05, 0.2, 3)), rgba=(*rng.uniform(0, 1, 3), 1))
    for i in range(2):
        body = world.add_body(name=f"glass_{i}")
        body.add_freejoint()
        add_geom(body, BOX, (0.5, 0.3, 0.02), material="mirror")
    eye = world.add_body(name="eye")
    eye.add_freejoint()
    add_geom(eye, SPHERE, (0.001, 0, 0))
    eye.add_camera(name="eye", fovy=50)
    scene = make_scene(spec, ("eye",))
    p = painter(scene)
    assert len(p._mirrors) == 3
    shown = 0.0
    for _ in range(120):
        qpos = rng.normal(0, 0.7, scene.model.nq)
        p.pose(qpos, ())
        shown += culling.check(p, "eye", (40, 56)).std()
    assert culling.left_out > 120
    assert shown > 1000  # pictures of something


def test_a_thing_seen_only_in_a_mirror_is_drawn(painter, culling: Culling) -> None:
    spec = empty_spec()
    spec.add_material(name="mirror", reflectance=0.9, rgba=(0.2, 0.2, 0.2, 1))
    world = spec.worldbody
    add_geom(world, BOX, (0.5, 0.5, 0.01), material="mirror", pos=(0, 0, -0.01))
    add_geom(world, SPHERE, (0.2, 0, 0), pos=(0, 1, 1.2), rgba=(1, 0, 0, 1), name="lamp")
    # looks down at the mirror from the other side: the lamp is outside its view
    world.add_camera(name="eye", pos=(0, -1, 1), xyaxes=(1, 0, 0, 0, 1, 1), fovy=40)
    scene = make_scene(spec, ("eye",))
    p = painter(scene)
    p.pose(scene.model.qpos0, ())
    with_lamp = culling.check(p, "eye").astype(int)
    scene.model.geom("lamp").rgba[:] = (0, 0, 1, 1)
    with_blue_lamp = culling.check(p, "eye").astype(int)
    red = with_lamp[..., 0] - with_blue_lamp[..., 0]
    assert red.max() > 30
    assert not rendering._Boxes(scene.model, p._data).touch(
        p._data.cam_xpos[0], rendering._view_planes(scene.model, p._data, 0, 1.0)
    )[scene.geom_id("lamp")]


def test_where_lights_cast_shadows_nothing_is_left_out(painter) -> None:
    spec = empty_spec()
    spec.worldbody.add_light(pos=(1, 0, 3), dir=(0, 0, -1), castshadow=True)
    add_geom(spec.worldbody, BOX, (0.1, 0.1, 0.1), pos=(0, 0, 9))
    spec.worldbody.add_camera(name="down", pos=(0, 0, 2))
    p = painter(make_scene(spec, ("down",)))
    p.pose(p.scene.model.qpos0, ())
    assert p._visible(0, 1.0).all()


def test_drawing_leaves_the_model_as_it_was(painter) -> None:
    spec = empty_spec()
    add_geom(spec.worldbody, BOX, (0.1, 0.1, 0.1), pos=(0, 0, 9))
    spec.worldbody.add_camera(name="down", pos=(0, 0, 2))
    p = painter(make_scene(spec, ("down",)))
    groups = p.scene.model.geom_group.copy()
    draw(p, "down")
    assert np.array_equal(p.scene.model.geom_group, groups)
