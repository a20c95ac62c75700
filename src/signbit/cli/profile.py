"""``signbit profile``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.console import (
    JsonOption,
    bytes_text,
    plain_table,
    print_fitting,
    print_json,
    stderr,
    stdout,
)
from signbit.cli.inputs import random_images
from signbit.cli.networks import parse_size
from signbit.errors import SignbitError

if TYPE_CHECKING:
    from rich.table import Table

_ESSENTIAL = ("layer", "kernel", "output", "ms", "share")  # and one more, where 80 columns end
_NUMBERS = ("bytes", "MACs", "GMAC/s", "ms", "share", "of peak")


def profile(
    file: Annotated[Path, typer.Argument(help="A .signbit file.")],
    size: Annotated[
        str | None,
        typer.Option("--input-size", help="Pixels: 224 or 224x320; default: as compiled."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a run.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
    isa: Annotated[
        str | None, typer.Option(help="Cap the instruction set: scalar, avx2 ...")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Runs; each step's median counts.")] = 30,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw the times into this PNG file.")
    ] = None,
    roofline: Annotated[
        Path | None, typer.Option(help="Also draw the steps below this CPU's roofs into this PNG.")
    ] = None,
    peak: Annotated[
        bool,
        typer.Option(help="Compare each step with this CPU's peaks; measuring takes a second."),
    ] = True,
    json: JsonOption = False,
) -> None:
    """Time every step of a compiled network: kernel, layout, bytes, MACs, milliseconds, repacks.

    "share" is a step's part of the whole time, "of peak" how near it came to the least time that
    this CPU's peaks allow, "bound by" which peak that is (signbit bench --peak).
    """
    from signbit.runtime import cpu_name, load, measure_peaks

    if roofline is not None and not peak:
        raise SignbitError("--roofline needs the peaks: leave --no-peak away")
    session = load(file, threads=threads, isa=isa)
    images = random_images(session, batch, parse_size(size))
    steps = session.profile(images, rounds=rounds, peak=peak)
    title = (
        f"{file.name}: {_milliseconds(steps):.3f} ms, batch {batch}, {threads} thread(s), "
        f"{session.isa}"
    )
    if plot is not None:
        from signbit.plots import plot_profile

        plot_profile(steps, plot, title)
        stderr().print(f"drawn: {plot}", highlight=False)
    if roofline is not None:
        from signbit.plots import plot_roofline

        where = f"{title} on {cpu_name()}"
        plot_roofline(steps, measure_peaks(session.isa), roofline, where, threads=threads)
        stderr().print(f"drawn: {roofline}", highlight=False)
    if json:
        facts = {"file": str(file), "isa": session.isa, "threads": threads, "batch": batch}
        if peak:
            facts["peaks"] = measure_peaks(session.isa)
        print_json(facts | {"rounds": rounds, "memory": session.memory, "steps": steps})
        return
    _print_steps(steps, title)
    stdout().print(_closing(steps, session.memory), highlight=False)


def _milliseconds(steps: list[dict[str, Any]]) -> float:
    return sum(step["ms"] for step in steps)


def _print_steps(steps: list[dict[str, Any]], title: str) -> None:
    from rich.table import Column

    total = _milliseconds(steps)
    texts = [_texts(step, total) for step in steps]

    def table(names: Iterable[str]) -> Table:
        columns = [
            Column(
                name,
                justify="right" if name in _NUMBERS else "left",
                no_wrap=name != "layer",
                overflow="fold",
            )
            for name in names
        ]
        table = plain_table(*columns, title=title)
        for text in texts:
            table.add_row(*(text[name] for name in names))
        return table

    last = "of peak" if "of peak" in texts[0] else "MACs"
    print_fitting(table(texts[0]), table((*_ESSENTIAL, last)))


def _texts(step: dict[str, Any], total: float) -> dict[str, str]:
    """Columns of a step, in order; `total` in milliseconds."""
    macs = step["macs_b1"] + step["macs_q8"]
    texts = {
        "layer": step["name"],
        "operation": step["op"],
        "kernel": step["kernel"],
        "output": step["shape"],
        "layout (planes)": step["layout"].replace(" planes", ""),
        "bytes": bytes_text(step["bytes"]) if step["bytes"] else "",
        "MACs": f"{macs / 1e6:.2f}M" if macs else "",
        "GMAC/s": f"{macs / step['ms'] / 1e6:.1f}" if macs and step["ms"] else "",
        "ms": f"{step['ms']:.4f}",
        "share": f"{step['ms'] / total:.1%}" if total else "",
    }
    if "share_of_peak" in step:
        share, bound = step["share_of_peak"], step["bound"]
        texts["of peak"] = "" if share is None else f"{share:.0%}"
        texts["bound by"] = f"{step['level']} copy" if bound == "memory" else bound or ""
    return texts


def _closing(steps: list[dict[str, Any]], memory: dict[str, int]) -> str:
    total = _milliseconds(steps)
    repacks = [step for step in steps if step["op"] == "repack"]
    spent = _milliseconds(repacks)
    binary, bytes_ = (sum(step[key] for step in steps) for key in ("macs_b1", "macs_q8"))
    return (
        f"{total:.3f} ms in {len(steps)} steps, {len(repacks)} of them repacks "
        f"({spent:.3f} ms, {spent / total if total else 0:.1%}); MACs: {binary / 1e6:.1f}M 1-bit, "
        f"{bytes_ / 1e6:.1f}M 8-bit; working memory {bytes_text(memory['arena'])}, packed weights "
        f"{bytes_text(memory['weights'])}"
    )
