"""The command line: parse, call, print. The one place that knows policies and simulators.

`main` turns a `WamsimError` into its sentence and exit code 2, and Ctrl-C into the table
of what is finished and exit code 130; anything else keeps its traceback.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

# Software and GPU machines without a display draw through EGL; read when mujoco is imported.
if sys.platform.startswith("linux"):
    os.environ.setdefault("MUJOCO_GL", "egl")
# Read when torch is imported. How a matrix product is cut into threads changes its rounding,
# so a policy's actions would depend on the number of cores; and simulation wants those cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from wamsim import registry
from wamsim.errors import RenderingUnavailable, WamsimError
from wamsim.folders import default_cache_dir

app = typer.Typer(
    name="wamsim",
    help="Evaluate world-action models: do they do the task, and did they see it coming?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Into a file or a pipe, tables keep the width that they need on a wide terminal.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)

Assets = Annotated[
    Path | None,
    typer.Option(
        "--libero-assets",
        envvar="WAMSIM_LIBERO_ASSETS",
        help="LIBERO's assets folder; by default where hf-libero keeps its download.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option("--cache", envvar="WAMSIM_CACHE", help="Where compiled scenes are kept."),
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
RunsArgument = Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN...")]
CountedArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        help="Run folders; or, of runs that are elsewhere, their summaries (results/summaries).",
    ),
]
SuiteSet = Annotated[
    list[str] | None,
    typer.Option("--suite-set", help="Option of the suite, key=value (`wamsim list options`)."),
]
Workers = Annotated[
    int, typer.Option("--workers", "-w", min=0, help="Simulation processes; 0: one per core.")
]


def _resources(cache: Path | None, assets: Path | None, workers: int = 1, slots: int = 2):
    _import_simulator()
    from envs.evaluation import Resources

    return Resources(
        workers=workers or os.cpu_count() or 1,
        slots=slots,
        cache_dir=cache or default_cache_dir(),
        libero_assets=assets,
    )


def _import_simulator() -> None:
    try:
        import mujoco  # noqa: F401
    except (AttributeError, ImportError, OSError) as error:
        # With MUJOCO_GL=egl and no libEGL the import itself fails, in PyOpenGL.
        raise RenderingUnavailable(
            f"mujoco cannot be imported with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} "
            f"({error}). Most likely OpenGL is missing: "
            f"`apt-get install libegl1 libgl1-mesa-dri libgles2`. `wamsim doctor` looks closer."
        ) from error


def _options(pairs: list[str], flag: str = "--set", example: str = "noise=0.1") -> dict[str, str]:
    out: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise WamsimError(
                f"{flag} {pair!r} is not of the form key=value, e.g. {flag} {example}"
            )
        out[key] = value
    return out


@app.command(name="eval")
def evaluate_command(
    policy: Annotated[str, typer.Option("--policy", "-p", help="family or family:variant")],
    suite: Annotated[
        str, typer.Option("--suite", "-s", help="Suites or groups, comma-separated.")
    ] = "tabletop",
    episodes: Annotated[int, typer.Option("--episodes", "-n", min=1, help="Trials per task.")] = 50,
    first: Annotated[
        int, typer.Option(min=0, help="First trial; demonstrations take others than evaluations.")
    ] = 0,
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="Only these tasks: name or number.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The run's seed.", show_default="0")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder.", show_default="results/runs/...")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Option of the policy, key=value.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Published LIBERO protocol (`wamsim list protocols`).")
    ] = None,
    reset_mode: Annotated[
        str, typer.Option(help="per_episode, or openvla: LIBERO's generator seeded once per task.")
    ] = "per_episode",
    wording: Annotated[int, typer.Option(min=0, help="0: own instruction, 1..: paraphrases.")] = 0,
    suite_set: SuiteSet = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="The genuine robosuite loop's solver passes.")
    ] = False,
    imagine: Annotated[
        bool,
        typer.Option(
            "--imagine",
            help="Imagine on request too; draw; a world model also foresees holding still.",
        ),
    ] = False,
    imagine_with: Annotated[
        str | None, typer.Option(help="A world model that foresees beside the policy.")
    ] = None,
    imagine_set: Annotated[
        list[str] | None, typer.Option("--imagine-set", help="Its options, key=value.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows per policy call; part of the run.")] = 1,
    workers: Workers = 0,
    slots: Annotated[int, typer.Option(min=1, help="Episodes in progress per worker.")] = 2,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with an existing run folder.")
    ] = True,
    cache: Cache = None,
    libero_assets: Assets = None,
) -> None:
    """Run a policy closed-loop; every finished episode is on disk at once."""
    from envs.evaluation import EvalConfig, default_out, evaluate, plan
    from policies.reference import with_reference
    from wamsim.leaderboard import success_table
    from wamsim.progress import RichProgress
    from wamsim.run_summary import load_run

    choice = with_reference(registry.choose_policy(policy, _options(set_ or [])))
    if seed is None:
        seed = _recorded_seed(choice)
    config = EvalConfig(
        policy=choice,
        suites=registry.expand_suites(suite),
        seed=seed,
        batch=batch,
        exact=exact,
        imagine=imagine,
        imagine_with=(
            with_reference(registry.choose_world_model(imagine_with, _options(imagine_set or [])))
            if imagine_with
            else None
        ),
        protocol=protocol,
        reset_mode=reset_mode,
        wording=wording,
        suite_set=_options(suite_set or [], "--suite-set", "layout=galley"),
    )
    resources = _resources(cache, libero_assets, workers, slots)
    _, _, versions = plan(config, resources, episodes=episodes, tasks=task or (), first=first)
    folder = out or default_out(config, config.mapping(versions))
    if not resume and (folder / "run.json").exists():
        raise WamsimError(
            f"{folder} holds a run already. Leave out --no-resume to go on with it, or choose "
            f"another --out."
        )
    try:
        with RichProgress(console, choice.name) as progress:
            result = evaluate(
                config,
                out=folder,
                episodes=episodes,
                tasks=task or (),
                first=first,
                resources=resources,
                observers=[progress],
            )
    except KeyboardInterrupt:
        console.print("\n[yellow]Interrupted; finished episodes are on disk.[/]")
        if (folder / "run.json").exists():
            console.print(success_table(load_run(folder)))
            console.print("Run the same command again to go on.")
        raise typer.Exit(130) from None
    console.print(success_table(load_run(folder)))
    _print_imagination(folder, "rich")
    accounts = result.accounts
    if accounts.steps:
        console.print(
            f"{accounts.episodes} episode{'' if accounts.episodes == 1 else 's'}, "
            f"{accounts.steps} env steps in {accounts.wall:.1f} s: "
            f"{accounts.steps / accounts.wall:.0f} steps/s, "
            f"{accounts.episodes / accounts.wall * 3600:.0f} episodes/h. "
            f"Policy {accounts.policy:.1f} s; stepping {accounts.stepping:.1f} s, drawing "
            f"{accounts.drawing:.1f} s over {resources.workers} worker"
            f"{'s' if resources.workers > 1 else ''}.",
            highlight=False,
        )
    console.print(f"Run folder: {escape(str(folder))}", highlight=False, soft_wrap=True)
    console.print(
        f"Watch it: wamsim video {escape(str(folder))} --episodes all",
        highlight=False,
        soft_wrap=True,
    )


def _recorded_seed(choice: registry.PolicyChoice) -> int:
    # A replay starts from what its recording started from, unless told otherwise.
    run = choice.options.get("run") if choice.family == "replay" else None
    if run is None:
        return 0
    from wamsim.run_folder import read_run

    return int(read_run(Path(run)).config.get("seed", 0))


LISTS = ("suites", "tasks", "options", "policies", "world-models", "protocols")


@app.command(name="train")
def train_command(
    policy: Annotated[
        str, typer.Option("--policy", "-p", help="family:variant, of policies or world models.")
    ],
    data: Annotated[
        list[Path],
        typer.Option("--data", "-d", help="Run folder, LIBERO HDF5 or LeRobotDataset; repeatable."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the training; an existing one goes on.")],
    preset: Annotated[str, typer.Option(help="Size of the model.")] = "tiny",
    part: Annotated[
        str, typer.Option(help="all, or a part that is trained beforehand: tokenizer, backbone.")
    ] = "all",
    tokenizer: Annotated[
        Path | None, typer.Option(help="Checkpoint to take the trained tokenizer from.")
    ] = None,
    backbone: Annotated[
        Path | None, typer.Option(help="Checkpoint to take the trained backbone from.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 10_000,
    batch: Annotated[int, typer.Option(min=1, help="Samples per step.")] = 64,
    accumulate: Annotated[int, typer.Option(min=1, help="Parts of a batch, to save memory.")] = 1,
    lr: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 1e-3,
    taken_lr: Annotated[
        float,
        typer.Option(min=0.0, help="Of what --backbone brought, as a share of --lr; 0 freezes it."),
    ] = 1.0,
    warmup: Annotated[int, typer.Option(min=0, help="Steps of linear warm-up.")] = 200,
    ema: Annotated[float, typer.Option(min=0.0, help="Decay of the averaged weights.")] = 0.999,
    seed: Annotated[int, typer.Option(help="Of order, noise and untrained weights.")] = 0,
    shift: Annotated[
        int, typer.Option(min=0, help="Pixels that pictures are moved by at random.")
    ] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; part of the result.")] = 1,
    validate_every: Annotated[
        int, typer.Option(min=0, help="Of each task every n-th episode validates; 0: none.")
    ] = 20,
    failures: Annotated[
        bool, typer.Option("--failures", help="Learn from failed episodes, too (world models).")
    ] = False,
    every: Annotated[
        int, typer.Option(min=1, help="A sample begins at every so-many env steps.")
    ] = 1,
    looks: Annotated[
        int,
        typer.Option(
            min=0,
            help="Pictures of the data's scenes, the arm anywhere, in which a backbone learns to "
            "point, or goes on pointing while actions are learnt; shared out among run folders.",
        ),
    ] = 0,
    own_pictures: Annotated[
        bool, typer.Option("--own-pictures", help="The data's own pictures, not drawn anew.")
    ] = False,
    lerobot: Annotated[
        list[str] | None,
        typer.Option(
            "--lerobot",
            help="What a LeRobotDataset's features mean, key=value: state, action, orientation, "
            "control_hz, camera.FEATURE. LIBERO's by default.",
        ),
    ] = None,
    evaluate_every: Annotated[
        int, typer.Option(min=0, help="Steps between closed-loop evaluations; 0: none.")
    ] = 0,
    evaluate_suite: Annotated[str, typer.Option(help="Where.")] = "tabletop_object",
    evaluate_episodes: Annotated[int, typer.Option(min=1, help="Trials per task.")] = 4,
    half: Annotated[
        bool, typer.Option("--half", help="Write the checkpoint in half precision.")
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Option of the policy, key=value.")
    ] = None,
    workers: Workers = 0,
    cache: Cache = None,
    libero_assets: Assets = None,
) -> None:
    """Train a policy or world model on demonstrations; a killed training goes on."""
    resources = _resources(cache, libero_assets, workers)
    from envs.demonstration_sources.lerobot_meta import LeRobotLayout
    from envs.demonstrations import Viewpoint, prepare
    from envs.evaluation import closed_loop
    from envs.looks import check_drawable, draw_looks
    from policies.training.config import TrainConfig
    from policies.training.job import Job, looks_spec_of, spec_of, train
    from policies.training.loop import Events
    from policies.training.progress import TrainingProgress
    from wamsim.demonstrations import open_set
    from wamsim.looks import open_looks

    features = _options(lerobot or [], "--lerobot", "control_hz=fps")
    layout = LeRobotLayout.from_options(features)
    defaults = {"preset": preset, "init_seed": str(seed), "device": device}
    choice, learner = registry.make_learner(policy, _options(set_ or []), defaults=defaults)
    try:
        config = TrainConfig(
            steps=steps, batch=batch, accumulate=accumulate, lr=lr, taken_lr=taken_lr,
            warmup=warmup, ema=ema, seed=seed, validate_every=validate_every, threads=threads,
            shift=shift,
        )  # fmt: skip
    except ValueError as error:
        raise WamsimError(str(error)) from error
    taken = {n: p for n, p in {"tokenizer": tokenizer, "backbone": backbone}.items() if p}
    spec = spec_of(learner, choice.name, [*taken, *([part] if part != "all" else [])])
    view = Viewpoint(cameras=spec.cameras, size=spec.image_size, depth=spec.depth)
    frames = resources.cache_dir / "frames"
    look_spec = None
    if looks:
        look_spec = looks_spec_of(learner, choice.name, part)
        check_drawable(data)
    with TrainingProgress(console, choice.name, config.steps) as progress:
        shown = [
            path
            for source in data
            for path in prepare(
                source, view, cache=frames, resources=resources, own_pictures=own_pictures,
                layout=layout,
                progress=progress.drawn, said=progress.said,
            )
        ]  # fmt: skip
        drawn = [
            draw_looks(
                source, view, -(-looks // len(data)), cache=resources.cache_dir / "looks",
                resources=resources, progress=progress.looks, said=progress.said,
            )
            for source in (data if looks else ())
        ]  # fmt: skip
        job = Job(
            name=choice.name,
            policy=learner,
            described=choice.described(),
            demonstrations=open_set(shown, only_successes=not failures, every=every),
            out=out,
            cache=resources.cache_dir / "features",
            config=config,
            part=part,
            taken=taken,
            half=half,
            looks=open_looks(
                drawn, look_spec.cameras, look_spec.proprio.name, depth=look_spec.depth
            ) if look_spec and look_spec.proprio else None,
        )  # fmt: skip

        def evaluate(step: int) -> dict[str, float]:
            return closed_loop(
                learner, choice, registry.expand_suites(evaluate_suite),
                out=out / "closed_loop" / f"{step:07d}", episodes=evaluate_episodes,
                resources=resources,
            )  # fmt: skip

        progress.about(job.demonstrations)
        events = Events(
            step=progress.step, evaluate_every=evaluate_every, evaluate=evaluate,
            features=progress.features,
        )  # fmt: skip
        try:
            checkpoint = train(job, events=events)
        except KeyboardInterrupt:
            progress.said("Interrupted; the state is on disk. Run the same command again to go on.")
            raise typer.Exit(130) from None
    console.print(f"Checkpoint: {escape(str(checkpoint))}", highlight=False, soft_wrap=True)
    console.print(
        f"Evaluate it: wamsim eval -p {policy} --set checkpoint={escape(str(checkpoint))}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


@app.command(name="results")
def results_command(
    runs: CountedArgument,
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("results"),
    latency: Annotated[
        Path | None, typer.Option(help="What `wamsim bench --policies --json` wrote.")
    ] = None,
    training: Annotated[
        list[Path] | None, typer.Option("--training", help="Checkpoint folder; repeatable.")
    ] = None,
    reproduce: Annotated[
        list[str] | None, typer.Option("--reproduce", help="A command to print; repeatable.")
    ] = None,
) -> None:
    """Write results/README.md and the summaries that it was made from."""
    from policies.training.job import read_about
    from wamsim.results_page import write_results

    tables = []
    if latency is not None:
        from policies.latency import Report
        from policies.latency import tables as latency_tables

        try:
            tables = latency_tables(Report.from_json(latency.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WamsimError(
                f"no latency report can be read ({error!r}). Write one with `wamsim bench "
                f"--policies --json FILE`. File: {latency}"
            ) from error
    page = write_results(
        runs,
        out,
        latency=tables,
        training=dict(read_about(folder) for folder in training or ()),
        reproduce=reproduce or (),
    )
    console.print(f"Page: {escape(str(page))}", highlight=False, soft_wrap=True)


@app.command(name="list")
def list_command(
    what: Annotated[str, typer.Argument(help=", ".join(LISTS))] = "suites",
    suite: Annotated[str, typer.Option("--suite", "-s", help="For tasks: which suites.")] = "",
    pictures: Annotated[
        Path | None, typer.Option(help="For tasks: draw a sheet of each suite into this folder.")
    ] = None,
    suite_set: SuiteSet = None,
    cache: Cache = None,
    libero_assets: Assets = None,
) -> None:
    """List suites, tasks, suites' options, policies, world models or protocols."""
    _import_simulator()
    from envs.scene import Choosable, SuiteOptions, pairs
    from wamsim.errors import nearest

    options = SuiteOptions(
        cache_dir=cache or default_cache_dir(),
        libero_assets=libero_assets,
        chosen=pairs(_options(suite_set or [], "--suite-set", "layout=galley")),
    )
    if what == "suites":
        table = Table("suite", "tasks", "step limit", "cameras", "reference", box=None)
        for name in registry.suite_names():
            found = registry.suite(name, options).suite
            limits = sorted({t.max_steps for t in found.tasks})
            table.add_row(
                found.id,
                str(len(found.tasks)),
                "-".join(str(n) for n in (limits[:1] + limits[-1:] if len(limits) > 1 else limits)),
                ", ".join(found.tasks[0].cameras[:2]),
                found.reference,
            )
        console.print(table)
        groups = ", ".join(f"{k} = {' '.join(v)}" for k, v in registry.SUITE_GROUPS.items())
        console.print(f"Groups: {groups}", highlight=False)
    elif what == "tasks" and pictures is not None:
        from envs.contact_sheet import draw_sheet

        with Progress(console=console, transient=True) as bar:
            for name in registry.expand_suites(suite) if suite else registry.suite_names():
                drawing = bar.add_task(name, total=None)
                path = draw_sheet(
                    name, options, pictures,
                    progress=lambda done, all_, bar_task=drawing: bar.update(
                        bar_task, completed=done, total=all_
                    ),
                )  # fmt: skip
                console.print(f"Pictures: {escape(str(path))}", highlight=False, soft_wrap=True)
    elif what == "tasks":
        table = Table("suite", "#", "name", "instruction", "goal", box=None)
        for name in registry.expand_suites(suite) if suite else registry.suite_names():
            for task in registry.suite(name, options).suite.tasks:
                table.add_row(name, str(task.index), task.name, task.instruction, task.goal)
        console.print(table)
    elif what == "options":
        table = Table("suite", "option", "values", box=None)
        for name in registry.expand_suites(suite) if suite else registry.suite_names():
            backend = registry.suite(name, options)
            choices = backend.choices if isinstance(backend, Choosable) else {}
            for option, values in choices.items():
                table.add_row(name, option, ", ".join(values))
        console.print(table)
        console.print("Choose with --suite-set OPTION=VALUE; without, the suite's own protocol.")
    elif what == "policies":
        table = Table("policy", "variants", "what it is", box=None)
        for name in registry.policy_names():
            family = registry.family(name)
            table.add_row(name, ", ".join(family.variants) or "-", family.summary)
        console.print(table)
    elif what == "world-models":
        table = Table("world model", "variants", "what it is", box=None)
        for name in registry.world_model_names():
            world = registry.world_model_family(name)
            table.add_row(name, ", ".join(world.variants) or "-", world.summary)
        console.print(table)
    elif what == "protocols":
        from envs.libero.protocols import PROTOCOLS

        table = Table("protocol", "wait", "step limits", "trials", "execute", "source", box=None)
        for name, p in PROTOCOLS.items():
            limits = ", ".join(f"{s.removeprefix('libero_')} {n}" for s, n in p.step_limits.items())
            table.add_row(
                name, str(p.wait_steps), limits, str(p.trials), str(p.execute or "-"), p.source
            )
        console.print(table)
    else:
        raise nearest(what, LISTS, kind="list")


@app.command(name="video")
def video_command(
    run: RunArgument,
    episodes: Annotated[
        str, typer.Option("--episodes", "-n", help="failures, all, or a number per task.")
    ] = "failures",
    size: Annotated[int, typer.Option(min=64, help="Height and width of each camera.")] = 256,
    out: Annotated[Path | None, typer.Option(help="Folder.", show_default="RUN/videos")] = None,
    workers: Workers = 0,
    cache: Cache = None,
    libero_assets: Assets = None,
) -> None:
    """Draw mp4s from recorded states, all cameras side by side."""
    from envs.replay import make_videos

    resources = _resources(cache, libero_assets, workers)
    with Progress(console=console, transient=True) as bar:
        drawing = bar.add_task("drawing", total=None)
        paths = make_videos(
            run,
            episodes=episodes if episodes in ("failures", "all") else _count(episodes),
            size=(size, size),
            out=out,
            resources=resources,
            progress=lambda done, total, path: bar.update(drawing, completed=done, total=total),
            said=lambda sentence: console.print(escape(sentence), style="yellow"),
        )
    if not paths:
        console.print(f"No episode to draw (--episodes {episodes}).")
        return
    for path in paths[:SHOWN]:
        console.print(escape(str(path)), highlight=False, soft_wrap=True)
    if len(paths) > SHOWN:
        console.print(f"... and {len(paths) - SHOWN} more")
    console.print(
        f"{len(paths)} videos in {escape(str(out or run / 'videos'))}",
        highlight=False,
        soft_wrap=True,
    )


@app.command(name="view")
def view_command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN ...]", help="Run folders, or folders of them; by default --results."
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8765,
    results: Annotated[Path, typer.Option(help="Where runs are looked for.")] = Path("results"),
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine can look then.")
    ] = "127.0.0.1",
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
    cache: Cache = None,
    libero_assets: Assets = None,
) -> None:
    """Look at runs in the browser: rollouts, imagination, leaderboard; a running one updates."""
    resources = _resources(cache, libero_assets)
    from envs.illustrating import SceneIllustrator
    from wamsim.viewer.serve import check_runs, serve

    if runs:
        check_runs(runs)
    serve(
        runs or [results],
        SceneIllustrator(resources),
        cache=resources.cache_dir / "viewer",
        host=host,
        port=port,
        open_page=open_page,
        said=lambda text: console.print(escape(text), highlight=False, soft_wrap=True),
    )


@app.command(name="report")
def report_command(
    runs: RunsArgument,
    out: Annotated[Path, typer.Option(help="Folder of the page.")],
    episodes: Annotated[
        str,
        typer.Option(
            "--episodes", "-n", help="Shown with videos: failures, all, or a number per task."
        ),
    ] = "failures",
    workers: Workers = 0,
    cache: Cache = None,
    libero_assets: Assets = None,
) -> None:
    """Write the page of `wamsim view` as a folder that opens from disk or any web host."""
    resources = _resources(cache, libero_assets, workers)
    from envs.illustrating import SceneIllustrator
    from envs.processes import spread
    from wamsim.viewer.report import write_report

    with Progress(console=console, transient=True) as bar:
        drawing = bar.add_task("drawing", total=None)
        page = write_report(
            runs,
            out,
            SceneIllustrator(resources),
            cache=resources.cache_dir / "viewer",
            spread=partial(spread, processes=resources.workers),
            episodes=episodes if episodes in ("failures", "all") else _count(episodes),
            progress=lambda done, total: bar.update(drawing, completed=done, total=total),
            said=lambda sentence: console.print(escape(sentence), style="yellow"),
        )
    console.print(f"Page: {escape(str(page))}", highlight=False, soft_wrap=True)


SHOWN = 5  # videos that are listed by name


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise WamsimError(f"--episodes {text!r} must be failures, all, or a number of at least 1")
    return int(text)


FORMATS = ("rich", "markdown", "csv", "json", "latex")


def _print(table: object, form: str) -> None:
    from wamsim import tables
    from wamsim.errors import nearest

    writers = {
        "markdown": tables.to_markdown,
        "csv": tables.to_csv,
        "json": tables.to_json,
        "latex": tables.to_latex,
    }
    if form == "rich":
        console.print(table)
    elif form in writers:
        print(writers[form](table))  # type: ignore[arg-type]
    else:
        raise nearest(form, FORMATS, kind="format")


Format = Annotated[str, typer.Option("--format", "-f", help=", ".join(FORMATS))]


@app.command(name="leaderboard")
def leaderboard_command(
    runs: CountedArgument,
    suite: Annotated[
        str, typer.Option("--suite", "-s", help="Only these suites; runs without are left out.")
    ] = "",
    form: Format = "rich",
) -> None:
    """Compare runs: policies by suites, with intervals, errors beside every rate."""
    from wamsim.leaderboard import leaderboard_table
    from wamsim.run_document import load_all
    from wamsim.run_summary import of_suites

    found = load_all(runs, imagination=True)
    if suite:
        found = of_suites(found, registry.expand_suites(suite))
    _print(leaderboard_table(found), form)


@app.command(name="show")
def show_command(run: RunArgument, form: Format = "rich") -> None:
    """Show one run: every task's rate with its interval, and how well it foresaw."""
    from wamsim.leaderboard import success_table
    from wamsim.run_summary import load_run

    _print(success_table(load_run(run)), form)
    if form not in ("csv", "json"):  # one table a file; `wamsim imagination` writes the other
        _print_imagination(run, form)


def _print_imagination(run: Path, form: str) -> None:
    from wamsim.imagination.episodes import read_imagination
    from wamsim.imagination.latents import NotFinite
    from wamsim.imagination.report import imagination_tables
    from wamsim.imagination.summary import summarise_run

    try:
        tables = imagination_tables(summarise_run(read_imagination(run)))
    except NotFinite as error:  # success rates stand all the same
        Console(stderr=True).print(
            f"Imagination is not measured: {escape(str(error))}", style="yellow", highlight=False
        )
        return
    for table in tables:
        _print(table, form)


@app.command(name="imagination")
def imagination_command(
    run: RunArgument,
    by: Annotated[
        str, typer.Option("--by", help="policy, suite, task or episode; json has all.")
    ] = "policy",
    form: Format = "rich",
) -> None:
    """Show how well a run foresaw: skill, retrieval, pictures, and whether it knew."""
    from wamsim.errors import nearest
    from wamsim.imagination import document, report
    from wamsim.imagination.episodes import read_imagination
    from wamsim.imagination.summary import BY, summarise_run
    from wamsim.run_folder import read_run

    if by not in BY:
        raise nearest(by, BY, kind="grouping (--by)")
    read_run(run)  # refuses what is no run folder
    found = summarise_run(read_imagination(run), BY if form == "json" else (by,))
    if form == "json":
        print(document.to_json(found), end="")
    elif form == "csv":
        _print(report.flat_table(found, by), form)
    else:
        tables = report.imagination_tables(found, by)
        for table in tables:
            _print(table, form)
        if not tables:
            console.print(
                "Nothing was imagined in this run. Choose a policy that imagines (with --imagine, "
                "where it does so on request), or a world model with --imagine-with."
            )


@app.command(name="compare")
def compare_command(
    first: Annotated[Path, typer.Argument(metavar="A", help="A run folder, or a summary.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    form: Format = "rich",
) -> None:
    """Compare two runs on the episodes that both have: success and, if foreseen, imagination."""
    from wamsim.imagination.episodes import read_imagination
    from wamsim.imagination.pairing import skill_table
    from wamsim.leaderboard import comparison_table
    from wamsim.run_document import load_either, parted

    _print(comparison_table(load_either(first), load_either(second)), form)
    if parted((first, second))[1]:
        return  # a summary holds no episode's imagination, so there are no pairs of it
    skills = skill_table(read_imagination(first), read_imagination(second))
    if skills is not None:
        _print(skills, form)


@app.command(name="merge")
def merge_command(
    sources: RunsArgument,
    out: Annotated[Path, typer.Option(help="Run folder to merge into.")],
) -> None:
    """Merge runs of one configuration (shards of a cluster job) by copying their files."""
    from wamsim.merge import merge

    console.print(f"{merge(sources, out)} episodes in {escape(str(out))}", highlight=False)


@app.command(name="doctor")
def doctor_command(cache: Cache = None, libero_assets: Assets = None) -> None:
    """Check this machine: OpenGL, versions, assets, GPU, cache; say what to do."""
    from envs.doctor import Setup, checks

    setup = Setup(cache_dir=cache or default_cache_dir(), libero_assets=libero_assets)
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table("", "check", "found", "what to do", box=None)
    worst = "ok"
    for check in checks(setup):
        table.add_row(
            f"[{colours[check.status]}]{check.status}[/]",
            check.name,
            escape(check.found),
            escape(check.advice),
        )
        worst = max(worst, check.status, key=list(colours).index)
    console.print(table)
    raise typer.Exit(1 if worst == "fail" else 0)


@app.command(name="bench")
def bench_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAMES", help="With --policies: which, comma-separated; all by default."
        ),
    ] = None,
    policies: Annotated[
        bool, typer.Option("--policies", help="Measure the latency of the model families instead.")
    ] = False,
    sizes: Annotated[
        str, typer.Option(help="With --policies: tiny, published (GPU), or auto: what runs here.")
    ] = "auto",
    batches: Annotated[
        str, typer.Option(help="With --policies: rows per query.", show_default="1; GPU 1,16")
    ] = "",
    how: Annotated[
        str,
        typer.Option(
            help="With --policies: eager, graphs, compile.", show_default="eager; GPU eager,graphs"
        ),
    ] = "",
    repeats: Annotated[
        int, typer.Option(min=1, help="With --policies: timed calls per row, at most.")
    ] = 20,
    json_: Annotated[
        Path | None, typer.Option("--json", help="With --policies: also write rows here.")
    ] = None,
    suite: Annotated[str, typer.Option("--suite", "-s")] = "libero_spatial",
    task: Annotated[int, typer.Option("--task", "-t", help="Task number.")] = 0,
    steps: Annotated[int, typer.Option(min=16, help="Env steps per measurement.")] = 160,
    workers: Annotated[int, typer.Option(min=1, help="Also measure this many workers.")] = 2,
    part: Annotated[
        list[str] | None, typer.Option("--part", help="physics, loop or workers; all by default.")
    ] = None,
    cache: Cache = None,
    libero_assets: Assets = None,
) -> None:
    """Measure the genuine LIBERO loop and wamsim side by side, in one run; print ratios.

    With --policies: how long one query of each model family takes.
    """
    if policies:
        _bench_policies(names or [], sizes, batches, how, repeats, json_)
        return
    if names:
        raise WamsimError(
            f"{' '.join(names)}: names belong to `wamsim bench --policies`; without it the "
            f"simulator is measured, with --suite and --task"
        )
    resources = _resources(cache, libero_assets)
    from envs.bench import PARTS, bench

    bench(
        suite=suite,
        task=task,
        steps=steps,
        workers=workers,
        resources=resources,
        console=console,
        parts=part or PARTS,
    )


def _bench_policies(
    names: list[str], sizes: str, batches: str, how: str, repeats: int, out: Path | None
) -> None:
    from policies.latency import Report, Settings, bench, chosen, machine, parse_batches, tables
    from policies.latency import to_json as write

    def parts(text: str) -> list[str]:
        return [part.strip() for part in text.split(",") if part.strip()]

    choices = chosen([name for text in names for name in parts(text)])
    settings = Settings(
        sizes=sizes, batches=parse_batches(batches), hows=tuple(parts(how)), repeats=repeats
    )
    report, code = Report(machine=machine()), 0
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=None)
        try:
            for row in bench(choices, settings, report):
                bar.update(task, description=f"measured {row.name}, {row.preset}")
        except KeyboardInterrupt:
            report.notes.append("Interrupted: models and rows are missing.")
            code = 130
    for table in tables(report):
        console.print(table)
    for note in report.notes:
        console.print(escape(note), style="yellow", highlight=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(write(report))
        console.print(f"Rows: {escape(str(out))}", highlight=False, soft_wrap=True)
    if code or report.failures:
        raise typer.Exit(code or 1)


def main() -> None:
    """Entry point of the console script."""
    try:
        app(standalone_mode=True)
    except WamsimError as error:
        # not wrapped by us: a sentence may hold a line to paste
        Console(stderr=True).print(
            f"[bold red]wamsim:[/] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
