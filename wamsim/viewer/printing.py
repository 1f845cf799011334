"""What a report's drawing process does: videos and sheets, into files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wamsim.errors import RecordCorrupt
from wamsim.viewer import sheets
from wamsim.viewer.artists import Hand, Movie, Pictures
from wamsim.viewer.illustrator import Illustrator


@dataclass(frozen=True)
class Plate:
    """A sheet of a retrieval, to be drawn.

    Attributes:
        wanted: Its frames: real ones first, then those found.
        about: The imaginer's pictures.
        shown: A bool a horizon: whether anything was found.
        target: Where the sheet goes.
    """

    wanted: Pictures
    about: sheets.Sheets
    shown: tuple[bool, ...]
    target: Path


class Printer:
    """Makes videos and sheets in this process.

    Args:
        illustrator: Makes the artist.
    """

    def __init__(self, illustrator: Illustrator) -> None:
        self._hand = Hand(illustrator.artist())

    def do(self, job: Any) -> str | None:
        """Do one job of a report (`wamsim.viewer.report.Job`).

        Returns:
            None, or a sentence that says why it was left undone.
        """
        what: Movie | Plate = job.what
        try:
            if isinstance(what, Movie):
                self._hand.do(what)
            else:
                frames = self._hand.do(what.wanted)
                data = sheets.retrieved_sheet(what.about, what.shown, frames)
                what.target.parent.mkdir(parents=True, exist_ok=True)
                what.target.write_bytes(data)
        except RecordCorrupt as error:
            return str(error)
        return None

    def close(self) -> None:
        """Free what drawing holds."""
        self._hand.close()
