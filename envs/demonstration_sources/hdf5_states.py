"""The states in LIBERO's HDF5, put into our scenes: what they show, and whether they fit.

A state is only the joints of a scene. Which scene it was must be checked: the width of the
states, the joints' names in ``model_file``, and where the hand was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import mujoco
import numpy as np

from envs.demonstration_sources.shared import Array, Viewpoint
from envs.scene import Pose, Scene
from wamsim.contracts import Task
from wamsim.demonstrations import UnusableDemonstrations
from wamsim.errors import RecordCorrupt
from wamsim.gallery import Shot

if TYPE_CHECKING:
    from envs.rendering import Painter
    from envs.runtime import Glimpse

# Observations are taken 4 ms before a step ends (envs/timing.py); a hand moves less meanwhile.
TOLERANCE_M = 0.01


def fixtures_of(model_file: str | bytes | None, scene: Scene) -> dict[str, Pose]:
    """Read where the fixtures stood: not in the states, but in the model's XML.

    MuJoCo writes a body's pose as ``pos`` and ``quat`` and leaves out what is zero or identity.

    Args:
        model_file: The XML that LIBERO kept with a demonstration; None when it is missing.
        scene: Ours; its joints must be the XML's, name by name, for qpos to mean the same.

    Returns:
        Body -> pose, for all fixtures that LIBERO places.

    Raises:
        RecordCorrupt: No XML.
        UnusableDemonstrations: Another LIBERO's scene.
    """
    wanted = list(scene.info.placement["untouched"])
    if model_file is None:
        if not wanted:
            return {}
        raise UnusableDemonstrations(
            f"the file does not say where {', '.join(wanted)} stood: its model_file is missing. "
            f"Use LIBERO's own HDF5, which has it"
        )
    text = model_file.decode() if isinstance(model_file, bytes) else model_file
    try:
        world = ElementTree.fromstring(text).find("worldbody")
    except ElementTree.ParseError as error:
        raise RecordCorrupt(f"its model_file is no XML: {error}") from error
    elements = [] if world is None else list(world.iter())
    theirs = [e.get("name") for e in elements if e.tag in ("joint", "freejoint")]
    model = scene.model
    ours = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, i) for i in range(model.njnt)]
    if theirs != ours:
        strange = sorted({str(name) for name in theirs} ^ set(ours)) or ["their order"]
        raise UnusableDemonstrations(
            f"its scene comes from another LIBERO version: its joints are not those of "
            f"hf-libero's scene ({', '.join(strange[:4])}). Record demonstrations with "
            f"`wamsim eval -p oracle` instead"
        )
    bodies = {e.get("name"): e for e in elements if e.tag == "body"}
    return {name: _pose(bodies.get(name), name) for name in wanted}


def _pose(body: ElementTree.Element | None, name: str) -> Pose:
    if body is None or set(body.keys()) & {"euler", "axisangle", "xyaxes", "zaxis"}:
        raise UnusableDemonstrations(f"its model_file has no pos and quat of {name}")
    return (
        np.array(body.get("pos", "0 0 0").split(), np.float64),
        np.array(body.get("quat", "1 0 0 0").split(), np.float64),
    )


def look_back(
    scene: Scene, task: Task, states: Array, fixtures: dict[str, Pose]
) -> tuple[list[Glimpse], bool]:
    """Put a scene into recorded states.

    Args:
        scene, task: Ours.
        states: [T, 1 + nq + nv] time, qpos, qvel.
        fixtures: Poses of bodies without a joint.

    Returns:
        What each state shows, and whether the goal holds in the last.

    Raises:
        UnusableDemonstrations: The states are of another scene.
    """
    from envs.goals import parse
    from envs.runtime import Simulation
    from envs.scene import Start

    model = scene.model
    width = 1 + model.nq + model.nv
    if states.shape[1] != width:
        raise UnusableDemonstrations(
            f"its states are {states.shape[1]} wide and {width} (1 + nq + nv) are expected of "
            f"{task.name}: it comes from another LIBERO version than hf-libero"
        )
    simulation = Simulation(scene, parse(task.goal))
    glimpses = [
        simulation.start(
            Start(nominal_qpos=state[1 : 1 + model.nq], state=state, fixtures=fixtures)
        )
        for state in states
    ]
    return glimpses, simulation.success()


def observed_after(group: Any, hand: Array, file: Path) -> bool:
    """Tell whether observations were taken after their actions, as LIBERO's were, or before.

    Args:
        group: The demonstration.
        hand: [T, 3] metres, where the hand is in its states, in our scene.
        file: Where it is from, for the error.

    Returns:
        True where the file has no observations.

    Raises:
        UnusableDemonstrations: Observations and states are not of one episode.
    """
    if "obs/ee_pos" not in group:
        return True
    told = array(group, "obs/ee_pos", 3, len(hand))
    after = np.linalg.norm(told[:-1] - hand[1:], axis=1)
    before = np.linalg.norm(told - hand, axis=1)
    is_after = bool(after.mean() <= before.mean())
    error = float((after if is_after else before).max())
    if not error <= TOLERANCE_M:
        raise UnusableDemonstrations(
            f"its frames do not match its states: the hand's observed position is up to "
            f"{100 * error:.1f} cm from where its states put it, {100 * TOLERANCE_M:.0f} cm are "
            f"allowed. File: {file}"
        )
    return is_after


def shots(
    painter: Painter, fixtures: dict[str, Pose], glimpses: Iterable[Glimpse], view: Viewpoint
) -> Iterator[Shot]:
    """Draw what `look_back` gave, one look per state."""
    from envs.runtime import Look, shoot

    look = Look(cameras=view.cameras, size=view.size, depth=view.depth)
    for glimpse in glimpses:
        colour, metres = shoot(painter, fixtures, glimpse, look)
        poses = [painter.camera_pose(c) for c in view.cameras] if view.depth else None
        yield Shot(
            colour=colour, depth=metres, extrinsics=None if poses is None else np.stack(poses)
        )


def array(group: Any, name: str, width: int | None, length: int | None = None) -> Array:
    """Read a dataset as float64 [length, width]; None stands for any.

    Raises:
        RecordCorrupt: It is missing, or of another shape.
    """
    found: Any = np.asarray(group[name], np.float64) if name in group else np.zeros(0)
    right = found.ndim == 2 and width in (None, found.shape[1]) and length in (None, len(found))
    if not right:
        shape = f"has {found.shape}" if name in group else "is missing"
        raise RecordCorrupt(
            f"{group.name}/{name} {shape}, expected ({length or 'T'}, {width or '1 + nq + nv'}). "
            f"File: {group.file.filename}"
        )
    return found
