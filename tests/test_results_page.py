"""The results page says what its runs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_leaderboard import make_run
from typer.testing import CliRunner

from wamsim.results_page import PAGE, SUMMARIES, write_results


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    tasks = {"goal/push": ("++++", "++--"), "goal/pull": ("+++-", "+---")}
    names = ("fastwam:joint", "fastwam:idm", "cosmos:direct")
    return [
        make_run(
            tmp_path / name.replace(":", "."),
            {task: letters[min(i, 1)] for task, letters in tasks.items()},
            planned=4,
            policy=name,
        )
        for i, name in enumerate(names)
    ]


def test_rates_pairs_and_protocol(runs: list[Path], tmp_path: Path) -> None:
    page = write_results(runs, tmp_path / "out", reproduce=["make reference"])
    assert page == tmp_path / "out" / PAGE
    text = page.read_text()
    lines = text.splitlines()
    ranked = [line.split("|")[2].strip() for line in lines if line.startswith(("| 1 |", "| 2 |"))]
    assert ranked[0] == "fastwam:joint"
    assert "| 4/4 | 100.0 |" in text
    # one pair within fastwam, on eight shared episodes: 7 against 3
    assert text.count("**A = ") == 1
    pair = lines[lines.index("**A = fastwam:joint, B = fastwam:idm**") + 4]
    assert [cell.strip() for cell in pair.split("|")[2:6]] == ["8", "87.5", "37.5", "+50.0"]
    assert "seed 0, 8 episodes, trials 0-3 of every task" in text
    assert "make reference" in text
    assert "## Imagination" not in text  # there was none
    assert "## Training" not in text


def test_runs_of_other_suites_are_ranked_by_themselves(runs: list[Path], tmp_path: Path) -> None:
    tasks = {"spatial/lift": "+-", "spatial/turn": "++"}
    alone = make_run(tmp_path / "other", tasks, planned=2, policy="cosmos:direct")
    lines = write_results([alone, *runs], tmp_path / "out").read_text().splitlines()
    first, second = (i for i, line in enumerate(lines) if line == "**Leaderboard**")
    assert "goal" in lines[first + 2]  # where most runs are
    assert "spatial" not in lines[first + 2]
    assert "spatial" in lines[second + 2]
    ranks = [line.split("|")[1].strip() for line in lines[first + 4 : first + 7]]
    assert ranks == ["1", "2", "2"]
    assert lines[second + 4].startswith("| 1 | cosmos:direct |")


def test_summaries_count_every_episode(runs: list[Path], tmp_path: Path) -> None:
    write_results(runs[:1], tmp_path / "out")
    (path,) = (tmp_path / "out" / SUMMARIES).iterdir()
    document = json.loads(path.read_text())
    assert document["policy"] == "fastwam:joint"
    (suite,) = document["suites"].values()
    assert suite["pull"] == {"successes": 3, "scored": 4, "errors": 0}
    assert sum(e["success"] for e in document["episodes"]) == 7


def test_command(runs: list[Path], tmp_path: Path) -> None:
    from wamsim_cli import app

    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    config = {"steps": 5, "batch": 2, "lr": 1e-3, "seed": 0}
    decides = {
        "policy": {"family": "fastwam", "variant": "joint"}, "part": "all", "config": config
    }  # fmt: skip
    document = {"decides": decides, "episodes": 3, "samples": 40, "quality": {}}
    (checkpoint / "training.json").write_text(json.dumps(document))
    out = tmp_path / "out"
    arguments = ["results", *map(str, runs), "--out", str(out), "--training", str(checkpoint)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "| fastwam:joint | all | 5 | 2 | 0.001 | 0 | 3 | 40 | - |" in (out / PAGE).read_text()
    (checkpoint / "training.json").write_text("{}")
    failed = CliRunner().invoke(app, arguments)
    assert "training.json" in str(failed.exception)
