"""Imagined, real and difference as one picture a query.

A model that draws left its pictures in the episode file. For one that does not, the picture
of a latent is the run's nearest real frame: that of the real latent nearest to it among
the episodes of the same task, at the same horizon. It is marked as retrieval wherever shown.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from PIL import Image

from wamsim.contracts import Frames

DECODED = "decoded"
RETRIEVAL = "retrieval"

_NOTES = {
    DECODED: "Imagined pictures are the model's own, decoded from its latents.",
    RETRIEVAL: "This model has no decoder: shown is the nearest real frame to the imagined "
    "latent, found among this run's episodes of the task. It is a retrieval, no imagined picture.",
}
RETRIEVED_SIZE = 128  # pixels of a camera in a drawn cell
_EMPTY = 40  # grey of a cell that nothing belongs in
_STRIP_HEIGHT = 64
_STRIP_WIDTH = 16000  # WebP ends at 16383


@dataclass(frozen=True, kw_only=True)
class Sheets:
    """What an imaginer's pictures of one episode are.

    Attributes:
        path: The episode file.
        prefix: Of its arrays.
        kind: DECODED or RETRIEVAL.
        cameras: Side by side in a cell.
        horizons: K, the columns.
        queries: Q.
        rows: Of every sheet.
        cell: (height, width).
        strip_horizon: Index of the horizon that the strip shows: the last one that was
            executed at all.
    """

    path: Path
    prefix: str
    kind: str
    cameras: tuple[str, ...]
    horizons: tuple[int, ...]
    queries: int
    rows: tuple[str, ...]
    cell: tuple[int, int]
    strip_horizon: int

    @property
    def note(self) -> str:
        """A sentence for people."""
        note = _NOTES[self.kind]
        if self.kind == DECODED and "ceiling" in self.rows:
            note += " The ceiling is what its decoder makes of the real frame."
        if self.kind == DECODED and "real" not in self.rows:
            note += " Real frames of the same cut were not recorded, so there is no difference."
        return note

    @property
    def strip_cell(self) -> tuple[int, int]:
        """(height, width) of a strip's cells: small, and so that all queries fit."""
        height, width = self.cell
        scale = min(1.0, _STRIP_HEIGHT / height, _STRIP_WIDTH / (max(self.queries, 1) * width))
        return max(1, round(height * scale)), max(1, round(width * scale))


def describe(path: Path, prefix: str, note: Mapping[str, Any], names: set[str]) -> Sheets | None:
    """Say which pictures an imaginer's part of an episode file has; None when it has none.

    Args:
        path: The episode file.
        prefix: Of the imaginer's arrays.
        note: What the record says of it.
        names: Of all arrays.
    """
    horizons = tuple(int(h) for h in note["horizons"])
    cameras = tuple(str(c) for c in note.get("cameras", ()))
    if prefix + "imagined_latents" not in names or not cameras:
        return None
    safe_open: Any = safetensors.safe_open  # its stub leaves the context manager untyped
    with safe_open(path, framework="np") as file:
        executed: NDArray[np.bool_] = file.get_tensor(prefix + "imagined_executed")
        decoded = prefix + "imagined_frames" in names
        if decoded:
            shape = file.get_slice(prefix + "imagined_frames").get_shape()
            cell = (int(shape[2]), int(shape[3]))
        else:
            cell = (RETRIEVED_SIZE, RETRIEVED_SIZE * len(cameras))
    rows: tuple[str, ...] = ("real", "imagined", "difference")
    if decoded and prefix + "real_frames" not in names:
        rows = ("imagined",)
    if decoded and prefix + "ceiling_frames" in names:
        rows = (*rows, "ceiling")
    done = np.flatnonzero(executed.any(0))
    return Sheets(
        path=path,
        prefix=prefix,
        kind=DECODED if decoded else RETRIEVAL,
        cameras=cameras,
        horizons=horizons,
        queries=len(executed),
        rows=rows,
        cell=cell,
        strip_horizon=int(done[-1]) if len(done) else len(horizons) - 1,
    )


def query_steps(about: Sheets) -> list[int]:
    """Give the env step of every query."""
    safe_open: Any = safetensors.safe_open
    with safe_open(about.path, framework="np") as file:
        return [int(step) for step in file.get_tensor(about.prefix + "imagined_steps")]


def decoded_sheet(about: Sheets, query: int) -> bytes:
    """Put a query's recorded pictures together: rows by horizons, WebP without loss."""
    parts = _recorded(about, slice(query, query + 1))
    shown = parts.pop("executed")[0]
    return webp(assemble({name: list(frames[0]) for name, frames in parts.items()}, about, shown))


def decoded_strip(about: Sheets) -> bytes:
    """Put all queries' pictures of one horizon together: rows by queries, WebP."""
    parts = _recorded(about, slice(0, about.queries))
    k = about.strip_horizon
    shown = parts.pop("executed")[:, k]
    height, width = about.strip_cell
    small = {
        name: [shrink(frame, (height, width)) for frame in frames[:, k]]
        for name, frames in parts.items()
    }
    return webp(assemble(small, about, shown), lossless=False)


def retrieved_sheet(about: Sheets, shown: Sequence[bool], frames: Sequence[Frames]) -> bytes:
    """Put a retrieval's drawn frames together.

    Args:
        about: The imaginer's pictures.
        shown: A bool a horizon: whether a frame was found; cells without stay empty.
        frames: uint8 [H, W, 3]: K real ones, then the K that were found.
    """
    k = len(about.horizons)
    there = np.array(shown, bool)
    parts = {"real": list(frames[:k]), "imagined": list(frames[k:])}
    return webp(assemble(parts, about, there, empty=~there), lossless=False)


def _recorded(about: Sheets, queries: slice) -> dict[str, NDArray[Any]]:
    arrays = {"executed": "imagined_executed", "imagined": "imagined_frames"}
    arrays |= {name: f"{name}_frames" for name in ("real", "ceiling") if name in about.rows}
    safe_open: Any = safetensors.safe_open
    with safe_open(about.path, framework="np") as file:
        return {
            name: np.asarray(file.get_slice(about.prefix + array)[queries])
            for name, array in arrays.items()
        }


def assemble(
    parts: Mapping[str, Sequence[Frames]],
    about: Sheets,
    shown: NDArray[np.bool_],
    empty: NDArray[np.bool_] | None = None,
) -> Frames:
    """Lay cells out, uint8 [rows * H, columns * W, 3].

    Args:
        parts: Row -> a picture for every column; "difference" is made here.
        about: Which rows.
        shown: bool [columns]; where False only what was imagined is shown, since nothing
            real belongs to it.
        empty: bool [columns], where there is nothing imagined either.
    """
    height, width = parts["imagined"][0].shape[:2]
    columns = len(shown)
    out = np.full((len(about.rows) * height, columns * width, 3), _EMPTY, np.uint8)
    for r, name in enumerate(about.rows):
        for c in range(columns):
            if (empty is not None and empty[c]) or (not shown[c] and name != "imagined"):
                continue
            if name == "difference":
                cell = difference(parts["imagined"][c], parts["real"][c])
            else:
                cell = parts[name][c]
            out[r * height : (r + 1) * height, c * width : (c + 1) * width] = cell
    return out


def difference(imagined: Frames, real: Frames) -> Frames:
    """Show how far two pictures [H, W, 3] are apart: black where equal, per channel."""
    return np.abs(imagined.astype(np.int16) - real).astype(np.uint8)


def shrink(frame: Frames, size: tuple[int, int]) -> Frames:
    """Scale a picture to (height, width)."""
    if frame.shape[:2] == size:
        return frame
    image = Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.LANCZOS)
    return np.asarray(image)


def webp(picture: Frames, *, lossless: bool = True) -> bytes:
    """Encode a picture."""
    out = io.BytesIO()
    # Method 2 of 0..6: a sheet is made while somebody waits, and is looked at once.
    Image.fromarray(picture).save(out, "WEBP", lossless=lossless, quality=85, method=2)
    return out.getvalue()
