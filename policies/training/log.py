"""What a training says while it runs: JSON lines, and TensorBoard where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


class TrainingLog:
    """Appends one JSON object a line to ``log.jsonl``; the same numbers go to TensorBoard.

    Args:
        folder: The training's folder.
        from_step: Lines of later steps, left by a killed run, are dropped.
    """

    def __init__(self, folder: Path, *, from_step: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOG
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= from_step]
            path.write_text("".join(f"{line}\n" for line in kept))
        self._file = path.open("a")
        self._board: Any = None
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:  # optional: pip install tensorboard
            return
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)

    def write(self, step: int, kind: str, values: dict[str, float]) -> None:
        """Write numbers of one kind ("train", "validation", "closed_loop")."""
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):  # half a line of a killed run
        return float("inf")
