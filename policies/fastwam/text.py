"""The frozen UMT5 encoder and its tokenizer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from policies.fastwam.config import TextConfig
from policies.words import WORDS, word_ids
from wamsim.errors import WamsimError

REMEMBERED = 256  # prompts; one of UMT5-XXL's contexts takes 2 MB


class InstructionTooLong(WamsimError):
    """An instruction has more tokens than the encoder's context."""


class TextEncoder(nn.Module):
    """Prompts to contexts of a fixed length.

    Each prompt is encoded alone and remembered, so that a context does not depend on the
    batch that it is asked for in.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        sizes = UMT5Config(
            vocab_size=config.vocab,
            d_model=config.dim,
            d_kv=config.key_dim,
            d_ff=config.ffn,
            num_layers=config.layers,
            num_heads=config.heads,
            dropout_rate=0.0,
        )
        # The stack alone: the model around it holds the embedding a second time.
        self.umt5 = UMT5EncoderModel(sizes).encoder
        self.tokenizer: Any = None
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    def load_tokenizer(self, source: str | None = None) -> None:
        """Load the tokenizer from a folder or hub id instead of the configured one.

        Raises:
            WamsimError: There is none.
        """
        name = source or self.config.tokenizer
        if name == WORDS:
            self.tokenizer = WORDS
            return
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise WamsimError(
                f"no tokenizer at {name!r} ({error}). Pass a folder of Wan2.2's parts with one: "
                f"--set parts=FOLDER"
            ) from error

    def tokenize(self, prompt: str) -> list[int]:
        """Give the token ids of one prompt, the end token included where there is one.

        Raises:
            InstructionTooLong: More than the context holds. (The repository cuts it off.)
        """
        ids = self._ids(prompt)
        if len(ids) > self.config.length:
            raise InstructionTooLong(
                f"the prompt has {len(ids)} tokens, the text encoder takes {self.config.length}. "
                f"Shorten the instruction: {prompt!r}"
            )
        return ids

    def _ids(self, prompt: str) -> list[int]:
        if self.tokenizer is None:
            self.load_tokenizer()
        assert self.tokenizer is not None
        if self.tokenizer == WORDS:
            return word_ids(prompt, self.config.vocab)
        return list(self.tokenizer(" ".join(prompt.split())).input_ids)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts.

        Places past a prompt's end are zero, and are attended to (Wan's context has no mask).

        Returns:
            [B, length, dim].
        """
        return torch.stack([self._one(prompt) for prompt in prompts])

    def _one(self, prompt: str) -> Tensor:
        if prompt in self._known:
            self._known.move_to_end(prompt)
            return self._known[prompt]
        ids = self.tokenize(prompt)
        length, device = self.config.length, self.umt5.embed_tokens.weight.device
        padded = torch.zeros((1, length), dtype=torch.long, device=device)
        padded[0, : len(ids)] = torch.tensor(ids, device=device)
        mask = torch.zeros_like(padded)
        mask[0, : len(ids)] = 1
        context = self.umt5(input_ids=padded, attention_mask=mask).last_hidden_state[0]
        context[len(ids) :] = 0
        self._known[prompt] = context
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return context

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._known.clear()  # another device or precision
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._known.clear()  # other weights
        super()._load_from_state_dict(*args, **kwargs)
