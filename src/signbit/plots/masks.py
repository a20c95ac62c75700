"""An image under the colours of its mask, with a legend of the classes in it."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.patches import Patch
from numpy.typing import NDArray

from signbit.plots.figure import finish, new_figure

_OPACITY = 0.55
_LEAST = 0.0005  # share of the pixels below which a class has no place in the legend


def plot_mask(
    image: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    class_names: Sequence[str],
    path: str | Path | None = None,
    *,
    truth: NDArray[np.uint8] | None = None,
) -> bytes:
    """Draw an image, the image under its mask, and the classes in it with their shares.

    Args:
        image: uint8 [H, W, C], C 1 or 3.
        mask: uint8 [H, W], class indices; pixels of others, such as void, stay as they are.
        class_names: what the indices are called.
        path: where to save the PNG, if anywhere.
        truth: the right mask, like ``mask``, to be drawn last.

    Returns:
        The PNG's bytes.

    Raises:
        ValueError: a mask of another size than the image.
    """
    height, width = image.shape[:2]
    masks = {"mask": mask} if truth is None else {"mask": mask, "truth": truth}
    for what, each in masks.items():
        if each.shape != (height, width):
            raise ValueError(f"{what} has shape {each.shape}, the image {image.shape}")
    colours = class_colours(len(class_names))
    shown = {"image": np.repeat(image, 3, 2) if image.shape[2] == 1 else image}
    shown |= {what: overlay(image, each, colours) for what, each in masks.items()}
    side = 3.0  # height of a picture, in inches
    legend = 1.6
    across = side * width / height
    figure = new_figure(across * len(shown) + legend, side + 0.25)
    *pictures, words = figure.subplots(
        1, len(shown) + 1, width_ratios=[across] * len(shown) + [legend]
    )
    for axes, (what, picture) in zip(pictures, shown.items(), strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(what, fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()
    shares = class_shares(mask, len(class_names))
    most = [i for i in np.argsort(-shares, kind="stable") if shares[i] >= _LEAST]
    words.legend(
        handles=[
            Patch(color=colours[i] / 255, label=f"{class_names[i]} {shares[i]:.1%}") for i in most
        ],
        loc="upper left",
        fontsize=8,
        frameon=False,
    )
    return finish(figure, path)


def class_shares(mask: NDArray[np.uint8], classes: int) -> NDArray[np.float64]:
    """The share of the pixels that each of ``classes`` has in a mask: float64 [classes]."""
    return np.bincount(mask.ravel(), minlength=256)[:classes] / mask.size


def class_colours(count: int) -> NDArray[np.uint8]:
    """``count`` colours that differ from those before them: uint8 [count, 3]."""
    colours = [
        colorsys.hsv_to_rgb(0.58 + i * 0.618034, (0.9, 0.55)[i % 2], (0.95, 0.8, 0.6)[i % 3])
        for i in range(count)
    ]
    return np.rint(np.array(colours).reshape(count, 3) * 255).astype(np.uint8)


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], colours: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """An image [H, W, C] tinted with the colours of its mask's classes: uint8 [H, W, 3]."""
    table = np.zeros((256, 3))
    table[: len(colours)] = colours
    opacity = np.where(mask < len(colours), _OPACITY, 0.0)[..., None]
    return np.rint(image * (1 - opacity) + table[mask] * opacity).astype(np.uint8)
