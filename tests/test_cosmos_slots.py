"""Cosmos: slot layouts, masks, numbers in and out of latent frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cosmos_doubles import tiny as small

from policies.checkpoint import CheckpointMismatch, Statistics
from policies.cosmos import slots
from policies.cosmos.config import CosmosConfig, preset
from policies.cosmos.layout import LAYOUTS, Mode, SlotKind


@pytest.mark.parametrize(
    ("name", "count", "pixels", "conditional", "places", "chunk"),
    # (current proprio, last current image, future proprio, last future image), A.2
    [
        ("libero", 9, 33, 4, (1, 3, 5, 7), (16, 7)),
        ("robocasa", 11, 41, 5, (1, 4, 6, 9), (32, 7)),
        ("aloha", 11, 41, 5, (1, 4, 6, 9), (50, 14)),
    ],
)
def test_published_layouts(
    name: str, count: int, pixels: int, conditional: int, places: tuple[int, ...],
    chunk: tuple[int, int],
) -> None:  # fmt: skip
    layout = LAYOUTS[name]
    assert (len(layout.slots), layout.pixel_frames) == (count, pixels)
    assert layout.conditional == conditional
    found = (
        layout.place(SlotKind.PROPRIO),
        layout.places(SlotKind.IMAGE)[-1],
        layout.place(SlotKind.FUTURE_PROPRIO),
        layout.places(SlotKind.FUTURE_IMAGE)[-1],
    )
    assert found == places
    assert layout.place(SlotKind.VALUE) == count - 1
    assert (layout.horizon, layout.action_convention.dim) == chunk
    config = preset("direct", "published", name)
    assert config.volume == 12544
    assert config.image_size == (224, 224)


def test_masks_of_the_nine_slots() -> None:
    layout = LAYOUTS["libero"]
    clean = {mode: "".join("x" if c else "." for c in layout.clean(mode)) for mode in Mode}
    assert clean == {
        Mode.POLICY: "xxxx.....",
        Mode.WORLD: "xxxxx....",
        Mode.VALUE: "xxxxxxxx.",
        Mode.VALUE_OF_STATE: "x....xxx.",
        Mode.VALUE_OF_ACTION: "xxxxx....",
    }
    scored = {mode: "".join("x" if c else "." for c in layout.scored(mode)) for mode in Mode}
    assert scored[Mode.POLICY] == "....xxxxx"
    assert scored[Mode.WORLD] == ".....xxxx"
    assert {scored[m] for m in Mode if m.name.startswith("VALUE")} == {"........x"}


@pytest.mark.parametrize(
    ("steps", "dim", "shape", "repeats"),
    [
        (16, 7, (16, 28, 28), 112),
        (32, 7, (16, 28, 28), 56),
        (50, 14, (16, 28, 28), 17),
        (4, 7, (4, 4, 4), 2),
    ],
)
def test_injection_round_trip(
    steps: int, dim: int, shape: tuple[int, int, int], repeats: int
) -> None:
    values = torch.rand(2, steps, dim)
    frame = slots.tile(values, shape)
    assert frame.shape == (2, *shape)
    # row-major, time-major: number i of the volume is number i mod length of the chunk
    flat, length = frame.flatten(1), steps * dim
    assert torch.equal(flat[:, length + dim], values[:, 1, 0])
    volume = flat.shape[1]
    assert volume // length == repeats
    torch.testing.assert_close(slots.untile(frame, (steps, dim)), values)
    leftover = volume - repeats * length
    if leftover:
        frame.view(2, -1)[:, -leftover:] = 1e6
        torch.testing.assert_close(slots.untile(frame, (steps, dim)), values)
    else:
        assert leftover == 0


@pytest.mark.parametrize(
    ("length", "tokens", "repeats"),
    # of 16 channels and 2 x 2 latent pixels a token holds 64 numbers; there are 4 x 4 tokens
    [(56, 1, 16), (64, 1, 16), (112, 2, 8), (9, 1, 16), (200, 4, 4), (330, 6, 2)],
)
def test_tiled_by_tokens_a_repeat_begins_with_a_token(
    length: int, tokens: int, repeats: int
) -> None:
    values = torch.rand(2, length)
    frame = slots.tile(values, (16, 8, 8), patch=2)
    torch.testing.assert_close(slots.untile(frame, (length,), patch=2), values)
    held = [
        frame[:, :, r : r + 2, c : c + 2].flatten(1) for r in (0, 2, 4, 6) for c in (0, 2, 4, 6)
    ]
    padded = torch.cat([values, values.new_zeros(2, 64 * tokens - length)], dim=1)
    for i, numbers in enumerate(held):
        wanted = padded[:, 64 * (i % tokens) :][:, :64]
        assert torch.equal(numbers, wanted if i < tokens * repeats else torch.zeros(2, 64))
    frame[:, :, :2, :2] += float(repeats)
    moved = slots.untile(frame, (length,), patch=2) - values
    torch.testing.assert_close(moved[:, : min(length, 64)], torch.ones(2, min(length, 64)))


def test_reading_averages_over_repeats() -> None:
    frame = torch.tensor([[1.0, 2.0, 3.0, 4.0, 9.0]]).view(1, 1, 1, 5)
    assert slots.untile(frame, (2,)).tolist() == [[2.0, 3.0]]  # the 9 is left over


def test_value_is_read_as_a_probability() -> None:
    frames = torch.stack([torch.full((2, 2, 2), v) for v in (-3.0, 0.5, 2.0)])
    assert slots.success_probability(frames).tolist() == [0.0, 0.75, 1.0]


def test_value_targets() -> None:
    found = slots.value_target(
        torch.tensor([True, True, True, False]), torch.tensor([18, 16, 3, 3]),
        horizon=16, discount=0.5,
    )  # fmt: skip
    # two steps past the chunk: 2 * 0.25 - 1; at or past the end: 1; failed: -1
    assert found.tolist() == [-0.5, 1.0, 1.0, -1.0]


def test_normalisation_is_by_range_and_not_clipped() -> None:
    layout = LAYOUTS["libero"]
    values = {
        "action": {"min": torch.zeros(7), "max": torch.tensor([4.0, *[1.0] * 5, 0.0])},
        "proprio": {"min": -torch.ones(9), "max": torch.ones(9)},
    }
    normaliser = slots.Normaliser(Statistics(values), layout)
    x = torch.tensor([1.0, 2.0, 0.0, 0.5, 1.0, 0.0, 0.0])
    # the last dimension never moved in the data
    expected = torch.tensor([-0.5, 3.0, -1.0, 0.0, 1.0, -1.0, -1.0])
    torch.testing.assert_close(normaliser.normalise("action", x), expected)
    torch.testing.assert_close(normaliser.restore("action", expected), x)


def test_actions_may_be_counted_in_deviations() -> None:
    """Ours: (x - mean) / std for actions; proprioception stays scaled by its range."""
    values = {
        "action": {
            "min": torch.full((7,), -9.0),
            "max": torch.full((7,), 9.0),
            "mean": torch.tensor([1.0, *[0.0] * 6]),
            "std": torch.tensor([0.5, *[2.0] * 5, 0.0]),
        },
        "proprio": {"min": -torch.ones(9), "max": 3 * torch.ones(9)},
    }
    normaliser = slots.Normaliser(Statistics(values), LAYOUTS["libero"], action_deviations=True)
    x = torch.tensor([2.0, 6.0, -2.0, 0.0, 0.0, 0.0, 0.0])
    found = normaliser.normalise("action", x)
    torch.testing.assert_close(found[:6], torch.tensor([2.0, 3.0, -1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(normaliser.restore("action", found), x)
    torch.testing.assert_close(normaliser.normalise("proprio", torch.ones(9)), torch.zeros(9))


def test_statistics_of_other_dimensions_are_refused() -> None:
    wrong = Statistics.identity({"action": 6, "proprio": 9})
    with pytest.raises(CheckpointMismatch, match=r"action/min have \(6,\) values, the model has 7"):
        slots.Normaliser(wrong, LAYOUTS["libero"])


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("name", ["tiny", "published"])
@pytest.mark.parametrize("variant", ["direct", "planning"])
def test_configurations_survive_json(variant: str, name: str, layout: str) -> None:
    import json

    config = preset(variant, name, layout)
    assert CosmosConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_tiny_volume_has_repeats_and_leftovers() -> None:
    for layout, repeats, leftover in (("libero", 18, 16), ("aloha", 9, 16)):
        config = preset("direct", "tiny", layout)
        length = config.layout.horizon * config.layout.action_convention.dim
        assert divmod(config.volume, length) == (repeats, leftover)


def test_a_chunk_that_does_not_fit_a_frame_is_refused() -> None:
    import dataclasses

    tiny = small("direct", "aloha")  # pictures of 32 x 32
    with pytest.raises(ValueError, match="700 numbers, but a latent frame has room for 256"):
        dataclasses.replace(tiny, layout=LAYOUTS["aloha"])


def test_published_picture_protocol() -> None:
    from policies.cosmos.model import process

    config = preset("direct", "published")
    found = process(config.images, np.zeros((2, 256, 256, 3), np.uint8))
    assert tuple(found.shape) == (2, 224, 224, 3)
    assert [s.jpeg_quality for s in config.images] == [95, None]
    assert preset("direct", "published", "aloha").images[0].jpeg_quality is None
