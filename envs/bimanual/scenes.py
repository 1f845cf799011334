"""The scenes of the bimanual tasks, one for each, assembled from pieces and compiled."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path

import mujoco

import envs.tabletop
from envs.bimanual import arms, clutter
from envs.bimanual.room import AWAY, TABLE_TOP_Z, new_stage
from envs.bimanual.tasks import BY_NAME
from envs.bimanual.things import region
from envs.scene import Scene, SceneInfo, Thing
from envs.tabletop.stage import Piece

# public name -> camera in the model; "front" is for videos
CAMERAS: Mapping[str, str] = {
    "head": "head",
    "left_wrist": "left_wrist",
    "right_wrist": "right_wrist",
    "front": "front",
}
PREFIX = "bimanual_"


def cache_key(scene_id: str) -> dict[str, str]:
    """Everything that a compiled scene depends on: our source, and what it is built with."""
    source = hashlib.sha256()
    folders = Path(__file__).parent, Path(envs.tabletop.__file__).parent
    for path in sorted(p for folder in folders for p in folder.glob("*.py")):
        if path.name in ("suite.py", "starts.py", "predicates.py", "randomization.py"):
            continue  # what they say is read anew each time
        source.update(path.name.encode() + b"\0" + path.read_bytes())
    return {
        "scene": scene_id,
        "source": source.hexdigest(),
        "mujoco": mujoco.__version__,
        "pillow": importlib.metadata.version("pillow"),  # draws the labels
        **arms.provenance(),
    }


def build(scene_id: str) -> Scene:
    """Compile the scene of a task (a second)."""
    entry = BY_NAME[scene_id.removeprefix(PREFIX)]
    stage = new_stage(scene_id)
    arms.add_arms(stage)
    # Arms first, then free things, so that qpos is arms, things, joints of fixed things.
    pieces = [build(stage, name) for name, build in entry.free.items()]
    for name, make in entry.fixed.items():
        pieces.append(make(stage, name))
        stage.spec.body(name).pos = AWAY
    clutter.add(stage)
    table = stage.spec.body("table")
    marks = [
        region(table, f"height_{z:.2f}", "table", (0, 0, z - TABLE_TOP_Z), (1.0, 1.0, 1.0))
        for z in entry.heights
    ]
    marks += [
        region(table, name, "table", (x, y, 0), (tolerance, tolerance, 1.0))
        for name, (x, y, tolerance) in entry.targets.items()
    ]
    model = stage.spec.compile()
    info = SceneInfo(
        id=scene_id,
        robot=arms.LEFT,
        more_robots=(arms.RIGHT,),
        controls=arms.CONTROLS,
        things=(*(piece.thing(model) for piece in pieces), *_bodies(model)),
        regions=(*(r for piece in pieces for r in piece.regions), *marks),
        cameras=dict(CAMERAS),
        placement={"grips": _grips(pieces)},
        provenance=cache_key(scene_id),
    )
    return Scene(model=model, info=info)


def _grips(pieces: Sequence[Piece]) -> dict[str, object]:
    return {p.name: p.grasps.get("grips", dict(p.grasps)) for p in pieces if p.grasps}


def _bodies(model: mujoco.MjModel) -> tuple[Thing, ...]:
    """The table and both hands as things that goals can name."""
    out = [
        Thing(
            name="table", category="table", body="table", geoms=(model.geom("table_collision").id,)
        )
    ]
    for side in arms.SIDES:
        fingers = (f"{side}_left_finger", f"{side}_right_finger")
        names = [f"{finger}_{part}" for finger in fingers for part in ("pad", "wedge")]
        out.append(
            Thing(
                name=f"{side}_hand",
                category="hand",
                body=f"{side}_gripper_link",
                geoms=tuple(model.geom(name).id for name in names),
            )
        )
    return tuple(out)
