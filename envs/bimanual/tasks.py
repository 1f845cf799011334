"""The twelve tasks: words, goals, step limits, starts.

Names, step limits and success rules are those of RoboTwin 2.0's tasks of the same names;
wordings are ours, five that training sees and three that it does not. A mark like
"height_0.82" is a height in the world for a table whose top is at 0.74.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from envs.bimanual import fixtures, things
from envs.bimanual.starts import Slot
from envs.tabletop import dishes
from envs.tabletop.stage import Piece, Stage

Builder = Callable[[Stage, str], Piece]
RELEASED = "HandOpen(left_hand) & HandOpen(right_hand)"
ANY_WAY = (-np.pi, np.pi)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One task before it is numbered.

    Attributes:
        free, fixed: What stands on the table, and what builds it.
        slots: Where all of that starts.
        heights: Marks to measure by, metres in the world for the table at its usual height.
        targets: Marks over the table: name -> (x, y, tolerance).
        seen, unseen: Wordings.
    """

    name: str
    goal: str
    max_steps: int
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    free: Mapping[str, Builder]
    fixed: Mapping[str, Builder] = field(default_factory=dict)
    slots: tuple[Slot, ...]
    heights: tuple[float, ...] = ()
    targets: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


def _blocks(*colours: str) -> dict[str, Builder]:
    return {f"{colour}_block": things.block for colour in colours}


def _block_slots(*colours: str) -> tuple[Slot, ...]:
    """Blocks on both sides of the middle; RoboTwin: x within 0.28, y -0.15 to 0.05."""
    ranges = ((-0.24, -0.09), (0.09, 0.24), (-0.24, 0.24))
    return tuple(
        Slot(thing=f"{colour}_block", x=ranges[i], y=(-0.15, 0.08), yaw=(-0.4, 0.4), swaps="blocks")
        for i, colour in enumerate(colours)
    )


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="lift_pot",
        goal="Reaches(left_hand, pot_left_handle) & Reaches(right_hand, pot_right_handle)"
        " & Upright(pot) & Raised(pot, height_0.82)",
        max_steps=400,
        seen=(
            "lift the pot with both arms",
            "take the red pot by its two handles and lift it",
            "use both hands to raise the pot off the table",
            "grab the pot's handles and lift it up",
            "pick up the pot together with both arms",
        ),
        unseen=(
            "with one gripper on each handle, bring the red pot up",
            "hoist the pot using the left and the right hand at once",
            "the pot should leave the table, held by both of its handles",
        ),
        free={"pot": things.pot},
        slots=(Slot(thing="pot", x=(-0.06, 0.06), y=(-0.10, 0.08), yaw=(-0.35, 0.35)),),
        heights=(0.82,),
    ),
    Entry(
        name="handover_block",
        goal="At(block, pad_mark) & HandOpen(right_hand)",
        max_steps=800,
        seen=(
            "take the orange block with the left arm, hand it over to the right arm and put it "
            "on the blue pad",
            "pass the orange bar from the left hand to the right and lay it on the pad",
            "hand the block over from left to right, then place it on the blue pad",
            "left arm: pick up the block; right arm: take it and put it on the pad",
            "bring the orange block to the blue pad by handing it over",
        ),
        unseen=(
            "the orange bar is on the left and belongs on the pad on the right: pass it across",
            "let the left gripper give the block to the right one, which lays it on the blue mat",
            "move the bar onto the mat with a handover between the arms",
        ),
        free={"block": things.long_block},
        fixed={"pad": fixtures.pad},
        slots=(
            Slot(thing="block", x=(-0.27, -0.19), y=(-0.12, 0.10), yaw=(-0.4, 0.4)),
            # further than the left arm gets with the bar in its hand
            Slot(thing="pad", x=(0.24, 0.27), y=(-0.13, 0.10)),
        ),
    ),
    Entry(
        name="pick_dual_bottles",
        goal="Over(red_bottle, left_target) & Raised(red_bottle, height_0.89)"
        " & Over(green_bottle, right_target) & Raised(green_bottle, height_0.89)",
        max_steps=400,
        seen=(
            "pick up both bottles, one with each arm, and hold them up in the middle",
            "lift the red bottle with the left arm and the green one with the right",
            "take one bottle in each hand and raise them in front of you",
            "grab the two bottles at once and lift them to the middle",
            "use both arms to pick up the two bottles",
        ),
        unseen=(
            "red bottle to the left hand, green bottle to the right, and up with both",
            "each gripper holds a bottle over the centre of the table",
            "raise the two bottles side by side",
        ),
        free={"red_bottle": things.bottle, "green_bottle": things.bottle},
        slots=(
            Slot(thing="red_bottle", x=(-0.24, -0.10), y=(-0.08, 0.14), yaw=ANY_WAY),
            Slot(thing="green_bottle", x=(0.10, 0.24), y=(-0.08, 0.14), yaw=ANY_WAY),
        ),
        heights=(0.89,),
        # RoboTwin holds them at (-0.06, -0.105) and (0.06, -0.105), which leaves its hands,
        # that come from the front, side by side; ours, from the sides, want 4 cm more.
        targets={"left_target": (-0.08, -0.05, 0.10), "right_target": (0.08, -0.05, 0.10)},
    ),
    Entry(
        name="grab_roller",
        goal="HandClosed(left_hand) & HandClosed(right_hand) & Raised(roller, height_0.80)",
        max_steps=400,
        seen=(
            "grab the rolling pin with both arms and lift it",
            "lift the roller by its two ends",
            "take the rolling pin with both hands and raise it off the table",
            "pick up the roller using both arms",
            "hold the rolling pin at both handles and lift it up",
        ),
        unseen=(
            "raise the wooden pin, one gripper at each end",
            "both hands close on the roller and bring it up",
            "the rolling pin should hang between the two arms",
        ),
        free={"roller": things.roller},
        slots=(Slot(thing="roller", x=(-0.05, 0.05), y=(-0.12, 0.10), yaw=(-0.35, 0.35)),),
        heights=(0.80,),
    ),
    Entry(
        name="stack_blocks_two",
        goal=f"Stacked(green_block, red_block) & {RELEASED}",
        max_steps=800,
        seen=(
            "stack the green block on the red block",
            "put the red block in the middle and the green one on top of it",
            "place the green cube on the red cube",
            "build a tower of two blocks, red below and green above",
            "pick up the green block and set it down on the red one",
        ),
        unseen=(
            "the green cube belongs on top of the red one",
            "make a small tower: red first, then green",
            "pile green onto red",
        ),
        free=_blocks("red", "green"),
        slots=_block_slots("red", "green"),
    ),
    Entry(
        name="stack_blocks_three",
        goal=f"Stacked(green_block, red_block) & Stacked(blue_block, green_block) & {RELEASED}",
        max_steps=1200,
        seen=(
            "stack the three blocks: red at the bottom, green in the middle, blue on top",
            "put green on red and blue on green",
            "build a tower of red, green and blue from the bottom up",
            "stack the green block on the red one, then the blue block on the green one",
            "pile up the blocks in the order red, green, blue",
        ),
        unseen=(
            "make a tower with blue at the top, red at the bottom and green between them",
            "three cubes on top of each other, starting with red and ending with blue",
            "the blue cube goes on the green one, which goes on the red one",
        ),
        free=_blocks("red", "green", "blue"),
        slots=_block_slots("red", "green", "blue"),
    ),
    Entry(
        name="blocks_ranking_rgb",
        goal=f"LeftOf(red_block, green_block) & LeftOf(green_block, blue_block) & {RELEASED}",
        max_steps=1200,
        seen=(
            "line up the blocks from left to right: red, green, blue",
            "arrange the three blocks in a row, red on the left, blue on the right",
            "sort the blocks into the order red, green, blue",
            "put the blocks side by side in the order of red, green and blue",
            "make a row of blocks: red, then green, then blue",
        ),
        unseen=(
            "from left to right the cubes should be red, green and blue",
            "green goes between red on its left and blue on its right",
            "order the cubes by colour, r g b",
        ),
        free=_blocks("red", "green", "blue"),
        slots=_block_slots("red", "green", "blue"),
    ),
    Entry(
        name="place_dual_shoes",
        goal="At(left_shoe, shoe_box_left_slot) & Aligned(left_shoe, shoe_box_left_slot)"
        " & At(right_shoe, shoe_box_right_slot) & Aligned(right_shoe, shoe_box_right_slot)"
        f" & {RELEASED}",
        max_steps=600,
        seen=(
            "put both shoes into the shoe box, toes away from you",
            "place the two shoes side by side in the box",
            "pack the pair of shoes into the box",
            "use both arms to put the shoes in the shoe box",
            "left shoe on the left, right shoe on the right, both in the box",
        ),
        unseen=(
            "the sneakers belong in their box, next to each other",
            "pack the sneakers away with their tips pointing to the back",
            "each hand puts one shoe into the orange box",
        ),
        free={"left_shoe": things.shoe, "right_shoe": things.shoe},
        fixed={"shoe_box": fixtures.shoe_box},
        slots=(
            Slot(thing="left_shoe", x=(-0.27, -0.21), y=(-0.11, 0.10), yaw=(1.0, 2.1)),
            Slot(thing="right_shoe", x=(0.21, 0.27), y=(-0.11, 0.10), yaw=(1.0, 2.1)),
            Slot(thing="shoe_box", x=(-0.02, 0.02), y=(-0.04, 0.04)),
        ),
    ),
    Entry(
        name="place_bread_basket",
        goal="Over(left_bread, basket_middle) & Over(right_bread, basket_middle)"
        f" & Raised(left_bread, height_0.73) & Raised(right_bread, height_0.73) & {RELEASED}",
        max_steps=700,
        seen=(
            "put both rolls into the basket",
            "place the two pieces of bread in the bread basket",
            "pick up the bread with both arms and put it in the basket",
            "both rolls belong in the basket",
            "fill the basket with the two rolls",
        ),
        unseen=(
            "drop the bread on the left and the bread on the right into the wicker basket",
            "collect all the bread in the basket",
            "move every roll from the table into the basket",
        ),
        free={"left_bread": things.bread, "right_bread": things.bread},
        fixed={"basket": fixtures.basket},
        slots=(
            Slot(thing="left_bread", x=(-0.27, -0.19), y=(-0.13, 0.11), yaw=ANY_WAY),
            Slot(thing="right_bread", x=(0.19, 0.27), y=(-0.13, 0.11), yaw=ANY_WAY),
            Slot(thing="basket", x=(-0.02, 0.02), y=(-0.04, 0.05)),
        ),
        heights=(0.73,),
    ),
    Entry(
        name="stack_bowls_two",
        goal=f"(Nested(bowl_1, bowl_2) | Nested(bowl_2, bowl_1)) & {RELEASED}",
        max_steps=900,
        seen=(
            "stack the two bowls",
            "put one bowl into the other",
            "stack one bowl on top of the other",
            "place the bowls inside each other",
            "make a stack of the two bowls",
        ),
        unseen=(
            "nest the bowls so that one sits in the other",
            "the two bowls should stand as one pile",
            "set a bowl into its twin",
        ),
        free={"bowl_1": dishes.bowl, "bowl_2": dishes.bowl},
        slots=(
            Slot(thing="bowl_1", x=(-0.24, -0.12), y=(-0.12, 0.10), yaw=ANY_WAY),
            Slot(thing="bowl_2", x=(0.12, 0.24), y=(-0.12, 0.10), yaw=ANY_WAY),
        ),
    ),
    Entry(
        name="click_bell",
        goal="(Clicks(left_hand, bell_button) | Clicks(right_hand, bell_button))",
        max_steps=400,
        seen=(
            "click the bell",
            "press the button of the bell",
            "ring the bell with one arm",
            "push down the bell's button",
            "tap the top of the bell",
        ),
        unseen=(
            "give the reception bell a ring",
            "touch the silver knob on the bell from above",
            "someone should hear the bell",
        ),
        free={},
        fixed={"bell": fixtures.bell},
        slots=(Slot(thing="bell", x=(0.06, 0.26), y=(-0.15, 0.12), either_side=True),),
    ),
    Entry(
        name="beat_block_hammer",
        goal="Over(hammer_face, block_top) & Touching(hammer, block)",
        max_steps=400,
        seen=(
            "beat the block with the hammer",
            "take the hammer and hit the red block",
            "pick up the hammer and strike the block with it",
            "use the hammer to hit the block",
            "hit the top of the red block with the hammer's head",
        ),
        unseen=(
            "the hammer's head should land on the red cube",
            "grab the hammer and knock on the block",
            "give the red cube a blow with the hammer",
        ),
        free={"hammer": things.hammer},
        fixed={"block": fixtures.nail_block},
        slots=(
            # its head points away from the head camera; the arm on the block's side takes it
            Slot(thing="hammer", x=(-0.02, 0.02), y=(-0.12, -0.08), yaw=(1.42, 1.72)),
            Slot(thing="block", x=(0.12, 0.22), y=(0.02, 0.11), either_side=True),
        ),
    ),
)
BY_NAME = {entry.name: entry for entry in ENTRIES}
