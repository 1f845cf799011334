"""Cosmos Policy's training loss on a shared `Batch`.

A sample is a policy, world-model or value sample (50 / 25 / 25 percent by default); the
role decides which slots are clean and which are scored. One noise level per sample.

Source: NVlabs/cosmos-policy, datasets (`demonstration_sampling_prob=0.5`) and
models/policy_video2world_model_rectified_flow.py; arXiv 2601.16163 section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from policies.batch import Batch
from policies.cosmos import diffusion, slots
from policies.cosmos.augment import augment
from policies.cosmos.config import CosmosConfig
from policies.cosmos.layout import Mode, SlotKind
from policies.noise import noise_from_seeds

if TYPE_CHECKING:
    from policies.cosmos.model import CosmosModel

# Streams of a sample's seed: its role, its noise level, its latents' noise, its augmentation,
# which half of it the autoencoder sees
ROLE, LEVEL, NOISE, AUGMENT, CLIP = 101, 102, 103, 104, 105


def sample_seeds(batch: Batch) -> NDArray[np.uint64]:
    """The batch's own seeds, or fresh ones from torch's generator."""
    if batch.seed is not None:
        return batch.seed.cpu().numpy().astype(np.uint64)
    return torch.randint(0, 2**62, (batch.size,)).numpy().astype(np.uint64)


def _generator(seed: np.uint64, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([int(seed), stream]))


def roles(config: CosmosConfig, batch: Batch, seeds: NDArray[np.uint64]) -> list[Mode]:
    """Draw every sample's role.

    Only demonstrations that succeeded teach the policy; a failed episode's sample becomes a
    world-model or value sample in their own proportion.
    """
    out: list[Mode] = []
    for seed, success in zip(seeds, batch.success.tolist(), strict=True):
        draw = _generator(seed, ROLE)
        coin, second = draw.uniform(), draw.uniform()
        rest = 1.0 - config.policy_share
        if success and coin < config.policy_share:
            out.append(Mode.POLICY)
        elif rest > 0 and second < config.world_share / rest:
            out.append(Mode.WORLD)
        else:
            out.append(config.value_mode)
    return out


def clean_latents(model: CosmosModel, batch: Batch, seeds: NDArray[np.uint64]) -> Tensor:
    """The video that a batch shows, every slot filled; float32 [B, C, T, h, w]."""
    if batch.features is not None:
        return _filled(model, batch, batch.features)
    pictures = pictures_of(model, batch, seeds)
    return _filled(model, batch, picture_latents(model, pictures, batch.size))


def present_pictures(model: CosmosModel, batch: Batch) -> Tensor:
    """Latents of the present's pictures in their slots; float32 [B, C, cameras, h, w]."""
    layout = model.config.layout
    pictures = _shown(model, batch, SlotKind.IMAGE, 0)
    seen = model.encode_pictures(pictures, batch.size, count=layout.conditional)
    return seen[:, :, list(layout.places(SlotKind.IMAGE))]


def present_latents(model: CosmosModel, batch: Batch) -> Tensor:
    """The present's slots, filled; float32 [B, C, conditional, h, w]."""
    layout = model.config.layout
    found = (batch.features or {}).get("pictures")
    seen = present_pictures(model, batch) if found is None else found[:, :, : len(layout.cameras)]
    latents = _laid(model, seen, layout.conditional)
    proprio = model.normaliser.normalise("proprio", batch.proprio_at(0))
    return model.inject(latents, SlotKind.PROPRIO, proprio)


def pictures_of(
    model: CosmosModel, batch: Batch, seeds: NDArray[np.uint64] | None = None
) -> dict[int, Tensor]:
    """Processed pictures of a batch, present and future: slot -> uint8 [B, H, W, 3].

    Args:
        model: Its configuration says how they are processed.
        batch: B samples.
        seeds: For augmentation, where the configuration asks for it; None goes without.
    """
    config, layout = model.config, model.config.layout
    draws = [_generator(seed, AUGMENT) for seed in seeds] if seeds is not None else []
    augmented = config.augment and bool(draws)
    # training crops at random where testing crops the centre
    pictures = {
        **_shown(model, batch, SlotKind.IMAGE, 0, cropped=not augmented),
        **_shown(model, batch, SlotKind.FUTURE_IMAGE, layout.horizon, cropped=not augmented),
    }
    if augmented:
        # the same parameters for every picture of a sample
        stacked = torch.stack(list(pictures.values()), dim=1)
        turned = augment(stacked, draws)
        pictures = {place: turned[:, i] for i, place in enumerate(pictures)}
    return pictures


def _shown(
    model: CosmosModel, batch: Batch, kind: SlotKind, offset: int, *, cropped: bool = True
) -> dict[int, Tensor]:
    """Pictures of one time: slot -> uint8 [B, H, W, 3]."""
    from policies.cosmos.model import process

    layout = model.config.layout
    steps = model.config.images if cropped else model.config.images[:-1]
    return {
        place: process(steps, batch.at(camera, [offset])[:, 0].cpu().numpy())
        for place, camera in zip(layout.places(kind), layout.cameras, strict=True)
    }


def picture_latents(
    model: CosmosModel, pictures: dict[int, Tensor], rows: int
) -> dict[str, Tensor]:
    """Encode pictures in their slots; as `CosmosModel.frozen_features`, slots rising."""
    layout, places = model.config.layout, sorted(pictures)
    now, then = layout.places(SlotKind.IMAGE), layout.places(SlotKind.FUTURE_IMAGE)
    start = [pictures.get(i) for i in range(then[0])]
    # causal: nothing after the last picture is needed
    ends = [[pictures[i] for i in then]]
    if model.config.change_spread:
        ends.append([pictures[i] for i in now])  # the future's slots if nothing moved
    seen, *standing = model.codec.encode_ends(start, ends, model.config.image_size, rows)
    found = {"pictures": seen[:, :, places]}
    if standing:
        found["standing"] = standing[0][:, :, list(then)]
    return found


def _laid(model: CosmosModel, seen: Tensor, count: int) -> Tensor:
    """Put latents of pictures [B, C, n, h, w] into the first `count` slots; the rest is 0."""
    blank = model.encode_pictures({}, 1, count=1)
    places = model.config.layout.places(SlotKind.IMAGE, SlotKind.FUTURE_IMAGE)
    latents = blank.new_zeros((len(seen), seen.shape[1], count, *seen.shape[3:]))
    latents[:, :, :1] = blank
    latents[:, :, [place for place in places if place < count]] = seen.to(blank)
    return latents


def _filled(model: CosmosModel, batch: Batch, found: Mapping[str, Tensor]) -> Tensor:
    """Put latents of pictures, and all that is injected, into their slots."""
    layout, normaliser = model.config.layout, model.normaliser
    seen, cameras = found["pictures"], len(layout.cameras)
    future = model.as_denoised(seen[:, :, cameras:], found.get("standing"))
    latents = _laid(model, torch.cat([seen[:, :, :cameras], future], dim=2), len(layout.slots))
    now, then = batch.proprio_at(0), batch.proprio_at(layout.horizon)
    value = slots.value_target(
        batch.success, batch.steps_left, horizon=layout.horizon, discount=layout.discount
    )
    for kind, values in (
        (SlotKind.PROPRIO, normaliser.normalise("proprio", now)),
        (SlotKind.ACTION, normaliser.normalise("action", batch.actions)),
        (SlotKind.FUTURE_PROPRIO, normaliser.normalise("proprio", then)),
        (SlotKind.VALUE, value),
    ):
        latents = model.inject(latents, kind, values)
    return latents


def loss(model: CosmosModel, batch: Batch) -> dict[str, Tensor]:
    """Weighted squared error of the clean-latent estimate.

    The mean runs over all elements, clean frames included (they contribute exact zeros), and
    is split by what a slot carries, so with weights of 1 the terms add up to it.

    Returns:
        "action", "future_proprio", "future_image", "value", with an autoencoder loss also
        "autoencoder", and "total", their weighted sum; scalars. A kind that no sample of the
        batch predicts is 0.
    """
    config, layout = model.config, model.config.layout
    seeds = sample_seeds(batch)
    modes = roles(config, batch, seeds)
    x0 = clean_latents(model, batch, seeds)
    device = x0.device
    clean = torch.tensor([layout.clean(mode) for mode in modes], device=device)
    scored = torch.tensor([layout.scored(mode) for mode in modes], device=device)
    levels = [
        diffusion.draw_sigma(config.noise, _generator(seed, LEVEL), len(layout.slots))
        for seed in seeds
    ]
    sigma = torch.tensor(levels, dtype=torch.float32, device=device)
    noise = noise_from_seeds(seeds, x0.shape[1:], stream=NOISE, device=device)
    x = x0 + noise * sigma[:, None, None, None, None]
    text = model.net.text_key_values(model.embed_text(batch.instruction))
    estimate = model.estimate(x, sigma, x0, clean, text)
    error = diffusion.loss_weight(sigma)[:, None] * ((estimate - x0) ** 2).mean(dim=(1, 3, 4))
    per_slot = (error * scored).sum(0) / scored.numel() * config.noise.loss_scale
    terms = {
        kind.value: per_slot[list(layout.places(kind))].sum()
        for kind in (
            SlotKind.ACTION, SlotKind.FUTURE_PROPRIO, SlotKind.FUTURE_IMAGE, SlotKind.VALUE
        )
    }  # fmt: skip
    if config.autoencoder_loss > 0:
        pictures = pictures_of(model, batch, seeds)
        terms["autoencoder"] = config.autoencoder_loss * _autoencoder_loss(model, pictures, seeds)
    terms["total"] = torch.stack(list(weighted(config, terms).values())).sum()
    return terms


def weighted(config: CosmosConfig, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weigh the terms of `loss`; their sum is its total."""
    heavy = SlotKind.ACTION.value
    return {n: v * config.action_weight if n == heavy else v for n, v in terms.items()}


def _autoencoder_loss(
    model: CosmosModel, pictures: dict[int, Tensor], seeds: NDArray[np.uint64]
) -> Tensor:
    """Reconstruction of two black slots and the pictures of one time after them.

    Just so they stand in the whole video, both at the present and at the future; the decoder
    would otherwise take most of a training step. One sample of the batch, by lowest seed.
    """
    layout = model.config.layout
    row = int(np.argmin(seeds))
    future = _generator(seeds[row], CLIP).uniform() < 0.5
    places = layout.places(SlotKind.FUTURE_IMAGE if future else SlotKind.IMAGE)
    clip = [None, None, *(pictures[place][row : row + 1] for place in places)]
    return model.codec.reconstruction_loss(clip, model.config.image_size)
