"""The training loop: which samples, which weights, and the same ones after a kill."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from learning_doubles import demonstration, write_set
from torch import Tensor, nn

from policies.batch import Batch, BatchSpec
from policies.checkpoint import Statistics
from policies.training import augmentation
from policies.training.config import TrainConfig
from policies.training.job import ABOUT, Job, train
from policies.training.loop import Events, Trainer
from policies.training.reconstruction import picture_error
from policies.training.sampling import Sampler, split
from policies.training.statistics import statistics_of
from policies.training.trainable import NotTrainable
from wamsim import registry
from wamsim.conventions import DELTA_EEF_GRIPPER_CLOSE_POSITIVE, EEF_AXIS_ANGLE_GRIPPER
from wamsim.demonstrations import UnusableDemonstrations, open_set, write_demonstration
from wamsim.errors import ConfigurationMismatch, UnknownName, WamsimError
from wamsim.keyframes import next_keyframes

SPEC = BatchSpec(
    cameras=("agentview",),
    image_size=(16, 16),
    frame_offsets=(-2, 0, 3),
    horizon=4,
    action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    proprio=EEF_AXIS_ANGLE_GRIPPER,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", 4, steps=6, size=16)


# --------------------------------------------------------------------------- samples


def test_a_sample_at_the_end_repeats_what_is_last_and_says_so(folder: Path) -> None:
    sampler = Sampler(open_set([folder]), SPEC, np.arange(24), batch=2, seed=0)
    batch = sampler.make([6 + 1, 6 + 4], np.array([7, 8]))  # episode 1, steps 1 and 4 of 6
    truth = demonstration(1, steps=6, size=16)
    assert batch.episode.tolist() == [1, 1]
    assert batch.step.tolist() == [1, 4]
    assert batch.steps_left.tolist() == [5, 2]
    assert batch.frame_valid.tolist() == [[False, True, True], [True, True, False]]
    frames = truth.frames["agentview"]
    np.testing.assert_array_equal(batch.frames["agentview"][0], frames[[0, 1, 4]])
    np.testing.assert_array_equal(batch.frames["agentview"][1], frames[[2, 4, 6]])
    assert batch.action_valid.tolist() == [[True] * 4, [True, True, False, False]]
    np.testing.assert_array_equal(batch.actions[0], truth.actions[1:5])
    np.testing.assert_array_equal(batch.actions[1], truth.actions[[4, 5, 5, 5]])
    assert batch.proprio is not None
    np.testing.assert_array_equal(
        batch.proprio[1], truth.proprio["EEF_AXIS_ANGLE_GRIPPER"][[2, 4, 6]]
    )
    assert batch.seed is not None
    assert batch.seed.tolist() == [7, 8]
    assert batch.instruction == ["move the square"] * 2


def test_every_sample_comes_once_an_epoch_and_a_step_knows_its_own(folder: Path) -> None:
    demonstrations = open_set([folder])
    sampler = Sampler(demonstrations, SPEC, np.arange(24), batch=5, seed=3)
    drawn = np.concatenate([sampler.numbers(step) for step in range(10)])
    assert sorted(drawn[:24]) == list(range(24))
    assert sorted(drawn[24:48]) == list(range(24))
    assert drawn[:24].tolist() != drawn[24:48].tolist()
    fresh = Sampler(demonstrations, SPEC, np.arange(24), batch=5, seed=3)
    assert fresh.numbers(7).tolist() == sampler.numbers(7).tolist()
    assert torch.equal(fresh.batch(7).seed, sampler.batch(7).seed)  # type: ignore[arg-type]
    other = Sampler(demonstrations, SPEC, np.arange(24), batch=5, seed=4)
    assert other.numbers(0).tolist() != sampler.numbers(0).tolist()


def test_whole_episodes_are_held_out_of_every_task(tmp_path: Path) -> None:
    for index in range(6):
        one = demonstration(index, steps=3, size=8, task="ab"[index % 2])
        write_demonstration(tmp_path / f"{index}.safetensors", one)
    demonstrations = open_set([tmp_path])
    learn, held_out = split(demonstrations, 3)
    # tasks a: episodes 0 2 4, b: 1 3 5; every third of each is held out
    assert sorted({demonstrations.locate(int(n))[0] for n in held_out}) == [4, 5]
    assert sorted([*learn, *held_out]) == list(range(18))
    with pytest.raises(UnusableDemonstrations, match="--validate-every 0"):
        split(demonstrations, 1)


def test_statistics_by_hand(folder: Path) -> None:
    found = statistics_of(open_set([folder]), SPEC, object()).values
    truth = [demonstration(i, steps=6, size=16) for i in range(4)]
    actions = np.concatenate([t.actions for t in truth])
    proprio = np.concatenate([t.proprio["EEF_AXIS_ANGLE_GRIPPER"] for t in truth])
    assert found["action"]["min"][0] == pytest.approx(actions[:, 0].min())
    assert found["action"]["std"][0] == pytest.approx(actions[:, 0].std(), rel=1e-5)
    assert found["action"]["q99"][0] == pytest.approx(np.quantile(actions[:, 0], 0.99), rel=1e-5)
    assert found["proprio"]["mean"][2] == pytest.approx(proprio[:, 2].mean(), rel=1e-5)


def test_actions_are_counted_as_the_model_stores_them(folder: Path) -> None:
    class Stores:
        @staticmethod
        def data_actions(actions: Tensor) -> Tensor:
            return actions * 10

    found = statistics_of(open_set([folder]), SPEC, Stores()).values
    plain = statistics_of(open_set([folder]), SPEC, object()).values
    assert torch.allclose(found["action"]["max"], plain["action"]["max"] * 10)


def test_failed_episodes_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    for index in range(3):
        one = demonstration(index, steps=3, size=8, success=index == 1)
        write_demonstration(tmp_path / f"{index}.safetensors", one)
    assert len(open_set([tmp_path])) == 3
    assert len(open_set([tmp_path], only_successes=False)) == 9
    (tmp_path / "1.safetensors").unlink()
    with pytest.raises(UnusableDemonstrations, match="2 episodes, 0 of them successful"):
        open_set([tmp_path])


def test_a_camera_that_nobody_drew_is_named(folder: Path) -> None:
    spec = dataclasses.replace(SPEC, cameras=("frontview",))
    with pytest.raises(UnusableDemonstrations, match="lacks frames/frontview"):
        Sampler(open_set([folder]), spec, np.arange(3), batch=1, seed=0)


def test_samples_may_begin_at_every_fourth_step(folder: Path) -> None:
    demonstrations = open_set([folder], every=4)  # 4 episodes of 6 steps: steps 0 and 4 of each
    assert len(demonstrations) == 8
    found = [demonstrations.locate(number) for number in range(8)]
    assert found == [(e, s) for e in range(4) for s in (0, 4)]
    learn, held_out = split(demonstrations, 2)
    assert (learn.tolist(), held_out.tolist()) == ([0, 1, 4, 5], [2, 3, 6, 7])


def test_policies_learn_what_was_meant_and_world_models_what_was_done(tmp_path: Path) -> None:
    one = demonstration(0, steps=6, size=16)
    meant = np.stack([one.actions * 0.5 + k for k in range(4)], axis=1)  # [S, L, A]
    write_demonstration(tmp_path / "0.safetensors", dataclasses.replace(one, intended=meant))
    demonstrations = open_set([tmp_path])
    done = one.actions
    for executed, truth, every in ((False, meant[1], meant[:, 0]), (True, done[1:5], done)):
        spec = dataclasses.replace(SPEC, executed=executed)
        batch = Sampler(demonstrations, spec, np.arange(6), batch=1, seed=0).make(
            [1], np.array([0])
        )
        np.testing.assert_array_equal(batch.actions[0], truth)
        found = statistics_of(demonstrations, spec, object()).values["action"]["max"]
        np.testing.assert_allclose(found, every.max(0), rtol=1e-6)


def test_a_chunk_longer_than_the_expert_said_is_refused(tmp_path: Path) -> None:
    one = demonstration(0, steps=6, size=16)
    short = dataclasses.replace(one, intended=np.repeat(one.actions[:, None], 3, axis=1))
    write_demonstration(tmp_path / "0.safetensors", short)
    with pytest.raises(UnusableDemonstrations, match=r"for 3 steps ahead.*chunks of 4"):
        Sampler(open_set([tmp_path]), SPEC, np.arange(6), batch=1, seed=0)


def test_keyframes_are_where_a_gripper_is_told_otherwise() -> None:
    hold = np.tile(np.float32(DELTA_EEF_GRIPPER_CLOSE_POSITIVE.hold), (7, 1))
    hold[2:5, 6] = 1.0  # closes at step 2, opens at 5
    found = next_keyframes(hold, DELTA_EEF_GRIPPER_CLOSE_POSITIVE)
    assert found.tolist() == [2, 2, 5, 5, 5, 7, 7]


def test_a_batch_holds_the_next_keyframe(folder: Path) -> None:
    demonstrations = open_set([folder])
    spec = dataclasses.replace(SPEC, keyframe=True)
    batch = Sampler(demonstrations, spec, np.arange(6), batch=2, seed=0).make(
        [0, 4], np.zeros(2, np.int64)
    )
    file = demonstrations.files[0]
    assert spec.proprio is not None
    places = next_keyframes(file.actions(executed=False), spec.action)[[0, 4]]
    assert batch.keyframe is not None
    np.testing.assert_array_equal(
        batch.keyframe, file.whole(f"proprio/{spec.proprio.name}")[places]
    )


# --------------------------------------------------------------------- augmentation


def test_pictures_are_moved_by_hand() -> None:
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij")
    depth = (10 * rows + columns).expand(2, 3, 4, 5)  # [B, T, H, W]: says where a pixel came from
    moved = augmentation.shifted(depth, torch.tensor([[1, -2], [0, 0]]))
    assert moved.shape == depth.shape
    # down by one, left by two; the last row and the first column are repeated
    assert moved[0, 2].tolist() == [
        [10, 10, 10, 11, 12], [20, 20, 20, 21, 22], [30, 30, 30, 31, 32], [30, 30, 30, 31, 32]
    ]  # fmt: skip
    assert torch.equal(moved[1], depth[1])
    colour = torch.stack([depth, depth + 100, depth + 200], dim=-1)
    by = torch.tensor([[1, -2], [0, 0]])
    assert torch.equal(augmentation.shifted(colour, by)[..., 1], moved + 100)


def test_a_moved_camera_sees_the_same_ray() -> None:
    camera = torch.tensor([[[50.0, 0, 31.5], [0, 50.0, 31.5], [0, 0, 1]]])
    by = torch.tensor([[3, -2]])
    ray = torch.linalg.inv(camera) @ torch.tensor([20.0, 30.0, 1.0])
    # old pixel (x 20, y 30) is now at (x 22, y 27)
    again = torch.linalg.inv(augmentation.moved_centre(camera, by)) @ torch.tensor(
        [22.0, 27.0, 1.0]
    )
    assert torch.allclose(ray, again)


def test_shifts_are_a_function_of_the_samples_seed(folder: Path) -> None:
    demonstrations = open_set([folder])
    plain = Sampler(demonstrations, SPEC, np.arange(24), batch=8, seed=3).batch(5)
    moving = Sampler(demonstrations, SPEC, np.arange(24), batch=8, seed=3, shift=2)
    batch, again = moving.batch(5), moving.batch(5)
    assert torch.equal(batch.frames["agentview"], again.frames["agentview"])
    assert plain.seed is not None
    by = augmentation.offsets(plain.seed.tolist(), 1, 2)[:, 0]
    assert int(by.abs().max()) == 2
    expected = augmentation.shifted(plain.frames["agentview"], by)
    assert torch.equal(batch.frames["agentview"], expected)
    assert torch.equal(batch.actions, plain.actions)


# ------------------------------------------------------------------------ optimizer


def test_schedules_by_hand() -> None:
    config = TrainConfig(steps=110, warmup=10, lr=1.0, lr_end=0.1, ema=0.5)
    assert config.lr_at(0) == pytest.approx(0.1)
    assert config.lr_at(9) == pytest.approx(1.0)
    assert config.lr_at(60) == pytest.approx(0.55)  # half way down the cosine
    assert config.lr_at(110) == pytest.approx(0.1)
    assert config.ema_at(0) == pytest.approx(1 / 10)
    assert config.ema_at(100) == 0.5
    with pytest.raises(ValueError, match="equal parts"):
        TrainConfig(batch=10, accumulate=3)


class Line(nn.Module):
    """Predicts the first action from the first proprioception number."""

    batch_spec = SPEC

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1))
        self.broken_at = -1
        self.calls = 0
        self.precisions: set[str] = set()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.calls += 1
        self.precisions.add(torch.get_float32_matmul_precision())
        error = (batch.proprio_at(0)[:, :1] @ self.weight - batch.actions[:, 0, :1]).square().mean()
        if self.calls == self.broken_at:
            error = error * float("nan")
        return {"line": error, "total": error}


def trainer(folder: Path, out: Path, model: Line, **config: float) -> Trainer:
    by_hand = {"steps": 3, "batch": 4, "warmup": 0, "lr": 0.1, "bf16": False}
    options = TrainConfig(**{**by_hand, **config})  # type: ignore[arg-type]
    sampler = Sampler(open_set([folder]), SPEC, np.arange(24), batch=options.batch, seed=0)
    return Trainer(model=model, learner=model, config=options, folder=out, train=sampler)


def test_the_average_by_hand(folder: Path, tmp_path: Path) -> None:
    one = trainer(folder, tmp_path / "out", Line(), ema=0.9)
    seen: list[float] = []
    one.events = Events(step=lambda *_: seen.append(one.parameters[0].item()))
    one.run()
    average = 0.0
    for step, value in enumerate(seen):
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    assert float(one.average["weight"]) == pytest.approx(average, rel=1e-5)
    with one.averaged():
        assert one.model.weight.item() == pytest.approx(average, rel=1e-5)  # type: ignore[arg-type]
    assert one.model.weight.item() == seen[-1]  # type: ignore[arg-type]


def test_parts_of_a_batch_add_up_to_it(folder: Path, tmp_path: Path) -> None:
    whole, cut = Line(), Line()
    trainer(folder, tmp_path / "a", whole).run()
    trainer(folder, tmp_path / "b", cut, accumulate=2).run()
    assert cut.calls == 2 * whole.calls
    assert cut.weight.item() == pytest.approx(whole.weight.item(), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_before_the_weights(folder: Path, tmp_path: Path) -> None:
    model = Line()
    model.broken_at = 3
    one = trainer(folder, tmp_path / "out", model, steps=10)
    seen: list[float] = []
    one.events = Events(step=lambda *_: seen.append(float(model.weight)))
    with pytest.raises(FloatingPointError, match="'line'"):
        one.run()
    assert len(seen) == 2
    assert float(model.weight) == seen[-1]


@pytest.mark.parametrize(("bf16", "precision"), [(True, "medium"), (False, "highest")])
def test_products_may_be_rounded_in_a_step_alone(
    folder: Path, tmp_path: Path, bf16: bool, precision: str
) -> None:
    model = Line()
    model.broken_at = 3
    with pytest.raises(FloatingPointError):
        trainer(folder, tmp_path / "out", model, steps=10, bf16=bf16).run()
    assert model.precisions == {precision}
    assert torch.get_float32_matmul_precision() == "highest"  # what acts afterwards is exact


@pytest.mark.parametrize("update", [False, True])
def test_what_ctrl_c_saves_is_a_whole_step(folder: Path, tmp_path: Path, update: bool) -> None:
    whole = Line()
    trainer(folder, tmp_path / "whole", whole, steps=6).run()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    model = Line()
    one = trainer(folder, tmp_path / "out", model, steps=6)
    one.events = Events(
        save_every=2, step=lambda step, *_: interrupt() if step == 3 and not update else None
    )
    if update:  # after the weights moved, before the average followed
        calls = iter(range(6))
        model.after_step = lambda: interrupt() if next(calls) == 2 else None  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        one.run()
    fresh = Line()
    again = trainer(folder, tmp_path / "out", fresh, steps=6)
    assert again.resume()
    assert again.step == (2 if update else 3)
    again.run()
    assert torch.equal(fresh.weight, whole.weight)


# -------------------------------------------------------------------------- jobs


def job(folder: Path, out: Path, name: str = "fastwam", **options: object) -> Job:
    choice, policy = registry.make_learner(name, {})
    config = TrainConfig(steps=4, batch=4, warmup=1, validate_every=4)
    found = Job(
        name=choice.name, policy=policy, described=choice.described(), config=config,
        demonstrations=open_set([folder]), out=out, cache=out.parent / "features",
    )  # fmt: skip
    return dataclasses.replace(found, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("squares"), 4, steps=9)


def weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


class Killed(Exception):
    pass


@pytest.mark.parametrize("part", ["all", "tokenizer", "backbone"])
def test_a_killed_training_gives_the_same_bytes(squares: Path, tmp_path: Path, part: str) -> None:
    whole = train(job(squares, tmp_path / "whole", part=part))

    def kill(step: int, *_: object) -> None:
        if step == 3:
            raise Killed

    out = tmp_path / "killed"
    with pytest.raises(Killed):
        train(job(squares, out, part=part), events=Events(step=kill, save_every=2, log_every=1))
    logged = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert logged == [1, 2]
    again = train(job(squares, out, part=part), events=Events(log_every=1))
    first, second = weights(whole), weights(again)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    steps = [
        one["step"]
        for one in map(json.loads, (out / "log.jsonl").read_text().splitlines())
        if one["kind"] == "train"
    ]
    assert steps == [1, 2, 3, 4]


def test_a_checkpoint_acts_like_the_policy_in_training(squares: Path, tmp_path: Path) -> None:
    one = job(squares, tmp_path / "out")
    checkpoint = train(one)
    about = json.loads((checkpoint / ABOUT).read_text())
    assert about["episodes"] == 4
    assert about["samples"] == 36
    loaded = registry.make_policy(
        registry.choose_policy("fastwam", {"checkpoint": str(checkpoint)})
    ).model  # type: ignore[attr-defined]
    ours: nn.Module = one.policy.model
    averaged = weights(checkpoint)
    assert any(not torch.equal(v, averaged[k]) for k, v in ours.state_dict().items())
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, averaged[name]), name
    assert loaded.statistics.values["action"]["max"][0] > 0.5


def test_half_precision_halves_the_file_and_loads(squares: Path, tmp_path: Path) -> None:
    whole = train(job(squares, tmp_path / "a"))
    half = train(job(squares, tmp_path / "b", half=True))
    size = [(f / "model.safetensors").stat().st_size for f in (whole, half)]
    assert size[1] < 0.6 * size[0]
    registry.make_policy(registry.choose_policy("fastwam", {"checkpoint": str(half)}))


def test_a_tokenizer_is_adopted_by_another_variant_and_left_alone(
    squares: Path, tmp_path: Path
) -> None:
    tokenizer = train(job(squares, tmp_path / "tokenizer", part="tokenizer"))
    assert json.loads((tokenizer / ABOUT).read_text())["quality"]["psnr_db"] > 0
    joint = train(job(squares, tmp_path / "joint", "fastwam:joint", taken={"tokenizer": tokenizer}))
    first, second = weights(tokenizer), weights(joint)
    untrained = registry.make_policy(registry.choose_policy("fastwam:joint")).model  # type: ignore[attr-defined]
    moved = False
    for name, value in untrained.state_dict().items():
        if name.startswith("vae."):
            assert torch.equal(first[name], second[name]), name
            moved |= not torch.equal(first[name], value)
    assert moved


def test_what_was_taken_learns_at_its_share_of_the_rate(squares: Path, tmp_path: Path) -> None:
    backbone = train(job(squares, tmp_path / "backbone", part="backbone"))
    before = weights(backbone)
    moved: dict[float, dict[str, float]] = {}
    for share in (0.0, 0.1, 1.0):
        # one step, whose size is AdamW's learning rate whatever the gradient; nothing decays
        config = TrainConfig(
            steps=1, batch=4, warmup=0, validate_every=4, taken_lr=share, ema=0.0, weight_decay=0.0
        )
        out = tmp_path / str(share)
        after = weights(train(job(squares, out, config=config, taken={"backbone": backbone})))
        moved[share] = {n: float((after[n] - v).abs().max()) for n, v in before.items()}
    taken = [n for n in before if n.startswith("mixtures.video.") and moved[1.0][n] > 0]
    assert len(taken) > 20
    for name in taken:
        assert moved[0.0][name] == 0.0, name
        assert moved[0.1][name] == pytest.approx(0.1 * moved[1.0][name], rel=0.02), name
    assert moved[0.0]["mixtures.action.head.weight"] > 0


def test_a_picture_that_is_half_a_unit_off() -> None:
    real = torch.linspace(-1, 0, 12).reshape(1, 3, 1, 2, 2)
    # 4 * 0.25 and a quarter of 0.5
    assert float(picture_error(real + 0.5, real)) == pytest.approx(1.125)
    assert float(picture_error(real, real)) == 0.0


@pytest.mark.parametrize("variant", ["fastwam", "no_video_cotrain"])
def test_cached_features_change_no_loss(squares: Path, tmp_path: Path, variant: str) -> None:
    one = job(squares, tmp_path / "out", f"fastwam:{variant}")
    model = one.policy.model
    sampler = Sampler(one.demonstrations, model.batch_spec, np.arange(36), batch=4, seed=0)
    batch = sampler.batch(0)
    model.set_statistics(statistics_of(one.demonstrations, model.batch_spec, model))
    plain = model.loss(batch)
    cached = model.loss(dataclasses.replace(batch, features=model.frozen_features(batch)))
    for name, value in plain.items():
        assert float(cached[name].detach()) == pytest.approx(float(value.detach()), rel=1e-5)


def test_refusals(squares: Path, tmp_path: Path) -> None:
    train(job(squares, tmp_path / "out"))
    with pytest.raises(ConfigurationMismatch, match="another --out"):
        train(job(squares, tmp_path / "out", config=TrainConfig(steps=5, batch=4)))
    with pytest.raises(NotTrainable, match="'random' has nothing to learn"):
        train(job(squares, tmp_path / "random", "random"))
    with pytest.raises(UnknownName, match="tokenizer"):
        train(job(squares, tmp_path / "part", part="tokeniser"))
    with pytest.raises(UnknownName, match="fastwam"):
        registry.make_learner("fastwan")
    frozen = TrainConfig(steps=4, batch=4, taken_lr=0.0)
    again = {"backbone": tmp_path / "out" / "checkpoint"}
    with pytest.raises(WamsimError, match="--taken-lr 0 freezes the backbone that --part backbone"):
        train(job(squares, tmp_path / "b", part="backbone", taken=again, config=frozen))


def test_statistics_go_with_the_checkpoint(squares: Path, tmp_path: Path) -> None:
    checkpoint = train(job(squares, tmp_path / "out"))
    text = (checkpoint / "statistics.json").read_text()
    found = Statistics.from_json(text).values
    actions = np.concatenate([demonstration(i, steps=9).actions for i in range(4)])
    np.testing.assert_allclose(found["action"]["min"], actions.min(0), rtol=1e-6)
