"""Every document and picture that the page can ask for, by name; for the server and reports."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

from wamsim.contracts import EpisodeKey
from wamsim.episode import array_names
from wamsim.errors import WamsimError
from wamsim.reality import IMAGINATION_NOTE
from wamsim.viewer import sheets
from wamsim.viewer.artists import Pictures
from wamsim.viewer.board_documents import (
    EXPORTS,
    board,
    compare_document,
    leaderboard_document,
    peers_document,
)
from wamsim.viewer.episode_documents import episode_document
from wamsim.viewer.illustrator import Illustrator
from wamsim.viewer.retrieval import Found, Retrieval, retrieve
from wamsim.viewer.run_documents import Document, run_document, runs_document
from wamsim.viewer.shelf import NotThere, Run, Seen, Shelf
from wamsim.viewer.studio import Studio

_TEXTS_KEPT = 256  # documents; 1 MB for a run of 2,000 episodes, mostly far less


class Text(NamedTuple):
    """A document as it is sent.

    Attributes:
        body: JSON.
        tag: Changes when the document does.
    """

    body: str
    tag: str


class Imaginer(NamedTuple):
    """One imaginer of one episode, looked up."""

    seen: Seen
    prefix: str
    about: sheets.Sheets


class Library:
    """Looks documents up by name; names are never made into paths.

    Args:
        shelf: The runs.
        illustrator: Knows tasks.
    """

    def __init__(self, shelf: Shelf, illustrator: Illustrator) -> None:
        self.shelf = shelf
        self.illustrator = illustrator
        self._texts: dict[str, tuple[object, Text]] = {}
        self._retrievals: dict[tuple[Path, str], tuple[str, Retrieval]] = {}
        self._lock = threading.Lock()

    def text(self, name: str) -> Text:
        """Give a document, written anew only when something that it shows changed.

        Raises:
            NotThere: There is no such document.
            RecordCorrupt: A file that it needs cannot be read.
        """
        runs = self._runs(name)
        state = ([(run.id, run.tag) for run in runs], self.shelf.measures.version)
        with self._lock:
            known = self._texts.get(name)
        if known is not None and known[0] == state:
            return known[1]
        text = write(self.document(name, runs))
        with self._lock:
            self._texts.pop(name, None)
            while len(self._texts) >= _TEXTS_KEPT:
                self._texts.pop(next(iter(self._texts)))
            self._texts[name] = (state, text)
        return text

    def _runs(self, name: str) -> list[Run]:
        """The runs that a document shows."""
        match name.split("/"):
            case ["runs"] | ["leaderboard"] | ["peers", _, _, _]:
                return self.shelf.runs()
            case ["run", run] | ["episode", run, _, _, _] | ["retrieval", run, _, _, _, _]:
                return [self.shelf.run(run)]
            case ["compare", a, b]:
                return [self.shelf.run(a), self.shelf.run(b)]
            case _:
                raise NotThere(f"there is no document {name!r}")

    def document(self, name: str, runs: Sequence[Run]) -> Document:
        """Make a document.

        Args:
            name: Which.
            runs: Those that it shows.

        Raises:
            NotThere, RecordCorrupt: As `text`.
        """
        match name.split("/"):
            case ["runs"]:
                return runs_document(self.shelf, runs)
            case ["leaderboard"]:
                return leaderboard_document(self.shelf, runs)
            case ["run", _]:
                return run_document(self.shelf, runs[0])
            case ["compare", _, _]:
                return compare_document(runs[0], runs[1])
            case ["peers", suite, task, trial]:
                return peers_document(runs, episode_key(suite, task, trial))
            case ["episode", run, suite, task, trial]:
                seen = self.shelf.episode(run, episode_key(suite, task, trial))
                return episode_document(seen, self.illustrator)
            case ["retrieval", run, suite, task, trial, imaginer]:
                key = episode_key(suite, task, trial)
                return self._retrieval_document(name, self.imaginer(run, key, imaginer))
            case _:
                raise NotThere(f"there is no document {name!r}")

    def export(self, file: str) -> tuple[str, str]:
        """Give an exported leaderboard and its content type, by file name.

        Raises:
            NotThere: There is no such file.
        """
        for name, kind, render in EXPORTS.values():
            if name == file:
                return render(board(self.shelf, self.shelf.runs())), kind
        raise NotThere(f"there is no export {file!r}")

    # ----------------------------------------------------------------- pictures

    def likely(self, name: str) -> Pictures | None:
        """A picture of the scene that a reader of this document may look at next.

        Args:
            name: Of a document; an episode's is its own scene.
        """
        kind, *names = name.split("/")
        if kind not in ("runs", "run", "episode"):
            return None
        for run in self._runs(name):
            if run.info is None or run.why_not is not None:
                continue
            files = list(run.paths.values())
            if kind == "episode":
                files = [run.paths[key] for key in [episode_key(*names[1:])] if key in run.paths]
            for file in files:
                if file.record is not None and file.record.steps:
                    try:
                        task = self.illustrator.task(run.info.config, file.record)
                    except WamsimError:
                        break
                    camera = self.illustrator.standard_cameras(task)[0]
                    return Pictures(((file.path, 0),), run.info.config, (camera,), (64, 64))
        return None

    def imaginer(self, run: str, key: EpisodeKey, index: str) -> Imaginer:
        """Look one imaginer of an episode up.

        Raises:
            NotThere: There is none, or it has no pictures.
        """
        seen = self.shelf.episode(run, key)
        notes: Any = seen.record.notes.get(IMAGINATION_NOTE, {})
        prefixes = sorted(notes)
        if not index.isdecimal() or int(index) >= len(prefixes):
            raise NotThere(f"the episode has no imaginer {index!r}")
        prefix = prefixes[int(index)]
        path = seen.file.path
        about = sheets.describe(path, prefix, notes[prefix], array_names(path))
        if about is None:
            raise NotThere("nothing was imagined in this episode that could be shown")
        return Imaginer(seen, prefix, about)

    def sheet(self, one: Imaginer, query: int, studio: Studio) -> bytes | Future[Any]:
        """Give one query's pictures as WebP, or what must be drawn first.

        Returns:
            The picture; or, for a retrieval, the future of the frames that
            `sheets.retrieved_sheet` takes.

        Raises:
            NotThere: There is no such query.
        """
        if not 0 <= query < one.about.queries:
            raise NotThere(f"the episode has no query {query}")
        if one.about.kind == sheets.DECODED:
            return sheets.decoded_sheet(one.about, query)
        return studio.pictures(self.wanted(one, query))

    def wanted(self, one: Imaginer, query: int) -> Pictures:
        """Name the frames of a retrieval's sheet: real ones first, then those found."""
        found = self.retrieval(one).found[query]
        start = self.query_step(one, query)
        path, last = one.about.path, one.seen.record.steps
        real = [(path, min(start + h, last)) for h in one.about.horizons]
        near = [(path, start) if cell is None else (cell.path, cell.step) for cell in found]
        return Pictures(
            steps=(*real, *near),
            config=one.seen.config,
            cameras=one.about.cameras,
            size=(sheets.RETRIEVED_SIZE, sheets.RETRIEVED_SIZE),
        )

    def shown(self, one: Imaginer, query: int) -> tuple[bool, ...]:
        """Say at which horizons of a retrieval's query a frame was found."""
        return tuple(cell is not None for cell in self.retrieval(one).found[query])

    def query_step(self, one: Imaginer, query: int) -> int:
        """Give a query's env step."""
        return sheets.query_steps(one.about)[query]

    def retrieval(self, one: Imaginer) -> Retrieval:
        """Search the run's frames for what an episode's imagination looks like; kept."""
        place = (one.about.path, one.prefix)
        with self._lock:
            known = self._retrievals.get(place)
        if known is not None and known[0] == one.seen.run.tag:
            return known[1]
        result = retrieve(one.seen, one.prefix, one.about.horizons)
        with self._lock:
            if len(self._retrievals) >= _TEXTS_KEPT:
                self._retrievals.pop(next(iter(self._retrievals)))
            self._retrievals[place] = (one.seen.run.tag, result)
        return result

    def _retrieval_document(self, name: str, one: Imaginer) -> Document:
        result = self.retrieval(one)

        def cell(found: Found | None) -> Document | None:
            if found is None:
                return None
            return {"trial": found.trial, "step": found.step, "distance": found.distance}

        return {
            "name": name,
            "live": False,
            "candidates": result.candidates,
            "episodes": result.episodes,
            "note": one.about.note,
            "found": [[cell(f) for f in row] for row in result.found],
        }


def episode_key(suite: str, task: str, trial: str) -> EpisodeKey:
    """Read an episode's key from an address.

    Raises:
        NotThere: The trial is no number.
    """
    if not (trial.isascii() and trial.isdecimal()) or len(trial) > 9:
        raise NotThere(f"there is no trial {trial!r}; trials are numbers")
    return EpisodeKey(suite, task, int(trial))


def write(document: Document) -> Text:
    """Write a document as JSON, with the tag that tells whether it changed."""
    body = json.dumps(document, separators=(",", ":"), allow_nan=False)
    tag = hashlib.blake2b(body.encode(), digest_size=8).hexdigest()
    return Text(f'{{"tag":"{tag}",{body[1:]}', tag)
