"""Evaluate a policy on suites: what `wamsim eval` does, callable from Python.

    from envs.evaluation import EvalConfig, Resources, evaluate
    result = evaluate(EvalConfig(policy=choose_policy("oracle"), suites=("tabletop_object",)),
                      out=Path("results/runs/mine"), episodes=20)

Training code may pass a policy object of its own (``policy=``) in place of a name.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envs.pool import Pool
from envs.replay import standard_cameras
from envs.scene import SuiteOptions, pairs
from wamsim import provenance, registry
from wamsim.advice import for_another_suite
from wamsim.contracts import EpisodeKey, Outcome, Policy, PolicyCard, Task, WorldModel
from wamsim.dreaming import check_world_model
from wamsim.errors import ConventionMismatch, UnknownName, WamsimError, nearest
from wamsim.fitting import check_fit, fitted
from wamsim.folders import default_cache_dir
from wamsim.registry import PolicyChoice
from wamsim.rollout import Accounts, Observer, Rollout, RolloutOptions, look_plan
from wamsim.run_folder import RunFolder, config_hash, records


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Everything that decides an episode's bytes; stored with the run.

    Attributes:
        policy: Family, variant and options.
        suites: Suites, groups already expanded.
        seed: The run's seed.
        batch: Rows per policy call (see `RolloutOptions`).
        exact: Step with the genuine robosuite loop's solver passes.
        imagine: Ask policies that imagine on request to do so.
        imagine_with: A world model that foresees beside the policy, or None.
        protocol: A published protocol's wait steps and step limits, or None.
        reset_mode: See `SuiteOptions`.
        wording: 0 for the tasks' own instructions, 1.. for paraphrases.
        suite_set: Choices among the suites' own options (see `SuiteOptions.chosen`); every
            suite of the run must have them all.
    """

    policy: PolicyChoice
    suites: tuple[str, ...]
    seed: int = 0
    batch: int = 1
    exact: bool = False
    imagine: bool = False
    imagine_with: PolicyChoice | None = None
    protocol: str | None = None
    reset_mode: str = "per_episode"
    wording: int = 0
    suite_set: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise WamsimError(f"batch={self.batch} must be at least 1")
        if not self.suites:
            raise WamsimError("no suite was named; `wamsim list suites` shows all")

    def mapping(self, versions: Mapping[str, int]) -> dict[str, Any]:
        """As plain data, with the suites' versions."""
        out = dataclasses.asdict(self)
        out["policy"] = self.policy.described()
        out["imagine_with"] = self.imagine_with.described() if self.imagine_with else None
        out["suites"] = {name: versions[name] for name in self.suites}
        if not self.suite_set:  # as runs were before there were such options: they go on
            del out["suite_set"]
        return out


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What may differ between machines without changing a byte of any episode.

    Attributes:
        workers: Simulation processes.
        slots: Episodes in progress per worker.
        memory_bound: Bytes of scenes to keep per worker.
        cache_dir: Where compiled scenes are kept.
        libero_assets: LIBERO's assets folder; None looks where hf-libero keeps its download.
    """

    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    slots: int = 2
    memory_bound: int = 3 << 30
    cache_dir: Path = field(default_factory=default_cache_dir)
    libero_assets: Path | None = None


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """What an evaluation leaves.

    Attributes:
        folder: The run folder.
        accounts: Where the time went.
        resumed: Episodes that were on disk already.
        messages: Sentences about files that were set aside.
    """

    folder: Path
    accounts: Accounts
    resumed: int
    messages: Sequence[str]


def suite_options(config: EvalConfig, resources: Resources) -> SuiteOptions:
    """What the suites of a run are built with."""
    return SuiteOptions(
        cache_dir=resources.cache_dir,
        libero_assets=resources.libero_assets,
        reset_mode=config.reset_mode,
        protocol=config.protocol,
        wording=config.wording,
        chosen=pairs(config.suite_set),
    )


def plan(
    config: EvalConfig,
    resources: Resources,
    *,
    episodes: int,
    tasks: Sequence[str] = (),
    first: int = 0,
) -> tuple[list[EpisodeKey], dict[str, Task], dict[str, int]]:
    """List the episodes of a run.

    Args:
        config: The run.
        resources: For the suites' folders.
        episodes: Trials per task.
        tasks: Names or numbers of tasks to keep; all when empty.
        first: Index of the first trial.

    Returns:
        Keys in order, tasks by "suite/name", and suite versions.

    Raises:
        UnknownName: A task that none of the suites has.
    """
    if episodes < 1:
        raise WamsimError(f"episodes={episodes} must be at least 1")
    options = suite_options(config, resources)
    keys: list[EpisodeKey] = []
    chosen: dict[str, Task] = {}
    versions: dict[str, int] = {}
    known: list[str] = []
    wanted = set(tasks)
    matched: set[str] = set()
    for name in config.suites:
        suite = registry.suite(name, options).suite
        versions[name] = suite.version
        for task in suite.tasks:
            known.append(task.name)
            names = {task.name, str(task.index), f"{name}/{task.name}", f"{name}/{task.index}"}
            if wanted and not (wanted & names):
                continue
            matched |= wanted & names
            chosen[f"{name}/{task.name}"] = task
            keys.extend(EpisodeKey(name, task.name, i) for i in range(first, first + episodes))
    for missing in sorted(wanted - matched):
        raise nearest(missing, known, kind="task", hint="`wamsim list tasks` shows all.")
    return keys, chosen, versions


def evaluate(
    config: EvalConfig,
    *,
    out: Path | None = None,
    episodes: int = 50,
    tasks: Sequence[str] = (),
    first: int = 0,
    resources: Resources | None = None,
    observers: Sequence[Observer] = (),
    policy: Policy | None = None,
) -> EvalResult:
    """Run every planned episode that is not on disk yet.

    Args:
        config: What decides the episodes.
        out: Run folder; by default results/runs/<policy>-<suites>-<hash>. An existing one of
            the same configuration is resumed.
        episodes, tasks, first: See `plan`.
        resources: Processes, folders.
        observers: Who watches.
        policy: A policy object to use in place of ``config.policy``.

    Raises:
        WamsimError: Anything that the caller can mend, before the first step where possible.
    """
    resources = resources or Resources()
    keys, chosen, versions = plan(config, resources, episodes=episodes, tasks=tasks, first=first)
    mapping = config.mapping(versions)
    out = out or default_out(config, mapping)
    named = policy is None
    policy = fitted(policy or registry.make_policy(config.policy), list(chosen.values()))
    for task in chosen.values():
        try:
            check_fit(policy, task)
        except (UnknownName, ConventionMismatch) as misfit:
            if not named:  # an object of the caller's own: no name stands for its like
                raise
            cameras = standard_cameras(task)
            raise for_another_suite(misfit, config.policy, policy.card, task, cameras) from misfit
    world_model = _world_model(config, policy.card, list(chosen.values()))
    options = RolloutOptions(run_seed=config.seed, batch=config.batch, imagine=config.imagine)
    views = look_plan(policy.card, options, world_model).views
    began = time.perf_counter()
    with Pool(
        config.suites,
        suite_options(config, resources),
        views=views,
        workers=min(resources.workers, len(keys)),
        slots=resources.slots,
        exact=config.exact,
        memory_bound=resources.memory_bound,
    ) as pool:
        weights = {
            name: found
            for name, model in (("policy", policy), ("world_model", world_model))
            if (found := provenance.weights_hash(model)) is not None
        }
        up: dict[str, Any] = pool.wait_until_up()
        origin = provenance.collect(extra=up | ({"weights": weights} if weights else {}))
        startup = time.perf_counter() - began
        with RunFolder.open(out, mapping, origin, planned=keys) as folder:
            finished, messages = folder.finished()
            for message in messages:
                for observer in observers:
                    observer.said(message)
            left = [key for key in keys if key not in finished]
            for observer in observers:
                observer.planned(len(keys), [finished[k] for k in keys if k in finished])
            rollout = Rollout(
                policy,
                pool,
                folder,
                options,
                observers,
                world_model,
            )
            rollout.accounts.startup = startup
            accounts = rollout.run(left, versions)
    return EvalResult(
        folder=out, accounts=accounts, resumed=len(keys) - len(left), messages=messages
    )


def _world_model(config: EvalConfig, card: PolicyCard, tasks: Sequence[Task]) -> WorldModel | None:
    """Build the world model that foresees beside a policy, and check that it fits."""
    if config.imagine_with is None:
        return None
    model = registry.make_world_model(config.imagine_with)
    for task in tasks:
        try:
            check_world_model(model, card, task)
        except (UnknownName, ConventionMismatch) as misfit:
            raise for_another_suite(
                misfit, config.imagine_with, model.card, task, standard_cameras(task),
                beside=config.policy.name,
            ) from misfit  # fmt: skip
    return model


def closed_loop(
    policy: Policy | WorldModel,
    choice: PolicyChoice,
    suites: tuple[str, ...],
    *,
    out: Path,
    episodes: int,
    resources: Resources,
) -> dict[str, float]:
    """Evaluate a policy in training, through the same rollout as everybody else's.

    Args:
        policy: With the weights of the moment.
        choice: Its name and options.
        suites: Where.
        out: Run folder.
        episodes: Trials per task, from the first on: never those of the demonstrations.
        resources: Processes, folders.

    Returns:
        "success" (rate over scored episodes), "episodes", "errors".

    Raises:
        WamsimError: It is a world model, which acts through others' hands.
    """
    if not isinstance(policy, Policy):
        raise WamsimError(
            f"{choice.name!r} is a world model and cannot be run by itself; leave out "
            f"--evaluate-every, and foresee with it: wamsim eval --imagine-with {choice.name}"
        )
    config = EvalConfig(policy=choice, suites=suites)
    evaluate(config, out=out, episodes=episodes, resources=resources, policy=policy)
    outcomes = [record.outcome for record in records(out)]
    won, errors = outcomes.count(Outcome.SUCCESS), outcomes.count(Outcome.ERROR)
    scored = len(outcomes) - errors
    found = {"episodes": float(len(outcomes)), "errors": float(errors)}
    return found | ({"success": won / scored} if scored else {})


def default_out(config: EvalConfig, mapping: Mapping[str, Any]) -> Path:
    """Name a run folder after what it holds: equal configurations share it, and so resume."""
    suites = "+".join(config.suites) if len(config.suites) <= 2 else f"{len(config.suites)}-suites"
    for group, members in registry.SUITE_GROUPS.items():
        if config.suites == members:
            suites = group
    name = config.policy.name.replace(":", ".")
    return Path("results") / "runs" / f"{name}-{suites}-{config_hash(mapping)[:8]}"
