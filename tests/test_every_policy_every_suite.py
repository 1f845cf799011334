"""Every family's tiny preset runs untrained on the kitchen and on two arms, as options ask.

Cameras and conventions come from options alone; widths, imagination and what reaches the
simulator follow them.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moving_squares_doubles import moving_squares
from short_runs import QUERIES, check, run

from envs.evaluation import EvalConfig, Resources, evaluate
from envs.scene import SuiteOptions
from policies.fastwam.config import FastWamConfig
from policies.fastwam.losses import training_actions
from policies.fastwam.presets import preset_config
from policies.preprocess import GripperSteps
from policies.reference import with_reference
from wamsim import registry
from wamsim.conventions import (
    ALOHA_JOINTS_GRIPPER_OPEN_FRACTION,
    DELTA_EEF_BASE_TORSO_MODE,
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION,
)
from wamsim.errors import ConventionMismatch, UnknownName, WamsimError
from wamsim.fitting import check_fit

FAMILIES = ("fastwam", "cosmos", "smolvla_world", "spatialvla:deep_fusion")
# One denoising step and few executed ones: what is tested here are widths.
CHEAP = {"steps": "1", "execute": "2"}
SWITCHES = [6, 11]  # of DELTA_EEF_BASE_TORSO_MODE: gripper and mode


@dataclass(frozen=True)
class Case:
    """A suite seen and spoken to in one way."""

    suite: str
    task: str
    cameras: tuple[str, ...]
    action: str
    proprio: str

    def options(self, name: str) -> dict[str, str]:
        """What `--set` says to a policy."""
        given = {"cameras": ",".join(self.cameras), "action": self.action}
        # late fusion has no state token
        return given if "late_fusion" in name else {**given, "proprio": self.proprio}


_BUTTON, _HAMMER = "coffee_press_button", "beat_block_hammer"
_TWO, _THREE = ("agentview_left", "eye_in_hand"), ("agentview_left", "agentview_right")
_ARM = (DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name, "EEF_AXIS_ANGLE_GRIPPER")
_BASE = (DELTA_EEF_BASE_TORSO_MODE.name, "EEF_IN_BASE_GRIPPER_BASE")
_ARMS = ("head", "left_wrist", "right_wrist")
_JOINTS = (ALOHA_JOINTS_GRIPPER_OPEN_FRACTION.name, "ALOHA_JOINTS_GRIPPER")
_HANDS = (DUAL_EEF_POSE_GRIPPER_OPEN_FRACTION.name, "DUAL_EEF_GRIPPER")
CASES = {
    "kitchen-arm-2": Case("kitchen", _BUTTON, _TWO, *_ARM),
    "kitchen-base-3": Case("kitchen", _BUTTON, (*_THREE, "eye_in_hand"), *_BASE),
    "bimanual-joints-3": Case("bimanual_clean", _HAMMER, _ARMS, *_JOINTS),
    "bimanual-hands-3": Case("bimanual_clean_eef", _HAMMER, _ARMS, *_HANDS),
    "kitchen-arm-3": Case("kitchen", _BUTTON, (*_THREE, "eye_in_hand"), *_ARM),
    "kitchen-base-2": Case("kitchen", _BUTTON, _TWO, *_BASE),
}
# What every default run tries, and what it tries with two of the families.
DAILY = ("kitchen-base-3", "bimanual-joints-3")
ALSO = {"kitchen-arm-2": ("fastwam", "smolvla_world"), "bimanual-hands-3": ("fastwam", "cosmos")}


def _pairs() -> list[Any]:
    """Every variant by every case; all are slow but each family's first by the daily ones."""
    out: list[Any] = []
    for family in FAMILIES:
        name, _, first = family.partition(":")
        variants = registry.family(name).variants
        for variant in variants:
            for label in CASES:
                tried = label in DAILY or name in ALSO.get(label, ())
                marks = [] if tried and variant == (first or variants[0]) else [pytest.mark.slow]
                out.append(pytest.param(f"{name}:{variant}", label, marks=marks))
    return out


@pytest.mark.sim
@pytest.mark.parametrize(("name", "label"), _pairs())
def test_it_runs(name: str, label: str, tmp_path: Path, scene_cache_dir: Path) -> None:
    case = CASES[label]
    options = {**CHEAP, **case.options(name)}
    card = registry.make_policy(registry.choose_policy(name, options)).card
    assert card.cameras == case.cameras
    assert card.action.name == case.action
    assert card.proprio is None or card.proprio.name == case.proprio
    spec = card.imagines
    if spec is not None:
        one_eyed = name.startswith("smolvla_world")
        assert spec.cameras == (case.cameras[:1] if one_eyed else case.cameras)
        if name.startswith("fastwam"):
            assert spec.latent_shape == (24, 8, 8 * len(case.cameras))
        if name.startswith("cosmos"):
            assert spec.latent_shape == (len(case.cameras), 16, 8, 8)
    (episode,) = run(
        name, tmp_path / "run", scene_cache_dir,
        suite=case.suite, task=case.task, options=options,
    )  # fmt: skip
    check(episode, spec.horizons if spec else None, card.execute)
    if spec is not None:
        assert episode.arrays["imagined_latents"].shape[2:] == spec.latent_shape
    _check_what_arrived(episode.arrays, case, binarises=name.startswith("fastwam"))


def _check_what_arrived(arrays: Any, case: Case, *, binarises: bool) -> None:
    """The simulator took actions of its own width, and moved what they name."""
    suite = registry.suite(case.suite, SuiteOptions(cache_dir=Path("unused"))).suite
    task = next(t for t in suite.tasks if t.name == case.task)
    actions, state = arrays["actions"], task.robot_state.split(arrays["robot_state"])
    assert actions.shape == (QUERIES * int(CHEAP["execute"]), task.action.dim)

    def travelled(field: str) -> float:
        return float(np.abs(state[field] - state[field][0]).max())

    if case.suite != "kitchen":
        assert actions.std(axis=0).min() > 0  # both arms are spoken to, by every channel
        assert travelled("left_joint_pos") > 1e-3
        assert travelled("right_joint_pos") > 1e-3
        assert not np.isin(actions[:, [task.action.dim // 2 - 1, -1]], [0.0, 1.0]).all()
    elif case.action == task.action.name:
        free = [i for i in range(task.action.dim) if i not in SWITCHES]
        assert actions[:, free].std(axis=0).min() > 0
        assert np.isin(actions[:, SWITCHES], [-1.0, 1.0]).all() == binarises
        assert max(travelled("joint_pos"), travelled("base_pos")) > 1e-3
    else:
        assert actions[:, :6].std(axis=0).min() > 0
        assert (actions[:, 7:] == DELTA_EEF_BASE_TORSO_MODE.hold[7:]).all()
        assert travelled("joint_pos") > 1e-3
        assert travelled("base_pos") < 1e-3


@pytest.mark.sim
@pytest.mark.parametrize("label", ["kitchen-base-3", "bimanual-joints-3"])
def test_a_world_model_foresees(label: str, tmp_path: Path, scene_cache_dir: Path) -> None:
    case = CASES[label]
    (episode,) = run(
        "random", tmp_path / "run", scene_cache_dir, suite=case.suite, task=case.task,
        options={"execute": "4", "action": case.action}, world="flow_hwm",
        world_options={"steps": "1", "camera": case.cameras[0], "action": case.action},
    )  # fmt: skip
    arrays = episode.arrays
    assert arrays["world_imagined_latents"].shape == arrays["world_real_latents"].shape
    assert np.isfinite(arrays["world_imagined_latents"]).all()
    assert arrays["world_imagined_executed"].all()


# ------------------------------------------------------------------------------ learning


@pytest.mark.parametrize("label", ["kitchen-base-3", "bimanual-joints-3"])
@pytest.mark.parametrize("family", [*FAMILIES, "flow_hwm"])
def test_it_can_learn_there(family: str, label: str) -> None:
    case = CASES[label]
    options = case.options(family)
    if family == "flow_hwm":
        options = {"camera": case.cameras[0], "action": case.action}
    _, learner = registry.make_learner(family, options)
    model: Any = learner.model  # type: ignore[attr-defined]
    spec = model.batch_spec
    assert spec.action.name == case.action
    assert spec.cameras == (case.cameras[:1] if family == "flow_hwm" else case.cameras)
    losses = model.loss(moving_squares(spec, 2))
    losses["total"].backward()
    assert all(torch.isfinite(term) for term in losses.values())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_where_a_window_is_padded_changes_are_nothing_and_targets_stay() -> None:
    for label, still in (("kitchen-base-3", SWITCHES), ("bimanual-joints-3", list(range(14)))):
        choice = registry.choose_policy("fastwam", CASES[label].options("fastwam"))
        model: Any = registry.make_policy(choice).model  # type: ignore[attr-defined]
        batch = moving_squares(model.batch_spec, 1)
        batch.actions.fill_(0.5)
        batch.action_valid[0, -1] = False
        found = training_actions(model, batch)[0]
        assert (found[:-1] == 0.5).all()
        kept = [i for i, x in enumerate(found[-1].tolist()) if x == 0.5]
        assert kept == still
        assert all(x in (0.0, 0.5) for x in found[-1].tolist())


# ------------------------------------------------------------------------------- options


def test_a_checkpoint_keeps_what_it_was_trained_with(tmp_path: Path) -> None:
    case = CASES["kitchen-base-3"]
    for family in FAMILIES:
        options = {"cameras": ",".join(case.cameras), "action": case.action}
        made: Any = registry.make_policy(registry.choose_policy(family, options))
        folder = tmp_path / family.partition(":")[0]
        made.model.save_pretrained(folder)
        given = {"checkpoint": str(folder)}
        again: Any = registry.make_policy(registry.choose_policy(family, given))
        assert (again.card.cameras, again.card.action) == (case.cameras, made.card.action)
        registry.make_policy(registry.choose_policy(family, {**given, **options}))
        with pytest.raises(WamsimError, match="was trained with cameras="):
            registry.make_policy(registry.choose_policy(family, {**given, "cameras": "head"}))
        with pytest.raises(WamsimError, match="was trained with action='DELTA_EEF_BASE_TORSO_M"):
            registry.make_policy(registry.choose_policy(family, {**given, "action": _ARM[0]}))


def test_a_document_from_before_conventions_were_named_is_read(tmp_path: Path) -> None:
    config = preset_config("tiny", "joint")
    document = config.to_dict()
    del document["action_name"], document["proprio_name"]
    older = {**document, "action_dim": 7, "proprio_dim": 8, "delta_dims": 6}
    assert FastWamConfig.from_dict(json.loads(json.dumps(older))) == config
    assert (config.action_dim, config.proprio_dim) == (7, 8)
    assert config.action_convention.changes == list(range(6))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("action", "DELTA_BASE", "unknown action convention 'DELTA_BASE'. Did you mean 'DELTA_EEF"),
        ("proprio", "ALOHA", "unknown proprioception convention 'ALOHA'. Did you mean 'ALOHA_JOI"),
        ("cameras", "head,head", "must name one camera or more, each once"),
        ("cameras", ",", "must name one camera or more, each once"),
    ],
)
def test_a_bad_value_is_refused(family: str, option: str, value: str, sentence: str) -> None:
    with pytest.raises(WamsimError) as caught:
        registry.choose_policy(family, {option: value})
    assert sentence in str(caught.value)


def test_other_bad_values() -> None:
    with pytest.raises(UnknownName, match="unknown action convention 'EVE'"):
        registry.choose_world_model("flow_hwm", {"action": "EVE"})
    choice = registry.choose_policy("spatialvla", {"proprio": "DUAL_EEF_GRIPPER"})
    with pytest.raises(WamsimError, match="has no state token, so proprio=DUAL_EEF_GRIPPER would"):
        registry.make_policy(choice)


def test_switches_go_to_their_bounds_and_fractions_stay() -> None:
    steps = GripperSteps(binarise=True)
    chunk = np.full((1, 12), 0.3, np.float32)
    chunk[0, 11] = -0.1
    assert steps.apply(chunk, DELTA_EEF_BASE_TORSO_MODE)[0].tolist() == pytest.approx(
        [0.3] * 6 + [1.0] + [0.3] * 4 + [-1.0]
    )
    joints = np.full((1, 14), 0.3, np.float32)
    assert (steps.apply(joints, ALOHA_JOINTS_GRIPPER_OPEN_FRACTION) == joints).all()
    unit = GripperSteps(from_unit=True, flip=True)
    assert unit.apply(joints, ALOHA_JOINTS_GRIPPER_OPEN_FRACTION)[0, [5, 6, 13]].tolist() == (
        pytest.approx([0.3, 0.4, 0.4])  # -(2 * 0.3 - 1)
    )


# ------------------------------------------------------------- nothing trained for a suite

NOWHERE = Resources(workers=1, cache_dir=Path("unused"))


def _refusal(name: str, suite: str, options: dict[str, str], world: str | None = None) -> str:
    config = EvalConfig(
        policy=with_reference(registry.choose_policy(name, options)),
        suites=(suite,),
        imagine_with=registry.choose_world_model(world) if world else None,
    )
    with pytest.raises(WamsimError) as caught:  # before anything is simulated or written
        evaluate(config, out=Path("unused"), resources=NOWHERE)
    return str(caught.value)


def _set(line: str, flag: str = "--set") -> dict[str, str]:
    words = shlex.split(line)
    pairs = [words[i + 1].partition("=") for i, word in enumerate(words) if word == flag]
    return {key: value for key, _, value in pairs}


def test_without_a_checkpoint_for_a_suite_it_says_so() -> None:
    options = {"checkpoint": "untrained", "steps": "2"}
    assert _refusal("fastwam:joint", "kitchen", options) == (
        "no trained checkpoint of fastwam:joint for suite 'kitchen' exists. Train one on "
        "demonstrations (`wamsim train -p fastwam:joint -d RUN --out DIR --set steps=2 --set "
        "cameras=agentview_left,agentview_right,eye_in_hand --set "
        "action=DELTA_EEF_BASE_TORSO_MODE --set proprio=EEF_IN_BASE_GRIPPER_BASE`), or run the "
        "untrained architecture: `wamsim eval -p fastwam:joint -s kitchen --set "
        "checkpoint=untrained --set steps=2 --set "
        "cameras=agentview_left,agentview_right,eye_in_hand --set "
        "action=DELTA_EEF_BASE_TORSO_MODE --set proprio=EEF_IN_BASE_GRIPPER_BASE`"
    )


@pytest.mark.parametrize(
    ("family", "suite"),
    [
        *((family, "kitchen") for family in [*FAMILIES, "spatialvla"]),
        *(("fastwam", suite) for suite in ("bimanual_clean", "bimanual_clean_eef")),
    ],
)
def test_the_lines_that_it_gives_work(family: str, suite: str) -> None:
    said = _refusal(family, suite, {"checkpoint": "untrained"})
    _, train, _, again, _ = said.split("`")
    made: list[Any] = []
    choice = with_reference(registry.choose_policy(family, _set(again)))
    assert choice.options["checkpoint"] is None
    made.append(registry.make_policy(choice))
    made.append(registry.make_learner(family, _set(train))[1])
    assert f"-s {suite} " in again
    for policy in made:
        for task in registry.suite(suite, SuiteOptions(cache_dir=Path("unused"))).suite.tasks:
            check_fit(policy, task)
            assert policy.card.action == task.action
    assert made[0].card.cameras == made[1].card.cameras
    assert len(made[0].card.cameras) == 3


def test_a_world_models_line_works() -> None:
    said = _refusal("random", "bimanual_clean", {}, world="flow_hwm:base")
    assert said.startswith("no trained checkpoint of flow_hwm:base for suite 'bimanual_clean'")
    line = said.split("`")[3]
    assert line.startswith("wamsim eval -p random -s bimanual_clean --imagine-with flow_hwm:base")
    given = _set(line, "--imagine-set")
    assert given.pop("checkpoint") == "untrained"
    assert given == {"camera": "head", "action": "ALOHA_JOINTS_GRIPPER_OPEN_FRACTION"}


def test_a_checkpoint_of_another_suite_is_named(tmp_path: Path) -> None:
    made: Any = registry.make_policy(registry.choose_policy("fastwam"))
    made.model.save_pretrained(tmp_path)
    said = _refusal("fastwam", "kitchen", {"checkpoint": str(tmp_path)})
    assert said.startswith(
        f"checkpoint '{tmp_path}' of fastwam:fastwam was not trained for suite 'kitchen' (unknown "
        f"camera"
    )
    assert f"checkpoint={tmp_path}" not in said  # the line asks for untrained weights


def test_who_chose_cameras_hears_what_is_wrong_with_them() -> None:
    said = _refusal("fastwam", "kitchen", {"cameras": "agentview_lef", "checkpoint": "untrained"})
    assert said.startswith(
        "unknown camera (policy 'fastwam:fastwam' on suite 'kitchen') 'agentview_lef'. Did you "
        "mean 'agentview_left'"
    )
    made = registry.make_policy(registry.choose_policy("fastwam"))
    config = EvalConfig(policy=registry.choose_policy("fastwam"), suites=("kitchen",))
    with pytest.raises((UnknownName, ConventionMismatch), match="unknown camera"):
        evaluate(config, out=Path("unused"), resources=NOWHERE, policy=made)
