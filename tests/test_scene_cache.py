from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest

from envs.scene import Articulation, Region, Robot, Scene, SceneInfo, Thing, Threshold
from envs.scene_cache import from_json, load_or_build, to_json
from wamsim.errors import OutOfSpace

XML = "<mujoco><worldbody><geom name='g' size='.1'/><camera name='c'/></worldbody></mujoco>"

INFO = SceneInfo(
    id="toy",
    robot=Robot(
        joints=("j1", "j2"),
        actuators=("a1", "a2"),
        gripper_joints=("f1",),
        gripper_actuators=("fa1",),
        eef_site="s",
        eef_body="b",
        init_qpos=(0.1 + 0.2, 1 / 3),
        init_gripper_qpos=(-0.0,),
        pad_geoms=(("l1", "l2"), ("r1",)),
    ),
    things=(
        Thing(name="box", category="box", body="b", geoms=(3, 4), free_joint="b_joint0"),
        Thing(
            name="stove",
            category="flat_stove",
            body="stove",
            geoms=(),
            joints=("knob",),
            articulation=Articulation(turn_on=Threshold(above=0.5, inclusive=True)),
            lit_sites=("burner",),
            half_extents=(0.1, 0.2, 1e-300),
        ),
    ),
    regions=(Region(name="r", site="r", size=(1e-17, 0.1, 0.3), parent="stove"),),
    cameras={"c": "c"},
    placement={"samplers": [{"low": 0.1, "site": None, "turns": [["x", 0.0, 2.5]]}]},
)


def _scene(info: SceneInfo = INFO) -> Scene:
    return Scene(model=mujoco.MjModel.from_xml_string(XML), info=info)


class Counting:
    """Builds the toy scene and remembers how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Scene:
        self.times += 1
        return _scene()


def test_scene_info_survives_json_bit_for_bit() -> None:
    back = from_json(to_json(INFO))
    assert back == INFO
    assert type(back.things[1].articulation) is Articulation
    assert np.signbit(back.robot.init_gripper_qpos[0])


def test_a_field_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="no fields"):
        from_json({**to_json(INFO), "colour": "red"})


def test_a_scene_is_built_once_and_loaded_equal(tmp_path: Path) -> None:
    build = Counting()
    first = load_or_build(tmp_path / "new" / "cache", {"scene": "toy"}, build)
    again = load_or_build(tmp_path / "new" / "cache", {"scene": "toy"}, build)
    assert build.times == 1
    assert first.info == again.info
    assert again.geom_id("g") == first.geom_id("g")
    assert np.array_equal(first.model.geom_size, again.model.geom_size)


def test_another_key_is_another_scene_but_equal_models_share_a_file(tmp_path: Path) -> None:
    load_or_build(tmp_path, {"scene": "toy", "version": 1}, _scene)
    load_or_build(tmp_path, {"scene": "toy", "version": 2}, _scene)
    assert len(list(tmp_path.glob("toy-*.json"))) == 2
    assert len(list(tmp_path.glob("models/*.mjb"))) == 1


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("models/*.mjb", _cut),
        ("models/*.mjb", _flip),
        ("models/*.mjb", _empty),
        ("models/*.mjb", Path.unlink),
        ("*.json", _cut),
        ("*.json", _empty),
        ("*.json", Path.unlink),
    ],
)
def test_a_damaged_entry_is_built_again(
    tmp_path: Path, pattern: str, damage: Callable[[Path], None]
) -> None:
    load_or_build(tmp_path, {"scene": "toy"}, _scene)
    damage(next(tmp_path.glob(pattern)))
    build = Counting()
    load_or_build(tmp_path, {"scene": "toy"}, build)
    load_or_build(tmp_path, {"scene": "toy"}, build)
    assert build.times == 1


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mujoco, "mj_saveModel", lambda m, name, b: Path(name).write_bytes(b"x"))
    with pytest.raises(OutOfSpace, match="cache folder"):
        load_or_build(tmp_path, {"scene": "toy"}, _scene)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_leftovers_of_a_killed_process_are_removed_after_a_day(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    old, new = tmp_path / "models" / ".writing-old", tmp_path / "models" / ".writing-new"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    load_or_build(tmp_path, {"scene": "toy"}, _scene)
    assert (old.exists(), new.exists()) == (False, True)


def _build_in_process(cache: Path, log: Path, gate: object) -> None:
    def build() -> Scene:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        return _scene(dataclasses.replace(INFO, provenance={"pid": os.getpid()}))

    gate.wait()  # type: ignore[attr-defined]
    load_or_build(cache, {"scene": "toy"}, build)


def test_processes_that_want_the_same_scene_build_it_once(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(3)
    log = tmp_path / "log"
    processes = [
        context.Process(target=_build_in_process, args=(tmp_path, log, gate)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert log.read_text() == "built\n"
