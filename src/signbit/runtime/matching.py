"""Key points with descriptors, and matches between two images. Needs NumPy and nothing else.

A network for matching (arXiv 1906.06195) gives three maps of an image: descriptors and their
reliability, coarse, and the repeatability of every pixel. Key points are the local maxima of
repeatability, best first by repeatability times reliability; their descriptors are read from the
coarse map between its pixels. Descriptors of bits are packed, eight a byte, and compared by their
Hamming distance: the number of bits that differ.

>>> a, b = describe(session, first), describe(session, second)          # doctest: +SKIP
>>> pairs = match(a.descriptors, b.descriptors)                         # doctest: +SKIP
>>> a.points[pairs[:, 0]], b.points[pairs[:, 1]]                        # doctest: +SKIP
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from signbit.errors import FormatError, SessionError
from signbit.runtime.outputs import real_outputs
from signbit.runtime.resize import resize_image

if TYPE_CHECKING:
    from signbit.runtime.session import Session

_BLOCK = 128  # descriptors compared at a time: their products stay in the cache


@dataclass(frozen=True)
class KeyPoints:
    """What was found in an image, best first.

    Attributes:
        points: float32 [N, 2], (x, y) in pixels, the first pixel's centre at 0.
        scores: float32 [N], repeatability times reliability, 0 to 1.
        descriptors: float32 [N, D] of length 1; or uint8 [N, D / 8], bits, the first channel in the
            highest bit (``numpy.packbits``).
    """

    points: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32] | NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.points)


def describe(
    session: Session,
    image: NDArray[np.uint8],
    keypoints: int = 1000,
    longer_side: int | None = None,
) -> KeyPoints:
    """Find key points and describe them.

    Args:
        session: of a network that was trained for matching.
        image: uint8 [H, W, C] pixels.
        keypoints: at most so many are found.
        longer_side: a larger image is reduced until its longer side has so many pixels; by default
            what the network was tested with, as its file says. Points are those of the image as it
            was given.

    Raises:
        SessionError: an image of another type or shape, or too small to hold a key point.
        FormatError: a file of another task.
    """
    image = np.asarray(image)
    facts = _facts(session)
    channels = session.input_shape[0]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels or not image.size:
        raise SessionError(
            f"{session}: expected one image of uint8 pixels [H, W, {channels}], got {image.dtype} "
            f"{image.shape}"
        )
    height, width = image.shape[:2]
    factor = (longer_side or facts["longer_side"]) / max(height, width)
    if factor < 1:
        size = max(1, round(height * factor)), max(1, round(width * factor))
        image = resize_image(image, size)
    least = 2 * facts["border"] + 1
    if min(image.shape[:2]) < least:
        raise SessionError(
            f"{session}: an image of {image.shape[1]}x{image.shape[0]} pixels is too small: no key "
            f"point lies within {facts['border']} pixels of an edge, so that a side needs {least}"
        )
    outputs = real_outputs(session, np.ascontiguousarray(image)[None])
    if len(outputs) != 3:
        raise FormatError(f"{session}: a network for matching has three outputs, not this")
    maps = [y[0] for y in outputs]
    found = find_keypoints(maps, image.shape[:2], facts, keypoints)
    # A pixel's centre is at a whole number, its edges are half a pixel away.
    stretch = np.float32([width / image.shape[1], height / image.shape[0]])
    points = (found.points + np.float32(0.5)) * stretch - np.float32(0.5)
    return KeyPoints(points, found.scores, found.descriptors)


def _facts(session: Session) -> Mapping[str, Any]:
    metadata = session.metadata
    facts = metadata.get("decode")
    wanted = ("radius", "border", "longer_side")
    if metadata.get("task") != "matching":
        raise FormatError(
            f"{session} was made for {metadata.get('task', 'an unknown task')}, not for matching"
        )
    if not isinstance(facts, Mapping) or any(
        type(facts.get(name)) is not int or not 0 < facts[name] <= 1 << 20 for name in wanted
    ):
        raise FormatError(
            f"{session}: header: __metadata__.decode lacks one of the numbers {', '.join(wanted)}"
        )
    if facts.get("descriptors") not in ("real", "binary"):
        raise FormatError(
            f"{session}: header: __metadata__.decode.descriptors is neither real nor binary, but "
            f"{str(facts.get('descriptors'))[:80]!r}"
        )
    return facts


def find_keypoints(
    outputs: Sequence[NDArray[np.float32]],
    size: tuple[int, int],
    facts: Mapping[str, Any],
    keypoints: int,
) -> KeyPoints:
    """Key points from a network's outputs for one image.

    Args:
        outputs: descriptors [D, h, w] and the logits of reliability [1, h, w] and of repeatability
            [1, H', W'], where H' and W' are ``size`` or more, by less than :func:`coarse_stride`.
        size: (H, W) of the image in pixels.
        facts: ``descriptors``, ``"real"`` or ``"binary"`` (their signs); ``radius``, in pixels: a
            key point's repeatability is the largest in the square around it; ``border``, in pixels:
            none lies nearer to the edge.
        keypoints: at most so many.
    """
    descriptors, reliability, repeatability = outputs
    height, width = size
    stride = np.float32(coarse_stride(repeatability.shape[1:], descriptors.shape[1:]))
    peaks = local_maxima(repeatability[0, :height, :width], facts["radius"], facts["border"])
    rows, columns = peaks
    positions = np.stack([columns, rows], 1) / stride
    reliable = _sample(reliability, positions)[:, 0]
    scores = _sigmoid(repeatability[0, rows, columns]) * _sigmoid(reliable)
    best = np.argsort(-scores, kind="stable")[:keypoints]
    points = np.stack([columns, rows], 1)[best].astype(np.float32)
    points += _offsets(repeatability[0, :height, :width], rows[best], columns[best])
    read = _sample(descriptors, points / stride)
    if facts["descriptors"] == "binary":
        return KeyPoints(points, scores[best], np.packbits(read >= 0, axis=1))
    length = np.sqrt(np.square(read).sum(1, keepdims=True))
    return KeyPoints(points, scores[best], read / np.maximum(length, np.float32(1e-12)))


def coarse_stride(fine: Sequence[int], coarse: Sequence[int]) -> int:
    """Pixels of the image a pixel of a coarse map, from the sizes (H, W) of both kinds of maps.

    A power of two. Coarse maps are rounded up, so that their ratio may be a little smaller.
    """
    ratio = max(f / c for f, c in zip(fine, coarse, strict=True))
    return 1 << round(math.log2(ratio))


def local_maxima(
    values: NDArray[np.float32], radius: int, border: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels of [H, W] that are the largest of the square around them.

    Of equal neighbours all count. The square has 2 ``radius`` + 1 pixels a side; pixels within
    ``border`` of the edge are left out.
    """
    most = values
    for axis in (0, 1):
        most = _moving_maximum(most, radius, axis)
    inner = (slice(border, values.shape[0] - border), slice(border, values.shape[1] - border))
    rows, columns = np.nonzero(values[inner] == most[inner])
    return rows + border, columns + border


def _moving_maximum(values: NDArray[np.float32], radius: int, axis: int) -> NDArray[np.float32]:
    values = values if axis == 0 else values.T
    most = values.copy(order="K")
    for shift in range(1, radius + 1):
        np.maximum(most[shift:], values[:-shift], out=most[shift:])
        np.maximum(most[:-shift], values[shift:], out=most[:-shift])
    return most if axis == 0 else most.T


def _offsets(
    values: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float32]:
    """How far the tops of parabolas through maxima and their neighbours lie: (x, y), +-1/2."""
    height, width = values.shape
    found = []
    for index, size, step in ((columns, width, (0, 1)), (rows, height, (1, 0))):
        inside = (index > 0) & (index < size - 1)
        dy, dx = (np.where(inside, part, 0) for part in step)
        here = values[rows, columns]
        before, behind = values[rows - dy, columns - dx], values[rows + dy, columns + dx]
        bend = before + behind - 2 * here
        flat = bend >= -1e-12
        found.append(np.where(flat, 0, (before - behind) / (2 * np.where(flat, -1, bend))))
    return np.clip(np.stack(found, 1), -0.5, 0.5).astype(np.float32)


def _sample(maps: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """[C, h, w] read at (x, y) [N, 2] between its pixels, bilinearly: [N, C]."""
    channels, height, width = maps.shape
    x = np.clip(points[:, 0], 0, width - 1)
    y = np.clip(points[:, 1], 0, height - 1)
    left = np.minimum(x.astype(np.int64), max(width - 2, 0))
    top = np.minimum(y.astype(np.int64), max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left).astype(np.float32), (y - top).astype(np.float32)
    flat = maps.reshape(channels, -1)
    read = flat[:, top * width + left] * ((1 - u) * (1 - v))
    read += flat[:, top * width + right] * (u * (1 - v))
    read += flat[:, bottom * width + left] * ((1 - u) * v)
    read += flat[:, bottom * width + right] * (u * v)
    return np.ascontiguousarray(read.T)


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return (1 / (1 + np.exp(-np.clip(x, -60, 60)))).astype(np.float32)


def match(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.int64]:
    """Mutual nearest neighbours: pairs that are each other's nearest in the other set.

    Args:
        first, second: descriptors [N, D] and [M, D] as :class:`KeyPoints` has them: float32 of
            length 1, compared by their product, or packed bits, by Hamming distance. Of equally
            near ones the first counts.

    Returns:
        int64 [K, 2], indices into ``first`` and ``second``, by the first.

    Raises:
        ValueError: the two are of different kinds or sizes.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.dtype != second.dtype or first.shape[1:] != second.shape[1:] or first.ndim != 2:
        raise ValueError(
            f"descriptors of one network are compared, got {first.dtype} {first.shape} and "
            f"{second.dtype} {second.shape}"
        )
    if not len(first) or not len(second):
        return np.empty((0, 2), np.int64)
    if first.dtype == np.uint8:
        first, second = _signs(first), _signs(second)
    forward, backward = _nearest(first, second)
    index = np.arange(len(first))
    mutual = backward[forward] == index
    return np.stack([index[mutual], forward[mutual]], 1)


def hamming_distances(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Bits that differ between packed descriptors [N, B] and [M, B]: int32 [N, M]."""
    bits = 8 * first.shape[1]
    return ((bits - _signs(first) @ _signs(second).T) / 2).astype(np.int32)


def _signs(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Bits as +1 and -1: a product of two is then D less twice their Hamming distance, exactly.

    BLAS multiplies them faster than NumPy counts bits.
    """
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def _nearest(
    first: NDArray[np.float32], second: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each row the index of the row of the other array with the largest product."""
    columns = np.arange(len(second))
    forward = np.empty(len(first), np.int64)
    backward = np.zeros(len(second), np.int64)
    highest = np.full(len(second), -np.inf, np.float32)
    for start in range(0, len(first), _BLOCK):
        products = first[start : start + _BLOCK] @ second.T
        forward[start : start + _BLOCK] = products.argmax(1)
        best = products.argmax(0)
        values = products[best, columns]
        higher = values > highest
        backward[higher] = best[higher] + start
        highest[higher] = values[higher]
    return forward, backward
