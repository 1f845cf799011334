"""Pre- and post-processing of published protocols, as data.

A family's config holds an `ImageSteps` and a `GripperSteps`; nothing of it is code in the
loop, and a run's configuration shows it.
"""

from __future__ import annotations

import enum
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wamsim.contracts import Frames
from wamsim.conventions import ActionConvention


class Resample(enum.Enum):
    """Pillow's filters, by name."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


_FILTERS = {
    Resample.NEAREST: Image.Resampling.NEAREST,
    Resample.BILINEAR: Image.Resampling.BILINEAR,
    Resample.BICUBIC: Image.Resampling.BICUBIC,
}


@dataclass(frozen=True, kw_only=True)
class ImageSteps:
    """What happens to an upright picture before a model sees it, in this order.

    Attributes:
        jpeg_quality: Re-encode as JPEG (Cosmos Policy: 95); None leaves it.
        crop_before: Side of a centred crop as a share of the picture's, before resizing; None
            keeps all.
        size: (height, width) after resizing; None keeps the size.
        resample: Filter of resizing.
        crop_area: Centre crop of this share of the *area*, resized back (Cosmos Policy: 0.9
            when trained with crops); None keeps all.
    """

    jpeg_quality: int | None = None
    crop_before: float | None = None
    size: tuple[int, int] | None = None
    resample: Resample = Resample.BILINEAR
    crop_area: float | None = None

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is cut off, so that a point stays at its share of width and height."""
        return self.crop_before is None and self.crop_area is None

    def apply(self, frames: Frames) -> Frames:
        """Process pictures [..., H, W, 3] uint8 to [..., H', W', 3] uint8."""
        lead = frames.shape[:-3]
        flat = frames.reshape(-1, *frames.shape[-3:])
        done = [self._one(picture) for picture in flat]
        return np.stack(done).reshape(*lead, *done[0].shape)

    def _one(self, picture: Frames) -> Frames:
        image = Image.fromarray(picture)
        if self.jpeg_quality is not None:
            buffer = io.BytesIO()
            image.save(buffer, format="JPEG", quality=self.jpeg_quality)
            image = Image.open(buffer).convert("RGB")
        if self.crop_before is not None:
            image = _centre_crop(image, self.crop_before)
        if self.size is not None:
            height, width = self.size
            image = image.resize((width, height), _FILTERS[self.resample])
        if self.crop_area is not None:
            whole = image.size
            image = _centre_crop(image, float(np.sqrt(self.crop_area)))
            image = image.resize(whole, _FILTERS[self.resample])
        return np.asarray(image)


def _centre_crop(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    w, h = int(width * share), int(height * share)
    left, top = (width - w) // 2, (height - h) // 2
    return image.crop((left, top, left + w, top + h))


@dataclass(frozen=True, kw_only=True)
class GripperSteps:
    """What happens to the gripper channels of a model's actions, in this order.

    Attributes:
        from_unit: Model gives 0..1: x becomes 2 x - 1.
        flip: Change the sign (a data set whose 1 means open).
        binarise: Put every switch of the convention (not only grippers) to the bound on its
            side of the middle; between -1 and 1 that keeps only the sign.
    """

    from_unit: bool = False
    flip: bool = False
    binarise: bool = False

    def apply(
        self, actions: NDArray[np.float32], convention: ActionConvention
    ) -> NDArray[np.float32]:
        """Process [..., A] of a convention."""
        out = actions.copy()
        for channel in convention.grippers:
            if self.from_unit:
                out[..., channel] = 2.0 * out[..., channel] - 1.0
            if self.flip:
                out[..., channel] = -out[..., channel]
        for channel in convention.switched if self.binarise else ():
            low, high = convention.low[channel], convention.high[channel]
            side = np.sign(out[..., channel] - (low + high) / 2.0)
            out[..., channel] = (low + high) / 2.0 + (high - low) / 2.0 * side
        return out
