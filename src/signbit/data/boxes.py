"""Photographs with boxes around objects: what every reader of detection data gives.

Images of any size are brought onto one canvas: scaled to fit, at the upper left, black to the
right and below. Boxes are (left, top, right, bottom) in pixels of the canvas, where right and
bottom are edges: the first pixel of an image is the box (0, 0, 1, 1).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from signbit.data.base import Source, channel_statistics
from signbit.data.cache import cached_images
from signbit.data.decode import open_image, pixels, track
from signbit.data.files import DataFile
from signbit.errors import DataError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Annotated:
    """A photograph's file and the objects that its annotation names.

    Attributes:
        image: the file of the photograph.
        annotation: how errors call the file that the boxes are from.
        boxes: float64 [K, 4] in the photograph's own pixels.
        labels: K class indices.
        ignored: K flags; see :class:`BoxDataset`.
    """

    image: DataFile
    annotation: str
    boxes: NDArray[np.float64]
    labels: Sequence[int]
    ignored: Sequence[bool]


@dataclass(frozen=True)
class BoxDataset:
    """Images and the boxes in them.

    Attributes:
        images: uint8 [N, H, W, 3].
        boxes: one float32 [K, 4] an image.
        labels: one int64 [K] an image, class indices.
        ignored: one bool [K] an image: difficult objects and crowds. Nothing is learnt from them,
            and finding them counts neither way.
        names: one text an image, its file.
        scales: float32 [N, 2], pixels of the canvas a pixel of the file, across and down.
    """

    images: NDArray[np.uint8]
    boxes: tuple[NDArray[np.float32], ...]
    labels: tuple[NDArray[np.int64], ...]
    ignored: tuple[NDArray[np.bool_], ...]
    names: tuple[str, ...]
    scales: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: NDArray[np.int64]) -> BoxDataset:
        """The images at ``indices``, in that order."""
        lists = {
            name: tuple(getattr(self, name)[i] for i in indices)
            for name in ("boxes", "labels", "ignored", "names")
        }
        return replace(self, images=self.images[indices], scales=self.scales[indices], **lists)


@dataclass(frozen=True)
class BoxSource(Source[BoxDataset]):
    """A detection data set: three splits of one image size."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as a network takes it."""
        return self.channels, *self.train.images.shape[1:3]

    def limited(self, count: int) -> BoxSource:
        """The same source with the first ``count`` images of every split, for quick looks."""
        first = {name: self.split(name) for name in SPLITS}
        return replace(
            self, **{n: part.subset(np.arange(min(count, len(part)))) for n, part in first.items()}
        )


def make_box_source(
    name: str,
    splits: dict[str, list[Annotated]],
    class_names: Sequence[str],
    *,
    image_size: int | Sequence[int] | None = None,
    multiple: int = 1,
    val_size: int | None = None,
    clip_boxes: bool = False,
) -> BoxSource:
    """Decode the images of a data set, check its boxes, and cut what splits are missing.

    Args:
        name: the reader's.
        splits: ``"train"`` and, where there are, ``"val"`` and ``"test"``. Without a test split,
            the validation split is the test set, and validation images are cut from train; with
            neither, a fixed fifth of train is the test set.
        class_names: what the labels are called.
        image_size: (height, width) of the canvas, or one number for both; None: the largest height
            and width of all images, which are then not scaled.
        multiple: the canvas grows to a multiple of so many pixels a side.
        val_size: validation images to cut from train; None for a tenth.
        clip_boxes: cut boxes at the image's edges, and leave those outside out, where they would be
            an error.

    Raises:
        DataError: an unreadable image or one whose side is below ``multiple`` on the canvas, a box
            outside its image, a split without images or training data without objects; names the
            file.
    """
    for split, part in splits.items():
        if not part:
            raise DataError(f"{name}: the {split} split holds no image")
    if "val" in splits and "test" not in splits:
        splits = {"train": splits["train"], "test": splits["val"]}
    train = splits["train"]
    if "test" not in splits:
        train, test = _cut(train, max(1, round(len(train) * 0.2)), name, "test")
        splits = {**splits, "train": train, "test": test}
    if "val" not in splits:
        train, val = _cut(train, val_size or max(1, len(train) // 10), name, "validation")
        splits = {**splits, "train": train, "val": val}
    elif val_size is not None and val_size != len(splits["val"]):
        raise DataError(
            f"{name} brings its own {len(splits['val'])} validation images: leave out "
            f"val_size={val_size}"
        )
    sizes = {
        split: [_size(each.image) for each in track(splits[split], f"reading {split}")]
        for split in SPLITS
    }
    canvas = _canvas(image_size, [size for part in sizes.values() for size in part], multiple)
    parts = {
        split: _dataset(splits[split], sizes[split], canvas, image_size, multiple, clip_boxes)
        for split in SPLITS
    }
    for split, part in parts.items():
        if not any(len(boxes) for boxes in part.boxes):
            raise DataError(f"{name}: no image of the {split} split has an object")
    mean, std = channel_statistics(parts["train"].images)
    return BoxSource(name, **parts, class_names=tuple(class_names), mean=mean, std=std)


def class_list(
    found: Iterable[str], wanted: Sequence[str] | None, where: str
) -> tuple[tuple[str, ...], Callable[[str, str], int]]:
    """The classes of a data set, and how to look one up.

    Args:
        found: names that the training split uses.
        wanted: the classes that the recipe lists, in its order; None: those found, by name.
        where: what ``found`` was read from.

    Returns:
        The names, and a function (name, file) -> index that raises DataError, naming the file,
        for a name that is not among them.

    Raises:
        DataError: no class at all, or one stands twice.
    """
    names = tuple(sorted(set(found))) if wanted is None else tuple(str(name) for name in wanted)
    if not names:
        raise DataError(f"{where}: no object of any class")
    if len(set(names)) != len(names):
        raise DataError(f"data.options.classes: a class stands twice in {list(names)}")
    index = {name: i for i, name in enumerate(names)}

    def look_up(name: str, file: str) -> int:
        if name not in index:
            whose = "the training split has" if wanted is None else "data.options.classes lists"
            raise DataError(f"{file}: unknown class {name!r}; {whose} {', '.join(names)}")
        return index[name]

    return names, look_up


def _cut(
    items: list[Annotated], count: int, name: str, what: str
) -> tuple[list[Annotated], list[Annotated]]:
    """(kept, cut): the same ones every time, whatever the seed, so that figures compare."""
    if not 0 < count < len(items):
        raise DataError(f"{name}: cannot cut {count} {what} images from {len(items)}")
    chosen = set(np.random.default_rng(20240229).permutation(len(items))[:count].tolist())
    kept = [item for i, item in enumerate(items) if i not in chosen]
    return kept, [item for i, item in enumerate(items) if i in chosen]


def _size(file: DataFile) -> tuple[int, int]:
    """(height, width) of an image, from its header where that is readable."""
    try:
        with Image.open(io.BytesIO(file.read())) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{file}: not a readable image ({error})") from error


def _canvas(
    image_size: int | Sequence[int] | None, sizes: list[tuple[int, int]], multiple: int
) -> tuple[int, int]:
    if image_size is None:
        image_size = [max(size[axis] for size in sizes) for axis in (0, 1)]
    elif isinstance(image_size, int):
        image_size = [image_size, image_size]
    height, width = (-(-side // multiple) * multiple for side in image_size)
    return height, width


def fitted_size(size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image scaled to just fit ``frame``, at least a pixel each."""
    scale = min(frame[0] / size[0], frame[1] / size[1])
    return (
        max(1, min(frame[0], round(size[0] * scale))),
        max(1, min(frame[1], round(size[1] * scale))),
    )


def _dataset(
    items: list[Annotated],
    sizes: list[tuple[int, int]],
    canvas: tuple[int, int],
    image_size: int | Sequence[int] | None,
    multiple: int,
    clip_boxes: bool,
) -> BoxDataset:
    frame = canvas
    if image_size is not None:
        frame = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    placed = [size if image_size is None else fitted_size(size, frame) for size in sizes]
    boxes, labels, ignored = [], [], []
    for item, size, target in zip(items, sizes, placed, strict=True):
        if min(target) < multiple:
            raise DataError(
                f"{item.image}: {target[1]}x{target[0]} pixels are too small for a network of "
                f"stride {multiple}: a side needs at least {multiple}; give larger images or a "
                "larger data.image_size"
            )
        own, keep = checked_boxes(item, size, clip_boxes)
        scale = np.array([target[1] / size[1], target[0] / size[0]] * 2)
        boxes.append((own * scale).astype(np.float32))
        labels.append(np.asarray(item.labels, np.int64)[keep])
        ignored.append(np.asarray(item.ignored, bool)[keep])
    key = hashlib.sha256(f"boxes {canvas} {placed}".encode())
    for item in items:
        key.update(f"\n{item.image.identity}".encode())
    images = cached_images(key.hexdigest(), lambda: _decode(items, placed, canvas))
    scales = [(t[1] / s[1], t[0] / s[0]) for t, s in zip(placed, sizes, strict=True)]
    return BoxDataset(
        images,
        tuple(boxes),
        tuple(labels),
        tuple(ignored),
        tuple(str(item.image) for item in items),
        np.array(scales, np.float32).reshape(-1, 2),
    )


def checked_boxes(
    item: Annotated, size: tuple[int, int], clip: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes within their image of ``size`` (height, width), and which of the item's they are.

    An overhang of less than a pixel is rounding, and is cut off.

    Raises:
        DataError: a box without area, or outside its image and not to be clipped.
    """
    boxes = np.asarray(item.boxes, np.float64).reshape(-1, 4)
    height, width = size
    limit = np.array([width, height, width, height], np.float64)
    inside = np.clip(boxes, 0, limit)
    finite = np.isfinite(boxes).all(1)
    solid = finite & (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    fits = solid & (np.abs(boxes - inside) < 1).all(1)
    if not fits.all() and not clip:
        first = int(np.flatnonzero(~fits)[0])
        left, top, right, bottom = (f"{value:g}" for value in boxes[first])
        right_way = boxes[first, 2] > boxes[first, 0] and boxes[first, 3] > boxes[first, 1]
        fault = f"outside its image of {width}x{height} pixels" if right_way else "without area"
        raise DataError(
            f"{item.annotation}: object {first + 1}: box from x {left}, y {top} to x {right}, "
            f"y {bottom} is {fault}; correct it, or set data.options.clip_boxes to true"
        )
    return inside[solid], solid


def _decode(
    items: list[Annotated], placed: list[tuple[int, int]], canvas: tuple[int, int]
) -> NDArray[np.uint8]:
    images = np.zeros((len(items), *canvas, 3), np.uint8)
    pairs = list(zip(items, placed, strict=True))
    for index, (item, (height, width)) in enumerate(track(pairs, "decoding")):
        image = open_image(item.image.read(), str(item.image)).convert("RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        images[index, :height, :width] = pixels(image, 3)
    return images
