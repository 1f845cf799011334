"""The viewer's server: what it sends, what it refuses, and films that are drawn while sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import httpx2
import numpy as np
import pytest
import uvicorn
from episode_doubles import PROVENANCE
from starlette.testclient import TestClient
from viewer_doubles import STEPS, GreyIllustrator, add, grey, write_run

from wamsim.contracts import EpisodeKey
from wamsim.errors import WamsimError
from wamsim.leaderboard import leaderboard_table, load_runs
from wamsim.run_folder import RunFolder
from wamsim.tables import to_csv
from wamsim.video import read_frames
from wamsim.viewer.artists import Pictures
from wamsim.viewer.library import Library
from wamsim.viewer.serve import PortInUse, is_loopback, listen
from wamsim.viewer.server import HEADERS, application, host_name
from wamsim.viewer.shelf import Shelf
from wamsim.viewer.studio import Studio

HOME = "http://127.0.0.1:8765"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = Studio(GreyIllustrator(), tmp_path_factory.mktemp("cache"), processes=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write_run(folder / "run", {"t": "+-", "gone": "-"})
    write_run(folder / "other", {"t": "--"}, policy="two")
    (folder / "secret.txt").write_text("hidden words")
    return folder


@pytest.fixture(scope="module")
def client(root: Path, studio: Studio) -> TestClient:
    return visitor(root, studio)


def visitor(root: Path, studio: Studio) -> TestClient:
    app = application(Library(Shelf([root]), GreyIllustrator()), studio)
    return TestClient(app, base_url=HOME, raise_server_exceptions=True)


def decoded(data: bytes, folder: Path) -> list[np.ndarray]:
    (folder / "x.mp4").write_bytes(data)
    return list(read_frames(folder / "x.mp4"))


# -------------------------------------------------------------------------- documents


def test_documents_are_json_with_a_tag_and_304_when_unchanged(client: TestClient) -> None:
    client.get("/data/runs.json")
    time.sleep(0.3)  # values are measured in the background
    first = client.get("/data/runs.json")
    assert first.status_code == 200
    assert first.headers["content-type"] == "application/json"
    assert {run["id"] for run in first.json()["runs"]} == {"run", "other"}
    assert first.headers["etag"] == f'"{first.json()["tag"]}"'
    again = client.get("/data/runs.json", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_running_run_changes_its_tag(tmp_path: Path, studio: Studio) -> None:
    visit = visitor(tmp_path, studio)
    assert "wamsim eval" in visit.get("/data/runs.json").json()["empty"]
    with RunFolder.open(tmp_path / "new", {"policy": "x"}, PROVENANCE) as folder:
        add(folder, EpisodeKey("s", "t", 0))
        first = visit.get("/data/run/new.json")
        assert (len(first.json()["episodes"]), first.json()["live"]) == (1, True)
        add(folder, EpisodeKey("s", "t", 1))
        later = visit.get("/data/run/new.json", headers={"If-None-Match": first.headers["etag"]})
        assert (later.status_code, len(later.json()["episodes"])) == (200, 2)


def test_the_scene_of_an_episode_that_a_pointer_rests_on_is_loaded(
    root: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Pictures] = []
    monkeypatch.setattr(studio, "warm", looks.append)
    visit = visitor(root, studio)
    name = "/data/episode/run/s/t/1.json"
    visit.get(name)  # clicked: its film is asked for, and loads the scene
    assert not looks
    assert visit.get(name + "?soon").status_code == 200
    ((path, step),) = looks[0].steps
    assert (path.parent.name, path.stem.endswith("1"), step) == ("t", True, 0)
    assert visit.get("/data/episode/run/s/t/99.json?soon").status_code == 404


def test_the_exported_table_is_the_commands(client: TestClient, root: Path) -> None:
    sent = client.get("/exports/leaderboard.csv")
    runs = sorted(load_runs([root]), key=lambda run: run.path.name)
    assert sorted(sent.text.splitlines()) == sorted(to_csv(leaderboard_table(runs)).splitlines())
    assert sent.headers["content-disposition"] == 'attachment; filename="leaderboard.csv"'


def test_the_page_and_its_scripts(client: TestClient) -> None:
    index = client.get("/")
    assert index.status_code == 200
    assert index.headers["content-type"].startswith("text/html")
    assert client.get("/index.html").content == index.content
    config = client.get("/config.js").text
    assert json.loads(config.removeprefix("window.wamsimConfig = ").rstrip(";\n"))["mode"] == (
        "served"
    )
    plotly = client.get("/plotly.min.js")
    assert plotly.headers["content-type"].startswith("text/javascript")
    assert b"plotly.js" in plotly.content[:200]


# ----------------------------------------------------------------------------- safety


@pytest.mark.parametrize("path", ["/", "/data/runs.json", "/data/nothing.json", "/no/such"])
def test_every_answer_carries_the_policy(client: TestClient, path: str) -> None:
    answer = client.get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    policy = answer.headers["Content-Security-Policy"]
    scripts = next(p for p in policy.split("; ") if p.startswith("script-src"))
    assert scripts == "script-src 'self'"  # no inline scripts, no eval, nothing from elsewhere


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8765", "", "local host"]
)
def test_a_foreign_name_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/data/runs.json", headers={"Host": host})
    assert answer.status_code == 421
    assert "runs" not in answer.json()


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:8765", "LOCALHOST"])
def test_own_names_are_served(client: TestClient, host: str) -> None:
    assert client.get("/data/runs.json", headers={"Host": host}).status_code == 200


def test_names_of_hosts() -> None:
    found = [host_name(h) for h in ("a", "a:1", "127.0.0.1:1", "[::1]:8", "[::1]", "::1")]
    assert found == ["a", "a", "127.0.0.1", "::1", "::1", "::1"]


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e/secret.txt",
        "/secret.txt",
        "//etc/passwd",
        "/data/run/...json",
        "/data/run/..%2frun.json",
        "/data/../secret.txt",
        "/data/episode/run/s/..%2f..%2ft/0.json",
        "/data/episode/run/s/t/00.json/../../x",
        "/media/video/run/s/t/0/..%2ffront.mp4",
        "/media/video/..%2frun/s/t/0/front.mp4",
        "/media/video/run/s/t/-1/front.mp4",
        "/media/imagined/run/s/t/0/0/0.webp",
        "/exports/..%2fsecret.txt",
        "/server.py",
        "/../server.py",
    ],
)
def test_what_is_not_looked_up_is_not_there(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert b"hidden words" not in answer.content
    assert set(answer.json()) == {"message"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(client: TestClient, method: str) -> None:
    assert client.request(method, "/data/runs.json").status_code == 405


def test_only_loopback_is_loopback() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "192.168.0.7", "::", "example")] == [False] * 4


def test_a_port_in_use_says_what_to_do() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} is in use.*--port {port + 1}"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()  # free again at once


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99999), ("203.0.113.1", 0)])
def test_an_address_that_is_not_ours(host: str, port: int) -> None:
    with pytest.raises(WamsimError, match="cannot listen"):
        listen(host, port)


# ------------------------------------------------------------------------------ media


def test_frame_t_shows_env_step_t(client: TestClient, tmp_path: Path) -> None:
    for camera, name in enumerate(("front", "hand")):
        sent = client.get(f"/media/video/run/s/t/0/{name}.mp4")
        assert (sent.status_code, sent.headers["content-type"]) == (200, "video/mp4")
        assert int(sent.headers["content-length"]) == len(sent.content)
        frames = decoded(sent.content, tmp_path)
        assert len(frames) == STEPS + 1
        for step, frame in enumerate(frames):
            assert frame.shape == (256, 256, 3)
            assert abs(float(frame.mean()) - grey(step, camera)) < 2  # rounding of YUV, twice


def test_a_part_is_the_same_bytes(client: TestClient) -> None:
    address = "/media/video/run/s/t/1/front.mp4"
    end = client.get(address, headers={"Range": "bytes=-500"})  # the last frame, drawn first
    whole = client.get(address)
    size = len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    assert end.status_code == 206
    assert end.headers["content-range"] == f"bytes {size - 500}-{size - 1}/{size}"
    assert end.content == whole.content[-500:]
    middle = client.get(address, headers={"Range": "bytes=1000-2999"})
    assert middle.content == whole.content[1000:3000]
    beyond = client.get(address, headers={"Range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    tag = {"If-None-Match": whole.headers["etag"]}
    assert client.get(address, headers=tag).status_code == 304
    old = client.get(address, headers={"Range": "bytes=0-9", "If-Range": '"of an older film"'})
    assert (old.status_code, len(old.content)) == (200, size)
    assert client.head(address).headers["content-length"] == str(size)


def test_films_are_drawn_once_and_a_new_episode_is_a_new_film(
    tmp_path: Path, studio: Studio
) -> None:
    write_run(tmp_path / "run", {"t": "e"})
    visit = visitor(tmp_path, studio)
    address = "/media/video/run/s/t/0/front.mp4"
    first = visit.get(address)
    film = studio.cache / f"{first.headers['etag'][1:-1]}.mp4"
    drawn = film.stat().st_mtime_ns
    assert visit.get(address).headers["etag"] == first.headers["etag"]
    assert visitor(tmp_path, studio).get(address).content == first.content
    assert film.stat().st_mtime_ns == drawn
    with RunFolder.open(tmp_path / "run", {"policy": "oracle", "seed": 0}, PROVENANCE) as folder:
        add(folder, EpisodeKey("s", "t", 0), "+")  # the error ran again
    assert visit.get(address).headers["etag"] != first.headers["etag"]
    assert not list(studio.cache.glob("*.part"))


def test_an_episode_that_cannot_be_drawn_says_why(client: TestClient) -> None:
    for address in ("/media/video/run/s/gone/0/front.mp4", "/media/preview/run/s/gone/0.mp4"):
        answer = client.get(address)
        assert answer.status_code == 409
        assert answer.json()["message"] == "its scene is gone"
    unknown = client.get("/media/video/run/s/t/0/side.mp4")
    assert (unknown.status_code, unknown.json()["message"]) == (
        404, "there is no camera 'side'",
    )  # fmt: skip


def test_a_preview_is_small_and_shows_every_fourth_step(client: TestClient, tmp_path: Path) -> None:
    sent = client.get("/media/preview/run/s/t/0.mp4")
    frames = decoded(sent.content, tmp_path)
    assert [round(float(f.mean()) / 10) for f in frames] == [2, 6, 10]  # steps 0, 4, 8
    assert frames[0].shape == (128, 128, 3)
    with av.open(str(tmp_path / "x.mp4")) as file:
        assert file.streams.video[0].average_rate == 10


@pytest.fixture
def slow_server(root: Path, tmp_path: Path) -> Iterator[str]:
    """A real server whose pictures take a fifth of a second each."""
    illustrator = GreyIllustrator(pause_s=0.2)
    studio = Studio(illustrator, tmp_path / "cache", processes=1)
    app = application(Library(Shelf([root]), illustrator), studio)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()
    studio.close()


def test_a_film_is_sent_while_it_is_drawn_and_others_are_answered(slow_server: str) -> None:
    with httpx2.stream("GET", f"{slow_server}/media/video/run/s/t/0/front.mp4") as film:
        size, pieces, arrived = int(film.headers["content-length"]), 0, [time.perf_counter()]
        document = None
        for piece in film.iter_raw():
            pieces += len(piece)
            arrived.append(time.perf_counter())
            if document is None:  # in the middle of the film
                document = httpx2.get(f"{slow_server}/data/run/run.json")
                answered = time.perf_counter()
        ended = time.perf_counter()
    assert document is not None
    assert document.status_code == 200
    assert pieces == size
    assert ended - arrived[1] > 1.0  # nine more pictures of 0.2 s were drawn after the first piece
    assert answered < ended - 0.5


def test_the_end_of_a_film_does_not_wait_for_its_middle(slow_server: str) -> None:
    address = f"{slow_server}/media/video/other/s/t/1/front.mp4"
    started = time.perf_counter()
    httpx2.get(address, headers={"Range": "bytes=0-100"})
    first = time.perf_counter()
    tail = httpx2.get(address, headers={"Range": "bytes=-10"})
    assert (tail.status_code, len(tail.content)) == (206, 10)
    # Drawn before: at most a moment of 6 pictures, then the last one; not all of 10.
    print(f"{first - started:.1f} s to the header, {time.perf_counter() - first:.1f} s to the end")
    assert time.perf_counter() - first < 8 * 0.2 + 0.4


def test_a_dead_process_is_replaced(root: Path, tmp_path: Path) -> None:
    own = Studio(GreyIllustrator(), tmp_path, processes=1)
    try:
        visit = visitor(root, own)
        assert visit.get("/media/preview/run/s/t/0.mp4").status_code == 200
        own._desks[0].process.kill()
        own._desks[0].process.join()
        assert visit.get("/media/preview/run/s/t/1.mp4").status_code == 200
    finally:
        process = own._desks[0].process
        own.close()
    assert process is not None
    assert not process.is_alive()
