"""Checkpoints that come with wamsim are found by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies import reference
from policies.checkpoint import CheckpointMismatch, local_folder
from wamsim import registry


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A family's folder with one reference checkpoint, of the default variant."""
    folder = tmp_path / "fastwam" / "reference" / "fastwam"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(
        reference, "folder_of", lambda family, variant: tmp_path / family / "reference" / variant
    )
    return folder


def named(text: str, **options: str) -> object:
    choice = registry.choose_policy(text, options)
    return reference.with_reference(choice).options.get("checkpoint")


def test_a_run_without_a_checkpoint_takes_the_reference(shipped: Path) -> None:
    assert named("fastwam") == "reference:fastwam:fastwam"
    assert local_folder("reference:fastwam:fastwam") == shipped


def test_what_was_asked_for_stays(shipped: Path) -> None:
    assert named("fastwam", checkpoint="somewhere") == "somewhere"
    assert named("fastwam", checkpoint="untrained") is None
    assert named("fastwam", preset="published") is None  # the reference is of the tiny preset
    assert named("fastwam:joint") is None  # none was shipped
    assert named("random") is None


def test_planning_runs_on_the_weights_of_direct() -> None:
    assert reference.folder_of("cosmos", "planning") == reference.folder_of("cosmos", "direct")


def test_a_reference_that_is_not_there_is_named(shipped: Path) -> None:
    with pytest.raises(CheckpointMismatch, match="reference:fastwam:idm"):
        local_folder("reference:fastwam:idm")
