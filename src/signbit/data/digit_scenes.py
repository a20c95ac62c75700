"""Scenes of handwritten digits with boxes and masks: the embedded data of the dense tasks.

Digits of :mod:`signbit.data.digits` are enlarged, coloured and set on uneven, noisy grounds. The
training, validation and test scenes are composed of different digits, and each scene is a function
of (seed, split, index) alone.

>>> scenes = digit_scenes(train=3)["train"]
>>> scenes.images.shape, scenes.masks.shape, scenes.boxes[0].shape[1]
((3, 96, 128, 3), (3, 96, 128), 4)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from signbit.data.base import ImageDataset
from signbit.data.digits import load_digits

CLASS_NAMES = tuple("0123456789")
MASK_NAMES = ("background", *CLASS_NAMES)  # what the values of masks mean
_SPLITS = ("train", "val", "test")
_GAP = 2  # pixels that two digits' boxes keep from each other
_TRIES = 30  # places that are tried for a digit before it is left out


@dataclass(frozen=True)
class Scenes:
    """Composed images and what is in them.

    Attributes:
        images: uint8 [N, H, W, 3].
        boxes: one float32 [K, 4] an image: left, top, right, bottom in pixels, where right and
            bottom are the edges behind the last column and row; no two overlap.
        labels: one int64 [K] an image, the digits.
        masks: uint8 [N, H, W], 0 for the ground and 1 + digit for digits: :data:`MASK_NAMES`.
    """

    images: NDArray[np.uint8]
    boxes: tuple[NDArray[np.float32], ...]
    labels: tuple[NDArray[np.int64], ...]
    masks: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)


def digit_scenes(
    *,
    size: tuple[int, int] = (96, 128),
    train: int = 600,
    val: int = 60,
    test: int = 120,
    seed: int = 0,
) -> dict[str, Scenes]:
    """The three splits, ``"train"``, ``"val"`` and ``"test"``.

    Args:
        size: (height, width) of the scenes in pixels.
        train, val, test: scenes of each split.
        seed: of everything random.

    Raises:
        ValueError: a side below 32 pixels, or a negative number of scenes.
    """
    digits = load_digits()
    counts = {"train": train, "val": val, "test": test}
    return {
        split: compose_scenes(digits.split(split), counts[split], size, seed=(seed, index))
        for index, split in enumerate(_SPLITS)
    }


def compose_scenes(
    digits: ImageDataset,
    count: int,
    size: tuple[int, int],
    *,
    seed: tuple[int, ...] = (0,),
    objects: tuple[int, int] = (2, 6),
    sides: tuple[int, int] = (20, 40),
) -> Scenes:
    """Compose scenes of given digits.

    Args:
        digits: grey images [N, h, w, 1] and their classes; their strokes are the bright pixels.
        count: scenes.
        size: (height, width) of the scenes in pixels.
        seed: with the scene's index, of everything random in it.
        objects: least and most digits of a scene; fewer where they find no room.
        sides: least and greatest height of a digit with its margin, in pixels.

    Raises:
        ValueError: a side below 32 pixels, or a negative number of scenes.
    """
    height, width = size
    if min(size) < 32:
        raise ValueError(f"scenes of {height}x{width} pixels are too small: at least 32 a side")
    if count < 0:
        raise ValueError(f"{count} scenes")
    images = np.empty((count, height, width, 3), np.uint8)
    masks = np.zeros((count, height, width), np.uint8)
    boxes, labels = [], []
    for index in range(count):
        generator = np.random.default_rng([*seed, index])
        image = _ground(generator, height, width)
        ground = image.mean((0, 1))
        found: list[tuple[int, int, int, int]] = []
        names: list[int] = []
        for _ in range(generator.integers(objects[0], objects[1] + 1)):
            chosen = int(generator.integers(len(digits)))
            side = int(generator.integers(sides[0], min(sides[1], height, width) + 1))
            stroke = _stroke(digits.images[chosen, ..., 0], side, generator.uniform(0.8, 1.15))
            box = _place(generator, stroke, found, height, width)
            if box is None:
                continue
            left, top, right, bottom = box
            colour = _contrasting(generator, ground)
            part = image[top:bottom, left:right]
            part += stroke[..., None] * (colour - part)
            masks[index, top:bottom, left:right][stroke >= 0.5] = 1 + digits.labels[chosen]
            found.append(box)
            names.append(int(digits.labels[chosen]))
        image += generator.normal(0, generator.uniform(2, 10), image.shape)
        images[index] = np.clip(np.rint(image), 0, 255)
        boxes.append(np.array(found, np.float32).reshape(-1, 4))
        labels.append(np.array(names, np.int64))
    return Scenes(images, tuple(boxes), tuple(labels), masks)


def _ground(generator: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """A smooth uneven colour, float64 [H, W, 3] within 0..255."""
    colour = generator.uniform(30, 225, 3)
    coarse = np.clip(colour + generator.normal(0, 18, (4, 5, 3)), 0, 255).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float64)


def _stroke(digit: NDArray[np.uint8], side: int, aspect: float) -> NDArray[np.float64]:
    """How much of each pixel the digit covers, [h, w] in 0..1, cut to where it covers half."""
    width = max(8, round(side * aspect))
    large = Image.fromarray(digit).resize((width, side), Image.Resampling.BICUBIC)
    # steeper than the enlargement, so that the edges are about as sharp at every size
    cover = np.clip((np.asarray(large, np.float64) / 255 - 0.3) * 2.5, 0, 1)
    rows, columns = (np.flatnonzero((cover >= 0.5).any(axis)) for axis in (1, 0))
    return cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _place(
    generator: np.random.Generator,
    stroke: NDArray[np.float64],
    taken: list[tuple[int, int, int, int]],
    height: int,
    width: int,
) -> tuple[int, int, int, int] | None:
    """A free place for a digit (left, top, right, bottom); None where none was found."""
    h, w = stroke.shape
    if h > height or w > width:
        return None
    for _ in range(_TRIES):
        left = int(generator.integers(width - w + 1))
        top = int(generator.integers(height - h + 1))
        right, bottom = left + w, top + h
        if all(
            right + _GAP <= x0 or x1 + _GAP <= left or bottom + _GAP <= y0 or y1 + _GAP <= top
            for x0, y0, x1, y1 in taken
        ):
            return left, top, right, bottom
    return None


def _contrasting(
    generator: np.random.Generator, ground: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A colour whose mean is at least 70 levels from the ground's."""
    lighter = ground.mean() < 128
    mean = (
        generator.uniform(ground.mean() + 70, 255)
        if lighter
        else generator.uniform(0, ground.mean() - 70)
    )
    return np.clip(mean + generator.normal(0, 25, 3), 0, 255)
