"""Goals: one small expression language over predicates, used by every suite.

    goal       := term { "&" term }
    term       := "!" term | "(" goal { "|" goal } ")" | predicate
    predicate  := NAME "(" name { "," name } ")"

Predicates have LIBERO's definitions where LIBERO defines them (SUITES: predicates of
LIBERO, libero/libero/envs/predicates and object_states in hf-libero 0.1.4), quirks
included, because scores depend on them. They read MuJoCo's derived quantities as the
last substep left them, as the genuine environment does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.kitchen import predicates as kitchen
from envs.scene import Region, Scene, Thing, Threshold
from wamsim.errors import UnknownName, nearest

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Predicate:
    """A named relation and its arguments, e.g. On(bowl_1, plate_1)."""

    name: str
    args: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}({', '.join(self.args)})"


@dataclass(frozen=True)
class Not:
    """Negation."""

    term: Goal

    def __str__(self) -> str:
        return f"!({self.term})" if isinstance(self.term, All) else f"!{self.term}"


@dataclass(frozen=True)
class All:
    """Conjunction; every term must hold at the same step."""

    terms: tuple[Goal, ...]

    def __str__(self) -> str:
        return " & ".join(str(t) for t in self.terms)


@dataclass(frozen=True)
class AnyOf:
    """Disjunction."""

    terms: tuple[Goal, ...]

    def __str__(self) -> str:
        return "(" + " | ".join(str(t) for t in self.terms) + ")"


Goal = Predicate | Not | All | AnyOf


def predicates(goal: Goal) -> Iterator[Predicate]:
    """All predicates of a goal, in the order in which they were written."""
    if isinstance(goal, Predicate):
        yield goal
    elif isinstance(goal, Not):
        yield from predicates(goal.term)
    else:
        for term in goal.terms:
            yield from predicates(term)


_TOKEN = re.compile(r"\s*([A-Za-z_][\w.\-]*|[()&|!,])")
_SIGNS = frozenset("()&|!,")


def parse(text: str) -> Goal:
    """Read a goal expression.

    Raises:
        ValueError: Not an expression of the language; says where it went wrong.
    """
    tokens: list[str] = []
    at = 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"goal {text!r}: cannot read {text[at:]!r}")
        tokens.append(match.group(1))
        at = match.end()
    goal, rest = _conjunction(tokens, text)
    if rest:
        raise ValueError(f"goal {text!r}: unexpected {' '.join(rest)!r}")
    return goal


def _conjunction(tokens: list[str], text: str) -> tuple[Goal, list[str]]:
    terms: list[Goal] = []
    term, tokens = _term(tokens, text)
    terms.append(term)
    while tokens and tokens[0] == "&":
        term, tokens = _term(tokens[1:], text)
        terms.append(term)
    return (terms[0] if len(terms) == 1 else All(tuple(terms))), tokens


def _term(tokens: list[str], text: str) -> tuple[Goal, list[str]]:
    if not tokens:
        raise ValueError(f"goal {text!r} ends too early")
    head, rest = tokens[0], tokens[1:]
    if head == "!":
        inner, rest = _term(rest, text)
        return Not(inner), rest
    if head == "(":
        options: list[Goal] = []
        inner, rest = _conjunction(rest, text)
        options.append(inner)
        while rest and rest[0] == "|":
            inner, rest = _conjunction(rest[1:], text)
            options.append(inner)
        if not rest or rest[0] != ")":
            raise ValueError(f"goal {text!r}: a '(' is not closed")
        return (options[0] if len(options) == 1 else AnyOf(tuple(options))), rest[1:]
    if head in _SIGNS:
        raise ValueError(f"goal {text!r}: expected a predicate, found {head!r}")
    if not rest or rest[0] != "(":
        raise ValueError(f"goal {text!r}: expected '(' after {head!r}")
    args: list[str] = []
    rest = rest[1:]
    while True:
        if not rest:
            raise ValueError(f"goal {text!r}: a '(' is not closed")
        if rest[0] in _SIGNS:
            raise ValueError(f"goal {text!r}: expected a name, found {rest[0]!r}")
        args.append(rest[0])
        after, rest = rest[1:2], rest[2:]
        if after == [")"]:
            break
        if after != [","]:
            found = f", found {after[0]!r}" if after else ""
            raise ValueError(f"goal {text!r}: expected ',' or ')' after {args[-1]!r}{found}")
    return Predicate(head, tuple(args)), rest


# --------------------------------------------------------------------- definitions


class World:
    """A scene and the data of one episode, as predicates see them."""

    def __init__(self, scene: Scene, data: mujoco.MjData) -> None:
        self.scene = scene
        self.data = data

    def position(self, thing: Thing) -> Array:
        """Body origin [3], world frame, metres."""
        return self.data.xpos[self.scene.body_id(thing.body)]

    def joint(self, name: str) -> float:
        """Position of a hinge or slide."""
        return float(self.data.qpos[self.scene.qpos_address(name)])

    def touch(self, a: Thing, b: Thing) -> bool:
        """Whether contact geoms of the two things touch."""
        return self.scene.touches(self.data, a, b)

    def site(self, region: Region) -> tuple[Array, Array]:
        """Centre [3] and rotation [3, 3] of a region."""
        i = self.scene.site_id(region.site)
        return self.data.site_xpos[i], self.data.site_xmat[i].reshape(3, 3)


def _on(world: World, a: str, b: str) -> bool:
    thing = world.scene.thing(a)
    if world.scene.has_thing(b):
        below = world.scene.thing(b)
        p, q = world.position(thing), world.position(below)
        # 0.03 m: ObjectState.check_ontop
        return bool(
            q[2] <= p[2] and np.linalg.norm(q[:2] - p[:2]) < 0.03 and world.touch(below, thing)
        )
    region = world.scene.region(b)
    centre, rotation = world.site(region)
    # R, not R transposed, as SiteObject.under has it; -0.005 and 0.10 m likewise.
    d = rotation @ (world.position(thing) - centre)
    size = np.asarray(region.size)
    inside = size[2] - 0.005 < d[2] < size[2] + 0.10 and bool(np.all(np.abs(d[:2]) < size[:2]))
    if not inside:
        return False
    return region.parent is None or world.touch(world.scene.thing(region.parent), thing)


def _in(world: World, a: str, b: str) -> bool:
    thing = world.scene.thing(a)
    p = world.position(thing)
    if world.scene.has_thing(b):
        box = world.scene.thing(b)
        if box.half_extents is None:
            raise UnknownName(f"nothing can be In({a}, {b}): {b!r} has no inside")
        q = world.position(box)
        return bool(
            world.touch(thing, box) and np.all(np.abs(p - q) < np.asarray(box.half_extents))
        )
    region = world.scene.region(b)
    centre, rotation = world.site(region)
    # SiteObject.in_box: an axis-aligned box of |R size|, its floor lowered by 0.01 m.
    half = np.abs(rotation @ np.asarray(region.size))
    low, high = centre - half, centre + half
    low[2] -= 0.01
    return bool(np.all(p > low) and np.all(p < high))


def _joints(world: World, name: str) -> tuple[Thing, list[float]]:
    if world.scene.has_thing(name):
        thing = world.scene.thing(name)
        return thing, [world.joint(j) for j in thing.joints]
    region = world.scene.region(name)
    if region.parent is None:
        raise UnknownName(f"region {name!r} has no joint to open or turn")
    return world.scene.thing(region.parent), [world.joint(j) for j in region.joints]


def _threshold(thing: Thing, which: str) -> Threshold:
    found = getattr(thing.articulation, which) if thing.articulation else None
    if found is None:
        raise UnknownName(f"{thing.name!r} ({thing.category}) cannot be asked for {which!r}")
    return found


def _open(world: World, a: str) -> bool:
    thing, qs = _joints(world, a)
    limit = _threshold(thing, "open")
    return any(limit.holds(q) for q in qs)


def _close(world: World, a: str) -> bool:
    thing, qs = _joints(world, a)
    limit = _threshold(thing, "close")
    return all(limit.holds(q) for q in qs)


def _turn_on(world: World, a: str) -> bool:
    thing, qs = _joints(world, a)
    limit = _threshold(thing, "turn_on")
    return any(limit.holds(q) for q in qs)


def _turn_off(world: World, a: str) -> bool:
    thing, qs = _joints(world, a)
    limit = _threshold(thing, "turn_off")
    return all(limit.holds(q) for q in qs)


def _up(world: World, a: str) -> bool:
    # 1.0 m: libero predicates/base_predicates.py, Up
    return bool(world.position(world.scene.thing(a))[2] >= 1.0)


def _touching(world: World, a: str, b: str) -> bool:
    return world.touch(world.scene.thing(a), world.scene.thing(b))


# name -> (number of arguments, definition)
PREDICATES: dict[str, tuple[int, Callable[..., bool]]] = {
    "On": (2, _on),
    "In": (2, _in),
    "Open": (1, _open),
    "Close": (1, _close),
    "TurnOn": (1, _turn_on),
    "TurnOff": (1, _turn_off),
    "Up": (1, _up),
    "Touching": (2, _touching),
    **kitchen.DEFINITIONS,
}


def check(goal: Goal, scene: Scene) -> None:
    """Check that a goal names predicates, things and regions that exist.

    Raises:
        UnknownName: With the nearest known name.
    """
    for p in predicates(goal):
        if p.name not in PREDICATES:
            raise nearest(p.name, PREDICATES, kind="predicate")
        arity, _ = PREDICATES[p.name]
        if len(p.args) != arity:
            raise UnknownName(f"{p}: {p.name} takes {arity} argument(s), got {len(p.args)}")
        for arg in p.args:
            if not (scene.has_thing(arg) or scene.has_region(arg)):
                known = [t.name for t in scene.info.things] + [r.name for r in scene.info.regions]
                raise nearest(arg, known, kind=f"object or region in {p}")


def holds(goal: Goal, world: World) -> bool:
    """Whether the goal holds now."""
    if isinstance(goal, Predicate):
        _, definition = PREDICATES[goal.name]
        return definition(world, *goal.args)
    if isinstance(goal, Not):
        return not holds(goal.term, world)
    if isinstance(goal, All):
        return all(holds(t, world) for t in goal.terms)
    return any(holds(t, world) for t in goal.terms)
