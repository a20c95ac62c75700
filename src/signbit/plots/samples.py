"""A grid of images with what was predicted for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signbit.plots.figure import finish, new_figure


def plot_samples(
    images: NDArray[np.uint8],
    labels: Sequence[int] | NDArray[np.int64],
    predictions: Sequence[int] | NDArray[np.int64],
    class_names: Sequence[str],
    path: str | Path | None = None,
    *,
    columns: int = 10,
) -> bytes:
    """Draw images with their predicted classes; wrong ones in red, with the right class behind.

    Args:
        images: uint8 [N, H, W, C], C 1 or 3.
        labels, predictions: N class indices each.
        class_names: what the indices are called.
        path: where to save the PNG, if anywhere.
        columns: images a row.

    Returns:
        The PNG's bytes.

    Raises:
        ValueError: no image, or the counts differ.
    """
    if not len(images) or not len(images) == len(labels) == len(predictions):
        raise ValueError(
            f"{len(images)} images, {len(labels)} labels and {len(predictions)} predictions"
        )
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(1.15 * columns, 1.35 * rows)
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, image, label, prediction in zip(
        figure.axes, images, labels, predictions, strict=False
    ):
        grey = image.shape[2] == 1
        axes.imshow(image[..., 0] if grey else image, cmap="gray" if grey else None)
        right = label == prediction
        text = str(class_names[prediction])
        axes.set_title(
            text if right else f"{text} ({class_names[label]})",
            fontsize=8,
            color="black" if right else "#c0202a",
        )
    return finish(figure, path)
