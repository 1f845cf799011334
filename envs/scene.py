"""A scene: a compiled MjModel with what the runtime must know about it.

Every suite ends as a `Scene`; the runtime steps scenes and nothing else. Names are
kept in `SceneInfo` (JSON, beside the .mjb in the cache); ids are looked up once when
a scene is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.control import OSC, Control, Platform
from wamsim.contracts import EpisodeKey, Suite, Task
from wamsim.errors import ConventionMismatch

Array = NDArray[np.float64]
Pose = tuple[Array, Array]  # position [3], quaternion wxyz [4]


@dataclass(frozen=True, kw_only=True)
class Robot:
    """Names of one arm with a parallel gripper, and its controller's constants.

    Attributes:
        joints, actuators: The arm joints and their motors (torques for OSC, which wants
            seven; position servos else).
        gripper_joints, gripper_actuators: Finger slides and their position servos.
        eef_site: Site that the controller moves (robosuite: the gripper's grip_site).
        eef_body: Body whose quaternion is the observed ``eef_quat``.
        init_qpos: Arm joints of the nominal reset, radians.
        init_gripper_qpos: Finger joints of the nominal reset, metres.
        pad_geoms: Names of the (left, right) fingertip pad collision geoms.
        name: Of one arm among several, e.g. "left"; prefix of its robot-state fields.
        gripper_span: Position of the first finger joint when (closed, open), metres; with
            it the robot state has the field "gripper_open", 0 to 1.
    """

    joints: tuple[str, ...]
    actuators: tuple[str, ...]
    gripper_joints: tuple[str, ...]
    gripper_actuators: tuple[str, ...]
    eef_site: str
    eef_body: str
    init_qpos: tuple[float, ...]
    init_gripper_qpos: tuple[float, ...]
    pad_geoms: tuple[tuple[str, ...], tuple[str, ...]]
    name: str = ""
    gripper_span: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A half-line of joint positions: ``q below value`` or ``q above value``."""

    below: float | None = None
    above: float | None = None
    inclusive: bool = False

    def holds(self, q: float) -> bool:
        """Whether joint position q (radians or metres) lies on the half-line."""
        if self.below is not None:
            return q <= self.below if self.inclusive else q < self.below
        if self.above is not None:
            return q >= self.above if self.inclusive else q > self.above
        return False


@dataclass(frozen=True, kw_only=True)
class Articulation:
    """When the joints of a thing count as open, closed, on, off; None: never asked.

    A thing is open (on) when ANY of the asked joints is, closed (off) when ALL are
    (LIBERO's object_states/base_object_states.py).
    """

    open: Threshold | None = None
    close: Threshold | None = None
    turn_on: Threshold | None = None
    turn_off: Threshold | None = None


@dataclass(frozen=True, kw_only=True)
class Thing:
    """An object or fixture that goals can name.

    Attributes:
        name: Name in goal expressions.
        category: Kind, e.g. "akita_black_bowl"; the oracle picks its grasp by it.
        body: Root body; its origin is the thing's position in predicates.
        geoms: Ids of the contact geoms that "contact" means.
        free_joint: Name of its free joint; None for a fixture.
        joints: Articulated joints, in model order.
        articulation: Thresholds of those joints.
        radius: Horizontal radius in metres, as placement samplers use it.
        bottom, top: Offsets of its lowest and highest point from the body origin, metres.
        lit_sites: Sites that show (alpha 1) while the thing is turned on (a burner).
        half_extents: Half size in metres of a box that contains what "In(x, thing)"
            calls inside; None when nothing can be inside.
    """

    name: str
    category: str
    body: str
    geoms: tuple[int, ...]
    free_joint: str | None = None
    joints: tuple[str, ...] = ()
    articulation: Articulation | None = None
    radius: float = 0.0
    bottom: float = 0.0
    top: float = 0.0
    lit_sites: tuple[str, ...] = ()
    half_extents: tuple[float, float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Region:
    """A box-shaped site that goals can name.

    Attributes:
        name: Name in goal expressions.
        site: Name of the site in the model.
        size: Half sizes in metres as the *goal* reads them.
        parent: The thing that it belongs to; None for zones of a table or floor.
        joints: Joints that move the region (a drawer); Open(region) reads these.
    """

    name: str
    site: str
    size: tuple[float, float, float]
    parent: str | None = None
    joints: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SceneInfo:
    """Everything about a scene but the model; JSON-able, stored with the cached model.

    Attributes:
        id: Stable identity, part of the cache key.
        robot: The arm.
        things, regions: What goals can name.
        cameras: public camera name -> camera name in the model.
        timestep: Physics step, seconds.
        substeps: Physics steps per env step.
        observe_like_libero: True to sample observations at the substep at which
            robosuite 1.4's Observable timers sample them (envs/timing.py); False
            for the last substep.
        placement: A suite's own data for drawing fixture poses (JSON values).
        provenance: Versions and content hashes that the model was compiled from.
        more_robots: Arms beside the first.
        platform: What carries the arm around, if anything does.
        controls: How actions are split, one entry for every convention understood.
    """

    id: str
    robot: Robot
    things: tuple[Thing, ...]
    regions: tuple[Region, ...]
    cameras: Mapping[str, str]
    timestep: float = 0.002
    substeps: int = 25
    observe_like_libero: bool = False
    placement: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    more_robots: tuple[Robot, ...] = ()
    platform: Platform | None = None
    controls: tuple[Control, ...] = (OSC,)

    @property
    def robots(self) -> tuple[Robot, ...]:
        """All arms."""
        return (self.robot, *self.more_robots)

    def control(self, action: str) -> Control:
        """The entry of `controls` for an action convention.

        Raises:
            ConventionMismatch: The scene's robot does not understand it.
        """
        for control in self.controls:
            if control.action == action:
                return control
        raise ConventionMismatch(
            f"scene {self.id} understands {', '.join(c.action for c in self.controls)}, but was "
            f"asked to step {action} actions. Add a Control for it to the scene (envs/control.py)."
        )


@dataclass(kw_only=True)
class Scene:
    """A compiled model with its names. The model's fixture poses change per episode."""

    model: mujoco.MjModel
    info: SceneInfo

    def thing(self, name: str) -> Thing:
        """The thing of that name; KeyError when there is none."""
        return self._things[name]

    def region(self, name: str) -> Region:
        """The region of that name; KeyError when there is none."""
        return self._regions[name]

    def has_thing(self, name: str) -> bool:
        """Whether a goal's name is a thing (else it may be a region)."""
        return name in self._things

    def has_region(self, name: str) -> bool:
        """Whether a goal's name is a region."""
        return name in self._regions

    def __post_init__(self) -> None:
        self._things = {t.name: t for t in self.info.things}
        self._regions = {r.name: r for r in self.info.regions}
        self._ids: dict[tuple[int, str], int] = {}
        self._masks: dict[str, NDArray[np.bool_]] = {}

    def touches(self, data: mujoco.MjData, first: Thing, second: Thing) -> bool:
        """Whether contact geoms of the two things touch (active contacts of `data`)."""
        if not data.ncon:
            return False
        pairs = data.contact.geom
        a, b = self._mask(first)[pairs], self._mask(second)[pairs]
        return bool(((a[:, 0] & b[:, 1]) | (a[:, 1] & b[:, 0])).any())

    def _mask(self, thing: Thing) -> NDArray[np.bool_]:
        found = self._masks.get(thing.name)
        if found is None:
            found = np.zeros(self.model.ngeom, bool)
            found[list(thing.geoms)] = True
            self._masks[thing.name] = found
        return found

    def body_id(self, name: str) -> int:
        """Id of a body by name."""
        return self._id(mujoco.mjtObj.mjOBJ_BODY, name)

    def site_id(self, name: str) -> int:
        """Id of a site by name."""
        return self._id(mujoco.mjtObj.mjOBJ_SITE, name)

    def geom_id(self, name: str) -> int:
        """Id of a geom by name."""
        return self._id(mujoco.mjtObj.mjOBJ_GEOM, name)

    def camera_id(self, name: str) -> int:
        """Id of a model camera by its public name."""
        return self._id(mujoco.mjtObj.mjOBJ_CAMERA, self.info.cameras[name])

    def qpos_address(self, joint: str) -> int:
        """First index of a joint in qpos."""
        return int(self.model.jnt_qposadr[self._id(mujoco.mjtObj.mjOBJ_JOINT, joint)])

    def dof_address(self, joint: str) -> int:
        """First index of a joint in qvel."""
        return int(self.model.jnt_dofadr[self._id(mujoco.mjtObj.mjOBJ_JOINT, joint)])

    def actuator_id(self, name: str) -> int:
        """Id of an actuator by name."""
        return self._id(mujoco.mjtObj.mjOBJ_ACTUATOR, name)

    def _id(self, kind: mujoco.mjtObj, name: str) -> int:
        key = (int(kind), name)
        found = self._ids.get(key)
        if found is None:
            found = mujoco.mj_name2id(self.model, kind, name)
            if found < 0:
                raise KeyError(f"scene {self.info.id} has no {kind.name} named {name!r}")
            self._ids[key] = found
        return found

    def set_fixtures(self, fixtures: Mapping[str, Pose]) -> None:
        """Write the poses of bodies without a joint into the model."""
        for body, (pos, quat) in fixtures.items():
            i = self.body_id(body)
            self.model.body_pos[i] = pos
            self.model.body_quat[i] = quat


@dataclass(frozen=True, kw_only=True)
class Start:
    """How an episode starts.

    Attributes:
        nominal_qpos: [nq] the generalised position of the nominal reset, before the
            initial state is written; the controller's first substep sees it.
        state: [1 + nq + nv] time, qpos, qvel: the initial state; None starts from nominal.
        fixtures: Poses of bodies without a joint in this episode.
        perturbation: What else was drawn, for the record (JSON values).
    """

    nominal_qpos: Array
    state: Array | None
    fixtures: Mapping[str, Pose]
    perturbation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """What a suite is built with. Part of the run's configuration, save the folders.

    Attributes:
        cache_dir: Where compiled scenes are kept; made when missing.
        libero_assets: Folder of LIBERO's assets; None looks where hf-libero keeps its download.
        reset_mode: "per_episode": all draws are a function of the episode key and the
            run's seed. "openvla": LIBERO's generator seeded once per task and advanced by
            one reset per trial, as published evaluation scripts do.
        protocol: Name of a published protocol (wait steps, step limits, seed), or None.
        wording: 0 is the task's own instruction, 1.. its paraphrases.
        chosen: What the user has chosen of a suite's own options (`Choosable`), as sorted
            (option, value) pairs: hashable, and equal however they were given.
    """

    cache_dir: Path
    libero_assets: Path | None = None
    reset_mode: str = "per_episode"
    protocol: str | None = None
    wording: int = 0
    chosen: tuple[tuple[str, str], ...] = ()

    def choice(self, option: str) -> str | None:
        """What was chosen of an option; None where nothing was."""
        return dict(self.chosen).get(option)


def pairs(choices: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Give choices as `SuiteOptions.chosen` has them."""
    return tuple(sorted(choices.items()))


@runtime_checkable
class Choosable(Protocol):
    """A suite with options of its own (``--suite-set``); others refuse every choice.

    Attributes:
        choices: Option -> values, for listings; what each means is the suite's to say.
    """

    choices: Mapping[str, tuple[str, ...]]


@runtime_checkable
class Varied(Protocol):
    """A suite whose tasks differ from trial to trial in scene, words or goal."""

    def variant(self, task: Task, key: EpisodeKey) -> Task:
        """Give the task as this trial has it; cheap, and a function of the two alone."""
        ...


def variant(backend: SuiteBackend, task: Task, key: EpisodeKey) -> Task:
    """Give a task as a trial has it: itself, unless its suite says otherwise."""
    return backend.variant(task, key) if isinstance(backend, Varied) else task


class SuiteBackend(Protocol):
    """What a suite gives to the runtime.

    Entry points of group ``wamsim.suites`` are callables
    ``suite(name: str, options: SuiteOptions) -> SuiteBackend``. Building one is cheap
    (no compiling, no OpenGL): `wamsim list` builds them all.
    """

    suite: Suite

    def scene(self, task: Task) -> Scene:
        """Compile the task's scene, or load it from the cache."""
        ...

    def start(self, scene: Scene, task: Task, key: EpisodeKey, run_seed: int) -> Start:
        """Draw how this episode starts: a function of the key and the run's seed alone."""
        ...

    def initial_states(self, task: Task) -> Array:
        """All initial states of a task, float64 [N, 1 + nq + nv]."""
        ...
