"""Images for the engine: pictures, folders of them, NumPy arrays, and random ones."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from signbit.errors import DataError, SignbitError

if TYPE_CHECKING:
    from signbit.runtime import Session


_SHARE = 4  # images may take this part of the memory: the maps of the first layers take more


def random_images(session: Session, batch: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """What the session takes: uint8 pixels, or float32 where the file cannot normalise them.

    ``size`` is (height, width), by default what the file was compiled for. Raises SignbitError for
    images that this machine's memory cannot hold.
    """
    channels, *compiled = session.input_shape
    height, width = size or compiled
    needed = math.prod((batch, channels, height, width)) * (1 if session.accepts_pixels else 4)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory / _SHARE:
        raise SignbitError(
            f"{batch} image(s) of {height}x{width} pixels take {needed / 1e9:,.0f} GB, the "
            f"network's maps several times that, and this machine has {memory / 1e9:,.0f} GB of "
            "memory: choose a smaller batch or size"
        )
    generator = np.random.default_rng(0)
    if session.accepts_pixels:
        return generator.integers(0, 256, (batch, height, width, channels), np.uint8)
    return generator.standard_normal((batch, channels, height, width), np.float32)


def read_inputs(path: Path, shape: tuple[int, int, int]) -> Iterator[tuple[str, np.ndarray]]:
    """Named inputs, one image each: uint8 [H, W, C], or float32 [1, C, H, W] from a float .npy.

    Args:
        path: a picture, a folder of pictures, or an ``.npy`` with one image or a batch.
        shape: (C, H, W) of the compiled network; pictures are scaled to cover it and
            centre-cropped, arrays must have that shape.

    Raises:
        DataError: missing, unreadable, no picture in the folder, or an array of another type or
            shape; a picture where pillow is not installed.
    """
    if path.suffix.lower() == ".npy" and path.exists():
        yield from _array(path, shape)
        return
    for file in _files(path):
        yield str(file), _picture(file, shape)


def _files(path: Path) -> list[Path]:
    """The picture at a path, or those in a folder."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    try:
        from signbit.data.folder import SUFFIXES
    except ImportError as error:
        if not (error.name or "").startswith("PIL"):
            raise
        raise DataError(
            f"{path}: pictures need pillow: pip install pillow; .npy files work without"
        ) from error
    if not path.is_dir():
        return [path]
    files = sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise DataError(f"{path}: holds no picture ({', '.join(SUFFIXES)})")
    return files


def read_pictures(path: Path, channels: int) -> Iterator[tuple[str, np.ndarray]]:
    """Named pictures as they are: uint8 [H, W, C].

    Args:
        path: a picture, a folder of pictures, or an ``.npy`` with one such image.
        channels: 1 or 3, as the network takes them.

    Raises:
        DataError: missing, unreadable, or no picture in the folder.
    """
    if path.suffix.lower() == ".npy" and path.exists():
        array = _load_array(path)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels:
            raise DataError(
                f"{path}: {array.dtype} {array.shape}; expected uint8 [H, W, {channels}] pixels"
            )
        yield str(path), array
        return
    from signbit.data.decode import open_image, pixels

    for file in _files(path):
        yield str(file), pixels(open_image(file, str(file)), channels)


def _picture(file: Path, shape: tuple[int, int, int]) -> np.ndarray:
    from signbit.data.decode import open_image, pixels, resize_and_crop

    channels, height, width = shape
    if channels not in (1, 3):
        raise DataError(f"{file}: the network takes {channels} channels, a picture has 1 or 3")
    return pixels(resize_and_crop(open_image(file, str(file)), (height, width)), channels)


def _load_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable .npy file ({error})") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: not a single array")
    return array


def _array(path: Path, shape: tuple[int, int, int]) -> Iterator[tuple[str, np.ndarray]]:
    array = _load_array(path)
    if array.dtype == np.uint8 and array.ndim in (3, 4):
        images = array[None] if array.ndim == 3 else array
    elif array.dtype == np.float32 and array.ndim == 4:
        images = array[:, None]
    else:
        raise DataError(
            f"{path}: {array.dtype} {array.shape}; expected uint8 [H, W, C] or [N, H, W, C] "
            "pixels, or normalised float32 [N, C, H, W]"
        )
    if not len(images):
        raise DataError(f"{path}: an empty batch")
    channels, height, width = shape
    if images.shape[1:] not in ((height, width, channels), (1, channels, height, width)):
        raise DataError(
            f"{path}: {array.dtype} {array.shape}, but the network was compiled for "
            f"{height}x{width} pixels of {channels} channels: bring the images to that size"
        )
    for index, image in enumerate(images):
        yield (str(path) if len(images) == 1 else f"{path}[{index}]"), image
