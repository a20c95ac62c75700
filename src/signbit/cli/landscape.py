"""``signbit landscape``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signbit.cli.console import JsonOption, plain_table, print_json, stderr, stdout
from signbit.cli.networks import (
    check_split,
    data_recipe,
    load_data,
    load_network,
    require_fit,
    run_name,
    told_apart,
)
from signbit.errors import DataError, SignbitError

if TYPE_CHECKING:
    from signbit.data import DataSource
    from signbit.training import TrainedModel


def landscape(
    models: Annotated[list[Path], typer.Argument(help="Runs' folders, or model.pt files.")],
    data: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("landscape"),
    split: Annotated[str, typer.Option(help="Images of which part: train, val or test.")] = "train",
    images: Annotated[int, typer.Option(min=1, help="Images, every class in its share.")] = 500,
    size: Annotated[int, typer.Option(help="Points a side, an odd number.")] = 21,
    reach: Annotated[
        float, typer.Option("--range", help="The square's half side, in lengths of each filter.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the two directions.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, whatever --output holds.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Draw the loss around trained weights, on a plane along two random directions.

    Directions are filter-normalised, and move the latent weights of binary layers. The same
    command goes on where one was stopped. "roughness" is 0 for a paraboloid and about 1 for noise,
    "quadratic fit" 1 for a paraboloid: signbit's own measures, of the logarithm of the loss.
    """
    check_split(split)
    from signbit.training.landscape import Grid, choose_images
    from signbit.training.landscape_run import measure_landscape
    from signbit.training.output import require_writable

    grid = Grid(size, reach, seed)
    require_writable(output)
    paths = _names(models)
    networks = {name: load_network(path) for name, path in paths.items()}
    _require_common(networks, split)
    source = _load_common(networks, data)
    for name, network in networks.items():
        require_fit(paths[name], source, network.input_shape, network.class_names)
    dataset = choose_images(source.split(split), images)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    console = stderr()
    console.print(
        f"{len(networks)} x {size} x {size} points, {len(dataset)} images each ({source.name}, "
        f"{split}); results in {output}",
        highlight=False,
        soft_wrap=True,
    )
    measured = measure_landscape(
        networks,
        dataset,
        grid,
        output,
        data=source.name,
        split=split,
        restart=restart,
        console=console,
    )
    result = measured.to_dict()
    if json:
        print_json({"output": str(output), **result})
        return
    _print(result["results"], output)


def _names(models: list[Path]) -> dict[str, Path]:
    """Short names for paths: the run's folder or the file, or the path where that is not enough.

    Raises:
        SignbitError: a path is given twice.
    """
    whole = [path.resolve() for path in models]
    whole = [path.parent if path.name == "model.pt" else path for path in whole]
    for index, path in enumerate(models):
        if whole[index] in whole[:index]:
            raise SignbitError(f"{path} is given twice")
    return told_apart([run_name(path) for path in whole], models)


def _known(network: TrainedModel) -> Mapping[str, Any]:
    """What is known of the images that a network was trained on: data set, validation images."""
    val_size = data_recipe(network.info).get("val_size")
    return {"data": network.info.get("data"), "val_size": val_size}


def _require_common(networks: Mapping[str, TrainedModel], split: str) -> None:
    """Check that networks can be measured on the same images.

    Raises:
        SignbitError: one is no classifier.
        DataError: they were trained on different data.
    """
    first, reference = next(iter(networks.items()))
    for name, network in networks.items():
        task = network.info.get("task", "classification")
        if task != "classification":
            raise SignbitError(f"{name} is a network for {task}: landscapes are of classifiers")
        data, cut = _known(network).values()
        other, other_cut = _known(reference).values()
        if None not in (data, other) and data != other:
            raise DataError(
                f"{name} was trained on {data}, {first} on {other}: a landscape compares networks "
                "on the same images"
            )
        if split != "test" and None not in (data, other) and cut != other_cut:
            raise DataError(
                f"{name} and {first} were trained on different parts of {data} (val_size {cut} and "
                f"{other_cut}): compare them with --split test"
            )


def _load_common(networks: Mapping[str, TrainedModel], data: Path | None) -> DataSource:
    """The data set of the networks, as the first says that knows."""
    knowing = [network for network in networks.values() if _known(network)["data"]]
    return load_data((knowing or list(networks.values()))[0].info, data)


def _print(results: Mapping[str, Mapping[str, Any]], output: Path) -> None:
    columns = {
        "loss": ".4f",
        "accuracy": ".2%",
        "lowest_loss": ".4f",
        "highest_loss": ".4g",
        "roughness": ".4f",
        "quadratic_fit": ".4f",
    }
    if any(result["points_not_finite"] for result in results.values()):
        columns["points_not_finite"] = "d"
    from rich.table import Column

    table = plain_table(
        Column("network", overflow="fold"),
        *(Column(name.replace("_", " "), justify="right") for name in columns),
        title="loss around the trained weights",
    )
    for name, result in results.items():
        texts = ("-" if result[key] is None else f"{result[key]:{columns[key]}}" for key in columns)
        table.add_row(name, *texts)
    stdout().print(table)
    stdout().print(f"drawn: {output / 'landscape.png'}", highlight=False, soft_wrap=True)
