"""Who attends to whom: one rule over blocks, for every variant and mask.

A token has a role; a mask kind gives each role a block number; token i attends to token j
when block(j) <= block(i) and j is no padding (openpi's cumulative block rule). `causal`
takes the token's place for its block number, `full` gives everybody block 0.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from policies.spatialvla.config import Mask


class Role(enum.Enum):
    """What a token stands for."""

    PREFIX = "prefix"  # pictures and words, or the context made of them
    STATE = "state"
    TIME = "time"
    ACTION = "action"


_BLOCKS: dict[Mask, dict[Role, int]] = {
    # the first plan: context <-> context; time -> context, time; actions -> all
    Mask.PREFIX_BLOCK: {Role.PREFIX: 0, Role.STATE: 1, Role.TIME: 2, Role.ACTION: 3},
    # openpi: the state begins a block, the actions (with their time) another
    Mask.PI0: {Role.PREFIX: 0, Role.STATE: 1, Role.TIME: 2, Role.ACTION: 2},
    Mask.FULL: dict.fromkeys(Role, 0),
}

# Under these the prefix never looks at what follows it, so its keys and values can be kept.
CACHEABLE = frozenset(set(Mask) - {Mask.FULL})


def attention_mask(
    kind: Mask, roles: Sequence[Role], valid: Tensor, *, queries: int | None = None
) -> Tensor:
    """Build a mask.

    Padding attends to itself alone, so that no softmax is over nothing.

    Args:
        kind: Which rule.
        roles: L roles, in sequence order.
        valid: bool [B, L]; False is padding.
        queries: Only the last so many rows; None gives all.

    Returns:
        bool [B, 1, queries, L]; True may attend.
    """
    device = valid.device
    places = torch.arange(len(roles), device=device)
    if kind is Mask.CAUSAL:
        blocks = places
    else:
        blocks = _blocks(kind, tuple(roles), device)
    rule = blocks[None, :] <= blocks[:, None]
    own = places[None, :] == places[:, None]
    whole = (rule[None] & valid[:, None, :]) | own[None]
    last = len(roles) if queries is None else queries
    return whole[:, None, len(roles) - last :]


@functools.lru_cache(maxsize=64)
def _blocks(kind: Mask, roles: tuple[Role, ...], device: torch.device) -> Tensor:
    # kept: copying it to a GPU at every step would wait for it, and cannot be captured
    return torch.tensor([_BLOCKS[kind][role] for role in roles], device=device)


def positions(valid: Tensor) -> Tensor:
    """Number the tokens that are no padding from 0: int64 [B, L] (openpi: cumsum(pad) - 1)."""
    return (valid.long().cumsum(1) - 1).clamp(min=0)
