"""Instructions to token ids, padded on the right to one length.

LeRobot pads to the longest instruction of a batch; here always to the limit, so that a
row's numbers do not depend on its neighbours. Padding is masked either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from policies.checkpoint import local_folder
from policies.words import WORD_PAD, WORDS, word_ids
from wamsim.errors import WamsimError


class TextTooLong(WamsimError):
    """An instruction does not fit the model's text limit."""


class Tokenizer:
    """The published tokenizer, or one id per word for models that start from nothing.

    Args:
        name: "words", a folder or a hub id.
        limit: Longest instruction in tokens.
        vocabulary: Number of ids, for words.
    """

    def __init__(self, name: str, limit: int, vocabulary: int) -> None:
        self._name, self._limit, self._vocabulary = name, limit, vocabulary

    def __call__(self, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenise instructions, each ended with a newline as LeRobot does.

        Returns:
            ids int64 [B, limit], valid bool [B, limit].

        Raises:
            TextTooLong: Names the instruction; nothing is cut off silently.
            CheckpointMismatch: The tokenizer's files are not to be had.
        """
        ids = torch.full((len(instructions), self._limit), self._pad, dtype=torch.int64)
        valid = torch.zeros(ids.shape, dtype=torch.bool)
        for row, text in enumerate(instructions):
            found = self._ids(text if text.endswith("\n") else f"{text}\n")
            if len(found) > self._limit:
                raise TextTooLong(
                    f"the instruction has {len(found)} tokens, the model takes {self._limit} "
                    f"(host.text_limit). Shorten it: {text!r}"
                )
            ids[row, : len(found)] = torch.tensor(found)
            valid[row, : len(found)] = True
        return ids, valid

    @property
    def _pad(self) -> int:
        if self._name == WORDS:
            return WORD_PAD
        return int(self._published.pad_token_id or 0)

    def _ids(self, text: str) -> list[int]:
        if self._name == WORDS:
            return word_ids(text, self._vocabulary)
        return list(self._published(text)["input_ids"])

    @cached_property
    def _published(self) -> Any:
        from transformers import AutoTokenizer  # slow to import

        return AutoTokenizer.from_pretrained(local_folder(self._name))
