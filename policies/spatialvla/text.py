"""Instructions to token ids: words without any vocabulary file, or the published tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from policies.checkpoint import CheckpointMismatch
from policies.words import word_ids
from wamsim.errors import WamsimError

TOKENIZER_FOLDER = "tokenizer"
_PAD, _BOS = 0, 1  # our own numbering


class InstructionTooLong(WamsimError):
    """An instruction has more tokens than the model's text part holds."""


class Tokenizer(Protocol):
    """What the model needs of a tokenizer."""

    size: int

    def encode(self, text: str) -> list[int]:
        """Give ids, a beginning-of-sequence token first."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `load_tokenizer` reads."""
        ...


class WordTokenizer:
    """Words behind a beginning-of-sequence token; needs no file. See `policies.words`.

    Args:
        size: Number of ids.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def encode(self, text: str) -> list[int]:
        """Give 1 + number-of-words ids."""
        return [_BOS, *(i + _BOS for i in word_ids(text, self.size - _BOS))]

    def save(self, folder: Path) -> None:
        """Nothing to write: its absence means words."""


class PublishedTokenizer:
    """A tokenizer in the hub's layout (LLaVA-3D: Llama's, 32000 pieces)."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            self._own: Any = AutoTokenizer.from_pretrained(str(folder))
        except Exception as error:
            raise CheckpointMismatch(
                f"the tokenizer could not be read ({error}). A tokenizer.model needs the "
                f"sentencepiece package; a tokenizer.json does not. Folder: {folder}"
            ) from error
        self.size = len(self._own)

    def encode(self, text: str) -> list[int]:
        """Give ids, the beginning-of-sequence token first also where the files forget it."""
        ids = [int(i) for i in self._own.encode(text)]
        start = self._own.bos_token_id
        return ids if start is None or ids[:1] == [start] else [int(start), *ids]

    def save(self, folder: Path) -> None:
        """Write beside the weights."""
        self._own.save_pretrained(str(folder / TOKENIZER_FOLDER))


def load_tokenizer(folder: Path, size: int) -> Tokenizer:
    """Read the tokenizer beside weights of ours; where there is none, `size` ids of words."""
    own = folder / TOKENIZER_FOLDER
    return PublishedTokenizer(own) if own.is_dir() else WordTokenizer(size)


def tokenise(
    tokenizer: Tokenizer, instructions: Sequence[str], *, limit: int
) -> tuple[Tensor, Tensor]:
    """Encode instructions and pad them all to the limit.

    Args:
        tokenizer: Which.
        instructions: B strings; an empty one (a padding row) is the start token alone.
        limit: Length (L).

    Returns:
        int64 ids [B, L] and which are real, bool [B, L].

    Raises:
        InstructionTooLong: Says how long and what fits.
    """
    ids = torch.full((len(instructions), limit), _PAD)
    valid = torch.zeros(len(instructions), limit, dtype=torch.bool)
    for row, text in enumerate(instructions):
        own = tokenizer.encode(text)
        if len(own) > limit:
            raise InstructionTooLong(
                f"an instruction of {len(own)} tokens, but the model takes {limit}. Shorten it "
                f"or train with a larger text_tokens. It begins: {text[:80]!r}"
            )
        ids[row, : len(own)] = torch.tensor(own)
        valid[row, : len(own)] = True
    return ids, valid
