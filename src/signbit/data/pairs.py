"""Photographs to learn matching from, and pairs of images with a homography to test it on.

Pairs lie as HPatches does (arXiv 1704.05939): a folder a scene, in it ``1.png`` (the reference),
``2.png``, ... of any image format, and the text files ``H_1_2``, ... (also ``H_1_2.txt``), 3x3
matrices that map pixels (x, y, 1) of image 1 to image k, the first pixel's centre at 0.

Both come from one path: a folder with ``photographs`` and ``pairs`` (folders or ``.tar``), or one
with the archives ``super_resolution/BSDS500_train100.tar``, ``super_resolution/T91.tar`` and
``matching/matching_dev.tar``. Without a path, scikit-image's own photographs serve for both.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signbit.data.base import Source
from signbit.data.decode import open_image, pixels
from signbit.data.files import DataFile, list_files
from signbit.data.folder import SUFFIXES
from signbit.data.photographs import TEST, TRAIN, VAL, photographs
from signbit.data.warps import Views, resize_longer
from signbit.errors import DataError

SMALLEST = 64  # pixels of a side
_HOMOGRAPHY = re.compile(r"H_1_(\d+)(\.txt)?$")
_LAYOUTS = (
    (("photographs", "photographs.tar"), ("pairs", "pairs.tar")),
    (
        ("super_resolution/BSDS500_train100.tar", "super_resolution/T91.tar"),
        ("matching/matching_dev.tar",),
    ),
)
_TEST_PAIRS = 4  # of each embedded photograph of the test split


@dataclass(frozen=True)
class Photographs:
    """Images of any sizes: uint8 [H, W, 3] each, and their files' names."""

    names: tuple[str, ...]
    images: tuple[NDArray[np.uint8], ...]

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Photographs:
        """The photographs at ``indices``, in that order."""
        return Photographs(
            tuple(self.names[i] for i in indices), tuple(self.images[i] for i in indices)
        )


@dataclass(frozen=True)
class Pair:
    """Two images of one plane, or taken from one place.

    Attributes:
        name: scene and images, such as ``"graf 1-2"``.
        first, second: uint8 [H, W, 3], of any two sizes.
        homography: float64 [3, 3], maps (x, y, 1) of the first to the second.
    """

    name: str
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    homography: NDArray[np.float64]


@dataclass(frozen=True)
class MatchingSource(Source["Photographs | tuple[Pair, ...]"]):
    """Photographs to train on, and pairs to validate and test on.

    Attributes:
        longer_side: at most so many pixels have the longer sides of the pairs' images.
    """

    longer_side: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a photograph 4 wide and 3 high; others work as well."""
        return self.channels, self.longer_side * 3 // 16 * 4, self.longer_side // 4 * 4


def load_matching(
    path: Path | None, *, val_size: int | None, longer_side: int, views: Views
) -> MatchingSource:
    """Photographs and pairs, as the module says.

    Args:
        path: a folder; None for the embedded photographs.
        val_size: photographs that are cut from those for training; None for a tenth. Each gives two
            validation pairs.
        longer_side: of the test images, in pixels; larger ones are reduced, homographies with them.
        views: how the validation pairs (and the embedded test pairs) are drawn.

    Raises:
        DataError: a file is missing or broken, there are no photographs or pairs, or too few for
            ``val_size``.
    """
    if path is None:
        name, learnt, test = "skimage", _embedded(TRAIN + VAL), None
    else:
        name = "image_pairs"
        folders, tested = _parts(path)
        learnt, test = read_photographs(folders), read_pairs(tested, longer_side)
    count = max(1, len(learnt) // 10) if val_size is None else val_size
    if not 0 < count < len(learnt):
        where = "the embedded photographs" if path is None else path
        raise DataError(
            f"{where}: cannot cut {count} of {len(learnt)} photographs for validation: set "
            f"val_size to 1 to {len(learnt) - 1}"
        )
    # Files that follow each other may show the same things, so that a fixed shuffle decides.
    order = np.random.default_rng(20240229).permutation(len(learnt))
    train, cut = learnt.subset(np.sort(order[count:])), learnt.subset(order[:count])
    size = (longer_side * 3 // 8, longer_side // 2)
    if test is None:
        test = warped_pairs(_embedded(TEST), size, views, each=_TEST_PAIRS, seed=1)
    return MatchingSource(
        name,
        train,
        warped_pairs(cut, size, views, each=2, seed=0),
        test,
        (),
        *_statistics(train),
        longer_side,
    )


def _statistics(train: Photographs) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over all pixels, in units of [0, 1]."""
    count = sum(image.shape[0] * image.shape[1] for image in train.images)
    total = sum(image.sum((0, 1), np.float64) for image in train.images)
    squares = sum(np.square(image, dtype=np.float64).sum((0, 1)) for image in train.images)
    mean = total / count / 255
    std = np.sqrt(np.maximum(squares / count / 255**2 - mean**2, 1e-6))
    return tuple(map(float, mean)), tuple(map(float, std))


def _parts(path: Path) -> tuple[list[Path], list[Path]]:
    if not path.exists():
        raise DataError(f"{path}: no such folder")
    for layout in _LAYOUTS:
        found = [[path / name for name in names if (path / name).exists()] for names in layout]
        if all(found):
            return found[0], found[1]
    raise DataError(
        f"{path}: needs photographs to train on and pairs to test on: the folders (or .tar files) "
        f"photographs and pairs, or {', '.join(_LAYOUTS[1][0] + _LAYOUTS[1][1])}"
    )


def read_photographs(paths: Sequence[Path]) -> Photographs:
    """All images below some folders or ``.tar`` files.

    Raises:
        DataError: an image is unreadable or too small; or there is none.
    """
    files = [file for path in paths for file in list_files(path) if _is_image(file)]
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no photographs ({', '.join(SUFFIXES)})")
    return Photographs(tuple(f.name for f in files), tuple(_read(file) for file in files))


def read_pairs(paths: Sequence[Path], longer_side: int | None = None) -> tuple[Pair, ...]:
    """All pairs (1, k) of the scenes below some folders or ``.tar`` files.

    Args:
        paths: folders of scenes.
        longer_side: larger images are reduced to it, in pixels.

    Raises:
        DataError: a scene without image 1 or with one image only, an image without a homography or
            the other way round, a homography that is not 3x3 or cannot be inverted, an image that
            is unreadable or too small; or no scene.
    """
    scenes: dict[tuple[Path, str], list[DataFile]] = defaultdict(list)
    for path in paths:
        for file in list_files(path):
            scenes[path, file.name.rpartition("/")[0]].append(file)
    pairs: list[Pair] = []
    for (path, name), files in sorted(scenes.items()):
        if any(_is_image(file) for file in files):
            pairs += _scene(f"{path}: {name}" if name else str(path), files, longer_side)
    if not pairs:
        raise DataError(
            f"{', '.join(map(str, paths))}: no pairs: a scene is a folder with the images 1, 2, "
            "... and the homographies H_1_2, ..."
        )
    return tuple(pairs)


def _scene(where: str, files: list[DataFile], longer_side: int | None) -> list[Pair]:
    images: dict[int, DataFile] = {}
    matrices: dict[int, DataFile] = {}
    for file in files:
        stem = Path(file.name).stem
        if _is_image(file) and stem.isdigit():
            images[int(stem)] = file
        elif found := _HOMOGRAPHY.match(Path(file.name).name):
            matrices[int(found[1])] = file
    if 1 not in images or len(images) < 2:
        raise DataError(
            f"{where}: a pair needs the reference image 1 and another one, found "
            f"{sorted(Path(f.name).name for f in images.values()) or 'none that is a number'}"
        )
    for number in sorted(images.keys() - {1}):
        if number not in matrices:
            raise DataError(f"{images[number]}: its homography H_1_{number}.txt is missing")
    for number, file in sorted(matrices.items()):
        if number not in images:
            raise DataError(f"{file}: there is no image {number} beside it")

    def prepared(number: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        image = _read(images[number])
        return (image, np.eye(3)) if longer_side is None else resize_longer(image, longer_side)

    first, to_first = prepared(1)
    pairs = []
    for number in sorted(images.keys() - {1}):
        second, to_second = prepared(number)
        homography = to_second @ read_homography(matrices[number]) @ np.linalg.inv(to_first)
        scene = Path(files[0].name).parent.name
        pairs.append(
            Pair(f"{scene} 1-{number}".strip(), first, second, homography / homography[2, 2])
        )
    return pairs


def read_homography(file: DataFile) -> NDArray[np.float64]:
    """A 3x3 matrix from text, its last entry 1.

    Raises:
        DataError: it is unreadable, not 3x3 numbers, or cannot be inverted.
    """
    try:
        rows = [
            [float(word) for word in line.split()] for line in file.read().decode().splitlines()
        ]
        matrix = np.array([row for row in rows if row])
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a matrix of numbers ({error})") from error
    if [len(row) for row in rows] != [3, 3, 3]:
        raise DataError(
            f"{file}: a homography is 3x3 numbers, this has rows of {[len(row) for row in rows]}"
        )
    matrix = np.array(rows)
    usable = np.isfinite(matrix).all() and matrix[2, 2] and np.linalg.matrix_rank(matrix) == 3
    if not usable:
        raise DataError(f"{file}: not a homography: {matrix.tolist()} cannot be inverted")
    return matrix / matrix[2, 2]


def warped_pairs(
    photographs: Photographs, size: tuple[int, int], views: Views, *, each: int, seed: int
) -> tuple[Pair, ...]:
    """``each`` pairs of views (H, W) of every photograph, always the same for a ``seed``."""
    pairs = []
    for index, (name, image) in enumerate(zip(photographs.names, photographs.images, strict=True)):
        for number in range(each):
            generator = np.random.default_rng([20240229, seed, index, number])
            (first, second), homography = views.draw(image, size, generator)
            pairs.append(Pair(f"{name} {number + 1}", first, second, homography))
    return tuple(pairs)


def _embedded(names: Sequence[str]) -> Photographs:
    found = photographs(names)
    return Photographs(tuple(found), tuple(found.values()))


def _is_image(file: DataFile) -> bool:
    return file.name.lower().endswith(SUFFIXES)


def _read(file: DataFile) -> NDArray[np.uint8]:
    image = pixels(open_image(file.read(), str(file)), 3)
    if min(image.shape[:2]) < SMALLEST:
        raise DataError(
            f"{file}: {image.shape[1]}x{image.shape[0]} pixels are too few: each side needs "
            f"{SMALLEST}"
        )
    return image
