"""The 24 atomic tasks: words, goals, step limits, and what each trial draws.

Names, wordings, limits and rules follow RoboCasa v0.2 (SUITES 2.2); scenes and objects are
ours. A trial (`EpisodeKey.index`) decides scene, objects and choices of its own, never the
run's seed: trials 0-49 are the evaluation, five scenes with ten trials each and instances
of objects that no other trial shows; later trials are for training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from envs.kitchen.layouts import LAYOUTS
from envs.kitchen.objects import FOOD, instances
from envs.kitchen.scenes import Spec
from envs.kitchen.styles import STYLES

# Of the suite. 2: pictures have coarser shadow maps (envs/kitchen/scenes.py).
VERSION = 2
# Of what trials draw; part of every generator, so that new pictures do not shuffle the trials.
DRAWS = 1
EVALUATION, PER_SCENE = 50, 10
# The published protocol's five pairs are scattered over layouts and styles; so are ours.
EVALUATION_SCENES = (
    ("one_wall", "scandinavian"),
    ("l_right", "industrial"),
    ("galley", "coastal"),
    ("u_shape", "farmhouse"),
    ("wraparound", "modern"),
)
TRAINING_SCENES = tuple(
    (layout, style)
    for layout in LAYOUTS
    for style in STYLES
    if (layout, style) not in EVALUATION_SCENES
)
# Food that fits where a hand has little room: low and light.
SMALL = ("apple", "orange", "bread", "cheese")
# Food that a hand can hold from the front: what is low slips out of stooping fingers.
UPRIGHT = ("apple", "orange", "can")
BURNERS = ("front_left", "rear_left", "rear_right", "front_right")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What one trial of a task is.

    Attributes:
        layout, style, station: Of its scene.
        objects: (name, "category/instance").
        words: What the templates of instruction and goal are filled with.
        held_out: Whether the trial is one of evaluation.
    """

    layout: str
    style: str
    station: str
    objects: tuple[tuple[str, str], ...]
    words: Mapping[str, str]
    held_out: bool

    @property
    def spec(self) -> Spec:
        """What its scene is compiled from."""
        return Spec(
            layout=self.layout, style=self.style, station=self.station, objects=self.objects
        )


# trial, layout, generator of the trial -> words
Choose = Callable[[int, str, np.random.Generator], Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One task before it is numbered.

    Attributes:
        name: Snake case of RoboCasa's.
        wordings: The instruction and its paraphrases; {words} are filled in per trial.
        goal: Likewise.
        max_steps: Step limit.
        station: Where the robot stands.
        food: Categories that the thing "obj" is drawn from; () for none.
        dishes: name -> categories of further things.
        choose: Words that depend on the trial and not on the scene alone.
        plain: Words for listings, where no trial is meant.
        start: Name of the start's rule in `envs.kitchen.placement`.
        requires: Action channels without which it cannot be done.
    """

    name: str
    wordings: tuple[str, str, str]
    goal: str
    max_steps: int
    station: str
    food: tuple[str, ...] = ()
    dishes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    choose: Choose = lambda trial, layout, rng: {}
    plain: Mapping[str, str] = field(default_factory=dict)
    start: str
    requires: tuple[str, ...] = ()


def generator(task: str, what: str, number: int) -> np.random.Generator:
    """Randomness of a trial or a scene; a function of `DRAWS` and its numbers."""
    text = "\x1f".join((str(DRAWS), "kitchen", task, what, str(number)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def variant(
    entry: Entry, trial: int, *, layout: str | None = None, style: str | None = None
) -> Variant:
    """What a trial is: a function of the task, its number and what the user has chosen.

    Args:
        entry: The task.
        trial: Its number.
        layout, style: In place of the protocol's; everything else is drawn as ever.
    """
    held_out = trial < EVALUATION
    block = trial // PER_SCENE
    scenes = EVALUATION_SCENES if held_out else TRAINING_SCENES
    number = block if held_out else block - EVALUATION // PER_SCENE
    usual = scenes[number % len(scenes)]
    layout, style = layout or usual[0], style or usual[1]
    # Scenes are compiled with their objects, so these change with the scene, not the trial.
    rng = generator(entry.name, "scene", block)
    objects: list[tuple[str, str]] = []
    words: dict[str, str] = {}
    wanted = {"obj": entry.food} if entry.food else {}
    for name, categories in {**wanted, **entry.dishes}.items():
        category = categories[int(rng.integers(len(categories)))]
        found = instances(category, held_out=held_out)
        objects.append((name, f"{category}/{found[int(rng.integers(len(found)))]}"))
        words[name] = category
    words |= entry.choose(trial, layout, generator(entry.name, "trial", trial))
    station = words.get("station", entry.station)
    return Variant(
        layout=layout, style=style, station=station, objects=tuple(objects), words=words,
        held_out=held_out,
    )  # fmt: skip


def _pnp(
    name: str,
    words: str,
    goal: str,
    max_steps: int,
    station: str,
    food: tuple[str, ...],
    dishes: Mapping[str, tuple[str, ...]] | None = None,
) -> Entry:
    """A pick-and-place task; `words` goes on after "the {obj}", "from" first."""
    plain = {"obj": "food"} | {key: key for key in dishes or {}}
    return Entry(
        name=name,
        wordings=(
            f"pick the {{obj}} {words.replace(' TO ', ' and place it ')}",
            f"take the {{obj}} {words.replace(' TO ', ' and put it ')}",
            f"move the {{obj}} {words.replace(' TO ', ', setting it ')}",
        ),
        goal=f"{goal} & Far(obj)",
        max_steps=max_steps,
        station=station,
        food=food,
        dishes=dishes or {},
        plain=plain,
        start=name,
    )


def _fixture(
    name: str,
    wordings: tuple[str, str, str],
    goal: str,
    *,
    station: str,
    max_steps: int = 500,
    choose: Choose = lambda trial, layout, rng: {},
    plain: Mapping[str, str] | None = None,
) -> Entry:
    return Entry(
        name=name, wordings=wordings, goal=goal, max_steps=max_steps, station=station,
        choose=choose, plain=plain or {}, start=name,
    )  # fmt: skip


# ------------------------------------------------------------------- pick and place

_PLACES = (
    _pnp(
        "pnp_counter_to_cab", "from the counter TO in the cabinet",
        "Inside(obj, cabinet_inside)", 500, "cabinet", FOOD,
    ),
    _pnp(
        "pnp_cab_to_counter", "from the cabinet TO on the counter",
        "Touching(obj, counter)", 500, "cabinet", FOOD,
    ),
    _pnp(
        "pnp_counter_to_sink", "from the counter TO in the sink", "CentreIn(obj, sink_basin)",
        700, "sink", FOOD,
    ),
    _pnp(
        "pnp_sink_to_counter", "from the sink TO on the {dish} located on the counter",
        "InReceptacle(obj, dish) & Touching(dish, counter)", 500, "sink", SMALL,
        {"dish": ("plate",)},
    ),
    _pnp(
        "pnp_counter_to_microwave", "from the counter TO in the microwave",
        "Touching(obj, dish) & Touching(dish, microwave)", 600, "microwave", UPRIGHT,
        {"dish": ("plate",)},
    ),
    _pnp(
        "pnp_microwave_to_counter", "from the microwave TO on the {dish} located on the counter",
        "InReceptacle(obj, dish)", 500, "microwave", UPRIGHT, {"dish": ("plate",)},
    ),
    _pnp(
        "pnp_counter_to_stove", "from the plate TO in the {pan}", "InReceptacle(obj, pan)", 500,
        "stove", SMALL, {"pan": ("pan", "pot"), "dish": ("plate",)},
    ),
    _pnp(
        "pnp_stove_to_counter", "from the {pan} TO on the {dish}", "InReceptacle(obj, dish)", 500,
        "stove", SMALL, {"pan": ("pan", "pot"), "dish": ("plate",)},
    ),
)  # fmt: skip

# ---------------------------------------------------------------- doors and drawers


def _single(trial: int, layout: str, rng: np.random.Generator) -> Mapping[str, str]:
    """Microwave and cabinet by turns, from scene to scene."""
    if (trial // PER_SCENE) % 2:
        return {"fixture": "microwave", "door": "microwave_door", "station": "microwave"}
    return {"fixture": "cabinet", "door": "single_door", "station": "single"}


def _side(trial: int, layout: str, rng: np.random.Generator) -> Mapping[str, str]:
    return {"side": ("left", "right")[int(rng.integers(2))]}


_ONE = {"fixture": "cabinet or microwave", "door": "single_door"}
_BOTH = "{0}(cabinet_left_door) & {0}(cabinet_right_door)"
_DOORS = (
    _fixture(
        "open_single_door",
        ("open the {fixture} door", "pull the {fixture} door open", "swing the {fixture} door"),
        "Open({door})", station="single", choose=_single, plain=_ONE,
    ),
    _fixture(
        "close_single_door",
        ("close the {fixture} door", "push the {fixture} door shut", "shut the {fixture} door"),
        "Close({door})", station="single", choose=_single, plain=_ONE,
    ),
    _fixture(
        "open_double_door",
        ("open the cabinet doors", "pull both cabinet doors open", "swing the cabinet doors open"),
        _BOTH.format("Open"), station="doors", max_steps=1000,
    ),
    _fixture(
        "close_double_door",
        ("close the cabinet doors", "push both cabinet doors shut", "shut the cabinet doors"),
        _BOTH.format("Close"), station="open_doors", max_steps=700,
    ),
    _fixture(
        "open_drawer",
        ("open the {side} drawer", "pull the {side} drawer open", "slide the {side} drawer out"),
        "Open(drawer_{side})", station="drawers", choose=_side, plain={"side": "left"},
    ),
    _fixture(
        "close_drawer",
        ("close the {side} drawer", "push the {side} drawer shut", "slide the {side} drawer in"),
        "Close(drawer_{side})", station="drawers", choose=_side, plain={"side": "left"},
    ),
)  # fmt: skip

# -------------------------------------------------------------- knobs, levers, buttons


def _burner(trial: int, layout: str, rng: np.random.Generator) -> Mapping[str, str]:
    burner = BURNERS[int(rng.integers(len(BURNERS)))]
    return {"burner": burner, "location": burner.replace("_", " ")}


_ANY = {"burner": "front_left", "location": "front left"}
_SWITCHES = (
    _fixture(
        "turn_on_sink_faucet",
        ("turn on the sink faucet", "let the water run in the sink", "open the faucet"),
        "TurnOn(sink_handle)", station="sink",
    ),
    _fixture(
        "turn_off_sink_faucet",
        ("turn off the sink faucet", "stop the water in the sink", "close the faucet"),
        "TurnOff(sink_handle)", station="sink",
    ),
    _fixture(
        "turn_sink_spout",
        (
            "turn the sink spout to the {side}", "swing the faucet's spout to the {side}",
            "point the sink spout to the {side}",
        ),
        "TurnOn(sink_spout_{side})", station="sink", choose=_side, plain={"side": "left"},
    ),
    _fixture(
        "turn_on_stove",
        (
            "turn on the {location} burner of the stove", "light the stove's {location} burner",
            "switch on the {location} burner",
        ),
        "TurnOn(stove_{burner})", station="knobs", choose=_burner, plain=_ANY,
    ),
    _fixture(
        "turn_off_stove",
        (
            "turn off the {location} burner of the stove", "put out the stove's {location} burner",
            "switch off the {location} burner",
        ),
        "TurnOff(stove_{burner})", station="knobs", choose=_burner, plain=_ANY,
    ),
    Entry(
        name="coffee_setup_mug",
        wordings=(
            "pick the mug from the counter and place it under the coffee machine dispenser",
            "set the mug under the coffee machine's dispenser",
            "put the mug where the coffee comes out",
        ),
        goal="AtSpot(mug, coffee_spot) & Far(mug)", max_steps=600, station="coffee",
        dishes={"mug": ("mug",)}, start="coffee_setup_mug",
    ),
    Entry(
        name="coffee_serve_mug",
        wordings=(
            "pick the mug from under the coffee machine dispenser and place it on the counter",
            "take the mug out of the coffee machine and set it on the counter",
            "serve the coffee: move the mug from the machine to the counter",
        ),
        goal="Touching(mug, counter) & Far(mug)", max_steps=600, station="coffee",
        dishes={"mug": ("mug",)}, start="coffee_serve_mug",
    ),
    Entry(
        name="coffee_press_button",
        wordings=(
            "press the button on the coffee machine to serve coffee",
            "start the coffee machine", "push the coffee machine's button",
        ),
        goal="TurnOn(coffee_button) & Clear(coffee_button)", max_steps=300, station="coffee",
        dishes={"mug": ("mug",)}, start="coffee_press_button",
    ),
    _fixture(
        "turn_on_microwave",
        (
            "press the start button on the microwave", "start the microwave",
            "push the microwave's start button",
        ),
        "TurnOn(microwave_start) & Close(microwave_door) & Clear(microwave_start)",
        station="microwave",
    ),
    _fixture(
        "turn_off_microwave",
        (
            "press the stop button on the microwave", "stop the microwave",
            "push the microwave's stop button",
        ),
        "TurnOn(microwave_stop) & Close(microwave_door) & Clear(microwave_stop)",
        station="microwave",
    ),
)  # fmt: skip

TASKS: Mapping[str, Entry] = {entry.name: entry for entry in (*_PLACES, *_DOORS, *_SWITCHES)}
