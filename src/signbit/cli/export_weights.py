"""``signbit export-weights``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from signbit.cli.console import JsonOption, bytes_text, print_json, print_pairs
from signbit.errors import SignbitError


def export_weights(
    source: Annotated[
        Path,
        typer.Argument(help="A .signbit file, a run's folder, or its model.pt.", metavar="FILE"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.")] = Path(
        "weights.npz"
    ),
    header: Annotated[
        Path | None, typer.Option(help="Also write a header for C99 and C++.")
    ] = None,
    packed: Annotated[
        bool, typer.Option("--packed", help="In the header: binary weights as bits.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write a compiled network's real weights and thresholds as .npz, and as a C header."""
    from signbit.compiler.emit import naming
    from signbit.export import read_weights, save_header, save_weights

    if packed and header is None:
        raise SignbitError("--packed: only with --header")
    for file in (output, header):
        if file is not None and (file.is_dir() or not file.resolve().parent.is_dir()):
            raise SignbitError(f"{file}: not a file that can be written")
    if header is not None and header.resolve() == output.resolve():
        raise SignbitError(f"--header: {header} is the --output file too: give them two names")
    program = _program(source)
    with naming(source):
        files = {"weights": save_weights(program, output)}
    if header is not None:
        files["header"] = save_header(program, header, packed=packed)
    arrays = read_weights(program)
    report = {
        "layers": len(arrays["layers"]),
        "binary_weights": _count(arrays, "conv_b1"),
        "8bit_weights": _count(arrays, "conv_q8"),
        "sha256": str(arrays["sha256"]),
        "files": {
            kind: {"file": str(file), "bytes": file.stat().st_size} for kind, file in files.items()
        },
    }
    if json:
        print_json(report)
        return
    written = {
        kind: f"{entry['file']}, {bytes_text(entry['bytes'])}"
        for kind, entry in report["files"].items()
    }
    counts = {
        "layers": str(report["layers"]),
        "binary weights": str(report["binary_weights"]),
        "8-bit weights": str(report["8bit_weights"]),
        "program": f"sha256 {report['sha256']}",
    }
    print_pairs(f"weights of {source}", counts | written)


def _program(source: Path) -> bytes:
    """A compiled network: as it lies there, or compiled from what was trained."""
    if source.is_file() and source.suffix != ".pt":
        return source.read_bytes()
    if not source.exists():
        raise SignbitError(f"{source}: no such file or folder")
    from signbit.cli.networks import example_input, load_network
    from signbit.compiler import compile as compile_model
    from signbit.compiler.emit import emit

    trained = load_network(source)
    pixels = {"mean": list(trained.mean), "std": list(trained.std)}
    compiled = compile_model(trained.model, example_input(trained), preprocessing=pixels)
    return emit(compiled.graph)


def _count(arrays: dict, op: str) -> int:
    layers = (str(layer) for layer in arrays["layers"])
    return sum(arrays[f"{layer}.weight"].size for layer in layers if arrays[f"{layer}.op"] == op)
