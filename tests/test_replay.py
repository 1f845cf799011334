"""Videos from run folders: pixels as the policy saw them, and every way to have none."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from envs.evaluation import EvalConfig, Resources, evaluate
from envs.replay import CAMERAS, draw_episode, make_videos
from wamsim import seeding
from wamsim.contracts import EpisodeKey, Observation, Outcome, PolicyCard, Prediction
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE
from wamsim.episode import Episode, read_episode, write_episode
from wamsim.errors import ConfigurationMismatch, RecordCorrupt, UnknownName, WamsimError
from wamsim.registry import PolicyChoice
from wamsim.run_folder import episode_files
from wamsim.video import read_frames

pytestmark = pytest.mark.sim

SIZE = (48, 64)
STEPS = 6  # then it returns NaN, which ends the episode as its failure
SUITE = "tabletop_object"


class Photographer:
    """Moves at random for a while and keeps every picture, by the seed of its row."""

    def __init__(self) -> None:
        self.card = PolicyCard(
            name="photographer",
            action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
            horizon=1,
            execute=1,
            cameras=CAMERAS,
            image_size=SIZE,
            row_batch=False,
        )
        self.seen: dict[int, np.ndarray] = {}

    def act(self, obs: Observation) -> Prediction:
        actions = np.zeros((obs.batch, 1, 7), np.float32)
        for row in range(obs.batch):
            pictures = np.stack([obs.frames[camera][row, -1] for camera in CAMERAS])
            self.seen[int(obs.seed[row])] = pictures
            rng = np.random.default_rng(int(obs.seed[row]))
            actions[row] = rng.uniform(-1, 1, 7) if obs.step[row] < STEPS else np.nan
        return Prediction(actions=actions)


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, resources: Resources
) -> tuple[Path, Photographer]:
    """Two short episodes of two tasks, all failures, and what the policy saw."""
    policy = Photographer()
    choice = PolicyChoice(family="photographer", variant="", options={})
    done = evaluate(
        EvalConfig(policy=choice, suites=(SUITE,), seed=3),
        out=tmp_path_factory.mktemp("run") / "run",
        episodes=2,
        tasks=("0", "2"),
        resources=resources,
        policy=policy,
    )
    return done.folder, policy


@pytest.fixture
def run(recorded: tuple[Path, Photographer], tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(recorded[0], tmp_path / "run"))


@pytest.fixture
def painter(resources: Resources) -> Iterator:
    from envs.rendering import Painter
    from envs.scene import SuiteOptions
    from wamsim import registry

    backend = registry.suite(SUITE, SuiteOptions(cache_dir=resources.cache_dir))
    made = Painter(backend.scene(backend.suite.tasks[0]))
    yield made
    made.close()


def change(path: Path, run_dir: Path, **fields: object) -> Path:
    episode = read_episode(path)
    path.unlink()
    record = dataclasses.replace(episode.record, **fields)
    return write_episode(run_dir, Episode(record, episode.arrays))


# ---------------------------------------------------------------------------- pixels


def test_replayed_pictures_are_the_ones_that_the_policy_saw(recorded, painter) -> None:
    run_dir, policy = recorded
    for path in episode_files(run_dir):
        episode = read_episode(path, only=("seen_qpos",))
        drawn = list(draw_episode(painter, episode, CAMERAS, SIZE))
        assert len(drawn) == STEPS + 1
        for step, shot in enumerate(drawn):
            seen = policy.seen[seeding.policy_seed(3, episode.record.key, step)]
            np.testing.assert_array_equal(shot.colour, seen)
        assert (drawn[0].colour != drawn[-1].colour).any()


@pytest.mark.libero
def test_replayed_pictures_of_libero_are_the_same_too(
    libero_assets: Path, resources: Resources, tmp_path: Path
) -> None:
    from envs.rendering import Painter
    from envs.replay import suite_options
    from wamsim import registry
    from wamsim.run_folder import read_run

    policy = Photographer()
    choice = PolicyChoice(family="photographer", variant="", options={})
    config = EvalConfig(policy=choice, suites=("libero_goal",), seed=3)
    resources = dataclasses.replace(resources, libero_assets=libero_assets)
    done = evaluate(config, out=tmp_path / "run", episodes=1, tasks=("7",), resources=resources,
                    policy=policy)  # fmt: skip
    backend = registry.suite("libero_goal", suite_options(read_run(done.folder).config, resources))
    painter = Painter(backend.scene(backend.suite.tasks[7]))
    episode = read_episode(episode_files(done.folder)[0])
    for step, shot in enumerate(draw_episode(painter, episode, CAMERAS, SIZE)):
        seen = policy.seen[seeding.policy_seed(3, episode.record.key, step)]
        np.testing.assert_array_equal(shot.colour, seen)
    painter.close()


def test_a_larger_drawing_in_between_changes_no_pixel(recorded, painter) -> None:
    run_dir, policy = recorded
    episode = read_episode(episode_files(run_dir)[0])
    large = list(draw_episode(painter, episode, CAMERAS, (700, 900), steps=[2]))
    assert [shot.colour.shape for shot in large] == [(2, 700, 900, 3)]
    (again,) = draw_episode(painter, episode, CAMERAS, SIZE, steps=[2])
    seen = policy.seen[seeding.policy_seed(3, episode.record.key, 2)]
    np.testing.assert_array_equal(again.colour, seen)


def test_burners_glow_where_they_did(resources: Resources) -> None:
    from envs import goals
    from envs.rendering import Painter
    from envs.runtime import Look, Simulation, shoot
    from envs.scene import SuiteOptions
    from wamsim import registry

    backend = registry.suite("tabletop_goal", SuiteOptions(cache_dir=resources.cache_dir))
    task = next(t for t in backend.suite.tasks if t.name == "turn_on_stove")
    scene = backend.scene(task)
    painter, simulation = Painter(scene), Simulation(scene, goals.parse(task.goal))
    key = EpisodeKey("tabletop_goal", task.name, 1)
    start = backend.start(scene, task, key, 0)
    glimpses = [simulation.start(start)]
    knob = scene.thing("stove").joints[0]
    for step in range(3):
        if step == 1:
            simulation.data.qpos[scene.qpos_address(knob)] = scene.model.joint(knob).range[1]
            if not simulation.success():
                simulation.data.qpos[scene.qpos_address(knob)] = scene.model.joint(knob).range[0]
        simulation.step(np.zeros(7))
        glimpses.append(simulation.glimpse())
    assert [any(g.lit) for g in glimpses] == [False, False, False, True]

    from episode_doubles import record

    arrays = {
        "seen_qpos": np.array([g.seen_qpos for g in glimpses]),
        "lit": np.array([g.lit for g in glimpses]),
    }
    fixtures = {name: (tuple(p), tuple(q)) for name, (p, q) in start.fixtures.items()}
    assert fixtures
    scene.set_fixtures({name: (np.zeros(3), np.eye(4)[0]) for name in fixtures})  # another episode
    episode = Episode(record(key=key, fixtures=fixtures), arrays)
    drawn = list(draw_episode(painter, episode, ("agentview",), SIZE))
    for shot, glimpse in zip(drawn, glimpses, strict=True):
        look = Look(cameras=("agentview",), size=SIZE)
        np.testing.assert_array_equal(shot.colour, shoot(painter, start.fixtures, glimpse, look)[0])
    dark = {**arrays, "lit": np.zeros_like(arrays["lit"])}
    (unlit,) = draw_episode(painter, Episode(episode.record, dark), ("agentview",), SIZE, [3])
    assert (drawn[3].colour != unlit.colour).any()
    painter.close()


# ---------------------------------------------------------------------------- videos


def test_videos_of_failures(run: Path, resources: Resources) -> None:
    calls: list[tuple[int, int, str]] = []
    made = make_videos(
        run, size=SIZE, resources=resources, progress=lambda n, of, p: calls.append((n, of, p.name))
    )
    places = [str(path.relative_to(run)) for path in made]
    assert places == [
        f"videos/{SUITE}/{task}/{index:05d}-failure.mp4"
        for task in ("put_can_in_basket", "put_cereal_in_basket")
        for index in (0, 1)
    ]
    assert calls == [(n, 4, f"{(n - 1) % 2:05d}-failure.mp4") for n in (1, 2, 3, 4)]
    assert len(list(read_frames(made[0]))) == STEPS + 1 + 20
    assert not [p for p in run.rglob("*") if p.name.endswith(".tmp")]


def test_processes_make_the_same_videos_and_leave_the_old_ones(
    run: Path, resources: Resources, tmp_path: Path
) -> None:
    alone = make_videos(run, episodes=1, size=SIZE, resources=resources, out=tmp_path / "a")
    several = dataclasses.replace(resources, workers=2)
    calls: list[tuple[int, int]] = []

    def both() -> list[Path]:
        return make_videos(
            run, episodes=1, size=SIZE, resources=several, out=tmp_path / "b",
            progress=lambda n, of, path: calls.append((n, of)),
        )  # fmt: skip

    made = both()
    assert [p.relative_to(tmp_path / "b") for p in made] == [
        p.relative_to(tmp_path / "a") for p in alone
    ]
    assert [p.read_bytes() for p in made] == [p.read_bytes() for p in alone]
    assert calls == [(1, 2), (2, 2)]
    before = [p.stat().st_mtime_ns for p in made]
    assert [p.stat().st_mtime_ns for p in both()] == before
    assert len(calls) == 2
    made[1].unlink()
    both()
    assert calls[2:] == [(2, 2)]
    assert made[0].stat().st_mtime_ns == before[0]


def test_what_was_imagined_stands_to_the_right(run: Path, resources: Resources) -> None:
    """A mirrored imaginer: its picture of each camera is white on its left, so right here."""
    path = episode_files(run)[0]
    episode = read_episode(path)
    frames = np.zeros((1, 1, 8, 2 * 8, 3), np.uint8)
    frames[..., :4, :] = frames[..., 8:12, :] = 255
    note = {
        "horizons": [STEPS], "cameras": list(CAMERAS), "orientation": "mirrored",
        "frame_offsets": [0], "imaginer": "white",
    }  # fmt: skip
    arrays = {"imagined_frames": frames, "imagined_steps": np.zeros(1, np.int32)}
    record = dataclasses.replace(episode.record, notes={"imagination": {"": note}})
    write_episode(run, Episode(record, {**episode.arrays, **arrays}))
    made = make_videos(run, episodes=1, size=SIZE, resources=resources)[0]
    first, second = (picture for picture, _ in zip(read_frames(made), range(2), strict=False))
    (height, width), gap = SIZE, second.shape[1] - 4 * SIZE[1]
    assert gap >= 0
    bright = second[: height - 2].mean(axis=(0, 2)) > 200
    for camera in (2, 3):  # after the two real ones, each with its gap
        start = camera * (width + gap // 5)
        half = bright[start : start + width]
        assert half[-20:].mean() > 0.7 > 0.3 > half[:20].mean()
    assert first[: height - 2, 2 * (width + gap // 5) :].mean() < 60  # nothing expected yet


def test_outcomes_name_files_and_errors_are_no_failures(run: Path, resources: Resources) -> None:
    files = episode_files(run)
    change(files[0], run, outcome=Outcome.SUCCESS, reason=None, success_step=STEPS)
    change(files[1], run, outcome=Outcome.ERROR, reason="worker lost")
    options = {"size": SIZE, "resources": resources, "cameras": ("frontview",)}
    assert len(make_videos(run, **options)) == 2
    made = make_videos(run, episodes="all", **options)
    assert [p.name for p in made] == [
        "00000-success.mp4", "00001-error.mp4", "00000-failure.mp4", "00001-failure.mp4"
    ]  # fmt: skip


def test_episodes_that_cannot_be_drawn_are_named_and_left_out(
    run: Path, resources: Resources
) -> None:
    files = episode_files(run)
    files[0].write_bytes(files[0].read_bytes()[:-100])
    episode = read_episode(files[1])
    crashed = dataclasses.replace(episode.record, outcome=Outcome.ERROR, reason="no such body")
    write_episode(run, Episode(crashed, {}))
    foreign = read_episode(files[2])
    write_episode(run, Episode(foreign.record, {"seen_qpos": np.zeros((3, 5))}))
    sentences: list[str] = []
    made = make_videos(run, episodes="all", size=SIZE, resources=resources, said=sentences.append)
    assert [p.parts[-2:] for p in made] == [("put_cereal_in_basket", "00001-failure.mp4")]
    assert len(sentences) == 3
    assert "00000.safetensors of put_can_in_basket: truncated" in sentences[0]
    assert "no recorded states (no such body)" in sentences[1]
    assert "seen_qpos (3, 5), expected" in sentences[2]


def test_another_version_of_the_suite_is_said(run: Path, resources: Resources) -> None:
    change(episode_files(run)[0], run, suite_version=99)
    with pytest.raises(ConfigurationMismatch, match="tabletop_object version 99"):
        make_videos(run, resources=resources)


def test_questions_without_an_answer(run: Path, resources: Resources, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"'agent_view'.*'agentview'"):
        make_videos(run, cameras=("agent_view",), resources=resources)
    with pytest.raises(WamsimError, match="expected failures, all, or a number"):
        make_videos(run, episodes=0, resources=resources)
    with pytest.raises(RecordCorrupt, match="no run folder"):
        make_videos(tmp_path, resources=resources)
    shutil.rmtree(run / "episodes")
    with pytest.raises(RecordCorrupt, match="no episodes yet"):
        make_videos(run, resources=resources)
