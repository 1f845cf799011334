"""Large models with random weights, made where they will run.

A model is built with its large parameters on the meta device, where they take no memory;
then each is drawn on its device in its final precision. Nothing ever exists in float32 on
the CPU, and what a constructor computes (rotary tables, statistics) keeps its values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Weights are not all: activations, kept keys and values, CUDA's own context.
OVERHEAD, OVERHEAD_GIB = 1.15, 4.0
GIB = 2.0**30

M = TypeVar("M", bound=nn.Module)


class _Hollow(TorchFunctionMode):
    """Sends `torch.empty`, and nothing else, to the meta device.

    torch's layers allocate their parameters with it; tables and buffers come from `arange`,
    `ones` and so on, and keep their values.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def hollow(make: Callable[[], M]) -> M:
    """Build a module whose large parameters have shapes, but no memory."""
    with torch.random.fork_rng(devices=[]), _Hollow():
        torch.manual_seed(0)
        return make()


def count(model: nn.Module) -> int:
    """Count parameters, each once, hollow or not."""
    return sum(p.numel() for p in model.parameters())


def needed_gib(model: nn.Module, dtype: torch.dtype) -> float:
    """Estimate the memory that a model takes on a GPU, in GiB."""
    return count(model) * dtype.itemsize * OVERHEAD / GIB + OVERHEAD_GIB


def fill(model: nn.Module, device: torch.device, dtype: torch.dtype, *, seed: int) -> None:
    """Draw the parameters of a hollow module on a device; move the rest there.

    Weights are normal with deviation inputs^-1/2, so that signals keep their size and a
    wrong answer shows; vectors are ones where they are called weight and else zeros;
    parameters that have values keep them. Buffers keep their precision. A function of the
    seed and the kind of device.

    Args:
        model: From `hollow`; changed in place. Gradients are switched off.
        device: Where to.
        dtype: Of all floating parameters.
        seed: Of the draw.
    """
    generator = torch.Generator(device).manual_seed(seed)
    made: dict[int, nn.Parameter] = {}  # by identity: tied parameters stay tied
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            if id(old) not in made:
                values = _values(name, old, device, dtype, generator)
                made[id(old)] = nn.Parameter(values, requires_grad=False)
            module.register_parameter(name, made[id(old)])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))


def _values(
    name: str, old: Tensor, device: torch.device, dtype: torch.dtype, generator: torch.Generator
) -> Tensor:
    if old.device.type != "meta":
        return old.detach().to(device, dtype)
    new = torch.empty(old.shape, device=device, dtype=dtype)
    if old.ndim < 2:
        return new.fill_(1.0 if name.endswith("weight") else 0.0)
    inputs = math.prod(old.shape[1:])
    return new.normal_(0.0, inputs**-0.5, generator=generator)
