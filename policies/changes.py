"""Futures told as changes from a standing world (DECISIONS 36), for models that denoise them."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class ToldAsChanges:
    """A model whose `config.change_spread` says in what units changes are told; 0: not at all."""

    config: Any

    def as_denoised(self, future: Tensor, standing: Tensor | None) -> Tensor:
        """Write latents of futures as they are denoised.

        Args:
            future: As encoded.
            standing: The same for a future in which nothing moves; needed where
                `change_spread` is not 0.
        """
        if not self.config.change_spread:
            return future
        assert standing is not None
        return (future - standing) / self.config.change_spread

    def as_latents(self, denoised: Tensor, standing: Tensor | None) -> Tensor:
        """Undo `as_denoised`."""
        if not self.config.change_spread:
            return denoised
        assert standing is not None
        return denoised * self.config.change_spread + standing
