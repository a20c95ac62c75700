"""Circuits: vectors through two simulators, and cells that Yosys counts.

    python -m benchmarks.circuits vectors
    python -m benchmarks.circuits cells

vectors: at least 10,000 vectors (output pixels, each with all its channels) of random inputs
through a binary layer, a BiNeal block and an A&B layer, in Icarus Verilog and in Verilator, both
sides waiting in a random 3 of 8 cycles. What is expected comes from the NumPy reference of the
graph.

cells: Yosys `synth_xilinx -family xc7` with and without DSP48E1 of layers of 64 channels, 3x3, on
32x32 images, all at the same initiation interval of 576 cycles a pixel: 64 lanes on one output
channel, or 16 lanes on 4 of them. A&B's layer stands beside the same layer with batch norm and
PReLU, the binary convolution beside 8 bits. Below them the units that these differ in, alone.

Networks have random weights; constants a channel that training spreads (slopes, scales, offsets,
and the statistics of batch norms) are drawn so that channels differ as trained ones do, for a
constant that is the same in all channels would cost nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from rich.table import Table
from torch import nn

import signbit
from benchmarks.common import wide_console, write_csv
from signbit.compiler import IntegerOptions, reference
from signbit.compiler.ir import Graph
from signbit.hardware import rtl
from signbit.hardware.rtl import tools
from signbit.hardware.rtl.circuit import Circuit, write_files
from signbit.hardware.rtl.testbench import bench_files
from signbit.hardware.rtl.vectors import make_vectors
from signbit.nn import NormalizedSign, QRPReLU, QuantConv2d, RPReLU, ScaledStdBinaryConv2d
from signbit.plots.figure import BLUE, GREY, ORANGE, finish, new_figure

SIZE = 32
FRACTION_BITS = 10
FOLDS = ((64, 1), (16, 4))


# --- networks ---


def spread(model: nn.Module) -> None:
    """Constants a channel as training spreads them."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, QRPReLU):
                nn.init.normal_(module.exponent, -3.0, 1.5).clamp_(-7, 2)
            elif isinstance(module, RPReLU):
                nn.init.normal_(module.slope, 0.25, 0.1).clamp_(0.01)
            if isinstance(module, QRPReLU | RPReLU):
                nn.init.normal_(module.shift_in, 0.0, 0.3)
                nn.init.normal_(module.shift_out, 0.0, 0.3)
            elif isinstance(module, ScaledStdBinaryConv2d):
                module.weight_quantizer.gain.mul_(
                    torch.exp(0.5 * torch.randn_like(module.weight_quantizer.gain))
                )
            elif isinstance(module, NormalizedSign):
                if module.bias is not None:
                    nn.init.normal_(module.bias, 0.0, 0.3)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.3, 1.5)
                nn.init.normal_(module.bias, 0.0, 0.3)


def _images(size: int) -> torch.Tensor:
    return torch.randn(4, 3, size, size)


def _settled(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """With the statistics that batch norms find in the images."""
    spread(model)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(x)
    return model.eval()


def bineal(width: float = 1.0, size: int = SIZE) -> Graph:
    """A BiNeal network: blocks `stages.0.1` (stride 1) and `stages.1.0` (stride 2)."""
    torch.manual_seed(0)
    x = _images(size)
    model = _settled(signbit.create_model("bineal18", num_classes=10, stem="cifar", width=width), x)
    signbit.calibrate(model, [x])
    return signbit.compile(model, x, verify=False).graph


def ab(width: float = 1.0, size: int = SIZE, scale_digits: int = 3) -> Graph:
    """A&B BNN in integers: layers `stages.0.1` (stride 1) and `stages.1.0` (stride 2)."""
    torch.manual_seed(0)
    x = _images(size)
    model = _settled(
        signbit.create_model("ab_reactnet18", num_classes=10, stem="cifar", width=width), x
    )
    options = IntegerOptions(scale_digits=scale_digits)
    return signbit.compile(model, x, verify=False, arithmetic="integer", integer=options).graph


def batch_norm(width: float = 1.0, size: int = SIZE) -> Graph:
    """The same network with batch norm and PReLU: layer `stages.0.1`."""
    torch.manual_seed(0)
    x = _images(size)
    model = signbit.create_model(
        "ab_reactnet18", num_classes=10, stem="cifar", width=width, variant="batch_norm"
    )
    eight = signbit.to_8bit(_settled(model, x), x)
    signbit.calibrate(eight, [x])
    return signbit.compile(eight, x, verify=False).graph


class EightBit(nn.Module):
    """Two 8-bit convolutions, with batch norm and ReLU behind them, and a head."""

    def __init__(self, channels: int):
        super().__init__()
        self.stem = QuantConv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv = QuantConv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.head = QuantConv2d(channels, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.stem(x)))
        return self.head(torch.relu(self.bn2(self.conv(x))))


def eight_bit(channels: int = 64, size: int = SIZE) -> Graph:
    """An 8-bit network: layer `conv`."""
    torch.manual_seed(0)
    x = _images(size)
    model = _settled(EightBit(channels), x)
    signbit.calibrate(model, [x])
    return signbit.compile(model, x, verify=False).graph


# --- vectors ---


def measure_vectors(arguments: argparse.Namespace) -> None:
    """Print and write what two simulators say of three blocks."""
    width = arguments.channels / 64
    circuits = [
        ("binary layer", rtl.build(bineal(width), "stages.0.0.conv1", _fold(arguments))),
        ("BiNeal block", rtl.build(bineal(width), "stages.0.1", _fold(arguments))),
        ("A&B layer", rtl.build(ab(width), "stages.0.1", _fold(arguments))),
    ]
    rows = []
    for kind, circuit in circuits:
        _, height, columns = circuit.ports[-1].shape
        images = -(-arguments.vectors // (height * columns))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            vectors = make_vectors(circuit, images, arguments.seed, reference.run)
            write_files(folder, circuit.files() | bench_files(circuit, vectors))
            for simulator in tools.SIMULATORS:
                with wide_console().status(f"{kind}, {simulator}"):
                    found = tools.simulate(circuit, folder, simulator, arguments.seed)
                rows.append(
                    {
                        "block": kind,
                        "layer": circuit.block.path,
                        "channels": arguments.channels,
                        "lanes": circuit.convolutions[0].fold.lanes,
                        "parallel": circuit.convolutions[0].fold.parallel,
                        "simulator": simulator,
                        "vectors": found.vectors,
                        "numbers": found.vectors * circuit.ports[-1].shape[0],
                        "mismatches": found.mismatches,
                        "changed_while_waiting": found.broken,
                        "cycles_a_pixel": round(found.cycles / found.vectors, 2),
                        "interval": circuit.interval,
                    }
                )
                write_csv(arguments.output / "vectors.csv", rows)
    _show(rows)


def _fold(arguments: argparse.Namespace) -> rtl.Options:
    return rtl.Options(lanes=arguments.channels, parallel=arguments.parallel)


# --- cells ---


@dataclass(frozen=True)
class Design:
    """A layer as a circuit: its name in the table, its network, and what is asked of it."""

    name: str
    network: Callable[[], Graph]
    layer: str
    four_bits: str = "ladder"
    fraction_bits: int | None = None


DESIGNS = (
    Design("binary, threshold", bineal, "stages.0.0.conv1"),
    Design("A&B, scales 2^k", lambda: ab(scale_digits=1), "stages.0.1"),
    Design("A&B, scales of 3 shifts", ab, "stages.0.1"),
    Design("batch norm + PReLU", batch_norm, "stages.0.1", fraction_bits=FRACTION_BITS),
    Design("BiNeal block, ladders", bineal, "stages.0.1"),
    Design("BiNeal block, multipliers", bineal, "stages.0.1", "multiply"),
    Design("8-bit, requantised", eight_bit, "conv"),
)


def measure_cells(arguments: argparse.Namespace) -> None:
    """Print and write the cells of all designs, and draw them."""
    rows = []
    jobs = [(design, fold) for design in DESIGNS for fold in FOLDS]
    for design, (lanes, parallel) in track(jobs, "layers"):
        options = rtl.Options(
            lanes, parallel, four_bits=design.four_bits, fraction_bits=design.fraction_bits
        )
        circuit = rtl.build(design.network(), design.layer, options)
        for dsp in (True, False):
            rows.append(_cells(design.name, circuit, dsp))
            write_csv(arguments.output / "cells.csv", rows)
    _show(rows)
    draw(rows, arguments.output / "cells.png")
    units = []
    for name, text in track(list(unit_sources().items()), "units"):
        for dsp in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                write_files(folder, {"unit.v": text})
                cells = tools.synthesize(Path(folder), "unit", ["unit.v"], dsp=dsp)
            units.append({"unit": name, "dsp_allowed": dsp, **cells.to_dict()})
    write_csv(arguments.output / "units.csv", units)
    _show(units)


def _cells(name: str, circuit: Circuit, dsp: bool) -> dict[str, object]:
    fold = circuit.convolutions[0].fold
    with tempfile.TemporaryDirectory() as folder:
        circuit.save(folder)
        cells = tools.synthesize(Path(folder), circuit.name, circuit.sources, dsp=dsp)
    return {
        "design": name,
        "lanes": fold.lanes,
        "parallel": fold.parallel,
        "interval": circuit.interval,
        "dsp_allowed": dsp,
        **cells.to_dict(),
    }


def unit_sources() -> dict[str, str]:
    """The units that A&B BNN compares, for 16 and 32 bits, without registers."""
    found = {}
    for bits in (16, 32):
        slope = bits - 1  # fractional bits of a slope below 1
        places = (bits - 1).bit_length()
        x = f"input signed [{bits - 1}:0] x"
        y = f"output signed [{bits - 1}:0] y"
        factor, amount = f"input signed [{bits - 1}:0] m", f"input [{places - 1}:0] k"
        product = f"wire signed [{2 * bits - 1}:0] p = x * m;"
        scaled = f"p[{bits + slope - 1}:{slope}]"
        found |= {
            f"multiplier, {bits} bits": _unit([x, factor, y], f"{product}\nassign y = {scaled};"),
            f"shifter, {bits} bits": _unit([x, amount, y], "assign y = x >>> k;"),
            f"PReLU, {bits} bits": _unit(
                [x, factor, y], f"{product}\nassign y = x[{bits - 1}] ? {scaled} : x;"
            ),
            f"PReLU of shifts, {bits} bits": _unit(
                [x, amount, y],
                f"wire signed [{bits - 1}:0] s = x >>> k;\nassign y = x[{bits - 1}] ? s : x;",
            ),
        }
    return found


def _unit(ports: list[str], body: str) -> str:
    return f"module unit ({', '.join(ports)});\n{body}\nendmodule\n"


def _show(rows: list[dict[str, object]]) -> None:
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    wide_console().print(table)


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Bars of look-up tables and DSPs by design, one row of pictures a fold."""
    figure = new_figure(10, 6.4)
    axes = figure.subplots(len(FOLDS), 2, width_ratios=(3, 1), sharey="row")
    for (lanes, parallel), (left, right) in zip(FOLDS, axes, strict=True):
        chosen = [r for r in rows if (r["lanes"], r["parallel"]) == (lanes, parallel)]
        names = list(dict.fromkeys(r["design"] for r in chosen))
        for index, (allowed, colour) in enumerate(((True, BLUE), (False, ORANGE))):
            own = [r for r in chosen if r["dsp_allowed"] == allowed]
            at = [n + 0.2 - 0.4 * index for n in range(len(names))]
            label = "with DSP48E1" if allowed else "without"
            luts = [r["lut"] + r["lutram"] for r in own]
            bars = left.barh(at, luts, 0.38, color=colour, label=label)
            left.bar_label(bars, fontsize=7, padding=2)
            if allowed:
                bars = right.barh(range(len(names)), [r["dsp"] for r in own], 0.5, color=GREY)
                right.bar_label(bars, fontsize=7, padding=2)
        left.set_yticks(range(len(names)), names, fontsize=8)
        left.invert_yaxis()
        left.set_xscale("log")
        left.set_title(f"look-up tables: {lanes} lanes x {parallel} channels", fontsize=9)
        right.set_title("DSP48E1, where allowed", fontsize=9)
        for ax in (left, right):
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize=8)
        left.set_xlim(100, 3 * left.get_xlim()[1])
        right.margins(x=0.25)
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.suptitle("64 channels, 3x3, 576 cycles a pixel; Yosys synth_xilinx -family xc7", size=10)
    finish(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    vectors = verbs.add_parser("vectors")
    vectors.add_argument("--vectors", type=int, default=10_000, help="of each block, at least")
    vectors.add_argument("--channels", type=int, default=16)
    vectors.add_argument("--parallel", type=int, default=4)
    vectors.add_argument("--seed", type=int, default=1)
    cells = verbs.add_parser("cells")
    for verb in (vectors, cells):
        verb.add_argument("--output", type=Path, default=Path("results/circuits"))
    arguments = parser.parse_args()
    {"vectors": measure_vectors, "cells": measure_cells}[arguments.verb](arguments)


if __name__ == "__main__":
    main()
