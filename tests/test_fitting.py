"""What does not fit is refused with a sentence that says what to do."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from doubles import INDEX_STEP, CountingPolicy, card, sees, task

from wamsim.contracts import PolicyCard, Prediction, Task
from wamsim.conventions import (
    DELTA_EEF_BASE_TORSO_MODE,
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    DELTA_EEF_GRIPPER_OPEN_POSITIVE,
    EEF_AXIS_ANGLE_GRIPPER,
    Orientation,
)
from wamsim.errors import ConventionMismatch, PolicyFault, UnknownName, WamsimError
from wamsim.fitting import check_fit, checked_actions

ABSOLUTE = dataclasses.replace(DELTA_EEF_GRIPPER_CLOSE_POSITIVE, name="ABSOLUTE", delta=False)


@pytest.mark.parametrize(
    "made",
    [
        card(),
        card(cameras=("wrist", "front"), proprio=INDEX_STEP, depth=True),
        card(action=DELTA_EEF_GRIPPER_OPEN_POSITIVE),  # has a converter
        card(cameras=("front",), orientation=Orientation.MIRRORED),
    ],
)
def test_what_fits(made: PolicyCard) -> None:
    check_fit(CountingPolicy(made), task())


@pytest.mark.parametrize(
    ("made", "error", "sentence"),
    [
        (
            card(cameras=("wrist", "fron")),
            UnknownName,
            "unknown camera (policy 'counting' on suite 'toy') 'fron'. Did you mean 'front'? "
            "A missing camera never becomes zeros.",
        ),
        (
            card(imagines=sees((1,), cameras=("top",))),
            UnknownName,
            "unknown camera (policy 'counting' on suite 'toy') 'top'. Known: front, wrist. "
            "A missing camera never becomes zeros.",
        ),
        (
            card(action=ABSOLUTE),
            ConventionMismatch,
            "policy 'counting' emits ABSOLUTE, but suite 'toy' expects "
            "DELTA_EEF_GRIPPER_CLOSE_POSITIVE. Add a converter for (ABSOLUTE, "
            "DELTA_EEF_GRIPPER_CLOSE_POSITIVE) to ACTION_CONVERTERS in wamsim/conventions.py, or "
            "choose a suite with `wamsim list suites`.",
        ),
        (
            card(proprio=EEF_AXIS_ANGLE_GRIPPER),
            ConventionMismatch,
            "proprioception EEF_AXIS_ANGLE_GRIPPER needs 'eef_pos', but suite 'toy' reports step, "
            "index. Choose another convention in the policy's card (wamsim/conventions.py lists "
            "them).",
        ),
        (
            card(cameras=("front",), depth=True, orientation=Orientation.OPENGL),
            ConventionMismatch,
            "policy 'counting' asks for depth and for opengl pictures; camera matrices are given "
            "for upright ones. Flip inside the policy.",
        ),
    ],
    ids=["camera", "imagined camera", "action", "proprio", "flipped depth"],
)
def test_what_does_not_fit(made: PolicyCard, error: type[WamsimError], sentence: str) -> None:
    with pytest.raises(error) as caught:
        check_fit(CountingPolicy(made), task())
    assert str(caught.value) == sentence


def test_a_channel_that_a_task_requires_must_be_there() -> None:
    # A converter exists (the base stands still), but the task is done elsewhere.
    asked = dataclasses.replace(
        task(), action=DELTA_EEF_BASE_TORSO_MODE, requires=("base_forward", "base_turn")
    )
    check_fit(CountingPolicy(card()), dataclasses.replace(asked, requires=()))
    check_fit(CountingPolicy(card(action=DELTA_EEF_BASE_TORSO_MODE)), asked)
    with pytest.raises(ConventionMismatch) as caught:
        check_fit(CountingPolicy(card()), asked)
    assert str(caught.value) == (
        f"task {asked.name!r} of suite 'toy' cannot be done without base_forward, base_turn, which "
        "policy 'counting' has no channel for: it emits DELTA_EEF_GRIPPER_CLOSE_POSITIVE. Choose "
        "other tasks (--task), or a policy that emits DELTA_EEF_BASE_TORSO_MODE."
    )


# ---------------------------------------------------------------------------- answers

AFTER = "Mend the policy or its card; finished episodes are safe and the run resumes."


def _actions(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.zeros(shape or (2, 4, 7), dtype)


def test_a_good_answer_comes_back_as_it_is() -> None:
    actions = _actions()
    assert checked_actions(card(), Prediction(actions=actions), 2) is actions


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_other_floats_become_float32(dtype: type) -> None:
    out = checked_actions(card(), Prediction(actions=_actions(dtype=dtype) + 0.5), 2)
    assert out.dtype == np.float32
    assert (out == 0.5).all()


def test_a_value_that_is_not_finite_is_not_a_broken_promise() -> None:
    checked_actions(card(), Prediction(actions=_actions() * np.nan), 2)


@pytest.mark.parametrize(
    ("prediction", "sentence"),
    [
        (
            Prediction(actions=_actions(2, 3, 7)),
            "returned actions of shape (2, 3, 7), but its card promises (2, 4, 7) (batch, horizon, "
            "DELTA_EEF_GRIPPER_CLOSE_POSITIVE). The chunk is short: the card promises horizon=4. ",
        ),
        (
            Prediction(actions=_actions(2, 5, 7)),
            "returned actions of shape (2, 5, 7), but its card promises (2, 4, 7) (batch, horizon, "
            "DELTA_EEF_GRIPPER_CLOSE_POSITIVE). ",
        ),
        (
            Prediction(actions=_actions(1, 4, 7)),
            "returned actions of shape (1, 4, 7), but its card promises (2, 4, 7) (batch, horizon, "
            "DELTA_EEF_GRIPPER_CLOSE_POSITIVE). ",
        ),
        (
            Prediction(actions=_actions(2, 4, 8)),
            "returned actions of shape (2, 4, 8), but its card promises (2, 4, 7) (batch, horizon, "
            "DELTA_EEF_GRIPPER_CLOSE_POSITIVE). ",
        ),
        (
            Prediction(actions=_actions(4, 7)),
            "returned actions of shape (4, 7), but its card promises (2, 4, 7) (batch, horizon, "
            "DELTA_EEF_GRIPPER_CLOSE_POSITIVE). ",
        ),
        (
            Prediction(actions=_actions(dtype=np.int64)),
            "returned actions of type int64, expected float32. ",
        ),
        (
            Prediction(actions=_actions(), value=np.zeros(3, np.float32)),
            "returned value for 3 rows, expected 2. ",
        ),
        (
            Prediction(actions=_actions(), memory=[None]),
            "returned memory for 1 rows, expected 2. ",
        ),
    ],
    ids=["short", "long", "rows", "channels", "axes", "integers", "value", "memory"],
)
def test_a_broken_promise(prediction: Prediction, sentence: str) -> None:
    with pytest.raises(PolicyFault) as caught:
        checked_actions(card(), prediction, 2)
    assert str(caught.value) == f"policy 'counting' {sentence}{AFTER}"


def test_a_promised_value_must_come() -> None:
    made = card(predicts_value=True)
    checked_actions(made, Prediction(actions=_actions(), value=np.zeros(2, np.float32)), 2)
    with pytest.raises(PolicyFault, match="promises a value but returned None"):
        checked_actions(made, Prediction(actions=_actions()), 2)


# ------------------------------------------------------------------------------- cards


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"execute": 0}, "execute=0 must lie in 1..horizon=4"),
        ({"execute": 5}, "execute=5 must lie in 1..horizon=4"),
        ({"frame_offsets": ()}, "must end with 0"),
        ({"frame_offsets": (-2, -1)}, "must end with 0"),
        ({"frame_offsets": (-1, -2, 0)}, "must rise strictly"),
        ({"frame_offsets": (-1, -1, 0)}, "must rise strictly"),
    ],
)
def test_a_card_that_contradicts_itself(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        card(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"horizons": ()}, "at least one step ahead"),
        ({"horizons": (0, 4)}, "at least one step ahead"),
        ({"horizons": (4,), "frame_offsets": (1, 4)}, "must contain 0"),
    ],
)
def test_an_imagination_that_contradicts_itself(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sees(**changes)


def test_a_task_is_frozen() -> None:
    made: Task = task()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.max_steps = 3  # type: ignore[misc]
