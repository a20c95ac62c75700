"""Where words go: results to stdout, progress and errors to stderr; ``--json``: JSON only."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]


def stdout() -> Console:
    """The console for results."""
    return Console(file=sys.stdout, markup=False)  # brackets are words of ours: [train], [N, C]


def stderr() -> Console:
    """The console for progress and errors."""
    return Console(file=sys.stderr, markup=False)


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


def bytes_text(count: int) -> str:
    """A number of bytes in KiB or MiB."""
    return f"{count / 2**20:.2f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
