"""Masks from a network's scores. Needs NumPy and nothing else.

A network for segmentation gives a score a class for every few pixels. They are enlarged to the size
of the image, between their centres, and the class with the best score is a pixel's.

>>> mask = segment(session, image)                                      # doctest: +SKIP
>>> (mask == session.metadata["class_names"].index("Road")).mean()      # doctest: +SKIP
0.31
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from signbit.errors import FormatError
from signbit.runtime.resize import check_image, resize_image

if TYPE_CHECKING:
    from signbit.runtime.session import Session

_LARGEST = 1 << 16  # side of an image that a file may ask for, in pixels
_BAND = 128  # rows that are enlarged at a time, so that large images take little memory


def segment(session: Session, image: NDArray[np.uint8], resize: bool = True) -> NDArray[np.uint8]:
    """The class of every pixel of an image.

    Args:
        session: of a network that was trained for segmentation.
        image: uint8 [H, W, C] pixels.
        resize: scale the image to the size that the network was trained on, if its data were
            scaled to one. Otherwise it is taken as it is, which suits networks and images in which
            things are of the same size in pixels.

    Returns:
        uint8 [H, W], indices of ``session.metadata["class_names"]``.

    Raises:
        SessionError: not such an image, or too small for the network.
        FormatError: the file was not made for segmentation.
    """
    facts = _facts(session)
    image = np.asarray(image)
    size = facts["image_size"] if resize else None
    least = 1 if size else facts["stride"]
    check_image(image, session.input_shape[0], least, str(session))
    pixels = image if size is None else resize_image(image, tuple(size))
    scores = session(pixels)
    if isinstance(scores, tuple) or scores.ndim != 4:
        raise FormatError(f"{session}: expected one map of scores, as of segmentation")
    return mask_of_scores(scores[0], image.shape[:2])


def _facts(session: Session) -> Mapping[str, Any]:
    facts = session.metadata.get("decode")
    if session.metadata.get("task") != "segmentation" or not isinstance(facts, dict):
        raise FormatError(
            f"{session}: made for {session.metadata.get('task')!r}, not for segmentation"
        )
    size, stride = facts.get("image_size"), facts.get("stride")
    pair = [] if size is None else size
    fits = isinstance(pair, list) and len(pair) in (0, 2)
    if not fits or not all(type(s) is int and 1 <= s <= _LARGEST for s in [stride, *pair]):
        raise FormatError(f"{session}: header: __metadata__.decode has no sizes: {str(facts)[:80]}")
    return facts


def mask_of_scores(scores: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Enlarge scores, bilinear between pixel centres, and take the best class of every pixel.

    Args:
        scores: [C, h, w].
        size: (height, width) of the mask.

    Returns:
        uint8 [height, width]; of equal scores the first class's.
    """
    classes, height, width = scores.shape
    upper, lower, down = _between(height, size[0])
    left, right, across = _between(width, size[1])
    rows = scores.astype(np.float32)
    rows = rows[..., left] * (1 - across) + rows[..., right] * across  # [C, h, W]
    mask = np.zeros(size, np.uint8)
    for first in range(0, size[0], _BAND):
        band = slice(first, first + _BAND)
        over, under, share = upper[band], lower[band], down[band, None]
        best = np.full((len(over), size[1]), -np.inf, np.float32)
        for index in range(classes):
            score = rows[index, over] * (1 - share) + rows[index, under] * share
            # numpy.argmax takes three times as long. A better class that comes later has a larger
            # number.
            better = (score > best).view(np.uint8) * np.uint8(index)
            np.maximum(mask[band], better, out=mask[band])
            np.maximum(best, score, out=best)
    return mask


def _between(
    count: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each of ``size`` pixels its two neighbours of ``count``, and the second one's share."""
    place = np.maximum((np.arange(size) + 0.5) * (count / size) - 0.5, 0)
    first = np.minimum(place.astype(np.int64), count - 1)
    return first, np.minimum(first + 1, count - 1), (place - first).astype(np.float32)
