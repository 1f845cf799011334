"""Who moves when one token changes; and that keeping keys and values changes nothing."""

from __future__ import annotations

import time

import pytest
import torch
from spatialvla_doubles import config, model, observation

from policies.spatialvla.config import DEEP, LATE_GEMMA, LATE_LLAMA, VARIANTS, Mask, Sharing
from policies.spatialvla.inputs import from_observation
from policies.spatialvla.masks import CACHEABLE, Role, attention_mask, positions
from policies.spatialvla.model import SpatialVLA, untrained
from policies.spatialvla.transformer import Stack, run_layers

P, S, T, A = Role.PREFIX, Role.STATE, Role.TIME, Role.ACTION
LATE_ORDER, DEEP_ORDER = (P, P, P, T, A, A), (P, P, P, S, A, A, T)

# For each changed token (rows): which tokens move (1). Written by hand from the text:
# causal: all behind. prefix_block: context <-> context, time -> context and time, actions ->
# all. pi0: prefix <-> prefix, state -> prefix, {actions, time} -> all. full: everything.
LATE_TABLE = {
    Mask.CAUSAL: ("111111", "011111", "001111", "000111", "000011", "000001"),
    Mask.PREFIX_BLOCK: ("111111", "111111", "111111", "000111", "000011", "000011"),
    Mask.PI0: ("111111", "111111", "111111", "000111", "000111", "000111"),
    Mask.FULL: ("111111",) * 6,
}
DEEP_TABLE = {
    # the time token stands last, so under `causal` no action knows the time
    Mask.CAUSAL: ("1111111", "0111111", "0011111", "0001111", "0000111", "0000011", "0000001"),
    Mask.PREFIX_BLOCK: (
        "1111111", "1111111", "1111111", "0001111", "0000110", "0000110", "0000111",
    ),
    Mask.PI0: ("1111111", "1111111", "1111111", "0001111", "0000111", "0000111", "0000111"),
    Mask.FULL: ("1111111",) * 7,
}  # fmt: skip
CASES = [
    (variant, order, kind, table[kind])
    for variant, order, table in (
        (LATE_GEMMA, LATE_ORDER, LATE_TABLE),
        (LATE_LLAMA, LATE_ORDER, LATE_TABLE),
        (DEEP, DEEP_ORDER, DEEP_TABLE),
    )
    for kind in Mask
]


@pytest.mark.parametrize(("variant", "order", "kind", "table"), CASES)
def test_change_one_token_and_look_who_moves(
    variant: str, order: tuple[Role, ...], kind: Mask, table: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    stack = Stack(config(variant).expert)
    for parameter in stack.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    valid = torch.ones(1, len(order), dtype=torch.bool)
    mask, places = attention_mask(kind, order, valid), positions(valid)
    x = torch.randn(1, len(order), stack.config.width)
    before = stack.run(x, mask, places)[0]
    for changed, expected in enumerate(table):
        other = x.clone()
        other[0, changed] += 1.0
        moved = (stack.run(other, mask, places)[0] != before).any(-1)[0]
        assert "".join(str(int(m)) for m in moved) == expected, changed


def test_nobody_sees_padding() -> None:
    valid = torch.tensor([[True, False, True, True, True, True]])
    for kind in Mask:
        mask = attention_mask(kind, LATE_ORDER, valid)[0, 0]
        assert mask[:, 1].tolist() == [False, True, False, False, False, False]
        assert mask.any(1).all()
    assert positions(valid).tolist() == [[0, 0, 1, 2, 3, 4]]


def _actions(made: SpatialVLA, *, cache: bool, rows: int = 2, steps: int = 3) -> torch.Tensor:
    obs = observation(rows)
    inputs = from_observation(obs, made.config, made.tokenizer, made.device)
    noise = torch.randn(rows, 8, 7, generator=torch.Generator().manual_seed(1))
    return made.sample(inputs, noise, steps=steps, cache=cache)


@pytest.mark.parametrize("kind", sorted(CACHEABLE, key=lambda m: m.value))
@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_is_uncached(variant: str, kind: Mask) -> None:
    made = model(variant, mask=kind)
    cached, uncached = _actions(made, cache=True), _actions(made, cache=False)
    torch.testing.assert_close(cached, uncached, rtol=0, atol=2e-5)


def test_shared_layers_cached_is_uncached() -> None:
    made = model(DEEP, sharing=Sharing.SHARED)
    cached, uncached = _actions(made, cache=True), _actions(made, cache=False)
    torch.testing.assert_close(cached, uncached, rtol=0, atol=2e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_full_keeps_nothing(variant: str) -> None:
    made = model(variant, mask=Mask.FULL)
    inputs = from_observation(observation(1), made.config, made.tokenizer, made.device)
    assert made.prefix(inputs, cache=True).kept is None
    torch.testing.assert_close(_actions(made, cache=True), _actions(made, cache=False))


@pytest.mark.parametrize(("kind", "depends"), [(Mask.PI0, False), (Mask.FULL, True)])
def test_deep_fusion_prefix_under_pi0_and_full(kind: Mask, depends: bool) -> None:
    """FAMILIES.md G.4 item 7."""
    made = model(DEEP, mask=kind)
    expert = made.expert
    roles = [P] * 5 + made.suffix_roles()
    valid = torch.ones(1, len(roles), dtype=torch.bool)
    mask, places = attention_mask(kind, roles, valid), positions(valid)
    prefix = torch.randn(1, 5, made.config.language.width)

    def prefix_states(suffix: torch.Tensor) -> torch.Tensor:
        streams = [(made.language.layers, prefix), (expert.layers(made.language), suffix)]
        return run_layers(streams, made.config.language, mask, places)[0][0]

    suffix = torch.randn(1, len(roles) - 5, made.config.expert.width)
    same = torch.equal(prefix_states(suffix), prefix_states(suffix + 1.0))
    assert same is not depends


def test_deep_causal_actions_do_not_know_the_time() -> None:
    for kind, blind in ((Mask.CAUSAL, True), (Mask.PI0, False), (Mask.PREFIX_BLOCK, False)):
        made = model(DEEP, mask=kind)
        inputs = from_observation(observation(1), made.config, made.tokenizer, made.device)
        prefix = made.prefix(inputs, cache=True)
        x = torch.randn(1, 8, 7)
        early, late = (made.velocity(x, torch.tensor([t]), prefix) for t in (0.1, 0.9))
        assert torch.equal(early, late) is blind


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_speed_up_of_the_cache(variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = untrained(config(variant), 0).eval()
    seconds: dict[bool, float] = {}
    for cache in (True, False, True, False):
        runs: list[float] = []
        for _ in range(5):
            began = time.perf_counter()
            _actions(made, cache=cache, rows=4, steps=10)
            runs.append(time.perf_counter() - began)
        seconds[cache] = min(runs)
    ratio = seconds[False] / seconds[True]
    with capsys.disabled():
        print(
            f"\n{variant}: 10 steps, 4 rows: uncached {seconds[False] * 1e3:.1f} ms, "
            f"cached {seconds[True] * 1e3:.1f} ms, {ratio:.2f}x"
        )
    assert ratio > 1.2
