"""``signbit certify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signbit.cli.console import (
    JsonOption,
    plain_table,
    print_fitting,
    print_json,
    print_pairs,
)

if TYPE_CHECKING:
    from signbit.hardware.certificate import Certificate


def certify(
    file: Annotated[Path, typer.Argument(help="A .signbit file.")],
    json: JsonOption = False,
) -> None:
    """List every operation of a compiled network by kind, and show whether it multiplies.

    Exit status 1 where it does: the layers are named.
    """
    certificate = certify_file(file)
    if json:
        print_json({"file": str(file)} | certificate.to_dict())
    else:
        _print(file, certificate)
    if not certificate.multiplication_free:
        raise typer.Exit(1)


def certify_file(file: Path) -> Certificate:
    """The certificate of a file: its program, and the kernels with which the engine runs it here.

    Raises:
        SignbitError: not such a file.
    """
    import numpy as np

    from signbit.compiler.emit import read_graph
    from signbit.hardware.certificate import certify as certify_graph
    from signbit.runtime import load

    graph = read_graph(file)
    channels, height, width = graph.input.shape
    session = load(file, threads=1)
    shape, kind = (1, channels, height, width), np.float32
    if session.accepts_pixels:
        shape, kind = (1, height, width, channels), np.uint8
    plan = session.profile(np.zeros(shape, kind), rounds=1, peak=False)
    return certify_graph(graph, plan)


def _print(file: Path, certificate: Certificate) -> None:
    total = certificate.total
    names = [name.replace("_", "-") for name in total.to_dict()]
    full = plain_table("layer", "operation", "kernel", *names)
    narrow = plain_table("layer", "operation", "multiplications")
    for layer in certificate.layers:
        counts = [f"{count:,}" if count else "" for count in layer.operations.counts()]
        full.add_row(layer.path, layer.op, layer.kernel or "", *counts)
        narrow.add_row(layer.path, layer.op, f"{layer.operations.multiplications:,}")
    totals = [f"{count:,}" for count in total.counts()]
    print_fitting(full, narrow)
    facts = dict(zip(names, totals, strict=True))
    verdicts = {
        "multiplies in": certificate.multiplying,
        "not known to multiply nothing:": certificate.unsure,
    }
    words = [f"{verdict} {', '.join(paths)}" for verdict, paths in verdicts.items() if paths]
    facts["verdict"] = "; ".join(words) or "no multiplication"
    print_pairs(f"{file}, one image", facts)
