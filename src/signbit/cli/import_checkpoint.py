"""``signbit import-checkpoint``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from signbit.cli.console import JsonOption, bytes_text, print_json, print_pairs
from signbit.errors import DataError, SignbitError

if TYPE_CHECKING:
    from signbit.training import TrainedModel


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
    data: Annotated[
        Path | None,
        typer.Option(help="The data set that it was trained on, for the names of its classes."),
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
    if data is not None:
        _name_classes(trained, data)
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
    if data is None:
        arguments["classes"] = "numbered; eval wants their names: import with --data"
    else:
        arguments["data"] = trained.info["data"]
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


def _name_classes(trained: TrainedModel, data: Path) -> None:
    """Take the names of the classes from a data set, and remember which it was.

    Raises:
        DataError: it is missing or broken, or has another number of classes.
    """
    from signbit.data import detect_source, load_source

    name = detect_source(data)
    # the images of a folder have many sizes
    size = trained.input_shape[1] if name == "folder" else None
    source = load_source(name, data, image_size=size)
    if source.num_classes != len(trained.class_names):
        raise DataError(
            f"{data}: {source.num_classes} classes, but the checkpoint has "
            f"{len(trained.class_names)}"
        )
    trained.class_names = tuple(source.class_names)
    trained.info["data"] = name
    if size is not None:
        trained.info["recipe"] = {"data": {"image_size": size}}
