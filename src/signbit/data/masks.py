"""Photographs with masks: for each image another one that holds a class index a pixel.

``images/<id>.jpg`` belongs to ``labels/<id>.png`` (or ``masks/<id>.png``). Splits are folders of
the names ``train``, ``val`` and ``test``, above or below those two, or archives such as
``camvid_train.tar`` beside each other. Of missing splits: without ``test`` but with ``val``,
``val`` is the test set; with neither, a fixed fifth of all is. Validation images are cut from train
when needed.

``classes.txt`` at the root, or in an archive, names the classes, one a line. Without it they are
numbers, up to the largest in the training masks; CamVid's eleven are known.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from signbit.data.base import Source, channel_statistics, stratified_cut
from signbit.data.cache import cached_images
from signbit.data.decode import open_image, pixels, track
from signbit.data.files import DataFile, list_files
from signbit.data.folder import SUFFIXES
from signbit.errors import DataError

VOID = 255  # in masks in memory: neither learnt nor scored
MAX_CLASSES = VOID
CAMVID = (
    "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car",
    "Pedestrian", "Bicyclist",
)  # fmt: skip
# names of its frames, such as 0016E5_07959, 0006R0_f00930 and Seq05VD_f00000
_CAMVID_ID = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+")
_SPLITS = ("train", "val", "test")
_IMAGE_FOLDERS, _MASK_FOLDERS = ("images",), ("labels", "masks")
_LOSSY = (".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class MaskedImages:
    """Images and their masks.

    Attributes:
        images: uint8 [N, H, W, C].
        masks: N of uint8 [h, w], a class index or :data:`VOID` a pixel. They cover the same scene,
            and may have more or fewer pixels than the images.
    """

    images: NDArray[np.uint8]
    masks: tuple[NDArray[np.uint8], ...]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(
                f"images must be uint8 [N, H, W, C], got {self.images.dtype} {self.images.shape}"
            )
        if len(self.masks) != len(self.images):
            raise ValueError(f"{len(self.images)} images but {len(self.masks)} masks")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: NDArray[np.int64]) -> MaskedImages:
        """The images at ``indices``, in that order."""
        return MaskedImages(self.images[indices], tuple(self.masks[i] for i in indices))


@dataclass(frozen=True)
class MaskedSource(Source[MaskedImages]):
    """Images with masks: training, validation and test images, disjoint."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W), as a network takes it."""
        _, height, width, channels = self.train.images.shape
        return channels, height, width


@dataclass
class _Split:
    """Files of one split, by id; ``root`` is where they lie."""

    root: Path
    images: dict[str, DataFile] = field(default_factory=dict)
    masks: dict[str, DataFile] = field(default_factory=dict)


def load_masks(
    path: Path,
    *,
    image_size: tuple[int, int] | None = None,
    val_size: int | None = None,
    void: int | None = None,
    least: int = 1,
) -> MaskedSource:
    """Read images and masks into memory; images are decoded once and cached.

    Args:
        path: a folder or an uncompressed .tar.
        image_size: (height, width) that every image is scaled to; masks keep their size. None
            leaves images as they are; all must then have one size.
        val_size: images to cut from train, where the data have no validation split of their own;
            None for a tenth.
        void: the index of pixels that belong to no class; None for none (CamVid: 11).
        least: pixels that each side of an image must have.

    Raises:
        DataError: no images; a split without any; an image without a mask or a mask without an
            image; a mask of another size than its image, with colours, or with an index beyond the
            classes; differing or too small images; an unreadable file. Each names the file.
    """
    splits, names_file = _find(path)
    _check_pairs(path, splits)
    names = None if names_file is None else _class_names(names_file)
    camvid = names is None and all(
        _CAMVID_ID.fullmatch(PurePosixPath(name).name)
        for split in splits.values()
        for name in split.images
    )
    if camvid:
        names = CAMVID
        void = len(CAMVID) if void is None else void
    if names is not None and void == len(names) - 1:
        names = names[:-1]  # the void index had a line of its own
    found: dict[str, MaskedImages] = {}
    for name in sorted(splits, key=_SPLITS.index):
        sizes = _check_sizes(splits[name], image_size, least)
        masks = _read_masks(splits[name], sizes, names, void)
        if names is None:
            names = tuple(str(i) for i in range(1 + max(_largest(mask) for mask in masks)))
        images = _read_images(splits[name], image_size)
        found[name] = MaskedImages(images, masks)
    _require_same_shape(path, found)
    return cut_splits("masks", path, found, names or (), val_size)


def cut_splits(
    name: str,
    path: Path | None,
    splits: dict[str, MaskedImages],
    class_names: Sequence[str],
    val_size: int | None,
) -> MaskedSource:
    """Assemble a source of the splits that there are; ``train`` must be among them.

    Raises:
        DataError: a cut would leave no training image, or ``val_size`` contradicts the data.
    """
    label = name if path is None else str(path)
    splits = dict(splits)
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    for part in ("test", "val"):
        train = splits["train"]
        if part in splits:
            if part == "val" and val_size not in (None, len(splits["val"])):
                raise DataError(
                    f"{label} brings its own {len(splits['val'])} validation images: leave out "
                    f"val_size={val_size}"
                )
            continue
        size = max(1, round(len(train) * 0.2) if part == "test" else len(train) // 10)
        if part == "val" and val_size is not None:
            size = val_size
        if not 0 < size < len(train):
            raise DataError(f"{label}: cannot cut {size} {part} images from {len(train)}")
        keep, cut = stratified_cut(np.zeros(len(train), np.int64), size)
        splits["train"], splits[part] = train.subset(keep), train.subset(cut)
    mean, std = channel_statistics(splits["train"].images)
    return MaskedSource(
        name, splits["train"], splits["val"], splits["test"], tuple(class_names), mean, std
    )


# --- finding files ---


def _find(path: Path) -> tuple[dict[str, _Split], DataFile | None]:
    """The files of each split, and that of the classes' names."""
    splits: dict[str, _Split] = {}
    names_file = None
    for archive_split, root in _roots(path):
        if archive_split is not None:
            splits.setdefault(archive_split, _Split(root))
        for file in list_files(root):
            *folders, last = file.name.split("/")
            if last == "classes.txt":
                names_file = names_file or file
                continue
            split, kind, rest = _place(folders)
            if kind is None or PurePosixPath(last).suffix.lower() not in SUFFIXES:
                continue
            split = archive_split or split or "train"
            of_split = splits.setdefault(split, _Split(root))
            of_kind = of_split.images if kind == "image" else of_split.masks
            key = "/".join([*rest, PurePosixPath(last).stem])
            if key in of_kind:
                raise DataError(f"{file}: the {kind} {of_kind[key]} has the same name")
            of_kind[key] = file
        if root.is_dir():
            for folder in (f for f in root.iterdir() if f.name in _SPLITS and f.is_dir()):
                splits.setdefault(folder.name, _Split(folder))
    return splits, names_file


def _roots(path: Path) -> list[tuple[str | None, Path]]:
    """What to look through: the archives of the splits, or ``path`` itself."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [(None, path)]
    archives: list[tuple[str | None, Path]] = []
    for file in sorted(path.glob("*.tar")):
        split = re.split(r"[_\-.]", file.stem)[-1]
        if split in _SPLITS:
            if split in {known for known, _ in archives}:
                raise DataError(f"{file}: a second archive of the {split} split")
            archives.append((split, file))
    return archives or [(None, path)]


def _place(folders: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """(split, "image" or "mask", remaining folders) that a file's folders say."""
    split = kind = None
    rest = []
    for folder in folders:
        if folder in _SPLITS and split is None:
            split = folder
        elif folder in _IMAGE_FOLDERS and kind is None:
            kind = "image"
        elif folder in _MASK_FOLDERS and kind is None:
            kind = "mask"
        elif kind is not None or split is not None:
            rest.append(folder)  # those above are the data set's own
    return split, kind, rest


def _check_pairs(path: Path, splits: dict[str, _Split]) -> None:
    if not any(split.images for split in splits.values()):
        raise DataError(
            f"{path}: holds no images with masks: expected images/<id>.jpg with labels/<id>.png, "
            "within train, val and test or in archives such as NAME_train.tar, NAME_val.tar"
        )
    if "train" not in splits:
        raise DataError(f"{path}: has no train split, only {', '.join(sorted(splits))}")
    for name, split in splits.items():
        if not split.images:
            raise DataError(f"{split.root}: the {name} split holds no image")
        for key, file in split.images.items():
            if key not in split.masks:
                raise DataError(f"{file}: has no mask labels/{key}.png in the {name} split")
        for key, file in split.masks.items():
            if key not in split.images:
                raise DataError(f"{file}: a mask without its image in the {name} split")


def _class_names(file: DataFile) -> tuple[str, ...]:
    try:
        lines = file.read().decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error})") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) < 2 or len(names) > MAX_CLASSES:
        raise DataError(f"{file}: names {len(names)} classes, expected 2 to {MAX_CLASSES}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{file}: names the class {twice!r} twice")
    return names


# --- decoding ---


def _read_masks(
    split: _Split,
    sizes: dict[str, tuple[int, int]],
    names: Sequence[str] | None,
    void: int | None,
) -> tuple[NDArray[np.uint8], ...]:
    """The masks of a split in the order of its images, checked against these."""
    masks = []
    for key, image in track(list(split.images.items()), f"decoding masks of {split.root.name}"):
        file = split.masks[key]
        mask = _read_mask(file, len(names) if names else MAX_CLASSES, void)
        width, height = sizes[key]
        if mask.shape != (height, width):
            raise DataError(
                f"{file}: the mask has {mask.shape[1]}x{mask.shape[0]} pixels, its image {image} "
                f"{width}x{height}"
            )
        masks.append(mask)
    return tuple(masks)


def _read_mask(file: DataFile, classes: int, void: int | None) -> NDArray[np.uint8]:
    if PurePosixPath(file.name).suffix.lower() in _LOSSY:
        raise DataError(f"{file}: a mask must be lossless, such as .png: JPEG changes indices")
    image = open_image(file.read(), str(file))
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        raise DataError(
            f"{file}: a colour mask ({image.mode}), expected one class index a pixel: an 8-bit "
            "grey or palette image"
        )
    indices = np.asarray(image)
    table = np.full(256, VOID, np.uint8)
    table[:classes] = np.arange(classes)
    known = np.arange(256) < classes
    if void is not None:
        table[void], known[void] = VOID, True
    wide = indices.dtype not in (np.uint8, np.bool)
    outside = (indices < 0) | (indices > 255) if wide else np.zeros((), bool)
    indices = np.where(outside, 0, indices).astype(np.uint8)
    present = np.bincount(indices.ravel(), minlength=256) > 0
    if outside.any() or (present & ~known).any():
        y, x = np.argwhere(outside | ~known[indices])[0]
        index = np.asarray(image)[y, x]
        raise DataError(
            f"{file}: class index {index} at column {x}, row {y}, but there are {classes} classes, "
            f"from 0 on; if it marks pixels of no class, say data.options: {{void: {index}}}"
        )
    return table[indices]


def _largest(mask: NDArray[np.uint8]) -> int:
    return int(mask[mask != VOID].max(initial=0))


def _size(file: DataFile) -> tuple[int, int]:
    """(width, height) of an image, from its header."""
    try:
        with Image.open(io.BytesIO(file.read())) as image:
            return image.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{file}: not a readable image ({error})") from error


def _check_sizes(
    split: _Split, image_size: tuple[int, int] | None, least: int
) -> dict[str, tuple[int, int]]:
    """(width, height) of every image on disk, by id."""
    sizes = {key: _size(file) for key, file in split.images.items()}
    for key, (width, height) in sizes.items():
        file = split.images[key]
        if image_size is not None:
            height, width = image_size
        if min(width, height) < least:
            raise DataError(
                f"{file}: {'scaled to ' if image_size else ''}{width}x{height} pixels, but one "
                f"pixel of the network's coarsest map stands for {least}x{least}: an image must "
                "have as many at least"
            )
    return sizes


def _read_images(split: _Split, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    files = list(split.images.values())
    key = hashlib.sha256(f"masks {size}".encode())
    for file in files:
        key.update(f"\n{file.identity}".encode())
    return cached_images(key.hexdigest(), lambda: _decode(files, size))


def _decode(files: Sequence[DataFile], size: tuple[int, int] | None) -> NDArray[np.uint8]:
    images = []
    for file in track(files, f"decoding {files[0].path.name}"):
        image = open_image(file.read(), str(file))
        if size is not None and image.size != (size[1], size[0]):
            image = image.convert("RGB") if image.mode not in ("L", "RGB") else image
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        if images and image.size != images[0].size:
            raise DataError(
                f"{file}: {image.width}x{image.height} pixels, the others have "
                f"{images[0].width}x{images[0].height}; set data.image_size to bring all to one "
                "size"
            )
        images.append(image)
    channels = 1 if all(image.mode in ("1", "L") for image in images) else 3
    return np.stack([pixels(image, channels) for image in images])


def _require_same_shape(path: Path, splits: dict[str, MaskedImages]) -> None:
    shapes = {name: part.images.shape[1:] for name, part in splits.items()}
    if len(set(shapes.values())) > 1:
        raise DataError(f"{path}: the splits differ in image shape, {shapes}; set data.image_size")
