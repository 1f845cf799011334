"""From noise to future latents: Euler steps with classifier-free guidance.

Source: paper arXiv:2506.01182; humanoid_world_model, Flow-HWM/samplers.py and
Flow-HWM/schedulers/flow_matching.py, whose defects are off unless named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from policies.flow_hwm.network import Context, FlowNetwork, KeysValues, Modulations

Velocity = Callable[[Tensor, int], Tensor]


def euler(velocity: Velocity, noise: Tensor, steps: int, *, frozen: bool = False) -> Tensor:
    """Integrate dx/dt = velocity from t = 0 (noise) to t = 1 (data).

    Args:
        velocity: (x, i) to the velocity at time i / steps.
        noise: x at t = 0.
        steps: Number of steps, each 1 / steps long.
        frozen: Official `Sampler.sample_video`: the latents move, but the network is shown
            the initial noise at every step.
    """
    x = noise
    for i in range(steps):
        x = x + velocity(noise if frozen else x, i) / steps
    return x


class Sampler:
    """Samples futures with one network.

    What depends on weights and times alone is kept between queries when `cache` is set: the
    modulations of every step, and with split attention also the keys and values of the
    empty context. That is exact: the very same tensors, computed once. Changed weights are
    noticed and the tables made anew.

    In the joint variants a context's keys and values cannot be kept: context tokens attend
    to the future, which moves at every step.

    Args:
        network: Which.
        steps: Euler steps.
        guidance: u_empty + guidance (u_given - u_empty); 1 skips the empty pass.
        cache: Keep the tables.
        parity: Names out of `options.SAMPLER_PARITY`.
    """

    def __init__(
        self,
        network: FlowNetwork,
        *,
        steps: int,
        guidance: float,
        cache: bool = True,
        parity: Sequence[str] = (),
    ) -> None:
        self.network = network
        self.steps = steps
        self.guidance = guidance
        self.parity = frozenset(parity)
        self._cache = cache
        self._made_for: tuple[tuple[int, int], ...] | None = None
        self._modulations: dict[int, Modulations] = {}
        self._empty: dict[int, list[KeysValues]] = {}

    @torch.no_grad()
    def sample(self, noise: Tensor, context: Context) -> Tensor:
        """Imagine.

        Args:
            noise: [B, C, T, y, x], standard normal.
            context: Of B rows.

        Returns:
            Future latents [B, C, T, y, x].
        """
        self._refresh()
        given = self.network.embed_context(context)
        empty = self.network.embed_context(context.emptied())

        def velocity(x: Tensor, i: int) -> Tensor:
            # official: the empty pass overwrites the batch, so only step 0 sees a context
            first = empty if "context_drop" in self.parity and i > 0 else given
            return self._guided(x, i, first, empty)

        return euler(velocity, noise, self.steps, frozen="sampler" in self.parity)

    def _guided(self, x: Tensor, i: int, given: list[Tensor], empty: list[Tensor]) -> Tensor:
        network, mods = self.network, self._modulation(i, len(x))
        if self.guidance == 1.0:
            return network.velocity(x, given, mods)
        both = torch.cat([x, x])
        if not self._cache:
            mods = self._modulation(i, len(both))
        if network.splits and self._cache:
            pairs = zip(
                network.context_kv(given, mods), self._empty_kv(i, empty, mods), strict=True
            )
            kvs = [
                (_below(given_k, empty_k), _below(given_v, empty_v))
                for (given_k, given_v), (empty_k, empty_v) in pairs
            ]
            out = network.velocity_beside(both, kvs, mods)
        else:
            tokens = [torch.cat(pair) for pair in zip(given, empty, strict=True)]
            out = network.velocity(both, tokens, mods)
        u_given, u_empty = out.chunk(2)
        return u_empty + self.guidance * (u_given - u_empty)

    def _modulation(self, i: int, rows: int) -> Modulations:
        device = next(self.network.parameters()).device
        if not self._cache:
            return self.network.modulations(torch.full((rows,), i / self.steps, device=device))
        if i not in self._modulations:
            t = torch.full((1,), i / self.steps, device=device)
            self._modulations[i] = self.network.modulations(t)
        return self._modulations[i]

    def _empty_kv(self, i: int, empty: list[Tensor], mods: Modulations) -> list[KeysValues]:
        if i not in self._empty:
            self._empty[i] = self.network.context_kv([x[:1] for x in empty], mods)
        return self._empty[i]

    def _refresh(self) -> None:
        # an optimiser's step and a load both raise a parameter's version counter
        now = tuple((p.data_ptr(), p._version) for p in self.network.parameters())
        if now != self._made_for:
            self._made_for = now
            self._modulations, self._empty = {}, {}


def _below(given: Tensor, empty: Tensor) -> Tensor:
    """Put one row of the empty context under every row of the given one, [2 B, ...]."""
    return torch.cat([given, empty.expand_as(given)])
