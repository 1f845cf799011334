"""Pictures, depth and voxels against LLaVA-3D's way and hand-computed numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from spatialvla_doubles import model, observation
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
)

from policies.noise import noise_from_seeds
from policies.spatialvla.config import (
    LATE_GEMMA,
)
from policies.spatialvla.geometry import patch_points, pool_voxels
from policies.spatialvla.inputs import from_observation
from policies.spatialvla.perception import see


def test_select_layer_minus_two_is_clip_without_its_last_layer() -> None:
    made = model(LATE_GEMMA, use_depth=False)
    inputs = from_observation(observation(1), made.config, made.tokenizer, made.device)
    seen = see(inputs, made.config, made.vision, made.position_embedding, made.projector)
    own = made.config.vision
    short = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=own.width, intermediate_size=own.ffn, num_hidden_layers=own.depth - 1,
            num_attention_heads=own.heads, image_size=own.image_size, patch_size=own.patch,
        )
    ).eval()  # fmt: skip
    short.load_state_dict(made.vision.state_dict(), strict=False)
    patches = short(inputs.pictures[0]).last_hidden_state[:, 1:]
    assert (patches.shape, bool(seen.valid.all())) == ((2, 16, 96), True)
    torch.testing.assert_close(seen.tokens[0], made.projector(patches.flatten(0, 1)))


def test_pictures_are_clips() -> None:
    made = model(LATE_GEMMA)
    obs = observation(1)
    for frames in obs.frames.values():
        frames[...] = 255
    inputs = from_observation(obs, made.config, made.tokenizer, made.device)
    # (1 - 0.48145466) / 0.26862954 = 1.930336
    assert inputs.pictures.shape == (1, 2, 3, 64, 64)
    assert inputs.pictures[0, 1, 0, 5, 5].item() == pytest.approx(1.930336, abs=1e-5)


def test_a_point_by_hand() -> None:
    # Patch (row 1, column 2) of 4 x 4 in an 8 x 8 picture stands at pixel (x 4, y 2), depth 2:
    # X = (4 - 3) 2 / 4 = 0.5, Y = (2 - 5) 2 / 8 = -0.75, Z = 2. The pose turns a quarter
    # around z (x -> y, y -> -x) and moves by (10, 20, 30): (0.75 + 10, 0.5 + 20, 2 + 30).
    depth = torch.zeros(1, 1, 8, 8)
    depth[0, 0, 2, 4] = 2.0
    k = torch.tensor([[4.0, 0, 3], [0, 8.0, 5], [0, 0, 1]])[None, None]
    pose = torch.tensor([[0.0, -1, 0, 10], [1, 0, 0, 20], [0, 0, 1, 30], [0, 0, 0, 1]])[None, None]
    points = patch_points(depth, k, pose, image_size=8, side=4)
    assert points[0, 0, 1, 2].tolist() == pytest.approx([10.75, 20.5, 32.0])
    assert points[0, 0, 0, 0].tolist() == [10.0, 20.0, 30.0]  # depth 0: the camera itself


@pytest.mark.parametrize("size", [32, 64, 100])
def test_points_are_those_of_the_resized_map(size: int) -> None:
    """LLaVA-3D's way: nearest-resize the depth, lift every pixel, nearest-resize the map."""
    from PIL import Image

    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 2.0, (size, size)).astype(np.float32)
    k = np.array([[1.2 * size, 0, size / 2], [0, 1.1 * size, size / 2], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.normal(size=3)
    seen = np.asarray(Image.fromarray(depth).resize((64, 64), Image.Resampling.NEAREST))
    f = k * np.array([[64 / size], [64 / size], [1.0]])
    y, x = np.mgrid[:64, :64]
    lifted = np.stack(((x - f[0, 2]) * seen / f[0, 0], (y - f[1, 2]) * seen / f[1, 1], seen), -1)
    world = torch.from_numpy(lifted @ pose[:3, :3].T + pose[:3, 3]).permute(2, 0, 1)[None]
    expected = F.interpolate(world, size=(8, 8), mode="nearest")[0].permute(1, 2, 0)
    ours = patch_points(
        torch.from_numpy(depth)[None, None],
        torch.from_numpy(k)[None, None],
        torch.from_numpy(pose)[None, None],
        image_size=64,
        side=8,
    )
    torch.testing.assert_close(ours[0, 0], expected.float(), rtol=0, atol=1e-5)


def test_voxels_by_hand() -> None:
    # edges 0.2: 0.29 / 0.2 = 1.45 -> 1; 0.31 -> 1.55 -> 2; -0.09 -> -0.45 -> 0
    points = torch.tensor([[[0.29, 0, 0], [0.31, 0, 0], [-0.09, 0, 0], [0.21, 0, 0]]])
    features = torch.tensor([[[1.0], [5.0], [7.0], [3.0]]])
    seeds = np.array([1], np.uint64)
    tokens, valid = pool_voxels(features, points, voxel_m=0.2, capacity=4, seeds=seeds)
    assert tokens[0, :, 0].tolist() == [7.0, 2.0, 5.0, 0.0]  # voxels 0, 1 (mean of 1, 3), 2
    assert valid.tolist() == [[True, True, True, False]]


def test_voxels_above_the_cap_are_chosen_by_the_rows_seed() -> None:
    points = torch.arange(20.0)[:, None].expand(-1, 3)[None].repeat(3, 1, 1)
    features = torch.arange(20.0)[None, :, None].repeat(3, 1, 1)

    def chosen(*seeds: int) -> list[list[float]]:
        own = np.array(seeds, np.uint64)
        n = len(seeds)
        tokens, valid = pool_voxels(features[:n], points[:n], voxel_m=0.2, capacity=6, seeds=own)
        assert bool(valid.all())
        return tokens[..., 0].tolist()

    one, two, three = chosen(1, 2, 1)
    assert one == three == chosen(1)[0]
    assert one != two
    # its own stream of the seed: the flow's noise is stream 0
    order = noise_from_seeds(np.array([1], np.uint64), (20,), stream=1)[0].argsort()
    assert one == [float(i) for i in order[:6]]
