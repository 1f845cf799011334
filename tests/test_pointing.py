"""A backbone learns to point: what is asked of it, by hand, and that it finds out."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from learning_doubles import CAMERAS, square_looks, write_set
from safetensors.torch import load_file
from torch import Tensor

from policies.training.backbone import BackbonePart, targets
from policies.training.config import TrainConfig
from policies.training.features import Source, cache_features
from policies.training.job import ABOUT, Job, train
from policies.training.looks import LOOK, NEAREST, LookSampler
from policies.training.loop import Events
from policies.training.reconstruction import SPREAD_FLOOR
from policies.training.sampling import Sampler, split
from policies.training.statistics import statistics_of
from policies.training.trainable import part_of
from wamsim import registry
from wamsim.conventions import Orientation, orient, orient_points
from wamsim.demonstrations import UnusableDemonstrations, open_set
from wamsim.errors import ConfigurationMismatch, RecordCorrupt
from wamsim.looks import LookSet, LooksFile, open_looks, write_looks

PROPRIO = "EEF_AXIS_ANGLE_GRIPPER"
SMOLVLA = "smolvla_world:base"


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("squares"), 4, steps=9)


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> LookSet:
    folder = tmp_path_factory.mktemp("looks")
    for number in range(2):
        one = square_looks(200, seed=number)
        write_looks(folder / f"{number}.safetensors", one)
    return open_looks([folder], CAMERAS, PROPRIO)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


# ------------------------------------------------------------------------------------ on disk


def test_what_is_written_is_read(tmp_path: Path) -> None:
    one = square_looks(6)
    path = tmp_path / "a" / "looks.safetensors"
    write_looks(path, one)
    file = LooksFile(path)
    assert file.info == one.info
    assert len(file) == 6
    for what in ("frames", "pixel", "ahead", "proprio"):
        for name, array in getattr(one, what).items():
            np.testing.assert_array_equal(file.whole(f"{what}/{name}"), array)
    np.testing.assert_array_equal(file.row("frames/agentview", 4), one.frames["agentview"][4])
    np.testing.assert_array_equal(file.whole("place"), one.place)
    np.testing.assert_array_equal(file.whole("hand"), one.hand)


def test_files_of_several_scenes_are_joined(tmp_path: Path) -> None:
    first, second = square_looks(3), square_looks(2, seed=1)
    info = dataclasses.replace(first.info, instructions=("a thing",))
    write_looks(tmp_path / "0.safetensors", first)
    write_looks(tmp_path / "1.safetensors", dataclasses.replace(second, info=info))
    found = open_looks([tmp_path], CAMERAS, PROPRIO)
    assert found.instructions == ("a thing", "move the square")
    assert found.known.tolist() == [[False, True]] * 3 + [[True, False]] * 2
    np.testing.assert_allclose(found.place[4, 0], second.place[1, 0])
    np.testing.assert_allclose(found.pixel[4, 1, 0], second.pixel["eye_in_hand"][1, 0] / 64)
    assert not found.ahead[4, :, 1].any()  # what is not there is in no picture
    pictures = found.frames("agentview", np.array([4, 0]))
    np.testing.assert_array_equal(pictures[0], second.frames["agentview"][1])
    np.testing.assert_array_equal(pictures[1], first.frames["agentview"][0])


def test_damaged_and_unfit_looks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "0.safetensors"
    write_looks(path, square_looks(2))
    with pytest.raises(UnusableDemonstrations, match="lack frames/front, pixel/front, ahead/front"):
        open_looks([tmp_path], ("front",), PROPRIO)
    with pytest.raises(UnusableDemonstrations, match="no looks to learn from"):
        open_looks([tmp_path / "nowhere"], CAMERAS, PROPRIO)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(RecordCorrupt, match=r"it is drawn anew. File: .*0.safetensors"):
        open_looks([tmp_path], CAMERAS, PROPRIO)


# ------------------------------------------------------------------------------ what is asked


def test_targets_by_hand() -> None:
    # 2 x 4 tokens: a quarter of the width and half of the height each
    point = torch.tensor([[0.30, 0.75], [0.0, 0.0], [1.0, 0.5], [0.5, -0.01], [0.30, 0.75]])
    ahead = torch.tensor([True, True, True, True, False])
    cell, offset = targets(point, ahead, (2, 4))
    assert cell.tolist() == [4 + 1, 0, 8, 8, 8]  # right of it, above it, behind the camera
    # 0.30 * 4 = 1.2 in columns, 0.75 * 2 = 1.5 in rows
    np.testing.assert_allclose(offset[0], [-0.3, 0.0], atol=1e-6)
    np.testing.assert_allclose(offset[1], [-0.5, -0.5])


@pytest.mark.parametrize("orientation", list(Orientation))
def test_points_turn_with_their_picture(orientation: Orientation) -> None:
    picture = np.zeros((6, 10, 3), np.uint8)
    picture[1, 7] = 255
    turned = orient(picture, orientation)
    found = orient_points(np.float32([[(7 + 0.5) / 10, (1 + 0.5) / 6]]), orientation)
    column, row = (found[0] * (10, 6)).astype(int)
    assert turned[row, column].tolist() == [255] * 3
    by_hand = {
        Orientation.UPRIGHT: (7, 1), Orientation.MIRRORED: (2, 1), Orientation.OPENGL: (7, 4)
    }  # fmt: skip
    assert (column, row) == by_hand[orientation]


def test_looks_are_a_function_of_the_samples_seeds(looks: LookSet, squares: Path) -> None:
    part = backbone(SMOLVLA, squares)
    sampler = LookSampler(looks, part.batch_spec)
    whole = sampler.draw([5, 6, 7])
    assert torch.equal(sampler.draw([6]).batch.frames["agentview"][0],
                       whole.batch.frames["agentview"][1])  # fmt: skip
    assert not set(looks.trial[sampler.learn]) & set(looks.trial[sampler.held_out])
    assert set(looks.trial[sampler.held_out]) == set(range(0, 200, 20))
    held_out = {tuple(p) for p in looks.pixel[sampler.held_out, 0, 0]}
    for sight in (sampler.draw(range(20), held_out=True), *sampler.measuring(4, 2)):
        assert {tuple(p) for p in sight.point[:, 0, 0].numpy()} <= held_out
    away = looks.place[sampler.learn, 0] - looks.hand[sampler.learn]
    np.testing.assert_allclose(sampler.spread, away.std(0) + SPREAD_FLOOR, rtol=1e-5)


def test_half_of_the_questions_are_about_what_is_nearest(looks: LookSet, squares: Path) -> None:
    sampler = LookSampler(looks, backbone(SMOLVLA, squares).batch_spec)
    sight = sampler.draw(range(400))
    asked, chance = 0, 0.0
    for seed, which in enumerate(sight.which.tolist()):
        rng = np.random.Generator(np.random.PCG64([seed, LOOK]))
        row = int(sampler.learn[rng.integers(len(sampler.learn))])
        known = np.flatnonzero(looks.known[row])
        away = np.linalg.norm(looks.place[row, known] - looks.hand[row], axis=1)
        asked += which == known[away.argmin()]
        chance += 1 / len(known)
    expected = 400 * NEAREST + (1 - NEAREST) * chance
    assert abs(asked - expected) < 3 * 400**0.5 / 2


# --------------------------------------------------------------------------------- learning


def backbone(name: str, squares: Path, options: dict[str, str] | None = None) -> BackbonePart:
    _, learner = registry.make_learner(name, options or {})
    part = part_of(learner.model, "backbone", name)  # type: ignore[attr-defined]
    assert isinstance(part, BackbonePart)
    demonstrations, model = open_set([squares]), learner.model  # type: ignore[attr-defined]
    model.set_statistics(statistics_of(demonstrations, part.batch_spec, model))
    model.train()
    return part


@pytest.mark.parametrize(
    ("name", "options"),
    [(SMOLVLA, {}), ("fastwam", {}), ("spatialvla:deep_fusion", {"use_depth": "false"})],
)
def test_a_backbone_learns_to_point(
    name: str, options: dict[str, str], squares: Path, looks: LookSet
) -> None:
    part = backbone(name, squares, options)
    part.look_at(LookSampler(looks, part.batch_spec))
    sampler = Sampler(open_set([squares]), part.batch_spec, np.arange(36), batch=16, seed=0)
    parameters = list(part.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    before = part.finish([sampler.batch(0)])
    for step in range(30):
        terms = part.loss(sampler.batch(step))
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
    after = part.finish([sampler.batch(0)])
    assert before["look_point"] < 0.4  # it may say one and the same token
    assert after["look_point"] > 0.6  # of 17 answers
    assert after["look_place"] < before["look_place"]


@pytest.mark.parametrize("name", ["fastwam"])
def test_what_frozen_parts_give_for_looks_is_computed_once(
    name: str, squares: Path, looks: LookSet, tmp_path: Path
) -> None:
    plain, cached = backbone(name, squares), backbone(name, squares)
    samplers = [
        Sampler(open_set([squares]), plain.batch_spec, np.arange(36), batch=8, seed=0)
        for _ in range(2)
    ]
    for part in (plain, cached):
        part.look_at(LookSampler(looks, part.batch_spec))
    assert cached.looks is not None
    sources = ([cached.looks.source], Source.of_set(samplers[1]))
    cached.looks.features, samplers[1].features = (
        cache_features(torch.nn.Linear(1, 1), cached.frozen_features, s, tmp_path, batch=32)
        for s in sources
    )
    assert cached.looks.features is not None
    assert len(list(tmp_path.iterdir())) == 2  # looks and samples, each in a folder of its own
    first, other = plain.loss(samplers[0].batch(0)), cached.loss(samplers[1].batch(0))
    for term, value in first.items():
        assert float(other[term].detach()) == pytest.approx(float(value.detach()), rel=1e-4), term


def job(squares: Path, looks: LookSet | None, out: Path, name: str, part: str) -> Job:
    choice, policy = registry.make_learner(name, {})
    return Job(
        name=choice.name, policy=policy, described=choice.described(), out=out, part=part,
        config=TrainConfig(steps=4, batch=4, accumulate=2, warmup=1, validate_every=4),
        demonstrations=open_set([squares]), cache=out.parent / "features", looks=looks,
    )  # fmt: skip


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", [SMOLVLA, "fastwam"])
def test_what_learns_to_act_goes_on_looking(
    name: str, squares: Path, looks: LookSet, tmp_path: Path
) -> None:
    """Both losses, of the same samples, and one total; killed, it finds its pointer again."""
    out = tmp_path / "out"

    def kill(step: int, *_: object) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(job(squares, looks, out, name, "all"), events=Events(step=kill, save_every=2))
    train(job(squares, looks, out, name, "all"))
    whole = train(job(squares, looks, tmp_path / "whole", name, "all"))
    first, second = weights(out / "checkpoint"), weights(whole)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert not any("pointer" in key for key in first)
    line = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    pointed = 2 * line["place"] + line["point"] + line["offset"] + line["dense"]
    _, plain = registry.make_learner(name, {})
    model = plain.model  # type: ignore[attr-defined]
    demonstrations = open_set([squares])
    model.set_statistics(statistics_of(demonstrations, model.batch_spec, model))
    model.train()
    learn, _ = split(demonstrations, 4)
    sampler = Sampler(demonstrations, model.batch_spec, learn, batch=4, seed=0)
    batch = sampler.batch(0)
    parts = [float(model.loss(batch.rows(slice(i, i + 2)))["total"].detach()) for i in (0, 2)]
    assert line["total"] == pytest.approx(sum(parts) / 2 + pointed, rel=1e-4)


def test_a_killed_training_with_looks_gives_the_same_bytes(
    squares: Path, looks: LookSet, tmp_path: Path
) -> None:
    whole = train(job(squares, looks, tmp_path / "whole", SMOLVLA, "backbone"))

    def kill(step: int, *_: object) -> None:
        if step == 3:
            raise Killed

    out = tmp_path / "killed"
    with pytest.raises(Killed):
        train(job(squares, looks, out, SMOLVLA, "backbone"), events=Events(step=kill, save_every=2))
    again = train(job(squares, looks, out, SMOLVLA, "backbone"))
    first, second = weights(whole), weights(again)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    about, other = (json.loads((f / ABOUT).read_text()) for f in (whole, again))
    assert about["quality"] == other["quality"]
    assert {"look_place", "look_point", "keyframe_0"} <= about["quality"].keys()
    assert about["decides"]["looks"] == {"count": 400, "hash": looks.hash()}
    logged = (out / "log.jsonl").read_text().splitlines()
    terms = {"keyframe", "actions", "place", "point", "offset", "dense", "total"}
    for line in map(json.loads, logged):
        assert terms <= line.keys()
    # other looks, or none, are another training
    for changed in (None, LookSet(looks.files[:1], CAMERAS, PROPRIO)):
        with pytest.raises(ConfigurationMismatch, match="another --out"):
            train(job(squares, changed, out, SMOLVLA, "backbone"))


def test_looks_are_for_backbones_that_see_all(
    squares: Path, looks: LookSet, tmp_path: Path
) -> None:
    with pytest.raises(UnusableDemonstrations, match="a tokenizer does not look"):
        train(job(squares, looks, tmp_path / "tokenizer", "fastwam", "tokenizer"))
    _, learner = registry.make_learner(SMOLVLA, {})
    model = learner.model  # type: ignore[attr-defined]
    cropped = dataclasses.replace(model.config.images, crop_area=0.9)
    model.reconfigure(dataclasses.replace(model.config, images=cropped))
    part = part_of(model, "backbone", SMOLVLA)
    assert isinstance(part, BackbonePart)
    with pytest.raises(UnusableDemonstrations, match="crops or pads it"):
        part.look_at(LookSampler(looks, part.batch_spec))
