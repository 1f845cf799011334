"""Flow-HWM's sampler: Euler, guidance, what is kept between queries, the official defects."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from flow_hwm_doubles import latents_and_context, small, stirred
from torch import Tensor

from policies.flow_hwm.config import VARIANTS, preset_config
from policies.flow_hwm.network import FlowNetwork
from policies.flow_hwm.sampler import Sampler, euler

STEPS = 4


def network_of(variant: str) -> FlowNetwork:
    return stirred(FlowNetwork(small(variant))).eval()


def test_euler_reaches_the_data_on_straight_paths() -> None:
    data, noise = torch.tensor([3.0, -1.0]), torch.tensor([0.5, 0.25])
    # the velocity of x_t = (1 - t) noise + t data, read off x_t itself
    out = euler(lambda x, i: (data - x) / (1 - i / 50), noise, 50)
    torch.testing.assert_close(out, data)


def test_euler_by_hand() -> None:
    # dx/dt = x, two steps of 1/2: 1 -> 1.5 -> 2.25
    assert euler(lambda x, i: x, torch.tensor(1.0), 2).item() == 2.25
    # official: the network is shown the initial noise, so 1 + 2 * 1/2
    assert euler(lambda x, i: x, torch.tensor(1.0), 2, frozen=True).item() == 2.0


@pytest.mark.parametrize("defect", [False, True])
def test_every_step_is_shown_the_updated_latents(
    defect: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of("base")
    noise, context = latents_and_context(network.config, rows=1)
    seen: list[Tensor] = []
    inner = network.velocity

    def spy(x: Tensor, *rest: Any) -> Tensor:
        seen.append(x[:1])
        return inner(x, *rest)

    monkeypatch.setattr(network, "velocity", spy)
    parity = ("sampler",) if defect else ()
    Sampler(network, steps=STEPS, guidance=3.0, parity=parity).sample(noise, context)
    assert torch.equal(seen[0], noise)
    assert [torch.equal(x, noise) for x in seen[1:]] == [defect] * (STEPS - 1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_guidance_and_times(variant: str, guidance: float) -> None:
    network = network_of(variant)
    noise, context = latents_and_context(network.config, rows=2)
    found = Sampler(network, steps=STEPS, guidance=guidance).sample(noise, context)
    x = noise
    with torch.no_grad():
        for i in range(STEPS):
            t = torch.full((2,), i / STEPS)
            given, empty = network(x, t, context), network(x, t, context.emptied())
            x = x + (empty + guidance * (given - empty)) / STEPS
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


def test_context_drop_defect_leaves_only_the_first_step_its_context() -> None:
    network = network_of("base")
    noise, context = latents_and_context(network.config, rows=1)
    found = Sampler(network, steps=STEPS, guidance=3.0, parity=("context_drop",)).sample(
        noise, context
    )
    x = noise
    with torch.no_grad():
        for i in range(STEPS):
            t = torch.full((1,), i / STEPS)
            empty = network(x, t, context.emptied())
            given = network(x, t, context) if i == 0 else empty
            x = x + (empty + 3.0 * (given - empty)) / STEPS
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_equals_uncached(variant: str) -> None:
    network = network_of(variant)
    cached, uncached = (
        Sampler(network, steps=STEPS, guidance=3.0, cache=cache) for cache in (True, False)
    )
    for seed in (0, 1):  # the second query finds the tables made
        noise, context = latents_and_context(network.config, rows=3, seed=seed)
        torch.testing.assert_close(
            cached.sample(noise, context), uncached.sample(noise, context), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("variant", ["base", "split_attention"])
def test_the_cache_notices_new_weights(variant: str) -> None:
    network = network_of(variant)
    noise, context = latents_and_context(network.config, rows=1)
    sampler = Sampler(network, steps=STEPS, guidance=3.0)
    before = sampler.sample(noise, context)
    stirred(network, seed=1)
    fresh = Sampler(network, steps=STEPS, guidance=3.0).sample(noise, context)
    assert not torch.allclose(before, fresh)
    assert torch.equal(sampler.sample(noise, context), fresh)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_speed_of_the_cache(variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    config = preset_config(variant, "tiny", width=192, heads=4, layers=6)
    network = stirred(FlowNetwork(config)).eval()
    noise, context = latents_and_context(config, rows=1)
    seconds: dict[bool, float] = {}
    for cache in (True, False):
        sampler = Sampler(network, steps=10, guidance=3.0, cache=cache)
        sampler.sample(noise, context)  # makes the tables
        taken: list[float] = []
        for _ in range(5):
            start = time.process_time()
            sampler.sample(noise, context)
            taken.append(time.process_time() - start)
        seconds[cache] = min(taken)
    with capsys.disabled():
        print(
            f"\n{variant}: uncached {seconds[False]:.3f} s, cached {seconds[True]:.3f} s, "
            f"{seconds[False] / seconds[True]:.2f} times as fast"
        )
    assert seconds[True] < 1.1 * seconds[False]
