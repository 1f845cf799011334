"""The language of goals: what it reads, what it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.goals import PREDICATES, All, AnyOf, Goal, Not, Predicate, parse, predicates
from envs.scene import SuiteOptions
from wamsim import registry

# ---------------------------------------------------------------------------- language

A, B, C = (Predicate("On", (x, "plate")) for x in "abc")


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("On(a, plate)", A),
        ("  On ( a ,plate ) ", A),
        ("Open(cabinet.1-top_2)", Predicate("Open", ("cabinet.1-top_2",))),
        ("On(a, plate) & On(b, plate)", All((A, B))),
        ("On(a, plate)&On(b, plate)&On(c, plate)", All((A, B, C))),
        ("!On(a, plate)", Not(A)),
        ("!!On(a, plate)", Not(Not(A))),
        ("(On(a, plate) | On(b, plate))", AnyOf((A, B))),
        ("!On(a, plate) & On(b, plate)", All((Not(A), B))),  # ! binds tighter than &
        ("!(On(a, plate) & On(b, plate))", Not(All((A, B)))),
        ("(On(a, plate) & On(b, plate) | On(c, plate))", AnyOf((All((A, B)), C))),
        ("(On(a, plate) | On(b, plate)) & On(c, plate)", All((AnyOf((A, B)), C))),
        ("(On(a, plate))", A),
    ],
)
def test_expressions(text: str, goal: Goal) -> None:
    assert parse(text) == goal
    assert parse(str(goal)) == goal


def _goals() -> st.SearchStrategy[Goal]:
    names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.\-]{0,6}", fullmatch=True)
    leaves = st.builds(Predicate, names, st.lists(names, min_size=1, max_size=3).map(tuple))

    def grow(inner: st.SearchStrategy[Goal]) -> st.SearchStrategy[Goal]:
        several = st.lists(inner, min_size=2, max_size=3).map(tuple)
        flat = several.filter(lambda terms: not any(isinstance(t, All) for t in terms))
        return st.builds(Not, inner) | st.builds(All, flat) | st.builds(AnyOf, several)

    return st.recursive(leaves, grow, max_leaves=8)


@given(_goals())
def test_what_is_written_is_read_back(goal: Goal) -> None:
    assert parse(str(goal)) == goal


@pytest.mark.parametrize("suite", registry.suite_names())
def test_every_tasks_goal_is_read(suite: str, tmp_path: Path) -> None:
    for task in registry.suite(suite, SuiteOptions(cache_dir=tmp_path)).suite.tasks:
        goal = parse(task.goal)
        assert parse(str(goal)) == goal
        for p in predicates(goal):
            assert PREDICATES[p.name][0] == len(p.args)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "ends too early"),
        ("On", r"expected '\(' after 'On'"),
        ("On a", r"expected '\(' after 'On'"),
        ("On(a, b", r"expected ',' or '\)' after 'b'$"),
        ("On(a,", r"a '\(' is not closed"),
        ("On(", r"a '\(' is not closed"),
        ("On()", r"expected a name, found '\)'"),
        ("On(a b)", r"expected ',' or '\)' after 'a', found 'b'"),
        ("On(a,,b)", "expected a name, found ','"),
        ("On(a,)", r"expected a name, found '\)'"),
        ("On(a & b)", r"expected ',' or '\)' after 'a', found '&'"),
        ("On((a), b)", r"expected a name, found '\('"),
        ("On(a, b) &", "ends too early"),
        ("On(a, b) & & On(a, b)", "expected a predicate, found '&'"),
        ("On(a, b) On(b, a)", "unexpected 'On"),
        ("On(a, b) | On(b, a)", r"unexpected '\|"),  # alternatives need parentheses
        ("(On(a, b) | On(b, a)", r"a '\(' is not closed"),
        ("On(a, b))", r"unexpected '\)'"),
        ("On(a, 3)", "cannot read"),
        ("On(a; b)", "cannot read"),
    ],
)
def test_what_is_not_an_expression(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        parse(text)
    assert repr(text.strip()) in str(caught.value)


def test_predicates_come_in_written_order() -> None:
    goal = parse("!(On(a, plate) & (On(b, plate) | !On(c, plate)))")
    assert [p.args[0] for p in predicates(goal)] == ["a", "b", "c"]
