"""Sources of images, read into memory as bytes: one file a source.

>>> source = load_source("digits")
>>> source.input_shape, source.num_classes
((1, 8, 8), 10)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from signbit.data.base import DataSource, ImageDataset
from signbit.data.normalize import normalization_table, normalize
from signbit.errors import DataError

if TYPE_CHECKING:
    from signbit.data.loader import Augmentation, BatchLoader

SOURCES = ("digits", "cifar10", "cifar100", "fashion_mnist", "mnist", "folder")

__all__ = [
    "SOURCES",
    "Augmentation",
    "BatchLoader",
    "DataSource",
    "ImageDataset",
    "detect_source",
    "load_source",
    "normalization_table",
    "normalize",
]


def detect_source(path: Path) -> str:
    """The name of the source that lies at ``path``, told by its files.

    idx files are ``fashion_mnist`` where the folder's name has "fashion" in it, else ``mnist``.

    Raises:
        DataError: nothing there, or nothing that a reader knows.
    """
    from signbit.data.cifar import is_cifar
    from signbit.data.folder import is_image_folder
    from signbit.data.idx import is_idx

    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if found := is_cifar(path):
        return found
    if is_idx(path):
        return "fashion_mnist" if "fashion" in path.resolve().name.lower() else "mnist"
    if is_image_folder(path):
        return "folder"
    raise DataError(
        f"{path}: neither CIFAR (official binary files, or *_train.npz with *_test.npz), nor "
        "MNIST's idx files, nor a folder with a sub-folder of images for every class"
    )


def load_source(
    name: str = "auto",
    path: str | Path | None = None,
    *,
    val_size: int | None = None,
    image_size: int | None = None,
) -> DataSource:
    """Load a data set.

    Args:
        name: one of :data:`SOURCES`, or ``"auto"``: told from the files at ``path``, and the
            embedded digits without one.
        path: a folder or archive; only ``digits`` needs none.
        val_size: validation images to cut from the training images; None for a tenth.
        image_size: side in pixels to bring all images to; None leaves them as they are (those of a
            ``folder`` must then have one size).

    Raises:
        DataError: unknown name, missing path, or a missing or broken file, which it names.
    """
    path = None if path is None else Path(path)
    if name == "auto":
        name = "digits" if path is None else detect_source(path)
    if name not in SOURCES:
        raise DataError(f"unknown data source {name!r}: expected one of {', '.join(SOURCES)}")
    if name == "digits":
        if path is not None:
            raise DataError(f"digits is embedded and takes no path, got {path}")
        from signbit.data.digits import load_digits

        source = load_digits(val_size)
    else:
        source = _load_from(name, path, val_size, image_size)
    return source if image_size is None else source.resized(image_size)


def _load_from(
    name: str, path: Path | None, val_size: int | None, image_size: int | None
) -> DataSource:
    if path is None:
        raise DataError(f"{name} is not embedded: say where it lies (--data PATH)")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if name in ("cifar10", "cifar100"):
        from signbit.data.cifar import load_cifar

        return load_cifar(path, name, val_size)
    if name in ("fashion_mnist", "mnist"):
        from signbit.data.idx import load_idx

        return load_idx(path, name, val_size)
    from signbit.data.folder import load_folder

    return load_folder(path, image_size=image_size, val_size=val_size)


def __getattr__(name: str) -> object:
    # Batches are torch tensors; reading and normalising images needs NumPy only.
    if name in ("Augmentation", "BatchLoader"):
        from signbit.data import loader

        return getattr(loader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
