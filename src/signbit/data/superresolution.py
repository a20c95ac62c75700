"""Photographs in two sizes: what super-resolution learns from, and is scored with.

A *pair* is a photograph and the same scene with ``scale`` times fewer pixels a side. Pairs are read
as they are from ``HR/<id>.png`` and ``LR/<id>.png``, maybe below ``x2``, ``x3`` and ``x4``, as
benchmarks publish them. Of photographs alone the small one is made: cut at the right and bottom to
a multiple of ``scale``, then Pillow's ``BICUBIC``, which is antialiased as MATLAB's ``imresize`` is
(on Set5 they differ by less than 0.2 grey levels on average).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from signbit.data import photographs
from signbit.data.base import Source, stratified_cut
from signbit.data.decode import open_image, pixels, track
from signbit.data.files import DataFile, list_files
from signbit.data.folder import SUFFIXES
from signbit.errors import DataError

# Of every data set, so that a network is not tied to one's statistics. 0.4 is the byte 102 exactly:
# an 8-bit first layer then sees each byte as itself.
MEAN, STD = 0.4, 0.25
SCALES = (2, 3, 4)
# The window of SSIM is 11 pixels wide, and a border of `scale` pixels is not scored.
_WINDOW = 11
_SPLITS = ("train", "val", "test")
_TEST_SETS = ("Set5",)


@dataclass(frozen=True)
class ScaledImages:
    """Photographs in two sizes.

    Attributes:
        low: N of uint8 [h, w, 3]; sizes may differ.
        high: N of uint8 [scale * h, scale * w, 3].
        names: how errors call each.
    """

    low: tuple[NDArray[np.uint8], ...]
    high: tuple[NDArray[np.uint8], ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Iterable[int]) -> ScaledImages:
        """The pairs at ``indices``, in that order."""
        chosen = list(indices)
        low, high, names = (
            tuple(part[i] for i in chosen) for part in (self.low, self.high, self.names)
        )
        return ScaledImages(low, high, names)


@dataclass(frozen=True)
class ScaledSource(Source[ScaledImages]):
    """ScaledImages for training, validation and testing, disjoint, of one scale.

    Attributes:
        scale: pixels of the large image a pixel of the small one, a side.
    """

    scale: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the smallest test image; networks take every size."""
        height, width, channels = min((low.shape for low in self.test.low), key=np.prod)
        return channels, height, width


def load_scaled(
    name: str, path: Path | None, *, scale: int | None, val_size: int | None = None, crop: int = 1
) -> ScaledSource:
    """Read a data set into memory.

    Args:
        name: ``skimage`` (embedded: scikit-image's photographs), ``benchmark`` (T91 and BSDS500 to
            learn from, Set5 as test, each a folder or .tar within ``path``), ``folder``, or
            ``auto``: told from the files, and ``skimage`` without a path.
        path: where it lies.
        scale: 2, 3 or 4.
        val_size: images to cut from train where the data have no validation images of their own;
            None for a tenth.
        crop: pixels that each side of a small training image must have.

    Raises:
        DataError: an unknown name or scale, a missing, empty or unreadable file or split, an image
            that is too small, a scale that the data do not have, or two images of a pair that do
            not fit. It names the file.
    """
    if scale not in SCALES:
        raise DataError(
            f"data.scale: {'missing' if scale is None else scale}; super-resolution enlarges 2, 3 "
            "or 4 times"
        )
    if name == "auto":
        name = "skimage" if path is None else detect_scaled(path)
    if name == "skimage":
        if path is not None:
            raise DataError(f"skimage is embedded and takes no path, got {path}")
        splits = _embedded(scale)
    elif name not in ("benchmark", "folder"):
        raise DataError(f"unknown data source {name!r}: expected skimage, benchmark or folder")
    elif path is None:
        raise DataError(f"{name} is not embedded: say where it lies (--data PATH)")
    else:
        splits = _benchmark(path, scale) if name == "benchmark" else _folder(path, scale)
    label = name if path is None else str(path)
    splits = _complete(label, splits, val_size)
    scored = -(-(_WINDOW + 2 * scale) // scale)
    for split, part in splits.items():
        _require_size(part, crop if split == "train" else scored, split)
    return ScaledSource(
        name, **splits, class_names=(), mean=(MEAN,) * 3, std=(STD,) * 3, scale=scale
    )


def detect_scaled(path: Path) -> str:
    """``benchmark`` where a test set lies beside training sets, else ``folder``.

    Raises:
        DataError: nothing there, or no photograph in it.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir() and any(_stem(entry) in _TEST_SETS for entry in path.iterdir()):
        return "benchmark"
    if any(_is_picture(file) for file in list_files(path)):
        return "folder"
    raise DataError(
        f"{path}: holds neither photographs ({', '.join(SUFFIXES)}) nor Set5 with training images"
    )


def shrink(image: NDArray[np.uint8], scale: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(small, large): a photograph cut to a multiple of ``scale``, and made smaller by that.

    uint8 [H, W, 3] -> uint8 [H // scale, W // scale, 3] and [scale * (H // scale), ...].
    """
    height, width = (side // scale for side in image.shape[:2])
    large = np.ascontiguousarray(image[: height * scale, : width * scale])
    if not height or not width:
        return np.empty((height, width, 3), np.uint8), large
    small = Image.fromarray(large).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(small), large


# --- sources ---


def _embedded(scale: int) -> dict[str, ScaledImages]:
    chosen = {"train": photographs.TRAIN, "val": photographs.VAL, "test": photographs.TEST}
    return {
        split: _shrunk(photographs.photographs(names).items(), scale)
        for split, names in chosen.items()
    }


def _benchmark(path: Path, scale: int) -> dict[str, ScaledImages]:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; a benchmark is one that holds T91 and Set5")
    roots: dict[str, list[Path]] = {split: [] for split in _SPLITS}
    for entry in sorted(path.iterdir()):
        stem = _stem(entry)
        if stem in _TEST_SETS:
            roots["test"].append(entry)
        elif stem is not None and "val" in stem.lower():
            roots["val"].append(entry)
        elif stem is not None and ("train" in stem.lower() or stem == "T91"):
            roots["train"].append(entry)
    for split, what in (("test", "Set5"), ("train", "T91, or one with 'train' in its name,")):
        if not roots[split]:
            raise DataError(f"{path}: holds no {what} as a folder or .tar")
    return {
        split: _joined([_read(root, list_files(root), scale) for root in found])
        for split, found in roots.items()
        if found
    }


def _folder(path: Path, scale: int) -> dict[str, ScaledImages]:
    files = [file for file in list_files(path) if _is_picture(file)]
    found: dict[str, list[DataFile]] = {}
    for file in files:
        split = next((part for part in file.name.split("/")[:-1] if part in _SPLITS), None)
        found.setdefault(split or "", []).append(file)
    if path.is_dir():
        for folder in (f for f in path.iterdir() if f.is_dir() and f.name in _SPLITS):
            found.setdefault(folder.name, [])
    if set(found) - {""} and "" in found:
        raise DataError(f"{found[''][0]}: lies outside of train, val and test, which are there too")
    if "" in found:
        found = {"train": found[""]}
    if "train" not in found:
        raise DataError(f"{path}: holds no photographs for training")
    for split, part in found.items():
        if not part:
            raise DataError(f"{path / split}: the {split} split holds no image")
    return {split: _read(path, part, scale) for split, part in found.items()}


def _complete(
    label: str, splits: dict[str, ScaledImages], val_size: int | None
) -> dict[str, ScaledImages]:
    """The three splits: those that are missing come from others, the same ones every time."""
    splits = dict(splits)
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
    if "val" in splits and val_size not in (None, len(splits["val"])):
        raise DataError(
            f"{label} brings its own {len(splits['val'])} validation images: leave out "
            f"val_size={val_size}"
        )
    for split in ("test", "val"):
        if split in splits:
            continue
        train = splits["train"]
        size = max(1, round(len(train) * 0.2) if split == "test" else len(train) // 10)
        if split == "val" and val_size is not None:
            size = val_size
        if not 0 < size < len(train):
            raise DataError(f"{label}: cannot cut {size} {split} images from {len(train)}")
        kept, cut = stratified_cut(np.zeros(len(train), np.int64), size)
        splits["train"], splits[split] = train.subset(kept), train.subset(cut)
    return {split: splits[split] for split in _SPLITS}


def _require_size(pairs: ScaledImages, least: int, split: str) -> None:
    for name, low in zip(pairs.names, pairs.low, strict=True):
        if min(low.shape[:2]) < least:
            why = "data.crop_size asks for" if split == "train" else "scores need"
            raise DataError(
                f"{name}: {low.shape[1]}x{low.shape[0]} pixels when small, but {why} at least "
                f"{least} a side: take the image out"
                + (", or choose a smaller data.crop_size" if split == "train" else "")
            )


# --- files ---


def _stem(entry: Path) -> str | None:
    """The name of a data set: of a folder, or of a .tar without that ending."""
    if entry.is_dir():
        return entry.name
    return entry.stem if entry.suffix == ".tar" else None


def _is_picture(file: DataFile) -> bool:
    return PurePosixPath(file.name).suffix.lower() in SUFFIXES


def _read(root: Path, files: Sequence[DataFile], scale: int) -> ScaledImages:
    files = [file for file in files if _is_picture(file)]
    if not files:
        raise DataError(f"{root}: holds no photograph ({', '.join(SUFFIXES)})")
    if any({"HR", "LR"} & set(file.name.split("/")[:-1]) for file in files):
        return _given(root, files, scale)
    images = (
        (str(file), pixels(open_image(file.read(), str(file)), 3))
        for file in track(files, f"decoding {root.name}")
    )
    return _shrunk(images, scale)


def _given(root: Path, files: Sequence[DataFile], scale: int) -> ScaledImages:
    """Pairs as they lie in HR and LR, of this scale where scales have folders of their own."""
    found: dict[str, dict[str, DataFile]] = {"HR": {}, "LR": {}}
    scales = set()
    for file in files:
        *folders, last = file.name.split("/")
        kind = next((part for part in folders if part in found), None)
        if kind is None:
            raise DataError(f"{file}: lies in neither HR nor LR, which are there too")
        of_scale = next((part for part in folders if re.fullmatch(r"[xX]\d+", part)), None)
        scales.add(of_scale)
        if of_scale is not None and int(of_scale[1:]) != scale:
            continue
        rest = [part for part in folders if part not in (kind, of_scale)]
        # DIV2K's small images have the scale in their names too: 0801x2.png
        stem = re.sub(rf"[xX]{scale}$", "", PurePosixPath(last).stem)
        found[kind]["/".join([*rest, stem])] = file
    if not found["HR"] and not found["LR"]:
        known = ", ".join(sorted(str(s) for s in scales))
        raise DataError(f"{root}: has no pairs of scale x{scale}, only of {known}")
    for kind, other in (("HR", "LR"), ("LR", "HR")):
        for key, file in found[kind].items():
            if key not in found[other]:
                raise DataError(f"{file}: has no {other} image of the same name")
    low, high, names = [], [], []
    for key, large in track(sorted(found["HR"].items()), f"decoding {root.name}"):
        small = found["LR"][key]
        low.append(pixels(open_image(small.read(), str(small)), 3))
        high.append(pixels(open_image(large.read(), str(large)), 3))
        names.append(str(large))
        wanted = tuple(side * scale for side in low[-1].shape[:2])
        if high[-1].shape[:2] != wanted:
            raise DataError(
                f"{large}: {high[-1].shape[1]}x{high[-1].shape[0]} pixels, but {scale} times "
                f"{small} ({low[-1].shape[1]}x{low[-1].shape[0]}) are {wanted[1]}x{wanted[0]}"
            )
    return ScaledImages(tuple(low), tuple(high), tuple(names))


def _shrunk(images: Iterable[tuple[str, NDArray[np.uint8]]], scale: int) -> ScaledImages:
    names, low, high = [], [], []
    for name, image in images:
        small, large = shrink(image, scale)
        names.append(name)
        low.append(small)
        high.append(large)
    return ScaledImages(tuple(low), tuple(high), tuple(names))


def _joined(parts: Sequence[ScaledImages]) -> ScaledImages:
    low, high, names = (
        sum((getattr(part, field) for part in parts), ()) for field in ("low", "high", "names")
    )
    return ScaledImages(low, high, names)
