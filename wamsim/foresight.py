"""What a policy foresaw, as pictures to stand beside what came.

An episode's file holds the pictures that its policy imagined at every query. At an env step
the newest query before it says what was expected: the picture for its nearest horizon that
is not past yet. While a chunk runs that picture stands still, and reality runs into it.

Axes: Q queries, K horizons, hwc pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wamsim.contracts import Frames
from wamsim.conventions import Orientation, orient
from wamsim.episode import array_names, read_episode, read_record
from wamsim.reality import IMAGINATION_NOTE


class Foresight:
    """One imaginer's pictures of an episode.

    Args:
        frames: uint8 [Q, K, H, cameras * W, 3], in the imaginer's orientation.
        steps: int [Q], env steps of the queries, rising.
        horizons: Env steps ahead [K], rising.
        cameras: Those that stand side by side, from the left.
        orientation: Which way up they are.
    """

    def __init__(
        self,
        frames: Frames,
        steps: NDArray[Any],
        horizons: tuple[int, ...],
        cameras: tuple[str, ...],
        orientation: Orientation,
    ) -> None:
        apart = np.stack(np.split(frames, len(cameras), axis=3), axis=2)
        self._frames = orient(apart, orientation)  # turned twice is upright again
        self._steps, self._horizons = [int(s) for s in steps], horizons
        self.cameras = cameras

    def at(self, step: int) -> Frames | None:
        """Give what was expected at an env step.

        Returns:
            uint8 [cameras, H, W, 3], upright; None before the first query's chunk begins, and
            where the chunk reaches beyond all that was imagined.
        """
        before = [q for q, s in enumerate(self._steps) if s < step]
        if not before:
            return None
        ahead = step - self._steps[before[-1]]
        due = next((k for k, h in enumerate(self._horizons) if h >= ahead), None)
        return None if due is None else self._frames[before[-1], due]

    def panels(self, step: int, size: tuple[int, int], beside: Sequence[str]) -> Frames:
        """Give `at` to stand beside what came.

        Args:
            step: Env step.
            size: (height, width) of the panels.
            beside: Cameras of what came. Imagined pictures stand in their order, those of other
                cameras last.

        Returns:
            uint8 [cameras, *size, 3]; black where there is nothing.
        """
        out = np.zeros((len(self.cameras), *size, 3), np.uint8)
        found = self.at(step)
        if found is None:
            return out
        order = [c for c in beside if c in self.cameras]
        order += [c for c in self.cameras if c not in order]
        for i, camera in enumerate(order):
            picture = found[self.cameras.index(camera)]
            image = Image.fromarray(np.ascontiguousarray(picture))
            out[i] = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))
        return out


def read_foresight(path: Path) -> Foresight | None:
    """Read what an episode's imaginer drew; of several the first.

    Returns:
        None where nothing was drawn (no imaginer, none that draws, an episode without a query,
        or one recorded before episodes said which way up imagined pictures are).

    Raises:
        RecordCorrupt: See `read_episode`.
    """
    notes: Mapping[str, Mapping[str, Any]] = read_record(path).notes.get(IMAGINATION_NOTE, {})
    names = array_names(path)
    for prefix, note in sorted(notes.items()):
        wanted = {prefix + "imagined_frames", prefix + "imagined_steps"}
        if wanted <= set(names) and "orientation" in note:
            arrays = read_episode(path, only=wanted).arrays
            return Foresight(
                arrays[prefix + "imagined_frames"],
                arrays[prefix + "imagined_steps"],
                tuple(int(h) for h in note["horizons"]),
                tuple(note["cameras"]),
                Orientation(note["orientation"]),
            )
    return None
