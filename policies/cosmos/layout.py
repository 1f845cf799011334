"""Latent slots: what each latent frame of Cosmos Policy's video means, per robot suite.

Every non-first slot is one picture repeated four times, because the Wan2.1 VAE maps 1 + 4n
pixel frames to 1 + n latent frames; slot 0 is one black frame. Slots that carry numbers
(proprioception, actions, value) are black pictures whose latents are overwritten.

Source: NVlabs/cosmos-policy, datasets/*_dataset.py (slot order) and arXiv 2601.16163 section 4.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from policies.interface import check_interface
from wamsim.conventions import (
    ACTIONS,
    DELTA_EEF_GRIPPER_CLOSE_POSITIVE,
    GRIPPER_EEF_POS_QUAT,
    PROPRIOS,
    ActionConvention,
    Gripper,
    ProprioConvention,
    Rotation,
)

# ALOHA (arXiv 2304.13705): two arms of six joints and a gripper each, absolute targets at
# 25 Hz. No suite here speaks it yet; it lives with the only family that needs it. Bounds are
# the joints' turn; the data set's own statistics scale the model's output.
ALOHA_JOINTS_ABSOLUTE = ActionConvention(
    name="ALOHA_JOINTS_ABSOLUTE",
    labels=tuple(
        f"{side}_{part}" for side in ("left", "right")
        for part in (*(f"joint{i}" for i in range(6)), "gripper")
    ),
    low=(*((-3.1416,) * 6), 0.0) * 2,
    high=(*((3.1416,) * 6), 1.0) * 2,
    delta=False,
    rotation=Rotation.NONE,
    gripper=Gripper.OPEN_FRACTION,
    hold=(*((0.0,) * 6), 1.0) * 2,
)  # fmt: skip
ALOHA_JOINTS = ProprioConvention(
    name="ALOHA_JOINTS", fields=("left_arm_qpos", "right_arm_qpos"), dim=14
)

# What the family knows, beside what suites speak.
COSMOS_ACTIONS = {**ACTIONS, ALOHA_JOINTS_ABSOLUTE.name: ALOHA_JOINTS_ABSOLUTE}
COSMOS_PROPRIOS = {**PROPRIOS, ALOHA_JOINTS.name: ALOHA_JOINTS}


class SlotKind(enum.Enum):
    """What a latent frame carries."""

    BLANK = "blank"
    PROPRIO = "proprio"
    IMAGE = "image"
    ACTION = "action"
    FUTURE_PROPRIO = "future_proprio"
    FUTURE_IMAGE = "future_image"
    VALUE = "value"


class Mode(enum.Enum):
    """What is asked of the one network: which slots are clean and which are predicted.

    The three value modes are the published batch ("value"), the planning checkpoint's
    V(s') and the alternative Q(s, a).
    """

    POLICY = "policy"
    WORLD = "world"
    VALUE = "value"
    VALUE_OF_STATE = "value_of_state"
    VALUE_OF_ACTION = "value_of_action"


VALUE_MODES = (Mode.VALUE, Mode.VALUE_OF_STATE, Mode.VALUE_OF_ACTION)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One suite's slots and horizons.

    Attributes:
        name: "libero", "robocasa" or "aloha": where the numbers come from. Options may put
            other cameras and conventions into its slots.
        cameras: In slot order (wrist first, third person last).
        horizon: Actions in a chunk (H); the future slots show the state after it.
        execute: Actions run before the next query in the published protocol.
        action, proprio: Names of conventions.
        discount: Of the terminal reward, per env step.
    """

    name: str
    cameras: tuple[str, ...]
    horizon: int
    execute: int
    action: str
    proprio: str
    discount: float

    def __post_init__(self) -> None:
        if not 1 <= self.execute <= self.horizon:
            raise ValueError(f"execute={self.execute} must lie in 1..horizon={self.horizon}")
        if not 0.0 < self.discount <= 1.0:
            raise ValueError(f"discount={self.discount} must lie in (0, 1]")
        check_interface(
            "cosmos", cameras=self.cameras, action=self.action, proprio=self.proprio,
            actions=COSMOS_ACTIONS, proprios=COSMOS_PROPRIOS,
        )  # fmt: skip

    @property
    def action_convention(self) -> ActionConvention:
        """The convention that `action` names."""
        return COSMOS_ACTIONS[self.action]

    @property
    def proprio_convention(self) -> ProprioConvention:
        """The convention that `proprio` names."""
        return COSMOS_PROPRIOS[self.proprio]

    @property
    def slots(self) -> tuple[SlotKind, ...]:
        """Kinds of the latent frames, in order: 2 cameras give 9, 3 give 11."""
        n = len(self.cameras)
        return (
            SlotKind.BLANK,
            SlotKind.PROPRIO,
            *(SlotKind.IMAGE,) * n,
            SlotKind.ACTION,
            SlotKind.FUTURE_PROPRIO,
            *(SlotKind.FUTURE_IMAGE,) * n,
            SlotKind.VALUE,
        )

    def places(self, *kinds: SlotKind) -> tuple[int, ...]:
        """Slot numbers of some kinds, rising."""
        return tuple(i for i, kind in enumerate(self.slots) if kind in kinds)

    def place(self, kind: SlotKind) -> int:
        """The only slot of a kind."""
        (found,) = self.places(kind)
        return found

    @property
    def origins(self) -> tuple[int, ...]:
        """For every slot the one that shows its camera's present, or -1: of future pictures."""
        shown = self.places(SlotKind.IMAGE), self.places(SlotKind.FUTURE_IMAGE)
        present = {then: now for now, then in zip(*shown, strict=True)}
        return tuple(present.get(i, -1) for i in range(len(self.slots)))

    @property
    def conditional(self) -> int:
        """Slots of the present, all before the action: 4 (LIBERO) or 5."""
        return self.place(SlotKind.ACTION)

    @property
    def pixel_frames(self) -> int:
        """Frames of the video that the VAE sees: 33 for 9 slots, 41 for 11."""
        return 1 + 4 * (len(self.slots) - 1)

    def clean(self, mode: Mode) -> tuple[bool, ...]:
        """Which slots are given (never noised) in a mode; the rest are denoised."""
        present = set(range(self.conditional))
        action = {self.place(SlotKind.ACTION)}
        future = set(self.places(SlotKind.FUTURE_PROPRIO, SlotKind.FUTURE_IMAGE))
        given = {
            Mode.POLICY: present,
            Mode.WORLD: present | action,
            Mode.VALUE: present | action | future,
            # `mask_current_state_action_for_value_prediction`: the present and the action are
            # noise, so the value can come from the future state alone
            Mode.VALUE_OF_STATE: {self.place(SlotKind.BLANK)} | future,
            # `mask_future_state_for_qvalue_prediction`
            Mode.VALUE_OF_ACTION: present | action,
        }[mode]
        return tuple(i in given for i in range(len(self.slots)))

    def scored(self, mode: Mode) -> tuple[bool, ...]:
        """Which slots the loss counts in a mode."""
        if mode in VALUE_MODES:
            return tuple(kind is SlotKind.VALUE for kind in self.slots)
        return tuple(not given for given in self.clean(mode))


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="libero", cameras=("eye_in_hand", "agentview"), horizon=16, execute=16,
            action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name, proprio=GRIPPER_EEF_POS_QUAT.name,
            discount=0.99,
        ),
        # RoboCasa's env takes 12 actions; the suite appends [0, 0, 0, 0, -1] to these 7
        Layout(
            name="robocasa",
            cameras=("robot0_eye_in_hand", "robot0_agentview_left", "robot0_agentview_right"),
            horizon=32, execute=16, action=DELTA_EEF_GRIPPER_CLOSE_POSITIVE.name,
            proprio=GRIPPER_EEF_POS_QUAT.name, discount=0.99,
        ),
        Layout(
            name="aloha", cameras=("cam_left_wrist", "cam_right_wrist", "cam_high"),
            horizon=50, execute=50, action=ALOHA_JOINTS_ABSOLUTE.name,
            proprio=ALOHA_JOINTS.name, discount=0.998,
        ),
    )
}  # fmt: skip
