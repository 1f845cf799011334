"""The results page says what its runs say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from imagination_doubles import shuffled, write_run
from test_leaderboard import make_run
from typer.testing import CliRunner

from wamsim.errors import ConfigurationMismatch, RecordCorrupt
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
    # one pair within fastwam, on eight shared episodes: 3 against 7; runs come by name
    assert text.count("**A = ") == 1
    pair = lines[lines.index("**A = fastwam:idm, B = fastwam:joint**") + 4]
    assert [cell.strip() for cell in pair.split("|")[2:6]] == ["8", "37.5", "87.5", "-50.0"]
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
    assert suite["tasks"]["pull"] == {"successes": 3, "scored": 4, "errors": 0}
    assert sum(e["success"] for e in document["episodes"]) == 7


def test_summaries_stand_for_runs(tmp_path: Path) -> None:
    """The same page comes out: errors, missing episodes, imagination, values and all."""
    folder = tmp_path / "runs"
    make_run(folder / "broken", {"goal/push": "+-e+"}, planned=6, policy="fastwam:idm")
    make_run(folder / "whole", {"goal/push": "++-+--"}, planned=6, policy="fastwam:joint")
    make_run(folder / "unplanned", {"goal/lift": "+-"}, policy="cosmos:direct")
    make_run(folder / "expert", {"goal/push": "++++++"}, policy="oracle", privileged=True)

    def values(i: int, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"value": np.full(len(block["imagined_steps"]), 0.1 * i, np.float32)}

    write_run(folder / "dreams", shuffled, outcomes="++-+-", episodes=5, extra=values)
    first = write_results([folder], tmp_path / "first")
    again = write_results([tmp_path / "first" / SUMMARIES], tmp_path / "again")
    assert "2 episodes missing" in first.read_text()
    assert "Imagined latents, run dreams" in first.read_text()
    assert "value, first query" in first.read_text()
    assert again.read_text() == first.read_text()
    for path in (tmp_path / "first" / SUMMARIES).iterdir():
        assert (tmp_path / "again" / SUMMARIES / path.name).read_text() == path.read_text()


def test_a_run_replaces_the_summary_of_its_name(runs: list[Path], tmp_path: Path) -> None:
    write_results(runs, tmp_path / "out")
    shutil.rmtree(runs[0])
    make_run(runs[0], {"goal/push": "----"}, planned=4, policy="fastwam:joint")
    page = write_results([tmp_path / "out" / SUMMARIES, runs[0]], tmp_path / "out")
    lines = [line for line in page.read_text().splitlines() if "| fastwam.joint |" in line]
    assert lines[0].startswith("| - | fastwam:joint | fastwam.joint | 0.0 [0.0, 49.0] | 4 |")


def test_two_runs_of_one_name_are_refused(runs: list[Path], tmp_path: Path) -> None:
    twin = make_run(tmp_path / "twin" / runs[0].name, {"goal/push": "+"}, policy="fastwam:joint")
    with pytest.raises(ConfigurationMismatch, match=r"two runs are named 'fastwam\.joint'"):
        write_results([*runs, twin], tmp_path / "out")


def test_a_summary_that_cannot_be_right_is_refused(runs: list[Path], tmp_path: Path) -> None:
    write_results(runs[:1], tmp_path / "out")
    (path,) = (tmp_path / "out" / SUMMARIES).iterdir()
    whole = json.loads(path.read_text())

    def spoilt(**changes: object) -> None:
        path.write_text(json.dumps(whole | changes))
        write_results([path], tmp_path / "again")

    spoilt()
    with pytest.raises(RecordCorrupt, match=r"push says .*'successes': 4.* and its episodes"):
        spoilt(episodes=whole["episodes"][:-1])
    with pytest.raises(RecordCorrupt, match="version 3, expected 2"):
        spoilt(version=3)
    path.write_text("[]")
    with pytest.raises(RecordCorrupt, match="no summary of a run"):
        write_results([path], tmp_path / "again")
    with pytest.raises(RecordCorrupt, match="no run folder"):
        write_results([tmp_path / "nothing"], tmp_path / "again")


def test_a_run_among_published_ones(runs: list[Path], tmp_path: Path) -> None:
    """Who has the summaries alone can rank a run among them, and compare it in pairs."""
    from wamsim_cli import app

    write_results(runs[:2], tmp_path / "out")
    published = tmp_path / "out" / SUMMARIES
    whole = CliRunner().invoke(app, ["leaderboard", *map(str, runs), "-f", "csv"])
    mixed = CliRunner().invoke(app, ["leaderboard", str(published), str(runs[2]), "-f", "csv"])
    assert whole.exit_code == mixed.exit_code == 0, mixed.output
    assert mixed.output == whole.output
    pair = [str(runs[0]), str(runs[2])]
    plain = CliRunner().invoke(app, ["compare", *pair, "-f", "csv"])
    pair[0] = str(published / f"{runs[0].name}.json")
    read = CliRunner().invoke(app, ["compare", *pair, "-f", "csv"])
    assert plain.exit_code == read.exit_code == 0, read.output
    assert read.output == plain.output


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
