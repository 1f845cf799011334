"""Words under pictures: what was asked, which env step this is, how it ended.

A `Sheet` lays out one video. The pictures of all cameras stand side by side, untouched;
the bar under them is as slim as the words allow. Typeset in the font that Pillow carries,
so a video looks alike on every machine.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wamsim.contracts import Frames, Outcome

Colour = tuple[int, int, int]

_BACKGROUND: Colour = (15, 18, 22)
_TRACK: Colour = (44, 49, 58)
_TEXT: Colour = (238, 241, 245)
_MUTED: Colour = (150, 158, 170)
_ACCENT: Colour = (96, 165, 250)
# Light on dark, and told apart by lightness too, for those who do not see red and green.
_OUTCOME: dict[Outcome, Colour] = {
    Outcome.SUCCESS: (52, 199, 104),
    Outcome.FAILURE: (226, 62, 62),
    Outcome.ERROR: (232, 160, 32),
}

# Sizes in pixels for pictures 256 pixels high; everything grows with the pictures.
_UNIT_HEIGHT = 256.0
_GAP = 6.0
_FONT = 15.0
_SMALL_FONT = 13.0
_PROGRESS = 3.0
_LINE = 1.35  # line height over font size
_SHRINK = 0.8  # an instruction is set this much smaller before it takes one more line
_LEAST_WIDTH = 320.0  # room for words under a single small picture
_SMOOTHING = 4  # pills are drawn this much larger and scaled down


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is written under the pictures.

    Attributes:
        instruction: What the policy was told.
        limit: The episode's step limit.
        outcome: How it ended; shown on the last frame and while that is held.
        reason: Why, where that can be said.
        note: A few words that hold throughout, e.g. "stand-in visuals".
    """

    instruction: str
    limit: int
    outcome: Outcome
    reason: str | None = None
    note: str = ""


class Sheet:
    """Lays out one video; every frame has the same even size.

    Args:
        caption: The words.
        cameras: How many pictures stand side by side.
        size: (height, width) of each.
    """

    def __init__(self, caption: Caption, cameras: int, size: tuple[int, int]) -> None:
        self.caption = caption
        self.cameras = cameras
        self.size = size
        height, width = size
        self._scale = min(max(height / _UNIT_HEIGHT, 0.8), 3.0)
        self._gap = gap = self._px(_GAP)
        across = cameras * width + (cameras - 1) * gap
        self.width = _even(max(across + 2 * gap, self._px(_LEAST_WIDTH)))
        self._left = (self.width - across) // 2
        self._inner = self.width - 4 * gap  # room for words

        self._small = typeface(self._px(_SMALL_FONT))
        self._font, self._lines = self._set_instruction()
        self._end = self._status(caption.outcome.value, caption.reason)
        room = self._inner - self._counter_width() - 2 * gap
        self._reason_lines: list[str] = []
        if self._end.width > room and caption.reason:
            self._end = self._status(caption.outcome.value, None)
            self._reason_lines = wrapped(caption.reason, self._small, self._inner, 2)
        self._bar_top = height + 2 * gap
        self._row_height = max(self._end.height, _line(self._small))
        self._words_top = self._bar_top + self._px(_PROGRESS) + gap
        self._row_top = self._words_top + len(self._lines) * _line(self._font) + gap // 2
        self._reason_top = self._row_top + self._row_height + gap // 2
        bottom = self._reason_top + len(self._reason_lines) * _line(self._small) + gap
        self.height = _even(bottom)
        self._blank = self._draw_blank()

    def frame(self, pictures: Frames, step: int, *, last: bool = False) -> Frames:
        """Give one frame.

        Args:
            pictures: uint8 [cameras, H, W, 3].
            step: Env steps done.
            last: Show the outcome.

        Returns:
            uint8 [height, width, 3].
        """
        expected = (self.cameras, *self.size, 3)
        if pictures.shape != expected or pictures.dtype != np.uint8:
            raise ValueError(
                f"pictures are {pictures.dtype} {pictures.shape}, expected uint8 {expected}"
            )
        colour = _OUTCOME[self.caption.outcome] if last else _ACCENT
        canvas = self._blank.copy()
        draw = ImageDraw.Draw(canvas)
        if last:
            edge = self._left - self._gap
            draw.rectangle((edge, 0, self.width - edge - 1, self._bar_top - 1), fill=colour)
        self._draw_progress(draw, step, colour)
        self._draw_row(canvas, draw, step, last)
        if last:
            for i, line in enumerate(self._reason_lines):
                at = (2 * self._gap, self._reason_top + i * _line(self._small))
                draw.text(at, line, font=self._small, fill=_TEXT)
        out = np.array(canvas)
        height, width = self.size
        for i, picture in enumerate(pictures):
            left = self._left + i * (width + self._gap)
            out[self._gap : self._gap + height, left : left + width] = picture
        return out

    # ------------------------------------------------------------------- layout

    def _px(self, length: float) -> int:
        return max(1, round(length * self._scale))

    def _set_instruction(self) -> tuple[ImageFont.FreeTypeFont, list[str]]:
        full, least = self._px(_FONT), self._px(_FONT * _SHRINK)
        words = self.caption.instruction
        for most in (1, 2):
            for pixels in range(full, least - 1, -1):
                lines = wrapped(words, typeface(pixels), self._inner, 3)
                if len(lines) <= most:
                    return typeface(pixels), lines
        return typeface(least), wrapped(words, typeface(least), self._inner, 3)

    def _counter_width(self) -> int:
        limit = self.caption.limit
        return round(self._small.getlength(f"step {'0' * len(str(limit))} / {limit}"))

    def _status(self, word: str, reason: str | None) -> Image.Image:
        text = f"{word}: {reason}" if reason else word
        return _pill(text, self._small, _OUTCOME[self.caption.outcome])

    # ------------------------------------------------------------------ drawing

    def _draw_blank(self) -> Image.Image:
        canvas = Image.new("RGB", (self.width, self.height), _BACKGROUND)
        draw = ImageDraw.Draw(canvas)
        for i, line in enumerate(self._lines):
            at = (2 * self._gap, self._words_top + i * _line(self._font))
            draw.text(at, line, font=self._font, fill=_TEXT)
        return canvas

    def _draw_progress(self, draw: ImageDraw.ImageDraw, step: int, colour: Colour) -> None:
        top, bottom = self._bar_top, self._bar_top + self._px(_PROGRESS) - 1
        draw.rectangle((0, top, self.width, bottom), fill=_TRACK)
        done = round(self.width * min(step / max(self.caption.limit, 1), 1.0))
        if done:
            draw.rectangle((0, top, done - 1, bottom), fill=colour)

    def _draw_row(
        self, canvas: Image.Image, draw: ImageDraw.ImageDraw, step: int, last: bool
    ) -> None:
        left, right = 2 * self._gap, self.width - 2 * self._gap
        middle = self._row_top + self._row_height // 2
        limit = self.caption.limit
        # The number is set flush right in a field of fixed width, so that nothing jumps.
        field = left + self._small.getlength(f"step {'0' * len(str(limit))}")
        self._write(draw, left, middle, "step", "lm")
        self._write(draw, field, middle, str(step), "rm", _TEXT)
        self._write(draw, field, middle, f" / {limit}", "lm")
        if last:
            canvas.paste(self._end, (right - self._end.width, middle - self._end.height // 2))
            right -= self._end.width + 2 * self._gap
        else:
            self._write(draw, right, middle, "running", "rm")
            right -= round(self._small.getlength("running")) + 2 * self._gap
        used = field + self._small.getlength(f" / {limit}") + 2 * self._gap
        note = self.caption.note
        if note and used + self._small.getlength(note) <= right:
            self._write(draw, right, middle, note, "rm")

    def _write(
        self,
        draw: ImageDraw.ImageDraw,
        x: float,
        y: float,
        text: str,
        anchor: str,
        colour: Colour = _MUTED,
    ) -> None:
        draw.text((x, y), text, font=self._small, fill=colour, anchor=anchor)


# ---------------------------------------------------------------------------- words


@lru_cache(maxsize=32)
def typeface(pixels: int) -> ImageFont.FreeTypeFont:
    """Pillow's own face in a size: the same on every machine."""
    font = ImageFont.load_default(pixels)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow >= 10.1 with FreeType: all wheels
    return font


def _line(font: ImageFont.FreeTypeFont) -> int:
    return round(font.size * _LINE)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Break text into at most ``most`` lines that fit; what is left over becomes "..."."""
    lines = [""]
    for word in _printable(text).split():
        for piece in _pieces(word, font, width):
            longer = f"{lines[-1]} {piece}".strip()
            if font.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(piece)
    if len(lines) > most:
        lines = lines[:most]
        while lines[-1] and font.getlength(lines[-1] + "...") > width:
            lines[-1] = lines[-1][:-1].rstrip()
        lines[-1] += "..."
    return lines


def _pieces(word: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Cut a word that is wider than a line."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def _printable(text: str) -> str:
    # Pillow's own font has the letters of ASCII; others lose their accents, or become "?".
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode()


def _pill(text: str, font: ImageFont.FreeTypeFont, colour: Colour) -> Image.Image:
    """Words on a rounded plate of a colour, on the bar's background."""
    text = _printable(text)
    pad, height = round(font.size * 0.7), round(font.size * 1.6)
    width = round(font.getlength(text)) + 2 * pad
    large = Image.new("RGB", (width * _SMOOTHING, height * _SMOOTHING), _BACKGROUND)
    ImageDraw.Draw(large).rounded_rectangle(
        (0, 0, large.width - 1, large.height - 1), radius=large.height // 2, fill=colour
    )
    plate = large.resize((width, height), Image.Resampling.LANCZOS)
    luma = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]  # BT.709
    fill = _BACKGROUND if luma > 128 else _TEXT
    ImageDraw.Draw(plate).text((width / 2, height / 2), text, font=font, fill=fill, anchor="mm")
    return plate


def _even(pixels: int) -> int:
    return pixels + pixels % 2
