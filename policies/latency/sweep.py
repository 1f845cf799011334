"""Which models are measured, at which sizes, one after another."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from policies.latency import build, families
from policies.latency.measure import HOWS, measure
from policies.latency.rows import Report, Row
from wamsim import registry
from wamsim.errors import WamsimError, nearest
from wamsim.registry import PolicyChoice

SIZES = ("auto", "tiny", "published")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Attributes:
        sizes: "tiny"; "published" (a CUDA device); "auto": tiny on the CPU, and published
            ones too where there is a CUDA device.
        batches: Rows per query; empty: 1 on a CPU, 1 and 16 on a GPU.
        hows: Out of eager, graphs, compile; empty: eager on a CPU, eager and graphs on a GPU.
        repeats: Timed calls per row, at most.
        row_s: Seconds that one row's timed calls may take.
        dtype: Of published sizes.
        cpu_threads: Of torch while models run on the CPU. One by default: tiny models gain
            nothing from more, and on a shared machine lose much.
    """

    sizes: str = "auto"
    batches: tuple[int, ...] = ()
    hows: tuple[str, ...] = ()
    repeats: int = 20
    row_s: float = 10.0
    dtype: torch.dtype = torch.bfloat16
    cpu_threads: int = 1

    def __post_init__(self) -> None:
        if self.sizes not in SIZES:
            raise nearest(self.sizes, SIZES, kind="size")
        for how in self.hows:
            if how not in HOWS:
                raise nearest(how, HOWS, kind="way of running")
        if self.repeats < 1 or any(b < 1 for b in self.batches):
            raise WamsimError("repeats and batches must be at least 1")
        if self.sizes == "published" and not torch.cuda.is_available():
            raise WamsimError(
                "published sizes have thousands of millions of weights and are measured on a "
                "CUDA device; this machine has none that torch can use. Take --sizes tiny, or "
                "look at `wamsim doctor`."
            )


def chosen(names: Sequence[str]) -> list[PolicyChoice]:
    """Resolve names of policies and world models; none: every variant of every model family.

    Raises:
        UnknownName: With the nearest known name.
        WamsimError: A policy that cannot be measured by itself.
    """
    if not names:
        out: list[PolicyChoice] = []
        for name in registry.policy_names():
            family = registry.family(name)
            if family.trained:
                out += [registry.choose_policy(f"{name}:{v}") for v in family.variants]
        for name in registry.world_model_names():
            variants = registry.world_model_family(name).variants
            out += [registry.choose_world_model(f"{name}:{v}") for v in variants]
        return out
    policies, worlds = registry.policy_names(), registry.world_model_names()
    out = []
    for text in names:
        name = text.partition(":")[0]
        if name in worlds:
            choice = registry.choose_world_model(text)
        elif name in policies:
            if not registry.family(name).trained:
                raise WamsimError(
                    f"policy {name!r} is scripted and has no network whose latency could be "
                    f"measured. Name model families; `wamsim list policies` shows all."
                )
            choice = registry.choose_policy(text)
        else:
            raise nearest(
                name, [*policies, *worlds], kind="policy", hint="`wamsim list policies` shows all."
            )
        if choice.name not in [c.name for c in out]:
            out.append(choice)
    return out


def parse_batches(text: str) -> tuple[int, ...]:
    """Read "1,16" as batch sizes; an empty text leaves them to the device.

    Raises:
        WamsimError: Not whole numbers.
    """
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise WamsimError(f"--batches {text!r} must be whole numbers, e.g. 1,16") from None


def machine() -> dict[str, str]:
    """Say what the figures were measured on."""
    facts = {
        "cpu": f"{_cpu_name()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts["gpu"] = f"{properties.name}, {properties.total_memory / build.GIB:.0f} GiB"
        facts["cuda"] = str(torch.version.cuda)
    return facts


def bench(choices: Sequence[PolicyChoice], settings: Settings, report: Report) -> Iterator[Row]:
    """Measure models one after another, each freed before the next is built.

    Rows are added to the report and given as they come, so that whoever stops early has what
    was done so far. A model that breaks is noted with its traceback and the others go on.

    Args:
        choices: From `chosen`.
        settings: How.
        report: Where rows, notes and failures go.
    """
    report.machine["cpu_threads"] = str(settings.cpu_threads)
    plans: list[tuple[str, str]] = []
    if settings.sizes in ("auto", "tiny"):
        plans.append(("tiny", "cpu"))
    if settings.sizes in ("auto", "published") and torch.cuda.is_available():
        plans.append(("published", "cuda:0"))
    elif settings.sizes == "auto":
        report.notes.append("No CUDA device: published sizes were not measured.")
    for preset, device in plans:
        for choice in choices:
            try:
                with _threads(settings.cpu_threads if device == "cpu" else None):
                    yield from _measured(choice, preset, device, settings, report)
            except torch.OutOfMemoryError as error:
                text = str(error).partition(". ")[0]
                report.notes.append(f"{choice.name}, {preset}: out of GPU memory ({text}).")
            except Exception as error:
                # hours on a rented machine must not be lost to one family
                what = f"{type(error).__name__}: {error}".splitlines()[0]
                report.notes.append(f"{choice.name}, {preset}: broke with {what}")
                report.failures[f"{choice.name}, {preset}"] = traceback.format_exc()
            gc.collect()
            if device != "cpu":
                torch.cuda.empty_cache()


def _measured(
    choice: PolicyChoice, preset: str, device: str, settings: Settings, report: Report
) -> Iterator[Row]:
    built = _build(choice, preset, device, settings, report)
    if built is None:
        return
    cuda = device != "cpu"
    rows = measure(
        built,
        batches=settings.batches or ((1, 16) if cuda else (1,)),
        hows=settings.hows or (("eager", "graphs") if cuda else ("eager",)),
        repeats=settings.repeats,
        row_s=settings.row_s,
        said=report.notes.append,
    )
    for row in rows:
        report.rows.append(row)
        yield row


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _build(
    choice: PolicyChoice, preset: str, device: str, settings: Settings, report: Report
) -> families.Built | None:
    if preset == "tiny":
        return families.registered(choice, device=device)
    found = families.hollow(choice, preset)
    if found is None:
        report.notes.append(f"{choice.name}: no published size is known to this bench.")
        return None
    needed = build.needed_gib(found.model, settings.dtype)
    free = torch.cuda.mem_get_info(torch.device(device))[0] / build.GIB
    if needed > free:
        report.notes.append(
            f"{choice.name}: its published size needs about {needed:.0f} GiB, {device} has "
            f"{free:.0f} GiB free; not measured."
        )
        return None
    return families.drawn(choice, found, device=device, dtype=settings.dtype)


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
