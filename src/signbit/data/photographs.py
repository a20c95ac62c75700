"""The photographs that scikit-image's package holds: real, and no download."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signbit.data.decode import open_image, pixels
from signbit.errors import DataError

# Files of scikit-image's package that are photographs, or textures photographed; those of its
# pictures that are drawn, scanned or downloaded are left out. Chosen once and for all.
TRAIN = (
    "coffee.png", "motorcycle_left.png", "hubble_deep_field.jpg", "camera.png", "brick.png",
    "grass.png", "gravel.png", "coins.png",
)  # fmt: skip
VAL = ("rocket.jpg",)
TEST = ("astronaut.png", "chelsea.png")


def photographs(names: Sequence[str] = TRAIN + VAL + TEST) -> dict[str, NDArray[np.uint8]]:
    """Photographs of scikit-image's package by file name: uint8 [H, W, 3], grey ones too.

    Sizes differ, from 303x384 (height x width) to 872x1000.

    Raises:
        DataError: scikit-image is not installed, or its package lacks a file.
    """
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "the embedded photographs are scikit-image's: pip install scikit-image, or give your "
            "own (--data PATH)"
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return {name: pixels(open_image(folder / name, str(folder / name)), 3) for name in names}
