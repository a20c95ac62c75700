"""Sweeps: each design as if it were alone, many of them fast."""

from __future__ import annotations

import time

import pytest

from signbit.hardware.presets import PresetError
from signbit.hardware.sweep import designs, sweep
from signbit.hardware.systolic import DATAFLOWS, CapacityError, SystolicArray, estimate
from signbit.hardware.workload import Product, Work, Workload


def network(layers: int) -> Workload:
    works = []
    for i in range(layers):
        binary = i % 3 > 0
        product = Product(
            9, 64 + 8 * i, 64 + 4 * i, 3136 >> (i // 15), 1 + i % 2,
            weight_bits=1 if binary else 8, input_bits=1 if binary else 8,
        )  # fmt: skip
        bits = product.macs // product.pixels, product.inputs * product.pixels, 1000
        elementwise = {"add": 1000 * i, "compare": 500}
        works.append(Work(f"layer{i}", "conv", product, elementwise, *bits))
        works.append(Work(f"pool{i}", "pool", None, {"compare": 777}, 0, 900, 300))
    return Workload("net", tuple(works), 0)


@pytest.fixture(scope="module")
def base() -> SystolicArray:
    return SystolicArray.load("eyeriss")


def test_every_design_as_if_alone(base: SystolicArray) -> None:
    workload = network(7)
    arrays = designs(
        base, size=[8, 24], binary_lanes=[1, 12], dataflow=DATAFLOWS, folds=["full", "trimmed"],
        streaming=["whole", "tiled"], dram_bandwidth=[20.0, float("inf")],
    )  # fmt: skip
    points = sweep(workload, arrays)
    assert [point.array for point in points] == arrays
    assert {point.unfit is None for point in points} == {True, False}
    for point in points:
        if point.unfit is not None:
            assert point.cycles is None
            with pytest.raises(CapacityError) as found:
                estimate(workload, point.array)
            assert str(found.value) == point.unfit
            continue
        alone = estimate(workload, point.array)
        assert point.cycles == alone.cycles
        assert [point.compute, point.vector, point.memory] == [
            alone.part(name) for name in ("compute", "vector", "memory")
        ]
        assert point.utilisation == pytest.approx(alone.utilisation)


def test_designs_are_all_combinations(base: SystolicArray) -> None:
    found = designs(base, size=[4, 8], vector_width=[1, 2, 3])
    assert [(a.rows, a.columns, a.vector_width) for a in found] == [
        (size, size, width) for size in (4, 8) for width in (1, 2, 3)
    ]
    assert found[1].name == "eyeriss,size=4,vector_width=2"


def test_a_thousand_designs_of_sixty_layers(base: SystolicArray) -> None:
    arrays = designs(
        base, size=range(8, 58, 2), binary_lanes=range(1, 11), vector_width=[8, 16],
        vector_schedule=["added", "overlapped"],
    )  # fmt: skip
    assert len(arrays) == 1000
    seen: list[tuple[int, int]] = []
    start = time.perf_counter()
    points = sweep(network(30), arrays, lambda done, of: seen.append((done, of)))
    assert time.perf_counter() - start < 20  # a third of what is promised: slower machines exist
    assert len({point.cycles for point in points}) > 900
    assert seen[-1] == (1000, 1000)
    assert len(seen) > 10


def test_bad_sweeps(base: SystolicArray) -> None:
    with pytest.raises(PresetError, match=r"lanes is not a field .*, binary_lanes, clock"):
        designs(base, lanes=[1])
    with pytest.raises(PresetError, match="rows: no values"):
        designs(base, rows=[])
    with pytest.raises(PresetError, match="eyeriss,rows=0: rows must be at least 1"):
        designs(base, rows=[0])
