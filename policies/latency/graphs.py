"""CUDA graphs around a function of tensors: launch a thousand kernels as one.

At batch 1 a denoising step of a published model is bound by the time that Python and the
driver take to launch its kernels, not by the GPU. A captured graph is launched once.

Source: https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # calls on a side stream before a capture, as the source recommends


class TensorPlace:
    """Stands in a structure where a tensor was."""


_PLACE = TensorPlace()


def flatten(value: Any) -> tuple[list[Tensor], Any]:
    """Part nested lists, tuples, dicts and dataclasses into tensors and the rest.

    Returns:
        The tensors in order, and the structure with `TensorPlace` where they were.
    """
    if isinstance(value, Tensor):
        return [value], _PLACE
    if isinstance(value, list | tuple):
        parts = [flatten(v) for v in value]
        shell = type(value)(p[1] for p in parts)
        return [t for p in parts for t in p[0]], shell
    if isinstance(value, dict):
        parts = [flatten(v) for v in value.values()]
        return [t for p in parts for t in p[0]], {
            k: p[1] for k, p in zip(value, parts, strict=True)
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        parts = [flatten(getattr(value, n)) for n in names]
        shell = dict(zip(names, (p[1] for p in parts), strict=True))
        return [t for p in parts for t in p[0]], (_Made(type(value)), shell)
    return [], value


def unflatten(shell: Any, tensors: Sequence[Tensor]) -> Any:
    """Undo `flatten`."""
    rest = iter(tensors)

    def build(part: Any) -> Any:
        if part is _PLACE:
            return next(rest)
        if isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], _Made):
            return part[0].kind(**{k: build(v) for k, v in part[1].items()})
        if isinstance(part, list | tuple):
            return type(part)(build(v) for v in part)
        if isinstance(part, dict):
            return {k: build(v) for k, v in part.items()}
        return part

    return build(shell)


@dataclasses.dataclass(frozen=True)
class _Made:
    kind: type[Any]


def _hashable(shell: Any) -> Hashable:
    if isinstance(shell, list | tuple):
        return (type(shell), *(_hashable(v) for v in shell))
    if isinstance(shell, dict):
        return tuple((k, _hashable(v)) for k, v in shell.items())
    return shell


@dataclasses.dataclass
class _Captured:
    """One shape of call: the buffers it reads and writes, and what runs it."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    shell: Any  # of the result
    replay: Callable[[], None]
    seen: list[tuple[Tensor, int | None]]  # last given tensors, held so that none is mistaken


class StepGraph:
    """A function whose every shape of call is captured once and replayed after that.

    The function must be pure and may neither wait for the device nor copy from the host.
    Arguments that are the very tensors of the call before are not copied again. On a CPU
    nothing is captured, but calls go through the same buffers.

    Args:
        function: Takes and gives nested tensors; other arguments are constants and part of
            what tells one capture from another.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._known: dict[Hashable, _Captured] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, or replay it."""
        tensors, shell = flatten((list(args), kwargs))
        shapes = tuple((t.shape, t.dtype, t.device) for t in tensors)
        key = (_hashable(shell), shapes)
        if key not in self._known:
            self._known[key] = self._capture(tensors, shell)
        found = self._known[key]
        self._fill(found, tensors)
        found.replay()
        fresh = [torch.empty_like(t) for t in found.outputs]
        _copy(fresh, found.outputs)
        return unflatten(found.shell, fresh)

    @staticmethod
    def _fill(found: _Captured, tensors: list[Tensor]) -> None:
        """Copy into the buffers what may have changed since the call before."""
        now = [(t, None if t.is_inference() else t._version) for t in tensors]
        moved = [
            i
            for i, ((t, version), (old, before)) in enumerate(zip(now, found.seen, strict=True))
            if t is not old or version is None or version != before
        ]
        _copy([found.inputs[i] for i in moved], [tensors[i] for i in moved])
        found.seen = now

    def _capture(self, tensors: list[Tensor], shell: Any) -> _Captured:
        inputs = [t.clone() for t in tensors]
        unseen: list[tuple[Tensor, int | None]] = [(t, None) for t in inputs]

        def call() -> tuple[list[Tensor], Any]:
            args, kwargs = unflatten(shell, inputs)
            return flatten(self.function(*args, **kwargs))

        if not any(t.is_cuda for t in inputs):
            outputs, made = call()
            found = _Captured(inputs, [t.clone() for t in outputs], made, lambda: None, unseen)
            found.replay = lambda: _copy(found.outputs, call()[0])
            return found
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs, made = call()
        return _Captured(inputs, outputs, made, graph.replay, unseen)


def _copy(into: list[Tensor], source: list[Tensor]) -> None:
    # one launch for many small tensors of a kind, instead of one each
    groups: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], list[Tensor]]] = {}
    for new, old in zip(into, source, strict=True):
        both = groups.setdefault((old.dtype, old.device), ([], []))
        both[0].append(new)
        both[1].append(old)
    for news, olds in groups.values():
        torch._foreach_copy_(news, olds)  # pyright: ignore[reportPrivateImportUsage]
