"""Ours against the genuine environment: models, resets, predicates. Equality, no tolerance."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from envs import goals
from envs.goals import Predicate, World, holds
from envs.libero import assets, bddl, placement, protocols, suite, upstream
from envs.libero.genuine import make_genuine, reset_genuine
from envs.libero.suite import LiberoSuite
from envs.scene import Scene, SuiteOptions, Threshold
from wamsim.contracts import EpisodeKey

pytestmark = [pytest.mark.libero, pytest.mark.sim]

# One task of each problem class; the first has objects on and in sites, and an open drawer.
CLASSES = {
    "tabletop": ("libero_spatial", 4),
    "floor": ("libero_object", 2),
    "kitchen": ("libero_10", 9),
    "living_room": ("libero_10", 0),
    "study": ("libero_10", 5),
}
EVERY = [(name, i) for name in protocols.SUITES for i in range(len(upstream.task_map()[name]))]


@dataclass
class Pair:
    """The genuine environment of a task and our scene of it."""

    env: Any
    backend: LiberoSuite
    scene: Scene

    @property
    def model(self) -> mujoco.MjModel:
        return self.env.sim.model._model

    @property
    def data(self) -> mujoco.MjData:
        return self.env.sim.data._data


def _pair(name: str, index: int, libero_assets: Path, cache: Path) -> Pair:
    backend = suite(name, SuiteOptions(cache_dir=cache, libero_assets=libero_assets))
    scene = backend.scene(backend.suite.tasks[index])
    return Pair(make_genuine(name, index, libero_assets, rendering=False), backend, scene)


@pytest.fixture(scope="module", params=list(CLASSES))
def pair(
    request: pytest.FixtureRequest, libero_assets: Path, scene_cache_dir: Path
) -> Iterator[Pair]:
    made = _pair(*CLASSES[request.param], libero_assets, scene_cache_dir)
    yield made
    made.env.close()


# ------------------------------------------------------------------------- models


def differences(a: Any, b: Any) -> list[str]:
    """Names of the attributes in which two models differ."""
    found = []
    # A .mjb does not keep the signature, which MuJoCo uses to tell models apart.
    for name in (n for n in dir(a) if not n.startswith("_") and n != "signature"):
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, np.ndarray | int | float | bytes | str):
            if not np.array_equal(
                x, y, equal_nan=isinstance(x, np.ndarray) and x.dtype.kind == "f"
            ):
                found.append(name)
        elif not callable(x):
            found += [f"{name}.{inner}" for inner in differences(x, y)]
    return found


def test_the_model_is_the_genuine_one(pair: Pair) -> None:
    np.random.seed(1)
    reset_genuine(pair.env)
    for body in pair.scene.info.placement["untouched"]:
        i = pair.scene.body_id(body)
        pair.model.body_pos[i] = pair.scene.model.body_pos[i]
        pair.model.body_quat[i] = pair.scene.model.body_quat[i]
    assert differences(pair.model, pair.scene.model) == []


def test_a_difference_would_be_seen(pair: Pair) -> None:
    kept = pair.model.geom_rgba[0, 0]
    pair.model.geom_rgba[0, 0] += 0.5
    pair.model.vis.map.znear += 0.5
    pair.model.opt.timestep += 0.5
    try:
        seen = differences(pair.model, pair.scene.model)
    finally:
        pair.model.geom_rgba[0, 0] = kept
        pair.model.vis.map.znear -= 0.5
        pair.model.opt.timestep -= 0.5
    assert {"geom_rgba", "vis.map.znear", "opt.timestep"} <= set(seen)


def test_what_a_task_needs_is_what_its_model_uses(pair: Pair) -> None:
    task = next(t for t in pair.backend.suite.tasks if t.scene_id == pair.scene.info.id)
    found = pair.backend.completeness(task)
    assert found is not None
    used = set(pair.scene.info.provenance["assets"])
    assert used == {f for f in found.needed if not f.endswith(".xml")}


# ------------------------------------------------------------------------- resets


def check_resets(pair: Pair, seed: int, resets: int = 3) -> None:
    """Hold consecutive resets under one seed equal bit for bit."""
    loads = len(pair.env.env.object_property_initializers)
    per_load = len(pair.scene.info.placement["properties"])
    loads = loads // per_load if per_load else 1
    np.random.seed(seed)
    rng = np.random.RandomState(seed)
    for _ in range(resets):
        reset_genuine(pair.env)
        drawn = placement.draw(pair.scene, rng, loads=loads)
        loads = drawn.loads
        pair.scene.set_fixtures(drawn.fixtures)
        assert np.array_equal(pair.data.qpos, drawn.qpos)
        assert np.array_equal(pair.model.body_pos, pair.scene.model.body_pos)
        assert np.array_equal(pair.model.body_quat, pair.scene.model.body_quat)
        ours, theirs = rng.get_state(), np.random.get_state()
        assert np.array_equal(ours[1], theirs[1])
        assert ours[2:] == theirs[2:]


def test_resets_draw_what_the_genuine_environment_draws(pair: Pair) -> None:
    check_resets(pair, seed=3)


def test_the_openvla_protocol_is_the_published_loop(
    libero_assets: Path, scene_cache_dir: Path
) -> None:
    """``env.seed(0)`` once, then ``env.reset()`` before every trial."""
    name, index = CLASSES["tabletop"]  # its sampled drawer draws more at every reset
    made = _pair(name, index, libero_assets, scene_cache_dir)
    options = SuiteOptions(
        cache_dir=scene_cache_dir, libero_assets=libero_assets, protocol="openvla"
    )
    backend = suite(name, options)
    task = backend.suite.tasks[index]
    made.env.seed(0)
    for trial in range(3):
        reset_genuine(made.env)
        start = backend.start(made.scene, task, EpisodeKey(name, task.name, trial), run_seed=trial)
        assert np.array_equal(start.nominal_qpos, made.data.qpos)
        for body, (position, quaternion) in start.fixtures.items():
            i = made.scene.body_id(body)
            assert np.array_equal(position, made.model.body_pos[i])
            assert np.array_equal(quaternion, made.model.body_quat[i])
    made.env.close()


def test_a_failed_placement_starts_the_reset_again(
    libero_assets: Path, scene_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The genuine loop loads the model again and draws on; so do we."""
    from robosuite.utils.errors import RandomizationError
    from robosuite.utils.placement_samplers import SequentialCompositeSampler

    made = _pair("libero_spatial", 4, libero_assets, scene_cache_dir)
    fails = {"genuine": 2, "ours": 2}
    genuine_sample, our_place = SequentialCompositeSampler.sample, placement._place

    def sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        if fails["genuine"]:
            fails["genuine"] -= 1
            raise RandomizationError("no place")
        return genuine_sample(self, *args, **kwargs)

    def place(*args: Any) -> Any:
        if fails["ours"]:
            fails["ours"] -= 1
            raise placement.CannotPlace("no place")
        return our_place(*args)

    monkeypatch.setattr(SequentialCompositeSampler, "sample", sample)
    monkeypatch.setattr(placement, "_place", place)
    check_resets(made, seed=5, resets=2)
    made.env.close()


# --------------------------------------------------------------------- predicates


def _asked(pair: Pair) -> list[tuple[str, tuple[str, ...]]]:
    """Every predicate that the scene's names allow."""
    info = pair.scene.info
    movable = [t.name for t in info.things if t.free_joint]
    things = [t.name for t in info.things]
    regions = [r.name for r in info.regions]
    asked: list[tuple[str, tuple[str, ...]]] = []
    asked += [("On", p) for p in itertools.product(movable, things + regions) if p[0] != p[1]]
    asked += [("In", p) for p in itertools.product(movable, regions)]
    for thing in info.things:
        for name, which in (
            ("Open", "open"),
            ("Close", "close"),
            ("TurnOn", "turn_on"),
            ("TurnOff", "turn_off"),
        ):
            if thing.articulation and getattr(thing.articulation, which):
                asked.append((name, (thing.name,)))
                if name in ("Open", "Close"):
                    inner = [r.name for r in info.regions if r.parent == thing.name and r.joints]
                    asked += [(name, (region,)) for region in inner]
    return asked


def _perturb(pair: Pair, qpos: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put one object around another or a region, and move joints around their thresholds."""
    scene, info = pair.scene, pair.scene.info
    qpos = qpos.copy()
    movable = [t for t in info.things if t.free_joint]
    first, second = rng.choice(len(movable), 2, replace=False)
    at = scene.qpos_address(movable[first].free_joint or "")
    if info.regions and rng.random() < 0.7:
        region = info.regions[rng.integers(len(info.regions))]
        centre = pair.data.site_xpos[scene.site_id(region.site)]
        spread = np.array(region.size) * 1.4 + [0, 0, 0.03]
        qpos[at : at + 3] = centre + rng.uniform(-1, 1, 3) * spread
    else:
        other = scene.qpos_address(movable[second].free_joint or "")
        offset = np.append(rng.normal(0, 0.02, 2), rng.uniform(-0.01, 0.08))
        qpos[at : at + 3] = qpos[other : other + 3] + offset
    for thing in info.things:
        limits = vars(thing.articulation).values() if thing.articulation else ()
        edges = [x for t in limits if isinstance(t, Threshold) for x in (t.below, t.above)]
        edges = [x for x in edges if x is not None]
        for joint in thing.joints:
            if rng.random() < 0.7:
                step = rng.choice([-1e-3, -1e-9, 0.0, 1e-9, 1e-3])
                qpos[scene.qpos_address(joint)] = rng.choice(edges) + step
    return qpos


def test_predicates_agree_on_perturbed_states(pair: Pair) -> None:
    np.random.seed(2)
    reset_genuine(pair.env)
    for body in pair.scene.info.placement["untouched"]:
        i = pair.scene.body_id(body)
        pair.scene.set_fixtures({body: (pair.model.body_pos[i], pair.model.body_quat[i])})
    rng = np.random.default_rng(0)
    ours = mujoco.MjData(pair.scene.model)
    world = World(pair.scene, ours)
    start = pair.data.qpos.copy()
    asked = _asked(pair)
    answers: Counter[tuple[str, bool]] = Counter()
    for _ in range(120):
        qpos = _perturb(pair, start, rng)
        for model, data in ((pair.model, pair.data), (pair.scene.model, ours)):
            data.qpos[:] = qpos
            mujoco.mj_forward(model, data)
        for name, args in asked:
            expected = bool(pair.env.env._eval_predicate([name.lower(), *args]))
            assert holds(Predicate(name, args), world) == expected, (name, args)
            answers[name, expected] += 1
    for name in {name for name, _ in asked}:
        assert answers[name, True] >= 5, f"{name} was never true, the test is empty"
        assert answers[name, False] >= 5, f"{name} was never false, the test is empty"


def test_articulation_thresholds_are_those_of_the_paper_code(
    libero_assets: Path, scene_cache_dir: Path
) -> None:
    # SUITES 1.3
    expected = {
        "wooden_cabinet": (Threshold(below=-0.14), Threshold(above=0.0), None, None),
        "white_cabinet": (Threshold(below=-0.14), Threshold(above=0.0), None, None),
        "microwave": (Threshold(below=-1.3), Threshold(above=-0.005), None, None),
        "flat_stove": (None, None, Threshold(above=0.5, inclusive=True), Threshold(below=0.0)),
    }
    seen = set()
    for name, index in (("libero_goal", 0), ("libero_10", 3), ("libero_10", 9)):
        backend = suite(name, SuiteOptions(cache_dir=scene_cache_dir, libero_assets=libero_assets))
        for thing in backend.scene(backend.suite.tasks[index]).info.things:
            if thing.articulation:
                a = thing.articulation
                assert (a.open, a.close, a.turn_on, a.turn_off) == expected[thing.category]
                assert all(not joint.endswith("joint0") for joint in thing.joints)
                seen.add(thing.category)
    assert seen == set(expected)


def test_a_stove_shows_its_burner(libero_assets: Path, scene_cache_dir: Path) -> None:
    backend = suite(
        "libero_goal", SuiteOptions(cache_dir=scene_cache_dir, libero_assets=libero_assets)
    )
    scene = backend.scene(backend.suite.tasks[7])
    assert scene.thing("flat_stove_1").lit_sites == ("flat_stove_1_burner",)
    assert scene.model.site_rgba[scene.site_id("flat_stove_1_burner")][3] <= 0  # hidden when off


# ---------------------------------------------------------------------- all tasks


@pytest.mark.slow
@pytest.mark.parametrize(("name", "index"), EVERY)
def test_every_task(name: str, index: int, libero_assets: Path, scene_cache_dir: Path) -> None:
    made = _pair(name, index, libero_assets, scene_cache_dir)
    task = made.backend.suite.tasks[index]
    goals.check(goals.parse(task.goal), made.scene)
    states = made.backend.initial_states(task)
    assert states.shape == (50, 1 + made.scene.model.nq + made.scene.model.nv)
    used = set(made.scene.info.provenance["assets"])
    problem = bddl.read(upstream.bddl_path(name, task.name))
    needed = assets.completeness(problem, libero_assets).needed
    assert used == {f for f in needed if not f.endswith(".xml")}
    assert set(task.cameras) <= set(made.scene.info.cameras)
    check_resets(made, seed=index)
    assert differences(made.model, made.scene.model) == []
    made.env.close()


def test_pictures_of_the_genuine_environment(libero_assets: Path) -> None:
    env = make_genuine("libero_goal", 0, libero_assets, size=32, seed=0)
    observation = reset_genuine(env)
    assert observation["agentview_image"].shape == (32, 32, 3)
    assert observation["robot0_eye_in_hand_image"].std() > 0
    env.close()
