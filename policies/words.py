"""Instructions to ids without a vocabulary file, for models that start from nothing.

One token a word keeps what is read a fifth as long as bytes would.
"""

from __future__ import annotations

import zlib

WORDS = "words"  # what configurations call it
WORD_PAD = 0


def word_ids(text: str, vocabulary: int) -> list[int]:
    """Give each word's id: a checksum of it, in lower case, from 1 to vocabulary - 1.

    Two words may share one; with the tiny presets' 4096 ids none of LIBERO's do, and all
    instructions of our suites differ.
    """
    return [zlib.crc32(word.encode()) % (vocabulary - 1) + 1 for word in text.lower().split()]
