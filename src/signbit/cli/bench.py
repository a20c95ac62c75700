"""``signbit bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.console import JsonOption, print_json, stdout

if TYPE_CHECKING:
    import numpy as np

    from signbit.runtime import Session


def bench(
    file: Annotated[Path, typer.Argument(help="A .signbit file.")],
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs for each number of threads.")] = 30,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Numbers of threads; default 1 and all cores.")
    ] = None,
    isa: Annotated[
        str | None, typer.Option(help="Cap the instruction set: scalar, avx2 ...")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a run.")] = 1,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also the time of every layer.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Time a compiled network on random pixels: median and percentiles in milliseconds.

    A file that does not say how to normalise pixels gets normalised float32 values.
    """
    from rich.table import Table

    from signbit.runtime import available_threads, benchmark, load

    counts = threads or sorted({1, available_threads()})
    timings: list[dict[str, Any]] = []
    layers: list[dict[str, Any]] = []
    for count in counts:
        session = load(file, threads=count, isa=isa)
        images = _random_images(session, batch)
        timing = benchmark(session, images, rounds=rounds)
        timings.append({"threads": count, "isa": session.isa, "batch": batch, **timing})
        if profile and not layers:
            layers = session.profile(images)
    if json:
        print_json(
            {"file": str(file), "timings": timings} | ({"layers": layers} if profile else {})
        )
        return
    table = Table("threads", "isa", "median ms", "p10", "p90", "images/s", title=str(file))
    for row in timings:
        table.add_row(
            str(row["threads"]),
            row["isa"],
            *(f"{row[key]:.3f}" for key in ("median_ms", "p10_ms", "p90_ms")),
            f"{1000 * batch / row['median_ms']:.1f}",
        )
    stdout().print(table)
    if profile:
        stdout().print(_layer_table(layers, counts[0]))


def _random_images(session: Session, batch: int) -> np.ndarray:
    """What the session takes: uint8 pixels, or float32 where the file cannot normalise them."""
    import numpy as np

    channels, height, width = session.input_shape
    generator = np.random.default_rng(0)
    if session.accepts_pixels:
        return generator.integers(0, 256, (batch, height, width, channels), np.uint8)
    return generator.standard_normal((batch, channels, height, width), np.float32)


def _layer_table(layers: list[dict[str, Any]], threads: int) -> Any:
    from rich.table import Table

    total = sum(row["ms"] for row in layers)
    table = Table(
        "layer", "operation", "kernel", "isa", "ms", "share", title=f"{threads} thread(s)"
    )
    for row in layers:
        table.add_row(
            str(row["name"]), str(row["op"]), str(row["kernel"]), str(row["isa"]),
            f"{row['ms']:.4f}", f"{row['ms'] / total:.1%}" if total else "",
        )  # fmt: skip
    return table
