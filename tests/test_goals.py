"""Goals: the language, and every predicate on both sides of each of its thresholds.

The scene is built here, of boxes at hand-chosen places. Positions are metres.
"""

from __future__ import annotations

import math
from pathlib import Path

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.goals import (
    PREDICATES,
    All,
    AnyOf,
    Goal,
    Not,
    Predicate,
    World,
    check,
    holds,
    parse,
    predicates,
)
from envs.scene import Articulation, Region, Robot, Scene, SceneInfo, SuiteOptions, Thing, Threshold
from wamsim import registry
from wamsim.errors import UnknownName

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


# ------------------------------------------------------------------------------- scene

NO_ROBOT = Robot(
    joints=(), actuators=(), gripper_joints=(), gripper_actuators=(), eef_site="", eef_body="",
    init_qpos=(), init_gripper_qpos=(), pad_geoms=((), ()),
)  # fmt: skip
DRAWERS = Articulation(
    open=Threshold(below=-0.14), close=Threshold(above=-0.005),
)  # fmt: skip
KNOBS = Articulation(
    turn_on=Threshold(above=0.5, inclusive=True), turn_off=Threshold(below=0.0, inclusive=True),
)  # fmt: skip


class Table:
    """Boxes in space without gravity, put where a test says."""

    def __init__(self) -> None:
        spec = mujoco.MjSpec()
        spec.option.gravity = (0, 0, 0)
        world = spec.worldbody

        def add(name: str, size: tuple[float, float, float], kind=mujoco.mjtGeom.mjGEOM_BOX):
            body = world.add_body(name=name)
            body.add_freejoint(name=f"{name}_joint")
            body.add_geom(name=f"{name}_geom", type=kind, size=size)

        add("block", (0.05, 0.05, 0.05))
        add("plate", (0.2, 0.2, 0.01))
        add("crate", (0.3, 0.3, 0.05))
        add("ball", (0.1, 0, 0), mujoco.mjtGeom.mjGEOM_SPHERE)
        add("bead", (0.1, 0, 0), mujoco.mjtGeom.mjGEOM_SPHERE)
        halo = spec.body("plate").add_geom(  # touches all around, but is no contact geom
            name="halo", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.25, 0.25, 0.2)
        )
        halo.pos = (0, 0, 0)
        stove = world.add_body(name="stove", pos=(2, 0, 0))
        stove.add_geom(name="stove_geom", type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.2, 0.2, 0.01))
        for joint in ("knob_1", "knob_2", "drawer_1", "drawer_2"):
            part = stove.add_body(name=joint)
            part.add_joint(name=joint, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(1, 0, 0))
            part.add_geom(
                type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.01, 0, 0), contype=0, conaffinity=0
            )

        def site(name: str, at: tuple, degrees: float, parent: mujoco.MjsBody = world) -> None:
            half_angle = math.radians(degrees) / 2
            quat = (math.cos(half_angle), 0, 0, math.sin(half_angle))
            parent.add_site(name=name, pos=at, quat=quat)

        site("zone", (0, 0, 0), 0)
        site("turned", (0, 0, 0), 30)
        site("diagonal", (0, 0, 0), 45)
        site("burner", (0, 0, 0.01), 0, stove)
        model = spec.compile()
        loose = ("block", "plate", "crate", "ball", "bead")
        contact = {b: (model.geom(f"{b}_geom").id,) for b in (*loose, "stove")}

        def thing(name: str, **more) -> Thing:
            return Thing(name=name, category=name, body=name, geoms=contact[name], **more)

        self.scene = Scene(
            model=model,
            info=SceneInfo(
                id="boxes",
                robot=NO_ROBOT,
                cameras={},
                things=(
                    thing("block", free_joint="block_joint"),
                    thing("plate", free_joint="plate_joint"),
                    thing("crate", free_joint="crate_joint", half_extents=(0.25, 0.2, 0.1)),
                    thing("ball", free_joint="ball_joint"),
                    thing("bead", free_joint="bead_joint"),
                    thing("stove", joints=("knob_1", "knob_2"), articulation=KNOBS),
                    Thing(
                        name="cabinet", category="cabinet", body="stove", geoms=(),
                        joints=("drawer_1", "drawer_2"), articulation=DRAWERS,
                    ),
                ),
                regions=(
                    Region(name="zone", site="zone", size=(0.2, 0.05, 0.01)),
                    Region(name="turned", site="turned", size=(0.2, 0.05, 0.01)),
                    Region(name="diagonal", site="diagonal", size=(0.2, 0.1, 0.05)),
                    Region(name="burner", site="burner", size=(0.2, 0.2, 0.01), parent="stove"),
                    Region(
                        name="top_drawer", site="burner", size=(0.1, 0.1, 0.1), parent="cabinet",
                        joints=("drawer_1",),
                    ),
                ),
            ),
        )  # fmt: skip
        self.data = mujoco.MjData(model)
        self.world = World(self.scene, self.data)
        far = 10.0
        for name in loose:
            self.put(name, far, far, far)
            far += 10.0

    def put(self, name: str, x: float, y: float, z: float) -> None:
        at = self.scene.qpos_address(f"{name}_joint")
        self.data.qpos[at : at + 7] = x, y, z, 1, 0, 0, 0
        mujoco.mj_forward(self.scene.model, self.data)

    def turn(self, joint: str, value: float) -> None:
        self.data.qpos[self.scene.qpos_address(joint)] = value

    def holds(self, text: str) -> bool:
        goal = parse(text)
        check(goal, self.scene)
        return holds(goal, self.world)


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
