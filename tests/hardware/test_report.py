"""Evaluations: figures, ratios, words, the page; and how long they take."""

from __future__ import annotations

import json
import time

import pytest

from signbit.hardware import Product, Work, Workload
from signbit.hardware.energy import EnergyTable
from signbit.hardware.report import (
    LAYER_COLUMNS,
    evaluate,
    figures,
    layer_cells,
    number,
    ratios,
    render_page,
    size,
    total_cells,
)
from signbit.hardware.systolic import SystolicArray


def network(name: str, bits: int, layers: int = 4) -> Workload:
    product = Product(9, 64, 64, 196, weight_bits=bits, input_bits=bits)
    works = tuple(
        Work(f"<conv{i}>", "conv", product, {"add": 64 * 196, "multiply": 10}, 999, 500, 700, 1300)
        for i in range(layers)
    )
    return Workload(name, works, 1300)


@pytest.fixture(scope="module")
def tools() -> tuple[SystolicArray, EnergyTable]:
    return SystolicArray.load("binE-16"), EnergyTable.load()


def test_figures_by_hand() -> None:
    macs = 9 * 64 * 64 * 196
    found = figures(network("net", 8, 2).layers)
    assert found["macs"] == {"8x8": 2 * macs}
    assert (found["bops"], found["flops"], found["ops"]) == (0, 2 * macs, 2 * macs)
    assert (found["cpu64"], found["ace"]) == (2 * macs / 8, 2 * macs * 64)
    assert found["elementwise"] == {"add": 2 * 64 * 196, "multiply": 20}
    assert found["multiplications"] == 2 * macs + 20
    assert (found["weight_bits"], found["input_bits"], found["output_bits"]) == (1998, 1000, 1400)
    binary = figures(network("net", 1, 2).layers)
    assert (binary["bops"], binary["ops"], binary["multiplications"]) == (
        2 * macs, 2 * macs / 64, 20,
    )  # fmt: skip


def test_layers_that_shift_and_add_multiply_nothing() -> None:
    shifting = Work("conv", "conv_shift", Product(1, 2, 3, 4), {}, 0, 0, 0)
    assert figures([shifting])["multiplications"] == 0
    assert figures([shifting])["flops"] == 24


def test_cycles_and_ratios(tools) -> None:
    ours, rival = (evaluate(network(f"n{bits}", bits), *tools, "a graph") for bits in (1, 8))
    # 3 R + P - 2 cycles a fold of 16 x 16; 12,554 element-wise operations, 16 a cycle
    fold, vector = 3 * 16 + 196 - 2, -(-(64 * 196 + 10) // 16)
    assert ours.estimate.cycles == 4 * (3 * 4 * fold + vector)
    assert rival.estimate.cycles == 4 * (36 * 4 * fold + vector)
    assert ours.body_cycles == ours.estimate.cycles // 2
    (found,) = ratios([ours, rival])
    expected = (36 * 4 * fold + vector) / (3 * 4 * fold + vector)
    assert found == {
        "rival": "n8",
        "cycles": pytest.approx(expected),
        "body_cycles": pytest.approx(expected),
    }
    two = evaluate(network("two", 1, 2), *tools, "a graph")
    assert two.body_cycles is None
    assert ratios([ours, two])[0]["body_cycles"] is None


def test_layers_add_up_to_the_totals(tools) -> None:
    found = evaluate(network("net", 8), *tools, "a graph").to_dict()
    json.dumps(found)
    rows, totals = found["layers"], found["totals"]
    for key in ("flops", "ace", "multiplications", "weight_bits", "input_bits", "output_bits"):
        assert sum(row[key] for row in rows) == totals[key]
    assert sum(row["array"]["cycles"] for row in rows) == totals["cycles"]
    energies = [row["energy"]["total"]["high_uJ"] for row in rows]
    assert sum(energies) == pytest.approx(totals["energy"]["total"]["high_uJ"])
    # nobody gave the network as it is written
    assert found["captured_layers"] is None
    assert totals["captured"] is None


def test_words(tools) -> None:
    evaluations = [evaluate(network(f"n{bits}", bits), *tools, "a graph") for bits in (1, 8)]
    lines = layer_cells(evaluations[0])
    assert len(lines) == 4
    assert all(len(line) == len(LAYER_COLUMNS) for line in lines)
    assert lines[0][:3] == ("<conv0>", "conv", "1x1 7.23M")
    totals = {label: cells for label, *cells in total_cells(evaluations)}
    assert totals["MACs, weight x input bits"] == ["1x1 28.9M", "8x8 28.9M"]
    assert totals["MO, as written"] == ["-", "-"]
    assert totals["BOPs"] == ["28.9M", "0"]


def test_page_escapes_and_holds_everything(tools) -> None:
    evaluations = [evaluate(network("a<b", 1), *tools, "a graph")]
    page = render_page("<title>", ["first & last"], evaluations, {"Picture": (b"png", "said")})
    assert "<b" not in page.replace("<body", "")
    for words in ("&lt;title&gt;", "first &amp; last", "a&lt;b", "cG5n", "&lt;conv3&gt;", "said"):
        assert words in page


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (999, "999"), (1678, "1.68k"), (999_700, "1000k"), (2e9, "2G")]
)
def test_numbers(value: float, words: str) -> None:
    assert number(value) == words


@pytest.mark.parametrize(
    ("bits", "words"), [(80, "10 B"), (8192 * 3, "3.0 KiB"), (2**23, "1.0 MiB")]
)
def test_sizes(bits: float, words: str) -> None:
    assert size(bits) == words


def test_sixty_layers_take_less_than_two_seconds(tools) -> None:
    start = time.process_time()
    found = evaluate(network("deep", 1, 60), *tools, "a graph")
    layer_cells(found)
    found.to_dict()
    assert time.process_time() - start < 2
