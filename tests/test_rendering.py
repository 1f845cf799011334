"""Pictures: depth and cameras are metric, burners glow, recorded states give the same pixels."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
from small_scenes import BOX, PLANE, SPHERE, add_geom, draw, empty_spec, make_scene

from envs import goals, rendering
from envs.rendering import intrinsics
from envs.runtime import Look, Simulation, shoot
from envs.scene import SuiteOptions, Thing
from wamsim import registry
from wamsim.contracts import EpisodeKey
from wamsim.errors import RenderingUnavailable

pytestmark = pytest.mark.sim


# ---------------------------------------------------------------- depth and projection


def _down(height: float) -> mujoco.MjSpec:
    spec = empty_spec()
    add_geom(spec.worldbody, PLANE, (5, 5, 0.1))
    spec.worldbody.add_camera(name="down", pos=(0, 0, height), fovy=60)
    return spec


@pytest.mark.parametrize("height", [0.3, 0.8, 1.5, 4.0])
def test_depth_of_a_plane_is_its_distance_along_the_optical_axis(height: float, painter) -> None:
    _, depth = draw(painter(make_scene(_down(height), ("down",))), "down", depth=True)
    assert (depth.shape, depth.dtype) == ((48, 64), np.float32)
    assert np.abs(depth - height).max() < 1e-3  # everywhere, not along the rays


def test_depth_of_a_box_on_a_plane(painter) -> None:
    spec = _down(1.5)
    add_geom(spec.worldbody, BOX, (0.2, 0.1, 0.15), pos=(0, 0, 0.15))
    p = painter(make_scene(spec, ("down",)))
    _, depth = draw(p, "down", (120, 160), depth=True)
    assert depth[60, 80] == pytest.approx(1.2, abs=1e-3)
    assert depth[2, 2] == pytest.approx(1.5, abs=1e-3)
    # the box's top, 0.4 by 0.2 m at 1.2 m: focal length 60 / tan 30 = 103.9 pixels
    top = depth < 1.21
    assert top.sum(axis=1).max() == pytest.approx(0.4 / 1.2 * 103.9, abs=1.5)
    assert top.sum(axis=0).max() == pytest.approx(0.2 / 1.2 * 103.9, abs=1.5)


TILTED = {"pos": (0.8, -0.6, 0.9), "xyaxes": (0.6, 0.8, 0, -0.48, 0.36, 0.8), "fovy": 45}


@pytest.mark.parametrize("size", [(96, 96), (60, 120), (120, 60)])
def test_depth_of_a_tilted_floor_is_that_of_a_point_within_the_pixel(
    size: tuple[int, int], painter
) -> None:
    spec = _down(1.0)
    spec.worldbody.add_camera(name="tilted", **TILTED)
    p = painter(make_scene(spec, ("tilted",)))
    _, depth = draw(p, "tilted", size, depth=True)
    pinhole, pose = intrinsics(p.scene, "tilted", size), p.camera_pose("tilted")

    def floor(shift: float) -> np.ndarray:
        """Depth of the floor z = 0 along the ray through each pixel's top edge plus shift."""
        v, u = np.mgrid[: size[0], : size[1]].astype(float)
        rays = np.stack([u + 0.5, v + shift, np.ones_like(u)], -1) @ np.linalg.inv(pinhole).T
        return -pose[2, 3] / (rays @ pose[2, :3])  # the camera is level: columns do not matter

    far, near = floor(0.0), floor(1.0)
    assert (far > near).all()
    assert (depth < far + 1e-3).all()
    assert (depth > near - 1e-3).all()


@pytest.mark.parametrize("size", [(200, 200), (120, 240), (240, 120)])
@pytest.mark.parametrize(
    "point", [(0.0, 0.0, 0.1), (0.15, -0.1, 0.3), (-0.1, 0.1, 0.02), (0.2, 0.12, 0.15)]
)
def test_a_known_point_lies_where_the_matrices_say(
    point: tuple[float, float, float], size: tuple[int, int], painter
) -> None:
    spec = empty_spec()
    spec.add_material(name="glow", rgba=(0, 1, 0, 1), emission=1.0)
    add_geom(spec.worldbody, SPHERE, (0.02, 0, 0), pos=point, material="glow")
    spec.worldbody.add_camera(name="tilted", **TILTED)
    p = painter(make_scene(spec, ("tilted",)))
    picture, depth = draw(p, "tilted", size, depth=True)
    pinhole, pose = intrinsics(p.scene, "tilted", size), p.camera_pose("tilted")
    assert pose[:3, :3] @ pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-9)
    x, y, z = pinhole @ (np.linalg.inv(pose) @ (*point, 1))[:3]
    rows, columns = np.nonzero(picture[..., 1] > 100)
    assert len(rows) > 4
    assert columns.mean() + 0.5 == pytest.approx(x / z, abs=0.5)
    assert rows.mean() + 0.5 == pytest.approx(y / z, abs=0.5)
    # the sphere's nearest point is its radius before its centre
    assert depth[rows, columns].min() == pytest.approx(z - 0.02, abs=2e-3)


def test_pictures_are_upright(painter) -> None:
    spec = empty_spec()
    for name, colour, at in (
        ("red", (1, 0, 0, 1), (0, 0.5, 0)),
        ("blue", (0, 0, 1, 1), (0.5, 0, 0)),
    ):
        spec.add_material(name=name, rgba=colour, emission=1.0)
        add_geom(spec.worldbody, SPHERE, (0.1, 0, 0), pos=at, material=name)
    spec.worldbody.add_camera(name="down", pos=(0, 0, 2), fovy=60)  # x right, y up
    picture, _ = draw(painter(make_scene(spec, ("down",))), "down", (60, 60))
    rows, _ = np.nonzero(picture[..., 0] > picture[..., 2] + 50)
    _, columns = np.nonzero(picture[..., 2] > picture[..., 0] + 50)
    assert rows.max() < 30  # red lies up
    assert columns.min() >= 30  # blue lies right


def test_larger_pictures_grow_the_buffer_and_smaller_ones_stay_the_same(painter) -> None:
    spec = _down(1.5)
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 100, 80
    add_geom(spec.worldbody, BOX, (0.2, 0.1, 0.15), pos=(0.1, 0.2, 0.15), rgba=(1, 0, 0, 1))
    p = painter(make_scene(spec, ("down",)))
    before = draw(p, "down", (48, 64))[0].copy()
    large = draw(p, "down", (480, 640))[0]
    assert large.shape == (480, 640, 3)
    assert (large[..., 0] > large[..., 1] + 50).mean() == pytest.approx(
        (before[..., 0] > before[..., 1] + 50).mean(), abs=0.01
    )
    assert np.array_equal(draw(p, "down", (48, 64))[0], before)


# ------------------------------------------------------------------------------- lights


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, 2.0], ids=["ours off", "on", "-1", "2"])
def test_a_burner_shows_when_it_is_lit(alpha: float, painter) -> None:
    # LIBERO's sites go from -1 to 2 and back; ours from 0 to 1. Models may be cached either way.
    spec = _down(1.5)
    for name, x in (("left", -0.3), ("right", 0.3)):
        spec.worldbody.add_site(
            name=name, type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=(0.1, 0.01, 0), pos=(x, 0, 0.02),
            rgba=(1, 0, 0, alpha),
        )  # fmt: skip
    stove = Thing(
        name="stove", category="stove", body="world", geoms=(), lit_sites=("left", "right")
    )
    p = painter(make_scene(spec, ("down",), (stove,)))

    def red(lit: tuple[bool, bool]) -> list[bool]:
        picture = draw(p, "down", lit=lit)[0].astype(int)
        shown = picture[..., 0] > picture[..., 1] + 40
        return [bool(shown[:, :32].any()), bool(shown[:, 32:].any())]

    for lit in ((False, False), (True, False), (False, True), (True, True), (False, False)):
        assert red(lit) == list(lit)


# ---------------------------------------------------------------------------- recorded


@pytest.mark.parametrize("suite", ["tabletop_goal"])
def test_pictures_of_recorded_glimpses_equal_live_ones(
    suite: str, scene_cache_dir: Path, painter
) -> None:
    look = Look(cameras=("agentview", "eye_in_hand"), size=(64, 64), depth=True)
    options = SuiteOptions(cache_dir=scene_cache_dir)
    backend = registry.suite(suite, options)
    task = next(t for t in backend.suite.tasks if t.name == "turn_on_stove")
    scene = backend.scene(task)
    sims, live, recorded = [], [], []
    for index in (0, 1):  # two episodes over one model, as in a worker
        sim = Simulation(scene, goals.parse(task.goal))
        sim.start(backend.start(scene, task, EpisodeKey(suite, task.name, index), 0))
        sims.append(sim)
    p, rng = painter(scene), np.random.default_rng(0)
    knob = scene.qpos_address(scene.thing("stove").joints[0])
    for step in range(6):
        for sim in sims:
            sim.activate()
            if step == 3:
                limit = scene.thing("stove").articulation.turn_on
                assert limit is not None
                sim.data.qpos[knob] = next(q for q in (-2, 2) if limit.holds(q))
            sim.step(rng.uniform(-1, 1, 7))
            glimpse = sim.glimpse()
            live.append(shoot(p, sim.fixtures, glimpse, look))
            recorded.append((sim.fixtures, glimpse))
    assert {glimpse.lit for _, glimpse in recorded} == {(False,), (True,)}

    fresh = registry.suite(suite, options).scene(task)  # another process, another day
    other = painter(fresh)
    for (fixtures, glimpse), (frames, depth) in reversed(list(zip(recorded, live, strict=True))):
        again, depth_again = shoot(other, fixtures, glimpse, look)
        assert np.array_equal(again, frames)
        assert np.array_equal(depth_again, depth)
    pictures = {frames.tobytes() for frames, _ in live}
    assert len(pictures) == len(live)  # and they do differ from each other


# ------------------------------------------------------------------------------- trouble


def test_a_machine_without_opengl_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: int) -> None:
        raise RuntimeError("no EGL display")

    monkeypatch.setattr(rendering, "_context", None)
    monkeypatch.setattr(mujoco, "GLContext", broken)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(RenderingUnavailable, match=r"MUJOCO_GL=egl \(no EGL display\).*libegl1"):
        rendering.gl_context()


def test_opengl_says_who_it_is() -> None:
    found = rendering.gl_strings()
    assert set(found) == {"vendor", "renderer", "version"}
    assert all(found.values())
