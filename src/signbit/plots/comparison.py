"""How networks that were trained the same way compare, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from signbit.plots.figure import finish, new_figure

_COLOURS = (
    "#2f6db3", "#d9822b", "#3f9b5f", "#b0413e", "#7b5ea7", "#8a8f98", "#1f1f1f", "#17a2a8",
)  # fmt: skip


def plot_comparison(
    runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    path: str | Path | None = None,
    title: str = "",
) -> bytes:
    """Draw the validation accuracy of several networks, each trained with some seeds.

    Args:
        runs: of each network, the histories of its runs: rows with ``epoch`` and ``val_accuracy``
            in [0, 1].
        path: where to save the PNG, if anywhere.
        title: written above.

    Returns:
        The PNG's bytes. A line is the mean over the runs, the band around it their range.

    Raises:
        ValueError: there is no network, or one without an epoch.
    """
    if not runs or not all(histories and all(histories) for histories in runs.values()):
        raise ValueError("no epoch to draw")
    figure = new_figure(8, 4.6)
    axes = figure.subplots()
    for index, (name, histories) in enumerate(runs.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        columns = list(zip(*histories, strict=False))  # of unfinished runs, what all of them have
        epochs = [column[0]["epoch"] for column in columns]
        values = [[100 * row["val_accuracy"] for row in column] for column in columns]
        means = [sum(column) / len(column) for column in values]
        axes.plot(epochs, means, color=colour, marker=".", label=f"{name} ({means[-1]:.1f} %)")
        axes.fill_between(
            epochs, list(map(min, values)), list(map(max, values)), color=colour, alpha=0.15, lw=0
        )
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy (%)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    if title:
        axes.set_title(title, fontsize=10)
    return finish(figure, path)
