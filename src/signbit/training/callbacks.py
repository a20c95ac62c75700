"""What a run writes down while it goes on."""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.markup import escape

from signbit.training.checkpoint import save_tensors
from signbit.training.files import write_text
from signbit.training.module import StagedModule


class History(pl.Callback):
    """One row an epoch: kept in the checkpoint, written to ``metrics.csv``, printed.

    Being part of the checkpoint, the file of a resumed run has every epoch exactly once.
    """

    def __init__(self, path: Path, console: Console) -> None:
        self.path = path
        self.console = console
        self.rows: list[dict[str, Any]] = []
        self._started = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StagedModule)
        metrics, task = trainer.callback_metrics, pl_module.task
        scores = [f"val_{name}" for name in task.units if name != "loss"]
        columns = ["train_loss", f"train_{task.metric}", "val_loss", *scores]
        row = {
            "epoch": trainer.current_epoch + 1,
            "stage": pl_module.stage.name,
            "lr": pl_module.learning_rate,
            # Few tasks have a score of training batches.
            **{name: float(metrics[name]) for name in columns if name in metrics},
            "seconds": round(time.perf_counter() - self._started, 3),
        }
        self.rows.append(row)
        if not trainer.is_global_zero:
            return
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, buffer.getvalue())
        self._print(row, pl_module)

    def _print(self, row: dict[str, Any], module: StagedModule) -> None:
        task, epochs, temperature = module.task, module.recipe.epochs, module.temperature
        soft = f"  weights soft (T {temperature:.1e})" if temperature else ""
        left = (epochs - row["epoch"]) * row["seconds"]
        name = {"accuracy": "acc"}.get(task.metric, task.metric)
        scores = {
            split: f"{name} {task.units[task.metric].format(row[f'{split}_{task.metric}']):>6}"
            for split in ("train", "val")
            if f"{split}_{task.metric}" in row
        }
        self.console.print(
            f"epoch {row['epoch']:>3}/{epochs} [cyan]{escape(row['stage'])}[/]  "
            f"train loss {row['train_loss']:.3f} {scores.get('train', '')}  "
            f"val loss {row['val_loss']:.3f} [bold]{scores['val']}[/]  "
            f"lr {row['lr']:.1e}  {row['seconds']:.1f} s, about {left / 60:.1f} min left"
            f"{soft}",
            markup=True,
            highlight=False,
            soft_wrap=True,
        )


class BestWeights(pl.Callback):
    """Keeps the weights of the last stage's epoch with the highest score in validation.

    Only the last stage counts: scores with real weights say nothing of the binary network. Of
    equal epochs the earliest is kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.score = -math.inf
        self.epoch: int | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.epoch = state_dict["score"], state_dict["epoch"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, StagedModule)
        score = float(trainer.callback_metrics[f"val_{pl_module.task.metric}"])
        last_stage = pl_module.stage_index == len(pl_module.recipe.stages) - 1
        score = -math.inf if math.isnan(score) else score
        if last_stage and (self.epoch is None or score > self.score):
            self.score, self.epoch = score, trainer.current_epoch + 1
            if trainer.is_global_zero:
                save_tensors(self.path, pl_module.model.state_dict())
