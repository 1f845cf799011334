"""Show an imaginer what really came, in its own latent space.

For every query the frames at the steps that `ImaginationSpec.frame_offsets` names are
encoded by the imaginer itself, so imagined and real latents lie in the very same space.
Encoding the present frame repeated gives the baseline "nothing moves". Horizons past the
executed part of a chunk were never acted out as imagined and are marked so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from wamsim import gallery
from wamsim.contracts import Frames, ImaginationSpec, Imagined
from wamsim.conventions import Orientation, orient
from wamsim.errors import PolicyFault
from wamsim.gallery import Gallery


@dataclass
class Foreseen:
    """One query's imagination and the frames that really came.

    Attributes:
        step: Env step of the query.
        latents: [K, ...] imagined.
        frames: uint8 [K, H, W, 3] imagined, or None.
        real: uint8 [T, cams, H, W, 3], None until the chunk has run.
        still: The present frame in place of every later one, same shape.
        executed: bool [K], whether the horizon was acted out as imagined.
    """

    step: int
    latents: NDArray[Any]
    frames: Frames | None
    real: Frames | None
    still: Frames
    executed: NDArray[np.bool_]


class Encoder(Protocol):
    """Who puts real frames into the space of its imagination: a policy or a world model."""

    def encode(self, frames: Frames) -> NDArray[Any]:
        """uint8 [B, T, cams, H, W, 3] -> [B, K, ...]."""
        ...


class Reality:
    """Keeps what was imagined beside what came, and encodes it when an episode ends.

    Args:
        encoder: The imaginer.
        name: Its name, for error texts.
        spec: What it imagines.
        view: Which view shows it reality.
        batch: Rows per call of `encode`.
        orientation: Which way up it wants its pictures.
        prefix: Put before the names of its arrays ("world_" for a world model).
    """

    def __init__(
        self,
        encoder: Encoder,
        name: str,
        spec: ImaginationSpec,
        *,
        view: int,
        batch: int,
        orientation: Orientation = Orientation.UPRIGHT,
        prefix: str = "",
    ) -> None:
        if not hasattr(encoder, "encode"):
            raise PolicyFault(
                f"{name!r} says that it imagines but has no encode(frames); without it "
                f"imagination cannot be compared with what came"
            )
        self.spec = spec
        self.prefix = prefix
        self._encoder = encoder
        self._name = name
        self._view = view
        self._batch = batch
        self._orientation = orientation

    def remember(
        self,
        imagined: Imagined | None,
        row: int,
        galleries: Sequence[Gallery],
        step: int,
        *,
        batch: int,
    ) -> Foreseen:
        """Keep one row of what a policy imagined, with the present as it is now.

        Raises:
            PolicyFault: Nothing was imagined, or not in the promised shape.
        """
        if imagined is None:
            raise PolicyFault(
                f"{self._name!r} promises imagination but returned none at step {step}"
            )
        spec = self.spec
        latents = np.asarray(imagined.latents)
        self._check_shape("imagined latents", latents, batch)
        frames = imagined.frames
        if frames is not None and frames.shape[:2] != (batch, len(spec.horizons)):
            raise PolicyFault(
                f"{self._name!r} imagined frames of shape {frames.shape}, but "
                f"its card promises {batch} rows of {len(spec.horizons)}"
            )
        past = [min(o, 0) for o in spec.frame_offsets]
        return Foreseen(
            step=step,
            latents=latents[row].copy(),
            frames=None if frames is None else frames[row].copy(),
            real=None,
            still=self._frames(galleries, [step + o for o in past]),
            executed=np.zeros(len(spec.horizons), bool),
        )

    def capture(self, foreseen: Foreseen, galleries: Sequence[Gallery], now: int) -> None:
        """Keep the frames that came after a query, up to env step `now`."""
        steps = [min(foreseen.step + o, now) for o in self.spec.frame_offsets]
        foreseen.real = self._frames(galleries, steps)
        foreseen.executed = np.array([foreseen.step + h <= now for h in self.spec.horizons])

    def _frames(self, galleries: Sequence[Gallery], steps: Sequence[int]) -> Frames:
        frames = gallery.stack_frames(galleries[self._view].stack(steps))
        return orient(frames, self._orientation)

    def arrays(self, foreseen: Sequence[Foreseen]) -> dict[str, NDArray[Any]]:
        """Encode an episode's frames and lay imagined beside real.

        Returns:
            With the prefix: imagined_latents, real_latents, still_latents [Q, K, ...] float16;
            imagined_executed [Q, K] bool; imagined_steps [Q]; imagined_frames
            [Q, K, H, W, 3] where the policy draws.
        """
        kept = [f for f in foreseen if f.real is not None]
        if not kept:
            return {}
        out: dict[str, NDArray[Any]] = {
            "imagined_steps": np.array([f.step for f in kept], np.int32),
            "imagined_latents": np.stack([f.latents for f in kept]).astype(np.float16),
            "imagined_executed": np.stack([f.executed for f in kept]),
            "real_latents": self._encode([cast(Frames, f.real) for f in kept]),
            "still_latents": self._encode([f.still for f in kept]),
        }
        if all(f.frames is not None for f in kept):
            out["imagined_frames"] = np.stack([cast(Frames, f.frames) for f in kept])
        return {self.prefix + name: array for name, array in out.items()}

    def _encode(self, rows: Sequence[Frames]) -> NDArray[np.float16]:
        out: list[NDArray[Any]] = []
        for first in range(0, len(rows), self._batch):
            part = list(rows[first : first + self._batch])
            padded = gallery.stack_rows(part, self._batch)
            latents = np.asarray(self._encoder.encode(padded))
            self._check_shape("encode() gave latents", latents, self._batch)
            out.extend(latents[: len(part)])
        return np.stack(out).astype(np.float16)

    def _check_shape(self, what: str, latents: NDArray[Any], batch: int) -> None:
        expected = (batch, len(self.spec.horizons), *self.spec.latent_shape)
        if latents.shape != expected:
            raise PolicyFault(
                f"{self._name!r}: {what} of shape {latents.shape}, but its "
                f"card promises {expected} (batch, horizons, latent)"
            )
