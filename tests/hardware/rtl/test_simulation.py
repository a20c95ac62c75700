"""Circuits against the NumPy reference of their graphs, in simulators where these are installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.circuits import ab, bineal

from signbit.compiler import reference
from signbit.compiler.ir import Graph
from signbit.hardware.rtl import Circuit, Options, build, tools
from signbit.hardware.rtl.circuit import write_files
from signbit.hardware.rtl.testbench import bench_files
from signbit.hardware.rtl.vectors import fixed_point_error, harness, make_vectors, random_inputs


def needs(tool: str) -> None:
    if not tools.has(tool):
        pytest.skip(f"{tool} is not installed: circuits are not tested with it")


def check(
    circuit: Circuit, folder: Path, images: int = 1, simulator: str = "icarus", **how: int
) -> tools.Simulation:
    """Write the circuit and its test bench, and run it."""
    needs(simulator)
    vectors = make_vectors(circuit, images, 1, reference.run)
    write_files(folder, circuit.files() | bench_files(circuit, vectors))
    found = tools.simulate(circuit, folder, simulator, **how)
    assert found.vectors in (0, vectors.count)
    return found


def assert_passes(found: tools.Simulation) -> None:
    assert found.passed, found.log
    assert found.vectors
    assert not found.mismatches
    assert not found.broken


CASES = {
    "binary": ("bineal_graph", "3.conv1", {"lanes": 4, "parallel": 4}),
    "binary, one lane": ("bineal_graph", "3.conv1", {"lanes": 1, "parallel": 8, "size": (3, 4)}),
    "8 bits to bits": ("bineal_graph", "0", {"parallel": 2}),
    "4-bit integers": ("bineal_graph", "3.skip_conv", {"parallel": 2, "four_bits": "multiply"}),
    "BiNeal": ("bineal_graph", "3", {"parallel": 4}),
    "BiNeal, stride 2": ("bineal_graph", "4", {"lanes": 8, "four_bits": "multiply"}),
    "BiNeal, odd size": ("bineal_graph", "4", {"parallel": 16, "size": (5, 7)}),
    "A&B": ("ab_graph", "stages.0.0", {"lanes": 8, "parallel": 2}),
    "A&B, stride 2": ("ab_graph", "stages.1.0", {"parallel": 16}),
    "A&B, last layer": ("ab_graph", "stages.1.0.branch.conv", {"parallel": 1, "size": (4, 6)}),
    "batch norm": ("batch_norm_graph", "stages.0.0", {"parallel": 4, "fraction_bits": 10}),
    "to 8 bits": ("eight_bit_graph", "conv", {"lanes": 4, "parallel": 4, "size": (4, 5)}),
    "8 bits to real numbers": ("eight_bit_graph", "head", {"fraction_bits": 8, "size": (2, 3)}),
    "padding -1, odd kernel": ("odd_graph", "3", {"lanes": 3, "parallel": 3}),
    "padding +1, dilation": ("odd_graph", "5", {"lanes": 3, "parallel": 2}),
    "no padding, all at once": ("odd_graph", "7", {"parallel": 8}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_circuit_gives_what_the_reference_gives(
    case: tuple[str, str, dict], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fixture, layer, options = case
    circuit = build(request.getfixturevalue(fixture), layer, Options(**options))
    assert_passes(check(circuit, tmp_path, images=2, gaps=4))


@pytest.mark.parametrize("layer", ["3", "4"])
def test_a_circuit_keeps_its_interval_where_nobody_waits(
    bineal_graph: Graph, layer: str, tmp_path: Path
) -> None:
    circuit = build(bineal_graph, layer, Options(size=(8, 8)))
    waited = []
    for images in (1, 2, 4):
        found = check(circuit, tmp_path / str(images), images=images, gaps=0)
        assert_passes(found)
        waited.append(found.cycles - (found.vectors - 1) * circuit.interval)
    # within an image never; before each further one a block's pipeline fills again
    assert waited == [0, waited[1], 3 * waited[1]]
    row = circuit.ports[-1].shape[2] * circuit.interval
    assert 0 < waited[1] <= 2 * row


@pytest.mark.parametrize(
    "case", [CASES["BiNeal"], CASES["A&B"], CASES["binary"]], ids=["BiNeal", "A&B", "binary"]
)
def test_one_wrong_bit_in_a_rom_is_found(
    case: tuple[str, str, dict], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fixture, layer, options = case
    circuit = build(request.getfixturevalue(fixture), layer, Options(**options))
    assert_passes(check(circuit, tmp_path, images=4))
    x = random_inputs(circuit, 4, 1)
    _, values = reference.run(harness(circuit), x, collect=True)
    for conv in circuit.convolutions:
        # the first weight of the channel whose results differ most: some see the same always
        lively = values[conv.node.outputs[0].name].std((0, 2, 3)).argmax()
        group, place = divmod(int(lively), conv.fold.parallel)
        name = f"{conv.name}_weights.hex"
        healthy = (tmp_path / name).read_text()
        words = healthy.split()
        at = group * conv.steps
        turned = int(words[at], 16) ^ (1 << place * conv.fold.lanes)
        words[at] = f"{turned:0{len(words[at])}x}"
        (tmp_path / name).write_text("\n".join(words))
        found = tools.simulate(circuit, tmp_path, "icarus")
        assert not found.passed
        assert found.mismatches
        (tmp_path / name).write_text(healthy)


def test_a_threshold_off_by_one_parity_is_found(bineal_graph: Graph, tmp_path: Path) -> None:
    """Sums away from the border are all even or all odd: a cut has to move by two."""
    circuit = build(bineal_graph, "3.conv1", Options(lanes=8, parallel=1))
    assert_passes(check(circuit, tmp_path, images=4))
    (name,) = (n for n in circuit.files() if "constants" in n)
    words = (tmp_path / name).read_text().split()
    cuts = circuit.convolutions[0].stages[0].writes[0].low
    bits = (int(np.abs(cuts).max())).bit_length() + 1
    channel = int(np.argmin(np.abs(cuts)))
    digits = len(words[0])
    word = int(words[channel], 16)
    mask = (1 << bits) - 1
    words[channel] = f"{(word & ~mask) | ((word + 2) & mask):0{digits}x}"
    (tmp_path / name).write_text("\n".join(words))
    found = tools.simulate(circuit, tmp_path, "icarus")
    assert not found.passed
    assert found.mismatches


def test_a_circuit_that_stops_is_found(bineal_graph: Graph, tmp_path: Path) -> None:
    circuit = build(bineal_graph, "3.conv1", Options(size=(4, 4)))
    assert_passes(check(circuit, tmp_path))
    source = tmp_path / circuit.sources[0]
    source.write_text(source.read_text().replace("wire step = go && arrived;", "wire step = 1'b0;"))
    found = tools.simulate(circuit, tmp_path, "icarus")
    assert not found.passed
    assert found.vectors == 0
    assert "STALLED" in found.log


def test_a_result_that_does_not_wait_is_found(bineal_graph: Graph, tmp_path: Path) -> None:
    circuit = build(bineal_graph, "3.conv1", Options(parallel=8))
    assert_passes(check(circuit, tmp_path))
    source = tmp_path / circuit.sources[0]
    text = source.read_text()
    assert "wire bits_free = !bits_full || bits_ready;" in text
    source.write_text(text.replace("wire bits_free = !bits_full || bits_ready;",
                                   "wire bits_free = 1'b1;"))  # fmt: skip
    found = tools.simulate(circuit, tmp_path, "icarus", gaps=7)
    assert not found.passed


@pytest.mark.parametrize("name", CASES)
def test_linters_have_nothing_to_say(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    needs("verilator")
    fixture, layer, options = CASES[name]
    circuit = build(request.getfixturevalue(fixture), layer, Options(**options))
    circuit.save(tmp_path)
    assert tools.lint(circuit, tmp_path) == ""


def test_fixed_point_is_near_the_real_numbers(
    batch_norm_graph: Graph, eight_bit_graph: Graph
) -> None:
    circuit = build(batch_norm_graph, "stages.0.0", Options(fraction_bits=10))
    errors = fixed_point_error(circuit, 4, 1, reference.run)
    assert errors["stream"][0] < 3
    assert errors["stream"][1] < 0.6
    assert errors["bits"][0] < 0.005
    circuit = build(eight_bit_graph, "conv")
    greatest, mean = fixed_point_error(circuit, 4, 1, reference.run)["out"]
    assert greatest <= 1
    assert mean < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["binary", "8 bits to bits", "BiNeal, stride 2", "A&B, stride 2", "batch norm"]
)
def test_verilator_agrees(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    fixture, layer, options = CASES[name]
    circuit = build(request.getfixturevalue(fixture), layer, Options(**options))
    assert_passes(check(circuit, tmp_path, images=20, simulator="verilator", gaps=4))


@pytest.mark.slow
@pytest.mark.parametrize("simulator", tools.SIMULATORS)
@pytest.mark.parametrize(
    ("network", "layer"),
    [(bineal, "stages.0.0.conv1"), (bineal, "stages.0.1"), (ab, "stages.0.1")],
    ids=["binary", "BiNeal", "A&B"],
)
def test_ten_thousand_vectors(network, layer: str, simulator: str, tmp_path: Path) -> None:
    circuit = build(network(width=0.25), layer, Options(parallel=4))
    found = check(circuit, tmp_path, images=10, simulator=simulator)
    assert_passes(found)
    assert found.vectors == 10 * 32 * 32
