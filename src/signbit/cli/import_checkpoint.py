"""``signbit import-checkpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from signbit.cli.console import JsonOption, bytes_text, print_json, print_pairs
from signbit.errors import SignbitError


def import_checkpoint(
    source: Annotated[
        Path,
        typer.Argument(help="A state dict that a network's authors published.", metavar="FILE"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path(
        "model.pt"
    ),
    model: Annotated[
        str | None, typer.Option(help="The network's name here [found by the tensors].")
    ] = None,
    stem: Annotated[
        str | None, typer.Option(help="imagenet or cifar [found by the tensors, if they tell].")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="Number of classes [the classifier's outputs].")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a network of ours from published weights: model.pt, to compile or measure."""
    from signbit.checkpoints import import_checkpoint as read

    if output.is_dir() or not output.resolve().parent.is_dir():
        raise SignbitError(f"{output}: not a file that can be written")
    if output.exists() and source.exists() and output.samefile(source):
        raise SignbitError(f"--output: {output} is the checkpoint itself: give another name")
    imported = read(source, model, stem, classes)
    trained = imported.trained
    try:
        trained.save(output)
    except OSError as error:
        raise SignbitError(f"{output}: cannot be written ({error.strerror or error})") from error
    report = {
        "file": str(output),
        "bytes": output.stat().st_size,
        "model": trained.spec,
        "inferred": imported.inferred,
        "input_shape": list(trained.input_shape),
        "parameters": sum(each.numel() for each in trained.model.parameters()),
        "note": imported.note,
    }
    if json:
        print_json(report)
        return
    arguments = {"model": trained.spec["name"], **trained.spec}
    del arguments["name"]
    print_pairs(
        f"imported {source}",
        {
            **{
                name: f"{value} (inferred)" if name in imported.inferred else str(value)
                for name, value in arguments.items()
            },
            "input": "x".join(map(str, trained.input_shape)),
            "parameters": f"{report['parameters']:,}",
            "file": f"{output}, {bytes_text(report['bytes'])}",
            **({"note": imported.note} if imported.note else {}),
        },
    )
