"""Two images side by side, with lines between what was matched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from signbit.plots.figure import BLUE, GREEN, finish, new_figure

_RED = "#c0202a"
_WIDTH = 12.0  # inches
_GAP = 12  # pixels between the images


def plot_matches(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    origin: NDArray[np.floating],
    found: NDArray[np.floating],
    path: str | Path | None = None,
    *,
    right: NDArray[np.bool_] | None = None,
    most: int = 300,
) -> bytes:
    """Draw matches of two images: green where right, red where wrong, blue where nobody knows.

    Args:
        first, second: uint8 [H, W, C], C 1 or 3, of any sizes.
        origin, found: [N, 2], points (x, y) of the first image and their partners in the second.
        path: where to save the PNG, if anywhere.
        right: bool [N], which matches are right; None if that is not known.
        most: of more matches only the first so many are drawn; the title counts all.

    Returns:
        The PNG's bytes.

    Raises:
        ValueError: the numbers of points differ.
    """
    if len(origin) != len(found) or (right is not None and len(right) != len(origin)):
        raise ValueError(
            f"{len(origin)} points, {len(found)} partners"
            + ("" if right is None else f" and {len(right)} judgements")
        )
    canvas, shift = _side_by_side(first, second)
    height, width = canvas.shape[:2]
    figure = new_figure(_WIDTH, _WIDTH * height / width + 0.4)
    axes = figure.subplots()
    axes.imshow(canvas)
    axes.axis("off")
    ends = np.stack([origin, np.asarray(found) + np.array([shift, 0])], 1)[:most]
    if right is None:
        colours = [BLUE] * len(ends)
        title = f"{len(origin)} matches"
    else:
        colours = [GREEN if good else _RED for good in right[:most]]
        title = f"{len(origin)} matches, {int(np.sum(right))} right (green)"
    if len(origin) > most:
        title += f"; {most} drawn"
    axes.add_collection(LineCollection(list(ends), colors=colours, linewidths=0.6, alpha=0.7))
    axes.scatter(*ends.reshape(-1, 2).T, s=4, c=np.repeat(np.array(colours), 2), linewidths=0)
    axes.set_title(title, fontsize=10)
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    return finish(figure, path)


def _side_by_side(
    first: NDArray[np.uint8], second: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], int]:
    """Both on white, and the column where the second one begins."""
    shift = first.shape[1] + _GAP
    shape = (max(len(first), len(second)), shift + second.shape[1], 3)
    canvas = np.full(shape, 255, np.uint8)
    canvas[: len(first), : first.shape[1]] = first
    canvas[: len(second), shift:] = second
    return canvas, shift
