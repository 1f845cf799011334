"""The static report: everything that its documents name is there, and nothing is overwritten."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from imagination_doubles import perfect
from imagination_doubles import write_run as write_imagining_run
from PIL import Image
from viewer_doubles import STEPS, GreyIllustrator, grey, say_cameras, write_run

from envs.processes import spread
from wamsim.errors import RecordCorrupt, WamsimError
from wamsim.run_folder import episode_files
from wamsim.video import read_frames
from wamsim.viewer.page_files import page_files
from wamsim.viewer.report import write_report


def report(roots: list[Path], out: Path, **more) -> tuple[Path, list[str]]:
    said: list[str] = []
    options = {"cache": out.parent / "cache", "spread": partial(spread, processes=1), **more}
    return write_report(roots, out, GreyIllustrator(), said=said.append, **options), said


def documents(out: Path) -> dict[str, dict]:
    """Read the report's documents as the page does: each a call with its name."""
    found = {}
    for path in (out / "data").rglob("*.js"):
        text = path.read_text()
        assert text.startswith("wamsimData(")
        assert text.endswith(");\n")
        name, body = json.loads(f"[{text[len('wamsimData(') : -3]}]")
        assert path == out / "data" / f"{name}.js"
        assert body["name"] == name
        assert body["live"] is False
        found[name] = body
    return found


def urls(value: object) -> set[str]:
    """Every address of media and exports that a document names."""
    if isinstance(value, dict):
        return set().union(*map(urls, value.values()), set())
    if isinstance(value, list):
        return set().union(*map(urls, value), set())
    is_url = isinstance(value, str) and value.startswith(("media/", "exports/"))
    return {value} if is_url else set()


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_run(folder / "a", {"t": "+-+", "u": "+"})
    write_run(folder / "b", {"t": "++-"}, policy="two")
    return folder


def test_what_documents_name_is_there(two_runs: Path, tmp_path: Path) -> None:
    page, said = report([two_runs], tmp_path / "out")
    out = tmp_path / "out"
    assert (page, said) == (out / "index.html", [])
    found = documents(out)
    named = set().union(*map(urls, found.values()))
    assert named
    assert [url for url in sorted(named) if not (out / url).is_file()] == []
    linked = {e["doc"] for d in found.values() for e in d.get("episodes", []) if e.get("doc")}
    assert linked <= found.keys()
    # Failures are t 1 of a and t 2 of b; the other run's episode of each key is there as well.
    assert linked == {f"episode/{run}/s/t/{i}" for run in "ab" for i in (1, 2)}
    unlinked = next(e for e in found["run/a"]["episodes"] if e["trial"] == 0)
    assert (unlinked["doc"], unlinked["preview"]) == (None, None)
    assert {"runs", "leaderboard", "compare/a/b", "compare/b/a", "peers/s/t/1"} <= found.keys()


def test_the_page_is_complete_and_knows_that_it_is_a_report(two_runs: Path, tmp_path: Path) -> None:
    report([two_runs / "a"], tmp_path / "out")
    page = tmp_path / "out"
    assert '"mode": "report"' in (page / "config.js").read_text()
    assert (page / "plotly.min.js").stat().st_size > 1e6
    for name, source in page_files().items():
        assert (page / name).read_bytes() == source.read_bytes()


def test_videos_show_every_step(two_runs: Path, tmp_path: Path) -> None:
    report([two_runs / "a"], tmp_path / "out", episodes="all")
    frames = list(read_frames(tmp_path / "out/media/video/a/s/t/0/hand.mp4"))
    assert len(frames) == STEPS + 1
    for step, frame in enumerate(frames):
        assert abs(float(frame.mean()) - grey(step, 1)) < 2
    assert not (tmp_path / "out/media/video/a/s/t/0/top.mp4").exists()  # standard cameras only


def test_a_number_takes_the_first_of_every_task(two_runs: Path, tmp_path: Path) -> None:
    report([two_runs / "a"], tmp_path / "out", episodes=1)
    linked = {e["doc"] for e in documents(tmp_path / "out")["run/a"]["episodes"] if e["doc"]}
    assert linked == {"episode/a/s/t/0", "episode/a/s/u/0"}
    with pytest.raises(WamsimError, match="at least 1"):
        report([two_runs / "a"], tmp_path / "other", episodes=0)


def test_a_folder_with_something_else_is_left_alone(two_runs: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("all of it")
    with pytest.raises(WamsimError, match="not empty and holds no earlier report"):
        report([two_runs], tmp_path / "precious")
    assert [p.name for p in (tmp_path / "precious").iterdir()] == ["thesis.tex"]
    with pytest.raises(WamsimError, match="names a file"):
        report([two_runs], tmp_path / "precious" / "thesis.tex")


def test_an_earlier_report_is_replaced_and_drawings_are_kept(
    two_runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report([two_runs / "a"], out)
    video = out / "media/video/a/s/t/1/front.mp4"
    drawn = video.stat().st_mtime_ns
    report([two_runs / "b"], out)
    assert not video.exists()
    assert set(documents(out)) >= {"run/b"}
    assert "run/a" not in documents(out)
    report([two_runs / "a"], out)
    assert video.stat().st_mtime_ns == drawn  # from the cache: not drawn again


def test_where_runs_lie_is_not_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a" / "run", {"t": "+-"})
    broken = episode_files(folder)[0]
    broken.write_bytes(broken.read_bytes()[:-1])
    write_run(tmp_path / "a" / "run-2", {"t": "+"})
    report([tmp_path / "a"], tmp_path / "out")
    found = documents(tmp_path / "out")
    assert str(tmp_path) not in json.dumps(found)
    (damaged,) = found["run/run"]["damaged"]
    assert damaged["message"].endswith("File: run/episodes/s/t/00000.safetensors")
    assert [run["folder"] for run in found["runs"]["runs"]] == ["run-2", "run"]


def test_a_report_without_videos_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"t": "++"})
    _, said = report([tmp_path / "run"], tmp_path / "out")
    assert said == [
        "No episode is shown with videos (--episodes failures). `--episodes all`, or a number per "
        "task, shows some."
    ]
    assert documents(tmp_path / "out")["run/run"]["run"]["total"]["successes"] == 2


def test_no_run_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordCorrupt, match="wamsim eval"):
        report([tmp_path / "empty"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_drawn_is_said_and_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"gone": "-", "t": "-"})
    write_run(tmp_path / "old", {"t": "-"}, version=2)
    _, said = report([tmp_path / "run", tmp_path / "old"], tmp_path / "out")
    assert any("its scene is gone" in sentence for sentence in said)
    assert any("another version" in sentence for sentence in said)
    found = documents(tmp_path / "out")
    assert found["episode/old/s/t/0"]["cameras"] == []
    assert found["run/old"]["episodes"][0]["preview"] is None
    gone = found["episode/run/s/gone/0"]
    assert (gone["cameras"], gone["preview"]) == ([], None)
    assert "its scene is gone" in gone["video_message"]


def test_retrieved_pictures_are_drawn_and_decoded_ones_copied(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def drawn(i: int, block: dict) -> dict:
        shape = (*block["imagined_executed"].shape, 16, 24, 3)
        frames = {n: rng.integers(0, 256, shape, np.uint8) for n in ("imagined", "real")}
        return {f"{n}_frames": f for n, f in frames.items()} | {"seen_qpos": np.zeros((41, 3))}

    def undrawn(i: int, block: dict) -> dict:
        return {"seen_qpos": np.zeros((41, 3))}

    write_imagining_run(tmp_path / "drawn", perfect, episodes=1, extra=drawn, outcomes="-")
    write_imagining_run(tmp_path / "found", perfect, episodes=1, extra=undrawn, outcomes="-")
    for name in ("drawn", "found"):
        say_cameras(tmp_path / name)
    report([tmp_path / "drawn", tmp_path / "found"], tmp_path / "out")
    found = documents(tmp_path / "out")
    kinds = {}
    for name in ("drawn", "found"):
        (one,) = found[f"episode/{name}/s/t/0"]["imagination"]
        kinds[name] = one["pictures"]["kind"]
        assert len(one["pictures"]["sheets"]) == 10
        for url in one["pictures"]["sheets"]:
            cell, rows = one["pictures"]["cell"], one["pictures"]["rows"]
            with Image.open(tmp_path / "out" / url) as sheet:
                assert sheet.size == (2 * cell["width"], len(rows) * cell["height"])
    assert kinds == {"drawn": "decoded", "found": "retrieval"}
    assert found["retrieval/found/s/t/0/0"]["candidates"] == 10
