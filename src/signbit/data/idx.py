"""MNIST's idx files: Fashion-MNIST, MNIST and the like, plain or gzip-compressed.

A file is a big-endian magic number (2051 for images, 2049 for labels), the sizes as 32-bit
numbers, and bytes. Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747, 2017.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signbit.data.base import DataSource, ImageDataset, make_source
from signbit.errors import DataError

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def is_idx(path: Path) -> bool:
    """Whether ``path`` is a folder with MNIST's four files (or at least the first of them)."""
    return path.is_dir() and _find(path, "train-images-idx3-ubyte") is not None


def load_idx(path: Path, name: str = "fashion_mnist", val_size: int | None = None) -> DataSource:
    """Read the four files of a folder; ``name`` decides what the classes are called.

    Raises:
        DataError: a file is missing or broken; the message names it, and the field.
    """
    splits = []
    for prefix in ("train", "t10k"):
        images_path = _require(path, f"{prefix}-images-idx3-ubyte")
        labels_path = _require(path, f"{prefix}-labels-idx1-ubyte")
        images = read_idx(images_path, IMAGES_MAGIC)
        labels = read_idx(labels_path, LABELS_MAGIC)
        if len(images) != len(labels):
            raise DataError(
                f"{labels_path}: {len(labels)} labels for the {len(images)} images of "
                f"{images_path.name}"
            )
        splits.append(ImageDataset(images[..., None], labels.astype(np.int64)))
    train, test = splits
    classes = 1 + max(int(train.labels.max()), int(test.labels.max()))
    names = tuple(str(i) for i in range(classes))
    if name == "fashion_mnist":
        if classes > len(FASHION_CLASSES):
            raise DataError(f"{path}: label {classes - 1}, but Fashion-MNIST has ten classes")
        names = FASHION_CLASSES
    return make_source(name, train, test, names, val_size=val_size)


def _find(path: Path, stem: str) -> Path | None:
    return next((p for p in (path / stem, path / f"{stem}.gz") if p.exists()), None)


def _require(path: Path, stem: str) -> Path:
    if (found := _find(path, stem)) is None:
        raise DataError(f"{path / stem}: no such file, and no {stem}.gz either")
    return found


def read_idx(path: Path, magic: int) -> NDArray[np.uint8]:
    """Read one idx file of bytes whose magic number must be ``magic``.

    Returns:
        uint8 array with the dimensions that the file states.

    Raises:
        DataError: wrong magic number, no element, or a length that does not fit the sizes.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: not readable ({error})") from error
    if len(content) < 4:
        raise DataError(f"{path}: {len(content)} bytes, too short for a magic number")
    found = struct.unpack(">I", content[:4])[0]
    if found != magic:
        raise DataError(f"{path}: magic number {found}, expected {magic}")
    rank = magic & 0xFF
    if len(content) < 4 + 4 * rank:
        raise DataError(f"{path}: ends within its sizes")
    sizes = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    expected = int(np.prod(sizes, dtype=object))
    if expected == 0:
        raise DataError(f"{path}: sizes {sizes} hold no element")
    if len(content) - 4 - 4 * rank != expected:
        raise DataError(
            f"{path}: sizes {sizes} need {expected} bytes, {len(content) - 4 - 4 * rank} follow"
        )
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(sizes)
