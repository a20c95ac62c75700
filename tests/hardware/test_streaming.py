"""Streaming accelerators: cycles of units, folding to a throughput, block memories."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from signbit.hardware.presets import PresetError
from signbit.hardware.streaming import (
    FoldingError,
    StreamingFabric,
    block_memories,
    cycles,
    divisors,
    estimate,
    fold,
)
from signbit.hardware.workload import Product, Work, Workload

BINARY = Product(9, 64, 128, 196, weight_bits=1, input_bits=1)
BYTES = Product(9, 3, 64, 12544, weight_bits=8, input_bits=8)


@pytest.fixture(scope="module")
def fabric() -> StreamingFabric:
    return StreamingFabric.load("finn")


def walk(product: Product, pe: int, simd: int) -> int:
    """A unit's loops, counted."""
    steps = 0
    for _ in range(product.groups * product.pixels):
        for _ in range(0, product.outputs, pe):
            for _ in range(0, product.depth, simd):
                steps += 1
    return steps


@pytest.mark.parametrize(("pe", "simd"), [(1, 1), (2, 3), (6, 12), (3, 4)])
def test_cycles_are_those_of_the_loops(pe: int, simd: int) -> None:
    product = Product(4, 3, 6, 5, groups=2)
    assert cycles(product, pe, simd) == walk(product, pe, simd)


def test_foldings_must_divide() -> None:
    with pytest.raises(FoldingError, match="PE of 5 does not divide 6; these do: 1, 2, 3, 6"):
        cycles(Product(4, 3, 6, 5), 5, 1)
    with pytest.raises(FoldingError, match="SIMD of 0 does not divide 12"):
        cycles(Product(4, 3, 6, 5), 1, 0)


def test_divisors() -> None:
    for number in (1, 2, 12, 36, 97, 4608):
        assert divisors(number) == [n for n in range(1, number + 1) if number % n == 0]


@pytest.mark.parametrize("product", [BINARY, BYTES, Product(1, 7, 11, 30, groups=3)])
@pytest.mark.parametrize("target", [200, 5000, 100_000, 10**9])
def test_folding_meets_its_target_and_no_more(product: Product, target: int) -> None:
    pe, simd = fold(product, target, 36)
    found = cycles(product, pe, simd)
    assert simd * product.weight_bits <= 36 or simd == 1
    if found > target:  # all that may be used is used
        assert pe == product.outputs
        assert simd == max(n for n in divisors(product.depth) if n * product.weight_bits <= 36)
    elif pe > 1:  # the next smaller unit would be too slow
        smaller = [n for n in divisors(product.outputs) if n < pe][-1]
        assert cycles(product, smaller, simd) > target
    elif simd > 1:
        smaller = [n for n in divisors(product.depth) if n < simd][-1]
        assert cycles(product, 1, smaller) > target


@pytest.mark.parametrize(
    ("width", "words", "blocks"),
    [
        (1, 16384, 1), (1, 16385, 2), (2, 8193, 2), (4, 4096, 1), (9, 2049, 2), (18, 1024, 1),
        (36, 512, 1), (36, 513, 2), (72, 512, 2), (72, 1025, 8),
    ],
)  # fmt: skip
def test_block_memories(width: int, words: int, blocks: int) -> None:
    """The cases of FINN-R's estimate, by hand: words of so many bits in blocks of 18 Kbit."""
    product = Product(1, words, width, 1, weight_bits=1)
    assert block_memories(product, width, 1) == blocks


def network() -> Workload:
    works = [
        Work("stem", "conv", BYTES, {"add": 7}, 13824, 0, 0),
        Work("conv", "conv", BINARY, {}, 73728, 0, 0),
        Work("pool", "pool", None, {"compare": 300_000}, 0, 0, 0),
        Work("move", "channels", None, {}, 0, 5, 5),
    ]
    return Workload("net", tuple(works), 0)


def test_a_balanced_pipeline(fabric: StreamingFabric) -> None:
    found = estimate(network(), fabric, 1000)
    assert [unit.name for unit in found.units] == ["stem", "conv", "pool"]
    assert found.meets_target
    assert found.interval == max(unit.cycles for unit in found.units) <= 200_000
    assert found.frames_per_second == 2e8 / found.interval >= 1000
    assert found.latency == pytest.approx(sum(unit.cycles for unit in found.units) / 2e8)
    assert found.units[2].pe == 2  # 300,000 comparisons in 200,000 cycles
    assert found.weight_bits == 13824 + 73728
    assert found.fits
    assert not replace(found, fabric=replace(fabric, block_memories=1)).fits
    assert json.loads(json.dumps(found.to_dict()))["units"][1]["layer"] == "conv"


def test_a_bottleneck_relaxes_the_others(fabric: StreamingFabric) -> None:
    found = estimate(network(), fabric, 100_000)
    assert not found.meets_target
    # 27 terms of 8 bits: 3 at once fit 36 bits, and all 64 outputs
    assert found.interval == 12544 * 9
    assert found.units[0].pe == 64
    at_ease = estimate(network(), fabric, 2e8 / found.interval)
    assert at_ease.units == found.units


def test_the_target_of_the_preset(fabric: StreamingFabric) -> None:
    assert estimate(network(), fabric) == estimate(network(), fabric, fabric.target_frames)


@pytest.mark.parametrize("frames", [0, -1, math.inf, 3e8])
def test_bad_throughputs(fabric: StreamingFabric, frames: float) -> None:
    with pytest.raises(FoldingError, match="images a second: give a number above 0"):
        estimate(network(), fabric, frames)


def test_nothing_to_compute(fabric: StreamingFabric) -> None:
    with pytest.raises(FoldingError, match="empty has no layer that computes"):
        estimate(Workload("empty", (), 0), fabric)


def test_a_fabric_of_size_0(fabric: StreamingFabric) -> None:
    with pytest.raises(PresetError, match="block_memories must be at least 1"):
        replace(fabric, block_memories=0)
