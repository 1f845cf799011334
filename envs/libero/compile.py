"""Compiling a LIBERO scene: hf-libero builds it, and we read off what the runtime needs.

The model is the one that the genuine environment's reset compiles, from the same XML
string, so it equals it array for array; only the drawn fixture poses are not in it.
(A round trip through mj_saveLastXML would lose ``inertiagrouprange`` and with it masses.)
"""

from __future__ import annotations

import contextlib
import io
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from envs.libero import bddl, upstream
from envs.libero.placement import Placement, Property, Sampler
from envs.scene import Articulation, Region, Robot, Scene, SceneInfo, Thing, Threshold
from wamsim.errors import AssetsMissing

# Names that observations and published policies use for the two cameras.
CAMERAS = {"agentview": "agentview", "eye_in_hand": "robot0_eye_in_hand"}


def build(path: Path, assets: Path) -> Scene:
    """Compile the scene of a BDDL file.

    Args:
        path: The BDDL file.
        assets: Folder of LIBERO's assets.

    Raises:
        AssetsMissing: MuJoCo cannot read one of the files.
    """
    problem = bddl.read(path)
    try:
        with upstream.keep_global_randomness(), contextlib.redirect_stdout(io.StringIO()):
            env = _loaded_env(path, problem.kind, assets)
    except (ValueError, OSError, ET.ParseError) as error:
        raise AssetsMissing(
            f"the scene of {path.stem} does not compile: {error}. A file of LIBERO's assets may "
            f"be damaged; download them again. Looked in: {assets}"
        ) from error
    model = env.sim.model._model
    info = SceneInfo(
        id=problem.scene_id,
        robot=_robot(env),
        things=tuple(_things(env, problem, model)),
        regions=tuple(_regions(env)),
        cameras=_cameras(model),
        timestep=float(model.opt.timestep),
        substeps=25,  # 20 Hz at 0.002 s; ControlEnv's control_freq
        observe_like_libero=True,
        placement=asdict(_placement(env, model)),
        provenance={**upstream.versions(), "assets": _asset_files(env, assets)},
    )
    return Scene(model=model, info=info)


def _loaded_env(path: Path, kind: str, assets: Path) -> Any:
    """The genuine problem after loading its model: no robot reset, no draw, no OpenGL."""
    envs = upstream.import_envs(assets)
    from robosuite import load_controller_config
    from robosuite.environments.base import REGISTERED_ENVS

    genuine = envs.TASK_MAPPING[kind]
    # A subclass of the same name, because LIBERO compares it with the BDDL's problem name.
    loader = type(genuine)(
        genuine.__name__,
        (genuine,),
        {"_reset_internal": lambda self: None, "_setup_observables": lambda self: {}},
    )
    REGISTERED_ENVS[genuine.__name__] = genuine  # defining a subclass registered it
    env = loader(
        str(path),
        robots=["Panda"],
        controller_configs=load_controller_config(default_controller="OSC_POSE"),
        initialization_noise=None,
        use_camera_obs=False,
        has_offscreen_renderer=False,
    )
    # The last thing that a reset does to the model: hide the marker sites.
    env.robots[0].reset_sim(env.sim)
    env.visualize(vis_settings={name: False for name in env._visualizations})
    return env


def _cameras(model: mujoco.MjModel) -> dict[str, str]:
    every = [model.camera(i).name for i in range(model.ncam)]
    return CAMERAS | {name: name for name in every if name not in CAMERAS.values()}


def _robot(env: Any) -> Robot:
    robot = env.robots[0]
    arm, gripper = robot.robot_model, robot.gripper
    geoms = gripper.important_geoms
    return Robot(
        joints=tuple(arm.joints),
        actuators=tuple(arm.actuators),
        gripper_joints=tuple(gripper.joints),
        gripper_actuators=tuple(gripper.actuators),
        eef_site=gripper.important_sites["grip_site"],
        eef_body=arm.eef_name,
        init_qpos=tuple(float(q) for q in arm.init_qpos),
        init_gripper_qpos=tuple(float(q) for q in gripper.init_qpos),
        pad_geoms=(tuple(geoms["left_fingerpad"]), tuple(geoms["right_fingerpad"])),
    )


def _things(env: Any, problem: bddl.Problem, model: mujoco.MjModel) -> Iterator[Thing]:
    category = {
        name: kind
        for group in (problem.fixtures, problem.objects)
        for kind, names in group.items()
        for name in names
    }
    for name, obj in {**env.objects_dict, **env.fixtures_dict}.items():
        free, joints = _split_joints(obj.joints, model)
        yield Thing(
            name=name,
            category=category[name],
            body=obj.root_body,
            geoms=tuple(int(model.geom(g).id) for g in obj.contact_geoms),
            free_joint=free,
            joints=joints,
            articulation=_articulation(obj) if joints else None,
            radius=float(obj.horizontal_radius),
            bottom=float(obj.bottom_offset[-1]),
            top=float(obj.top_offset[-1]),
            lit_sites=tuple(s for s, _ in obj.object_properties["vis_site_names"].values()),
        )


def _split_joints(
    names: Iterable[str], model: mujoco.MjModel
) -> tuple[str | None, tuple[str, ...]]:
    """(free joint or None, the others in model order)."""
    free: str | None = None
    others: list[tuple[int, str]] = []
    for name in names:
        joint = model.joint(name)
        if joint.type[0] == mujoco.mjtJoint.mjJNT_FREE:
            free = name
        else:
            others.append((int(joint.id), name))
    return free, tuple(name for _, name in sorted(others))


def _articulation(obj: Any) -> Articulation:
    """Thresholds of an articulated object, asked of its own is_open, turn_on, ..."""
    ranges = obj.object_properties.get("articulation", {})
    values = sorted({float(v) for pair in ranges.values() for v in pair})
    return Articulation(
        open=_threshold(getattr(obj, "is_open", None), values),
        close=_threshold(getattr(obj, "is_close", None), values),
        turn_on=_threshold(getattr(obj, "turn_on", None), values),
        turn_off=_threshold(getattr(obj, "turn_off", None), values),
    )


def _threshold(holds: Callable[[float], bool] | None, values: list[float]) -> Threshold | None:
    """Find where a yes-or-no function of a joint position changes its answer.

    Args:
        holds: The object's own function; None when it has none.
        values: Ends of its ranges; LIBERO compares with one of them.
    """
    if holds is None:
        return None
    for value in values:
        try:
            below, above = holds(np.nextafter(value, -9.0)), holds(np.nextafter(value, 9.0))
        except NotImplementedError:  # ArticulatedObject.is_open: this kind does not open
            return None
        if below and not above:
            return Threshold(below=value, inclusive=bool(holds(value)))
        if above and not below:
            return Threshold(above=value, inclusive=bool(holds(value)))
    return None


def _regions(env: Any) -> Iterator[Region]:
    for name, site in env.object_sites_dict.items():
        x, y, z = (float(v) for v in site.size)
        yield Region(
            name=name,
            site=site.name,
            size=(x, y, z),
            parent=site.parent_name,
            joints=tuple(site.joints or ()),
        )


def _placement(env: Any, model: mujoco.MjModel) -> Placement:
    """The settings of every sampler of a reset, in the order in which they draw."""
    samplers: list[Sampler] = []
    for composite in (
        env.placement_initializer,
        env.conditional_placement_initializer,
        env.conditional_placement_on_objects_initializer,
    ):
        for name, sampler in composite.samplers.items():
            samplers.append(_sampler(env, sampler, composite.sample_args[name] or {}))
    return Placement(
        properties=[
            Property(
                low=float(p.joint_ranges[0]),
                high=float(p.joint_ranges[1]),
                joints=list(env.get_object(p.name).joints),
            )
            for p in env.object_property_initializers
        ],
        samplers=samplers,
        untouched={
            s.body: [model.body(s.body).pos.tolist(), model.body(s.body).quat.tolist()]
            for s in samplers
            if s.body is not None
        },
    )


def _sampler(env: Any, sampler: Any, args: dict[str, Any]) -> Sampler:
    from libero.libero.envs.regions import InSiteRegionRandomSampler, MultiRegionRandomSampler

    (obj,) = sampler.mujoco_objects
    assert not hasattr(obj, "init_quat"), f"{obj.name} has an initial turn that is not drawn here"
    radius = float(obj.horizontal_radius)
    inside = isinstance(sampler, InSiteRegionRandomSampler)
    fixture = obj.name in env.fixtures_dict
    product = isinstance(sampler.rotation, dict)
    axes = sampler.rotation if product else {sampler.rotation_axis: sampler.rotation}
    return Sampler(
        name=obj.name,
        body=obj.root_body if fixture else None,
        joint=None if fixture else obj.joints[-1],
        x_ranges=[[float(v) for v in r] for r in sampler.x_ranges],
        y_ranges=[[float(v) for v in r] for r in sampler.y_ranges],
        inset=radius if sampler.ensure_object_boundary_in_range and not inside else 0.0,
        turns=[(axis, float(min(r)), float(max(r))) for axis, r in axes.items()],
        product=product,
        # The base class alone writes w first; each of its relatives overrides that.
        scalar_first=type(sampler) is MultiRegionRandomSampler,
        avoid=bool(sampler.ensure_valid_placement),
        origin=None if args.get("reference") else [float(v) for v in sampler.reference_pos],
        z_offset=float(sampler.z_offset),
        radius=radius,
        bottom=float(obj.bottom_offset[-1]),
        top=float(obj.top_offset[-1]),
        reference=args.get("reference"),
        on_top=not inside,
        site=args.get("site_name"),
    )


def _asset_files(env: Any, assets: Path) -> list[str]:
    """Meshes and textures of the model that lie in the assets folder, relative to it."""
    files = {e.get("file", "") for e in ET.fromstring(env.model.get_xml()).iter()}
    inside = (Path(f).resolve() for f in files if f)
    root = assets.resolve()
    return sorted(f.relative_to(root).as_posix() for f in inside if f.is_relative_to(root))
