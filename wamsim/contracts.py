"""The contracts between suites, policies and the harness.

NumPy and the standard library alone: a policy package can implement these without
installing a simulator, and a suite without installing torch.

Axes: B rows, T frames of history, H horizon (actions predicted), A action channels,
P proprioception channels, K imagined times, hwc pixels.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wamsim.conventions import (
    ActionConvention,
    Orientation,
    ProprioConvention,
    RobotStateLayout,
)

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Outcome(enum.Enum):
    """How an episode ended. A crash is an error, never a failure."""

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"


@dataclass(frozen=True, order=True)
class EpisodeKey:
    """Which episode: with the run's seed it fixes everything random in it.

    Attributes:
        suite: Suite name, e.g. "libero_object".
        task: Task name within the suite.
        index: Trial number; chooses the initial state (modulo their number).
    """

    suite: str
    task: str
    index: int


# --------------------------------------------------------------------------- policy


@dataclass(frozen=True, kw_only=True)
class ImaginationSpec:
    """What a policy or world model imagines, and how reality is shown to it.

    Attributes:
        horizons: Env steps ahead of the query, one per imagined time (K of them).
        frame_offsets: Steps relative to the query of the T frames that `encode`
            takes to produce K latents of the very same space; 0 is the query's own
            frame. Offsets past ``execute`` were not executed as imagined and are
            never compared.
        cameras: Cameras that `encode` takes, in order.
        image_size: (height, width) that `encode` takes.
        latent_shape: Shape of one latent, without [B, K].
        decodes: True when `decode` gives pictures.
        on_request: True when imagining costs extra and happens only when the run
            asks for it (``--imagine``); never part of the action path then.
    """

    horizons: tuple[int, ...]
    frame_offsets: tuple[int, ...]
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    latent_shape: tuple[int, ...]
    decodes: bool = False
    on_request: bool = False

    def __post_init__(self) -> None:
        if not self.horizons or min(self.horizons) < 1:
            raise ValueError("ImaginationSpec.horizons must name at least one step ahead, all >= 1")
        if 0 not in self.frame_offsets:
            raise ValueError("ImaginationSpec.frame_offsets must contain 0, the query's own frame")


@dataclass(frozen=True, kw_only=True)
class PolicyCard:
    """What a policy needs and gives. Checked against the suite before the first step.

    Attributes:
        name: "family" or "family:variant", as on the command line.
        cameras: Cameras it looks through, in order; empty when it does not look.
        image_size: (height, width) of every picture.
        frame_offsets: History, env steps relative to the query, oldest first:
            ``(0,)`` or ``(-3, -2, -1, 0)``. Before an episode's start the first
            frame stands in (defined padding).
        depth: True to get metric depth with intrinsics and extrinsics.
        proprio: Convention of `Observation.proprio`; None when it needs none.
        action: Convention of `Prediction.actions`.
        horizon: Actions predicted per query (H).
        execute: Actions run before the next query; ``1 <= execute <= horizon``.
        orientation: Which way up it wants its pictures.
        imagines: What it imagines; None when it does not.
        predicts_value: True when `Prediction.value` is filled.
        privileged: True to get `Observation.state`; scripted experts only, and
            every table says so.
        row_batch: False when `act` handles any number of rows with identical
            results (no padding needed); True for networks, whose rows are always
            served in batches of one fixed shape.
        notes: One sentence for tables: weights, reference, known deviations.
    """

    name: str
    action: ActionConvention
    horizon: int
    execute: int
    cameras: tuple[str, ...] = ()
    image_size: tuple[int, int] = (256, 256)
    frame_offsets: tuple[int, ...] = (0,)
    depth: bool = False
    proprio: ProprioConvention | None = None
    orientation: Orientation = Orientation.UPRIGHT
    imagines: ImaginationSpec | None = None
    predicts_value: bool = False
    privileged: bool = False
    row_batch: bool = True
    notes: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.execute <= self.horizon:
            raise ValueError(
                f"{self.name}: execute={self.execute} must lie in 1..horizon={self.horizon}"
            )
        if not self.frame_offsets or self.frame_offsets[-1] != 0:
            raise ValueError(f"{self.name}: frame_offsets must end with 0, the present frame")
        if tuple(sorted(self.frame_offsets)) != self.frame_offsets or len(
            set(self.frame_offsets)
        ) != len(self.frame_offsets):
            raise ValueError(f"{self.name}: frame_offsets must rise strictly, e.g. (-3, -2, -1, 0)")


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a policy is given: B rows, each one episode's present.

    Attributes:
        frames: camera -> uint8 [B, T, H, W, 3] RGB, in the card's orientation.
        depth: camera -> float32 [B, T, H, W] metres along the optical axis, or None.
        intrinsics: camera -> float64 [B, 3, 3] pixels, or None.
        extrinsics: camera -> float64 [B, T, 4, 4] camera to world, OpenCV axes
            (x right, y down, z forward), or None.
        proprio: float32 [B, T, P], or None when the card asks for none.
        instruction: B strings.
        seed: uint64 [B]; every row draws all its noise from it.
        step: int64 [B], env steps done in the episode, settling not counted.
        slot: int64 [B]; for adapters around stateful foreign policies only.
        first: bool [B]; True at an episode's first query.
        valid: bool [B]; False for padding rows, whose results are dropped.
        memory: B values; what this row's last `Prediction.memory` held, None at an
            episode's first query. So a policy with memory stays a pure function.
        state: B privileged simulator states, or None (see `PolicyCard.privileged`).
        imagine: True when the run wants imagination of an ``on_request`` policy.
    """

    frames: Mapping[str, Frames]
    instruction: Sequence[str]
    seed: NDArray[np.uint64]
    step: NDArray[np.int64]
    slot: NDArray[np.int64]
    first: NDArray[np.bool_]
    valid: NDArray[np.bool_]
    memory: Sequence[Any]
    proprio: Floats | None = None
    depth: Mapping[str, Floats] | None = None
    intrinsics: Mapping[str, NDArray[np.float64]] | None = None
    extrinsics: Mapping[str, NDArray[np.float64]] | None = None
    state: Sequence[PrivilegedState | None] | None = None
    imagine: bool = False

    @property
    def batch(self) -> int:
        """Number of rows, padding included."""
        return len(self.instruction)


@dataclass(frozen=True, kw_only=True)
class PrivilegedState:
    """The simulator's own state, for scripted experts.

    Attributes:
        key: Which episode.
        task: The task being run.
        scene: The suite's scene object (model, goal, names); shared, read-only.
        qpos, qvel: float64, the whole generalised state at the end of the last step.
        fixtures: body name -> (position 3, quaternion wxyz 4) where the episode
            placed bodies that have no joint.
        gripper_command: The integrated finger command(s) of the controller.
    """

    key: EpisodeKey
    task: Task
    scene: Any
    qpos: NDArray[np.float64]
    qvel: NDArray[np.float64]
    fixtures: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    gripper_command: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """What was foreseen at one query.

    Attributes:
        latents: [B, K, ...] in the space of `encode`.
        frames: uint8 [B, K, H, W, 3] where the model draws them, else None.
    """

    latents: NDArray[Any]
    frames: Frames | None = None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a policy returns.

    Attributes:
        actions: float32 [B, H, A] in the card's action convention.
        intended: float32 [B, L, A]; what an expert meant where it perturbed its own actions
            on purpose. Recorded, never executed: imitation learns from it (DART,
            arXiv:1703.09327). None when the actions are what was meant.
        imagined: What it foresaw, or None.
        otherwise: What it would foresee if nothing were done (the convention's hold action),
            from a policy whose imagination follows its actions; only when the run asks for
            imagination. It tells whether the policy listens to its own actions.
        value: float32 [B], its own estimate of success in [0, 1], or None.
        memory: B values handed back at the row's next query, or None.
        timings: Named parts of the latency in seconds; the key "imagine" is cost
            for the record only, outside the action path.
        faults: row -> why the policy gives that row up. Its episode ends as the
            policy's failure with this reason; the other rows go on.
    """

    actions: Floats
    intended: Floats | None = None
    imagined: Imagined | None = None
    otherwise: Imagined | None = None
    value: Floats | None = None
    memory: Sequence[Any] | None = None
    timings: Mapping[str, float] = field(default_factory=dict[str, float])
    faults: Mapping[int, str] = field(default_factory=dict[int, str])


@runtime_checkable
class Policy(Protocol):
    """One method, a pure function of what it is given."""

    card: PolicyCard

    def act(self, obs: Observation) -> Prediction:
        """Predict a chunk of actions for every row."""
        ...


@runtime_checkable
class Choosy(Policy, Protocol):
    """A policy that can tell from a task alone that it has no way to do it."""

    def check_task(self, task: Task) -> None:
        """Raise a `PolicyFault` that names the task; asked before the first step."""
        ...


@runtime_checkable
class Imaginer(Policy, Protocol):
    """A policy whose card says that it imagines.

    Where its pictures are not real frames with the cameras side by side (it crops or
    resizes), it also has ``pictures(frames uint8 [B, T, cams, H, W, 3])``, which gives the
    real frames at the horizons as it would draw them, uint8 [B, K, H, W, 3]; else imagined
    pictures are not compared. Where it draws a future in the light of the present, it also has
    ``redraw``, of the same arguments: the real frames encoded and drawn in that way, which is
    the ceiling of its pictures; else that is decode(encode(frames)).
    """

    def encode(self, frames: Frames) -> NDArray[Any]:
        """Put real frames uint8 [B, T, cams, H, W, 3] into the imagined space, [B, K, ...]."""
        ...

    def decode(self, latents: NDArray[Any]) -> Frames:
        """Draw latents [B, K, ...] as uint8 [B, K, H, W, 3]."""
        ...


@dataclass(frozen=True, kw_only=True)
class WorldModelCard:
    """What a world model needs and gives.

    Attributes:
        name: "family:variant".
        cameras, image_size: What it looks through.
        past_offsets: Env steps relative to the query of its past frames, rising, ending in 0.
        action: Convention of the actions that it takes.
        future_actions: Number of future actions that it takes.
        imagines: What it gives.
    """

    name: str
    cameras: tuple[str, ...]
    image_size: tuple[int, int]
    past_offsets: tuple[int, ...]
    action: ActionConvention
    future_actions: int
    imagines: ImaginationSpec


class WorldModel(Protocol):
    """A model that foresees through somebody else's hands (``--imagine-with``)."""

    card: WorldModelCard

    def imagine(
        self,
        past_frames: Frames,
        past_actions: Floats,
        future_actions: Floats,
        seed: NDArray[np.uint64],
    ) -> Imagined:
        """Foresee what the given future actions will show.

        Args:
            past_frames: uint8 [B, T, cams, H, W, 3].
            past_actions: float32 [B, -min(past_offsets), A], the last executed ones, oldest first.
            future_actions: float32 [B, future_actions, A].
            seed: uint64 [B].
        """
        ...

    def encode(self, frames: Frames) -> NDArray[Any]:
        """As `Imaginer.encode`."""
        ...


# ---------------------------------------------------------------------------- suite


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task, frozen; everything but the scene itself.

    Attributes:
        suite: Name of its suite.
        index: Position in the suite.
        name: Unique within the suite.
        instruction: What the policy is told.
        goal: The goal expression as text, e.g. "On(bowl_1, plate_1)".
        control_hz: Env steps per simulated second.
        max_steps: Step limit of an episode, settling not counted.
        settle_steps: Hold actions before the first query; objects fall into rest.
        cameras: Camera names that can be asked for.
        action: Convention that the suite expects.
        robot_state: Layout of the raw robot state.
        n_initial_states: Distinct initial states; `EpisodeKey.index` picks modulo this.
        paraphrases: Other wordings, for robustness runs.
        stand_in_visuals: True when asset files are stand-ins: physics is exact,
            pixels are not, and every table says so.
        scene_id: Tasks with equal ids share one compiled scene.
        requires: Labels of action channels without which the task cannot be done (a base
            that must drive); a policy without them is refused, converter or not.
    """

    suite: str
    index: int
    name: str
    instruction: str
    goal: str
    control_hz: float
    max_steps: int
    settle_steps: int
    cameras: tuple[str, ...]
    action: ActionConvention
    robot_state: RobotStateLayout
    n_initial_states: int
    scene_id: str
    paraphrases: tuple[str, ...] = ()
    stand_in_visuals: bool = False
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A versioned name and its tasks.

    Attributes:
        name: "libero_object", "tabletop_goal", ...
        version: Changed whenever anything measured changes; part of every record.
        tasks: In benchmark order.
        reference: Paper or "ours".
    """

    name: str
    version: int
    tasks: tuple[Task, ...]
    reference: str = ""

    @property
    def id(self) -> str:
        """Name with version, as in ``wamsim/<id>`` environments."""
        return f"{self.name}-v{self.version}"
