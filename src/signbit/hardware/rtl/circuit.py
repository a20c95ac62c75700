"""A layer or block of a compiled graph as a circuit: what to make, and its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from signbit.compiler.ir import Graph, Node
from signbit.hardware.rtl.blocks import Block, find_block
from signbit.hardware.rtl.convolution import (
    Convolution,
    Fold,
    Port,
    check_fold,
    out_size,
    rows_needed,
    span,
)
from signbit.hardware.rtl.errors import CircuitError
from signbit.hardware.rtl.stages import FOUR_BITS, Stage, stages_of, with_zero_point
from signbit.hardware.rtl.verilog import Body, identifier, module, vector
from signbit.hardware.rtl.writer import convolution_files


@dataclass(frozen=True)
class Options:
    """How a circuit is made.

    Attributes:
        lanes: input channels a cycle; None takes all of them, at most 64. It divides them. A
            BiNeal block's 1x1 convolution has as few as keep pace.
        parallel: output channels a cycle; divides them.
        size: (H, W) of the input image, None for the one that the network was compiled with.
        four_bits: of a BiNeal block's 4-bit maps, `"ladder"` (15 compares) or `"multiply"`.
        fraction_bits: of real numbers as 16-bit fixed point; None refuses real-valued epilogues.
        name: of the module; None makes it from the layer's path.
    """

    lanes: int | None = None
    parallel: int = 1
    size: tuple[int, int] | None = None
    four_bits: str = "ladder"
    fraction_bits: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for what in ("lanes", "parallel"):
            value = getattr(self, what)
            if value is not None and (type(value) is not int or value < 1):
                raise CircuitError(f"{what} must be a whole number from 1 on, got {value!r}")
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise CircuitError(f"size must be a height and a width from 1 on, got {self.size}")
        if self.four_bits not in FOUR_BITS:
            known = " or ".join(FOUR_BITS)
            raise CircuitError(f"four_bits must be {known}, got {self.four_bits!r}")
        if self.fraction_bits is not None and self.fraction_bits not in range(15):
            raise CircuitError(f"fraction_bits must be 0..14, got {self.fraction_bits!r}")
        if self.name is not None and self.name != identifier(self.name):
            raise CircuitError(
                f"name must be lower-case letters, digits and _, and begin with a letter, got "
                f"{self.name!r}"
            )


@dataclass(frozen=True)
class Circuit:
    """A circuit.

    Attributes:
        name: of the top module.
        block: what it is made of.
        convolutions: its modules; the only one is the top module.
        ports: of the top module.
        fraction_bits: where real numbers became fixed point.
    """

    name: str
    block: Block
    convolutions: list[Convolution]
    ports: list[Port]
    fraction_bits: int | None

    @property
    def interval(self) -> int:
        """Cycles between two output pixels of an image, where neither side waits."""
        return max(conv.interval for conv in self.convolutions)

    def files(self) -> dict[str, str]:
        """The Verilog modules and ROMs, by file name."""
        found = {}
        for conv in self.convolutions:
            found |= convolution_files(conv)
        return found | (_bineal_top(self) if self.block.is_bineal else {})

    @property
    def sources(self) -> list[str]:
        """The names of the Verilog files."""
        return [name for name in self.files() if name.endswith(".v")]

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write the files into a folder, which is made; returns their paths. Raises OSError."""
        return write_files(folder, self.files())


def write_files(folder: str | os.PathLike[str], files: Mapping[str, str]) -> list[Path]:
    """Write text files, each whole or not at all; returns their paths. Raises OSError."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in files.items():
        partial = folder / f".{name}.{os.getpid()}.partial"
        try:
            partial.write_text(text, encoding="ascii")
            partial.replace(folder / name)
        finally:
            partial.unlink(missing_ok=True)
        paths.append(folder / name)
    return paths


def build(graph: Graph, layer: str, options: Options | None = None) -> Circuit:
    """The circuit of a layer or block of a lowered graph.

    Args:
        graph: as `signbit.compile` gives it (`CompiledModel.graph`) or `read_graph` reads it.
        layer: path of a convolution, or of a block (`blocks.find_block`).
        options: by default `Options()`.

    Raises CircuitError, naming layer and way out, for what has no circuit.
    """
    options = options or Options()
    block = find_block(graph, layer)
    name = options.name or identifier(f"signbit_{block.path}")
    size = options.size or block.nodes[0].inputs[0].shape[1:]
    if not block.is_bineal:
        conv = _convolution(block.nodes[0], name, options, size)
        return Circuit(name, block, [conv], conv.ports, options.fraction_bits)
    first, skip, second = block.nodes
    convs = [_convolution(first, f"{name}_first", options, size)]
    convs.append(_convolution(second, f"{name}_second", options, out_size(first, size)))
    pace = max(conv.interval for conv in convs)
    convs.insert(1, _paced(skip, f"{name}_skip", options, size, pace, _lead(first, skip, second)))
    if convs[1].out_size != convs[2].out_size:
        raise CircuitError(f"{block.path}: its two branches give maps of different sizes")
    ports = [convs[0].ports[0], *(p for p in convs[2].ports if not p.incoming)]
    return Circuit(name, block, convs, ports, options.fraction_bits)


def _convolution(
    node: Node, name: str, options: Options, size: tuple[int, int], lead: int = 0
) -> Convolution:
    channels = int(node.attrs["in_channels"])
    lanes = options.lanes if options.lanes is not None else _default_lanes(channels)
    fold = Fold(lanes, options.parallel)
    check_fold(node, fold, size)
    stages: list[Stage] = stages_of(node, options.four_bits, options.fraction_bits)
    conv = Convolution(
        name, node, with_zero_point(node, stages), fold, size, rows_needed(node, lead)
    )
    names = [port.name for port in conv.ports]
    if len(set(names)) < len(names):
        raise CircuitError(
            f"{node.path}: adds or stores more than one map of a kind: not supported"
        )
    return conv


def _default_lanes(channels: int) -> int:
    return max(n for n in range(1, min(channels, 64) + 1) if channels % n == 0)


def _paced(
    skip: Node, name: str, options: Options, size: tuple[int, int], pace: int, lead: int
) -> Convolution:
    """The skip's convolution with the fewest lanes that still keep the others' pace."""
    channels = int(skip.attrs["in_channels"])
    for lanes in (n for n in range(1, channels + 1) if channels % n == 0):
        conv = _convolution(skip, name, replace(options, lanes=lanes), size, lead)
        if conv.interval <= pace:
            return conv
    return conv


def _lead(first: Node, skip: Node, second: Node) -> int:
    """Input rows that the second convolution needs below the top of the skip's window."""
    below_second = span(second, "h") - 1 - second.attrs["pad_h"]
    below_first = span(first, "h") - 1 - first.attrs["pad_h"]
    return first.attrs["stride_h"] * below_second + below_first + skip.attrs["pad_h"]


def _bineal_top(circuit: Circuit) -> dict[str, str]:
    first, skip, second = circuit.convolutions
    body = Body()
    middle = first.ports[-1]
    beats = skip.ports[-1]
    body.comment("a pixel goes into both branches at once")
    body.add(
        "wire first_ready, skip_ready;",
        "assign in_ready = first_ready && skip_ready;",
    )
    for name, port in (("middle", middle), ("four", beats)):
        body.add(f"wire {name}_valid, {name}_ready;", f"wire {vector(port.width)}{name}_data;")
    body.comment("to bits, and by the skip to 4 bits; the second convolution adds these")
    wires = {
        first.name: [("in", "in_valid && skip_ready", "first_ready", "in_data"),
                     ("bits", "middle_valid", "middle_ready", "middle_data")],
        skip.name: [("in", "in_valid && first_ready", "skip_ready", "in_data"),
                    ("stream", "four_valid", "four_ready", "four_data")],
        second.name: [("in", "middle_valid", "middle_ready", "middle_data"),
                      ("add", "four_valid", "four_ready", "four_data")]
        + [(p.name, f"{p.name}_valid", f"{p.name}_ready", f"{p.name}_data")
           for p in second.ports if not p.incoming],
    }  # fmt: skip
    for name, connections in wires.items():
        pins = [".clk(clk)", ".rst(rst)"]
        for port, valid, ready, data in connections:
            pins += [f".{port}_valid({valid})", f".{port}_ready({ready})", f".{port}_data({data})"]
        body.add(f"{name} {name.removeprefix(circuit.name + '_')} (", f"  {', '.join(pins)}", ");")
    ports = ["input  wire clk", "input  wire rst"]
    ports += [line for port in circuit.ports for line in port.declarations()]
    about = (
        f"{circuit.block.path}: BiNeal block, {circuit.interval} cycles an output pixel.\n"
        "Written by signbit; docs/circuits.md."
    )
    return {f"{circuit.name}.v": module(circuit.name, about, ports, body.text())}
