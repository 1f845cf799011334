"""Time one model's queries: every batch, way of running and kind of question."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from policies.latency import build
from policies.latency.families import Built, Spot
from policies.latency.graphs import StepGraph
from policies.latency.inputs import observation, world_question
from policies.latency.rows import Row, median_parts, spread

HOWS = ("eager", "graphs", "compile")
COMPILE_MODE = "max-autotune-no-cudagraphs"  # the graphs are ours
WARM_UP = 2  # calls before any is timed; the first also captures and compiles

Answer = tuple[NDArray[Any], Mapping[str, float]]


def measure(
    built: Built,
    *,
    batches: Sequence[int],
    hows: Sequence[str],
    repeats: int,
    row_s: float,
    said: Callable[[str], None] = lambda sentence: None,
) -> Iterator[Row]:
    """Measure a model, row by row.

    Without caches it is measured at the first batch size alone. The questions of one batch
    size are asked in turns.

    Args:
        built: The model.
        batches: Rows per query.
        hows: Out of `HOWS`; on a CPU only "eager" makes sense, the others run all the same.
        repeats: Timed calls per row, at most.
        row_s: Seconds that one row's timed calls should take at most; two calls warm up
            and one is timed however long they take.
        said: Told what did not fit into the GPU's memory; the rest is measured.

    Raises:
        ValueError: The model's card asks for what cannot be made up.
    """
    subjects = {True: built.make(True)}
    references: dict[int, NDArray[Any]] = {}
    for how in hows:
        with _running(built, how):
            for batch in batches:
                asked = list(_questions(built, subjects[True], first=batch == batches[0]))
                try:
                    calls = _calls(built, subjects, asked, batch)
                    timed = rounds(calls, built.device, repeats=repeats, row_s=row_s)
                except torch.OutOfMemoryError:
                    said(f"{built.name}, {batch} rows, {how}: out of GPU memory; no figures.")
                    continue
                for (imagine, cached), (fields, answer) in zip(asked, timed, strict=True):
                    plain = how == hows[0] and cached and not imagine
                    reference = references.setdefault(batch, answer)
                    yield Row(
                        **fields,
                        name=built.name,
                        kind=built.kind,
                        preset=built.preset,
                        parameters=None if built.model is None else build.count(built.model),
                        device=str(built.device),
                        dtype=str(built.dtype).removeprefix("torch."),
                        batch=batch,
                        how=how,
                        imagine=imagine,
                        cached=cached,
                        difference=None if plain else difference(reference, answer),
                        note=built.note,
                    )


def _calls(
    built: Built, subjects: dict[bool, Any], asked: Sequence[tuple[bool, bool]], batch: int
) -> list[Callable[[], Answer]]:
    """Make the calls of one batch size; each subject is built once."""
    calls: list[Callable[[], Answer]] = []
    for imagine, cached in asked:
        if cached not in subjects:
            subjects[cached] = built.make(cached)
        one = subjects[cached]
        # another observation goes first: an answer that a graph or a cache kept from it
        # would differ from the first row's
        question(one, built.kind, batch, imagine=imagine, seed=1)()
        calls.append(question(one, built.kind, batch, imagine=imagine))
    return calls


def question(
    subject: Any, kind: str, batch: int, *, imagine: bool = False, seed: int = 0
) -> Callable[[], Answer]:
    """Give a call of the policy or world model on a synthetic observation.

    Returns:
        A function without arguments; it gives the answer (actions [B, H, A], or imagined
        latents) and the parts of the latency, seconds, where the model reports them.
    """
    if kind == "policy":
        obs = observation(subject.card, batch, imagine=imagine, seed=seed)

        def act() -> Answer:
            found = subject.act(obs)
            return found.actions, found.timings

        return act
    asked = world_question(subject.card, batch, seed=seed)

    def foresee() -> Answer:
        found = subject.imagine(
            asked.past_frames, asked.past_actions, asked.future_actions, asked.seed
        )
        return found.latents, {}

    return foresee


def difference(reference: NDArray[Any], answer: NDArray[Any]) -> float | None:
    """Largest absolute difference; None where either holds a number that is not finite."""
    apart = np.abs(np.asarray(reference, np.float64) - np.asarray(answer, np.float64))
    return float(apart.max()) if np.isfinite(apart).all() else None


def _questions(built: Built, subject: Any, *, first: bool) -> Iterator[tuple[bool, bool]]:
    """Give (imagine, cached) of every row of one batch size."""
    yield False, True
    if built.kind == "policy":
        spec = subject.card.imagines
        # asked for, it costs a future (on_request) or drawing one (decodes)
        if spec is not None and (spec.on_request or spec.decodes):
            yield True, True
    if built.caches and first:
        yield False, False


@contextlib.contextmanager
def _running(built: Built, how: str) -> Iterator[None]:
    """Put compiled functions and graphs in their places, and take them away again."""
    places: list[tuple[Spot, Callable[[Any], Any]]] = []
    if how == "compile":
        places += [(spot, _compiled) for spot in built.compiled]
    if how in ("compile", "graphs"):
        places += [(spot, StepGraph) for spot in built.steps]
    undo: list[tuple[Any, str, bool, Any]] = []
    try:
        for (owner, name), wrap in places:
            before = getattr(owner, name)
            undo.append((owner, name, name in vars(owner), before))
            setattr(owner, name, wrap(before))
        yield
    finally:
        for owner, name, own, before in reversed(undo):
            if own:
                setattr(owner, name, before)
            else:
                delattr(owner, name)
        if how == "compile":
            torch.compiler.reset()


def _compiled(function: Any) -> Any:
    return torch.compile(function, mode=COMPILE_MODE, dynamic=False)


def rounds(
    calls: Sequence[Callable[[], Answer]], device: torch.device, *, repeats: int, row_s: float
) -> list[tuple[dict[str, Any], NDArray[Any]]]:
    """Time calls in turns, so that a noisy machine slows all of them alike.

    Args:
        calls: What to time; each is warmed up first.
        device: To be waited for.
        repeats: Calls of each, at most.
        row_s: Seconds for the calls of each, about; one call is made in any case.

    Returns:
        For each call the measured fields of `Row`, and its last answer.
    """
    last_s = sum([_timed(call, device).seconds for call in calls for _ in range(WARM_UP)])
    count = max(1, min(repeats, int(row_s * WARM_UP * len(calls) / max(last_s, 1e-9))))
    done = [[_timed(call, device) for call in calls] for _ in range(count)]
    out: list[tuple[dict[str, Any], NDArray[Any]]] = []
    for one in zip(*done, strict=True):
        events = [t.device_ms for t in one if t.device_ms is not None]
        peaks = [t.peak_gib for t in one if t.peak_gib is not None]
        fields = {
            "latency": spread([t.seconds for t in one]),
            "parts_ms": median_parts([t.answer[1] for t in one]),
            "device_ms": float(np.median(events)) if events else None,
            "peak_gib": max(peaks) if peaks else None,
        }
        out.append((fields, np.array(one[-1].answer[0])))
    return out


@dataclass(frozen=True)
class _Timed:
    """One call: its answer, wall seconds, and on a GPU the time between events and memory."""

    answer: Answer
    seconds: float
    device_ms: float | None = None
    peak_gib: float | None = None


def _timed(call: Callable[[], Answer], device: torch.device) -> _Timed:
    if device.type != "cuda":
        began = time.perf_counter()
        answer = call()
        return _Timed(answer, time.perf_counter() - began)
    torch.cuda.reset_peak_memory_stats(device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    first.record()
    answer = call()
    last.record()
    torch.cuda.synchronize(device)
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated(device) / build.GIB
    return _Timed(answer, seconds, first.elapsed_time(last), peak)
