"""Reading LIBERO's BDDL task files: enough to list tasks, name scenes and write goals.

Scenes themselves are built by hf-libero's own parser; this one needs no simulator.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Tokens = list["str | Tokens"]

# BDDL predicate -> ours (envs/goals.py). libero/envs/predicates/__init__.py
PREDICATES = {
    "on": "On",
    "in": "In",
    "open": "Open",
    "close": "Close",
    "turnon": "TurnOn",
    "turnoff": "TurnOff",
}

# Problem class -> short name in scene ids. libero/envs/problems
PROBLEMS = {
    "libero_tabletop_manipulation": "tabletop",
    "libero_floor_manipulation": "floor",
    "libero_kitchen_tabletop_manipulation": "kitchen",
    "libero_living_room_tabletop_manipulation": "living_room",
    "libero_study_tabletop_manipulation": "study",
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What a BDDL file says.

    Attributes:
        kind: Problem class in lower case, a key of `PROBLEMS`.
        language: Its own wording of the task, lower case; scores use the file name's.
        fixtures, objects: category -> instance names, in file order.
        init: Initial predicates.
        goal: Conjunction of predicates, lower case.
        of_interest: Names that the task is about.
        scene_id: Equal for problems that differ in language, interest and goal alone.
    """

    kind: str
    language: str
    fixtures: dict[str, list[str]]
    objects: dict[str, list[str]]
    init: list[list[str]]
    goal: list[list[str]]
    of_interest: list[str]
    scene_id: str

    def goal_text(self) -> str:
        """The goal in the language of envs/goals.py."""
        terms = (f"{PREDICATES[name]}({', '.join(args)})" for name, *args in self.goal)
        return " & ".join(terms)

    def categories(self) -> set[str]:
        """Categories of everything in the scene, the table or floor itself included."""
        return set(self.fixtures) | set(self.objects)


@cache
def read(path: Path) -> Problem:
    """Read a BDDL file.

    Raises:
        ValueError: Not a LIBERO problem.
    """
    tokens = _tokens(path.read_text(), path)
    if not tokens or tokens[0] != "define":
        raise ValueError(f"not a BDDL problem, it does not start with (define: {path}")
    sections: dict[str, Tokens] = {}
    for group in tokens[1:]:
        assert isinstance(group, list)
        head, *rest = group
        assert isinstance(head, str)
        sections[head] = rest
    goal = sections[":goal"][0]
    assert isinstance(goal, list)
    if goal[0] == "and":
        goal = goal[1:]
    else:
        goal = [goal]
    kind = str(sections["problem"][0])
    if kind not in PROBLEMS:
        raise ValueError(f"unknown problem class {kind!r}: {path}")
    return Problem(
        kind=kind,
        language=" ".join(_words(sections[":language"])),
        fixtures=_typed(sections[":fixtures"]),
        objects=_typed(sections[":objects"]),
        init=[_words(p) for p in sections[":init"]],
        goal=[_words(p) for p in goal],
        of_interest=_words(sections[":obj_of_interest"]),
        scene_id=_scene_id(kind, sections),
    )


def _scene_id(kind: str, sections: dict[str, Tokens]) -> str:
    parts = [sections[name] for name in (":fixtures", ":objects", ":regions", ":init")]
    digest = hashlib.sha256(json.dumps([kind, *parts]).encode()).hexdigest()[:12]
    return f"libero-{PROBLEMS[kind]}-{digest}"


def _tokens(text: str, path: Path) -> Tokens:
    """Nested lists of lower-case words, as bddl.parsing.scan_tokens gives them."""
    stack: list[Tokens] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", re.sub(r";.*", "", text).lower()):
        if token == "(":
            stack.append([])
        elif token == ")":
            if len(stack) < 2:
                raise ValueError(f"a ')' too many: {path}")
            inner = stack.pop()
            stack[-1].append(inner)
        else:
            stack[-1].append(token)
    if len(stack) != 1 or len(stack[0]) != 1 or not isinstance(stack[0][0], list):
        raise ValueError(f"brackets do not match: {path}")
    return stack[0][0]


def _words(tokens: str | Tokens) -> list[str]:
    words = [t for t in tokens if isinstance(t, str)]
    assert len(words) == len(tokens), "a list of words has brackets in it"
    return words


def _typed(tokens: Tokens) -> dict[str, list[str]]:
    """``a b - kind c - other`` as {kind: [a, b], other: [c]}."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    words = iter(_words(tokens))
    for word in words:
        if word == "-":
            found[next(words)] = names
            names = []
        else:
            names.append(word)
    return found
