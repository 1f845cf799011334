"""Show an imaginer what really came, in its own latent space.

For every query the frames at the steps that `ImaginationSpec.frame_offsets` names are
encoded by the imaginer itself, so imagined and real latents lie in the very same space.
Encoding the present frame repeated gives the baseline "nothing moves". Horizons past the
executed part of a chunk were never acted out as imagined and are marked so.

Where the imaginer drew pictures, the real ones and the tokenizer's own ceiling,
decode(encode(real)), are kept and scored beside them. That makes three times the imagined
pictures' bytes: at 224 x 448 pixels and two horizons 1.8 MB a query, 54 MB in 30 queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from wamsim import gallery
from wamsim.contracts import Frames, ImaginationSpec, Imagined, Imaginer
from wamsim.conventions import Orientation, orient
from wamsim.errors import PolicyFault
from wamsim.gallery import Gallery
from wamsim.imagination.pictures import compare_pictures

IMAGINATION_NOTE = "imagination"  # in `Record.notes`: prefix -> what `Reality.note` gives

# Rows per call of encode() and what draws: an episode's queries all wait when it ends, and four
# cost an autoencoder on a CPU half of what one by one do (DECISIONS 71). Always as many, so that
# no row's bytes depend on how many others there are.
AT_ONCE = 4

_FLOAT16_END = 65504.0  # IEEE 754-2008 binary16, the largest finite number


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
        other: [K, ...] imagined under other actions, or None.
    """

    step: int
    latents: NDArray[Any]
    frames: Frames | None
    real: Frames | None
    still: Frames
    executed: NDArray[np.bool_]
    other: NDArray[Any] | None = None


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
        self._orientation = orientation

    def remember(
        self,
        imagined: Imagined | None,
        row: int,
        galleries: Sequence[Gallery],
        step: int,
        *,
        batch: int,
        other: Imagined | None = None,
    ) -> Foreseen:
        """Keep one row of what a policy imagined, with the present as it is now.

        Args:
            imagined: Of all rows.
            row: Which of them.
            galleries: The episode's looks, per view.
            step: Env step of the query.
            batch: Number of rows.
            other: The same under other actions, where it was asked for.

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
            other=None if other is None else np.asarray(other.latents)[row].copy(),
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
            With the prefix: imagined_latents, real_latents, still_latents [Q, K, ...] float16
            (float32 where float16 would overflow), other_latents likewise where asked for;
            imagined_executed [Q, K] bool; imagined_steps [Q]; imagined_frames
            [Q, K, H, W, 3] where the policy draws, and then see `_pictures`.
        """
        kept = [f for f in foreseen if f.real is not None]
        if not kept:
            return {}
        real = self._encode([cast(Frames, f.real) for f in kept])
        out: dict[str, NDArray[Any]] = {
            "imagined_steps": np.array([f.step for f in kept], np.int32),
            "imagined_latents": _small(np.stack([f.latents for f in kept])),
            "imagined_executed": np.stack([f.executed for f in kept]),
            "real_latents": _small(real),
            "still_latents": _small(self._encode([f.still for f in kept])),
        }
        if all(f.other is not None for f in kept):
            out["other_latents"] = _small(np.stack([cast(NDArray[Any], f.other) for f in kept]))
        if all(f.frames is not None for f in kept):
            out["imagined_frames"] = np.stack([cast(Frames, f.frames) for f in kept])
            out.update(self._pictures(out["imagined_frames"], kept, real))
        return {self.prefix + name: array for name, array in out.items()}

    def note(self) -> dict[str, Any]:
        """Say in an episode's record what the arrays' axes mean."""
        spec = self.spec
        return {
            "imaginer": self._name,
            "horizons": list(spec.horizons),
            "frame_offsets": list(spec.frame_offsets),
            "cameras": list(spec.cameras),
            "orientation": self._orientation.value,
        }

    def _pictures(
        self, imagined: Frames, kept: Sequence[Foreseen], real: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        """Put real pictures, and what the tokenizer makes of them, beside imagined ones.

        Real pictures are those at the horizons, cameras side by side. Where the imaginer's
        pictures have another size (it crops or resizes), it must say how reality looks to
        it: ``pictures(frames [B, T, cams, H, W, 3]) -> [B, K, H, W, 3]``; else nothing is
        compared.

        Returns:
            real_frames, ceiling_frames uint8 [Q, K, H, W, 3]; imagined_mse, imagined_ssim,
            ceiling_mse, ceiling_ssim float32 [Q, K], NaN where not executed. Nothing without
            an executed horizon; no ceiling without a decoder.
        """
        executed = np.stack([f.executed for f in kept])
        shown = self._real_pictures([cast(Frames, f.real) for f in kept], imagined.shape)
        if shown is None or not executed.any():
            return {}
        mse, similarity = compare_pictures(imagined, shown, executed)
        out = {"real_frames": shown, "imagined_mse": mse, "imagined_ssim": similarity}
        if self.spec.decodes:
            redraw = getattr(self._encoder, "redraw", None)
            if redraw is not None:
                best = self._batched(redraw, [cast(Frames, f.real) for f in kept])
            else:
                best = self._batched(cast(Imaginer, self._encoder).decode, list(real))
            if best.shape != imagined.shape:
                what = "decode" if redraw is None else "redraw"
                raise PolicyFault(
                    f"{self._name!r}: {what}() gave pictures of shape {best.shape[1:]}, but it "
                    f"imagined {imagined.shape[1:]}"
                )
            mse, similarity = compare_pictures(best, shown, executed)
            out |= {"ceiling_frames": best, "ceiling_mse": mse, "ceiling_ssim": similarity}
        return out

    def _real_pictures(self, real: Sequence[Frames], shape: tuple[int, ...]) -> Frames | None:
        spec = self.spec
        own = getattr(self._encoder, "pictures", None)
        if own is not None:
            shown = self._batched(own, real)
            if shown.shape != shape:
                raise PolicyFault(
                    f"{self._name!r}: pictures() gave {shown.shape[1:]}, but it imagined "
                    f"pictures of shape {shape[1:]}"
                )
            return shown
        if not set(spec.horizons) <= set(spec.frame_offsets):
            return None
        at = [spec.frame_offsets.index(h) for h in spec.horizons]
        beside = np.stack([np.concatenate(list(row[at].swapaxes(0, 1)), axis=2) for row in real])
        return beside if beside.shape == shape else None

    def _encode(self, rows: Sequence[Frames]) -> NDArray[Any]:
        def encode(frames: Frames) -> NDArray[Any]:
            latents = np.asarray(self._encoder.encode(frames))
            self._check_shape("encode() gave latents", latents, AT_ONCE)
            return latents

        return self._batched(encode, rows)

    def _batched(
        self, call: Callable[[NDArray[Any]], NDArray[Any]], rows: Sequence[NDArray[Any]]
    ) -> NDArray[Any]:
        """Call the imaginer on batches of one fixed size."""
        out: list[NDArray[Any]] = []
        for first in range(0, len(rows), AT_ONCE):
            part = list(rows[first : first + AT_ONCE])
            out.extend(call(gallery.stack_rows(part, AT_ONCE))[: len(part)])
        return np.stack(out)

    def _check_shape(self, what: str, latents: NDArray[Any], batch: int) -> None:
        expected = (batch, len(self.spec.horizons), *self.spec.latent_shape)
        if latents.shape != expected:
            raise PolicyFault(
                f"{self._name!r}: {what} of shape {latents.shape}, but its "
                f"card promises {expected} (batch, horizons, latent)"
            )


def _small(latents: NDArray[Any]) -> NDArray[Any]:
    """Halve the bytes, unless a number would overflow."""
    fits = np.abs(latents[np.isfinite(latents)]).max(initial=0.0) <= _FLOAT16_END
    return latents.astype(np.float16 if fits else np.float32)
