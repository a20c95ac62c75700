"""The verbs put together, and what happens to errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from signbit.cli.bench import bench
from signbit.cli.certify import certify
from signbit.cli.compare import compare
from signbit.cli.compile import compile_
from signbit.cli.console import stderr
from signbit.cli.demo import demo
from signbit.cli.doctor import doctor
from signbit.cli.evaluate import evaluate
from signbit.cli.export_weights import export_weights
from signbit.cli.hardware import hardware
from signbit.cli.import_checkpoint import import_checkpoint
from signbit.cli.inspect import inspect
from signbit.cli.landscape import landscape
from signbit.cli.profile import profile
from signbit.cli.rank_teachers import rank_teachers
from signbit.cli.rtl import rtl
from signbit.cli.run import run
from signbit.cli.summary import summary
from signbit.cli.train import train
from signbit.errors import SignbitError

app = typer.Typer(
    name="signbit",
    help="Binary neural networks: train in PyTorch, compile to bits, run natively.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="--debug anywhere on the line shows the traceback of an error.",
)
app.command()(demo)
app.command()(train)
app.command("eval")(evaluate)
app.command("compile")(compile_)
app.command()(run)
app.command()(compare)
app.command()(bench)
app.command()(profile)
app.command()(inspect)
app.command()(certify)
app.command()(hardware)
app.command()(rtl)
app.command("export-weights")(export_weights)
app.command("import-checkpoint")(import_checkpoint)
app.command()(landscape)
app.command("rank-teachers")(rank_teachers)
app.command()(summary)
app.command()(doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exit status: 0; 2 for an error of the user's (one line on stderr); 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        app(args=words, prog_name="signbit")
    except SignbitError as error:
        if debug:
            raise
        _fail(str(error))
    except ModuleNotFoundError as error:
        if debug or error.name is None or error.name.startswith("signbit"):
            raise
        what = "pillow" if error.name == "PIL" else "'signbit[train]'"
        _fail(f"this needs the Python package {error.name!r}: pip install {what}")
    except KeyboardInterrupt:
        stderr().print("interrupted")
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of our output has gone (`signbit ... | head`): no complaint from Python.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except MemoryError as error:
        if debug:
            raise
        _fail(str(error) or "out of memory")
    except OSError as error:
        if debug:
            raise
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(message: str) -> None:
    stderr().print(f"error: {message}", style="bold red", highlight=False, soft_wrap=True)
    raise SystemExit(2)
