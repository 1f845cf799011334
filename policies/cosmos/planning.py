"""Best-of-N: propose, imagine, judge, choose.

For every proposal an action chunk is denoised, then its future by the world model, then the
value of that future; an ensemble of futures and values becomes one number. All proposals and
all members of equal step count run as one batch.

Source: NVlabs/cosmos-policy, experiments/robot/aloha (best-of-N query) and arXiv 2601.16163
section 4.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.cosmos.config import Aggregator
from policies.cosmos.layout import Mode, SlotKind
from policies.cosmos.model import CosmosModel, Reuse

# A value above this counts as a vote for success (cosmos-policy)
VOTE_THRESHOLD = 0.05

# Streams of noise within one query. Proposal 0 of depth 0 has stream 0, so that it is the
# direct policy's own sample. A proposal has room for MEMBERS ensemble members.
MEMBERS = 1 << 8
WORLD, VALUE, DEPTH = 1 << 20, 1 << 24, 1 << 32


def member_steps(most: int, members: int) -> tuple[int, ...]:
    """Denoising steps of an ensemble's members: linspace(1, most, members), truncated.

    One member takes the most steps: linspace's single point would be one step, the least
    able member.
    """
    if members == 1:
        return (most,)
    return tuple(int(x) for x in np.linspace(1, most, members))


def aggregate(values: Tensor, how: Aggregator) -> Tensor:
    """Make one value of an ensemble.

    Args:
        values: [..., members] in [0, 1].
        how: The mean; the mean less one deviation; the share above 0.05; or, when at least
            half lie above 0.05, the mean of those and else 0.

    Returns:
        [...] in [0, 1].
    """
    above = values > VOTE_THRESHOLD
    if how is Aggregator.AVERAGE:
        out = values.mean(-1)
    elif how is Aggregator.LCB:
        out = values.mean(-1) - values.std(-1, correction=0)
    elif how is Aggregator.SUCCESS_VOTE:
        out = above.to(values.dtype).mean(-1)
    else:
        votes = above.sum(-1)
        mean = (values * above).sum(-1) / votes.clamp(min=1)
        out = torch.where(2 * votes >= values.shape[-1], mean, torch.zeros_like(mean))
    return out.clamp(0.0, 1.0)


def choose(values: Tensor) -> Tensor:
    """Pick a proposal per row: the first, unless another is strictly better.

    Args:
        values: [B, N].

    Returns:
        int64 [B].
    """
    best = torch.zeros(len(values), dtype=torch.long, device=values.device)
    top = values[:, 0].clone()
    for i in range(1, values.shape[1]):
        better = values[:, i] > top
        best = torch.where(better, i, best)
        top = torch.where(better, values[:, i], top)
    return best


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was weighed at one query.

    Attributes:
        proposals: [B, N, C, T, h, w], whole latents after the proposal.
        imagined: [B, N, C, T, h, w], the first member's future of each.
        ensemble: [B, N, futures * values], of the last depth.
        values: [B, N], aggregated.
        chosen: int64 [B].
    """

    proposals: Tensor
    imagined: Tensor
    ensemble: Tensor
    values: Tensor
    chosen: Tensor


def _streams(base: int, proposals: int, members: int = 1) -> list[int]:
    """Streams of noise, members last; a member's is the same however many others there are."""
    return [base + i * MEMBERS + j for i in range(proposals) for j in range(members)]


def plan(
    judge: CosmosModel,
    proposer: CosmosModel,
    given: Tensor,
    text: tuple[Tensor, Tensor],
    seeds: NDArray[np.uint64],
    reuse: Reuse,
    standing: Tensor | None = None,
) -> Plan:
    """Weigh N proposals for every row.

    Args:
        judge: World model and value (the planning checkpoint).
        proposer: Policy (the base checkpoint, or the same model).
        given: Latents [B, C, T, h, w] with the present's slots filled.
        text: Features [B, L, D] for the judge and for the proposer.
        seeds: uint64 [B].
        reuse: See `Reuse`.
        standing: `CosmosModel.standing` [B, C, cameras, h, w], where futures are changes and
            the search is deeper than 1.
    """
    config = judge.config.planning
    n, rows = config.proposals, len(given)
    still = None if standing is None else standing.repeat_interleave(n, 0)
    current = given.repeat_interleave(n, 0)
    first: tuple[Tensor, Tensor] | None = None
    levels: list[Tensor] = []
    ensemble = torch.empty(0)
    for depth in range(config.depth):
        base = depth * DEPTH
        proposed = proposer.generate(
            current, Mode.POLICY, text[1], seeds, streams=_streams(base, n),
            steps=config.proposal_steps or None, reuse=reuse,
        )  # fmt: skip
        future, ensemble = _judge(judge, proposed, text[0], seeds, base, reuse)
        levels.append(aggregate(ensemble, config.aggregator))
        first = first or (proposed, future)
        if depth + 1 < config.depth:
            current, still = _step_into(judge, future, still)
    assert first is not None
    values = levels[-1] if config.last_value else torch.stack(levels).mean(0)
    shape = (rows, n)
    return Plan(
        proposals=first[0].unflatten(0, shape),
        imagined=first[1].unflatten(0, shape),
        ensemble=ensemble.unflatten(0, shape),
        values=values.view(shape),
        chosen=choose(values.view(shape)),
    )


def _judge(
    model: CosmosModel,
    proposed: Tensor,
    text: Tensor,
    seeds: NDArray[np.uint64],
    base: int,
    reuse: Reuse,
) -> tuple[Tensor, Tensor]:
    """Imagine and value proposals [R, ...]; the most-denoised future [R, ...], values [R, E]."""
    config, mode = model.config.planning, model.config.value_mode
    futures: list[Tensor] = []
    if mode is Mode.VALUE_OF_ACTION:
        # Q(s, a) never looks at a future: what is recorded is the policy's own
        futures.append(proposed)
    else:
        for j, steps in enumerate(member_steps(config.world_steps, config.futures)):
            streams = _streams(base + WORLD + j, config.proposals)
            # the generated latent itself is the condition: nothing is encoded again
            futures.append(
                model.generate(
                    proposed, Mode.WORLD, text, seeds, streams=streams, steps=steps, reuse=reuse
                )
            )
    stacked = torch.stack(futures, 1)  # [R, M, C, T, h, w]
    members = stacked.shape[1]
    flat = stacked.flatten(0, 1)
    values: list[Tensor] = []
    for k, steps in enumerate(member_steps(config.value_steps, config.values)):
        streams = _streams(base + VALUE + k * MEMBERS * MEMBERS, config.proposals, members)
        valued = model.generate(flat, mode, text, seeds, streams=streams, steps=steps, reuse=reuse)
        values.append(model.read(valued, SlotKind.VALUE).view(-1, members))
    return stacked[:, -1], torch.cat(values, dim=1)


def _step_into(
    model: CosmosModel, latents: Tensor, standing: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Make the imagined future the present, for the next chunk of a deeper search.

    Returns:
        Latents, and what the future's slots would hold if that present stayed.
    """
    layout = model.config.layout
    out = latents.clone()
    proprio = latents[:, :, layout.place(SlotKind.FUTURE_PROPRIO)]
    out[:, :, layout.place(SlotKind.PROPRIO)] = proprio
    imagined = latents[:, :, list(layout.places(SlotKind.FUTURE_IMAGE))]
    pictures = model.as_latents(imagined, standing)
    out[:, :, list(layout.places(SlotKind.IMAGE))] = pictures
    return out, pictures
