"""Looks drawn from a run: what is in them is where they say, and nothing evaluated is seen."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import mujoco
import numpy as np
import pytest
from learning_doubles import CAMERAS, oracle_run
from small_scenes import add_geom, empty_spec, make_scene

from envs import replay
from envs.demonstration_sources.shared import Viewpoint
from envs.evaluation import Resources
from envs.looks import asked_for, check_drawable, draw_looks
from envs.scene import Thing
from wamsim import registry
from wamsim.contracts import EpisodeKey
from wamsim.demonstrations import UnusableDemonstrations
from wamsim.episode import read_episode
from wamsim.keyframes import next_keyframes
from wamsim.looks import LooksFile, open_looks
from wamsim.run_folder import episode_files, read_run

pytestmark = pytest.mark.sim

SIZE, COUNT = (96, 128), 12
VIEW = Viewpoint(cameras=CAMERAS, size=SIZE)
FIRST = 100  # as `oracle_run` records


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, scene_cache_dir: Path) -> Path:
    return oracle_run(tmp_path_factory.mktemp("run") / "run", scene_cache_dir, episodes=2)


@pytest.fixture(scope="module")
def drawn(
    recorded: Path, resources: Resources, tmp_path_factory: pytest.TempPathFactory
) -> LooksFile:
    cache = tmp_path_factory.mktemp("drawn")
    folder = draw_looks(recorded, VIEW, COUNT, cache=cache, resources=resources)
    (path,) = folder.rglob("*.safetensors")
    return LooksFile(path)


def test_trials_are_those_of_the_demonstrations_and_later_ones(drawn: LooksFile) -> None:
    # 12 looks over the trials 100 to 999: one in 75
    assert drawn.trial.tolist() == list(range(100, 1000, 75))
    assert drawn.info.first_trial == FIRST
    assert len(drawn.info.instructions) == 5
    assert drawn.info.things == ("can", "milk", "cereal", "bread", "ketchup")


def test_the_arm_stands_as_it_stood_in_another_episode(
    drawn: LooksFile, recorded: Path, resources: Resources
) -> None:
    joints = drawn.whole("proprio/JOINTS_GRIPPER")[:, :7]
    stood: dict[int, np.ndarray] = {}
    for path in episode_files(recorded):
        episode = read_episode(path)
        arrays = episode.arrays
        task = _backend(recorded, resources).suite.tasks[0]
        first = next_keyframes(arrays["actions"].astype(np.float32), task.action)[0]
        rows = arrays["robot_state"][:first:4, :7].astype(np.float32)
        stood[episode.record.key.index] = rows
    assert sorted(stood) == [FIRST, FIRST + 1]
    for trial, found in zip(drawn.trial, joints, strict=True):
        episodes = {i for i, rows in stood.items() if np.abs(rows - found).max(1).min() < 1e-6}
        assert episodes
        assert trial not in episodes or len(episodes) == 2  # both begin in one pose
    home = stood[FIRST][0]
    assert (np.abs(joints - home).max(1) > 0.02).mean() > 0.5


def test_every_second_arm_is_near_a_thing(drawn: LooksFile) -> None:
    away = drawn.whole("place") - drawn.whole("hand")[:, None]
    nearest = np.linalg.norm(away, axis=2).min(1)
    assert nearest[1::2].mean() < 0.9 * nearest[::2].mean()


def test_things_are_where_the_pixels_say(
    drawn: LooksFile, recorded: Path, resources: Resources
) -> None:
    """Project again, from the start of the trial and the joints alone."""
    backend = _backend(recorded, resources)
    task = backend.suite.tasks[0]
    scene = backend.scene(task)
    model, (height, width) = scene.model, SIZE
    data = mujoco.MjData(model)
    joints, hand = drawn.whole("proprio/JOINTS_GRIPPER"), drawn.whole("hand")
    for row, trial in enumerate(drawn.trial):
        key = EpisodeKey(task.suite, task.name, int(trial))
        start = backend.start(scene, task, key, read_run(recorded).config["seed"])
        assert start.state is not None
        scene.set_fixtures(start.fixtures)
        data.qpos[:] = start.state[1 : 1 + model.nq]
        data.qpos[:9] = joints[row]
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(
            data.site_xpos[scene.site_id(scene.info.robot.eef_site)], hand[row], atol=2e-3
        )
        for k, name in enumerate(drawn.info.things):
            middle = data.xpos[scene.body_id(scene.thing(name).body)]
            np.testing.assert_allclose(drawn.whole("place")[row, k], middle, atol=1e-5)
            for camera in CAMERAS:
                i = scene.camera_id(camera)
                # MuJoCo's camera looks along its -z, y up
                right, up, back = data.cam_xmat[i].reshape(3, 3).T @ (middle - data.cam_xpos[i])
                assert drawn.whole(f"ahead/{camera}")[row, k] == (back < 0)
                if back < 0:
                    focal = height / 2 / np.tan(np.radians(model.cam_fovy[i]) / 2)
                    pixel = width / 2 - focal * right / back, height / 2 + focal * up / back
                    found = drawn.whole(f"pixel/{camera}")[row, k]
                    # the joints of the robot state are read a substep after the kinematics
                    wrist = camera == "eye_in_hand"
                    np.testing.assert_allclose(found, pixel, rtol=0.01 if wrist else 1e-5, atol=0.3)


def test_depth_and_matrices_lead_back_to_the_things(
    recorded: Path, resources: Resources, tmp_path: Path
) -> None:
    """The point that depth and matrices give for a thing's pixel lies on the thing."""
    view = dataclasses.replace(VIEW, depth=True)
    folder = draw_looks(recorded, view, 4, cache=tmp_path, resources=resources)
    looks = open_looks([folder], CAMERAS, "EEF_AXIS_ANGLE_GRIPPER", depth=True)
    near = 0
    for row in range(len(looks)):
        for c, camera in enumerate(CAMERAS):
            found = {k: v[0] for k, v in looks.geometry(camera, np.array([row])).items()}
            for k in np.flatnonzero(looks.ahead[row, c]):
                column, line = (looks.pixel[row, c, k] * (SIZE[1], SIZE[0])).astype(int)
                if not (0 <= column < SIZE[1] and 0 <= line < SIZE[0]):
                    continue
                ray = np.linalg.inv(found["intrinsics"]) @ (column + 0.5, line + 0.5, 1.0)
                point = found["extrinsics"] @ (*(ray * found["depth"][line, column]), 1.0)
                # its surface, where nothing stands before it; things are up to 16 cm tall
                near += np.linalg.norm(point[:3] - looks.place[row, k]) < 0.1
    assert near >= 0.8 * looks.ahead[:, 0].sum()  # agentview sees nearly all of them
    plain = draw_looks(recorded, VIEW, 4, cache=tmp_path, resources=resources)
    with pytest.raises(UnusableDemonstrations, match="lack depth/agentview"):
        open_looks([plain], CAMERAS, "EEF_AXIS_ANGLE_GRIPPER", depth=True)


def test_the_ketchup_is_red_and_the_milk_is_blue(drawn: LooksFile) -> None:
    frames, pixel = drawn.whole("frames/agentview"), drawn.whole("pixel/agentview")
    ketchup, milk = (drawn.info.things.index(n) for n in ("ketchup", "milk"))

    def colours(thing: int) -> np.ndarray:
        places = pixel[:, thing].astype(int)
        return np.array(
            [
                f[v - 1 : v + 2, u - 1 : u + 2].mean((0, 1))
                for f, (u, v) in zip(frames, places, strict=True)
            ]
        )

    red, blue = colours(ketchup), colours(milk)  # where the arm does not hide them
    assert np.mean(red[:, 0] > 1.8 * red[:, 1:].max(1)) > 0.6
    assert np.mean(blue[:, 2] > 1.2 * blue[:, 0]) > 0.6


def test_what_is_there_is_not_drawn_again(
    recorded: Path, resources: Resources, tmp_path: Path
) -> None:
    small = Viewpoint(cameras=("agentview",), size=(16, 16))
    calls: list[tuple[int, int]] = []

    def draw(count: int) -> Path:
        return draw_looks(
            recorded, small, count, cache=tmp_path, resources=resources,
            progress=lambda done, of: calls.append((done, of)),
        )  # fmt: skip

    folder = draw(2)
    (path,) = folder.rglob("*.safetensors")
    before, data = path.stat().st_mtime_ns, path.read_bytes()
    assert draw(2) == folder
    assert calls == [(1, 1)]
    assert path.stat().st_mtime_ns == before
    path.unlink()
    draw(2)
    assert path.read_bytes() == data
    assert draw(3) != folder


def test_refusals(recorded: Path, resources: Resources, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(recorded, tmp_path / "run"))
    episode_files(alone)[1].unlink()
    with pytest.raises(UnusableDemonstrations, match="fewer than two of tabletop_object"):
        draw_looks(alone, VIEW, 2, cache=tmp_path / "cache", resources=resources)
    with pytest.raises(UnusableDemonstrations, match=r"of a run folder.*Source: .*somewhere"):
        check_drawable([recorded, tmp_path / "somewhere"])


def test_words_about_one_of_two_are_asked_in_their_own_scene_only() -> None:
    spec = empty_spec()
    names = {"bowl_1": "bowl", "bowl_2": "bowl", "can": "can", "door": "door"}
    things: list[Thing] = []
    for name, kind in names.items():
        body = spec.worldbody.add_body(name=name)
        add_geom(body, mujoco.mjtGeom.mjGEOM_BOX, (0.1, 0.1, 0.1))
        if kind != "door":
            body.add_freejoint(name=f"{name}_free")
        free = None if kind == "door" else f"{name}_free"
        things.append(Thing(name=name, category=kind, body=name, geoms=(), free_joint=free))
    scene = make_scene(spec, (), tuple(things))

    @dataclasses.dataclass
    class Said:
        name: str
        instruction: str
        goal: str

    near, far = (
        Said("a", "the near bowl", "On(bowl_1, can)"),
        Said("b", "the far bowl", "On(bowl_1, can) & Open(door)"),
    )
    others = [
        Said("c", "the can", "On(can, bowl_2)"),
        Said("d", "the door", "Open(door)"),
        Said("e", "the egg", "On(egg, can)"),
        Said("f", "not the can", "!On(can, bowl_1)"),
    ]
    backend = cast(Any, SimpleNamespace(suite=SimpleNamespace(tasks=[near, far, *others])))
    asked = asked_for(backend, cast(Any, far), scene)
    assert asked == (("the far bowl", "bowl_1"), ("the can", "can"))
    asked = asked_for(backend, cast(Any, others[1]), scene)
    assert asked == (("the can", "can"),)


def _backend(run: Path, resources: Resources) -> Any:
    info = read_run(run)
    return registry.suite("tabletop_object", replay.suite_options(info.config, resources))
