"""The command line, as a user meets it: output, exit codes, sentences, files."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from episode_doubles import shard

import wamsim_cli
from wamsim.contracts import Outcome
from wamsim.run_folder import episode_files, read_run, records

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("put_can_in_basket", "put_bread_in_basket")


@dataclass
class Done:
    """What a command left: exit code and texts."""

    code: int
    out: str
    err: str

    def rows(self) -> list[list[str]]:
        """Words of each line of the output."""
        return [line.split() for line in self.out.splitlines()]


@pytest.fixture
def wamsim(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, scene_cache_dir: Path
) -> Callable[..., Done]:
    """Run a command in this process, wide enough that no line wraps."""
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("WAMSIM_CACHE", str(scene_cache_dir))
    monkeypatch.setattr(wamsim_cli.console, "_width", 400)

    def run(*words: object) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["wamsim", *(str(w) for w in words)])
        with pytest.raises(SystemExit) as end:
            wamsim_cli.main()
        captured = capsys.readouterr()
        return Done(int(end.value.code or 0), captured.out, captured.err)

    return run


EVAL = ("eval", "--suite", "tabletop_object", "--workers", "1")
TWO = ("--task", TASKS[0], "--task", "3")  # by name and by number


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, scene_cache_dir: Path) -> Path:
    """A finished run of `random`: two tasks, two trials each."""
    out = tmp_path_factory.mktemp("cli") / "random"
    command = [*EVAL, "--policy", "random", *TWO, "--episodes", "2", "--out", str(out)]
    _subprocess(command, scene_cache_dir, check=True)
    return out


def _subprocess(words: list[str], cache: Path, **options) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WAMSIM_CACHE": str(cache), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "wamsim_cli", *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, **options,
    )  # fmt: skip


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------- sentences


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["eval", "-p", "random", "-s", "tabletop_objct"], "suite 'tabletop_objct'. Did you mean "
         "'tabletop_object'"),
        (["eval", "-p", "randm"], "unknown policy 'randm'. Did you mean 'random'"),
        (["eval", "-p", "random:big"], "unknown variant of random 'big'"),
        (["eval", "-p", "random", "-t", "put_cn_in_basket"], "unknown task 'put_cn_in_basket'. "
         "Did you mean 'put_can_in_basket'"),
        (["eval", "-p", "random", "-s", "tabletop_goal", "-t", "8"], "unknown task '8'."),
        (["eval", "-p", "random", "--set", "horizn=3"], "unknown option of policy 'random' "
         "'horizn'. Did you mean 'horizon'"),
        (["eval", "-p", "random", "--set", "horizon"], "--set 'horizon' is not of the form "
         "key=value"),
        (["eval", "-p", "random", "--set", "horizon=many"], "option random.horizon='many' is not a "
         "whole number"),
        (["eval", "-p", "random", "--set", "execute=9"], "policy 'random': execute=9 must lie in "
         "1..horizon=8"),
        (["eval", "-p", "random", "--wording", "9"], "unknown wording of tabletop_object '9'"),
        (["eval", "-p", "random", "--imagine-with", "crystal_ball"], "unknown world model "
         "'crystal_ball'"),
        (["list", "suits"], "unknown list 'suits'. Did you mean 'suites'"),
        (["list", "tasks", "-s", "libro"], "unknown suite 'libro'. Did you mean 'libero'"),
        (
            ["eval", "-p", "oracle", "-s", "kitchen", "--suite-set", "layout=gally"],
            "unknown layout of kitchen 'gally'. Did you mean 'galley'",
        ),
        (
            ["eval", "-p", "oracle", "-s", "tabletop", "--suite-set", "layout=galley"],
            "unknown option of suite 'tabletop_object' 'layout'. It has no options.",
        ),
        (
            ["eval", "-p", "oracle", "-s", "kitchen", "--suite-set", "galley"],
            "--suite-set 'galley' is not of the form key=value, e.g. --suite-set layout=galley",
        ),
        (["show", "nowhere"], "no run folder: it has no run.json"),
        (["leaderboard", "nowhere"], "no run folder: it has no run.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_is_answered_with_a_sentence_and_exit_code_2(
    wamsim: Callable[..., Done], words: list[str], sentence: str
) -> None:
    done = wamsim(*words)
    assert done.code == 2
    assert sentence in done.err.replace("\n", " ")
    assert done.err.startswith("wamsim: ")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "-p", "random", "--episodes", "0"],
        ["eval", "-p", "random", "--batch", "0"],
        ["eval", "-p", "random", "--colour", "red"],
        ["eval"],
        ["evaluate"],
    ],
    ids=" ".join,
)
def test_a_wrong_word_is_answered_by_the_parser(
    wamsim: Callable[..., Done], words: list[str]
) -> None:
    done = wamsim(*words)
    assert done.code == 2
    assert "Usage" in done.err


@pytest.mark.sim
def test_missing_libero_assets_say_where_to_get_them(
    wamsim: Callable[..., Done], tmp_path: Path
) -> None:
    done = wamsim(
        "eval", "-p", "random", "-s", "libero_object", "-t", 0, "-n", 1, "-w", 1,
        "--libero-assets", tmp_path / "none", "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.code == 2
    assert "WAMSIM_LIBERO_ASSETS" in done.err
    assert "download" in done.err
    assert str(tmp_path / "none") in done.err
    assert episode_files(tmp_path / "run") == []


# ----------------------------------------------------------------------------------- lists


def test_list_suites(wamsim: Callable[..., Done]) -> None:
    done = wamsim("list")
    assert done.code == 0
    first = {row[0]: row[1] for row in done.rows() if row}
    assert first["libero_90-v1"] == "90"
    assert first["tabletop_object-v2"] == "5"
    assert "libero = libero_spatial libero_object libero_goal libero_10" in done.out


def test_list_tasks_of_a_suite(wamsim: Callable[..., Done]) -> None:
    done = wamsim("list", "tasks", "--suite", "tabletop_object")
    listed = [row[:3] for row in done.rows()[1:] if row]
    assert listed[0] == ["tabletop_object", "0", "put_can_in_basket"]
    assert len(listed) == 5
    assert "In(can, basket_region)" in done.out


def test_list_tasks_of_all_suites(wamsim: Callable[..., Done]) -> None:
    done = wamsim("list", "tasks")
    assert sum(row[0].startswith("libero_") for row in done.rows() if row) == 130


def test_list_options_of_the_suites_that_have_some(wamsim: Callable[..., Done]) -> None:
    listed = [row for row in wamsim("list", "options").rows()[1:] if row]
    names = {tuple(row[:2]) for row in listed if row[0] != "Choose"}
    assert names == {
        ("kitchen", "layout"), ("kitchen", "style"),
        ("kitchen_mobile", "layout"), ("kitchen_mobile", "style"),
        ("bimanual_randomized", "randomization"), ("bimanual_randomized_eef", "randomization"),
    }  # fmt: skip
    (row,) = (row for row in listed if row[:2] == ["kitchen", "layout"])
    assert "wraparound" in row


def test_list_policies_and_protocols(wamsim: Callable[..., Done]) -> None:
    policies = {row[0] for row in wamsim("list", "policies").rows() if row}
    assert {"oracle", "practice", "random", "hold", "replay"} <= policies
    assert "openvla" in wamsim("list", "protocols").out
    assert wamsim("list", "world-models").code == 0


def test_help_names_every_command(wamsim: Callable[..., Done]) -> None:
    done = wamsim("--help")
    assert done.code == 0
    for command in ("eval", "list", "video", "leaderboard", "show", "compare", "merge", "doctor"):
        assert f" {command} " in done.out


# ------------------------------------------------------------------------------------ eval


@pytest.mark.sim
def test_eval_writes_a_file_for_every_episode(run: Path) -> None:
    found = list(records(run))
    assert sorted({(r.key.task, r.key.index) for r in found}) == [
        (task, i) for task in sorted(TASKS) for i in (0, 1)
    ]
    assert {r.policy for r in found} == {"random"}
    assert {(r.outcome, r.steps) for r in found} == {(Outcome.FAILURE, 240)}
    info = read_run(run)
    assert info.config["suites"] == {"tabletop_object": 2}
    assert info.config["policy"]["options"]["horizon"] == 8
    assert info.planned == {r.key for r in found}
    assert len(info.provenances) == 1


@pytest.mark.sim
def test_eval_again_has_nothing_to_do(wamsim: Callable[..., Done], run: Path) -> None:
    before = _contents(run)
    done = wamsim(*EVAL, "--policy", "random", *TWO, "--episodes", 2, "--out", run)
    assert done.code == 0
    assert _contents(run) == before
    assert "resuming: 4 of 4 episodes are on disk already" in done.out
    assert "put_can_in_basket 0/2 0.0" in " ".join(done.out.split())
    assert "steps/s, " not in done.out.split("mean of tasks")[1]
    assert f"Run folder: {run}" in done.out


@pytest.mark.sim
def test_the_default_folder_is_named_after_the_run(
    wamsim: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = wamsim(
        *EVAL, "--policy", "hold", "--task", 0, "--episodes", 1, "--set", "execute=4",
        "--set", "horizon=4",
    )  # fmt: skip
    assert done.code == 0
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert folder.name.startswith("hold-tabletop_object-")
    assert "1 episode, 240 env steps in" in done.out
    assert f"wamsim video results/runs/{folder.name} --episodes all" in done.out


@pytest.mark.sim
@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        (["--seed", "1"], "seed: 0 in the folder, 1 now"),
        (["--set", "execute=4"], "policy.options.execute: 8 in the folder, 4 now"),
        (["--batch", "3"], "batch: 1 in the folder, 3 now"),
    ],
)
def test_another_configuration_in_the_same_folder_is_refused(
    wamsim: Callable[..., Done], run: Path, changes: list[str], difference: str
) -> None:
    before = _contents(run)
    done = wamsim(
        *EVAL, "--policy", "random", *TWO, "--episodes", 2, "--out", run, *changes
    )  # fmt: skip
    assert done.code == 2
    assert difference in done.err
    assert "Choose another --out, or the same options to resume." in done.err
    assert _contents(run) == before


def test_no_resume_refuses_an_existing_run(wamsim: Callable[..., Done], run: Path) -> None:
    done = wamsim(*EVAL, "--policy", "random", *TWO, "--out", run, "--no-resume")
    assert done.code == 2
    assert "holds a run already. Leave out --no-resume" in done.err


# ---------------------------------------------------------------------------------- tables


@pytest.mark.sim
def test_show(wamsim: Callable[..., Done], run: Path) -> None:
    done = wamsim("show", run)
    assert done.code == 0
    rows = {row[0]: row for row in done.rows() if row}
    # Wilson, 0 of 2: z^2 / (2 + z^2) = 3.8415 / 5.8415 = 65.8 %
    assert rows["put_can_in_basket"][1:5] == ["0/2", "0.0", "[0.0,", "65.8]"]
    assert "random, run random, seed 0" in done.out


@pytest.mark.sim
@pytest.mark.parametrize("form", ["markdown", "csv", "json", "latex"])
def test_tables_in_every_format(wamsim: Callable[..., Done], run: Path, form: str) -> None:
    for command in (("show",), ("leaderboard",)):
        done = wamsim(*command, run, "--format", form)
        assert done.code == 0
        if form == "json":
            table = json.loads(done.out)
            assert "random" in json.dumps(table)
        elif form == "csv":
            table = list(csv.DictReader(io.StringIO(done.out)))
            assert {row["policy"] for row in table} == {"random"}
        elif form == "markdown":
            assert any(set(line) <= set("|:- ") for line in done.out.splitlines() if line)
            assert "| random" in done.out or "random, run random" in done.out
        else:
            assert r"\begin{tabular}" in done.out


def test_an_unknown_format_names_the_nearest(wamsim: Callable[..., Done], tmp_path: Path) -> None:
    done = wamsim("leaderboard", shard(tmp_path / "a", range(2)), "--format", "markdwn")
    assert done.code == 2
    assert "unknown format 'markdwn'. Did you mean 'markdown'" in done.err


@pytest.mark.sim
def test_leaderboard_ranks_runs(wamsim: Callable[..., Done], run: Path) -> None:
    done = wamsim("leaderboard", run.parent)  # a folder of runs stands for those in it
    assert done.code == 0
    (row,) = [row for row in done.rows() if row[1:2] == ["random"]]
    assert row[0] == "1"


@pytest.mark.sim
def test_compare_pairs_episodes(wamsim: Callable[..., Done], run: Path) -> None:
    done = wamsim("compare", run, run, "--format", "csv")
    assert done.code == 0
    (row,) = csv.DictReader(io.StringIO(done.out))
    assert (row["suite"], row["pairs"], row["neither"]) == ("tabletop_object-v2", "4", "4")
    assert float(row["p"]) == 1.0


# ----------------------------------------------------------------------------------- merge


@pytest.mark.sim
def test_shards_merge_into_the_whole_run(
    wamsim: Callable[..., Done], run: Path, tmp_path: Path
) -> None:
    shard = tmp_path / "shard"
    done = wamsim(
        *EVAL, "--policy", "random", "--task", 1, "--episodes", 1, "--out", shard
    )  # fmt: skip
    assert done.code == 0
    merged = tmp_path / "merged"
    done = wamsim("merge", run, shard, "--out", merged)
    assert done.code == 0
    assert f"5 episodes in {merged}" in done.out
    assert len(list(records(merged))) == 5
    assert wamsim("show", merged).code == 0


# ---------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.sim
def test_ctrl_c_shows_what_is_done_and_keeps_it(tmp_path: Path, scene_cache_dir: Path) -> None:
    out = tmp_path / "run"
    command = [*EVAL, "-p", "random", "-t", "0", "-n", "200", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "wamsim_cli", *command],
        cwd=ROOT, env={**os.environ, "WAMSIM_CACHE": str(scene_cache_dir), "COLUMNS": "200"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # a test run in a shell's background inherits that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    until = time.monotonic() + 120
    while len(episode_files(out)) < 2:
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: everyone hears it
    printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in complaints
    assert "Interrupted; finished episodes are on disk." in printed
    assert "put_can_in_basket" in printed.split("Interrupted")[1]
    assert "Run the same command again to go on." in printed
    found = list(records(out))
    assert 2 <= len(found) < 200
    assert all(r.steps == 240 for r in found)
    assert not [p for p in out.rglob("*") if p.name.startswith(".") and p.is_file()]
    assert not psutil.wait_procs(workers, timeout=10)[1]
