"""LeRobotDataset v3.0: every refusal, and pixels, states and actions as they were written."""

from __future__ import annotations

import io
import json
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from envs.demonstration_sources.lerobot_meta import LeRobotLayout
from envs.demonstrations import Viewpoint, prepare
from wamsim.conventions import Orientation, quat_to_axis_angle
from wamsim.demonstrations import DemonstrationFile, UnusableDemonstrations, open_set
from wamsim.errors import ConventionMismatch, OutOfSpace, RecordCorrupt, WamsimError

T, EPISODES, SIZE, FPS = 12, 2, 32, 10
KEYS = ("observation.images.image", "observation.images.image2")
TASKS = ("pick up the milk and place it in the basket", "Open the drawer!")
VIEW = Viewpoint(cameras=("agentview", "eye_in_hand"), size=(SIZE, SIZE))


def picture(key: str, row: int) -> np.ndarray:
    """A gradient whose brightness tells the row, brighter on the right: [H, W, 3]."""
    out = np.zeros((SIZE, SIZE, 3), np.uint8)
    out[..., 0] = 8 * row
    out[..., 1] = np.arange(SIZE) * 6
    out[..., 2] = 200 if key == KEYS[1] else 40
    return out


def numbers() -> tuple[np.ndarray, np.ndarray]:
    """State [24, 8] and action [24, 7] of all rows."""
    rng = np.random.default_rng(0)
    state = rng.uniform(-0.5, 0.5, (T * EPISODES, 8)).astype(np.float32)
    quat = rng.normal(size=(T * EPISODES, 4))
    quat /= np.linalg.norm(quat, axis=1, keepdims=True)
    state[:, 3:6] = quat_to_axis_angle(quat)  # half of them with angles above pi
    action = rng.uniform(-0.9, 0.9, (T * EPISODES, 7)).astype(np.float32)
    action[:, 6] = np.where(np.arange(T * EPISODES) % T < 6, -1, 1)
    return state, action


def write_film(path: Path, frames: list[np.ndarray], fps: int = FPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(fps), options={"crf": "4", "g": "7"})
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv444p"
        for pixels in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


def write_data(root: Path, **replaced: np.ndarray) -> None:
    state, action = numbers()
    rows = np.arange(T * EPISODES)
    data = {
        "observation.state": pa.array(list(state)),
        "action": pa.array(list(action)),
        "timestamp": (rows % T / FPS).astype(np.float32),
        "frame_index": rows % T,
        "episode_index": rows // T,
        "index": rows,
        "task_index": rows // T,
        **replaced,
    }
    path = root / "data" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(data), path)


def write_episodes(root: Path, **replaced: list) -> None:
    first = np.arange(EPISODES) * T
    data = {
        "episode_index": np.arange(EPISODES),
        "data/chunk_index": [0] * EPISODES,
        "data/file_index": [0] * EPISODES,
        "dataset_from_index": first,
        "dataset_to_index": first + T,
        "tasks": [[task] for task in TASKS],
        "length": [T] * EPISODES,
        "stats/action/min": [[0.0]] * EPISODES,
    }
    for key in KEYS:
        data[f"videos/{key}/chunk_index"] = [0] * EPISODES
        data[f"videos/{key}/file_index"] = [0] * EPISODES
        data[f"videos/{key}/from_timestamp"] = first / FPS
        data[f"videos/{key}/to_timestamp"] = (first + T) / FPS
    path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(data | replaced), path)


def write_info(root: Path, dtype: str = "video", **replaced: object) -> None:
    shapes = {"observation.state": (8,), "action": (7,)} | dict.fromkeys(KEYS, (SIZE, SIZE, 3))
    info = {
        "codebase_version": "v3.0",
        "fps": FPS,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            name: {"dtype": dtype if name in KEYS else "float32", "shape": shape, "names": None}
            for name, shape in shapes.items()
        },
    }
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta" / "info.json").write_text(json.dumps(info | replaced))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two episodes of 12 frames, one file each of rows and of every camera."""
    root = tmp_path / "set"
    write_info(root)
    write_episodes(root)
    write_data(root)
    # pandas writes an unnamed index under this name
    tasks = {"task_index": [0, 1], "__index_level_0__": list(TASKS)}
    pq.write_table(pa.table(tasks), root / "meta" / "tasks.parquet")
    for key in KEYS:
        frames = [picture(key, row) for row in range(T * EPISODES)]
        write_film(root / "videos" / key / "chunk-000" / "file-000.mp4", frames)
    return root


def make(root: Path, view: Viewpoint = VIEW, **options) -> list[Path]:
    return prepare(root, view, cache=root.parent / "cache", **options)


def files(made: list[Path]) -> list[DemonstrationFile]:
    return [DemonstrationFile(path) for path in made]


def check_pictures(file: DemonstrationFile, episode: int, *, apart: float) -> None:
    for camera, key in zip(VIEW.cameras, KEYS, strict=True):
        found = file.whole(f"frames/{camera}").astype(int)
        upright = [picture(key, episode * T + t)[:, ::-1] for t in range(T)]  # was mirrored
        assert np.abs(found - np.stack(upright)).mean() < apart


# -------------------------------------------------------------------------- what comes out


def test_frames_states_and_actions_are_those_of_the_files(root: Path) -> None:
    calls: list[tuple[int, int]] = []
    made = make(root, progress=lambda n, of: calls.append((n, of)))
    assert calls == [(1, 2), (2, 2)]
    first, second = sorted(files(made), key=lambda f: f.info.index)
    assert [f.path.parent.name for f in (first, second)] == [
        "pick_up_the_milk_and_place_it_in_the_basket", "open_the_drawer"
    ]  # fmt: skip
    state, action = numbers()
    for episode, file in enumerate((first, second)):
        info = file.info
        assert (info.suite, info.index, info.steps) == ("", episode, T - 1)
        assert (info.instruction, info.success) == (TASKS[episode], True)
        assert info.source == f"set:{episode}"
        assert info.control_hz == 20  # fps says 10, LIBERO runs at 20
        rows = slice(episode * T, (episode + 1) * T)
        np.testing.assert_array_equal(file.whole("actions"), action[rows][:-1])
        proprio = file.whole("proprio/EEF_AXIS_ANGLE_GRIPPER")
        np.testing.assert_allclose(proprio, state[rows], atol=1e-6)
        quat = file.whole("proprio/GRIPPER_EEF_POS_QUAT")[:, 5:].astype(float)
        np.testing.assert_allclose(quat_to_axis_angle(quat), state[rows, 3:6], atol=1e-5)
        assert "proprio/JOINTS_GRIPPER" not in file.names
        check_pictures(file, episode, apart=3.0)
    assert len(open_set(made)) == 2 * (T - 1)


def test_pictures_in_the_data_are_read_too(root: Path) -> None:
    write_info(root, dtype="image")
    cells = {}
    for key in KEYS:
        cells[key] = []
        for row in range(T * EPISODES):
            buffer = io.BytesIO()
            Image.fromarray(picture(key, row)).save(buffer, "PNG")
            cells[key].append({"bytes": buffer.getvalue(), "path": f"{row}.png"})
    write_data(root, **cells)
    for episode, file in enumerate(sorted(files(make(root)), key=lambda f: f.info.index)):
        check_pictures(file, episode, apart=1e-9)


def test_another_layout_and_size(root: Path) -> None:
    layout = LeRobotLayout(
        cameras={KEYS[1]: "frontview"}, orientation=Orientation.UPRIGHT, control_hz=None
    )
    made = make(root, Viewpoint(cameras=("frontview",), size=(16, 16)), layout=layout)
    file = files(made)[0]
    frames = file.whole("frames/frontview")
    assert frames.shape == (T, 16, 16, 3)
    assert frames[0, 8, 12, 1] > frames[0, 8, 2, 1] + 100  # still brighter on the right
    assert frames[0, ..., 2].mean() == pytest.approx(200, abs=3)
    assert file.info.control_hz == FPS


def test_what_is_there_is_not_read_again(root: Path) -> None:
    made = make(root)
    before = {f.path: f.path.stat().st_mtime_ns for f in files(made)}
    gone = min(before)
    gone.unlink()
    calls: list[tuple[int, int]] = []
    assert make(root, progress=lambda n, of: calls.append((n, of))) == made
    assert calls == [(2, 2)]
    after = {f.path: f.path.stat().st_mtime_ns for f in files(made)}
    assert set(after) == set(before)
    assert [p for p in after if after[p] != before[p]] == [gone]
    file = next(f for f in files(made) if f.path == gone)
    check_pictures(file, file.info.index, apart=3.0)


def test_an_outcome_is_believed(root: Path) -> None:
    won = np.zeros(T * EPISODES, bool)
    won[-1] = True
    write_data(root, **{"next.success": won})
    assert {f.info.index: f.info.success for f in files(make(root))} == {0: False, 1: True}


# -------------------------------------------------------------------------------- refusals


def refused(error: type[Exception], sentence: str, root: Path, *args, **options) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        make(root, *args, **options)


def test_older_versions_and_damaged_metadata(root: Path) -> None:
    write_info(root, codebase_version="v2.1")
    refused(UnusableDemonstrations, "is v2.1, and wamsim reads v3.0", root)
    (root / "meta" / "info.json").write_text("{")
    refused(RecordCorrupt, "metadata of a LeRobotDataset cannot be read", root)
    write_info(root)
    (root / "meta" / "tasks.parquet").write_bytes(b"PAR1")
    refused(RecordCorrupt, "metadata of a LeRobotDataset cannot be read", root)


def test_a_missing_column_is_named(root: Path) -> None:
    path = root / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["length"]), path)
    refused(RecordCorrupt, "KeyError('length')", root)


def test_a_camera_without_a_feature_lists_the_keys(root: Path) -> None:
    view = Viewpoint(cameras=("frontview",), size=(SIZE, SIZE))
    refused(
        UnusableDemonstrations,
        f"no feature of the dataset would be camera 'frontview'. Its pictures are {KEYS[0]}, "
        f"{KEYS[1]}; the LeRobotLayout says",
        root, view,
    )  # fmt: skip
    layout = LeRobotLayout(cameras={"observation.images.top": "agentview"})
    refused(UnusableDemonstrations, "observation.images.top is agentview", root, layout=layout)
    layout = LeRobotLayout(cameras=dict.fromkeys(KEYS, "agentview"))
    refused(UnusableDemonstrations, f"{KEYS[0]} and {KEYS[1]} of the dataset", root, layout=layout)


def test_depth_and_another_shape(root: Path) -> None:
    view = Viewpoint(cameras=("agentview",), size=(SIZE, SIZE), depth=True)
    refused(UnusableDemonstrations, "a LeRobotDataset has colour only", root, view)
    view = Viewpoint(cameras=("agentview",), size=(24, 32))
    refused(UnusableDemonstrations, "32x32 and 24x32 are asked for", root, view)


def test_actions_of_another_convention(root: Path) -> None:
    _, action = numbers()
    wide = action.copy()
    wide[3, 0] = 1.5
    write_data(root, action=pa.array(list(wide)))
    refused(ConventionMismatch, "action reaches from -1 to 1.5", root)
    opened = action.copy()
    opened[:, 6] = (1 - action[:, 6]) / 2  # OpenVLA's: 1 open
    write_data(root, action=pa.array(list(opened)))
    refused(ConventionMismatch, "gripper channel of action is never below 0", root)
    refused(ConventionMismatch, "action has shape (7,), expected (8,)", root,
            layout=LeRobotLayout(state="action"))  # fmt: skip


def test_episodes_that_do_not_add_up_are_named_and_left_out(root: Path) -> None:
    write_episodes(root, length=[T, T - 1])
    sentences: list[str] = []
    made = make(root, said=sentences.append)
    assert [f.info.index for f in files(made)] == [0]
    assert sentences == [
        "left out episode 1: episode 1 is 11 frames long, but has 12 rows and 12 indices; as many "
        "of all, at least 2, were expected"
    ]
    name = f"videos/{KEYS[0]}/to_timestamp"
    write_episodes(root, **{name: [1.1, 2.3]})
    small = Viewpoint(cameras=("agentview",), size=(8, 8))
    sentence = f"is 12 frames long, but its video {KEYS[0]} lasts 1.100 s at 10 frames"
    refused(UnusableDemonstrations, sentence, root, small)


def test_a_video_that_is_short_wrong_or_damaged(root: Path) -> None:
    path = root / "videos" / KEYS[0] / "chunk-000" / "file-000.mp4"
    frames = [picture(KEYS[0], row) for row in range(T + 5)]
    write_film(path, frames)
    sentences: list[str] = []
    assert [f.info.index for f in files(make(root, said=sentences.append))] == [0]
    assert "a video has 17 frames, and an episode wants 12 to 23" in sentences[0]
    small = Viewpoint(cameras=("agentview",), size=(8, 8))
    write_film(path, frames, fps=20)
    refused(UnusableDemonstrations, "a video has 20 frames per second, the dataset 10", root, small)
    path.write_bytes(b"no video")
    refused(UnusableDemonstrations, "no video can be read", root, small)
    path.unlink()
    refused(UnusableDemonstrations, "no video can be read", root, small)


def test_several_tasks_in_an_episode(root: Path) -> None:
    write_data(root, task_index=np.arange(T * EPISODES) % 2)
    refused(UnusableDemonstrations, "has tasks [0, 1], expected a known one", root)


def test_a_full_disk_is_said_before_anything_is_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(root)._replace(free=1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    refused(OutOfSpace, "the disk has 1.1 GB free", root)
    assert not list(root.parent.rglob("cache/**/*.safetensors"))


def test_a_layout_is_read_from_options() -> None:
    assert LeRobotLayout.from_options({}) == LeRobotLayout()
    assert LeRobotLayout.from_options(
        {"state": "robot.state", "orientation": "upright", "control_hz": "fps",
         "camera.observation.images.top": "agentview"}
    ) == LeRobotLayout(
        cameras={"observation.images.top": "agentview"}, state="robot.state",
        orientation=Orientation.UPRIGHT, control_hz=None,
    )  # fmt: skip
    for options, said in (
        ({"orientation": "upside"}, "upright"),
        ({"stat": "x"}, "state"),
        ({"control_hz": "-3"}, "env steps per second"),
    ):
        with pytest.raises(WamsimError, match=said):
            LeRobotLayout.from_options(options)
