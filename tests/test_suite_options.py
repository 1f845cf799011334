"""A suite's own options: chosen by name, refused by the nearest, recorded with the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from episode_doubles import open_, put, record

from envs.bimanual import randomization
from envs.bimanual.room import LAMP_EYE, TABLES, WALLS
from envs.bimanual.suite import BimanualBackend
from envs.evaluation import EvalConfig, Resources
from envs.illustrating import SceneIllustrator
from envs.kitchen.suite import KitchenBackend
from envs.kitchen.tasks import TASKS, variant
from envs.replay import suite_options
from envs.scene import SuiteOptions, pairs
from wamsim import registry
from wamsim.contracts import EpisodeKey
from wamsim.errors import ConfigurationMismatch, UnknownName
from wamsim.leaderboard import compare
from wamsim.registry import choose_policy
from wamsim.run_summary import load_run


def options(**chosen: str) -> SuiteOptions:
    return SuiteOptions(cache_dir=Path("nowhere"), chosen=pairs(chosen))


# ---------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("suite", "chosen", "sentence"),
    [
        (
            "kitchen", {"layout": "gally"},
            r"unknown layout of kitchen 'gally'\. Did you mean 'galley'",
        ),
        ("kitchen_mobile", {"style": "costal"}, r"unknown style .* Did you mean 'coastal'"),
        (
            "kitchen", {"laout": "galley"},
            r"unknown option of suite 'kitchen' 'laout'\. Did you mean 'layout'\? `wamsim list op",
        ),
        (
            "bimanual_randomized", {"randomization": "light,cluter"},
            r"unknown randomization of bimanual 'cluter'\. Did you mean 'clutter'",
        ),
        ("bimanual_randomized", {"randomization": ","}, r"names no part\. Parts: background,"),
        ("bimanual_clean", {"randomization": "light"}, r"'randomization'\. It has no options\."),
        ("tabletop_goal", {"layout": "galley"}, r"'layout'\. It has no options\."),
        ("libero_goal", {"layout": "galley"}, r"'layout'\. It has no options\."),
    ],
)  # fmt: skip
def test_what_there_is_not_is_refused(suite: str, chosen: dict[str, str], sentence: str) -> None:
    with pytest.raises(UnknownName, match=sentence):
        registry.suite(suite, options(**chosen))


# ---------------------------------------------------------------------------- kitchen


def test_a_layout_and_a_style_are_those_of_every_trial() -> None:
    task = KitchenBackend("kitchen", options()).suite.tasks[0]
    keys = [EpisodeKey("kitchen", task.name, i) for i in range(0, 100, 7)]
    backend = KitchenBackend("kitchen", options(layout="l_left", style="mediterranean"))
    for key in keys:
        usual = variant(TASKS[task.name], key.index)
        spec = f"kitchen:l_left:mediterranean:{usual.station}"
        shown = backend.variant(backend.suite.tasks[0], key)
        assert shown.scene_id.startswith(spec)
        assert shown.scene_id.endswith("".join(f":{n}={kind}" for n, kind in usual.objects))
        # the words and things are drawn as ever
        assert shown.instruction == TASKS[task.name].wordings[0].format(**usual.words)


def test_a_layout_alone_leaves_the_styles_to_the_protocol() -> None:
    backend = KitchenBackend("kitchen", options(layout="l_left"))
    task = backend.suite.tasks[0]
    ids = [
        backend.variant(task, EpisodeKey("kitchen", task.name, i)).scene_id.split(":")
        for i in range(0, 50, 10)
    ]
    assert {i[1] for i in ids} == {"l_left"}
    assert len({i[2] for i in ids}) == 5


def test_without_choices_the_protocol_is_what_it_was() -> None:
    backend = KitchenBackend("kitchen", options())
    for task in backend.suite.tasks:
        for index in (0, 14, 49, 333):
            key = EpisodeKey("kitchen", task.name, index)
            assert backend.variant(task, key).scene_id == variant(TASKS[task.name], index).spec.id
    # to the letter: what the first evaluations drew
    shown = backend.variant(backend.suite.tasks[0], EpisodeKey("kitchen", "pnp_counter_to_cab", 12))
    assert shown.scene_id.startswith("kitchen:l_right:industrial:cabinet:obj=")


def test_the_viewer_draws_what_was_chosen(tmp_path: Path) -> None:
    illustrator = SceneIllustrator(Resources(workers=1, cache_dir=tmp_path))
    config = {"suites": {"kitchen": 2}, "suite_set": {"layout": "u_shape"}}
    key = EpisodeKey("kitchen", "open_drawer", 0)
    version = KitchenBackend("kitchen", options()).suite.version
    shown = illustrator.task(config, record(key=key, suite_version=version))
    assert shown.scene_id == "kitchen:u_shape:scandinavian:drawers"
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------- bimanual


def test_only_what_is_chosen_varies_and_it_varies_as_ever() -> None:
    for seed in range(20):
        everything = randomization.draw(np.random.default_rng(seed), evaluated=True)
        some = randomization.draw(
            np.random.default_rng(seed), evaluated=True,
            varied=randomization.parts("clutter, table_height"),
        )  # fmt: skip
        assert some[1] == everything[1]
        for name in ("clutter", "table_height"):
            assert some[2][name] == everything[2][name]
        assert (some[2]["table"], some[2]["wall"]) == (TABLES[0][0], WALLS[0][0])
        assert (some[2]["lamp"], some[2]["tints"]) == ([round(v, 4) for v in LAMP_EYE], {})
        rest = randomization.draw(
            np.random.default_rng(seed), evaluated=True, varied=randomization.parts("light")
        )
        assert (rest[1], rest[2]["clutter"]) == (0.0, {})
        assert rest[2]["lamp"] == everything[2]["lamp"]


@pytest.mark.sim
def test_the_record_says_what_varied(scene_cache_dir: Path) -> None:
    chosen = pairs({"randomization": "background,light"})
    made = SuiteOptions(cache_dir=scene_cache_dir, chosen=chosen)
    backend = BimanualBackend("bimanual_randomized", made)
    task = next(t for t in backend.suite.tasks if t.name == "lift_pot")
    start = backend.start(backend.scene(task), task, EpisodeKey(task.suite, task.name, 3), 0)
    assert start.perturbation["randomization"] == "background,light"
    assert start.perturbation["clutter"] == {}
    assert start.fixtures["table"][0][2] == pytest.approx(0.74)


# ---------------------------------------------------------------------------- the run


def test_choices_are_part_of_the_run_and_none_change_nothing_of_it() -> None:
    plain = EvalConfig(policy=choose_policy("hold"), suites=("kitchen",))
    assert "suite_set" not in plain.mapping({"kitchen": 2})
    chosen = {"style": "modern", "layout": "galley"}
    config = EvalConfig(policy=choose_policy("hold"), suites=("kitchen",), suite_set=chosen)
    mapping = config.mapping({"kitchen": 2})
    assert mapping["suite_set"] == chosen
    resources = Resources(workers=1, cache_dir=Path("nowhere"))
    read = suite_options(mapping, resources)  # as videos, the viewer and trainings do
    assert read.chosen == (("layout", "galley"), ("style", "modern"))
    assert suite_options(plain.mapping({"kitchen": 2}), resources).chosen == ()


def test_tables_keep_choices_apart(tmp_path: Path) -> None:
    runs = []
    for name, chosen in (("plain", {}), ("chosen", {"layout": "galley"})):
        config = EvalConfig(
            policy=choose_policy("hold"), suites=("kitchen",), suite_set=chosen
        ).mapping({"kitchen": 2})
        with open_(tmp_path / name, config) as folder:
            put(folder, EpisodeKey("kitchen", "open_drawer", 0), suite_version=2)
        runs.append(load_run(tmp_path / name))
    assert [run.suites["kitchen"].id for run in runs] == [
        "kitchen-v2", "kitchen-v2[layout=galley]",
    ]  # fmt: skip
    with pytest.raises(ConfigurationMismatch, match=r"--suite-set of kitchen is nothing in plain,"):
        compare(*runs)
