"""Suites and policies by name: groups, nearest names, options as text."""

from __future__ import annotations

import dataclasses
import enum
import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from doubles import CountingPolicy, card

from envs.evaluation import EvalConfig
from envs.scene import SuiteOptions
from wamsim import registry
from wamsim.errors import UnknownName, WamsimError
from wamsim.registry import (
    PolicyFamily,
    choose_policy,
    expand_suites,
    family,
    make_policy,
    parse_value,
)
from wamsim.run_folder import config_hash


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """An option of every type."""

    weights: Path
    execute: int = 2
    noise: float = 0.1
    fast: bool = False
    colour: Colour = Colour.RED
    name: str = "toy"
    offsets: tuple[int, ...] = (0,)
    size: tuple[int, float] = (1, 2.0)
    limit: int | None = None
    places: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.execute > 4:
            raise ValueError(f"execute={self.execute} must be at most 4")


TOY = PolicyFamily(
    name="toy",
    config=ToyConfig,
    variants=("small", "large"),
    make=lambda variant, config: CountingPolicy(card(name=variant, execute=config.execute)),
    summary="a policy of another package",
)
NOT_A_FAMILY = 3


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package has been installed."""
    real = registry.entry_points

    def with_toys(*, group: str) -> list[EntryPoint]:
        own = [EntryPoint(name, f"{__name__}:{value}", group) for name, value in (
            ("toy", "TOY"), ("broken", "NOT_A_FAMILY"),
        )]  # fmt: skip
        return [*real(group=group), *(own if group == "wamsim.policies" else [])]

    monkeypatch.setattr(registry, "entry_points", with_toys)


# ------------------------------------------------------------------------------- names


def test_known_names_are_listed_in_order() -> None:
    suites, policies = registry.suite_names(), registry.policy_names()
    assert list(suites) == sorted(suites)
    assert {"libero_object", "libero_90", "tabletop_object", "tabletop_long"} <= set(suites)
    assert {"oracle", "practice", "random", "hold", "replay"} <= set(policies)


def test_listing_names_imports_none_of_them() -> None:
    code = (
        "import sys; from wamsim import registry;"
        "registry.suite_names(), registry.policy_names();"
        "print([m for m in ('mujoco', 'torch', 'policies', 'envs.tabletop') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("libero_goal", ("libero_goal",)),
        ("libero", ("libero_spatial", "libero_object", "libero_goal", "libero_10")),
        ("tabletop", ("tabletop_object", "tabletop_spatial", "tabletop_goal", "tabletop_long")),
        ("libero_90, libero_goal", ("libero_90", "libero_goal")),  # in the order asked for
        (
            "tabletop_goal,tabletop",  # once each
            ("tabletop_goal", "tabletop_object", "tabletop_spatial", "tabletop_long"),
        ),
        ("libero_goal,libero_goal", ("libero_goal",)),
    ],
)
def test_groups_stand_for_their_suites(text: str, expected: tuple[str, ...]) -> None:
    assert expand_suites(text) == expected


def test_every_group_names_registered_suites() -> None:
    for members in registry.SUITE_GROUPS.values():
        assert set(members) <= set(registry.suite_names())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("libero_gaol", r"unknown suite 'libero_gaol'\. Did you mean 'libero_goal'"),
        ("tabeltop", r"unknown suite 'tabeltop'\. Did you mean 'tabletop'"),
        ("libero_goal,", r"unknown suite ''\. Known: .*`wamsim list suites` shows all\."),
        (
            "zzz",
            r"unknown suite 'zzz'\. Known: bimanual, .*`wamsim list suites` shows all",
        ),
    ],
)
def test_an_unknown_suite_names_the_nearest(text: str, sentence: str) -> None:
    with pytest.raises(UnknownName, match=sentence):
        expand_suites(text)


def test_a_group_is_no_suite() -> None:
    with pytest.raises(UnknownName, match="unknown suite 'libero'"):
        registry.suite("libero", SuiteOptions(cache_dir=Path("unused")))


@pytest.mark.parametrize("name", registry.suite_names())
def test_every_suite_is_built_by_its_name(name: str, tmp_path: Path) -> None:
    suite = registry.suite(name, SuiteOptions(cache_dir=tmp_path)).suite
    assert suite.name == name
    assert suite.id == f"{name}-v{suite.version}"


@pytest.mark.parametrize("name", registry.policy_names())
def test_every_policy_family_goes_by_its_entry_points_name(name: str) -> None:
    found = family(name)
    assert found.name == name
    assert found.summary
    assert dataclasses.is_dataclass(found.config)
    assert found.config.__dataclass_params__.frozen
    assert all(f.kw_only for f in dataclasses.fields(found.config))


def test_an_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown policy 'orcale'\. Did you mean 'oracle'"):
        choose_policy("orcale")


# ---------------------------------------------------------------- another package's policy


@pytest.mark.usefixtures("toys")
def test_another_packages_policy_is_found_and_built() -> None:
    choice = choose_policy("toy:large", {"weights": "/w", "execute": "3"})
    assert choice.name == "toy:large"
    assert choice.options["weights"] == Path("/w")
    policy = make_policy(choice)
    assert (policy.card.name, policy.card.execute) == ("large", 3)


@pytest.mark.usefixtures("toys")
def test_the_first_variant_is_the_default() -> None:
    assert choose_policy("toy", {"weights": "/w"}).variant == "small"


@pytest.mark.usefixtures("toys")
def test_options_are_resolved_with_their_defaults() -> None:
    given = {"weights": "w.pt", "fast": "yes", "colour": "blue", "offsets": "-2,0", "limit": "4"}
    assert choose_policy("toy", given).options == {
        "weights": Path("w.pt"), "execute": 2, "noise": 0.1, "fast": True, "colour": Colour.BLUE,
        "name": "toy", "offsets": (-2, 0), "size": (1, 2.0), "limit": 4, "places": (),
    }  # fmt: skip


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("toy:lrage", {}, "unknown variant of toy 'lrage'. Did you mean 'large'?"),
        (
            "toy",
            {"weights": "w", "exeucte": "1"},
            "unknown option of policy 'toy' 'exeucte'. Did you mean 'execute'?",
        ),
        ("toy", {}, "policy 'toy' needs weights: add --set weights=..."),
        (
            "toy",
            {"weights": "w", "execute": "5"},
            "policy 'toy': execute=5 must be at most 4",
        ),
        (
            "toy",
            {"weights": "w", "execute": "3.5"},
            "option toy.execute='3.5' is not a whole number",
        ),
        ("oracle:large", {}, "unknown variant of oracle 'large'."),
        ("broken", {}, "entry point wamsim.policies:broken gives int, not a PolicyFamily"),
    ],
)
def test_what_cannot_be_chosen(text: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(WamsimError) as caught:
        choose_policy(text, options)
    assert str(caught.value) == sentence


@pytest.mark.usefixtures("toys")
def test_a_choice_of_every_type_becomes_plain_data() -> None:
    given = {"weights": "w.pt", "colour": "blue", "offsets": "-2,0", "places": "a,b"}
    config = EvalConfig(policy=choose_policy("toy", given), suites=("tabletop_goal",))
    mapping = config.mapping({"tabletop_goal": 1})
    assert mapping["policy"]["options"]["colour"] == "blue"
    assert mapping["policy"]["options"]["places"] == ["a", "b"]
    assert config_hash(json.loads(json.dumps(mapping))) == config_hash(mapping)


# ------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("3", int, 3),
        ("-3", int, -3),
        ("2.5", float, 2.5),
        ("1e-3", float, 0.001),
        ("7", float, 7.0),
        ("true", bool, True),
        ("YES", bool, True),
        ("1", bool, True),
        ("False", bool, False),
        ("no", bool, False),
        ("0", bool, False),
        ("a=b", str, "a=b"),
        ("none", str, "none"),
        ("runs/x", Path, Path("runs/x")),
        ("blue", Colour, Colour.BLUE),
        ("1,2,3", tuple[int, ...], (1, 2, 3)),
        ("5", tuple[int, ...], (5,)),
        ("", tuple[int, ...], ()),
        ("a,b", tuple[str, ...], ("a", "b")),
        ("4,0.5", tuple[int, float], (4, 0.5)),
        ("none", int | None, None),
        ("", float | None, None),
        ("None", Path | None, None),
        ("4", int | None, 4),
        ("0.5", float | None, 0.5),
    ],
)
def test_values_of_every_type(text: str, kind: Any, expected: object) -> None:
    found = parse_value(text, kind, name="x")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        ("1.5", int, "option x='1.5' is not a whole number"),
        ("", int, "option x='' is not a whole number"),
        ("none", int, "option x='none' is not a whole number"),
        ("fast", float, "option x='fast' is not a finite number"),
        ("nan", float, "option x='nan' is not a finite number"),
        ("-inf", float, "option x='-inf' is not a finite number"),
        ("maybe", bool, "option x='maybe' is not true or false"),
        ("2", bool, "option x='2' is not true or false"),
        ("green", Colour, "option x='green' is not one of red, blue"),
        ("1,b", tuple[int, ...], "option x='b' is not a whole number"),
        (
            "1,2,3",
            tuple[int, int],
            "option x='1,2,3' has 3 value(s), expected 2, separated by commas",
        ),
        ("x", int | None, "option x='x' is not a whole number"),
        ("x", dict, f"option x has a type that the command line cannot set: {dict}"),
    ],
)
def test_values_that_do_not_fit(text: str, kind: Any, sentence: str) -> None:
    with pytest.raises(WamsimError) as caught:
        parse_value(text, kind, name="x")
    assert str(caught.value) == sentence
