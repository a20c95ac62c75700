"""A&B BNN against what it gives up: seven narrow networks on CIFAR-10, each with several seeds.

All are trained by `recipes/ab-narrow-cifar10.yaml` with only what distinguishes them changed: the
activation, the scale of the binary convolutions, the normalisation. Networks with batch norm
need no gradient clipping and have none; the full-precision one has one stage of as many epochs.
Runs that are complete are passed over, and one that broke off goes on, so that the script may be
started again at any time.

    python -m benchmarks.ab_cifar --data PATH                 # hours on one core
    python -m benchmarks.ab_cifar --data PATH --seeds 0       # one run of each
    python -m benchmarks.ab_cifar --summary                   # only the table and the picture

Written to `--output`: a folder a run (resolved recipe, metrics, curves, versions), `summary.csv`
and `curves.png`. Weights and checkpoints stay in `--runs`.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import shutil
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from signbit.training import Recipe, parse_recipe

RECIPE = Path(__file__).parents[1] / "recipes" / "ab-narrow-cifar10.yaml"
KEPT = ("recipe.resolved.yaml", "metrics.csv", "metrics.json", "curves.png", "versions.json")

# name -> arguments of ab_reactnet18; None: ResNet-18 in full precision
NETWORKS: dict[str, dict[str, str] | None] = {
    "qrprelu": {},
    "rleakyrelu": {"activation": "rleakyrelu"},
    "rprelu": {"activation": "rprelu"},
    "power-of-two": {"scale": "power_of_two"},
    "normalizer-free": {"variant": "normalizer_free"},
    "batch-norm": {"variant": "batch_norm"},
    "full-precision": None,
}


def network_recipe(name: str, seed: int) -> Recipe:
    """The recipe of one network of `NETWORKS`."""
    tree = yaml.safe_load(RECIPE.read_text("utf-8"))
    tree["seed"] = seed
    options = NETWORKS[name]
    if options is None:
        tree["model"]["name"] = "resnet18"
        epochs = sum(stage["epochs"] for stage in tree["stages"])
        first = tree["stages"][0]
        tree["stages"] = [{**first, "name": "full-precision", "epochs": epochs}]
        del tree["stages"][0]["binary_weights"]
    else:
        tree["model"]["options"] = options
    for stage in tree["stages"]:
        optimizer = copy.copy(stage["optimizer"])
        if options is None or options.get("variant") == "batch_norm":
            optimizer.pop("agc")
        slopes = _slopes(options)
        if "decay_exclude" in optimizer:
            optimizer["decay_exclude"] = [*slopes, "head.*"]
        if slopes != ["*.exponent"]:
            optimizer.pop("lr_scale")
        stage["optimizer"] = optimizer
    return parse_recipe(tree, name)


def _slopes(options: dict[str, str] | None) -> list[str]:
    """The learned slopes of activations, which do not decay."""
    if options is None or options.get("activation") == "rleakyrelu":
        return []
    real = options.get("activation") == "rprelu" or "variant" in options
    return ["*.slope"] if real else ["*.exponent"]


def train_missing(
    names: Iterable[str], seeds: Iterable[int], data: Path, runs: Path, output: Path
) -> None:
    """Train what is not complete, all networks of a seed before the next seed."""
    from signbit.data import load_source
    from signbit.training import train

    console = Console(stderr=True)
    source = load_source("cifar10", data)
    for seed in seeds:
        for name in names:
            folder = runs / f"{name}-{seed}"
            if not (folder / "metrics.json").exists():
                console.rule(f"{name}, seed {seed}")
                resume = (folder / "recipe.resolved.yaml").exists()
                train(network_recipe(name, seed), source, folder, resume=resume, console=console)
            kept = output / folder.name
            kept.mkdir(parents=True, exist_ok=True)
            for file in KEPT:
                shutil.copyfile(folder / file, kept / file)
            summarise(output)


def summarise(output: Path) -> list[dict[str, Any]]:
    """Write `summary.csv` and `curves.png` from the runs that are there; return the rows."""
    from signbit.plots import plot_comparison

    rows, histories = [], {}
    for name in NETWORKS:
        folders = sorted(output.glob(f"{name}-[0-9]*"))
        if not folders:
            continue
        metrics = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
        histories[name] = [_history(folder / "metrics.csv") for folder in folders]
        row: dict[str, Any] = {"network": name, "runs": len(folders)}
        for key in ("test_accuracy", "val_accuracy"):
            values = [100 * run[key] for run in metrics]
            row[f"{key}_mean"] = round(statistics.mean(values), 2)
            row[f"{key}_std"] = round(statistics.stdev(values), 2) if len(values) > 1 else ""
            row[f"{key}_min"], row[f"{key}_max"] = round(min(values), 2), round(max(values), 2)
        row["minutes"] = round(statistics.median(m["training_seconds"] for m in metrics) / 60, 1)
        rows.append(row)
    if rows:
        with (output / "summary.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        plot_comparison(histories, output / "curves.png", "JPEG CIFAR-10, narrow networks")
    return rows


def _history(path: Path) -> list[dict[str, float]]:
    with path.open() as file:
        return [
            {"epoch": int(row["epoch"]), "val_accuracy": float(row["val_accuracy"])}
            for row in csv.DictReader(file)
        ]


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("network", "runs", "test accuracy", "range", "minutes a run")
    for row in rows:
        mean, std = row["test_accuracy_mean"], row["test_accuracy_std"]
        spread = f"{row['test_accuracy_min']:.2f}-{row['test_accuracy_max']:.2f}"
        accuracy = f"{mean:.2f}" if std == "" else f"{mean:.2f} +- {std:.2f}"
        table.add_row(row["network"], str(row["runs"]), accuracy, spread, str(row["minutes"]))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10, as for `signbit train`")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/ab_cifar10"))
    parser.add_argument("--output", type=Path, default=Path("results/ab_cifar10"))
    parser.add_argument("--summary", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if not arguments.summary:
        if arguments.data is None:
            parser.error("--data is needed: the folder of CIFAR-10")
        train_missing(
            arguments.networks,
            arguments.seeds,
            arguments.data,
            arguments.runs,
            arguments.output,
        )
    Console().print(_table(summarise(arguments.output)))


if __name__ == "__main__":
    main()
