"""Runs as demonstrations: the pixels, depth and proprioception that the policy saw, drawn once."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from envs.demonstrations import Viewpoint, digest_of, draw_run, prepare
from envs.evaluation import EvalConfig, Resources, evaluate
from wamsim import seeding
from wamsim.contracts import Observation, Outcome, PolicyCard, Prediction
from wamsim.conventions import (
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    DELTA_EEF_GRIPPER_OPEN_POSITIVE,
    EEF_AXIS_ANGLE_GRIPPER,
)
from wamsim.demonstrations import DemonstrationFile, UnusableDemonstrations, open_set
from wamsim.episode import Episode, read_episode, write_episode
from wamsim.errors import ConventionMismatch, OutOfSpace, RecordCorrupt, UnknownName
from wamsim.registry import PolicyChoice
from wamsim.run_folder import episode_files, read_run

pytestmark = pytest.mark.sim

SUITE, TASK = "tabletop_object", "put_can_in_basket"
CAMERAS, SIZE = ("agentview", "eye_in_hand"), (24, 32)
STEPS, SEED = 5, 3
VIEW = Viewpoint(cameras=CAMERAS, size=SIZE, depth=True)
# what can be told of one Panda on a table
PANDA_PROPRIOS = {
    "proprio/EEF_AXIS_ANGLE_GRIPPER", "proprio/GRIPPER_EEF_POS_QUAT", "proprio/JOINTS_GRIPPER"
}  # fmt: skip


class Witness:
    """Moves at random, then returns NaN, and keeps all that it saw, by the seed of its row."""

    def __init__(self) -> None:
        self.card = PolicyCard(
            name="witness",
            action=DELTA_EEF_GRIPPER_OPEN_POSITIVE,
            horizon=1,
            execute=1,
            cameras=CAMERAS,
            image_size=SIZE,
            depth=True,
            proprio=EEF_AXIS_ANGLE_GRIPPER,
            row_batch=False,
        )
        self.seen: dict[int, dict[str, np.ndarray]] = {}
        self.did: dict[int, np.ndarray] = {}

    def act(self, obs: Observation) -> Prediction:
        assert obs.depth is not None
        assert obs.intrinsics is not None
        assert obs.extrinsics is not None
        assert obs.proprio is not None
        actions = np.zeros((obs.batch, 1, 7), np.float32)
        for row in range(obs.batch):
            seed = int(obs.seed[row])
            views = {"frames": obs.frames, "depth": obs.depth, "extrinsics": obs.extrinsics}
            self.seen[seed] = {
                f"{what}/{camera}": views[what][camera][row, -1].copy()
                for camera in CAMERAS
                for what in views
            }
            self.seen[seed] |= {f"intrinsics/{c}": obs.intrinsics[c][row].copy() for c in CAMERAS}
            self.seen[seed]["proprio"] = obs.proprio[row, -1].copy()
            rng = np.random.default_rng(seed)
            actions[row] = rng.uniform(-1, 1, 7) if obs.step[row] < STEPS else np.nan
            self.did[seed] = actions[row, 0].copy()
        return Prediction(actions=actions)


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, resources: Resources
) -> tuple[Path, Witness]:
    """Two short episodes, of which the second is said to have succeeded."""
    policy = Witness()
    choice = PolicyChoice(family="witness", variant="", options={})
    done = evaluate(
        EvalConfig(policy=choice, suites=(SUITE,), seed=SEED),
        out=tmp_path_factory.mktemp("run") / "run",
        episodes=2,
        tasks=(TASK,),
        resources=resources,
        policy=policy,
    )
    change(done.folder, 1, outcome=Outcome.SUCCESS, reason=None, success_step=STEPS)
    return done.folder, policy


@pytest.fixture(scope="module")
def drawn(
    recorded: tuple[Path, Witness], resources: Resources, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder that all of the run was drawn into."""
    cache = tmp_path_factory.mktemp("drawn")
    made = draw_run(recorded[0], VIEW, cache=cache, resources=resources)
    return made[0].parents[2]  # FOLDER/SUITE/TASK/FILE


@pytest.fixture
def run(recorded: tuple[Path, Witness], tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(recorded[0], tmp_path / "run"))


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the demonstrations to spoil."""
    return Path(shutil.copytree(drawn, tmp_path / "demonstrations"))


def change(run_dir: Path, index: int, **fields: object) -> None:
    path = episode_files(run_dir)[index]
    episode = read_episode(path)
    path.unlink()
    record = dataclasses.replace(episode.record, **fields)
    write_episode(run_dir, Episode(record, episode.arrays))


def paths(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def files(folder: Path) -> list[DemonstrationFile]:
    return [DemonstrationFile(path) for path in paths(folder)]


# ------------------------------------------------------------------------------- what is drawn


def test_everything_is_as_the_policy_saw_it(recorded: tuple[Path, Witness], drawn: Path) -> None:
    run_dir, policy = recorded
    assert [f.path.relative_to(drawn).as_posix() for f in files(drawn)] == [
        f"{SUITE}/{TASK}/{index:05d}-{digest_of(path)}.safetensors"
        for index, path in enumerate(episode_files(run_dir))
    ]
    for file, path in zip(files(drawn), episode_files(run_dir), strict=True):
        record = read_episode(path, only=()).record
        assert file.info.steps == STEPS
        assert file.whole("actions").shape == (STEPS, 7)
        for step in range(STEPS + 1):
            seed = seeding.policy_seed(SEED, record.key, step)
            seen = dict(policy.seen[seed])
            proprio = file.whole(f"proprio/{EEF_AXIS_ANGLE_GRIPPER.name}")[step]
            np.testing.assert_array_equal(proprio, seen.pop("proprio"))
            for name, expected in seen.items():
                found = file.whole(name)
                found = found if name.startswith("intrinsics") else found[step]
                assert found.dtype == (np.uint8 if name.startswith("frames") else np.float32)
                np.testing.assert_array_equal(found, expected.astype(found.dtype), err_msg=name)
        assert (file.whole("frames/agentview")[0] != file.whole("frames/agentview")[-1]).any()
        assert PANDA_PROPRIOS <= file.names


def test_actions_are_in_the_suites_convention(recorded: tuple[Path, Witness], drawn: Path) -> None:
    run_dir, policy = recorded  # whose gripper opens with +1
    for file, path in zip(files(drawn), episode_files(run_dir), strict=True):
        key = read_episode(path, only=()).record.key
        did = [policy.did[seeding.policy_seed(SEED, key, step)] for step in range(STEPS)]
        did = np.array(did) * [1, 1, 1, 1, 1, 1, -1]
        np.testing.assert_array_equal(file.whole("actions"), did.astype(np.float32))
    demonstrations = open_set([drawn])
    demonstrations.check(
        CAMERAS, DELTA_EEF_GRIPPER_CLOSE_POSITIVE, EEF_AXIS_ANGLE_GRIPPER, depth=True
    )
    with pytest.raises(ConventionMismatch, match="the policy learns DELTA_EEF_GRIPPER_OPEN_POSI"):
        demonstrations.check(CAMERAS, DELTA_EEF_GRIPPER_OPEN_POSITIVE, None, depth=False)


def test_what_a_demonstration_is_of(recorded: tuple[Path, Witness], drawn: Path) -> None:
    failure, success = (f.info for f in files(drawn))
    assert (failure.success, success.success) == (False, True)
    assert (success.suite, success.task, success.index) == (SUITE, TASK, 1)
    assert success.instruction == read_episode(episode_files(recorded[0])[1]).record.instruction
    assert success.control_hz == 20
    assert success.source == read_run(recorded[0]).config_hash
    assert len(open_set([drawn])) == STEPS
    assert len(open_set([drawn], only_successes=False)) == 2 * STEPS


def test_a_drawing_that_was_stopped_goes_on(
    run: Path, folder: Path, drawn: Path, resources: Resources, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    place = cache / drawn.relative_to(drawn.parents[1])
    shutil.copytree(folder, place)
    kept, gone = (f.path for f in files(place))
    before, data = kept.stat().st_mtime_ns, gone.read_bytes()
    gone.unlink()
    calls: list[tuple[int, int]] = []

    def again() -> list[Path]:
        return prepare(
            run, VIEW, cache=cache, resources=resources,
            progress=lambda done, of: calls.append((done, of)),
        )  # fmt: skip

    assert again() == [kept, gone]
    assert calls == [(2, 2)]
    assert kept.stat().st_mtime_ns == before
    assert gone.read_bytes() == data
    again()
    assert len(calls) == 1


def test_errors_and_damaged_episodes_are_left_out(
    run: Path, resources: Resources, tmp_path: Path
) -> None:
    path = episode_files(run)[0]
    path.write_bytes(path.read_bytes()[:-100])
    said: list[str] = []
    small = Viewpoint(cameras=("agentview",), size=(8, 8))
    (made,) = draw_run(run, small, cache=tmp_path, resources=resources, said=said.append)
    file = DemonstrationFile(made)
    assert file.info.index == 1
    assert file.names == {"actions", "frames/agentview", *PANDA_PROPRIOS}
    assert len(said) == 1
    assert said[0].startswith(f"left out 00000.safetensors of {TASK}: truncated")
    change(run, 1, outcome=Outcome.ERROR, reason="worker lost", success_step=None)
    with pytest.raises(UnusableDemonstrations, match="no episode of the run succeeded"):
        draw_run(run, VIEW, cache=tmp_path, resources=resources)


def test_a_run_is_its_own_episodes_whatever_else_was_drawn(
    run: Path, drawn: Path, resources: Resources, tmp_path: Path
) -> None:
    """Runs of one configuration share a cache: parts of one, or one that was recorded anew."""
    cache = tmp_path / "cache"
    shutil.copytree(drawn, cache / drawn.relative_to(drawn.parents[1]))
    whole = prepare(run, VIEW, cache=cache, resources=resources)
    part = Path(shutil.copytree(run, tmp_path / "part"))
    episode_files(part)[0].unlink()
    assert prepare(part, VIEW, cache=cache, resources=resources) == whole[1:]
    with pytest.raises(UnusableDemonstrations, match=r"1 demonstrations would count twice"):
        open_set([*whole, *prepare(part, VIEW, cache=cache, resources=resources)])

    path = episode_files(part)[0]
    slow = read_episode(path).record.timings | {"wall_s": 1e3}
    change(part, 0, timings=slow)  # it took longer: the same all the same
    assert prepare(part, VIEW, cache=cache, resources=resources) == whole[1:]
    episode = read_episode(path)
    path.unlink()
    other = {**episode.arrays, "actions": -episode.arrays["actions"]}  # another policy's
    write_episode(part, Episode(episode.record, other))
    (anew,) = prepare(part, VIEW, cache=cache, resources=resources)
    assert anew not in whole
    np.testing.assert_array_equal(
        DemonstrationFile(anew).whole("actions"), -DemonstrationFile(whole[1]).whole("actions")
    )


# ------------------------------------------------------------------------------------ refusals


def test_a_run_without_a_success(run: Path, resources: Resources, tmp_path: Path) -> None:
    change(run, 1, outcome=Outcome.FAILURE, reason="too late", success_step=None)
    with pytest.raises(UnusableDemonstrations, match="so there is nothing to imitate"):
        prepare(run, VIEW, cache=tmp_path / "cache", resources=resources)
    assert not (tmp_path / "cache").exists()


def test_a_disk_without_room(
    run: Path, resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=(1 << 30) + 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutOfSpace, match=r"take 0.0 GB and the disk has 1.1 GB free. Choose"):
        prepare(run, VIEW, cache=tmp_path / "cache", resources=resources)
    assert not files(tmp_path / "cache")


def test_a_camera_that_the_suite_lacks(run: Path, resources: Resources, tmp_path: Path) -> None:
    view = Viewpoint(cameras=("agent_view",), size=SIZE)
    with pytest.raises(UnknownName, match=r"'agent_view'.*'agentview'"):
        prepare(run, view, cache=tmp_path, resources=resources)


def test_a_run_has_no_pictures_of_its_own(run: Path, resources: Resources, tmp_path: Path) -> None:
    with pytest.raises(UnusableDemonstrations, match="leave out --own-pictures"):
        prepare(run, VIEW, cache=tmp_path, resources=resources, own_pictures=True)


# ---------------------------------------------------------------------------------- made earlier


def test_models_that_name_the_cameras_otherwise_share_pictures(
    run: Path, drawn: Path, resources: Resources
) -> None:
    swapped = Viewpoint(cameras=CAMERAS[::-1], size=SIZE, depth=True)
    before = {p: p.stat().st_mtime_ns for p in drawn.rglob("*.safetensors")}
    again = prepare(run, swapped, cache=drawn.parent.parent, resources=resources)
    assert again == paths(drawn)
    assert {p: p.stat().st_mtime_ns for p in drawn.rglob("*.safetensors")} == before


def test_what_was_drawn_of_more_serves_for_less(
    run: Path, drawn: Path, resources: Resources, tmp_path: Path
) -> None:
    """Fewer cameras, or no depth, need no drawing where a whole set of more is there."""
    cache = tmp_path / "cache"
    wide = cache / drawn.relative_to(drawn.parents[1])
    shutil.copytree(drawn, wide)
    narrow = Viewpoint(cameras=("eye_in_hand",), size=SIZE)
    assert prepare(run, narrow, cache=cache, resources=resources) == paths(wide)
    files(wide)[0].path.unlink()  # one is missing: what is asked for is drawn
    own = wide.parent / narrow.name
    assert prepare(run, narrow, cache=cache, resources=resources) == paths(own)
    for mine, whole in zip(files(own), files(drawn), strict=True):
        assert "frames/agentview" not in mine.names
        assert not any(name.startswith("depth") for name in mine.names)
        for name in mine.names:
            np.testing.assert_array_equal(mine.whole(name), whole.whole(name))


def test_what_a_viewpoint_shows() -> None:
    assert Viewpoint.named(VIEW.name) == VIEW
    flat = Viewpoint(cameras=("robot0_eye_in_hand",), size=(64, 48))
    assert flat.name == "64x48-robot0_eye_in_hand"
    assert Viewpoint.named(flat.name) == flat
    assert Viewpoint.named("looks") is None
    colour = Viewpoint(cameras=CAMERAS, size=SIZE)
    one = Viewpoint(cameras=CAMERAS[:1], size=SIZE)
    assert VIEW.shows(colour)
    assert colour.shows(one)
    assert not colour.shows(VIEW)
    assert not one.shows(colour)
    assert not Viewpoint(cameras=CAMERAS, size=(32, 24)).shows(one)


def test_demonstrations_made_earlier_are_taken_as_they_are(folder: Path, tmp_path: Path) -> None:
    assert prepare(folder, VIEW, cache=tmp_path) == paths(folder)
    flat = Viewpoint(cameras=("eye_in_hand",), size=SIZE)
    assert prepare(folder, flat, cache=tmp_path) == paths(folder)
    large = Viewpoint(cameras=CAMERAS, size=(48, 64))
    with pytest.raises(UnusableDemonstrations, match="agentview of 48x64 is needed, and it has 24"):
        prepare(folder, large, cache=tmp_path)
    other = Viewpoint(cameras=("frontview",), size=SIZE)
    with pytest.raises(UnusableDemonstrations, match="frontview of 24x32 is needed, and it has no"):
        prepare(folder, other, cache=tmp_path)


def test_a_damaged_demonstration_is_named(folder: Path, tmp_path: Path) -> None:
    path = files(folder)[0].path
    path.write_bytes(path.read_bytes()[:-100])
    sentence = r"it is drawn anew. File: .*00000-\w{12}.safetensors"
    with pytest.raises(RecordCorrupt, match=sentence):
        open_set([folder])
    with pytest.raises(RecordCorrupt, match=sentence):
        prepare(folder, VIEW, cache=tmp_path)


def test_what_is_no_source_is_told_the_kinds(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    for source, fact in ((tmp_path, "holds no demonstrations"), (tmp_path / "x", "nothing here")):
        with pytest.raises(UnusableDemonstrations, match=fact) as raised:
            prepare(source, VIEW, cache=tmp_path)
        for kind in ("wamsim run folder", "LIBERO's HDF5", "LeRobotDataset v3 folder"):
            assert kind in str(raised.value)
