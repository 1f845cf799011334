"""PSNR and SSIM by hand, and how pictures are put beside real ones when they are recorded."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from counting_pool import SIZE, key, picture, pool_for, task
from doubles import CountingPolicy, CountingWorld, card, roll, sees

from wamsim.contracts import Observation, Prediction
from wamsim.errors import PolicyFault
from wamsim.imagination.episodes import read_imagination
from wamsim.imagination.pictures import compare_pictures, psnr, squared_error, ssim
from wamsim.imagination.report import imagination_tables
from wamsim.imagination.summary import summarise, summarise_run


def flat(value: int, size: tuple[int, int] = (16, 16)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def noise(seed: int, size: tuple[int, int] = (24, 20)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


# ------------------------------------------------------------------------------ by hand


def test_psnr_by_hand() -> None:
    assert squared_error(flat(10), flat(15)) == 25
    assert psnr(25) == pytest.approx(34.1514, abs=1e-4)  # 10 log10(65025 / 25)
    assert squared_error(flat(0), flat(255)) == 65025  # no uint8 wraps around
    assert psnr(65025.0) == 0
    assert psnr(0) == math.inf
    assert psnr(None) is None


def test_one_wrong_colour_counts_a_third() -> None:
    b = flat(10)
    b[..., 1] += 6
    assert squared_error(flat(10), b) == 12  # 36 / 3


def test_identical_pictures_have_ssim_1() -> None:
    assert ssim(noise(0), noise(0)) == pytest.approx(1)
    assert ssim(flat(7), flat(7)) == pytest.approx(1)


@pytest.mark.parametrize(("a", "b"), [(100, 110), (0, 255), (3, 200)])
def test_constant_pictures_have_the_luminance_term_alone(a: int, b: int) -> None:
    c1 = (0.01 * 255) ** 2  # variances and covariance are 0: (2 a b + c1) / (a^2 + b^2 + c1)
    assert ssim(flat(a), flat(b)) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1))


def test_ssim_in_one_window_by_hand() -> None:
    # 11 x 11 pixels: a single window. The window's weights are the outer product of g.
    a, b = noise(1, (11, 11)), noise(2, (11, 11))
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    w = np.outer(g, g) / g.sum() ** 2
    x, y = (p.astype(float) @ [0.299, 0.587, 0.114] for p in (a, b))
    mx, my = (w * x).sum(), (w * y).sum()
    vx, vy = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum()
    cov = (w * (x - mx) * (y - my)).sum()
    c1, c2 = 6.5025, 58.5225
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(a, b) == pytest.approx(expected)
    assert ssim(b, a) == pytest.approx(expected)


def test_an_inverted_picture_is_dissimilar() -> None:
    assert ssim(noise(3), 255 - noise(3)) < -0.9


def test_a_picture_smaller_than_the_window_has_no_ssim() -> None:
    assert ssim(flat(1, (10, 64)), flat(1, (10, 64))) is None


def test_pictures_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got uint8 \(16, 16, 3\) and uint8 \(8, 8, 3\)"):
        squared_error(flat(1), flat(1, (8, 8)))


def test_only_compared_pictures_are_scored() -> None:
    drawn = np.stack([[flat(1), flat(2)], [flat(3), flat(4)]])
    mse, similarity = compare_pictures(
        drawn, np.zeros_like(drawn), np.array([[True, False], [True, True]])
    )
    assert np.array_equal(mse, [[1, np.nan], [9, 16]], equal_nan=True)
    assert np.isnan(similarity).tolist() == [[False, True], [False, False]]


# ---------------------------------------------------------------------------- recording


class Painter(CountingPolicy):
    """Draws flat pictures, each `off` from what really comes; its decoder is `blur` off."""

    off, blur = 3, 1
    size = SIZE

    def __init__(self, **changes) -> None:
        spec = sees((2, 4), **{"decodes": True, **changes})
        super().__init__(card(cameras=("front",), execute=4, imagines=spec), self._draw)

    def _draw(self, obs: Observation, answer: Prediction) -> Prediction:
        rows = [
            [np.full((*self.size, 3), 0, np.uint8) + np.uint8(s + h + self.off) for h in (2, 4)]
            for s in obs.step
        ]
        imagined = dataclasses.replace(answer.imagined, frames=np.array(rows, np.uint8))
        return dataclasses.replace(answer, imagined=imagined)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        steps = latents[..., 0].round().astype(np.uint8) + np.uint8(self.blur)
        return np.broadcast_to(steps[..., None, None, None], (*steps.shape, *self.size, 3)).copy()


def run(tmp_path, policy, *, max_steps=6, **options):
    pool = pool_for(policy.card, imagine=True, tasks=[task(max_steps=max_steps)])
    (episode,) = roll(tmp_path / "run", policy, pool, batch=2, **options).values()
    return episode


def test_real_pictures_and_the_ceiling_are_recorded_beside_imagined_ones(tmp_path) -> None:
    episode = run(tmp_path, Painter())
    a = episode.arrays
    for name in ("imagined_frames", "real_frames", "ceiling_frames"):
        assert (a[name].shape, a[name].dtype) == ((2, 2, *SIZE, 3), np.uint8)
    assert a["imagined_executed"].tolist() == [[True, True], [True, False]]
    shown = [picture(step, 0, 0) for step in (2, 4, 6)]  # what the pool draws of these steps
    for at, real in zip([(0, 0), (0, 1), (1, 0)], shown, strict=True):
        assert np.array_equal(a["real_frames"][at], real)
        assert a["imagined_mse"][at] == pytest.approx(squared_error(a["imagined_frames"][at], real))
        assert a["ceiling_mse"][at] == pytest.approx(squared_error(a["ceiling_frames"][at], real))
    assert a["ceiling_frames"][:, :, 0, 0, 0].tolist() == [[3, 5], [7, 7]]
    assert np.isnan(a["imagined_mse"][1, 1])
    note = episode.record.notes["imagination"][""]
    assert (note["imaginer"], note["horizons"], note["execute"]) == ("counting", [2, 4], 4)
    assert note["frame_offsets"] == [0, 2, 4]


def test_who_redraws_has_that_as_the_ceiling(tmp_path) -> None:
    class Redraws(Painter):
        def redraw(self, frames: np.ndarray) -> np.ndarray:
            return frames[:, 1:, 0]  # as they are, one camera

    arrays = run(tmp_path, Redraws()).arrays
    np.testing.assert_array_equal(arrays["ceiling_frames"], arrays["real_frames"])
    assert arrays["ceiling_mse"][arrays["imagined_executed"]].tolist() == [0, 0, 0]

    class Wrong(Painter):
        def redraw(self, frames: np.ndarray) -> np.ndarray:
            return frames[:, :, 0]

    with pytest.raises(PolicyFault, match=r"redraw\(\) gave pictures of shape \(3, "):
        run(tmp_path / "wrong", Wrong())


def test_what_was_recorded_is_what_is_read(tmp_path) -> None:
    arrays = run(tmp_path, Painter()).arrays
    (imaginer,) = read_imagination(tmp_path / "run").imaginers
    near, far, both = summarise(imaginer)[0].horizons
    assert (near.compared, far.compared, both.compared) == (2, 1, 3)
    mse = arrays["imagined_mse"]
    assert near.metrics["mse"].value == pytest.approx(mse[:, 0].mean())  # steps 2 and 6
    assert far.metrics["psnr"].value == pytest.approx(psnr(float(mse[0, 1])))
    assert both.metrics["ceiling_mse"].value == pytest.approx(np.nanmean(arrays["ceiling_mse"]))
    # latents are step numbers: imagined a quarter too high, still 2, 2 and 4 steps behind
    assert both.metrics["skill"].value == pytest.approx(1 - 3 * 0.25**2 / (4 + 4 + 16))
    assert far.left_out == {"past the 4 executed actions": 0, "after the episode's end": 1}


def test_without_a_decoder_there_is_no_ceiling(tmp_path) -> None:
    arrays = run(tmp_path, Painter(decodes=False)).arrays
    assert "imagined_mse" in arrays
    assert "ceiling_mse" not in arrays


def test_pictures_of_another_size_need_pictures(tmp_path) -> None:
    class Wide(Painter):
        size = (SIZE[0], SIZE[1] + 2)

    arrays = run(tmp_path / "without", Wide()).arrays
    assert "imagined_frames" in arrays
    assert not {"real_frames", "imagined_mse", "ceiling_frames"} & arrays.keys()
    (table,) = imagination_tables(summarise_run(read_imagination(tmp_path / "without" / "run")))
    assert "it has no pictures(frames)" in table.notes[-1]

    class Says(Wide):
        def pictures(self, frames: np.ndarray) -> np.ndarray:
            return np.pad(frames[:, 1:, 0], ((0, 0), (0, 0), (0, 0), (1, 1), (0, 0)))

    arrays = run(tmp_path / "with", Says()).arrays
    assert arrays["real_frames"].shape == arrays["imagined_frames"].shape
    assert not arrays["real_frames"][..., 0, :].any()
    assert np.array_equal(arrays["real_frames"][0, 1, :, 1:-1], picture(4, 0, 0))

    class Wrong(Wide):
        def pictures(self, frames: np.ndarray) -> np.ndarray:
            return frames[:, 1:, 0]

    with pytest.raises(PolicyFault, match=r"pictures\(\) gave .* imagined pictures of shape"):
        run(tmp_path / "wrong", Wrong())


def test_two_cameras_lie_side_by_side(tmp_path) -> None:
    class Pair(Painter):
        size = (SIZE[0], 2 * SIZE[1])

    real = run(tmp_path, Pair(cameras=("wrist", "front"))).arrays["real_frames"]
    assert np.array_equal(real[0, 0, :, : SIZE[1]], picture(2, 0, 0))
    assert np.array_equal(real[0, 0, :, SIZE[1] :], picture(2, 0, 1))


def test_nothing_executed_records_no_pictures_of_reality(tmp_path) -> None:
    arrays = run(tmp_path, Painter(), max_steps=1).arrays
    assert "imagined_frames" in arrays
    assert "real_frames" not in arrays


def test_latents_that_float16_cannot_hold_are_kept_in_float32(tmp_path) -> None:
    class Loud(CountingPolicy):
        def encode(self, frames: np.ndarray) -> np.ndarray:
            return super().encode(frames) * 1e5

    spec = sees((2, 4))
    arrays = run(tmp_path, Loud(card(cameras=("front",), execute=4, imagines=spec))).arrays
    assert arrays["real_latents"].dtype == np.float32
    assert arrays["real_latents"][0].ravel().tolist() == [2e5, 4e5]
    assert arrays["imagined_latents"].dtype == np.float16


# ------------------------------------------------------------------------- other actions


class Listening(CountingWorld):
    """Foresees its last frame plus 100 times the last future action's x: what really comes."""

    def imagine(self, past_frames, past_actions, future_actions, seed):
        found = super().imagine(past_frames, past_actions, future_actions, seed)
        now = past_frames[:, -1, 0, 0, 0, 0].astype(float)
        moved = 100 * (future_actions[:, 1, 0] - future_actions[:, 0, 0]) * 2
        return dataclasses.replace(found, latents=(now + moved)[:, None, None])


def test_a_world_model_also_foresees_that_nothing_is_done(tmp_path) -> None:
    world = Listening()
    policy = CountingPolicy(card(execute=2))
    pool = pool_for(policy.card, world=world.card, tasks=[task(max_steps=6)])
    (episode,) = roll(
        tmp_path / "run", policy, pool, [key(0)], world=world, batch=1, imagine=True
    ).values()
    a = episode.arrays
    assert a["world_imagined_latents"].ravel().tolist() == pytest.approx([2, 4, 6], abs=1e-2)
    assert a["world_other_latents"].ravel().tolist() == [0, 2, 4]  # nothing is done, nothing moves
    one, two = world.seen[:2]
    assert np.array_equal(one.frames, two.frames)
    assert np.array_equal(one.past, two.past)
    assert np.array_equal(one.seed, two.seed)
    assert np.array_equal(two.future[0], [world.card.action.hold] * 3)
    (imaginer,) = read_imagination(tmp_path / "run").imaginers
    (horizon,) = summarise(imaginer)[0].horizons
    assert (imaginer.imaginer, imaginer.world) == ("world", True)
    assert horizon.metrics["better"].value == 1
    assert horizon.metrics["response"].value == pytest.approx(1, abs=1e-2)


def test_other_actions_cost_nothing_unless_asked(tmp_path) -> None:
    world, policy = Listening(), CountingPolicy(card(execute=2))
    pool = pool_for(policy.card, world=world.card, tasks=[task(max_steps=6)])
    (episode,) = roll(tmp_path / "run", policy, pool, world=world, batch=1).values()
    assert len(world.seen) == 3
    assert "world_other_latents" not in episode.arrays
