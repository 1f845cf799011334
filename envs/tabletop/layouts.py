"""Start layouts of the tabletop tasks: rectangles in metres, see `placement.Slot`."""

from __future__ import annotations

from collections.abc import Mapping

from envs.tabletop.placement import Layout, Range, Slot, layout

# ------------------------------------------------------------------------ grocery

GROCERY = layout(
    *(
        Slot(thing=name, x=(-0.26, 0.04), y=(-0.27, 0.12))
        for name in ("can", "milk", "cereal", "bread", "ketchup")
    )
)

# -------------------------------------------------------------------------- bowls
# Landmarks keep their corners, so that every place has one name; bowls have gaps of
# 2 to 4 cm to what they are "next to" and more than 5 cm to everything else.

_SMALL: Range = (-0.012, 0.012)
_LANDMARKS = (
    Slot(thing="plate", x=(0.015, 0.045), y=(0.10, 0.13)),
    Slot(thing="ramekin", x=(-0.26, -0.23), y=(-0.14, -0.11)),
    Slot(thing="cookie_box", x=(-0.055, -0.025), y=(-0.28, -0.25), yaw=(1.42, 1.72)),
)


def _around(x: float, y: float) -> tuple[Range, Range]:
    return (x + _SMALL[0], x + _SMALL[1]), (y + _SMALL[0], y + _SMALL[1])


def _bowl(bowl: str, place: str) -> Slot:
    if place == "between_plate_and_ramekin":
        return Slot(thing=bowl, anchor=("plate", "ramekin"), x=_SMALL, y=_SMALL)
    if place == "on_cookie_box":
        return Slot(
            thing=bowl, anchor=("cookie_box",), on="cookie_box", height=0.020, x=_SMALL, y=_SMALL
        )
    if place == "on_stove":
        return Slot(
            thing=bowl,
            anchor=("stove",),
            on="stove",
            height=0.026,
            x=_around(-0.035, 0)[0],
            y=_SMALL,
        )
    anchor, offset = {
        "next_to_ramekin": ("ramekin", (0.01, -0.133)),
        "next_to_cookie_box": ("cookie_box", (-0.02, 0.178)),
        "next_to_plate": ("plate", (-0.01, -0.178)),
        "next_to_stove": ("stove", (-0.02, -0.188)),
    }[place]
    x, y = _around(*offset)
    return Slot(thing=bowl, anchor=(anchor,), x=x, y=y)


def bowls(target: str, other: str) -> Layout:
    """The wanted bowl at one place, its double at another."""
    return layout(*_LANDMARKS, _bowl("bowl_1", target), _bowl("bowl_2", other))


# ------------------------------------------------------------------------ kitchen

_KITCHEN = (
    Slot(thing="bowl", x=(-0.26, -0.15), y=(0.060, 0.090)),
    Slot(thing="plate", x=(-0.01, 0.03), y=(0.06, 0.09)),
    Slot(thing="cream_cheese", x=(0.01, 0.05), y=(-0.12, -0.05)),
)
# LIBERO starts an open drawer in [-0.16, -0.14] (SUITES 1.3); a little more than its
# threshold here, so that it counts as open whatever it is brushed by.
_OPEN: Range = (-0.16, -0.15)


def kitchen(joints: Mapping[str, Range] | None = None) -> Layout:
    """Bowl by the stove, plate in the middle, cream cheese in front."""
    return layout(*_KITCHEN, joints=joints)


KITCHEN = kitchen()
KITCHEN_OPEN = kitchen({"cabinet_top_joint": _OPEN})
