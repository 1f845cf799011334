"""Fast-WAM on disk: saving and loading ours, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fastwam_doubles import drawn, observation, pictures, tiny
from test_fastwam_published import write_fastwam, write_statistics

from policies.checkpoint import (
    STATISTICS,
    CheckpointMismatch,
    Identity,
    Statistics,
)
from policies.fastwam import FAMILY, FastWamOptions, weights
from policies.fastwam.config import VARIANTS
from policies.fastwam.model import FastWam
from policies.fastwam.policy import FastWamPolicy

# ---------------------------------------------------------------------------- ours


@pytest.mark.parametrize("variant", VARIANTS)
def test_saving_and_loading_changes_nothing(tmp_path: Path, variant: str) -> None:
    model = drawn(variant)
    model.set_statistics(
        Statistics(
            {
                "action": {"mean": torch.full((7,), -0.5), "std": torch.full((7,), 2.0)},
                "proprio": {"mean": torch.full((8,), -1.5), "std": torch.full((8,), 1.5)},
            }
        )
    )
    model.save_pretrained(tmp_path)
    policy = FAMILY.make(variant, FastWamOptions(checkpoint=str(tmp_path), steps=2))
    before = FastWamPolicy(model, steps=2).act(observation())
    after = policy.act(observation())
    np.testing.assert_array_equal(before.actions, after.actions)
    again = FastWam.from_pretrained(str(tmp_path))
    assert again.config == model.config
    np.testing.assert_array_equal(
        FastWamPolicy(again, steps=2).act(observation()).actions, before.actions
    )


def test_drawn_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = FastWam.drawn(tiny(), seed=1).state_dict()
    state = torch.random.get_rng_state()
    second = FastWam.drawn(tiny(), seed=1).state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[k], second[k]) for k in first)
    other = FastWam.drawn(tiny(), seed=2).state_dict()
    assert not torch.equal(first["proprio_encoder.weight"], other["proprio_encoder.weight"])


def test_an_untrained_vae_gives_latents_of_unit_size() -> None:
    model = drawn()
    rng = np.random.default_rng(0)
    video = model.pixels([pictures(rng, 2, 9), pictures(rng, 2, 9)])
    latents = model.vae.encode(video)
    assert 0.2 < float(latents.std()) < 5.0


def test_other_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    model = drawn("joint")
    model.save_pretrained(tmp_path / "joint")
    options = FastWamOptions(checkpoint=str(tmp_path / "joint"))
    with pytest.raises(CheckpointMismatch, match=r"is of fastwam:joint \(tiny\), but fastwam:idm"):
        FAMILY.make("idm", options)
    with pytest.raises(CheckpointMismatch, match=r"\(tiny\), but fastwam:joint \(published\)"):
        FastWam.load(
            tmp_path / "joint",
            expect=Identity(family="fastwam", variant="joint", preset="published"),
        )
    shutil.copytree(tmp_path / "joint", tmp_path / "bare")
    (tmp_path / "bare" / STATISTICS).unlink()
    with pytest.raises(CheckpointMismatch, match=r"brings no statistics\.json"):
        FAMILY.make("joint", FastWamOptions(checkpoint=str(tmp_path / "bare")))
    document = json.loads((tmp_path / "joint" / "config.json").read_text())
    document["family"] = "cosmos"
    (tmp_path / "joint" / "config.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointMismatch, match="of cosmos:joint"):
        FAMILY.make("joint", options)
    (tmp_path / "joint" / "config.json").write_text('{"type": "pi0"}')
    with pytest.raises(CheckpointMismatch, match="no Fast-WAM checkpoint"):
        FAMILY.make("joint", options)


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = drawn()
    file = tmp_path / weights.RELEASED["fastwam"]
    write_fastwam(model, file)
    payload = torch.load(file)
    payload["mot"]["mixtures.action.extra"] = torch.zeros(1)
    del payload["mot"]["mixtures.video.head.modulation"]
    payload["proprio_encoder"]["weight"] = torch.zeros(32, 9)
    torch.save(payload, file)
    with pytest.raises(CheckpointMismatch) as error:
        weights.load_fastwam(model, file)
    assert "1 missing: mixtures.video.head.modulation" in str(error.value)
    assert "1 unexpected: mixtures.action.extra" in str(error.value)
    assert "proprio_encoder.weight: (32, 9) in the file, (32, 8)" in str(error.value)
    torch.save({"model": {}}, file)
    with pytest.raises(CheckpointMismatch, match="not FastWAM's payload"):
        weights.load_fastwam(model, file)


def test_statistics_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "dataset_stats.json"
    path.write_text("{}")
    with pytest.raises(CheckpointMismatch, match="no data set's statistics"):
        FAMILY.make("fastwam", FastWamOptions(statistics=str(path)))
    path.write_text(Statistics.identity({"action": 14, "proprio": 14}).to_json())
    with pytest.raises(CheckpointMismatch, match="14"):
        FAMILY.make("fastwam", FastWamOptions(statistics=str(path)))
    with pytest.raises(CheckpointMismatch, match="dataset_stats"):
        weights.statistics_beside(tmp_path / "elsewhere" / "model.pt")
    write_statistics(path)  # means 0, standard deviations 1
    policy = FAMILY.make("fastwam", FastWamOptions(statistics=str(path)))
    assert isinstance(policy, FastWamPolicy)
    assert float(policy.model.action_scale.backward(torch.ones(7))[0]) == pytest.approx(1.0)
