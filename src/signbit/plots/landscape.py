"""Contours of the loss around trained weights, networks side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from numpy.typing import NDArray

from signbit.plots.figure import finish, new_figure

_COLUMNS = 4  # panels a row
_LEVELS = 25
_TITLE = 40  # letters
_COLOURS = "viridis"
_NOT_FINITE = "#d5d7da"


def plot_landscape(
    panels: Sequence[Mapping[str, Any]],
    positions: NDArray[np.float64],
    path: str | Path | None = None,
    title: str = "",
    *,
    floor: float = 1e-8,
) -> bytes:
    """Draw loss landscapes with common levels and colours, on a logarithmic scale.

    Args:
        panels: one a network: ``name``; ``loss`` [S, S] in nats, row i at y = positions[i], column
            j at x = positions[j]; ``at_centre`` and ``note``, texts above and below the contours.
        positions: the values of x and of y, [S].
        path: where to save the PNG, if anywhere.
        title: written above.
        floor: smaller losses are drawn as this one, which has a logarithm.

    Returns:
        The PNG's bytes. Points that are not finite are grey, and counted below; a cross marks the
        trained weights.

    Raises:
        ValueError: there is no panel, or one whose losses are not [S, S].
    """
    if not panels:
        raise ValueError("no landscape to draw")
    side = len(positions)
    for panel in panels:
        if panel["loss"].shape != (side, side):
            raise ValueError(
                f"{panel['name']}: losses of shape {panel['loss'].shape} at {side} positions"
            )
    losses = [_drawable(panel["loss"], floor) for panel in panels]
    levels = _levels(losses)
    norm = LogNorm(levels[0], levels[-1])
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(max(3.5 * columns + 1.1, 6.0), 3.9 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, panel, loss in zip(grid.flat, panels, losses, strict=False):
        _draw(axes, panel, loss, positions, levels, norm)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("y, along the second direction")
    colours = figure.colorbar(
        ScalarMappable(norm, _COLOURS), ax=list(grid.flat), pad=0.02, aspect=25 * rows
    )
    colours.set_label("loss (nats)")
    colours.set_ticks(levels[::4], labels=[f"{level:.3g}" for level in levels[::4]])
    colours.minorticks_off()
    if title:
        figure.suptitle(title, fontsize=9)
    return finish(figure, path)


def _drawable(loss: NDArray[np.float64], floor: float) -> np.ma.MaskedArray:
    return np.ma.maximum(np.ma.masked_invalid(loss), floor)


def _levels(losses: Sequence[np.ma.MaskedArray]) -> NDArray[np.float64]:
    """Losses, ascending, in equal steps of the logarithm from the least to the largest."""
    finite = np.concatenate([loss.compressed() for loss in losses])
    low, high = (finite.min(), finite.max()) if len(finite) else (1.0, 1.0)
    return np.geomspace(low, max(high, 1.01 * low), _LEVELS)


def _draw(
    axes: Axes,
    panel: Mapping[str, Any],
    loss: np.ma.MaskedArray,
    positions: NDArray[np.float64],
    levels: NDArray[np.float64],
    norm: LogNorm,
) -> None:
    axes.set_facecolor(_NOT_FINITE)
    missing = int(np.ma.count_masked(loss))
    if missing < loss.size:
        axes.contourf(positions, positions, loss, levels, norm=norm, cmap=_COLOURS)
        _draw_lines(axes, loss, positions, levels)
    axes.plot(0, 0, marker="+", color="black", markersize=9, markeredgewidth=1.5)
    axes.set_xlim(positions[0], positions[-1])
    axes.set_ylim(positions[0], positions[-1])
    ticks = np.linspace(positions[0], positions[-1], 5)
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.set_aspect("equal")
    axes.set_title(f"{_short(panel['name'])}\n{panel['at_centre']}", fontsize=9)
    grey = f"\n{missing} of {loss.size} points are not finite (grey)" if missing else ""
    axes.set_xlabel(f"x, along the first direction\n{panel['note']}{grey}", fontsize=9)


def _draw_lines(
    axes: Axes,
    loss: np.ma.MaskedArray,
    positions: NDArray[np.float64],
    levels: NDArray[np.float64],
) -> None:
    """The levels as lines, every fourth with its number."""
    inside = (levels > loss.min()) & (levels < loss.max())
    drawn, numbered = levels[inside], levels[::4][inside[::4]]
    if len(drawn):
        style = {"colors": "white", "linewidths": 0.5, "alpha": 0.8}
        lines = axes.contour(positions, positions, loss, drawn, **style)
        axes.clabel(lines, numbered, fontsize=6, fmt="%.3g")


def _short(name: str) -> str:
    """A name as a title: the end of a long one, as of a path, and no formulas."""
    name = name if len(name) <= _TITLE else f"...{name[3 - _TITLE :]}"
    return name.replace("$", r"\$")
