"""Comparisons of networks on CIFAR-10, each trained with several seeds.

Runs that are complete are passed over, and one that broke off goes on, so that a comparison may be
started again at any time. Written to `--output`: a folder a run (resolved recipe, metrics, curves,
versions), `summary.csv` and `curves.png`. Weights and checkpoints stay in `--runs`.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from signbit.training import Recipe

KEPT = ("recipe.resolved.yaml", "metrics.csv", "metrics.json", "curves.png", "versions.json")


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        title: of the picture.
        folder: name of its folder in `runs` and `results`.
        networks: the names, in the table's order.
        recipe: of a name, a seed and the folder of the runs, the recipe.
    """

    title: str
    folder: str
    networks: tuple[str, ...]
    recipe: Callable[[str, int, Path], Recipe]

    def main(self, doc: str) -> None:
        """The command line: train what is missing, then print the table."""
        parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
        parser.add_argument("--data", type=Path, help="folder of CIFAR-10, as for `signbit train`")
        parser.add_argument("--networks", nargs="+", choices=self.networks, default=self.networks)
        parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
        parser.add_argument("--runs", type=Path, default=Path("runs") / self.folder)
        parser.add_argument("--output", type=Path, default=Path("results") / self.folder)
        parser.add_argument("--summary", action="store_true", help="train nothing")
        given = parser.parse_args()
        if not given.summary:
            if given.data is None:
                parser.error("--data is needed: the folder of CIFAR-10")
            self.train_missing(given.networks, given.seeds, given.data, given.runs, given.output)
        Console().print(_table(self.summarise(given.output)))

    def train_missing(
        self, names: Iterable[str], seeds: Iterable[int], data: Path, runs: Path, output: Path
    ) -> None:
        """Train what is not complete, all networks of a seed before the next seed."""
        from signbit.data import load_source
        from signbit.training import train

        console = Console(stderr=True)
        source = load_source("cifar10", data)
        for seed in seeds:
            for name in names:
                folder = runs / f"{name}-{seed}"
                trained = not (folder / "metrics.json").exists()
                if trained:
                    console.rule(f"{name}, seed {seed}")
                    resume = (folder / "recipe.resolved.yaml").exists()
                    recipe = self.recipe(name, seed, runs)
                    train(recipe, source, folder, resume=resume, console=console)
                kept = output / folder.name
                kept.mkdir(parents=True, exist_ok=True)
                for file in KEPT:
                    shutil.copyfile(folder / file, kept / file)
                if trained:
                    self.summarise(output)

    def summarise(self, output: Path) -> list[dict[str, Any]]:
        """Write `summary.csv` and `curves.png` from the runs that are there; return the rows."""
        from signbit.plots import plot_comparison

        rows, histories = [], {}
        for name in self.networks:
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
            row["minutes"] = round(
                statistics.median(m["training_seconds"] for m in metrics) / 60, 1
            )
            rows.append(row)
        if rows:
            with (output / "summary.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
            plot_comparison(histories, output / "curves.png", self.title)
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
