"""An enlarged picture beside simpler enlargements, with a part of it magnified."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from signbit.plots.figure import ORANGE, finish, new_figure


def plot_enlargement(
    image: NDArray[np.uint8],
    enlarged: NDArray[np.uint8],
    path: str | Path | None = None,
    *,
    crop: tuple[int, int, int, int] | None = None,
    truth: NDArray[np.uint8] | None = None,
) -> bytes:
    """Draw an enlarged picture, and a crop of it beside nearest and bicubic enlargements.

    Args:
        image: uint8 [H, W, 3], what was enlarged.
        enlarged: uint8 [s H, s W, 3], s a whole number.
        path: where to save the PNG, if anywhere.
        crop: (top, left, height, width) of the crop, in pixels of ``image``; None for
            :func:`busiest_crop`.
        truth: the picture that ``image`` was made of, like ``enlarged``, to be drawn last.

    Returns:
        The PNG's bytes.

    Raises:
        ValueError: the sizes do not fit, or the crop lies outside of the image.
    """
    height, width = image.shape[:2]
    scale = enlarged.shape[0] // height
    for what, picture in (("enlarged", enlarged), ("truth", truth)):
        if picture is not None and picture.shape != (scale * height, scale * width, 3):
            raise ValueError(
                f"{what} has shape {picture.shape}, no multiple of the image's {image.shape}"
            )
    top, left, tall, wide = busiest_crop(image) if crop is None else crop
    if not (0 <= top < top + tall <= height and 0 <= left < left + wide <= width):
        raise ValueError(f"the crop {crop} is not within the image's {height}x{width} pixels")
    small = Image.fromarray(image)
    size = (scale * width, scale * height)
    shown = {
        "nearest": np.asarray(small.resize(size, Image.Resampling.NEAREST)),
        "bicubic": np.asarray(small.resize(size, Image.Resampling.BICUBIC)),
        f"network, x{scale}": enlarged,
    }
    if truth is not None:
        shown["original"] = truth
    side = 3.0  # of a crop, in inches
    whole = side * width / height
    figure = new_figure(whole + side * wide / tall * len(shown), side + 0.3)
    first, *others = figure.subplots(
        1, 1 + len(shown), width_ratios=[whole] + [side * wide / tall] * len(shown)
    )
    first.imshow(enlarged)
    first.add_patch(
        Rectangle(
            (scale * left - 0.5, scale * top - 0.5), scale * wide, scale * tall,
            fill=False, edgecolor=ORANGE, linewidth=2,
        )
    )  # fmt: skip
    first.set_title(f"{size[0]}x{size[1]} pixels, from {width}x{height}", fontsize=8)
    rows, columns = (
        slice(scale * top, scale * (top + tall)),
        slice(scale * left, scale * (left + wide)),
    )
    for axes, (name, picture) in zip(others, shown.items(), strict=True):
        axes.imshow(picture[rows, columns], interpolation="nearest")
        axes.set_title(name, fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()
    return finish(figure, path)


def busiest_crop(image: NDArray[np.uint8], share: int = 5) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the square of an image that has most edges.

    Its side is the shorter side of the image over ``share``, at least 16 pixels where there are as
    many. Edges are absolute differences of neighbouring grey values.
    """
    height, width = image.shape[:2]
    side = min(height, width, max(16, min(height, width) // share))
    grey = image.astype(np.float64).mean(2)
    edges = np.zeros((height, width))
    edges[:, 1:] += np.abs(np.diff(grey, axis=1))
    edges[1:] += np.abs(np.diff(grey, axis=0))
    summed = np.pad(edges, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    found = summed[side:, side:] - summed[:-side, side:] - summed[side:, :-side]
    found = found + summed[:-side, :-side]
    top, left = np.unravel_index(int(found.argmax()), found.shape)
    return int(top), int(left), side, side
