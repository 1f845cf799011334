"""Which steps of an episode are drawn, kept and shown."""

from __future__ import annotations

import numpy as np
import pytest
from doubles import card, picture, sees
from hypothesis import given
from hypothesis import strategies as st

from wamsim.contracts import WorldModelCard
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE
from wamsim.gallery import (
    Gallery,
    Shot,
    imagination_looks,
    plan,
    policy_looks,
    stack_frames,
    stack_rows,
)

FRONT = ("front",)


@pytest.mark.parametrize(
    ("offsets", "execute", "looks"),
    [
        ((0,), 1, (1,)),
        ((0,), 8, (8,)),  # only the last step of a chunk is a query's present
        ((-1, 0), 8, (7, 8)),
        ((-3, -2, -1, 0), 8, (5, 6, 7, 8)),
        ((-3, -2, -1, 0), 1, (1,)),  # every step is some query's present
        ((-3, -2, -1, 0), 2, (1, 2)),
        ((-8, 0), 8, (8,)),  # the present of the query before
        ((-9, 0), 8, (7, 8)),  # one step before that
        ((-5, 0), 3, (1, 3)),  # query at 6: step 1, local step 1 of the chunk 1..3
        ((-4, -2, 0), 3, (1, 2, 3)),
        ((-40, 0), 16, (8, 16)),  # query at 48: step 8
    ],
)
def test_policy_looks(offsets: tuple[int, ...], execute: int, looks: tuple[int, ...]) -> None:
    made = card(cameras=FRONT, frame_offsets=offsets, execute=execute, horizon=16)
    assert policy_looks(made) == looks


def test_a_policy_without_cameras_looks_at_nothing() -> None:
    assert policy_looks(card(frame_offsets=(-1, 0))) == ()


@pytest.mark.parametrize(
    ("offsets", "execute", "looks"),
    [
        ((0, 4, 8), 8, (4, 8)),
        ((0, 4, 8), 4, (4,)),  # 8 steps ahead is never acted out as imagined
        ((0, 4, 8), 6, (4, 6)),  # 6: the next query's present
        ((-2, 0, 5), 8, (5, 6, 8)),
        ((-11, 0), 8, (5, 8)),  # query at 16: step 5 of the chunk 1..8
        ((0,), 5, (5,)),
        ((0, 1), 1, (1,)),
    ],
)
def test_imagination_looks(offsets: tuple[int, ...], execute: int, looks: tuple[int, ...]) -> None:
    assert imagination_looks(sees((1,), frame_offsets=offsets), execute) == looks


def test_no_imagination_looks_at_nothing() -> None:
    assert imagination_looks(None, 8) == ()


def test_views_without_imagination() -> None:
    made = card(cameras=("front", "wrist"), frame_offsets=(-1, 0), depth=True)
    (view,) = plan(made, imagine=False).views
    assert (view.cameras, view.size, view.capacity, view.depth) == (
        ("front", "wrist"), (2, 3), 2, True,
    )  # fmt: skip


def test_imagination_through_the_same_cameras_shares_the_view() -> None:
    made = card(cameras=FRONT, execute=4, frame_offsets=(-1, 0), imagines=sees((2, 4)))
    both = plan(made, imagine=True)
    assert (both.policy, both.imagination, both.looks) == (0, 0, ((2, 3, 4),))
    (view,) = plan(made, imagine=True).views
    assert view.capacity == 3  # local steps 2 (imagined), 3 (history), 4 (both)
    (view,) = plan(made, imagine=False).views
    assert view.capacity == 2


@pytest.mark.parametrize("changes", [{"cameras": ("wrist",)}, {"image_size": (4, 4)}])
def test_imagination_through_other_eyes_gets_a_view_of_its_own(changes: dict) -> None:
    spec = sees((2, 4), **changes)
    made = card(cameras=FRONT, execute=4, imagines=spec, depth=True)
    assert plan(made, imagine=True).imagination == 1
    policy, imagination = plan(made, imagine=True).views
    assert (policy.cameras, policy.size, policy.capacity, policy.depth) == (FRONT, (2, 3), 1, True)
    assert (imagination.cameras, imagination.size) == (spec.cameras, spec.image_size)
    assert (imagination.capacity, imagination.depth) == (2, False)
    assert len(plan(made, imagine=False).views) == 1


def test_imagination_of_a_policy_that_does_not_look() -> None:
    policy, imagination = plan(card(imagines=sees((2,))), imagine=True).views
    assert policy.cameras == ()
    assert (imagination.cameras, imagination.capacity) == (FRONT, 1)


def test_a_world_model_adds_its_own_past_and_future() -> None:
    world = WorldModelCard(
        name="wm", cameras=FRONT, image_size=(2, 3), past_offsets=(-5, -1, 0), future_actions=8,
        action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE, imagines=sees((2, 4), frame_offsets=(0, 2, 4)),
    )  # fmt: skip
    found = plan(card(cameras=FRONT, execute=4), world=world)
    # past -5 and -1 are local step 3 of earlier chunks, 2 and 4 the future, 4 the present
    assert (found.policy, found.imagination, found.world) == (0, None, 0)
    assert (found.looks, found.oldest) == (((2, 3, 4),), (-5,))
    apart = plan(card(cameras=("wrist",), execute=4), world=world)
    assert (apart.world, apart.looks, apart.oldest) == (1, ((4,), (2, 3, 4)), (0, -5))


# ----------------------------------------------------------------------------- gallery


def _shot(step: int) -> Shot:
    return Shot(picture(step, 0, 0)[None])


def _shown(gallery: Gallery, step: int) -> int | None:
    """The step whose look is given, as its pixels show; None when there is none."""
    try:
        return int(gallery.at(step).colour[0, 0, 0, 0])
    except KeyError:
        return None


def _gallery(*steps: int) -> Gallery:
    out = Gallery()
    for step in steps:
        out.add(step, _shot(step))
    return out


def test_the_first_look_stands_in_before_the_start() -> None:
    gallery = _gallery(0, 2)
    assert [_shown(gallery, s) for s in (-5, -1, 0, 2)] == [0, 0, 0, 2]


def test_the_latest_earlier_look_stands_in_where_nothing_was_drawn() -> None:
    gallery = _gallery(0, 4, 6)
    assert [_shown(gallery, s) for s in (3, 4, 5, 6, 99)] == [0, 4, 4, 6, 6]


def test_a_look_that_was_never_planned_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"at or before step 3; kept: \[4\]"):
        _gallery(4).at(3)


def test_looks_are_copied_out_of_shared_memory() -> None:
    colour, depth = picture(1, 0, 0)[None], np.full((1, 2, 3), 1.5, np.float32)
    gallery = Gallery()
    gallery.add(1, Shot(colour, depth))
    colour[:], depth[:] = 0, 0  # the slot's next message overwrites both
    kept = gallery.at(1)
    assert np.array_equal(kept.colour, picture(1, 0, 0)[None])
    assert kept.depth is not None
    assert (kept.depth == 1.5).all()


def test_stack_keeps_order_and_repeats() -> None:
    frames = stack_frames(_gallery(0, 1, 2).stack([2, -1, 0, 2]))
    assert frames.shape == (4, 1, 2, 3, 3)
    assert frames[:, 0, 0, 0, 0].tolist() == [2, 0, 0, 2]


@given(
    drawn=st.sets(st.integers(0, 30), max_size=12).map(lambda s: s | {0}),
    cuts=st.lists(st.integers(-3, 32), min_size=1, max_size=5).map(sorted),
)
def test_forgetting_changes_no_later_answer(drawn: set[int], cuts: list[int]) -> None:
    everything, gallery = _gallery(*drawn), _gallery(*drawn)
    for before in cuts:
        gallery.forget(before)
        for step in range(max(before, 0), 34):
            assert _shown(gallery, step) == _shown(everything, step)


def test_forgetting_does_forget() -> None:
    gallery = _gallery(0, 2, 4, 6)
    gallery.forget(5)  # 4 stays: it stands in for 5
    assert [_shown(gallery, s) for s in (3, 4, 5, 6)] == [None, 4, 4, 6]
    gallery.forget(6)
    assert _shown(gallery, 5) is None


# -------------------------------------------------------------------------------- rows


def test_padding_rows_are_zeros_of_the_rows_type() -> None:
    rows = [np.full((2, 3), 7, np.uint8), np.full((2, 3), 9, np.uint8)]
    out = stack_rows(rows, 4)
    assert (out.shape, out.dtype) == ((4, 2, 3), np.uint8)
    assert out[:, 0, 0].tolist() == [7, 9, 0, 0]


@pytest.mark.parametrize("count", [0, 3])
def test_rows_must_fit_the_batch(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} rows do not fit a batch of 2"):
        stack_rows([np.zeros(1)] * count, 2)
