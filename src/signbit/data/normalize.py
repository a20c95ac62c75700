"""Pixels to normalised values, exactly as the engine does it.

A value is ``((v / 255) - mean) / std``: three float32 operations in that order. A byte has 256
values, so both sides use a table of 256 entries a channel, and training sees the very numbers
that the engine will see.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def normalization_table(mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """The normalised value of every byte: float32 [C, 256].

    Raises:
        ValueError: ``mean`` and ``std`` differ in length, or a deviation is not positive.
    """
    if len(mean) != len(std):
        raise ValueError(f"{len(mean)} means but {len(std)} standard deviations")
    means = np.asarray(mean, np.float32)[:, None]
    stds = np.asarray(std, np.float32)[:, None]
    if not (stds > 0).all():
        raise ValueError(f"every standard deviation must be positive, got {list(std)}")
    return ((np.arange(256, dtype=np.float32) / np.float32(255)) - means) / stds


def normalize(
    images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """Normalise pixels.

    Args:
        images: uint8 [N, H, W, C].
        mean, std: C numbers each, in units of [0, 1].

    Returns:
        float32 [N, C, H, W]: a view whose memory is in NHWC order ("channels last").

    Raises:
        ValueError: wrong dtype, rank or number of channels.
    """
    return apply_table(images, normalization_table(mean, std))


def apply_table(images: NDArray[np.uint8], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """:func:`normalize` with a table made beforehand by :func:`normalization_table`."""
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ValueError(f"expected uint8 [N, H, W, C], got {images.dtype} {images.shape}")
    if images.shape[3] != len(table):
        raise ValueError(f"{images.shape[3]} channels but statistics for {len(table)}")
    out = np.empty(images.shape, np.float32)
    for channel, values in enumerate(table):
        out[..., channel] = values[images[..., channel]]
    return out.transpose(0, 3, 1, 2)
