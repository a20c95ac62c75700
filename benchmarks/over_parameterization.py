"""BiNeal's over-parameterisation on against off, task by task, under one recipe.

Trains the task's binary network (the recipe that `signbit compare` takes) with the parameters that
training adds and inference does not have, and without them; tests both on the same examples. Runs
that are complete are passed over, and one that broke off goes on.

    python -m benchmarks.over_parameterization detection --data PATH
    python -m benchmarks.over_parameterization detection --data PATH --variants off weights on
    python -m benchmarks.over_parameterization --summary        # only the table

Written to `--output`: `over_parameterization.csv`, a row a network, and of every run its resolved
recipe, metrics, curves and versions. `--runs` keeps the weights; `on` may be a run that
`signbit compare` has trained by such a recipe: --on-run PATH.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cifar_runs import KEPT
from benchmarks.common import wide_console, write_csv
from signbit.cli.compare import RECIPES
from signbit.cli.networks import data_fields
from signbit.cli.recipes import find_recipe
from signbit.rivals.compare import paired_difference, score
from signbit.tasks import TASKS, get_task
from signbit.tasks.base import Task, torch_predict
from signbit.training import load_recipe, load_trained, train
from signbit.training.output import prepare_output

# name -> granularity of the weights' factors, and whether an RPReLU stands before each sign
VARIANTS: dict[str, dict[str, Any]] = {
    "off": {"over_parameterize": None, "parametric_activations": False},
    "activations": {"over_parameterize": None, "parametric_activations": True},
    "weights": {"over_parameterize": "element", "parametric_activations": False},
    "on": {"over_parameterize": "element", "parametric_activations": True},
}
DEFAULT = VARIANTS["activations"]  # what networks are unless their recipe says otherwise


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("task", nargs="?", choices=TASKS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--recipe", help="default: that of `signbit compare`")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["off", "on"])
    parser.add_argument("--on-run", type=Path, help="a complete run of the variant `on`")
    parser.add_argument("--runs", type=Path, default=Path("runs/over_parameterization"))
    parser.add_argument("--output", type=Path, default=Path("results/over_parameterization"))
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="of the recipe"
    )
    parser.add_argument("--summary", action="store_true", help="train nothing")
    given = parser.parse_args()
    if not given.summary:
        if given.task is None:
            parser.error("which task?")
        measure(given)
    show(given.output)


def measure(given: argparse.Namespace) -> None:
    task = get_task(given.task)
    recipe = find_recipe(given.recipe or RECIPES[task.name][given.data is not None])
    records: dict[str, list[Any]] = {}
    rows = []
    for name in given.variants:
        folder = given.runs / f"{task.name}-{name}"
        if name == "on" and given.on_run is not None:
            folder = given.on_run
        run(task, recipe, given.set + changes(recipe, given.set, name), folder, given.data)
        kept = given.output / f"{task.name}-{name}"
        kept.mkdir(parents=True, exist_ok=True)
        for file in KEPT:
            shutil.copyfile(folder / file, kept / file)
        trained = load_trained(folder)
        source = task.load(data_fields(trained.info), given.data)
        predict = torch_predict(trained.model, trained.mean, trained.std)
        found = task.evaluate(predict, source, "test", data_fields(trained.info))
        records[name] = list(found)
        value, low, high = score(task, records[name])[task.metric]
        metrics = json.loads((folder / "metrics.json").read_text())
        rows.append(
            {
                "task": task.name,
                "data": source.name,
                "network": trained.info["recipe"]["model"]["name"],
                "variant": name,
                "metric": task.metric,
                "value": value,
                "low": low,
                "high": high,
                "more_than_off": None,
                "more_low": None,
                "more_high": None,
                "epochs": metrics["epochs"],
                "seconds": metrics["training_seconds"],
                "seed": metrics["seed"],
                "weights_sha256": metrics["weights_sha256"],
            }
        )
    for row in rows:
        if "off" in records:
            more = paired_difference(task, records[row["variant"]], records["off"])
            row |= dict(zip(("more_than_off", "more_low", "more_high"), more, strict=True))
    measured = {(row["task"], row["variant"]) for row in rows}
    others = [row for row in read(given.output) if (row["task"], row["variant"]) not in measured]
    write_csv(given.output / "over_parameterization.csv", [*others, *rows])


def changes(path: Path, fields: list[str], variant: str) -> list[str]:
    """The fields in which a variant differs from the recipe at `path` with these fields set."""
    options = DEFAULT | load_recipe(path, fields).model.options
    return [
        f"model.options.{name}={json.dumps(value)}"
        for name, value in VARIANTS[variant].items()
        if options[name] != value
    ]


def run(task: Task, path: Path, fields: list[str], folder: Path, data: Path | None) -> None:
    """Train the recipe at `path` with these fields set, unless its run is there."""
    recipe = load_recipe(path, fields)
    resume = (folder / "recipe.resolved.yaml").exists()
    prepare_output(folder, recipe, resume)  # refuses the run of another recipe
    if (folder / "metrics.json").exists():
        return
    console = Console(stderr=True)
    console.rule(f"{task.name}: {', '.join(fields)}")
    source = task.load(recipe.data.model_dump(), data)
    train(recipe, source, folder, resume=resume, console=console)


def read(folder: Path) -> list[dict[str, Any]]:
    file = folder / "over_parameterization.csv"
    if not file.exists():
        return []
    with file.open() as lines:
        return list(csv.DictReader(lines))


def show(folder: Path) -> None:
    table = Table("task", "network", "variant", "metric", "value", "95 %", "more than off", "95 %")
    for row in read(folder):
        value, low, high = (float(row[key]) for key in ("value", "low", "high"))
        more = [row[key] for key in ("more_than_off", "more_low", "more_high")]
        table.add_row(
            row["task"], row["network"], row["variant"], row["metric"],
            f"{value:.4f}", f"{low:.4f} to {high:.4f}",
            f"{float(more[0]):+.4f}" if more[0] else "",
            f"{float(more[1]):+.4f} to {float(more[2]):+.4f}" if more[0] else "",
        )  # fmt: skip
    wide_console().print(table)


if __name__ == "__main__":
    main()
