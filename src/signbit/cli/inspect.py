"""``signbit inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signbit.cli.console import (
    JsonOption,
    bytes_text,
    plain_table,
    print_fitting,
    print_json,
    print_pairs,
    stdout,
)

if TYPE_CHECKING:
    from signbit.compiler.contents import Contents, Line

_LONGEST = 60  # characters of a metadata text
_STEPS = 30  # columns in which a layer's steps can be read


def inspect(
    file: Annotated[Path, typer.Argument(help="A .signbit file.")],
    json: JsonOption = False,
) -> None:
    """Show what a compiled file holds: what it says of itself, its program, its bytes.

    Every rule of the format is checked on the way, the hash too.
    """
    from signbit.compiler.contents import read_contents

    contents = read_contents(file)
    if json:
        print_json({"file": str(file)} | contents.to_dict())
        return
    print_pairs(str(file), _facts(contents))
    _print_program(contents.lines)
    _print_sections(contents)


def _facts(contents: Contents) -> dict[str, str]:
    kinds = "uint8 pixels or float32" if contents.pixels else "float32, normalised"
    facts = {
        "size": f"{contents.size:,} bytes",
        "format": f"version {contents.version}, written by signbit {contents.writer}",
        "sha256": contents.sha256,
        "input": f"{'x'.join(map(str, contents.input))} ({kinds})",
        "outputs": ", ".join(contents.outputs),
    }
    for key, value in contents.metadata.items():
        text = str(value)
        facts[key] = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return facts


def _print_program(lines: list[Line]) -> None:
    from rich.table import Column

    names = ("", "layer", "operation", "window", "output", "weights")

    def columns() -> list[Column]:  # a table keeps its own
        return [Column(name, no_wrap=name != "layer", overflow="fold") for name in names]

    full, narrow = plain_table(*columns(), "steps"), plain_table(*columns())
    for number, line in enumerate(lines):
        row = (
            str(number),
            line.layer,
            line.op,
            _window(line.attrs),
            line.outputs[0],
            bytes_text(line.weight_bytes) if line.weight_bytes else "",
        )
        full.add_row(*row, ", ".join(line.steps))
        narrow.add_row(*row)
    print_fitting(full, narrow, wrapped=_STEPS)


def _window(attrs: dict[str, int | float]) -> str:
    """3x3 s2 p1 d2 g4: kernel, stride, padding, dilation, groups, where they are not the usual."""
    if "kernel_h" not in attrs:
        return " ".join(f"{name}={value}" for name, value in attrs.items() if value)
    text = f"{attrs['kernel_h']}x{attrs['kernel_w']}"
    for letter, name, usual in (("s", "stride", 1), ("p", "pad", 0), ("d", "dilation", 1)):
        pair = (attrs.get(f"{name}_h", usual), attrs.get(f"{name}_w", usual))
        if pair != (usual, usual):
            text += f" {letter}{pair[0]}" if pair[0] == pair[1] else f" {letter}{pair[0]}x{pair[1]}"
    return text + (f" g{attrs['groups']}" if attrs.get("groups", 1) != 1 else "")


def _print_sections(contents: Contents) -> None:
    from rich.table import Table

    table = Table("part of the file", "bytes", "share")
    for name, count in sorted(contents.sections.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{count:,}", f"{count / contents.size:.1%}")
    stdout().print(table)
