"""Boxes from CenterNet's maps. Needs NumPy and nothing else.

A network for detection gives three maps, a pixel of which stands for ``stride`` x ``stride`` of
the image: a heatmap a class, the sizes of boxes, and the offsets of their centres. A box stands
wherever a heatmap has a peak: no neighbour of the same class is larger.

>>> for box in detect(session, image, threshold=0.4):                   # doctest: +SKIP
...     print(box.name, box.score, box.left, box.top, box.right, box.bottom)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from signbit.errors import FormatError, SessionError
from signbit.runtime.outputs import real_outputs
from signbit.runtime.resize import check_image, resize_image

if TYPE_CHECKING:
    from signbit.runtime.session import Session

LIMIT = 100  # boxes of an image, the best ones, as COCO's scores count them
THRESHOLD = 0.3


@dataclass(frozen=True)
class DetectedBox:
    """An object that was found.

    Attributes:
        left, top, right, bottom: in pixels of the image; right and bottom are edges, so that
            ``right - left`` is the width.
        score: how sure the network is, in (0, 1).
        label: index of the class.
        name: its name.
    """

    left: float
    top: float
    right: float
    bottom: float
    score: float
    label: int
    name: str


def detect(
    session: Session,
    image: NDArray[np.uint8],
    *,
    threshold: float = THRESHOLD,
    resize: bool = True,
) -> list[DetectedBox]:
    """Find the objects in an image.

    Args:
        session: of a network that was trained for detection.
        image: uint8 [H, W, C] pixels. Where its sides are no multiples of what the network's maps
            need, it is filled up with black to the right and below, as in training.
        threshold: the least score of a box.
        resize: scale the image to fit the size that the network was trained on, if its data were
            scaled to one. Otherwise it is taken as it is, which suits networks and images in which
            things are of the same size in pixels.

    Returns:
        The best boxes first, at most 100.

    Raises:
        SessionError: not such an image, too small for the network, or a threshold outside 0..1.
        FormatError: the file was not made for detection.
    """
    if not 0 <= threshold <= 1:
        raise SessionError(f"threshold must be a score from 0 to 1, not {threshold}")
    stride, multiple, size = _facts(session)
    image = np.asarray(image)
    check_image(image, session.input_shape[0], 1 if size and resize else multiple, str(session))
    height, width = image.shape[:2]
    scale = 1.0
    if size is not None and resize:
        scale = min(size[0] / height, size[1] / width)
        fitted = [
            min(s, round(scale * side)) for s, side in zip(size, (height, width), strict=True)
        ]
        if min(fitted) < multiple:
            raise SessionError(
                f"{session}: an image of {width}x{height} pixels is too narrow: scaled to "
                f"{size[1]}x{size[0]} a side has {min(fitted)}, and the network needs {multiple}"
            )
        image = resize_image(image, (fitted[0], fitted[1]))
    outputs = real_outputs(session, pad_image(image, multiple))
    if len(outputs) != 3:
        raise FormatError(f"{session}: {len(outputs)} outputs, where detection has three")
    (found,) = find_boxes(outputs, stride)
    across, down = width / image.shape[1], height / image.shape[0]
    boxes = np.clip(found.boxes * [across, down, across, down], 0, [width, height] * 2)
    names = session.metadata.get("class_names") or [str(i) for i in range(outputs[0].shape[1])]
    return [
        DetectedBox(*(float(value) for value in box), float(score), int(label), str(names[label]))
        for box, score, label in zip(boxes, found.scores, found.labels, strict=True)
        if score >= threshold and box[2] > box[0] and box[3] > box[1]
    ]


@dataclass(frozen=True)
class Boxes:
    """The boxes of an image, the best first.

    Attributes:
        boxes: float32 [K, 4]: left, top, right, bottom, in pixels of the network's input.
        scores: float32 [K], falling.
        labels: int64 [K], class indices.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


def find_boxes(
    outputs: Sequence[NDArray[np.float32]], stride: int, limit: int = LIMIT
) -> list[Boxes]:
    """The boxes that CenterNet's maps speak of.

    Args:
        outputs: heatmap logits [N, C, h, w], sizes [N, 2, h, w] (width, height) and offsets [N, 2,
            h, w] (x, y), both in pixels of the maps.
        stride: pixels of the input a pixel of the maps.
        limit: most boxes of an image.

    Returns:
        The boxes of each image; those of no width or height are left out.
    """
    heatmaps, sizes, offsets = outputs
    found = []
    for heat, size, offset in zip(heatmaps, sizes, offsets, strict=True):
        labels, rows, columns = np.nonzero(_peaks(heat))
        logits = heat[labels, rows, columns]
        best = np.argsort(-logits, kind="stable")[:limit]
        labels, rows, columns, logits = (v[best] for v in (labels, rows, columns, logits))
        centres = np.stack([columns, rows], 1) + offset[:, rows, columns].T
        halves = size[:, rows, columns].T / 2
        boxes = (np.concatenate([centres - halves, centres + halves], 1) * stride).astype(
            np.float32
        )
        solid = (halves > 0).all(1)
        scores = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
        found.append(Boxes(boxes[solid], scores[solid], labels[solid]))
    return found


def _peaks(heat: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where no neighbour of the eight is larger: bool [C, h, w].

    Of neighbours that are equal, only the first in reading order counts: the outputs of binary
    networks often are.
    """
    height, width = heat.shape[1:]
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    peaks = np.ones(heat.shape, bool)
    for number in range(9):
        if number == 4:
            continue
        top, left = divmod(number, 3)
        neighbour = padded[:, top : top + height, left : left + width]
        peaks &= heat > neighbour if number < 4 else heat >= neighbour
    return peaks


def pad_image(image: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Fill an image up with black, right and below, to sides that are multiples of a number."""
    height, width = image.shape[:2]
    below, right = -height % multiple, -width % multiple
    return np.pad(image, ((0, below), (0, right), (0, 0))) if below or right else image


def _facts(session: Session) -> tuple[int, int, tuple[int, int] | None]:
    """Stride, multiple and size (height, width) that the file says of its outputs and inputs."""
    task = session.metadata.get("task")
    facts = session.metadata.get("decode")
    if task != "detection" or not isinstance(facts, Mapping):
        raise FormatError(f"{session}: made for {task!r}, not for detection")
    stride, multiple = facts.get("stride"), facts.get("multiple")
    size: Any = facts.get("image_size")
    sides = [] if size is None else size
    numbers = [stride, multiple, *(sides if isinstance(sides, list) else [None])]
    if len(numbers) not in (2, 4) or not all(type(n) is int and 1 <= n <= 1 << 16 for n in numbers):
        raise FormatError(
            f"{session}: header: __metadata__.decode has no stride and sizes: {str(facts)[:80]}"
        )
    return stride, multiple, None if size is None else (size[0], size[1])
