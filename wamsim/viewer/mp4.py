"""The mp4 container of a film whose frames are all of one size in bytes.

With the size of every frame fixed beforehand the whole header is known before the first
frame is: a browser may ask for any second of a film that is still being drawn.

Source: ISO/IEC 14496-12 (boxes) and 14496-15, 5.3 (H.264 in them: ``avc1``, ``avcC``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction

_BRANDS = b"isom" + struct.pack(">I", 0x200) + b"isomiso2avc1mp41"
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # unity
_UNDETERMINED = 0x55C4  # ISO 639-2 "und", five bits a letter
_BT709_LIMITED = b"nclx" + struct.pack(">HHHB", 1, 1, 1, 0)

_LENGTH = 4  # bytes of a NAL unit's length
_FILLER = 12  # H.264 table 7-1, filler data
_SMALLEST_FILLER = _LENGTH + 2


def film_header(
    *, width: int, height: int, fps: float, frames: int, slot: int, decoder: bytes
) -> bytes:
    """Write everything that comes before the first frame.

    Args:
        width, height: Pixels.
        fps: Frames per second.
        frames: How many there will be.
        slot: Bytes of each.
        decoder: The encoder's parameter sets as AVCDecoderConfigurationRecord (14496-15,
            5.3.3.1), as libx264 gives them without start codes.

    Returns:
        Bytes; frame ``t`` begins ``t * slot`` bytes behind them.
    """
    rate = Fraction(fps).limit_denominator(1000)
    scale, duration = rate.numerator, rate.denominator * frames

    def moov(first: int) -> bytes:
        table = _box(
            b"stbl",
            _full(b"stsd", struct.pack(">I", 1) + _avc1(width, height, decoder)),
            _full(b"stts", struct.pack(">3I", 1, frames, rate.denominator)),
            _full(b"stsc", struct.pack(">4I", 1, 1, frames, 1)),  # one chunk holds all
            _full(b"stsz", struct.pack(">2I", slot, frames)),
            _full(b"stco", struct.pack(">2I", 1, first)),
        )  # no "stss": every frame is a place to jump to
        data = _box(b"dinf", _full(b"dref", struct.pack(">I", 1) + _full(b"url ", b"", 1)))
        media = _box(
            b"mdia",
            _full(b"mdhd", struct.pack(">4I2H", 0, 0, scale, duration, _UNDETERMINED, 0)),
            _full(b"hdlr", struct.pack(">I", 0) + b"vide" + bytes(12) + b"video\0"),
            _box(b"minf", _full(b"vmhd", bytes(8), 1), data, table),
        )
        shown = struct.pack(">5I", 0, 0, 1, 0, duration) + bytes(16) + _MATRIX
        track = _box(
            b"trak",
            _full(b"tkhd", shown + struct.pack(">2I", width << 16, height << 16), 3),
            media,
        )
        speed = struct.pack(">4IIH", 0, 0, scale, duration, 0x10000, 0x100) + bytes(10)
        return _box(b"moov", _full(b"mvhd", speed + _MATRIX + bytes(24) + b"\0\0\0\2"), track)

    begin = _box(b"ftyp", _BRANDS)
    first = len(begin) + len(moov(0)) + 8
    return begin + moov(first) + struct.pack(">I", 8 + frames * slot) + b"mdat"


def padded(units: Sequence[bytes], slot: int) -> bytes | None:
    """Write one frame's NAL units in exactly `slot` bytes.

    Returns:
        None when they do not fit. What is left is a filler NAL unit (H.264, 7.3.2.7), which
        decoders skip.
    """
    data = b"".join(struct.pack(">I", len(unit)) + unit for unit in units)
    left = slot - len(data)
    if left == 0:
        return data
    if left < _SMALLEST_FILLER:
        return None
    filler = bytes([_FILLER]) + b"\xff" * (left - _SMALLEST_FILLER) + b"\x80"
    return data + struct.pack(">I", len(filler)) + filler


def split_units(data: bytes) -> list[bytes]:
    """Cut NAL units that each follow their length in four bytes."""
    out: list[bytes] = []
    at = 0
    while at + _LENGTH <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        out.append(data[at + _LENGTH : at + _LENGTH + length])
        at += _LENGTH + length
    return out


def _avc1(width: int, height: int, decoder: bytes) -> bytes:
    about = bytes(6) + struct.pack(">H", 1) + bytes(16)
    about += struct.pack(">2H2I", width, height, 0x480000, 0x480000) + bytes(4)
    about += struct.pack(">H", 1) + bytes(32) + struct.pack(">2H", 24, 0xFFFF)
    return _box(b"avc1", about, _box(b"avcC", decoder), _box(b"colr", _BT709_LIMITED))


def _box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + kind + data


def _full(kind: bytes, data: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), data)
