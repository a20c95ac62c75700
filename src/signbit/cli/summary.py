"""``signbit summary``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from signbit.cli.console import JsonOption, print_json
from signbit.cli.networks import (
    example_input,
    load_network,
    network_options,
    parse_size,
    untrained_network,
)
from signbit.errors import SignbitError


def summary(
    target: Annotated[str, typer.Argument(help="A model's name, model.pt or a run's folder.")],
    size: Annotated[
        str | None, typer.Option("--input-size", help="Pixels: 224 or 224x320 (height x width).")
    ] = None,
    width: Annotated[float | None, typer.Option(help="For a name: width factor [1].")] = None,
    stem: Annotated[
        str | None, typer.Option(help="For a name: imagenet or cifar [imagenet].")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=1, help="For a name: number of classes [1000].")
    ] = None,
    channels: Annotated[
        int | None, typer.Option(min=1, help="For a name: input channels [3].")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="For a name: an argument of the network."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Count a network layer by layer: parameters, operations, memory, what runs binary."""
    from signbit.compiler.summary import summarize

    path = Path(target)
    options = {
        "width": width, "stem": stem, "classes": classes, "channels": channels,
        "option": option or None,
    }  # fmt: skip
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if path.exists():
        if given:
            raise SignbitError(
                f"{', '.join(f'--{name}' for name in given)}: only with a model's name; a trained "
                "network is what it is"
            )
        trained = load_network(path)
    else:
        further = network_options(given.pop("option", []))
        trained = untrained_network(target, **given, options=further, calibrated=False)
    if (pixels := parse_size(size)) is not None:
        trained.input_shape = (trained.input_shape[0], *pixels)
    counts = summarize(trained.model, example_input(trained))
    if json:
        print_json(counts.to_dict())
    else:
        typer.echo(str(counts))
