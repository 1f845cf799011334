from __future__ import annotations

import collections
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from envs import goals
from envs.libero import assets, bddl, init_states, placement, protocols, suite, upstream
from envs.libero.suite import LiberoSuite, instruction_of
from envs.scene import SuiteOptions
from wamsim.contracts import EpisodeKey, Task
from wamsim.conventions import Orientation
from wamsim.errors import AssetsMissing, UnknownName
from wamsim.seeding import derive, numpy_legacy_seed

NOWHERE = Path("/nonexistent")
SIZES = {
    "libero_spatial": 10,
    "libero_object": 10,
    "libero_goal": 10,
    "libero_10": 10,
    "libero_90": 90,
}
# 1 + nq + nv of the initial states (SUITES 1.1)
WIDTHS = {
    "libero_spatial": {92},
    "libero_object": {110},
    "libero_goal": {79},
    "libero_10": {45, 47, 51, 71, 84, 123},
}


def _suite(name: str, **options: object) -> LiberoSuite:
    settings: dict[str, object] = {"cache_dir": NOWHERE, "libero_assets": NOWHERE, **options}
    return suite(name, SuiteOptions(**settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return [task for name in SIZES for task in _suite(name).suite.tasks]


# ------------------------------------------------------------------------ listing


def test_every_suite_lists_its_tasks_without_assets(tasks: list[Task]) -> None:
    assert collections.Counter(t.suite for t in tasks) == SIZES
    assert not any(t.stand_in_visuals for t in tasks)
    assert len({(t.suite, t.name) for t in tasks}) == 130


def test_listing_imports_neither_robosuite_nor_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from envs.libero import suite;"
        "from envs.scene import SuiteOptions;"
        "suite('libero_90', SuiteOptions(cache_dir=Path('x')));"
        "print({'torch', 'robosuite', 'libero.libero'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_names_and_wordings_are_the_benchmarks(tasks: list[Task], libero_assets: Path) -> None:
    facts = libero_assets.parent / "libero_tasks.json"
    if not facts.is_file():
        pytest.skip(f"no table of task facts: {facts}")
    expected = json.loads(facts.read_text())
    for task in tasks:
        fact = expected[task.suite][task.index]
        assert (task.name, task.instruction) == (fact["name"], fact["language"])
        wordings = {task.instruction, *task.paraphrases}
        assert fact["bddl_language"] in wordings
        assert bddl.read(upstream.bddl_path(task.suite, task.name)).kind == fact["problem"]


def test_the_instruction_is_the_file_name_without_its_scene() -> None:
    assert instruction_of("KITCHEN_SCENE10_close_the_top_drawer") == "close the top drawer"
    assert instruction_of("LIVING_ROOM_SCENE2_put_both") == "put both"
    assert instruction_of("put_the_bowl_on_the_plate") == "put the bowl on the plate"


def test_the_bddl_wording_is_a_paraphrase_where_it_differs() -> None:
    task = _suite("libero_spatial", wording=1).suite.tasks[4]
    assert task.instruction == (
        "pick the akita black bowl in the top layer of the wooden cabinet and place it on the plate"
    )
    with pytest.raises(UnknownName, match="no wording 1"):
        _suite("libero_10", wording=1)


def test_goals_of_all_tasks_have_the_known_predicates(tasks: list[Task]) -> None:
    counts = collections.Counter(
        p.name for t in tasks for p in goals.predicates(goals.parse(t.goal))
    )
    # SUITES 1.2
    assert counts == {"In": 63, "On": 61, "Close": 11, "TurnOn": 8, "Open": 7, "TurnOff": 1}


def test_a_goal_with_two_terms() -> None:
    task = _suite("libero_10").suite.tasks[9]
    assert task.goal == ("In(white_yellow_mug_1, microwave_1_heating_region) & Close(microwave_1)")


def test_tasks_that_differ_in_goal_alone_share_a_scene(tasks: list[Task]) -> None:
    scenes = {name: {t.scene_id for t in tasks if t.suite == name} for name in SIZES}
    assert {name: len(ids) for name, ids in scenes.items()} == {
        "libero_spatial": 10,
        "libero_object": 10,
        "libero_goal": 1,
        "libero_10": 9,
        "libero_90": 20,
    }
    assert len(set().union(*scenes.values())) == 41


@pytest.mark.parametrize("text", ["(define (problem x)", "(define) extra", "hello", "(a))"])
def test_what_is_not_bddl_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.bddl"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.bddl"):
        bddl.read(path)


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="libero_goal"):
        _suite("libero_gaol")


# ----------------------------------------------------------------- initial states


def test_initial_states_of_all_tasks(tasks: list[Task]) -> None:
    widths = collections.defaultdict(set)
    for task in tasks:
        states = init_states.read(upstream.init_path(task.suite, task.name))
        assert states.shape[0] == task.n_initial_states == 50
        assert states.dtype == np.float64
        assert np.isfinite(states).all()
        widths[task.suite].add(states.shape[1])
    assert {name: widths[name] for name in WIDTHS} == WIDTHS


def test_a_pickle_that_is_more_than_an_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pruned_init"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(subprocess.run))
    with pytest.raises(AssetsMissing, match=r"subprocess\.run is not part of a NumPy array"):
        init_states.read(path)


# ---------------------------------------------------------------------- protocols


@pytest.mark.parametrize(
    ("name", "wait", "limits", "seed", "orientation", "execute"),
    [
        # FAMILIES A.13, B.9; SUITES 1.1, 1.7
        (None, 10, (220, 280, 300, 520, 400), None, Orientation.UPRIGHT, None),
        ("openvla", 10, (220, 280, 300, 520, 400), 0, Orientation.MIRRORED, None),
        ("cosmos", 10, (220, 280, 300, 520, 400), 0, Orientation.UPRIGHT, 16),
        ("fastwam", 30, (400, 400, 400, 700, 700), 42, Orientation.MIRRORED, 10),
        ("lerobot", 10, (280, 280, 300, 520, 400), 1000, Orientation.MIRRORED, None),
    ],
)
def test_protocols(
    name: str | None,
    wait: int,
    limits: tuple[int, ...],
    seed: int | None,
    orientation: Orientation,
    execute: int | None,
) -> None:
    chosen = protocols.choose(name)
    assert (chosen.env_seed, chosen.orientation, chosen.execute) == (seed, orientation, execute)
    for suite_name, limit in zip(SIZES, limits, strict=True):
        task = _suite(suite_name, protocol=name).suite.tasks[0]
        assert (task.settle_steps, task.max_steps) == (wait, limit)


def test_an_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'openvla'"):
        _suite("libero_goal", protocol="open_vla")
    with pytest.raises(UnknownName, match="'openvla'"):
        _suite("libero_goal", reset_mode="openvlaa")


# ------------------------------------------------------------------------- assets


def test_missing_assets_say_where_and_how(tmp_path: Path) -> None:
    backend = _suite("libero_goal", libero_assets=tmp_path)
    with pytest.raises(AssetsMissing) as caught:
        backend.scene(backend.suite.tasks[0])
    text = str(caught.value)
    for part in (str(tmp_path), "WAMSIM_LIBERO_ASSETS", "hf download lerobot/libero-assets"):
        assert part in text


@pytest.mark.libero
def test_a_missing_file_is_named(libero_assets: Path, tmp_path: Path) -> None:
    for name in (*assets.FOLDERS, "scenes"):
        (tmp_path / name).mkdir()
    shutil.copytree(libero_assets / "scenes", tmp_path / "scenes", dirs_exist_ok=True)
    backend = _suite("libero_goal", libero_assets=tmp_path)
    with pytest.raises(AssetsMissing, match=r"articulated_objects/flat_stove\.xml"):
        backend.scene(backend.suite.tasks[0])


@pytest.mark.libero
def test_a_damaged_file_is_an_assets_error(libero_assets: Path, tmp_path: Path) -> None:
    for file in libero_assets.rglob("*"):
        if file.is_file():
            copy = tmp_path / file.relative_to(libero_assets)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.symlink_to(file)
    mesh = tmp_path / "stable_scanned_objects" / "plate" / "plate.xml"
    mesh.unlink()
    mesh.write_text("<mujoco><worldbody>")
    backend = _suite("libero_goal", libero_assets=tmp_path, cache_dir=tmp_path / "cache")
    with pytest.raises(AssetsMissing, match="damaged"):
        backend.scene(backend.suite.tasks[0])


@pytest.mark.libero
def test_stand_ins_are_told_from_genuine_files(libero_assets: Path, tasks: list[Task]) -> None:
    list_of_them = libero_assets / "STANDINS.txt"
    listed = set(list_of_them.read_text().split()) if list_of_them.is_file() else set()
    for task in tasks:
        problem = bddl.read(upstream.bddl_path(task.suite, task.name))
        found = assets.completeness(problem, libero_assets)
        assert not found.missing, task.name
        assert set(found.stand_ins) == listed & set(found.needed)
    assert assets.wrong_hashes(libero_assets) == []


def test_a_replaced_file_is_no_stand_in(tmp_path: Path) -> None:
    known, unknown = "textures/gray_wall.png", "turbosquid_objects/wine_rack/template.png"
    (tmp_path / "STANDINS.txt").write_text(f"{known}\n{unknown}\n")
    for file, size in ((known, assets.GENUINE[known][0]), (unknown, 2_000_000)):
        path = tmp_path / file
        path.parent.mkdir(parents=True)
        path.write_bytes(b"small")
        assert assets.is_stand_in(tmp_path, file)
        assets.is_stand_in.cache_clear()
        with path.open("wb") as opened:
            opened.truncate(size)
        assert not assets.is_stand_in(tmp_path, file)
    assert assets.wrong_hashes(tmp_path) == [known]


# ----------------------------------------------------------------------- starting


@pytest.mark.libero
def test_a_start_is_a_function_of_key_and_seed(libero_assets: Path, scene_cache_dir: Path) -> None:
    options = {"libero_assets": libero_assets, "cache_dir": scene_cache_dir}
    backend = _suite("libero_goal", **options)
    task = backend.suite.tasks[3]
    scene = backend.scene(task)
    key = EpisodeKey("libero_goal", task.name, 52)
    first = backend.start(scene, task, key, 7)
    scene.set_fixtures(first.fixtures)  # what an episode does to the model changes nothing
    again = backend.start(scene, task, key, 7)
    assert np.array_equal(first.nominal_qpos, again.nominal_qpos)
    for body, (position, quaternion) in first.fixtures.items():
        assert np.array_equal(position, again.fixtures[body][0])
        assert np.array_equal(quaternion, again.fixtures[body][1])
    assert first.state is not None
    assert np.array_equal(first.state, backend.initial_states(task)[2])  # 52 % 50
    assert set(first.fixtures) == {"wooden_cabinet_1_main", "flat_stove_1_main", "wine_rack_1_main"}
    other = backend.start(scene, task, key, 8)
    assert not np.array_equal(first.nominal_qpos, other.nominal_qpos)
    # by hand: the seed is derived from key and run seed, and one reset follows
    seed = numpy_legacy_seed(derive(7, key, "fixtures"))
    assert first.perturbation["reset_seed"] == seed
    drawn = placement.draw(scene, np.random.RandomState(seed))
    assert np.array_equal(first.nominal_qpos, drawn.qpos)


@pytest.mark.libero
def test_openvla_resets_once_per_trial(libero_assets: Path, scene_cache_dir: Path) -> None:
    options = {"libero_assets": libero_assets, "cache_dir": scene_cache_dir}
    scene_of = _suite("libero_goal", **options)
    task = scene_of.suite.tasks[0]
    scene = scene_of.scene(task)
    rng, loads = np.random.RandomState(42), 1
    backend = _suite("libero_goal", protocol="fastwam", **options)
    for index in range(4):
        drawn = placement.draw(scene, rng, loads=loads)
        loads = drawn.loads
        start = backend.start(scene, task, EpisodeKey("libero_goal", task.name, index), index)
        assert np.array_equal(start.nominal_qpos, drawn.qpos)
