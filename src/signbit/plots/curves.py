"""Loss, score and learning rate over the epochs of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from signbit.plots.figure import BLUE, GREY, ORANGE, finish, new_figure


def plot_curves(
    history: Sequence[Mapping[str, Any]], path: str | Path | None = None, title: str = ""
) -> bytes:
    """Draw a run's history.

    Args:
        history: rows with the columns of ``metrics.csv``; accuracies in [0, 1]. The score is the
            first column behind the losses; few tasks have one of training images too.
        path: where to save the PNG, if anywhere.
        title: written above.

    Returns:
        The PNG's bytes. Stages are set apart by dotted lines and named.

    Raises:
        ValueError: there is no row.
    """
    if not history:
        raise ValueError("no epoch to draw")
    epochs = [row["epoch"] for row in history]
    figure = new_figure(11, 3.4)
    loss, score, rate = figure.subplots(1, 3)
    scores = [key for key in history[0] if key.startswith("val_") and key != "val_loss"]
    metric = (scores or ["val_accuracy"])[0].removeprefix("val_")
    classifies = metric == "accuracy"
    for axes, name, scale in ((loss, "loss", 1), (score, metric, 100 if classifies else 1)):
        for split, colour in (("train", BLUE), ("val", ORANGE)):
            if split == "val" or name == "loss" or f"{split}_{name}" in history[0]:
                values = [row[f"{split}_{name}"] * scale for row in history]
                axes.plot(epochs, values, color=colour, label=split, marker=_marker(epochs))
        axes.legend(frameon=False)
    loss.set_title("loss (nats)" if classifies else "loss")
    score.set_title("accuracy (%)" if classifies else metric)
    rate.plot(epochs, [row["lr"] for row in history], color=GREY, marker=_marker(epochs))
    rate.set_title("learning rate")
    rate.set_ylim(bottom=0)
    for axes in (loss, score, rate):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.25)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _mark_stages(axes, history)
    figure.suptitle(title)
    return finish(figure, path)


def _marker(epochs: Sequence[int]) -> str:
    return "." if len(epochs) <= 30 else ""


def _mark_stages(axes: Any, history: Sequence[Mapping[str, Any]]) -> None:
    stages = [(name, list(rows)) for name, rows in groupby(history, lambda row: row["stage"])]
    if len(stages) < 2:
        return
    for index, (name, rows) in enumerate(stages):  # at two heights: short stages lie close
        start = rows[0]["epoch"] - 0.5
        axes.axvline(start, color=GREY, linestyle=":", linewidth=1)
        axes.annotate(
            name, (start, 0.02), xycoords=("data", "axes fraction"), fontsize=7, color=GREY,
            xytext=(3, 9 * (index % 2)), textcoords="offset points",
        )  # fmt: skip
