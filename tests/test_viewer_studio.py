"""Who draws what next, and what stays in the cache."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from viewer_doubles import GreyIllustrator, write_run

import wamsim.viewer.studio as module
from wamsim.run_folder import episode_files
from wamsim.viewer.desk import CannotDraw
from wamsim.viewer.film import FilmSpec, Layout
from wamsim.viewer.studio import Film, Studio, media_name

FRAMES = 20


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """A film of 20 frames of which none but the first is drawn; 6 are drawn at a time."""
    spec = FilmSpec(
        path=tmp_path / "episode",
        config={},
        camera="front",
        frames=FRAMES,
        fps=20.0,
        target=tmp_path / "film.mp4",
        partial=tmp_path / "film.part",
    )
    made = Film(spec, Layout(100, 10, FRAMES), bytearray(FRAMES))
    made.done[0] = 1
    return made


def test_frames_come_in_order_when_nobody_waits(film: Film) -> None:
    assert film.next_steps() == (1, 2, 3, 4, 5, 6)


def test_frames_begin_where_somebody_waits(film: Film) -> None:
    film.wants["reader"] = 9
    assert film.next_steps() == (9, 10, 11, 12, 13, 14)
    film.wants["who jumped"] = 3
    assert film.next_steps()[0] == 3
    film.done[4] = 1
    assert film.next_steps() == (3,)  # what follows is there


def test_behind_the_end_comes_the_beginning(film: Film) -> None:
    film.wants["reader"] = 17
    assert film.next_steps() == (17, 18, 19)
    for t in (17, 18, 19):
        film.done[t] = 1
    assert film.next_steps() == (1, 2, 3, 4, 5, 6)


def test_a_second_process_takes_other_frames(film: Film) -> None:
    film.wants["reader"] = 1
    film.claimed.update(film.next_steps())
    assert film.next_steps() == (7, 8, 9, 10, 11, 12)
    film.layout = None  # the file is being made
    assert film.next_steps() == ()


def test_a_film_is_finished_when_nothing_is_missing(film: Film) -> None:
    assert not film.finished
    film.done[:] = b"\1" * FRAMES
    assert film.finished
    assert film.next_steps() == ()
    assert film.file == film.spec.target


def test_another_file_at_an_episodes_place_is_another_film(tmp_path: Path) -> None:
    path, stamp = tmp_path / "00000.safetensors", (1, 2)
    names = {
        media_name("film", path, stamp, "front"),
        media_name("film", path, (3, 2), "front"),
        media_name("film", path, stamp, "hand"),
        media_name("preview", path, stamp, "front"),
        media_name("film", tmp_path / "00001.safetensors", stamp, "front"),
    }
    assert len(names) == 5
    assert media_name("film", path, stamp, "front") in names


def test_what_was_longest_not_looked_at_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    for age, name in enumerate(["new.mp4", "middle.mp4", "old.mp4", "drawn-now.part"]):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / "dead.part").write_bytes(bytes(100))
    os.utime(tmp_path / "dead.part", (now - 2 * 86400, now - 2 * 86400))
    monkeypatch.setattr(module, "_CACHE_BYTES", 350)
    Studio(GreyIllustrator(), tmp_path, processes=1).close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["drawn-now.part", "middle.mp4", "new.mp4"]


def test_films_that_are_watched_come_before_previews_and_before_the_rest(tmp_path: Path) -> None:
    write_run(tmp_path / "run", {"t": "+++"})
    first, second, third = episode_files(tmp_path / "run")
    studio = Studio(GreyIllustrator(pause_s=0.01), tmp_path / "cache", processes=1)
    try:
        stamp = (0, 0)
        left = studio.film(first, stamp, {}, "front", frames=10, fps=20.0)  # nobody watches
        watched = studio.film(second, stamp, {}, "front", frames=10, fps=20.0)
        studio.want(watched, "reader", 0)
        preview = studio.preview(third, stamp, {}, "front", frames=10)
        while not watched.finished:
            assert not preview.done()
            assert not left.finished
            time.sleep(0.001)
        preview.result(timeout=30)
        while not left.finished:  # in the end everything that was begun is drawn
            assert left.fault is None
            time.sleep(0.01)
    finally:
        studio.close()


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "cache").write_text("a file, no folder")
    studio = Studio(GreyIllustrator(), tmp_path / "cache" / "viewer", processes=1)
    try:
        path = episode_files(tmp_path / "run")[0]
        preview = studio.preview(path, (0, 0), {}, "front", frames=10)
        with pytest.raises(CannotDraw, match=r"Not a directory.*--cache"):
            preview.result(timeout=60)
    finally:
        studio.close()
