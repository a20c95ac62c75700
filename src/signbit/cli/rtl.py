"""``signbit rtl``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signbit.cli.console import JsonOption, plain_table, print_json, print_pairs, stderr, stdout
from signbit.errors import SignbitError

if TYPE_CHECKING:
    from signbit.compiler.ir import Graph
    from signbit.hardware.rtl import Options


def rtl(
    file: Annotated[Path, typer.Argument(help="A .signbit file.")],
    layer: Annotated[
        str | None,
        typer.Option(
            help="Path of a layer or block. Without it, those that have a circuit with the options."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write.")
    ] = None,
    lanes: Annotated[
        int | None, typer.Option(help="Input channels a cycle. [default: all, 64 at most]")
    ] = None,
    parallel: Annotated[int, typer.Option(help="Output channels a cycle.")] = 1,
    size: Annotated[
        str | None, typer.Option(help="HEIGHTxWIDTH of the input map. [default: the file's]")
    ] = None,
    four_bits: Annotated[
        str, typer.Option(help="A BiNeal block's 4-bit maps: ladder or multiply.")
    ] = "ladder",
    fraction_bits: Annotated[
        int | None, typer.Option(help="Real numbers as 16-bit fixed point with so many, 0..14.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the top module.")] = None,
    images: Annotated[int, typer.Option(help="Of the test bench; 0 writes none.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the test bench's random inputs.")] = 1,
    simulate: Annotated[
        str | None, typer.Option(help="Run the test bench: icarus or verilator.")
    ] = None,
    synthesize: Annotated[
        bool, typer.Option("--synthesize", help="Count cells with Yosys, with and without DSPs.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write Verilog of a compiled layer or block, with a test bench from the reference.

    Exit status 1 where the test bench finds a mismatch.
    """
    from signbit.compiler.emit import read_graph
    from signbit.hardware import rtl as circuits
    from signbit.hardware.rtl import tools

    graph = read_graph(file)
    options = circuits.Options(lanes, parallel, _size(size), four_bits, fraction_bits, name)
    if layer is None:
        _list(file, graph, options, json)
        return
    if output is None:
        raise SignbitError("--output: the folder to write is missing")
    if output.exists() and not output.is_dir():
        raise SignbitError(f"{output}: not a folder")
    if images < 0:
        raise SignbitError(f"--images must be 0 or more, got {images}")
    if simulate is not None:
        if simulate not in tools.SIMULATORS:
            known = " or ".join(tools.SIMULATORS)
            raise SignbitError(f"--simulate must be {known}, got {simulate!r}")
        if not images:
            raise SignbitError("--simulate: needs a test bench: give --images")
        tools.require(simulate)
    if synthesize:
        tools.require("yosys")
    circuit = circuits.build(graph, layer, options)
    report = _write(circuit, output, images, seed)
    if simulate is not None:
        found = tools.simulate(circuit, output, simulate, seed)
        report["simulation"] = {
            "simulator": simulate,
            "passed": found.passed,
            "vectors": found.vectors,
            "mismatches": found.mismatches,
        }
    if synthesize:
        report["cells"] = {
            kind: tools.synthesize(output, circuit.name, circuit.sources, dsp=dsp).to_dict()
            for kind, dsp in (("with DSP", True), ("without DSP", False))
        }
    if json:
        print_json(report)
    else:
        _print(report)
    if simulate is not None and not found.passed:
        raise typer.Exit(1)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        raise SignbitError(f"--size must be HEIGHTxWIDTH, as 32x32, got {text!r}")
    return int(found[1]), int(found[2])


def _list(file: Path, graph: Graph, options: Options, json: bool) -> None:
    """Layers and blocks that have a circuit with these options, and why others have none."""
    from signbit.hardware import rtl as circuits

    layers, refused = [], {}
    for name in circuits.supported(graph):
        try:
            circuits.build(graph, name, options)
        except circuits.CircuitError as error:
            refused[name] = str(error)
        else:
            layers.append(name)
    if json:
        print_json({"file": str(file), "layers": layers, "refused": refused})
        return
    if not layers and not refused:
        raise SignbitError(f"{file}: no layer that has a circuit: these are convolutions")
    for name in layers:
        stdout().print(name, highlight=False)
    for name, reason in refused.items():
        stderr().print(f"not {name}: {reason}", highlight=False, soft_wrap=True)


def _write(circuit, output: Path, images: int, seed: int) -> dict[str, object]:
    from signbit.compiler.reference import run
    from signbit.hardware.rtl.circuit import write_files
    from signbit.hardware.rtl.testbench import bench_files
    from signbit.hardware.rtl.vectors import make_vectors

    files, count = circuit.files(), 0
    if images:
        vectors = make_vectors(circuit, images, seed, run)
        files |= bench_files(circuit, vectors)
        count = vectors.count
    write_files(output, files)
    return {
        "layer": circuit.block.path,
        "module": circuit.name,
        "folder": str(output),
        "sources": circuit.sources,
        "ports": {
            port.name: {
                "direction": "in" if port.incoming else "out",
                "bits": port.width,
                "channels": port.channels,
                "map": list(port.shape),
            }
            for port in circuit.ports
        },
        "lanes": {conv.name: conv.fold.lanes for conv in circuit.convolutions},
        "parallel": circuit.convolutions[0].fold.parallel,
        "interval": circuit.interval,
        "left_out": [f"{node.path} ({node.op})" for node in circuit.block.left_out],
        "vectors": count,
    }


def _print(report: dict) -> None:
    facts = {"module": report["module"], "files": ", ".join(report["sources"])}
    for name, port in report["ports"].items():
        channels, height, width = port["map"]
        facts[name] = (
            f"{port['direction']}, {port['bits']} bits a transfer ({port['channels']} channels) of "
            f"{channels}x{height}x{width}"
        )
    facts["lanes"] = ", ".join(f"{n} {lanes}" for n, lanes in report["lanes"].items())
    facts["interval"] = f"{report['interval']} cycles an output pixel"
    if report["left_out"]:
        facts["not in it"] = ", ".join(report["left_out"])
    if report["vectors"]:
        facts["test bench"] = f"{report['vectors']} vectors: {report['module']}_tb.v"
    if "simulation" in report:
        found = report["simulation"]
        verdict = "passed" if found["passed"] else "FAILED"
        facts[found["simulator"]] = (
            f"{verdict}: {found['vectors']} vectors, {found['mismatches']} mismatches"
        )
    print_pairs(f"{report['layer']} in {report['folder']}", facts)
    if "cells" in report:
        first = next(iter(report["cells"].values()))
        table = plain_table("cells", *first)
        for kind, cells in report["cells"].items():
            table.add_row(kind, *(f"{count:g}" for count in cells.values()))
        stdout().print(table)
