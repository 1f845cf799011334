"""What a terminal shows while a run goes on."""

from __future__ import annotations

import io
from pathlib import Path

from episode_doubles import folder_record, key, open_, put
from rich.console import Console

from wamsim.contracts import Outcome
from wamsim.progress import RichProgress


def test_progress_counts_what_was_there_and_what_comes(tmp_path: Path) -> None:
    text = io.StringIO()
    failure = {"outcome": Outcome.FAILURE, "success_step": None}
    with open_(tmp_path / "run") as folder:
        there = [put(folder, key(0)), put(folder, key(1), **failure)]
        with RichProgress(Console(file=text, width=160), "a [policy]") as progress:
            progress.planned(5, there)
            for which, changes in ((2, failure), (3, {"outcome": Outcome.ERROR})):
                progress.episode(folder_record(folder, key(which), **changes))
            progress.said("a worker [died]")
            progress.stepped(100)
    shown = text.getvalue()
    assert "resuming: 2 of 5 episodes are on disk already" in shown
    assert "a worker [died]" in shown  # brackets are no markup
    assert "a [policy]" in shown
    assert "4/5" in shown
    assert "success 1/3 (33%), 1 error" in shown
