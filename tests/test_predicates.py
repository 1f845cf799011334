"""Every predicate on both sides of each of its thresholds.

The scene is `small_scenes.Table`: boxes at hand-chosen places. Positions are metres.
"""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
from small_scenes import Table

from envs.goals import check, parse
from envs.scene import Threshold
from wamsim.errors import UnknownName


@pytest.fixture
def table() -> Table:
    return Table()


# -------------------------------------------------------------------------- On(object)

TOUCHING = 0.01 + 0.05 - 1e-4  # block's centre over the plate's, a tenth of a millimetre deep


@pytest.mark.parametrize(
    ("dx", "dy", "on"),
    [
        (0.0, 0.0, True),
        (0.0299, 0.0, True),
        (0.03, 0.0, False),  # strictly less
        (0.0301, 0.0, False),
        (0.0, -0.0299, True),
        (0.0, -0.0301, False),
        (0.0212, 0.0212, True),  # 0.02998 in all
        (-0.0213, 0.0213, False),  # 0.03012
    ],
)
def test_on_an_object_within_three_centimetres(
    table: Table, dx: float, dy: float, on: bool
) -> None:
    table.put("plate", 0, 0, 0)
    table.put("block", dx, dy, TOUCHING)
    assert table.holds("On(block, plate)") is on
    assert table.holds("Touching(block, plate)")


@pytest.mark.parametrize(("gap", "on"), [(-1e-4, True), (1e-4, False), (0.001, False)])
def test_on_an_object_needs_contact(table: Table, gap: float, on: bool) -> None:
    table.put("plate", 0, 0, 0)
    table.put("block", 0, 0, 0.06 + gap)
    assert table.data.ncon > 0  # the halo touches in any case, and counts for nothing
    assert table.holds("On(block, plate)") is on


def test_on_an_object_needs_to_be_the_higher_one(table: Table) -> None:
    table.put("plate", 0, 0, 0)
    table.put("block", 0, 0, -TOUCHING)
    assert table.holds("Touching(block, plate)")
    assert not table.holds("On(block, plate)")
    assert table.holds("On(plate, block)")


@pytest.mark.parametrize(("dz", "on"), [(1e-6, True), (0.0, True), (-1e-6, False)])
def test_equal_height_counts_as_on(table: Table, dz: float, on: bool) -> None:
    table.put("bead", 0, 0, 0)
    table.put("ball", 0.01, 0, dz)
    assert table.holds("Touching(ball, bead)")
    assert table.holds("On(ball, bead)") is on


# -------------------------------------------------------------------------- On(region)


@pytest.mark.parametrize(
    ("x", "y", "z", "on"),
    [
        (0, 0, 0.05, True),
        # heights: half size 0.01, so from 0.005 to 0.11 above the centre, both excluded
        (0, 0, 0.0049, False),
        (0, 0, 0.005, False),
        (0, 0, 0.0051, True),
        (0, 0, 0.1099, True),
        (0, 0, 0.11, False),
        (0, 0, 0.1101, False),
        (0.1999, 0, 0.05, True),
        (0.2, 0, 0.05, False),
        (-0.1999, 0, 0.05, True),
        (-0.2001, 0, 0.05, False),
        (0, 0.0499, 0.05, True),
        (0, 0.05, 0.05, False),
        (0, -0.0501, 0.05, False),
    ],
)
def test_on_a_zone(table: Table, x: float, y: float, z: float, on: bool) -> None:
    table.put("block", x, y, z)  # touches nothing: a zone of the table asks for no contact
    assert table.holds("On(block, zone)") is on


@pytest.mark.parametrize(
    ("degrees", "on"),
    [
        (-30, True),  # R brings this direction onto the zone's long axis
        (30, False),  # the zone's long axis itself, which R transposed would bring there
        (0, False),
        (150, True),
    ],
)
def test_on_a_turned_zone_is_measured_with_r_not_its_transpose(
    table: Table, degrees: float, on: bool
) -> None:
    angle = math.radians(degrees)
    table.put("block", 0.15 * math.cos(angle), 0.15 * math.sin(angle), 0.05)
    assert table.holds("On(block, turned)") is on


@pytest.mark.parametrize(("gap", "on"), [(-1e-4, True), (1e-4, False)])
def test_on_a_part_of_a_thing_needs_contact_with_the_thing(
    table: Table, gap: float, on: bool
) -> None:
    table.put("block", 2.1, 0.1, 0.01 + 0.05 + gap)  # over the stove; burner centre at z 0.01
    assert table.holds("On(block, burner)") is on


# ---------------------------------------------------------------------------------- In


@pytest.mark.parametrize(
    ("x", "y", "z", "inside"),
    [
        (0, 0, 0, True),
        # |R size| of a box 0.2 x 0.1 turned by 45 degrees: (0.1, 0.3) / sqrt 2
        (0.0706, 0, 0, True),
        (0.0708, 0, 0, False),
        (-0.0708, 0, 0, False),
        (0, 0.2121, 0, True),
        (0, 0.2122, 0, False),
        (0, -0.2121, 0, True),
        # the floor is lowered by 0.01, the lid is not
        (0, 0, -0.0599, True),
        (0, 0, -0.0601, False),
        (0, 0, 0.0499, True),
        (0, 0, 0.0501, False),
    ],
)
def test_in_a_region(table: Table, x: float, y: float, z: float, inside: bool) -> None:
    table.put("block", x, y, z)
    assert table.holds("In(block, diagonal)") is inside


def test_in_a_region_excludes_its_faces(table: Table) -> None:
    table.put("block", 0, 0, 0.01)  # zone's lid: half size 0.01
    assert not table.holds("In(block, zone)")
    table.put("block", 0, 0, -0.02)  # its lowered floor
    assert not table.holds("In(block, zone)")
    table.put("block", 0.2, 0, 0)
    assert not table.holds("In(block, zone)")


@pytest.mark.parametrize(
    ("x", "y", "z", "inside"),
    [
        (0, 0, 0.0999, True),  # half extents 0.25, 0.2, 0.1
        (0, 0, 0.1001, False),  # no contact either
        (0.2499, 0, 0, True),
        (0.2501, 0, 0, False),
        (0, -0.1999, 0, True),
        (0, -0.2001, 0, False),
    ],
)
def test_in_an_object(table: Table, x: float, y: float, z: float, inside: bool) -> None:
    table.put("crate", 0, 0, 0)
    table.put("block", x, y, z)
    assert table.holds("In(block, crate)") is inside


def test_in_an_object_needs_contact(table: Table) -> None:
    table.put("crate", 0, 0, 0)
    table.put("plate", 0, 0, 0.0599)
    assert table.holds("In(plate, crate)")
    table.put("plate", 0, 0, 0.0601)
    assert not table.holds("In(plate, crate)")


def test_nothing_is_in_a_thing_without_an_inside(table: Table) -> None:
    with pytest.raises(UnknownName, match=r"nothing can be In\(block, plate\): 'plate' has no"):
        table.holds("In(block, plate)")


# ------------------------------------------------------------------------------ joints


@pytest.mark.parametrize(
    ("drawers", "opened", "closed"),
    [
        ((0.0, 0.0), False, True),
        ((-0.15, 0.0), True, False),  # open: any; closed: all
        ((0.0, -0.15), True, False),
        ((-0.14, 0.0), False, False),  # open strictly below -0.14
        ((-0.1401, -0.1401), True, False),
        ((-0.005, 0.0), False, False),  # closed strictly above -0.005
        ((-0.0049, -0.0049), False, True),
    ],
)
def test_open_is_any_and_close_is_all(
    table: Table, drawers: tuple[float, float], opened: bool, closed: bool
) -> None:
    table.turn("drawer_1", drawers[0])
    table.turn("drawer_2", drawers[1])
    assert table.holds("Open(cabinet)") is opened
    assert table.holds("Close(cabinet)") is closed
    only_first = (drawers[0] < -0.14, drawers[0] > -0.005)
    assert (table.holds("Open(top_drawer)"), table.holds("Close(top_drawer)")) == only_first


@pytest.mark.parametrize(
    ("knobs", "on", "off"),
    [
        ((0.0, 0.0), False, True),  # off at or below 0
        ((0.0001, 0.0), False, False),
        ((0.4999, 0.4999), False, False),
        ((0.5, 0.0), True, False),  # on at or above 0.5
        ((-1.0, 0.6), True, False),
    ],
)
def test_on_is_any_and_off_is_all(
    table: Table, knobs: tuple[float, float], on: bool, off: bool
) -> None:
    table.turn("knob_1", knobs[0])
    table.turn("knob_2", knobs[1])
    assert table.holds("TurnOn(stove)") is on
    assert table.holds("TurnOff(stove)") is off


@pytest.mark.parametrize(
    ("threshold", "below", "at", "above"),
    [
        (Threshold(below=1.0), True, False, False),
        (Threshold(below=1.0, inclusive=True), True, True, False),
        (Threshold(above=1.0), False, False, True),
        (Threshold(above=1.0, inclusive=True), False, True, True),
        (Threshold(), False, False, False),
    ],
)
def test_thresholds(threshold: Threshold, below: bool, at: bool, above: bool) -> None:
    assert [threshold.holds(q) for q in (0.999, 1.0, 1.001)] == [below, at, above]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Open(stove)", r"'stove' \(stove\) cannot be asked for 'open'"),
        ("TurnOn(cabinet)", r"'cabinet' \(cabinet\) cannot be asked for 'turn_on'"),
        ("Open(block)", r"'block' \(block\) cannot be asked for 'open'"),
        ("Open(zone)", "region 'zone' has no joint to open or turn"),
    ],
)
def test_what_has_no_joints_cannot_be_asked(table: Table, text: str, sentence: str) -> None:
    with pytest.raises(UnknownName, match=sentence):
        table.holds(text)


# ------------------------------------------------------------------- the small remainder


@pytest.mark.parametrize(("z", "up"), [(0.9999, False), (1.0, True), (1.0001, True)])
def test_up_from_one_metre(table: Table, z: float, up: bool) -> None:
    table.put("block", 0, 0, z)
    assert table.holds("Up(block)") is up


def test_touching_goes_both_ways(table: Table) -> None:
    table.put("plate", 0, 0, 0)
    assert not table.holds("Touching(block, plate)")
    table.put("block", 0.2, 0.1, TOUCHING)
    assert table.holds("Touching(block, plate)")
    assert table.holds("Touching(plate, block)")
    assert not table.holds("Touching(plate, crate)")


def test_connectives(table: Table) -> None:
    table.put("block", 0, 0, 1.0)
    table.put("plate", 5, 0, 0.5)
    up, down = "Up(block)", "Up(plate)"
    truth = {
        up: True, down: False, f"!{up}": False, f"!{down}": True,
        f"{up} & {down}": False, f"{up} & !{down}": True,
        f"({up} | {down})": True, f"({down} | {down})": False,
        f"!({up} & {down})": True, f"!({up} | {down})": False,
    }  # fmt: skip
    assert {text: table.holds(text) for text in truth} == truth


def test_predicates_read_what_the_last_substep_left(table: Table) -> None:
    at = table.scene.qpos_address("block_joint") + 2
    table.put("block", 0, 0, 1.0)
    table.data.qpos[at] = 0.0  # the integrator has moved on; derived positions have not
    assert table.holds("Up(block)")
    mujoco.mj_forward(table.scene.model, table.data)
    assert not table.holds("Up(block)")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Onn(block, plate)", r"unknown predicate 'Onn'\. Did you mean 'On'"),
        ("On(block)", r"On\(block\): On takes 2 argument\(s\), got 1"),
        ("Open(cabinet, block)", r"Open takes 1 argument\(s\), got 2"),
        ("On(blok, plate)", r"in On\(blok, plate\) 'blok'\. Did you mean 'block'"),
        ("Up(block) & In(block, dagonal)", r"'dagonal'\. Did you mean 'diagonal'"),
    ],
)
def test_names_are_checked_before_the_first_step(table: Table, text: str, sentence: str) -> None:
    with pytest.raises(UnknownName, match=sentence):
        check(parse(text), table.scene)


def test_positions_are_body_origins(table: Table) -> None:
    table.put("block", 0.1, 0.2, 0.3)
    assert table.world.position(table.scene.thing("block")) == pytest.approx([0.1, 0.2, 0.3])
    centre, rotation = table.world.site(table.scene.region("turned"))
    assert centre == pytest.approx([0, 0, 0])
    half = math.sqrt(3) / 2
    assert rotation == pytest.approx(np.array([[half, -0.5, 0], [0.5, half, 0], [0, 0, 1]]))
