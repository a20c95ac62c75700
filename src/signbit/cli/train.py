"""``signbit train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from signbit.cli.console import JsonOption, print_json, print_pairs, stderr
from signbit.cli.recipes import find_recipe


def train(
    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a recipe of signbit's.")
    ],
    data: Annotated[Path | None, typer.Option(help="Where the data set lies.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the results; default runs/RECIPE.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --output.")
    ] = False,
    init: Annotated[
        Path | None,
        typer.Option(help="A trained classifier whose backbone to start from (model.init)."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change the recipe: stages.0.epochs=3"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Train a network as a recipe says."""
    path = find_recipe(recipe)
    from signbit.tasks import get_task
    from signbit.training import load_recipe
    from signbit.training.output import prepare_output

    starts = [] if init is None else [f"model.init={init}"]
    checked = load_recipe(path, [*(overrides or ()), *starts])
    output = output or Path("runs") / path.stem
    prepare_output(output, checked, resume)  # before decoding data, which can take a while
    from signbit.training import train as run_training
    from signbit.training.checks import check_data, check_machine, check_model

    check_data(checked)
    check_model(checked.model)
    check_machine(checked)
    task = get_task(checked.task)
    source = task.load(checked.data.model_dump(), data)
    console = stderr()
    console.print(
        f"{checked.model.name} on {source.name}: {len(source.train)} training, {len(source.val)} "
        f"validation, {len(source.test)} test images; results in {output}",
        highlight=False,
        soft_wrap=True,
    )
    result = run_training(checked, source, output, resume=resume, console=console)
    if json:
        print_json({"output": str(output), **result.metrics})
        return
    metrics = result.metrics
    scores = {
        f"{word} {name}": unit.format(metrics[f"{split}_{name}"])
        for split, word in (("test", "test"), ("val", "validation"))
        for name, unit in task.units.items()
        if name != "loss"
    }
    print_pairs(
        f"{checked.model.name} on {source.name}",
        {
            **scores,
            "training": f"{metrics['epochs']} epochs, {metrics['training_seconds'] / 60:.1f} min",
            "weights": f"{metrics['weights']}, of epoch {metrics['weights_epoch']}",
            "written": str(output),
            "next": f"signbit compile {output} -o model.signbit",
        },
    )
