"""What the viewer says of runs: counts by hand, damage and growth, and no word lost or made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from episode_doubles import PROVENANCE
from imagination_doubles import frozen, perfect
from imagination_doubles import write_run as write_imagining_run
from viewer_doubles import STEPS, GreyIllustrator, add, write_run

from wamsim.contracts import EpisodeKey
from wamsim.leaderboard import leaderboard_table
from wamsim.run_folder import RunFolder, episode_files
from wamsim.run_summary import load_runs
from wamsim.stats import wilson
from wamsim.tables import to_csv, to_json, to_latex, to_markdown
from wamsim.viewer.library import Library
from wamsim.viewer.shelf import NotThere, Shelf


def library(*roots: Path) -> Library:
    return Library(Shelf(roots), GreyIllustrator())


def read(lib: Library, name: str) -> dict:
    """Read a document once all that it asks for is measured."""
    lib.text(name)
    lib.shelf.measures.wait()
    return json.loads(lib.text(name).body)


# ------------------------------------------------------------------------------ runs


def test_counts_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"a": "++-e", "b": "+-"}, planned=5)
    document = read(library(tmp_path), "runs")
    (run,) = document["runs"]
    assert (run["id"], run["name"], run["policy"], run["state"]) == (
        "run", "run", "oracle", "incomplete",
    )  # fmt: skip
    low, high = wilson(3, 5)
    total = run["total"]
    assert (total["successes"], total["scored"], total["errors"]) == (3, 5, 1)
    assert (total["planned"], total["missing"], total["damaged"]) == (10, 4, 0)
    assert (total["rate"], total["low"], total["high"]) == (0.6, low, high)
    (suite,) = run["suites"]
    assert (suite["id"], suite["tasks"], suite["successes"]) == ("s-v1", 2, 3)
    assert run["latency_s"] == 0.5
    assert document["empty"] is None
    assert document["live"] is False


def test_a_run_lists_every_episode_and_every_task(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"a": "+-", "b": "e"}, value=True)
    document = read(library(tmp_path / "run"), "run/run")
    assert [(e["task"], e["trial"], e["outcome"]) for e in document["episodes"]] == [
        ("a", 0, "success"), ("a", 1, "failure"), ("b", 0, "error"),
    ]  # fmt: skip
    first, failed, crashed = document["episodes"]
    assert first["doc"] == "episode/run/s/a/0"
    assert (first["value"], first["value_last"]) == (0.5, 0.75)
    assert (first["error"], first["skill"]) == (None, None)  # nothing imagined: no data, not 0
    assert (failed["reason"], failed["success_step"]) == ("step limit", None)
    assert crashed["value"] is None  # errors are measured in nothing
    tasks = {t["task"]: (t["successes"], t["scored"], t["errors"]) for t in document["tasks"]}
    assert tasks == {"a": (1, 2, 0), "b": (0, 0, 1)}
    assert document["tasks"][1]["rate"] is None
    assert document["tasks"][0]["instruction"] == "push the plate"


def test_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    document = read(library(tmp_path / "results"), "runs")
    assert document["runs"] == []
    assert "wamsim eval --policy oracle" in document["empty"]


def test_runs_are_found_at_any_depth_but_not_inside_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "results" / "runs" / "one")
    write_run(tmp_path / "results" / "other" / "deep" / "two")
    write_run(tmp_path / "results" / "runs" / "one" / "copy")
    document = read(library(tmp_path / "results"), "runs")
    assert {run["id"] for run in document["runs"]} == {"one", "two"}


def test_ids_are_safe_in_addresses_and_tell_equal_names_apart(tmp_path: Path) -> None:
    for folder in ("a/run", "b/run", "c/a run/<b>"):
        write_run(tmp_path / folder)
    ids = [run["id"] for run in read(library(tmp_path), "runs")["runs"]]
    assert len(set(ids)) == 3
    assert all(set(one) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for one in ids)
    again = [run["id"] for run in read(library(tmp_path), "runs")["runs"]]
    assert sorted(ids) == sorted(again)  # links stay good


@pytest.mark.parametrize("name", ["..", ".", "", "../run", "/etc", "nobody", "run/.."])
def test_an_unknown_id_is_not_there(tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "run")
    with pytest.raises(NotThere):
        library(tmp_path).shelf.run(name)


# -------------------------------------------------------------------- damage, growth


def test_a_truncated_episode_is_listed_and_the_others_count(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"a": "++-"})
    broken = episode_files(folder)[1]
    broken.write_bytes(broken.read_bytes()[:-7])
    document = read(library(folder), "run/run")
    (damaged,) = document["damaged"]
    assert (damaged["task"], damaged["file"], damaged["state"]) == (
        "a", "00001.safetensors", "damaged",
    )  # fmt: skip
    assert "truncated" in damaged["message"]
    assert document["run"]["total"]["damaged"] == 1
    assert (document["run"]["total"]["successes"], document["run"]["total"]["scored"]) == (1, 2)
    assert [e["trial"] for e in document["episodes"]] == [0, 2]


def test_an_episode_of_a_newer_version_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"a": "++"})
    path = episode_files(folder)[0]
    data = path.read_bytes()
    old, new = b'\\"format_version\\":1', b'\\"format_version\\":9'
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    (found,) = read(library(folder), "run/run")["damaged"]
    assert found["state"] == "newer"
    assert "Upgrade wamsim" in found["message"]


def test_a_run_of_a_newer_version_is_listed_with_its_sentence(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"format_version": 1', '"format_version": 9'))
    lib = library(tmp_path)
    (run,) = read(lib, "runs")["runs"]
    assert run["state"] == "newer"
    assert "Upgrade wamsim" in run["message"]
    assert run["total"]["rate"] is None
    board = read(lib, "leaderboard")
    assert board["rows"] == []
    assert board["left_out"][0]["run"] == "run"
    assert read(lib, "run/run")["episodes"] == []


def test_a_folder_of_two_policies_is_damaged_not_a_crash(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    with RunFolder.open(folder, {"policy": "oracle", "seed": 0}, PROVENANCE) as opened:
        add(opened, EpisodeKey("s", "t", 7), policy="other")
    (run,) = read(library(tmp_path), "runs")["runs"]
    assert run["state"] == "damaged"
    assert "different values of policy" in run["message"]


def test_a_growing_run_shows_what_is_finished(tmp_path: Path) -> None:
    config, key = {"policy": "oracle", "seed": 0}, EpisodeKey("s", "t", 0)
    planned = [EpisodeKey("s", "t", i) for i in range(3)]
    lib = library(tmp_path)
    tags = [lib.text("runs").tag]
    with RunFolder.open(tmp_path / "run", config, PROVENANCE, planned) as folder:
        tags.append(lib.text("runs").tag)
        add(folder, key)
        document = read(lib, "run/run")
        tags.append(lib.text("runs").tag)
        assert document["run"]["state"] == "running"
        assert document["live"] is True
        assert (document["run"]["total"]["scored"], document["run"]["total"]["missing"]) == (1, 2)
        same = lib.text("run/run").tag
        assert lib.text("run/run").tag == same  # nothing happened, nothing to send
        add(folder, EpisodeKey("s", "t", 1), "-")
        assert len(read(lib, "run/run")["episodes"]) == 2
        assert lib.text("run/run").tag != same
        tags.append(lib.text("runs").tag)
    document = read(lib, "run/run")
    assert (document["run"]["state"], document["live"]) == ("incomplete", False)
    tags.append(lib.text("runs").tag)
    assert len(set(tags)) == len(tags)


def test_a_file_that_did_not_change_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "run", {"a": "++-"})
    shelf = Shelf([folder])
    shelf.run("run")
    read_now: list[Path] = []
    import wamsim.viewer.shelf as module

    def counting(run: Path, path: Path):
        read_now.append(path)
        return real(run, path)

    real = module.read_placed
    monkeypatch.setattr(module, "read_placed", counting)
    with RunFolder.open(folder, {"policy": "oracle", "seed": 0}, PROVENANCE) as opened:
        new = add(opened, EpisodeKey("s", "a", 3))
        assert len(shelf.run("run").records) == 4
    assert read_now == [new]


def test_a_run_that_vanished_is_not_there(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    lib = library(tmp_path)
    lib.text("run/run")
    shutil.rmtree(folder)
    assert read(lib, "runs")["runs"] == []
    with pytest.raises(NotThere, match="moved"):
        lib.text("run/run")


# ----------------------------------------------------------------------- comparisons


def test_the_leaderboard_is_the_one_of_the_command(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", {"t": "++-"}, policy="one"),
        write_run(tmp_path / "b", {"t": "+--"}, policy="two"),
        write_run(tmp_path / "c", {"t": "+e-"}, policy="three"),
    ]
    lib = library(tmp_path)
    document = read(lib, "leaderboard")
    rows = {row["run"]: row for row in document["rows"]}
    assert [row["run"] for row in document["rows"]] == ["a", "b", "c"]
    assert [rows[name]["rank"] for name in "abc"] == [1, 2, None]
    assert rows["a"]["cells"]["s-v1"]["rate"] == pytest.approx(2 / 3)
    assert (rows["a"]["cells"]["s-v1"]["successes"], rows["a"]["cells"]["s-v1"]["scored"]) == (2, 3)
    assert rows["c"]["why"] == "1 error, must be re-run"
    table = leaderboard_table(load_runs(runs, imagination=True))
    for name, render in (
        ("csv", to_csv), ("markdown", to_markdown), ("json", to_json), ("latex", to_latex),
    ):  # fmt: skip
        assert document["exports"][name]["text"] == render(table)
        assert lib.export(document["exports"][name]["file"])[0] == render(table)


def test_pairs_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"t": "+++-e"}, policy="one")
    write_run(tmp_path / "b", {"t": "+---+"}, policy="two")
    lib = library(tmp_path)
    document = read(lib, "compare/a/b")
    (pairs,) = document["suites"]
    assert (pairs["n"], pairs["both"], pairs["only_a"], pairs["only_b"], pairs["neither"]) == (
        4, 1, 2, 0, 1,
    )  # fmt: skip
    assert pairs["difference"] == 0.5
    assert pairs["p"] == 0.5  # two discordant pairs, both for A: 2 * (1/2)^2
    assert pairs["left_out"] == {"error in A": 1}
    assert document["episodes"][4] == {
        "suite": "s", "task": "t", "trial": 4, "a": "error", "b": "success",
    }  # fmt: skip
    back = read(lib, "compare/b/a")["suites"][0]
    assert (back["difference"], back["p"], back["only_b"]) == (-0.5, 0.5, 2)


def test_runs_that_are_no_pairs_say_why(tmp_path: Path) -> None:
    write_run(tmp_path / "a", seed=0)
    write_run(tmp_path / "b", seed=1)
    write_run(tmp_path / "c", suite="other")
    lib = library(tmp_path)
    assert "seed is 0 in a, 1 in b" in read(lib, "compare/a/b")["message"]
    assert "share no suite" in read(lib, "compare/a/c")["message"]


def test_peers_are_every_runs_episode_of_the_key(tmp_path: Path) -> None:
    write_run(tmp_path / "a", {"t": "+-"})
    write_run(tmp_path / "b", {"t": "-"}, policy="two", seed=3)
    write_run(tmp_path / "c", {"u": "+"})
    found = read(library(tmp_path), "peers/s/t/0")
    assert {(e["run"], e["policy"], e["seed"], e["outcome"]) for e in found["episodes"]} == {
        ("a", "oracle", 0, "success"), ("b", "two", 3, "failure"),
    }  # fmt: skip


# -------------------------------------------------------------------------- episodes


def test_an_episode_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"t": "+"}, value=True)
    found = read(library(tmp_path), "episode/run/s/t/0")
    assert (found["fps"], found["frames"], found["limit"]) == (20.0, STEPS + 1, 40)
    assert [(c["name"], c["standard"]) for c in found["cameras"]] == [
        ("front", True), ("hand", True), ("top", False),
    ]  # fmt: skip
    assert found["cameras"][0]["url"] == "media/video/run/s/t/0/front.mp4"
    actions = found["actions"]
    assert actions["labels"][-1] == "gripper"
    assert actions["gripper"] == [6]
    assert actions["values"][1][:3] == [0.01, 0.08, 0.15]  # channel 1 of steps 0, 1, 2
    position = next(s for s in found["state"] if s["name"] == "eef_pos")
    assert (position["labels"], position["unit"]) == (["x", "y", "z"], "m")
    assert position["values"][0][:2] == [14.0, 39.0]  # column 14 of rows 0 and 1, 25 wide
    assert found["queries"] == {"steps": [0, 4, 8], "latency_s": [0.5, 0.25, 0.75]}
    assert found["value"] == {"steps": [0, 4, 8], "values": [0.25, 0.5, 0.75]}
    assert found["imagination"] == []


def test_an_episode_of_another_version_has_no_video_but_its_curves(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"t": "+"}, version=2)
    found = read(library(tmp_path), "episode/run/s/t/0")
    assert "another version" in found["video_message"]
    assert (found["cameras"], found["preview"], found["frames"]) == ([], None, 0)
    assert len(found["actions"]["values"]) == 7


def test_perfect_imagination_is_perfect_and_frozen_is_still(tmp_path: Path) -> None:
    write_imagining_run(tmp_path / "good", perfect, episodes=3)
    write_imagining_run(tmp_path / "bad", frozen, episodes=3)
    lib = library(tmp_path)
    runs = {run["id"]: run for run in read(lib, "runs")["runs"]}
    assert runs["good"]["skill"]["value"] == pytest.approx(1.0)
    assert runs["bad"]["skill"]["value"] == pytest.approx(0.0)
    assert runs["good"]["imagination"] == "measured"
    rows = read(lib, "run/bad")["episodes"]
    assert [row["skill"] for row in rows] == pytest.approx([0.0] * 3)
    (one,) = read(lib, "episode/good/s/t/0")["imagination"]
    assert (one["horizons"], one["steps"][:3], one["imaginer"]) == ([2, 4], [0, 4, 8], "net")
    assert one["executed"][0] == [True, True]
    np.testing.assert_allclose(one["similarity"], 1.0)
    np.testing.assert_allclose(one["error"], 0.0)
    assert one["summary"]["skill"] == 1.0
    (still,) = read(lib, "episode/bad/s/t/0")["imagination"]
    np.testing.assert_allclose(still["similarity"], still["still"])
    np.testing.assert_allclose(still["error"], still["still_error"])
    assert still["summary"]["skill"] == 0.0


def test_what_is_not_finite_is_a_sentence_not_a_number(tmp_path: Path) -> None:
    def broken(real: np.ndarray, still: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return real * np.inf

    write_imagining_run(tmp_path / "run", broken, episodes=1)
    lib = library(tmp_path)
    (run,) = read(lib, "runs")["runs"]
    assert run["imagination"] == "fault"
    assert "not finite" in run["imagination_fault"]
    assert "not finite" in read(lib, "episode/run/s/t/0")["imagination"][0]["fault"]


def test_markup_in_a_record_stays_the_text_that_it_is(tmp_path: Path) -> None:
    evil = '</script><img src=x onerror="alert(1)">&amp;\u2028'
    write_run(tmp_path / "run", {"t": "+"}, instruction=evil)
    lib = library(tmp_path)
    assert read(lib, "episode/run/s/t/0")["instruction"] == evil
    assert read(lib, "run/run")["tasks"][0]["instruction"] == evil
    assert "\u2028" not in lib.text("run/run").body  # a line end in older JavaScript


def test_what_a_reader_may_look_at_next(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"a": "+-"})
    shown = library(tmp_path)
    look = shown.likely("run/run")
    assert look is not None
    assert look == shown.likely("runs")
    ((path, step),) = look.steps
    assert (path.parent.name, step, look.size) == ("a", 0, (64, 64))
    assert shown.likely("leaderboard") is None
    pointed = shown.likely("episode/run/s/a/1")
    assert pointed is not None
    assert pointed.steps == ((shown.shelf.run("run").paths[EpisodeKey("s", "a", 1)].path, 0),)
    assert shown.likely("episode/run/s/b/0") is None
