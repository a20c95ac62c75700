"""A folder of images: one sub-folder a class, in split folders or not.

``root/train/cat/1.jpg``, ``root/val/...``, ``root/test/...``, or plain ``root/cat/1.jpg``. Of
missing splits: without ``test`` but with ``val``, ``val`` is the test set (as with ImageNet,
whose test labels are not public); with neither, a fixed fifth of every class is. Validation
images are cut from train when needed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signbit.data.base import DataSource, ImageDataset, make_source, stratified_cut
from signbit.data.cache import cached_images
from signbit.data.decode import open_image, pixels, resize_and_crop, stack, track
from signbit.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
Files = list[tuple[Path, int]]


def is_image_folder(path: Path) -> bool:
    """Whether ``path`` has class folders with images in them, directly or in ``train``."""
    root = path / "train" if (path / "train").is_dir() else path
    return root.is_dir() and any(_images_in(folder) for folder in root.iterdir() if folder.is_dir())


def load_folder(
    path: Path, *, image_size: int | None = None, val_size: int | None = None
) -> DataSource:
    """Read a folder of images into memory, decoded once and cached.

    Args:
        path: the root.
        image_size: side in pixels that every image is scaled (shorter side) and centre-cropped to;
            None keeps the size, which must then be the same for all.
        val_size: images to cut from train, where the folder has no validation split of its own.

    Raises:
        DataError: no images, differing sizes, an unreadable file, or a split with unknown classes.
    """
    train_root = path / "train" if (path / "train").is_dir() else path
    if not train_root.is_dir():
        raise DataError(f"{path}: no such folder")
    classes = sorted(f.name for f in train_root.iterdir() if f.is_dir() and _images_in(f))
    if len(classes) < 2:
        raise DataError(
            f"{train_root}: needs at least two class folders with images, found {classes}"
        )
    listing = {"train": _list_files(train_root, classes)}
    if train_root != path:
        for split in ("val", "test"):
            if (path / split).is_dir():
                listing[split] = _list_files(path / split, classes)
    if "val" in listing and "test" not in listing:
        listing["test"] = listing.pop("val")
    datasets = {split: _decode(files, image_size) for split, files in listing.items()}
    _require_same_shape(path, datasets)
    train = datasets["train"]
    if "test" not in datasets:
        keep, cut = stratified_cut(train.labels, max(1, round(len(train) * 0.2)))
        train, datasets["test"] = train.subset(keep), train.subset(cut)
    return make_source(
        "folder", train, datasets["test"], classes, val=datasets.get("val"), val_size=val_size
    )


def _images_in(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())


def _list_files(root: Path, classes: list[str]) -> Files:
    unknown = sorted(f.name for f in root.iterdir() if f.is_dir() and f.name not in classes)
    unknown = [name for name in unknown if _images_in(root / name)]
    if unknown:
        raise DataError(f"{root / unknown[0]}: a class that the train split does not have")
    files = [
        (file, label)
        for label, name in enumerate(classes)
        if (root / name).is_dir()
        for file in _images_in(root / name)
    ]
    if not files:
        raise DataError(f"{root}: no images in class folders")
    return files


def _decode(files: Files, image_size: int | None) -> ImageDataset:
    labels = np.array([label for _, label in files], np.int64)
    return ImageDataset(
        cached_images(_key(files, image_size), lambda: _read(files, image_size)), labels
    )


def _key(files: Files, image_size: int | None) -> str:
    digest = hashlib.sha256(f"folder {image_size}".encode())
    for file, _ in files:
        status = file.stat()
        digest.update(f"\n{file.resolve()} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _read(files: Files, image_size: int | None) -> NDArray[np.uint8]:
    images = []
    for file, _ in track(files, f"decoding {files[0][0].parent.parent.name}"):
        image = open_image(file, str(file))
        if image_size is not None:
            image = resize_and_crop(image, (image_size, image_size))
        images.append((str(file), image))
    channels = 1 if all(image.mode in ("1", "L") for _, image in images) else 3
    try:
        return stack((name, pixels(image, channels)) for name, image in images)
    except DataError as error:
        raise DataError(f"{error}; set data.image_size to bring all to one size") from error


def _require_same_shape(path: Path, datasets: dict[str, ImageDataset]) -> None:
    shapes = {split: data.images.shape[1:] for split, data in datasets.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"{path}: the splits differ in image shape, {shapes}; set data.image_size")
