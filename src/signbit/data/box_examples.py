"""Examples for learning to detect: crops of images, and the maps that CenterNet should give.

The maps (arXiv 1904.07850): a heatmap a class has a Gaussian at every object's centre, 1 at the
pixel that the centre lies in; sizes and offsets stand at these pixels alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from signbit.data.boxes import BoxDataset

_KEPT = 0.3  # share of a box that a crop must show, or the object is not learnt from
_NEARLY = np.float32(0.9999)  # in a heatmap: neither an object nor a place without one


@dataclass(frozen=True)
class BoxExamples:
    """Examples (:class:`signbit.data.loader.Examples`) of a detection data set.

    Targets of an example, float32: ``heatmap`` [C, h, w], ``size`` [2, h, w] (width, height) and
    ``offset`` [2, h, w] (x, y) in pixels of these maps, ``centre`` [1, h, w]: 1 where an object's
    centre is. An example as it is has these of its own besides: ``boxes`` float32 [K, 4],
    ``labels`` int64 [K], ``ignored`` bool [K].

    Attributes:
        dataset: what to read.
        num_classes: how many heatmaps.
        stride: pixels of the image a pixel of the maps.
        crop: (height, width) of training crops; None for whole images.
        flip: mirror left and right, with probability one half.
        rotate: by a random number of quarter turns.
        zoom: by a factor drawn between two; None for none. Where a crop is larger than the image
            then is, the rest is black.
        brightness, contrast: at most so large a share is added, and contrast changed.
    """

    dataset: BoxDataset
    num_classes: int
    stride: int
    crop: tuple[int, int] | None = None
    flip: bool = False
    rotate: bool = False
    zoom: tuple[float, float] | None = None
    brightness: float = 0.0
    contrast: float = 0.0

    def __len__(self) -> int:
        return len(self.dataset)

    def example(
        self, index: int, generator: np.random.Generator | None
    ) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]:
        """Pixels uint8 [1, H, W, 3] and targets of an image."""
        data = self.dataset
        image, boxes = data.images[index], data.boxes[index]
        labels, ignored = data.labels[index], data.ignored[index]
        whole = {}
        if generator is None:
            whole = {"boxes": boxes, "labels": labels, "ignored": ignored}
        else:
            image, boxes, kept = self._augment(image, boxes, generator)
            labels, ignored = labels[kept], ignored[kept]
        maps = centre_maps(boxes, labels, ignored, image.shape[:2], self.num_classes, self.stride)
        return image[None], {**maps, **whole}

    def _augment(
        self,
        image: NDArray[np.uint8],
        boxes: NDArray[np.float32],
        generator: np.random.Generator,
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
        turns = int(generator.integers(4)) if self.rotate else 0
        mirrored = bool(self.flip and generator.random() < 0.5)
        zoom = (
            1.0
            if self.zoom is None
            else math.exp(generator.uniform(math.log(self.zoom[0]), math.log(self.zoom[1])))
        )
        size = image.shape[:2] if self.crop is None else self.crop
        cut = size[::-1] if turns % 2 else size  # what becomes ``size`` when it is turned
        # Shaded first, so that what lies around the image stays black, as it is in use.
        image = self._shade(image, generator)
        image, boxes, kept = _cut(image, boxes, (cut[0], cut[1]), zoom, generator)
        for _ in range(turns):
            image, boxes = _turn(image, boxes)
        if mirrored:
            image = image[:, ::-1]
            boxes = boxes[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [image.shape[1], 0] * 2
        return np.ascontiguousarray(image), boxes.astype(np.float32), kept

    def _shade(self, image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
        if not self.brightness and not self.contrast:
            return image
        added = 255 * generator.uniform(-self.brightness, self.brightness)
        factor = 1 + generator.uniform(-self.contrast, self.contrast)
        levels = (np.arange(256) - 127.5) * factor + 127.5 + added
        return np.clip(np.rint(levels), 0, 255).astype(np.uint8)[image]


def _cut(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    size: tuple[int, int],
    zoom: float,
    generator: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]:
    """A crop of ``size`` at a random place of the image times ``zoom``, its boxes, and which."""
    spans = [length / zoom for length in size]  # of the crop, in the image's pixels
    top, left = (
        generator.uniform(min(0, side - span), max(0, side - span))
        for side, span in zip(image.shape[:2], spans, strict=True)
    )
    if zoom == 1:
        top, left = round(top), round(left)
        out = np.zeros((*size, image.shape[2]), np.uint8)
        part = image[max(0, top) : top + size[0], max(0, left) : left + size[1]]
        y, x = max(0, -top), max(0, -left)
        out[y : y + part.shape[0], x : x + part.shape[1]] = part
    else:
        # Pixel centres to pixel centres: Pillow adds the halves itself.
        inverse = (1 / zoom, 0, left, 0, 1 / zoom, top)
        out = np.asarray(
            Image.fromarray(image).transform(
                (size[1], size[0]), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR
            )
        )
    moved = (boxes - [left, top, left, top]) * zoom
    shown = np.clip(moved, 0, [size[1], size[0]] * 2)
    share = _areas(shown) / np.maximum(_areas(moved), 1e-9)
    kept = share >= _KEPT
    return out, shown[kept].astype(np.float32), kept


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _turn(
    image: NDArray[np.uint8], boxes: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A quarter turn to the left: (x, y) becomes (y, width - x)."""
    width = image.shape[1]
    left, top, right, bottom = boxes.T
    return np.rot90(image), np.stack([top, width - right, bottom, width - left], 1)


def centre_maps(
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    ignored: NDArray[np.bool_],
    size: tuple[int, int],
    num_classes: int,
    stride: int,
) -> dict[str, NDArray[np.float32]]:
    """The maps that CenterNet should give for an image; :class:`BoxExamples` describes them.

    Args:
        boxes, labels, ignored: [K, 4], [K] and [K]; within an ignored box its class's heatmap asks
            for nothing.
        size: (height, width) of the image, multiples of ``stride``.
        num_classes: how many heatmaps.
        stride: pixels of the image a pixel of the maps.
    """
    height, width = size[0] // stride, size[1] // stride
    heatmap = np.zeros((num_classes, height, width), np.float32)
    maps = {name: np.zeros((n, height, width), np.float32) for name, n in _MAPS.items()}
    scaled = np.asarray(boxes, np.float32).reshape(-1, 4) / np.float32(stride)
    # Where two centres share a pixel, the smaller object's size is learnt: it is written last.
    for k in np.argsort(-_areas(scaled), kind="stable"):
        left, top, right, bottom = scaled[k]
        if ignored[k]:
            rows = slice(int(top), math.ceil(bottom))
            part = heatmap[labels[k], rows, int(left) : math.ceil(right)]
            np.maximum(part, _NEARLY, out=part)
            continue
        x, y = (left + right) / 2, (top + bottom) / 2
        column, row = min(int(x), width - 1), min(int(y), height - 1)
        _draw(heatmap[labels[k]], row, column, _radius(bottom - top, right - left))
        maps["size"][:, row, column] = right - left, bottom - top
        maps["offset"][:, row, column] = x - column, y - row
        maps["centre"][0, row, column] = 1
    return {"heatmap": heatmap, **maps}


_MAPS = {"size": 2, "offset": 2, "centre": 1}


def _radius(height: float, width: float, overlap: float = 0.7) -> int:
    """How far a centre may be off so that boxes still overlap enough, in whole pixels.

    The smallest of the three radii that CornerNet's program takes (arXiv 1808.01244): the larger
    root r of ``4 * overlap * r^2 - 2 * overlap * (h + w) * r - (1 - overlap) * h * w = 0`` with
    the sign and the factor of r as they stand in that program.
    """
    a, b = 4 * overlap, -2 * overlap * (height + width)
    c = (overlap - 1) * height * width
    return max(0, int((b + math.sqrt(b * b - 4 * a * c)) / 2))


def _draw(heat: NDArray[np.float32], row: int, column: int, radius: int) -> None:
    """A Gaussian of deviation (2 radius + 1) / 6, cut off at the radius; the larger value stays."""
    height, width = heat.shape
    deviation = (2 * radius + 1) / 6
    rows = np.arange(max(0, row - radius), min(height, row + radius + 1))
    columns = np.arange(max(0, column - radius), min(width, column + radius + 1))
    distance = (rows[:, None] - row) ** 2 + (columns - column) ** 2
    part = heat[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.maximum(part, np.exp(-distance / (2 * deviation**2)).astype(np.float32), out=part)
