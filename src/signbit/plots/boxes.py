"""An image with the boxes of what was found in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from signbit.plots.figure import finish, new_figure

_COLOURS = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#f032e6",
    "#808000", "#000075",
)  # fmt: skip
_WIDTH, _HEIGHT = 8.0, 7.0  # most inches of the image
_LEGEND = 12  # most classes that are named below it


def plot_boxes(
    image: NDArray[np.uint8],
    boxes: Sequence[Sequence[float]] | NDArray[np.float32],
    labels: Sequence[int] | NDArray[np.int64],
    scores: Sequence[float] | NDArray[np.float32] | None,
    class_names: Sequence[str],
    path: str | Path | None = None,
) -> bytes:
    """Draw boxes in their classes' colours, with scores; classes and counts stand below.

    The image is enlarged to about 900 pixels, so that small ones can be read.

    Args:
        image: uint8 [H, W, C], C 1 or 3.
        boxes: K times left, top, right, bottom, in pixels of the image; edges.
        labels: K class indices.
        scores: K numbers in 0..1; None where boxes are not predictions.
        class_names: what the indices are called.
        path: where to save the PNG, if anywhere.

    Returns:
        The PNG's bytes.

    Raises:
        ValueError: the counts differ.
    """
    if not len(boxes) == len(labels) == (len(boxes) if scores is None else len(scores)):
        given = "no" if scores is None else len(scores)
        raise ValueError(f"{len(boxes)} boxes, {len(labels)} labels and {given} scores")
    height, width = image.shape[:2]
    scale = min(_WIDTH / width, _HEIGHT / height)
    present = [label for label in range(len(class_names)) if label in set(map(int, labels))]
    rows = -(-min(len(present), _LEGEND) // 4)
    figure = new_figure(width * scale, height * scale + 0.25 * rows + 0.1)
    axes = figure.subplots()
    axes.imshow(
        image[..., 0] if image.shape[2] == 1 else image,
        cmap="gray" if image.shape[2] == 1 else None,
        extent=(0, width, height, 0),  # pixel i lies between i and i + 1
    )
    axes.set_axis_off()
    for index in range(len(boxes)):
        left, top, right, bottom = (float(value) for value in boxes[index])
        colour = _COLOURS[int(labels[index]) % len(_COLOURS)]
        # A light line below, so that every colour shows on every ground.
        for line, thickness in (("white", 2.8), (colour, 1.6)):
            axes.add_patch(
                Rectangle(
                    (left, top), right - left, bottom - top,
                    fill=False, edgecolor=line, linewidth=thickness,
                )
            )  # fmt: skip
        if scores is not None:
            _write(axes, f"{100 * float(scores[index]):.0f}", left, top, colour)
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    if present:
        _add_legend(figure, present, labels, class_names)
    return finish(figure, path)


def _write(axes, text: str, left: float, top: float, colour: str) -> None:
    """A score within the upper left corner of a box, where no other box's corner is likely."""
    axes.text(
        max(left, 0), max(top, 0), text,
        fontsize=7, color="white", va="top", ha="left", clip_on=True,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
    )  # fmt: skip


def _add_legend(
    figure,
    present: Sequence[int],
    labels: Sequence[int] | NDArray[np.int64],
    class_names: Sequence[str],
) -> None:
    counts = np.bincount(np.asarray(labels, np.int64), minlength=len(class_names))
    named = sorted(present, key=lambda label: -counts[label])[:_LEGEND]
    handles = [
        Patch(color=_COLOURS[label % len(_COLOURS)], label=f"{class_names[label]}: {counts[label]}")
        for label in named
    ]
    rest = len(present) - len(named)
    if rest:
        handles.append(Patch(color="none", label=f"and {rest} more classes"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4, fontsize=9, frameon=False,
        handlelength=1.2,
    )  # fmt: skip
