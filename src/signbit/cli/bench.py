"""``signbit bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from signbit.cli.console import JsonOption, print_json, stdout
from signbit.cli.inputs import random_images


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
    json: JsonOption = False,
) -> None:
    """Time a compiled network on random pixels: median and percentiles in milliseconds.

    A file that does not say how to normalise pixels gets normalised float32 values. For the time of
    every step: signbit profile.
    """
    from rich.table import Table

    from signbit.runtime import available_threads, benchmark, load

    counts = threads or sorted({1, available_threads()})
    timings: list[dict[str, Any]] = []
    for count in counts:
        session = load(file, threads=count, isa=isa)
        images = random_images(session, batch)
        timing = benchmark(session, images, rounds=rounds)
        timings.append({"threads": count, "isa": session.isa, "batch": batch, **timing})
    if json:
        print_json({"file": str(file), "timings": timings})
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
