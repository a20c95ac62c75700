"""Resizing by weighted sums of neighbours, in NumPy alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from signbit.errors import SessionError

_BLOCK = 16  # rows that are made at a time


def resize_image(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale an image, bilinear, and antialiased where it becomes smaller.

    Within one level the same as Pillow's ``resize(..., BILINEAR)``, which training data are
    scaled by.

    Args:
        image: uint8 [H, W, C].
        size: (height, width) of the result.

    Returns:
        uint8 [height, width, C].
    """
    if image.shape[:2] == size:
        return image
    rows = _scale_rows(image, size[0])
    columns = _scale_rows(np.ascontiguousarray(rows.transpose(1, 0, 2)), size[1])
    return np.clip(np.rint(columns.transpose(1, 0, 2)), 0, 255).astype(np.uint8)


def _scale_rows(image: NDArray[np.uint8 | np.float32], count: int) -> NDArray[np.float32]:
    """[H, W, C] -> float32 [count, W, C]: each row a mean of those that it covers."""
    height = len(image)
    step = height / count
    reach = max(1.0, step)  # of the triangle that weighs the rows
    flat = image.reshape(height, -1)
    out = np.empty((count, flat.shape[1]), np.float32)
    for start in range(0, count, _BLOCK):
        centres = (np.arange(start, min(count, start + _BLOCK))[:, None] + 0.5) * step
        first = max(0, math.floor(centres[0, 0] - reach))
        last = min(height, math.ceil(centres[-1, 0] + reach))
        distances = np.abs(np.arange(first, last) + 0.5 - centres) / reach
        weights = np.maximum(0, 1 - distances)
        weights /= weights.sum(1, keepdims=True)
        rows = flat[first:last].astype(np.float32)
        out[start : start + _BLOCK] = weights.astype(np.float32) @ rows
    return out.reshape(count, *image.shape[1:])


def check_image(image: NDArray[np.uint8], channels: int, least: int, name: str) -> None:
    """Raise SessionError where an image cannot be given to a network for dense predictions.

    Args:
        image: what should be uint8 [H, W, C] pixels.
        channels: as the network takes them.
        least: pixels that each side must have.
        name: what errors call the network's file.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
        raise SessionError(
            f"{name}: expected one image of uint8 pixels [H, W, {channels}], got {image.dtype} "
            f"{image.shape}"
        )
    if min(image.shape[:2]) < least:
        raise SessionError(
            f"{name}: an image of {image.shape[1]}x{image.shape[0]} pixels is too small: one pixel "
            f"of the network's coarsest map stands for {least}x{least}"
        )
