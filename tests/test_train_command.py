"""`wamsim train` from the command line, on a run of the oracle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from learning_doubles import oracle_run
from typer.testing import CliRunner

from envs.evaluation import Resources, closed_loop
from wamsim import registry
from wamsim.errors import WamsimError
from wamsim_cli import app

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, scene_cache_dir: Path) -> Path:
    out = tmp_path_factory.mktemp("train") / "run"
    return oracle_run(out, scene_cache_dir, episodes=2)


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["train", *map(str, arguments)])
    return done.exit_code, f"{done.output}{done.exception}"


def test_train_draws_learns_and_resumes(
    recorded: Path, scene_cache_dir: Path, tmp_path: Path
) -> None:
    common = (
        "-p", "smolvla_world:base", "--data", recorded, "--out", tmp_path / "out", "--cache",
        scene_cache_dir, "--batch", 2, "--warmup", 1, "--validate-every", 0, "-w", 1, "--half",
    )  # fmt: skip
    code, text = run(*common, "--steps", 2)
    assert code == 0, text
    assert "2 episodes of 1 task(s)" in text
    checkpoint = tmp_path / "out" / "checkpoint"
    about = json.loads((checkpoint / "training.json").read_text())
    assert about["first_trial"] == 100
    assert about["decides"]["config"]["steps"] == 2
    choice = registry.choose_policy("smolvla_world:base", {"checkpoint": str(checkpoint)})
    registry.make_policy(choice)
    code, text = run(*common, "--steps", 2)  # done already: nothing is trained again
    assert code == 0, text
    code, text = run(*common, "--steps", 3)
    assert code != 0
    assert "another --out" in text


def test_a_backbone_is_trained_with_looks_and_taken(
    recorded: Path, scene_cache_dir: Path, tmp_path: Path
) -> None:
    common = (
        "-p", "smolvla_world:base", "--data", recorded, "--cache", scene_cache_dir, "--batch", 2,
        "--validate-every", 0, "-w", 1, "--steps", 1,
    )  # fmt: skip
    code, text = run(*common, "--part", "backbone", "--looks", 4, "--out", tmp_path / "backbone")
    assert code == 0, text
    backbone = tmp_path / "backbone" / "checkpoint"
    about = json.loads((backbone / "training.json").read_text())
    assert about["decides"]["looks"]["count"] == 4
    assert about["quality"]["look_place"] > 0
    code, text = run(*common, "--backbone", backbone, "--out", tmp_path / "all")
    assert code == 0, text


def test_bad_input_gets_a_sentence(recorded: Path, scene_cache_dir: Path, tmp_path: Path) -> None:
    rest = ("--out", tmp_path / "out", "--cache", scene_cache_dir)
    code, text = run("-p", "fastwan", "-d", recorded, *rest)
    assert code != 0
    assert "fastwam" in text
    code, text = run("-p", "fastwam", "-d", tmp_path / "nowhere", *rest)
    assert code != 0
    assert "nowhere" in text
    code, text = run("-p", "hold", "-d", recorded, *rest)
    assert code != 0
    assert "'hold' has nothing to learn" in text
    code, text = run("-p", "fastwam", "--part", "tokenizer", "-d", recorded, "--looks", 9, *rest)
    assert code != 0
    assert "a tokenizer does not look" in text
    for asked in (("--part", "backbone"), ("--backbone", tmp_path)):  # before anything is read
        code, text = run("-p", "flow_hwm", *asked, "-d", tmp_path / "nothing", *rest)
        assert code != 0
        assert "unknown part of flow_hwm:base 'backbone'" in text
    code, text = run("-p", "fastwam", "--part", "backbone", "--looks", 9, "-d", tmp_path, *rest)
    assert code != 0
    assert "looks are drawn of the scenes of a run folder" in text
    code, text = run("-p", "fastwam", "-d", recorded, "--batch", 3, "--accumulate", 2, *rest)
    assert code != 0
    assert "equal parts" in text


def test_a_world_model_cannot_be_run_by_itself(tmp_path: Path) -> None:
    choice, model = registry.make_learner("flow_hwm")
    with pytest.raises(WamsimError, match="--imagine-with flow_hwm:base"):
        closed_loop(
            model, choice, ("tabletop_object",), out=tmp_path, episodes=1, resources=Resources()
        )  # fmt: skip
