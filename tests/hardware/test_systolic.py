"""Systolic arrays: equal to a simulator that moves operands, and their buffers and schedules."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from signbit.hardware.presets import PresetError
from signbit.hardware.systolic import DATAFLOWS, CapacityError, SystolicArray, estimate
from signbit.hardware.workload import Product, Work, Workload
from tests.hardware.cycle_simulator import Machine, pack

OS, WS, IS = DATAFLOWS


def array(**changes: Any) -> SystolicArray:
    values: dict[str, Any] = {
        "name": "test", "rows": 4, "columns": 4, "dataflow": WS, "binary_lanes": 4,
        "packing": "channels", "folds": "full", "vector_width": 4, "vector_schedule": "added",
        "output_stage": (), "streaming": "whole", "input_buffer": math.inf,
        "weight_buffer": math.inf, "output_buffer": math.inf, "accumulator_width": 32.0,
        "dram_bandwidth": math.inf,
    }  # fmt: skip
    return SystolicArray(**values | changes)


def layer(product: Product | None, name: str = "conv", **changes: Any) -> Work:
    values: dict[str, Any] = {
        "elementwise": {}, "weight_bits": 0, "input_bits": 0, "output_bits": 0,
    }  # fmt: skip
    return Work(name, "conv" if product else "add", product, **values | changes)


def network(*layers: Work) -> Workload:
    return Workload("net", layers, 0)


def bits(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return rng.choice(np.array([-1, 1]), shape)


def simulate(design: SystolicArray, product: Product, part: int | None = None) -> Machine:
    """Run a product of random operands through the simulator, and check what comes out."""
    rng = np.random.default_rng(product.pixels)
    lanes = design.binary_lanes if product.binary else 1
    machine = Machine(design.rows, design.columns, lanes, design.folds == "trimmed")
    for _ in range(product.groups):
        draw = bits if product.binary else lambda shape, rng: rng.integers(-128, 128, shape)
        x = draw((product.pixels, product.taps, product.inputs), rng)
        w = draw((product.outputs, product.taps, product.inputs), rng)
        packed = [pack(each, lanes, design.packing) for each in (x, w)]
        found = machine.product(design.dataflow, *packed, part)
        np.testing.assert_array_equal(found, x.reshape(len(x), -1) @ w.reshape(len(w), -1).T)
    return machine


def compute(design: SystolicArray, product: Product) -> tuple[int, int, float]:
    """Cycles, folds and utilisation of the model."""
    found = estimate(network(layer(product)), design).layers[0]
    return found.compute[1], found.folds, found.utilisation


SIZES = [(1, 1), (4, 4), (3, 7), (6, 2), (8, 5)]
PRODUCTS = [
    Product(1, 1, 1, 1, weight_bits=1, input_bits=1),
    Product(1, 8, 4, 6),
    Product(9, 3, 5, 11, weight_bits=1, input_bits=1),
    Product(4, 6, 9, 7, weight_bits=1, input_bits=1),
    Product(3, 2, 10, 4, groups=2),
    Product(2, 10, 3, 16, groups=3, weight_bits=1, input_bits=1),
    Product(1, 5, 17, 2, weight_bits=1, input_bits=8),
]
GRID = [
    (dataflow, folds, size, product, lanes)
    for (i, size), (k, product) in itertools.product(enumerate(SIZES), enumerate(PRODUCTS))
    for dataflow, folds in itertools.product(DATAFLOWS, ("full", "trimmed"))
    for lanes in [(1, 2, 3, 4, 8)[(i + k) % 5]]
]


def test_the_grid_is_large_enough() -> None:
    assert len(set(GRID)) >= 200


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("folds", ["full", "trimmed"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_equals_the_simulator(dataflow: str, folds: str, size: tuple[int, int]) -> None:
    mine = [each for each in GRID if each[:3] == (dataflow, folds, size)]
    assert len(mine) == len(PRODUCTS)
    for _, _, (rows, columns), product, lanes in mine:
        design = array(
            dataflow=dataflow, folds=folds, rows=rows, columns=columns, binary_lanes=lanes,
            packing=("channels", "dense")[product.taps % 2],
        )  # fmt: skip
        machine = simulate(design, product)
        assert compute(design, product)[:2] == (machine.clock, machine.folds), product


@pytest.mark.parametrize("folds", ["full", "trimmed"])
@pytest.mark.parametrize("dataflow", [WS, IS])
def test_parts_of_a_stream_equal_the_simulator(dataflow: str, folds: str) -> None:
    product = Product(2, 5, 7, 13)
    # half of it holds 3 steps of 4 columns' 32-bit sums
    design = array(
        dataflow=dataflow, folds=folds, streaming="tiled", output_buffer=2 * (3 * 4 * 32 + 5)
    )
    machine = simulate(design, product, part=3)
    assert compute(design, product)[:2] == (machine.clock, machine.folds)
    assert machine.folds > compute(replace(design, output_buffer=math.inf), product)[1]


def test_the_simulator_finds_lost_operands() -> None:
    design, product = array(), Product(9, 3, 5, 11)
    machine = Machine(4, 4, 1, False)
    x, w = np.ones((11, 27, 1), np.int64), np.ones((5, 27, 1), np.int64)
    good = machine.product(WS, x, w, None)
    w[2, 13] = -1
    assert (good != machine.product(WS, x, w, None)).sum() == 11
    assert simulate(design, product).clock == machine.clock // 2


def test_folds_as_scale_sim_publishes_them() -> None:
    """2 R + C + T - 2 a fold, for the whole array, by hand."""
    product = Product(9, 64, 100, 3136)
    r, c = 16, 8
    sizes = {OS: (3136, 100, 576), WS: (576, 100, 3136), IS: (576, 3136, 100)}
    for dataflow, (rows, columns, steps) in sizes.items():
        cycles, folds, utilisation = compute(array(dataflow=dataflow, rows=r, columns=c), product)
        assert folds == math.ceil(rows / r) * math.ceil(columns / c)
        assert cycles == folds * (2 * r + c + steps - 2)
        assert utilisation == pytest.approx(product.macs / (cycles * r * c))


def test_square_weight_stationary_folds_are_3r_and_pixels() -> None:
    product = Product(9, 96, 96, 3136, weight_bits=1, input_bits=1)
    design = SystolicArray.load("binE-16")
    assert compute(design, product)[0] == (9 * 6 // 16 + 1) * 6 * (3 * 16 + 3136 - 2)


def residual_body(width: float, binary: bool) -> Workload:
    """ResNet-18 or BiNeal between stem and head at 224 x 224, with the reconstruction's operations.

    Two of the vector unit for each output of a residual block in 8 bits, one in BiNeal.
    """
    works, inputs = [], int(64 * width)
    for stage in range(4):
        outputs, pixels = int(64 * width) << stage, (56 >> stage) ** 2
        for block in range(2):
            bits = {"weight_bits": 1, "input_bits": 1} if binary else {}
            shapes = [(9, inputs), (9, outputs)]
            if binary or (block == 0 and stage > 0):
                shapes.append((1, inputs))
            works += [layer(Product(taps, k, outputs, pixels, **bits)) for taps, k in shapes]
            operations = outputs * pixels * (1 if binary else 2)
            works.append(layer(None, elementwise={"add": operations}))
            inputs = outputs
    return network(*works)


def test_the_reconstruction_from_hand_made_layers() -> None:
    """Ratios that the reconstruction was published with here: about 6 and 3.6 with 16 lanes."""
    design = SystolicArray.load("binE-16")
    int8 = estimate(residual_body(1.0, False), design).cycles
    assert int8 / estimate(residual_body(1.5, True), design).cycles == pytest.approx(6.05, abs=0.01)
    assert int8 / estimate(residual_body(2.0, True), design).cycles == pytest.approx(3.61, abs=0.01)


def test_lanes_serve_only_pairs_of_bits() -> None:
    design = array(binary_lanes=8)
    binary = Product(9, 64, 64, 100, weight_bits=1, input_bits=1)
    dense = compute(design, replace(binary, input_bits=8))
    assert compute(design, binary)[1] * 8 == dense[1]
    assert dense == compute(replace(design, binary_lanes=1), replace(binary, input_bits=8))


def test_packing_by_channels_wastes_lanes() -> None:
    product = Product(9, 20, 4, 50, weight_bits=1, input_bits=1)
    aligned = compute(array(rows=1, binary_lanes=16), product)
    packed = compute(array(rows=1, binary_lanes=16, packing="dense"), product)
    assert (aligned[1], packed[1]) == (18, 12)  # 9 * 2 words; 180 bits in 12
    assert aligned[2] < packed[2] <= 1


def test_vector_work_is_added_or_overlapped() -> None:
    work = layer(Product(1, 4, 4, 10), elementwise={"add": 81, "compare": 400})
    alone = compute(array(), work.product)[0]
    added = estimate(network(work), array(output_stage=("compare",)))
    assert added.cycles == alone + 21  # 81 additions by 4 lanes
    assert added.layers[0].vector == (alone, alone + 21)
    beside = estimate(network(work), array(vector_schedule="overlapped"))
    assert beside.cycles == max(alone, 121)
    assert beside.layers[0].vector == (0, 121)


def test_without_a_product_nothing_leaves_a_column() -> None:
    pool = layer(None, "pool", elementwise={"compare": 40})
    assert estimate(network(pool), array(output_stage=("compare",))).cycles == 10


def test_memory_bounds_a_layer() -> None:
    work = layer(Product(1, 4, 4, 10), weight_bits=100, input_bits=200, output_bits=301)
    found = estimate(network(work, work), array(dram_bandwidth=1.0))
    assert [each.bound for each in found.layers] == ["memory", "memory"]
    assert found.cycles == 2 * 601
    assert found.layers[1].memory == (601, 1202)
    assert found.layers[1].compute[0] == 601


def test_operands_that_do_not_fit_are_moved_again() -> None:
    product = Product(1, 8, 12, 10)  # WS on 4 x 4: 2 row folds, 3 column folds
    work = layer(product, weight_bits=768, input_bits=640, output_bits=960)
    assert estimate(network(work), array()).dram_bits == 768 + 640 + 960
    small = array(input_buffer=2 * 639)
    assert estimate(network(work), small).dram_bits == 768 + 3 * 640 + 960
    # what is added to the sums is no operand: it is read once
    residual = replace(work, input_bits=640 + 320, added_bits=320)
    assert estimate(network(residual), small).dram_bits == 768 + 3 * 640 + 320 + 960
    assert estimate(network(residual), array(input_buffer=2 * 640)).dram_bits == 768 + 960 + 960
    # OS: 3 row folds, 3 column folds; weights come back for each row fold
    small = array(dataflow=OS, weight_buffer=2 * 767)
    assert estimate(network(work), small).dram_bits == 3 * 768 + 640 + 960


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_what_does_not_fit_is_named_with_the_size_needed(dataflow: str) -> None:
    product = Product(9, 64, 64, 400)
    held = {OS: "input_buffer", WS: "output_buffer", IS: "output_buffer"}[dataflow]
    need = {OS: 4 * 576 * 8, WS: 4 * 400 * 32, IS: 4 * 64 * 32}[dataflow]
    roomy = array(dataflow=dataflow, **{held: 2.0 * need})
    estimate(network(layer(product)), roomy)
    tight = replace(roomy, **{held: 2.0 * need - 1})
    with pytest.raises(
        CapacityError, match=rf"stage1\.conv does not fit test.* of {held}"
    ) as found:
        estimate(network(layer(None), layer(product, "stage1.conv")), tight)
    assert f"{2 * need / 8 / 1024:,.4g} KiB" in str(found.value)
    estimate(network(layer(product)), replace(tight, streaming="tiled"))


def test_even_tiled_a_single_step_must_fit() -> None:
    design = array(streaming="tiled", output_buffer=2.0 * 4 * 32 - 1)
    with pytest.raises(CapacityError, match=r"conv does not fit.*32 B of output_buffer"):
        estimate(network(layer(Product(1, 8, 8, 10))), design)


@pytest.mark.parametrize("field", ["rows", "columns", "binary_lanes", "vector_width"])
def test_sizes_of_0_are_refused(field: str) -> None:
    with pytest.raises(PresetError, match=f"test: {field} must be at least 1, got 0"):
        array(**{field: 0})


def test_a_buffer_of_size_0_is_refused() -> None:
    with pytest.raises(PresetError, match="test: weight_buffer must be above 0, got 0 bit"):
        array(weight_buffer=0.0)


def test_totals_and_json() -> None:
    works = [
        layer(Product(1, 4, 4, 10), elementwise={"add": 8}),
        layer(None, elementwise={"add": 5}),
    ]
    found = estimate(network(*works), array(clock=1e6))
    assert found.part("compute") + found.part("vector") == found.cycles
    assert found.seconds == found.cycles / 1e6
    assert found.utilisation == found.layers[0].utilisation
    assert found.layers[1].start == found.layers[0].end
    held = json.loads(json.dumps(found.to_dict()))
    assert held["cycles"] == found.cycles
    assert [each["layer"] for each in held["layers"]] == ["conv", "conv"]
    assert estimate(network(), array()).cycles == 0


def test_unknown_kinds_of_work_are_refused() -> None:
    with pytest.raises(ValueError, match="conv: no kinds of work: divide"):
        estimate(network(layer(None, elementwise={"divide": 1})), array())
