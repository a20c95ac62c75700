"""Compressed images to pixels, with a progress bar."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from signbit.errors import DataError

Item = TypeVar("Item")


def track(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Iterate with a progress bar on stderr (shown on a terminal only, gone when done)."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    yield from rich_track(
        items, label, console=console, transient=True, disable=not console.is_terminal
    )


def open_image(source: Path | bytes | memoryview, name: str) -> Image.Image:
    """Decode an image file completely.

    Raises:
        DataError: it is missing, not an image, or damaged; the message holds ``name``.
    """
    try:
        image = Image.open(source if isinstance(source, Path) else io.BytesIO(source))
        image.load()
        return image
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{name}: not a readable image ({error})") from error


def pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """uint8 [H, W, channels]; ``channels`` is 1 (grey) or 3 (RGB)."""
    converted = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(converted, np.uint8).reshape(image.height, image.width, channels)


def resize_and_crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Scale so that ``size`` (height, width) is just covered, then cut out the centre.

    The usual evaluation transform; bilinear, antialiased. An image of that size is untouched.
    """
    height, width = size
    if image.size == (width, height):
        return image
    scale = max(height / image.height, width / image.width)
    scaled = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    image = image.convert("RGB") if image.mode not in ("L", "RGB") else image
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def resize_images(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """:func:`resize_and_crop` to ``size`` x ``size`` for uint8 images [N, H, W, C]."""
    resized = [
        np.asarray(resize_and_crop(Image.fromarray(image), (size, size)))
        for image in (images[..., 0] if images.shape[3] == 1 else images)
    ]
    return np.stack(resized).reshape(len(images), size, size, images.shape[3])


def stack(images: Iterable[tuple[str, NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Stack named images of one shape to [N, H, W, C].

    Raises:
        DataError: two shapes differ; names the first image that does.
    """
    arrays: list[NDArray[np.uint8]] = []
    for name, array in images:
        if arrays and array.shape != arrays[0].shape:
            raise DataError(f"{name}: size {array.shape}, the others have {arrays[0].shape}")
        arrays.append(array)
    return np.stack(arrays)
