"""LIBERO's HDF5: states drawn in our scenes, the files' own pictures, and every refusal."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import mujoco
import numpy as np
import pytest

from envs.demonstrations import Viewpoint, prepare
from envs.evaluation import Resources
from wamsim.contracts import EpisodeKey
from wamsim.conventions import EEF_AXIS_ANGLE_GRIPPER, PANDA_STATE, proprio_from_robot_state
from wamsim.demonstrations import DemonstrationFile, UnusableDemonstrations, open_set
from wamsim.errors import RecordCorrupt, UnknownName

pytestmark = [pytest.mark.sim, pytest.mark.libero]

T, SIZE = 9, 32
CAMERAS = ("agentview", "eye_in_hand")
DATASETS = {"agentview": "agentview_rgb", "eye_in_hand": "eye_in_hand_rgb"}
VIEW = Viewpoint(cameras=CAMERAS, size=(SIZE, SIZE))


class Stage:
    """A task of LIBERO with its scene and a painter."""

    def __init__(self, suite: str, index: int, resources: Resources) -> None:
        from envs.rendering import Painter
        from envs.scene import SuiteOptions
        from wamsim import registry

        options = SuiteOptions(cache_dir=resources.cache_dir, libero_assets=resources.libero_assets)
        self.backend = registry.suite(suite, options)
        self.task = self.backend.suite.tasks[index]
        self.scene = self.backend.scene(self.task)
        self.painter = Painter(self.scene)
        key = EpisodeKey(suite, self.task.name, 0)
        self.start = self.backend.start(self.scene, self.task, key, 0)

    def record(self, group: h5py.Group, *, reach: Any = None) -> dict[str, np.ndarray]:
        """Act at random and write a demonstration as LIBERO's create_dataset.py does.

        `reach(data)` brings the goal about before the last state.
        """
        from envs import goals
        from envs.runtime import Simulation

        simulation = Simulation(self.scene, goals.parse(self.task.goal))
        simulation.start(self.start)
        for _ in range(10):
            simulation.step(np.array(self.task.action.hold))
        actions = np.random.default_rng(len(group.name)).uniform(-1, 1, (T, 7))
        actions[:, 6] = -1
        actions[:, 0] = 0.9  # the hand moves far enough to tell one row from the next
        states, robot, pictures = [], [], {camera: [] for camera in CAMERAS}
        for t, action in enumerate(actions):
            if t == T - 1 and reach is not None:
                reach(simulation.data)
                mujoco.mj_forward(self.scene.model, simulation.data)
            states.append(simulation.state())
            simulation.step(action)
            glimpse = simulation.glimpse()
            robot.append(glimpse.robot_state)
            for camera in CAMERAS:
                drawn, _ = self.painter.draw(glimpse.seen_qpos, glimpse.lit, camera, (SIZE, SIZE))
                pictures[camera].append(drawn[::-1])  # OpenGL's rows
        state = PANDA_STATE.split(np.array(robot))
        axis_angle = proprio_from_robot_state(
            np.array(robot), PANDA_STATE, EEF_AXIS_ANGLE_GRIPPER, suite="libero"
        )[:, 3:6]
        obs = {
            "ee_pos": state["eef_pos"], "ee_ori": axis_angle,
            "gripper_states": state["gripper_qpos"], "joint_states": state["joint_pos"],
            **{DATASETS[camera]: np.array(pictures[camera]) for camera in CAMERAS},
        }  # fmt: skip
        for name, values in obs.items():
            group.create_dataset(f"obs/{name}", data=values)
        group.create_dataset("actions", data=actions)
        group.create_dataset("states", data=np.array(states))
        group.create_dataset("dones", data=np.arange(T) == T - 1)
        group.attrs["model_file"] = self.xml()
        group.attrs["num_samples"] = T
        return {"actions": actions, "states": np.array(states), "robot": np.array(robot), **obs}

    def xml(self) -> str:
        """The scene's bodies, poses and joints, as MuJoCo writes them (identity left out)."""
        model, lines = self.scene.model, []
        for body in range(1, model.nbody):
            name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, body)
            position, quaternion = self.start.fixtures.get(name, (np.zeros(3), np.eye(4)[0]))
            pose = f'pos="{" ".join(map(str, position))}"' if position.any() else ""
            if quaternion[0] != 1:
                pose += f' quat="{" ".join(map(str, quaternion))}"'
            lines.append(f'<body name="{name}" {pose}>')
            for joint in range(
                model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body]
            ):
                lines.append(f'<joint name="{model.joint(joint).name}"/>')
            lines.append("</body>")
        return f"<mujoco><worldbody>{''.join(lines)}</worldbody></mujoco>"

    def describe(self, data: h5py.Group) -> None:
        """Attributes of group data, as LIBERO's."""
        data.attrs["bddl_file_name"] = f"libero/bddl_files/{self.task.suite}/{self.task.name}.bddl"
        told = self.task.paraphrases[0] if self.task.paraphrases else self.task.instruction
        data.attrs["problem_info"] = json.dumps({"language_instruction": told})
        data.attrs["macros_image_convention"] = "opengl"
        data.attrs["num_demos"] = len(data)


@pytest.fixture(scope="module")
def resources(scene_cache_dir: Path, libero_assets: Path) -> Resources:
    return Resources(workers=1, cache_dir=scene_cache_dir, libero_assets=libero_assets)


@pytest.fixture(scope="module")
def stage(resources: Resources) -> Iterator[Stage]:
    stage = Stage("libero_object", 0, resources)
    yield stage
    stage.painter.close()


@pytest.fixture(scope="module")
def recorded(
    stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, np.ndarray]]]:
    """A file with a failure (demo_0) and a success (demo_1: the soup is put into the basket)."""

    def reach(data: mujoco.MjData) -> None:
        soup, basket = (stage.scene.thing(n) for n in ("alphabet_soup_1", "basket_1"))
        at, to = (stage.scene.qpos_address(str(t.free_joint)) for t in (soup, basket))
        data.qpos[at : at + 3] = data.qpos[to : to + 3]
        data.qpos[at + 2] += 0.05

    path = tmp_path_factory.mktemp("libero") / "soup_demo.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        truth = [
            stage.record(data.create_group("demo_0")),
            stage.record(data.create_group("demo_1"), reach=reach),
        ]
        stage.describe(data)
    return path, truth


@pytest.fixture
def file(recorded: tuple[Path, list], tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copy(recorded[0], tmp_path / "copy_demo.hdf5"))


def files(made: list[Path]) -> list[DemonstrationFile]:
    return [DemonstrationFile(path) for path in made]


# -------------------------------------------------------------------------- what comes out


def test_states_are_drawn_in_our_scene(
    recorded: tuple[Path, list], stage: Stage, resources: Resources, tmp_path: Path
) -> None:
    path, truth = recorded
    view = Viewpoint(cameras=CAMERAS, size=(24, 32), depth=True)
    said: list[str] = []
    calls: list[tuple[int, int]] = []
    drawn = prepare(
        path, view, cache=tmp_path, resources=resources, said=said.append,
        progress=lambda n, of: calls.append((n, of)),
    )  # fmt: skip
    assert (said, calls) == ([], [(1, 2), (2, 2)])
    made = files(drawn)
    assert [f.info.success for f in made] == [False, True]
    nq = stage.scene.model.nq
    for number, (file, told) in enumerate(zip(made, truth, strict=True)):
        info = file.info
        assert (info.suite, info.task, info.index) == ("libero_object", stage.task.name, number)
        assert info.instruction == "pick up the alphabet soup and place it in the basket"
        assert (info.steps, info.control_hz) == (T - 1, 20)
        assert info.source == f"soup_demo.hdf5:demo_{number}"
        assert info.stand_in_visuals == stage.task.stand_in_visuals
        np.testing.assert_array_equal(file.whole("actions"), told["actions"][:-1].astype("f4"))
        for row in (0, T - 1):
            qpos = told["states"][row, 1 : 1 + nq]
            for camera in CAMERAS:
                colour, metres = stage.painter.draw(qpos, (), camera, (24, 32), depth=True)
                np.testing.assert_array_equal(file.whole(f"frames/{camera}")[row], colour)
                np.testing.assert_array_equal(file.whole(f"depth/{camera}")[row], metres)
                pose = stage.painter.camera_pose(camera).astype("f4")
                np.testing.assert_array_equal(file.whole(f"extrinsics/{camera}")[row], pose)
        # observed 4 ms before the next state
        proprio = file.whole("proprio/EEF_AXIS_ANGLE_GRIPPER")
        np.testing.assert_allclose(proprio[1:, :3], told["ee_pos"][:-1], atol=2e-3)
        np.testing.assert_allclose(proprio[1:, 3:6], told["ee_ori"][:-1], atol=2e-2)
        joints = file.whole("proprio/JOINTS_GRIPPER")[:, :7]
        np.testing.assert_array_equal(joints, told["states"][:, 1:8].astype("f4"))
    assert len(open_set(drawn)) == T - 1
    # what shows more serves for less
    narrow = Viewpoint(cameras=("agentview",), size=(24, 32))
    assert prepare(path, narrow, cache=tmp_path, resources=resources) == drawn


def test_own_pictures_follow_their_actions(
    recorded: tuple[Path, list], resources: Resources, tmp_path: Path
) -> None:
    path, truth = recorded
    made = prepare(path, VIEW, cache=tmp_path, resources=resources, own_pictures=True)
    for file, told in zip(files(made), truth, strict=True):
        # obs[t] came after actions[t], so the first action has nothing before it
        np.testing.assert_array_equal(file.whole("actions"), told["actions"][1:].astype("f4"))
        for camera in CAMERAS:
            upright = told[DATASETS[camera]][:, ::-1]
            np.testing.assert_array_equal(file.whole(f"frames/{camera}"), upright)
        expected = proprio_from_robot_state(
            told["robot"], PANDA_STATE, EEF_AXIS_ANGLE_GRIPPER, suite="libero"
        )
        proprio = file.whole("proprio/EEF_AXIS_ANGLE_GRIPPER")
        np.testing.assert_allclose(proprio, expected, atol=1e-5)
        np.testing.assert_array_equal(
            file.whole("proprio/JOINTS_GRIPPER")[:, :7], told["joint_states"].astype("f4")
        )
        assert not file.info.stand_in_visuals
    assert [f.info.success for f in files(made)] == [False, True]


def test_pictures_taken_before_their_actions_are_noticed(
    file: Path, recorded: tuple[Path, list], resources: Resources, tmp_path: Path
) -> None:
    with h5py.File(file, "r+") as opened:
        del opened["data/demo_1"]
        group = opened["data/demo_0"]
        for name in group["obs"]:  # row t observed at states[t]; the first is not known, repeat it
            values = group[f"obs/{name}"][()]
            group[f"obs/{name}"][...] = np.concatenate([values[:1], values[:-1]])
        group["states"][0] = group["states"][1]
    made = prepare(file, VIEW, cache=tmp_path, resources=resources, own_pictures=True)
    actions = recorded[1][0]["actions"]
    np.testing.assert_array_equal(files(made)[0].whole("actions"), actions[:-1].astype("f4"))


def test_fixtures_stand_where_the_xml_says_and_burners_glow(
    resources: Resources, tmp_path: Path
) -> None:
    from envs.demonstration_sources.hdf5_states import fixtures_of

    stage = Stage("libero_goal", 7, resources)  # turn on the stove
    knob = stage.scene.thing("flat_stove_1").joints[0]

    def reach(data: mujoco.MjData) -> None:
        data.qpos[stage.scene.qpos_address(knob)] = 1.0

    path = tmp_path / "stove_demo.hdf5"
    with h5py.File(path, "w") as opened:
        group = opened.create_group("data/demo_4")
        told = stage.record(group, reach=reach)
        stage.describe(opened["data"])
        found = fixtures_of(group.attrs["model_file"], stage.scene)
    assert found.keys() == stage.start.fixtures.keys()
    for name, (position, quaternion) in stage.start.fixtures.items():
        np.testing.assert_allclose(found[name][0], position, atol=1e-9)
        np.testing.assert_allclose(found[name][1], quaternion, atol=1e-9)
    (made,) = files(prepare(path, VIEW, cache=tmp_path, resources=resources))
    assert (made.info.success, made.info.index) == (True, 4)
    stage.scene.set_fixtures(stage.start.fixtures)
    nq = stage.scene.model.nq
    for row, lit in ((0, (False,)), (T - 1, (True,))):
        qpos = told["states"][row, 1 : 1 + nq]
        expected, _ = stage.painter.draw(qpos, lit, "agentview", (SIZE, SIZE))
        np.testing.assert_array_equal(made.whole("frames/agentview")[row], expected)
    stage.scene.set_fixtures({n: (p + 0.1, q) for n, (p, q) in found.items()})
    elsewhere, _ = stage.painter.draw(qpos, (True,), "agentview", (SIZE, SIZE))
    assert (elsewhere != expected).any()
    with pytest.raises(UnusableDemonstrations, match="does not say where wooden_cabinet_1_main"):
        fixtures_of(None, stage.scene)
    with pytest.raises(RecordCorrupt, match="model_file is no XML"):
        fixtures_of("<mujoco>", stage.scene)
    turned = stage.xml().replace('"flat_stove_1_main"', '"flat_stove_1_main" euler="0 0 0"')
    with pytest.raises(UnusableDemonstrations, match="no pos and quat of flat_stove_1_main"):
        fixtures_of(turned, stage.scene)
    stage.painter.close()


# -------------------------------------------------------------------------------- refusals


def refused(
    sentence: str, source: Path, resources: Resources, view: Viewpoint = VIEW,
    error: type[Exception] = UnusableDemonstrations, **options: Any,
) -> None:  # fmt: skip
    settings = {"own_pictures": True, "cache": source.parent / "cache"} | options
    with pytest.raises(error, match=re.escape(sentence)):
        prepare(source, view, resources=resources, **settings)


def replace(group: h5py.Group, name: str, values: Any) -> None:
    del group[name]
    group[name] = values


def test_another_scene(file: Path, resources: Resources, recorded: tuple[Path, list]) -> None:
    states = recorded[1][0]["states"]
    with h5py.File(file, "r+") as opened:
        del opened["data/demo_1"]
        replace(opened["data/demo_0"], "states", states[:, :-1])
    refused("its states are 109 wide and 110 (1 + nq + nv) are expected", file, resources)
    with h5py.File(file, "r+") as opened:
        replace(opened["data/demo_0"], "states", states)
        xml = opened["data/demo_0"].attrs["model_file"]
        opened["data/demo_0"].attrs["model_file"] = xml.replace("milk_1_joint0", "juice_1_joint0")
    refused(
        "its joints are not those of hf-libero's scene (juice_1_joint0, milk_1_joint0)",
        file, resources,
    )  # fmt: skip


def test_frames_of_other_states_are_left_out(file: Path, resources: Resources) -> None:
    with h5py.File(file, "r+") as opened:
        opened["data/demo_0/obs/ee_pos"][4] += [0.0, 0.02, 0.0]
    said: list[str] = []
    made = prepare(
        file, VIEW, cache=file.parent / "cache", resources=resources, own_pictures=True,
        said=said.append,
    )  # fmt: skip
    assert [f.info.index for f in files(made)] == [1]
    assert len(said) == 1
    assert "its frames do not match its states: the hand's observed position is up to 2." in said[0]


def test_demonstrations_that_lack_something(
    file: Path, resources: Resources, recorded: tuple[Path, list]
) -> None:
    with h5py.File(file, "r+") as opened:
        del opened["data/demo_1"]
        del opened["data/demo_0/obs/eye_in_hand_rgb"]
    refused("demo_0 has no 9 pictures obs/eye_in_hand_rgb", file, resources)
    with h5py.File(file, "r+") as opened:
        del opened["data/demo_0/obs/joint_states"]
    view = Viewpoint(cameras=("agentview",), size=(SIZE, SIZE))
    refused("/data/demo_0/obs/joint_states is missing, expected (9, 7)", file, resources, view)
    with h5py.File(file, "r+") as opened:
        replace(opened["data/demo_0"], "states", recorded[1][0]["states"][:5])
    refused("demo_0 has 5 states and 9 actions", file, resources)
    with h5py.File(file, "r+") as opened:
        del opened["data/demo_0"]
    refused("there are no demo_N in it", file, resources)


def test_own_pictures_have_no_depth_and_two_cameras(file: Path, resources: Resources) -> None:
    view = Viewpoint(cameras=CAMERAS, size=(SIZE, SIZE), depth=True)
    refused(
        "an HDF5's own pictures has colour only. Leave out --own-pictures", file, resources, view
    )
    view = Viewpoint(cameras=("frontview",), size=(SIZE, SIZE))
    refused("has pictures of agentview and eye_in_hand, not of 'frontview'", file, resources, view)
    view = Viewpoint(cameras=CAMERAS, size=(24, 32))
    refused("own pictures are 32x32 and 24x32 are asked for", file, resources, view)
    view = Viewpoint(cameras=("agent_view",), size=(SIZE, SIZE))
    refused("'agentview'", file, resources, view, error=UnknownName, own_pictures=False)


def test_files_of_other_things(file: Path, resources: Resources) -> None:
    folder = file.parent
    shutil.copy(file, folder / "again_demo.hdf5")
    refused("two files hold demonstrations of pick_up_the_alphabet_soup", folder, resources)
    with h5py.File(file, "r+") as opened:
        opened["data"].attrs["bddl_file_name"] = "x/pick_up_the_alphabet_soup.bddl"
    refused("unknown LIBERO task 'pick_up_the_alphabet_soup'", file, resources, error=UnknownName)
    with h5py.File(file, "r+") as opened:
        del opened["data"].attrs["problem_info"]
    refused("no demonstrations of LIBERO's", file, resources, error=RecordCorrupt)
    file.write_bytes(file.read_bytes()[:1000])
    refused("no HDF5 file can be read", file, resources, error=RecordCorrupt)


def test_another_instruction_is_said(file: Path, resources: Resources) -> None:
    with h5py.File(file, "r+") as opened:
        opened["data"].attrs["problem_info"] = json.dumps({"language_instruction": "eat the soup"})
    said: list[str] = []
    prepare(file, VIEW, cache=file.parent / "cache", resources=resources, own_pictures=True,
            said=said.append)  # fmt: skip
    assert said == [
        "copy_demo.hdf5 says 'eat the soup'; it is used as 'pick up the alphabet soup and place it "
        "in the basket', LIBERO's own"
    ]
