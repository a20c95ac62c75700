"""A test bench: gives a circuit its vectors and compares what it answers.

Each port has its own random number generator. Where `gaps` is n, a side that could act waits in a
random n of 8 cycles: an input is not valid, an output is not ready. An output that has been valid
and not taken must stay as it is: that is checked too. The bench says PASS or FAIL in its last line;
it works in Icarus Verilog and in Verilator.
"""

from __future__ import annotations

from signbit.hardware.rtl.circuit import Circuit
from signbit.hardware.rtl.convolution import Port
from signbit.hardware.rtl.vectors import Vectors, transfers
from signbit.hardware.rtl.verilog import hex_lines, vector

SHOWN = 10  # mismatches in words


def bench_files(circuit: Circuit, vectors: Vectors) -> dict[str, str]:
    """The test bench `<name>_tb.v` and its vectors, by file name."""
    files, counts = {}, {}
    for port in circuit.ports:
        words = transfers(port, vectors.maps[port.name])
        files[_vector_file(circuit, port)] = hex_lines(words, port.width)
        counts[port.name] = len(words)
    return {f"{circuit.name}_tb.v": _bench(circuit, counts, vectors.count)} | files


def _vector_file(circuit: Circuit, port: Port) -> str:
    return f"{circuit.name}_tb_{port.name}.hex"


def _bench(circuit: Circuit, counts: dict[str, int], vectors: int) -> str:
    incoming = [port for port in circuit.ports if port.incoming]
    outgoing = [port for port in circuit.ports if not port.incoming]
    lines = [
        f"// Test bench of {circuit.name}: {vectors} vectors (output pixels with all channels).",
        "// +seed=N other gaps, +gaps=N of 8 cycles in which a side waits, 0..7.",
        "// Written by signbit; docs/circuits.md.",
        "",
        "`timescale 1ns / 1ps",
        "",
        f"module {circuit.name}_tb;",
        "  reg clk = 1'b0, rst = 1'b1;",
        "  always #5 clk = ~clk;",
        "  integer seed = 1, gaps = 3, mismatches = 0, broken = 0, idle = 0, cycle = 0;",
        "  integer first_taken = 0, last_taken = 0;",
        "  reg finished = 1'b0;",
    ]
    for number, port in enumerate(circuit.ports):
        lines += _signals(circuit, port, counts[port.name], number)
    pins = [".clk(clk)", ".rst(rst)"]
    for port in circuit.ports:
        pins += [f".{port.name}_{s}({port.name}_{s})" for s in ("valid", "ready", "data")]
    lines += ["", f"  {circuit.name} dut ({', '.join(pins)});", "", "  initial begin"]
    lines += ['    if (!$value$plusargs("seed=%d", seed)) seed = 1;']
    lines += ['    if (!$value$plusargs("gaps=%d", gaps)) gaps = 3;']
    for number, port in enumerate(circuit.ports):
        lines.append(f'    $readmemh("{_vector_file(circuit, port)}", {port.name}_words);')
        lines.append(f"    {port.name}_random = seed * 32'h9e3779b1 + 32'd{number + 1};")
    lines += ["  end", ""]
    for port in incoming:
        lines += _driver(port)
    for port in outgoing:
        lines += _checker(port)
    lines += _end(outgoing, vectors, _patience(circuit))
    return "\n".join(lines) + "\n"


def _signals(circuit: Circuit, port: Port, count: int, number: int) -> list[str]:
    name, wide = port.name, vector(port.width)
    driven = ("valid", "data") if port.incoming else ("ready",)
    lines = ["", f"  localparam {name.upper()}_COUNT = {count};"]
    lines.append(f"  reg {wide}{name}_words [0:{name.upper()}_COUNT - 1];")
    for signal in ("valid", "ready", "data"):
        kind = "reg" if signal in driven else "wire"
        lines.append(f"  {kind} {wide if signal == 'data' else ''}{name}_{signal};")
    lines.append(f"  reg [31:0] {name}_random;")
    lines.append(f"  integer {name}_at = 0;")
    if not port.incoming:
        lines += [f"  reg {name}_waited = 1'b0;", f"  reg {wide}{name}_before;"]
    return lines


def _next_random(name: str) -> str:
    """One step of a linear congruential generator; its high bits are the good ones."""
    return f"    {name}_random <= {name}_random * 32'd1664525 + 32'd1013904223;"


def _waits(name: str) -> str:
    return f"({{29'b0, {name}_random[31:29]}} < gaps)"


def _driver(port: Port) -> list[str]:
    name = port.name
    return [
        "  always @(posedge clk) begin",
        _next_random(name),
        "    if (rst) begin",
        f"      {name}_valid <= 1'b0;",
        f"    end else if (!{name}_valid || {name}_ready) begin",
        f"      if ({name}_at < {name.upper()}_COUNT && !{_waits(name)}) begin",
        f"        {name}_valid <= 1'b1;",
        f"        {name}_data <= {name}_words[{name}_at];",
        f"        {name}_at <= {name}_at + 1;",
        "      end else begin",
        f"        {name}_valid <= 1'b0;",
        f"        {name}_data <= ~{name}_data;",
        "      end",
        "    end",
        "  end",
        "",
    ]


def _checker(port: Port) -> list[str]:
    name = port.name
    bad = f'"MISMATCH {name} transfer %0d: expected %h, got %h"'
    return [
        "  always @(posedge clk) begin",
        _next_random(name),
        f"    {name}_ready <= !{_waits(name)};",
        f"    {name}_waited <= !rst && {name}_valid && !{name}_ready;",
        f"    {name}_before <= {name}_data;",
        f"    if (!rst && {name}_waited && (!{name}_valid || {name}_data !== {name}_before)) begin",
        "      broken = broken + 1;",
        f'      if (broken <= {SHOWN}) $display("BROKEN {name} transfer %0d changed before it was '
        f'taken", {name}_at);',
        "    end",
        f"    if (!rst && {name}_valid && {name}_ready) begin",
        f"      if ({name}_at >= {name.upper()}_COUNT) begin",
        "        mismatches = mismatches + 1;",
        f'        $display("MISMATCH {name} has a transfer too many: %h", {name}_data);',
        f"      end else if ({name}_data !== {name}_words[{name}_at]) begin",
        "        mismatches = mismatches + 1;",
        f"        if (mismatches <= {SHOWN})",
        f"          $display({bad}, {name}_at, {name}_words[{name}_at], {name}_data);",
        "      end",
        f"      {name}_at <= {name}_at + 1;",
        "      idle = 0;",
        f"      if ({name}_at == 0) first_taken = cycle;",
        "      last_taken = cycle;",
        "    end",
        "  end",
        "",
    ]


def _patience(circuit: Circuit) -> int:
    """More cycles than can pass between two results: some rows of pixels in, and of results."""
    pixels = max(port.shape[2] for port in circuit.ports)
    return 1000 + 8 * pixels * (8 + circuit.interval)


def _end(outgoing: list[Port], vectors: int, patience: int) -> list[str]:
    """The run ends some cycles behind the last result, or where none comes any more."""
    done = " && ".join(f"{port.name}_at >= {port.name.upper()}_COUNT" for port in outgoing)
    return [
        f"  wire complete = {done};",
        "  always @(posedge clk) begin",
        "    cycle = cycle + 1;",
        "    idle = idle + 1;",
        "    if (cycle == 4) rst <= 1'b0;",
        f"    if (!finished && idle > (complete ? 200 : {patience})) begin",
        "      finished <= 1'b1;",
        '      if (!complete) $display("STALLED after %0d cycles", cycle);',
        '      $display("%s vectors=%0d mismatches=%0d broken=%0d cycles=%0d",',
        '        (complete && mismatches == 0 && broken == 0) ? "PASS" : "FAIL",',
        f"        complete ? {vectors} : 0, mismatches, broken, last_taken - first_taken);",
        "      $finish;",
        "    end",
        "  end",
        "endmodule",
    ]
