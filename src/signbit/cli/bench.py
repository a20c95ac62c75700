"""``signbit bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column

from signbit.cli.console import JsonOption, bytes_text, plain_table, print_json, stdout
from signbit.cli.inputs import random_images
from signbit.errors import SignbitError

# What each peak counts: name in measure_peaks -> (words, unit, formula)
_PEAKS = {
    "look_up_gmacs": (
        "paired look-ups",
        "GMAC/s",
        "3 look-ups, 2 additions, split = 3 x 2 outputs x 4 inputs = 24 MACs a byte lane",
    ),
    "dot_gmacs": ("8-bit dot products", "GMAC/s", "products and their sum, 4 MACs a 32-bit lane"),
    "word_gmacs": ("words of bits", "GMAC/s", "5 instructions = 2 words x 512 bits"),
    "tile_gmacs": ("matrix tiles", "GMAC/s", "products of 16 x 16 x 64 bytes"),
    "copy_l1_gbs": ("copy, L1", "GB/s", "bytes read + written"),
    "copy_l2_gbs": ("copy, L2", "GB/s", "bytes read + written"),
    "copy_l3_gbs": ("copy, L3", "GB/s", "bytes read + written"),
    "copy_memory_gbs": ("copy, memory", "GB/s", "bytes read + written"),
}


def bench(
    file: Annotated[
        Path | None, typer.Argument(help="A .signbit file; none with --peak.", show_default=False)
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs for each number of threads.")] = 30,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, help="Numbers of threads; default 1 and all cores.")
    ] = None,
    isa: Annotated[
        str | None, typer.Option(help="Cap the instruction set: scalar, avx2 ...")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a run.")] = 1,
    peak: Annotated[
        bool, typer.Option("--peak", help="Measure what one core can do at best, no network.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Time a compiled network on random pixels: median and percentiles in milliseconds.

    A file that does not say how to normalise pixels gets normalised float32 values. For the time of
    every step: signbit profile.
    """
    if peak and file is not None:
        raise SignbitError(f"--peak measures the CPU and takes no file: leave {file} away")
    if peak:
        _bench_peaks(isa, json)
        return
    if file is None:
        raise SignbitError("give a .signbit file to time, or --peak to measure the CPU")
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


def _bench_peaks(isa: str | None, json: bool) -> None:
    from signbit.runtime import cpu_name, measure_peaks

    peaks = measure_peaks(isa)
    formulas = {key: formula for key, (_, _, formula) in _PEAKS.items()}
    if json:
        print_json({"cpu": cpu_name(), "threads": 1, **peaks, "formulas": formulas})
        return
    table = plain_table(
        "peak",
        Column("best", justify="right"),
        "unit",
        "counted",
        title=f"{cpu_name()}, {peaks['isa']}, one thread, best of several repeats",
    )
    for key, (words, unit, formula) in _PEAKS.items():
        if peaks[key]:
            level = key.removeprefix("copy_").removesuffix("_gbs")
            size = peaks.get(f"{level}_bytes")
            table.add_row(
                f"{words} ({bytes_text(size)})" if size else words,
                f"{peaks[key]:.1f}",
                unit,
                formula,
            )
    stdout().print(table)
