"""What a policy is given at every query, on slots whose pictures show their env step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from doubles import INDEX_STEP, CountingPolicy, card, key, picture, pool_for, roll, task

from wamsim import seeding
from wamsim.contracts import Observation, PolicyCard, Prediction
from wamsim.conventions import Orientation


def _run(
    tmp_path: Path,
    made: PolicyCard,
    *,
    indices: tuple[int, ...] = (0,),
    success: dict[int, int] | None = None,
    max_steps: int = 6,
    workers: int = 1,
    slots: int = 1,
    shuffle: int | None = None,
    **options,
) -> list[Observation]:
    policy = CountingPolicy(made)
    pool = pool_for(
        made, tasks=[task(max_steps=max_steps)], workers=workers, slots=slots,
        success=success, shuffle=shuffle,
    )  # fmt: skip
    roll(tmp_path / "run", policy, pool, [key(i) for i in indices], **options)
    return policy.seen


def _steps(frames: np.ndarray) -> list[list[int]]:
    """The env steps that frames [B, T, H, W, 3] show."""
    return frames[:, :, 0, 0, 0].tolist()


def test_frames_are_those_of_the_history_padded_with_the_first(tmp_path: Path) -> None:
    made = card(cameras=("front",), frame_offsets=(-3, -1, 0))
    seen = _run(tmp_path, made, batch=1)
    assert [o.step.tolist() for o in seen] == [[0], [2], [4]]
    assert [_steps(o.frames["front"]) for o in seen] == [[[0, 0, 0]], [[0, 1, 2]], [[1, 3, 4]]]


def test_history_reaches_over_several_chunks(tmp_path: Path) -> None:
    made = card(cameras=("front",), frame_offsets=(-5, 0), execute=2)
    seen = _run(tmp_path, made, batch=1, max_steps=9)
    assert [_steps(o.frames["front"])[0] for o in seen] == [[0, 0], [0, 2], [0, 4], [1, 6], [3, 8]]


def test_every_camera_shows_its_own_picture(tmp_path: Path) -> None:
    made = card(cameras=("wrist", "front"), frame_offsets=(-1, 0))
    _, second, _ = _run(tmp_path, made, indices=(3,), batch=1)
    assert list(second.frames) == ["wrist", "front"]
    for place, camera in enumerate(("wrist", "front")):  # in the order of the card
        frames = second.frames[camera]
        assert (frames.shape, frames.dtype) == ((1, 2, 2, 3, 3), np.uint8)
        assert np.array_equal(frames[0, 0], picture(1, 3, place))
        assert np.array_equal(frames[0, 1], picture(2, 3, place))


@pytest.mark.parametrize(
    ("orientation", "rows"),
    [
        (Orientation.UPRIGHT, [[0, 1, 2], [10, 11, 12]]),  # 10 * row + column
        (Orientation.MIRRORED, [[2, 1, 0], [12, 11, 10]]),
        (Orientation.OPENGL, [[10, 11, 12], [0, 1, 2]]),
    ],
)
def test_frames_come_in_the_cards_orientation(
    tmp_path: Path, orientation: Orientation, rows: list[list[int]]
) -> None:
    made = card(cameras=("front",), orientation=orientation)
    frames = _run(tmp_path, made, batch=2)[0].frames["front"]
    assert frames[0, 0, :, :, 2].tolist() == rows
    assert frames.flags.c_contiguous


def test_depth_comes_with_its_camera(tmp_path: Path) -> None:
    made = card(cameras=("front", "wrist"), frame_offsets=(-1, 0), depth=True)
    _, second, _ = _run(tmp_path, made, indices=(4,), batch=2)
    assert second.depth is not None
    assert second.intrinsics is not None
    assert second.extrinsics is not None
    for c, camera in enumerate(("front", "wrist")):
        depth = second.depth[camera]
        assert (depth.shape, depth.dtype) == ((2, 2, 2, 3), np.float32)
        assert (depth[0, 0] == 1 + 0.25 * c).all()  # metres: env step + camera / 4
        assert (depth[0, 1] == 2 + 0.25 * c).all()
        assert np.array_equal(second.intrinsics[camera][0], np.diag([c + 1.0, 5.0, 1.0]))
        poses = second.extrinsics[camera]
        assert poses.shape == (2, 2, 4, 4)
        assert poses[0, :, :3, 3].tolist() == [[1, c, 4], [2, c, 4]]
        for padded in (depth, second.intrinsics[camera], poses):
            assert not padded[1].any()


def test_no_depth_unless_asked(tmp_path: Path) -> None:
    seen = _run(tmp_path, card(cameras=("front",)))[0]
    assert (seen.depth, seen.intrinsics, seen.extrinsics, seen.state) == (None, None, None, None)


def test_proprioception_has_the_frames_history_in_the_cards_order(tmp_path: Path) -> None:
    made = card(frame_offsets=(-3, 0), proprio=INDEX_STEP)  # (index, step); no cameras
    seen = _run(tmp_path, made, indices=(4,), batch=2)
    assert seen[0].frames == {}
    got = [o.proprio for o in seen if o.proprio is not None]
    assert {(p.shape, p.dtype.name) for p in got} == {((2, 2, 2), "float32")}
    assert [p[0].tolist() for p in got] == [
        [[4, 0], [4, 0]], [[4, 0], [4, 2]], [[4, 1], [4, 4]],
    ]  # fmt: skip
    assert not any(p[1].any() for p in got)


def test_no_proprioception_unless_asked(tmp_path: Path) -> None:
    assert _run(tmp_path, card())[0].proprio is None


def test_padding_rows_are_marked_and_empty(tmp_path: Path) -> None:
    made = card(cameras=("front",))
    first, second, _ = _run(tmp_path, made, indices=(2,), batch=3, run_seed=7)
    assert second.batch == 3
    assert second.valid.tolist() == [True, False, False]
    assert second.first.tolist() == [False, True, True]
    assert second.slot.tolist() == [0, -1, -1]
    assert second.step.tolist() == [2, 0, 0]
    assert second.seed.tolist() == [seeding.policy_seed(7, key(2), 2), 0, 0]
    assert second.instruction == ["count, please", "", ""]
    assert second.memory == [1, None, None]
    assert not second.frames["front"][1:].any()
    assert first.first.tolist() == [True, True, True]
    types = (second.step, second.slot, second.seed, second.first, second.valid)
    assert [a.dtype.name for a in types] == ["int64", "int64", "uint64", "bool", "bool"]


@pytest.mark.parametrize(("workers", "slots"), [(1, 1), (1, 3), (2, 3), (1, 8)])
def test_the_batch_has_one_shape_whatever_the_number_of_slots(
    tmp_path: Path, workers: int, slots: int
) -> None:
    made = card(cameras=("front", "wrist"), frame_offsets=(-1, 0), proprio=INDEX_STEP)
    seen = _run(
        tmp_path, made, indices=tuple(range(9)), workers=workers, slots=slots, batch=4, shuffle=1
    )
    assert {o.batch for o in seen} == {4}
    assert {o.frames[c].shape for o in seen for c in o.frames} == {(4, 2, 2, 3, 3)}
    assert sum(int(o.valid.sum()) for o in seen) == 9 * 3  # each episode's queries at 0, 2, 4
    assert all(o.valid.any() for o in seen)


def test_a_policy_whose_rows_are_free_gets_no_padding(tmp_path: Path) -> None:
    made = card(row_batch=False)
    seen = _run(tmp_path, made, indices=tuple(range(5)), slots=3, batch=2, success={0: 1})
    assert all(o.valid.all() for o in seen)
    assert seen[0].batch == 3  # all waiting slots at once, not the batch of 2


def test_rows_carry_their_own_episodes_slot_memory_and_seed(tmp_path: Path) -> None:
    made = card(cameras=("front",))
    seen = _run(
        tmp_path, made, indices=(0, 1, 2), slots=2, batch=2, success={0: 3}, max_steps=4, run_seed=9
    )
    table = [
        (int(o.slot[r]), int(o.frames["front"][r, 0, 0, 0, 1]), int(o.step[r]), bool(o.first[r]),
         o.memory[r])
        for o in seen for r in np.flatnonzero(o.valid)
    ]  # fmt: skip
    # slot, trial, step, first, memory (queries so far)
    assert table == [
        (0, 0, 0, True, None), (1, 1, 0, True, None),
        (0, 0, 2, False, 1), (1, 1, 2, False, 1),
        (0, 2, 0, True, None),  # trial 0 reached its goal at step 3; its memory is gone
        (0, 2, 2, False, 1),
    ]  # fmt: skip
    for o in seen:
        for r in np.flatnonzero(o.valid):
            index = int(o.frames["front"][r, 0, 0, 0, 1])
            assert int(o.seed[r]) == seeding.policy_seed(9, key(index), int(o.step[r]))


def test_memory_goes_round_untouched(tmp_path: Path) -> None:
    notes: list[object] = []
    got: list[object] = []

    class Notebook:
        card = card()

        def act(self, obs: Observation) -> Prediction:
            got.extend(obs.memory)
            notes.append(object())
            return Prediction(actions=np.zeros((1, 4, 7), np.float32), memory=notes[-1:])

    policy = Notebook()
    roll(tmp_path / "run", policy, pool_for(policy.card, tasks=[task(max_steps=6)]), batch=1)
    assert got == [None, notes[0], notes[1]]  # the very objects


def test_a_privileged_policy_sees_the_simulators_state(tmp_path: Path) -> None:
    made = card(privileged=True)
    seen = _run(tmp_path, made, indices=(3,), batch=2)
    assert [o.state[1] for o in seen if o.state] == [None, None, None]
    states = [o.state[0] for o in seen if o.state]
    assert [s.qpos.tolist() for s in states if s] == [[0.0], [2.0], [4.0]]
    assert [s.qvel.tolist() for s in states if s] == [[3.0]] * 3
    assert [s.gripper_command.tolist() for s in states if s] == [[0.0], [2.0], [4.0]]
    last = states[-1]
    assert last is not None
    assert (last.key, last.task.name, last.scene.name) == (key(3), "count", "count")
    assert last.fixtures["shelf"][0].tolist() == [3.0, 0.0, 0.0]


@pytest.mark.parametrize("imagine", [False, True])
def test_the_wish_for_imagination_is_passed_on(tmp_path: Path, imagine: bool) -> None:
    assert _run(tmp_path, card(), imagine=imagine)[0].imagine is imagine
