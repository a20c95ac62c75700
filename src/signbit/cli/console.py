"""Where words go: results to stdout, progress and errors to stderr; ``--json``: JSON only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

JsonOption = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]

_UNBOUNDED = 10_000  # columns of a pipe or a file, which has no edge to wrap at


def stdout() -> Console:
    """The console for results: as wide as the terminal or COLUMNS; a pipe or file has no edge."""
    bounded = sys.stdout.isatty() or "COLUMNS" in os.environ
    # Brackets are words of ours: [train], [N, C].
    return Console(file=sys.stdout, markup=False, width=None if bounded else _UNBOUNDED)


def stderr() -> Console:
    """The console for progress and errors."""
    return Console(file=sys.stderr, markup=False)


def listed(names: Sequence[str], most: int = 6) -> str:
    """Names in one line; of more than ``most`` the first and the last, and how many they are."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{len(names)}: {', '.join(names[: most - 1])}, ..., {names[-1]}"


def print_json(value: Any) -> None:
    """Print a value as indented JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_pairs(title: str, pairs: dict[str, str]) -> None:
    """Print names and values as a two-column table."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, value)
    stdout().print(table)


def plain_table(*columns: Column | str, title: str | None = None) -> Table:
    """A table without lines between its columns: more of them fit."""
    return Table(
        *columns,
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def print_fitting(full: Table, narrow: Table, wrapped: int = 0) -> None:
    """Print the full table where the console is wide enough, else the narrow one and say so.

    Args:
        full: needs all of its width, unless `wrapped`.
        narrow: its most important columns.
        wrapped: where `full` has one column more than `narrow`, whose words may stand on several
            lines: the least width of that column.
    """
    console = stdout()
    unbounded = console.options.update(max_width=_UNBOUNDED)

    def needed(table: Table) -> int:
        return console.measure(table, options=unbounded).maximum

    enough = min(needed(full), needed(narrow) + wrapped if wrapped else _UNBOUNDED)
    if console.width >= enough:
        console.print(full)
        return
    console.print(narrow)
    hint = f"more columns: --json, or a terminal of {enough} columns"
    console.print(hint, style="dim", highlight=False)


def bytes_text(count: int) -> str:
    """A number of bytes in KiB or MiB."""
    return f"{count / 2**20:.2f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
