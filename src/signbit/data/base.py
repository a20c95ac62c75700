"""What every source of images looks like once it is in memory.

Images are unsigned bytes in NHWC order, as they are on disk and as the engine takes them; nothing
is normalised, shuffled or augmented here. A :class:`DataSource` holds the three splits with the
statistics that normalisation needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from signbit.data.decode import resize_images
from signbit.errors import DataError

Part = TypeVar("Part")


@dataclass(frozen=True)
class ImageDataset:
    """Images and their classes.

    Attributes:
        images: uint8 array [N, H, W, C], pixels 0..255.
        labels: int64 array [N], class indices.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(
                f"images must be uint8 [N, H, W, C], got {self.images.dtype} {self.images.shape}"
            )
        if self.labels.shape != (len(self.images),):
            raise ValueError(f"{len(self.images)} images but labels of shape {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: NDArray[np.int64]) -> ImageDataset:
        """The images at ``indices``, in that order."""
        return ImageDataset(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Source(Generic[Part]):
    """A data set of any task: its splits and the statistics that normalisation needs.

    Attributes:
        name: the reader's name, such as ``"cifar10"``.
        train, val, test: the three splits.
        class_names: one name a class; empty where there are none.
        mean, std: per-channel statistics of ``train`` in units of [0, 1].
    """

    name: str
    train: Part
    val: Part
    test: Part
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as a network takes it; what compiled files are made for."""
        raise NotImplementedError

    @property
    def channels(self) -> int:
        return len(self.mean)

    def split(self, name: str) -> Part:
        """The split called ``train``, ``val`` or ``test``."""
        if name not in ("train", "val", "test"):
            raise ValueError(f"unknown split {name!r}: expected train, val or test")
        return getattr(self, name)


@dataclass(frozen=True)
class DataSource(Source[ImageDataset]):
    """Classified images: training, validation and test images, disjoint."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.train.images.shape[1], self.train.images.shape[2]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as a network takes it."""
        return self.channels, *self.image_size

    def limited(self, count: int) -> DataSource:
        """The same source with the first ``count`` images of every split, for quick looks."""
        cut = {
            name: ImageDataset(part.images[:count], part.labels[:count])
            for name, part in (("train", self.train), ("val", self.val), ("test", self.test))
        }
        return replace(self, **cut)

    def resized(self, size: int) -> DataSource:
        """The same source with square images of ``size`` pixels: scaled, and cut where not square.

        Statistics are those of the resized training images. A source of that size is returned as
        it is.
        """
        if self.image_size == (size, size):
            return self
        train, val, test = (
            ImageDataset(resize_images(part.images, size), part.labels)
            for part in (self.train, self.val, self.test)
        )
        mean, std = channel_statistics(train.images)
        return replace(self, train=train, val=val, test=test, mean=mean, std=std)


def make_source(
    name: str,
    train: ImageDataset,
    test: ImageDataset,
    class_names: Sequence[str],
    *,
    val: ImageDataset | None = None,
    val_size: int | None = None,
) -> DataSource:
    """Assemble a source; without ``val``, cut ``val_size`` images (default a tenth) from ``train``.

    Raises:
        DataError: the cut would leave no training image, or a split is empty.
    """
    for split, part in (("train", train), ("test", test)):
        if not len(part):
            raise DataError(f"{name}: the {split} split holds no image")
    if val is None:
        size = max(1, len(train) // 10) if val_size is None else val_size
        if not 0 < size < len(train):
            raise DataError(f"{name}: cannot cut {size} validation images from {len(train)}")
        keep, cut = stratified_cut(train.labels, size)
        train, val = train.subset(keep), train.subset(cut)
    elif val_size is not None and val_size != len(val):
        raise DataError(
            f"{name} brings its own {len(val)} validation images: leave out val_size={val_size}"
        )
    mean, std = channel_statistics(train.images)
    return DataSource(name, train, val, test, tuple(class_names), mean, std)


def stratified_cut(
    labels: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose ``size`` indices, every class in its share; the same ones every time.

    Each image gets its rank within its class in a fixed shuffle, divided by the size of the class;
    the lowest ``size`` are cut. No seed, so that validation figures of different runs compare.

    Returns:
        (kept, cut), two ascending arrays of indices.
    """
    order = np.random.default_rng(20240229).permutation(len(labels))
    rank = np.empty(len(labels), np.float64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    chosen = np.zeros(len(labels), bool)
    chosen[np.lexsort((order.argsort(), rank))[:size]] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def channel_statistics(
    images: NDArray[np.uint8],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per-channel mean and standard deviation in units of [0, 1], to four decimals.

    Counted through a histogram, so exact whatever the number of images. A constant channel gets
    a deviation of 1, so that normalisation stays finite.
    """
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[3]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        share = counts / counts.sum()
        mean = float(share @ values)
        std = float(np.sqrt(share @ (values - mean) ** 2))
        means.append(round(mean, 4))
        stds.append(round(std, 4) or 1.0)
    return tuple(means), tuple(stds)
