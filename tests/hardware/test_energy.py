"""Energy: Horowitz's figures, ranges, what comes from where, and presets that are refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from signbit.hardware import Product, Work, Workload
from signbit.hardware.energy import (
    Energy,
    EnergyTable,
    Joules,
    layer_energies,
    total_energy,
)
from signbit.hardware.presets import FOLDER, PresetError

PJ = 1e-12


@pytest.fixture(scope="module")
def table() -> EnergyTable:
    return EnergyTable.load()


def product(weight_bits: int, input_bits: int) -> Product:
    return Product(1, 10, 10, 10, weight_bits=weight_bits, input_bits=input_bits)


def approx(low: float, high: float) -> dict[str, object]:
    return {"low_uJ": pytest.approx(low * 1e-6), "high_uJ": pytest.approx(high * 1e-6)}


def test_published_figures(table) -> None:
    """Horowitz, ISSCC 2014, figure 1.1.9: an 8-bit multiplication takes 0.2 pJ ..."""
    assert table.node == "45 nm"
    assert table.mac(product(8, 8)).to_dict() == approx(0.3, 0.3)
    assert table.mac(product(32, 32)).to_dict() == approx(4.6, 4.6)
    # 64 bits from memory
    assert table.sram(64).to_dict() == approx(10, 100)
    assert table.dram(64).to_dict() == approx(1300, 2600)


def test_widths_between_the_figures(table) -> None:
    assert table.mac(product(1, 1)) == table.xnor_popcount
    assert table.mac(product(1, 8)).to_dict() == approx(0.1, 0.1)
    assert table.mac(product(1, 32)).to_dict() == approx(0.9, 0.9)
    assert table.mac(product(4, 4)).to_dict() == approx(0.15, 0.3)
    assert table.mac(product(8, 16)).to_dict() == approx(0.5, 3.2)
    # wider operands never cost less
    widths = [(1, 1), (1, 8), (4, 4), (8, 8), (8, 16), (32, 32)]
    macs = [table.mac(product(*each)) for each in widths]
    assert all(a.low <= b.low and a.high <= b.high for a, b in itertools.pairwise(macs))


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("add", 0.03, 0.9),
        ("compare", 0.03, 0.9),
        ("convert", 0.03, 0.9),
        ("multiply", 0.2, 3.7),
        ("look_up", 1.25, 50),
        ("shift", 0.001, 0.1),
        ("select", 0.01, 0.1),
    ],
)
def test_element_wise_operations(table, kind: str, low: float, high: float) -> None:
    assert table.operation(kind).to_dict() == approx(low, high)


def workload(weight_bits: int = 640, peak: int = 0) -> Workload:
    conv = Work("conv", "conv_q8", product(8, 8), {"add": 100}, weight_bits, 320, 320, peak)
    pool = Work("pool", "max_pool", None, {"compare": 10}, 0, 320, 64, 384)
    return Workload("net", (conv, pool), max(peak, 640))


def test_layers_by_hand(table) -> None:
    conv, pool = layer_energies(workload(), table)
    assert conv.macs.low == pytest.approx(1000 * 0.3 * PJ)
    assert (conv.elementwise.low, conv.elementwise.high) == (
        pytest.approx(3 * PJ), pytest.approx(90 * PJ),
    )  # fmt: skip
    assert conv.sram.low == pytest.approx((640 + 640) / 64 * 10 * PJ)
    assert conv.dram == pool.dram == pool.macs == Joules()
    whole = total_energy([conv, pool])
    assert whole.total.high == pytest.approx(conv.total.high + pool.total.high)
    parts = (conv.macs, conv.elementwise, conv.sram, conv.dram)
    assert conv.total.low == pytest.approx(sum(part.low for part in parts))
    assert set(whole.to_dict()) == {"macs", "elementwise", "sram", "dram", "total"}
    assert total_energy([]) == Energy()


def test_what_does_not_fit_comes_from_dram(table) -> None:
    # parameters beside the activations, which fit alone
    conv, pool = layer_energies(workload(), replace(table, on_chip=1000.0))
    assert conv.dram.low == pytest.approx(640 / 64 * 1300 * PJ)
    assert pool.dram == Joules()
    # and the activations of the layer that is too large
    conv, pool = layer_energies(workload(peak=2000), replace(table, on_chip=1000.0))
    assert conv.dram.high == pytest.approx((640 + 640) / 64 * 2600 * PJ)
    assert pool.dram == Joules()


# --- presets ---


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.2 pJ", "0.2", "integer_multiply_8 has no unit: write e.g. '0.2 pJ'"),
        ("0.2 pJ", "0.2 cal", "integer_multiply_8 'cal' is no unit of energy"),
        ("0.2 pJ", "cheap", "integer_multiply_8 must be an energy or a range"),
        ("0.2 pJ", "0 pJ", "integer_multiply_8 must be above 0"),
        ("10 to 100 pJ", "100 to 10 pJ", "sram_access must be above 0 and go upwards"),
        ("access_width: 64 bit", "access_width: 64", "access_width has no unit"),
        ("node: 45 nm", "", "node is missing"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, old: str, new: str, message: str) -> None:
    text = (FOLDER / "energy-45nm.yaml").read_text()
    assert old in text
    path = tmp_path / "own.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(PresetError, match=f"own.yaml: {message}"):
        EnergyTable.load(path)


def test_unknown_tables_name_the_nearest() -> None:
    with pytest.raises(PresetError, match="did you mean energy-45nm"):
        EnergyTable.load("energy-45")
    with pytest.raises(PresetError, match="kind is 'systolic'"):
        EnergyTable.load(FOLDER / "binE-16.yaml")
