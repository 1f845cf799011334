"""The viewer's page in a real browser, over a real server and real (short) runs."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_doubles import (
    INJECTED,
    ROOT,
    SUITE,
    TASK,
    WITNESS,
    chromium,
    faults,
    frames_apart,
    make_runs,
    viewer,
)
from episode_doubles import CONFIG, folder_record, key, open_, put

from wamsim.episode import Episode, read_record
from wamsim.leaderboard import leaderboard_table, load_runs, to_csv

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'wamsim[dev]'"
)
pytestmark = [pytest.mark.sim, pytest.mark.browser]

PLACE = f"{SUITE}/{TASK}/0"
JUDGED = 20  # frames that are needed to tell whether videos drift apart
PLAYS = 6  # times that they may play for it: a busy machine drops most of its frames
WAIT_MS = 30_000  # a loaded machine draws the first picture of a scene in seconds

soon = playwright.expect  # looks until it is so: a page follows its address a moment later
soon.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, scene_cache_dir: Path) -> Path:
    chromium()  # skip before anything is made
    folder = tmp_path_factory.mktemp("runs")
    make_runs(folder, scene_cache_dir)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, scene_cache_dir: Path) -> Path:
    return scene_cache_dir


@pytest.fixture(scope="module")
def address(runs: Path, cache: Path) -> Iterator[str]:
    with viewer(*sorted(runs.iterdir()), cache=cache) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()
    with playwright.sync_playwright() as engine:
        # No sandbox: containers seldom allow one; the pages are our own.
        browser = engine.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens addresses in fresh pages; fails the test when a page's script fails."""
    contexts: list[Any] = []
    errors: list[str] = []

    def opened(address: str, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda m: errors.append(m.text) if "Content Security Policy" in m.text else None,
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


def side(*runs: str, **params: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in params.items())
    return f"#/side/{PLACE}?runs={','.join(runs)}" + (f"&{query}" if query else "")


def videos_ready(page: Any, count: int) -> None:
    page.wait_for_function(
        """(n) => {
          const all = [...document.querySelectorAll(".pane video")];
          return all.length === n && all.every((v) => v.readyState >= 2 && !v.seeking);
        }""",
        arg=count,
    )


def step_shown(page: Any) -> int:
    return int(page.locator(".scrub").input_value())


def frames_shown(page: Any, fps: int = 20) -> list[int]:
    page.wait_for_function(
        "() => [...document.querySelectorAll('.pane video')].every((v) => !v.seeking)"
    )
    times = page.evaluate(
        "() => [...document.querySelectorAll('.pane video')].map((v) => v.currentTime)"
    )
    return [int(t * fps) for t in times]


def test_runs_open_and_lead_to_an_episode(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.get_by_role("link", name="oracle (privileged)").first.wait_for()
    soon(page.locator("tbody tr[data-key]")).to_have_count(5)
    page.get_by_role("searchbox").fill("pixels")
    soon(page.locator("tbody tr[data-key]")).to_have_count(1)
    page.wait_for_url("**q=pixels**")
    page.locator("tbody a.row-link").click()
    page.wait_for_url("**/#/run/pixels**")
    page.locator("tbody a.row-link", has_text="put can in basket").click()
    page.wait_for_url(f"**/#/side/{PLACE}**")
    videos_ready(page, 2)  # both standard cameras of a single episode


def test_a_pointer_that_rests_on_an_episode_has_its_scene_loaded(
    address: str, open_page: Open
) -> None:
    page = open_page(f"{address}#/run/oracle")
    link = page.locator("tbody a.row-link").first
    with page.expect_request(lambda request: request.url.endswith(".json?soon")) as asked:
        link.hover()
    assert f"/data/episode/oracle/{SUITE}/{TASK}/0" in asked.value.url
    answer = asked.value.response()
    assert answer is not None
    assert answer.status == 200


def test_two_policies_are_compared_on_one_episode(
    address: str, runs: Path, open_page: Open
) -> None:
    page = open_page(address + "#/runs?sort=policy")
    for name in ("oracle", "drawn"):
        page.locator(f'tr[data-key="{name}"] input').check()
    page.get_by_role("link", name="Compare 2 runs").click()
    page.wait_for_url(f"**/#/side/{PLACE}**")
    videos_ready(page, 2)
    record = read_record(next((runs / "oracle").glob("episodes/*/*/*.safetensors")))
    assert page.get_by_role("heading", level=1).inner_text() == record.instruction
    oracle, drawn = page.locator(".pane").all()
    page.locator(".scrub").focus()
    page.keyboard.press("End")
    assert record.success_step is not None
    oracle.get_by_text(f"success at {record.success_step}").wait_for()
    drawn.get_by_text("failure at 16").wait_for()
    soon(oracle).to_have_class(re.compile(r"\bwon\b"))
    soon(drawn).not_to_have_class(re.compile(r"\bwon\b"))


def test_keys_scrub(address: str, runs: Path, open_page: Open) -> None:
    page = open_page(address + side("oracle"))
    videos_ready(page, 2)
    last = read_record(next((runs / "oracle").glob("episodes/*/*/*.safetensors"))).steps
    for press, expected in [
        ("ArrowRight", 1), ("ArrowRight", 2), ("Shift+ArrowRight", 12), ("ArrowLeft", 11),
        ("End", last), ("Shift+ArrowLeft", last - 10), ("Home", 0), ("ArrowLeft", 0),
    ]:  # fmt: skip
        page.keyboard.press(press)
        assert step_shown(page) == expected, press
        assert frames_shown(page) == [expected, expected], press
    page.keyboard.press("]")
    page.wait_for_url("**speed=2**")
    page.keyboard.press("Space")
    page.get_by_role("button", name="pause").wait_for()
    page.wait_for_function("() => Number(document.querySelector('.scrub').value) > 4")
    page.keyboard.press("Space")
    page.get_by_role("button", name="play", exact=True).wait_for()
    at = step_shown(page)
    assert frames_shown(page) == [at, at]
    page.wait_for_url(f"**t={at}**")


def test_videos_stay_within_one_frame_over_a_whole_episode(
    address: str, runs: Path, open_page: Open
) -> None:
    page = open_page(address + side("oracle", "clumsy", "drawn"))
    videos_ready(page, 3)
    lengths = [
        read_record(next((runs / name).glob("episodes/*/*/*.safetensors"))).steps + 1
        for name in ("oracle", "clumsy", "drawn")
    ]
    assert len(set(lengths)) == 3
    # Nothing is drawn any more that would take the processor's time.
    page.wait_for_function(
        """() => [...document.querySelectorAll(".pane")].every(
          (pane) => pane.querySelector(".main-svg"))"""
    )
    page.wait_for_function(
        """() => [...document.querySelectorAll(".pane video")].every(
          (v) => v.buffered.length && v.buffered.end(0) > v.duration - 0.1)"""
    )
    page.evaluate(WITNESS, 20)
    apart: list[int] = []
    shown: list[list[float]] = []
    for _ in range(PLAYS):
        page.keyboard.press("Home")
        page.evaluate("() => { window.shown.length = 0; }")
        page.keyboard.press("Space")
        page.wait_for_function(
            """() => {
              const { value, max } = document.querySelector(".scrub");
              return value === max && document.querySelector(".play").ariaLabel === "play";
            }"""
        )
        page.wait_for_timeout(300)  # the last frames are on their way to the screen
        shown = page.evaluate("() => window.shown")
        apart += frames_apart(shown, lengths)
        assert frames_shown(page) == [length - 1 for length in lengths]
        if len(apart) >= JUDGED:
            break
    assert len(apart) >= JUDGED, f"too few frames were reported to judge: {shown}"
    assert max(apart) <= 1, apart


def test_the_witness_sees_videos_that_drift() -> None:
    # At 1000 ms video 1 is two frames behind. At 2000 ms it shows its frame 16 ms later, in the
    # same refresh; at 3000 ms 17 ms later, in the next, which says nothing. Last frames stay.
    shown = [
        [0, 1000, 6], [1, 1000, 4], [0, 2000, 5], [1, 2016, 5], [0, 3000, 6], [1, 3017, 2],
        [0, 4000, 8], [1, 4000, 7],
    ]  # fmt: skip
    assert frames_apart(shown, [10, 8]) == [2, 0]


def test_a_deep_link_is_the_whole_state(address: str, open_page: Open) -> None:
    page = open_page(address + side("clumsy", "pixels", cams="eye_in_hand", t=9, speed=0.5))
    videos_ready(page, 2)
    for _ in range(2):
        assert step_shown(page) == 9
        assert frames_shown(page) == [9, 9]
        names = page.locator(".pane video").evaluate_all("(all) => all.map((v) => v.src)")
        assert all("eye_in_hand" in name for name in names)
        assert (
            page.get_by_role("button", name=re.compile("^0.5")).get_attribute("aria-pressed")
            == "true"
        )
        page.reload()
        videos_ready(page, 2)
    page.goto(address + "#/runs?q=drawn&sort=-latency")
    # the same document goes on with the new address: what it shows follows a moment later
    soon(page.get_by_role("searchbox")).to_have_value("drawn")
    head = page.get_by_role("columnheader", name="Latency")
    soon(head).to_have_attribute("aria-sort", "descending")


@pytest.mark.parametrize(("run", "kind"), [("drawn", "decoded"), ("pixels", "retrieval")])
def test_imagined_frames_stand_beside_real_ones(
    address: str, open_page: Open, run: str, kind: str
) -> None:
    page = open_page(address)
    page.locator(f'tr[data-key="{run}"] a.row-link').click()
    page.locator(".heading a", has_text="Imagination").click()
    page.wait_for_url(f"**/#/imagination/{run}/{PLACE}**")
    page.locator(".sheet .cell").first.wait_for()
    heads = page.locator('.sheet th[scope="row"]').all_inner_texts()
    assert [head.split("\n")[0] for head in heads][:3] == ["Real", "Imagined", "Difference"]
    soon(page.get_by_text(kind).first).to_be_visible()
    document = page.evaluate(
        "(name) => fetch(name).then((r) => r.json())", f"data/episode/{run}/{PLACE}.json"
    )
    pictures = document["imagination"][0]["pictures"]
    size = page.evaluate(
        """async (url) => {
          const picture = new Image();
          picture.src = url;
          await picture.decode();
          return [picture.naturalWidth, picture.naturalHeight];
        }""",
        pictures["sheets"][1],
    )
    cell = pictures["cell"]
    grid = (len(pictures["columns"]), len(pictures["rows"]))
    assert size == [cell["width"] * grid[0], cell["height"] * grid[1]]

    queries = len(document["imagination"][0]["steps"])
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name=f"Query 2 of {queries},").wait_for()
    page.wait_for_url("**q=1**")
    page.keyboard.press("Home")
    page.get_by_role("heading", name=f"Query 1 of {queries},").wait_for()
    plot = page.locator(".plot.tall").nth(1)
    plot.locator(".main-svg").first.wait_for()
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    plot.click(position={"x": box["width"] - 16, "y": box["height"] / 2})
    page.get_by_role("heading", name=f"Query {queries} of {queries},").wait_for()


def test_failures_come_first_and_move(address: str, open_page: Open) -> None:
    page = open_page(address + "#/failures/pixels")
    card = page.locator(".card").first
    card.get_by_text("Trial 0").wait_for()
    page.wait_for_function("() => document.querySelector('.card video').currentTime > 0")
    card.locator("a.card-main").click()
    page.wait_for_url(f"**/#/side/{PLACE}**")


def test_a_table_is_exported(address: str, runs: Path, open_page: Open) -> None:
    page = open_page(address + "#/leaderboard")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="CSV").click()
    download = waiting.value
    assert download.suggested_filename == "leaderboard.csv"
    expected = to_csv(leaderboard_table(load_runs(sorted(runs.iterdir()), imagination=True)))
    assert sorted(Path(download.path()).read_text().split()) == sorted(expected.split())


def test_a_paired_difference_shows_on_focus(address: str, open_page: Open) -> None:
    page = open_page(address + "#/leaderboard?ref=drawn")
    page.locator('tr[data-key="oracle"] .cell-button').first.focus()
    tip = page.get_by_role("tooltip")
    # One shared episode, which the oracle alone solves: exact McNemar gives p = 1.
    tip.get_by_text("+100.0").wait_for()
    soon(tip).to_contain_text("p = 1.000")
    page.keyboard.press("Escape")
    tip.wait_for(state="hidden")


def test_markup_in_a_record_stays_text(address: str, open_page: Open) -> None:
    for hash_ in (f"#/side/{PLACE}?runs=odd", "#/run/odd", "#/failures/odd", "#/runs"):
        page = open_page(address + hash_)
        if "side" in hash_:
            page.get_by_role("heading", level=1).get_by_text(INJECTED, exact=True).wait_for()
        else:
            page.get_by_role("heading", level=1).wait_for()
        page.wait_for_timeout(200)
        assert page.evaluate("() => window.hacked") is None
        assert page.locator("img, script[src='x']").count() == 0


PAGES = {
    "runs": "#/runs",
    "run": "#/run/drawn",
    "leaderboard": "#/leaderboard",
    "side": side("oracle", "pixels"),
    "imagination": f"#/imagination/drawn/{PLACE}",
    "failures": "#/failures/pixels",
    "nothing": "#/no-such-page",
    "lost": f"#/side/{SUITE}/{TASK}/7?runs=oracle",
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(address: str, open_page: Open, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = open_page(address, color_scheme=theme)
    found: dict[str, list[str]] = {}
    for name, hash_ in PAGES.items():
        page.goto(address + hash_)
        page.wait_for_load_state("networkidle")
        page.locator("h1, h2").first.wait_for()
        page.wait_for_timeout(400)
        found[name] = faults(axe.run(page).response)
    assert found == {name: [] for name in PAGES}


@pytest.mark.slow
def test_a_report_opens_from_disk(runs: Path, cache: Path, tmp_path: Path, open_page: Open) -> None:
    out = tmp_path / "report"
    command = [
        sys.executable, "-c", "import wamsim_cli; wamsim_cli.main()", "report",
        str(runs / "oracle"), str(runs / "pixels"), "--out", str(out), "--episodes", "all",
        "--cache", str(cache),
    ]  # fmt: skip
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    home = (out / "index.html").as_uri()
    page = open_page(home)
    page.get_by_role("link", name="oracle (privileged)").first.wait_for()
    page.goto(home + side("oracle", "pixels", t=5))
    videos_ready(page, 2)
    assert frames_shown(page) == [5, 5]
    page.goto(home + f"#/imagination/pixels/{PLACE}?q=1")
    page.locator(".sheet .cell").first.wait_for()
    page.goto(home + "#/leaderboard")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Markdown").click()
    assert waiting.value.suggested_filename == "leaderboard.md"


def test_a_run_being_written_updates_without_losing_the_place(
    tmp_path: Path, cache: Path, open_page: Open
) -> None:
    with contextlib.ExitStack() as stack:
        planned = [key(i) for i in range(90)]
        folder = stack.enter_context(open_(tmp_path / "growing", planned=planned))
        for i in range(60):
            put(folder, key(i))
        address = stack.enter_context(viewer(folder.path, cache=cache))
        page = open_page(address + "#/run/growing")
        page.get_by_text("60 episodes", exact=True).wait_for()
        page.locator("#live", has_text="Live").wait_for()
        scroller = page.get_by_role("region", name="Episodes")
        scroller.evaluate("(node) => node.scrollTo(0, 600)")
        page.wait_for_timeout(100)
        link = page.locator('tr[data-key="s/t/20"] a, tr[data-key="s/t/20"]').first
        link.wait_for()
        for i in range(60, 63):
            put(folder, key(i))
        page.get_by_text("63 episodes", exact=True).wait_for()
        assert scroller.evaluate("(node) => node.scrollTop") == 600
    assert re.search(r"#/run/growing$", page.url)


@pytest.mark.slow
def test_two_thousand_episodes_keep_few_rows(tmp_path: Path, cache: Path, open_page: Open) -> None:
    with open_(tmp_path / "long", CONFIG, planned=[key(i) for i in range(2000)]) as folder:
        for i in range(2000):
            folder.write(Episode(folder_record(folder, key(i)), {}))
    with viewer(tmp_path / "long", cache=cache) as address:
        page = open_page(address + "#/run/long")
        page.get_by_text("2,000 episodes", exact=True).wait_for()
        scroller = page.get_by_role("region", name="Episodes")
        assert page.locator("tbody tr").count() < 80
        scroller.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("End")
        page.locator('tr[data-key="s/t/1999"]').wait_for()
        assert page.locator("tbody tr").count() < 80
