"""Instructions to features [L, D], zero past their length and attended to without a mask.

Published: T5-11B (d = 1024), 512 tokens, from a pickle of precomputed features or from the
encoder itself. Tiny: a T5 encoder of our own that reads words, which needs no vocabulary file.

Source: NVlabs/cosmos-policy, `get_t5_embedding_from_cache` and Cosmos-Predict2's T5 encoder.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch._utils
from torch import Tensor, nn
from transformers import AutoTokenizer, T5Config, T5EncoderModel

from policies.checkpoint import CheckpointMismatch, local_folder
from policies.cosmos.config import TextConfig
from policies.words import word_ids
from wamsim.errors import WamsimError, nearest


class InstructionTooLong(WamsimError):
    """An instruction has more tokens than the text encoder takes."""


class TextSource(Protocol):
    """Anything that gives text features."""

    def embed(self, instructions: Sequence[str]) -> Tensor:
        """Features [B, L, D] of B instructions."""
        ...


def _checked(ids: list[int], instruction: str, limit: int) -> list[int]:
    if len(ids) > limit:
        raise InstructionTooLong(
            f"the instruction has {len(ids)} tokens, but the text encoder takes {limit}; it "
            f"begins {instruction[:60]!r}. Shorten it: cutting it silently would drop words."
        )
    return ids


def _encode(
    encoder: nn.Module, tokens_of: Callable[[str], list[int]], texts: Sequence[str], limit: int
) -> Tensor:
    ids = [_checked(tokens_of(text), text, limit) for text in texts]
    device = next(encoder.parameters()).device
    tokens = torch.zeros(len(ids), limit, dtype=torch.long)
    mask = torch.zeros(len(ids), limit, dtype=torch.long)
    for row, own in enumerate(ids):
        tokens[row, : len(own)] = torch.tensor(own)
        mask[row, : len(own)] = 1
    mask = mask.to(device)
    out = encoder(input_ids=tokens.to(device), attention_mask=mask).last_hidden_state
    return out * mask[..., None].to(out.dtype)


class WordText(nn.Module):
    """The tiny preset's encoder, trained with the model."""

    def __init__(self, config: TextConfig, width: int) -> None:
        super().__init__()
        self.limit = config.max_tokens
        self._vocabulary = config.vocabulary
        whole = T5EncoderModel(
            T5Config(
                vocab_size=config.vocabulary, d_model=width, d_kv=width // config.heads,
                d_ff=config.d_ff, num_layers=config.layers, num_heads=config.heads,
                dropout_rate=0.0, feed_forward_proj="relu",
            )
        )  # fmt: skip
        # the stack alone: the whole model holds its embedding under two names
        self.encoder: nn.Module = whole.encoder

    def embed(self, instructions: Sequence[str]) -> Tensor:
        """Features [B, L, D]; equal instructions are encoded once.

        Raises:
            InstructionTooLong: More words than `TextConfig.max_tokens`.
        """
        unique = list(dict.fromkeys(instructions))
        found = _encode(self.encoder, self._ids, unique, self.limit)
        return found[[unique.index(text) for text in instructions]]

    def _ids(self, text: str) -> list[int]:
        return word_ids(text, self._vocabulary)


class TextTable:
    """Features from the published file, and from T5-11B for other instructions."""

    def __init__(
        self,
        features: Mapping[str, Tensor],
        config: TextConfig,
        width: int,
        *,
        encoder: str | None = None,
        device: str = "cpu",
    ) -> None:
        shape = (config.max_tokens, width)
        self._features: dict[str, Tensor] = {}
        for text, tensor in features.items():
            if tuple(tensor.shape[-2:]) != shape or tensor.numel() != shape[0] * shape[1]:
                raise CheckpointMismatch(
                    f"the text features of {text!r} have shape {tuple(tensor.shape)}, the model "
                    f"takes {shape}. The file belongs to another encoder."
                )
            self._features[text] = tensor.reshape(shape)
        self._shape = shape
        self._source = encoder
        self._device = device
        self._encoder: tuple[T5EncoderModel, Any] | None = None

    def embed(self, instructions: Sequence[str]) -> Tensor:
        """Features [B, L, D]; an empty instruction (a padding row) is all zeros.

        Raises:
            UnknownName: Not in the file, and no encoder was given.
            InstructionTooLong: More tokens than the encoder takes.
        """
        return torch.stack([self._one(text) for text in instructions])

    def _one(self, text: str) -> Tensor:
        if not text:
            return torch.zeros(self._shape)
        if text not in self._features:
            if self._source is None:
                raise nearest(
                    text, self._features, kind="instruction in the checkpoint's text features",
                    hint="Add --set text_encoder=google-t5/t5-11b (a folder or hub id) to "
                    "encode others.",
                )  # fmt: skip
            self._features[text] = self._encode(self._source, text)
        return self._features[text]

    def _encode(self, source: str, text: str) -> Tensor:
        if self._encoder is None:
            folder = local_folder(source)
            dtype = torch.float32 if self._device == "cpu" else torch.bfloat16
            model = T5EncoderModel.from_pretrained(folder, dtype=dtype)
            model.eval()
            nn.Module.to(model, self._device)
            self._encoder = model, AutoTokenizer.from_pretrained(folder)
        # kept features may also serve training: no inference tensors
        with torch.inference_mode(False), torch.no_grad():
            model, tokenizer = self._encoder
            found = _encode(model, lambda t: tokenizer(t)["input_ids"], [text], self._shape[0])
            found = found[0].cpu()
        if tuple(found.shape) != self._shape:
            raise CheckpointMismatch(
                f"the text encoder gives features of shape {tuple(found.shape)}, the model takes "
                f"{self._shape}. Source: {source}"
            )
        return found


class _TensorUnpickler(pickle.Unpickler):
    """Reads a dictionary of tensors and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Allow what a pickled CPU tensor is made of."""
        allowed: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            ("torch.storage", "_load_from_bytes"): _load_storage,
            ("collections", "OrderedDict"): dict,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of a tensor")
        return allowed[(module, name)]


def _load_storage(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def read_features(path: Path) -> dict[str, Tensor]:
    """Read the published pickle {instruction: tensor [1, 512, 1024]}, without running code.

    Raises:
        CheckpointMismatch: It holds anything but text and tensors.
    """
    try:
        if zipfile.is_zipfile(path):  # written by torch.save
            loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
        else:
            with path.open("rb") as file:
                loaded = _TensorUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, RuntimeError) as error:
        raise CheckpointMismatch(
            f"the text features are no plain dictionary of tensors ({error}). File: {path}"
        ) from error
    if not isinstance(loaded, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in loaded.items()
    ):
        raise CheckpointMismatch(
            f"the text features must be a dictionary from instruction to tensor. File: {path}"
        )
    return loaded
