"""Mixture of transformers: one attention over the tokens of both experts.

Source: FastWAM repository, models/wan22/mot.py and the masks of fastwam.py,
fastwam_joint.py, fastwam_idm.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from policies.fastwam.blocks import KeyValue, attend
from policies.fastwam.experts import Stream, as_block

# Kinds of tokens: V0 first latent frame, V+ later ones, C0 and C+ the same of IDM's
# conditioning copy, A actions.
Groups = Sequence[tuple[str, int]]

_VIDEO = {"V0": {"V0"}, "V+": {"V0", "V+"}}  # the repository's "first_frame_causal"
# Who may attend to whom. Video attends to actions in no variant.
ATTENDS: Mapping[str, Mapping[str, set[str]]] = {
    "fastwam": {**_VIDEO, "A": {"V0", "A"}},
    "no_video_cotrain": {**_VIDEO, "A": {"V0", "A"}},
    "joint": {**_VIDEO, "A": {"V0", "V+", "A"}},
    "idm": {**_VIDEO, "C0": {"C0"}, "C+": {"C0", "C+"}, "A": {"C0", "C+", "A"}},
}


def attention_mask(
    variant: str, queries: Groups, keys: Groups, *, device: torch.device | str = "cpu"
) -> Tensor:
    """Build a mask from the table.

    Args:
        variant: Row of `ATTENDS`.
        queries, keys: (kind, number of tokens), in order.
        device: Of the result.

    Returns:
        bool [queries, keys], True where a query may attend.
    """
    table = ATTENDS[variant]
    rows = [
        torch.cat([torch.full((n, m), k in table[q], device=device) for k, m in keys], dim=1)
        for q, n in queries
    ]
    return torch.cat(rows, dim=0)


def run(
    streams: Sequence[Stream], mask: Tensor, past: Sequence[KeyValue] | None = None
) -> tuple[list[Tensor], list[KeyValue]]:
    """Send streams through all blocks.

    Args:
        streams: Their tokens are attended to in this order, behind the past.
        mask: bool [S, P + S].
        past: Keys and values of P tokens that went through earlier, per block.

    Returns:
        Tokens of each stream, [B, S_i, hidden_i]; keys and values of the streams' tokens
        (the past not repeated), per block.
    """
    tokens = [s.x for s in streams]
    lengths = [x.shape[1] for x in tokens]
    kept: list[KeyValue] = []
    for layer in range(len(streams[0].blocks)):
        blocks = [as_block(s.blocks[layer]) for s in streams]
        modulations = [b.modulate(s.time) for b, s in zip(blocks, streams, strict=True)]
        projected = [
            b.project(x, m[0], m[1], s.angles)
            for b, x, m, s in zip(blocks, tokens, modulations, streams, strict=True)
        ]
        query, key, value = (torch.cat(parts, dim=1) for parts in zip(*projected, strict=True))
        kept.append((key, value))
        if past is not None:
            key = torch.cat([past[layer][0], key], dim=1)
            value = torch.cat([past[layer][1], value], dim=1)
        mixed = attend(query, key, value, blocks[0].self_attn.heads, mask)
        tokens = [
            b.finish(x, part, s.context[layer], m)
            for b, x, part, s, m in zip(
                blocks, tokens, mixed.split(lengths, dim=1), streams, modulations, strict=True
            )
        ]
    return tokens, kept


def joined(first: Sequence[KeyValue], second: Sequence[KeyValue]) -> list[KeyValue]:
    """Put two pasts behind one another."""
    return [
        (torch.cat([a[0], b[0]], dim=1), torch.cat([a[1], b[1]], dim=1))
        for a, b in zip(first, second, strict=True)
    ]
