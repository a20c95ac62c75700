"""Estimates of the inner loops on mobile cores, by LLVM's machine code analyser: no core runs.

Compiles the binary and the 8-bit convolution with the flags of the engine's build, finds the
innermost loop of each in GCC's assembly, and asks llvm-mca for its cycles. The binary loop stands
beside the 8-bit ones that the same core can run. Left out: caches (all data is in the first level),
branches, and what stands around the loops.

`cycles` is what LLVM's model of the core makes of units, issue and latencies; `at best` what units
and issue alone allow. In-order cores (A53, A55) should lie between: LLVM 14 gives all vector
arithmetic there one latency, 6 and 4 cycles, longer than the cores have for most of it.

    python -m benchmarks.neon_estimates                    # Cortex-A53, A72, A55
    python -m benchmarks.neon_estimates --x86              # the same loops in AVX2 and AVX-512
    python -m benchmarks.neon_estimates --csv FILE --loops FOLDER

Needs cmake and make, llvm-mca 13 or later (the first with in-order cores), and for ARM
g++-aarch64-linux-gnu.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

NATIVE = Path(__file__).parents[1] / "native"
SOURCES = {"binary": "kernels/binary_conv/look_up.cpp", "int8": "kernels/q8_conv/dot.cpp"}
ITERATIONS = 1000

# MACs of an instruction. A look-up serves two output channels of four inputs in each byte lane.
MACS = {
    "binary": {
        r"tbl\s+v\d+\.16b": 16 * 2 * 4,
        r"vpshufb\s.*%ymm": 32 * 2 * 4,
        r"vpshufb\s.*%zmm": 64 * 2 * 4,
    },
    "int8": {
        r"[su]dot\s+v\d+\.4s": 16,
        r"[su]mlal2?\s+v\d+\.4s": 4,
        r"vpmaddwd\s.*%ymm": 16,
        r"vpmaddubsw\s.*%ymm": 32,
        r"vpdpbusd\s.*%zmm": 64,
    },
}


@dataclass
class Target:
    """A family of cores: each one's name to LLVM, its binary kernel, and its 8-bit ones."""

    triple: str
    toolchain: list[str]
    comment: str
    stack: str
    cores: list[tuple[str, str, list[str]]]


ARM = Target(
    triple="aarch64",
    toolchain=[f"-DCMAKE_TOOLCHAIN_FILE={NATIVE / 'cmake/aarch64-linux-gnu.cmake'}"],
    comment="//",
    stack=r"\b[qdv]\d+\b.*\[sp\b",
    cores=[
        ("cortex-a53", "neon", ["neon"]),
        ("cortex-a72", "neon", ["neon"]),
        ("cortex-a55", "neon_dot", ["neon", "neon_dot"]),
    ],
)
X86 = Target(
    triple="x86_64",
    toolchain=[],
    comment="#",
    stack=r"[yz]mm.*\(%rsp\b|\(%rsp\b.*[yz]mm",
    cores=[
        ("znver3", "avx2", ["avx2"]),
        ("cascadelake", "avx512", ["avx512"]),
        ("icelake-server", "avx512", ["avx512"]),
    ],
)


@dataclass
class Loop:
    """The innermost loop of a kernel. `stack`: vector instructions that read or write the stack."""

    lines: list[str]
    instructions: int
    macs: int
    stack: int


@dataclass
class Estimate:
    """A row of the result; cycles are those of one iteration."""

    core: str
    model: str  # LLVM's, whose units it is
    kernel: str
    isa: str
    instructions: int
    macs: int
    stack: int
    cycles: float
    cycles_at_best: float
    cycles_per_1000_macs: float
    macs_per_cycle: float
    binary_times: float  # MACs a cycle of the binary loop on this core, in those of this row
    binary_times_at_best: float
    bottleneck: str
    busiest_unit: str
    unit_cycles: float
    issue_cycles: float


def main() -> None:
    """Print a line a core and loop; write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--x86", action="store_true", help="AVX2 and AVX-512 instead of NEON")
    parser.add_argument("--csv", type=Path, help="write the rows here too")
    parser.add_argument("--loops", type=Path, help="keep the loops' assembly in this folder")
    options = parser.parse_args()
    target = X86 if options.x86 else ARM
    mca = find("llvm-mca", package="llvm")
    if not options.x86:
        find("aarch64-linux-gnu-g++", package="g++-aarch64-linux-gnu")
    loops = inner_loops(target)
    if options.loops:
        options.loops.mkdir(parents=True, exist_ok=True)
        for (kernel, isa), loop in loops.items():
            (options.loops / f"{kernel}_{isa}.s").write_text("\n".join(loop.lines) + "\n")
    version = found(r"(LLVM version \S+)", output([mca, "--version"]))
    print(f"Estimates of llvm-mca, {version}; cycles an iteration")
    rows = []
    for core, binary, int8 in target.cores:
        first: Estimate | None = None
        for kernel, isa in [("binary", binary), *(("int8", isa) for isa in int8)]:
            row = estimate(mca, target, core, kernel, isa, loops[kernel, isa], first)
            if not first:
                first = row
                print(f"\n{core}, scheduled by LLVM as {row.model}\n{HEAD}")
            print(line(row))
            rows.append(row)
    if options.csv:
        options.csv.parent.mkdir(parents=True, exist_ok=True)
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Estimate)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


HEAD = (
    f"{'loop':7}{'isa':9}{'instr.':>7}{'MACs':>7}{'stack':>6}{'cycles':>8}{'at best':>8}"
    f"{'/1000 MACs':>11}{'MACs/cycle':>11}{'binary x':>9}{'at best':>8}  bottleneck"
)


def line(r: Estimate) -> str:
    """A row as printed below HEAD."""
    return (
        f"{r.kernel:7}{r.isa:9}{r.instructions:7}{r.macs:7}{r.stack:6}{r.cycles:8.1f}"
        f"{r.cycles_at_best:8.1f}{r.cycles_per_1000_macs:11.1f}{r.macs_per_cycle:11.1f}"
        f"{r.binary_times:9.2f}{r.binary_times_at_best:8.2f}  {r.bottleneck} "
        f"({r.busiest_unit} {r.unit_cycles:.1f}, issue {r.issue_cycles:.1f})"
    )


def find(name: str, package: str) -> str:
    """Where a program is; the script ends if it is nowhere."""
    return shutil.which(name) or sys.exit(f"{name} is missing: apt-get install {package}")


def output(command: list[str], stdin: str = "", cwd: str | None = None) -> str:
    """What a command prints; the script ends with its errors if it has any."""
    done = subprocess.run(command, input=stdin, cwd=cwd, text=True, capture_output=True)
    # llvm-mca leaves out what it cannot read, and succeeds.
    if done.returncode or re.search(r"\berror: ", done.stderr):
        sys.exit(f"{shlex.join(command)} failed:\n{done.stdout[:2000]}{done.stderr[:2000]}")
    return done.stdout


def inner_loops(target: Target) -> dict[tuple[str, str], Loop]:
    """The innermost loop of each kernel and instruction set that the target's cores run."""
    wanted = {("binary", binary) for _, binary, _ in target.cores}
    wanted |= {("int8", isa) for _, _, int8 in target.cores for isa in int8}
    with tempfile.TemporaryDirectory() as build:
        beside = Path(sys.executable).with_name("cmake")
        cmake = str(beside) if beside.exists() else find("cmake", package="cmake")
        configure = [cmake, "-S", str(NATIVE), "-B", build, "-G", "Unix Makefiles"]
        output([*configure, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", *target.toolchain])
        commands = json.loads((Path(build) / "compile_commands.json").read_text())
        return {
            (k, isa): inner_loop(assembly(commands, k, isa), target, k, isa) for k, isa in wanted
        }


def assembly(commands: list[dict[str, str]], kernel: str, isa: str) -> str:
    """The assembly of a kernel, compiled as the engine's build does."""
    for entry in commands:
        words = shlex.split(entry["command"])
        if Path(entry["file"]) == NATIVE / SOURCES[kernel]:
            if f"-DSIGNBIT_BUILD_{isa.upper()}" not in words:
                continue
            words[words.index("-c")] = "-S"
            words[words.index("-o") + 1] = "-"
            return output(words, cwd=entry["directory"])
    sys.exit(f"this machine's build has no {SOURCES[kernel]} for {isa}")


def inner_loop(text: str, target: Target, kernel: str, isa: str) -> Loop:
    """Of all loops without a branch inside, the one with the most products.

    Where variants of a kernel have as many, it is the one of the fewest instructions: another masks
    its input, say.
    """
    loops = []
    for lines in branch_free_loops(text, target.comment):
        code = lines[1:]
        # The most, not the sum: vpmaddwd may also add up, by ones, what vpmaddubsw has multiplied.
        macs = max(
            each * sum(bool(re.match(pattern, line)) for line in code)
            for pattern, each in MACS[kernel].items()
        )
        stack = sum(bool(re.search(target.stack, line)) for line in code)
        loops.append(Loop(lines, len(code), macs, stack))
    best = max(loops, key=lambda loop: (loop.macs, -loop.instructions), default=None)
    if not best or not best.macs:
        sys.exit(
            f"{SOURCES[kernel]} for {isa}: no loop without a branch inside multiplies by an "
            f"instruction that is known here ({', '.join(MACS[kernel])})"
        )
    return best


def branch_free_loops(text: str, comment: str) -> Iterator[list[str]]:
    """Lines from a label to a jump back to it, with no other label or jump in between."""
    lines: list[str] = []
    for raw in text.splitlines():
        code = re.sub(r"\s+", " ", raw.split(comment)[0].strip())
        if re.fullmatch(r"[\w.$]+:", code):
            lines = [code]
        elif lines and code and not code.startswith("."):
            lines.append(code)
            name, _, operands = code.partition(" ")
            to = re.search(r"(?:^|[ ,])(\.L\w+)$", operands)
            if name[0] in "bctj" and to and lines[0] == f"{to[1]}:":
                yield lines
            if (name[0] in "bctj" and to) or name in ("ret", "call", "bl", "blr", "br", "jmp"):
                lines = []


def estimate(
    mca: str, target: Target, core: str, kernel: str, isa: str, loop: Loop, binary: Estimate | None
) -> Estimate:
    """One loop on one core; `binary`: the row of the binary loop, unless this is it."""
    command = [mca, f"-mtriple={target.triple}", f"-mcpu={core}", f"-iterations={ITERATIONS}"]
    text = output([*command, "-bottleneck-analysis"], "\n".join(loop.lines) + "\n")
    cycles = int(found(r"Total Cycles:\s+(\d+)", text)) / ITERATIONS
    uops = int(found(r"Total uOps:\s+(\d+)", text)) / ITERATIONS
    issue = uops / int(found(r"Dispatch Width:\s+(\d+)", text))
    units = re.findall(r"^\[[\d.]+\]\s+- (\w+)$", text, re.MULTILINE)
    pressure = found(r"Resource pressure per iteration:\n.*\n(.*)\n", text).split()
    busy = [0.0 if value == "-" else float(value) for value in pressure]
    unit_cycles, unit = max(zip(busy, units, strict=True))
    # What it says of in-order cores it warns of; no line where it finds that nothing holds back.
    shares = re.findall(r"(Resource Pressure|\w+ Dependencies)\s+\[ ([\d.]+)% \]", text)
    named = max(shares, key=lambda share: float(share[1]), default=("none named", ""))[0].lower()
    rate, best = loop.macs / cycles, loop.macs / max(unit_cycles, issue)
    return Estimate(
        core=core,
        model=model(units),
        kernel=kernel,
        isa=isa,
        instructions=loop.instructions,
        macs=loop.macs,
        stack=loop.stack,
        cycles=round(cycles, 1),
        cycles_at_best=round(loop.macs / best, 1),
        cycles_per_1000_macs=round(1000 / rate, 2),
        macs_per_cycle=round(rate, 2),
        binary_times=round(binary.macs_per_cycle / rate, 2) if binary else 1.0,
        binary_times_at_best=(
            round(binary.macs / binary.cycles_at_best / best, 2) if binary else 1.0
        ),
        bottleneck=named,
        busiest_unit=unit,
        unit_cycles=round(unit_cycles, 1),
        issue_cycles=round(issue, 1),
    )


def model(units: list[str]) -> str:
    """LLVM's model of a core, by what its units' names begin with: llvm-mca names it nowhere else.

    Many a core has none of its own: LLVM 14 schedules Cortex-A72 by the A57's.
    """
    return found(r"^((?:Cortex)?A\d+|[A-Z]+(?=Port|Divider|FPDivider)|[A-Z][a-z]+\d*)", units[0])


def found(pattern: str, text: str) -> str:
    """The group of a pattern that must be there."""
    match = re.search(pattern, text)
    return match[1] if match else sys.exit(f"llvm-mca printed no {pattern!r}:\n{text[:2000]}")


if __name__ == "__main__":
    main()
