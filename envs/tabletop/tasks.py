"""The tasks of the tabletop suites: words, goals, step limits.

Step limits are about twice what a careful scripted expert needs.
"""

from __future__ import annotations

from dataclasses import dataclass

from envs.tabletop import layouts
from envs.tabletop.placement import Layout

SHORT, LONG = 240, 420  # env steps: 12 s and 21 s of robot time


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One task before it is numbered."""

    name: str
    instruction: str
    paraphrases: tuple[str, str, str]
    goal: str
    scene: str
    plan: Layout
    max_steps: int = SHORT


# ------------------------------------------------------------------------- object


def _grocery(thing: str, words: str) -> Entry:
    return Entry(
        name=f"put_{thing}_in_basket",
        instruction=f"pick up the {words} and place it in the basket",
        paraphrases=(
            f"put the {words} in the basket",
            f"grab the {words} and drop it into the basket",
            f"the {words} belongs in the basket, move it there",
        ),
        goal=f"In({thing}, basket_region)",
        scene="tabletop_grocery",
        plan=layouts.GROCERY,
    )


_OBJECT = (
    _grocery("can", "soup can"),
    _grocery("milk", "milk carton"),
    _grocery("cereal", "cereal box"),
    _grocery("bread", "loaf of bread"),
    _grocery("ketchup", "ketchup bottle"),
)

# ------------------------------------------------------------------------ spatial


def _spatial(place: str, words: str, *, other: str) -> Entry:
    return Entry(
        name=f"put_bowl_{place}_on_plate",
        instruction=f"pick up the bowl {words} and place it on the plate",
        paraphrases=(
            f"put the bowl {words} on the plate",
            f"move the bowl that is {words} onto the plate",
            f"take the bowl {words} and set it down on the plate",
        ),
        goal="On(bowl_1, plate)",
        scene="tabletop_bowls",
        plan=layouts.bowls(place, other),
    )


_SPATIAL = (
    _spatial(
        "between_plate_and_ramekin", "between the plate and the ramekin", other="on_cookie_box"
    ),
    _spatial("next_to_ramekin", "next to the ramekin", other="on_stove"),
    _spatial("on_cookie_box", "on the cookie box", other="next_to_ramekin"),
    _spatial("next_to_cookie_box", "next to the cookie box", other="next_to_stove"),
    _spatial("on_stove", "on the stove", other="next_to_cookie_box"),
    _spatial("next_to_plate", "next to the plate", other="next_to_ramekin"),
    _spatial("next_to_stove", "next to the stove", other="next_to_plate"),
)

# --------------------------------------------------------------------------- goal


def _kitchen(
    name: str,
    goal: str,
    instruction: str,
    *paraphrases: str,
    plan: Layout = layouts.KITCHEN,
    max_steps: int = SHORT,
) -> Entry:
    first, second, third = paraphrases
    return Entry(
        name=name,
        instruction=instruction,
        paraphrases=(first, second, third),
        goal=goal,
        scene="tabletop_kitchen",
        plan=plan,
        max_steps=max_steps,
    )


_GOAL = (
    _kitchen(
        "open_top_drawer",
        "Open(cabinet_top_region)",
        "open the top drawer of the cabinet",
        "pull the top drawer open",
        "slide out the upper drawer of the cabinet",
        "the cabinet's top drawer should be open",
    ),
    _kitchen(
        "close_top_drawer",
        "Close(cabinet_top_region)",
        "close the top drawer of the cabinet",
        "push the top drawer shut",
        "slide the upper drawer back into the cabinet",
        "the cabinet's top drawer should be closed",
        plan=layouts.KITCHEN_OPEN,
    ),
    _kitchen(
        "put_bowl_on_cabinet",
        "On(bowl, cabinet_top_side)",
        "put the bowl on top of the cabinet",
        "place the bowl on the cabinet",
        "set the bowl down on top of the wooden cabinet",
        "pick the bowl up and leave it on the cabinet's roof",
    ),
    _kitchen(
        "put_bowl_on_stove",
        "On(bowl, stove_cook_region)",
        "put the bowl on the stove",
        "place the bowl on the burner",
        "set the bowl down on the stove's burner",
        "move the bowl onto the stove",
    ),
    _kitchen(
        "turn_on_stove",
        "TurnOn(stove)",
        "turn on the stove",
        "switch the stove on",
        "turn the knob of the stove until the burner glows",
        "light the burner",
    ),
    _kitchen(
        "push_plate_to_stove",
        "On(plate, stove_front_region)",
        "push the plate to the front of the stove",
        "slide the plate onto the mat in front of the stove",
        "move the plate in front of the stove without lifting it",
        "push the plate over to the stove's front",
    ),
    _kitchen(
        "put_bowl_on_plate",
        "On(bowl, plate)",
        "put the bowl on the plate",
        "place the bowl on the plate",
        "set the bowl down on the plate",
        "pick the bowl up and leave it on the plate",
    ),
    _kitchen(
        "put_cream_cheese_in_bowl",
        "In(cream_cheese, bowl)",
        "put the cream cheese in the bowl",
        "place the cream cheese into the bowl",
        "drop the block of cream cheese into the bowl",
        "the cream cheese belongs in the bowl, move it there",
    ),
)

# --------------------------------------------------------------------------- long


def _both(first: str, second: str, words: tuple[str, str]) -> Entry:
    a, b = words
    return Entry(
        name=f"put_{first}_and_{second}_in_basket",
        instruction=f"put both the {a} and the {b} in the basket",
        paraphrases=(
            f"place the {a} and the {b} in the basket",
            f"pick up the {a}, then the {b}, and drop both into the basket",
            f"the {a} and the {b} belong in the basket",
        ),
        goal=f"In({first}, basket_region) & In({second}, basket_region)",
        scene="tabletop_grocery",
        plan=layouts.GROCERY,
        max_steps=LONG,
    )


_LONG = (
    _both("can", "milk", ("soup can", "milk carton")),
    _both("cereal", "bread", ("cereal box", "loaf of bread")),
    _kitchen(
        "open_drawer_and_put_bowl_inside",
        "Open(cabinet_top_region) & In(bowl, cabinet_top_region)",
        "open the top drawer and put the bowl inside",
        "pull the top drawer open and place the bowl in it",
        "put the bowl into the top drawer, which you have to open first",
        "open the cabinet's upper drawer, then set the bowl down inside",
        max_steps=LONG,
    ),
    _kitchen(
        "put_bowl_in_drawer_and_close_it",
        "In(bowl, cabinet_top_region) & Close(cabinet_top_region)",
        "put the bowl in the top drawer of the cabinet and close it",
        "place the bowl in the open drawer, then push the drawer shut",
        "store the bowl in the top drawer and close the drawer",
        "the bowl belongs in the top drawer, and the drawer should be closed",
        plan=layouts.KITCHEN_OPEN,
        max_steps=LONG,
    ),
    _kitchen(
        "turn_on_stove_and_put_bowl_on_it",
        "TurnOn(stove) & On(bowl, stove_cook_region)",
        "turn on the stove and put the bowl on it",
        "switch the stove on and place the bowl on the burner",
        "light the burner, then set the bowl down on it",
        "put the bowl on the stove with the stove turned on",
        max_steps=LONG,
    ),
    _kitchen(
        "put_bowl_on_plate_and_cream_cheese_in_bowl",
        "On(bowl, plate) & In(cream_cheese, bowl)",
        "put the bowl on the plate and the cream cheese in the bowl",
        "place the bowl on the plate, then drop the cream cheese into it",
        "set the bowl on the plate and fill it with the cream cheese",
        "the cream cheese goes into the bowl and the bowl onto the plate",
        max_steps=LONG,
    ),
)

TASKS: dict[str, tuple[Entry, ...]] = {
    "tabletop_object": _OBJECT,
    "tabletop_spatial": _SPATIAL,
    "tabletop_goal": _GOAL,
    "tabletop_long": _LONG,
}
