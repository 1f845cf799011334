"""Runs become tables: every rendering from the same rows, nothing shown that is not known."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import rich.console
from episode_doubles import PROVENANCE, folder_record

from wamsim.contracts import EpisodeKey, Outcome
from wamsim.episode import Episode
from wamsim.errors import ConfigurationMismatch, RecordCorrupt, UnknownName
from wamsim.leaderboard import (
    RunSummary,
    compare,
    comparison_table,
    leaderboard_table,
    load_run,
    load_runs,
    paired_table,
    success_table,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
)
from wamsim.run_folder import RunFolder
from wamsim.run_summary import of_suites
from wamsim.stats import Interval, paired, wilson
from wamsim.tables import Column, Kind, Row, Score, Share, Table

OUTCOMES = {"+": Outcome.SUCCESS, "-": Outcome.FAILURE, "e": Outcome.ERROR}


def make_run(path: Path, results: dict[str, str], planned: int = 0, **changes: object) -> Path:
    """Write a run. ``results``: "suite/task" -> one letter an episode (+ - e)."""
    seed = changes.get("run_seed", 0)
    config = {"policy": changes.get("policy", "net"), "seed": seed}
    split = {name: name.split("/") for name in results}
    plan = [EpisodeKey(*split[name], i) for name in results for i in range(planned)]
    with RunFolder.open(path, config, PROVENANCE, plan) as folder:
        for name, letters in results.items():
            for i, letter in enumerate(letters):
                fields = {"policy": "net", "run_seed": 0, "timings": {}, **changes}
                if OUTCOMES[letter] is Outcome.FAILURE:
                    fields["success_step"] = None
                key = EpisodeKey(*split[name], i)
                record = folder_record(folder, key, outcome=OUTCOMES[letter], **fields)
                folder.write(Episode(record, {}))
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunSummary:
    return load_run(make_run(tmp_path / "first", {"goal/push": "++++++++--", "goal/pull": "+-e"}))


def shown(table: Table, width: int = 200) -> str:
    console = rich.console.Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def rows(table: Table) -> list[dict[str, str]]:
    return [
        dict(zip([c.title for c in table.columns], table.texts(r), strict=True)) for r in table.rows
    ]


# ----------------------------------------------------------------------------- summary


def test_a_run_is_counted(run: RunSummary) -> None:
    assert (run.policy, run.run_seed, run.privileged) == ("net", 0, False)
    goal = run.suites["goal"]
    assert goal.id == "goal-v1"
    assert goal.tasks["push"].rate == 0.8
    assert (goal.tasks["pull"].scored, goal.tasks["pull"].errors) == (2, 1)
    assert (goal.total.successes, goal.total.scored, goal.total.errors) == (9, 12, 1)
    assert goal.macro.rate == 0.65  # (0.8 + 0.5) / 2
    assert (run.errors, run.missing) == (1, 0)
    assert (run.episodes_per_hour, run.latency_s) == (None, None)
    assert run.scores[EpisodeKey("goal", "pull", 2)] is None
    assert list(run.info.provenances.values()) == [PROVENANCE]


def test_throughput_leaves_pauses_out(tmp_path: Path) -> None:
    # Two at once for 10 s, a pause of an hour, then one for 5 s: 3 episodes in 15 s.
    spans = [(100.0, 10.0), (102.0, 8.0), (3700.0, 5.0)]
    with RunFolder.open(tmp_path, {}, {}) as folder:
        for i, (start, wall) in enumerate(spans):
            timings = {"started_unix_s": start, "wall_s": wall, "latency_s": [0.1, 0.9, 0.2][i]}
            record = folder_record(folder, EpisodeKey("s", "t", i), timings=timings)
            folder.write(Episode(record, {}))
    summary = load_run(tmp_path)
    assert summary.episodes_per_hour == pytest.approx(3 * 3600 / 15)
    assert summary.latency_s == 0.2


def test_a_folder_of_runs_stands_for_its_runs(tmp_path: Path) -> None:
    for name in ("b", "a"):
        make_run(tmp_path / name, {"s/t": "+"})
    (tmp_path / "notes").mkdir()
    assert [r.path.name for r in load_runs([tmp_path, tmp_path / "a"])] == ["a", "b"]
    with pytest.raises(RecordCorrupt, match="no run folder"):
        load_runs([tmp_path / "notes"])


def test_mixed_records_are_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path, {"s/t": "+"})
    with RunFolder.open(path, {"policy": "net", "seed": 0}, PROVENANCE) as folder:
        record = folder_record(folder, EpisodeKey("s", "t", 1), policy="other", run_seed=0)
        folder.write(Episode(record, {}))
    with pytest.raises(RecordCorrupt, match=r"2 different values of policy: \['net', 'other'\]"):
        load_run(path)


# ----------------------------------------------------------------------- success table


def test_the_success_table_by_hand(run: RunSummary) -> None:
    lines = [list(r.values()) for r in rows(success_table(run))]
    # Mean of tasks: 2^2 / (1/10 + 1/2) = 6.667 effective episodes, centre 0.59517, half 0.29355.
    assert lines == [
        ["goal-v1", "pull", "1/2", "50.0", "[9.5, 90.5]", "1", "-", "-"],
        ["goal-v1", "push", "8/10", "80.0", "[49.0, 94.3]", "0", "-", "-"],
        ["goal-v1", "all episodes", "9/12", "75.0", "[46.8, 91.1]", "1", "-", "-"],
        ["goal-v1", "mean of tasks", "-", "65.0", "[30.2, 88.9]", "-", "-", "-"],
    ]


def test_no_data_is_a_dash_never_a_zero(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", {"goal/push": "++", "goal/pull": "ee", "goal/lift": ""}, 2)
    table = success_table(load_run(path))
    by_task = {r["task"]: r for r in rows(table)}
    pull, lift, mean = by_task["pull"], by_task["lift"], by_task["mean of tasks"]
    empty = ("successes", "success %", "95% interval")
    assert [pull[c] for c in empty] == ["-", "-", "-"]
    assert (pull["errors"], pull["missing"]) == ("2", "0")
    assert [lift[c] for c in (*empty, "errors")] == ["-", "-", "-", "-"]
    assert lift["missing"] == "2"
    assert mean["success %"] == "-"
    assert mean["why not"] == "no scored episode of lift, pull"
    assert "2 errors, must be re-run; 2 episodes missing: resume the run" in table.notes[1]
    flat = {r["task"]: r for r in table.flat()}
    assert flat["pull"]["rate"] is None
    assert flat["pull"]["interval_low"] is None
    assert flat["pull"]["successes"] is None


def test_an_empty_run_has_dashes(tmp_path: Path) -> None:
    planned = load_run(make_run(tmp_path / "planned", {"goal/push": ""}, planned=3))
    assert [r["success %"] for r in rows(success_table(planned))] == ["-", "-", "-"]
    bare = load_run(make_run(tmp_path / "bare", {}))
    assert success_table(bare).rows == ()
    board = rows(leaderboard_table([planned, bare]))
    assert [r["scored"] for r in board] == ["-", "-"]
    assert [r["errors"] for r in board] == ["-", "-"]
    assert board[0]["notes"] == "3 episodes missing"
    assert board[1]["notes"] == "no episodes"


def test_stand_in_visuals_and_privilege_are_named_beside_every_number(tmp_path: Path) -> None:
    path = make_run(tmp_path / "x", {"goal/push": "++"}, stand_in_visuals=True, privileged=True)
    summary = load_run(path)
    table = success_table(summary)
    assert {r["notes"] for r in rows(table)} == {"stand-in visuals"}
    assert table.title == "net (privileged), run x, seed 0"
    assert all(r["privileged"] is True and r["notes"] for r in table.flat())
    board = leaderboard_table([summary])
    assert rows(board)[0]["policy"] == "net (privileged)"
    assert "stand-in visuals: goal-v1" in rows(board)[0]["notes"]
    for text in (shown(table), to_markdown(table), to_csv(table), to_json(table), to_latex(table)):
        assert "stand-in visuals" in text
        assert "privileged" in text


# ------------------------------------------------------------------------- leaderboard


@pytest.fixture
def board(tmp_path: Path) -> list[RunSummary]:
    both = {"goal/push": "++--", "long/stack": "++++"}
    make_run(tmp_path / "middling", both, policy="middling")
    make_run(tmp_path / "best", {"goal/push": "+++-", "long/stack": "++++"}, policy="best")
    make_run(tmp_path / "tied", {"goal/push": "++++", "long/stack": "--++"}, policy="tied")
    make_run(tmp_path / "crashed", {"goal/push": "++++", "long/stack": "+++e"}, policy="crashed")
    make_run(tmp_path / "half", {"goal/push": "++++", "long/stack": "++"}, 4, policy="half")
    make_run(tmp_path / "one", {"goal/push": "++++"}, policy="one")
    make_run(tmp_path / "expert", {**both, "goal/push": "++++"}, policy="expert", privileged=True)
    return load_runs([tmp_path])


def test_only_complete_comparable_runs_are_ranked(board: list[RunSummary]) -> None:
    table = leaderboard_table(board)
    lines = [(r["rank"], r["policy"], r["mean of suites"]) for r in rows(table)]
    # Eight episodes, equally many a task: the mean's interval is Wilson's over all of them.
    assert lines[:3] == [
        ("1", "best", "87.5 [52.9, 97.8]"),
        ("2", "middling", "75.0 [40.9, 92.9]"),
        ("2", "tied", "75.0 [40.9, 92.9]"),
    ]
    assert {r["policy"]: (r["rank"], r["notes"]) for r in rows(table)[3:]} == {
        "crashed": ("-", "1 error, must be re-run"),
        "half": ("-", "2 episodes missing"),
        "one": ("-", "no long-v1"),
        "expert (privileged)": ("-", "privileged: sees the simulator's state"),
    }
    assert any("those episodes must be re-run" in note for note in table.notes)
    one = next(r for r in rows(table) if r["policy"] == "one")
    assert (one["long-v1"], one["mean of suites"]) == ("-", "-")


def test_a_few_trials_are_not_ranked_beside_many(tmp_path: Path) -> None:
    """Easy ones may be among them; and a run that is not finished yet counts for nobody."""
    make_run(tmp_path / "many", {"goal/push": "+-+-"}, policy="many")
    make_run(tmp_path / "few", {"goal/push": "++"}, policy="few")
    make_run(tmp_path / "begun", {"goal/push": "+"}, 9, policy="begun")
    found = {
        r["policy"]: (r["rank"], r["notes"]) for r in rows(leaderboard_table(load_runs([tmp_path])))
    }
    assert found == {
        "many": ("1", "-"),
        "few": ("-", "2 episodes of goal-v1, where others have 4"),
        "begun": ("-", "8 episodes missing"),
    }


def test_the_note_on_errors_appears_only_with_errors(board: list[RunSummary]) -> None:
    sound = [r for r in board if not r.errors]
    assert len(leaderboard_table(sound).notes) == 1


def test_suite_versions_are_different_columns(tmp_path: Path) -> None:
    make_run(tmp_path / "a", {"goal/push": "+"})
    make_run(tmp_path / "b", {"goal/push": "+"}, suite_version=2)
    table = leaderboard_table(load_runs([tmp_path]))
    assert {"goal-v1", "goal-v2"} <= {c.title for c in table.columns}
    assert [r.kind for r in table.rows] == ["unranked", "unranked"]


def test_a_suite_that_nobody_began_does_not_unrank_the_others(tmp_path: Path) -> None:
    make_run(tmp_path / "a", {"goal/push": "+-"}, policy="a")
    make_run(tmp_path / "b", {"goal/push": "+-", "long/stack": ""}, 2, policy="b")
    lines = rows(leaderboard_table(load_runs([tmp_path])))
    assert [(r["rank"], r["policy"]) for r in lines] == [("1", "a"), ("-", "b")]


# -------------------------------------------------------------------------- comparison


def test_two_runs_are_compared_on_their_pairs(tmp_path: Path) -> None:
    a = load_run(make_run(tmp_path / "a", {"goal/push": "+++e--", "long/x": "+"}, policy="a"))
    b = load_run(make_run(tmp_path / "b", {"goal/push": "+--++-", "long/x": "+"}, policy="b"))
    comparisons = compare(a, b)
    assert list(comparisons) == ["goal-v1", "long-v1", "all"]
    assert comparisons["all"].n == 6
    table = comparison_table(a, b)
    line = rows(table)[0]
    interval = comparisons["goal-v1"].interval
    assert line == {
        "suite": "goal-v1",
        "pairs": "5",
        "A %": "60.0",
        "B %": "40.0",
        "A - B": "+20.0",
        "95% interval": f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]",
        "p": "1.000",
        "both": "1",
        "only A": "2",
        "only B": "1",
        "neither": "1",
        "left out": "1 error in A",
    }
    assert table.flat()[2]["left_out"] == "1 error in A"
    assert table.title == "A = a, run a, B = b, run b"


def test_an_empty_comparison_has_dashes() -> None:
    table = paired_table({"goal-v1": paired({}, {})})
    assert [v for k, v in rows(table)[0].items() if k not in ("suite", "pairs")] == ["-"] * 10


def test_pairs_must_be_the_same_episodes(tmp_path: Path) -> None:
    a = load_run(make_run(tmp_path / "a", {"goal/push": "+"}))
    seed = load_run(make_run(tmp_path / "seed", {"goal/push": "+"}, run_seed=1))
    version = load_run(make_run(tmp_path / "version", {"goal/push": "+"}, suite_version=2))
    other = load_run(make_run(tmp_path / "other", {"long/x": "+"}))
    with pytest.raises(ConfigurationMismatch, match="seed is 0 in a, 1 in seed"):
        compare(a, seed)
    with pytest.raises(ConfigurationMismatch, match="version of goal is 1 in a, 2 in version"):
        compare(a, version)
    with pytest.raises(ConfigurationMismatch, match="share no suite"):
        compare(a, other)


# --------------------------------------------------------------------------- renderings


@pytest.fixture
def odd() -> Table:
    """Each kind of cell with and without data, and text that each format must escape."""
    columns = tuple(Column(kind.value, kind.value, kind) for kind in Kind)
    values = {
        "text": r"a_b | 50% & [bold] \x",
        "count": 3,
        "rate": 0.8125,
        "points": -0.05,
        "interval": wilson(8, 10),
        "score": Score(1.0, None),
        "share": Share(8, 10),
        "seconds": 0.19,
        "number": 1234.4,
        "p": 0.0004,
    }
    empty = Row("total", {"text": "empty"}, strong=True, rule=True)
    return Table(title="T_1", columns=columns, rows=(Row("x", values), empty), notes=("50% of A.",))


def test_texts_of_every_kind(odd: Table) -> None:
    assert odd.texts(odd.rows[0])[1:] == [
        "3", "81.2", "-5.0", "[49.0, 94.3]", "100.0", "8/10", "0.190", "1234", "<0.001",
    ]  # fmt: skip
    assert odd.texts(odd.rows[1]) == ["empty"] + ["-"] * 9


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    points, interval = Column("d", "d", Kind.POINTS), Column("i", "i", Kind.INTERVAL)
    assert points.show(-0.0002) == "+0.0"
    assert interval.show(Interval(-0.25, -0.0)) == "[-25.0, 0.0]"


def test_rich_shows_brackets_as_they_are(odd: Table) -> None:
    text = shown(odd)
    assert r"a_b | 50% & [bold] \x" in text
    assert "[49.0, 94.3]" in text
    assert "50% of A." in text
    assert "T_1" in text


def test_markdown(odd: Table) -> None:
    lines = to_markdown(odd).splitlines()
    assert lines[0] == "**T_1**"
    assert lines[3].startswith("|:--|--:|")
    assert lines[4].startswith(r"| a_b \| 50% & [bold] \x | 3 | 81.2 |")
    assert lines[5].startswith("| **empty** | - | - |")
    assert lines[-1] == "50% of A."


def test_csv_has_full_precision_and_empty_fields(odd: Table) -> None:
    first, second = csv.DictReader(io.StringIO(to_csv(odd)))
    assert float(first["interval_low"]) == wilson(8, 10).low
    assert (first["share"], first["share_of"]) == ("8", "10")
    assert (first["score"], first["score_low"]) == ("1.0", "")
    assert first["text"] == r"a_b | 50% & [bold] \x"
    assert {v for k, v in second.items() if k not in ("row", "text")} == {""}
    assert to_csv(Table(title="", columns=odd.columns, rows=())) == ""


def test_json_has_numbers_and_null(odd: Table) -> None:
    document = json.loads(to_json(odd))
    assert document["rows"][0]["p"] == 0.0004
    assert document["rows"][0]["interval_high"] == wilson(8, 10).high
    assert {v for k, v in document["rows"][1].items() if k not in ("row", "text")} == {None}
    assert document["notes"] == ["50% of A."]


def test_latex_escapes_and_rules(odd: Table) -> None:
    lines = to_latex(odd).splitlines()
    assert lines[1] == r"\caption{T\_1. 50\% of A.}"
    assert lines[2] == r"\begin{tabular}{l" + "r" * 9 + "}"
    assert lines[6].startswith(
        r"a\_b | 50\% \& [bold] \textbackslash{}x & 3 & 81.2 & -5.0 & {[49.0"
    )
    assert lines[6].endswith(r"& \textless{}0.001 \\")
    assert lines[7] == r"\midrule"
    assert lines[8].startswith(r"\textbf{empty} & \textbf{--}")


def test_every_rendering_shows_the_same_numbers(run: RunSummary) -> None:
    table = success_table(run)
    texts = [t for row in table.rows for t in table.texts(row)]
    for rendered in (shown(table), to_markdown(table), to_latex(table)):
        for text in texts:
            assert text in rendered
    assert [r["rate"] for r in json.loads(to_json(table))["rows"]] == [0.5, 0.8, 0.75, 0.65]


def test_some_suites_of_runs(tmp_path: Path) -> None:
    both = load_run(make_run(tmp_path / "both", {"goal/push": "+-", "long/lift": "++"}, planned=3))
    other = load_run(make_run(tmp_path / "other", {"long/lift": "+-"}))
    (kept,) = of_suites([both, other], ["goal"])
    assert list(kept.suites) == ["goal"]
    assert {key.suite for key in (*kept.scores, *kept.info.planned)} == {"goal"}
    assert (both.missing, kept.missing) == (2, 1)
    assert len(of_suites([both, other], ["long", "goal"])) == 2
    with pytest.raises(UnknownName, match=r"'gaol'\. Did you mean 'goal'"):
        of_suites([both, other], ["gaol"])
