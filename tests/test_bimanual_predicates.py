"""The bimanual rules on both sides of each of their thresholds, in hand-placed states.

Scenes are the suite's own. Positions are metres; the table's top is at 0.74.
"""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from envs.bimanual import predicates
from envs.bimanual.suite import BimanualBackend
from envs.goals import World, check, holds, parse
from envs.scene import Scene, SuiteOptions
from wamsim.contracts import EpisodeKey

pytestmark = pytest.mark.sim
EPS = 1e-4


class Stand:
    """A task's scene as trial 0 begins, put where a test says."""

    def __init__(self, scene: Scene, state: np.ndarray, fixtures: dict) -> None:
        self.scene = scene
        scene.set_fixtures(fixtures)
        self.data = mujoco.MjData(scene.model)
        self.data.qpos[:] = state[1 : 1 + scene.model.nq]
        self.forward()

    def forward(self) -> None:
        mujoco.mj_forward(self.scene.model, self.data)

    def put(self, thing: str, *pos: float, turn: tuple[float, ...] = (1, 0, 0, 0)) -> None:
        at = self.scene.qpos_address(f"{thing}_joint")
        self.data.qpos[at : at + 7] = (*pos, *turn)
        self.forward()

    def fingers(self, side: str, slide: float) -> None:
        for finger, sign in (("left", 1), ("right", -1)):
            self.data.qpos[self.scene.qpos_address(f"{side}_{finger}_finger")] = sign * slide
        self.forward()

    def command(self, side: str, slide: float) -> None:
        self.data.ctrl[self.scene.actuator_id(f"{side}_left_finger")] = slide

    def site(self, name: str) -> np.ndarray:
        return self.data.site_xpos[self.scene.site_id(name)].copy()

    def holds(self, text: str) -> bool:
        goal = parse(text)
        check(goal, self.scene)
        return holds(goal, World(self.scene, self.data))


@pytest.fixture(scope="module")
def stand(scene_cache_dir: Path):
    backend = BimanualBackend("bimanual_clean", SuiteOptions(cache_dir=scene_cache_dir))

    def make(name: str) -> Stand:
        task = next(t for t in backend.suite.tasks if t.name == name)
        scene = backend.scene(task)
        start = backend.start(scene, task, EpisodeKey(task.suite, task.name, 0), 0)
        assert start.state is not None
        return Stand(scene, start.state, dict(start.fixtures))

    return make


def yawed(angle: float) -> tuple[float, float, float, float]:
    return (float(np.cos(angle / 2)), 0.0, 0.0, float(np.sin(angle / 2)))


# --------------------------------------------------------------------------------- hands


@pytest.mark.parametrize(("share", "is_open"), [(0.801, True), (0.799, False)])
def test_a_hand_is_open_from_four_fifths(stand, share: float, is_open: bool) -> None:
    s = stand("lift_pot")
    s.fingers("right", 0.0224 + share * (0.057 - 0.0224))
    assert s.holds("HandOpen(right_hand)") is is_open
    assert s.holds("HandOpen(left_hand)")


@pytest.mark.parametrize(("share", "closed"), [(0.199, True), (0.201, False)])
def test_a_hand_is_closed_when_it_is_told_to(stand, share: float, closed: bool) -> None:
    s = stand("grab_roller")
    s.command("left", 0.0224 + share * (0.057 - 0.0224))
    s.command("right", 0.057)
    assert s.holds("HandClosed(left_hand)") is closed  # though nothing has moved
    assert not s.holds("HandClosed(right_hand)")


@pytest.mark.parametrize(("off", "near"), [(0.0299, True), (0.0301, False)])
@pytest.mark.parametrize("way", [(1, 0, 0), (0, -1, 0), (0, 0, 1)])
def test_a_hand_reaches_a_handle_within_three_centimetres(
    stand, off: float, near: bool, way: tuple[int, int, int]
) -> None:
    s = stand("lift_pot")
    at = s.site("left_grip") + off * np.array(way)
    handle = s.site("pot_left_handle") - s.data.xpos[s.scene.body_id("pot")]
    pos = s.data.qpos[s.scene.qpos_address("pot_joint") :][:7].copy()
    s.put("pot", *(at - handle), turn=tuple(pos[3:]))
    assert s.site("pot_left_handle") == pytest.approx(at)
    assert s.holds("Reaches(left_hand, pot_left_handle)") is near


# -------------------------------------------------------------------------------- heights


@pytest.mark.parametrize(("z", "high"), [(0.82 + EPS, True), (0.82 - EPS, False)])
def test_a_pot_is_raised_above_its_mark(stand, z: float, high: bool) -> None:
    s = stand("lift_pot")
    s.put("pot", 0, 0, z)
    assert s.holds("Raised(pot, height_0.82)") is high


def test_marks_go_down_with_the_table(stand) -> None:
    s = stand("lift_pot")
    s.put("pot", 0, 0, 0.80)
    assert not s.holds("Raised(pot, height_0.82)")
    s.scene.set_fixtures({"table": (np.array([0, 0, 0.71]), np.array([1.0, 0, 0, 0]))})
    s.forward()
    assert s.holds("Raised(pot, height_0.82)")  # 9 cm above a table at 0.71


@pytest.mark.parametrize(("cosine", "upright"), [(0.801, True), (0.799, False)])
def test_a_pot_may_lean_a_little(stand, cosine: float, upright: bool) -> None:
    s = stand("lift_pot")
    half = np.arccos(cosine) / 2
    s.put("pot", 0, 0, 1.2, turn=(float(np.cos(half)), float(np.sin(half)), 0, 0))
    assert s.holds("Upright(pot)") is upright


# --------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize(
    ("dx", "dy", "dz", "stacked"),
    [
        (0, 0, 0.05, True),
        (0.0249, -0.0249, 0.05, True),
        (0.0251, 0, 0.05, False),
        (0, -0.0251, 0.05, False),
        (0, 0, 0.0619, True),
        (0, 0, 0.0621, False),
        (0, 0, 0.0381, True),
        (0, 0, 0.0379, False),
        (0, 0, -0.05, False),  # the other way round
    ],
)
def test_a_block_stands_on_another(stand, dx: float, dy: float, dz: float, stacked: bool) -> None:
    s = stand("stack_blocks_two")
    s.put("red_block", 0.1, 0.05, 0.765)
    s.put("green_block", 0.1 + dx, 0.05 + dy, 0.765 + dz)
    assert s.holds("Stacked(green_block, red_block)") is stacked


@pytest.mark.parametrize(
    ("dx", "dy", "right"),
    [
        (0.06, 0, True),
        (0.1299, 0.0299, True),
        (0.1301, 0, False),
        (0.06, 0.0301, False),
        (0.06, -0.0301, False),
        (-0.06, 0, False),  # the wrong order
        (EPS, 0, True),
    ],
)
def test_blocks_stand_in_a_row(stand, dx: float, dy: float, right: bool) -> None:
    s = stand("blocks_ranking_rgb")
    s.put("red_block", -0.1, 0.02, 0.765)
    s.put("green_block", -0.1 + dx, 0.02 + dy, 0.765)
    assert s.holds("LeftOf(red_block, green_block)") is right


# --------------------------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("off", "there"),
    [
        ((0, 0, 0), True),
        ((0.0299, 0, 0), True),
        ((0.0301, 0, 0), False),
        ((0, -0.0301, 0), False),
        ((0, 0, 0.0099), True),
        ((0, 0, 0.0101), False),
        ((0, 0, -0.0101), False),
    ],
)
def test_the_bar_lies_on_its_pad(stand, off: tuple[float, ...], there: bool) -> None:
    s = stand("handover_block")
    s.put("block", *(s.site("pad_mark") + np.array(off)))
    assert s.holds("At(block, pad_mark)") is there


@pytest.mark.parametrize(("off", "over"), [(0.0999, True), (0.1001, False)])
def test_a_bottle_is_held_over_its_target(stand, off: float, over: bool) -> None:
    s = stand("pick_dual_bottles")
    s.put("red_bottle", *(s.site("left_target") + np.array([off, 0, 0.4])))
    assert s.holds("Over(red_bottle, left_target)") is over
    s.put("red_bottle", *(s.site("left_target") + np.array([0, -off, 0.1])))
    assert s.holds("Over(red_bottle, left_target)") is over


@pytest.mark.parametrize(("off", "over"), [(0.0499, True), (0.0501, False)])
def test_bread_is_in_the_middle_of_the_basket(stand, off: float, over: bool) -> None:
    s = stand("place_bread_basket")
    s.put("left_bread", *(s.site("basket_middle") + np.array([0, off, 0])))
    assert s.holds("Over(left_bread, basket_middle)") is over


@pytest.mark.parametrize(
    ("angle", "aligned"),
    [(0.0, True), (0.139, True), (-0.139, True), (0.141, False), (np.pi, False)],
)
def test_a_shoe_points_to_the_back(stand, angle: float, aligned: bool) -> None:
    s = stand("place_dual_shoes")
    slot = s.site("shoe_box_left_slot")
    s.put("left_shoe", *slot, turn=yawed(np.pi / 2 + angle))
    assert s.holds("At(left_shoe, shoe_box_left_slot)")
    assert s.holds("Aligned(left_shoe, shoe_box_left_slot)") is aligned


@pytest.mark.parametrize(("off", "there"), [(0.0499, True), (0.0501, False)])
def test_a_shoe_is_in_its_slot(stand, off: float, there: bool) -> None:
    s = stand("place_dual_shoes")
    s.put(
        "left_shoe", *(s.site("shoe_box_left_slot") - np.array([off, 0, 0])), turn=yawed(np.pi / 2)
    )
    assert s.holds("At(left_shoe, shoe_box_left_slot)") is there


@pytest.mark.parametrize(
    ("dx", "dz", "nested"),
    [
        (0, 0.03, True),
        (0.0399, 0.03, True),
        (0.0401, 0.03, False),
        (0, 0.0499, True),
        (0, 0.0501, False),
        (0, 0.0101, True),
        (0, 0.0099, False),
        (0, -0.03, False),
    ],
)
def test_a_bowl_sits_in_another(stand, dx: float, dz: float, nested: bool) -> None:
    s = stand("stack_bowls_two")
    s.put("bowl_2", 0.1, 0.0, 0.763)
    s.put("bowl_1", 0.1 + dx, 0.0, 0.763 + dz)
    assert s.holds("Nested(bowl_1, bowl_2)") is nested


def test_either_bowl_may_be_the_upper_one(stand) -> None:
    s = stand("stack_bowls_two")
    text = "(Nested(bowl_1, bowl_2) | Nested(bowl_2, bowl_1))"
    s.put("bowl_1", 0.1, 0.0, 0.763)
    s.put("bowl_2", 0.1, 0.0, 0.793)
    assert s.holds(text)


# ----------------------------------------------------------------------------- bell, hammer


def test_a_finger_on_the_button_rings_the_bell(stand) -> None:
    s = stand("click_bell")
    tip = s.site("left_grip") - s.data.xpos[s.scene.body_id("left_gripper_link")]
    tip /= np.linalg.norm(tip)
    s.fingers("left", 0.0224)
    for depth, off, rings in (
        (0.004, 0.0, True),  # the tips are 4 mm in the button
        (-0.015, 0.0, False),  # above it (the pads are 22 mm wide and tilted): no contact
        (0.004, 0.2, False),  # far beside it
    ):
        top = s.site("left_grip") + 0.0185 * tip + [off, 0, depth]
        pose = (top - [0, 0, 0.052], np.array([1.0, 0, 0, 0]))
        s.scene.set_fixtures({"bell": pose})
        s.forward()
        assert s.holds("Clicks(left_hand, bell_button)") is rings
        assert not s.holds("Clicks(right_hand, bell_button)")


def test_only_contacts_near_the_button_count(stand) -> None:
    s = stand("click_bell")
    bell = s.scene.thing("bell")
    world = World(s.scene, s.data)
    forward = s.site("left_grip") - s.data.xpos[s.scene.body_id("left_gripper_link")]
    tip = s.site("left_grip") + 0.0185 * forward / np.linalg.norm(forward)
    s.fingers("left", 0.0224)
    # the near edge of the bell's foot, 4 cm from the button, is at the finger tips
    s.scene.set_fixtures({"bell": (tip + np.array([0.038, 0, -0.010]), np.array([1.0, 0, 0, 0]))})
    s.forward()
    where = predicates.contacts(world, s.scene.thing("left_hand"), bell)
    assert len(where) > 0
    assert np.abs(where - s.site("bell_button"))[:, 0].min() > 0.025
    assert not s.holds("Clicks(left_hand, bell_button)")


@pytest.mark.parametrize(("off", "over"), [(0.0199, True), (0.0201, False)])
def test_the_hammer_hits_the_middle_of_the_block(stand, off: float, over: bool) -> None:
    s = stand("beat_block_hammer")
    face = np.array([0.088, 0.0, -0.0145])
    top = s.site("block_top")
    s.put("hammer", *(top - face + np.array([off, 0, -EPS])))
    assert s.holds("Touching(hammer, block)")
    assert s.holds("Over(hammer_face, block_top)") is over
    s.put("hammer", *(top - face + np.array([0, 0, 0.01])))
    assert s.holds("Over(hammer_face, block_top)")
    assert not s.holds("Touching(hammer, block)")
