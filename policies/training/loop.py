"""The one training loop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from policies.batch import Batch, check_finite
from policies.training.config import TrainConfig
from policies.training.log import TrainingLog
from policies.training.sampling import Sampler
from policies.training.state import STATE, load_state, save_state

VALIDATION_BATCHES = 8  # the same ones, with the same noise, at every check
FREE_OF_DECAY = 1  # parameters of so few axes (biases, norms, gates) are not decayed


class Learner(Protocol):
    """What is stepped: a model, or a part of one."""

    def parameters(self) -> Any:
        """What the optimizer may step."""
        ...

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Every term by name, and "total"."""
        ...


class Stateful(Protocol):
    """A learner with tensors of its own, outside the model (a teacher's, say).

    What of them is learnt, too (a predictor that is dropped afterwards), it names in
    ``beside() -> {name: module}``.
    """

    def extra(self) -> Mapping[str, Tensor]:
        """What a killed training must find again."""
        ...

    def load_extra(self, tensors: Mapping[str, Tensor]) -> None:
        """Take it up."""
        ...


@dataclass(frozen=True, kw_only=True)
class Events:
    """Who is told what, and how often (in optimizer steps; 0 is never).

    Attributes:
        step: Called after every step with (step, losses as numbers, learning rate).
        features: Called with (done, all) while frozen features are computed.
        log_every, save_every, validate_every, evaluate_every: Steps between.
        evaluate: Called with the step while the model holds its averaged weights; gives
            numbers to log.
    """

    step: Callable[[int, Mapping[str, float], float], None] = lambda step, losses, lr: None
    features: Callable[[int, int], None] = lambda done, total: None
    log_every: int = 50
    save_every: int = 500
    validate_every: int = 500
    evaluate_every: int = 0
    evaluate: Callable[[int], dict[str, float]] | None = None


@dataclass
class Trainer:
    """Steps a learner.

    Attributes:
        model: All weights that are saved; the learner is it or lies inside it.
        learner: What is trained.
        config: How.
        folder: Where state, log and checkpoint go.
        train: Samples to learn from.
        validation: Samples to check on, or None.
        config_hash: Of everything that decides the result.
        taken: Beginnings of the names of parameters that another training made.
        events: Who is told.
    """

    model: nn.Module
    learner: Learner
    config: TrainConfig
    folder: Path
    train: Sampler
    validation: Sampler | None = None
    config_hash: str = ""
    taken: tuple[str, ...] = ()
    events: Events = field(default_factory=Events)

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        chosen = {id(p) for p in self.learner.parameters() if p.requires_grad}
        every = [*self.model.named_parameters(), *_beside(self.learner)]
        named = [(n, p) for n, p in every if id(p) in chosen]
        config = self.config
        self.names: list[str] = []
        self.parameters: list[nn.Parameter] = []
        groups: list[dict[str, Any]] = []
        for decays in (True, False):
            for taken in (False, True):
                group = [
                    (n, p) for n, p in named
                    if (p.ndim > FREE_OF_DECAY) == decays and n.startswith(self.taken) == taken
                ]  # fmt: skip
                self.names += [n for n, _ in group]
                self.parameters += [p for _, p in group]
                groups.append(
                    {
                        "params": [p for _, p in group],
                        "weight_decay": config.weight_decay if decays else 0.0,
                        "share": config.taken_lr if taken else 1.0,
                    }
                )
        # one pass over all weights: a fifth of the time of a loop over them
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
        self.average = {
            n: p.detach().clone() for n, p in zip(self.names, self.parameters, strict=True)
        }
        self.step = 0
        self._whole = True  # weights, moments and averages are of one and the same step

    @property
    def state_path(self) -> Path:
        """Where the state lies."""
        return self.folder / STATE

    def resume(self) -> bool:
        """Take up what a killed run left; False when there is nothing.

        Raises:
            ConfigurationMismatch, CheckpointMismatch: See `load_state`.
        """
        if not self.state_path.exists():
            return False
        self.step, extra = load_state(
            self.state_path, model=self.model, average=self.average, optimizer=self.optimizer,
            names=self.names, config_hash=self.config_hash,
        )  # fmt: skip
        if extra:
            cast(Stateful, self.learner).load_extra(extra)
        return True

    def save(self) -> None:
        """Write the state."""
        extra: Callable[[], Mapping[str, Tensor]] = getattr(self.learner, "extra", dict)
        save_state(
            self.state_path, model=self.model, average=self.average, optimizer=self.optimizer,
            names=self.names, step=self.step, config_hash=self.config_hash, extra=extra(),
        )  # fmt: skip

    def run(self) -> None:
        """Train to the configured number of steps; saves on the way and on Ctrl-C.

        Interrupted within an update it saves nothing: what is saved is always whole.

        Raises:
            FloatingPointError: A loss term is not finite; the weights are those before it.
        """
        events, config = self.events, self.config
        with contextlib.closing(TrainingLog(self.folder, from_step=self.step)) as log:
            try:
                while self.step < config.steps:
                    began = time.perf_counter()
                    losses, lr, norm = self._one_step()
                    events.step(self.step, losses, lr)
                    last = self.step == config.steps
                    if self.step % events.log_every == 0 or last or self.step == 1:
                        seconds = time.perf_counter() - began
                        more = {"lr": lr, "grad_norm": norm, "step_s": seconds}
                        log.write(self.step, "train", {**losses, **more})
                    if _due(self.step, events.validate_every, last) and self.validation:
                        log.write(self.step, "validation", self.validate())
                    if events.evaluate and _due(self.step, events.evaluate_every, False):
                        with self.averaged():
                            log.write(self.step, "closed_loop", events.evaluate(self.step))
                    if _due(self.step, events.save_every, last):
                        self.save()
            except KeyboardInterrupt:
                if self._whole:
                    self.save()
                raise

    def _one_step(self) -> tuple[dict[str, float], float, float]:
        config, step = self.config, self.step
        # whatever draws from torch's own generator (dropout) is a function of the step, too
        torch.manual_seed((config.seed << 32) + step)
        lr = config.lr_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["share"]
        batch = self.train.batch(step)
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for piece in _pieces(batch, config.accumulate):
            with self._products():
                with self._precision():
                    losses = self.learner.loss(piece)
                check_finite(losses)
                (losses["total"] / config.accumulate).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / config.accumulate
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, config.clip))
        check_finite({"gradient norm": torch.tensor(norm)})
        self._whole = False
        self.optimizer.step()
        getattr(self.learner, "after_step", lambda: None)()
        decay = config.ema_at(step) if config.ema else 0.0
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                self.average[name].lerp_(parameter.detach(), 1.0 - decay)
        self.step += 1
        self._whole = True
        return sums, lr, norm

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.bf16 and self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _products(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.bf16 and self.device.type == "cpu":
            return _quick_products()
        return contextlib.nullcontext()

    def validate(self) -> dict[str, float]:
        """Mean losses of the averaged weights over fixed samples with fixed noise."""
        assert self.validation is not None
        found: list[dict[str, Tensor]] = []
        with self.averaged(), torch.no_grad(), self._products(), self._precision():
            for number in range(VALIDATION_BATCHES):
                found.append(self.learner.loss(self.validation.batch(number)))
        return {
            name: float(np.mean([float(one[name]) for one in found if name in one]))
            for name in found[0]
        }

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in place for a while."""
        kept = [p.detach().clone() for p in self.parameters]
        training = self.model.training
        self._put([self.average[n] for n in self.names])
        self.model.eval()
        try:
            yield
        finally:
            self._put(kept)
            self.model.train(training)

    def _put(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)


@contextlib.contextmanager
def _quick_products() -> Iterator[None]:
    """Compute a CPU's matrix products by oneDNN where it has AVX-512, else as always.

    torch takes MKL, which on AMD's processors uses half the width of their vectors; it asks
    oneDNN where products may be rounded to bfloat16, which those do that have instructions for
    whole such products (DECISIONS 70). Fused attention makes many small products, for which
    asking costs more than it brings.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _beside(learner: Learner) -> list[tuple[str, nn.Parameter]]:
    """What a learner steps outside the model; its values are kept by its own ``extra``."""
    modules: Mapping[str, nn.Module] = getattr(learner, "beside", dict)()
    return [(f"{m}/{n}", p) for m, module in modules.items() for n, p in module.named_parameters()]


def _due(step: int, every: int, last: bool) -> bool:
    return last or (every > 0 and step % every == 0)


def _pieces(batch: Batch, count: int) -> list[Batch]:
    """Cut a batch into equal parts."""
    if count == 1:
        return [batch]
    size = batch.size // count
    return [batch.rows(slice(i * size, (i + 1) * size)) for i in range(count)]
