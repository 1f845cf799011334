"""Published evaluation protocols of LIBERO, as data.

They differ in wait steps, step limits, seeds and picture orientation, so numbers of one
are not numbers of another; the name of the protocol is part of a run's configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from wamsim.conventions import Orientation
from wamsim.errors import UnknownName, nearest

RESET_MODES = ("per_episode", "openvla", "lerobot")

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a group evaluated its policies.

    Attributes:
        name: What ``--protocol`` takes.
        wait_steps: Hold actions before the first query.
        step_limits: suite -> env steps after waiting.
        reset_mode: Where the draws of a reset come from. "per_episode": the episode's key
            and the run's seed. "openvla": LIBERO's generator seeded with `env_seed` once
            per task, then one reset per trial. "lerobot": seeded with `env_seed` plus the
            trial's index before each reset.
        env_seed: Seed of LIBERO's generator; None when the run's seed decides.
        orientation: Which way up its policies were shown pictures.
        trials: Episodes per task.
        execute: Actions run per query; None when it is the policy's own.
        run_seeds: Global seeds of the published runs.
        source: Where this was read.
    """

    name: str
    wait_steps: int
    step_limits: Mapping[str, int]
    reset_mode: str
    env_seed: int | None
    orientation: Orientation
    trials: int
    execute: int | None
    run_seeds: tuple[int, ...]
    source: str

    def max_steps(self, suite: str) -> int:
        """Step limit of a suite.

        Raises:
            UnknownName: The protocol says nothing about that suite.
        """
        if suite not in self.step_limits:
            raise UnknownName(
                f"protocol {self.name!r} has no step limit for {suite!r}, only for "
                f"{', '.join(self.step_limits)}. Choose another protocol or leave it out."
            )
        return self.step_limits[suite]


def _limits(spatial: int, object_: int, goal: int, long: int, ninety: int) -> Mapping[str, int]:
    return MappingProxyType(dict(zip(SUITES, (spatial, object_, goal, long, ninety), strict=True)))


# Longest demonstrations: 193, 254, 270, 505, 373 steps (openvla run_libero_eval.py).
_OPENVLA_LIMITS = _limits(220, 280, 300, 520, 400)

DEFAULT = Protocol(
    name="wamsim",
    wait_steps=10,
    step_limits=_OPENVLA_LIMITS,
    reset_mode="per_episode",
    env_seed=None,
    orientation=Orientation.UPRIGHT,
    trials=50,
    execute=None,
    run_seeds=(0,),
    source="OpenVLA's waits and limits; every draw a function of the episode alone",
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        p.name: p
        for p in (
            Protocol(
                name="openvla",
                wait_steps=10,
                step_limits=_OPENVLA_LIMITS,
                reset_mode="openvla",
                env_seed=0,
                orientation=Orientation.MIRRORED,
                trials=50,
                execute=None,
                run_seeds=(7,),
                source="github.com/openvla/openvla experiments/robot/libero/run_libero_eval.py, "
                "libero_utils.py (env.seed(0), image[::-1, ::-1])",
            ),
            Protocol(
                name="cosmos",
                wait_steps=10,
                step_limits=_OPENVLA_LIMITS,
                reset_mode="openvla",
                env_seed=0,
                orientation=Orientation.UPRIGHT,
                trials=50,
                execute=16,
                run_seeds=(195, 196, 197),
                source="github.com/NVlabs/cosmos-policy; arXiv:2601.16163 (flipud, 16 of 16 "
                "actions, three seeds)",
            ),
            Protocol(
                name="fastwam",
                wait_steps=30,
                step_limits=_limits(400, 400, 400, 700, 700),
                reset_mode="openvla",
                env_seed=42,
                orientation=Orientation.MIRRORED,
                trials=50,
                execute=10,
                run_seeds=(42,),
                source="github.com/yuantianyuan01/FastWAM experiments/libero/"
                "eval_libero_single.py; arXiv:2603.16666",
            ),
            Protocol(
                name="lerobot",
                wait_steps=10,
                step_limits=_limits(280, 280, 300, 520, 400),
                # Its environments reset once more after a success, which advances LIBERO's
                # samplers; that part depends on outcomes and is not reproduced.
                reset_mode="lerobot",
                env_seed=1000,
                orientation=Orientation.MIRRORED,
                trials=50,
                execute=None,
                run_seeds=(1000,),
                source="github.com/huggingface/lerobot src/lerobot/envs/libero.py, "
                "configs/eval.py, configs/default.py",
            ),
        )
    }
)


def choose(name: str | None) -> Protocol:
    """The protocol of that name; None is our own.

    Raises:
        UnknownName: With the nearest known name.
    """
    if name is None:
        return DEFAULT
    if name not in PROTOCOLS:
        raise nearest(name, PROTOCOLS, kind="protocol", hint="Leave it out for wamsim's own.")
    return PROTOCOLS[name]
