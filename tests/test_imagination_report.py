"""What a run foresaw, as people and pages see it."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import rich.console
from imagination_doubles import frozen, perfect, shuffled, write_run
from test_cli import Done, wamsim  # noqa: F401  # the fixture

from wamsim.imagination.document import to_dict
from wamsim.imagination.episodes import read_imagination
from wamsim.imagination.report import flat_table, imagination_tables
from wamsim.imagination.summary import BY, ImaginationSummary, summarise_run
from wamsim.intervals import Interval
from wamsim.leaderboard import leaderboard_table
from wamsim.run_summary import load_run, load_runs
from wamsim.tables import Column, Kind, Score, Table, to_csv, to_markdown


def foreseen(path: Path) -> ImaginationSummary:
    return summarise_run(read_imagination(path), BY)


def shown(tables: list[Table], width: int = 100) -> str:
    console = rich.console.Console(width=width, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.file.getvalue()


def pictures(i: int, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    compared = block["imagined_executed"]
    values = {"imagined_mse": 65.025, "imagined_ssim": 0.5, "ceiling_mse": 6.5025}
    out = {k: np.where(compared, v, np.nan).astype(np.float32) for k, v in values.items()}
    return {**out, "ceiling_ssim": np.where(compared, 0.9, np.nan).astype(np.float32)}


def everything(path: Path, **changes) -> Path:
    """A shuffled imaginer with pictures, values and other actions; 6 successes, 4 failures."""

    def extra(i: int, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        value = np.full(len(block["imagined_steps"]), 0.1 * i, np.float32)
        return {**pictures(i, block), "value": value, "other_latents": block["imagined_latents"]}

    options = {"episodes": 10, "outcomes": "++++++----", "extra": extra, **changes}
    return write_run(path, shuffled, **options)


def test_a_run_without_imagination_shows_no_table(tmp_path) -> None:
    run = foreseen(write_run(tmp_path, episodes=2, described=False))
    assert [t.title for t in imagination_tables(run)] == []


def test_a_table_for_each_thing_that_is_known(tmp_path) -> None:
    run = foreseen(everything(tmp_path / "r"))
    assert [t.title.rpartition(" run ")[0] for t in imagination_tables(run)] == [
        "Imagined latents,", "Imagined pictures,", "Imagination under other actions,",
        "Does it know?",
    ]  # fmt: skip
    plain = foreseen(write_run(tmp_path / "plain", perfect))
    assert len(imagination_tables(plain)) == 1


def test_the_latent_table_by_hand(tmp_path) -> None:
    path = write_run(tmp_path, perfect, episodes=3, latents=lambda rng: np.eye(11), horizons=(4, 8))
    table = imagination_tables(foreseen(path))[0]
    # queries at 0, 4, 8, each latent a direction of its own; the last chunk ends at step 10
    assert [table.texts(row)[2:] for row in table.rows] == [
        ["4", "6/9", "1.00", "1.00", "1.00", "0.50", "0.25", "0.00"],
        ["8", "0/9", "-", "-", "-", "-", "-", "-"],
        ["all", "6/18", "1.00", "1.00", "1.00", "0.50", "0.25", "0.00"],
    ]  # nothing moves: at 0 both candidates are as far (1/2), at 4 the other one is nearer
    said = "(net): 9 past the 4 executed actions, 3 after the episode's end."
    assert table.notes[-1].endswith(said)


def test_pictures_stand_beside_their_ceiling(tmp_path) -> None:
    table = imagination_tables(foreseen(everything(tmp_path)))[1]
    # 10 log10(65025 / 65.025) = 30 and 40 dB
    assert table.texts(table.rows[0])[3:] == ["30.0", "40.0", "0.50", "0.90"]


def test_a_model_deaf_to_actions_sits_at_one_half(tmp_path) -> None:
    table = imagination_tables(foreseen(everything(tmp_path)))[2]
    assert table.texts(table.rows[0])[3:] == ["0.00", "0.50"]


def test_what_it_knows(tmp_path) -> None:
    table = imagination_tables(foreseen(everything(tmp_path)))[3]
    rows = {row.cells["source"]: row.cells for row in table.rows}
    assert list(rows) == [
        "error, 2 steps ahead", "error, 4 steps ahead", "error, all horizons",
        "value, mean of queries", "value, first query",
    ]  # fmt: skip
    value = rows["value, mean of queries"]
    assert value["auroc"].rate == 0  # values grow with the trial, and the last ones fail
    # successes 0 to 0.5: 1, .81, .64, .49, .36, .25; failures 0.6 to 0.9: .36, .49, .64, .81
    assert value["brier"] == pytest.approx(0.585)
    assert value["brier_base"] == pytest.approx(0.24)


def test_tables_fit_a_terminal_of_100_columns(tmp_path) -> None:
    run = foreseen(everything(tmp_path, horizons=(2, 4, 16)))
    for by in ("policy", "task"):
        text = shown(imagination_tables(run, by))
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
        assert "recall@1" in text
        assert all(len(row.split()) > 5 for row in text.splitlines() if row.startswith("  16 "))


def test_the_flat_table_has_everything_at_full_precision(tmp_path) -> None:
    text = to_csv(flat_table(foreseen(everything(tmp_path)), "task"))
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["horizon"] for line in lines] == ["2", "4", "all"]
    first = lines[0]
    assert first["group"] == "s/t"
    assert float(first["psnr"]) == pytest.approx(30)
    assert float(first["skill_low"]) < float(first["skill"]) < float(first["skill_high"])
    assert float(first["chance"]) == pytest.approx(0.1)
    assert first["not_compared"] == ""


def test_the_document_for_pages(tmp_path) -> None:
    document = to_dict(foreseen(everything(tmp_path)))
    json.dumps(document, allow_nan=False)
    (imaginer,) = document["imaginers"]
    assert (imaginer["imaginer"], imaginer["world_model"]) == ("net", False)
    assert {k: len(v) for k, v in imaginer["by"].items()} == {
        "policy": 1, "suite": 1, "task": 1, "episode": 10,
    }  # fmt: skip
    task = imaginer["by"]["task"][0]
    assert (task["suite"], task["task"], task["episodes"]) == ("s", "t", 10)
    assert task["horizons"][0]["metrics"]["skill"]["low"] is not None
    episode = imaginer["by"]["episode"][3]
    assert episode["index"] == "3"
    assert episode["horizons"][0]["metrics"]["skill"]["low"] is None
    assert len(document["value"]["bins"]) == 10
    assert document["value"]["auroc"]["value"] == 0


def test_identical_pictures_are_infinite_for_people_and_null_for_machines(tmp_path) -> None:
    def same(i: int, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        zero = np.where(block["imagined_executed"], 0, np.nan).astype(np.float32)
        return {"imagined_mse": zero, "imagined_ssim": zero + 1}

    run = foreseen(write_run(tmp_path, perfect, extra=same))
    table = imagination_tables(run)[1]
    assert table.texts(table.rows[0])[3:] == ["inf", "-", "1.00", "-"]
    metrics = to_dict(run)["imaginers"][0]["by"]["policy"][0]["horizons"][0]["metrics"]
    assert metrics["psnr"]["value"] is None
    assert metrics["mse"]["value"] == 0
    assert to_csv(flat_table(run)).count("inf") == 0


def test_numbers_show_three_digits() -> None:
    column = Column("x", "x", Kind.RATE, percent=False)
    assert [column.show(x) for x in (0.126, -0.001, 12.34, -123.4, 123456.0, None)] == [
        "0.13", "0.00", "12.3", "-123", "1.2e+05", "-",
    ]  # fmt: skip
    score = Column("x", "x", Kind.SCORE, percent=False)
    assert score.show(Score(0.5, None)) == "0.50"
    assert score.show(Score(-0.5, Interval(-12.0, 0.125))) == "-0.50 [-12.0, 0.12]"
    assert score.flat(Score(math.inf, None)) == {"x": None, "x_low": None, "x_high": None}


# -------------------------------------------------------------------------- leaderboard


def test_the_leaderboard_gains_a_skill_column(tmp_path) -> None:
    write_run(tmp_path / "a", shuffled, episodes=6)
    write_run(tmp_path / "b", frozen, described=False)
    runs = load_runs([tmp_path / "a", tmp_path / "b"], imagination=True)
    table = leaderboard_table(runs)
    skills = {row.cells["run"]: row.cells["skill"] for row in table.rows}
    assert skills["a"].rate < 0
    assert skills["b"] is None
    assert "own latent space" in table.notes[-1]
    assert "skill" in to_markdown(table)
    unasked = leaderboard_table([load_run(tmp_path / "a")])
    assert "skill" not in [c.key for c in unasked.columns]


def test_a_world_models_skill_is_not_the_policys(tmp_path) -> None:
    write_run(tmp_path / "a", frozen, prefix="world_")
    (row,) = leaderboard_table(load_runs([tmp_path / "a"], imagination=True)).rows
    assert row.cells["skill"] is None
    assert "world beside it: skill 0.00" in row.cells["notes"]


def test_unusable_imagination_leaves_success_rates_alone(tmp_path) -> None:
    with np.errstate(over="ignore"):
        write_run(tmp_path / "a", lambda real, still, rng: real * 1e6, outcomes="++++----")
    (row,) = leaderboard_table(load_runs([tmp_path / "a"], imagination=True)).rows
    assert row.cells["s-v1"].rate == 0.5
    assert "imagination not measured: imagined_latents hold" in row.cells["notes"]


# ------------------------------------------------------------------------ command line


def test_show_prints_imagination_below_success(wamsim, tmp_path) -> None:  # noqa: F811
    path = everything(tmp_path / "r")
    done: Done = wamsim("show", path)
    assert done.code == 0
    assert done.out.index("all episodes") < done.out.index("Imagined latents, run r")
    assert "Does it know?" in done.out
    assert "**Imagined latents, run r**" in wamsim("show", path, "-f", "markdown").out
    assert len(list(csv.DictReader(io.StringIO(wamsim("show", path, "-f", "csv").out)))) == 3
    assert set(json.loads(wamsim("show", path, "-f", "json").out)) == {"title", "rows", "notes"}


def test_show_says_why_imagination_is_not_measured(wamsim, tmp_path) -> None:  # noqa: F811
    with np.errstate(over="ignore"):
        path = write_run(tmp_path / "r", lambda real, still, rng: real * 1e6)
    done: Done = wamsim("show", path)
    assert (done.code, "all episodes" in done.out) == (0, True)
    assert "Imagination is not measured: imagined_latents hold" in done.err


def test_the_imagination_command(wamsim, tmp_path) -> None:  # noqa: F811
    path = everything(tmp_path / "r")
    assert "s/t" in wamsim("imagination", path, "--by", "task").out
    assert json.loads(wamsim("imagination", path, "-f", "json").out)["version"] == 1
    assert wamsim("imagination", path, "-f", "csv").out.startswith("row,run,imaginer,group")
    wrong: Done = wamsim("imagination", path, "--by", "tsk")
    assert (wrong.code, "Did you mean 'task'" in wrong.err) == (2, True)
    assert wamsim("imagination", tmp_path / "nowhere").code == 2
    nothing: Done = wamsim("imagination", write_run(tmp_path / "n", described=False))
    assert (nothing.code, "Nothing was imagined" in nothing.out) == (0, True)
    assert "skill" in wamsim("leaderboard", path).out
