"""Imagined beside real: latents are the env steps that frames show, so tables are readable."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from doubles import (
    SIZE,
    CountingPolicy,
    CountingWorld,
    card,
    key,
    picture,
    pool_for,
    roll,
    sees,
    task,
)

from wamsim import seeding
from wamsim.contracts import ImaginationSpec, Imagined, Observation, PolicyCard, Prediction
from wamsim.conventions import DELTA_EEF_GRIPPER_OPEN_POSITIVE, Orientation
from wamsim.episode import Episode
from wamsim.errors import ConventionMismatch, PolicyFault, UnknownName


def _run(
    tmp_path: Path, policy: CountingPolicy, *, max_steps: int = 10, goal: int = 0, **options
) -> Episode:
    pool = pool_for(policy.card, imagine=True, tasks=[task(max_steps=max_steps)], success={0: goal})
    (episode,) = roll(tmp_path / "run", policy, pool, **{"batch": 2, **options}).values()
    return episode


def _table(episode: Episode) -> list[tuple]:
    """Query step, imagined, real, still, executed: one row a query."""
    a = episode.arrays
    return [
        (int(step), imagined[:, 0].tolist(), real[:, 0].tolist(), still[:, 0].tolist(), ok.tolist())
        for step, imagined, real, still, ok in zip(
            a["imagined_steps"], a["imagined_latents"], a["real_latents"], a["still_latents"],
            a["imagined_executed"], strict=True,
        )
    ]  # fmt: skip


SHARED = card(cameras=("front",), execute=4, imagines=sees((2, 4)))
OWN = card(cameras=("front",), execute=4, imagines=sees((2, 4), cameras=("wrist",)))
BLIND = card(execute=4, imagines=sees((2, 4)))


@pytest.mark.parametrize("made", [SHARED, OWN, BLIND], ids=["shared", "own", "blind"])
def test_imagined_meets_what_came(tmp_path: Path, made: PolicyCard) -> None:
    episode = _run(tmp_path, CountingPolicy(made), max_steps=8)
    yes = [True, True]
    assert _table(episode) == [
        (0, [2.25, 4.25], [2, 4], [0, 0], yes),
        (4, [6.25, 8.25], [6, 8], [4, 4], yes),
    ]
    for name in ("imagined_latents", "real_latents", "still_latents"):
        assert episode.arrays[name].dtype == np.float16
        assert episode.arrays[name].shape == (2, 2, 1)
    assert "imagined_frames" not in episode.arrays


@pytest.mark.parametrize("made", [SHARED, OWN], ids=["shared", "own"])
def test_a_goal_within_the_chunk_leaves_later_horizons_unexecuted(
    tmp_path: Path, made: PolicyCard
) -> None:
    episode = _run(tmp_path, CountingPolicy(made), goal=7)
    assert _table(episode)[1] == (
        4, [6.25, 8.25], [6, 6], [4, 4], [True, False],  # step 8 never came; 6 is the last drawn
    )  # fmt: skip


def test_a_goal_before_the_first_horizon_leaves_nothing_executed(tmp_path: Path) -> None:
    episode = _run(tmp_path, CountingPolicy(SHARED), goal=1)
    assert _table(episode) == [(0, [2.25, 4.25], [0, 0], [0, 0], [False, False])]


def test_the_step_limit_cuts_the_last_chunk(tmp_path: Path) -> None:
    episode = _run(tmp_path, CountingPolicy(SHARED), max_steps=6)
    assert _table(episode)[1] == (4, [6.25, 8.25], [6, 6], [4, 4], [True, False])


def test_horizons_past_the_chunk_are_never_executed(tmp_path: Path) -> None:
    made = dataclasses.replace(SHARED, execute=2)
    episode = _run(tmp_path, CountingPolicy(made), max_steps=4)
    assert _table(episode) == [
        (0, [2.25, 4.25], [2, 2], [0, 0], [True, False]),
        (2, [4.25, 6.25], [4, 4], [2, 2], [True, False]),
    ]


def test_encode_takes_history_as_well(tmp_path: Path) -> None:
    class Historian(CountingPolicy):
        def encode(self, frames: np.ndarray) -> np.ndarray:
            past, now, ahead = (frames[:, t, 0, 0, 0, 0].astype(float) for t in range(3))
            return (past * 10000 + now * 100 + ahead)[:, None, None] / 16  # float16 keeps these

    spec = ImaginationSpec(
        horizons=(3,), frame_offsets=(-5, 0, 3), cameras=("front",), image_size=SIZE,
        latent_shape=(1,),
    )  # fmt: skip
    episode = _run(tmp_path, Historian(card(execute=4, imagines=spec)), max_steps=8)
    # (past, now, ahead) = (0, 0, 3), (0, 4, 7); nothing moves: ahead = now
    expected = np.array([[3, 0], [407, 404]], np.float64) / 16
    assert episode.arrays["real_latents"].ravel().tolist() == np.float16(expected[:, 0]).tolist()
    assert episode.arrays["still_latents"].ravel().tolist() == np.float16(expected[:, 1]).tolist()


def test_encode_gets_a_fixed_batch_in_the_cards_orientation(tmp_path: Path) -> None:
    shown: list[np.ndarray] = []

    class Witness(CountingPolicy):
        def encode(self, frames: np.ndarray) -> np.ndarray:
            shown.append(frames.copy())
            return super().encode(frames)

    spec = sees((2,), cameras=("wrist", "front"))
    made = card(cameras=("front",), imagines=spec, orientation=Orientation.OPENGL)
    _run(tmp_path, Witness(made), max_steps=10, batch=2)
    # five queries in batches of four: real twice, then "nothing moves" twice
    assert {f.shape for f in shown} == {(4, 2, 2, *SIZE, 3)}  # B, T, cams, H, W, 3
    empty = [[0, 0]] * 3
    assert [f[:, :, 0, 0, 0, 0].tolist() for f in shown] == [
        [[0, 2], [2, 4], [4, 6], [6, 8]], [[8, 10], *empty],
        [[0, 0], [2, 2], [4, 4], [6, 6]], [[8, 8], *empty],
    ]  # fmt: skip
    for camera in (0, 1):  # in the spec's order
        assert np.array_equal(shown[0][0, 1, camera], picture(2, 0, camera)[::-1])


def test_pictures_that_a_model_draws_are_kept(tmp_path: Path) -> None:
    def draw(obs: Observation, answer: Prediction) -> Prediction:
        assert answer.imagined is not None
        frames = np.zeros((obs.batch, 2, *SIZE, 3), np.uint8)
        frames += (obs.step[:, None] + np.array([2, 4]))[..., None, None, None].astype(np.uint8)
        return dataclasses.replace(
            answer, imagined=dataclasses.replace(answer.imagined, frames=frames)
        )

    episode = _run(tmp_path, CountingPolicy(SHARED, draw), max_steps=8)
    frames = episode.arrays["imagined_frames"]
    assert (frames.shape, frames.dtype) == ((2, 2, *SIZE, 3), np.uint8)
    assert frames[:, :, 0, 0, 0].tolist() == [[2, 4], [6, 8]]


def test_a_query_whose_chunk_never_ran_is_not_compared(tmp_path: Path) -> None:
    def stumble(obs: Observation, answer: Prediction) -> Prediction:
        answer.actions[obs.step == 4] = np.nan
        return answer

    episode = _run(tmp_path, CountingPolicy(SHARED, stumble))
    assert [row[0] for row in _table(episode)] == [0]
    assert episode.arrays["query_steps"].tolist() == [0, 4]


def test_a_failure_at_the_first_query_has_nothing_to_compare(tmp_path: Path) -> None:
    def stumble(_: Observation, answer: Prediction) -> Prediction:
        answer.actions[:] = np.nan
        return answer

    episode = _run(tmp_path, CountingPolicy(SHARED, stumble))
    assert not [name for name in episode.arrays if "latents" in name or "imagined" in name]


def test_two_slots_do_not_mix_their_frames(tmp_path: Path) -> None:
    class Trial(CountingPolicy):
        def encode(self, frames: np.ndarray) -> np.ndarray:
            return frames[:, 1:, 0, 0, 0, 1:2].astype(np.float32)  # the trial that they show

    policy = Trial(SHARED)
    pool = pool_for(SHARED, imagine=True, slots=3, shuffle=2)
    found = roll(tmp_path / "run", policy, pool, [key(i) for i in range(7)], batch=4)
    for k, episode in found.items():
        assert (episode.arrays["real_latents"] == k.index).all()
        assert len(episode.arrays["real_latents"]) == 3


# --------------------------------------------------------------------------- on request


ON_REQUEST = card(cameras=("front",), execute=4, imagines=sees((2, 4), on_request=True))


def test_imagination_on_request_is_not_there_unless_asked(tmp_path: Path) -> None:
    policy = CountingPolicy(ON_REQUEST)
    pool = pool_for(ON_REQUEST)
    (episode,) = roll(tmp_path / "run", policy, pool, batch=2).values()
    assert not [name for name in episode.arrays if "latents" in name or "imagined" in name]
    assert {sent.looks for sent in pool.sent} == {((4,),), ((),)}  # nothing drawn for it


def test_imagination_on_request_is_there_when_asked(tmp_path: Path) -> None:
    policy = CountingPolicy(ON_REQUEST)
    episode = _run(tmp_path, policy, max_steps=4, imagine=True)
    assert _table(episode) == [(0, [2.25, 4.25], [2, 4], [0, 0], [True, True])]


# ------------------------------------------------------------------------------- faults


def test_a_policy_that_imagines_must_encode(tmp_path: Path) -> None:
    class Dreamer:
        card = SHARED

        def act(self, obs: Observation) -> Prediction:
            raise NotImplementedError

    with pytest.raises(PolicyFault, match=r"'counting' says that it imagines but has no encode"):
        roll(tmp_path / "run", Dreamer(), pool_for(SHARED, imagine=True))


def _imagine(change) -> CountingPolicy:
    def alter(_: Observation, answer: Prediction) -> Prediction:
        assert answer.imagined is not None
        return dataclasses.replace(answer, imagined=change(answer.imagined))

    return CountingPolicy(SHARED, alter)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda i: Imagined(latents=i.latents[:, :1]), r"\(2, 1, 1\).*promises \(2, 2, 1\)"),
        (lambda i: Imagined(latents=i.latents[..., 0]), r"\(2, 2\).*promises \(2, 2, 1\)"),
        (lambda i: Imagined(latents=i.latents[:1]), r"\(1, 2, 1\).*promises \(2, 2, 1\)"),
        (
            lambda i: Imagined(latents=i.latents, frames=np.zeros((1, 2, 4, 4, 3), np.uint8)),
            r"frames of shape \(1, 2, 4, 4, 3\).*promises 2 rows of 2",
        ),
    ],
    ids=["horizons", "latent shape", "rows", "frames"],
)
def test_imagination_of_another_shape_is_refused(tmp_path: Path, change, sentence: str) -> None:
    with pytest.raises(PolicyFault, match=sentence):
        _run(tmp_path, _imagine(change))


def test_an_encoder_of_another_shape_is_refused(tmp_path: Path) -> None:
    class Slim(CountingPolicy):
        def encode(self, frames: np.ndarray) -> np.ndarray:
            return super().encode(frames)[:, :1]  # one horizon too few

    with pytest.raises(PolicyFault, match=r"encode.*\(4, 1, 1\).*promises \(4, 2, 1\)"):
        _run(tmp_path, Slim(SHARED))


def test_a_promised_imagination_that_does_not_come_is_refused(tmp_path: Path) -> None:
    policy = CountingPolicy(SHARED, lambda _, a: dataclasses.replace(a, imagined=None))
    with pytest.raises(PolicyFault, match="promises imagination but returned none"):
        _run(tmp_path, policy)


# ------------------------------------------------------------------ somebody else's hands


def test_a_world_model_gets_frames_and_actions_around_the_query(tmp_path: Path) -> None:
    policy, world = CountingPolicy(card(execute=2)), CountingWorld()
    pool = pool_for(policy.card, world=world.card, tasks=[task(max_steps=5)])
    (episode,) = roll(
        tmp_path / "run", policy, pool, [key(2)], world=world, batch=2, run_seed=7
    ).values()
    assert [w.frames[0, :, 0, 0, 0, 0].tolist() for w in world.seen] == [[0, 0], [0, 2], [1, 4]]
    # actions are env step / 100 (0: hold, before the start), the newest last
    past = [(w.past[0, :, 0] * 100).round().tolist() for w in world.seen]
    assert past == [[0, 0, 0], [0, 1, 2], [2, 3, 4]]
    assert [w.past[0, :, 6].tolist() for w in world.seen] == [[-1, -1, -1], [-1, 0, 0], [0, 0, 0]]
    future = [(w.future[0, :, 0] * 100).round().tolist() for w in world.seen]
    assert future == [[1, 2, 3], [3, 4, 5], [5, 6, 7]]
    assert [int(w.seed[0]) for w in world.seen] == [
        seeding.derive(7, key(2), f"world@{s}") for s in (0, 2, 4)
    ]
    for w in world.seen:
        assert (w.frames.shape, w.past.shape, w.future.shape) == (
            (2, 2, 1, *SIZE, 3), (2, 3, 7), (2, 3, 7),
        )  # fmt: skip
        assert not any(a[1].any() for a in (w.frames, w.past, w.future, w.seed))
    a = episode.arrays
    assert a["world_imagined_steps"].tolist() == [0, 2, 4]
    assert a["world_imagined_latents"].ravel().tolist() == [2.5, 4.5, 6.5]
    assert a["world_real_latents"].ravel().tolist() == [2, 4, 5]  # the run ends at step 5
    assert a["world_still_latents"].ravel().tolist() == [0, 2, 4]
    assert a["world_imagined_executed"].ravel().tolist() == [True, True, False]
    assert "imagined_latents" not in a
    assert a["timing_imagine_with_s"].shape == (3,)


def test_a_world_model_speaks_its_own_action_convention(tmp_path: Path) -> None:
    def close(_: Observation, answer: Prediction) -> Prediction:
        answer.actions[..., 6] = 0.5
        return answer

    policy = CountingPolicy(card(execute=2), close)
    world = CountingWorld(action=DELTA_EEF_GRIPPER_OPEN_POSITIVE)
    pool = pool_for(policy.card, world=world.card, tasks=[task(max_steps=4)])
    roll(tmp_path / "run", policy, pool, world=world, batch=1)
    assert [w.future[0, :, 6].tolist() for w in world.seen] == [[-0.5] * 3] * 2
    assert world.seen[1].past[0, :, 6].tolist() == [1.0, -0.5, -0.5]  # hold opens


def test_a_world_model_serves_free_rows_in_its_own_batches(tmp_path: Path) -> None:
    policy, world = CountingPolicy(card(execute=2, row_batch=False)), CountingWorld()
    pool = pool_for(policy.card, world=world.card, slots=5)
    found = roll(
        tmp_path / "run", policy, pool, [key(i) for i in range(7)], world=world, batch=2
    )  # fmt: skip
    assert {w.frames.shape[0] for w in world.seen} == {2}
    for episode in found.values():
        assert episode.arrays["world_imagined_latents"].ravel().tolist() == [
            2.5, 4.5, 6.5, 8.5, 10.5,
        ]  # fmt: skip


def test_a_world_model_is_never_shown_a_non_finite_action(tmp_path: Path) -> None:
    def stumble(obs: Observation, answer: Prediction) -> Prediction:
        answer.actions[obs.step == 2] = np.nan
        return answer

    policy, world = CountingPolicy(card(execute=2), stumble), CountingWorld()
    pool = pool_for(policy.card, world=world.card)
    (episode,) = roll(tmp_path / "run", policy, pool, world=world, batch=1).values()
    assert episode.record.reason == "the policy returned a non-finite action at step 2"
    assert [bool(np.isfinite(w.future).all()) for w in world.seen] == [True, True]


def test_a_policys_own_imagination_stands_beside_a_world_models(tmp_path: Path) -> None:
    policy, world = CountingPolicy(SHARED), CountingWorld()
    pool = pool_for(SHARED, imagine=True, world=world.card, tasks=[task(max_steps=4)])
    (episode,) = roll(tmp_path / "run", policy, pool, world=world, batch=2).values()
    assert _table(episode) == [(0, [2.25, 4.25], [2, 4], [0, 0], [True, True])]
    assert episode.arrays["world_imagined_latents"].ravel().tolist() == [2.5]
    assert episode.arrays["world_real_latents"].ravel().tolist() == [2]


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"future_actions": 5}, ConventionMismatch, "takes 5 future actions.*predicts 4"),
        ({"cameras": ("fron",)}, UnknownName, r"'world' on suite 'toy'\) 'fron'.*'front'"),
        (
            {"action": dataclasses.replace(DELTA_EEF_GRIPPER_OPEN_POSITIVE, name="JOINTS")},
            ConventionMismatch,
            "'world model world' expects JOINTS",
        ),
    ],
)
def test_a_world_model_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict, error: type[Exception], sentence: str
) -> None:
    policy, world = CountingPolicy(card()), CountingWorld(**changes)
    pool = pool_for(policy.card, world=world.card)
    with pytest.raises(error, match=sentence):
        roll(tmp_path / "run", policy, pool, world=world)
    assert pool.began == []


def test_a_pool_that_draws_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the pool draws"):
        roll(tmp_path / "run", CountingPolicy(SHARED), pool_for(card(cameras=("wrist",))))
